"""Rows of equal keys: aggregated, handed out group by group, or kept once each.

An aggregation is partial in each block, combined any number of times in any tree, and finished once; what comes out does not
depend on how, but for the last digits of sums of floats. The result is in the order of the keys, as pandas has it (Ray's hash
shuffle has none): nulls and NaN last, as every sort here; keys that have no order (lists, structs) come by first appearance.
A null key is a group.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from umbel.data._blocks import aggregating, columns, factoring, ordering, reducing, schemas

Keep = Literal["first", "last", "any"]
KEEPS: Final = ("first", "last", "any")


class Grouping:
    """The aggregation of the groups of `keys`, or of all rows where there are no keys: then there is one row, even of none.

    A result of a name that is taken already gets `_2`, `_3` and so on.
    """

    def __init__(self, keys: Sequence[str], aggregates: Sequence[aggregating.AggregateFn]) -> None:
        self.keys = tuple(keys)
        self.aggregates = tuple(aggregates)
        if not self.keys and not self.aggregates:
            raise ValueError("nothing to aggregate by or for; give a key, or an aggregation such as Count()")
        for aggregate in self.aggregates:
            if not isinstance(aggregate, aggregating.AggregateFn):
                raise TypeError(f"an aggregation must be an AggregateFn such as Sum('x'), got {aggregate!r}")
        if len(set(self.keys)) < len(self.keys):
            raise ValueError(f"a column can be a key once, got {list(self.keys)}")
        self.names = _distinct_names(self.keys, [aggregate.name for aggregate in self.aggregates])

    def input_columns(self) -> tuple[str, ...] | None:
        """The columns that are read; None if a user's function may read any."""
        read = [*self.keys]
        for aggregate in self.aggregates:
            inputs = aggregate.input_columns()
            if inputs is None:
                return None
            read += inputs
        return tuple(dict.fromkeys(read))

    def schema(self, schema: pa.Schema) -> pa.Schema | None:
        """The schema of the result for rows of this one, or None where only the values of a user's own aggregation tell.

        Raises KeyError for a column that is not there and TypeError for one of a type that an aggregation does not take.
        """
        columns.require(schema, self.keys, what="the key")
        fields = [schema.field(key) for key in self.keys]
        for name, aggregate in zip(self.names, self.aggregates, strict=True):
            field = aggregate.output_field(schema)
            if field is None:
                return None
            fields.append(field.with_name(name))
        return pa.schema(fields)

    def partial(self, table: pa.Table) -> pa.Table:
        """The state of each group: the keys, and one column for each aggregation."""
        columns.require(table.schema, self.keys, what="the key")
        groups = self._groups(table)
        return self._table(groups.keys, [aggregate.vector_start(table, groups) for aggregate in self.aggregates])

    def combine(self, tables: Sequence[pa.Table]) -> pa.Table:
        """The states of all, which `partial` or `combine` made, the earlier rows' first; again such a table. Of these tables each
        has a group once; see `merged` for others."""
        if len(tables) == 1:
            return tables[0]
        return self.merged(self.together(tables))

    def finish(self, table: pa.Table, *, is_ordered: bool = True) -> pa.Table:
        """The values of each group. is_ordered: by their keys; otherwise in the order of the table."""
        states = [columns.flat(column) for column in table.columns[len(self.keys) :]]
        values = [aggregate.vector_end(state) for aggregate, state in zip(self.aggregates, states, strict=True)]
        found = self._table(table.select(self.keys), values)
        return _by_keys(found, self.keys) if is_ordered else found

    def whole(self, table: pa.Table, *, is_ordered: bool = True) -> pa.Table:
        """All of it at once."""
        return self.finish(self.partial(table), is_ordered=is_ordered)

    def of_nothing(self) -> pa.Table:
        """The row of all rows where there are none, nor a block that has the columns."""
        names = self.input_columns() or ()
        return self.whole(pa.table({name: pa.nulls(0) for name in names}))

    def together(self, tables: Sequence[pa.Table]) -> pa.Table:
        """The states of all in one table, of which some may be of a column that had another type there."""
        if any(not table.schema.equals(tables[0].schema) for table in tables):
            tables = [table.combine_chunks() for table in tables]
            for index, aggregate in enumerate(self.aggregates, len(self.keys)):
                states = aggregate.alike([columns.flat(table.column(index)) for table in tables])
                name = tables[0].column_names[index]
                tables = [table.set_column(index, name, state) for table, state in zip(tables, states, strict=True)]
        return schemas.concat(tables)

    def merged(self, table: pa.Table) -> pa.Table:
        """One state of each group, of a table that may have several."""
        groups = self._groups(table)
        states = [columns.flat(column) for column in table.columns[len(self.keys) :]]
        merged = [
            aggregate.vector_merge(state, groups) for aggregate, state in zip(self.aggregates, states, strict=True)
        ]
        return self._table(groups.keys, merged)

    def _groups(self, table: pa.Table) -> reducing.Groups:
        if not self.keys:
            return reducing.Groups(np.zeros(table.num_rows, np.int64), 1)
        return _groups(table, self.keys, is_ordered=False)

    def _table(self, keys: pa.Table | None, arrays: Sequence[pa.Array]) -> pa.Table:
        columns_of_keys = [] if keys is None else keys.columns
        fields = [] if keys is None else list(keys.schema)
        fields += [pa.field(name, array.type) for name, array in zip(self.names, arrays, strict=True)]
        return pa.Table.from_arrays([*columns_of_keys, *arrays], schema=pa.schema(fields))


