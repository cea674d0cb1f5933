"""Values that paths carry."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.data.datasource import Partitioning, PartitionStyle, PathPartitionFilter, PathPartitionParser


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/d/year=2026/month=07/x.csv", {"year": "2026", "month": "07"}),
        ("/d/other/year=2026/x=1.csv", {"year": "2026"}),
        ("/d/name=a%2Fb%20c/x.csv", {"name": "a/b c"}),
        ("/d/name=__HIVE_DEFAULT_PARTITION__/x.csv", {"name": None}),
        ("/d/x.csv", {}),
        ("/d/a=b=c/x.csv", {}),
    ],
)
def test_hive_values_are_read_off_the_directories(path: str, values: dict[str, Any]) -> None:
    assert PathPartitionParser.of(PartitionStyle.HIVE)(path) == values


def test_values_get_the_types_that_are_given() -> None:
    types: dict[str, type] = {"a": int, "b": float, "c": bool}
    parse = PathPartitionParser.of("hive", field_types=types)  # type: ignore[arg-type]  # as people write it
    assert parse("a=1/b=2.5/c=True/d=x/f") == {"a": 1, "b": 2.5, "c": True, "d": "x"}
    with pytest.raises(ValueError, match=r"partition 'a' of 'a=x/f' must be int, got 'x'"):
        parse("a=x/f")


def test_directories_are_values_of_the_fields_in_order() -> None:
    parse = PathPartitionParser(
        Partitioning("dir", base_dir="/data", field_names=["kind", "year"], field_types={"year": int})
    )
    assert parse("/data/dog/2026/x.png") == {"kind": "dog", "year": 2026}
    assert parse("/data/x.png") == {}
    assert parse("/elsewhere/dog/2026/x.png") == {}
    with pytest.raises(ValueError, match=r"must have 2 partition value\(s\).*base_dir"):
        parse("/data/dog/x.png")


def test_fields_that_are_expected_must_be_there() -> None:
    parse = PathPartitionParser.of(PartitionStyle.HIVE, field_names=["a", "b"])
    with pytest.raises(ValueError, match=r"must have the partitions \['a', 'b'\], got \['b', 'a'\]"):
        parse("b=1/a=2/f")


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="style must be 'hive' or 'dir', got 'hove'"):
        Partitioning("hove")
    with pytest.raises(ValueError, match="needs field_names"):
        Partitioning("dir")
    with pytest.raises(TypeError, match="must be int, float, bool or str, got <class 'list'>"):
        Partitioning("hive", field_types={"a": list})


def test_a_filter_keeps_paths_by_their_values() -> None:
    keep = PathPartitionFilter.of(lambda values: values.get("a") == "1")
    assert keep(["a=1/x", "a=2/x", "x"]) == ["a=1/x"]
