"""What an aggregation is: a state for each group of each block, states that merge, and a value of the last state.

`Grouping` knows three methods, which take all groups at once: `vector_start`, `vector_merge` and `vector_end`. A state is one
row of an Arrow array, so that it travels as any column does. What users write in Python (`AggregateFn`, `AggregateFnV2`) is
called group by group, and only that: the aggregations beside it stay vectorised.
"""

from __future__ import annotations

import abc
import pickle
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, reducing, tensors

_PICKLE_PROTOCOL = 5


class AggregateFn:
    """An aggregation by functions on one group at a time; `AggregateFnV2` is the newer way.

    init: of the group's key (a tuple where there are several, None where there are none) its first accumulator. Exactly one
    of accumulate_row(accumulator, row) and accumulate_block(accumulator, table) adds rows to it; merge(accumulator,
    accumulator) joins those of two blocks, the earlier first; finalize makes the value of the last one. Accumulators are
    pickled between blocks.
    """

    on: str | None = None  # the column that is aggregated; None if there is not one

    def __init__(
        self,
        init: Callable[[Any], Any],
        merge: Callable[[Any, Any], Any],
        name: str,
        accumulate_row: Callable[[Any, Mapping[str, Any]], Any] | None = None,
        accumulate_block: Callable[[Any, pa.Table], Any] | None = None,
        finalize: Callable[[Any], Any] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, the column of the result, got {name!r}")
        if (accumulate_row is None) == (accumulate_block is None):
            raise ValueError(f"{name}: give exactly one of accumulate_row and accumulate_block")
        self.name = name
        self.init = init
        self.merge = merge
        self.accumulate_row = accumulate_row
        self.accumulate_block = accumulate_block
        self.finalize = _unchanged if finalize is None else finalize

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def output_field(self, input_schema: pa.Schema) -> pa.Field | None:
        """The column of the result, or None if that is known only from the values. Subclasses may say."""
        return None

    def input_columns(self) -> tuple[str, ...] | None:
        """The columns that are read, the keys apart; None if it may be any."""
        return None if self.on is None else (self.on,)

    def vector_start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        """The state of each group, of the rows of one block."""
        keys = groups.key_values()
        found = []
        for key, size, rows in zip(keys, groups.sizes.tolist(), groups.tables(table), strict=True):
            accumulator = self._first(key)
            found.append(self._accumulated(accumulator, rows) if size else accumulator)
        return _pickled(found)

    def alike(self, states: Sequence[pa.Array]) -> Sequence[pa.Array]:
        """States of blocks in which the column had different types, such that they are of one type, or become so as values do."""
        return states

    def vector_merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        """The state of each group, of states of the same kind, one or more for each."""
        found: list[Any] = [None] * groups.count
        is_begun = [False] * groups.count
        for group, accumulator in zip(groups.ids.tolist(), _unpickled(state), strict=True):
            found[group] = self._merged(found[group], accumulator) if is_begun[group] else accumulator
            is_begun[group] = True
        return _pickled(found)

    def vector_end(self, state: pa.Array) -> pa.Array:
        """The value of each state."""
        return pa.array([self._finished(accumulator) for accumulator in _unpickled(state)])

    def _first(self, key: Any) -> Any:
        return self.init(key)

    def _accumulated(self, accumulator: Any, table: pa.Table) -> Any:
        if self.accumulate_block is not None:
            return self.accumulate_block(accumulator, table)
        for row in table.to_pylist():
            accumulator = self.accumulate_row(accumulator, row)  # type: ignore[misc] # one of the two is given
        return accumulator

    def _merged(self, first: Any, second: Any) -> Any:
        return self.merge(first, second)

    def _finished(self, accumulator: Any) -> Any:
        return self.finalize(accumulator)


class AggregateFnV2(AggregateFn, abc.ABC):
    """An aggregation by a subclass: `aggregate_block` and `combine`, and `finalize` where the accumulator is not the value.

    on: the column that it reads; None for the rows as a whole. ignore_nulls: an accumulator of None is that of a group
    without values, and the others decide; otherwise one None makes the value None. zero_factory: the accumulator of no rows
    at all, where nulls are not ignored.
    """

    def __init__(
        self, name: str, zero_factory: Callable[[], Any], *, on: str | None = None, ignore_nulls: bool = True
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be the column of the result, got {name!r}")
        self.name = name
        self.on = on
        self.ignore_nulls = ignore_nulls
        self.zero_factory = zero_factory

    def get_target_column(self) -> str | None:
        """The column that it reads: `on`."""
        return self.on

    # For `class Mine(AggregateFnV2[int, float])`, which programs for Ray write.
    __class_getitem__: ClassVar[Any] = classmethod(types.GenericAlias)

    @property
    def _target_col_name(self) -> str | None:  # what subclasses written for Ray read
        return self.on

    @property
    def _ignore_nulls(self) -> bool:
        return self.ignore_nulls

    def get_agg_name(self) -> str:
        """What its result is called without the column: `sum` of `sum(x)`."""
        return self.name.partition("(")[0] or self.name

    @abc.abstractmethod
    def aggregate_block(self, block: pa.Table) -> Any:
        """The accumulator of the rows of one group in one block."""

    @abc.abstractmethod
    def combine(self, current_accumulator: Any, new: Any) -> Any:
        """The accumulator of both; it may change the first one and return it."""

    def finalize(self, accumulator: Any) -> Any:
        """The value of the last accumulator."""
        return accumulator

    def _first(self, key: Any) -> Any:
        return None if self.ignore_nulls else self.zero_factory()

    def _accumulated(self, accumulator: Any, table: pa.Table) -> Any:
        return self.aggregate_block(table)

    def _merged(self, first: Any, second: Any) -> Any:
        if first is None or second is None:
            return (second if first is None else first) if self.ignore_nulls else None
        return self.combine(first, second)

    def _finished(self, accumulator: Any) -> Any:
        return None if accumulator is None else self.finalize(accumulator)


class VectorizedAggregateFnV2(AggregateFnV2):
    """As an `AggregateFnV2`, but a subclass joins all accumulators of a group at once, by `_combine_column`."""

    @abc.abstractmethod
    def _combine_column(self, accumulator_col: pa.ChunkedArray) -> Any:
        """The accumulator of all of these, which are a column."""

    def combine(self, current_accumulator: Any, new: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} joins accumulators by _combine_column")

    def vector_merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        found: list[list[Any]] = [[] for _ in range(groups.count)]
        for group, accumulator in zip(groups.ids.tolist(), _unpickled(state), strict=True):
            found[group].append(accumulator.as_py() if isinstance(accumulator, pa.Scalar) else accumulator)
        return _pickled([self._joined(some) for some in found])

    def _joined(self, accumulators: list[Any]) -> Any:
        known = [one for one in accumulators if one is not None]
        if not known or (len(known) < len(accumulators) and not self.ignore_nulls):
            return None
        return known[0] if len(known) == 1 else self._combine_column(pa.chunked_array([pa.array(known)]))


class Vectorized(AggregateFnV2):
    """One of ours, that takes all groups at once: `_start`, `_merge` and `_end`.

    Its accumulator, for who calls it as an AggregateFnV2, is a state of one group. A subclass that overrides one of those
    methods is called by them.
    """

    kind: ClassVar[str]  # the name of its results: kind(column)

    def __init__(
        self, on: str | None, *, alias_name: str | None = None, ignore_nulls: bool = True, zero_factory: Any = None
    ) -> None:
        if on is not None and not isinstance(on, str):
            raise TypeError(f"{self.kind}: on must be the name of a column, got {on!r}")
        if on is None and self.kind != "count":
            raise ValueError(f"{self.kind}: on must be the name of a column, got None")
        name = alias_name or f"{self.kind}({on or ''})"
        super().__init__(name, zero_factory or (lambda: None), on=on, ignore_nulls=ignore_nulls)

    def __reduce__(self) -> Any:
        return _restored, (type(self), {**self.__dict__, "zero_factory": None})  # which is never asked for

    @abc.abstractmethod
    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array: ...

    @abc.abstractmethod
    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array: ...

    @abc.abstractmethod
    def _end(self, state: pa.Array) -> pa.Array: ...

    def aggregate_block(self, block: pa.Table) -> Any:
        return self._start(block, reducing.Groups(np.zeros(block.num_rows, np.int64), 1))

    def combine(self, current_accumulator: Any, new: Any) -> Any:
        return self._merge(pa.concat_arrays([current_accumulator, new]), reducing.Groups(np.zeros(2, np.int64), 1))

    def finalize(self, accumulator: Any) -> Any:
        return self._end(accumulator)[0].as_py()

    def output_field(self, input_schema: pa.Schema) -> pa.Field | None:
        """Raises KeyError for a column that is not there and TypeError for one that this cannot be asked of."""
        if self._is_overridden():
            return None
        read = self.input_columns()
        if read is not None and all(name in input_schema.names for name in read):
            # Of a wide table one column: an empty one of all, for each of a thousand aggregations, took seconds.
            input_schema = pa.schema([input_schema.field(name) for name in read])
        empty = input_schema.empty_table()
        return pa.field(self.name, self._end(self._start(empty, reducing.Groups(np.zeros(0, np.int64), 0))).type)

    def vector_start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        return super().vector_start(table, groups) if self._is_overridden() else self._start(table, groups)

    def vector_merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        return super().vector_merge(state, groups) if self._is_overridden() else self._merge(state, groups)

    def vector_end(self, state: pa.Array) -> pa.Array:
        return super().vector_end(state) if self._is_overridden() else self._end(state)

    def _is_overridden(self) -> bool:
        return any(
            getattr(type(self), name) is not getattr(Vectorized, name)
            for name in ("aggregate_block", "combine", "finalize")
        )

    def column_values(self, table: pa.Table) -> pa.Array:
        """The column, as one plain array; tensors as lists of lists, one level for each axis."""
        columns.require(table.schema, [self.on or ""], what=f"{self.name}: the column")
        array = columns.flat(table.column(self.on))
        return tensors.to_lists(array) if tensors.is_tensor(array.type) else columns.plain(array)

    def refused(self, kind: pa.DataType, *, allowed: str) -> TypeError:
        return TypeError(
            f"{self.name}: column {self.on!r} has type {kind}; it must be {allowed}, or cast to that first"
        )


def struct(**fields: pa.Array | np.ndarray) -> pa.StructArray:
    """States of several values."""
    return pa.StructArray.from_arrays([pa.array(value) for value in fields.values()], names=list(fields))


def parts(state: pa.Array, *, first: int = 0) -> Iterator[np.ndarray]:
    """The numbers of states that `struct` made, from one field on; none of them is null."""
    return (columns.numbers(array)[0] for array in state.flatten()[first:])


def _restored(cls: type[Vectorized], fields: dict[str, Any]) -> Vectorized:
    found = cls.__new__(cls)
    found.__dict__.update(fields)
    return found


def _unchanged(accumulator: Any) -> Any:
    return accumulator


def _pickled(accumulators: list[Any]) -> pa.Array:
    return pa.array([pickle.dumps(value, protocol=_PICKLE_PROTOCOL) for value in accumulators], pa.large_binary())


def _unpickled(state: pa.Array) -> Iterator[Any]:
    return (pickle.loads(value.as_buffer()) for value in state)
