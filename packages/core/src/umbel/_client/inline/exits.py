"""`atexit` for actors: what an actor's own code registers runs when that actor ends, not when the program does.

Only the code of the actor's class and its bases is meant, that is, of the modules they are in. What libraries register
belongs to the process, which goes on.
"""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel._client.inline import actors
    from umbel._client.inline.engine import InlineEngine


class ExitHandlers:
    """Stands in for the functions of `atexit` from the session's first actor to its end."""

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine
        self._before: tuple[Any, Any] | None = None
        self._ours: tuple[Any, Any] = (self._register, self._unregister)

    def install(self) -> None:
        if self._before is None:
            self._before = atexit.register, atexit.unregister
            atexit.register, atexit.unregister = self._ours

    def remove(self) -> None:
        if self._before is not None and (atexit.register, atexit.unregister) == self._ours:
            atexit.register, atexit.unregister = self._before
            self._before = None

    def _register(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        actor = self._actor_of(sys._getframe(1))
        if actor is None or not callable(function):
            return self._originals()[0](function, *args, **kwargs)
        actor.exit_handlers.append(functools.partial(function, *args, **kwargs))
        return function

    def _unregister(self, function: Callable[..., Any], /) -> None:
        actor = self._actor_of(sys._getframe(1))
        if actor is not None:
            actor.exit_handlers[:] = [one for one in actor.exit_handlers if one.func != function]
        self._originals()[1](function)

    def _originals(self) -> tuple[Any, Any]:
        return self._before or (atexit.register, atexit.unregister)

    def _actor_of(self, caller: FrameType) -> actors.Actor | None:
        """The actor whose own code this is."""
        call = self._engine.current_call()
        if call is None or call.actor is None:
            return None
        modules = {base.__module__ for base in call.actor.template.cls.__mro__}
        return call.actor if caller.f_globals.get("__name__") in modules else None
