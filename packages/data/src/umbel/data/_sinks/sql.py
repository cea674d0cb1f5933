"""Rows into a table, through any connection of Python's DB-API 2.0."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final

import pyarrow as pa

from umbel.data._blocks import rows as block_rows
from umbel.data._sinks import base
from umbel.data._sources import sql

_ROWS_AT_ONCE: Final = 1000  # of one executemany


class SQLDatasink(base.Datasink[None]):
    """sql: an INSERT with a parameter for each column, in their order, as the database writes them.

    What a task writes is one transaction: a task that fails leaves nothing. One that is tried again because its answer was lost,
    and not its work, has inserted its rows twice, unless the statement prevents it by a key.
    """

    def __init__(self, sql: str, connection_factory: Callable[[], Any]) -> None:
        self._sql = sql
        self._connect = connection_factory

    def get_name(self) -> str:
        return "SQL"

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> None:
        with sql.transaction(self._connect) as cursor:
            for table in blocks:
                rows = (tuple(row.values()) for row in block_rows.iter_rows(table))
                while batch := list(itertools.islice(rows, _ROWS_AT_ONCE)):
                    cursor.executemany(self._sql, batch)
