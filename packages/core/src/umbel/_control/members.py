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

import collections
from collections.abc import Callable, Iterable, Mapping
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
        self._waiting: dict[str, Any] = {}  # specs of actors that wait for their placement group to have a place
        self._in_groups: dict[str, dict[str, str]] = {}  # by group and actor, the node where that has gone
        self._group_of: dict[str, str] = {}  # the same actors
        self._room: dict[
            str, tuple[Any, Message]
        ] = {}  # what nodes have free since they reserved bundles or gave some back
        self._attempts = 0
        self._jobs_of: dict[str, str] = {}  # processes of other nodes
        self._postponed: dict[str, Any] = {}  # specs of actors that are to be on one of these, and nowhere else
        self._awaited: dict[str, str] = {}  # nodes that may have lived on, by tag, until they have said what they have
        self._control: Any = None
        self.wants_load = False  # of every node: there is an autoscaler
        self._on: dict[str, Callable[[Member, Message, bytes], None]] = {
            "load": lambda member, message, _body: setattr(member, "load", message),
            "restate": self._on_restate,
            "restated": self._on_restated,
            "request": self._on_request,
            "query": self._on_query,
            "drain_node": self._on_drain_node,
            "client_gone": lambda member, message, _body: self._client_gone(member, message["client"]),
            "job_begins": self._on_job_begins,
            "job_leaves": lambda _member, message, _body: self._control.job_leaves(message["client"]),
            "want_job_ids": self._on_want_job_ids,
            "hosted": self._on_hosted,
            "host_died": self._on_host_died,
            "unhosted": self._on_unhosted,
            "unplaceable": self._on_unplaceable,
            "follow_group": lambda member, message, _body: self._control.follow_group(message["group"], member.node_id),
            "bundles_held": lambda member, message, _body: self._control.bundles_reported(
                member.node_id, message["held"]
            ),
            "bundles_reserved": self._on_bundles_reserved,
            "room": self._on_room,
            "bundles_refused": lambda member, message, _body: self._control.bundles_refused(
                message["group"], message["attempt"], message["reason"], member.node_id
            ),
            "bundles_committed": lambda member, message, _body: self._control.bundles_committed(
                member.node_id, message["group"], message["attempt"]
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
        """Whether a process is, or was, one of this node's."""
        return client[_TAG] == self._own_tag

    def late_s(self, actor: str) -> float:
        """What its creator's node has to say may wait for a connection, and its handle come by another way."""
        return LATE_S if self._member_of(actor) is not None or actor[_TAG] in self._awaited else 0.0

    def ends_of(self, workers: Iterable[str]) -> dict[str, ev.HostEnd]:
        """Those of the heads before this one among them."""
        dead = {_tag_of(one["node_id"]): _end_of(one) for one in self._daemon.other_nodes() if not one["alive"]}
        return {worker: dead[worker[_TAG]] for worker in workers if worker[_TAG] in dead}

    def place_actor(self, spec: Any) -> None:
        """On the node that `placing` chooses; in a placement group, on that of the group."""
        if not self._control.lacks_host(spec.actor):
            return  # it has died since, while records were written
        self._forget(spec.actor)
        is_here, is_alone = self.is_here(spec.owner), not self._members and not self._awaited
        if is_here and (spec.job is None or is_alone):
            self._sought[spec.actor] = spec
            if spec.group:
                self._control.follow_group(spec.group)  # it may go to a node that is to come
            self._daemon.place_actor(spec)
        elif spec.job is None:  # it ended before it was heard that this belongs to it
            self._control.unplaceable(spec.actor, "its job has ended", is_unschedulable=False)
        elif spec.group:
            self._place_in_group(spec)
        else:
            self._place_anywhere(spec)

    def _place_anywhere(self, spec: Any) -> None:
        strategy = spec.strategy
        if (
            isinstance(strategy, dict)
            and not strategy.get("soft")
            and strategy.get("node_id") in self._awaited.values()
        ):
            self._postponed[spec.actor] = spec
            return
        try:
            chosen = self._choose(spec)
        except exceptions.InvalidOption as error:
            # Of labels that its creator should have looked at. The daemon must not end by it.
            self._control.unplaceable(spec.actor, str(error), is_unschedulable=True)
        else:
            self._place_on(spec, chosen)

    def _place_in_group(self, spec: Any, *, is_new: bool = True) -> None:
        """On the node of its bundle, once that has one. is_new: whether it may be the first in its group."""
        from umbel._control import placing

        self._waiting[spec.actor] = spec
        if is_new:
            self._control.follow_group(spec.group)  # which may have placed it already
            if spec.actor not in self._waiting:
                return
        bundles, homes = self._control.group_places(spec.group)
        own = self._own_id()  # and those that may come back to a head that has started again are waited for
        homes = {one: node for one, node in homes.items() if node == own or _tag_of(node) in self._members}
        counts = collections.Counter(self._in_groups.get(spec.group, {}).values())
        creator = self._node_of(spec.owner)
        chosen = placing.choose_in_group(spec, bundles, homes, creator, counts)
        if not chosen:
            return
        del self._waiting[spec.actor]
        if (spec.env or {}).get("built") and chosen != creator:
            text = (
                f"its runtime environment is built from what lies on node {creator or 'that is gone'}, and its bundle of "
                f"placement group {spec.group} is on node {chosen}; create it from there, or without files and packages"
            )
            self._control.unplaceable(spec.actor, text, is_unschedulable=True)
            return
        self._group_of[spec.actor] = spec.group
        self._in_groups.setdefault(spec.group, {})[spec.actor] = chosen
        self._place_on(spec, chosen)

    def _node_of(self, process: str) -> str:
        """The id of its node; "" for one that has gone."""
        if self.is_here(process):
            return self._own_id()
        member = self._member_of(process)
        return member.node_id if member is not None else ""

    def _own_id(self) -> str:
        return str(self._daemon.as_seen()["node_id"])

    def _group_moved(self, group: str) -> None:
        """Bundles of it have got, or lost, their places: actors that wait for that may go, and those that look for a worker
        where none of it is any more have to."""
        sought = [one for one in self._sought.values() if one.group == group and self._control.lacks_host(one.actor)]
        _, homes = self._control.group_places(group)
        for spec in sought:
            placed = self._placed.get(spec.actor)
            now = placed.member.node_id if placed is not None else self._own_id()
            index = int(spec.strategy.get("bundle_index", -1))
            if index >= 0:
                is_right = homes.get(index, now) == now
            else:  # one that looked for a worker here before any node had come was chosen no place
                is_right = now in homes.values() and (spec.actor in self._group_of or len({*homes.values()}) == 1)
            if homes and not is_right:
                self.kill_actor(spec.actor, "its placement group is on other nodes")
                self._forget(spec.actor)
                self._place_in_group(spec, is_new=False)
        for spec in [one for one in self._waiting.values() if one.group == group]:
            if self._control.lacks_host(spec.actor):
                self._place_in_group(spec, is_new=False)
            else:
                self._waiting.pop(spec.actor, None)

    def _views(self, but: str = "", *, are_for_groups: bool = False, only: str = "") -> list[Any]:
        """All living nodes, this one first, as last heard of, less what has been placed there since. but: of that, the actor that
        is not to count. are_for_groups: those that are being drained as well, which says each of itself."""
        from umbel._control import placing

        seen = self._daemon.as_seen()
        views = [
            placing.view(seen["node_id"], seen["total"], seen["available"], seen["labels"], is_local=are_for_groups)
        ]
        claimed: dict[str, dict[str, int]] = {}
        for actor, placed in self._seeking.items():
            if actor == but or placed.spec.group:
                continue  # one of a group takes from a bundle
            of_node = claimed.setdefault(placed.member.node_id, {})
            for name, amount in placed.spec.running.items():
                of_node[name] = of_node.get(name, 0) + amount
        for node in self._daemon.other_nodes():
            member = self._members.get(_tag_of(node["node_id"]))
            if not node["alive"] or member is None or only not in ("", node["node_id"]):
                continue
            is_draining = bool(node.get("draining"))
            if is_draining and not are_for_groups:
                continue  # it takes no more actors
            free = {} if are_for_groups and member.send is None else dict(self._free(node))
            for name, amount in claimed.get(node["node_id"], {}).items():
                free[name] = free.get(name, 0) - amount
            told = node["node_id"], node["resources"], free, node["labels"]
            views.append(placing.view(*told, is_draining=is_draining))
        return views

    def _free(self, node: Message) -> Message:
        """What a node has as it has said last: with its bundles, or of itself since."""
        before, free = self._room.get(node["node_id"], (None, {}))
        return free if before is node["available"] else dict(node["available"])

    def nodes_seen(self) -> list[Any]:
        """For placement groups: those without a connection count as full, for it takes time until they hear of anything."""
        return self._views(are_for_groups=True)

    def node_seen(self, node: str) -> Any:
        """node: "" for this one. None for one that has gone."""
        views = self._views(are_for_groups=True, only=node or self._own_id())
        return next((one for one in views if one.node_id == node), None) if node else views[0]

    def driver_of(self, client: str) -> str:
        job_id, _ = self.job_of(client)
        return str(self._control.driver_of_job(job_id)) or str(
            self._daemon.driver_of(client) if self.is_here(client) else ""
        )

    def reserve_bundles(self, node: str, group: str, attempt: int, wanted: Any, depth: int) -> None:
        listed = [[index, dict(bundle)] for index, bundle in wanted.items()]
        told = {"t": "reserve_bundles", "group": group, "attempt": attempt, "wanted": listed, "depth": depth}
        self._order(node, told, lambda: self._daemon.reserve_bundles(node, group, attempt, wanted, depth))

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
        if node == self._own_id():
            self._group_moved(message["group"])

    def _order(self, node: str, told: Message, here: Callable[[], None]) -> None:
        """Of a node, this one or another; of one that has gone, nothing is wanted any more."""
        member = self._members.get(_tag_of(node))
        if member is not None:
            member.say(told)
        elif node == self._own_id():
            here()

    def _choose(self, spec: Any) -> str:
        """A node's id."""
        from umbel._control import placing

        views, creator = self._views(), self._member_of(spec.owner)
        if creator is not None and (spec.env or {}).get("built"):
            return creator.node_id  # what it is built from lies there, also while that node is drained
        return placing.choose(spec, views, creator.node_id if creator is not None else views[0].node_id)

    def _place_on(self, spec: Any, node_id: str) -> None:
        member = self._members.get(_tag_of(node_id))
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
        """A node has come: what others that look for a worker can never have, or not now, may be had there. None of them has
        called a constructor, so one that finds a worker all the same, before it hears of this, loses it."""
        from umbel._control import placing

        for actor in [one for one in self._sought if not self._control.lacks_host(one)]:
            del self._sought[actor]
        for spec in [one for one in self._sought.values() if one.job is not None and not one.group]:
            views = {one.node_id: one for one in self._views(but=spec.actor)}
            placed = self._placed.get(spec.actor)
            now = next(iter(views)) if placed is None else placed.member.node_id
            chosen = self._choose(spec)
            if chosen != now and now in views and placing.is_better(spec, views[chosen], views[now]):
                self.kill_actor(spec.actor, "another node can host it")
                self._forget(spec.actor)
                self._place_on(spec, chosen)

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """What has changed of nodes. Whoever looks for a worker on one that is being drained now looks elsewhere, if he can."""
        for node_id in [change["node_id"] for change in changes if change.get("draining")]:
            member = self._members.get(_tag_of(node_id))
            for placed in [one for one in self._seeking.values() if one.member is member]:
                spec = placed.spec
                if not spec.group and not (spec.env or {}).get("built"):
                    self.kill_actor(spec.actor, "its node is being drained")
                    self.place_actor(spec)
        self._control.nodes_changed()

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
        self._leave_group(actor)
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
        waiting = self._waiting.get(listed["actor"])
        if waiting is not None:
            text = f"it waits for its placement group {waiting.group} to have a place"
            return {"reason": text, "awaits_group": waiting.group}
        postponed = self._postponed.get(listed["actor"])
        if postponed is not None:
            text = f"it is to be on node {postponed.strategy['node_id']}, which has not come back since the head started again"
            return {"reason": text}
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

    # ---- for the autoscaler ----

    def loads(self) -> dict[str, Message]:
        """What the other nodes have told, by node."""
        return {member.node_id: member.load for member in self._members.values() if member.load}

    def waiting_actors(self) -> list[Any]:
        """Their shapes."""
        sought = [spec for actor, spec in self._sought.items() if self._control.lacks_host(actor)]
        if not sought:
            return []
        from umbel._control import waiting

        return waiting.actors(sought, self._views())

    # ---- nodes that come and go ----

    def entered(self, node_id: str) -> Member:
        """The node is a member, for the first time or once more."""
        tag = _tag_of(node_id)
        member = self._members.get(tag)
        if member is None:
            ids = (self._control.reserve_job_ids(JOB_IDS), JOB_IDS)
            member = self._members[tag] = Member(node_id, ids, vouches=self._control.keeps)
        return member

    def await_nodes(self, node_ids: Iterable[str]) -> None:
        """These may have lived on while there was no head."""
        self._awaited = {_tag_of(one): one for one in node_ids}
        if self._awaited:
            self._control.await_nodes()

    def _awaits_no_more(self, tag: str) -> None:
        node_id = self._awaited.pop(tag, None)
        if node_id is None:
            return
        if not self._awaited:
            self._control.recover()
        for spec in [one for one in self._postponed.values() if one.strategy["node_id"] == node_id]:
            del self._postponed[spec.actor]
            self.place_actor(spec)
        for spec in [*self._waiting.values()]:
            if self._control.lacks_host(spec.actor):
                self._place_in_group(spec, is_new=False)

    def linked(self, node_id: str, heard: int, send: Callable[[Message, bytes], None]) -> None:
        """The node has a connection, and has heard so much. Raises ValueError when it cannot have."""
        member = self.entered(node_id)
        again = member.channel.linked(heard)
        member.send = send
        for frame, body in again:
            send(frame, body)
        if self.wants_load:
            member.say({"t": "tell_load"})
        if self._sought:
            self._place_anew()
        self._control.nodes_changed()

    def unlinked(self, node_id: str) -> None:
        member = self._members.get(_tag_of(node_id))
        if member is not None:
            member.send = None

    def node_gone(self, node_id: str, reason: str) -> None:
        """For good. First go those who need what they own to end with them, so that nobody looks for workers of that."""
        tag = _tag_of(node_id)
        member = self._members.pop(tag, None)
        if member is not None:
            self._give_up(member, reason)
        self._awaits_no_more(tag)

    def _give_up(self, member: Member, reason: str) -> None:
        for client in list(member.clients):
            self._client_gone(member, client)
        node_id = member.node_id
        facts: Message = next((one for one in self._daemon.other_nodes() if one["node_id"] == node_id), {})
        end = _end_of({**facts, "node_id": node_id, "reason": reason})
        self._room.pop(node_id, None)
        self._control.node_gone(node_id)
        for actor, placed in [one for one in self._placed.items() if one[1].member is member]:
            if placed.worker:
                self._lose(actor, placed, end.reason, None, is_preempted=end.is_preempted)
            else:
                self._forget(actor)
                self._control.place_again(actor)

    def _lose(
        self, actor: str, placed: Placed, reason: str, memory: Message | None, *, is_preempted: bool = False
    ) -> None:
        self._control.host_died(actor, placed.worker, reason, memory=memory, is_preempted=is_preempted)
        if self._placed.get(actor) is placed:  # it was not placed again
            self._forget(actor)

    def _found(self, actor: str) -> None:
        """It has a worker, or needs none."""
        self._sought.pop(actor, None)
        self._seeking.pop(actor, None)
        self._waiting.pop(actor, None)

    def _forget(self, actor: str) -> None:
        """It is nowhere, as far as is known here."""
        self._found(actor)
        self._leave_group(actor)
        self._placed.pop(actor, None)
        self._postponed.pop(actor, None)

    def _leave_group(self, actor: str) -> None:
        group = self._group_of.pop(actor, "")
        if group:
            del self._in_groups[group][actor]
            if not self._in_groups[group]:
                del self._in_groups[group]

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
        spec = self._control.spec_of(actor)
        placed = self._placed[actor] = Placed(spec, member, one["attempt"])
        placed.worker, placed.pid = worker, one["pid"]
        if spec.group:
            self._group_of[actor] = spec.group
            self._in_groups.setdefault(spec.group, {})[actor] = member.node_id

    def _on_restated(self, member: Member, message: Message, _body: bytes) -> None:
        """All that was left to be said has been."""
        for actor in message["owned"]:
            facts = self._control.facts_of_dead(actor)
            if facts is not None:
                member.say({"t": "actor_dead", "actor": actor, "facts": facts})
        self._awaits_no_more(_tag_of(member.node_id))

    # ---- messages of nodes ----

    def _on_request(self, member: Member, message: Message, body: bytes) -> None:
        client, request = message["client"], message["message"]
        member.clients[client] = None
        self._jobs_of[client] = message["job"]
        self._control.on[request["t"]](client, message["namespace"], request, body)

    def _on_query(self, member: Member, message: Message, _body: bytes) -> None:
        """Of a process or a command, whose id says nothing."""
        what = message["what"]
        is_of_groups = what == "placement_groups"
        result = self._control.listed_groups(message["about"]) if is_of_groups else self._daemon.answer(what)
        answer = {"t": "reply", "rq": message["rq"], "result": result}
        told = {"t": "deliver", "to": message["client"], "message": answer}
        self._control.when_kept(lambda: member.say(told))

    def _on_drain_node(self, member: Member, message: Message, _body: bytes) -> None:
        client, request = message["client"], message["message"]["rq"]

        def tell(is_accepted: bool, text: str) -> None:
            result = {"is_accepted": is_accepted, "reason": text}
            member.say({"t": "deliver", "to": client, "message": {"t": "reply", "rq": request, "result": result}})

        self._daemon.drain_node(message["message"], tell)

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

    def _on_bundles_reserved(self, member: Member, message: Message, _body: bytes) -> None:
        self._note_room(member, message["available"])
        self._control.bundles_reserved(message["group"], message["attempt"], member.node_id)

    def _on_room(self, member: Member, message: Message, _body: bytes) -> None:
        """It has given bundles back."""
        self._note_room(member, message["available"])
        self._control.nodes_changed()

    def _note_room(self, member: Member, available: Message) -> None:
        """The node says what it has left, and says that again by a beat, which comes later. Until then the last one is older."""
        before = next((one for one in self._daemon.other_nodes() if one["node_id"] == member.node_id), None)
        if before is not None:
            self._room[member.node_id] = (before["available"], available)

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


def _end_of(facts: Message) -> ev.HostEnd:
    """Of a node that is dead, as it is listed."""
    is_preempted = (facts.get("draining") or {}).get("reason") == "preemption"
    return ev.HostEnd(f"its node {facts['node_id'][:8]} is dead: {facts['reason']}", is_preempted)


def _tag_of(node_id: str) -> str:
    return nodes.tag_of_node(node_id).hex()
