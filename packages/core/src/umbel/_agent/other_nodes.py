"""What a node has to do with others: how they come in, where they are, what is said to them, and what goes between.

What does that is loaded when there is something of it: the door where other machines may come in, the link that makes this node
one of a cluster, and the services for leases, values, packages and programs of other machines, and for draining.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import events as ev
from umbel._base import nodes, sessions
from umbel._transport import connection as transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from umbel._agent import cluster_use
    from umbel._agent.history import History
    from umbel._agent.hub import Client, Hub, Message
    from umbel._agent.queries import Queries
    from umbel._agent.state import AgentState
    from umbel._agent.store_service import StoreService

    class Daemon(Protocol):
        """What is needed of the daemon that this is in."""

        poller: transport.Poller
        hub: Hub
        agent: AgentState
        history: History
        store: StoreService
        control: Any
        members: Any  # a `_control.members.Members`, on the head of a cluster
        scaling: Any  # a `scaling.Scaling`, or None
        jobs: Any  # a `jobs.NodeJobs`, or None
        leases: Any  # a `lease_service.LeaseService`; this and what is below is for `lease_sharing`
        reports: Any  # a `worker_reports.WorkerReports`

        def carry_out(self, commands: Iterable[Any]) -> None: ...

        def add_commands(self, handlers: Mapping[type, Callable[[Any], None]]) -> None: ...

        @property
        def queries(self) -> Queries: ...

        def now_s(self) -> float: ...

        def time_s(self) -> float: ...

        def decide(self, *events: Any) -> None: ...

        def log(self, line: str) -> None: ...

        @property
        def is_ending(self) -> bool: ...

        def end_node(self, reason: str) -> None:
            """End, with all that runs here: this node is none of its cluster any more."""

        def end_drained(self, reason: str) -> None:
            """End, as the node was to."""


class OtherNodes:
    """Stands for the daemon towards what is in a cluster's head and its link."""

    def __init__(self, daemon: Daemon, config: Message) -> None:
        self._daemon = daemon
        self._config = config
        self._node_id: str = config["node_id"]
        self.poller, self.members, self.control = daemon.poller, daemon.members, daemon.control
        self.now_s, self.time_s, self.decide, self.log = daemon.now_s, daemon.time_s, daemon.decide, daemon.log
        self.end_node, self.end_drained = daemon.end_node, daemon.end_drained
        self.address = ""  # where others reach this node; "" where nobody does
        self.link: Any = (
            None  # a `_control.node_service.NodeService` or a `head_link.HeadLink`, once it is in a cluster
        )
        self.directory: Any = None  # a `directory.Directory` of the nodes, where other machines may come in
        self.sharing: Any = None  # a `lease_sharing.Sharing`, likewise
        self.drains: Any = None  # a `drain_service.DrainService`, once a node is to be drained
        self._door: Any = None  # a `door.Door`, where other machines may come in
        self._values: Any = None  # a `value_wants.ValueWants`, once values go from node to node
        self._package_links: Any = None  # a `package_links.PackageLinks`, once packages do
        self._relays: Any = None  # a `relays.Relays`, once a program of another machine has come
        self._use_news: cluster_use.UseNews | None = None
        self._policy: Any = None  # a `spi.SchedulingPolicy`, once something is to be placed
        self._reacher: Any = None  # a `reacher.Reacher`, once a node is to be connected to
        self._nodes_by_tag: dict[str, str] = {}  # all other ones that there are and were
        self.on: dict[str, Callable[[Client, Message, bytes], None]] = {
            "find_node": self._on_find_node,
            "reach": self._on_reach,
            "drain_node": lambda client, message, _body: self.drain_service().on_request(client, message),
            **dict.fromkeys(
                ("want_value", "unwant_value", "value_copied", "value_freed", "left_freed", "values_kept"),
                self._on_value,
            ),
        }
        if config.get("listen"):
            self._open_door()

    # ---- coming in ----

    def _open_door(self) -> None:
        from umbel._agent import directory, door, lease_sharing
        from umbel._transport import own_tls

        daemon, config = self._daemon, self._config
        own_tls.use(config["tls_directory"])
        token = token_of(config)
        if daemon.jobs is not None:
            self.sharing = lease_sharing.Sharing(daemon, self, config, daemon.jobs, token)
        self.directory = directory.Directory(
            nodes.tag_of_node(self._node_id), daemon.hub.send, daemon.hub.tell_processes
        )
        daemon.store.keeps_for = self._keeps_for
        self._door = door.Door(
            daemon.poller,
            config["listen"],
            token,
            lambda stream, *, may_change: daemon.hub.admit(stream, may_change=may_change),
            self._door_of,
            tag=nodes.tag_of_node(self._node_id),
            listens=self._listens,
            take_ticket=lambda sock, preamble: self.reacher().takes(sock, preamble),
            admit_node=None if config.get("head") else self._admit_node,
            admit_values=self._admit_values,
            admit_packages=lambda stream: self.links_for_packages().admit(stream),
            admit_lessee=self.sharing.admit if self.sharing is not None else None,
            admit_program=self._admit_program if daemon.jobs is not None else None,
            now_s=self.now_s,
            warn=self.log,
        )
        self.address = self._advertised()

    @property
    def _listens(self) -> bool:
        """Whether other nodes can dial this one."""
        return bool(self._config.get("listens", True))

    def take_stranger(self, sock: socket.socket, host: str) -> None:
        """A connection that this node has dialled, as if it had been accepted."""
        self._door.take(sock, host)

    def _advertised(self) -> str:
        host: str = self._config.get("node_host") or ""
        if not host:
            return str(self._door.address)
        port = self._door.address.rpartition(":")[2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def node_token(self) -> Any:
        """With which this node comes to others; None where there are none."""
        return self._door.token if self._door is not None else None

    def submit_token(self) -> str:
        """With which a process of this node comes to those of others; "" where there are none."""
        return str(self._door.submit_token) if self._door is not None else ""

    def _door_of(self, process_id: bytes) -> str:
        """Where this process takes connections from other nodes; "" if it is not here."""
        if self._relays is not None and (path := self._relays.door_of(process_id)):
            return str(path)
        client = self._daemon.hub.clients.get(process_id.hex())
        is_here = client is not None and not client.is_tool
        return f"{self._config['session_dir']}/{process_id.hex()}.door" if is_here else ""

    def _admit_node(self, stream: transport.Stream) -> None:
        self.link.admit(stream)

    def _admit_values(self, stream: transport.Stream) -> None:
        self._value_wants().values.accept(stream)

    def _admit_program(self, stream: transport.Stream) -> None:
        if self._relays is None:
            from umbel._agent import relays

            submit_token = self._door.submit_token
            self._relays = relays.Relays(
                self.poller, self._config, submit_token, self.address, self._reach_for, self.log
            )
        self._relays.admit(stream)

    # ---- the cluster ----

    def join(self) -> None:
        """Make what keeps a head's nodes, or a node's connection to its head; nothing for a node on its own."""
        config = self._config
        if config.get("head"):
            from umbel._agent import head_link

            times = {"join_s": config["join_s"], "head_lost_s": config["head_lost_s"]}
            self.link = head_link.HeadLink(self, config["head"], token_of(config), **times)
        elif self._door is not None:
            self.link = importlib.import_module(config["node_service"]).NodeService(self, config["health"])

    def await_members(self) -> None:
        """Those that may come back to this head, which has started again."""
        for node in self.listed() if self.sharing is not None else ():
            if node.get("is_awaited"):
                self._nodes_by_tag[nodes.tag_text(node["node_id"])] = node["node_id"]
                self.sharing.node_awaited(node)

    @property
    def is_joining(self) -> bool:
        """Whether this node is to be a member of a cluster, and is none yet."""
        return self.link is not None and not self.link.is_head and not self.link.has_joined

    def when_joined(self, tell: Callable[[str], None]) -> None:
        """tell: why this node is no member of the cluster that it was to join, or ""; at once where it was to join none."""
        if self.link is None or self.link.is_head:
            tell("")
        else:
            self.link.when_joined(tell)

    def note_outliving(self, cluster: str = "", head: str = "") -> None:
        """For programs and commands of this machine. cluster, head: as the node has been told when it joined."""
        if self.link is not None and self.link.is_head:
            cluster, head = self.link.table.cluster, self.address
        labels = json.dumps(self._config["labels"])
        found = sessions.Outliving(self._node_id, self.address, cluster, head, labels)
        sessions.note_outliving(self._config["session_dir"], found)

    def listed(self) -> list[Message]:
        """Of the cluster, the dead among them."""
        found = self.link.listed() if self.link is not None else []
        return [node for node in found if node["node_id"] != self._node_id]

    def facts(self, node_id: str) -> Message | None:
        """Of one of them, without a look at the others; None for one that is not known."""
        found: Message | None = self.link.node_facts(node_id) if self.link is not None else None
        return found

    def node_appeared(self, node_id: str, address: str) -> None:
        self.log(f"node {node_id} is a member of the cluster, at {address}")
        self.directory.set(nodes.tag_of_node(node_id), address)
        if node_id != self._node_id:
            self._nodes_by_tag[nodes.tag_text(node_id)] = node_id
        if self.sharing is not None:
            self.sharing.node_appeared(node_id, address)

    def node_died(self, node_id: str, reason: str) -> None:
        self.log(f"node {node_id} is dead: {reason}")
        self.directory.forget(nodes.tag_of_node(node_id))
        self._daemon.queries.node_died(node_id)
        if self._reacher is not None:
            self._reacher.node_gone(node_id)
        if self._values is not None:
            self._values.node_died(node_id)
        if self._daemon.agent.environments is not None:
            from umbel._agent import packages

            self.decide(packages.NodeDied(node_id, self.now_s()))
        if self.members is not None:
            self.members.node_gone(node_id, reason)
        if self.sharing is not None:
            self.sharing.node_died(node_id, reason)

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        changes = list(changes)
        if self.sharing is not None:
            self.sharing.nodes_changed(changes)
        if self.members is not None:
            self.members.nodes_changed(changes)
        for change in changes:
            if change.get("draining") and change.get("alive", True):
                self.directory.drains(nodes.tag_of_node(change["node_id"]))

    def _on_find_node(self, client: Client, message: Message, _body: bytes) -> None:
        if self.directory is not None:
            is_dialled = self._reacher is None or self._reacher.is_dialled(message["node"])
            self.directory.on_find(client.id, message["node"], is_dialled=is_dialled)
        else:
            told = {"t": "node_at", "node": message["node"], "address": "", "is_dialled": True}
            self._daemon.hub.send(client.id, told)

    def address_of_node(self, node: str) -> str:
        return str(self.directory.address_of(nodes.tag_of_node(node)))

    def worker_elsewhere(self, worker: str, pid: int = 0) -> None:
        """A process here may send tasks or calls to this worker: where that is, if it is on another node, is for the history."""
        node = self._nodes_by_tag.get(nodes.tag_in(worker))
        if node is not None:
            self._daemon.history.add_worker({"worker": worker, "node": node, **({"pid": pid} if pid else {})})

    # ---- those that cannot be dialled ----

    def reacher(self) -> Any:
        """A `reacher.Reacher`; only where there are other nodes."""
        if self._reacher is None:
            from umbel._agent import reacher

            self._reacher = reacher.Reacher(
                self,
                self._door.token,
                self._config["session_dir"],
                listens=self._listens,
                is_head=not self._config.get("head"),
            )
        return self._reacher

    def node_with_tag(self, tag: bytes) -> str:
        """The id of one that is alive; "" for none."""
        return self._nodes_by_tag.get(tag.hex(), "") if self.directory.address_of(tag) else ""

    def reached(self, node_id: str) -> str:
        """How it is reached, in words; "" if by dialling it, or not at all yet."""
        return str(self._reacher.way_to(node_id)) if self._reacher is not None else ""

    def on_reach(self, message: Message) -> None:
        """From the head."""
        self.reacher().on_head(message)

    def head_linked(self, *, is_linked: bool) -> None:
        """There is a connection to the head, or none any more."""
        if self._reacher is not None:
            self._reacher.head_linked(is_linked=is_linked)

    def _on_reach(self, client: Client, message: Message, _body: bytes) -> None:
        if self._door is not None:  # else there are no other nodes, and no process says so
            path = f"{self._config['session_dir']}/{client.id}.door"
            self._reach_for(message, path, lambda told: self._daemon.hub.send(client.id, told))

    def _reach_for(self, wish: Message, path: str, tell: Callable[[Message], None]) -> None:
        """A process wants a connection to a node that it cannot dial. path: where it takes that."""

        def unreached(ticket: bytes, reason: str) -> None:
            tell({"t": "unreached", "ticket": ticket.hex(), "reason": reason})

        self.reacher().reach_for(bytes.fromhex(wish["node"]), bytes.fromhex(wish["ticket"]), path, unreached)

    def forwarders(self) -> list[int]:
        """The processes, by pid, that connect other nodes to each other here."""
        found: list[int] = self._reacher.pids() if self._reacher is not None else []
        return found

    # ---- what they are told of this one ----

    @property
    def scaling(self) -> Any:
        """What an autoscaler has said here; None where there is none."""
        return self._daemon.scaling

    def scaling_head(self) -> str:
        """The node that can be asked what the autoscaler does; "" for none, or this one."""
        control: Any = self._daemon.control
        return self.link.head_id if self.link is not None and not self.link.is_head and control.tells_load else ""

    def own_facts(self) -> Message:
        return self._daemon.queries.own_facts()

    def own_state(self) -> Message:
        """What changes: what is free, how many leases are waited for, and what jobs have where several meet."""
        agent = self._daemon.agent
        waiting = sum(demand.count for demand in agent.demands.values())
        draining = self.drains.state() if self.drains is not None else {}
        jobs = agent.use_of_jobs(self.sharing.asking if self.sharing is not None else dict)
        told = {} if jobs is None else {"jobs": jobs}
        return {"available": dict(agent.ledger.free), "waiting": waiting, **draining, **told}

    def own_load(self) -> Message:
        """What waits here that other nodes could have as well, and whether anything runs; for the autoscaler."""
        from umbel._agent import load

        waiting = self.sharing.waiting() if self.sharing is not None else ()
        idle = load.idle_number(self._daemon.agent, has_drivers=bool(self._daemon.hub.drivers()))
        return {"tasks": load.of_tasks(waiting), "idle": idle}

    # ---- what jobs have of all nodes ----

    def use_news(self) -> cluster_use.UseNews:
        """What this node has told of its jobs, and heard of all; made once that matters."""
        if self._use_news is None:
            from umbel._agent import cluster_use

            self._use_news = cluster_use.UseNews(self._node_id)
        return self._use_news

    def use_told(self, use: cluster_use.ClusterUse | None) -> None:
        """What jobs have of the cluster; None once nobody tells any more."""
        self.decide(ev.ClusterUseTold(use, self.now_s()))
        if self.sharing is not None:
            self.sharing.use_told()

    # ---- where things go ----

    def placement_policy(self) -> Any:
        """By which leases are shared among the nodes, and actors placed at the head."""
        if self._policy is None:
            from umbel._agent import sharing_policies

            self._policy = sharing_policies.policy(
                self._config["scheduler"], self._config["sys_path"], self._policy_is_off
            )
        return self._policy

    def _policy_is_off(self, text: str) -> None:
        self.log(text)
        self._daemon.hub.tell_drivers({"t": "warn", "text": text})

    # ---- values and packages ----

    def _on_value(self, client: Client, message: Message, body: bytes) -> None:
        if self._door is not None:  # else there are no other nodes, and no process says so
            self._value_wants().on[message["t"]](client, message, body)

    def _value_wants(self) -> Any:
        if self._values is None:
            from umbel._agent import value_wants

            self._values = value_wants.ValueWants(self._daemon, self, self._node_id, self._door.token)
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
        if self.drains is not None:
            self.drains.look()

    def value_reason(self, key: str) -> Any:
        """A `reasons.Reason` why a value of another node is not here yet; None if it is, or nobody wants it."""
        return self._values.reason(key) if self._values is not None else None

    def client_gone(self, client: str) -> None:
        if self._values is not None:
            self._values.client_gone(client)

    def links_for_packages(self) -> Any:
        if self._package_links is None:
            from umbel._agent import package_links
            from umbel._environments import packing

            directory = packing.directory_of(self._config["session_dir"])
            self._package_links = package_links.PackageLinks(self, self._door.token, directory)
        return self._package_links

    # ---- draining ----

    def drain_service(self) -> Any:
        if self.drains is None:
            from umbel._agent import drain_service

            self.drains = drain_service.DrainService(self._daemon, self)
        return self.drains

    def asked_to_drain(self, message: Message) -> None:
        self.drain_service().asked(message)

    def drain_reason(self) -> str:
        """Why this node is being drained; "" if it is not."""
        return str(self.drains.reason) if self.drains is not None else ""

    def draining_changed(self) -> None:
        """Whether this node takes work has."""
        if self.sharing is not None:
            self.sharing.draining_changed()

    # ---- time, and the end ----

    @property
    def _has_none(self) -> bool:
        """Of what time matters to."""
        return self._door is None and self.link is None and self.drains is None

    def next_tick_s(self) -> float | None:
        if self._has_none:
            return None
        due = [
            self._door.next_tick_s() if self._door is not None else None,
            self._values.next_tick_s() if self._values is not None else None,
            self._package_links.next_tick_s() if self._package_links is not None else None,
            self._reacher.next_tick_s() if self._reacher is not None else None,
        ]
        if not self._daemon.is_ending:  # else nobody looks any more at what is due of these
            due += [
                self.link.next_tick_s() if self.link is not None else None,
                self.sharing.next_tick_s() if self.sharing is not None else None,
                self.drains.next_tick_s() if self.drains is not None else None,
            ]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self, now_s: float) -> None:
        if self._has_none:
            return
        daemon = self._daemon
        if self._door is not None and _is_due(self._door.next_tick_s(), now_s):
            self._door.tick()
        if self._values is not None and _is_due(self._values.next_tick_s(), now_s):
            self._values.tick()
        if self._package_links is not None and _is_due(self._package_links.next_tick_s(), now_s):
            self._package_links.tick()
        if self._reacher is not None and _is_due(self._reacher.next_tick_s(), now_s):
            self._reacher.tick()
        # By the clock after what is due was asked for: what is due at once says that it is due now.
        if self.link is not None and not daemon.is_ending and _is_due(self.link.next_tick_s(), self.now_s()):
            self.link.tick()
        if self.sharing is not None and not daemon.is_ending and _is_due(self.sharing.next_tick_s(), now_s):
            self.sharing.tick()
        if self.drains is not None and not daemon.is_ending and _is_due(self.drains.next_tick_s(), now_s):
            self.drains.look()

    def close_cluster(self, reason: str, *, ends_cluster: bool) -> None:
        """reason: why this node ends. ends_cluster: if it is the head."""
        if self.link is not None and self.link.is_head:
            self.link.close(reason, ends_cluster=ends_cluster)
        elif self.link is not None:
            self.link.close(reason)
        if self.sharing is not None:
            self.sharing.close()

    def close(self) -> None:
        if self._door is not None:
            self._door.close()
        if self._values is not None:
            self._values.values.close()
        if self._package_links is not None:
            self._package_links.close()
        if self._reacher is not None:
            self._reacher.close()

    def why_gone(self, pid: int) -> str:
        """Of the process that stood for a program of another machine, see `relays`; "" of another."""
        return str(self._relays.why_gone(pid)) if self._relays is not None else ""

    def does_not_answer(self, pid: int) -> str:
        return str(self._relays.does_not_answer(pid)) if self._relays is not None else ""

    def close_relays(self) -> None:
        if self._relays is not None:
            self._relays.close()


def token_of(config: Message) -> Any:
    """The cluster's, from its file, or from the environment. Raises AuthenticationError."""
    from umbel._base import token_files

    path = config["token_file"]
    return token_files.read(path) if path else token_files.find(os.environ)


def _is_due(at_s: float | None, now_s: float) -> bool:
    return at_s is not None and at_s <= now_s
