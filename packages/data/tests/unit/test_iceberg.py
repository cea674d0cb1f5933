"""Iceberg, through a catalog in SQLite."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reading
import writing

from umbel import data
from umbel.data import datasink
from umbel.data._sinks import base
from umbel.data._sinks.iceberg import IcebergDatasink
from umbel.data._sources.iceberg import IcebergDatasource
from umbel.data.expressions import col, lit

sql = pytest.importorskip("pyiceberg.catalog.sql", reason="needs pyiceberg[sql-sqlite]")
pytest.importorskip("sqlalchemy")

TABLE = pa.table(
    {
        "id": range(6),
        "k": ["a", "x/y =%z", None] * 2,
        "d": pa.array([datetime.date(2026, 1, 1), None] * 3),
        "x": [0.5, None, 1.5, 2.5, None, 3.5],
    }
)


@pytest.fixture
def catalog(tmp_path: Path) -> dict[str, Any]:
    return {"name": "c", "type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For tests that only read: `TABLE` in two files."""
    directory = tmp_path_factory.mktemp("two")
    options = {"name": "c", "type": "sql", "uri": f"sqlite:///{directory}/c.db", "warehouse": f"file://{directory}/w"}
    make(options, TABLE.slice(0, 3), TABLE.slice(3))
    return options


def make(catalog: dict[str, Any], *appended: pa.Table, schema: Any = None) -> Any:
    """The table n.t, with a file for each of these."""
    made = sql.SqlCatalog(**catalog)
    made.create_namespace_if_not_exists("n")
    table = made.create_table("n.t", schema=appended[0].schema if schema is None else schema)
    for one in appended:
        table.append(one)
    return table


def write(catalog: dict[str, Any], *tasks: list[pa.Table], schema: pa.Schema | None = None, **options: Any) -> None:
    writing.write(IcebergDatasink("n.t", catalog_kwargs=catalog, **options), *tasks, schema=schema)


def source(catalog: dict[str, Any], **options: Any) -> IcebergDatasource:
    return IcebergDatasource("n.t", catalog_kwargs=catalog, **options)


