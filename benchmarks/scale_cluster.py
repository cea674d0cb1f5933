"""A head and any number of nodes in one process: the production services, links and messages, without sockets and daemons.

The head is `NodeService`, `Members` and `ActorService` with their tables, each node a `HeadLink` with its `ControlProxy`, and
between them are production connections, over streams that keep bytes in memory. What is not there is the kernel, the
handshake and the storage. A node's daemon is a stand-in that has a worker for an actor, and room for a bundle, as soon as it has
the resources; it keeps books by which `faults` finds what the head and the nodes do not agree about.

All time that passes is said by `Cluster.now_s`; what the head's thread takes is measured by the CPU's clock, frame by frame.
Most nodes are quiet: what they are told of other nodes is counted and not read, as it is read by other machines in a cluster.
"""

from __future__ import annotations

import cProfile
import functools
import hashlib
import io
import itertools
import pstats
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from umbel._agent import cluster_use, control_proxy, directory, head_link
from umbel._agent.ledger import CPU, UNIT
from umbel._base import nodes as node_ids
from umbel._base import tokens
from umbel._control import members, node_service, service
from umbel._scheduling import policies
from umbel._transport import connection as transport

HEADER_BYTES = 8  # of a control frame, before its text
NEWS = (b'{"t":"nodes"', b'{"t":"packed","of":"nodes"')
LISTING = (b'{"t":"listing"', b'{"t":"packed","of":"listing"')
BEGIN_BYTES = max(map(len, LISTING))
KIND = re.compile(rb'"t":"(\w+)"')
KIND_BYTES = 400  # of a frame's text: what is said, by whom, and the kind of what a process says
VERSION = "0"
FACTS = {"version": VERSION, "entrypoint": "program.py", "sys_path": [f"/srv/project/{one}" for one in range(8)]}
NAMESPACE = "scale"

Message = dict[str, Any]


class Meter:
    """What the head takes for each frame, in seconds of its thread's CPU time, by what is said in it."""

    def __init__(self) -> None:
        self.taken_s: dict[str, list[float]] = {}
        self._profile: cProfile.Profile | None = None

    def begin(self) -> None:
        self.taken_s = {}

    def begin_profile(self) -> None:
        """Of the head, by the same clock."""
        self._profile = cProfile.Profile(time.thread_time)

    def end_profile(self, lines: int) -> str:
        """What has taken most, in text; "" when the head had nothing to do."""
        profile, self._profile = self._profile, None
        if profile is None or not self.taken_s:
            return ""
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(lines)
        return text.getvalue()

    def measure(self, kind: str, do: Callable[[], Any], *, is_head: bool = True) -> None:
        profile = self._profile if is_head else None
        if profile is not None:
            profile.enable()
        began_s = time.thread_time()
        do()
        passed_s = time.thread_time() - began_s
        if profile is not None:
            profile.disable()
        self.taken_s.setdefault(kind, []).append(passed_s)


class End:
    """One side of a connection: a `transport.Stream`. It takes whatever it is given at once."""

    def __init__(self, network: Network, number: int, *, is_head: bool, reads_news: bool) -> None:
        self.number = number
        self.is_head = is_head
        self.reads_news = reads_news
        self.inbox: deque[bytes | memoryview] = deque()
        self.other: End
        self.is_ready = self.is_closed = False
        self._network = network

    def fileno(self) -> int:
        return self.number

    def setblocking(self, flag: bool, /) -> None:
        """It never blocks."""

    def recv(self, size: int, /) -> bytes:
        if not self.inbox:
            if self.other.is_closed:
                return b""
            raise BlockingIOError
        first = self.inbox.popleft()
        if len(first) > size:
            self.inbox.appendleft(memoryview(first)[size:])
            first = memoryview(first)[:size]
        return bytes(first)

    def send(self, data: bytes | memoryview, /) -> int:
        other = self.other
        if self.is_closed or other.is_closed:
            raise BrokenPipeError
        network = self._network
        if bytes(data[HEADER_BYTES : HEADER_BYTES + BEGIN_BYTES]).startswith(NEWS):
            network.news_count += 1
            network.news_bytes += len(data)
            if not other.reads_news:
                return len(data)
        other.inbox.append(data)
        network.note(other)
        return len(data)

    def close(self) -> None:
        self.is_closed = True
        self.inbox.clear()
        self._network.note(self.other)


