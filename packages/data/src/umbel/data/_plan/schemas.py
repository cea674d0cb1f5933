"""What columns a node has, as far as that is known before anything runs.

None where a user's function decides. Errors that can be seen by types, such as a column that is not there, are raised here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from umbel.data._blocks import grouping, joining, naming, windows
from umbel.data._blocks import schemas as block_schemas
from umbel.data._expressions import typing
from umbel.data._plan import logical


def of(node: logical.Node, known: dict[logical.Node, pa.Schema | None] | None = None) -> pa.Schema | None:
    """known: what was found before, by node; it is added to."""
    known = {} if known is None else known
    for one in logical.each(node):
        if one not in known:
            known[one] = _of_one(one, [known[child] for child in one.inputs])
    return known[node]


@functools.singledispatch
def _of_one(node: Any, inputs: list[pa.Schema | None]) -> pa.Schema | None:
    """By default what its only input has."""
    return inputs[0] if len(inputs) == 1 else None


def _when_known(
    rule: Callable[[Any, pa.Schema], pa.Schema | None],
) -> Callable[[Any, list[pa.Schema | None]], pa.Schema | None]:
    return lambda node, inputs: None if inputs[0] is None else rule(node, inputs[0])


@_of_one.register
def _(node: logical.FromBlocks, _inputs: list[pa.Schema | None]) -> pa.Schema | None:
    found = [block.metadata.schema for block in node.blocks]
    if not found or any(one is None for one in found):
        return None
    return block_schemas.unify([(one, f"block {number}") for number, one in enumerate(found)])


@_of_one.register
def _(node: logical.Read, _inputs: list[pa.Schema | None]) -> pa.Schema | None:
    return node.source.schema()


@_of_one.register(logical.MapRows)
@_of_one.register(logical.MapBatches)
@_of_one.register(logical.MapGroups)
def _(node: Any, inputs: list[pa.Schema | None]) -> pa.Schema | None:
    return inputs[0] if getattr(node, "kind", "") == "filter" else None


@_when_known
def _filter(node: logical.Filter, schema: pa.Schema) -> pa.Schema:
    found = typing.field_of(node.expression, schema)
    if not (pa.types.is_boolean(found.type) or pa.types.is_null(found.type)):
        raise TypeError(f"a filter is true or false for each row; {node.expression!r} is {found.type}")
    return schema


@_when_known
def _project(node: logical.Project, schema: pa.Schema) -> pa.Schema:
    kept = pa.schema([one for one in schema if one.name not in node.dropped])
    return typing.schema_of(node.expressions, kept)


@_when_known
def _rename(node: logical.Rename, schema: pa.Schema) -> pa.Schema:
    return block_schemas.renamed(schema, node.names)


@_when_known
def _aggregate(node: logical.Aggregate, schema: pa.Schema) -> pa.Schema | None:
    return grouping.Grouping(node.keys, node.aggregates).schema(schema)


@_when_known
def _window(node: logical.Window, schema: pa.Schema) -> pa.Schema:
    return windows.window(schema.empty_table(), node.partition_by, node.order_by, node.functions).schema


for _kind, _rule in (
    (logical.Filter, _filter),
    (logical.Project, _project),
    (logical.Rename, _rename),
    (logical.Aggregate, _aggregate),
    (logical.Window, _window),
):
    _of_one.register(_kind, _rule)


@_of_one.register
def _(node: logical.Join, inputs: list[pa.Schema | None]) -> pa.Schema | None:
    left, right = inputs
    if left is None or right is None:
        return None
    suffixes = {"left_suffix": node.left_suffix, "right_suffix": node.right_suffix}
    how: Any = node.how
    return joining.joined_schema(left, right, how, node.left_on, node.right_on, **suffixes)


@_of_one.register
def _(node: logical.AsofJoin, inputs: list[pa.Schema | None]) -> pa.Schema | None:
    from umbel.data._plan import kernels

    left, right = inputs
    if left is None or right is None:
        return None
    joined: pa.Schema = kernels.AsofJoined(node).joined(left.empty_table(), right.empty_table()).schema
    return joined


@_of_one.register(logical.Zip)
def _(node: logical.Zip, inputs: list[pa.Schema | None]) -> pa.Schema | None:
    from umbel.data._plan import kernels

    if any(one is None for one in inputs):
        return None
    whole: pa.Schema = kernels.Zipped()([one.empty_table() for one in inputs if one is not None]).schema
    return whole


@_of_one.register(logical.Union)
@_of_one.register(logical.Mix)
def _(node: logical.Several, inputs: list[pa.Schema | None]) -> pa.Schema | None:
    if any(one is None for one in inputs):
        return None
    return block_schemas.unify(
        [(one, f"input {number} of the {node.name.lower()}") for number, one in enumerate(inputs)]
    )


@_of_one.register
def _(node: logical.Write, _inputs: list[pa.Schema | None]) -> pa.Schema | None:
    return None


def check_columns(names: Iterable[str], schema: pa.Schema) -> None:
    """Raises KeyError for one that the schema has not."""
    for name in names:
        if name not in schema.names:
            raise KeyError(f"there is no column {name!r}; {naming.hint(name, schema.names)}")


def numbers(schema: pa.Schema, *, but: Sequence[str] = ()) -> list[str]:
    """Columns that can be summed."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return [one.name for one in schema if one.name not in but and any(is_of(one.type) for is_of in kinds)]
