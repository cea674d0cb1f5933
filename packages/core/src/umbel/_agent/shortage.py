"""Which worker has to go when memory runs short.

Told, now and then, how much is used and how much each worker holds. When less than a reserve is left it names the worker
whose recent growth caused that. Growth counts in full while it is fresh and by half after each `HALF_LIFE_S`, so that a
model which an actor loaded an hour ago weighs nothing beside a task that grows now; what a worker was promised by its
`memory` does not count while others exceed theirs. Among those about equally to blame, tasks that will be tried again go
first. One goes at a time: its memory must be back, or overdue, before the next. Whoever did not grow and holds little is
left alone: then somebody else is the cause, another program or session. This module only decides; `memory_watch` looks
and kills.
"""

from __future__ import annotations

from typing import Any, NamedTuple

RESERVE_BYTES_MAX = 2 << 30  # kept free at most: a machine of 1 TB need not leave 50 GB unused
GROWTH_BYTES_PER_S = 4 << 30  # a few cores that fill fresh pages; how soon to look again assumes no more
LOOK_S_MIN, LOOK_S_MAX = 0.02, 1.0
COST_SHARE_CALM, COST_SHARE_MAX = 1 / 1_000, 1 / 20  # of one core, for looking: while nothing grows, and else
HALF_LIFE_S = 30.0
FRESH_BYTES = 32 << 20  # of a worker that has done nothing; more than that, at first sight, is growth
WORTH_SHARE = 0.02  # of the limit: who holds less, with few workers, is not worth killing
PATIENCE_S = 2.0  # when none of ours has grown: for whoever is to blame to be found by others
TAKE_EFFECT_S = 5.0  # for a killed process to be gone; the system needs milliseconds for each gigabyte
COMPLAINT_S = 60.0  # between two complaints that there is nobody to kill
DISMISSED_S = 0.2  # for an idle worker to leave when asked
CURVE_POINTS_MAX = 64  # then every second one goes
OTHERS_MAX = 8  # told of beside the victim

FREE, RETRIED, RESTARTED, LOST_TASK, LOST_ACTOR = range(5)  # what a kill costs, cheapest first


class Use(NamedTuple):
    """One worker at one moment.

    owner: the process whose tasks it runs; "" if it is idle. actor: its id, or "". task: a number that changes when another
    task begins; -1 for none. allowed_bytes: the `memory` that it was promised. cost: FREE to LOST_ACTOR.
    """

    worker: str
    resident_bytes: int
    owner: str = ""
    actor: str = ""
    task: int = -1
    allowed_bytes: int = 0
    cost: int = RETRIED

    @property
    def is_idle(self) -> bool:
        return not self.owner and not self.actor


class Sampled(NamedTuple):
    """Somebody looked. source: whose memory that is, in words. took_s: of the processor, to look."""

    used_bytes: int
    limit_bytes: int
    source: str
    uses: tuple[Use, ...]
    took_s: float
    at_s: float


class Gone(NamedTuple):
    """A worker's process has ended."""

    worker: str
    at_s: float


class Kill(NamedTuple):
    """This worker must go. report: JSON, for whoever waits for its work; see `report_of`."""

    worker: str
    cost: int
    report: dict[str, Any]


class Dismiss(NamedTuple):
    """Ask this idle worker to exit."""

    worker: str


class Helpless(NamedTuple):
    """Memory is short, and no worker of ours holds enough to be worth killing: somebody should know."""

    used_bytes: int
    limit_bytes: int
    source: str


