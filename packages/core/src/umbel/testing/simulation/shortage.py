"""Memory that runs short: who has to go, on the agent's simulated node.

Workers grow and shrink, and so does what others use. The production watch looks at sizes that the simulation makes up; what
it does is compared with growth that the simulation reckons by itself, from all looks at a worker at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import environments, memory_service, memory_watch, shortage
from umbel._agent import events as ev
from umbel._base import control_groups, machine
from umbel.testing.simulation.agent import AgentWorld
from umbel.testing.simulation.processes import attributes

MIB = 1 << 20
LIMIT_BYTES = 8 << 30
RESERVE_BYTES = 400 * MIB
BORN_BYTES = 20 * MIB
STEPS_MIB: Final = (-800, -100, 1, 50, 300, 900, 3_000)  # by which a worker grows
OUTSIDE_MIB: Final = (0, 0, 2_000, 6_000, 7_700)  # what other programs use
LOOKS_MAX = 200  # one after the other, in which whoever is to go has to


class _Time:
    """`time` for the watch: looking costs nothing."""

    @staticmethod
    def process_time() -> float:
        return 0.0


class _Node:
    """What the watch knows of the daemon, as the simulation knows it."""

    def __init__(self, world: ShortageWorld) -> None:
        self._world = world
        self.agent = world.state
        self.forks = self.hub = self.control = self

    def now_s(self) -> float:
        return self._world.now_s

    def pid_of(self, worker: str) -> int:
        return int(worker[1:])

    def processes(self) -> list[tuple[str, str, int]]:
        return []

    def decide(self, *events: ev.AgentEvent) -> None:
        for event in events:
            self._world.apply(event)

    def progress(self, worker: str) -> tuple[int, bool]:
        return self._world.tasks.get(worker, (-1, False))

    def may_restart(self, actor: str) -> bool:
        return self._world.may_restart(actor)

    def listed(self) -> list[dict[str, str]]:
        return []

    def tell_drivers(self, message: Mapping[str, Any]) -> None:
        self._world.note("    drivers are told: %s", message["text"][:40])


class ShortageWorld(AgentWorld):
    """See the module."""

    def run_guarded(self) -> None:
        self.sizes: dict[int, int] = {}  # pid -> bytes
        self.outside_bytes = 0
        with attributes(
            (memory_watch, "private_bytes", lambda pid: self.sizes.get(pid, 0)),
            (memory_watch, "descendants", lambda _pid: ()),
            (memory_watch, "oom_kill_count", lambda _groups: 0),
            (memory_watch, "time", _Time),
            (machine, "memory_bytes", lambda: (LIMIT_BYTES, LIMIT_BYTES - self.used_bytes())),
            (control_groups, "limited_groups", lambda: []),
        ):
            self.run()

    steps_min, steps_max = 40, 140

    def set_up(self) -> None:
        self.watch: memory_watch.MemoryWatch | None = None
        self.look_at_s: float | None = None
        self.tasks: dict[str, tuple[int, bool]] = {}  # worker -> the task that it began last, whether it is tried again
        self.task_count = 0
        self.restarting: dict[str, bool] = {}  # actor -> whether it restarts when it dies
        self.seen: dict[str, list[tuple[float, int]]] = {}  # worker -> the looks at it: time and bytes
        self.going: dict[str, float] = {}  # killed or dismissed -> when that is overdue
        self.short_since_s: float | None = None
        self.complained_s = -shortage.COMPLAINT_S
        super().set_up()
        threshold = 1 - RESERVE_BYTES / LIMIT_BYTES
        settings = {"limit_bytes": 0, "threshold": threshold, "recycle_bytes": 0}
        node: Any = _Node(self)
        node.leases = node
        self.watch = memory_watch.MemoryWatch(node, settings)
        monitor: Any = self.watch.monitor
        decide = monitor.apply

        def watched(event: shortage.Sampled | shortage.Gone) -> list[Any]:
            commands: list[Any] = decide(event)
            if isinstance(event, shortage.Sampled):
                self._check_look(event, commands)
            return commands

        monitor.apply = watched

    def used_bytes(self) -> int:
        return min(LIMIT_BYTES, self.outside_bytes + sum(self.sizes.values()))

    def may_restart(self, actor: str) -> bool:
        return self.restarting.setdefault(actor, self.chance.happens(50))

    # What happens

    def act(self) -> None:
        chance = self.chance
        what = chance.weighted((12, 5, 2, 1, 4))
        if what == 0 or not self.sizes:
            super().act()
        elif what == 1:
            self._grow()
        elif what == 2:
            self._begin_task()
        elif what == 3:
            self.outside_bytes = chance.choose(OUTSIDE_MIB) * MIB
            self.note("others use %d MiB", self.outside_bytes // MIB)
        else:
            self._look_next()

    def _grow(self) -> None:
        pid = self.chance.choose([*self.sizes])
        step = self.chance.choose(STEPS_MIB) * MIB
        self.sizes[pid] = max(BORN_BYTES, self.sizes[pid] + step)
        self.note("w%d holds %d MiB", pid, self.sizes[pid] // MIB)

    def _begin_task(self) -> None:
        leased = [worker for worker, book in self.books.items() if book.key]
        if leased:
            self.task_count += 1
            self.tasks[self.chance.choose(leased)] = (self.task_count, self.chance.happens(50))

    def _look_next(self) -> None:
        """The next look is due."""
        if self.look_at_s is not None:
            self.now_s = max(self.now_s, self.look_at_s)
            self._look()

    def _look(self) -> None:
        assert self.watch is not None
        self.note("memory is looked at: %d MiB are used", self.used_bytes() // MIB)
        self.look_at_s = self.watch.look()

    def _pass_time(self) -> None:
        super()._pass_time()
        if self.look_at_s is not None and self.look_at_s <= self.now_s:
            self._look()

    def _shorten(self, worker: str) -> None:
        self._look_next()

    def apply(self, event: ev.AgentEvent | environments.Event) -> None:
        if isinstance(event, ev.WorkerExited):
            self.sizes.pop(int(event.worker[1:]), None)
            self.going.pop(event.worker, None)
            self.seen.pop(event.worker, None)
            self.tasks.pop(event.worker, None)
            if self.watch is not None:
                self.watch.exited(event.worker, event.signal)
        super().apply(event)

    def _carry_out(self, command: Any) -> None:
        super()._carry_out(command)
        if isinstance(command, ev.StartWorker):
            self.sizes[int(command.worker[1:])] = BORN_BYTES
        elif isinstance(command, (ev.Grant, ev.HostActor)) and self.look_at_s is None:
            self.look_at_s = self.now_s + memory_service.FIRST_LOOK_S

    # What must hold

    def _check_look(self, sample: shortage.Sampled, commands: list[Any]) -> None:
        uses = {use.worker: use for use in sample.uses}
        self.seen = {worker: self.seen.get(worker, []) for worker in uses}
        for worker, use in uses.items():
            self.seen[worker].append((sample.at_s, use.resident_bytes))
        is_short = self.used_bytes() > LIMIT_BYTES - RESERVE_BYTES
        self.going = {worker: due_s for worker, due_s in self.going.items() if due_s > sample.at_s}
        self.short_since_s = None if not is_short else sample.at_s if self.short_since_s is None else self.short_since_s
        kills = [command for command in commands if isinstance(command, shortage.Kill)]
        dismissed = [command.worker for command in commands if isinstance(command, shortage.Dismiss)]
        gone = [*dismissed, *(kill.worker for kill in kills)]
        self.must(is_short or not commands, "K1", "%d MiB are used, and %s", self.used_bytes() // MIB, commands)
        idle = [worker for worker in dismissed if worker in self.books]
        self.must(not idle, "K2", "%s are in use, and asked to leave as if they were idle", idle)
        self.must(not gone or not self.going, "K3", "%s go before %s are gone", gone, [*self.going])
        self.must(len(kills) <= 1, "K3", "%s go at once", gone)
        in_use = [use for use in sample.uses if not use.is_idle]
        worth = LIMIT_BYTES * min(shortage.WORTH_SHARE, 5 * shortage.WORTH_SHARE / max(1, len(in_use)))
        for kill in kills:
            self.must(kill.worker in self.books, "K2", "%s is killed, and nobody uses it", kill.worker)
            self._check_victim(uses[kill.worker], in_use, worth)
        self._check_something_done(commands, in_use, worth)
        self.going.update(dict.fromkeys(dismissed, sample.at_s + shortage.DISMISSED_S))
        self.going.update({kill.worker: sample.at_s + shortage.TAKE_EFFECT_S for kill in kills})

    def _check_victim(self, victim: shortage.Use, in_use: list[shortage.Use], worth: float) -> None:
        _, growth, held = blame = self._blame(victim)
        is_early = self.short_since_s is None or self.now_s - self.short_since_s < shortage.PATIENCE_S
        least = worth / 2  # who costs less goes before one who is about as much to blame: up to twice as much
        self.must(not is_early or growth > least - 1, "K5", "%s goes at once and grew by %d", victim.worker, growth)
        self.must(held >= least, "K5", "%s goes, which holds %d", victim.worker, held)
        for other in in_use:
            theirs = self._blame(other)
            is_to_blame = all(more >= less for more, less in zip(theirs, blame, strict=True))
            self.must(
                other.cost >= victim.cost or not is_to_blame,
                "K4", "%s, which costs %d, goes before %s", victim.worker, victim.cost, other,
            )  # fmt: skip
            is_worse = all(more > less + MIB for more, less in zip(theirs, blame, strict=True))
            self.must(
                other.cost > victim.cost or not is_worse,
                "K4", "%s, of %s, goes before %s, of %s", victim.worker, blame, other.worker, theirs,
            )  # fmt: skip

    def _blame(self, use: shortage.Use) -> tuple[float, float, float]:
        """(growth beyond what it was promised, growth, size)."""
        looks = self.seen[use.worker]
        last_s = looks[-1][0]
        growth = rise = 0.0
        for at in range(len(looks) - 1, -1, -1):  # since when it has grown most, if what is long ago counts less
            at_s, size = looks[at]
            before = looks[at - 1][1] if at else min(size, shortage.FRESH_BYTES)
            rise += (size - before) * 0.5 ** ((last_s - at_s) / shortage.HALF_LIFE_S)
            growth = max(growth, rise)
        return min(growth, use.resident_bytes - use.allowed_bytes), growth, float(use.resident_bytes)

    def _check_something_done(self, commands: list[Any], in_use: list[shortage.Use], worth: float) -> None:
        """K7: after a while somebody goes, or drivers are told."""
        if any(isinstance(command, shortage.Helpless) for command in commands):
            self.must(all(use.resident_bytes < worth for use in in_use), "K7", "drivers are told that nobody can go")
            self.complained_s = self.now_s
        since_s = self.short_since_s
        if since_s is None or self.going or commands or self.now_s - since_s < shortage.PATIENCE_S:
            return
        self.must(
            self.now_s - self.complained_s < shortage.COMPLAINT_S and all(use.resident_bytes < worth for use in in_use),
            "K7", "memory is short since %s, it is %s, and nothing is done", since_s, self.now_s,
        )  # fmt: skip

    # Coming to rest

    def settle(self) -> None:
        for _ in range(LOOKS_MAX):  # nobody grows any more
            if self.look_at_s is None or self.short_since_s is None:
                break
            self._look_next()
            for worker in [*self.dying]:
                self._report(worker)
        super().settle()

    def _settle_one(self) -> bool:
        did = super()._settle_one()
        if self.look_at_s is not None and self.look_at_s <= self.now_s:
            self._look()
        return did
