"""Every public name says what it does, and docs/data/reference.md is what the code says."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from umbel import data

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_a_docstring(reference: ModuleType) -> None:
    assert [one.path for one in reference.every() if not one.doc] == []


def test_every_module_with_public_names_of_its_own_is_in_the_reference(reference: ModuleType) -> None:
    """The others have what `umbel.data` has, under names of Ray's modules."""
    public = {f"umbel.data.{one.name}" for one in pkgutil.iter_modules(data.__path__) if one.name[0] != "_"}
    own = {one for one in public if hasattr(importlib.import_module(one), "__all__")}
    assert own - {*reference.MODULES} == set()


def test_page_is_what_the_code_says(reference: ModuleType) -> None:
    """To mend it: `python tools/reference.py`."""
    assert reference.PAGE.read_text() == reference.page()


def test_a_name_without_a_docstring_would_be_found(reference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.Dataset.count, "__doc__", None)
    monkeypatch.setattr(data.read_csv, "__doc__", "")
    found = [one.path for one in reference.every() if not one.doc]
    assert found == ["umbel.data.read_csv", "umbel.data.Dataset.count"]
