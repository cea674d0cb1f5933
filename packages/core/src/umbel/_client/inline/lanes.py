"""Threads as the inline engine sees them; `baton` says which of them runs."""

from __future__ import annotations

import enum
import sys
import threading
from collections.abc import Callable
from typing import Any

from umbel._client.inline import surroundings

Reason = Callable[[int], str]  # what a lane waits for, in words, following what others wait for this many steps


class LaneExit(SystemExit):
    """Ends what runs in a lane: its actor was killed, its task was cancelled by force, or the session was shut down."""


class State(enum.Enum):
    RUNNING = "has the turn"
    READY = "queues for the turn"
    WAITING = "waits for what it submitted"
    BLOCKED = "waits for an object"
    RESTING = "is an event loop that waits for events"
    IDLE = "has nothing to run"
    LENT = "runs without the turn, which was taken from it while it waited elsewhere"
    OUTSIDE = "is the user's thread in its own code"


class Lane:
    """One thread: of the engine's, or, `is_foreign`, of the user's. The baton changes it, under the mutex."""

    __slots__ = (
        "calls", "child", "deadline_s", "depth", "env_vars", "exits", "interrupt", "is_foreign", "is_here", "is_inert",
        "is_kept", "is_restless", "is_signalled", "job", "label", "reason", "session", "signal", "state", "submitters",
        "thread", "trace",
    )  # fmt: skip

    def __init__(self, label: str, *, is_foreign: bool) -> None:
        self.label = label
        self.is_foreign = is_foreign
        self.state = State.OUTSIDE if is_foreign else State.IDLE
        self.thread = threading.current_thread()
        self.signal = threading.Lock()  # released to wake the thread
        self.signal.acquire()
        self.is_signalled = False
        self.submitters: list[Lane] = []  # lanes that wait until this one finishes or blocks
        self.child: Lane | None = None  # the other way round
        self.interrupt: BaseException | None = None  # raised at the next opportunity
        self.exits = 0  # how often a LaneExit was raised
        self.deadline_s: float | None = None
        self.reason: Reason | None = None  # what it is blocked for
        self.calls = 0  # of Umbel, since it blocked last
        self.is_restless = False  # made so many that it seems to poll
        self.is_here = False  # its thread has noticed that it has the turn
        self.is_inert = False  # resting without a timer or a socket that could wake it
        self.depth = 0  # foreign: calls of Umbel within each other
        self.job: Callable[[], None] | None = None
        self.is_kept = False  # belongs to an actor and does not go back to the pool
        self.env_vars: surroundings.EnvVars = ()
        self.session: Any = None  # the SessionContext that code in this lane sees
        self.trace: Any = None  # a debugger's trace function, handed on from the submitter

    def wake_thread(self) -> None:
        if not self.is_signalled:
            self.is_signalled = True
            self.signal.release()


def debugger_trace() -> Any:
    """The trace function of a debugger that steps the calling thread: it follows into what the thread submits."""
    trace = sys.gettrace()
    bdb = sys.modules.get("bdb")
    if trace is None or bdb is None or not isinstance(getattr(trace, "__self__", None), bdb.Bdb):
        return None
    return trace


def follow_debugger(lane: Lane) -> None:
    """In the lane's own thread: be stepped by the debugger that steps whoever gave it the turn, or by none any more."""
    if lane.trace is not None or debugger_trace() is not None:
        sys.settrace(lane.trace)
