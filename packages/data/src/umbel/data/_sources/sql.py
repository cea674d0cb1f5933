"""Rows of a query, through any connection of Python's DB-API 2.0."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from umbel import exceptions
from umbel.data import block
from umbel.data._blocks import inference
from umbel.data._sources import base

_ROWS_AT_ONCE: Final = 10_000  # fetched by one call: more saves no time, and is memory


class SQLDatasource(base.Datasource):
    """connection_factory: makes a connection; it travels to the tasks. sql_params: for `cursor.execute`.

    One task reads all, unless there are shard_keys: columns by whose hash rows are divided among tasks, each of which runs the
    query. shard_hash_fn: the function of the database that makes a number of them; "" for a key that is an integer. Rows are
    right only if the query gives the same ones each time it runs.
    """

    def __init__(
        self,
        sql: str,
        connection_factory: Callable[[], Any],
        *,
        shard_keys: Sequence[str] | None = None,
        shard_hash_fn: str | None = "MD5",
        sql_params: Any = None,
    ) -> None:
        if isinstance(shard_keys, str) or (shard_keys is not None and not shard_keys):
            raise exceptions.InvalidOption(
                f"shard_keys must be a list of columns, got {shard_keys!r}", option="shard_keys"
            )
        self._sql = sql.strip().rstrip(";")
        self._connect = connection_factory
        self._parameters = sql_params
        self._shard_keys = list(shard_keys or ())
        self._hash = shard_hash_fn or ""

    def get_name(self) -> str:
        return "SQL"

    def checkpoint_identity(self) -> str:
        return f"{self._sql!r} with {self._parameters!r}, divided by {self._shard_keys} {self._hash!r}"

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[base.ReadTask]:
        count = max(1, parallelism) if self._shard_keys else 1
        return [
            base.ReadTask(
                functools.partial(_read, self._shard(index, count), self._parameters, self._connect),
                block.BlockMetadata(),
                per_task_row_limit=per_task_row_limit,
            )
            for index in range(count)
        ]

    def _shard(self, index: int, count: int) -> str:
        """A key that is null makes no number; its rows go to the first shard, for they would be in none otherwise."""
        if count == 1:
            return self._sql
        key = self._shard_keys[0] if len(self._shard_keys) == 1 else f"CONCAT({', '.join(self._shard_keys)})"
        return f"SELECT * FROM ({self._sql}) AS T WHERE COALESCE(MOD(ABS({self._hash}({key})), {count}), 0) = {index}"


@contextlib.contextmanager
def transaction(connect: Callable[[], Any]) -> Iterator[Any]:
    """A cursor. What was done by it is committed, or undone if an error came; the connection is closed."""
    connection = connect()
    try:
        cursor = connection.cursor()
        owner = connection
        if hasattr(cursor, "begin") and hasattr(
            cursor, "commit"
        ):  # DuckDB's is a connection of its own, and commits as it goes
            cursor.begin()
            owner = cursor
        try:
            yield cursor
        except BaseException:
            if hasattr(owner, "rollback"):  # it is optional
                with contextlib.suppress(Exception):  # the first error is the one that says what happened
                    owner.rollback()
            raise
        owner.commit()
    finally:
        connection.close()


def _read(sql: str, parameters: Any, connect: Callable[[], Any]) -> Iterator[pa.Table]:
    with transaction(connect) as cursor:
        try:
            cursor.execute(sql) if parameters is None else cursor.execute(sql, parameters)
        except Exception as error:
            raise ValueError(f"the database cannot run the query: {error}\n{sql}") from error
        if cursor.description is None:
            raise ValueError(f"the query gives no rows; is it a SELECT? {sql}")
        names = [column[0] for column in cursor.description]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the query gives two columns {twice!r}; name one of them by AS\n{sql}")
        rows = cursor.fetchmany(_ROWS_AT_ONCE)
        if not rows:
            yield pa.table({name: pa.nulls(0) for name in names})
        while rows:
            columns = zip(names, zip(*rows, strict=True), strict=True)
            yield pa.table({name: inference.from_values(values, name=name) for name, values in columns})
            rows = cursor.fetchmany(_ROWS_AT_ONCE)
