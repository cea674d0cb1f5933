"""The other nodes of a cluster, as the control service of its head sees them: a part of the daemon that it runs in.

What the service sends to a process goes to the node whose process that is, which follows from the process's id; actors are
placed on a node, and orders about them go there. What processes of other nodes say comes here by their daemons
(`umbel._agent.control_proxy`), over a `channels.Channel` for each node, which outlives its connections and ends with the node. A
node that has died takes its processes along: those that owned or watched something, and those that host actors.

Where records are kept, a node lives on while there is no head. It begins a new conversation with the next one, in which it first
says what it has (`_on_restate`), then again what the head before may not have carried out, and that this was all; what nobody
has reported when all awaited nodes have done so, or are dead, is given up.

Made only where nodes may join; without any, it costs a look into an empty table for each message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from umbel import exceptions
from umbel._base import nodes
from umbel._control import events as ev
from umbel._wire import channels

JOB_IDS = 64  # that a node may give to its drivers before it has to ask for more; so many come while the head is away
LATE_S = 30.0  # for what a node has to say: one without a connection is dead, or back, within 25 s

Message = dict[str, Any]
_TAG = slice(8, 8 + 2 * nodes.TAG_BYTES)  # of the node, in the id of a process, in hexadecimal


class Daemon(Protocol):
    """What is needed of the daemon beside `service.Node`."""

    def job_environment(self, job_id: str) -> Any:
        """A `jobs.JobEnvironment`; None when nobody needs it any more."""

    def knows_job(self, environment: Any) -> None:
        """Of a driver on another node."""

    def answer(self, what: str) -> Any:
        """To a query, about the whole cluster."""


class Member:
    """One other node. send: to it, by the connection that there is; None while there is none."""

    __slots__ = ("channel", "clients", "job_ids", "jobs", "node_id", "send", "unheard")

    def __init__(self, node_id: str, job_ids: tuple[int, int], *, vouches: bool) -> None:
        """vouches: what it says is kept at the node until what came of it is."""
        self.node_id = node_id
        self.job_ids = job_ids  # the first, and how many
        self.channel = channels.Channel(vouches=vouches)
        self.unheard: deque[tuple[int, str, int]] = deque()  # answers that are kept, with their numbers in the channel
        self.clients: dict[str, None] = {}  # its processes that have said something
        self.jobs: dict[str, str] = {}  # whose drivers are among them, with the driver
        self.send: Callable[[Message, bytes], None] | None = None

    def say(self, message: Message, body: bytes = b"") -> None:
        frame = self.channel.say(message, body)
        if self.send is not None:
            self.send(frame, body)


class Placed:
    """An actor on another node. worker: "" until it has one."""

    __slots__ = ("attempt", "member", "pid", "spec", "worker")

    def __init__(self, spec: Any, member: Member, attempt: int) -> None:
        self.spec = spec
        self.member = member
        self.attempt = attempt  # what comes of an earlier one does not count
        self.worker = ""
        self.pid = 0


class Members:
    """Stands for the daemon, with the control service of which it is told by `serve`."""

    def __init__(self, daemon: Any, own_tag: bytes) -> None:
        self._daemon = daemon
        self._own_tag = own_tag.hex()
        self._members: dict[str, Member] = {}  # by tag
        self._placed: dict[str, Placed] = {}  # actors
        self._sought: dict[str, Any] = {}  # specs of actors for which a worker was looked for, some of which have one
        self._seeking: dict[str, Placed] = {}  # those of them that have none, and are looked for by other nodes
        self._attempts = 0
        self._jobs_of: dict[str, str] = {}  # processes of other nodes
        self._awaited: dict[str, str] = {}  # nodes that may have lived on, by tag, until they have said what they have
        self._control: Any = None
        self._on: dict[str, Callable[[Member, Message, bytes], None]] = {
            "restate": self._on_restate,
            "restated": self._on_restated,
            "request": self._on_request,
            "query": self._on_query,
            "client_gone": lambda member, message, _body: self._client_gone(member, message["client"]),
            "job_begins": self._on_job_begins,
            "job_leaves": lambda _member, message, _body: self._control.job_leaves(message["client"]),
            "want_job_ids": self._on_want_job_ids,
            "hosted": self._on_hosted,
            "host_died": self._on_host_died,
            "unhosted": self._on_unhosted,
            "unplaceable": self._on_unplaceable,
            "group_ended": lambda _member, message, _body: self._control.group_ended(
                message["group"], message["reason"]
            ),
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._daemon, name)

    def serve(self, control: Any) -> None:
        """control: the `service.ActorService` that this was given to."""
        self._control = control

    # ---- what the control service asks for ----

    def _member_of(self, process: str) -> Member | None:
        """The other node that it is a process of; None for this node, and for one that has gone."""
        return self._members.get(process[_TAG])

    def send(self, client: str, message: Message, body: bytes = b"") -> None:
        member = self._member_of(client)
        if member is None:
            self._daemon.send(client, message, body)
        else:
            member.say({"t": "deliver", "to": client, "message": message}, body)

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None:
        if request is None:
            return
        self.send(client, {"t": "reply", "rq": request, **message}, body)
        member, answers = self._member_of(client), self._control.answers
        if member is not None and answers is not None and answers.given(client, request) is not None:
            member.unheard.append((member.channel.said, client, request))

    def refuse(self, client: str, request: int | None, kind: str, text: str) -> None:
        if request is None:
            self.send(client, {"t": "warn", "text": text})
        else:
            self.send(client, {"t": "reply", "rq": request, "error": {"kind": kind, "text": text}})

    def job_of(self, client: str) -> tuple[str, Any]:
        job_id = self._jobs_of.get(client)
        if job_id is None:
            found: tuple[str, Any] = self._daemon.job_of(client)
            return found
        return job_id, self._daemon.job_environment(job_id)

    def is_here(self, client: str) -> bool:
        """Whether a process is, or was, one of this node's; else it is nobody's business here what only its node knows."""
        return client[_TAG] == self._own_tag

    def late_s(self, actor: str) -> float:
        """What its creator's node has to say may wait for a connection, and its handle come by another way."""
        return LATE_S if self._member_of(actor) is not None or actor[_TAG] in self._awaited else 0.0

    def place_actor(self, spec: Any) -> None:
        """On the node that `placing` chooses; in a placement group, on that of the group."""
        if not self._control.lacks_host(spec.actor):
            return  # it has died since, while records were written
        self._forget(spec.actor)
        is_here = self.is_here(spec.owner)
        if is_here and (spec.job is None or not self._members):
            self._sought[spec.actor] = spec
            self._daemon.place_actor(spec)
        elif spec.job is None:  # it ended before it was heard that this belongs to it
            self._control.unplaceable(spec.actor, "its job has ended", is_unschedulable=False)
        elif spec.group:
            self._place_in_group(spec)
        else:
            self._place_anywhere(spec)

    def _place_anywhere(self, spec: Any) -> None:
        try:
            chosen = self._choose(spec)
        except exceptions.InvalidOption as error:
            # Of labels that its creator should have looked at. The daemon must not end by it.
            self._control.unplaceable(spec.actor, str(error), is_unschedulable=True)
        else:
            self._place_on(spec, chosen)

    def _place_in_group(self, spec: Any) -> None:
        member = self._member_of(spec.owner)
        if self.is_here(spec.owner) or self._control.knows_group(spec.group):
            self._daemon.place_actor(spec)
        elif member is None:
            self._control.group_ended(spec.group, "the node that it was on is dead")
        else:
            self._place_on(spec, member.node_id)

    def _views(self) -> list[Any]:
        """All living nodes, this one first, as last heard of, but for what has been placed there since."""
        from umbel._control import placing

        seen = self._daemon.as_seen()
        views = [placing.view(seen["node_id"], seen["total"], seen["available"], seen["labels"])]
        claimed: dict[str, dict[str, int]] = {}
        for placed in self._seeking.values():
            of_node = claimed.setdefault(placed.member.node_id, {})
            for name, amount in placed.spec.running.items():
                of_node[name] = of_node.get(name, 0) + amount
        for node in self._daemon.other_nodes():
            if not node["alive"] or nodes.tag_of_node(node["node_id"]).hex() not in self._members:
                continue
            free = dict(node["available"])
            for name, amount in claimed.get(node["node_id"], {}).items():
                free[name] = free.get(name, 0) - amount
            views.append(placing.view(node["node_id"], node["resources"], free, node["labels"]))
        return views

    def _choose(self, spec: Any) -> str:
        """A node's id."""
        from umbel._control import placing

        views, creator = self._views(), self._member_of(spec.owner)
        return placing.choose(spec, views, creator.node_id if creator is not None else views[0].node_id)

    def _place_on(self, spec: Any, node_id: str) -> None:
        member = self._members.get(nodes.tag_of_node(node_id).hex())
        self._sought[spec.actor] = spec
        if member is None:
            self._daemon.place_actor(spec)
            return
        self._attempts += 1
        self._placed[spec.actor] = self._seeking[spec.actor] = Placed(spec, member, self._attempts)
        # Its driver is there, and the actor ends with it. What workers are to be like may take some 10 kB.
        is_known = spec.job.id in member.jobs and not spec.is_detached
        member.say(
            {
                "t": "place_actor", "actor": spec.actor, "attempt": self._attempts, "placement": spec.placement,
                "running": spec.running, "env": spec.env, "strategy": spec.strategy,
                "label_selectors": spec.label_selectors, "depth": spec.depth,
                "job": {"id": spec.job.id, "facts": None if is_known else spec.job.facts},
                "may_restart": self._control.may_restart(spec.actor), "facts": self._control.facts(spec.actor),
            }
        )  # fmt: skip

    def _place_anew(self) -> None:
        """A node has come: what others that look for a worker can never have may be had there. None of them has called a
        constructor, so one that finds a worker all the same, before it hears of this, loses it."""
        from umbel._control import placing

        for actor in [one for one in self._sought if not self._control.lacks_host(one)]:
            del self._sought[actor]
        views = {one.node_id: one for one in self._views()}
        for spec in [one for one in self._sought.values() if one.job is not None and not one.group]:
            placed = self._placed.get(spec.actor)
            now = next(iter(views)) if placed is None else placed.member.node_id
            chosen = self._choose(spec)
            if chosen != now and now in views and not placing.can_ever(spec, views[now]):
                self.kill_actor(spec.actor, "another node can host it")
                self._forget(spec.actor)
                self._place_on(spec, chosen)

    def release_actor(self, actor: str, grace_s: float | None) -> None:
        placed = self._placed.get(actor)
        if placed is None:
            self._daemon.release_actor(actor, grace_s)
        else:
            placed.member.say({"t": "release_actor", "actor": actor, "grace_s": grace_s})

    def kill_actor(self, actor: str, reason: str) -> None:
        placed = self._placed.get(actor)
        if placed is None:
            self._daemon.kill_actor(actor, reason)
        else:
            placed.member.say({"t": "kill_actor", "actor": actor, "reason": reason})

    def actor_dead(self, actor: str, facts: Message) -> None:
        self._found(actor)
        placed, owner = self._placed.get(actor), self._member_of(facts["owner"])
        host = placed.member if placed is not None else None
        facts = {**facts, "node_id": host.node_id} if host is not None else facts
        self._daemon.actor_dead(actor, facts)
        for member in dict.fromkeys(one for one in (owner, host) if one is not None):
            member.say({"t": "actor_dead", "actor": actor, "facts": facts})

    # ---- for the daemon ----

    def where(self, process: str) -> str:
        """The id of the other node that a process is on; "" for this one, and for one that has gone."""
        member = self._member_of(process)
        return member.node_id if member is not None else self._awaited.get(process[_TAG], "")

    def place_of(self, listed: Message) -> Message:
        """What is to be said of an actor beside what the table knows: the "node_id" of its host with its "pid", or in "reason"
        which node looks for a worker for it. listed: as the table has it."""
        placed = self._placed.get(listed["actor"])
        if listed["worker"] and placed is not None:
            return {"node_id": placed.member.node_id, "pid": placed.pid}
        if listed["worker"][_TAG] in self._awaited:
            return {
                "node_id": self._awaited[listed["worker"][_TAG]],
                "reason": "the head has started again, and waits for its node",
            }
        if listed["worker"] or not self._members or not self._control.lacks_host(listed["actor"]):
            return {}
        where = f"node {placed.member.node_id}" if placed is not None else "the head"
        told = f"{where} looks for a worker for it, and says what that waits for: umbel explain {listed['actor']} there"
        return {"reason": f"{listed['reason']}; {told}" if listed["reason"] else told}

    # ---- nodes that come and go ----

    def entered(self, node_id: str) -> Member:
        """The node is a member, for the first time or once more."""
        tag = nodes.tag_of_node(node_id).hex()
        member = self._members.get(tag)
        if member is None:
            ids = (self._control.reserve_job_ids(JOB_IDS), JOB_IDS)
            member = self._members[tag] = Member(node_id, ids, vouches=self._control.keeps)
        return member

    def await_nodes(self, node_ids: Iterable[str]) -> None:
        """These may have lived on while there was no head."""
        self._awaited = {nodes.tag_of_node(one).hex(): one for one in node_ids}
        if self._awaited:
            self._control.await_nodes()

    def _awaits_no_more(self, tag: str) -> None:
        if tag in self._awaited:
            del self._awaited[tag]
            if not self._awaited:
                self._control.recover()

    def linked(self, node_id: str, heard: int, send: Callable[[Message, bytes], None]) -> None:
        """The node has a connection, and has heard so much. Raises ValueError when it cannot have."""
        member = self.entered(node_id)
        again = member.channel.linked(heard)
        member.send = send
        for frame, body in again:
            send(frame, body)
        if self._sought:
            self._place_anew()

    def unlinked(self, node_id: str) -> None:
        member = self._members.get(nodes.tag_of_node(node_id).hex())
        if member is not None:
            member.send = None

    def node_gone(self, node_id: str, reason: str) -> None:
        """For good. First go those who need what they own to end with them, so that nobody looks for workers of that."""
        tag = nodes.tag_of_node(node_id).hex()
        member = self._members.pop(tag, None)
        if member is not None:
            self._give_up(member, reason)
        self._awaits_no_more(tag)

    def _give_up(self, member: Member, reason: str) -> None:
        for client in list(member.clients):
            self._client_gone(member, client)
        for actor, placed in [one for one in self._placed.items() if one[1].member is member]:
            if placed.worker:
                self._lose(actor, placed, f"its node {member.node_id[:8]} is dead: {reason}", None)
            else:
                self._forget(actor)
                self._control.place_again(actor)

    def _lose(self, actor: str, placed: Placed, reason: str, memory: Message | None) -> None:
        self._control.host_died(actor, placed.worker, reason, memory=memory)
        if self._placed.get(actor) is placed:  # it was not placed again
            self._forget(actor)

    def _found(self, actor: str) -> None:
        """It has a worker, or needs none."""
        self._sought.pop(actor, None)
        self._seeking.pop(actor, None)

    def _forget(self, actor: str) -> None:
        """It is nowhere, as far as is known here."""
        self._found(actor)
        self._placed.pop(actor, None)

    # ---- what nodes say ----

    def on_frame(self, node_id: str, frame: Message, body: bytes) -> None:
        """Raises ValueError when it cannot be."""
        member = self._members.get(nodes.tag_of_node(node_id).hex())
        if member is None:
            return
        if frame["t"] == "heard_said":
            member.channel.acknowledged(frame["heard"])
            self._forget_answers(member, frame["heard"])
            return
        if member.channel.takes(frame, body):
            self._forget_answers(member, frame["heard"])
            message = frame["message"]
            carry_out = self._on.get(message.get("t"))
            if carry_out is None:
                raise ValueError(f"unknown message {message.get('t')!r:.100}; known are {', '.join(self._on)}")
            carry_out(member, message, body)
        self._control.when_kept(lambda: self._acknowledge(member, frame["number"]))

    def _acknowledge(self, member: Member, number: int) -> None:
        """What came of all up to this number is kept."""
        member.channel.vouch(number)
        acknowledgement = member.channel.acknowledgement()
        if acknowledgement is not None and member.send is not None:
            member.send(acknowledgement, b"")

    def _forget_answers(self, member: Member, heard: int) -> None:
        """Those that the node has heard are kept no more; that is written with what is written next."""
        while member.unheard and member.unheard[0][0] <= heard:
            _, client, request = member.unheard.popleft()
            self._control.answers.forget(client, request)

    # ---- after the head was away ----

    def _on_restate(self, member: Member, message: Message, _body: bytes) -> None:
        """What the node has. hosts: by workers; one that has "ended" is told of once more afterwards."""
        for client, job_id in message["processes"].items():
            member.clients[client] = None
            self._jobs_of[client] = job_id
        member.jobs |= message["jobs"]
        hosts: dict[str, ev.Hosting] = {}
        accelerators: dict[str, Any] = {}
        for worker, one in message["hosts"].items():
            actor = one["actor"]
            self._attempts = max(self._attempts, one["attempt"])
            if self._control.is_worker_of(actor, worker):
                hosts[worker] = ev.Hosting(actor, ev.Stage(one["stage"]))
                self._take_up(actor, member, worker, one)
                if hosts[worker].stage is ev.Stage.UNCALLED:
                    accelerators[actor] = one["accelerators"]
            elif not one["has_ended"]:
                member.say({"t": "kill_actor", "actor": actor, "reason": "it was not recorded before the head ended"})
        if self._control.answers is not None:
            for client in message["processes"]:
                self._control.answers.forget_others(client, message["asked"].get(client, ()))
        self._control.hosts_reported(member.node_id, hosts, message["processes"], accelerators)

    def _take_up(self, actor: str, member: Member, worker: str, one: Message) -> None:
        placed = self._placed[actor] = Placed(self._control.spec_of(actor), member, one["attempt"])
        placed.worker, placed.pid = worker, one["pid"]

    def _on_restated(self, member: Member, message: Message, _body: bytes) -> None:
        """All that was left to be said has been."""
        for actor in message["owned"]:
            facts = self._control.facts_of_dead(actor)
            if facts is not None:
                member.say({"t": "actor_dead", "actor": actor, "facts": facts})
        self._awaits_no_more(nodes.tag_of_node(member.node_id).hex())

    # ---- messages of nodes ----

    def _on_request(self, member: Member, message: Message, body: bytes) -> None:
        client, request = message["client"], message["message"]
        member.clients[client] = None
        self._jobs_of[client] = message["job"]
        self._control.on[request["t"]](client, message["namespace"], request, body)

    def _on_query(self, member: Member, message: Message, _body: bytes) -> None:
        """Of a process or a command, whose id says nothing."""
        answer = {"t": "reply", "rq": message["rq"], "result": self._daemon.answer(message["what"])}
        told = {"t": "deliver", "to": message["client"], "message": answer}
        self._control.when_kept(lambda: member.say(told))

    def _client_gone(self, member: Member, client: str) -> None:
        member.clients.pop(client, None)
        self._control.client_gone(client)
        job_id = self._jobs_of.pop(client, "")
        if member.jobs.get(job_id) == client:
            del member.jobs[job_id]

    def _on_job_begins(self, member: Member, message: Message, _body: bytes) -> None:
        driver = message["client"]
        member.clients[driver] = None
        job_id, environment = self._control.job_begins(driver, message["pid"], message["facts"], job_id=message["job"])
        self._jobs_of[driver] = job_id
        member.jobs[job_id] = driver
        if environment is not None:
            self._daemon.knows_job(environment)

    def _on_want_job_ids(self, member: Member, _message: Message, _body: bytes) -> None:
        member.job_ids = (self._control.reserve_job_ids(JOB_IDS), JOB_IDS)
        told = {"t": "job_ids", "ids": list(member.job_ids)}
        self._control.when_kept(lambda: member.say(told))

    def _placed_there(self, member: Member, message: Message) -> Placed | None:
        """None where it is somewhere else by now."""
        placed = self._placed.get(message["actor"])
        is_there = placed is not None and placed.member is member and placed.attempt == message["attempt"]
        return placed if is_there else None

    def _on_hosted(self, member: Member, message: Message, _body: bytes) -> None:
        actor = message["actor"]
        placed = self._placed_there(member, message)
        if placed is None:
            return  # the node has been told meanwhile that it is not wanted there
        self._found(actor)
        placed.worker, placed.pid = message["worker"], message["pid"]
        self._control.hosted(actor, placed.worker, message["address"], message["accelerators"])

    def _on_host_died(self, member: Member, message: Message, _body: bytes) -> None:
        placed = self._placed_there(member, message)
        if placed is not None and placed.worker == message["worker"]:
            self._lose(message["actor"], placed, message["reason"], message["memory"])

    def _on_unhosted(self, member: Member, message: Message, _body: bytes) -> None:
        """The actor was to end, and never had a worker."""
        if self._placed_there(member, message) is not None:
            self._forget(message["actor"])

    def _on_unplaceable(self, member: Member, message: Message, _body: bytes) -> None:
        actor = message["actor"]
        placed = self._placed_there(member, message)
        if placed is not None:
            self._control.unplaceable(actor, message["reason"], is_unschedulable=message["is_unschedulable"])
            if self._placed.get(actor) is placed:
                self._forget(actor)
