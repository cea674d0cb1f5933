"""What the jobs of a cluster have of all its nodes, as a node knows it. Loaded where the head tells.

Each node tells the head what jobs have there, with its heartbeats, and the head tells all the sums (`umbel._control.job_use`). So
what a node knows of the others is some seconds old, and all know the same: if each of them mended what it sees, it would be
mended many times. So a node takes it that what has changed here since then has changed likewise on the other nodes on which
several jobs are, each by its size. As leases are whole, most nodes would then never do their part of a small difference; so
the first step of each counts for less, by a number between 0 and 1 which it draws for itself: of so many nodes about as many take
it as are needed, once. A new number is drawn when the news of what came of it has had time to come. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from umbel._agent.events import Job

DRAW_S = 3.0  # a change is told within a second, passed on within another, and who hears of it may ask for a lease back
STALE_S = (
    10.0  # without a connection to the head, what it has told counts for so long; one that starts again is back by then
)

Amounts = Mapping[str, int]


class ClusterUse:
    """As it was told at one moment. total: of all nodes. jobs: that have something, or want it."""

    def __init__(
        self,
        used: Mapping[str, Amounts],
        jobs: Mapping[str, Job],
        *,
        total: Amounts,
        shared: Amounts,
        counted: Mapping[str, Amounts],
        draw: float,
        asking: Mapping[str, int],
    ) -> None:
        """used: by job, of all nodes together. shared: the part of `total` that is on nodes with several jobs. counted: what this
        node's jobs have, as it is contained in `used`. draw: this node's, at least 0 and below 1. asking: by job, the other nodes
        that ask for more."""
        self.total = total
        self.jobs = jobs
        self._used = used
        self._shared = shared
        self._counted = counted
        self._draw = draw
        self._asking = asking
        self._factors: dict[str, float] = {}  # by resource: what changes here, changes so many times in all
        self._slack: dict[str, float] = {}  # but for so much of it

    def fit(self, own: Amounts, steps: Amounts) -> None:
        """own: what this node has. steps: the most that one lease takes here, of each resource."""
        is_counted = len(self._counted) > 1
        for name, amount in own.items():
            shared = self._shared.get(name, 0) + (0 if is_counted else amount)
            self._factors[name] = max(1.0, shared / amount) if amount else 1.0
            self._slack[name] = self._draw * steps.get(name, 0)

    def expected(self, job: Job, own: Amounts) -> dict[str, int]:
        """What it has of all nodes, if it has this here; with more here it is more. Others cannot have less than nothing."""
        used, counted = self._used.get(job.id, {}), self._counted.get(job.id, {})
        found = {}
        for name in {*own, *used}:
            here, before = own.get(name, 0), counted.get(name, 0)
            of_others = used.get(name, 0) - before
            if here != before:
                of_others += self._of_others(name, here - before)
            found[name] = here + of_others if of_others > 0 else here
        return found

    def is_elsewhere(self, job: Job, name: str) -> bool:
        """Whether it has any of that on other nodes."""
        return self._used.get(job.id, {}).get(name, 0) > self._counted.get(job.id, {}).get(name, 0)

    def known(self, own: Mapping[str, Amounts]) -> dict[str, dict[str, int]]:
        """By job, what it has of all nodes if that is what it has of this one."""
        found = {}
        for job_id in {*self._used, *own}:
            used, counted, here = self._used.get(job_id, {}), self._counted.get(job_id, {}), own.get(job_id, {})
            found[job_id] = {
                name: here.get(name, 0) + max(0, used.get(name, 0) - counted.get(name, 0)) for name in {*used, *here}
            }
        return found

    def askers_elsewhere(self, job: Job) -> int:
        """Other nodes of which processes ask for more for it."""
        return self._asking.get(job.id, 0)

    def _of_others(self, name: str, change: int) -> int:
        """How much others are expected to have changed if so much has changed here."""
        size = abs(change)
        in_all = self._factors.get(name, 1.0) * (size - self._slack.get(name, 0.0))
        return round(math.copysign(max(0.0, in_all - size), change))


class UseNews:
    """What a node has told the head, and heard from it."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._said: deque[tuple[int, Mapping[str, Amounts]]] = deque()  # what was not heard yet, with its number
        self._heard: Mapping[str, Amounts] = {}  # what the head has heard last
        self._counted: Mapping[str, Amounts] = {}  # and had when it told something last
        self._askers: dict[str, int] = {}  # by job, the nodes that ask for more
        self._asks: Collection[str] = ()  # jobs for which this one does, as was said last
        self._jobs: dict[str, Job] = {}
        self._used: dict[str, Amounts] = {}
        self._total: Amounts = {}
        self._shared: Amounts = {}
        self._draws = 0
        self._drawn_s = -math.inf
        self._is_spent = False  # what was drawn last: something has changed here since
        self._lost_s: float | None = None  # since when nothing can be heard
        self.is_told = False

    def said(self, number: int, jobs: Mapping[str, Any] | None) -> None:
        """This was sent to the head, which will say that it has heard this number. jobs: as in the node's state."""
        self._said.append((number, {job_id: one[2] for job_id, one in (jobs or {}).items()}))
        self._asks = {job_id for job_id, one in (jobs or {}).items() if one[3]}

    def heard(self, number: int) -> None:
        """The head has heard up to this."""
        while self._said and self._said[0][0] <= number:
            _, self._heard = self._said.popleft()

    def told(self, message: Mapping[str, Any], now_s: float) -> None:
        """A "job_use" of the head, which has sent it after all that it was heard to hear."""
        if message["is_whole"]:
            self._forget()
            self._lost_s = None
        for job_id, (priority, weight, amounts, askers) in message["jobs"].items():
            self._jobs[job_id] = Job(job_id, priority, weight)
            self._used[job_id] = amounts
            self._askers[job_id] = askers
        for job_id in message["gone"]:
            for known in (self._jobs, self._used, self._askers):
                known.pop(job_id, None)
        self._total, self._shared = message["total"], message["shared"]
        self._is_spent |= self._heard != self._counted
        self._counted = self._heard
        self.is_told = not message["is_over"]
        if message["is_over"]:
            self._forget()

    def _forget(self) -> None:
        self.is_told = False
        self._jobs, self._used, self._askers, self._total, self._shared = {}, {}, {}, {}, {}

    def lost(self, now_s: float) -> None:
        """The connection to the head has ended. What was said by it and not heard may never be."""
        self._said.clear()
        if self._lost_s is None:
            self._lost_s = now_s

    def is_due(self, now_s: float) -> bool:
        """Looked at once in a while, when what this node has was said: whether what `use` says is another now, by the time that
        has passed. While news of what this node has are on their way, it is not: what was asked back for one job would be
        given to another when it comes."""
        if not self.is_told:
            return False
        if self._lost_s is not None:
            if now_s < self._lost_s + STALE_S:
                return False
            self._forget()
            return True
        is_known = all(known == self._counted for known in (self._heard, *(said for _, said in self._said)))
        if now_s < self._drawn_s + DRAW_S or not is_known:
            return False
        self._draws, self._drawn_s, self._is_spent = self._draws + 1, now_s, False
        return True

    def use(self) -> ClusterUse | None:
        if not self.is_told:
            return None
        draw = 0.0 if self._is_spent else drawn(f"{self._node_id} {self._draws}")
        return ClusterUse(
            dict(self._used),
            dict(self._jobs),
            total=self._total,
            shared=self._shared,
            counted=self._counted,
            draw=draw,
            asking={job_id: count - (job_id in self._asks) for job_id, count in self._askers.items() if count},
        )


def drawn(by: str) -> float:
    """A number, at least 0 and below 1, that goes by whose it is and which. Those of two nodes must have nothing to do with each
    other. CRC checksums would differ by the same bits each time: of half of all pairs either both would take a step or neither,
    always."""
    digest = hashlib.sha256(by.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
