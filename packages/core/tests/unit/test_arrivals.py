"""What arrives at a process while it is set up."""

from __future__ import annotations

import threading
from typing import Any

from umbel._client import arrivals


class Engine:
    """What arrivals need of one for this."""

    is_closed = False

    def __init__(self) -> None:
        self.lock = threading.RLock()


class Racing(arrivals.Arrivals):
    """It begins on another thread, as far as that gets, just after somebody has seen that it has not begun."""

    looks = 0
    _is_ready = False

    @property
    def is_ready(self) -> bool:  # type: ignore[override]
        self.looks += 1
        if self.looks == 1:
            began = threading.Thread(target=self.begin)
            began.start()
            began.join()
            return False
        return self._is_ready

    @is_ready.setter
    def is_ready(self, value: bool) -> None:
        self._is_ready = value


def test_what_arrives_while_it_begins_is_neither_lost_nor_handled_twice() -> None:
    """A worker is granted, and gets its first task, as soon as its daemon knows of it, which may be before it is set up."""
    handled = []

    def on_notice(message: dict[str, Any], _body: bytes) -> bool:
        handled.append(message["t"])
        return True

    racing = Racing(Engine(), on_notice)  # type: ignore[arg-type]
    racing.looks = 0
    racing.on_notice({"t": "create"}, b"")
    racing.on_notice({"t": "exit"}, b"")
    assert handled == ["create", "exit"]


def test_what_has_arrived_before_is_handled_in_its_order_when_it_begins() -> None:
    handled: list[str] = []
    early = arrivals.Arrivals(Engine(), lambda message, _body: handled.append(message["t"]) is None)  # type: ignore[arg-type]
    for kind in ("create", "leased", "exit"):
        early.on_notice({"t": kind}, b"")
    assert handled == []
    early.begin()
    assert handled == ["create", "leased", "exit"]
