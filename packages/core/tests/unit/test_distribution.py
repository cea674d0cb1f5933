"""What an installed umbel says of itself, and how separately installed libraries become part of it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import umbel
from umbel import exceptions

ROOT = Path(__file__).resolve().parents[4]


def test_version_is_the_distributions() -> None:
    assert umbel.__version__ == importlib.metadata.version("umbel")


def test_typing_marker_is_installed() -> None:
    assert (Path(str(umbel.__file__)).parent / "py.typed").is_file()


@pytest.mark.parametrize(("group", "name"), [("console_scripts", "umbel"), ("umbel.plugins", "builtin")])
def test_entry_point_loads(group: str, name: str) -> None:
    (point,) = importlib.metadata.entry_points(group=group, name=name)
    assert point.load() is not None


def test_library_elsewhere_on_the_path_imports_as_part_of_umbel(tmp_path: Path) -> None:
    """A second distribution ships umbel/<name>/ without umbel/__init__.py and may lie in another folder."""
    library = tmp_path / "umbel" / "herbarium"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("from umbel import exceptions\nsheets = exceptions.UmbelError\n")
    program = (
        f"import sys; sys.path.append({str(tmp_path)!r}); from umbel import herbarium; print(herbarium.sheets.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("UmbelError", "")


@pytest.mark.parametrize("library", ["data", "train", "tune", "serve", "rl"])
def test_library_that_is_not_released_says_so(library: str) -> None:
    said = f"umbel.{library} is not in this version of Umbel: the library is not released yet"
    with pytest.raises(ModuleNotFoundError, match=said):
        importlib.import_module(f"umbel.{library}")
    with pytest.raises(ModuleNotFoundError, match=said):
        getattr(umbel, library)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("umbel", "job_submission"), ("umbel", "client"), ("umbel", "Language"), ("umbel.util", "accelerators"),
        ("umbel.util", "iter"), ("umbel.util", "pdb"), ("umbel.util", "connect"),
        ("umbel.experimental", "wait_tensor_freed"), ("umbel.experimental", "set_target_for_ref"),
    ],
)  # fmt: skip
def test_name_of_ray_that_is_missing_says_so(module: str, name: str) -> None:
    found = importlib.import_module(module)
    with pytest.raises(exceptions.UnsupportedAttribute, match=f"{module} has no '{name}': it is not in this version"):
        getattr(found, name)
    assert not hasattr(found, name)
    with pytest.raises(ModuleNotFoundError, match=f"{module}.{name} is not in this version of Umbel"):
        importlib.import_module(f"{module}.{name}")
    assert name in (ROOT / "README.md").read_text()


def test_reference_does_not_tell_its_transport_and_says_so() -> None:
    with pytest.raises(
        exceptions.UnsupportedAttribute, match="ObjectRef has no 'tensor_transport': a reference does not"
    ):
        getattr(umbel.ObjectRef, "tensor_transport")  # noqa: B009 - type checkers shall not know it


def test_name_that_is_nothing_of_ours_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="herbarium"):
        umbel.herbarium  # noqa: B018 - the access is the test
