"""How expressions are written: `Expr` is a node with Python's operators and with methods.

Nothing is computed here, and nothing is looked at but the arguments of methods: what a type does not have is found in
`typing`, when there is a schema.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._expressions import datatypes, namespaces, nodes, printing


class Expr:
    """A column, a value, or something computed from them. Made by `col`, `lit` and what they offer; see
    umbel.data.expressions."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment] # `==` makes an expression: a set or dictionary could not compare

    def __init__(self, node: nodes.Node) -> None:
        self.node = node

    def __reduce__(self) -> tuple[type[Expr], tuple[nodes.Node]]:
        return type(self), (self.node,)

    def __repr__(self) -> builtins.str:
        return printing.source(self.node)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{printing.brief(self.node)} has no truth of its own, only for rows; write &, | and ~ for and, or and not, "
            "(a < b) & (b < c) for a < b < c, and .is_in() for in"
        )

    def __iter__(self) -> NoReturn:
        raise TypeError(f"{printing.brief(self.node)} cannot be iterated over; its values are known when it runs")

    def __contains__(self, _: object) -> NoReturn:
        raise TypeError(
            f"`in` has no meaning for {printing.brief(self.node)}; write .is_in(), .str.contains() or a user's function"
        )

    @property
    def name(self) -> builtins.str | None:
        """What its column is called, if that is known."""
        return nodes.name_of(self.node)

    def structurally_equals(self, other: object) -> bool:
        """It says the same."""
        return isinstance(other, Expr) and self.node == other.node

    def get_type(self, input_schema: pa.Schema) -> pa.DataType:
        """Of its values. Raises what running it would raise for these types."""
        return self.to_field(input_schema).type

    def nullable(self, input_schema: pa.Schema) -> bool:
        """Whether it may be null."""
        return bool(self.to_field(input_schema).nullable)

    def to_field(self, input_schema: pa.Schema) -> pa.Field:
        """The column that it makes."""
        from umbel.data._expressions import typing

        return typing.field_of(self, input_schema)

    def to_pyarrow(self, input_schema: pa.Schema) -> pc.Expression | None:
        """A filter for a reader of pyarrow's that lets pass the rows for which it is true, and perhaps others; None if there is
        none that surely does."""
        from umbel.data._expressions import pushdown

        return pushdown.to_pyarrow(self, input_schema)

    def _call(self, function: builtins.str, *args: object, **options: Any) -> Expr:
        return Expr(nodes.Call(function, (node_of(self), *map(node_of, args)), tuple(options.items())))

    def _reversed(self, function: builtins.str, other: object) -> Expr:
        return Expr(nodes.Call(function, (node_of(other), node_of(self))))

    def _compared(self, function: builtins.str, other: object) -> Expr:
        if other is None:
            raise TypeError(
                f"{printing.brief(self.node)} {function} None is never true; write .is_null() or .is_not_null()"
            )
        return self._call(function, other)

    def __add__(self, other: object) -> Expr:
        return self._call("+", other)

    def __radd__(self, other: object) -> Expr:
        return self._reversed("+", other)

    def __sub__(self, other: object) -> Expr:
        return self._call("-", other)

    def __rsub__(self, other: object) -> Expr:
        return self._reversed("-", other)

    def __mul__(self, other: object) -> Expr:
        return self._call("*", other)

    def __rmul__(self, other: object) -> Expr:
        return self._reversed("*", other)

    def __truediv__(self, other: object) -> Expr:
        return self._call("/", other)

    def __rtruediv__(self, other: object) -> Expr:
        return self._reversed("/", other)

    def __floordiv__(self, other: object) -> Expr:
        return self._call("//", other)

    def __rfloordiv__(self, other: object) -> Expr:
        return self._reversed("//", other)

    def __mod__(self, other: object) -> Expr:
        return self._call("%", other)

    def __rmod__(self, other: object) -> Expr:
        return self._reversed("%", other)

    def __pow__(self, other: object) -> Expr:
        return self._call("**", other)

    def __rpow__(self, other: object) -> Expr:
        return self._reversed("**", other)

    def __neg__(self) -> Expr:
        return self._call("negate")

    def __abs__(self) -> Expr:
        return self._call("abs")

    def __and__(self, other: object) -> Expr:
        return self._call("and", other)

    def __rand__(self, other: object) -> Expr:
        return self._reversed("and", other)

    def __or__(self, other: object) -> Expr:
        return self._call("or", other)

    def __ror__(self, other: object) -> Expr:
        return self._reversed("or", other)

    def __invert__(self) -> Expr:
        return self._call("not")

    def __eq__(self, other: object) -> Expr:  # type: ignore[override] # an expression of whether they are equal
        return self._compared("==", other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override] # as above
        return self._compared("!=", other)

    def __lt__(self, other: object) -> Expr:
        return self._compared("<", other)

    def __le__(self, other: object) -> Expr:
        return self._compared("<=", other)

    def __gt__(self, other: object) -> Expr:
        return self._compared(">", other)

    def __ge__(self, other: object) -> Expr:
        return self._compared(">=", other)

    def alias(self, name: builtins.str) -> Expr:
        """The same under another name."""
        if not isinstance(name, builtins.str):
            raise TypeError(f"a column is named by a string, got {name!r}")
        return Expr(nodes.Alias(nodes.unaliased(self.node), name))

    def cast(self, target_type: object, *, safe: bool = True) -> Expr:
        """target_type: one of Arrow's types or the name of one ("int32"), NumPy's, or bool, int, float, str or bytes.

        safe: a value that the type does not hold is an error. Otherwise it is cut off as Arrow does it.
        """
        return self._call("cast", to=datatypes.to_arrow(target_type), safe=safe)

    def is_null(self) -> Expr:
        """Whether it is null: true or false, never null. nan is not null."""
        return self._call("is_null")

    def is_not_null(self) -> Expr:
        """Whether it is not null: true or false, never null."""
        return self._call("is_not_null")

    def is_nan(self) -> Expr:
        """Null for null."""
        return self._call("is_nan")

    def is_in(self, values: Iterable[object]) -> Expr:
        """Whether it is equal to one of them; null for null, unless None is one of them: it is equal to null."""
        if isinstance(values, Expr | builtins.str | bytes) or not isinstance(values, Iterable):
            raise TypeError(f"is_in() takes a list of values, got {values!r}")
        if hasattr(values, "dtype"):  # an array of NumPy's, or what can be one, as a Series can
            return self._call("is_in", nodes.literal(np.asarray(values)))
        is_array = isinstance(values, pa.Array | pa.ChunkedArray)
        return self._call("is_in", nodes.literal(values if is_array else list(values)))

    def not_in(self, values: Iterable[object]) -> Expr:
        """~is_in(values). Null for null: rows without a value are in neither."""
        return ~self.is_in(values)

    def fill_null(self, value: object) -> Expr:
        """The value, or another expression, where it is null."""
        return self._call("coalesce", value)

    def between(self, lower: object, upper: object) -> Expr:
        """Both ends belong to it."""
        return (self >= lower) & (self <= upper)

    def negate(self) -> Expr:
        """`-self`, of numbers and durations. Integers are int64, and an error where the result does not fit."""
        return self._call("negate")

    def sign(self) -> Expr:
        """-1, 0 or 1."""
        return self._call("sign")

    def abs(self) -> Expr:
        """The magnitude, of numbers. Integers are int64, and an error where the result does not fit."""
        return self._call("abs")

    def power(self, exponent: object) -> Expr:
        """`self ** exponent`."""
        return self._call("**", exponent)

    def floor(self) -> Expr:
        """The next whole number that is not above, in the type of the column."""
        return self._call("floor")

    def ceil(self) -> Expr:
        """The next whole number that is not below, in the type of the column."""
        return self._call("ceil")

    def trunc(self) -> Expr:
        """Towards zero."""
        return self._call("trunc")

    def round(self, ndigits: int = 0) -> Expr:
        """To the even neighbour where two are as near, as Python's round(). A float stays one."""
        return self._call("round", ndigits=_integer(ndigits, "ndigits"))

    def ln(self) -> Expr:
        """The natural logarithm, float64: -inf of 0, nan below."""
        return self._call("ln")

    def log10(self) -> Expr:
        """The logarithm of base 10, float64: -inf of 0, nan below."""
        return self._call("log10")

    def log2(self) -> Expr:
        """The logarithm of base 2, float64: -inf of 0, nan below."""
        return self._call("log2")

    def exp(self) -> Expr:
        """e to the power of it, float64."""
        return self._call("exp")

    def sqrt(self) -> Expr:
        """The square root, float64: nan below 0."""
        return self._call("sqrt")

    def sin(self) -> Expr:
        """Of radians, float64; nan of infinities."""
        return self._call("sin")

    def cos(self) -> Expr:
        """Of radians, float64; nan of infinities."""
        return self._call("cos")

    def tan(self) -> Expr:
        """Of radians, float64; nan of infinities."""
        return self._call("tan")

    def asin(self) -> Expr:
        """In radians, float64: nan outside of [-1, 1]."""
        return self._call("asin")

    def acos(self) -> Expr:
        """In radians, float64: nan outside of [-1, 1]."""
        return self._call("acos")

    def atan(self) -> Expr:
        """In radians, float64."""
        return self._call("atan")

    @property
    def str(self) -> namespaces.StringNamespace[Expr]:
        """Functions of strings."""
        return namespaces.StringNamespace(self._call)

    @property
    def dt(self) -> namespaces.DatetimeNamespace[Expr]:
        """Functions of timestamps, dates and times."""
        return namespaces.DatetimeNamespace(self._call)

    @property
    def list(self) -> namespaces.ListNamespace[Expr]:
        """Functions of lists; `[index]` and `[start:stop]` too."""
        return namespaces.ListNamespace(self._call)

    @property
    def struct(self) -> namespaces.StructNamespace[Expr]:
        """Fields of structs; `[name]` and `[index]` too."""
        return namespaces.StructNamespace(self._call)

    @property
    def map(self) -> namespaces.MapNamespace[Expr]:
        """Functions of maps."""
        return namespaces.MapNamespace(self._call)

    @property
    def arr(self) -> namespaces.ArrayNamespace[Expr]:
        """Functions of lists of one size, and of tensors of one shape."""
        return namespaces.ArrayNamespace(self._call)


