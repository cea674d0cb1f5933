"""What docs/data/from-ray-and-pandas.md calls the same is there, and what it calls missing is not."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from umbel import data
from umbel.data import expressions

PAGE = (Path(__file__).resolve().parents[4] / "docs/data/from-ray-and-pandas.md").read_text()
SECTIONS: dict[str, tuple[type | ModuleType, ...]] = {
    "Functions and classes of `ray.data`": (data,),
    "Methods of `Dataset`": (data.Dataset,),
    "Expressions": (expressions, expressions.Expr),
}


def section(title: str) -> str:
    return PAGE.split(f"\n### {title}\n")[1].split("\n### ")[0]


def names(text: str) -> list[str]:
    return [one.lstrip(".") for one in re.findall(r"`(\.?\w+)`", text)]


def first_cells(text: str, heading: str) -> list[str]:
    """The names in the first column of the table with this heading."""
    rows = text.split(f"\n| {heading} |")[1].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [name for row in rows for name in names(row.split("|")[1])]


@pytest.mark.parametrize("title", SECTIONS)
def test_names_that_are_the_same_are_there(title: str) -> None:
    same = names(section(title).split("\nThe same: ")[1].split("\n\n")[0])
    assert len(same) > 5
    assert [one for one in same if not any(hasattr(place, one) for place in SECTIONS[title])] == []


@pytest.mark.parametrize("title", SECTIONS)
def test_names_that_differ_are_there(title: str) -> None:
    differ = [one for one in first_cells(section(title), "Name") if one != "types"]
    assert [one for one in differ if not any(hasattr(place, one) for place in SECTIONS[title])] == []


@pytest.mark.parametrize("title", SECTIONS)
def test_names_that_are_missing_are_missing(title: str) -> None:
    """Where one has come, the page has to say so."""
    missing = first_cells(section(title), "Not there")
    assert len(missing) > 3
    assert [one for one in missing if any(hasattr(place, one) for place in SECTIONS[title])] == []


@pytest.mark.parametrize("title", list(SECTIONS)[:2])
def test_names_that_only_we_have_are_there(title: str) -> None:
    ours = names(section(title).split("\nOnly here: ")[1].split("\n\n")[0])
    known = [*SECTIONS[title], data.DataIterator]
    only = [one for one in ours if not one.startswith("__") and one not in ("DataIterator",)]
    assert [one for one in only if not any(hasattr(place, one) for place in known)] == []