def rows(catalog: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return by_id(source(catalog, **options))


def by_id(given: Any) -> list[dict[str, Any]]:
    return sorted(reading.rows(given), key=lambda row: int(row["id"]))


def data_files(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.rglob("*.parquet"))


# ---- reading ----


def test_a_table_is_read(catalog: dict[str, Any]) -> None:
    make(catalog, TABLE.slice(0, 4))
    found = source(catalog)
    assert by_id(found) == TABLE.slice(0, 4).to_pylist()
    assert found.row_count() == 4
    assert found.schema().names == TABLE.schema.names
    few = found.with_columns(["x", "id"])
    assert few is not None
    assert [list(row) for row in reading.rows(few)] == [["x", "id"]] * 4
    assert rows(catalog, row_filter="id > 2", selected_fields=("id",)) == [{"id": 3}]
    assert len(reading.rows(found.with_limit(3))) == 3


def test_an_empty_table_has_its_columns(catalog: dict[str, Any]) -> None:
    make(catalog, schema=TABLE.schema)
    found = data.read_iceberg(table_identifier="n.t", catalog_kwargs=catalog)
    assert (found.count(), found.columns(), found.take_all()) == (0, ["id", "k", "d", "x"], [])


def test_a_snapshot_is_read_with_the_columns_of_its_time(catalog: dict[str, Any]) -> None:
    table = make(catalog, TABLE.slice(0, 2))
    first = table.current_snapshot().snapshot_id
    more = pa.table({"id": [7], "new": ["n"]})
    data.from_arrow(more).write_iceberg("n.t", catalog_kwargs=catalog)
    old = data.read_iceberg(table_identifier="n.t", snapshot_id=first, catalog_kwargs=catalog)
    assert old.columns() == TABLE.column_names
    assert old.take_all() == TABLE.slice(0, 2).to_pylist()
    now = data.read_iceberg(table_identifier="n.t", selected_fields=("id", "new"), catalog_kwargs=catalog)
    assert now.sort("id").take_all() == [{"id": 0, "new": None}, {"id": 1, "new": None}, {"id": 7, "new": "n"}]
    with pytest.raises(ValueError, match="Snapshot not found: 17"):
        data.read_iceberg(table_identifier="n.t", snapshot_id=17, catalog_kwargs=catalog).schema()


@pytest.mark.parametrize(
    ("condition", "files"),
    [
        (col("id") > 3, 1),
        (lit(3) < col("id"), 1),
        ((col("id") >= 1) & (col("id") < 4), 2),
        ((col("id") == 5) | (col("k") == "zzz"), 1),
        (col("id").is_in([0, 4]), 2),
        (col("d") == datetime.date(2026, 1, 1), 2),
        (col("d") == "2026-01-01", 2),
        (col("k").is_null(), 2),
        (col("x").is_not_null() & (col("x") <= 1), 1),
        (col("k").is_in(["a", None]), 2),
    ],
)
def test_a_filter_passes_over_files(two_files: dict[str, Any], condition: Any, files: int) -> None:
    kept, residual = source(two_files).with_filter(condition)
    assert residual is None
    assert len(kept.input_files()) == files
    assert by_id(kept) == data.from_arrow(TABLE).filter(expr=condition).take_all()
    assert kept.row_count() is None


def test_what_iceberg_would_judge_otherwise_is_left_to_us(two_files: dict[str, Any]) -> None:
    """To Iceberg null is unequal to everything; and it knows no arithmetic."""
    ours = data.from_arrow(TABLE)
    for condition in (col("k") != "a", ~(col("x") > 1), col("id") % 2 == 0, ~col("id").is_in([1])):
        kept, residual = source(two_files).with_filter((col("id") < 5) & condition)
        assert residual is not None
        assert len(reading.rows(kept)) == 5
        read = data.read_iceberg(table_identifier="n.t", catalog_kwargs=two_files)
        assert read.filter(expr=condition).sort("id").take_all() == ours.filter(expr=condition).take_all()
    limited, residual = source(two_files).with_limit(2).with_filter(col("id") > 0)
    assert residual is not None, "of the first two rows, and not the first two of those that pass"
    assert len(reading.rows(limited)) == 2


def test_a_filter_of_the_plan_goes_into_the_read(two_files: dict[str, Any]) -> None:
    read = data.read_iceberg(table_identifier="n.t", catalog_kwargs=two_files, row_filter=col("id") > 1)
    few = read.filter(expr=(col("id") > 3) & (col("id") % 2 == 1)).select_columns(["k"])
    assert few.take_all() == [{"k": None}]
    assert read.count() == 4


def test_types_keep_their_values_through_filters(catalog: dict[str, Any]) -> None:
    table = pa.table(
        {
            "id": [1, 2],
            "p": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(9, 2)),
            "t": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5, 6), None], pa.timestamp("us")),
            "z": pa.array(
                [datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), None], pa.timestamp("us", "UTC")
            ),
            "b": [b"\x00", None],
            "y": [True, None],
            "f": pa.array([0.1, None], pa.float32()),
        }
    )
    make(catalog, table)
    instant = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)
    holds = (col("p") == decimal.Decimal("1.1")) & (col("p") == 1.1) & (col("t") >= instant) & (col("b") == b"\x00")
    holds = (
        holds & (col("z") == datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)) & col("y") & (col("f") < 1)
    )
    kept, residual = source(catalog).with_filter(holds)
    assert residual is None
    assert [row["id"] for row in reading.rows(kept)] == [1]
    assert source(catalog).with_filter(holds & (col("f") < 0))[0].input_files() == []


def test_a_file_that_is_gone_is_named(catalog: dict[str, Any], tmp_path: Path) -> None:
    make(catalog, TABLE)
    (file,) = data_files(tmp_path)
    read = source(catalog)
    file.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=rf"Iceberg cannot read 'file://{file}'"):
        reading.rows(read)


# ---- writing ----


