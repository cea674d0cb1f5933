"""What a machine has decided, carried out in order: what follows from carrying out one thing comes after the rest.

A handler that raises has done part of something, of which the machine believes that it is done. Nobody can tell what else is
wrong then, so it is never gone on with: the error is an InternalError, whatever it was, for a ValueError would be taken by
whoever reads a message for a mistake of the sender's. A check that has failed says itself what is wrong, and stays what it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from umbel import exceptions


class Orders:
    """do: what carries out which type of command. It is looked up for each, so it may grow."""

    def __init__(self, do: Mapping[type, Callable[[Any], None]]) -> None:
        self._do = do
        self._todo: deque[Any] = deque()

    def carry_out(self, commands: Iterable[Any]) -> bool:
        """Those that are left, and then these, unless that is being done; whether it was not. Raises InternalError when one of
        them cannot be carried out."""
        todo = self._todo
        is_outermost = not todo
        todo.extend(commands)
        if not is_outermost:
            return False
        command = None
        try:
            while todo:
                command = todo[0]  # it stays there meanwhile, so that what follows from it comes after the rest
                self._do[type(command)](command)
                todo.popleft()
        except (exceptions.InternalError, AssertionError):
            raise
        except Exception as error:
            raise exceptions.InternalError(f"{command!r:.300} could not be carried out: {error!r:.300}") from error
        return True
