"""The daemon's loop: turns what arrives into events for the state machines, and carries out their commands.

One thread. Everything that decides is elsewhere: `state` (leases and workers), `store_ledger` (shared memory), and the
control service (actors), which the configuration names. Bodies of messages are opaque here; nothing that a user wrote
is ever opened.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from umbel._agent import endings, fairness, output, state
from umbel._agent import events as ev
from umbel._agent.control import ActorWish, Control
from umbel._agent.history import History
from umbel._agent.hub import Client, Hub, Message
from umbel._agent.ledger import CPU, UNIT, Ledger
from umbel._agent.memory_service import MemoryService
from umbel._agent.queries import Queries
from umbel._agent.records import WorkerState
from umbel._agent.servers import ForkServers
from umbel._agent.store_service import StoreService
from umbel._base import nodes, sessions
from umbel._transport import connection as transport

if TYPE_CHECKING:
    from umbel._agent import environments

FAILURE_CHARS_MAX = 100_000  # of a traceback
ENV_BYTES_MAX = 100_000  # it goes to the fork server in one datagram, of which Linux takes 200 kB
EXIT_GRACE_S = 0.3  # for workers' exit handlers at shutdown; a user waits for it when tasks still run
FATAL_WAIT_S = 5.0  # for the driver to connect and be told why nothing works
LAST_OUTPUT_S = 1.0  # for a driver to take what workers have printed; one that reads needs milliseconds
PRIVATE_JOB = "01000000"  # the id of the only job of a private node
FORK_SERVER_GRACE_S = 5.0  # to kill, reap and clean up


def _fresh_ids(node_id: str) -> Iterator[str]:
    while True:
        yield nodes.new_process_id(node_id).hex()


def _env_key(env: Any) -> str:
    """An environment as canonical text, so that equal ones are equal; "" for none."""
    return json.dumps(env, sort_keys=True, separators=(",", ":")) if env else ""


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
        self._todo: deque[Any] = deque()
        self.poller = transport.Poller()
        self._driver_fd = -1
        self._starter = starter
        self.poller.register(starter, transport.IN, self._on_starter)
        self._watch_driver(config["driver_pid"])
        self._jobs: Any = None  # a `jobs.NodeJobs`, where drivers come and go
        if config["has_jobs"]:
            from umbel._agent import jobs

            self._jobs = jobs.NodeJobs(config["version"])
        self.forks = ForkServers(fork_socket, fork_server_pid, self.poller, self, self._log_of)
        self.agent = state.AgentState(
            ledger=Ledger(config["resources"], config["accelerator_ids"]),
            worker_ids=_fresh_ids(config["node_id"]),
            starts_max=max(2, os.cpu_count() or 1),
            idle_max=max(1, config["resources"].get(CPU, 0) // UNIT),
            idle_worker_s=config.get("idle_worker_s", state.IDLE_WORKER_S),
            infeasible_timeout_s=config.get("infeasible_timeout_s"),
            recycle_s=config.get("worker_recycle_s"),
            order=self._order(config["scheduler"]),
            is_kept=self._jobs.is_running if self._jobs is not None else None,
            elsewhere=self._elsewhere,
            packages=self._packages,
        )
        self.members: Any = None  # a `_control.members.Members`, on the head of a cluster
        self.control: Control = self._control_service(config)
        self.history = History(config, self.poller, lambda text: self.hub.tell_drivers({"t": "warn", "text": text}))
        welcome = {"t": "welcome", **{name: config[name] for name in _WELCOME}}
        self.hub = Hub(self.poller, f"{config['session_dir']}/agent.sock", self, welcome)
        self.store = StoreService(
            self.hub,
            self.now_s,
            config["store_dir"],
            capacity_bytes=config["store_capacity_bytes"],
            full_wait_s=config["store_full_wait_s"],
            spilling=config["spilling"],
        )
        self._values: Any = None  # a `value_wants.ValueWants`, once values go from node to node
        self._package_links: Any = None  # a `package_links.PackageLinks`, once packages do
        self._door: Any = None  # a `door.Door`, where other machines may come in
        self.directory: Any = None  # a `directory.Directory` of the nodes, likewise
        self._nodes_by_tag: dict[str, str] = {}  # all other ones that there are and were
        self._sharing: Any = None  # a `lease_sharing.Sharing`, likewise
        self._drains: Any = None  # a `drain_service.DrainService`, once a node is to be drained
        self._relays: Any = None  # a `relays.Relays`, once a program of another machine has come
        if config.get("listen"):
            from umbel._agent import directory, door, lease_sharing
            from umbel._transport import own_tls

            own_tls.use(config["tls_directory"])
            welcome["tls_directory"] = config["tls_directory"]
            if self._jobs is not None:
                self._sharing = lease_sharing.Sharing(self, config, self._jobs, self._token())
            self.directory = directory.Directory(
                nodes.tag_of_node(config["node_id"]), self.hub.send, self.hub.tell_processes
            )
            self.store.keeps_for = self._keeps_for
            self._door = door.Door(
                self.poller,
                config["listen"],
                self._token(),
                lambda stream, *, may_change: self.hub.admit(stream, may_change=may_change),
                self._door_of,
                admit_node=None if config.get("head") else self._admit_node,
                admit_values=self._admit_values,
                admit_packages=lambda stream: self._links_for_packages().admit(stream),
                admit_lessee=self._sharing.admit if self._sharing is not None else None,
                admit_program=self._admit_program if self._jobs is not None else None,
                now_s=self.now_s,
                warn=_log,
            )
        self.address = self._advertised()
        self._log_files: Any = None  # once a worker prints something
        self._metrics: Any = None  # once there are some
        welcome["metrics_port"] = self.metrics_port = self._serve_metrics(config.get("metrics_export_host"))
        self.memory = MemoryService(self, config)
        self._queries = Queries(self, config)
        self._cluster = self._join_cluster()
        self.scaling: Any = None  # a `scaling.Scaling`, on the head of a cluster that launches nodes
        if config.get("autoscaling") is not None:
            from umbel._agent import scaling

            self.scaling = scaling.Scaling(self, config)
        self._on: dict[str, Callable[[Client, Message, bytes], None]] = {
            "demand": self._on_demand,
            "hold_environment": self._on_hold_environment,
            "return": self._on_return,
            "blocked": lambda client, _message, _body: self.decide(ev.WorkerBlocked(client.id, self.now_s())),
            "unblocked": lambda client, _message, _body: self.decide(ev.WorkerUnblocked(client.id, self.now_s())),
            "busy_owner": lambda client, message, _body: self.decide(
                ev.WorkerStayed(client.id, self.now_s(), message["running"])
            ),
            "kill_worker": self._on_kill_worker,
            "task_seen": self._on_task_seen,
            **self.store.on,
            "metrics": lambda client, message, body: self.metrics_service().on_report(client, message, body),
            "task_events": lambda _client, message, body: self.history.add_tasks(body, message["count"]),
            "query": self._queries.on_query,
            "gather": self._queries.on_gather,
            "ask": self._queries.on_ask,
            "answer": self._queries.on_answer,
            "find_node": self._on_find_node,
            **dict.fromkeys(
                ("want_value", "unwant_value", "value_copied", "value_freed", "left_freed"), self._on_value
            ),
            "shutdown": self._on_shutdown,
            "leave": self._on_leave,
            "stop": self._on_stop,
            "drain_node": lambda client, message, _body: self._drain_service().on_request(client, message),
            "scale": self._on_scale,
        }
        self._do: dict[type, Callable[[Any], None]] = {
            ev.StartWorker: self._start_worker,
            ev.KillWorker: lambda command: self.forks.kill(command.worker),
            ev.AskExit: self._ask_exit,
            ev.Grant: self._grant,
            ev.Reclaim: lambda command: self._tell_holder(command.client, {"t": "reclaim", "worker": command.worker}),
            ev.LookAtTask: lambda command: self.hub.send(command.worker, {"t": "look_at_task"}),
            ev.Preempt: self._preempt,
            ev.HostActor: self._host_actor,
            ev.BundlesReserved: lambda command: self.control.bundles_reserved(*command),
            ev.BundlesRefused: lambda command: self.control.bundles_refused(*command),
            ev.LeaseBroken: self._lease_broken,
            ev.ActorWorkerDied: self._actor_worker_died,
            ev.DemandFailed: self._demand_failed,
            ev.ActorUnplaceable: lambda command: self.control.unplaceable(
                command.actor, self._with_log(command), is_unschedulable=command.is_unschedulable
            ),
            ev.Preparing: self._preparing,
            ev.Warn: lambda command: self.hub.tell_drivers({"t": "warn", "text": command.text}),
        }
        if self._sharing is not None:
            for node in self.other_nodes():
                if node.get("is_awaited"):
                    self._sharing.node_awaited(node)

    def _token(self) -> Any:
        """Of the cluster, from its file, or from the environment. Raises AuthenticationError."""
        from umbel._base import token_files

        path = self._config["token_file"]
        return token_files.read(path) if path else token_files.find(os.environ)

    def when_joined(self, tell: Callable[[str], None]) -> None:
        """tell: why this node is no member of the cluster that it was to join, or ""; at once where it was to join none."""
        if self._cluster is None or self._cluster.is_head:
            tell("")
        else:
            self._cluster.when_joined(tell)

    def _advertised(self) -> str:
        """Where others reach this node; "" where nobody does."""
        if self._door is None:
            return ""
        host: str = self._config.get("node_host") or ""
        if not host:
            return str(self._door.address)
        port = self._door.address.rpartition(":")[2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _join_cluster(self) -> Any:
        """What keeps a head's nodes, or a node's connection to its head; None for a node on its own."""
        config = self._config
        if config.get("head"):
            from umbel._agent import head_link

            times = {"join_s": config["join_s"], "head_lost_s": config["head_lost_s"]}
            return head_link.HeadLink(self, config["head"], self._token(), **times)
        if self._door is None:
            return None
        return importlib.import_module(config["node_service"]).NodeService(self, config["health"])

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
        found += [("surveyor", "", pid) for pid in self._queries.surveyor_pids()]
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

            return control_proxy.ControlProxy(self)
        node: Any = self
        if config.get("listen"):
            tag = nodes.tag_of_node(config["node_id"])
            node = self.members = importlib.import_module(config["members"]).Members(self, tag)
        made = self._own_control_service(config, node)
        if self.members is not None:
            self.members.serve(made)
        return made

    def _own_control_service(self, config: Message, node: Any) -> Control:
        """node: this, or what stands for it."""
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
        for environment in kept.job_environments() if self._jobs is not None else ():
            self._jobs.knows(environment)
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

        return ordering.by_policy(scheduler, self._config["sys_path"], self.on_fork_server_warning)

    # ---- the loop ----

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        while not self._is_over:
            due_s = self._next_tick_s()
            self.poller.poll(None if due_s is None else max(0.0, due_s - self.now_s()))
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
            self._door.next_tick_s() if self._door is not None else None,
            self._values.next_tick_s() if self._values is not None else None,
            self._package_links.next_tick_s() if self._package_links is not None else None,
        ]
        if self._end_at_s is None:  # else nobody looks any more at what is due of these
            due += [
                self.agent.next_tick_s(),
                self._cluster.next_tick_s() if self._cluster is not None else None,
                self._sharing.next_tick_s() if self._sharing is not None else None,
                self._drains.next_tick_s() if self._drains is not None else None,
                self.scaling.next_tick_s() if self.scaling is not None else None,
                self._queries.next_tick_s(),
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
        if self._door is not None and _is_due(self._door.next_tick_s(), now_s):
            self._door.tick()
        if self._values is not None and _is_due(self._values.next_tick_s(), now_s):
            self._values.tick()
        if self._package_links is not None and _is_due(self._package_links.next_tick_s(), now_s):
            self._package_links.tick()
        # By the clock after what is due was asked for: what is due at once says that it is due now.
        if self._cluster is not None and self._end_at_s is None and _is_due(self._cluster.next_tick_s(), self.now_s()):
            self._cluster.tick()
        if self._sharing is not None and self._end_at_s is None and _is_due(self._sharing.next_tick_s(), now_s):
            self._sharing.tick()
        if self._drains is not None and self._end_at_s is None and _is_due(self._drains.next_tick_s(), now_s):
            self._drains.look()
        if self.scaling is not None and self._end_at_s is None and _is_due(self.scaling.next_tick_s(), now_s):
            self.scaling.tick()
        if self._end_at_s is None and _is_due(self._queries.next_tick_s(), now_s):
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
        """Those that are left, and then these, unless that is being done."""
        if self._end_at_s is not None:
            return
        is_outermost = not self._todo
        self._todo.extend(commands)
        if is_outermost:
            while self._todo:
                command = self._todo[0]  # it stays there meanwhile, so that what follows from it comes after the rest
                self._do[type(command)](command)
                self._todo.popleft()
            if self._sharing is not None:
                self._sharing.look()
                self.control.look_at_room()
            if self._drains is not None:
                self._drains.look()

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
        is_joining = self._cluster is not None and not self._cluster.is_head and not self._cluster.has_joined
        if (self._config["embedded"] and not self.hub.drivers()) or self._config.get("ends_with_starter") or is_joining:
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
        if self._cluster is not None:
            self._close_cluster()
        if self._sharing is not None:
            self._sharing.close()
        self._queries.close()
        if self._door is not None:
            self._door.close()
        if self._values is not None:
            self._values.values.close()
        if self._package_links is not None:
            self._package_links.close()
        self.hub.flush(self.now_s() + LAST_OUTPUT_S, self.now_s)
        self.hub.close()
        if self._relays is not None:
            self._relays.close()
        if self._log_files is not None:
            self._log_files.close()
        if self._metrics is not None:
            self._metrics.end()
        if self.history.is_kept:
            self._note_last()
        self.history.end()
        self.forks.end(FORK_SERVER_GRACE_S)
        self.control.end()  # another one may lead now that nothing runs here
        url = sessions.spill_url(self._config["session_dir"])
        if url:  # the fork server was killed before it could do that; this interpreter finds the library there
            sys.path += self._config["sys_path"]
            importlib.import_module("umbel._objects.spill_files").remove_all(url)
        sessions.remove_session(self._config["session_dir"], self._config["store_dir"])

    # ---- the cluster ----

    def _close_cluster(self) -> None:
        if self._cluster.is_head:
            self._cluster.close(self._end_reason, ends_cluster=not self._was_deposed)
        else:
            self._cluster.close(self._end_reason)

    def sharing(self) -> Any:
        """A `_agent.lease_sharing.Sharing`, or None."""
        return self._sharing

    def cluster(self) -> Any:
        """A `_control.node_service.NodeService`, an `_agent.head_link.HeadLink`, or None."""
        return self._cluster

    def node_token(self) -> Any:
        """With which this node comes to others; None where there are none."""
        return self._door.token if self._door is not None else None

    def other_nodes(self) -> list[Message]:
        """Of the cluster, the dead among them."""
        listed = self._cluster.listed() if self._cluster is not None else []
        return [node for node in listed if node["node_id"] != self._config["node_id"]]

    def node_facts(self, node_id: str) -> Message | None:
        """Of one of them, without a look at the others."""
        found: Message | None = self._cluster.node_facts(node_id) if self._cluster is not None else None
        return found

    def note_outliving(self, cluster: str = "", head: str = "") -> None:
        """For programs and commands of this machine. cluster, head: as the node has been told when it joined."""
        if self._cluster is not None and self._cluster.is_head:
            cluster, head = self._cluster.table.cluster, self.address
        labels = json.dumps(self._config["labels"])
        found = sessions.Outliving(self._config["node_id"], self.address, cluster, head, labels)
        sessions.note_outliving(self._config["session_dir"], found)

    def _admit_values(self, stream: transport.Stream) -> None:
        self._value_wants().values.accept(stream)

    def _admit_program(self, stream: transport.Stream) -> None:
        if self._relays is None:
            from umbel._agent import relays

            self._relays = relays.Relays(self.poller, self._config, self._door.submit_token, self.address, _log)
        self._relays.admit(stream)

    def _on_value(self, client: Client, message: Message, body: bytes) -> None:
        if self._door is not None:  # else there are no other nodes, and no process says so
            self._value_wants().on[message["t"]](client, message, body)

    def _value_wants(self) -> Any:
        if self._values is None:
            from umbel._agent import value_wants

            self._values = value_wants.ValueWants(self, self._config["node_id"], self._door.token)
        return self._values

    def _keeps_for(self, owner: str) -> bool:
        if not self.directory.is_elsewhere(owner):
            return False
        self._value_wants().left_values.expect()
        return True

    def left_value_count(self) -> int:
        """Values here of owners on other nodes whose makers have ended."""
        return self._values.left_values.count() if self._values is not None else 0

    def left_values_gone(self) -> None:
        if self._drains is not None:
            self._drains.look()

    def value_reason(self, key: str) -> Any:
        """A `reasons.Reason` why a value of another node is not here yet; None if it is, or nobody wants it."""
        return self._values.reason(key) if self._values is not None else None

    def _links_for_packages(self) -> Any:
        if self._package_links is None:
            from umbel._agent import package_links
            from umbel._environments import packing

            directory = packing.directory_of(self._config["session_dir"])
            self._package_links = package_links.PackageLinks(self, self._door.token, directory)
        return self._package_links

    def address_of_node(self, node: str) -> str:
        return str(self.directory.address_of(nodes.tag_of_node(node)))

    def _admit_node(self, stream: transport.Stream) -> None:
        self._cluster.admit(stream)

    def own_facts(self) -> Message:
        return self._queries.own_facts()

    def own_state(self) -> Message:
        """What changes: what is free, and how many leases are waited for."""
        waiting = sum(demand.count for demand in self.agent.demands.values())
        draining = self._drains.state() if self._drains is not None else {}
        return {"available": dict(self.agent.ledger.free), "waiting": waiting, **draining}

    def own_load(self) -> Message:
        """What waits here that other nodes could have as well, and whether anything runs; for the autoscaler."""
        from umbel._agent import load

        waiting = self._sharing.waiting() if self._sharing is not None else ()
        idle = load.idle_number(self.agent, has_drivers=bool(self.hub.drivers()))
        return {"tasks": load.of_tasks(waiting), "idle": idle}

    def _on_scale(self, client: Client, message: Message, body: bytes) -> None:
        if self.scaling is None:
            self.hub.refuse(client.id, message["rq"], "invalid", "this node is no head with an autoscaler")
        else:
            self.scaling.on_scale(client, message, body)

    def log(self, line: str) -> None:
        _log(line)

    def node_appeared(self, node_id: str, address: str) -> None:
        _log(f"node {node_id} is a member of the cluster, at {address}")
        self.directory.set(nodes.tag_of_node(node_id), address)
        if node_id != self._config["node_id"]:
            self._nodes_by_tag[nodes.tag_text(node_id)] = node_id
        if self._sharing is not None:
            self._sharing.node_appeared(node_id, address)

    def node_died(self, node_id: str, reason: str) -> None:
        _log(f"node {node_id} is dead: {reason}")
        self.directory.forget(nodes.tag_of_node(node_id))
        self._queries.node_died(node_id)
        if self._values is not None:
            self._values.node_died(node_id)
        if self.agent.environments is not None:
            from umbel._agent import packages

            self.decide(packages.NodeDied(node_id, self.now_s()))
        if self.members is not None:
            self.members.node_gone(node_id, reason)
        if self._sharing is not None:
            self._sharing.node_died(node_id, reason)

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        changes = list(changes)
        if self._sharing is not None:
            self._sharing.nodes_changed(changes)
        if self.members is not None:
            self.members.nodes_changed(changes)
        for change in changes:
            if change.get("draining") and change.get("alive", True):
                self.directory.drains(nodes.tag_of_node(change["node_id"]))

    def end_node(self, reason: str) -> None:
        """This node is none of its cluster any more."""
        _log(f"this node ends: {reason}")
        self.was_expelled = True
        self.hub.tell_drivers({"t": "fatal", "text": reason})
        self._begin_end(grace_s=EXIT_GRACE_S)

    # ---- draining ----

    def _drain_service(self) -> Any:
        if self._drains is None:
            from umbel._agent import drain_service

            self._drains = drain_service.DrainService(self)
        return self._drains

    def drain_node(self, message: Message, tell: Callable[[bool, str], None]) -> None:
        self._drain_service().drain(message, tell)

    def asked_to_drain(self, message: Message) -> None:
        self._drain_service().asked(message)

    def drain_reason(self) -> str:
        """Why this node is being drained; "" if it is not."""
        return str(self._drains.reason) if self._drains is not None else ""

    def draining_changed(self) -> None:
        if self._sharing is not None:
            self._sharing.draining_changed()

    def end_drained(self, reason: str) -> None:
        _log(f"this node ends: {reason}")
        self._end_reason = reason
        self.hub.tell_drivers({"t": "fatal", "text": f"this node has ended: {reason}"})
        self._begin_end(grace_s=EXIT_GRACE_S)

    # ---- clients ----

    def _door_of(self, process_id: bytes) -> str:
        """Where this process takes connections from other nodes; "" if it is not here."""
        if self._relays is not None and (path := self._relays.door_of(process_id)):
            return str(path)
        client = self.hub.clients.get(process_id.hex())
        is_here = client is not None and not client.is_tool
        return f"{self._config['session_dir']}/{process_id.hex()}.door" if is_here else ""

    def _on_find_node(self, client: Client, message: Message, _body: bytes) -> None:
        if self.directory is not None:
            self.directory.on_find(client.id, message["node"])
        else:
            self.hub.send(client.id, {"t": "node_at", "node": message["node"], "address": ""})

    def may_join(self, hello: Message) -> str:
        if self._fatal:
            self._begin_end(grace_s=0.0)
            return self._fatal
        if hello["kind"] == "worker" and hello["id"] not in self.agent.workers:
            return f"no worker with the id {hello['id']} was started here"
        if hello["kind"] == "driver" and self._config["embedded"] and self.hub.drivers():
            return "this runtime is private to the program that started it, which is connected already"
        if hello["kind"] == "driver" and self._drains is not None and self._drains.reason:
            return f"this node is being drained ({self._drains.reason}), and will end; connect to another node of its cluster"
        if hello["kind"] == "driver" and self._jobs is not None:
            refusal: str = self._jobs.refusal(hello["job"]) or self.control.driver_trouble()
            return refusal
        return ""

    def on_joining(self, client: Client, hello: Message) -> None:
        if self._door is not None and not client.is_tool:
            client.token = self._door.submit_token
        if client.is_driver:
            facts = hello["job"] if self._jobs is not None else None
            client.job_id, client.job = self.control.job_begins(client.id, client.pid, facts)
            client.wants_output = bool((facts or self._config)["log_to_driver"])
            if self._jobs is not None:
                self._jobs.began(client.job)
        elif not client.is_tool:
            client.job_id = self.job_of_worker(client.id)
            if self._jobs is not None:
                client.job = self._jobs.environment(client.job_id)

    def welcome(self, client: Client, message: Message) -> None:
        (self.control.send if client.is_driver else self.send)(client.id, message)

    def job_of_worker(self, worker: str) -> str:
        """The id of the job whose driver it works for, however indirectly."""
        return str(self._jobs.job_of(worker)) if self._jobs is not None else PRIVATE_JOB

    def job_of(self, client: str) -> tuple[str, Any]:
        """As all nodes of the cluster know the job. A job of another node's is one of its own here, see `lease_sharing`."""
        known = self.hub.clients[client]
        job_id = known.job_id.partition("@")[0]
        return job_id, known.job if job_id == known.job_id else self._jobs.environment(job_id)

    def on_joined(self, client: Client) -> None:
        if client.is_tool:
            return
        now_s = self.now_s()
        if self.directory is not None:
            self.directory.on_joined(client.id)
        self.decide(ev.ClientJoined(client.id, now_s))
        if not client.is_driver:
            self.forks.on_connected(client.id, client.pid)
            self.decide(ev.WorkerReady(client.id, now_s))
            facts = {"worker": client.id, "node": self._config["node_id"], "pid": client.pid, "ready": time.time()}
            self.history.add_worker(facts)
        elif client.job is not None:
            self._hold(client, None)

    def on_message(self, client: Client, message: Message, body: bytes) -> None:
        kind = message["t"]
        if kind in self.control.on:
            self.control.on[kind](client.id, client.namespace, message, body)
        else:
            self._on[kind](client, message, body)

    def on_gone(self, client: Client) -> None:
        self._queries.on_gone(client)
        if client.is_tool:
            return
        if self._metrics is not None:
            self._metrics.on_gone(client)
        now_s = self.now_s()
        self.decide(ev.ClientLeft(client.id, now_s))
        if self._sharing is not None:
            self._sharing.client_gone(client)
        self.control.client_gone(client.id, self._relays.why_gone(client.pid) if self._relays is not None else "")
        self.store.client_gone(client.id)
        if self._values is not None:
            self._values.client_gone(client.id)
        for ending in ("door", "sock"):  # a node may outlive many programs
            with contextlib.suppress(OSError):
                os.unlink(f"{self._config['session_dir']}/{client.id}.{ending}")
        if client.is_driver and self._jobs is not None:
            self._jobs.ended(client.job_id)
        if client.is_driver and self._config["embedded"]:
            self._begin_end(grace_s=0.0)

    # ---- leases ----

    def _start_worker(self, command: ev.StartWorker) -> None:
        env = json.loads(command.env) if command.env else None
        if self._jobs is not None:
            env = self._jobs.starts(command.worker, env)
        self.forks.start(command.worker, env, command.server)

    def _in_job(self, env: Any, job: Any) -> Any:
        """An environment that came from outside, as it is known here."""
        return env if job is None else {**(env or {}), "job": job.id}

    def _on_demand(self, client: Client, message: Message, _body: bytes) -> None:
        if client.job is None and self._jobs is not None:
            client.job = self._jobs.environment(client.job_id)  # its job was not known here when the worker came
            if client.job is None:
                if message["count"]:
                    self.tell_failed(client.id, message["key"], "its job has ended")
                return
        if self._sharing is not None and self._sharing.on_demand(client, message):
            return
        env = self._in_job(message["env"], client.job)
        impossible, is_unschedulable = self._impossible(message["strategy"], message["env"])
        if impossible and message["count"]:
            self.tell_failed(client.id, message["key"], impossible, is_unschedulable=is_unschedulable)
            return
        group = message["strategy"].get("placement_group") if isinstance(message["strategy"], dict) else None
        trouble = self.control.group_trouble(group) if group and message["count"] else ""
        if trouble:
            reason = f"the placement group {group} that it was to run in is gone: {trouble}"
            self.tell_failed(client.id, message["key"], reason, is_group_gone=True)
            return
        refusal = self._refusal(message["label_selectors"])
        self.decide(self.wish_of(client.id, message, env, message["count"], refusal))

    def wish_of(
        self, client: str, message: Message, env: Any, count: int, refusal: str, source: str = ""
    ) -> ev.DemandChanged:
        """A "demand", for the agent's machine. env: as it is known here; source: a node that has its packages."""
        return ev.DemandChanged(
            client,
            message["key"],
            message["resources"],
            count,
            message["depth"],
            _env_key(env),
            refusal,
            self.now_s(),
            message["strategy"],
            *self._build_of(env),
            source,
            self._terms_of(env),
        )

    def _terms_of(self, env: Any) -> ev.Job:
        """Of the job that an environment is of, as that is known here."""
        return self._jobs.terms(env["job"]) if self._jobs is not None and env else ev.NO_JOB

    def is_env_allowed(self, env: Any) -> bool:
        return len(_env_key(env)) <= ENV_BYTES_MAX

    def _on_hold_environment(self, client: Client, message: Message, _body: bytes) -> None:
        self._hold(client, message["env"])

    def _hold(self, client: Client, env: Any) -> None:
        """Have the fork server of an environment ready for as long as the client is here."""
        key, timeout_s = self._build_of(self._in_job(env, client.job))
        if key:
            from umbel._agent import environments

            self.decide(environments.Held(client.id, key, timeout_s, self.now_s()))

    def _build_of(self, env: Any) -> tuple[str, float | None]:
        """What has to be built for an environment; "" for nothing."""
        if not env or not (env.get("built") or "job" in env):
            return "", None
        from umbel._agent import environments, packages

        if environments.Begin not in self._do:
            self._do[environments.Begin] = self._build
            self._do[environments.End] = lambda command: self.forks.end_server(command.server)
            self._do[packages.Fetch] = lambda command: self._links_for_packages().fetch(command)
            self._do[packages.Abandon] = lambda command: self._links_for_packages().abandon(command)
        return environments.build_of(env)

    def _build(self, command: environments.Begin) -> None:
        wanted = json.loads(command.key)
        job = self._jobs.configuration(wanted["job"]) if "job" in wanted else None
        self.forks.build(command.server, wanted["built"], job)

    def _packages(self) -> Any:
        """What knows which packages are here, for the agent's machine."""
        from umbel._agent import packages
        from umbel._base import config

        return packages.Packages(
            self._has_package,
            lambda: [node["node_id"] for node in self.other_nodes() if node["alive"]],
            lambda: config.Config.from_environment().runtime_env_package_bytes_max,
        )

    def _has_package(self, name: str) -> bool:
        from umbel._environments import packing  # rarely needed, and not quick to import

        return packing.Packages(packing.directory_of(self._config["session_dir"]), bytes_max=0).has(name)

    def _preparing(self, command: ev.Preparing) -> None:
        if command.actor:
            self.control.preparing(command.actor, command.text)
        elif self._sharing is not None:
            self._sharing.preparing(command.client, command.key, command.text)

    def _log_of(self, server: str) -> str:
        return f"{self._config['session_dir']}/{server}.log"

    def _with_log(self, command: ev.DemandFailed | ev.ActorUnplaceable) -> str:
        output = self.forks.output_of(command.log_of) if command.log_of else ""
        return f"{command.reason}\n{output}" if output else command.reason

    def _on_return(self, client: Client, message: Message, _body: bytes) -> None:
        worker, is_retired = message["worker"], message["retire"]
        if self._sharing is None or not self._sharing.returns(client.id, worker, is_retired=is_retired):
            self.returned(client.id, worker, is_retired=is_retired)

    def returned(self, client: str, worker: str, *, is_retired: bool) -> None:
        """A lease of a worker of this node goes back."""
        is_retired = is_retired or self.memory.given_back(worker)
        self.decide(ev.LeaseReturned(client, worker, is_retired, self.now_s()))

    def _on_kill_worker(self, client: Client, message: Message, _body: bytes) -> None:
        worker, reason = message["worker"], message["reason"]
        if self._sharing is None or not self._sharing.kills(client.id, worker, reason):
            self.decide(ev.KillRequested(client.id, worker, reason, self.now_s()))

    def _on_task_seen(self, client: Client, message: Message, _body: bytes) -> None:
        """A worker says what it runs, for it may have to be stopped."""
        keeps = message["keeps"]
        if not keeps and self.control.owns_actors(client.id):
            keeps = "it has created actors"
        self.decide(ev.TaskSeen(client.id, message["task"], message["since_s"], keeps, self.now_s()))

    def _preempt(self, command: ev.Preempt) -> None:
        """The worker is held still, so that it begins nothing else while it is looked at what it runs."""
        from umbel._agent import freezing

        pid = self.forks.pid_of(command.worker)
        if not pid:
            return
        if freezing.freeze(pid) and self.progress(command.worker) == (command.task, True):
            self.decide(ev.TaskPreempted(command.worker, command.reason, self.now_s()))
        else:
            freezing.thaw(pid)

    def address_of(self, worker: str) -> str:
        return f"{self._config['session_dir']}/{worker}.sock"

    def _impossible(self, strategy: Any, env: Any) -> tuple[str, bool]:
        """Why what was asked for can never be had, or ""; and whether that is for where it is to run. Spreading means
        nothing on one node."""
        if len(_env_key(env)) > ENV_BYTES_MAX:
            return (
                f"its runtime environment takes {len(_env_key(env))} bytes as JSON, allowed are {ENV_BYTES_MAX}; "
                "pass large values by file or as arguments"
            ), False
        wanted = strategy.get("node_id") if isinstance(strategy, dict) else None
        if wanted in (None, self._config["node_id"]) or strategy.get("soft"):
            return "", False
        if self._cluster is not None:
            from umbel._agent import elsewhere

            return f"it must run on node {wanted}, {elsewhere.by_id(self._cluster.listed(), wanted)}", True
        return (
            f"it must run on node {wanted}, which is not alive; the only node is {self._config['node_id']}: "
            "correct the node id or make the affinity soft"
        ), True

    def _refusal(self, selectors: Any) -> str:
        """Why this node's labels meet none of these selectors, or ""."""
        if not selectors:
            return ""
        from umbel._model import node_labels  # rarely needed, and not quick to import

        labels = {node_labels.NODE_ID: self._config["node_id"], **self._config["labels"]}
        if any(node_labels.meets(selector, labels) for selector in selectors):
            return ""
        needs = f"it needs a node with the labels {node_labels.in_words(selectors)}, but"
        advice = "correct the label selector, or start the node with such labels"
        others = self.other_nodes()
        if not others:
            return f"{needs} the only one has {labels}; {advice}"
        from umbel._agent import elsewhere

        return f"{needs} this one has {labels}{elsewhere.with_labels(others, selectors)}; {advice}"

    def _elsewhere(self, needs: Mapping[str, int]) -> str:
        """What other nodes have of resources that this one lacks, in words."""
        others = self.other_nodes()
        if not others:
            return ""
        from umbel._agent import elsewhere

        return elsewhere.with_resources(others, needs)

    def _ask_exit(self, command: ev.AskExit) -> None:
        is_unused = self.agent.workers[command.worker].state is WorkerState.LEAVING
        if is_unused and self.control.owns_actors(command.worker):
            self.decide(ev.WorkerStayed(command.worker, self.now_s()))  # its actors would die with it
        else:
            self.hub.send(command.worker, {"t": "exit", "idle": command.is_idle})

    def _host_actor(self, command: ev.HostActor) -> None:
        self.memory.worker_is_used(command.worker, command.resources)
        self.control.hosted(command.actor, command.worker, self.address_of(command.worker), command.accelerators)

    def _grant(self, command: ev.Grant) -> None:
        self.memory.worker_is_used(command.worker, command.resources)
        accelerators, resources = dict(command.accelerators), dict(command.resources)
        self.hub.send(
            command.worker,
            {"t": "leased", "client": command.client, "accelerators": accelerators, "resources": resources},
        )
        message = {
            "t": "grant",
            "key": command.key,
            "worker": command.worker,
            "address": self.address_of(command.worker),
            "pid": self.forks.pid_of(command.worker),
            "accelerators": accelerators,
            "resources": resources,
        }
        if self._sharing is None or not self._sharing.granted(command.client, command.key, message):
            self.hub.send(command.client, message)

    def _tell_holder(self, client: str, message: Message) -> None:
        """Of a lease, who may be a process of another node."""
        if self._sharing is None or not self._sharing.tell(client, message):
            self.hub.send(client, message)

    # ---- what did not go well ----

    def _lease_broken(self, command: ev.LeaseBroken) -> None:
        self._tell_holder(
            command.client,
            {
                "t": "worker_died",
                "worker": command.worker,
                "pid": self.forks.pid_of(command.worker),
                "exit_code": command.exit_code,
                "signal": command.signal,
                "reason": endings.in_words(command.exit_code, command.signal, command.reason),
                "started": self._progress(command.worker),
                "intended": command.is_intended,
                "memory": self.memory.report_of(command.worker),
                "group": command.group,
                "preempted": command.is_preempted,
            },
        )

    def _actor_worker_died(self, command: ev.ActorWorkerDied) -> None:
        pid = self.forks.pid_of(command.worker)
        reason = f"its process (pid {pid}) {endings.in_words(command.exit_code, command.signal, command.reason)}"
        self.control.host_died(command.actor, command.worker, reason, memory=self.memory.report_of(command.worker))

    def _demand_failed(self, command: ev.DemandFailed) -> None:
        reason = self._with_log(command)
        self.tell_failed(
            command.client,
            command.key,
            reason,
            is_unschedulable=command.is_unschedulable,
            is_group_gone=command.is_group_gone,
        )
        if self._sharing is not None:
            self._sharing.failed(command.client, command.key)

    def tell_failed(
        self, client: str, key: str, reason: str, *, is_unschedulable: bool = False, is_group_gone: bool = False
    ) -> None:
        message = {"t": "demand_failed", "key": key, "reason": reason, "unschedulable": is_unschedulable}
        self._tell_holder(client, {**message, "group_gone": is_group_gone})

    # ---- what the control service may ask for ----

    def send(self, client: str, message: Message, body: bytes = b"") -> None:
        if message["t"] == "actor_state" and message["state"] == "ALIVE":
            self.worker_elsewhere(message["worker"])
        self.hub.send(client, message, body)

    def worker_elsewhere(self, worker: str, pid: int = 0) -> None:
        """A process here may send tasks or calls to this worker: where that is, if it is on another node, is for the history."""
        node = self._nodes_by_tag.get(nodes.tag_in(worker))
        if node is not None:
            self.history.add_worker({"worker": worker, "node": node, **({"pid": pid} if pid else {})})

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None:
        self.hub.reply(client, request, message, body)

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None:
        self.hub.refuse(client, request, kind, text)

    def place_actor(self, spec: ActorWish, source: str = "") -> None:
        """source: another node that has the packages of its environment; "" for none."""
        env = self._in_job(spec.env, spec.job)
        impossible, is_unschedulable = self._impossible(spec.strategy, env)
        if impossible:
            self.control.unplaceable(spec.actor, impossible, is_unschedulable=is_unschedulable)
            return
        self.decide(
            ev.ActorWanted(
                spec.actor,
                spec.placement,
                spec.running,
                spec.depth,
                _env_key(env),
                self._refusal(spec.label_selectors),
                self.now_s(),
                spec.strategy,
                *self._build_of(env),
                source,
                self._terms_of(env),
            )
        )

    def is_here(self, _client: str) -> bool:
        return True

    def late_s(self, _actor: str) -> float:
        return 0.0

    def ends_of(self, _workers: Iterable[str]) -> Mapping[str, Any]:
        return {}

    def job_environment(self, job_id: str) -> Any:
        return self._jobs.environment(job_id)

    def knows_job(self, environment: Any) -> None:
        self._jobs.knows(environment)

    def jobs_of_processes(self) -> Mapping[str, str]:
        """Of all processes here that take part, with the id of each one's job as all nodes of the cluster know it."""
        return {one.id: one.job_id.partition("@")[0] for one in self.hub.clients.values() if not one.is_tool}

    def pid_of(self, worker: str) -> int:
        return self.forks.pid_of(worker)

    def node_of(self, process: str) -> str:
        elsewhere = self.members.where(process) if self.members is not None else ""
        return elsewhere or str(self._config["node_id"])

    def with_place(self, listed: Message) -> Message:
        place = {"node_id": self._config["node_id"], "pid": self.forks.pid_of(listed["worker"])}
        return {**listed, **place, **(self.members.place_of(listed) if self.members is not None else {})}

    def answer(self, what: str) -> Any:
        return self._queries.answer(what)

    def answer_query(self, client: str, message: Message) -> None:
        self._queries.on_query(self.hub.clients[client], message, b"")

    def actor_dead(self, actor: str, facts: Message) -> None:
        self.history.add_actor(actor, {"node_id": self._config["node_id"], **facts})

    def release_actor(self, actor: str, grace_s: float | None) -> None:
        self.decide(ev.ActorReleased(actor, grace_s, self.now_s()))

    def kill_actor(self, actor: str, reason: str) -> None:
        self.decide(ev.ActorUnwanted(actor, reason, self.now_s()))

    # ---- what the service of placement groups may ask for ----

    @property
    def infeasible_timeout_s(self) -> float | None:
        found: float | None = self._config.get("infeasible_timeout_s")
        return found

    def warn(self, text: str) -> None:
        self.hub.tell_drivers({"t": "warn", "text": text})

    def as_seen(self) -> Message:
        ledger, config = self.agent.ledger, self._config
        available = {name: max(0, free) for name, free in ledger.free.items()}
        return {
            "node_id": config["node_id"], "total": ledger.total, "available": available, "labels": config["labels"],
        }  # fmt: skip

    def nodes_seen(self) -> list[Any]:
        return [self.node_seen("")]

    def node_seen(self, _node: str) -> Any:
        from umbel._model import placement, resources

        seen = self.as_seen()
        total, free = resources.ResourceSet(seen["total"]), resources.ResourceSet(seen["available"])
        return placement.NodeView(seen["node_id"], total, free, seen["labels"], is_local=True)

    def driver_of(self, client: str) -> str:
        job_id = self.hub.clients[client].job_id
        return next((one.id for one in self.hub.drivers() if one.job_id == job_id), "")

    def reserve_bundles(
        self, _node: str, group: str, attempt: int, wanted: Mapping[int, Mapping[str, int]], depth: int, job: list[Any]
    ) -> None:
        self.decide(ev.BundlesWanted(group, attempt, wanted, depth, self.now_s(), ev.Job(*job)))

    def commit_bundles(self, _node: str, group: str, attempt: int) -> None:
        self.decide(ev.BundlesCommitted(group, attempt, self.now_s()))

    def cancel_bundles(self, _node: str, group: str, attempt: int) -> None:
        self.decide(ev.BundlesUnwanted(group, attempt, self.now_s()))

    def drop_group(self, _node: str, group: str, reason: str) -> None:
        self.decide(ev.GroupDropped(group, reason, self.now_s()))

    def held_bundles(self) -> list[tuple[str, int, list[int], bool]]:
        return self.agent.bundles.by_attempt()

    def tell_places(self, _node: str, message: Message) -> None:
        if self._sharing is not None:
            self._sharing.on_group(message)

    # ----

    def _progress(self, worker: str) -> int:
        """The counter of the task that the worker started last, or -1."""
        return self.progress(worker)[0]

    def progress(self, worker: str) -> tuple[int, bool]:
        """The same, and whether that task is tried again if the worker dies."""
        try:
            with open(f"{self._config['session_dir']}/{worker}.progress", "rb", buffering=0) as file:
                data = file.read(9)
        except OSError:
            return -1, True
        if len(data) < 8:
            return -1, True
        return int.from_bytes(data[:8], "little", signed=True), not any(data[8:])

    # ---- the fork server's reports ----

    def on_worker_exited(self, worker: str, exit_code: int, signal: int) -> None:
        client = self.hub.clients.get(worker)
        if client is not None:
            client.connection.drain()  # what it said last counts before its end
            client.connection.close()  # a process that it forked may have kept it open
        if self._log_files is not None:
            self._log_files.ended(worker, self.forks.pid_of(worker))
        self.memory.exited(worker, signal)
        self._note_end(worker, exit_code, signal)
        self.decide(ev.WorkerExited(worker, exit_code, signal, self.now_s(), self._failure_of(worker)))
        self.memory.forget(worker)
        if self._jobs is not None:
            self._jobs.exited(worker)
        for ending in ("sock", "door", "progress", "failed"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self._config['session_dir']}/{worker}.{ending}")

    def _note_end(self, worker: str, exit_code: int, signal: int) -> None:
        """Tell the history how a worker ended."""
        known = self.agent.workers.get(worker)
        reason, is_intended = (known.reason, known.is_intended) if known is not None else ("", False)
        report = self.memory.report_of(worker)
        exit_type, detail = endings.end_of(exit_code, signal, reason, report, is_intended=is_intended)
        self.history.add_worker({"worker": worker, "ended": time.time(), "exit_type": exit_type, "exit_detail": detail})

    def _note_last(self) -> None:
        """Tell the history of the actors and workers that end with the session."""
        for one in self.control.listed():
            if one["state"] != "DEAD":
                was = "" if one["state"] == "ALIVE" else f" while it was {one['state']}"
                reason = f"its session ended{was}"
                self.actor_dead(one["actor"], {**one, "state": "DEAD", "cause": "intended", "reason": reason})
        for worker in self.agent.workers:
            if self.forks.pid_of(worker):
                end = {"ended": time.time(), "exit_type": "INTENDED_SYSTEM_EXIT", "exit_detail": "its session ended"}
                self.history.add_worker({"worker": worker, **end})

    def _failure_of(self, worker: str) -> str:
        """What a worker has left to say that could not start."""
        known = self.agent.workers.get(worker)
        if known is None or known.state is not WorkerState.STARTING:
            return ""
        try:
            with open(f"{self._config['session_dir']}/{worker}.failed", encoding="utf-8") as file:
                return file.read(FAILURE_CHARS_MAX)
        except OSError:
            return ""

    def on_environment_building(self, server: str, text: str) -> None:
        from umbel._agent import environments

        self.decide(environments.Doing(server, text, self.now_s()))

    def on_environment_ready(self, server: str) -> None:
        from umbel._agent import environments

        self.decide(environments.Ready(server, self.now_s()))

    def on_environment_gone(self, server: str, reason: str) -> None:
        from umbel._agent import environments

        self.decide(environments.Gone(server, reason, self.now_s()))

    def on_fork_server_message(self, message: Message) -> None:
        """Nothing but what `forks` passes on itself is said."""

    def on_worker_lines(self, worker: str, pid: int, is_error: bool, groups: list[output.Group]) -> None:
        if self._config.get("log_files"):
            self._write_log(worker, pid, is_error, groups)
        job = self.job_of_worker(worker)
        if self._sharing is None and not any(client.wants_output for client in self.hub.drivers()):
            return
        for name, lines in output.by_name(groups):
            message = {"t": "log", "worker": worker, "pid": pid, "name": name, "is_err": is_error, "lines": lines}
            self.tell_lines(job, message)

    def tell_lines(self, job: str, message: Message, *, is_relayed: bool = False) -> None:
        """To the driver of the job, wherever that is. is_relayed: it has come from another node."""
        number = job.partition("@")[0]  # by which all nodes know it; the rest says from where it is known here
        if self._sharing is None or any(client.job_id == number for client in self.hub.drivers()):
            self.hub.forward_lines(message, number)
            return
        driver = self.control.driver_of_job(job)
        if self._sharing.wants_lines(job, driver):
            self._sharing.send_lines(job, message, driver, is_relayed=is_relayed)

    def _write_log(self, worker: str, pid: int, is_error: bool, groups: list[output.Group]) -> None:
        if self._log_files is None:
            from umbel._agent import log_files

            self._log_files = log_files.LogFiles(
                self._config["session_dir"], report=self.on_fork_server_warning, **self._config["log_files"]
            )
        known = self.agent.workers.get(worker)
        actor = known.lease.actor if known is not None and known.lease is not None else ""
        self._log_files.write(worker, pid, is_error=is_error, actor=actor, groups=groups, at_s=time.time())

    def on_fork_server_warning(self, text: str) -> None:
        self.hub.tell_drivers({"t": "warn", "text": text})

    def on_fork_server_failed(self, text: str) -> None:
        if self._end_at_s is not None:
            return
        self.hub.tell_drivers({"t": "fatal", "text": text})
        if not self.hub.drivers():
            self._fatal = text  # the driver that will connect presently shall know
        self._begin_end(grace_s=FATAL_WAIT_S if self._fatal else 0.0)


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
