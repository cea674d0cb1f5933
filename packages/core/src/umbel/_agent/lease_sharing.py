"""Leases across the nodes of a cluster, in one node's daemon: what `umbel._scheduling.forwarding` decides, done.

Two parts. For processes of this node: what they want goes to `Forwarding`, which says of which nodes it is asked; this node's
own agent is one of them. For other nodes: their processes are *guests*, which are clients of this node's agent as its own are,
but are told by way of their node's daemon. While a node is alone nothing is decided here, and what is wanted goes to the agent
at once; it is only remembered, for when another node comes.

A job is known on other nodes by its number and its node's tag, `number@tag`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from umbel._agent import events as ev
from umbel._base import nodes
from umbel._model import reasons

if TYPE_CHECKING:
    from umbel._agent import lease_links
    from umbel._agent.hub import Client, Hub
    from umbel._agent.jobs import NodeJobs
    from umbel._agent.state import AgentState
    from umbel._base import tokens
    from umbel._scheduling import forwarding

ROOM_S = 0.05  # other nodes are told of what is free here no more often, but with a grant
ROOM_COUNTS_S = 2.0  # so long what a node itself has said is newer than what the head says of it
MAY_TRAVEL = {"env_vars", "config"}  # of a runtime environment: what is no file and need not be built

Message = dict[str, Any]


class Daemon(Protocol):
    """What sharing needs of the daemon that it is in."""

    hub: Hub
    agent: AgentState

    def now_s(self) -> float: ...

    def decide(self, *events: Any) -> None: ...

    def carry_out(self, commands: Iterable[Any]) -> None: ...

    def add_commands(self, handlers: Mapping[type, Callable[[Any], None]]) -> None: ...

    def wish_of(self, client: str, message: Message, env: Any, count: int, refusal: str) -> ev.DemandChanged: ...

    def tell_failed(self, client: str, key: str, reason: str, *, is_unschedulable: bool = False) -> None: ...

    def returned(self, client: str, worker: str, *, is_retired: bool) -> None: ...

    def other_nodes(self) -> list[Message]: ...

    def drain_reason(self) -> str:
        """Why this node is being drained, see `draining.REASONS`; "" if it is not."""

    def is_env_allowed(self, env: Any) -> bool: ...

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


class Sharing:
    """Of one node."""

    def __init__(self, daemon: Daemon, config: Message, jobs: NodeJobs, token: tokens.Token) -> None:
        self._daemon = daemon
        self._config = config
        self._node: str = config["node_id"]
        self._own_tag = nodes.tag_of_node(self._node).hex()
        self._jobs = jobs
        self._token = token
        self._wishes: dict[tuple[str, str], Message] = {}  # of processes of this node, as said last, with "since_s"
        self._staying: dict[tuple[str, str], str] = {}  # why these are asked of nobody else
        self._members: dict[str, Message] = {}  # the other nodes
        self._dead: set[str] = set()
        self._away: dict[str, float] = {}  # nodes that could not be reached, until then
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
        why = self._why_it_stays(client, message)
        if why:
            if message["count"]:
                self._staying[place] = why
            else:
                self._staying.pop(place, None)
            return False
        is_waiting = self._forwarding is not None and place in self._forwarding.wishes
        since_s = self._wishes[place]["since_s"] if is_waiting else self._daemon.now_s()
        noted = {**message, "job": self._wire_job(client.job.id), "since_s": since_s}
        if message["count"]:
            self._wishes[place] = noted
        if self._forwarding is None:
            return False
        self._wish(client.id, noted)
        if not message["count"]:
            self._wishes.pop(place, None)
        return True

    def _why_it_stays(self, client: Client, message: Message) -> str:
        strategy = message["strategy"]
        if isinstance(strategy, dict) and "placement_group" in strategy:
            return "it runs in a placement group, which is on this node"
        env = message["env"]
        if env and not (env.keys() <= MAY_TRAVEL and self._daemon.is_env_allowed(env)):
            return "its runtime environment has files or packages, which other nodes cannot get yet"
        return "" if client.job is not None else "its job has ended"

    def _wish(self, client: str, message: Message) -> None:
        count, at_s = message["count"], self._daemon.now_s()
        self._tell(self._fw.WishChanged(client, message["key"], _demands(message), count, at_s))

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
        self._daemon.decide(self._daemon.wish_of(command.client, message, env, count, command.refusal))

    def _in_job(self, env: Any, job: str) -> Message:
        return {**(env or {}), "job": job}

    def _fail(self, command: forwarding.Fail) -> None:
        message = self._wishes.pop((command.client, command.key), None)
        reason = command.reason
        wanted = message["strategy"]["node_id"] if message and isinstance(message["strategy"], dict) else self._node
        if wanted != self._node and wanted not in self._members:
            from umbel._agent import elsewhere

            reason = f"it must run on node {wanted}, {elsewhere.by_id(self._daemon.other_nodes(), wanted)}"
        self._daemon.tell_failed(command.client, command.key, reason, is_unschedulable=True)

    def failed(self, client: str, key: str) -> None:
        """A node will not grant this to a process of this one, whatever happens: it was told, and wants it no more."""
        if self._wishes.pop((client, key), None) is not None and self._forwarding is not None:
            self._tell(self._fw.WishChanged(client, key, (), 0, self._daemon.now_s()))

    def client_gone(self, client: Client) -> None:
        for known in (self._wishes, self._staying):
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
        if self._has_granted or self._daemon.agent.ledger.free != self._free:
            self._see_own()
            if self._homes and self._room_due_s is None:
                self._room_due_s = self._daemon.now_s() + ROOM_S

    def _see_own(self) -> None:
        ledger = self._daemon.agent.ledger
        self._has_granted = False
        self._free = dict(ledger.free)
        facts = {
            "resources": ledger.total, "labels": self._config["labels"], "draining": self._daemon.drain_reason(),
        }  # fmt: skip
        free = {} if self._daemon.agent.draining else self._free
        self._tell(self._fw.NodeSeen(_view(self._node, facts, free, is_local=True), self._daemon.now_s()))

    def draining_changed(self) -> None:
        """Whether this node takes work has."""
        if self._forwarding is not None:
            self._see_own()
            for lessee in {*self._homes.values()}:
                self._tell_room(lessee)

    def _tell_room(self, lessee: lease_links.Lessee) -> None:
        agent = self._daemon.agent
        free = {} if agent.draining else {name: max(0, amount) for name, amount in agent.ledger.free.items()}
        lessee.send({"t": "room", "available": free, "draining": self._daemon.drain_reason()})

    # ---- the other nodes ----

    def node_appeared(self, node: str, address: str) -> None:
        if node == self._node:
            return
        facts = next((one for one in self._daemon.other_nodes() if one["node_id"] == node), None)
        if facts is None or not facts.get("alive", True):
            return
        self._begin()
        self._members[node] = {**facts, "draining": (facts.get("draining") or {"reason": ""})["reason"]}
        self._links.add(node, address)
        self._see(node)

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """The head knows this of nodes."""
        seen = []
        for change in changes:
            node = change["node_id"]
            known = self._members.get(node)
            if known is None or "available" not in change:
                continue
            self._members[node] = {**known, "available": change["available"]}
            if change.get("draining") and not known.get("draining"):
                self._members[node]["draining"] = change["draining"]["reason"]
                seen.append(self._seen(node, is_away=node in self._away))
                continue
            if node not in self._away and self._room_s.get(node, 0.0) + ROOM_COUNTS_S < self._daemon.now_s():
                seen.append(self._seen(node))
        self._tell(*seen)

    def _see(self, node: str) -> None:
        self._tell(self._seen(node))

    def _seen(self, node: str, *, is_away: bool = False) -> Any:
        facts = self._members[node]
        view = _view(node, facts, {} if is_away else facts["available"], is_local=False)
        return self._fw.NodeSeen(view, self._daemon.now_s())

    def node_died(self, node: str, reason: str) -> None:
        self._dead.add(node)
        known = self._members.pop(node, None)
        if known is None or self._forwarding is None:
            return
        facts = next((one for one in self._daemon.other_nodes() if one["node_id"] == node), {})
        drained = known["draining"] or (facts.get("draining") or {"reason": ""})["reason"]
        self._away.pop(node, None)
        self._room_s.pop(node, None)
        self._links.forget(node)
        self._break_leases(node, f"was on node {node}, which died: {reason}", drained)
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
        self._tell(self._fw.NodeLost(node, now_s), self._seen(node, is_away=True))

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
            self._see(node)
        elif message["t"] == "lines":
            job = self._local_job(message["job"])
            if "@" in job:
                self.send_lines(job, message["message"], is_relayed=True)
            else:
                self._daemon.hub.forward_lines(message["message"], job)
        else:
            self._on_told(node, message["client"], message["message"])

    def _on_told(self, node: str, client: str, told: Message) -> None:
        """What a node says to a process of this one."""
        if client not in self._daemon.hub.clients:
            return  # that node hears of it, and what was granted goes back
        if told["t"] == "grant":
            self._leases[told["worker"]] = _Lease(node, client, told.get("pid", 0))
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
        elif message["client"] not in lessee.guests:
            return
        elif kind == "leave":
            lessee.guests.discard(message["client"])
            self._guest_gone(message["client"])
        elif kind == "return":
            self._daemon.returned(message["client"], message["worker"], is_retired=message["retire"])
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
            self._daemon.tell_failed(client, message["key"], f"it cannot be run: {trouble}")
            return
        wanted = {**message, "strategy": None}
        self._daemon.decide(self._daemon.wish_of(client, wanted, self._in_job(message["env"], job), count, ""))

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

    def send_lines(self, job: str, message: Message, *, is_relayed: bool = False) -> None:
        """Output of a worker of another node's job, to that node, or by way of one that knows it from there."""
        holders = self._holders.get(job, set())
        home = [one for one in holders if nodes.tag_of_node(one.node).hex() == job.partition("@")[2]]
        for lessee in home or ([] if is_relayed else [*holders][:1]):
            lessee.send_lines(message, self._wire_job(job))

    def wants_lines(self, job: str) -> bool:
        return job in self._holders and bool(self._facts_of(job).get("log_to_driver"))

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
        for wish in self._forwarding.wishes.values():
            message = self._wishes.get((wish.client, wish.key))
            if message is None or self._node in wish.on:
                continue
            asked = sorted(wish.on)
            states = [
                f"{node[:8]} ({self._links.state(node)})" if self._links.state(node) else node[:8] for node in asked
            ]
            text = f"is asked of {'node' if len(asked) == 1 else 'nodes'} {', '.join(states)}: {wish.reason}"
            why = reasons.Reason(reasons.NODE, "its worker", text, facts={"nodes": asked})
            resources = dict(message["resources"])
            found.append(
                Asked(wish.client, wish.key, wish.count, message["depth"], resources, now_s - message["since_s"], why)
            )
        return found

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

    def stays(self, client: str, key: str) -> str:
        """Why something that waits is asked of this node alone; "" if it is not."""
        return self._staying.get((client, key), "") if self._members else ""


def _demands(message: Message) -> list[Any]:
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
    return [placement.Demand(needs, strategy, dict(one), message["depth"]) for one in selectors]


def _view(node: str, facts: Message, free: Mapping[str, int], *, is_local: bool) -> Any:
    from umbel._model import node_labels, placement, resources

    available = resources.ResourceSet({name: max(0, amount) for name, amount in free.items()})
    labels = {node_labels.NODE_ID: node, **facts["labels"]}
    return placement.NodeView(
        node, resources.ResourceSet(facts["resources"]), available, labels, is_local=is_local,
        is_draining=bool(facts["draining"]),
    )  # fmt: skip