class _History:
    """One worker's growth. curve: (seconds since it was first looked at, bytes), thinned out as it gets long.
    peak_bytes: of the task that runs."""

    __slots__ = ("curve", "growth_bytes", "last_bytes", "last_s", "peak_bytes", "since_s", "step_s", "task")

    def __init__(self, use: Use, at_s: float) -> None:
        self.since_s = at_s
        self.growth_bytes = float(max(0, use.resident_bytes - FRESH_BYTES))
        self.last_bytes = use.resident_bytes
        self.last_s = at_s
        self.task = use.task
        self.peak_bytes = use.resident_bytes
        self.step_s = 0.0
        self.curve: list[tuple[float, int]] = [(0.0, use.resident_bytes)]

    def add(self, use: Use, at_s: float) -> None:
        decayed = self.growth_bytes * 0.5 ** ((at_s - self.last_s) / HALF_LIFE_S)
        self.growth_bytes = max(0.0, decayed + use.resident_bytes - self.last_bytes)
        self.last_bytes, self.last_s = use.resident_bytes, at_s
        self.peak_bytes = use.resident_bytes if use.task != self.task else max(self.peak_bytes, use.resident_bytes)
        self.task = use.task
        passed_s = at_s - self.since_s
        if passed_s - self.curve[-1][0] >= self.step_s:
            self.curve.append((passed_s, use.resident_bytes))
            if len(self.curve) > CURVE_POINTS_MAX:
                self.curve = self.curve[::2]
                self.step_s = 2 * passed_s / CURVE_POINTS_MAX

    def curve_to_now(self) -> list[tuple[float, int]]:
        last = (self.last_s - self.since_s, self.last_bytes)
        return self.curve if self.curve[-1] == last else [*self.curve, last]


