"""Which tasks and actors there are: what is started, what ends, and what that takes of memory and of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from umbel.data._engine import capacity, events, flow, runs


class Assignments:
    """tasks: that have not ended, those among them that wait to be tried again. reserved_bytes: what they may take beside the
    blocks that came from them. commands: what is to be done about it, in order. at_s: now, set by whoever is told."""

    def __init__(self, all_runs: Sequence[runs.Run], ledger: flow.Ledger, commands: list[events.Command]) -> None:
        self.capacity = capacity.Capacity(all_runs)
        self.tasks: dict[int, runs.Task] = {}
        self.reserved_bytes = 0
        self.at_s = 0.0
        self._runs = all_runs
        self._ledger = ledger
        self._commands = commands
        self._last_task = self._last_actor = 0

    def start(self, run: runs.Run, plan: runs.Plan, *, has_cpus: bool = True) -> None:
        run.take(plan)
        learnt = run.learnt(plan.kind)
        self._last_task += 1
        task = runs.Task(self._last_task, run, plan)
        task.heap_bytes = learnt.expected_heap(plan.input_bytes)
        if run.is_paced(plan):
            task.window_bytes = learnt.expected_window(plan.input_bytes)
            task.expected_bytes = learnt.expected_output(plan.input_bytes)
        self.tasks[task.id] = task
        self.reserved_bytes += task.reserved_bytes
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
        self.reserved_bytes -= task.reserved_bytes
        task.attempt_count += 1
        attempt = runs.Attempt(task.attempt_count, self.at_s, actor, has_cpus=has_cpus)
        task.attempts[attempt.number] = attempt
        self.reserved_bytes += task.reserved_bytes
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
        self.reserved_bytes -= task.reserved_bytes
        del task.attempts[attempt.number]
        self.reserved_bytes += task.reserved_bytes
        if attempt.actor is not None and run.pool is not None:
            run.pool.gave_back(attempt.actor, self.at_s)
        else:
            self.capacity.end_task(run, has_cpus=attempt.has_cpus)

    def forget_task(self, task: runs.Task) -> None:
        self.reserved_bytes -= task.reserved_bytes
        del self.tasks[task.id]
        task.run.tasks.pop(task.id, None)
        self._ledger.let_go(task.pieces)

    # Actors

    def scale(self, run: runs.Run) -> None:
        """Start the actors that there is work for, end those that have been idle."""
        pool = run.pool
        if pool is None:
            return
        for actor in pool.to_end(self.at_s):
            self.stop_actor(actor)
        wanted = pool.wanted(run.ready_count() + len(run.again))
        if wanted and not pool.count and not self.capacity.lacking_devices(run):
            self.start_actor(run)  # the first one in any case: it has no CPUs if there are none for it
        while 0 < pool.count < wanted and self.capacity.has_room_for_actor(run):
            self.start_actor(run)

    def start_actor(self, run: runs.Run) -> None:
        has_cpus = self.capacity.has_room_for_actor(run)
        self._last_actor += 1
        self.capacity.add_actor(self._last_actor, run, has_cpus=has_cpus)
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
