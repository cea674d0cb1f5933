"""Argument checks at the caller, so that a wrong call fails where it is written and not in a worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ARGUMENT_COUNT_MAX = 1 << 30  # stands for "any number" where a function takes *args


class Signature:
    """What a function accepts. Picklable whatever the function's defaults and annotations are.

    One that was unpickled is put together when it is first asked: an actor's process has its methods' and needs none.
    """

    __slots__ = ("_full", "_name", "_positional_max", "_positional_min", "_rows")

    _rows: tuple[str, list[tuple[str, int, bool]]]

    def __init__(self, function: Callable[..., Any], name: str, *, skip_first: bool = False) -> None:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):  # some built-ins have none: any call goes
            parameters = [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        if skip_first and parameters and parameters[0].kind in _POSITIONAL:
            parameters = parameters[1:]
        empty = inspect.Parameter.empty
        plain = [p.replace(annotation=empty, default=empty if p.default is empty else None) for p in parameters]
        self._set(name, plain)

    def _set(self, name: str, parameters: list[inspect.Parameter]) -> None:
        self._name = name
        self._full = inspect.Signature(parameters)
        empty = inspect.Parameter.empty
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        self._positional_min = sum(p.default is empty for p in positional)
        self._positional_max = len(positional)
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
            self._positional_max = _ARGUMENT_COUNT_MAX
        if any(p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is empty for p in parameters):
            self._positional_max = -1  # never enough without keywords: take the slow way

    def __getattr__(self, attribute: str) -> Any:
        if attribute not in ("_full", "_name", "_positional_max", "_positional_min"):
            raise AttributeError(attribute)
        name, rows = self._rows
        empty = inspect.Parameter.empty
        self._set(
            name,
            [
                inspect.Parameter(n, inspect._ParameterKind(kind), default=None if has_default else empty)
                for n, kind, has_default in rows
            ],
        )
        return getattr(self, attribute)

    def __reduce__(self) -> tuple[Any, ...]:
        rows = [(p.name, int(p.kind), p.default is not inspect.Parameter.empty) for p in self._full.parameters.values()]
        return _rebuild, (self._name, rows)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises TypeError, in Python's own words, when the call does not fit."""
        if not kwargs and self._positional_min <= len(args) <= self._positional_max:
            return
        try:
            self._full.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}{self._full}: {error}") from None

    def blame(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError) -> TypeError:
        """`error`, of pickling the arguments of a call that fits, in words that say which of them is at fault."""
        from umbel._objects import serialization  # not before a session needs it

        for parameter, value in self._full.bind(*args, **kwargs).arguments.items():
            try:
                serialization.serialize(value)
            except TypeError as its_own:
                return TypeError(f"argument {parameter!r} of {function}: {its_own}")
        return error


def _rebuild(name: str, rows: list[tuple[str, int, bool]]) -> Signature:
    made = Signature.__new__(Signature)
    made._rows = (name, rows)
    return made
