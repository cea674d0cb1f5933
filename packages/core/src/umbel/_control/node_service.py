"""The head's side of the connections to nodes: what they say, as events for the table of nodes, and its commands, as messages.

The daemon loads this module by name, where other nodes may join. A link that cannot keep up with what it is told is closed; its
node dials again and is told everything at once. What all are told is encoded once for all.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from umbel._base import nodes as node_ids
from umbel._control import cluster_events, job_use, members, node_news, nodes, rendezvous, service
from umbel._transport import addresses
from umbel._transport import connection as transport
from umbel._wire import frames, handshake, node_messages

LOOK_S = 1.0  # after how long the head looks whether its own state has changed; members hear of changes as often
TELL_USE_S = 0.5  # between two times that members are told what jobs have; they look once a second
QUEUED_BYTES_MAX = 16 << 20  # for a member: some minutes of changes in a large cluster; it may be stopped
LAST_WORDS_S = 1.0  # for members to hear that the head ends; one that runs needs milliseconds

Message = dict[str, Any]


class Daemon(Protocol):
    """What the service needs of the daemon that it runs in."""

    poller: transport.Poller
    directory: Any  # of where nodes are, see `umbel._agent.directory`

    def now_s(self) -> float: ...

    def time_s(self) -> float:
        """By the system's clock."""

    def own_facts(self) -> Message:
        """Of this node, what does not change."""

    def own_state(self) -> Message: ...

    def log(self, line: str) -> None: ...

    def node_appeared(self, node_id: str, address: str) -> None:
        """A new member is reached there."""

    def node_died(self, node_id: str, reason: str) -> None:
        """For good."""

    def use_news(self) -> Any:
        """An `_agent.cluster_use.UseNews`, which this node has heard of what is told."""

    def use_told(self, use: Any) -> None:
        """A `_agent.cluster_use.ClusterUse`: what jobs have of the cluster; None once nobody is told any more."""

    @property
    def address(self) -> str:
        """Where others reach this node."""

    def reacher(self) -> Any:
        """A `_agent.reacher.Reacher`."""

    @property
    def members(self) -> members.Members: ...

    @property
    def control(self) -> service.ActorService: ...

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """Members are told this of nodes, each with its "node_id"."""

    @property
    def scaling(self) -> Any:
        """What an autoscaler has said here; None where there is none."""