class Unnest:
    """An expression of structs, of which each field is to be a column."""

    def __init__(self, expr: Expr) -> None:
        self.expr = expr


class When:
    """`when(condition)`: what follows is `then`."""

    def __init__(self, condition: object, before: tuple[tuple[nodes.Node, nodes.Node], ...] = ()) -> None:
        self._condition = node_of(condition)
        self._before = before

    def then(self, value: object) -> Then:
        """The value where the condition holds, an expression or a Python value."""
        return Then((*self._before, (self._condition, node_of(value))))


class Then(Expr):
    """The choice so far, null where no condition holds: an expression, to which more can be added."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: tuple[tuple[nodes.Node, nodes.Node], ...]) -> None:
        super().__init__(_case(pairs, nodes.literal(None)))
        self._pairs = pairs

    def __reduce__(self) -> tuple[Any, ...]:
        return Expr, (self.node,)

    def when(self, condition: object) -> When:
        """Another condition, looked at where none of those before holds."""
        return When(condition, self._pairs)

    def otherwise(self, value: object) -> Expr:
        """The value where no condition holds."""
        return Expr(_case(self._pairs, node_of(value)))


def _case(pairs: tuple[tuple[nodes.Node, nodes.Node], ...], otherwise: nodes.Node) -> nodes.Case:
    return nodes.Case(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs), otherwise)


def node_of(value: object) -> nodes.Node:
    """Of an expression, without its name, or of a value."""
    if isinstance(value, Expr):
        return nodes.unaliased(value.node)
    return value if isinstance(value, nodes.Node) else nodes.literal(value)


def _integer(value: object, name: builtins.str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return value
