"""Leases across the nodes of a cluster, in one node's daemon: what `umbel._scheduling.forwarding` decides, done.

Two parts. For processes of this node: what they want goes to `Forwarding`, which says of which nodes it is asked; this node's
own agent is one of them. For other nodes: their processes are *guests*, which are clients of this node's agent as its own are,
but are told by way of their node's daemon. While a node is alone nothing is decided here, and what is wanted goes to the agent
at once; it is only remembered, for when another node comes.

Tasks of a placement group are asked for on the nodes of its bundles alone: the head is asked once where those are, and says so
again whenever one moves (`group_places`). While none of them has a place nobody is asked, and what is wanted is only held.

A job is known on other nodes by its number and its node's tag, `number@tag`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from umbel._agent import environment_service
from umbel._agent import events as ev
from umbel._agent.ledger import UNIT
from umbel._base import nodes
from umbel._model import reasons

if TYPE_CHECKING:
    from umbel._agent import lease_links
    from umbel._agent.control import Control
    from umbel._agent.hub import Client, Hub
    from umbel._agent.jobs import NodeJobs
    from umbel._agent.lease_service import LeaseService
    from umbel._agent.other_nodes import OtherNodes
    from umbel._agent.state import AgentState
    from umbel._agent.worker_reports import WorkerReports
    from umbel._base import tokens
    from umbel._scheduling import forwarding, group_places

ROOM_S = 0.05  # other nodes are told of what is free here no more often, but with a grant
ROOM_COUNTS_S = 2.0  # so long what a node itself has said is newer than what the head says of it

Message = dict[str, Any]


class Daemon(Protocol):
    """What sharing needs of the daemon that it is in."""

    hub: Hub
    agent: AgentState
    control: Control
    leases: LeaseService
    reports: WorkerReports

    def now_s(self) -> float: ...

    def decide(self, *events: Any) -> None: ...

    def carry_out(self, commands: Iterable[Any]) -> None: ...

    def add_commands(self, handlers: Mapping[type, Callable[[Any], None]]) -> None: ...

    def log(self, line: str) -> None: ...


class GuestWant(NamedTuple):
    """A process of another node wants leases here: a "want". To be looked at when the agent's machine is told of it."""

    lessee: Any
    message: Message


class GuestJob:
    """What the workers of another node's job need, as `umbel._control.jobs.JobEnvironment`."""

    __slots__ = ("__weakref__", "facts", "id")

    def __init__(self, id: str, facts: Mapping[str, Any]) -> None:
        self.id = id
        self.facts = facts


class Asked(NamedTuple):
    """What a process waits for that is asked of other nodes."""

    client: str
    key: str
    lease_count: int
    depth: int
    resources: Message
    waiting_s: float
    why: reasons.Reason


class _Lease(NamedTuple):
    """Of a worker of another node."""

    node: str
    client: str
    pid: int
    resources: Mapping[str, int]  # empty where it does not take them of its node


