"""Rows of databases: SQLite always, DuckDB where it is installed."""

from __future__ import annotations

import datetime
import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import reading
import writing

from umbel.data import datasink
from umbel.data._sinks.sql import SQLDatasink
from umbel.data._sources import sql
from umbel.data._sources.sql import SQLDatasource

Connect = Callable[[], Any]


def _duckdb(path: str) -> Any:
    return pytest.importorskip("duckdb").connect(path)


@pytest.fixture(params=["sqlite", "duckdb"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
    made: Connect = functools.partial(sqlite3.connect if request.param == "sqlite" else _duckdb, str(tmp_path / "db"))
    with sql.transaction(made) as cursor:
        cursor.execute("CREATE TABLE t (id INTEGER, name TEXT, x DOUBLE)")
        cursor.executemany(
            "INSERT INTO t VALUES (?, ?, ?)", [(index or None, f"n{index}", index / 2) for index in range(25)]
        )
    return made


EXPECTED = [{"id": index or None, "name": f"n{index}", "x": index / 2} for index in range(25)]


def test_a_query_is_rows(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_ROWS_AT_ONCE", 10)
    source = SQLDatasource("SELECT * FROM t ORDER BY name;", connect)
    assert reading.rows(source) == sorted(EXPECTED, key=lambda row: str(row["name"]))
    assert len(source.get_read_tasks(8)) == 1
    (task,) = source.get_read_tasks(8)
    assert [table.num_rows for table in task.read_fn()] == [10, 10, 5]


def test_parameters_reach_the_database(connect: Connect) -> None:
    source = SQLDatasource("SELECT name AS n FROM t WHERE id = ?", connect, sql_params=(3,))
    assert reading.rows(source) == [{"n": "n3"}]


def test_rows_are_divided_by_keys_and_none_is_lost(connect: Connect) -> None:
    """A key that is null is in no remainder class."""
    source = SQLDatasource("SELECT * FROM t", connect, shard_keys=["id"], shard_hash_fn="")
    tasks = source.get_read_tasks(4)
    parts = [[row["name"] for table in task() for row in table.to_pylist()] for task in tasks]
    assert len(tasks) == 4
    assert all(parts)
    assert sorted(name for part in parts for name in part) == sorted(str(row["name"]) for row in EXPECTED)


def test_keys_may_be_text_and_several(connect: Connect, request: pytest.FixtureRequest) -> None:
    """By the function that the database has: DuckDB's `hash`, SQLite's `unicode`, which is that of the first letter."""
    function = "hash" if "duckdb" in request.node.name else "unicode"
    for keys in (["name"], ["name", "x"]):
        if len(keys) > 1 and function == "unicode" and sqlite3.sqlite_version_info < (3, 44):
            continue  # it has no CONCAT
        source = SQLDatasource("SELECT * FROM t", connect, shard_keys=keys, shard_hash_fn=function)
        assert sorted(row["name"] for row in reading.rows(source, parallelism=3)) == sorted(
            str(row["name"]) for row in EXPECTED
        )


def test_a_query_without_rows_has_its_columns(connect: Connect) -> None:
    table = reading.table(SQLDatasource("SELECT id, x FROM t WHERE id > 100", connect))
    assert (table.num_rows, table.column_names) == (0, ["id", "x"])


def test_what_is_wrong_is_shown_with_the_query(connect: Connect) -> None:
    with pytest.raises(ValueError, match=r"cannot run the query: [\s\S]*\nSELECT \* FROM nowhere"):
        reading.rows(SQLDatasource("SELECT * FROM nowhere", connect))
    with pytest.raises(ValueError, match="two columns 'id'; name one of them by AS"):
        reading.rows(SQLDatasource("SELECT id, id FROM t", connect))
    with pytest.raises(ValueError, match="shard_keys must be a list of columns, got 'id'"):
        SQLDatasource("SELECT * FROM t", connect, shard_keys="id")


def test_rows_are_inserted(connect: Connect) -> None:
    table = pa.table({"id": [1, None], "name": ["a", "ü"], "x": [0.5, 1.0]})
    with sql.transaction(connect) as cursor:
        cursor.execute("DELETE FROM t")
    writing.write(SQLDatasink("INSERT INTO t VALUES (?, ?, ?)", connect), [table.slice(0, 1)], [table.slice(1)])
    assert reading.rows(SQLDatasource("SELECT * FROM t ORDER BY x", connect)) == table.to_pylist()


def test_a_task_that_fails_inserts_nothing(connect: Connect) -> None:
    def dying() -> Any:
        yield pa.table({"id": [99], "name": ["a"], "x": [0.5]})
        raise OSError("the worker is lost")

    with pytest.raises(OSError, match="the worker is lost"):
        SQLDatasink("INSERT INTO t VALUES (?, ?, ?)", connect).write(dying(), datasink.WriteContext(0))
    assert reading.rows(SQLDatasource("SELECT id FROM t WHERE id = 99", connect)) == []


def test_times_of_databases_are_times(tmp_path: Path) -> None:
    connect = functools.partial(_duckdb, str(tmp_path / "db"))
    row = reading.rows(
        SQLDatasource("SELECT TIMESTAMP '2026-01-02 03:04:05' AS t, 1.50::DECIMAL(9, 2) AS p, [1, 2] AS l", connect)
    )
    assert row[0]["t"] == datetime.datetime(2026, 1, 2, 3, 4, 5)
    assert (str(row[0]["p"]), row[0]["l"]) == ("1.50", [1, 2])
