"""Users' functions as transforms: what runs in a task between the blocks that come and those that go.

A function gets rows or batches; what it gives may be a value, a generator of values, a coroutine of a value or an
asynchronous generator. Coroutines of one task run at once, `CONCURRENT_CALLS` of them, and their results keep the order of what went in.
"""

from __future__ import annotations

import asyncio
import collections
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from umbel.data._blocks import batches, rows
from umbel.data._plan import logical

if TYPE_CHECKING:
    import pyarrow as pa

CONCURRENT_CALLS = (
    16  # coroutines of a task under way: enough to hide a request's round trip, few enough to bound memory
)
ROWS_MAX = (
    10_000  # after which rows become a block; large ones are put together by the stage, which ends blocks by bytes
)


@dataclass(frozen=True, eq=False)
class RowCalls:
    """A function of rows. See `logical.MapRows`."""

    operator: str
    function: logical.Function
    kind: str

    def bound(self) -> Callable[[Iterator[pa.Table]], Iterator[pa.Table]]:
        """With its class made."""
        call = _callable(self.function)
        if self.kind == "filter":
            return lambda blocks: self._kept(call, blocks)
        return lambda blocks: _as_blocks(self._given(call, blocks))

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return self.bound()(blocks)

    def _given(self, call: Callable[[Any], Any], blocks: Iterator[pa.Table]) -> Iterator[Any]:
        every = (row for block in blocks for row in rows.iter_rows(block))
        for result in _results(call, every):
            if self.kind == "map":
                yield self._row(result)
            else:
                yield from map(self._row, self._several(result))

    def _row(self, value: Any) -> Any:
        if not isinstance(value, collections.abc.Mapping):
            raise TypeError(
                f"{self.operator}: a row is a mapping from column names to values, such as {{'id': 1}}; the function returned "
                f"{value!r:.200} of type {type(value).__name__}"
            )
        return value

    def _several(self, value: Any) -> Iterable[Any]:
        if isinstance(value, collections.abc.Mapping) or not isinstance(value, collections.abc.Iterable):
            raise TypeError(
                f"{self.operator}: the function returns a list of rows for each row, or yields them; it returned {value!r:.200} of "
                f"type {type(value).__name__}"
            )
        return value

    def _kept(self, call: Callable[[Any], Any], blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        import numpy as np

        for block in blocks:
            kept = [bool(one) for one in _results(call, rows.iter_rows(block))]
            yield block if all(kept) else block.take(np.flatnonzero(kept))


@dataclass(frozen=True, eq=False)
class BatchCalls:
    """A function of batches. See `logical.MapBatches`."""

    operator: str
    function: logical.Function
    batch_size: int | None
    batch_format: str | None
    zero_copy: bool

    def bound(self) -> Callable[[Iterator[pa.Table]], Iterator[pa.Table]]:
        call = _callable(self.function)
        return lambda blocks: self._through(call, blocks)

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return self.bound()(blocks)

    def _through(self, call: Callable[[Any], Any], blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        given = batches.iter_batches(blocks, self.batch_size, self.batch_format, zero_copy=self.zero_copy)
        for result in _results(call, given):
            for one in result if isinstance(result, collections.abc.Iterator) else (result,):
                yield batches.from_batch(one, operator=self.operator)


def transform(calls: RowCalls | BatchCalls) -> Any:
    """A class is made once in each worker that has the function."""
    from umbel.data._engine import stages

    return stages.Made(calls.bound) if calls.function.is_class else calls


def _callable(function: logical.Function) -> Callable[[Any], Any]:
    call = function.call
    if function.is_class:
        call = call(*function.constructor_args, **function.constructor_kwargs)
    if not function.args and not function.kwargs:
        return call
    return lambda value: call(value, *function.args, **function.kwargs)


def _as_blocks(every: Iterator[Any]) -> Iterator[pa.Table]:
    some: list[Any] = []
    for row in every:
        some.append(row)
        if len(some) == ROWS_MAX:
            yield rows.from_rows(some)
            some = []
    if some:
        yield rows.from_rows(some)


# ---------------------------------------------------------------------------------------------------------------------
# Calls, and what they give.


def _results(call: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
    """Of each call, in order. Those of generators are iterators; what is asynchronous has been waited for."""
    every = iter(inputs)
    for value in every:
        result = call(value)
        if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
            yield from _awaited(call, result, every)
            return
        yield result


def _awaited(call: Callable[[Any], Any], first: Any, others: Iterator[Any]) -> Iterator[Any]:
    """The first result, and those of all others, which are asynchronous as well."""
    loop = asyncio.new_event_loop()
    pending: collections.deque[asyncio.Task[Any]] = collections.deque([loop.create_task(_ended(first))])
    try:
        for value in others:
            pending.append(loop.create_task(_ended(call(value))))
            if len(pending) == CONCURRENT_CALLS:
                yield loop.run_until_complete(pending.popleft())
        while pending:
            yield loop.run_until_complete(pending.popleft())
    finally:
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _ended(result: Any) -> Any:
    """Of an asynchronous generator all that it yields."""
    if isinstance(result, AsyncIterator):
        return iter([one async for one in result])
    return await result