class NodeService:
    """The table's shell, on the head."""

    is_head = True

    def __init__(self, daemon: Daemon, health: Message) -> None:
        self._daemon = daemon
        self._health = nodes.Health(**health)
        addresses.bear(self._health.silence_s)
        self.table = nodes.NodeTable(
            daemon.own_facts(),
            daemon.own_state(),
            health=self._health,
            now_s=daemon.now_s(),
            time_s=daemon.time_s(),
        )
        self._links: dict[int, transport.Connection] = {}
        self._nodes: dict[int, str] = {}  # by link, those that have said who they are
        self._heard: dict[
            int, tuple[str, int]
        ] = {}  # by link, what its node had heard when it began, and from which head
        self._numbers = itertools.count(1)
        self._tells: dict[int, Callable[[bool, str], None]] = {}  # whoever wants to know whether a node is drained
        self._drains: dict[int, tuple[str, str]] = {}  # by the same number, what is asked of whom
        self._look_s = daemon.now_s() + LOOK_S
        self._idle_until_s = 0.0
        self._welcomed: set[str] = set()  # members that this head has told so
        self._listening: dict[int, None] = {}  # links of members that know by them what nodes there are
        self._unkept: dict[str, int] = {}  # nodes of which something is being written, and how often
        self._told: node_news.Told[bytes] = node_news.Told(_frame_of_nodes, len)
        self._use = job_use.JobUse()
        self._use_told_s = -TELL_USE_S
        self._own_looks = 0
        self._joined_with: dict[int, Any] = {}  # by link, what its node's jobs had when it began
        self._rendezvous = rendezvous.Rendezvous()
        self._do: dict[type, Callable[[Any], None]] = {
            nodes.Welcome: self._welcome,
            nodes.Acknowledge: self._acknowledge,
            nodes.DropLink: lambda command: self._close(command.link),
            nodes.Refuse: self._refuse,
            nodes.Publish: self._publish,
            nodes.Admit: self._admit,
            nodes.DeclareDead: self._declare_dead,
            nodes.AskToDrain: lambda command: self._send(command.link, {"t": "drain", **command._asdict()}),
            nodes.AnswerDrain: lambda command: self._tells.pop(command.request)(command.is_accepted, command.text),
        }
        awaited = daemon.control.take_nodes(self.table)
        daemon.members.await_nodes(awaited)
        for node_id in awaited:  # its processes live, and are asked and called as if there had been no end of a head
            daemon.directory.set(node_ids.tag_of_node(node_id), self.table.alive[node_id].facts["address"])
        # How those are listed of which something is written: as nobody is told of anything before the first commit, all of these
        # are as they are kept.
        self._as_kept: dict[str, Mapping[str, Any]] = {one["node_id"]: one for one in self.table.listed()}
        head = self.table.head
        text = f"node {head.id} leads the cluster" + (f" again, and awaits {len(awaited)} others" if awaited else "")
        self._add_event(cluster_events.INFO, head, text)

    def _add_event(self, severity: str, node: nodes.Node, text: str) -> None:
        facts = {"node_id": node.id, "address": node.facts["address"], "host_name": node.facts["host_name"]}
        self._daemon.control.add_event(severity, cluster_events.NODES, text, **facts)

    def _remember(self, command: nodes.NodeCommand) -> None:
        """What people ask for afterwards, kept with what it tells of."""
        if isinstance(command, nodes.Admit):
            node = self.table.alive[command.node_id]
            self._add_event(cluster_events.INFO, node, f"node {node.id} joined at {node.facts['address']}")
        elif isinstance(command, nodes.DeclareDead) and command.node_id in self.table.dead:
            severity, what = (cluster_events.INFO, "left") if command.is_expected else (cluster_events.ERROR, "is dead")
            node = self.table.dead[command.node_id]
            self._add_event(severity, node, f"node {node.id} {what}: {command.reason}")
        elif isinstance(command, nodes.AnswerDrain):
            node_id, why = self._drains.pop(command.request)
            if command.is_accepted and node_id in self.table.alive:
                node = self.table.alive[node_id]
                self._add_event(cluster_events.INFO, node, f"node {node_id} is being drained ({why})")

    def _decide(self, event: nodes.NodeEvent) -> None:
        """Who is a member, and who is dead, is told when it is kept."""
        commands = self.table.apply(event)
        changed = [*(self.table.changed or ())]
        for command in commands:
            self._remember(command)
        self._daemon.control.keep_nodes()
        if changed:
            self._hold_back(changed)
        for command in commands:
            if isinstance(command, (nodes.Acknowledge, nodes.DropLink)) or self._is_old_news(command):
                self._do[type(command)](command)
            else:
                self._daemon.control.when_kept(functools.partial(self._do[type(command)], command))

    def _hold_back(self, changed: list[str]) -> None:
        """Until it is kept, nobody is told what has become of these nodes."""
        for node_id in changed:
            self._unkept[node_id] = self._unkept.get(node_id, 0) + 1
        listed = {node_id: self.node_facts(node_id) for node_id in changed}
        self._daemon.control.when_kept(lambda: self._kept(listed))

    def _kept(self, listed: Mapping[str, Message | None]) -> None:
        for node_id, facts in listed.items():
            self._unkept[node_id] -= 1
            if not self._unkept[node_id]:
                del self._unkept[node_id]
            if facts is not None:
                self._as_kept[node_id] = facts
            else:
                self._as_kept.pop(node_id, None)

    def _relisted(self) -> Mapping[str, Mapping[str, Any] | None]:
        """See `node_news.Told`."""
        return self.table.relisted({node_id: self._as_kept.get(node_id) for node_id in self._unkept})

    def _is_old_news(self, command: nodes.NodeCommand) -> bool:
        """That a node is a member which has been told so: it need not wait for what does not concern it."""
        return isinstance(command, nodes.Welcome) and command.node_id in self._welcomed

    # ---- for the daemon ----

    def listed(self) -> list[Message]:
        now_s = self._daemon.now_s()
        return [{**one, "suspicion": self.table.suspicion(one["node_id"], now_s)} for one in self.table.listed()]

    def node_facts(self, node_id: str) -> Message | None:
        node = self.table.alive.get(node_id) or self.table.dead.get(node_id)
        return node.listed() if node is not None else None

    def next_tick_s(self) -> float | None:
        return min(max(self.table.next_tick_s, self._idle_until_s), self._look_s)

    def tick(self) -> None:
        now_s = self._daemon.now_s()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            self._rendezvous.tick(now_s)
            state = self._daemon.own_state()
            jobs = state.pop("jobs", None)
            self._decide(nodes.HeadChanged(state, now_s))
            self._daemon.members.look_at_own()
            self._look_at_use(jobs, now_s)
        if now_s < self.table.next_tick_s:
            return
        if self._daemon.control.may_act():
            self._decide(nodes.Ticked(now_s))
        else:  # which counts as if the head stood still: nobody is dead because the storage is away
            self._idle_until_s = now_s + LOOK_S

    def drain(
        self, node_id: str, reason: str, message: str, left_s: float | None, tell: Callable[[bool, str], None]
    ) -> None:
        """Have a node take no more work, and end when it has nothing left, or in `left_s`, whatever it has.

        reason: "idle", which a node refuses that is not, or "preemption", which none refuses. tell: is called once, with whether
        it agrees, and else why not; perhaps before this returns.
        """
        request = next(self._numbers)
        self._tells[request] = tell
        self._drains[request] = node_id, f"{reason}: {message}" if message else reason
        self._decide(nodes.DrainRequested(request, node_id, reason, message, left_s, self._daemon.now_s()))

    def close(self, reason: str, *, ends_cluster: bool) -> None:
        """The head ends. ends_cluster: with all nodes; else they wait for another one. Returns when all members have heard it,
        or not in time."""
        if not ends_cluster:
            for link in list(self._links):
                self._close(link)
            return
        self.table.end(reason, self._daemon.now_s())
        self._daemon.control.keep_nodes()
        for link in list(self._links):
            self._send(link, {"t": "head_ends", "reason": reason})
        until_s = self._daemon.now_s() + LAST_WORDS_S
        while self._links and self._daemon.now_s() < until_s:
            self._daemon.poller.poll(max(0.0, until_s - self._daemon.now_s()))
        for link in list(self._links):
            self._close(link)

    # ---- links ----

    def admit(self, stream: transport.Stream) -> None:
        """A connection of a node, which has proved that it has a node's token."""
        connection = transport.Connection(stream, self._daemon.poller, self._on_frame, self._on_close)
        connection.peer = link = next(self._numbers)
        self._links[link] = connection

    def _on_frame(self, connection: transport.Connection, payload: bytes) -> None:
        link = int(str(connection.peer))
        try:
            message, body = frames.decode_control(payload, depth_max=node_messages.DEPTH_MAX)
            message = node_messages.parse(message, node_messages.FROM_NODE)
            self._on_message(link, message, body)
        except ValueError as error:
            self._daemon.log(
                f"a node's connection was closed ({self._nodes.get(link, 'which had not joined')}): {error}"
            )
            connection.close()

    def _on_message(self, link: int, message: Message, body: bytes) -> None:
        kind, now_s = message["t"], self._daemon.now_s()
        if kind == "join":
            facts = message["facts"]
            addresses.parse(facts["address"])  # or it is closed with the reason
            if message["protocol"] != node_messages.PROTOCOL_VERSION:
                facts = {**facts, "version": f"{facts['version']}, protocol {message['protocol']}"}
            node_id = self._nodes.setdefault(link, facts["node_id"])
            if node_id != facts["node_id"]:
                raise ValueError(f"it was {node_id} and wants to be {facts['node_id']}")
            sequence, state = message["sequence"], message["state"]
            self._joined_with[link] = state.pop("jobs", None)
            self._heard[link] = message["head"], message["heard"]
            scaling = self._daemon.scaling
            refusal = scaling.refusal(facts["labels"]) if scaling is not None else ""
            if refusal and node_id not in self.table.alive:
                self._refuse(nodes.Refuse(link, "unwanted", refusal))
                return
            self._decide(nodes.NodeJoined(node_id, link, sequence, facts, state, message["cluster"], now_s))
        elif link not in self._nodes:
            raise ValueError(f"the first message must be join, got {kind}")
        elif kind in ("said", "heard_said"):
            node = self.table.alive.get(self._nodes[link])
            if node is not None and node.link == link:  # not by one that was given up
                self._daemon.members.on_frame(node.id, message, body)
        elif kind == "drain_answer":
            is_accepted, state = message["is_accepted"], message["state"]
            state.pop("jobs", None)  # which count no more, if it is
            answer = (message["request"], is_accepted, message["text"], state)
            self._decide(nodes.DrainAnswered(self._nodes[link], link, *answer, now_s))
            self._note_state(self._nodes[link], state)
        elif kind in ("reach", "unreached"):
            self._on_reach(self._nodes[link], message)
        elif kind == "beat":
            jobs = message["state"].pop("jobs", None)
            self._decide(nodes.Heartbeat(self._nodes[link], link, message["sequence"], message["state"], now_s))
            if self._note_state(self._nodes[link], message["state"]) and self._use.said(self._nodes[link], jobs):
                self._tell_use()
        else:
            self._decide(nodes.NodeLeft(self._nodes[link], link, message["reason"], now_s))

    def _note_state(self, node_id: str, state: Message) -> bool:
        """What has been said of a node counts, unless the table has not taken it: it came late. Whether it does."""
        node = self.table.alive.get(node_id)
        counts = node is not None and node.state is state
        if node is not None and counts:
            self._daemon.members.node_said(node_id, node.facts, state)
        return counts

    # ---- what jobs have ----

    def _look_at_use(self, jobs: Any, now_s: float) -> None:
        """jobs: of this node, as those of others."""
        self._use.said(self.table.head.id, jobs)
        if not self._use.is_wanted and not self._is_short():
            return
        news = self._daemon.use_news()
        self._own_looks += 1
        news.said(self._own_looks, jobs)
        news.heard(self._own_looks)
        if news.is_due(now_s):
            self._daemon.use_told(news.use())
        self._tell_use()

    def _tell_use(self) -> None:
        now_s = self._daemon.now_s()
        if now_s < self._use_told_s + TELL_USE_S:
            self._look_s = min(self._look_s, self._use_told_s + TELL_USE_S)
            return
        message = self._use.news(self._counting(now_s), now_s, is_short=self._is_short())
        if message is None:
            return
        self._use_told_s = now_s
        frame = frames.encode_control(message)
        for link in self._nodes:
            self._send_frame(link, frame)
        news = self._daemon.use_news()
        news.told(message, now_s)
        self._daemon.use_told(news.use())

    def _is_short(self) -> bool:
        """Whether something waits on some node, while there are several jobs."""
        is_several = self._daemon.control.jobs.running_count > 1
        return is_several and any(node.state.get("waiting") for node in self.table.alive.values())

    def _counting(self, now_s: float) -> dict[str, Message]:
        """The nodes on which jobs may have something, with what they have in all."""
        return {
            node.id: node.facts["resources"]
            for node in self.table.alive.values()
            if not node.state.get("draining")
            and (node is self.table.head or (now_s < node.heard_s + self._health.timeout_s and not node.is_awaited))
        }

    def _on_close(self, connection: transport.Connection) -> None:
        link = int(str(connection.peer))
        del self._links[link]
        self._listening.pop(link, None)
        self._heard.pop(link, None)
        self._joined_with.pop(link, None)
        node_id = self._nodes.pop(link, "")
        if node_id:
            node = self.table.alive.get(node_id)
            if node is not None and node.link == link:
                self._daemon.members.unlinked(node_id)
            self._decide(nodes.LinkLost(node_id, link, self._daemon.now_s()))

    # ---- nodes that cannot be dialled ----

    def head_address(self) -> str:
        return self._daemon.address

    def say_reach(self, message: Message) -> None:
        """The head's own node says so."""
        self._on_reach(self.table.head.id, message)

    def _on_reach(self, node_id: str, message: Message) -> None:
        ticket = bytes.fromhex(message["ticket"])
        if message["t"] == "unreached":
            self._meet(self._rendezvous.failed(node_id, ticket, message["reason"]))
            return
        wanted, other = self.table.alive.get(message["node"]), os.urandom(handshake.TARGET_ID_BYTES)
        is_linked = wanted is not None and (wanted.link in self._links or wanted is self.table.head)
        self._meet(
            self._rendezvous.asked(
                node_id, message["node"], ticket, other, self._daemon.now_s(),
                is_relayed=message["is_relayed"], is_alive=wanted is not None, is_linked=is_linked,
            )
        )  # fmt: skip

    def _meet(self, commands: list[rendezvous.Command]) -> None:
        for command in commands:
            if isinstance(command, rendezvous.Expect):
                self._daemon.reacher().expect(command.ticket, command.other)
                continue
            ticket = command.ticket.hex()
            if isinstance(command, rendezvous.DialBack):
                is_here = command.is_relayed or command.asker == self.table.head.id
                address = "" if is_here else self.table.alive[command.asker].facts["address"]
                told = {"t": "dial_back", "ticket": ticket, "address": address, "is_relayed": command.is_relayed}
                self._tell_of_meeting(command.node, told)
            elif isinstance(command, rendezvous.Meet):
                self._tell_of_meeting(command.asker, {"t": "meet", "ticket": ticket})
            else:
                told = {"t": "unreached", "ticket": ticket, "reason": command.reason, "is_final": command.is_final}
                self._tell_of_meeting(command.asker, told)

    def _tell_of_meeting(self, node_id: str, message: Message) -> None:
        if node_id == self.table.head.id:
            self._daemon.reacher().on_head(message)
        elif node_id in self.table.alive:
            self._send(self.table.alive[node_id].link, message)

    # ---- commands ----

    def _send(self, link: int, message: Message) -> None:
        self._send_frame(link, frames.encode_control(message))

    def _send_frame(self, link: int, frame: bytes) -> None:
        connection = self._links.get(link)
        if connection is None:
            return
        if connection.queued_bytes > QUEUED_BYTES_MAX:
            connection.close()
        else:
            connection.send(frame)

    def _say(self, link: int, message: Message, body: bytes) -> None:
        """What is kept until its node has heard it: a connection that is closed for it would have to take it again."""
        connection = self._links.get(link)
        if connection is not None:
            connection.send(frames.encode_control(message, body))

    def _acknowledge(self, command: nodes.Acknowledge) -> None:
        leads = self._daemon.control.may_act()
        self._send(command.link, {"t": "heard", "sequence": command.sequence, "leads": leads})

    def _close(self, link: int) -> None:
        connection = self._links.get(link)
        if connection is not None:
            connection.close()

    def _welcome(self, command: nodes.Welcome) -> None:
        """When the numbers of jobs that it gets are kept as well."""
        member, node = self._daemon.members.entered(command.node_id), self.table.alive.get(command.node_id)
        if node is not None:
            self._daemon.members.node_said(node.id, node.facts, node.state)
        if command.node_id in self._welcomed:
            self._welcome_now(command, member)
        else:
            self._daemon.control.when_kept(lambda: self._welcome_now(command, member))

    def _welcome_now(self, command: nodes.Welcome, member: members.Member) -> None:
        health, link, node = self._health, command.link, self.table.alive.get(command.node_id)
        if link not in self._links or node is None:
            return  # it has broken meanwhile, or the node has died
        self._welcomed.add(command.node_id)
        welcome = {
            "t": "welcome", "cluster": self.table.cluster, "head": self.table.head.id, "period_s": health.period_s,
            "timeout_s": health.timeout_s, "silence_s": health.silence_s, "heard": member.channel.counts,
            "job_ids": list(member.job_ids), "nodes": [node.listed()],
        }  # fmt: skip
        for frame in self._told.all(self._relisted):
            self._send_frame(link, frame)
        self._send(link, welcome)
        self._listening[link] = None
        head, heard = self._heard[link]
        heard = heard if head == self.table.head.id else 0  # of a conversation with a head before this one
        self._daemon.members.linked(command.node_id, heard, lambda *said: self._say(link, *said))
        if not head:
            self._daemon.members.has_nothing(command.node_id)
        self._use.said(command.node_id, self._joined_with.pop(link, None))
        whole = self._use.whole()
        if whole is not None:
            self._send(link, whole)

    def _refuse(self, command: nodes.Refuse) -> None:
        self._daemon.log(f"node {self._nodes.get(command.link, '')} was refused: {command.reason}")
        self._send(command.link, {"t": "refused", "kind": command.kind, "reason": command.reason})
        self._close(command.link)

    def _admit(self, command: nodes.Admit) -> None:
        node = self.table.alive.get(command.node_id)
        if node is not None:  # else it has died before that was kept
            self._daemon.node_appeared(node.id, node.facts["address"])

    def _declare_dead(self, command: nodes.DeclareDead) -> None:
        self._welcomed.discard(command.node_id)
        self._use.gone(command.node_id)
        self._daemon.node_died(command.node_id, command.reason)

    def _publish(self, command: nodes.Publish) -> None:
        frame = self._told.tell(command.changes)
        for link in [*self._listening]:
            self._send_frame(link, frame)
        self._daemon.nodes_changed(command.changes)


def _frame_of_nodes(kind: str, listed: str) -> bytes:
    return node_messages.packed(frames.encode_control({"t": kind}, encoded={"nodes": listed}), kind)
