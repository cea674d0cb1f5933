"""Event loops of async actors as lanes: a loop has the turn while it runs callbacks, and not while it waits."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable
from typing import Any

from umbel._client.inline import baton as baton_module
from umbel._client.inline import lanes

CLEANUP_S = 1.0  # for coroutines that are cancelled when their actor ends; what still runs then is abandoned
_SELF_PIPE_COUNT = 1  # a loop watches the pipe that wakes it, always


class _Selector(selectors.DefaultSelector):
    """Gives up the turn before it waits."""

    def __init__(self, baton: baton_module.Baton) -> None:
        super().__init__()
        self._baton = baton

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        lane = self._baton.current()
        if lane.is_foreign:
            return super().select(timeout)
        self._baton.rest(lane, is_inert=timeout is None and len(self.get_map()) <= _SELF_PIPE_COUNT)
        try:
            return super().select(timeout)
        finally:
            self._baton.resume(lane)
            lanes.follow_debugger(lane)


class ActorLoop(asyncio.SelectorEventLoop):
    """`lane`: the lane it runs in, once it does."""

    def __init__(self, baton: baton_module.Baton) -> None:
        super().__init__(_Selector(baton))
        self._baton = baton
        self.lane: lanes.Lane | None = None

    def call_soon_threadsafe(  # type: ignore[override]  # TypeVarTuple, which typeshed uses, is not in Python 3.10
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's; and the loop queues for its turn at once, not when its thread happens to notice."""
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        lane = self.lane
        if lane is not None and lane.state is lanes.State.RESTING:
            with self._baton.mutex:
                if lane.state is lanes.State.RESTING:
                    self._baton.wake(lane)
        return handle

    def schedule(self, callback: Callable[..., Any], *args: Any) -> None:
        """`call_soon_threadsafe` for who holds the mutex; nothing when the loop has ended."""
        if self.is_closed():
            return
        super().call_soon_threadsafe(callback, *args)
        if self.lane is not None and self.lane.state is lanes.State.RESTING:
            self._baton.wake(self.lane)

    def serve(self) -> None:
        """Run until `stop`; then cancel what is left and close."""
        asyncio.set_event_loop(self)
        try:
            self.run_forever()
        finally:
            try:
                self._clean_up()
            finally:
                asyncio.set_event_loop(None)
                self.close()

    def _clean_up(self) -> None:
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks, timeout=CLEANUP_S))
        self.run_until_complete(self.shutdown_asyncgens())
