"""What one rank of a group waits for, and what it makes of what the others send.

Pure: calls of this rank's program and frames of the others in, commands out. Frames of one rank come in the order in
which it sent them, and then perhaps the end of its connection. There is no leader: in a step every rank sends its text
to every other, so all see the same texts and come to the same verdict. Whoever finds the group beyond repair tells all
others, so nobody goes on waiting for it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from umbel._base import checks

NOTHING: Mapping[int, bytes] = {}
# What a rank may have sent that its peer has not taken: two steps, or a step and an offer, and how it ended.
INBOX_FRAMES_MAX = 4


class Kind(enum.IntEnum):
    STEP = 1  # of an operation of all ranks
    OFFER = 2  # of something for one rank
    ACCEPTED = 3
    REFUSED = 4
    BROKEN = 5  # the group is of no more use to the sender
    BYE = 6  # the sender leaves in good order


class Fault(str, enum.Enum):
    """What went wrong, which is the class of the error."""

    DIED = "died"
    TIMEOUT = "timeout"
    MISMATCH = "mismatch"
    FAILED = "failed"


UNKNOWN = -1  # a rank


class Problem(NamedTuple):
    """rank: to blame; UNKNOWN of several that are late, since some may wait for another. text: for the user."""

    fault: Fault
    rank: int
    text: str

    def encoded(self) -> str:
        return f"{self.fault.value} {self.rank} {self.text}"

    @classmethod
    def decoded(cls, text: str) -> Problem:
        fault, rank, rest = text.split(" ", 2)
        return cls(Fault(fault), int(rank), rest)


class Frame(NamedTuple):
    kind: Kind
    text: str = ""
    body: bytes = b""


class Send(NamedTuple):
    rank: int
    frame: Frame


class Done(NamedTuple):
    """What was waited for is there: what each rank has sent."""

    bodies: Mapping[int, bytes]


class Fail(NamedTuple):
    problem: Problem


Command: TypeAlias = "Send | Done | Fail"


@dataclass
class _Step:
    text: str
    awaited: list[int]
    texts: dict[int, str]
    bodies: dict[int, bytes] = field(default_factory=dict)


@dataclass
class _Offered:
    rank: int
    text: str


@dataclass
class _Expected:
    rank: int
    text: str


class Rounds:
    """One rank's state. `problem`: why the group is of no more use; None while it is."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._inboxes: dict[int, deque[Frame]] = {other: deque() for other in self._others}
        self._gone: set[int] = set()
        self._waiting: _Step | _Offered | _Expected | None = None
        self._owed: int | None = None  # whose offer was taken and not yet accepted
        self._operation = ""  # the last that was begun, for messages
        self.problem: Problem | None = None

    @property
    def is_waiting(self) -> bool:
        return self._waiting is not None

    @property
    def has_unread(self) -> bool:
        """Whether others have said something that nothing here has waited for yet."""
        return any(self._inboxes.values())

    @property
    def operation(self) -> str:
        """The last that was begun, in words; "" before the first."""
        return self._operation

    def awaited(self) -> list[int]:
        """The ranks that are waited for."""
        return list(self._awaited())

    # Calls of this rank's program

    def step(self, text: str, bodies: Mapping[int, bytes] = NOTHING) -> list[Command]:
        """All ranks do the same. text: what an operation does; "" for a further step of it."""
        if self.problem is not None:
            return [Fail(self.problem)]
        self._operation = text or self._operation
        self._waiting = _Step(text, list(self._others), {self._rank: text})
        sends: list[Command] = [Send(one, Frame(Kind.STEP, text, bodies.get(one, b""))) for one in self._others]
        return sends + self._look()

    def offer(self, rank: int, text: str, body: bytes) -> list[Command]:
        if self.problem is not None:
            return [Fail(self.problem)]
        self._operation = f"send of {text} to rank {rank}"
        self._waiting = _Offered(rank, text)
        return [Send(rank, Frame(Kind.OFFER, text, body)), *self._look()]

    def expect(self, rank: int, text: str) -> list[Command]:
        if self.problem is not None:
            return [Fail(self.problem)]
        self._operation = f"recv of {text} from rank {rank}"
        self._waiting = _Expected(rank, text)
        return self._look()

    def accepted(self) -> list[Command]:
        """What `expect` was done with has been taken."""
        rank, self._owed = self._owed, None
        checks.invariant(rank is not None, "nothing was received that could be accepted")
        return [] if rank is None else [Send(rank, Frame(Kind.ACCEPTED))]

    def look_around(self) -> list[Command]:
        """Whether somebody has died or given up, for whoever waits by other means."""
        if self.problem is None:
            for other in self._others:
                inbox = self._inboxes[other]
                if inbox and inbox[0].kind is Kind.BROKEN:
                    return self._break(Problem.decoded(inbox[0].text))
                if other in self._gone and not inbox:
                    return self._break(self._death_of(other))
            return []
        return [Fail(self.problem)]

    def left(self) -> list[Command]:
        """This rank leaves."""
        return [Send(other, Frame(Kind.BYE)) for other in self._others]

    def gave_up(self, why: str) -> list[Command]:
        """This rank cannot finish the operation that it is in."""
        text = f"rank {self._rank} gave up in {self._operation or 'its first operation'}: {why}"
        return self._break(Problem(Fault.FAILED, self._rank, text)) if self.problem is None else []

    # What the others do

    def heard(self, news: Iterable[tuple[int, Frame | None]]) -> list[Command]:
        """Frames of ranks, and None for the end of a rank's connection; all that there is, since what a rank says of an
        operation may be followed by the news that it failed."""
        for rank, frame in news:
            if frame is None:
                self._gone.add(rank)
            else:
                self._inboxes[rank].append(frame)
        return self._look()

    def arrived(self, rank: int, frame: Frame) -> list[Command]:
        return self.heard([(rank, frame)])

    def gone(self, rank: int) -> list[Command]:
        return self.heard([(rank, None)])

    def timed_out(self, timeout_s: float) -> list[Command]:
        """Nothing has come for so long."""
        late = self._awaited()
        return self._time_out(timeout_s, late) if late else []

    def timed_out_otherwise(self, timeout_s: float, ranks: Sequence[int]) -> list[Command]:
        """This rank has waited so long by other means, for one or more of these ranks."""
        return self._time_out(timeout_s, ranks, "" if len(ranks) == 1 else "one or more of ")

    # Verdicts

    def _time_out(self, timeout_s: float, late: Sequence[int], which: str = "") -> list[Command]:
        text = (
            f"rank {self._rank} waited {timeout_s:g} s in {self._operation} for {which}rank{'s'[: len(late) > 1]} "
            f"{', '.join(map(str, late))}; raise the group's time-out if they are only slow"
        )
        return self._break(Problem(Fault.TIMEOUT, late[0] if len(late) == 1 else UNKNOWN, text))

    def _awaited(self) -> list[int]:
        waiting = self._waiting
        if waiting is None:
            return []
        return waiting.awaited if isinstance(waiting, _Step) else [waiting.rank]

    def _look(self) -> list[Command]:
        """What the frames that are here mean for what is waited for."""
        waiting = self._waiting
        if waiting is None:
            return []
        if isinstance(waiting, _Step):
            return self._look_for_step(waiting)
        inbox = self._inboxes[waiting.rank]
        if not inbox:
            return self._break(self._death_of(waiting.rank)) if waiting.rank in self._gone else []
        frame = inbox.popleft()
        if isinstance(waiting, _Offered):
            if frame.kind is Kind.ACCEPTED:
                return self._done({})
            if frame.kind is Kind.REFUSED:
                return self._disagree(waiting.rank, self._pair_text(self._rank, waiting.text, frame.text))
        elif frame.kind is Kind.OFFER:
            if frame.text == waiting.text:
                self._owed = waiting.rank
                return self._done({waiting.rank: frame.body})
            text = self._pair_text(waiting.rank, frame.text, waiting.text)
            return [Send(waiting.rank, Frame(Kind.REFUSED, waiting.text)), *self._disagree(waiting.rank, text)]
        return self._unexpected(waiting.rank, frame)

    def _look_for_step(self, step: _Step) -> list[Command]:
        for rank in list(step.awaited):
            inbox = self._inboxes[rank]
            if inbox:
                frame = inbox.popleft()
                if frame.kind is not Kind.STEP:
                    return self._unexpected(rank, frame)
                step.awaited.remove(rank)
                step.texts[rank] = frame.text
                step.bodies[rank] = frame.body
            elif rank in self._gone:
                return self._break(self._death_of(rank))
        for rank in step.bodies:
            inbox = self._inboxes[rank]
            if inbox and inbox[0].kind is Kind.BROKEN:  # it failed in this very step, for which nobody waits then
                return self._break(Problem.decoded(inbox[0].text))
        if step.awaited:
            return []
        odd = self._differ(step)
        if not odd:
            return self._done(step.bodies)
        return self._disagree(min(odd), self._texts_of(step.texts))

    def _differ(self, step: _Step) -> list[int]:
        return [rank for rank, text in step.texts.items() if text != step.text]

    def _unexpected(self, rank: int, frame: Frame) -> list[Command]:
        """Something that cannot be followed by what is waited for: that rank waits for us, in another operation."""
        if frame.kind is Kind.BROKEN:
            return self._break(Problem.decoded(frame.text))
        if frame.kind is Kind.BYE:
            return self._break(Problem(Fault.DIED, rank, f"rank {rank} has left it{self._meanwhile()}"))
        checks.invariant(frame.kind in (Kind.STEP, Kind.OFFER), "a rank answered what it was not asked", rank=rank)
        theirs = f"send of {frame.text} to rank {self._rank}" if frame.kind is Kind.OFFER else frame.text
        text = self._texts_of({self._rank: self._operation, rank: theirs or "the rest of an operation"})
        return self._break(Problem(Fault.MISMATCH, rank, text))

    def _texts_of(self, texts: Mapping[int, str]) -> str:
        """Each thing that ranks called, with the ranks that called it; the same at every rank."""
        by_text: dict[str, list[str]] = {}
        for rank in sorted(texts):
            by_text.setdefault(texts[rank], []).append(str(rank))
        return "; ".join(
            f"rank{'s'[: len(ranks) > 1]} {', '.join(ranks)} called {text or 'another one'}"
            for text, ranks in by_text.items()
        )

    def _pair_text(self, sender: int, sent: str, expected: str) -> str:
        receiver = self._awaited()[0] if sender == self._rank else self._rank
        return f"rank {sender} sends {sent}, and rank {receiver} receives {expected}"

    def _death_of(self, rank: int) -> Problem:
        return Problem(Fault.DIED, rank, f"rank {rank} died, or ended without leaving{self._meanwhile()}")

    def _meanwhile(self) -> str:
        return f", and rank {self._rank} needs it for {self._operation}" if self._operation else ""

    def _done(self, bodies: Mapping[int, bytes]) -> list[Command]:
        self._waiting = None
        return [Done(bodies)]

    def _disagree(self, rank: int, text: str) -> list[Command]:
        """All who are concerned know it and have touched nothing, so that the group goes on."""
        self._waiting = None
        return [Fail(Problem(Fault.MISMATCH, rank, text))]

    def _break(self, problem: Problem) -> list[Command]:
        self.problem = problem
        self._waiting = None
        told: Iterable[int] = (other for other in self._others if other not in self._gone)
        return [*(Send(other, Frame(Kind.BROKEN, problem.encoded())) for other in told), Fail(problem)]

    def check(self) -> None:
        """What must hold at any time."""
        for rank, inbox in self._inboxes.items():
            if len(inbox) > INBOX_FRAMES_MAX:
                raise checks.broken("a rank is too far ahead", rank=rank, frames=len(inbox))
        checks.invariant(self._waiting is None or self.problem is None, "a broken group waits")
