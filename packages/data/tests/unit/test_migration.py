"""What docs/data/from-ray-and-pandas.md calls the same is there, what it calls missing is not, and what it says to use works."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import umbel
from umbel import data
from umbel.data import aggregate, expressions, preprocessors, window

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


# ---- pandas ----


def check(given: Any) -> None:
    """That names, arguments and types are right. Functions are not called: they would need workers."""
    if isinstance(given, expressions.Expr):
        given = NUMBERS.with_column("made", given)
    if isinstance(given, window.WindowFunction):
        given = NUMBERS.window({"made": given}, partition_by="k", order_by="x")
    if isinstance(given, data.Dataset):
        given.schema(fetch_if_missing=False)


def of_pandas() -> list[str]:
    """What stands in the second column of the table, but for what is only hinted at."""
    rows = PAGE.split("\n| pandas | Here |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    every = [one for row in rows for one in re.findall(r"`([^`]+)`", row.split(" | ")[1])]
    return [one for one in every if "..." not in one and not one.startswith(".") and one != "map_batches"]


NUMBERS = data.from_arrow(
    pa.table(
        {
            "k": ["a", "b", "a"],
            "x": [1, 2, 3],
            "y": [1.0, 2.0, 4.0],
            "s": ["2026-01-01", "2026-01-02", "2026-01-03"],
            "t": pa.array([1, 2, 3], pa.timestamp("us")),
            "several": [[1], [2, 3], []],
            "place": [{"town": "a"}, {"town": "b"}, {"town": "c"}],
        }
    )
)


@pytest.mark.parametrize("snippet", of_pandas())
def test_what_is_to_be_used_in_the_place_of_pandas_works(snippet: str, tmp_path: Path) -> None:
    if "pandas" in snippet:
        pytest.importorskip("pandas")
    few = NUMBERS.select_columns(["k", "x", "t"])
    for kind in ("csv", "parquet", "json"):
        getattr(few, f"write_{kind}")(str(tmp_path / kind))

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "database")

    known = {
        **vars(aggregate),
        **vars(expressions),
        **vars(preprocessors),
        **{"data": data, "pa": pa, "umbel": umbel, "window": window, "connect": connect},
        **{"ds": few if "write" in snippet else NUMBERS, "a": few, "b": few.rename_columns({"x": "other"})},
        **{"f": lambda given: given, "key": 2, "folder": str(tmp_path / "written"), "query": "select 1 as one"},
        **{"path": str(tmp_path / snippet.removeprefix("data.read_").split("(")[0])},
    }
    if ".join(" in snippet:
        known["b"] = known["b"].drop_columns(["t"])
    check(eval(snippet, known))
