"""What an installed umbel says of itself, and how separately installed libraries become part of it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import umbel


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
def test_missing_library_names_what_to_install(library: str) -> None:
    program = f"import umbel.{library}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith("ModuleNotFoundError: ")
    assert f'pip install "umbel[{library}]"' in done.stderr


def test_name_that_is_nothing_of_ours_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="herbarium"):
        umbel.herbarium  # noqa: B018 - the access is the test
