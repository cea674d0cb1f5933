"""One question to several nodes at once: who has answered, and what to say of those who have not.

Whoever asks says how long it waits; then it gets what there is, with the reason for each node that is missing. A question is
answered once, and forgotten with its asker. This module only keeps what is known; `far_agents` asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

PER_ASKER_MAX = 16  # at once; a listing has one

Answer = dict[str, Any]  # {"result": ...}, or {"error": {"kind", "text"}}


class Done(NamedTuple):
    """To be told to its asker. answers: by node."""

    asker: str
    request: int
    answers: dict[str, Answer]


class _Gather:
    __slots__ = ("answers", "asker", "due_s", "left", "limit_s", "request")

    def __init__(self, asker: str, request: int, nodes: Iterable[str], limit_s: float, due_s: float) -> None:
        self.asker = asker
        self.request = request
        self.left = dict.fromkeys(nodes)
        self.answers: dict[str, Answer] = {}
        self.limit_s = limit_s
        self.due_s = due_s


class Gathers:
    """Those that are open, by their numbers."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, _Gather] = {}

    def is_full(self, asker: str) -> bool:
        return sum(one.asker == asker for one in self._open.values()) >= PER_ASKER_MAX

    def begin(self, asker: str, request: int, nodes: Iterable[str], limit_s: float, now_s: float) -> int:
        """nodes: at least one. Each is to be asked then; what it says is told by `answered`."""
        number = next(self._numbers)
        self._open[number] = _Gather(asker, request, nodes, limit_s, now_s + limit_s)
        return number

    def answered(self, number: int, node: str, answer: Answer) -> Done | None:
        """What to tell, if that was the last."""
        gather = self._open.get(number)
        if gather is None or node not in gather.left:
            return None  # it comes too late, or nobody waits for it any more
        del gather.left[node]
        gather.answers[node] = answer
        if gather.left:
            return None
        del self._open[number]
        return Done(gather.asker, gather.request, gather.answers)

    def next_tick_s(self) -> float | None:
        return min((one.due_s for one in self._open.values()), default=None)

    def late(self, now_s: float) -> list[Done]:
        """What to tell of those that are not waited for any longer."""
        found = []
        for number, gather in list(self._open.items()):
            if gather.due_s > now_s:
                continue
            del self._open[number]
            text = f"it has not answered within {gather.limit_s:g} s"
            missing = {node: {"error": {"kind": "late", "text": text}} for node in gather.left}
            found.append(Done(gather.asker, gather.request, {**gather.answers, **missing}))
        return found

    def gone(self, asker: str) -> None:
        self._open = {number: one for number, one in self._open.items() if one.asker != asker}
