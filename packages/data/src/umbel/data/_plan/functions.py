"""Users' functions as transforms: what runs in a task between the blocks that come and those that go.

A function gets rows or batches; what it gives may be a value, a generator of values, a coroutine of a value or an
asynchronous generator (`calls` has how they are called). Where it fails, the run does (`on_error="raise"`), or the rows that
it was given are left out, and with "collect" told of, with the error (`failing`).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel.data._blocks import batches, columns, owning, rows, sizes
from umbel.data._plan import calls, failing, unchanged

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_MAX = (
    10_000  # after which rows become a block; large ones are put together by the stage, which ends blocks by bytes
)
AUTO_BATCH_BYTES = 16 << 20  # of a batch whose size is "auto": as Ray's
SHOWN_CHARS = 300  # of a row, in an error


@dataclass(frozen=True, eq=False)
class RowCalls:
    """A function of rows. See `logical.MapRows`. is_alone: no other thread calls what was made of a class meanwhile."""

    operator: str
    function: calls.Function
    kind: str
    on_error: str = "raise"
    is_alone: bool = False

    def bound(self) -> Callable[[Iterator[pa.Table]], Iterator[pa.Table]]:
        """With its class made."""
        call = _callable(self.function, is_alone=self.is_alone)
        if self.kind == "filter":
            return lambda blocks: self._kept(call, blocks)
        return lambda blocks: _as_blocks(self._given(call, blocks))

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return self.bound()(blocks)

    def _given(self, call: Callable[[Any], Any], blocks: Iterator[pa.Table]) -> Iterator[tuple[Any, _Origin]]:
        drawn: collections.deque[_Origin] = collections.deque()
        for outcome in calls.outcomes(call, _drawn(blocks, drawn)):
            origin = drawn.popleft()
            try:
                if self.kind == "map":
                    made: Iterable[Any] = (self._row(outcome()),)
                else:
                    made = map(self._row, self._several(outcome()))
                    if self.on_error != "raise":  # all of them, or none
                        made = [owning.owned_row(row, origin.watched) for row in made]
                for row in made:
                    yield row, origin
            except Exception as error:
                self._failed(error, origin)

    def _failed(self, error: Exception, origin: _Origin) -> None:
        """Raises, unless such rows are left out."""
        table, index = origin.block, origin.at
        where = f"row {_shown(table, index)}"
        failing.failed(error, self.operator, self.on_error, where, lambda: sizes.compact(table.slice(index, 1)))

    def _row(self, value: Any) -> Any:
        if not isinstance(value, collections.abc.Mapping):
            raise TypeError(
                f"{self.operator}: a row is a mapping from column names to values, such as {{'id': 1}}; the function returned "
                f"{value!r:.200} of type {type(value).__name__}"
            )
        return value

    def _several(self, value: Any) -> Iterable[Any]:
        if isinstance(value, collections.abc.Mapping | str) or not isinstance(value, collections.abc.Iterable):
            raise TypeError(
                f"{self.operator}: the function returns a list of rows for each row, or yields them; it returned "
                f"{value!r:.200} of "
                f"type {type(value).__name__}"
            )
        return value

    def _kept(self, call: Callable[[Any], Any], blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        import numpy as np

        for block in blocks:
            kept: list[bool] = []
            for index, outcome in enumerate(calls.outcomes(call, rows.iter_rows(block))):
                try:
                    kept.append(self._whether(outcome()))
                except Exception as error:
                    self._failed(error, _Origin(block, index, {}))
                    kept.append(False)
            yield block if all(kept) else columns.taken(block, np.flatnonzero(kept))

    def _whether(self, value: Any) -> bool:
        if isinstance(value, collections.abc.Iterator):
            raise TypeError(
                f"{self.operator}: a function for filter() returns whether a row is kept; it is a generator"
            )
        return bool(value)


class _Origin(NamedTuple):
    """The block, which of its rows, and of what the function got those values that do not tell their type."""

    block: pa.Table
    at: int
    watched: dict[str, Any]


def _drawn(blocks: Iterator[pa.Table], drawn: collections.deque[_Origin]) -> Iterator[dict[str, Any]]:
    """The rows. drawn: where each one came from is added to it."""
    for block in blocks:
        names = unchanged.watched(block.schema)
        for index, row in enumerate(rows.iter_rows(block)):
            drawn.append(_Origin(block, index, {name: row[name] for name in names}))
            yield row


def _shown(table: pa.Table, index: int) -> str:
    text = repr(next(rows.iter_rows(table.slice(index, 1)), {}))
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


@dataclass(frozen=True, eq=False)
class BatchCalls:
    """A function of batches. See `logical.MapBatches`, and `RowCalls`."""

    operator: str
    function: calls.Function
    batch_size: int | str | None
    batch_format: Any
    zero_copy: bool
    on_error: str = "raise"
    is_alone: bool = False

    def bound(self) -> Callable[[Iterator[pa.Table]], Iterator[pa.Table]]:
        call = _callable(self.function, is_alone=self.is_alone)
        return lambda blocks: self._through(call, blocks)

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return self.bound()(blocks)

    def _through(self, call: Callable[[Any], Any], blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        inputs = _Inputs(blocks)
        given: collections.deque[Any] = collections.deque()
        for outcome in calls.outcomes(call, self._batches(inputs, given)):
            batch = given.popleft()
            try:
                made: Iterable[pa.Table] = self._tables(outcome(), inputs)
                if self.on_error != "raise":  # all of them, or none
                    made = [*made]
                yield from made
            except Exception as error:
                failing.failed(
                    error,
                    self.operator,
                    self.on_error,
                    f"a batch of {calls.row_count(batch)} rows",
                    lambda batch=batch: batches.from_batch(batch, operator=self.operator, like=inputs.schema),  # type: ignore[misc]
                )

    def _batches(self, inputs: _Inputs, given: collections.deque[Any]) -> Iterator[Any]:
        size = inputs.rows_of(AUTO_BATCH_BYTES) if self.batch_size == "auto" else self.batch_size
        assert not isinstance(size, str)
        for batch in batches.iter_batches(inputs, size, self.batch_format, zero_copy=self.zero_copy):
            given.append(batch)
            yield batch

    def _tables(self, result: Any, inputs: _Inputs) -> Iterator[pa.Table]:
        is_generator = isinstance(result, collections.abc.Iterator)
        for one in result if is_generator else (result,):
            kept = owning.owned_batch(one, is_of_generator=is_generator)
            yield batches.from_batch(kept, operator=self.operator, like=inputs.schema)


class _Inputs:
    """Blocks as they are drawn. schema: of the latest."""

    def __init__(self, blocks: Iterator[pa.Table]) -> None:
        self._blocks = blocks
        self._first: pa.Table | None = None
        self.schema: pa.Schema | None = None

    def __iter__(self) -> Iterator[pa.Table]:
        return self

    def __next__(self) -> pa.Table:
        block, self._first = self._first, None
        block = next(self._blocks) if block is None else block
        self.schema = block.schema
        return block

    def rows_of(self, size_bytes: int) -> int:
        """About how many rows take so many bytes, by the first block that has any."""
        for block in self._blocks:
            if block.num_rows:
                self._first = block
                return max(1, size_bytes * int(block.num_rows) // max(1, sizes.size_bytes(block)))
        return 1


def transform(function_calls: RowCalls | BatchCalls) -> Any:
    """A class is made once in each worker that has the function."""
    from umbel.data._engine import stages

    return stages.Made(function_calls.bound) if function_calls.function.is_class else function_calls


def _callable(function: calls.Function, *, is_alone: bool) -> Callable[[Any], Any]:
    call = function.call
    if function.is_class:
        call = call(*function.constructor_args, **function.constructor_kwargs)
    if is_alone:
        call = calls.one_at_a_time(call)
    if not function.args and not function.kwargs:
        return call
    return lambda value: call(value, *function.args, **function.kwargs)


def _as_blocks(every: Iterator[tuple[Any, _Origin]]) -> Iterator[pa.Table]:
    some: list[Any] = []
    seen = unchanged.Unchanged()
    for row, origin in every:
        seen.add(row, origin.watched, origin.block.schema)
        some.append(owning.owned_row(row, origin.watched))
        if len(some) == ROWS_MAX:
            yield seen.table(some)
            some, seen = [], unchanged.Unchanged()
    if some:
        yield seen.table(some)
