"""The daemon: its parts, its loop, and how it ends.

One thread. What arrives is turned into events for the state machines, and their commands are carried out, by the parts: leases
(`lease_service`), environments, workers' ends and output (`worker_reports`), shared memory, other nodes, and the control service
(actors), which the configuration names and which has the node as `node`. Bodies of messages are opaque here; nothing that a user
wrote is ever opened.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from umbel._agent import events as ev
from umbel._agent import fairness, state
from umbel._agent.environment_service import EnvironmentService
from umbel._agent.feasibility import Feasibility
from umbel._agent.history import History
from umbel._agent.hub import Client, Hub, Message
from umbel._agent.lease_service import LeaseService
from umbel._agent.ledger import CPU, UNIT, Ledger
from umbel._agent.memory_service import MemoryService
from umbel._agent.node import Node
from umbel._agent.other_nodes import OtherNodes
from umbel._agent.servers import ForkServers
from umbel._agent.store_service import StoreService
from umbel._agent.worker_reports import WorkerReports
from umbel._base import nodes, orders, sessions
from umbel._transport import connection as transport

if TYPE_CHECKING:
    from umbel._agent import environments
    from umbel._agent.control import Control
    from umbel._agent.queries import Queries

EXIT_GRACE_S = 0.3  # for workers' exit handlers at shutdown; a user waits for it when tasks still run
FATAL_WAIT_S = 5.0  # for the driver to connect and be told why nothing works
LAST_OUTPUT_S = 1.0  # for a driver to take what workers have printed; one that reads needs milliseconds
PRIVATE_JOB = "01000000"  # the id of the only job of a private node
FORK_SERVER_GRACE_S = 5.0  # to kill, reap and clean up


def _fresh_ids(node_id: str) -> Iterator[str]:
    while True:
        yield nodes.new_process_id(node_id).hex()


class Service:
    """The daemon. Listens as soon as it exists; `run` serves until it is to end, `end` leaves nothing behind."""

    def __init__(self, config: Message, starter: int, fork_socket: socket.socket, fork_server_pid: int) -> None:
        """starter: a pipe, whose end means that the driver is gone, until a driver has connected."""
        self._config = config
        self._is_over = False
        self.started_s = time.time()
        self._end_at_s: float | None = None  # when workers that were asked to exit are killed
        self._end_reason = "its daemon was told to end"
        self.was_expelled = False  # from its cluster, which it has to end for
        self._was_deposed = False  # as the head of a cluster that goes on without it
        self._fatal = ""  # why no worker can ever be started
        self.poller = transport.Poller()
        self._driver_fd = -1
        self._starter = starter
        self.poller.register(starter, transport.IN, self._on_starter)
        self._watch_driver(config["driver_pid"])
        self.jobs: Any = None  # a `jobs.NodeJobs`, where drivers come and go
        if config["has_jobs"]:
            from umbel._agent import jobs

            self.jobs = jobs.NodeJobs(config["version"])
        self.environments = EnvironmentService(self, config["session_dir"])
        self.feasibility = Feasibility(self, config["node_id"], config["labels"])
        self.reports = WorkerReports(self, config)
        self.forks = ForkServers(fork_socket, fork_server_pid, self.poller, self.reports, self.environments.log_of)
        self.agent = state.AgentState(
            ledger=Ledger(config["resources"], config["accelerator_ids"]),
            worker_ids=_fresh_ids(config["node_id"]),
            starts_max=max(2, os.cpu_count() or 1),
            idle_max=max(1, config["resources"].get(CPU, 0) // UNIT),
            idle_worker_s=config.get("idle_worker_s", state.IDLE_WORKER_S),
            infeasible_timeout_s=config.get("infeasible_timeout_s"),
            recycle_s=config.get("worker_recycle_s"),
            order=self._order(config["scheduler"]),
            is_kept=self.jobs.is_running if self.jobs is not None else None,
            elsewhere=self.feasibility,
            packages=self.environments.packages,
        )
        self.node = Node(self, config)
        self.members: Any = None  # a `_control.members.Members`, on the head of a cluster
        self.control: Control = self._control_service(config)
        self.history = History(config, self.poller, lambda text: self.hub.tell_drivers({"t": "warn", "text": text}))
        welcome = {"t": "welcome", **{name: config[name] for name in _WELCOME}}
        if config.get("listen"):
            welcome["tls_directory"] = config["tls_directory"]
        self.hub: Hub = Hub(self.poller, f"{config['session_dir']}/agent.sock", self, welcome)
        self.store = StoreService(
            self.hub,
            self.now_s,
            config["store_dir"],
            capacity_bytes=config["store_capacity_bytes"],
            full_wait_s=config["store_full_wait_s"],
            spilling=config["spilling"],
        )
        self.others = OtherNodes(self, config)
        self._sharing = self.others.sharing
        self._metrics: Any = None  # once there are some
        welcome["metrics_port"] = self.metrics_port = self._serve_metrics(config.get("metrics_export_host"))
        self.memory = MemoryService(self, config)
        self._queries: Queries | None = None  # once anybody asks
        self.others.join()
        self.scaling: Any = None  # a `scaling.Scaling`, on the head of a cluster that launches nodes
        if config.get("autoscaling") is not None:
            from umbel._agent import scaling

            self.scaling = scaling.Scaling(self, config)
        self.leases = LeaseService(self, config["session_dir"], self._sharing)
        self._on: dict[str, Callable[[Client, Message, bytes], None]] = {
            **self.leases.on,
            **self.store.on,
            **self.others.on,
            "hold_environment": self.environments.on_hold,
            "metrics": lambda client, message, body: self.metrics_service().on_report(client, message, body),
            "task_events": lambda _client, message, body: self.history.add_tasks(body, message["count"]),
            **dict.fromkeys(("query", "gather", "ask", "answer"), self._on_question),
            "shutdown": self._on_shutdown,
            "leave": self._on_leave,
            "stop": self._on_stop,
            "scale": self._on_scale,
        }
        self._do: dict[type, Callable[[Any], None]] = dict(self.leases.do)
        self._orders = orders.Orders(self._do)
        self.others.await_members()

    @property
    def queries(self) -> Queries:
        """Made, and loaded, when somebody asks."""
        if self._queries is None:
            from umbel._agent import queries

            self._queries = queries.Queries(self, self._config)
        return self._queries

    def _on_question(self, client: Client, message: Message, body: bytes) -> None:
        """Or the answer to one."""
        self.queries.on[message["t"]](client, message, body)

    def metrics_service(self) -> Any:
        """Made, and loaded, when something is measured or asked for."""
        if self._metrics is None:
            from umbel._agent import metrics_service

            self._metrics = metrics_service.MetricsService(self, self._config)
        return self._metrics

    def processes(self) -> list[tuple[str, str, int]]:
        """(component, id, pid) of every process of the session that runs. id: of a driver, worker or actor as it is
        known to others, or of an environment's server."""
        found = [("daemon", "", os.getpid()), ("fork_server", "", self.forks.pid)]
        found += [("environment", server, pid) for server, pid in self.forks.pids().items()]
        found += [("history", "", self.history.pid), ("metrics", "", self._metrics.pid if self._metrics else 0)]
        found += [("autoscaler", "", self.scaling.pid if self.scaling is not None else 0)]
        surveyors = self._queries.surveyor_pids() if self._queries is not None else ()
        found += [("surveyor", "", pid) for pid in surveyors]
        found += [("forwarder", "", pid) for pid in self.others.forwarders()]
        found += [("driver", client.id, client.pid) for client in self.hub.drivers()]
        for worker in self.agent.workers.values():
            is_actors = worker.lease is not None and worker.lease.actor
            found.append(("actor" if is_actors else "worker", worker.id, self.forks.pid_of(worker.id)))
        return [one for one in found if one[2]]

    def _serve_metrics(self, host: str | None) -> int:
        """The port at which they are served, 0 for none. Raises OSError when it is not to be had."""
        if not host:
            return 0
        self.metrics_service().serve(host, self._config["metrics_export_port"])
        return int(self._metrics.port)

    def _control_service(self, config: Message) -> Control:
        """Where records are kept, this waits until nobody else leads. Raises what opening the storage does."""
        if config.get("head"):
            from umbel._agent import control_proxy

            return control_proxy.ControlProxy(self.node)
        node: Any = self.node
        if config.get("listen"):
            tag = nodes.tag_of_node(config["node_id"])
            node = self.members = importlib.import_module(config["members"]).Members(self.node, tag)
        made = self._own_control_service(config, node)
        if self.members is not None:
            self.members.serve(made)
        return made

    def _own_control_service(self, config: Message, node: Any) -> Control:
        """node: this one's, or what stands for it."""
        module: Any = importlib.import_module(config["control"])
        if not config.get("storage"):
            made: Control = module.ActorService(node)
            return made
        sys.path[:] = config["sys_path"]
        importlib.reload(
            sys.modules["umbel"]
        )  # until here a stand-in; storages are plugins, and may import the real one
        kept: Control = module.keeping_in(
            node,
            config["storage"],
            holder=f"{socket.gethostname()} pid {os.getpid()} node {config['node_id']}",
            wake=self.poller.wake,
            on_step_down=self._step_down,
            is_wanted=self._has_starter,
            is_standby=config["is_standby"],
        )
        for environment in kept.job_environments() if self.jobs is not None else ():
            self.jobs.knows(environment)
        return kept

    def _has_starter(self) -> bool:
        """Whether the process that has started this one still waits for it."""
        poll = select.poll()
        poll.register(self._starter, select.POLLIN)
        return not poll.poll(0)

    def _step_down(self, reason: str) -> None:
        """Another one leads, or may: what this one has decided since does not count, so all that runs here goes."""
        text = f"this node ends, as its control service leads no longer: {reason}"
        self._was_deposed = True
        _log(text)
        self.hub.tell_drivers({"t": "fatal", "text": text})
        self._begin_end(grace_s=0.0)

    def _order(self, scheduler: str) -> fairness.Order:
        if scheduler in _BUILT_IN_SCHEDULERS:  # they differ only in where they place, which one node has no use for
            return fairness.deepest_first
        from umbel._agent import ordering  # another policy needs the plugin registry, which is not light

        return ordering.by_policy(scheduler, self._config["sys_path"], self.reports.on_fork_server_warning)

    # ---- the loop ----

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        while not self._is_over:
            due_s = self._next_tick_s()
            self.poller.poll(None if due_s is None else max(0.0, due_s - self.now_s()))
            if (
                _is_due(due_s, self.now_s()) or self._end_at_s is not None
            ):  # what has become due meanwhile is so next time
                self._tick()

    def _on_sigterm(self, *_: object) -> None:
        self._end_reason = "received SIGTERM"
        self._begin_end(grace_s=0.0)

    def now_s(self) -> float:
        return time.monotonic()

    def time_s(self) -> float:
        return time.time()

    def _next_tick_s(self) -> float | None:
        due = [
            self._end_at_s,
            self.control.next_tick_s(),
            self.store.next_tick_s(),
            self.memory.due_s,
            self.others.next_tick_s(),
        ]
        if self._end_at_s is None:  # else nobody looks any more at what is due of these
            due += [
                self.agent.next_tick_s(),
                self.scaling.next_tick_s() if self.scaling is not None else None,
                self._queries.next_tick_s() if self._queries is not None else None,
            ]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def _tick(self) -> None:
        now_s = self.now_s()
        if _is_due(self.agent.next_tick_s(), now_s):
            self.decide(ev.Ticked(now_s))
        if _is_due(self.control.next_tick_s(), now_s):
            self.control.tick()
        if _is_due(self.store.next_tick_s(), now_s):
            self.store.tick()
        if _is_due(self.memory.due_s, now_s):
            self.memory.look()
        self.others.tick(now_s)
        if self.scaling is not None and self._end_at_s is None and _is_due(self.scaling.next_tick_s(), now_s):
            self.scaling.tick()
        if self._queries is not None and self._end_at_s is None and _is_due(self._queries.next_tick_s(), now_s):
            self._queries.tick()
        is_free = self.forks.is_idle() and not self._fatal
        if self._end_at_s is not None and (is_free or _is_due(self._end_at_s, now_s)):
            self._is_over = True

    def decide(self, *events: ev.AgentEvent | environments.Event) -> None:
        """Apply events, and carry out the commands in order, including those that follow from carrying out others."""
        if self._end_at_s is not None:
            return  # everything goes; no restarts and no reports
        commands = self.agent.apply(*events)
        if self._sharing is not None:
            self._sharing.note(commands)
        self.carry_out(commands)

    def carry_out(self, commands: Iterable[Any]) -> None:
        """Those that are left, and then these, unless that is being done. One that fails ends this daemon, see `orders`."""
        if self._end_at_s is not None:
            return
        if not self._orders.carry_out(commands):
            return
        if self._sharing is not None:
            self._sharing.look()
            self.control.look_at_room()
        if self.others.drains is not None:
            self.others.drains.look()

    def log(self, line: str) -> None:
        _log(line)

    def add_commands(self, handlers: Mapping[type, Callable[[Any], None]]) -> None:
        self._do.update(handlers)

    # ---- the end ----

    def _watch_driver(self, pid: int) -> None:
        """A driver's forked children may keep its sockets open after it was killed; its process descriptor tells."""
        if self._config["embedded"] and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._driver_fd = os.pidfd_open(pid)
                self.poller.register(self._driver_fd, transport.IN, lambda _events: self._begin_end(grace_s=0.0))

    def _on_starter(self, _events: int) -> None:
        self.poller.unregister(self._starter)
        is_lone = self._config["embedded"] and not self.hub.drivers()
        if is_lone or self._config.get("ends_with_starter") or self.others.is_joining:
            self._begin_end(grace_s=0.0)

    def _on_leave(self, client: Client, message: Message, _body: bytes) -> None:
        """A driver has done what it wanted. When it is answered, it has been sent what its workers had printed."""
        self.control.job_leaves(client.id)
        self.forks.catch_up()
        self.control.reply(client.id, message["rq"], {})

    def _on_stop(self, client: Client, message: Message, _body: bytes) -> None:
        if self._config["embedded"]:
            text = f"this session belongs to the program with pid {self._config['driver_pid']}; it ends with that"
            self.hub.refuse(client.id, message["rq"], "invalid", text)
            return
        if not client.may_change:
            self.hub.refuse(client.id, message["rq"], "forbidden", "stopping this node needs a token of the role admin")
            return
        self.hub.reply(client.id, message["rq"], {"result": {"pid": os.getpid()}})
        self._end_reason = "umbel stop"
        self._begin_end(grace_s=EXIT_GRACE_S)

    def _on_shutdown(self, client: Client, message: Message, _body: bytes) -> None:
        if not (client.is_driver and self._config["embedded"]):
            text = "only the driver of a private session may shut it down; a node that outlives drivers ends by `umbel stop`"
            self.hub.refuse(client.id, message["rq"], "invalid", text)
            return
        self.hub.reply(client.id, message["rq"], {})
        self._begin_end(grace_s=EXIT_GRACE_S)

    def cannot_fork(self, text: str) -> None:
        """No worker can ever be started."""
        if self._end_at_s is not None:
            return
        self.hub.tell_drivers({"t": "fatal", "text": text})
        if not self.hub.drivers():
            self._fatal = text  # the driver that will connect presently shall know
        self._begin_end(grace_s=FATAL_WAIT_S if self._fatal else 0.0)

    def end_node(self, reason: str) -> None:
        """This node is none of its cluster any more."""
        _log(f"this node ends: {reason}")
        self.was_expelled = True
        self.hub.tell_drivers({"t": "fatal", "text": reason})
        self._begin_end(grace_s=EXIT_GRACE_S)

    def end_drained(self, reason: str) -> None:
        _log(f"this node ends: {reason}")
        self._end_reason = reason
        self.hub.tell_drivers({"t": "fatal", "text": f"this node has ended: {reason}"})
        self._begin_end(grace_s=EXIT_GRACE_S)

    @property
    def is_ending(self) -> bool:
        return self._end_at_s is not None

    def _begin_end(self, *, grace_s: float) -> None:
        """Ask the workers to exit, and end when they have or after `grace_s`."""
        if self._end_at_s is None or grace_s == 0.0:
            self._end_at_s = self.now_s() + grace_s
            self.poller.wake()
            for client in list(self.hub.clients.values()):
                if grace_s and not client.is_driver:
                    self.hub.send(client.id, {"t": "exit", "idle": False, "shutdown": True})

    def end(self) -> None:
        """Every process of this session, and every file, is gone when this returns."""
        if self.scaling is not None:  # before other nodes go, which it would replace
            self.scaling.end()
        self.forks.drain()
        self.others.close_cluster(self._end_reason, ends_cluster=not self._was_deposed)
        if self._queries is not None:
            self._queries.close()
        self.others.close()
        self.hub.flush(self.now_s() + LAST_OUTPUT_S, self.now_s)
        self.hub.close()
        self.others.close_relays()
        self.reports.close()
        if self._metrics is not None:
            self._metrics.end()
        if self.history.is_kept:
            self.node.note_last()
            self.reports.note_last()
        self.history.end()
        self.forks.end(FORK_SERVER_GRACE_S)
        self.control.end()  # another one may lead now that nothing runs here
        url = sessions.spill_url(self._config["session_dir"])
        if url:  # the fork server was killed before it could do that; this interpreter finds the library there
            sys.path += self._config["sys_path"]
            importlib.import_module("umbel._objects.spill_files").remove_all(url)
        sessions.remove_session(self._config["session_dir"], self._config["store_dir"])

    # ---- clients ----

    def may_join(self, hello: Message) -> str:
        if self._fatal:
            self._begin_end(grace_s=0.0)
            return self._fatal
        if hello["kind"] == "worker" and hello["id"] not in self.agent.workers:
            return f"no worker with the id {hello['id']} was started here"
        if hello["kind"] == "driver" and self._config["embedded"] and self.hub.drivers():
            return "this runtime is private to the program that started it, which is connected already"
        if hello["kind"] == "driver" and (why := self.others.drain_reason()):
            return f"this node is being drained ({why}), and will end; connect to another node of its cluster"
        if hello["kind"] == "driver" and self.jobs is not None:
            refusal: str = self.jobs.refusal(hello["job"]) or self.control.driver_trouble()
            return refusal
        return ""

    def on_joining(self, client: Client, hello: Message) -> None:
        if not client.is_tool:
            client.token = self.others.submit_token()
        if client.is_driver:
            facts = hello["job"] if self.jobs is not None else None
            client.job_id, client.job = self.control.job_begins(client.id, client.pid, facts)
            client.wants_output = bool((facts or self._config)["log_to_driver"])
            if self.jobs is not None:
                self.jobs.began(client.job)
        elif not client.is_tool:
            client.job_id = self.job_of_worker(client.id)
            if self.jobs is not None:
                client.job = self.jobs.environment(client.job_id)

    def welcome(self, client: Client, message: Message) -> None:
        (self.control.send if client.is_driver else self.node.send)(client.id, message)

    def job_of_worker(self, worker: str) -> str:
        """The id of the job whose driver it works for, however indirectly."""
        return str(self.jobs.job_of(worker)) if self.jobs is not None else PRIVATE_JOB

    def on_joined(self, client: Client) -> None:
        if client.is_tool:
            return
        now_s = self.now_s()
        if self.others.directory is not None:
            self.others.directory.on_joined(client.id)
        self.decide(ev.ClientJoined(client.id, now_s))
        if not client.is_driver:
            self.forks.on_connected(client.id, client.pid)
            self.decide(ev.WorkerReady(client.id, now_s))
            facts = {"worker": client.id, "node": self._config["node_id"], "pid": client.pid, "ready": time.time()}
            self.history.add_worker(facts)
        elif client.job is not None:
            self.environments.hold(client, None)

    def on_message(self, client: Client, message: Message, body: bytes) -> None:
        kind = message["t"]
        if kind in self.control.on:
            self.control.on[kind](client.id, client.namespace, message, body)
        else:
            self._on[kind](client, message, body)

    def on_gone(self, client: Client) -> None:
        if self._queries is not None:
            self._queries.on_gone(client)
        if client.is_tool:
            return
        if self._metrics is not None:
            self._metrics.on_gone(client)
        now_s = self.now_s()
        self.decide(ev.ClientLeft(client.id, now_s))
        if self._sharing is not None:
            self._sharing.client_gone(client)
        self.control.client_gone(client.id, self.others.why_gone(client.pid))
        self.store.client_gone(client.id)
        self.others.client_gone(client.id)
        for ending in ("door", "sock"):  # a node may outlive many programs
            with contextlib.suppress(OSError):
                os.unlink(f"{self._config['session_dir']}/{client.id}.{ending}")
        if client.is_driver and self.jobs is not None:
            self.jobs.ended(client.job_id)
        if client.is_driver and self._config["embedded"]:
            self._begin_end(grace_s=0.0)

    def _on_scale(self, client: Client, message: Message, body: bytes) -> None:
        if self.scaling is None:
            self.hub.refuse(client.id, message["rq"], "invalid", "this node is no head with an autoscaler")
        else:
            self.scaling.on_scale(client, message, body)


_WELCOME = (
    "node_id", "session_dir", "store_dir", "resources", "labels", "namespace", "store_capacity_bytes", "scheduler",
    "accelerator_ids", "log_to_driver",
)  # fmt: skip


_BUILT_IN_SCHEDULERS = ("hybrid", "spread")


def _log(line: str) -> None:
    """Into the daemon's log, which is on standard error."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    sys.stderr.flush()


def _is_due(at_s: float | None, now_s: float) -> bool:
    return at_s is not None and at_s <= now_s