class Sharing:
    """Of one node."""

    def __init__(
        self, daemon: Daemon, others: OtherNodes, config: Message, jobs: NodeJobs, token: tokens.Token
    ) -> None:
        self._daemon = daemon
        self._others = others
        self._config = config
        self._node: str = config["node_id"]
        self._own_tag = nodes.tag_of_node(self._node).hex()
        self._jobs = jobs
        self._token = token
        self._wishes: dict[tuple[str, str], Message] = {}  # of processes of this node, as said last, with "since_s"
        self._members: dict[str, Message] = {}  # the other nodes
        self._dead: set[str] = set()
        self._away: dict[str, float] = {}  # nodes that could not be reached, until then
        self._awaited: set[str] = set()  # of the members, those that have not come back to this head
        self._room_s: dict[str, float] = {}  # when a node has said last what is free there
        self._leases: dict[str, _Lease] = {}  # of workers of other nodes
        self._homes: dict[str, lease_links.Lessee] = {}  # of guests
        self._holders: dict[str, set[lease_links.Lessee]] = {}  # by job of another node, who has told of it
        self._forwarding: forwarding.Forwarding | None = None
        self._links: lease_links.LeaseLinks
        self._given: forwarding.Given
        self._free: dict[str, int] = {}  # here, as last said to `Forwarding`
        self._has_granted = False  # since then
        self._room_due_s: float | None = None  # when guests' nodes are to be told
        self._groups: group_places.GroupPlaces | None = None  # once tasks of one are wanted, and there are other nodes
        self._kinds: dict[tuple[str, str], group_places.Kind] = {}  # of wishes in groups, maybe of some that are over
        self._held: dict[tuple[str, str], None] = {}  # those of them of which nobody is asked
        self._are_bundles_wanted = False  # whether any process, here or elsewhere, has wanted some of this node
        self._free_bundles: dict[tuple[str, int], Message] = {}  # here, as last said to anybody

    def _begin(self) -> forwarding.Forwarding:
        """There is another node."""
        if self._forwarding is not None:
            return self._forwarding
        from umbel._agent import lease_links, sharing_policies
        from umbel._scheduling import forwarding

        self._fw = forwarding
        self._given = forwarding.Given()
        policy = sharing_policies.policy(self._config["scheduler"], self._config["sys_path"], self._daemon.log)
        made = self._forwarding = forwarding.Forwarding(self._node, policy)
        self._links = lease_links.LeaseLinks(self._daemon, self._node, self._token, self, self._facts_of)  # type: ignore[arg-type]
        self._daemon.add_commands(
            {
                forwarding.Want: self._want,
                forwarding.Leave: lambda command: self._links.say(
                    command.node, {"t": "leave", "client": command.client}
                ),
                forwarding.Fail: self._fail,
                GuestWant: self._guest_want,
            }
        )
        self._see_own()
        for (client, key), message in list(self._wishes.items()):
            demand = self._daemon.agent.demands.get((client, "", key))
            if demand is None:
                del self._wishes[client, key]  # all of it was granted
            elif _group_of(message):
                self._want(forwarding.Want(self._node, client, key, 0, 0))  # it may be for another node
                self._wishes[client, key] = {**message, "count": demand.count}
                self._wish_in_group((client, key), self._wishes[client, key])
            else:
                self._wish(client, {**message, "count": demand.count})
        return made

    def _tell(self, *events: Any) -> None:
        if self._forwarding is not None:
            self._daemon.carry_out(self._forwarding.apply(*events))

    # ---- what processes of this node want ----

    def on_demand(self, client: Client, message: Message) -> bool:
        """Whether it is seen to here."""
        place = (client.id, message["key"])
        group = _group_of(message)
        if client.job is None or environment_service.trouble_of(message["env"]):
            return False  # its job has ended, or it is to be refused
        is_waiting = self._forwarding is not None and (place in self._forwarding.wishes or place in self._held)
        since_s = self._wishes[place]["since_s"] if is_waiting else self._daemon.now_s()
        noted = {**message, "job": self._wire_job(client.job.id), "since_s": since_s}
        if message["count"]:
            self._wishes[place] = noted
        if self._forwarding is None:
            return False
        if group and message["count"]:
            self._wish_in_group(place, noted)
            return True
        self._wish(client.id, noted)
        if not message["count"]:
            self._forget_wish(place)
        return True

    def _wish(self, client: str, message: Message) -> None:
        """Of tasks in no placement group, or of nothing any more."""
        count, at_s = message["count"], self._daemon.now_s()
        near = [(self._by_tag(tag), amount) for tag, amount in message["near"].items()]
        self._tell(self._fw.WishChanged(client, message["key"], _demands(message), count, at_s, near))

    def _by_tag(self, tag: str) -> str:
        """The id of a node that is there, else ""."""
        return next((one for one in (self._node, *self._members) if one.startswith(tag)), "")

    def _forget_wish(self, place: tuple[str, str]) -> Message | None:
        self._held.pop(place, None)
        return self._wishes.pop(place, None)

    # ---- tasks in placement groups ----

    def _wish_in_group(self, place: tuple[str, str], message: Message) -> None:
        from umbel._scheduling import group_places

        self._groups = self._groups or group_places.GroupPlaces()
        self._are_bundles_wanted = True
        kind = group_places.of_strategy(message["strategy"], message["resources"])
        self._kinds[place] = kind
        self._held[place] = None
        if self._groups.begins(kind.group):
            self._daemon.control.follow_group(kind.group)  # on the head, that is answered before this returns
        if place in self._held:
            self._ask_held(place)

    def _ask_held(self, place: tuple[str, str]) -> None:
        """Of the nodes that have a place for it; or it fails, or is held."""
        message, kind, groups = self._wishes.get(place), self._kinds[place], self._groups
        if message is None or groups is None:
            return
        trouble = groups.trouble(kind)
        if groups.groups[kind.group].is_gone:
            self._fail_in_group(place, groups.groups[kind.group].reason)
        elif trouble:
            self._forget_wish(place)
            self._tell(self._fw.WishChanged(*place, (), 0, self._daemon.now_s()))
            self._daemon.leases.tell_failed(*place, trouble, is_unschedulable=True)
        else:
            living = {self._node, *self._members} - self._awaited
            homes = [node for node in groups.homes(kind) if node in living]
            if homes:
                self._see_bundles(homes)
                self._held.pop(place, None)
                told = {**message, "resources": {kind.name: UNIT}, "strategy": None}
                demands = _demands(told, is_in_bundle=True)
                self._tell(self._fw.WishChanged(*place, demands, message["count"], self._daemon.now_s()))

    def _hold(self, place: tuple[str, str]) -> None:
        """Nobody has a place for it any more."""
        wish = self._forwarding.wishes.get(place) if self._forwarding is not None else None
        if wish is not None:
            self._wishes[place] = {**self._wishes[place], "count": wish.count}
            self._held[place] = None
            self._tell(self._fw.WishChanged(*place, (), 0, self._daemon.now_s()))

    def _fail_in_group(self, place: tuple[str, str], reason: str) -> None:
        text = f"the placement group {self._kinds[place].group} that it was to run in is gone: {reason}"
        self._forget_wish(place)
        self._tell(self._fw.WishChanged(*place, (), 0, self._daemon.now_s()))
        self._daemon.leases.tell_failed(*place, text, is_group_gone=True)

    def on_group(self, message: Message) -> None:
        """The head says where the bundles of a group are now: "group_places"."""
        groups, group, is_gone = self._groups, message["group"], message["is_gone"]
        if groups is None:
            return
        before = groups.groups.get(group)
        homes = set(before.nodes) if before is not None else set()
        if not groups.told(group, message["nodes"], message["bundles"], message["reason"], is_gone=is_gone):
            return
        self._groups_moved([group], {*homes, *message["nodes"]})
        if is_gone:
            groups.forget(group)

    def _groups_moved(self, moved: Sequence[str], nodes: Iterable[str]) -> None:
        groups = self._groups
        if groups is None:
            return
        live = [place for place, kind in self._live_kinds().items() if kind.group in moved]
        for place in live:
            if place not in self._held and not groups.homes(self._kinds[place]):
                self._hold(place)
        self._see_bundles(nodes)
        for place in live:
            if place in self._held:
                self._ask_held(place)

    def _live_kinds(self) -> dict[tuple[str, str], group_places.Kind]:
        """Of the wishes that there are; all others are forgotten."""
        wishes = self._forwarding.wishes if self._forwarding is not None else {}
        for place in [one for one in self._kinds if one not in self._held and one not in wishes]:
            del self._kinds[place]
        return self._kinds

    def _see_bundles(self, nodes: Iterable[str]) -> None:
        """What there is room for on these nodes, in bundles that have come or tasks that are new."""
        for node in dict.fromkeys(nodes):
            if node == self._node:
                self._see_own()
            elif node in self._members:
                self._tell(self._seen(node, is_away=node in self._away))

    def _own_bundles(self) -> dict[tuple[str, int], Message]:
        """What is free in the bundles that lie here of groups that concern anybody."""
        held = self._daemon.agent.bundles.held
        concerned = {kind.group for kind in self._kinds.values()}
        for lessee in {*self._homes.values()}:
            concerned |= lessee.groups
        return {
            (group, index): _positive(bundle.ledger.free)
            for group in concerned
            for index, bundle in held.get(group, {}).items()
        }

    def _bundles_for(self, lessee: lease_links.Lessee) -> Message:
        """The same, for another node: by group, and by index as text."""
        found: dict[str, Message] = {}
        for group in [*lessee.groups]:
            held = self._daemon.agent.bundles.held.get(group)
            if held is None:
                lessee.groups.discard(group)  # it has gone from here
                continue
            found[group] = {str(index): _positive(bundle.ledger.free) for index, bundle in held.items()}
        return found

    def _view_with_bundles(
        self, node: str, facts: Message, free: Mapping[str, int], *, is_local: bool, is_away: bool = False
    ) -> Any:
        """A node, with what there is room for in bundles there."""
        if self._groups is not None and self._kinds:
            total, left = self._groups.as_resources(node, set(self._live_kinds().values()))
            facts = {**facts, "resources": {**facts["resources"], **total}}
            free = {} if is_away else {**free, **left}
        return _view(node, facts, free, is_local=is_local)

    def _want(self, command: forwarding.Want) -> None:
        place = (command.client, command.key)
        message = self._wishes.get(place)
        if command.node != self._node:
            self._links.want(
                command.node,
                {
                    "t": "want", "client": command.client, "key": command.key, "count": command.lease_count,
                    "heard": command.heard_count, "job": message["job"] if message else "",
                    "resources": message["resources"] if message else {}, "depth": message["depth"] if message else 0,
                    "env": (message["env"] or {}) if message else {},
                    "group": message["strategy"] if message and _group_of(message) else {},
                },
            )  # fmt: skip
            return
        client = self._daemon.hub.clients.get(command.client)
        if client is None:
            return  # its end was told to the agent
        count = self._given.still_wanted(command.client, command.key, command.lease_count, command.heard_count)
        if message is None:
            message = {"key": command.key, "resources": {}, "depth": 0, "strategy": None, "env": None}
            count = 0
        env = self._in_job(message["env"], client.job_id)
        self._daemon.decide(self._daemon.leases.wish_of(command.client, message, env, count, command.refusal))

    def _in_job(self, env: Any, job: str) -> Message:
        return {**(env or {}), "job": job}

    def _fail(self, command: forwarding.Fail) -> None:
        message = self._forget_wish((command.client, command.key))
        reason = command.reason
        wanted = message["strategy"]["node_id"] if message and isinstance(message["strategy"], dict) else self._node
        if wanted != self._node and wanted not in self._members:
            from umbel._agent import elsewhere

            reason = f"it must run on node {wanted}, {elsewhere.by_id(self._others.listed(), wanted)}"
        self._daemon.leases.tell_failed(command.client, command.key, reason, is_unschedulable=True)

    def failed(self, client: str, key: str) -> None:
        """A node will not grant this to a process of this one, whatever happens: it was told, and wants it no more."""
        if self._forget_wish((client, key)) is not None and self._forwarding is not None:
            self._tell(self._fw.WishChanged(client, key, (), 0, self._daemon.now_s()))

    def client_gone(self, client: Client) -> None:
        books: tuple[dict[tuple[str, str], Any], ...] = (self._wishes, self._held, self._kinds)
        for known in books:
            for place in [place for place in known if place[0] == client.id]:
                del known[place]
        if self._forwarding is None:
            return
        for worker in [worker for worker, lease in self._leases.items() if lease.client == client.id]:
            del self._leases[worker]
        self._given.forget(client.id)
        self._tell(self._fw.ClientLeft(client.id, self._daemon.now_s()))
        if client.is_driver:
            self._links.job_over(self._wire_job(client.job_id))

    def returns(self, client: str, worker: str, *, is_retired: bool) -> bool:
        """A lease goes back; whether it is one of another node."""
        lease = self._leases.pop(worker, None)
        if lease is None:
            return False
        self._links.say(lease.node, {"t": "return", "client": client, "worker": worker, "retire": is_retired})
        known = self._members.get(lease.node)
        if known is not None and lease.resources and lease.node not in self._away:
            # It will say so itself, in a while; what is wanted next may want to go there.
            free = dict(known["available"])
            for name, amount in lease.resources.items():
                free[name] = free.get(name, 0) + amount
            self._members[lease.node] = {**known, "available": free}
            self._see(lease.node)
        return True

    def kills(self, client: str, worker: str, reason: str) -> bool:
        """Its holder wants it dead; whether it is of another node."""
        lease = self._leases.get(worker)
        if lease is None:
            return False
        self._links.say(lease.node, {"t": "kill", "client": client, "worker": worker, "reason": reason})
        return True

    # ---- what this node's agent has decided ----

    def note(self, commands: Sequence[Any]) -> None:
        """The agent's machine has decided this; it is not done yet."""
        if self._forwarding is not None:
            for command in commands:
                if type(command) is ev.Grant:
                    self._given.granted(command.client, command.key)

    def is_guest(self, client: str) -> bool:
        return client in self._homes

    def granted(self, client: str, key: str, message: Message) -> bool:
        """A lease of a worker of this node; whether its holder has been told."""
        if self._forwarding is None:
            return False
        home = self._homes.get(client)
        if home is None:
            self._has_granted = True
            self._tell(self._fw.Granted(self._node, client, key, self._daemon.now_s()))
            return False
        home.send({"t": "tell", "client": client, "message": message})
        self._tell_room(home)
        return True

    def preparing(self, client: str, key: str, text: str) -> None:
        """What is done for the environment that a process waits for on this node, in words; "" when it is there."""
        home = self._homes.get(client)
        if home is not None:
            home.send({"t": "preparing", "client": client, "key": key, "text": text})
        elif self._forwarding is not None:
            self._tell(self._fw.Preparing(self._node, client, key, text, self._daemon.now_s()))

    def tell(self, client: str, message: Message) -> bool:
        """What a lease's holder is told; whether it was a guest."""
        home = self._homes.get(client)
        if home is not None:
            home.send({"t": "tell", "client": client, "message": message})
        return home is not None

    def look(self) -> None:
        """All that was decided is done: is something else free here than before?"""
        if self._forwarding is None:
            return
        is_other = self._has_granted or self._daemon.agent.ledger.free != self._free
        if is_other or (self._are_bundles_wanted and self._own_bundles() != self._free_bundles):
            self._see_own()
            if self._homes and self._room_due_s is None:
                self._room_due_s = self._daemon.now_s() + ROOM_S

    def _see_own(self) -> None:
        ledger = self._daemon.agent.ledger
        self._has_granted = False
        self._free = dict(ledger.free)
        facts = {
            "resources": ledger.total, "labels": self._config["labels"], "draining": self._others.drain_reason(),
        }  # fmt: skip
        if self._are_bundles_wanted:
            self._free_bundles = self._own_bundles()
            if self._groups is not None:
                self._groups.room_told(self._node, self._free_bundles)
        free = {} if self._daemon.agent.draining else self._free
        view = self._view_with_bundles(self._node, facts, free, is_local=True)
        self._tell(self._fw.NodeSeen(view, self._daemon.now_s()))

    def draining_changed(self) -> None:
        """Whether this node takes work has."""
        if self._forwarding is not None:
            self._see_own()
            for lessee in {*self._homes.values()}:
                self._tell_room(lessee)

    def _tell_room(self, lessee: lease_links.Lessee) -> None:
        agent = self._daemon.agent
        free = {} if agent.draining else _positive(agent.ledger.free)
        told = {"t": "room", "available": free, "bundles": self._bundles_for(lessee)}
        lessee.send({**told, "draining": self._others.drain_reason()})

    # ---- the other nodes ----

    def node_awaited(self, facts: Message) -> None:
        """A node may come back to this head, which has started again: until it does, nothing is asked of it, and what insists
        on it waits. facts: as it is listed."""
        self._begin()
        self._awaited.add(facts["node_id"])
        self._enter(facts)
        self._see(facts["node_id"])

    def _enter(self, facts: Message) -> None:
        self._members[facts["node_id"]] = {**facts, "draining": (facts.get("draining") or {"reason": ""})["reason"]}

    def node_appeared(self, node: str, address: str) -> None:
        if node == self._node:
            return
        facts = self._others.facts(node)
        if facts is None or not facts.get("alive", True):
            return
        self._begin()
        self._enter(facts)
        self._links.add(node, address)
        if node in self._awaited:
            self._awaited.discard(node)
            self._tell(self._fw.NodeForgot(self._view_of(node), self._daemon.now_s()))
        else:
            self._see(node)
        for place in [*self._held]:  # the head may have said sooner that a bundle is there
            if place in self._held:
                self._ask_held(place)

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """The head knows this of nodes."""
        seen = []
        for change in changes:
            node = change["node_id"]
            known = self._members.get(node)
            if known is None or "available" not in change:
                continue
            is_known = not change.get("is_awaited")  # else the head does not know what it has
            if is_known:
                self._members[node] = {**known, "available": change["available"]}
            if change.get("draining") and not known.get("draining"):
                self._members[node]["draining"] = change["draining"]["reason"]
                seen.append(self._seen(node, is_away=node in self._away))
                continue
            if (
                is_known
                and node not in self._away
                and self._room_s.get(node, 0.0) + ROOM_COUNTS_S < self._daemon.now_s()
            ):
                seen.append(self._seen(node))
        self._tell(*seen)

    def _see(self, node: str) -> None:
        self._tell(self._seen(node))

    def _seen(self, node: str, *, is_away: bool = False) -> Any:
        return self._fw.NodeSeen(self._view_of(node, is_away=is_away), self._daemon.now_s())

    def _view_of(self, node: str, *, is_away: bool = False) -> Any:
        facts = self._members[node]
        free = {} if is_away else facts["available"]
        return self._view_with_bundles(node, facts, free, is_local=False, is_away=is_away)

    def node_died(self, node: str, reason: str) -> None:
        self._dead.add(node)
        known = self._members.pop(node, None)
        if known is None or self._forwarding is None:
            return
        facts = self._others.facts(node) or {}
        drained = known["draining"] or (facts.get("draining") or {"reason": ""})["reason"]
        self._away.pop(node, None)
        self._awaited.discard(node)
        self._room_s.pop(node, None)
        self._links.forget(node)
        self._break_leases(node, f"was on node {node}, which died: {reason}", drained)
        if self._groups is not None:
            self._groups_moved(self._groups.node_lost(node), ())
        self._tell(self._fw.NodeLost(node, self._daemon.now_s()))
        tag = nodes.tag_of_node(node).hex()
        for job in [job for job in self._holders if job.endswith(f"@{tag}")]:
            self._end_job(job)

    def is_dead(self, node: str) -> bool:
        return node in self._dead

    def on_lessor_lost(self, node: str, reason: str, retry_s: float) -> None:
        if node not in self._members:
            return
        now_s = self._daemon.now_s()
        self._away[node] = retry_s
        self._room_s.pop(node, None)
        self._break_leases(node, f"was on node {node}, and {reason}", self._members[node]["draining"])
        self._tell(self._fw.NodeForgot(self._view_of(node, is_away=True), now_s))

    def _break_leases(self, node: str, reason: str, drained: str) -> None:
        """drained: why the node was being drained, "" if it was not."""
        for worker, lease in [*self._leases.items()]:
            if lease.node != node:
                continue
            del self._leases[worker]
            self._daemon.hub.send(
                lease.client,
                {
                    "t": "worker_died", "worker": worker, "pid": lease.pid, "exit_code": 0, "signal": 0, "reason": reason,
                    "started": None, "intended": False, "memory": None, "group": "", "node": node,
                    "preempted": drained == "preemption",
                },
            )  # fmt: skip

    def on_lessor(self, node: str, message: Message) -> None:
        if node not in self._members:
            return
        if message["t"] == "room":
            now_s = self._daemon.now_s()
            self._away.pop(node, None)
            self._room_s[node] = now_s
            known = self._members[node]
            drained = known["draining"] or message.get("draining", "")
            self._members[node] = {**known, "available": message["available"], "draining": drained}
            if self._groups is not None:
                told = message["bundles"].items()
                self._groups.room_told(
                    node, {(group, int(index)): free for group, held in told for index, free in held.items()}
                )
            self._see(node)
        elif message["t"] == "preparing":
            told = message["client"], message["key"], message["text"]
            self._tell(self._fw.Preparing(node, *told, self._daemon.now_s()))
        elif message["t"] == "lines":
            self._on_lines(node, message)
        else:
            self._on_told(node, message["client"], message["message"])

    def _on_told(self, node: str, client: str, told: Message) -> None:
        """What a node says to a process of this one."""
        if client not in self._daemon.hub.clients:
            return  # that node hears of it, and what was granted goes back
        if told["t"] == "grant":
            wish = self._wishes.get((client, told["key"]))
            resources = wish["resources"] if wish is not None and not _group_of(wish) else {}
            self._leases[told["worker"]] = _Lease(node, client, told.get("pid", 0), resources)
            self._others.worker_elsewhere(told["worker"], told.get("pid", 0))
            self._daemon.hub.send(client, told)
            self._tell(self._fw.Granted(node, client, told["key"], self._daemon.now_s()))
            return
        if told["t"] == "worker_died" and self._leases.pop(told["worker"], None) is None:
            return  # it was told
        if told["t"] == "demand_failed":
            told = {**told, "reason": f"on node {node}: {told['reason']}"}
        self._daemon.hub.send(client, told)
        if told["t"] == "demand_failed":
            self.failed(client, told["key"])

    # ---- guests ----

    def admit(self, stream: Any) -> None:
        self._begin()
        self._links.admit(stream)

    def on_lessee(self, lessee: lease_links.Lessee, message: Message) -> None:
        kind = message["t"]
        if kind == "hello":
            self._tell_room(lessee)
        elif kind == "want":
            self._daemon.carry_out([GuestWant(lessee, message)])
        elif kind == "job":
            self._on_job(lessee, self._local_job(message["job"]), message["facts"])
        elif kind == "job_over":
            self._on_job_over(lessee, self._local_job(message["job"]))
        elif kind == "lines":
            self._on_lines(lessee.node, message)
        elif message["client"] not in lessee.guests:
            return
        elif kind == "leave":
            lessee.guests.discard(message["client"])
            self._guest_gone(message["client"])
        elif kind == "return":
            self._daemon.leases.returned(message["client"], message["worker"], is_retired=message["retire"])
        else:
            now_s = self._daemon.now_s()
            self._daemon.decide(ev.KillRequested(message["client"], message["worker"], message["reason"], now_s))

    def _guest_want(self, command: GuestWant) -> None:
        lessee, message = command
        client, job = message["client"], self._local_job(message["job"])
        if lessee.connection.is_closed:
            return
        if client not in self._homes:
            if not message["count"]:
                return
            self._homes[client] = lessee
            lessee.guests.add(client)
            self._daemon.decide(ev.ClientJoined(client, self._daemon.now_s()))
        elif self._homes[client] is not lessee:
            return  # no process is of two nodes
        count = self._given.still_wanted(client, message["key"], message["count"], message["heard"])
        trouble = ""
        if count and self._jobs.environment(job) is None:
            trouble = lessee.jobs.get(job) or f"its job {job} has ended"
        if trouble:
            self._daemon.leases.tell_failed(client, message["key"], f"it cannot be run: {trouble}")
            return
        if message["group"]:
            lessee.groups.add(message["group"]["placement_group"])
            self._are_bundles_wanted = True
        wanted = {**message, "strategy": message["group"] or None}
        env = self._in_job(message["env"], job)
        self._daemon.decide(self._daemon.leases.wish_of(client, wanted, env, count, "", lessee.node))

    def _guest_gone(self, client: str) -> None:
        self._homes.pop(client, None)
        self._given.forget(client)
        self._daemon.decide(ev.ClientLeft(client, self._daemon.now_s()))

    def on_lessee_gone(self, lessee: lease_links.Lessee) -> None:
        for client in lessee.guests:
            self._guest_gone(client)
        lessee.guests.clear()
        for job in [*lessee.jobs]:
            self._drop_job(lessee, job)

    # ---- jobs ----

    def _wire_job(self, job: str) -> str:
        return job if "@" in job else f"{job}@{self._own_tag}"

    def _local_job(self, job: str) -> str:
        return job.removesuffix(f"@{self._own_tag}")

    def _facts_of(self, job: str) -> Any:
        environment = self._jobs.environment(self._local_job(job))
        return environment.facts if environment is not None else {}

    def _on_job(self, lessee: lease_links.Lessee, job: str, facts: Message) -> None:
        if "@" not in job:
            return  # of a driver of this node, which knows it
        refusal = self._jobs.refusal(facts)
        if refusal:
            lessee.jobs[job] = refusal
            return
        known = self._jobs.environment(job) or GuestJob(job, facts)
        lessee.jobs[job] = known  # it is forgotten with the last one that holds on to it
        self._holders.setdefault(job, set()).add(lessee)
        self._jobs.began(known)

    def _on_job_over(self, lessee: lease_links.Lessee, job: str) -> None:
        if job.partition("@")[2] == nodes.tag_of_node(lessee.node).hex():
            self._end_job(job)  # who knows it from elsewhere still may have it from here
        else:
            self._drop_job(lessee, job)

    def _drop_job(self, lessee: lease_links.Lessee, job: str) -> None:
        lessee.jobs.pop(job, None)
        holders = self._holders.get(job)
        if holders is not None:
            holders.discard(lessee)
            if not holders:
                self._end_job(job)

    def _end_job(self, job: str) -> None:
        for lessee in self._holders.pop(job, ()):
            lessee.jobs.pop(job, None)
        self._jobs.ended(job)
        self._links.job_over(job)

    def _on_lines(self, node: str, message: Message) -> None:
        """Output of workers of that node, or of one that they came by."""
        host = self._members.get(node, {}).get("address", "").rpartition(":")[0].strip("[]")
        told = {"ip": host, **message["message"]}
        self._daemon.reports.tell_lines(self._local_job(message["job"]), told, is_relayed=True)

    def send_lines(self, job: str, message: Message, driver: str = "", *, is_relayed: bool = False) -> None:
        """Output of a worker of another node's job, to the node of its driver, if that is known, else to that from which the job
        is known, or by way of one that knows it from there."""
        if driver:
            tag = nodes.tag_in(driver)
            home_of = next((node for node in self._members if node.startswith(tag)), "")
            if home_of:
                self._links.say_lines(home_of, message, job)
            return
        holders = self._holders.get(job, set())
        home = [one for one in holders if nodes.tag_of_node(one.node).hex() == job.partition("@")[2]]
        for lessee in home or ([] if is_relayed else [*holders][:1]):
            lessee.send_lines(message, self._wire_job(job))

    def wants_lines(self, job: str, driver: str = "") -> bool:
        """Whether a driver on another node wants the output of its job. driver: which it is, if that is known."""
        is_elsewhere = bool(self._members) if driver else job in self._holders
        return is_elsewhere and bool(self._facts_of(job).get("log_to_driver"))

    # ---- time ----

    def next_tick_s(self) -> float | None:
        if self._forwarding is None:
            return None
        due = [self._forwarding.next_tick_s(), self._links.next_tick_s(), self._room_due_s, *self._away.values()]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        made, now_s = self._forwarding, self._daemon.now_s()
        if made is None:
            return
        for node in [node for node, until_s in self._away.items() if until_s <= now_s]:
            del self._away[node]
            self._see(node)
        self._links.tick()
        if self._room_due_s is not None and self._room_due_s <= now_s:
            self._room_due_s = None
            for lessee in {*self._homes.values()}:
                self._tell_room(lessee)
        due_s = made.next_tick_s()
        if due_s is not None and due_s <= now_s:
            self._tell(self._fw.Ticked(now_s))

    def close(self) -> None:
        if self._forwarding is not None:
            self._links.close()

    # ---- answers ----

    def pending(self) -> list[Asked]:
        """What is asked of other nodes alone."""
        if self._forwarding is None:
            return []
        now_s = self._daemon.now_s()
        found = []
        for place in self._held:
            found.append(self._asked_of_nobody(place, now_s))
        for wish in self._forwarding.wishes.values():
            message = self._wishes.get((wish.client, wish.key))
            if message is None or self._node in wish.on:
                continue
            asked = sorted(wish.on)
            states = [f"{node[:8]} ({state})" if (state := self._state(node)) else node[:8] for node in asked]
            text = f"is asked of {'node' if len(asked) == 1 else 'nodes'} {', '.join(states)}: {wish.reason}"
            if self._awaited.issuperset(asked):
                text = f"waits for {'node' if len(asked) == 1 else 'nodes'} {', '.join(states)}"
            why = reasons.Reason(reasons.NODE, "its worker", text, facts={"nodes": asked})
            done = [f"on node {node} {doing}" for node, doing in sorted(wish.preparing.items())]
            if done:
                why = reasons.Reason(
                    reasons.ENVIRONMENT, "its runtime environment", "; ".join(done), facts={"nodes": asked}
                )
            resources = dict(message["resources"])
            found.append(
                Asked(wish.client, wish.key, wish.count, message["depth"], resources, now_s - message["since_s"], why)
            )
        return found

    def _state(self, node: str) -> str:
        """Why nothing can be said to it now."""
        if node in self._awaited:
            return "which has not come back since the head started again"
        return self._links.state(node)

    def waiting(self) -> Iterator[tuple[Message, int]]:
        """What processes of this node want that others could have as well, as they have said it, and how much of it was not
        granted yet, wherever it is asked for."""
        wishes = self._forwarding.wishes if self._forwarding is not None else None
        for (client, key), message in self._wishes.items():
            found: Any = (
                wishes.get((client, key)) if wishes is not None else self._daemon.agent.demands.get((client, "", key))
            )
            if found is not None and found.count:
                yield message, found.count

    def _asked_of_nobody(self, place: tuple[str, str], now_s: float) -> Asked:
        """What waits for its placement group."""
        message, kind = self._wishes[place], self._kinds[place]
        text = self._groups.reason(kind) if self._groups is not None else ""
        waits_for = self._daemon.control.waits_for()
        text = f"{text} ({waits_for})" if waits_for else text
        facts: dict[str, object] = {"group": kind.group, "bundle": kind.bundle}
        why = reasons.Reason(reasons.GROUP, "its placement group", text, facts=facts)
        waiting_s, needs = now_s - message["since_s"], dict(message["resources"])
        return Asked(*place, message["count"], message["depth"], needs, waiting_s, why)


