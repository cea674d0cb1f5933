"""Expressions of columns: `col("price") * col("count")`, `when(...)`, `@udf(...)`.

What they mean does not depend on how data is stored. Arithmetic is Python's: `/` of integers is a float, `//` and `%`
round down, and what does not fit into 64 bits, or divides an integer by zero, is an error. Null with anything is
null. Types are checked before anything runs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from umbel.data._expressions import datatypes, nodes, udfs
from umbel.data._expressions.errors import ExpressionError as ExpressionError
from umbel.data._expressions.errors import ExpressionOverflowError as ExpressionOverflowError
from umbel.data._expressions.errors import ExpressionTypeError as ExpressionTypeError
from umbel.data._expressions.errors import ExpressionZeroDivisionError as ExpressionZeroDivisionError
from umbel.data._expressions.errors import UnknownColumnError as UnknownColumnError
from umbel.data._expressions.expr import Expr as Expr
from umbel.data._expressions.expr import Unnest as Unnest
from umbel.data._expressions.expr import When, node_of

__all__ = [
    "Expr",
    "ExpressionError",
    "ExpressionOverflowError",
    "ExpressionTypeError",
    "ExpressionZeroDivisionError",
    "UnknownColumnError",
    "Unnest",
    "coalesce",
    "col",
    "download",
    "lit",
    "monotonically_increasing_id",
    "pyarrow_udf",
    "random",
    "star",
    "udf",
    "unnest",
    "uuid",
    "when",
]


def col(name: str) -> Expr:
    """The column of that name."""
    if not isinstance(name, str):
        raise TypeError(f"a column is named by a string, got {name!r}; lit() makes a value")
    return Expr(nodes.Column(name))


def lit(value: object) -> Expr:
    """One value for all rows. A Python value takes the type of what it is combined with; one of NumPy's or Arrow's
    keeps its own."""
    return Expr(node_of(value))


def star() -> Expr:
    """All columns, in a selection. Others of the selection may take the place of some by their names."""
    return Expr(nodes.Star())


def when(condition: object) -> When:
    """`when(condition).then(value).when(...).then(...).otherwise(value)`: the value of the first condition that is true.

    A null condition is not. Without `otherwise`, the rest is null. A value is computed only where it is taken.
    """
    return When(condition)


def coalesce(*values: object) -> Expr:
    """The first that is not null. Each is computed only where those before it are null."""
    if not values:
        raise TypeError("coalesce() takes at least one expression or value")
    return Expr(nodes.Call("coalesce", tuple(map(node_of, values))))


def unnest(expr: Expr) -> Unnest:
    """In `with_columns`: a column for each field of the struct that it is, named as the fields are."""
    if not isinstance(expr, Expr):
        raise TypeError(f"unnest() takes an expression such as col('struct'), got {expr!r}")
    return Unnest(expr)


def download(uri_column_name: str, *, filesystem: Any = None) -> Expr:
    """The bytes of the file that each row names by a URI or path; null for null. Several are fetched at once.

    filesystem: of pyarrow or fsspec; by the URI otherwise. Raises FileNotFoundError for one that is not there.
    """
    from umbel.data._sources import downloading

    call = udfs.decorator(pa.binary(), wrap=Expr, node_of=_expression_node)(downloading.Download(filesystem))
    made: Expr = call(col(uri_column_name))
    return made


def monotonically_increasing_id() -> Expr:
    """A number for each row that no other has, rising within a block: the block's number times 2**33, and the row's
    number in it."""
    return Expr(nodes.Generated("row_id"))


def random(*, seed: int | None = None, reseed_after_execution: bool = True) -> Expr:
    """A float in [0, 1) for each row, which depends on the seed and on where the row is, and not on how it is computed.

    seed: drawn now if it is None. reseed_after_execution: each execution of the dataset gives other numbers, the same
    as often as it is run from the beginning.
    """
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        raise ValueError(f"seed must be an integer of at least 0, or None, got {seed!r}")
    drawn = secrets.randbits(128) if seed is None else seed
    return Expr(nodes.Generated("random", drawn, reseed_after_execution, seed is not None))


def uuid() -> Expr:
    """A random identifier (UUID, version 4) for each row, as a string. Another in each execution, and in each such column."""
    return Expr(nodes.Generated("uuid", secrets.randbits(128), varies_by_epoch=True))


def udf(return_dtype: object) -> Callable[[Any], Any]:
    """Makes a function of columns usable in expressions; return_dtype is the type of its values, as in `Expr.cast`.

    It gets an Arrow array for each argument that is an expression, and other arguments as they are; it returns one
    value for each row: an array of Arrow's or NumPy's, a Series or a list. A class is instantiated where it is used,
    once in each process:

        @udf(return_dtype=pa.int64())
        class Shifted:
            def __init__(self, by): self.by = by
            def __call__(self, x): return pc.add(x, self.by)

        ds.with_column("y", Shifted(5)(col("x")))
    """
    return udfs.decorator(datatypes.to_arrow(return_dtype), wrap=Expr, node_of=_expression_node)


def pyarrow_udf(return_dtype: object) -> Callable[[Any], Any]:
    """The same as `udf`: arrays are always Arrow's."""
    return udf(return_dtype)


def _expression_node(value: object) -> nodes.Node | None:
    return node_of(value) if isinstance(value, Expr) else None
