"""What becomes of tasks whose worker has died, or for which there will be none.

Those that had not begun go to other workers; one that had begun is tried again as often as its options say, or fails with
what happened to its worker. Everything here runs under the engine's lock.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client.task import Task, cancelled_error
from umbel._scheduling import dispatch

if TYPE_CHECKING:
    from umbel._client import memory_kills
    from umbel._client.native import NativeEngine

logger = logging.getLogger("umbel")
UNSTARTED_DEATHS_MAX = 8  # a task that was pushed and did not start costs nothing, but nothing may go on for ever


class Deaths:
    """The deaths of workers that this process had leased."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._leases = engine.leases
        self._tasks = engine.tasks
        self.memory_kills: memory_kills.MemoryKills | None = None  # once there was one
        self._unstarted: dict[int, int] = {}  # task -> workers that died with it at the head of their queue

    def on_worker_died(self, message: dict[str, Any]) -> None:
        worker = message["worker"]
        link = self._engine.links.by_peer.get(bytes.fromhex(worker))
        if link is not None and link.stream is not None:
            link.stream.drain()  # replies it sent before it died count
        for cls in list(self._leases.classes.values()):
            if worker not in cls.leases:
                continue
            if message.get("unsaid"):
                logger.error("internal error: the lease of worker %s has ended, and nobody has said so", worker)
            begun, fresh = cls.lose_lease(worker, message.get("started", -1))
            if fresh and not begun and self._is_unlucky(fresh[0]):
                cls.ready.remove(fresh[0])
                begun, fresh = fresh[:1], fresh[1:]
            self._leases.wait_again(cls, fresh)
            self._leases.dirty.add(cls)
            for task in reversed(begun):
                if message.get("group"):
                    self._lost_with_group(task, message)
                elif message.get("memory") is not None and not task.is_cancelled and task.seq in self._tasks.unfinished:
                    self.killed_for_memory(task, message, was_running=task is begun[-1])
                else:
                    self._crashed(task, cls, message)
            if message.get("group"):
                self._leases.forget(cls)
        self._leases.pump()

    def lease_ended_unsaid(self, worker: str, pid: int) -> None:
        """A worker that is leased is granted anew: for its agent that lease has ended, though nobody was told. What was sent
        there may run yet."""
        reason = "its lease had ended, which this process was not told"
        self.on_worker_died({"worker": worker, "pid": pid, "reason": reason, "started": None, "unsaid": True})

    def _lost_with_group(self, task: Task, message: dict[str, Any]) -> None:
        """A task was running, or its answer was on the way, when its placement group ended. It is not tried again: nothing
        will ever run there."""
        if task.seq not in self._tasks.unfinished:
            return
        error = exceptions.TaskPlacementGroupRemoved(
            f"the worker (pid {message.get('pid')}) of task {task.template.name} {message['reason']}"
        )
        blob = cancelled_error(task) if task.is_cancelled else exceptions.dump_error(error)
        self._tasks.note_failure(task, bytes.fromhex(message["worker"]), blob)
        self._tasks.settle_failure(task, blob)

    def _is_unlucky(self, task: Task) -> bool:
        """Whether workers die so often just before they start this task that it must be its doing."""
        count = self._unstarted.get(task.seq, 0) + 1
        self._unstarted = {seq: n for seq, n in self._unstarted.items() if seq in self._tasks.unfinished}
        self._unstarted[task.seq] = count
        return count > UNSTARTED_DEATHS_MAX

    def on_demand_failed(
        self, key: str, reason: str, *, is_unschedulable: bool, is_group_gone: bool, is_busy: bool
    ) -> None:
        """No worker of this class can be started, or none may run its tasks: they fail."""
        cls = self._leases.classes.get(key)
        if cls is None:
            return
        cls.told = 0
        while cls.ready:
            task = cls.ready.popleft()
            error: exceptions.UmbelError = (
                exceptions.TaskUnschedulableError(
                    f"task {task.template.name} {'cannot run now' if is_busy else 'can never run'}: {reason}"
                )
                if is_unschedulable
                else exceptions.TaskPlacementGroupRemoved(f"task {task.template.name} cannot run: {reason}")
                if is_group_gone
                else exceptions.RuntimeEnvSetupError(
                    f"no worker could be started for task {task.template.name} (environment {_shown(cls.request['env'])}): "
                    f"{reason}"
                )
            )
            self._tasks.fail(task, exceptions.dump_error(error))
        if is_group_gone:
            self._leases.forget(cls)

    def killed_for_memory(self, task: Task, message: dict[str, Any], *, was_running: bool) -> None:
        if self.memory_kills is None:
            from umbel._client import memory_kills  # most sessions never need it

            self.memory_kills = memory_kills.MemoryKills(self._engine)
        worker, report = bytes.fromhex(message["worker"]), message["memory"]
        if was_running or not task.template.max_retries:
            self.memory_kills.happened(task, worker, report)
        else:  # it had run, and its answer was not out
            self.memory_kills.answer_lost(task, worker, report)

    def _crashed(self, task: Task, cls: dispatch.SchedulingClass, message: dict[str, Any]) -> None:
        """A task was running, or had run without its reply arriving, when its worker died."""
        if task.seq not in self._tasks.unfinished:
            return
        worker = bytes.fromhex(message["worker"])
        how = message.get("reason") or "it exited"
        crash = exceptions.dump_error(
            exceptions.WorkerCrashedError(
                f"the worker (pid {message.get('pid')}) of task {task.template.name} {how}; the task runs again, and this "
                "counts as none of its retries"
            )
            if message.get("preempted") and not message.get("node")
            else exceptions.NodeDiedError(
                f"the worker (pid {message.get('pid')}) of task {task.template.name} {how}; raise max_retries if the task may "
                "safely run again"
            )
            if message.get("node")
            else exceptions.WorkerCrashedError(
                f"the worker (pid {message.get('pid')}) died while running task {task.template.name}: {how}; raise "
                "max_retries if the task may safely run again, and look at the worker's output for the cause"
            )
        )
        self._tasks.note_failure(task, worker, cancelled_error(task) if task.is_cancelled else crash)
        if task.retries_left != 0 and not task.is_cancelled:
            if not message.get("preempted"):  # as in Ray: that its node or its CPUs were taken away is not its doing
                task.retries_left -= 1 if task.retries_left > 0 else 0
            task.attempt += 1
            task.lease = None
            if not task.missing and not self._tasks.arguments.waits_again(task):  # else an argument is computed anew
                cls.ready.appendleft(task)
            return
        self._tasks.settle_failure(task, cancelled_error(task) if task.is_cancelled else crash)


def _shown(env: dict[str, Any]) -> str:
    """An environment in an error, where the build's output says the rest."""
    built = env.get("built")
    return f"with {', '.join(sorted(built))}" if built else str(env)