class MemoryMonitor:
    """The machine. `apply` takes events and returns the commands that they cause."""

    def __init__(self, *, threshold: float) -> None:
        """threshold: the share of the limit that may be used, in (0, 1]."""
        self._threshold = threshold
        self._histories: dict[str, _History] = {}
        self._last: Sampled | None = None
        self._rise_bytes = 0  # of what is used, between the last two looks
        self._short_since_s: float | None = None
        self._quiet_until_s = 0.0
        self._leaving: dict[str, float] = {}  # killed or dismissed, and when that is overdue
        self._refused: set[str] = set()  # dismissed and still there: they own what others need

    def apply(self, event: Sampled | Gone) -> list[Kill | Dismiss | Helpless]:
        if isinstance(event, Gone):
            self._leaving.pop(event.worker, None)
            self._histories.pop(event.worker, None)
            self._refused.discard(event.worker)
            return []
        self._note(event)
        return self._decide(event)

    def look_again_s(self) -> float | None:
        """When to look next; None while no worker is in use."""
        last = self._last
        if last is None or not any(not use.is_idle for use in last.uses):
            return None
        left = self.allowed_bytes(last.limit_bytes) - last.used_bytes
        wait_s = min(max(left / GROWTH_BYTES_PER_S / 2, LOOK_S_MIN), LOOK_S_MAX)
        is_calm = 64 * self._rise_bytes < left and not self.is_close()
        return last.at_s + max(wait_s, last.took_s / (COST_SHARE_CALM if is_calm else COST_SHARE_MAX))

    def allowed_bytes(self, limit_bytes: int) -> int:
        """How much of it may be used."""
        return limit_bytes - min(int(limit_bytes * (1 - self._threshold)), RESERVE_BYTES_MAX)

    def is_close(self) -> bool:
        """Whether the last look found less than a quarter of the limit left."""
        last = self._last
        return last is not None and 4 * (self.allowed_bytes(last.limit_bytes) - last.used_bytes) < last.limit_bytes

    # ---- what is known ----

    def _note(self, sample: Sampled) -> None:
        self._rise_bytes = sample.used_bytes - self._last.used_bytes if self._last is not None else 0
        self._last = sample
        known, self._histories = self._histories, {}
        for use in sample.uses:
            history = known.get(use.worker)
            if history is None:
                history = _History(use, sample.at_s)
            else:
                history.add(use, sample.at_s)
            self._histories[use.worker] = history
        self._leaving = {worker: due_s for worker, due_s in self._leaving.items() if due_s > sample.at_s}

    # ---- what is done about it ----

    def _decide(self, sample: Sampled) -> list[Kill | Dismiss | Helpless]:
        if sample.used_bytes <= self.allowed_bytes(sample.limit_bytes):
            self._short_since_s = None
            self._refused.clear()
            return []
        if self._short_since_s is None:
            self._short_since_s = sample.at_s
        if self._leaving:
            return []
        worth = self._worth_bytes(sample)
        idle = [
            use for use in sample.uses
            if use.is_idle and use.resident_bytes >= max(worth, FRESH_BYTES) and use.worker not in self._refused
        ]  # fmt: skip
        if idle:
            for use in idle:
                self._leaving[use.worker] = sample.at_s + DISMISSED_S
                self._refused.add(use.worker)
            return [Dismiss(use.worker) for use in idle]
        victim = self._victim([use for use in sample.uses if not use.is_idle], worth, sample.at_s)
        if victim is None:
            return self._complain(sample)
        self._leaving[victim.worker] = sample.at_s + TAKE_EFFECT_S
        return [Kill(victim.worker, victim.cost, self._report(victim, sample, worth))]

    def _complain(self, sample: Sampled) -> list[Kill | Dismiss | Helpless]:
        since_s = sample.at_s if self._short_since_s is None else self._short_since_s
        if sample.at_s - since_s < PATIENCE_S or sample.at_s < self._quiet_until_s:
            return []
        self._quiet_until_s = sample.at_s + COMPLAINT_S
        return [Helpless(sample.used_bytes, sample.limit_bytes, sample.source)]

    def _worth_bytes(self, sample: Sampled) -> float:
        """From what a worker must have grown by, or hold, to be worth killing: less, where there are many."""
        count = sum(not use.is_idle for use in sample.uses)
        return sample.limit_bytes * min(WORTH_SHARE, 5 * WORTH_SHARE / max(1, count))

    def _victim(self, uses: list[Use], worth: float, at_s: float) -> Use | None:
        growth = {use.worker: self._histories[use.worker].growth_bytes for use in uses}
        over = {use.worker: min(growth[use.worker], use.resident_bytes - use.allowed_bytes) for use in uses}
        held = {use.worker: float(use.resident_bytes) for use in uses}
        is_patient = self._short_since_s is not None and at_s - self._short_since_s < PATIENCE_S
        for blame in (over, growth) if is_patient else (over, growth, held):
            worst = max(blame.values(), default=0.0)
            if worst >= worth:
                guilty = [use for use in uses if blame[use.worker] >= worst / 2]
                return min(guilty, key=lambda use: (use.cost, -blame[use.worker], -self._histories[use.worker].since_s))
        return None

    # ---- what is told ----

    def report_of(self, worker: str, at_s: float) -> dict[str, Any] | None:
        """What a kill of this worker would be told with, for one that the system itself has killed. None if it was never
        looked at, or if what was left then cannot have been used up since: somebody else has killed it."""
        sample = self._last
        use = next((one for one in sample.uses if one.worker == worker), None) if sample is not None else None
        if sample is None or use is None:
            return None
        if sample.limit_bytes - sample.used_bytes > 2 * GROWTH_BYTES_PER_S * (at_s - sample.at_s):
            return None
        return self._report(use, sample, self._worth_bytes(sample))

    def _report(self, victim: Use, sample: Sampled, worth: float) -> dict[str, Any]:
        history = self._histories[victim.worker]
        others = sorted(
            (use for use in sample.uses if use.worker != victim.worker), key=lambda use: -use.resident_bytes
        )
        company = sum(use.resident_bytes for use in others if not use.is_idle)
        return {
            "source": sample.source,
            "used_bytes": sample.used_bytes,
            "limit_bytes": sample.limit_bytes,
            "allowed_bytes": self.allowed_bytes(sample.limit_bytes),
            "worker": victim.worker,
            "resident_bytes": victim.resident_bytes,
            "peak_bytes": history.peak_bytes,
            "growth_bytes": int(history.growth_bytes),
            "demand_bytes": victim.allowed_bytes,
            # Nobody else of ours took part, and most of what is used is its own: less company will not help it.
            "alone": company < worth + FRESH_BYTES * len(others) and 2 * victim.resident_bytes >= sample.used_bytes,
            "curve": [[round(at_s, 3), size] for at_s, size in history.curve_to_now()],
            "others": [
                {"worker": use.worker, "actor": use.actor, "bytes": use.resident_bytes} for use in others[:OTHERS_MAX]
            ],
            "outside_bytes": max(0, sample.used_bytes - victim.resident_bytes - sum(u.resident_bytes for u in others)),
        }