def test_a_table_is_appended_to_and_overwritten(catalog: dict[str, Any]) -> None:
    make(catalog, TABLE.slice(0, 4))
    first = source(catalog)
    write(catalog, [TABLE.slice(4, 1)], [TABLE.slice(5).select(["x", "k", "d", "id"])])
    assert rows(catalog) == TABLE.to_pylist()
    assert by_id(first) == TABLE.slice(0, 4).to_pylist(), "a source reads the snapshot that was there when it was made"
    write(catalog, [TABLE.slice(0, 1)], mode="overwrite", overwrite_filter="id < 3")
    assert [row["id"] for row in rows(catalog)] == [0, 3, 4, 5]
    write(catalog, [TABLE.slice(1, 1)], mode="overwrite", overwrite_filter=(col("id") >= 3) & (col("id") < 5))
    assert [row["id"] for row in rows(catalog)] == [0, 1, 5]
    write(catalog, [TABLE.slice(1, 1)], mode="overwrite")
    assert [row["id"] for row in rows(catalog)] == [1]
    write(catalog, [TABLE.slice(0, 0)], mode="overwrite")
    assert rows(catalog) == []


def test_small_blocks_are_not_a_file_each(catalog: dict[str, Any], tmp_path: Path) -> None:
    make(catalog, schema=TABLE.schema)
    write(catalog, [TABLE.slice(index, 1) for index in range(6)])
    assert [pq.read_metadata(file).num_rows for file in data_files(tmp_path)] == [6]


def test_columns_that_the_table_lacks_are_added(catalog: dict[str, Any]) -> None:
    make(catalog, TABLE.slice(0, 1))
    more = pa.table({"id": [7], "new": pa.array([[1, None]])})
    data.from_arrow(more).write_iceberg("n.t", catalog_kwargs=catalog)
    assert rows(catalog, selected_fields=("id", "new")) == [{"id": 0, "new": None}, {"id": 7, "new": [1, None]}]
    with pytest.raises(ValueError, match="column 'more'"):
        write(catalog, [pa.table({"id": [1], "more": [2]})], schema=pa.schema([("id", pa.int64())]))
    with pytest.raises(ValueError, match="'id'"):
        write(catalog, [pa.table({"id": ["text"]})])


def test_a_write_that_fails_leaves_neither_rows_nor_files(catalog: dict[str, Any], tmp_path: Path) -> None:
    make(catalog, TABLE.slice(0, 1))

    def dying() -> Any:
        yield TABLE
        yield pa.table({"id": ["text"]})

    sink = IcebergDatasink("n.t", catalog_kwargs=catalog)
    sink.on_write_start(TABLE.schema)
    with pytest.raises(ValueError, match="'id'"):
        sink.write(dying(), datasink.WriteContext(0))
    assert rows(catalog) == TABLE.slice(0, 1).to_pylist()
    assert len(data_files(tmp_path)) == 1
    with pytest.raises(ValueError, match="'id'"):
        write(catalog, [TABLE], [pa.table({"id": ["text"]})])
    assert rows(catalog) == TABLE.slice(0, 1).to_pylist(), "the file of the other task is in no snapshot"


def test_two_writes_at_the_same_time_are_both_there(catalog: dict[str, Any]) -> None:
    make(catalog, schema=TABLE.schema)
    sinks = [IcebergDatasink("n.t", catalog_kwargs=catalog) for _ in range(2)]
    for sink in sinks:
        sink.on_write_start(TABLE.schema)
    results = [base.write_task(sink, [TABLE.slice(at, 1)], datasink.WriteContext(0)) for at, sink in enumerate(sinks)]
    for sink, result in zip(sinks, results, strict=True):
        sink.on_write_complete(result)
    assert [row["id"] for row in rows(catalog)] == [0, 1]


def test_an_upsert_replaces_rows_with_its_keys_and_adds_the_others(catalog: dict[str, Any]) -> None:
    table = make(catalog, TABLE.slice(0, 3), TABLE.slice(3))
    new = pa.table({"id": [1, 4, 9], "k": ["new"] * 3, "d": pa.nulls(3, pa.date32()), "x": [1.0, 2.0, 3.0]})
    expected = {row["id"]: row for row in [*TABLE.to_pylist(), *new.to_pylist()]}
    keys = {"join_cols": ["id"]}
    write(catalog, [new.slice(0, 2)], [new.slice(2)], mode="upsert", upsert_kwargs=keys)
    assert rows(catalog) == [expected[key] for key in sorted(expected)]
    write(catalog, [new], mode="upsert", upsert_kwargs=keys)
    assert rows(catalog) == [expected[key] for key in sorted(expected)], "once more changes nothing"
    assert table.refresh().current_snapshot() is not None
    write(catalog, [new.slice(0, 0)], mode="upsert", upsert_kwargs=keys)
    assert len(rows(catalog)) == len(expected)


