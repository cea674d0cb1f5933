"""Which of an actor's calls may start.

Each concurrency group has two lanes, one for coroutines and one for calls that need a thread; a lane starts its calls
in the order of their arrival, up to its limit at a time. Decides only: the caller starts what it is given.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from umbel._base.checks import invariant

DEFAULT_GROUP = ""


class Lane:
    """Calls that share one limit."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: deque[Any] = deque()


class Mailbox:
    """The calls one actor has received and not finished."""

    def __init__(self, limits: dict[tuple[str, bool], int]) -> None:
        """limits: (group, is_async) -> how many calls may run at once."""
        self._lanes = {key: Lane(limit) for key, limit in limits.items()}
        self.is_closed = False

    def has_group(self, group: str) -> bool:
        return any(name == group for name, _ in self._lanes)

    def arrived(self, group: str, is_async: bool, call: Any) -> list[Any]:
        """Returns the calls to start: this one, or none."""
        lane = self._lanes[group, is_async]
        lane.waiting.append(call)
        return self._start(lane)

    def finished(self, group: str, is_async: bool) -> list[Any]:
        """A call ended. Returns the calls to start."""
        lane = self._lanes[group, is_async]
        lane.running -= 1
        invariant(lane.running >= 0, "more calls finished than started", group=group)
        return self._start(lane)

    def limit_of_coroutines(self) -> int:
        """How many may run at once, in all lanes together."""
        return sum(lane.limit for (_, is_async), lane in self._lanes.items() if is_async)

    def lane_of(self, call: Any) -> tuple[str, bool] | None:
        """In which it waits to be started, if it does."""
        return next((key for key, lane in self._lanes.items() if call in lane.waiting), None)

    def waiting_count(self, group: str, is_async: bool) -> int:
        return len(self._lanes[group, is_async].waiting)

    def remove(self, call: Any) -> bool:
        """Forget a call that has not started; whether there was one."""
        for lane in self._lanes.values():
            if call in lane.waiting:
                lane.waiting.remove(call)
                return True
        return False

    def close(self) -> list[Any]:
        """The actor is ending: returns the calls that will never start."""
        self.is_closed = True
        left = [call for lane in self._lanes.values() for call in lane.waiting]
        for lane in self._lanes.values():
            lane.waiting.clear()
        return left

    @property
    def running_count(self) -> int:
        return sum(lane.running for lane in self._lanes.values())

    def _start(self, lane: Lane) -> list[Any]:
        started = []
        while lane.waiting and lane.running < lane.limit and not self.is_closed:
            started.append(lane.waiting.popleft())
            lane.running += 1
        return started

    def check(self) -> None:
        """Assert what always holds."""
        for (group, _), lane in self._lanes.items():
            invariant(0 <= lane.running <= lane.limit, "a lane runs more than its limit", group=group)
            invariant(
                not lane.waiting or lane.running == lane.limit or self.is_closed,
                "a lane idles while calls wait",
                group=group,
            )
