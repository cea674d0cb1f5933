"""One simulated run: processes, the connections between them, and the order in which things happen.

A connection keeps the order of what is sent through it and nothing else: each step, chance decides which connection
delivers, who does something of its own, and who dies. What a process had sent when it died still arrives, or only the
first part of it, and then the end of the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from umbel.testing.simulation.chance import Chance
from umbel.testing.simulation.invariants import INVARIANTS

QUIET_STEPS_MAX = 20_000  # a run that has not come to rest after so many deliveries never will
TRACE_LINES_MAX = 5_000
SLOW_PERCENT = 5  # of deliveries, in which slow connections take part
END = None  # in an inbox: the connection has closed


class Violation(AssertionError):
    """An invariant of docs/invariants.md does not hold. `rule` is its number."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule} ({INVARIANTS[rule]}): {text}")
        self.rule = rule


class Stream:
    """One end of a simulated connection, with the interface of `umbel._transport.connection.Connection`.

    Whoever makes it sets what happens with frames, `on_frame(stream, frame)`, and at the end, `on_close(stream)`.
    """

    queued_bytes = 0  # all that was sent is the system's at once

    __slots__ = ("inbox", "is_closed", "is_slow", "name", "on_close", "on_frame", "other", "owner", "peer", "world")

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.other: Stream
        self.inbox: deque[Any] = deque()
        self.is_closed = False
        self.is_slow = False  # what comes this way comes late
        self.peer: Any = None
        self.owner: Any = None  # the process whose end it is
        self.on_frame: Callable[[Stream, Any], None] = _unheard
        self.on_close: Callable[[Stream], None] = _unheard_end

    def send(self, frame: Any) -> None:
        if not self.is_closed and not self.other.is_closed:
            self.other.inbox.append(frame)

    def deliver(self) -> None:
        """Hand on the oldest frame, or the end."""
        frame = self.inbox.popleft()
        if frame is END:
            self.world.note("%s: the connection has closed", self.name)
            self.close()
            return
        self.on_frame(self, frame)

    def drain(self) -> None:
        while self.inbox and not self.is_closed:
            self.deliver()

    def close(self) -> None:
        if self.is_closed:
            return
        self.cut(kept=len(self.other.inbox))
        self.on_close(self)

    def cut(self, kept: int) -> None:
        """This end is gone: the other end still gets `kept` of the frames that are under way, then the end."""
        self.is_closed = True
        self.inbox.clear()
        other = self.other
        if not other.is_closed:
            while len(other.inbox) > kept:
                other.inbox.pop()
            other.inbox.append(END)


def facts(thing: object) -> str:
    """What is plain about it, for messages: nothing that differs from run to run, as addresses do."""
    plain = {name: value for name, value in vars(thing).items() if isinstance(value, (bool, int, float, str))}
    return ", ".join(f"{name}={value!r}" for name, value in plain.items())


def _unheard(stream: Stream, _frame: Any) -> None:
    raise Violation("R1", f"{stream.name} got a frame before anybody listened")


def _unheard_end(_stream: Stream) -> None:
    """Nobody minds."""


class World:
    """One run. Subclasses say what there is, what may happen, and what must hold.

    `chance` decides everything; `trace` (None: not wanted) collects what happened, a line each.
    """

    steps_min, steps_max = 40, 120

    def __init__(self, chance: Chance, trace: list[str] | None = None) -> None:
        self.chance = chance
        self.trace = trace
        self.now_s = 0.0
        self.streams: list[Stream] = []
        self.slow_percent = chance.choose((0, 0, 25, 50))  # of the connections
        self.violation: Violation | None = None
        self.main_step_count = 0  # of the steps that were made by chance, not to come to rest

    # What a subclass provides

    def set_up(self) -> None:
        """Make the processes."""
        raise NotImplementedError

    def act(self) -> None:
        """One step by chance."""
        raise NotImplementedError

    def settle(self) -> None:
        """Nothing new: let everything that has begun come to its end. Returns when nothing is left to do."""
        raise NotImplementedError

    def check(self) -> None:
        """What must hold after every step."""

    def check_rest(self) -> None:
        """What must hold when everything has come to its end."""

    # The run

    def run(self) -> None:
        chance = self.chance
        self.set_up()
        count = self.steps_min + chance.below(self.steps_max - self.steps_min + 1)
        if chance.step_count is not None:
            count = chance.step_count
        for _ in range(count):
            chance.step()
            self.main_step_count += 1
            self.act()
            self.check()
        chance.step()
        self.note("---- no more work, no more crashes")
        self.settle()
        self.check()
        self.check_rest()

    def run_guarded(self) -> None:
        """`run`, in the surroundings that this world needs."""
        self.run()

    def note(self, line: str, *values: object) -> None:
        if self.trace is not None and len(self.trace) < TRACE_LINES_MAX:
            self.trace.append(line % values if values else line)

    # Connections

    def connect(self, name: str, other_name: str) -> tuple[Stream, Stream]:
        """The two ends of a new connection."""
        near, far = Stream(self, name), Stream(self, other_name)
        near.other, far.other = far, near
        near.is_slow, far.is_slow = self.chance.happens(self.slow_percent), self.chance.happens(self.slow_percent)
        self.streams += (near, far)
        return near, far

    def deliver_one(self) -> bool:
        """Let one connection deliver; whether one had anything to deliver."""
        stream = self.next_to_deliver()
        if stream is None:
            return False
        stream.deliver()
        return True

    def next_to_deliver(self) -> Stream | None:
        """Any connection that has something, a slow one seldom unless the others have nothing."""
        waiting = [stream for stream in self.streams if stream.inbox]
        if not waiting:
            return None
        quick = [stream for stream in waiting if not stream.is_slow]
        if quick and len(quick) < len(waiting) and not self.chance.happens(SLOW_PERCENT):
            waiting = quick
        return self.chance.choose(waiting)

    def forget_closed(self) -> None:
        self.streams = [stream for stream in self.streams if not stream.is_closed or not stream.other.is_closed]

    def must(self, condition: object, rule: str, text: str, *values: object) -> None:
        """The invariant `rule` holds, or the run ends, also when what noticed it runs as somebody's code."""
        if not condition:
            self.violation = Violation(rule, text % values if values else text)
            raise self.violation