def _group_of(message: Message) -> str:
    """The placement group in which it is to run; "" for none."""
    strategy = message["strategy"]
    return str(strategy.get("placement_group", "")) if isinstance(strategy, dict) else ""


def _positive(amounts: Mapping[str, int]) -> Message:
    return {name: max(0, amount) for name, amount in amounts.items()}


def _demands(message: Message, *, is_in_bundle: bool = False) -> list[Any]:
    """What a process wants, by each of its label selectors."""
    from umbel._model import placement, resources

    needs = resources.ResourceSet(message["resources"])
    sent = message["strategy"]
    strategy: placement.Strategy = "SPREAD" if sent == "SPREAD" else "DEFAULT"
    if isinstance(sent, dict) and "node_id" in sent:
        strategy = placement.NodeAffinity(
            str(sent["node_id"]),
            is_soft=bool(sent.get("soft")),
            spills_when_busy=bool(sent.get("spills_when_busy")),
            fails_when_busy=bool(sent.get("fails_when_busy")),
        )
    selectors = message["label_selectors"] or [[]]
    return [placement.Demand(needs, strategy, dict(one), message["depth"], is_in_bundle) for one in selectors]


def _view(node: str, facts: Message, free: Mapping[str, int], *, is_local: bool) -> Any:
    from umbel._model import node_labels, placement, resources

    available = resources.ResourceSet({name: max(0, amount) for name, amount in free.items()})
    labels = {node_labels.NODE_ID: node, **facts["labels"]}
    return placement.NodeView(
        node, resources.ResourceSet(facts["resources"]), available, labels, is_local=is_local,
        is_draining=bool(facts["draining"]),
    )  # fmt: skip
