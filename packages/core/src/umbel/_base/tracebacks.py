"""The tracebacks of errors that are kept: they hold frames, and those what a program had in its variables."""

from __future__ import annotations


def drop(error: BaseException) -> None:
    """Let go of the frames that an error refers to, and with them of all that they and their callers held."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        waiting += (one.__cause__, one.__context__)
