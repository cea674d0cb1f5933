"""What the cluster has, what tasks and actors take of it, and so how many more there is room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from umbel.data._engine import runs

AHEAD = 2  # times the CPUs are tasks sent where they are short
TASKS_MAX = 1_000  # at once of one stage; they take no CPUs, or there are very many
EPSILON = 1e-6  # fractions of resources that do not add up

CPU = "CPU"
MEMORY = "memory"
NODE_PREFIX, HEAD_NODE = "node:", "node:__internal_head__"  # each node has one, and the first both


class Capacity:
    """Tasks that are held back keep what they have, as core sees it."""

    def __init__(self, all_runs: Iterable[runs.Run]) -> None:
        self.total: dict[str, float] = {}
        self.used: dict[str, float] = {}
        self.actors: dict[int, runs.Run] = {}
        working = [run for run in all_runs if run.has_tasks]
        self._cpus_of_task = max((run.needs.get(CPU, 0.0) for run in working if run.pool is None), default=0.0)
        self._is_even = all(run.needs.get(CPU, 0.0) in (0.0, 1.0) for run in working)

    def takes(self, run: runs.Run, *, has_cpus: bool) -> Mapping[str, float]:
        """What one task or actor of the stage is given."""
        return run.needs if has_cpus else {name: amount for name, amount in run.needs.items() if name != CPU}

    def begin_task(self, run: runs.Run, *, has_cpus: bool) -> None:
        add(self.used, self.takes(run, has_cpus=has_cpus), 1)

    def end_task(self, run: runs.Run, *, has_cpus: bool) -> None:
        add(self.used, self.takes(run, has_cpus=has_cpus), -1)

    def is_oversubscribed(self) -> bool:
        """Whether tasks wait for what others have."""
        return any(amount > self.total.get(name, 0.0) + EPSILON for name, amount in self.used.items())

    def may_be_scattered(self) -> bool:
        """Whether what is free may lie on several nodes, a part of a task's CPUs on each."""
        return not self._is_even and self._node_count > 1

    @property
    def _node_count(self) -> int:
        return sum(name.startswith(NODE_PREFIX) and name != HEAD_NODE for name in self.total)

    @property
    def heap_bytes(self) -> float:
        """That all tasks and actors may take; there is no bound where nobody has said how much there is."""
        return self.total.get(MEMORY, math.inf)

    def could_ever_hold(self, run: runs.Run) -> bool:
        return all(self.total.get(name, 0.0) >= amount for name, amount in run.needs.items())

    def free_count(self, run: runs.Run) -> int:
        """How many tasks of the stage could be started at once now."""
        if run.pool is not None:
            return run.pool.room()
        count = TASKS_MAX if run.size_max is None else run.size_max
        count -= len(run.tasks)
        for name, amount in run.needs.items():
            total = self.total.get(name, 0.0) * (AHEAD if name == CPU and run.are_short else 1)
            count = min(count, int((total - self.used.get(name, 0.0) + EPSILON) / amount))
        return max(0, count)

    def slot_count(self, run: runs.Run) -> int:
        """How many of them the cluster runs at once, if nothing else runs."""
        if run.pool is not None:
            return max(1, run.pool.count) * run.pool.per_actor
        count = TASKS_MAX if run.size_max is None else run.size_max
        needs = run.needs or {CPU: 1.0}
        fits = [int(self.total.get(name, 0.0) / amount + EPSILON) for name, amount in needs.items()]
        return max(1, min(count, *fits))

    # Actors

    def has_room_for_actor(self, run: runs.Run) -> bool:
        """Beside what tasks need that are no actors', so that these do not wait for the end of the run."""
        return self._leaves_cpus_for_task(run.needs.get(CPU, 0.0)) and all(
            sum(self._taken_by_actors(name)) + amount <= self.total.get(name, 0.0) + EPSILON
            for name, amount in run.needs.items()
            if name != CPU
        )

    def _taken_by_actors(self, name: str) -> list[float]:
        return [self.takes(run, has_cpus=self._has_cpus(actor)).get(name, 0.0) for actor, run in self.actors.items()]

    def _leaves_cpus_for_task(self, cpus: float) -> bool:
        """Whether actors that take what they do, and so much more, leave a task's CPUs on some node, wherever core puts them:
        each may break a CPU, and one CPU less than a task needs may be left on all nodes but one."""
        taken = [*self._taken_by_actors(CPU), cpus]
        kept = self._cpus_of_task
        if self.may_be_scattered():
            taken = [math.ceil(one) for one in taken]
            kept = math.ceil(kept) + max(0, math.ceil(kept) - 1) * (self._node_count - 1)
        return sum(taken) + kept <= self.total.get(CPU, 0.0) + EPSILON

    def _has_cpus(self, actor: int) -> bool:
        pool = self.actors[actor].pool
        return pool is None or actor not in pool.without_cpus

    def is_filled_by_actors(self) -> bool:
        """Whether actors have so many CPUs that there are not enough for one task."""
        return not self._leaves_cpus_for_task(0.0)

    def lacking_devices(self, run: runs.Run) -> set[str]:
        """What others hold of what an actor or a task of the stage needs, CPUs apart."""
        return {
            name
            for name, amount in run.needs.items()
            if name != CPU and self.used.get(name, 0.0) + amount > self.total.get(name, 0.0) + EPSILON
        }

    def add_actor(self, actor: int, run: runs.Run, *, has_cpus: bool, held_bytes: int = 0) -> None:
        if run.pool is not None:
            run.pool.starts(actor, held_bytes)
            if not has_cpus:
                run.pool.without_cpus.add(actor)
        self.actors[actor] = run
        add(self.used, self.takes(run, has_cpus=has_cpus), 1)

    def remove_actor(self, actor: int) -> None:
        has_cpus = self._has_cpus(actor)
        run = self.actors.pop(actor)
        add(self.used, self.takes(run, has_cpus=has_cpus), -1)
        if run.pool is not None:
            run.pool.forget(actor)

    def actors_of(self, run: runs.Run) -> list[int]:
        return [actor for actor, owner in self.actors.items() if owner is run]

    def is_right(self, tasks: Iterable[runs.Task]) -> bool:
        """Whether what is used is what these tasks and the actors take."""
        used: dict[str, float] = {}
        for task in tasks:
            for attempt in task.attempts.values():
                if attempt.actor is None:
                    add(used, self.takes(task.run, has_cpus=attempt.has_cpus), 1)
        for actor, run in self.actors.items():
            add(used, self.takes(run, has_cpus=self._has_cpus(actor)), 1)
        return all(abs(used.get(name, 0.0) - self.used.get(name, 0.0)) < EPSILON for name in {*used, *self.used})


def add(sums: dict[str, float], amounts: Mapping[str, float], sign: int) -> None:
    for name, amount in amounts.items():
        left = sums.get(name, 0.0) + sign * amount
        if abs(left) < EPSILON:
            sums.pop(name, None)
        else:
            sums[name] = left
