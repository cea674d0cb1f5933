"""What an installed umbel says of itself, and how separately installed libraries become part of it."""

from __future__ import annotations

import doctest
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import umbel
from umbel import exceptions
from umbel._client import modules

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


NOT_RELEASED = "is not in this version of Umbel: the library is not released yet, so there is nothing to install"


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("data", r'is not installed: pip install "umbel\[data\]"'),
        ("train", NOT_RELEASED),
        ("tune", NOT_RELEASED),
        ("serve", NOT_RELEASED),
        ("rl", NOT_RELEASED),
    ],
)
def test_library_that_is_not_there_says_why(library: str, said: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"umbel.{library} {said}"):
        importlib.import_module(f"umbel.{library}")
    with pytest.raises(ModuleNotFoundError, match=f"umbel.{library} {said}"):
        exec(f"from umbel import {library}")
    with pytest.raises(exceptions.UnsupportedAttribute, match=f"umbel has no '{library}': it {said}"):
        getattr(umbel, library)
    assert not hasattr(umbel, library)
    assert getattr(umbel, library, None) is None


def test_library_that_is_there_and_lacks_another_says_which(tmp_path: Path) -> None:
    (tmp_path / "umbel" / "tune").mkdir(parents=True)
    (tmp_path / "umbel" / "tune" / "__init__.py").write_text("import umbel.train")
    program = f"import sys; sys.path.append({str(tmp_path)!r}); import umbel; umbel.tune"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "PlannedModule: umbel.train is not in this version of Umbel" in done.stderr


def test_package_can_be_walked_over() -> None:
    """As `inspect`, doctest and mock do."""
    names = {*dir(umbel), *umbel.__all__, *modules.LIBRARIES, *modules.LAZY}
    assert {name for name in names if not hasattr(umbel, name)} == modules.LIBRARIES
    assert dict(inspect.getmembers(umbel))["remote"] is umbel.remote
    assert doctest.DocTestFinder(exclude_empty=False).find(umbel)
    with mock.patch.object(umbel, "data", "a stand-in", create=True):
        assert umbel.data == "a stand-in"  # type: ignore[attr-defined]


@pytest.mark.parametrize("full_name", sorted(modules.PLANNED))
def test_name_of_ray_that_is_missing_says_so(full_name: str) -> None:
    module, _, name = full_name.rpartition(".")
    found = importlib.import_module(module)
    with pytest.raises(exceptions.UnsupportedAttribute, match=f"{module} has no '{name}': it is not in this version"):
        getattr(found, name)
    assert not hasattr(found, name)
    for statement in (f"import {full_name}", f"from {module} import {name}"):
        with pytest.raises(ModuleNotFoundError, match=f"{full_name} is not in this version of Umbel"):
            exec(statement)
    assert re.search(rf"\b{name}\b", (ROOT / "README.md").read_text()), "README.md lists what is missing"


def test_names_that_ray_has_are_there() -> None:
    """A few that are a line each."""
    from umbel.cloudpickle import CloudPickler, Pickler  # noqa: F401
    from umbel.types import ObjectRef
    from umbel.util.multiprocessing import JoinableQueue  # noqa: F401

    assert ObjectRef[int] == umbel.ObjectRef[int]


def test_reference_does_not_tell_its_transport_and_says_so() -> None:
    with pytest.raises(
        exceptions.UnsupportedAttribute, match="ObjectRef has no 'tensor_transport': a reference does not"
    ):
        getattr(umbel.ObjectRef, "tensor_transport")  # noqa: B009 - type checkers shall not know it


def test_name_that_is_nothing_of_ours_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="herbarium"):
        umbel.herbarium  # noqa: B018 - the access is the test
