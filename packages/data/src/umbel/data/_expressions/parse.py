"""Expressions from text, in Python's syntax: "x > 5 and name in ['a']".

The text is parsed and never run. Names are columns; `and`, `or`, `not`, chained comparisons, `in` and `is None` mean
what they would; the methods of `Expr` may be called as such (`name.str.lower()`) or as functions (`abs(x)`). `a.b` is
a field of the struct `a`.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from umbel.data import expressions
from umbel.data._expressions import errors, namespaces
from umbel.data._expressions.expr import Expr, Then, When

CHARS_MAX: Final = 1_000_000  # of the text: Python's parser takes hundreds of bytes for each

_BINARY: Final[Mapping[type, Callable[[Any, Any], Any]]] = types.MappingProxyType(
    {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.Div: lambda a, b: a / b,
        ast.FloorDiv: lambda a, b: a // b,
        ast.Mod: lambda a, b: a % b,
        ast.Pow: lambda a, b: a**b,
        ast.BitAnd: lambda a, b: a & b,
        ast.BitOr: lambda a, b: a | b,
    }
)
_COMPARE: Final[Mapping[type, Callable[[Any, Any], Any]]] = types.MappingProxyType(
    {
        ast.Eq: lambda a, b: a == b,
        ast.NotEq: lambda a, b: a != b,
        ast.Lt: lambda a, b: a < b,
        ast.LtE: lambda a, b: a <= b,
        ast.Gt: lambda a, b: a > b,
        ast.GtE: lambda a, b: a >= b,
    }
)
_METHODS: Final = frozenset(
    [
        "abs",
        "acos",
        "alias",
        "asin",
        "atan",
        "between",
        "cast",
        "ceil",
        "cos",
        "exp",
        "fill_null",
        "floor",
        "is_in",
        "is_nan",
        "is_not_null",
        "is_null",
        "ln",
        "log10",
        "log2",
        "negate",
        "not_in",
        "power",
        "round",
        "sign",
        "sin",
        "sqrt",
        "tan",
        "trunc",
    ]
)
_NAMESPACES: Final[Mapping[str, type]] = types.MappingProxyType(
    {
        "str": namespaces.StringNamespace,
        "dt": namespaces.DatetimeNamespace,
        "list": namespaces.ListNamespace,
        "struct": namespaces.StructNamespace,
        "map": namespaces.MapNamespace,
        "arr": namespaces.ArrayNamespace,
    }
)
_Made = TypeVar("_Made")

_ALSO_CALLED: Final = types.MappingProxyType({"is_valid": "is_not_null", "isnan": "is_nan"})


def parse(text: str) -> Expr:
    """Raises ExpressionError, which shows the place, for what cannot be read."""
    if not isinstance(text, str):
        raise TypeError(f"an expression is written as a string, got {text!r}")
    if len(text) > CHARS_MAX:
        raise errors.ExpressionError(f"an expression has at most {CHARS_MAX} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _Reader(text.strip()).expr(tree.body)
    except SyntaxError as error:
        raise errors.ExpressionError(f"{text!r} is no expression: {error.msg} at character {error.offset}") from error
    except (RecursionError, MemoryError) as error:
        raise errors.ExpressionError(f"the expression is nested too deeply: {text[:100]}...") from error


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text

    def expr(self, node: ast.expr) -> Expr:
        """As an expression, a value too."""
        value = self._value(node)
        if isinstance(value, Expr):
            return value
        if isinstance(value, When) or type(value) in _NAMESPACES.values():
            self._refuse(node, "is not complete: a namespace wants a method, and when() a then()")
        return self._run(node, lambda: expressions.lit(value))

    def _value(self, node: ast.expr) -> Any:
        """An expression, or a Python value, or a namespace of an expression."""
        if isinstance(node, ast.Constant):
            return node.value if node.value is not ... else self._refuse(node, "has no meaning here")
        if isinstance(node, ast.Name):
            return expressions.col(node.id)
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.BoolOp):
            parts = [self.expr(value) for value in node.values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(node.op, ast.And) else result | part
            return result
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            left, right = self.expr(node.left), self.expr(node.right)
            return self._run(node, lambda: _BINARY[type(node.op)](left, right))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.IfExp):
            chosen = expressions.when(self.expr(node.test)).then(self.expr(node.body))
            return chosen.otherwise(self.expr(node.orelse))
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self._constant(element) for element in node.elts]
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Attribute):
            of = self.expr(node.value)
            return getattr(of, node.attr) if node.attr in _NAMESPACES else of.struct.field(node.attr)
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        return self._refuse(node, "is no part of an expression of columns")

    def _unary(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.USub | ast.UAdd) and isinstance(node.operand, ast.Constant):
            value = node.operand.value
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value if isinstance(node.op, ast.USub) else value
        of = self.expr(node.operand)
        if isinstance(node.op, ast.UAdd):
            return of
        return -of if isinstance(node.op, ast.USub) else ~of

    def _compare(self, node: ast.Compare) -> Expr:
        result: Expr | None = None
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            part = self._comparison(node, left, operator, right)
            result = part if result is None else result & part
            left = right
        assert result is not None
        return result

    def _comparison(self, node: ast.expr, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Expr:
        of = self.expr(left)
        if isinstance(operator, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                self._refuse(right, "stands right of `is`, where only None can")
            return of.is_null() if isinstance(operator, ast.Is) else of.is_not_null()
        if isinstance(operator, ast.In | ast.NotIn):
            values = self._value(right)
            if not isinstance(values, list):
                self._refuse(
                    right, "stands right of `in`, where only a list of values can; for texts there is .str.contains()"
                )
            found = self._run(node, lambda: of.is_in(values))
            return found if isinstance(operator, ast.In) else ~found
        for side in (left, right):
            if isinstance(side, ast.Constant) and side.value is None:
                self._refuse(node, "is never true; write `is None` or `is not None`")
        other = self.expr(right)
        compared: Expr = self._run(node, lambda: _COMPARE[type(operator)](of, other))
        return compared

    def _call(self, node: ast.Call) -> Any:
        if any(isinstance(arg, ast.Starred) for arg in node.args) or any(word.arg is None for word in node.keywords):
            self._refuse(node, "has * or ** in it")
        args = [self._value(arg) for arg in node.args]
        named = {str(word.arg): self._value(word.value) for word in node.keywords}
        function = node.func
        if isinstance(function, ast.Name):
            return self._run(node, lambda: self._function(node, function.id, args, named))
        if not isinstance(function, ast.Attribute):
            self._refuse(node, "calls what is no function")
        return self._run(node, lambda: self._method(node, self._value(function.value), function.attr, args, named))

    def _function(self, node: ast.Call, name: str, args: list[Any], named: dict[str, Any]) -> Any:
        made = {
            "col": expressions.col,
            "lit": expressions.lit,
            "when": expressions.when,
            "coalesce": expressions.coalesce,
        }
        if name in made:
            if name == "col" and not (len(args) == 1 and isinstance(args[0], str)):
                self._refuse(node, "has to name one column by a string")
            return made[name](*args, **named)
        name = _ALSO_CALLED.get(name, name)
        if name not in _METHODS:
            self._refuse(node, errors.unknown(name, sorted({*made, *_METHODS, *_ALSO_CALLED}), what="function"))
        if not args:
            self._refuse(node, "wants an argument")
        of = args[0] if isinstance(args[0], Expr) else expressions.lit(args[0])
        return getattr(of, name)(*args[1:], **named)

    def _method(self, node: ast.Call, of: Any, name: str, args: list[Any], named: dict[str, Any]) -> Any:
        allowed: Iterable[str] = _METHODS
        if isinstance(of, When):
            allowed = ("then",)
        elif isinstance(of, Then):
            allowed = ("when", "otherwise", *_METHODS)
        elif type(of) in _NAMESPACES.values():
            allowed = [one for one in dir(type(of)) if not one.startswith("_")]
        elif not isinstance(of, Expr):
            of = expressions.lit(of)
        if name not in allowed:
            self._refuse(node, errors.unknown(name, sorted(allowed), what="method"))
        return getattr(of, name)(*args, **named)

    def _subscript(self, node: ast.Subscript) -> Expr:
        of: Any = self._value(node.value)  # what it has is looked at first, and asked of it then
        key = node.slice
        if isinstance(of, namespaces.ListNamespace | namespaces.StructNamespace):
            if isinstance(key, ast.Slice) and isinstance(of, namespaces.ListNamespace):
                ends = [None if one is None else self._constant(one) for one in (key.lower, key.upper, key.step)]
                key_value: Any = slice(*ends)
            else:
                key_value = self._constant(key)
            found: Expr = self._run(node, lambda: of[key_value])
            return found
        self._refuse(node, "has to say what it takes apart: .list[0], .struct['name'] or .map.get('key')")

    def _constant(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, Expr):
            self._refuse(node, "is computed, and stands where only a value can")
        return value

    def _run(self, node: ast.expr, make: Callable[[], _Made]) -> _Made:
        """What the making of the expression itself refuses is said of its place in the text."""
        try:
            return make()
        except errors.ExpressionError:
            raise
        except (TypeError, ValueError) as error:
            raise errors.ExpressionError(f"{self._segment(node)}: {error}") from error

    def _refuse(self, node: ast.expr, why: str) -> NoReturn:
        raise errors.ExpressionError(
            f"{self._segment(node)!r} {why}" if not why.startswith("there") else f"{self._segment(node)!r}: {why}"
        )

    def _segment(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._text, node) or self._text
