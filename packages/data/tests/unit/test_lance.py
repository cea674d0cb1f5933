"""Lance."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import reading
import writing

from umbel import data
from umbel.data import datasink
from umbel.data._sinks import base
from umbel.data._sinks.lance import LanceDatasink
from umbel.data._sources.lance import LanceDatasource
from umbel.data.expressions import col, lit

pytest.importorskip("lance", reason="needs pylance")

TABLE = pa.table(
    {
        "id": range(6),
        "k": ["a", "it's", None, "a", "ü", None],
        "d": pa.array([datetime.date(2026, 1, 1), None] * 3),
        "x": [0.5, None, 1.5, math.nan, -0.0, 3.5],
        "y": [True, None, False] * 2,
    }
)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "t.lance")


def by_id(source: Any, **options: Any) -> list[dict[str, Any]]:
    return sorted(reading.rows(source, **options), key=lambda row: int(row["id"]))


def test_a_dataset_is_written_and_read(uri: str) -> None:
    writing.write(LanceDatasink(uri), [TABLE.slice(0, 2)], [TABLE.slice(2, 2)])
    first = LanceDatasource(uri)
    writing.write(LanceDatasink(uri, mode="append"), [TABLE.slice(4)])
    source = LanceDatasource(uri)
    assert repr(by_id(source, parallelism=3)) == repr(TABLE.to_pylist())
    assert len(by_id(first)) == 4, "a source reads the version that was there when it was made"
    assert (source.row_count(), source.schema(), len(source.get_read_tasks(2))) == (6, TABLE.schema, 2)
    few = source.with_columns(["x", "id"])
    assert few is not None
    assert reading.rows(few.with_limit(1)) == [{"x": 0.5, "id": 0}]
    assert by_id(LanceDatasource(uri, filter="id > 4", columns=["id"])) == [{"id": 5}]
    assert repr(by_id(LanceDatasource(uri, version=1))) == repr(TABLE.slice(0, 4).to_pylist())


def test_modes_hold(uri: str) -> None:
    first, second = TABLE.slice(0, 1), TABLE.slice(1, 1)
    for mode in ("append", "overwrite"):  # where nothing is yet
        writing.write(LanceDatasink(f"{uri}.{mode}", mode=mode), [first])
        assert by_id(LanceDatasource(f"{uri}.{mode}")) == first.to_pylist()
    writing.write(LanceDatasink(uri), [first])
    for mode in ("create", "error"):
        with pytest.raises(ValueError, match="there is a Lance dataset at"):
            writing.write(LanceDatasink(uri, mode=mode), [second])
    assert writing.write(LanceDatasink(uri, mode="ignore"), [second]) is None
    assert by_id(LanceDatasource(uri)) == first.to_pylist()
    writing.write(LanceDatasink(uri, mode="overwrite"), [second])
    assert by_id(LanceDatasource(uri)) == second.to_pylist()
    assert by_id(LanceDatasource(uri, version=1)) == first.to_pylist()
    with pytest.raises(NotImplementedError, match="cannot write with mode 'upsert'"):
        LanceDatasink(uri, mode="upsert")


def test_no_rows_are_a_dataset_too_and_replace_what_was_there(uri: str) -> None:
    data.from_arrow(TABLE.slice(0, 0)).write_lance(uri)
    assert data.read_lance(uri).schema() == data.from_arrow(TABLE).schema()
    data.from_arrow(TABLE).write_lance(uri, mode="append")
    data.from_arrow(TABLE.slice(0, 0)).write_lance(uri, mode="append")
    assert data.read_lance(uri).count() == 6
    data.from_arrow(TABLE.slice(0, 0)).write_lance(uri, mode="overwrite")
    assert data.read_lance(uri).take_all() == []


def test_rows_are_brought_to_the_schema_of_the_dataset(uri: str) -> None:
    writing.write(LanceDatasink(uri), [pa.table({"id": [1], "s": ["a"]})])
    narrow = pa.table({"id": pa.array([2], pa.int8())})
    writing.write(LanceDatasink(uri, mode="append"), [narrow])
    assert by_id(LanceDatasource(uri)) == [{"id": 1, "s": "a"}, {"id": 2, "s": None}]
    with pytest.raises(ValueError, match="column 'more'"):
        writing.write(LanceDatasink(uri, mode="append"), [pa.table({"id": [1], "more": [1]})])
    with pytest.raises(ValueError, match=r"tasks gave rows with id: int64, s: string, and with id: int8; pass schema="):
        writing.write(LanceDatasink(uri, mode="overwrite"), [pa.table({"id": [1], "s": ["a"]})], [narrow])
    schema = pa.schema([("id", pa.int32()), ("s", pa.string())])
    sink = LanceDatasink(uri, mode="overwrite", schema=schema)
    writing.write(sink, [pa.table({"id": [1], "s": ["a"]})], [narrow])
    assert (LanceDatasource(uri).schema(), len(by_id(LanceDatasource(uri)))) == (schema, 2)


@pytest.mark.parametrize(
    "condition",
    [
        col("id") > 3,
        (col("id") >= 1) & (col("k") == "ü"),
        (col("id") == 5) | col("k").is_null(),
        col("k").is_in(["a", None]),
        (lit(3) < col("id")) & col("k").is_not_null(),
        col("k") == "it's",
        col("y"),
    ],
)
def test_a_filter_is_lances(uri: str, condition: Any) -> None:
    writing.write(LanceDatasink(uri), [TABLE.slice(0, 3)], [TABLE.slice(3)])
    kept, residual = LanceDatasource(uri).with_filter(condition)
    assert residual is None
    expected = data.from_arrow(TABLE).filter(expr=condition).take_all()
    assert repr(by_id(kept)) == repr(expected)
    assert kept.row_count() is None
    assert repr(data.read_lance(uri, filter=condition, columns=["id"]).take_all()) == repr(
        [{"id": row["id"]} for row in expected]
    )


def test_what_lance_would_judge_otherwise_is_left_to_us(uri: str) -> None:
    """To DataFusion NaN is larger than any number, and -0.0 is not 0.0."""
    writing.write(LanceDatasink(uri), [TABLE])
    for condition in (col("x") > 1, col("x") == 0.0, col("id") % 2 == 0, col("d") == "2026-01-01", col("k") != "a"):
        kept, residual = LanceDatasource(uri).with_filter((col("id") < 5) & condition)
        assert residual is not None
        assert len(reading.rows(kept)) == 5
        expected = data.from_arrow(TABLE).filter(expr=condition).take_all()
        assert repr(data.read_lance(uri).filter(expr=condition).take_all()) == repr(expected)
    assert LanceDatasource(uri).with_limit(2).with_filter(col("id") > 1)[1] is not None
    both, residual = LanceDatasource(uri, filter="id < 2 OR id > 4").with_filter(col("id") > 0)
    assert (residual, [row["id"] for row in by_id(both)]) == (None, [1, 5])


def test_two_writes_at_the_same_time_are_both_there(uri: str) -> None:
    writing.write(LanceDatasink(uri), [TABLE.slice(0, 1)])
    sinks = [LanceDatasink(uri, mode="append") for _ in range(2)]
    for sink in sinks:
        sink.on_write_start()
    results = [
        base.write_task(sink, [TABLE.slice(at, 1)], datasink.WriteContext(0)) for at, sink in enumerate(sinks, 1)
    ]
    for sink, result in zip(sinks, results, strict=True):
        sink.on_write_complete(result)
    assert [row["id"] for row in by_id(LanceDatasource(uri))] == [0, 1, 2]


def test_what_is_wrong_is_named(uri: str) -> None:
    writing.write(LanceDatasink(uri), [TABLE])
    with pytest.raises(KeyError, match="no column 'idd' to read; did you mean 'id'"):
        LanceDatasource(uri, columns=["idd"])
    source = LanceDatasource(uri)
    for file in Path(uri).glob("data/*"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"Lance cannot read '{uri}'"):
        reading.rows(source)
