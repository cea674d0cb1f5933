"""What an expression gives for a table.

One value for all rows stays a scalar until the end. A branch of `when`, the right side of `&` and `|`, and the later
arguments of `coalesce` are computed only where they matter: `when(b != 0).then(a / b)` divides by no zero. Types are
found by the same code on no rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import (
    arrays,
    comparing,
    errors,
    functions,
    generated,
    nodes,
    printing,
    promotion,
    typing,
    udfs,
)
from umbel.data._expressions.promotion import Operand, Value


class Frame(NamedTuple):
    """Rows of a block. table: None if only types are wanted: there are no rows then, and no user's function is called.
    row_offset: the number of the table's first row in its block. selection: which rows of the table these are, if not all."""

    table: pa.Table | None
    schema: pa.Schema
    row_count: int
    row_offset: int = 0
    block: int = 0
    epoch: int = 0
    selection: pa.Array | None = None

    @property
    def is_dry(self) -> bool:
        return self.table is None

    def column(self, name: str) -> Value:
        indices = self.schema.get_all_field_indices(name)
        if len(indices) > 1:
            raise errors.ExpressionTypeError(f"there are {len(indices)} columns {name!r}; rename them before using one")
        if not indices:
            raise errors.UnknownColumnError(errors.unknown(name, self.schema.names))
        return pa.nulls(0, self.schema.field(indices[0]).type) if self.table is None else self.table.column(indices[0])

    def rows(self, indices: pa.Array, columns: Sequence[str]) -> Frame:
        assert self.table is not None
        table = self.table.select(columns).take(indices)
        selection = indices if self.selection is None else self.selection.take(indices)
        return self._replace(table=table, schema=table.schema, row_count=len(indices), selection=selection)


def evaluate(
    expr: nodes.Tree, table: pa.Table, *, row_offset: int = 0, block: int = 0, epoch: int = 0
) -> pa.Array | pa.ChunkedArray:
    """A value for each row. row_offset, block, epoch: where the rows are, for what depends on that (`generated`).

    Raises ExpressionTypeError or UnknownColumnError where `typing.field_of` does, ExpressionError for data that the
    expression has no value for, and what a user's function raises.
    """
    frame = Frame(table, table.schema, table.num_rows, row_offset, block, epoch)
    return broadcast(value_of(nodes.tree(expr), frame).value, table.num_rows)


def project(
    table: pa.Table, exprs: Sequence[nodes.Tree], *, row_offset: int = 0, block: int = 0, epoch: int = 0
) -> pa.Table:
    """The table of these columns, whose schema is `typing.schema_of` of the same."""
    frame = Frame(table, table.schema, table.num_rows, row_offset, block, epoch)
    outputs = typing.outputs(exprs, table.schema)
    columns = [broadcast(value_of(node, frame).value, table.num_rows) for _, node in outputs]
    fields = [
        typing.field(name, node, column.type, table.schema)
        for (name, node), column in zip(outputs, columns, strict=True)
    ]
    return pa.table(columns, schema=pa.schema(fields, table.schema.metadata))


def filter(table: pa.Table, expr: nodes.Tree, *, row_offset: int = 0, block: int = 0, epoch: int = 0) -> pa.Table:
    """The rows for which it is true; null is not. The table itself where that is all of them."""
    node = nodes.tree(expr)
    mask = promotion.plain(value_of(node, Frame(table, table.schema, table.num_rows, row_offset, block, epoch)))
    typing.demand_filter(node, mask.type)
    if isinstance(mask.value, pa.Scalar):
        return table if mask.value.as_py() else table.slice(0, 0)
    if not at.is_boolean(mask.type):
        return table.slice(0, 0)
    return table if arrays.all_true(mask.value) else table.filter(mask.value)


def value_of(node: nodes.Node, frame: Frame) -> Operand:
    """Raises ExpressionError, ExpressionTypeError or UnknownColumnError, and what a user's function raises."""
    if isinstance(node, nodes.Column):
        return Operand(frame.column(node.name))
    if isinstance(node, nodes.Literal):
        return Operand(node.scalar, node.is_weak)
    if isinstance(node, nodes.Alias):
        return value_of(node.node, frame)
    if isinstance(node, nodes.Call):
        special = {"and": _logic, "or": _logic, "coalesce": _coalesce}.get(node.function, _call)
        return special(node, frame)
    if isinstance(node, nodes.Case):
        return _case(node, frame)
    if isinstance(node, nodes.UdfCall):
        return _udf_call(node, frame)
    if isinstance(node, nodes.Generated):
        return Operand(_generated(node, frame))
    raise errors.ExpressionTypeError("star() stands for all columns and not for one; it goes alone into a selection")


def _named(node: nodes.Node, frame: Frame, function: Callable[..., Value], *args: Any, **options: Any) -> Value:
    """What the function returns; what it raises, with the node's text. Not for users' functions, whose errors are theirs."""
    try:
        return function(*args, **options)
    except errors.Problem as problem:
        raise problem.kind(f"{printing.brief(node)}: {problem}{_place(problem.row, frame)}") from problem.__cause__
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise errors.ExpressionTypeError(f"{printing.brief(node)}: {error}") from error
    except pa.ArrowInvalid as error:
        raise errors.ExpressionError(f"{printing.brief(node)}: {error}") from error


def _place(row: int | None, frame: Frame) -> str:
    if row is None or frame.is_dry:
        return ""
    of_table = row if frame.selection is None else frame.selection[row].as_py()
    return f" (first in row {frame.row_offset + of_table} of the block)"


