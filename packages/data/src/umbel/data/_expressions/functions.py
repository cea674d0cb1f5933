"""The functions that a `Call` may name.

The name is how it is written: an operator, a method, or a method of a namespace (`str.upper`). The type of the result
depends on the types of the arguments, on the values of literals and on the options alone: `typing` finds it by
calling the function with no rows.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._expressions import arithmetic, arrays, comparing, errors, nested, promotion, strings, temporal
from umbel.data._expressions.promotion import Operand, Value

Nullability = Literal["any", "never", "always"]


class Function(NamedTuple):
    """run: gets the arguments, plain (promotion.plain) unless `takes_encoded`, and the options by name. nullability:
    the result may be null if any argument may, never, or always. may_fail: for some rows and not for others, and so
    is wanted only where it is wanted."""

    run: Callable[..., Value]
    nullability: Nullability = "any"
    may_fail: bool = False
    takes_encoded: bool = False


BINARY: Final[Mapping[str, int]] = types.MappingProxyType(
    # How tightly each binds, as in Python; comparisons bind least.
    {
        "==": 1,
        "!=": 1,
        "<": 1,
        "<=": 1,
        ">": 1,
        ">=": 1,
        "or": 2,
        "and": 3,
        "+": 4,
        "-": 4,
        "*": 5,
        "/": 5,
        "//": 5,
        "%": 5,
        "**": 7,
    }
)
UNARY: Final[Mapping[str, int]] = types.MappingProxyType({"negate": 6, "not": 6})
SYMBOLS: Final[Mapping[str, str]] = types.MappingProxyType({"or": "|", "and": "&", "negate": "-", "not": "~"})
_MATHS: Final[Mapping[str, Callable[..., Value]]] = types.MappingProxyType(
    {
        "ln": pc.ln,
        "log10": pc.log10,
        "log2": pc.log2,
        "exp": pc.exp,
        "sqrt": pc.sqrt,
        "sin": pc.sin,
        "cos": pc.cos,
        "tan": pc.tan,
        "asin": pc.asin,
        "acos": pc.acos,
        "atan": pc.atan,
    }
)
_PARTS: Final[Mapping[str, tuple[Callable[..., Value], bool]]] = types.MappingProxyType(
    {  # whether a time has it
        "year": (pc.year, False),
        "quarter": (pc.quarter, False),
        "month": (pc.month, False),
        "day": (pc.day, False),
        "day_of_week": (pc.day_of_week, False),
        "day_of_year": (pc.day_of_year, False),
        "hour": (pc.hour, True),
        "minute": (pc.minute, True),
        "second": (pc.second, True),
    }
)


def _cast(args: list[Operand], *, to: pa.DataType, safe: bool) -> Value:
    (a,) = args
    if not isinstance(a.value, pa.Scalar):
        return pc.cast(a.value, to, safe=safe)
    return pc.cast(pa.repeat(a.value, 1), to, safe=safe)[0]  # `safe` of scalars came with later versions of Arrow


def _is_null(args: list[Operand]) -> Value:
    return pc.is_null(args[0].value)


def _is_not_null(args: list[Operand]) -> Value:
    return pc.is_valid(args[0].value)


def _table() -> dict[str, Function]:
    any_of = Function
    failing = functools.partial(Function, may_fail=True)
    table = {
        "+": failing(arithmetic.add),
        "-": failing(arithmetic.subtract),
        "*": failing(arithmetic.multiply),
        "/": failing(arithmetic.divide),
        "//": failing(arithmetic.floor_divide),
        "%": failing(arithmetic.modulo),
        "**": failing(arithmetic.power),
        "negate": failing(arithmetic.negate),
        "abs": failing(arithmetic.absolute),
        "sign": failing(arithmetic.sign),
        "floor": any_of(arithmetic.rounding(pc.floor, "floor")),
        "ceil": any_of(arithmetic.rounding(pc.ceil, "ceil")),
        "trunc": any_of(arithmetic.rounding(pc.trunc, "trunc")),
        "round": failing(arithmetic.round_half_even),
        "is_nan": any_of(arithmetic.is_nan),
        "and": any_of(comparing.logic(pc.and_kleene, "&")),
        "or": any_of(comparing.logic(pc.or_kleene, "|")),
        "not": any_of(comparing.logic(pc.invert, "~")),
        "is_in": any_of(comparing.is_in),
        "is_null": any_of(_is_null, "never"),
        "is_not_null": any_of(_is_not_null, "never"),
        "cast": failing(_cast, takes_encoded=True),
        "list.len": any_of(nested.list_len),
        "list.get": any_of(nested.list_get, "always"),
        "list.slice": any_of(nested.list_slice),
        "list.sort": any_of(nested.list_sort),
        "list.flatten": any_of(nested.list_flatten),
        "struct.field": any_of(nested.struct_field, "always"),
        "struct.field_by_index": any_of(nested.struct_field_by_index, "always"),
        "map.keys": any_of(nested.map_part("keys")),
        "map.values": any_of(nested.map_part("values")),
        "map.get": any_of(nested.map_get, "always"),
        "arr.to_list": any_of(nested.to_list),
        "dt.date": any_of(temporal.date),
        "dt.strftime": any_of(temporal.strftime),
        "dt.floor": failing(temporal.rounded(pc.floor_temporal, "floor")),
        "dt.ceil": failing(temporal.rounded(pc.ceil_temporal, "ceil")),
        "dt.round": failing(temporal.rounded(pc.round_temporal, "round")),
        # Its arguments come one after the other, each only where those before are null: see `evaluate`.
        "coalesce": any_of(coalesced),
    }
    for symbol in ("==", "!=", "<", "<=", ">", ">="):
        table[symbol] = any_of(comparing.comparison(symbol))
    for name, function in _MATHS.items():
        table[name] = any_of(arithmetic.of_floats(function, name))
    for name, (function, of_time) in _PARTS.items():
        table[f"dt.{name}"] = any_of(temporal.part(function, name, of_time=of_time))
    for name, function in strings.functions().items():
        table[f"str.{name}"] = any_of(function, "always" if name == "extract" else "any")
    return table


def coalesced(args: list[Operand]) -> Value:
    values = promotion.unified(args)
    result = values[0]
    for value in values[1:]:
        result = chosen(pc.is_valid(result), result, value)
    return result


def first_chosen(conditions: list[Value], operands: list[Operand]) -> Value:
    """The operand of the first condition that holds, or the last operand, which has none. Conditions have no nulls."""
    *values, result = promotion.unified(operands)
    for condition, value in zip(reversed(conditions), reversed(values), strict=True):
        result = chosen(condition, value, result)
    return result


def chosen(condition: Value, x: Value, y: Value) -> Value:
    """x where the condition holds, else y; both of one type. The condition has no nulls."""
    try:
        return pc.if_else(condition, x, y)
    except pa.ArrowNotImplementedError:
        if not isinstance(x.type, pa.BaseExtensionType):
            raise errors.Problem(f"there is no choice between values of {x.type}") from None
        storage = pc.if_else(condition, *(_storage(one) for one in (x, y)))
        array = pa.ExtensionArray.from_storage(x.type, arrays.single(storage))
        return array[0] if isinstance(storage, pa.Scalar) else array


def _storage(value: Value) -> Value:
    if isinstance(value, pa.Scalar):
        return pa.scalar(None, value.type.storage_type) if value.value is None else value.value
    return arrays.single(value).storage


FUNCTIONS: Final[Mapping[str, Function]] = types.MappingProxyType(_table())