def groups(table: pa.Table, keys: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """The values of the keys and the rows of each group, in the order of the keys; the rows keep theirs.

    The tables are slices of one, which is the table itself where its groups lie in order already. Without keys all rows are
    one group, if there are any.
    """
    columns.require(table.schema, keys, what="the key")
    if not table.num_rows:
        return
    found = _groups(table, keys, is_ordered=True)
    values = [column.to_pylist() for column in found.keys.itercolumns()] if found.keys is not None else []
    keyed: Iterator[tuple[Any, ...]] = zip(*values, strict=True) if values else iter([()])
    yield from zip(keyed, found.tables(table), strict=True)


def distinct(table: pa.Table, keys: Sequence[str] | None = None, *, keep: Keep = "first") -> pa.Table:
    """One row of each group of equal keys (None: all columns): its first or last, in the order of the table. "any" is the
    first."""
    if keep not in KEEPS:
        raise ValueError(f"keep must be one of {', '.join(map(repr, KEEPS))}, got {keep!r}")
    names = table.column_names if keys is None else list(keys)
    columns.require(table.schema, names, what="the key")
    found = factoring.factors([columns.flat(table.column(name)) for name in names], table.num_rows)
    if found.count == table.num_rows:
        return table
    is_kept = np.zeros(table.num_rows, bool)
    is_kept[reducing.Groups(found.ids, found.count).last() if keep == "last" else found.first] = True
    return columns.taken(table, np.flatnonzero(is_kept))


def _groups(table: pa.Table, keys: Sequence[str], *, is_ordered: bool) -> reducing.Groups:
    """is_ordered: numbered in the order of their keys. Those without an order are numbered by first appearance in any case."""
    found = factoring.factors([columns.flat(table.column(key)) for key in keys], table.num_rows)
    has_order = all(ordering.has_order(table.schema.field(key).type) for key in keys)
    firsts = columns.taken(table.select(keys), found.first)
    if has_order and not is_ordered:
        return reducing.Groups(found.ids, found.count, firsts)
    codes = ordering.codes(firsts, keys) if has_order else [found.first.astype(np.uint64)]
    order = ordering.argsort(codes, found.count)
    if _is_in_place(order):
        return reducing.Groups(found.ids, found.count, firsts)
    numbers = np.empty(found.count, np.int64)
    numbers[order] = np.arange(found.count)
    return reducing.Groups(numbers[found.ids], found.count, columns.taken(firsts, order))


def _by_keys(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    if not all(ordering.has_order(table.schema.field(key).type) for key in keys):
        return table
    order = ordering.argsort(ordering.codes(table, keys), table.num_rows)
    return table if _is_in_place(order) else columns.taken(table, order)


def _is_in_place(order: np.ndarray) -> bool:
    return bool((order[1:] > order[:-1]).all())


def _distinct_names(taken: Sequence[str], names: Sequence[str]) -> list[str]:
    used = set(taken)
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for name in names:
        chosen = name
        while chosen in used:
            seen[name] += 1
            chosen = f"{name}_{seen[name] + 1}"
        used.add(chosen)
        found.append(chosen)
    return found
