"""Which tasks and actors there are: what is started, what ends, and what that takes of memory and of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from umbel.data._engine import capacity, events, flow, runs


class Assignments:
    """tasks: that have not ended, those among them that wait to be tried again. reserved_bytes: what they may give beside
    the blocks that came from them; heap_bytes: what they take of heap, without that of actors. commands: what is to be done
    about it, in order. at_s: now, set by whoever is told. learns_first: see `scheduling.Options`."""

    def __init__(
        self,
        all_runs: Sequence[runs.Run],
        ledger: flow.Ledger,
        commands: list[events.Command],
        *,
        learns_first: bool = False,
    ) -> None:
        self.capacity = capacity.Capacity(all_runs)
        self.tasks: dict[int, runs.Task] = {}
        self.reserved_bytes = self.heap_bytes = 0
        self.at_s = 0.0
        self._runs = all_runs
        self._pooled = [run for run in all_runs if run.pool is not None]
        self._learns_first = learns_first
        self._heap_bytes_max = 0  # that a task or an actor of any stage took
        self._ledger = ledger
        self._commands = commands
        self._last_task = self._last_actor = 0

    def start(self, run: runs.Run, plan: runs.Plan, *, has_cpus: bool = True) -> None:
        run.take(plan)
        learnt = run.learnt(plan.kind)
        self._last_task += 1
        task = runs.Task(self._last_task, run, plan)
        task.heap_bytes = self.expected_heap(run, plan)
        if run.is_paced(plan):
            task.window_bytes = learnt.expected_window(plan.input_bytes)
            task.expected_bytes = learnt.expected_output(plan.input_bytes)
        self.tasks[task.id] = task
        self.count(task, 1)
        run.stats.tasks_started += 1
        run.opens(task)
        self.begin_attempt(task, has_cpus=has_cpus)
        at_once = min(len(run.tasks), self.capacity.slot_count(run))  # the others wait for a worker
        run.stats.workers_max = max(run.stats.workers_max, at_once)

    def start_again(self, run: runs.Run, *, has_cpus: bool = True) -> None:
        task = run.again.popleft()
        run.stats.tasks_retried += 1
        self.begin_attempt(task, has_cpus=has_cpus)

    def begin_attempt(self, task: runs.Task, *, has_cpus: bool = True) -> None:
        run, plan = task.run, task.plan
        run.tasks[task.id] = task
        actor = run.pool.next_actor() if run.pool is not None else None
        self.count(task, -1)
        task.attempt_count += 1
        attempt = runs.Attempt(task.attempt_count, self.at_s, actor, has_cpus=has_cpus)
        task.attempts[attempt.number] = attempt
        self.count(task, 1)
        if actor is not None and run.pool is not None:
            run.pool.took(actor)
        else:
            self.capacity.begin_task(run, has_cpus=has_cpus)
        self._commands.append(
            events.StartTask(
                task=task.id, attempt=attempt.number, stage=run.index, kind=plan.kind, number=plan.number,
                pieces=plan.pieces, skipped_blocks=task.block_count, actor=actor, partition_count=plan.partition_count,
                has_cpus=has_cpus,
            )
        )  # fmt: skip

    def attempt(self, task_id: int, number: int) -> tuple[runs.Task, runs.Attempt] | None:
        task = self.tasks.get(task_id)
        attempt = None if task is None else task.attempts.get(number)
        return None if task is None or attempt is None else (task, attempt)

    def cancel_attempt(self, task: runs.Task, attempt: runs.Attempt) -> None:
        self.end_attempt(task, attempt)
        self._commands.append(events.CancelTask(task.id, attempt.number))

    def end_attempt(self, task: runs.Task, attempt: runs.Attempt) -> None:
        run = task.run
        self.count(task, -1)
        del task.attempts[attempt.number]
        self.count(task, 1)
        if attempt.actor is not None and run.pool is not None:
            run.pool.gave_back(attempt.actor, self.at_s)
        else:
            self.capacity.end_task(run, has_cpus=attempt.has_cpus)

    def forget_task(self, task: runs.Task) -> None:
        self.count(task, -1)
        del self.tasks[task.id]
        task.run.tasks.pop(task.id, None)
        self._ledger.let_go(task.pieces)

    def count(self, task: runs.Task, sign: int) -> None:
        """What it takes is more, or less; called with -1 before it changes, and with 1 after that."""
        self.reserved_bytes += sign * task.reserved_bytes
        self.heap_bytes += sign * task.reserved_heap_bytes

    # Heap

    @property
    def taken_heap_bytes(self) -> int:
        """Of tasks and of actors."""
        return self.heap_bytes + sum(run.pool.held_bytes for run in self._pooled if run.pool is not None)

    def has_heap(self, size_bytes: int) -> bool:
        return self.taken_heap_bytes + size_bytes <= self.capacity.heap_bytes

    def expected_heap(self, run: runs.Run, plan: runs.Plan) -> int:
        """Where the first tasks are to show what they take, one that has not is taken for the largest that has."""
        learnt = run.learnt(plan.kind)
        expected = learnt.expected_heap(plan.input_bytes)
        return expected if learnt.is_heap_known or not self._learns_first else max(expected, self._heap_bytes_max)

    def must_learn(self, run: runs.Run, kind: str) -> bool:
        """Whether a task is to wait for the first of its like to show what it takes."""
        return self._learns_first and not run.learnt(kind).is_heap_known and bool(run.tasks)

    def learnt(self, run: runs.Run, kind: str) -> None:
        """A task has ended. If it is the first of its like, what those take that run is known as well."""
        learnt = run.learnt(kind)
        is_more = self._learns_first and learnt.heap_bytes > self._heap_bytes_max
        self._heap_bytes_max = max(self._heap_bytes_max, int(learnt.heap_bytes))
        if learnt.ended_count != 1 and not is_more:
            return
        for task in self.tasks.values():
            if (task.run is run and task.plan.kind == kind) or not task.run.learnt(task.plan.kind).is_heap_known:
                self.count(task, -1)
                task.heap_bytes = self.expected_heap(task.run, task.plan)
                self.count(task, 1)

    def actor_holds(self, run: runs.Run, actor: int, held_bytes: int) -> None:
        if run.pool is not None:
            run.pool.holds(actor, held_bytes)
            self._heap_bytes_max = max(self._heap_bytes_max, held_bytes)

    def _actor_bytes(self, run: runs.Run) -> int:
        """That one more actor of the stage is expected to hold."""
        if run.pool is None:
            return 0
        return run.pool.actor_bytes if run.pool.is_actor_known or not self._learns_first else self._heap_bytes_max

    def has_heap_for_actor(self, run: runs.Run) -> bool:
        """For one more, beside the first ones of other stages that have none."""
        others = [one for one in self._pooled if one is not run and one.pool is not None and not one.pool.count]
        if run.pool is None or not run.pool.count:
            others = []
        return self.has_heap(
            self._actor_bytes(run) + sum(self._actor_bytes(one) for one in others if not one.is_closed)
        )

    def _may_start_actor(self, run: runs.Run) -> bool:
        must_learn = self._learns_first and run.pool is not None and run.pool.count and not run.pool.is_actor_known
        return self.capacity.has_room_for_actor(run) and not must_learn and self.has_heap_for_actor(run)

    # Actors

    def scale(self, run: runs.Run) -> None:
        """Start the actors that there is work for, end those that have been idle."""
        pool = run.pool
        if pool is None:
            return
        for actor in pool.to_end(self.at_s):
            self.stop_actor(actor)
        wanted = pool.wanted(run.ready_count() + len(run.again))
        if wanted and not pool.count and not self.capacity.lacking_devices(run) and self.has_heap_for_actor(run):
            self.start_actor(run)  # the first one has no CPUs if there are none for it
        while 0 < pool.count < wanted and self._may_start_actor(run):
            self.start_actor(run)

    def start_actor(self, run: runs.Run) -> None:
        has_cpus = self.capacity.has_room_for_actor(run)
        self._last_actor += 1
        self.capacity.add_actor(self._last_actor, run, has_cpus=has_cpus, held_bytes=self._actor_bytes(run))
        self._commands.append(events.StartActor(self._last_actor, run.index, has_cpus))

    def stop_actor(self, actor: int) -> None:
        self.capacity.remove_actor(actor)
        self._commands.append(events.StopActor(actor))

    def paused(self) -> Iterator[runs.Attempt]:
        for task in self.tasks.values():
            for attempt in task.attempts.values():
                if attempt.is_paused and attempt.has_cpus:
                    yield attempt

    def stop_idle(self, names: set[str], *, but: runs.Run | None = None) -> None:
        """End the actors that have some of this, and nothing in hand."""
        for run in self._runs:
            if run is not but and run.pool is not None and names & run.needs.keys():
                for actor in run.pool.idle():
                    self.stop_actor(actor)
