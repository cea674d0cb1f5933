"""What each job of a cluster has of all its nodes together, at the head, which tells the nodes.

A node says what jobs have there, in its state, where several are, or once somebody wants to know of all. From then on the head
tells sums, by job: all of them to a node whose connection is new, else what has changed. It begins as well where each job has
nodes of its own, and something waits. A node that does not count, since it is dead, drained or silent, is left out of what there
is and of what is used. While there is one job, or one node, nobody says anything. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

LINGER_S = (
    10.0  # after nodes with several jobs have become none; jobs that come and go would have all told anew each time
)

Amounts = Mapping[str, int]
Message = dict[str, Any]
Said = Mapping[str, list[Any]]  # by job: [priority, weight, amounts, nodes on which it asks others for more]


class JobUse:
    """Of one cluster."""

    def __init__(self) -> None:
        self._said: dict[str, Said] = {}  # by node
        self._told: dict[str, list[Any]] = {}
        self._total: Amounts = {}
        self._shared: Amounts = {}
        self._is_new = False  # something was said since
        self._until_s: float | None = None  # while it is told

    @property
    def is_wanted(self) -> bool:
        """Whether `news` may have something to say."""
        return bool(self._said) or self._until_s is not None

    def said(self, node_id: str, jobs: Said | None) -> bool:
        """A node's state is this; whether it was another."""
        if jobs == self._said.get(node_id):
            return False
        if jobs is None:
            del self._said[node_id]
        else:
            self._said[node_id] = jobs
        self._is_new = True
        return True

    def gone(self, node_id: str) -> None:
        if self._said.pop(node_id, None) is not None:
            self._is_new = True

    def news(self, nodes: Mapping[str, Amounts], now_s: float, *, is_short: bool = False) -> Message | None:
        """What all members are to be told now. nodes: those that count, with what each has in all. is_short: something waits on
        some node, and there are several jobs."""
        meeting = [node_id for node_id in nodes if len(self._said.get(node_id, ())) > 1] if len(nodes) > 1 else []
        is_first = self._until_s is None
        if meeting or (is_short and len(nodes) > 1):
            self._until_s = now_s + LINGER_S
        if self._until_s is None:
            return None
        if now_s >= self._until_s:
            self._told, self._total, self._shared, self._until_s = {}, {}, {}, None
            return self._message({}, (), is_over=True)
        used = self._sums(node_id for node_id in nodes if node_id in self._said)
        changed = {job_id: one for job_id, one in used.items() if one != self._told.get(job_id)}
        gone = self._told.keys() - used.keys()
        total, shared = _sum(nodes.values()), _sum(nodes[node_id] for node_id in meeting)
        is_same = not changed and not gone and (total, shared) == (self._total, self._shared)
        if is_same and not self._is_new:
            return None
        self._told, self._total, self._shared, self._is_new = used, total, shared, False
        return self._message(changed, gone, is_whole=is_first)

    def _sums(self, nodes: Iterable[str]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for node_id in nodes:
            for job_id, (priority, weight, amounts, asks) in self._said[node_id].items():
                of_job = found.setdefault(job_id, [priority, weight, {}, 0])
                of_job[3] += asks
                known = of_job[2]
                for name, amount in amounts.items():
                    known[name] = known.get(name, 0) + amount
        return found

    def whole(self) -> Message | None:
        """For a node whose connection is new; None while nothing is told."""
        return self._message(self._told, (), is_whole=True) if self._until_s is not None else None

    def _message(
        self, jobs: Mapping[str, Any], gone: Iterable[str], *, is_whole: bool = False, is_over: bool = False
    ) -> Message:
        return {
            "t": "job_use", "jobs": dict(jobs), "gone": sorted(gone), "total": self._total, "shared": self._shared,
            "is_whole": is_whole, "is_over": is_over,
        }  # fmt: skip


def _sum(amounts: Iterable[Amounts]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in amounts:
        for name, amount in one.items():
            total[name] = total.get(name, 0) + amount
    return total
