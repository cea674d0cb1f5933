"""The event loop of an async actor: asyncio's own, which polls for a moment before it sleeps while calls come briskly."""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any

from umbel._transport.reactor import BRISK_S, SPIN_S


class BriskSelector(selectors.DefaultSelector):
    """As `Reactor.wait`: see there for why."""

    def __init__(self) -> None:
        super().__init__()
        self._is_brisk = False

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        began_s = time.monotonic()
        if self._is_brisk:
            until_s = began_s + (SPIN_S if timeout is None else min(SPIN_S, timeout))
            while time.monotonic() < until_s:
                ready = super().select(0)
                if ready:
                    return ready
            if timeout is not None:
                timeout = max(0.0, began_s + timeout - time.monotonic())
        ready = super().select(timeout)
        self._is_brisk = time.monotonic() - began_s < BRISK_S
        return ready


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop by the policy that the program has set, such as uvloop's; by the default one, ours."""
    loop = asyncio.new_event_loop()
    if type(loop) is not asyncio.SelectorEventLoop:
        return loop
    loop.close()
    return asyncio.SelectorEventLoop(BriskSelector())