class Network:
    """In the place of a poller: which ends have something to read, in the order in which it came. news: what the head has told
    of nodes, in frames and bytes, to all."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._ready: deque[End] = deque()
        self._numbers = itertools.count(1)
        self.news_count = self.news_bytes = 0

    def pair(self, *, reads_news: bool) -> tuple[End, End]:
        """The head's end and the node's."""
        near = End(self, next(self._numbers), is_head=True, reads_news=False)
        far = End(self, next(self._numbers), is_head=False, reads_news=reads_news)
        near.other, far.other = far, near
        return near, far

    def register(self, fd: int, _events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler

    def modify(self, _fd: int, _events: int) -> None:
        """An end takes all at once, so nobody waits for it to take more."""

    def unregister(self, fd: int) -> None:
        self._handlers.pop(fd, None)

    def wake(self) -> None:
        """Nobody sleeps."""

    def note(self, end: End) -> None:
        if not end.is_ready:
            end.is_ready = True
            self._ready.append(end)

    def run(self) -> None:
        """Until nothing is under way any more."""
        while self._ready:
            end = self._ready.popleft()
            end.is_ready = False
            handler = self._handlers.get(end.number)
            if handler is None:
                continue
            if end.is_head:
                kind = _kind(end.inbox[0]) if end.inbox else "closed"
                self._meter.measure(kind, functools.partial(handler, transport.IN))
            elif end.reads_news and end.inbox:
                at_node = f"at a node: {_kind(end.inbox[0])}"
                self._meter.measure(at_node, functools.partial(handler, transport.IN), is_head=False)
            else:
                handler(transport.IN)
            if end.inbox:
                self.note(end)


def _kind(frame: bytes | memoryview) -> str:
    """Of what is said in it: for a process's message, of that."""
    found = KIND.findall(bytes(frame[:KIND_BYTES]))
    return found[-1].decode() if found else "rest"


class Sharing:
    """What a daemon hears of the shares of jobs, which has no leases to share here."""

    node_id: str

    @functools.cached_property
    def _use_news(self) -> cluster_use.UseNews:
        return cluster_use.UseNews(self.node_id)

    def use_news(self) -> cluster_use.UseNews:
        return self._use_news

    def use_told(self, use: cluster_use.ClusterUse | None) -> None:
        """Nothing changes by that."""


class Head(Sharing):
    """What the head's services need of their daemon. It has no processes, and hosts nothing."""

    infeasible_timeout_s = None
    address = "127.0.0.1:1"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.node_id = _node_id(0)
        self.poller = cluster.network
        self.scaling: Any = None
        self.node = self.others = self  # of its daemon
        self.jobs: dict[str, Any] = {}
        self.faults: list[str] = []
        self.dead: list[str] = []
        self.members = members.Members(self, node_ids.tag_of_node(self.node_id))
        self.control = service.ActorService(self.members)
        self.members.serve(self.control)
        self.directory = directory.Directory(node_ids.tag_of_node(self.node_id), self.send, lambda _message: None)
        self.nodes = node_service.NodeService(self, {})  # type: ignore[arg-type]  # its poller is a Network

    def now_s(self) -> float:
        return self._cluster.now_s

    time_s = now_s

    def own_facts(self) -> Message:
        return {**_facts(self.node_id, {}), "is_head": True}

    def own_state(self) -> Message:
        return {"available": {}, "waiting": 0}

    def own_load(self) -> Message:
        return {"tasks": [], "idle": 1}

    def as_seen(self) -> Message:
        return {"node_id": self.node_id, "total": {}, "available": {}, "labels": {}}

    def other_nodes(self) -> list[Message]:
        return [one for one in self.nodes.listed() if one["node_id"] != self.node_id]

    listed = other_nodes

    def node_appeared(self, node_id: str, address: str) -> None:
        self.directory.set(node_ids.tag_of_node(node_id), address)

    def node_died(self, node_id: str, reason: str) -> None:
        self.dead.append(node_id)
        self.directory.forget(node_ids.tag_of_node(node_id))
        self.members.node_gone(node_id, reason)

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        self.members.nodes_changed(list(changes))

    def job_environment(self, job_id: str) -> Any:
        return self.jobs.get(job_id)

    def knows_job(self, environment: Any) -> None:
        self.jobs[environment.id] = environment

    def placement_policy(self) -> policies.HybridPolicy:
        return policies.HYBRID

    def log(self, line: str) -> None:
        self.faults.append(f"the head says: {line}")

    warn = log

    def send(self, client: str, message: Message, _body: bytes = b"") -> None:
        self.faults.append(f"the head says to {client}, which is no process of its own: {message}")

    def place_actor(self, spec: Any, _source: str = "") -> None:
        self.faults.append(f"{spec.actor} is placed on the head, which has nothing")

    def actor_dead(self, _actor: str, _facts: Message) -> None:
        """The history is its own affair."""

    def cancel_bundles(self, _node: str, group: str, _attempt: int) -> None:
        self.faults.append(f"{group} has bundles on the head, which has nothing")

    def drop_group(self, _node: str, _group: str, _reason: str) -> None:
        """It has none of it."""


