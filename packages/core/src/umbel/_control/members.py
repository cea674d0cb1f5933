"""The other nodes of a cluster, as the control service of its head sees them: a part of the daemon that it runs in.

What the service sends to a process goes to the node whose process that is, which follows from the process's id. Where actors
are is the business of `actor_places`, what nodes have free that of `node_views`. What processes of other nodes say comes here by
their daemons (`umbel._agent.control_proxy`), over a `channels.Channel` for each node, which outlives its connections and ends
with the node. A node that has died takes its processes along: those that owned or watched something, and those that host actors.

Where records are kept, a node lives on while there is no head. It begins a new conversation with the next one, in which it first
says what it has (`_on_restate`), then again what the head before may not have carried out, and that this was all; what nobody
has reported when all awaited nodes have done so, or are dead, is given up.

Made only where nodes may join; without any, it costs a look into an empty table for each message.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from umbel._base import nodes
from umbel._control import actor_places
from umbel._control import events as ev
from umbel._wire import channels

if TYPE_CHECKING:
    from umbel._control import node_views

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

    def pid_of(self, worker: str) -> int:
        """Of this node; 0 for one that is not."""

    def answer(self, what: str, about: str) -> Any:
        """To a query, about the whole cluster."""

    def placement_policy(self) -> Any:
        """A `spi.SchedulingPolicy`: the chosen one."""

    def drain_node(self, message: Message, tell: Callable[[bool, str], None]) -> None:
        """See `_agent.drain_service.DrainService.drain`."""


class Member:
    """One other node. send: to it, by the connection that there is; None while there is none."""

    __slots__ = ("channel", "clients", "job_ids", "jobs", "load", "node_id", "send", "unheard")

    def __init__(self, node_id: str, job_ids: tuple[int, int], *, vouches: bool) -> None:
        """vouches: what it says is kept at the node until what came of it is."""
        self.node_id = node_id
        self.job_ids = job_ids  # the first, and how many
        self.channel = channels.Channel(vouches=vouches)
        self.unheard: collections.deque[tuple[int, str, int]] = (
            collections.deque()
        )  # answers that are kept, with their numbers in the channel
        self.clients: dict[str, None] = {}  # its processes that have said something
        self.jobs: dict[str, str] = {}  # whose drivers are among them, with the driver
        self.send: Callable[[Message, bytes], None] | None = None
        self.load: Message = {}  # see `umbel._agent.load`; as it has said last, if it was asked to

    def say(self, message: Message, body: bytes = b"") -> None:
        frame = self.channel.say(message, body)
        if self.send is not None:
            self.send(frame, body)


class Members:
    """Stands for the daemon, with the control service of which it is told by `serve`."""

    def __init__(self, daemon: Any, own_tag: bytes) -> None:
        self._daemon = daemon
        self._own_tag = own_tag.hex()
        self._members: dict[str, Member] = {}  # by tag
        self._places = places = actor_places.ActorPlaces(self, daemon)
        self.place_actor, self.release_actor, self.kill_actor = places.place, places.release, places.kill
        self.actor_dead = places.dead
        self._views: node_views.NodeViews | None = None  # of all nodes, once there are others, or placement groups
        self._jobs_of: dict[str, str] = {}  # processes of other nodes
        self._awaited: dict[str, str] = {}  # nodes that may have lived on, by tag, until they have said what they have
        self.control: Any = None
        self.own_id = ""
        self.wants_load = False  # of every node: there is an autoscaler
        self._on: dict[str, Callable[[Member, Message, bytes], None]] = {
            "load": lambda member, message, _body: setattr(member, "load", message),
            "restate": self._on_restate,
            "restated": self._on_restated,
            "request": self._on_request,
            "query": self._on_query,
            "drain_node": self._on_drain_node,
            "client_gone": lambda member, message, _body: self._client_gone(
                member, message["client"], message.get("why", "")
            ),
            "event": lambda _member, message, _body: self.control.add_event(
                message["severity"], message["source"], message["text"], **message["facts"]
            ),
            "job_begins": self._on_job_begins,
            "job_leaves": lambda _member, message, _body: self.control.job_leaves(message["client"]),
            "want_job_ids": self._on_want_job_ids,
            "hosted": places.on_hosted,
            "host_died": places.on_host_died,
            "unhosted": places.on_unhosted,
            "unplaceable": places.on_unplaceable,
            "preparing": places.on_preparing,
            "follow_group": lambda member, message, _body: self.control.follow_group(message["group"], member.node_id),
            "bundles_held": lambda member, message, _body: self.control.bundles_reported(
                member.node_id, message["held"]
            ),
            "bundles_reserved": self._on_bundles_reserved,
            "room": self._on_room,
            "bundles_refused": lambda member, message, _body: self.control.bundles_refused(
                message["group"], message["attempt"], message["reason"], member.node_id
            ),
            "bundles_committed": lambda member, message, _body: self.control.bundles_committed(
                member.node_id, message["group"], message["attempt"]
            ),
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._daemon, name)

    def serve(self, control: Any) -> None:
        """control: the `service.ActorService` that this was given to."""
        self.control = control
        self.own_id = str(self._daemon.as_seen()["node_id"])
        control.on_hosted = self._places.hosted_here

    # ---- what the control service asks for ----

    def member_of(self, process: str) -> Member | None:
        """The other node that it is a process of; None for this node, and for one that has gone."""
        return self._members.get(process[_TAG])

    def member_on(self, node_id: str) -> Member | None:
        """The other node that has this id."""
        return self._members.get(_tag_of(node_id))

    @property
    def has_any(self) -> bool:
        return bool(self._members)

    @property
    def is_alone(self) -> bool:
        """Whether there is no other node, nor may be one that lived on."""
        return not self._members and not self._awaited

    def awaits(self, node_id: str) -> bool:
        return node_id in self._awaited.values()

    def awaited_of(self, process: str) -> str:
        """The awaited node that it is a process of; "" for none."""
        return self._awaited.get(process[_TAG], "")

    def send(self, client: str, message: Message, body: bytes = b"") -> None:
        if (
            message["t"] == "actor_state" and message["state"] == "ALIVE"
        ):  # with what its node remembers of the actor's calls
            placed = self._places.placed.get(message["actor"])
            pid = placed.pid if placed is not None else self._daemon.pid_of(message["worker"])
            message = {**message, "pid": pid}
        member = self.member_of(client)
        if member is None:
            self._daemon.send(client, message, body)
        else:
            member.say({"t": "deliver", "to": client, "message": message}, body)

    def reply(self, client: str, request: int | None, message: Message, body: bytes = b"") -> None:
        if request is None:
            return
        self.send(client, {"t": "reply", "rq": request, **message}, body)
        member, answers = self.member_of(client), self.control.answers
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
        """Whether a process is, or was, one of this node's."""
        return client[_TAG] == self._own_tag

    def late_s(self, actor: str) -> float:
        """What its creator's node has to say may wait for a connection, and its handle come by another way."""
        return LATE_S if self.member_of(actor) is not None or actor[_TAG] in self._awaited else 0.0

    def ends_of(self, workers: Iterable[str]) -> dict[str, ev.HostEnd]:
        """Those of the heads before this one among them."""
        dead = {_tag_of(one["node_id"]): _end_of(one) for one in self._daemon.other_nodes() if not one["alive"]}
        return {worker: dead[worker[_TAG]] for worker in workers if worker[_TAG] in dead}

    @property
    def views(self) -> node_views.NodeViews:
        if self._views is None:
            from umbel._control import node_views

            self._views = node_views.NodeViews(self.own_id)
        return self._views

    @property
    def has_views(self) -> bool:
        """Whether anything has been looked at."""
        return self._views is not None

    def see_own(self) -> None:
        """What this node has free is what it has now."""
        seen = self._daemon.as_seen()
        self.views.said(self.own_id, {"resources": seen["total"], "labels": seen["labels"]}, seen)

    def nodes_seen(self) -> list[Any]:
        """For placement groups, those that are other than when this was asked last."""
        self.see_own()
        return self.views.new_for_groups()

    def node_seen(self, node: str) -> Any:
        """node: "" for this one. None for one that has gone."""
        self.see_own()
        return self.views.for_groups(node or self.own_id)

    def driver_of(self, client: str) -> str:
        job_id, _ = self.job_of(client)
        return str(self.control.driver_of_job(job_id)) or str(
            self._daemon.driver_of(client) if self.is_here(client) else ""
        )

    def reserve_bundles(self, node: str, group: str, attempt: int, wanted: Any, depth: int, job: list[Any]) -> None:
        listed = [[index, dict(bundle)] for index, bundle in wanted.items()]
        told = {
            "t": "reserve_bundles", "group": group, "attempt": attempt, "wanted": listed, "depth": depth, "job": job,
        }  # fmt: skip
        self._order(node, told, lambda: self._daemon.reserve_bundles(node, group, attempt, wanted, depth, job))

    def commit_bundles(self, node: str, group: str, attempt: int) -> None:
        told = {"t": "commit_bundles", "group": group, "attempt": attempt}
        self._order(node, told, lambda: self._daemon.commit_bundles(node, group, attempt))

    def cancel_bundles(self, node: str, group: str, attempt: int) -> None:
        told = {"t": "cancel_bundles", "group": group, "attempt": attempt}
        self._order(node, told, lambda: self._daemon.cancel_bundles(node, group, attempt))

    def drop_group(self, node: str, group: str, reason: str) -> None:
        told = {"t": "drop_group", "group": group, "reason": reason}
        self._order(node, told, lambda: self._daemon.drop_group(node, group, reason))

    def tell_places(self, node: str, message: Message) -> None:
        self._order(node, message, lambda: self._daemon.tell_places(node, message))
        if node == self.own_id:
            self._places.group_moved(message["group"])

    def _order(self, node: str, told: Message, here: Callable[[], None]) -> None:
        """Of a node, this one or another; of one that has gone, nothing is wanted any more."""
        member = self._members.get(_tag_of(node))
        if member is not None:
            member.say(told)
        elif node == self.own_id:
            here()

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """What has changed of nodes. Whoever looks for a worker on one that is being drained now looks elsewhere, if he can."""
        for change in changes:
            member = self.member_on(change["node_id"]) if change.get("draining") else None
            if member is not None:
                self._places.node_drains(member)
        self.control.nodes_changed()

    # ---- for the daemon ----

    def where(self, process: str) -> str:
        """The id of the other node that a process is on; "" for this one, and for one that has gone."""
        member = self.member_of(process)
        return member.node_id if member is not None else self._awaited.get(process[_TAG], "")

    def place_of(self, listed: Message) -> Message:
        """What is to be said of an actor beside what the table knows: the "node_id" of its host with its "pid", or in "reason"
        what it waits for, and which node looks for a worker for it in "sought_on". listed: as the table has it."""
        return self._places.place_of(listed)

    # ---- for the autoscaler ----

    def loads(self) -> dict[str, Message]:
        """What the other nodes have told, by node."""
        return {member.node_id: member.load for member in self._members.values() if member.load}

    def waiting_actors(self) -> list[Any]:
        """Their shapes."""
        return self._places.waiting_shapes()

    # ---- nodes that come and go ----

    def entered(self, node_id: str) -> Member:
        """The node is a member, for the first time or once more."""
        tag = _tag_of(node_id)
        member = self._members.get(tag)
        if member is None:
            ids = (self.control.reserve_job_ids(JOB_IDS), JOB_IDS)
            member = self._members[tag] = Member(node_id, ids, vouches=self.control.keeps)
        return member

    def await_nodes(self, node_ids: Iterable[str]) -> None:
        """These may have lived on while there was no head."""
        self._awaited = {_tag_of(one): one for one in node_ids}
        if self._awaited:
            self.control.await_nodes()

    def _awaits_no_more(self, tag: str) -> None:
        node_id = self._awaited.pop(tag, None)
        if node_id is None:
            return
        if not self._awaited:
            self.control.recover()
        self._places.node_back(node_id)

    def linked(self, node_id: str, heard: int, send: Callable[[Message, bytes], None]) -> None:
        """The node has a connection, and has heard so much. Raises ValueError when it cannot have."""
        member = self.entered(node_id)
        again = member.channel.linked(heard)
        member.send = send
        for frame, body in again:
            send(frame, body)
        if self.wants_load:
            member.say({"t": "tell_load"})
        self.views.reachable(node_id, is_so=True)
        self._places.place_anew()
        self.control.nodes_changed()

    def unlinked(self, node_id: str) -> None:
        member = self._members.get(_tag_of(node_id))
        if member is not None:
            member.send = None
            self.views.reachable(node_id, is_so=False)

    def node_said(self, node_id: str, facts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """How a member is, by its own word; see `nodes.NodeJoined`."""
        if self.member_on(node_id) is not None:
            self.views.said(node_id, facts, state)
            self._places.look()

    def look_at_own(self) -> None:
        """Now and then, for what has become free on this node."""
        if self.has_any:
            self.see_own()
            self._places.look()

    def node_gone(self, node_id: str, reason: str) -> None:
        """For good. First go those who need what they own to end with them, so that nobody looks for workers of that."""
        tag = _tag_of(node_id)
        member = self._members.pop(tag, None)
        if member is not None:
            self._give_up(member, reason)
        self._awaits_no_more(tag)

    def _give_up(self, member: Member, reason: str) -> None:
        for client in list(member.clients):
            self._client_gone(member, client, f"its node is gone: {reason}")
        drained = {"reason": self.views.drain_reason(member.node_id)}
        self.views.gone(member.node_id)
        self.control.node_gone(member.node_id)
        self._places.node_gone(member, _end_of({"node_id": member.node_id, "reason": reason, "draining": drained}))

    # ---- what nodes say ----

    def on_frame(self, node_id: str, frame: Message, body: bytes) -> None:
        """Raises ValueError when it cannot be."""
        member = self._members.get(_tag_of(node_id))
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
        self.control.when_kept(lambda: self._acknowledge(member, frame["number"]))

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
            self.control.answers.forget(client, request)

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
            self._places.is_known_attempt(one["attempt"])
            if self.control.is_worker_of(actor, worker):
                hosts[worker] = ev.Hosting(actor, ev.Stage(one["stage"]))
                self._places.take_up(actor, member, worker, one)
                if hosts[worker].stage is ev.Stage.UNCALLED:
                    accelerators[actor] = one["accelerators"]
            elif not one["has_ended"]:
                reason = "it was not recorded before the head ended"
                member.say({"t": "kill_actor", "actor": actor, "worker": worker, "reason": reason})
        if self.control.answers is not None:
            for client in message["processes"]:
                self.control.answers.forget_others(client, message["asked"].get(client, ()))
        self.control.hosts_reported(member.node_id, hosts, message["processes"], accelerators)

    def _on_restated(self, member: Member, message: Message, _body: bytes) -> None:
        """All that was left to be said has been."""
        for actor in message["owned"]:
            facts = self.control.facts_of_dead(actor)
            if facts is not None:
                member.say({"t": "actor_dead", "actor": actor, "facts": facts})
        self._awaits_no_more(_tag_of(member.node_id))

    def has_nothing(self, node_id: str) -> None:
        """The node has never heard of a head. One that has ended had recorded it, and could not say so any more."""
        self._awaits_no_more(_tag_of(node_id))

    # ---- messages of nodes ----

    def _on_request(self, member: Member, message: Message, body: bytes) -> None:
        client, request = message["client"], message["message"]
        member.clients[client] = None
        self._jobs_of[client] = message["job"]
        self.control.on[request["t"]](client, message["namespace"], request, body)

    def _on_query(self, member: Member, message: Message, _body: bytes) -> None:
        """Of a process or a command, whose id says nothing."""
        what = message["what"]
        answer = {"t": "reply", "rq": message["rq"], "result": self._daemon.answer(what, message["about"])}
        told = {"t": "deliver", "to": message["client"], "message": answer}
        self.control.when_kept(lambda: member.say(told))

    def _on_drain_node(self, member: Member, message: Message, _body: bytes) -> None:
        client, request = message["client"], message["message"]["rq"]

        def tell(is_accepted: bool, text: str) -> None:
            result = {"is_accepted": is_accepted, "reason": text}
            member.say({"t": "deliver", "to": client, "message": {"t": "reply", "rq": request, "result": result}})

        self._daemon.drain_node(message["message"], tell)

    def _client_gone(self, member: Member, client: str, why: str) -> None:
        member.clients.pop(client, None)
        self.control.client_gone(client, why)
        job_id = self._jobs_of.pop(client, "")
        if member.jobs.get(job_id) == client:
            del member.jobs[job_id]

    def _on_job_begins(self, member: Member, message: Message, _body: bytes) -> None:
        driver = message["client"]
        member.clients[driver] = None
        job_id, environment = self.control.job_begins(driver, message["pid"], message["facts"], job_id=message["job"])
        self._jobs_of[driver] = job_id
        member.jobs[job_id] = driver
        if environment is not None:
            self._daemon.knows_job(environment)

    def _on_want_job_ids(self, member: Member, _message: Message, _body: bytes) -> None:
        member.job_ids = (self.control.reserve_job_ids(JOB_IDS), JOB_IDS)
        told = {"t": "job_ids", "ids": list(member.job_ids)}
        self.control.when_kept(lambda: member.say(told))

    def _on_bundles_reserved(self, member: Member, message: Message, _body: bytes) -> None:
        self.views.room(member.node_id, message["available"])
        self.control.bundles_reserved(message["group"], message["attempt"], member.node_id)

    def _on_room(self, member: Member, message: Message, _body: bytes) -> None:
        """It has given bundles back."""
        self.views.room(member.node_id, message["available"])
        self._places.look()
        self.control.nodes_changed()


def _end_of(facts: Message) -> ev.HostEnd:
    """Of a node that is dead, as it is listed."""
    is_preempted = (facts.get("draining") or {}).get("reason") == "preemption"
    return ev.HostEnd(f"its node {facts['node_id'][:8]} is dead: {facts['reason']}", is_preempted)


def _tag_of(node_id: str) -> str:
    return nodes.tag_of_node(node_id).hex()
