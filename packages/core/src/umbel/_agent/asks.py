"""Questions from one process of a node to another, passed on by the agent.

What a task does, or an object waits for, only the process that runs or owns it can say. Whoever wants to know, a driver
or the command line, asks the agent, which passes the question on and the answer back. This module only keeps who waits
for what: each question is answered or refused once, and none outlives either side. The asker bounds how long it waits.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

PER_ASKER_MAX = 1_000  # at once; whoever asks about every worker of a node has fewer


class Ask(NamedTuple):
    """A question that was passed on."""

    asker: str
    request: int
    whom: str


class Asks:
    """The open questions, by the number under which they were passed on."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Ask] = {}

    def is_full(self, asker: str) -> bool:
        return sum(1 for ask in self._open.values() if ask.asker == asker) >= PER_ASKER_MAX

    def passed_on(self, asker: str, request: int, whom: str) -> int:
        """The number to ask `whom` under."""
        number = next(self._numbers)
        self._open[number] = Ask(asker, request, whom)
        return number

    def answered(self, number: int, by: str) -> Ask | None:
        """Whom to tell; None when nobody waits for it any more, or it was not for `by` to answer."""
        ask = self._open.get(number)
        if ask is None or ask.whom != by:
            return None
        del self._open[number]
        return ask

    def gone(self, client: str) -> list[Ask]:
        """A process has gone: forgets its questions; returns those that it will not answer."""
        lost = [ask for ask in self._open.values() if ask.whom == client and ask.asker != client]
        self._open = {number: ask for number, ask in self._open.items() if client not in (ask.asker, ask.whom)}
        return lost
