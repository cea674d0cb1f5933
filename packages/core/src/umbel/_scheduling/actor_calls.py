"""One caller's calls of one actor: what may be sent, and what becomes of it when the actor fails.

Calls are sent in the order of submission; one whose arguments are not there yet holds back those behind it, unless the
actor runs out of order anyway. A call that was sent when the actor died may or may not have run: it is sent again only
while its retries last, before newer calls but in no order with those that had finished. Decides only.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, Protocol


class ActorState(Enum):
    PENDING = "PENDING"
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"
    DEAD = "DEAD"


class Call(Protocol):
    """What this module needs of a call."""

    seq: int
    missing: int  # arguments not there yet
    retries_left: int  # -1: without end


class ActorCalls:
    """The caller's side of one actor."""

    __slots__ = ("allow_out_of_order", "inflight", "queue", "state")

    def __init__(self, *, allow_out_of_order: bool) -> None:
        self.allow_out_of_order = allow_out_of_order
        self.state = ActorState.PENDING
        self.queue: deque[Any] = deque()
        self.inflight: dict[int, Any] = {}

    @property
    def pending_count(self) -> int:
        return len(self.queue) + len(self.inflight)

    def submit(self, call: Any) -> None:
        self.queue.append(call)

    def take_sendable(self) -> list[Any]:
        """Calls to send now; from here on they are in flight."""
        if self.state is not ActorState.ALIVE or not self.queue:
            return []
        sendable: list[Any] = []
        queue = self.queue
        if self.allow_out_of_order:
            waiting: list[Any] = []
            for call in queue:
                (sendable if not call.missing else waiting).append(call)
            self.queue = deque(waiting)
        else:
            while queue and not queue[0].missing:
                sendable.append(queue.popleft())
        for call in sendable:
            self.inflight[call.seq] = call
        return sendable

    def remove(self, call: Any) -> bool:
        """Forget a call that was not sent; whether there was one."""
        try:
            self.queue.remove(call)
        except ValueError:
            return False
        return True

    def replied(self, seq: int) -> Any | None:
        return self.inflight.pop(seq, None)

    def disconnected(self) -> tuple[list[Any], list[Any]]:
        """The actor's process is gone or out of reach and may come back: returns (calls that fail for want of retries,
        calls that were in flight and are waiting again). The caller sets `state` and counts their attempts."""
        failed, again = [], []
        for call in self.inflight.values():
            if call.retries_left == 0:
                failed.append(call)
            else:
                if call.retries_left > 0:
                    call.retries_left -= 1
                again.append(call)
        self.inflight.clear()
        self.queue.extendleft(reversed(again))
        return failed, again

    def died(self) -> list[Any]:
        """The actor is dead for good: returns every call that had no reply."""
        self.state = ActorState.DEAD
        failed = [*self.inflight.values(), *self.queue]
        self.inflight.clear()
        self.queue.clear()
        return failed