def broadcast(value: Value, row_count: int) -> Value:
    return arrays.repeated(value, row_count) if isinstance(value, pa.Scalar) else value


def _call(node: nodes.Call, frame: Frame) -> Operand:
    function = functions.FUNCTIONS[node.function]
    args = [value_of(arg, frame) for arg in node.args]
    if not function.takes_encoded:
        args = [_named(node, frame, promotion.plain, arg) for arg in args]
    value = _named(node, frame, function.run, args, **dict(node.options))
    if all(isinstance(arg.value, pa.Scalar) for arg in args):
        # A function that knows only arrays gave an array of one.
        return Operand(value if isinstance(value, pa.Scalar) else value[0], all(arg.is_weak for arg in args))
    return Operand(value)


def _logic(node: nodes.Call, frame: Frame) -> Operand:
    """The right side where the left one does not decide."""
    left = promotion.plain(value_of(node.args[0], frame))
    _named(node, frame, comparing.demand_boolean, left, functions.SYMBOLS[node.function])
    right = _where(node.args[1], frame, _is_not_false if node.function == "and" else _is_not_true, left.value)
    return Operand(_named(node, frame, functions.FUNCTIONS[node.function].run, [left, promotion.plain(right)]))


def _coalesce(node: nodes.Call, frame: Frame) -> Operand:
    args: list[Operand] = []
    for arg in node.args:
        args.append(promotion.plain(_where(arg, frame, _all_null, *(known.value for known in args))))
    return Operand(_named(node, frame, functions.coalesced, args), all(arg.is_weak for arg in args))


def _case(node: nodes.Case, frame: Frame) -> Operand:
    open_rows: Value = pa.scalar(True)  # for which no condition was true yet
    conditions: list[Value] = []
    values: list[Operand] = []
    for condition, value in zip(node.conditions, node.values, strict=True):
        holds = promotion.plain(_where(condition, frame, _itself, open_rows))
        if not at.is_boolean(holds.type) and not at.is_null(holds.type):
            raise errors.ExpressionTypeError(f"when() takes a boolean, {printing.brief(condition)} is {holds.type}")
        holds_now = pc.and_(open_rows, pc.fill_null(pc.cast(holds.value, pa.bool_()), False))
        conditions.append(holds_now)
        values.append(promotion.plain(_where(value, frame, _itself, holds_now)))
        open_rows = pc.and_not(open_rows, holds_now)
    values.append(promotion.plain(_where(node.otherwise, frame, _itself, open_rows)))
    return Operand(_named(node, frame, functions.first_chosen, conditions, values))


def _udf_call(node: nodes.UdfCall, frame: Frame) -> Operand:
    args = [value_of(arg, frame) for arg in node.args]
    if frame.row_count == 0:  # few functions are written for no rows
        return Operand(pa.nulls(0, node.return_type))
    result = udfs.result(node, args)
    return Operand(_named(node, frame, udfs.checked, result, node.return_type, frame.row_count))


def _where(node: nodes.Node, frame: Frame, mask: Callable[..., Value], *of: Value) -> Operand:
    """The node's value in rows where `mask(*of)` is true; what it is in others does not matter.

    What can fail is tried on all rows, for it seldom does, and then on those alone. A user's function sees those alone at once.
    """
    if frame.is_dry or not may_fail(node):
        return value_of(node, frame)
    if not any(isinstance(one, nodes.UdfCall) for one in nodes.walk(node)):
        try:
            return value_of(node, frame)
        except errors.ExpressionError:
            pass  # in a row that matters it fails again below
    rows = pc.indices_nonzero(broadcast(mask(*of), frame.row_count))
    if len(rows) == frame.row_count:
        return value_of(node, frame)
    found = value_of(node, frame.rows(rows, nodes.columns_of(node)))
    if isinstance(found.value, pa.Scalar):
        return found
    places = np.full(frame.row_count, -1)
    places[rows.to_numpy()] = np.arange(len(rows))
    return Operand(found.value.take(pa.array(places, mask=places < 0)))


def _itself(mask: Value) -> Value:
    return mask


def _is_not_false(flags: Value) -> Value:
    return pc.fill_null(flags, True)


def _is_not_true(flags: Value) -> Value:
    return pc.invert(pc.fill_null(flags, False))


def _all_null(*values: Value) -> Value:
    return functools.reduce(pc.and_, map(pc.is_null, values), pa.scalar(True))


def may_fail(node: nodes.Node) -> bool:
    """For some rows and not for others, so that where it is computed decides whether it does."""
    return any(
        isinstance(one, nodes.UdfCall) or (isinstance(one, nodes.Call) and functions.FUNCTIONS[one.function].may_fail)
        for one in nodes.walk(node)
    )


def _generated(node: nodes.Generated, frame: Frame) -> Value:
    first, rows = frame.row_offset, frame.row_count
    if frame.selection is not None:  # in the order of the rows: the last is the greatest
        rows = frame.selection[-1].as_py() + 1 if rows else 0
    key = (node.seed, frame.epoch if node.varies_by_epoch else 0, frame.block)
    if node.kind == "row_id":
        found: Value = generated.row_ids(frame.block, first, rows)
    else:
        found = (generated.uniform if node.kind == "random" else generated.uuids)(key, first, rows)
    return found if frame.selection is None else found.take(frame.selection)
