"""Filters that a reader applies itself: what pyarrow can decide, and by what it may leave out whole files and row groups.

A filter here is a pyarrow expression. Leaving out by what is known of values (a partition, the smallest and the largest of a
row group) must give the same rows as reading all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from umbel.data._sources import errors

# What statistics decide rightly for floating point too. They do not count NaN, which is unequal to everything: of a row
# group of 5.0 and NaN, pyarrow believes that `x != 5.0` holds nowhere. And zeros are between -0.0 and 0.0 there, of which
# `is_in` takes only one for 0.0.
_SAFE_FUNCTIONS: Final = frozenset({"is_null", "is_valid"})
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def split(expr: Any, schema: pa.Schema | None, path_schema: pa.Schema) -> tuple[pc.Expression | None, Any | None]:
    """The part that a reader can take, and what is left. schema: of all that the reader gives, None where it is not known; then
    only what concerns `path_schema` alone can be taken."""
    if isinstance(expr, pc.Expression):
        return expr, None
    from umbel.data._expressions import nodes, pushdown, rewriting

    if schema is not None:
        whole = pushdown.split(expr, schema)
        return whole.pushed, whole.residual
    if not rewriting.is_deterministic(expr):
        return None, expr
    known = set(path_schema.names)
    of_path: list[Any] = []
    rest: list[Any] = []
    for part in rewriting.conjuncts(expr):
        columns = rewriting.columns_of(part)
        (of_path if columns and known.issuperset(columns) else rest).append(part)
    if not of_path:
        return None, expr
    taken = pushdown.split(nodes.conjunction(tuple(part.node for part in of_path)), path_schema)
    return taken.pushed, rewriting.conjunction([*([] if taken.residual is None else [taken.residual]), *rest])


def check_columns(names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(errors.no_column(unknown[0], known, purpose="read"))
    if len(set(names)) < len(names):
        raise ValueError(f"columns must be named once each, got {list(names)}")


def columns_of(expression: pc.Expression, schema: pa.Schema) -> list[str]:
    """The columns that it looks at: those without which it has no meaning."""
    return [name for name in schema.names if not _binds(expression, pa.schema([f for f in schema if f.name != name]))]


def guarantee(values: Mapping[str, pa.Scalar]) -> pc.Expression:
    """What is so of each row for which the columns have these values."""
    known = pc.scalar(True)
    for name, value in values.items():
        known = known & (pc.field(name) == value if value.is_valid else pc.field(name).is_null())
    return known


def between(field: pa.Field, low: Any, high: Any, *, may_be_null: bool) -> pc.Expression:
    """What is so of each row of which the values are within bounds. low, high: None where all of them are null."""
    column = pc.field(field.name)
    if low is None or high is None:
        return column.is_null()
    within = (column >= pa.scalar(low, field.type)) & (column <= pa.scalar(high, field.type))
    return within | column.is_null() if may_be_null else within


def possible(expression: pc.Expression, guarantees: Sequence[pc.Expression], schema: pa.Schema) -> list[bool]:
    """For each guarantee whether a row may pass. All may where the expression asks for what the schema has not."""
    if not _binds(expression, schema):
        return [True] * len(guarantees)
    import pyarrow.dataset as pads  # which takes as long to import as all else, and only filters need

    form, nowhere = pads.ParquetFileFormat(), fs.LocalFileSystem()
    fragments = [
        form.make_fragment(str(index), nowhere, partition_expression=known) for index, known in enumerate(guarantees)
    ]
    dataset = pads.FileSystemDataset(fragments, schema, form, nowhere)
    kept = {int(fragment.path) for fragment in dataset.get_fragments(filter=expression)}
    return [index in kept for index in range(len(guarantees))]


def may_use_statistics(expression: pc.Expression, schema: pa.Schema) -> bool:
    """Whether smallest and largest values decide it rightly: always, but where floating point is looked at otherwise than by
    comparison."""
    if not any(pa.types.is_floating(schema.field(name).type) for name in columns_of(expression, schema)):
        return True
    text = _STRING.sub('""', str(expression))
    return "!=" not in text and set(re.findall(r"(\w+)\(", text)) <= _SAFE_FUNCTIONS


def _binds(expression: pc.Expression, schema: pa.Schema) -> bool:
    try:
        pa.Table.from_batches([], schema).filter(expression)
    except pa.ArrowInvalid as error:
        if "No match for FieldRef" in str(error):
            return False
        raise
    return True
