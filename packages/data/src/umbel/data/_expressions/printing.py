"""An expression as the Python source that makes it."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from umbel.data._expressions import functions, nodes, promotion, udfs

_CHARS_MAX: Final = 300  # of an expression in a message
_BINDS_MOST: Final = 9  # what a method is called on


def source(node: nodes.Node) -> str:
    """The whole of it, but for what a user's function was given."""
    return _text(node, 0)


def brief(node: nodes.Node) -> str:
    """For a message."""
    text = source(node)
    return text if len(text) <= _CHARS_MAX else f"{text[:_CHARS_MAX]}..."


def _text(node: nodes.Node, binding: int) -> str:
    """In parentheses if it binds less tightly than what is around it."""
    if isinstance(node, nodes.Call) and node.function in functions.BINARY:
        own = functions.BINARY[node.function]
        symbol = functions.SYMBOLS.get(node.function, node.function)
        # Comparisons would be chained, and ** groups from the right: on those sides what binds as tightly wants parentheses.
        left = _operand(node, 0, own + (node.function == "**" or own == functions.BINARY["=="]))
        text = f"{left} {symbol} {_operand(node, 1, own + (node.function != '**'))}"
        return f"({text})" if own < binding else text
    if isinstance(node, nodes.Call) and node.function in functions.UNARY:
        own = functions.UNARY[node.function]
        text = f"{functions.SYMBOLS[node.function]}{_text(node.args[0], own)}"
        return f"({text})" if own < binding else text
    return _primary(node)


def _operand(node: nodes.Call, side: int, binding: int) -> str:
    """A Python value stands beside an operator as it is, if the other side makes the operator ours."""
    one, other = node.args[side], node.args[1 - side]
    is_bare = (
        isinstance(one, nodes.Literal)
        and one.is_weak
        and one.scalar.is_valid
        and not pa.types.is_nested(one.scalar.type)
        and not isinstance(other, nodes.Literal)
        and (side == 1 or _is_left_to_us(node.function, one.scalar.type))
    )
    return _value(one) if is_bare and isinstance(one, nodes.Literal) else _text(one, binding)


def _is_left_to_us(function: str, type_: pa.DataType) -> bool:
    """A value of that type left of it: Python turns comparisons around, -2 ** x is -(2 ** x), and % of a string formats it."""
    if functions.BINARY[function] == functions.BINARY["=="] or function == "**":
        return False
    return function != "%" or not (promotion.is_text(type_) or promotion.is_bytes(type_))


def _primary(node: nodes.Node) -> str:
    if isinstance(node, nodes.Column):
        return f"col({node.name!r})"
    if isinstance(node, nodes.Star):
        return "star()"
    if isinstance(node, nodes.Literal):
        return f"lit({_value(node)})"
    if isinstance(node, nodes.Alias):
        return f"{_on(node.node)}.alias({node.name!r})"
    if isinstance(node, nodes.Case):
        pairs = zip(node.conditions, node.values, strict=True)
        chain = ".".join(f"when({source(condition)}).then({source(value)})" for condition, value in pairs)
        return f"{chain}.otherwise({source(node.otherwise)})"
    if isinstance(node, nodes.UdfCall):
        return f"{udfs.name_of(node.function)}({', '.join(_udf_arguments(node))})"
    if isinstance(node, nodes.Generated):
        seed = f"seed={node.seed}" if node.is_seeded else ""
        return {"row_id": "monotonically_increasing_id()", "random": f"random({seed})", "uuid": "uuid()"}[node.kind]
    assert isinstance(node, nodes.Call)
    if node.function == "coalesce":
        return f"coalesce({', '.join(map(source, node.args))})"
    if node.function == "cast":
        options = nodes.options_of(node)
        return f"{_on(node.args[0])}.cast({str(options['to'])!r}{'' if options['safe'] else ', safe=False'})"
    arguments = [_value(one) if isinstance(one, nodes.Literal) else source(one) for one in node.args[1:]]
    arguments += [f"{name}={value!r}" for name, value in node.options if value is not None and value is not False]
    return f"{_on(node.args[0])}.{node.function}({', '.join(arguments)})"


def _on(node: nodes.Node) -> str:
    """What a method is called on."""
    return _text(node, _BINDS_MOST)


def _value(node: nodes.Literal) -> str:
    """As an argument."""
    value = _python_text(node.scalar)
    return value if node.is_weak else f"pa.scalar({value}, {str(node.scalar.type)!r})"


def _python_text(scalar: pa.Scalar) -> str:
    try:
        return repr(scalar.as_py())
    except ValueError:  # nanoseconds, which Python's own types do not have
        return repr(str(scalar))


def _udf_arguments(node: nodes.UdfCall) -> list[str]:
    given = [source(node.args[place]) if isinstance(place, int) else _short(place.value) for place in node.places]
    plain = len(given) - len(node.keywords)
    return given[:plain] + [f"{name}={text}" for name, text in zip(node.keywords, given[plain:], strict=True)]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _CHARS_MAX else f"{text[:_CHARS_MAX]}..."
