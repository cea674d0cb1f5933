"""Argument checks at the caller, so that a wrong call fails where it is written and not in a worker.

`inspect` is imported only for what is not a plain function and for the words of an error: it would be a tenth of
`import umbel`, and again of the start of the first worker.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import inspect

# The values of inspect.Parameter's kinds, in the order in which parameters stand.
_POSITIONAL_ONLY, _POSITIONAL_OR_KEYWORD, _VAR_POSITIONAL, _KEYWORD_ONLY, _VAR_KEYWORD = range(5)
_VARARGS, _VARKEYWORDS = 0x04, 0x08  # flags of code objects; so are the next
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
_ARGUMENT_COUNT_MAX = 1 << 30  # stands for "any number" where a function takes *args

_Row: TypeAlias = tuple[str, int, bool]  # of a parameter: its name, its kind, whether it has a default


class _Default:
    """Stands for a parameter's default, whose value is not kept."""

    def __repr__(self) -> str:
        return "..."


class Signature:
    """What a function accepts. Picklable whatever the function's defaults and annotations are."""

    __slots__ = ("_name", "_positional_max", "_positional_min", "_rows")

    def __init__(self, function: Callable[..., Any], name: str, *, skip_first: bool = False) -> None:
        rows = _rows_of(function)
        if skip_first and rows and rows[0][1] <= _POSITIONAL_OR_KEYWORD:
            rows = rows[1:]
        self._name = name
        self._rows = rows
        # How many arguments without keywords are certainly right.
        positional = [has_default for _, kind, has_default in rows if kind <= _POSITIONAL_OR_KEYWORD]
        self._positional_min = positional.count(False)
        self._positional_max = len(positional)
        if any(kind == _VAR_POSITIONAL for _, kind, _ in rows):
            self._positional_max = _ARGUMENT_COUNT_MAX
        if any(kind == _KEYWORD_ONLY and not has_default for _, kind, has_default in rows):
            self._positional_max = -1  # never enough without keywords

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._name, self._rows, self._positional_min, self._positional_max)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises TypeError when the call does not fit."""
        if not kwargs and self._positional_min <= len(args) <= self._positional_max:
            return
        if self._fits(len(args), kwargs):
            return
        full = self._full()
        try:
            full.bind(*args, **kwargs)
        except TypeError as error:
            named = f", and by keyword {', '.join(map(repr, kwargs))}" if kwargs else ""
            raise TypeError(
                f"{self._name}{full}: {error}; got {len(args)} by position{named}; call it as it is defined"
            ) from None

    def _fits(self, given: int, kwargs: dict[str, Any]) -> bool:
        """given: how many arguments have no keyword."""
        taken = named = 0  # of those, and of the keywords
        is_open = False
        for name, kind, has_default in self._rows:
            if kind <= _POSITIONAL_OR_KEYWORD and taken < given:
                taken += 1
                if kind == _POSITIONAL_OR_KEYWORD and name in kwargs:
                    return False  # given twice
            elif kind == _VAR_POSITIONAL:
                taken = given
            elif kind == _VAR_KEYWORD:
                is_open = True
            elif kind != _POSITIONAL_ONLY and name in kwargs:
                named += 1
            elif not has_default:
                return False
        return taken == given and (is_open or named == len(kwargs))

    def _full(self) -> inspect.Signature:
        from inspect import Parameter, Signature, _ParameterKind

        empty, some = Parameter.empty, _Default()
        return Signature(
            [
                Parameter(name, _ParameterKind(kind), default=some if has_default else empty)
                for name, kind, has_default in self._rows
            ]
        )

    def blame(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError) -> TypeError:
        """`error`, of pickling the arguments of a call that fits, in words that say which of them is at fault."""
        from umbel._objects import serialization  # not before a session needs it

        for parameter, value in self._full().bind(*args, **kwargs).arguments.items():
            try:
                serialization.serialize(value)
            except TypeError as its_own:
                return TypeError(f"argument {parameter!r} of {function}: {its_own}")
        return error


def is_generator(function: object) -> bool:
    """Whether a call gives a generator; for both kinds, `is_async` tells them apart."""
    return bool(_flags(function) & (_GENERATOR | _ASYNC_GENERATOR))


def is_async(function: object) -> bool:
    """Whether it was written with `async def`, or marked as if it had been."""
    return bool(_flags(function) & (_COROUTINE | _ASYNC_GENERATOR)) or hasattr(function, "_is_coroutine_marker")


def _flags(function: Any) -> int:
    function = getattr(function, "__func__", function)
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return code.co_flags if isinstance(code, CodeType) else 0


def _rows_of(function: Any) -> list[_Row]:
    if type(function) is FunctionType and not {"__wrapped__", "__signature__"} & function.__dict__.keys():
        return _plain_rows(function)
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # some built-ins have none: any call goes
        return [("args", _VAR_POSITIONAL, False), ("kwargs", _VAR_KEYWORD, False)]
    return [(one.name, int(one.kind), one.default is not one.empty) for one in parameters]


def _plain_rows(function: FunctionType) -> list[_Row]:
    code = function.__code__
    names = code.co_varnames
    count = code.co_argcount
    required = count - len(function.__defaults__ or ())
    rows = [(names[i], int(i >= code.co_posonlyargcount), i >= required) for i in range(count)]
    keyword_defaults = function.__kwdefaults__ or {}
    keyword_only = names[count : count + code.co_kwonlyargcount]
    rest = iter(names[count + code.co_kwonlyargcount :])
    if code.co_flags & _VARARGS:
        rows.append((next(rest), _VAR_POSITIONAL, False))
    rows += [(name, _KEYWORD_ONLY, name in keyword_defaults) for name in keyword_only]
    if code.co_flags & _VARKEYWORDS:
        rows.append((next(rest), _VAR_KEYWORD, False))
    return rows


def _rebuild(name: str, rows: list[_Row], positional_min: int, positional_max: int) -> Signature:
    made = Signature.__new__(Signature)
    made._name = name
    made._rows = rows
    made._positional_min = positional_min
    made._positional_max = positional_max
    return made