class Link(head_link.HeadLink):
    """Its stream has been made, and a quiet node forgets what others are there."""

    def __init__(self, node: Node, cluster: Cluster, *, is_quiet: bool) -> None:
        token = tokens.Token(tokens.Role.NODE, bytes(32))
        super().__init__(node, Head.address, token, join_s=1e9, head_lost_s=1e9)  # type: ignore[arg-type]
        self._cluster = cluster
        self._is_quiet = is_quiet
        self._node = node
        self.end: End | None = None

    def _dial(self, _command: Any) -> None:
        near, self.end = self._cluster.network.pair(reads_news=not self._is_quiet)
        self._cluster.head.nodes.admit(near)
        self._on_connected(self.end)

    def _on_frame(self, connection: transport.Connection, payload: bytes) -> None:
        if self._is_quiet and payload.startswith(LISTING, HEADER_BYTES - 4):
            head = self._cluster.head.nodes.table.head.listed()
            self._on_message(connection, {"t": "listing", "nodes": [head]}, b"")
        else:
            super()._on_frame(connection, payload)


class Node(Sharing):
    """A node, and what its link and its proxy need of their daemon."""

    def __init__(self, cluster: Cluster, number: int, cpus: int, *, is_quiet: bool) -> None:
        self._cluster = cluster
        self.poller = cluster.network
        self.reads_news = not is_quiet
        self.node_id = _node_id(number)
        self.total = {CPU: cpus * UNIT}
        self.free = dict(self.total)
        self.waiting = 0
        self.load: Message = {"tasks": [], "idle": 1}
        self.others: dict[str, None] = {}  # that live, as its link has said
        self.told_count = 0  # so often it has heard of others
        self.sought: dict[str, Any] = {}  # actors that wait for resources
        self.workers: dict[str, tuple[str, Mapping[str, int]]] = {}  # with the actor, and what it holds
        self.hosts: dict[str, str] = {}  # by actor, its worker
        self.asked: dict[tuple[str, int], Mapping[int, Mapping[str, int]]] = {}  # bundles that wait for room
        self.held: dict[tuple[str, int], Mapping[int, Mapping[str, int]]] = {}
        self.committed: set[tuple[str, int]] = set()
        self.drivers: dict[str, Driver] = {}
        self.jobs: dict[str, Any] = {}
        self.control = control_proxy.ControlProxy(self)
        self.link = Link(self, cluster, is_quiet=is_quiet)

    def now_s(self) -> float:
        return self._cluster.now_s

    # ---- of its link ----

    def own_facts(self) -> Message:
        return _facts(self.node_id, self.total)

    def own_state(self) -> Message:
        return {"available": dict(self.free), "waiting": self.waiting}

    def own_load(self) -> Message:
        return self.load

    def log(self, _line: str) -> None:
        """That it joined is seen otherwise; `end_node` says what has gone wrong."""

    def head_linked(self, *, is_linked: bool) -> None:
        """Nobody here has to be reached by way of the head."""

    def node_appeared(self, node_id: str, _address: str) -> None:
        self.others[node_id] = None

    def node_died(self, node_id: str, _reason: str) -> None:
        self.others.pop(node_id, None)

    def nodes_changed(self, _changes: Any) -> None:
        self.told_count += 1

    def note_outliving(self, _cluster: str, _head: str) -> None:
        """No program looks for it."""

    def end_node(self, reason: str) -> None:
        self._cluster.wrong.append(f"node {self.node_id[:12]} ends: {reason}")

    # ---- of its proxy ----

    def send(self, client: str, message: Message, _body: bytes = b"") -> None:
        driver = self.drivers.get(client)
        if driver is not None:
            driver.told(message)
        elif message["t"] == "create":
            ready = {"t": "actor_ready", "actor": message["actor"], "repr_name": "", "rq": None}
            self.say(client, ready)

    def reply(self, client: str, request: int | None, message: Message, _body: bytes = b"") -> None:
        if request is not None:
            self.send(client, {"t": "reply", "rq": request, **message})

    def refuse(self, client: str, _request: int | None, kind: str, text: str) -> None:
        self._cluster.wrong.append(f"{client} is refused: {kind}: {text}")

    def say(self, client: str, message: Message, body: bytes = b"") -> None:
        """One of its processes says this to the control service."""
        self.control.on[message["t"]](client, NAMESPACE, message, body)

    def job_of(self, client: str) -> tuple[str, Any]:
        driver = self.drivers.get(client)
        return (driver.job_id, self.jobs[driver.job_id]) if driver is not None else ("", None)

    def job_environment(self, job_id: str) -> Any:
        return self.jobs.get(job_id)

    def knows_job(self, environment: Any) -> None:
        self.jobs[environment.id] = environment

    def pid_of(self, _worker: str) -> int:
        return 1

    def as_seen(self) -> Message:
        return {"node_id": self.node_id, "total": self.total, "available": self.free, "labels": {}}

    # ---- actors ----

    def place_actor(self, wish: control_proxy.Wish, _source: str = "") -> None:
        self.sought[wish.actor] = wish
        self._use_room()

    def _use_room(self) -> None:
        for actor, wish in [*self.sought.items()]:
            if self._take(wish.running):
                del self.sought[actor]
                worker = self._cluster.process(self)
                self.workers[worker] = actor, wish.running
                self.hosts[actor] = worker
                self.control.hosted(actor, worker, "", {})
        for place, wanted in [*self.asked.items()]:
            if self._take(_sum(wanted)):
                del self.asked[place]
                self.held[place] = wanted
                self.control.bundles_reserved(*place)

    def _take(self, wanted: Mapping[str, int]) -> bool:
        if any(self.free.get(name, 0) < amount for name, amount in wanted.items()):
            return False
        for name, amount in wanted.items():
            self.free[name] -= amount
        return True

    def _give(self, amounts: Mapping[str, int]) -> None:
        for name, amount in amounts.items():
            self.free[name] += amount

    def kill_actor(self, actor: str, reason: str) -> None:
        self.sought.pop(actor, None)
        worker = self.hosts.pop(actor, "")
        if worker:
            _, held = self.workers.pop(worker)
            self._give(held)
            self.control.client_gone(worker)
            self.control.host_died(actor, worker, reason)
            self._use_room()

    def release_actor(self, actor: str, _grace_s: float | None) -> None:
        self.kill_actor(actor, "it has done what was asked")

    def actor_dead(self, _actor: str, _facts: Message) -> None:
        """The history is its own affair."""

    # ---- bundles ----

    def reserve_bundles(self, _node: str, group: str, attempt: int, wanted: Any, _depth: int, _job: Any) -> None:
        self.asked[group, attempt] = wanted
        self._use_room()

    def commit_bundles(self, _node: str, group: str, attempt: int) -> None:
        if (group, attempt) not in self.held:
            self._cluster.wrong.append(f"{self.node_id[:12]} is to commit {group}, which it does not hold")
        self.committed.add((group, attempt))

    def cancel_bundles(self, _node: str, group: str, attempt: int) -> None:
        self.asked.pop((group, attempt), None)
        self.committed.discard((group, attempt))
        self._give(_sum(self.held.pop((group, attempt), {})))
        self._use_room()

    def drop_group(self, node: str, group: str, _reason: str) -> None:
        for place in [place for place in (*self.asked, *self.held) if place[0] == group]:
            self.cancel_bundles(node, *place)

    def tell_places(self, _node: str, _message: Message) -> None:
        """It follows none."""


