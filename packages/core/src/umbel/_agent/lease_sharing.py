"""Leases across the nodes of a cluster, in one node's daemon: what `umbel._scheduling.forwarding` decides, done.

For processes of this node: what they want goes to `Forwarding`, which says of which nodes it is asked; this node's own
agent is one of them. Tasks of placement groups are asked for where their bundles are (`lease_groups`). Other nodes'
processes are guests here (`lease_guests`), and their drivers' jobs have workers here (`lease_jobs`). While a node is alone
nothing is decided here; what is wanted goes to the agent at once, and is only remembered, for when another node comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from umbel._agent import environment_service, lease_jobs, lease_nodes, lease_views
from umbel._agent import events as ev
from umbel._base import nodes
from umbel._model import reasons

if TYPE_CHECKING:
    from umbel._agent import lease_groups, lease_guests, lease_links
    from umbel._agent.control import Control
    from umbel._agent.hub import Client, Hub
    from umbel._agent.jobs import NodeJobs
    from umbel._agent.lease_service import LeaseService
    from umbel._agent.other_nodes import OtherNodes
    from umbel._agent.state import AgentState
    from umbel._agent.worker_reports import WorkerReports
    from umbel._base import tokens
    from umbel._scheduling import forwarding

ROOM_S = 0.05  # other nodes are told of what is free here no more often, but with a grant

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
        self._token = token
        self._jobs = lease_jobs.LeaseJobs(jobs, nodes.tag_of_node(self._node).hex())
        self.wishes: dict[tuple[str, str], Message] = {}  # of processes of this node, as said last, with "since_s"
        self._nodes = lease_nodes.LeaseNodes()
        self._leases: dict[str, _Lease] = {}  # of workers of other nodes
        self.is_alone = True  # what is below is made once there is another node
        self.forwarding: forwarding.Forwarding
        self._given: forwarding.Given
        self._links: lease_links.LeaseLinks
        self._groups: lease_groups.LeaseGroups
        self._guests: lease_guests.LeaseGuests
        self._free: dict[str, int] = {}  # here, as last said to `Forwarding`
        self._has_granted = False  # since then
        self._room_due_s: float | None = None  # when guests' nodes are to be told

    def _begin(self) -> None:
        """There is another node."""
        if not self.is_alone:
            return
        from umbel._agent import lease_groups, lease_guests, lease_links
        from umbel._scheduling import forwarding

        self.is_alone = False
        self._fw = forwarding
        self._given = forwarding.Given()
        self.forwarding = forwarding.Forwarding(self._node, self._others.placement_policy())
        self._links = lease_links.LeaseLinks(self._others, self._node, self._token, self, self._jobs.facts_of)
        self._jobs.links = self._links
        self._groups = lease_groups.LeaseGroups(self._daemon, self, self._node)
        self._guests = lease_guests.LeaseGuests(self._daemon, self._node, self._jobs, self._groups, self._given)
        self._daemon.add_commands(
            {
                forwarding.Want: self._want,
                forwarding.Leave: lambda command: self._links.say(
                    command.node, {"t": "leave", "client": command.client}
                ),
                forwarding.Fail: self._fail,
            }
        )
        self._see_own()
        for (client, key), message in list(self.wishes.items()):
            demand = self._daemon.agent.demands.get((client, "", key))
            if demand is None:
                del self.wishes[client, key]  # all of it was granted
            elif lease_views.group_of(message):
                self._want(forwarding.Want(self._node, client, key, 0, 0))  # it may be for another node
                self.wishes[client, key] = {**message, "count": demand.count}
                self._groups.wish((client, key), self.wishes[client, key])
            else:
                self._wish(client, {**message, "count": demand.count})

    def tell(self, *events: Any) -> None:
        """The machine that forwards."""
        if not self.is_alone:
            self._daemon.carry_out(self.forwarding.apply(*events))

    # ---- what processes of this node want ----

    def on_demand(self, client: Client, message: Message) -> bool:
        """Whether it is seen to here."""
        place = (client.id, message["key"])
        group = lease_views.group_of(message)
        if client.job is None or environment_service.trouble_of(message["env"]):
            return False  # its job has ended, or it is to be refused
        is_waiting = not self.is_alone and (place in self.forwarding.wishes or place in self._groups.held)
        since_s = self.wishes[place]["since_s"] if is_waiting else self._daemon.now_s()
        noted = {**message, "job": self._jobs.on_wire(client.job.id), "since_s": since_s}
        if message["count"]:
            self.wishes[place] = noted
        if self.is_alone:
            return False
        if group and message["count"]:
            self._groups.wish(place, noted)
            return True
        self._wish(client.id, noted)
        if not message["count"]:
            self.forget_wish(place)
        return True

    def _wish(self, client: str, message: Message) -> None:
        """Of tasks in no placement group, or of nothing any more."""
        count, at_s = message["count"], self._daemon.now_s()
        near = [(self._by_tag(tag), amount) for tag, amount in message["near"].items()]
        self.tell(self._fw.WishChanged(client, message["key"], lease_views.demands_of(message), count, at_s, near))

    def _by_tag(self, tag: str) -> str:
        """The id of a node that is there, else ""."""
        return next((one for one in (self._node, *self._nodes.members) if one.startswith(tag)), "")

    def forget_wish(self, place: tuple[str, str]) -> Message | None:
        if not self.is_alone:
            self._groups.held.pop(place, None)
        return self.wishes.pop(place, None)

    def _want(self, command: forwarding.Want) -> None:
        place = (command.client, command.key)
        message = self.wishes.get(place)
        if command.node != self._node:
            self._links.want(
                command.node,
                {
                    "t": "want", "client": command.client, "key": command.key, "count": command.lease_count,
                    "heard": command.heard_count, "job": message["job"] if message else "",
                    "resources": message["resources"] if message else {}, "depth": message["depth"] if message else 0,
                    "env": (message["env"] or {}) if message else {},
                    "group": message["strategy"] if message and lease_views.group_of(message) else {},
                    "impatient": message is not None and lease_views.is_impatient(message), "claim": command.is_claim,
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
        env = {**(message["env"] or {}), "job": client.job_id}
        self._daemon.decide(self._daemon.leases.wish_of(command.client, message, env, count, command.refusal))

    def _fail(self, command: forwarding.Fail) -> None:
        message = self.forget_wish((command.client, command.key))
        reason = command.reason
        wanted = message["strategy"]["node_id"] if message and isinstance(message["strategy"], dict) else self._node
        if wanted != self._node and wanted not in self._nodes.members:
            from umbel._agent import elsewhere

            reason = f"it must run on node {wanted}, {elsewhere.by_id(self._others.listed(), wanted)}"
        self._daemon.leases.tell_failed(command.client, command.key, reason, is_unschedulable=True)

    def failed(self, client: str, key: str) -> None:
        """A node will not grant this to a process of this one, whatever happens: it was told, and wants it no more."""
        if self.forget_wish((client, key)) is not None and not self.is_alone:
            self.tell(self._fw.WishChanged(client, key, (), 0, self._daemon.now_s()))

    def client_gone(self, client: Client) -> None:
        for place in [place for place in self.wishes if place[0] == client.id]:
            del self.wishes[place]
        if self.is_alone:
            return
        self._groups.client_gone(client.id)
        for worker in [worker for worker, lease in self._leases.items() if lease.client == client.id]:
            del self._leases[worker]
        self._given.forget(client.id)
        self.tell(self._fw.ClientLeft(client.id, self._daemon.now_s()))
        if client.is_driver:
            self._links.job_over(self._jobs.on_wire(client.job_id))

    def returns(self, client: str, worker: str, *, is_retired: bool) -> bool:
        """A lease goes back; whether it is one of another node."""
        lease = self._leases.pop(worker, None)
        if lease is None:
            return False
        self._links.say(lease.node, {"t": "return", "client": client, "worker": worker, "retire": is_retired})
        if self._nodes.given_back(lease.node, lease.resources):
            self._see(lease.node)
        return True

    def kills(self, client: str, worker: str, reason: str) -> bool:
        """Its holder wants it dead; whether it is of another node."""
        lease = self._leases.get(worker)
        if lease is None:
            return False
        self._links.say(lease.node, {"t": "kill", "client": client, "worker": worker, "reason": reason})
        return True

    def checks(self, client: str, worker: str) -> bool:
        """Whether its node is asked if a process has this worker; it does not answer if it has."""
        lease = self._leases.get(worker)
        if lease is None or lease.client != client:
            return False
        self._links.say(lease.node, {"t": "check", "client": client, "worker": worker})
        return True

    # ---- what this node's agent has decided ----

    def note(self, commands: Sequence[Any]) -> None:
        """The agent's machine has decided this; it is not done yet."""
        if not self.is_alone:
            for command in commands:
                if type(command) is ev.Grant:
                    self._given.granted(command.client, command.key)

    def granted(self, client: str, key: str, message: Message) -> bool:
        """A lease of a worker of this node; whether its holder has been told."""
        if self.is_alone:
            return False
        home = self._guests.home_of(client)
        if home is None:
            self._has_granted = True
            self.tell(self._fw.Granted(self._node, client, key, self._daemon.now_s()))
            return False
        home.send({"t": "tell", "client": client, "message": message})
        self._tell_room(home)
        return True

    def preparing(self, client: str, key: str, text: str) -> None:
        """What is done for the environment that a process waits for on this node, in words; "" when it is there."""
        if self.is_alone:
            return
        home = self._guests.home_of(client)
        if home is not None:
            home.send({"t": "preparing", "client": client, "key": key, "text": text})
        else:
            self.tell(self._fw.Preparing(self._node, client, key, text, self._daemon.now_s()))

    def promised(self, client: str, key: str, count: int) -> None:
        """So many leases will be granted here of what a process waits for."""
        if self.is_alone:
            return
        home = self._guests.home_of(client)
        if home is not None:
            home.send({"t": "promised", "client": client, "key": key, "count": count})
        else:
            self.tell(self._fw.Promised(self._node, client, key, count, self._daemon.now_s()))

    def tell_guest(self, client: str, message: Message) -> bool:
        """What a lease's holder is told; whether it was a guest."""
        home = None if self.is_alone else self._guests.home_of(client)
        if home is not None:
            home.send({"t": "tell", "client": client, "message": message})
        return home is not None

    def look(self) -> None:
        """All that was decided is done: is something else free here than before?"""
        if self.is_alone:
            return
        is_other = self._has_granted or self._daemon.agent.ledger.free != self._free
        if is_other or self._groups.has_changed():
            self._see_own()
            self._room_is_due()

    def _room_is_due(self) -> None:
        if self._guests.has_any and self._room_due_s is None:
            self._room_due_s = self._daemon.now_s() + ROOM_S

    def _see_own(self) -> None:
        ledger = self._daemon.agent.ledger
        self._has_granted = False
        self._free = dict(ledger.free)
        facts = {
            "resources": ledger.total, "labels": self._config["labels"], "draining": self._others.drain_reason(),
        }  # fmt: skip
        self._groups.see_own()
        free = {} if self._daemon.agent.draining else self._free
        view = self._groups.view_of(self._node, facts, free, is_local=True)
        self.tell(self._fw.NodeSeen(view, self._daemon.now_s()))

    def draining_changed(self) -> None:
        """Whether this node takes work has."""
        if not self.is_alone:
            self._see_own()
            for lessee in self._guests.lessees():
                self._tell_room(lessee)

    def _tell_room(self, lessee: lease_links.Lessee) -> None:
        agent = self._daemon.agent
        free = {} if agent.draining else lease_views.positive(agent.ledger.free)
        told = {"t": "room", "available": free, "bundles": self._groups.told_to(lessee)}
        lessee.send({**told, "draining": self._others.drain_reason(), "returns": lessee.returns})

    # ---- the other nodes ----

    def node_awaited(self, facts: Message) -> None:
        """A node may come back to this head, which has started again: until it does, nothing is asked of it, and what insists
        on it waits. facts: as it is listed."""
        self._begin()
        self._nodes.awaited.add(facts["node_id"])
        self._nodes.enter(facts)
        self._see(facts["node_id"])

    def node_appeared(self, node: str, address: str) -> None:
        if node == self._node:
            return
        facts = self._others.facts(node)
        if facts is None or not facts.get("alive", True):
            return
        self._begin()
        self._nodes.enter(facts)
        self._links.add(node, address)
        if node in self._nodes.awaited:
            self._nodes.awaited.discard(node)
            self.tell(self._fw.NodeForgot(self._view_of(node), self._daemon.now_s()))
        else:
            self._see(node)
        self._groups.ask_held()

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """The head knows this of nodes."""
        now_s = self._daemon.now_s()
        seen = []
        for change in changes:
            if self._nodes.changed(change, now_s):
                node = change["node_id"]
                seen.append(self._seen(node, is_away=self._nodes.is_away(node)))
        self.tell(*seen)

    def _see(self, node: str) -> None:
        self.tell(self._seen(node))

    def _seen(self, node: str, *, is_away: bool = False) -> Any:
        return self._fw.NodeSeen(self._view_of(node, is_away=is_away), self._daemon.now_s())

    def _view_of(self, node: str, *, is_away: bool = False) -> Any:
        facts = self._nodes.members[node]
        free = {} if is_away else self._nodes.free(node)
        return self._groups.view_of(node, facts, free, is_local=False, is_away=is_away)

    def node_died(self, node: str, reason: str) -> None:
        drained = self._nodes.died(node, self._others.facts(node) or {})
        if drained is None:
            return
        self._links.forget(node)
        self._break_leases(node, f"was on node {node}, which died: {reason}", drained)
        self._groups.node_lost(node)
        self.tell(self._fw.NodeLost(node, self._daemon.now_s()))
        self._jobs.node_died(node)

    def is_dead(self, node: str) -> bool:
        return self._nodes.is_dead(node)

    def on_lessor_lost(self, node: str, reason: str, retry_s: float) -> None:
        if node not in self._nodes.members:
            return
        now_s = self._daemon.now_s()
        self._nodes.lost(node, retry_s)
        self._break_leases(node, f"was on node {node}, and {reason}", self._nodes.members[node]["draining"])
        self.tell(self._fw.NodeForgot(self._view_of(node, is_away=True), now_s))

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
        if node not in self._nodes.members:
            return
        if message["t"] == "room":
            self._nodes.room_told(node, message, self._daemon.now_s())
            told_of = message["bundles"].items()
            self._groups.room_told(
                node, {(group, int(index)): free for group, held in told_of for index, free in held.items()}
            )
            self._see(node)
        elif message["t"] == "preparing":
            told = message["client"], message["key"], message["text"]
            self.tell(self._fw.Preparing(node, *told, self._daemon.now_s()))
        elif message["t"] == "promised":
            told = message["client"], message["key"], message["count"]
            self.tell(self._fw.Promised(node, *told, self._daemon.now_s()))
        elif message["t"] == "lines":
            self._on_lines(node, message)
        else:
            self._on_told(node, message["client"], message["message"])

    def _on_told(self, node: str, client: str, told: Message) -> None:
        """What a node says to a process of this one."""
        if client not in self._daemon.hub.clients:
            return  # that node hears of it, and what was granted goes back
        if told["t"] == "grant":
            wish = self.wishes.get((client, told["key"]))
            resources = wish["resources"] if wish is not None and not lease_views.group_of(wish) else {}
            self._leases[told["worker"]] = _Lease(node, client, told.get("pid", 0), resources)
            self._others.worker_elsewhere(told["worker"], told.get("pid", 0))
            self._daemon.hub.send(client, told)
            self.tell(self._fw.Granted(node, client, told["key"], self._daemon.now_s()))
            return
        if told["t"] == "worker_died" and self._leases.pop(told["worker"], None) is None:
            return  # it was told
        if told["t"] == "demand_failed":
            told = {**told, "reason": f"on node {node}: {told['reason']}"}
        self._daemon.hub.send(client, told)
        if told["t"] == "demand_failed":
            self.failed(client, told["key"])

    # ---- what jobs are entitled to ----

    def asking(self) -> dict[str, ev.Job]:
        """The jobs of processes of this node that want more of other nodes."""
        return {job.id: job for job, _ in self._short()}

    def use_told(self) -> None:
        """This node has heard what jobs have of the cluster: nodes without room may be asked for what others have to give up."""
        short, at_s = self._short(), self._daemon.now_s()
        may_ask = self._daemon.agent.entitled(short, at_s)
        self.tell(*(self._fw.MayAsk(*place, count, at_s) for place, count in may_ask.items()))

    def _short(self) -> list[tuple[ev.Job, forwarding.Short]]:
        """What waits of processes of this node without a promise, with its job."""
        if self.is_alone:
            return []
        short = [*self.forwarding.short(self._daemon.now_s())]
        jobs = {one.client: self._daemon.leases.job_of(one.client) for one in short}
        return [(jobs[one.client], one) for one in short if jobs[one.client].id]

    # ---- what lease_groups asks for ----

    def living(self) -> set[str]:
        """The nodes of which something may be asked, this one among them."""
        return {self._node, *self._nodes.members} - self._nodes.awaited

    def see_room(self, nodes: Iterable[str]) -> None:
        """What there is room for on these nodes, in bundles that have come or tasks that are new."""
        for node in dict.fromkeys(nodes):
            if node == self._node:
                self._see_own()
            elif node in self._nodes.members:
                self.tell(self._seen(node, is_away=self._nodes.is_away(node)))

    def lessees(self) -> set[lease_links.Lessee]:
        return self._guests.lessees()

    def on_group(self, message: Message) -> None:
        """The head says where the bundles of a group are now: "group_places"."""
        if not self.is_alone:
            self._groups.on_group(message)

    # ---- nodes that lease workers here ----

    def admit(self, stream: Any) -> None:
        self._begin()
        self._links.admit(stream)

    def on_lessee(self, lessee: lease_links.Lessee, message: Message) -> None:
        kind = message["t"]
        if kind == "hello":
            self._tell_room(lessee)
        elif kind == "job":
            self._jobs.told(lessee, self._jobs.here(message["job"]), message["facts"])
        elif kind == "job_over":
            self._jobs.told_over(lessee, self._jobs.here(message["job"]))
        elif kind == "lines":
            self._on_lines(lessee.node, message)
        else:
            if kind == "return":
                lessee.returns += 1
                self._room_is_due()
            self._guests.on_lessee(lessee, message)

    def on_lessee_gone(self, lessee: lease_links.Lessee) -> None:
        self._guests.lessee_gone(lessee)
        self._jobs.lessee_gone(lessee)

    # ---- output ----

    def _on_lines(self, node: str, message: Message) -> None:
        """Output of workers of that node, or of one that they came by."""
        host = self._nodes.address_of(node).rpartition(":")[0].strip("[]")
        told = {"ip": host, **message["message"]}
        self._daemon.reports.tell_lines(self._jobs.here(message["job"]), told, is_relayed=True)

    def send_lines(self, job: str, message: Message, driver: str = "", *, is_relayed: bool = False) -> None:
        """Output of a worker of another node's job, to the node of its driver, if that is known, else to that from which the job
        is known, or by way of one that knows it from there."""
        if not driver:
            self._jobs.send_lines(job, message, is_relayed=is_relayed)
        elif home := self._nodes.of_process(driver):
            self._links.say_lines(home, message, job)

    def wants_lines(self, job: str, driver: str = "") -> bool:
        """Whether a driver on another node wants the output of its job. driver: which it is, if that is known."""
        is_elsewhere = bool(self._nodes.members) if driver else self._jobs.has_holder(job)
        return is_elsewhere and bool(self._jobs.facts_of(job).get("log_to_driver"))

    # ---- time ----

    def next_tick_s(self) -> float | None:
        if self.is_alone:
            return None
        due = [self.forwarding.next_tick_s(), self._links.next_tick_s(), self._room_due_s, *self._nodes.due_s()]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        if self.is_alone:
            return
        now_s = self._daemon.now_s()
        for node in self._nodes.due(now_s):
            self._see(node)
        self._links.tick()
        if self._room_due_s is not None and self._room_due_s <= now_s:
            self._room_due_s = None
            for lessee in self._guests.lessees():
                self._tell_room(lessee)
        due_s = self.forwarding.next_tick_s()
        if due_s is not None and due_s <= now_s:
            self.tell(self._fw.Ticked(now_s))

    def close(self) -> None:
        if not self.is_alone:
            self._links.close()

    # ---- answers ----

    def pending(self) -> list[Asked]:
        """What is asked of other nodes alone."""
        if self.is_alone:
            return []
        found = [self._asked(place, self.wishes[place]["count"], why) for place, why in self._groups.waiting()]
        for wish in self.forwarding.wishes.values():
            message = self.wishes.get((wish.client, wish.key))
            if message is None or self._node in wish.on:
                continue
            asked = sorted(wish.on)
            states = [f"{node[:8]} ({state})" if (state := self._state(node)) else node[:8] for node in asked]
            text = f"is asked of {'node' if len(asked) == 1 else 'nodes'} {', '.join(states)}: {wish.reason}"
            if self._nodes.awaited.issuperset(asked):
                text = f"waits for {'node' if len(asked) == 1 else 'nodes'} {', '.join(states)}"
            facts = {"nodes": asked, **lease_views.lacks(message)}
            why = reasons.Reason(reasons.NODE, "its worker", text, facts=facts)
            done = [f"on node {node} {doing}" for node, doing in sorted(wish.preparing.items())]
            if done:
                why = reasons.Reason(
                    reasons.ENVIRONMENT, "its runtime environment", "; ".join(done), facts={"nodes": asked}
                )
            found.append(self._asked((wish.client, wish.key), wish.count, why))
        return found

    def _asked(self, place: tuple[str, str], count: int, why: reasons.Reason) -> Asked:
        message = self.wishes[place]
        waiting_s = self._daemon.now_s() - message["since_s"]
        return Asked(*place, count, message["depth"], dict(message["resources"]), waiting_s, why)

    def _state(self, node: str) -> str:
        """Why nothing can be said to it now."""
        if node in self._nodes.awaited:
            return "which has not come back since the head started again"
        return self._links.state(node)

    def waiting(self) -> Iterator[tuple[Message, int]]:
        """What processes of this node want that others could have as well, as they have said it, and how much of it was not
        granted yet, wherever it is asked for."""
        wishes = None if self.is_alone else self.forwarding.wishes
        for (client, key), message in self.wishes.items():
            found: Any = (
                wishes.get((client, key)) if wishes is not None else self._daemon.agent.demands.get((client, "", key))
            )
            if found is not None and found.count:
                yield message, found.count
