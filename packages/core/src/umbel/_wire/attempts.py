"""How one connection to another node comes about: by dialling it, or over a connection that it dials itself.

Who can be dialled depends on who dials: behind NAT a node can dial others, and they cannot dial it. So it is dialled first, and
if that fails, or nothing answers for `HEAD_START_S`, it is asked, by way of the head, for a connection of its own; whichever is
there first will do. A node that had to be asked is not dialled for `RECHECK_S`.

This module only decides; `umbel._transport.ways` does the rest.
"""

from __future__ import annotations

import enum

from umbel._base import checks

HEAD_START_S = 0.5  # a round trip around the world takes 0.3 s
RECHECK_S = 300.0  # networks change; a dial that nothing answers costs a head start
NODE_COUNT_MAX = 10_000  # that are remembered; five times the largest cluster that is aimed at


class Do(enum.Enum):
    """What is to be done now."""

    DIAL = enum.auto()
    ASK = enum.auto()
    """For a connection that the node dials itself."""
    PROVE = enum.auto()
    """Both sides, over the connection that has come."""
    CLOSE = enum.auto()
    """The connection that has come: it is too late."""
    SUCCEED = enum.auto()
    """With the connection that is there now; whatever else is under way is dropped."""
    FAIL = enum.auto()


class _Step(enum.Enum):
    NOT_BEGUN = enum.auto()
    UNDER_WAY = enum.auto()
    PROVING = enum.auto()
    OVER = enum.auto()


class Attempt:
    """One. can_ask: whether there is anybody by way of whom to ask."""

    def __init__(self, *, at_s: float, is_dialled: bool, can_ask: bool) -> None:
        """is_dialled: whether dialling is worth a try."""
        self.ask_s: float | None = at_s + HEAD_START_S if can_ask and is_dialled else None
        self.is_over = False
        self._is_dialled = is_dialled or not can_ask
        self._dial = _Step.NOT_BEGUN
        self._asked = _Step.NOT_BEGUN if can_ask else _Step.OVER

    @property
    def is_asking(self) -> bool:
        """Whether a connection is waited for that the node dials."""
        return not self.is_over and self._asked is _Step.UNDER_WAY

    @property
    def is_dialling(self) -> bool:
        return not self.is_over and self._dial is _Step.UNDER_WAY

    def begin(self) -> Do:
        if self._is_dialled:
            self._dial = _Step.UNDER_WAY
            return Do.DIAL
        return self._ask()

    def _ask(self) -> Do:
        self.ask_s = None
        self._asked = _Step.UNDER_WAY
        return Do.ASK

    # ---- dialling ----

    def reached(self) -> None:
        """The dial has met a machine that answers, which may take its time now."""
        self.ask_s = None

    def connected(self) -> Do:
        """By dialling, or over the connection that has come: both sides have proved themselves."""
        return self._end(Do.SUCCEED)

    def dial_failed(self, *, is_final: bool) -> Do | None:
        """is_final: the node itself has been heard, and refuses."""
        self._dial = _Step.OVER
        if is_final or self._asked is _Step.OVER:
            return self._end(Do.FAIL)
        return self._ask() if self._asked is _Step.NOT_BEGUN else None

    # ---- asking ----

    def arrived(self) -> Do:
        """A connection that was asked for."""
        if not self.is_asking:
            return Do.CLOSE
        self._asked = _Step.PROVING
        return Do.PROVE

    def asking_failed(self, *, is_final: bool) -> Do | None:
        """There will be no such connection, or what has come was of no use."""
        self._asked = _Step.OVER
        if is_final or self._dial is _Step.OVER:
            return self._end(Do.FAIL)
        if self._dial is _Step.UNDER_WAY:
            return None
        self._dial = _Step.UNDER_WAY  # it was not believed to be of use; there is nothing else left
        return Do.DIAL

    # ----

    def tick(self, at_s: float) -> Do | None:
        if self.is_over or self.ask_s is None or at_s < self.ask_s:
            return None
        return self._ask()

    def _end(self, do: Do) -> Do:
        self.is_over = True
        self.ask_s = None
        return do

    def check(self) -> None:
        """Raises InternalError unless it waits for something."""
        waits = {_Step.UNDER_WAY, _Step.PROVING} & {self._dial, self._asked}
        checks.invariant(self.is_over or waits or self._dial is _Step.NOT_BEGUN, "a connection is waited for in vain")


class Dialled:
    """Which nodes had to be asked, by tag, and until when they are not dialled for that."""

    def __init__(self) -> None:
        self._asked: dict[bytes, float] = {}

    def is_worth_a_try(self, tag: bytes, at_s: float) -> bool:
        return at_s >= self._asked.get(tag, at_s)

    def was_asked(self, tag: bytes) -> bool:
        """Whether it had to be, the last time."""
        return tag in self._asked

    def had_to_be_asked(self, tag: bytes, at_s: float) -> None:
        self._asked.pop(tag, None)
        self._asked[tag] = at_s + RECHECK_S
        if len(self._asked) > NODE_COUNT_MAX:
            del self._asked[next(iter(self._asked))]

    def could_be_dialled(self, tag: bytes) -> None:
        self._asked.pop(tag, None)