class Driver:
    """A process that creates and asks. answered: what has come of its requests; states: the last of each actor or group that it
    watches."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self.node = node
        self.id = cluster.process(node)
        self._requests = itertools.count(1)
        self.answered: dict[int, Message] = {}
        self.states: dict[str, str] = {}
        node.drivers[self.id] = self
        self.job_id, environment = node.control.job_begins(self.id, 1, FACTS)
        node.jobs[self.job_id] = environment

    def ask(self, message: Message, body: bytes = b"") -> int:
        request = next(self._requests)
        self.node.say(self.id, {**message, "rq": request}, body)
        return request

    def tell(self, message: Message) -> None:
        self.node.say(self.id, {**message, "rq": None})

    def told(self, message: Message) -> None:
        if message["t"] == "reply":
            if message["rq"] in self.answered:
                self._cluster.wrong.append(f"{self.id} is answered twice: {message}")
            self.answered[message["rq"]] = message
        elif message["t"] in ("actor_state", "group_state"):
            self.states[message["actor" if message["t"] == "actor_state" else "group"]] = message["state"]


class Cluster:
    """A head, whose nodes come by `join`. readers: so many of them hear what becomes of the others."""

    def __init__(self, *, readers: int = 2) -> None:
        self.now_s = 1.0
        self.meter = Meter()
        self.network = Network(self.meter)
        self.wrong: list[str] = []
        self._processes = itertools.count(1)
        self._readers = readers
        self.nodes: list[Node] = []
        self.head = Head(self)

    def process(self, node: Node) -> str:
        number = next(self._processes)
        return f"{number:08x}{node.node_id[: 2 * node_ids.TAG_BYTES]}{number:012x}"

    def join(self, cpus: int) -> Node:
        node = Node(self, len(self.nodes) + 1, cpus, is_quiet=len(self.nodes) >= self._readers)
        self.nodes.append(node)
        node.link.tick()
        self.network.run()
        return node

    def pass_s(self, seconds: float) -> None:
        """So much time passes, and all do what is due."""
        self.now_s += seconds
        for node in self.nodes:
            due_s = node.link.next_tick_s()
            if due_s is not None and due_s <= self.now_s:
                node.link.tick()
        self.network.run()
        self.meter.measure("tick", self.tick_head)
        self.network.run()

    def tick_head(self) -> None:
        for part in (self.head.control, self.head.nodes):
            due_s = part.next_tick_s()
            if due_s is not None and due_s <= self.now_s:
                part.tick()

    def faults(self) -> list[str]:
        """What the head and the nodes do not agree about, and what has gone wrong before."""
        found = [*self.wrong, *self.head.faults]
        table, control = self.head.nodes.table, self.head.control
        table.check()
        control.table.check()
        self.head.members.views.check()
        living = {node.node_id for node in self.nodes}
        if table.alive.keys() - {self.head.node_id} != living:
            found.append(f"{len(living)} nodes live, the head knows {len(table.alive) - 1}")
        listed = [one for one in control.listed() if one["state"] != "DEAD"]
        known = {one["actor"]: one["worker"] for one in listed}
        hosts = {actor: worker for node in self.nodes for actor, worker in node.hosts.items()}
        if known != hosts:
            found.append(f"{len(hosts)} actors are hosted, the head knows {len(known)}")
        held = Counter((group, node.node_id) for node in self.nodes for group, _ in node.held)
        groups = [one for one in control.listed_groups("") if one["state"] != "REMOVED"]
        places = {(one["group"], home) for one in groups for home in one["nodes"] if home}
        if held.keys() != places:
            found.append(f"{len(held)} nodes hold bundles, the head knows {len(places)}")
        for node in self.nodes:
            found += self._faults_of(node)
        return found

    def _faults_of(self, node: Node) -> list[str]:
        node.control.channel.check()
        name, found = node.node_id[:12], []
        amounts = [held for _, held in node.workers.values()] + [_sum(one) for one in node.held.values()]
        used = sum(one.get(CPU, 0) for one in amounts)
        if used + node.free[CPU] != node.total[CPU]:
            found.append(f"node {name} has {node.total}, of which {used} are used and {node.free} free")
        if node.sought or node.asked or set(node.held) != node.committed:
            found.append(f"node {name} has left {len(node.sought)} actors, {len(node.asked)} bundles")
        if node.reads_news and node.others.keys() != self.head.nodes.table.alive.keys():
            found.append(f"node {name} knows {len(node.others)} nodes")
        return found


def _node_id(number: int) -> str:
    """All but its tag is as if by chance: messages must not become shorter than they are when they are packed."""
    tag = f"{number:012x}"
    return (tag + hashlib.sha256(tag.encode()).hexdigest())[: 2 * node_ids.NODE_ID_BYTES]


def _facts(node_id: str, total: Mapping[str, int]) -> Message:
    return {
        "node_id": node_id, "version": VERSION, "address": "127.0.0.1:1", "host_name": "simulated", "is_head": False,
        "resources": total, "labels": {}, "started_s": 0.0, "session_dir": "", "socket": "", "store_dir": "",
    }  # fmt: skip


def _sum(bundles: Mapping[int, Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for bundle in bundles.values():
        total.update(bundle)
    return total
