"""What goes on whatever the budget says, so that something always moves.

While the consumer has nothing, what it waits for is followed from the end upwards: to a task that is paused, one that could
be started, or an actor. Nothing else is let past the budget.
"""

from __future__ import annotations

from umbel.data._engine import assignments, capacity, runs


class Following:
    """Of one run of a plan."""

    def __init__(self, assigned: assignments.Assignments) -> None:
        self._assignments = assigned
        self._capacity = assigned.capacity

    def follow(self, run: runs.Run) -> None:
        """Let the one thing go on that the consumer waits for: from the end upwards, whoever is waited for."""
        if run.tasks:
            head = run.order.head
            task = run.tasks.get(head) if head is not None else None
            if task is not None:
                self._let_go_on(task)
                return
            if not run.again:  # of an exchange, tasks that are never paused
                self._let_go_on(None)
                return
        if run.again or (run.has_tasks and run.ready_count()):
            self._force(run)
            if run.tasks:
                return
            if run.pool is not None and run.pool.starting:
                self._let_go_on(None)
                return
        for index in run.needed_edges():
            self.follow(run.producers[index])

    def _let_go_on(self, task: runs.Task | None) -> None:
        """This one; or, if it may wait for a CPU that one has which is paused, that one."""
        if task is not None:
            for attempt in task.attempts.values():
                if attempt.is_paused:
                    attempt.is_paused = False
                    return
        if self._capacity.is_oversubscribed() or self._capacity.may_be_scattered():
            for attempt in self._assignments.paused():
                attempt.is_paused = False
                return
            if self._capacity.is_filled_by_actors():  # since there is less than there was
                self._assignments.stop_idle({capacity.CPU})

    def _force(self, run: runs.Run) -> None:
        """Start a task, if there is one, though the budget has no room, and without CPUs if those are with tasks that are
        paused."""
        plan = None if run.again else run.peek(1, self._capacity.slot_count(run))
        if plan is None and not run.again:
            return
        if run.pool is not None and not run.pool.room():
            if not run.pool.count and self._has_freed_devices(run) and self._has_heap_for_actor(run):
                self._assignments.start_actor(run)
            return
        if plan is not None and not self._has_heap(run, plan):
            return
        has_cpus = True
        if not self._capacity.free_count(run):
            if not self._has_freed_devices(run):
                return
            has_cpus = next(self._assignments.paused(), None) is None and not self._capacity.is_filled_by_actors()
            if has_cpus and self._assignments.tasks:
                return  # whoever has the CPUs will give them back
        if plan is None:
            self._assignments.start_again(run, has_cpus=has_cpus)
        else:
            self._assignments.start(run, plan, has_cpus=has_cpus)

    def _has_heap(self, run: runs.Run, plan: runs.Plan) -> bool:
        """There is heap for the task, or nobody will give any back."""
        return self._assignments.has_heap(self._assignments.expected_heap(run, plan)) or not self._will_give_heap()

    def _has_heap_for_actor(self, run: runs.Run) -> bool:
        return self._assignments.has_heap_for_actor(run) or not self._will_give_heap()

    def _will_give_heap(self) -> bool:
        """Whether some task goes on that has heap, and gives it back."""
        for task in self._assignments.tasks.values():
            if task.heap_bytes and any(not attempt.is_paused for attempt in task.attempts.values()):
                self._let_go_on(None)
                return True
        return False

    def _has_freed_devices(self, run: runs.Run) -> bool:
        """Whether what the stage needs beside CPUs is free. Whoever has it is made to give it back: actors that have nothing in
        hand are ended, a task that is paused goes on."""
        lacking = self._capacity.lacking_devices(run)
        if not lacking or not self._capacity.could_ever_hold(run):
            return True  # or it is asked for in vain, which core tells the user
        self._assignments.stop_idle(lacking, but=run)
        lacking = self._capacity.lacking_devices(run)
        for task in self._assignments.tasks.values():
            if lacking & task.run.needs.keys():
                for attempt in task.attempts.values():
                    attempt.is_paused = False
        return not lacking
