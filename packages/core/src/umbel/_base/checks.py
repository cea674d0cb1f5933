"""Statements that must hold inside Umbel, whatever a user does. Outside input is validated at the edge instead."""

from __future__ import annotations

from umbel import exceptions


def invariant(condition: object, message: str, **ids: object) -> None:
    """Raises InternalError with `message` and `ids` unless `condition` is true.

    message: what went wrong ("slots went negative"). ids: the things concerned, for the message and the error's `ids`.
    """
    if not condition:
        raise broken(message, **ids)


def broken(message: str, **ids: object) -> exceptions.InternalError:
    """What `invariant` raises, for loops that are gone through so often that even to name the ids each time is too slow."""
    return exceptions.InternalError(message, **ids)
