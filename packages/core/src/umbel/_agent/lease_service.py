"""Leases of a node's workers: what processes want of them, and what the agent's machine has decided about them, done.

The shell of `state`: demands become its events, its commands messages, workers and signals. Leases of other nodes' workers are
`lease_sharing`'s, which is asked first where there are others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import endings, environment_service
from umbel._agent import events as ev
from umbel._agent.records import WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from umbel._agent.control import Control
    from umbel._agent.environment_service import EnvironmentService
    from umbel._agent.feasibility import Feasibility
    from umbel._agent.hub import Client, Hub, Message
    from umbel._agent.memory_service import MemoryService
    from umbel._agent.servers import ForkServers
    from umbel._agent.state import AgentState

    class Daemon(Protocol):
        """What is needed of the daemon that this is in."""

        hub: Hub
        agent: AgentState
        forks: ForkServers
        control: Control
        memory: MemoryService
        environments: EnvironmentService
        feasibility: Feasibility
        scaling: Any  # a `scaling.Scaling`; None where no autoscaler runs
        others: Any  # an `other_nodes.OtherNodes`
        jobs: Any  # a `jobs.NodeJobs`, or None

        @property
        def queries(self) -> Any:
            """A `queries.Queries`."""

        def now_s(self) -> float: ...

        def decide(self, *events: Any) -> None: ...


class LeaseService:
    """on: messages that are for it. do: commands of the agent's machine that it carries out."""

    def __init__(self, daemon: Daemon, session_dir: str, sharing: Any) -> None:
        """sharing: a `lease_sharing.Sharing`, or None where there are no other nodes."""
        self._daemon = daemon
        self._session_dir = session_dir
        self._sharing = sharing
        self.on: dict[str, Callable[[Client, Message, bytes], None]] = {
            "demand": self._on_demand,
            "return": self._on_return,
            "blocked": lambda client, _message, _body: daemon.decide(ev.WorkerBlocked(client.id, daemon.now_s())),
            "unblocked": lambda client, _message, _body: daemon.decide(ev.WorkerUnblocked(client.id, daemon.now_s())),
            "busy_owner": lambda client, message, _body: daemon.decide(
                ev.WorkerStayed(client.id, daemon.now_s(), message["running"])
            ),
            "kill_worker": self._on_kill_worker,
            "check_lease": self._on_check_lease,
            "task_seen": self._on_task_seen,
        }
        self.do: dict[type, Callable[[Any], None]] = {
            ev.StartWorker: daemon.environments.start,
            ev.KillWorker: lambda command: daemon.forks.kill(command.worker),
            ev.AskExit: self._ask_exit,
            ev.Grant: self._grant,
            ev.Reclaim: lambda command: self._tell_holder(command.client, {"t": "reclaim", "worker": command.worker}),
            ev.LookAtTask: lambda command: daemon.hub.send(command.worker, {"t": "look_at_task"}),
            ev.Preempt: self._preempt,
            ev.HostActor: self._host_actor,
            ev.BundlesReserved: lambda command: daemon.control.bundles_reserved(*command),
            ev.BundlesRefused: lambda command: daemon.control.bundles_refused(*command),
            ev.LeaseBroken: self._lease_broken,
            ev.ActorWorkerDied: self._actor_worker_died,
            ev.DemandFailed: self._demand_failed,
            ev.ActorUnplaceable: lambda command: daemon.control.unplaceable(
                command.actor, self._with_log(command), is_unschedulable=command.is_unschedulable
            ),
            ev.Preparing: self._preparing,
            ev.Promised: self._promised,
            ev.Warn: self._warn,
        }

    # ---- what processes want ----

    def _on_demand(self, client: Client, message: Message, _body: bytes) -> None:
        daemon = self._daemon
        if client.job is None and daemon.jobs is not None:
            client.job = daemon.jobs.environment(client.job_id)  # its job was not known here when the worker came
            if client.job is None:
                if message["count"]:
                    self.tell_failed(client.id, message["key"], "its job has ended")
                return
        if self._sharing is not None and self._sharing.on_demand(client, message):
            return
        env = daemon.environments.in_job(message["env"], client.job)
        impossible, is_unschedulable = daemon.feasibility.impossible(message["strategy"], message["env"])
        if impossible and message["count"]:
            self.tell_failed(client.id, message["key"], impossible, is_unschedulable=is_unschedulable)
            return
        group = message["strategy"].get("placement_group") if isinstance(message["strategy"], dict) else None
        trouble = daemon.control.group_trouble(group) if group and message["count"] else ""
        if trouble:
            reason = f"the placement group {group} that it was to run in is gone: {trouble}"
            self.tell_failed(client.id, message["key"], reason, is_group_gone=True)
            return
        refusal = daemon.feasibility.refusal(message["label_selectors"])
        daemon.decide(self.wish_of(client.id, message, env, message["count"], refusal))

    def job_of(self, client: str) -> ev.Job:
        """Of a process that is connected here."""
        known = self._daemon.hub.clients.get(client)
        return self._daemon.environments.terms_of({"job": known.job_id}) if known is not None else ev.NO_JOB

    def wish_of(
        self, client: str, message: Message, env: Any, count: int, refusal: str, source: str = ""
    ) -> ev.DemandChanged:
        """A "demand", for the agent's machine. env: as it is known here; source: a node that has its packages."""
        environments = self._daemon.environments
        return ev.DemandChanged(
            client,
            message["key"],
            message["resources"],
            count,
            message["depth"],
            environment_service.key_of(env),
            refusal,
            self._daemon.now_s(),
            message["strategy"],
            *environments.build_of(env),
            source,
            environments.terms_of(env),
            message.get("label_selectors"),
            bool(message.get("claim")),
        )

    def _on_return(self, client: Client, message: Message, _body: bytes) -> None:
        worker, is_retired = message["worker"], message["retire"]
        if self._sharing is None or not self._sharing.returns(client.id, worker, is_retired=is_retired):
            self.returned(client.id, worker, is_retired=is_retired)

    def returned(self, client: str, worker: str, *, is_retired: bool) -> None:
        """A lease of a worker of this node goes back."""
        is_retired = is_retired or self._daemon.memory.given_back(worker)
        self._daemon.decide(ev.LeaseReturned(client, worker, is_retired, self._daemon.now_s()))

    def _on_kill_worker(self, client: Client, message: Message, _body: bytes) -> None:
        worker, reason = message["worker"], message["reason"]
        if self._sharing is None or not self._sharing.kills(client.id, worker, reason):
            self._daemon.decide(ev.KillRequested(client.id, worker, reason, self._daemon.now_s()))

    def _on_check_lease(self, client: Client, message: Message, _body: bytes) -> None:
        worker = message["worker"]
        if self._sharing is None or not self._sharing.checks(client.id, worker):
            trouble = self.trouble(client.id, worker)
            if trouble is not None:
                self._daemon.hub.send(client.id, trouble)

    def trouble(self, client: str, worker: str) -> Message | None:
        """What a process is to be told that has waited for long for an answer of a worker of this node: that it has not leased
        that one (any more). If that was said, the news comes before this: only else it is news."""
        if worker in self._daemon.agent.clients.get(client, ()):
            return None
        return {
            "t": "worker_died", "worker": worker, "pid": self._daemon.forks.pid_of(worker), "exit_code": 0, "signal": 0,
            "reason": "its lease had ended, which this process was not told", "started": None, "intended": False,
            "memory": None, "group": "", "preempted": False, "unsaid": True,
        }  # fmt: skip

    def _on_task_seen(self, client: Client, message: Message, _body: bytes) -> None:
        """A worker says what it runs, for it may have to be stopped."""
        keeps = message["keeps"]
        if not keeps and self._daemon.control.owns_actors(client.id):
            keeps = "it has created actors"
        self._daemon.decide(ev.TaskSeen(client.id, message["task"], message["since_s"], keeps, self._daemon.now_s()))

    # ---- what was decided ----

    def _grant(self, command: ev.Grant) -> None:
        daemon = self._daemon
        daemon.memory.worker_is_used(command.worker, command.resources)
        accelerators, resources = dict(command.accelerators), dict(command.resources)
        daemon.hub.send(
            command.worker,
            {"t": "leased", "client": command.client, "accelerators": accelerators, "resources": resources},
        )
        message = {
            "t": "grant",
            "key": command.key,
            "worker": command.worker,
            "address": self._address_of(command.worker),
            "pid": daemon.forks.pid_of(command.worker),
            "accelerators": accelerators,
            "resources": resources,
        }
        if self._sharing is None or not self._sharing.granted(command.client, command.key, message):
            daemon.hub.send(command.client, message)

    def _host_actor(self, command: ev.HostActor) -> None:
        self._daemon.memory.worker_is_used(command.worker, command.resources)
        address = self._address_of(command.worker)
        self._daemon.control.hosted(command.actor, command.worker, address, command.accelerators)

    def _address_of(self, worker: str) -> str:
        return f"{self._session_dir}/{worker}.sock"

    def _ask_exit(self, command: ev.AskExit) -> None:
        daemon = self._daemon
        is_unused = daemon.agent.workers[command.worker].state is WorkerState.LEAVING
        if is_unused and daemon.control.owns_actors(command.worker):
            daemon.decide(ev.WorkerStayed(command.worker, daemon.now_s()))  # its actors would die with it
        else:
            daemon.hub.send(command.worker, {"t": "exit", "idle": command.is_idle})

    def _preempt(self, command: ev.Preempt) -> None:
        """The workers are held still, so that they begin nothing else while it is looked at what they run."""
        from umbel._agent import freezing

        daemon = self._daemon
        pids = {worker: daemon.forks.pid_of(worker) for worker, _ in command.tasks}
        is_still = all(pids.values()) and freezing.freeze(pids.values())
        if is_still and all(self.progress(worker) == (task, True) for worker, task in command.tasks):
            daemon.decide(ev.TasksPreempted(tuple(pids), command.reason, daemon.now_s()))
        for worker, pid in pids.items():
            known = daemon.agent.workers.get(worker)
            if pid and (known is None or known.state is not WorkerState.DYING):
                freezing.thaw(pid)

    def _promised(self, command: ev.Promised) -> None:
        if self._sharing is not None:
            self._sharing.promised(command.client, command.key, command.lease_count)

    def _preparing(self, command: ev.Preparing) -> None:
        if command.actor:
            self._daemon.control.preparing(command.actor, command.text)
        elif self._sharing is not None:
            self._sharing.preparing(command.client, command.key, command.text)

    def _tell_holder(self, client: str, message: Message) -> None:
        """Of a lease, who may be a process of another node."""
        if self._sharing is None or not self._sharing.tell_guest(client, message):
            self._daemon.hub.send(client, message)

    # ---- what did not go well ----

    def _lease_broken(self, command: ev.LeaseBroken) -> None:
        self._tell_holder(
            command.client,
            {
                "t": "worker_died",
                "worker": command.worker,
                "pid": self._daemon.forks.pid_of(command.worker),
                "exit_code": command.exit_code,
                "signal": command.signal,
                "reason": endings.in_words(command.exit_code, command.signal, command.reason),
                "started": self._progress(command.worker),
                "intended": command.is_intended,
                "memory": self._daemon.memory.report_of(command.worker),
                "group": command.group,
                "preempted": command.is_preempted,
            },
        )

    def _actor_worker_died(self, command: ev.ActorWorkerDied) -> None:
        daemon = self._daemon
        pid = daemon.forks.pid_of(command.worker)
        reason = f"its process (pid {pid}) {endings.in_words(command.exit_code, command.signal, command.reason)}"
        daemon.control.host_died(command.actor, command.worker, reason, memory=daemon.memory.report_of(command.worker))

    def _warn(self, command: ev.Warn) -> None:
        hub = self._daemon.hub
        self._told_on(command.text, command.lacks, lambda text: hub.tell_drivers({"t": "warn", "text": text}))

    def _demand_failed(self, command: ev.DemandFailed) -> None:
        reason = self._with_log(command)
        self._told_on(reason, command.lacks, lambda text: self._fail(command, text))

    def _told_on(self, reason: str, lacks: Mapping[str, Any] | None, then: Callable[[str], None]) -> None:
        if lacks is None:
            then(reason)
            return
        from umbel._agent import launches

        launches.told_on(self._daemon, reason, lacks, then)

    def _fail(self, command: ev.DemandFailed, reason: str) -> None:
        self.tell_failed(
            command.client,
            command.key,
            reason,
            is_unschedulable=command.is_unschedulable,
            is_group_gone=command.is_group_gone,
            is_busy=command.is_busy,
        )
        if self._sharing is not None:
            self._sharing.failed(command.client, command.key)

    def tell_failed(
        self,
        client: str,
        key: str,
        reason: str,
        *,
        is_unschedulable: bool = False,
        is_group_gone: bool = False,
        is_busy: bool = False,
    ) -> None:
        message = {"t": "demand_failed", "key": key, "reason": reason, "unschedulable": is_unschedulable}
        self._tell_holder(client, {**message, "group_gone": is_group_gone, "busy": is_busy})

    def _with_log(self, command: ev.DemandFailed | ev.ActorUnplaceable) -> str:
        output = self._daemon.forks.output_of(command.log_of) if command.log_of else ""
        return f"{command.reason}\n{output}" if output else command.reason

    def _progress(self, worker: str) -> int:
        """The counter of the task that the worker started last, or -1."""
        return self.progress(worker)[0]

    def progress(self, worker: str) -> tuple[int, bool]:
        """The same, and whether that task is tried again if the worker dies."""
        try:
            with open(f"{self._session_dir}/{worker}.progress", "rb", buffering=0) as file:
                data = file.read(9)
        except OSError:
            return -1, True
        if len(data) < 8:
            return -1, True
        return int.from_bytes(data[:8], "little", signed=True), not any(data[8:])