def test_a_key_may_be_several_columns(catalog: dict[str, Any]) -> None:
    old = pa.table({"id": [1, 1, 2, 2], "k": ["a", "b", "a", "ü"], "x": [0.0] * 4})
    new = pa.table({"id": [1, 2, 2, 3], "k": ["b", "ü", "c", "a"], "x": [1.0] * 4})
    make(catalog, old)
    data.from_arrow(new).write_iceberg(
        "n.t", catalog_kwargs=catalog, mode="upsert", upsert_kwargs={"join_cols": ["id", "k"]}
    )
    expected = {(row["id"], row["k"]): row["x"] for row in [*old.to_pylist(), *new.to_pylist()]}
    assert {(row["id"], row["k"]): row["x"] for row in rows(catalog)} == expected
    assert len(rows(catalog)) == len(expected)


def test_a_table_may_say_its_key(catalog: dict[str, Any]) -> None:
    from pyiceberg.schema import Schema
    from pyiceberg.types import LongType, NestedField, StringType

    fields = (NestedField(1, "id", LongType(), required=True), NestedField(2, "k", StringType(), required=False))
    make(catalog, schema=Schema(*fields, identifier_field_ids=[1]))
    for value in ("old", "new"):
        write(catalog, [pa.table({"id": [1], "k": [value]})], mode="upsert")
    assert rows(catalog) == [{"id": 1, "k": "new"}]


def test_keys_that_do_not_tell_rows_apart_are_refused(catalog: dict[str, Any]) -> None:
    make(catalog, TABLE)
    options: dict[str, Any] = {"mode": "upsert", "upsert_kwargs": {"join_cols": ["k"]}}
    with pytest.raises(ValueError, match="column 'k' has nulls; each row that is upserted needs a key"):
        write(catalog, [TABLE], **options)
    with pytest.raises(ValueError, match=r"1 rows have the same k as others .* one row for each key"):
        write(catalog, [TABLE.slice(0, 1)], [TABLE.slice(3, 1)], **options)
    with pytest.raises(KeyError, match="no column 'idd' to tell rows apart by; did you mean 'id'"):
        write(catalog, [TABLE], mode="upsert", upsert_kwargs={"join_cols": ["idd"]})
    with pytest.raises(ValueError, match="does not say which columns are its key"):
        write(catalog, [TABLE], mode="upsert")
    assert rows(catalog) == TABLE.to_pylist()


def test_options_that_mean_nothing_are_refused(catalog: dict[str, Any]) -> None:
    make(catalog, TABLE)
    for options, message in (
        ({"mode": "error"}, "by append, overwrite or upsert, got 'error'"),
        ({"overwrite_filter": "id = 1"}, "overwrite_filter goes with mode='overwrite' only, got 'append'"),
        ({"mode": "overwrite", "upsert_kwargs": {}}, "upsert_kwargs goes with mode='upsert' only"),
        ({"mode": "upsert", "upsert_kwargs": {"keys": ["id"]}}, "upsert_kwargs takes join_cols, got 'keys'"),
        ({"mode": "overwrite", "overwrite_filter": col("id") % 2 == 0}, "overwrite_filter cannot be .*% 2"),
    ):
        with pytest.raises((ValueError, NotImplementedError), match=message):
            write(catalog, [TABLE], **options)  # type: ignore[arg-type]


def test_a_branch_is_overwritten_alone(catalog: dict[str, Any]) -> None:
    table = make(catalog, TABLE)
    table.manage_snapshots().create_branch(table.current_snapshot().snapshot_id, "tried").commit()
    new = TABLE.slice(1, 1)
    for options, message in (
        ({}, "overwrite_kwargs goes with mode='overwrite' only"),
        (
            {"mode": "overwrite", "overwrite_kwargs": {"branhc": "tried"}},
            "takes branch and case_sensitive, got 'branhc'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            write(catalog, [new], **{"overwrite_kwargs": {"branch": "tried"}, **options})  # type: ignore[arg-type]
    write(catalog, [new], mode="overwrite", overwrite_kwargs={"branch": "tried"})
    table.refresh()
    assert rows(catalog) == TABLE.to_pylist()
    assert table.scan().use_ref("tried").to_arrow().to_pylist() == new.to_pylist()
