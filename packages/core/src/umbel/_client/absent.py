"""What Ray has and Umbel does not have yet: whoever asks for it is told so."""

from __future__ import annotations

from typing import Any, NoReturn

from umbel import exceptions


class Absent:
    """An attribute that is not there, for a class's body: reading it says why, and `hasattr` says no."""

    def __init__(self, why: str) -> None:
        self._why = why
        self._name = ""

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise error(owner.__name__, self._name, self._why)


def error(owner: str, name: str, why: str) -> exceptions.UnsupportedAttribute:
    return exceptions.UnsupportedAttribute(f"{owner} has no {name!r}: {why}")


def attribute_error(instance: object, name: str) -> AttributeError:
    """The error of a class with a `__getattr__` of its own for a name that is not there."""
    kind: Any = type(instance)
    if isinstance(vars(kind).get(name), Absent):
        return error(kind.__name__, name, vars(kind)[name]._why)
    return AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")
