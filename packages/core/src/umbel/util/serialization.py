"""Custom serializers, which take precedence over pickling for exactly one class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umbel._client import modules as _modules
from umbel._client import serializers

__getattr__ = _modules.attributes_of(__name__)  # says what is missing


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """From now on this process sends instances of exactly `cls` (no subclass) as `serializer(instance)`.

    The result must be picklable; the receiver calls `deserializer` on it. Both travel with each value, so only
    processes that send need to register.
    """
    if not isinstance(cls, type):
        raise TypeError(f"cls must be a class, got {cls!r}")
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, got {function!r}")
    serializers.register(cls, serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Undo `register_serializer`; nothing happens when there was none."""
    serializers.unregister(cls)
