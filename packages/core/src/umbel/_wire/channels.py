"""A conversation between two sides that outlives the connections under it: what one says the other takes in order, once.

What is said has a number, and is kept until the other side has said that it has heard it. With a new connection each side
says first what it has heard, and is told again whatever comes after that. A number that was heard before is not taken again;
one that is missing cannot be, unless a side has made a mistake. The conversation ends when a side forgets it: it is over then
for good, and whoever knows of its other side's end forgets it too.

A side that *vouches* tells only what it has heard and vouched for: what came of it will not be lost when that side dies. So
what the other one keeps is what a successor may not know.

This module only decides; messages are control frames, whose bodies nobody opens here.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from umbel._base import checks

# After so much has been heard that is told at once; else it is told by the way, with the next thing that is said.
ACKNOWLEDGE_COUNT = 32
ACKNOWLEDGE_BYTES = 1 << 20

Message = dict[str, Any]


class Channel:
    """One side's. vouches: what it has heard counts when `vouch` says so; else at once."""

    def __init__(self, *, vouches: bool = False) -> None:
        self.said = 0  # the number of what was said last
        self.heard = 0  # the number of what was taken last
        self.kept_bytes = 0  # of bodies that the other side has not heard
        self._kept: deque[tuple[int, Message, bytes]] = deque()
        self._vouches = vouches
        self._vouched = 0
        self._told = 0  # what the other side knows to be heard
        self._untold_bytes = 0

    @property
    def kept_count(self) -> int:
        """How much the other side has not heard, as far as is known."""
        return len(self._kept)

    @property
    def kept(self) -> list[tuple[int, Message, bytes]]:
        """That, in order: (number, message, body)."""
        return list(self._kept)

    @property
    def counts(self) -> int:
        """The number of the last that is heard, and vouched for where this side does that."""
        return self._vouched if self._vouches else self.heard

    def vouch(self, number: int) -> None:
        """What came of this number and those before is safe."""
        self._vouched = max(self._vouched, number)

    def say(self, message: Message, body: bytes = b"") -> Message:
        """What to send now, with the body, if there is a connection."""
        self.said += 1
        self._kept.append((self.said, message, body))
        self.kept_bytes += len(body)
        return self._frame(self.said, message)

    def linked(self, heard: int) -> list[tuple[Message, bytes]]:
        """There is a new connection, over which the other side has said what it has heard. Returns what to send, in order.
        Raises ValueError when it cannot have heard that."""
        self.acknowledged(heard)
        return [(self._frame(number, message), body) for number, message, body in self._kept]

    def acknowledged(self, heard: int) -> None:
        """Raises ValueError when the other side cannot have heard that."""
        if heard > self.said or (self._kept and heard < self._kept[0][0] - 1):
            first = self._kept[0][0] if self._kept else self.said + 1
            raise ValueError(f"the other side has heard {heard}, which must be from {first - 1} to {self.said}")
        while self._kept and self._kept[0][0] <= heard:
            self.kept_bytes -= len(self._kept.popleft()[2])

    def takes(self, frame: Message, body: bytes) -> bool:
        """Whether what has come is to be carried out; else it was. Raises ValueError when something before it is missing."""
        self.acknowledged(frame["heard"])
        number = frame["number"]
        if number > self.heard + 1:
            raise ValueError(f"number {number} has come, and {self.heard + 1} has not")
        if number <= self.heard:
            return False
        self.heard = number
        self._untold_bytes += len(body)
        return True

    def acknowledgement(self) -> Message | None:
        """To be sent now, if it is time."""
        untold = self.counts - self._told
        if not untold or (untold < ACKNOWLEDGE_COUNT and self._untold_bytes < ACKNOWLEDGE_BYTES):
            return None
        return {"t": "heard_said", "heard": self._tell()}

    def _frame(self, number: int, message: Message) -> Message:
        return {"t": "said", "number": number, "heard": self._tell(), "message": message}

    def _tell(self) -> int:
        self._told, self._untold_bytes = self.counts, 0
        return self._told

    def check(self) -> None:
        """The invariants, for tests."""
        numbers = [number for number, _, _ in self._kept]
        if numbers != list(range(self.said - len(numbers) + 1, self.said + 1)):
            raise checks.broken("something is kept out of order", numbers=numbers)
        if self.kept_bytes != sum([len(body) for _, _, body in self._kept]):
            raise checks.broken("bytes are miscounted", kept=self.kept_bytes)
        if not self._told <= self.counts <= self.heard:
            raise checks.broken("more was told than heard", heard=self.heard)
