"""On which node each actor of a cluster is, or a worker for it is looked for; at its head, a part of `members`.

The head orders a node to look for a worker, and the node says when there is one, or why there will be none. Each order has a
number, so that what comes of one that is void is void. Actors of placement groups wait here until their bundle has a place, and
those that insist on a node that may come back to a head which has started again, until it has. `placing` says where one goes, by
the cluster's scheduling policy, `node_views` what the nodes have left for it.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from umbel import exceptions

if TYPE_CHECKING:
    from umbel._control import events as ev
    from umbel._control import members

Message = dict[str, Any]

LOOK_SHARE = 20  # of the time since it was looked last for better places: so much more than that took


class Placed:
    """An actor on another node. worker: "" until it has one. preparing: what is done there for its environment, in words."""

    __slots__ = ("attempt", "member", "pid", "preparing", "spec", "worker")

    def __init__(self, spec: Any, member: members.Member, attempt: int) -> None:
        self.spec = spec
        self.member = member
        self.attempt = attempt  # what comes of an earlier one does not count
        self.worker = ""
        self.preparing = ""
        self.pid = 0


class ActorPlaces:
    """Of all actors that the head's table knows."""

    def __init__(self, members: members.Members, daemon: Any) -> None:
        self._members = members
        self._daemon = daemon
        self.placed: dict[str, Placed] = {}  # those on other nodes
        self._on: dict[str, dict[str, Placed]] = {}  # the same, by node
        self._sought: dict[str, Any] = {}  # specs of those for which a worker was looked for, some of which have one
        self._seeking: dict[str, Placed] = {}  # those of them that have none, and are looked for by other nodes
        self._waiting: dict[str, Any] = {}  # specs of those that wait for their placement group to have a place
        self._in_groups: dict[str, dict[str, str]] = {}  # by group and actor, the node where that has gone
        self._group_of: dict[str, str] = {}  # the same actors
        self._postponed: dict[str, Any] = {}  # specs of those that are to be on an awaited node, and nowhere else
        self._shapes: dict[str, Any] = {}  # of those that look for a worker, see `placing.shape`
        self._attempts = 0
        self._look_s = 0.0  # not earlier than this

    # ---- what the control service orders ----

    def place(self, spec: Any) -> None:
        """On the node that `placing` chooses; in a placement group, on that of the group."""
        control = self._members.control
        if not control.lacks_host(spec.actor):
            return  # it has died since, while records were written
        self.forget(spec.actor)
        if self._members.is_here(spec.owner) and (spec.job is None or self._members.is_alone):
            self._sought[spec.actor] = spec
            if spec.group:
                control.follow_group(spec.group)  # it may go to a node that is to come
            self._daemon.place_actor(spec)
        elif spec.job is None:  # it ended before it was heard that this belongs to it
            control.unplaceable(spec.actor, "its job has ended", is_unschedulable=False)
        elif spec.group:
            self._place_in_group(spec)
        else:
            self._place_anywhere(spec)

    def _place_anywhere(self, spec: Any) -> None:
        strategy = spec.strategy
        if (
            isinstance(strategy, dict)
            and not strategy.get("soft")
            and self._members.awaits(strategy.get("node_id", ""))
        ):
            self._postponed[spec.actor] = spec
            return
        try:
            chosen = self._choose(spec)
        except exceptions.InvalidOption as error:
            # Of labels that its creator should have looked at. The daemon must not end by it.
            self._members.control.unplaceable(spec.actor, str(error), is_unschedulable=True)
        else:
            self._place_on(spec, chosen)

    def _choose(self, spec: Any) -> str:
        """A node's id."""
        from umbel._control import placing

        creator, own_id = self._members.member_of(spec.owner), self._members.own_id
        self._members.see_own()
        view = self._members.views.for_actors
        policy = self._daemon.placement_policy()
        return placing.choose(spec, view, creator.node_id if creator is not None else own_id, own_id, policy)

    def _place_on(self, spec: Any, node_id: str) -> None:
        member = self._members.member_on(node_id)
        self._sought[spec.actor] = spec
        if not spec.group:  # one of a group takes from a bundle
            self._members.views.claim(spec.actor, node_id, spec.running)
        creators = self._node_of(spec.owner)
        source = creators if creators != node_id else ""  # its creator has packed its packages
        if member is None:
            self._daemon.place_actor(spec, source)
            return
        self._attempts += 1
        self._seeking[spec.actor] = self._put(Placed(spec, member, self._attempts))
        # Its driver is there, and the actor ends with it. What workers are to be like may take some 10 kB.
        is_known = spec.job.id in member.jobs and not spec.is_detached
        control = self._members.control
        member.say(
            {
                "t": "place_actor", "actor": spec.actor, "attempt": self._attempts, "placement": spec.placement,
                "running": spec.running, "env": spec.env, "strategy": spec.strategy,
                "label_selectors": spec.label_selectors, "depth": spec.depth, "source": source,
                "job": {
                    "id": spec.job.id, "facts": None if is_known else spec.job.facts,
                    "driver": control.driver_of_job(spec.job.id),
                },
                "may_restart": control.may_restart(spec.actor), "facts": control.facts(spec.actor),
            }
        )  # fmt: skip

    def _put(self, placed: Placed) -> Placed:
        self.placed[placed.spec.actor] = self._on.setdefault(placed.member.node_id, {})[placed.spec.actor] = placed
        return placed

    def release(self, actor: str, grace_s: float | None) -> None:
        placed = self.placed.get(actor)
        if placed is None:
            self._daemon.release_actor(actor, grace_s)
        else:
            placed.member.say({"t": "release_actor", "actor": actor, "grace_s": grace_s})

    def kill(self, actor: str, reason: str) -> None:
        placed = self.placed.get(actor)
        if placed is None:
            self._daemon.kill_actor(actor, reason)
        else:
            placed.member.say({"t": "kill_actor", "actor": actor, "reason": reason})

    def dead(self, actor: str, facts: Message) -> None:
        """For good."""
        self._found(actor)
        self._claim_no_more(actor)
        self._leave_group(actor)
        placed, owner = self.placed.get(actor), self._members.member_of(facts["owner"])
        host = placed.member if placed is not None else None
        facts = {**facts, "node_id": host.node_id} if host is not None else facts
        self._daemon.actor_dead(actor, facts)
        for member in dict.fromkeys(one for one in (owner, host) if one is not None):
            member.say({"t": "actor_dead", "actor": actor, "facts": facts})

    # ---- in placement groups ----

    def _place_in_group(self, spec: Any, *, is_new: bool = True) -> None:
        """On the node of its bundle, once that has one. is_new: whether it may be the first in its group."""
        from umbel._control import placing

        members = self._members
        self._waiting[spec.actor] = spec
        if is_new:
            members.control.follow_group(spec.group)  # which may have placed it already
            if spec.actor not in self._waiting:
                return
        bundles, homes = members.control.group_places(spec.group)
        own = members.own_id  # and those that may come back to a head that has started again are waited for
        homes = {one: node for one, node in homes.items() if node == own or members.member_on(node) is not None}
        counts = collections.Counter(self._in_groups.get(spec.group, {}).values())
        creator = self._node_of(spec.owner)
        chosen = placing.choose_in_group(spec, bundles, homes, creator, counts)
        if not chosen:
            return
        del self._waiting[spec.actor]
        self._join_group(spec, chosen)
        self._place_on(spec, chosen)

    def _node_of(self, process: str) -> str:
        """The id of its node; "" for one that has gone."""
        if self._members.is_here(process):
            return self._members.own_id
        member = self._members.member_of(process)
        return member.node_id if member is not None else ""

    def group_moved(self, group: str) -> None:
        """Bundles of it have got, or lost, their places: actors that wait for that may go, and those that look for a worker
        where none of it is any more have to."""
        control = self._members.control
        sought = [one for one in self._sought.values() if one.group == group and control.lacks_host(one.actor)]
        _, homes = control.group_places(group)
        for spec in sought:
            placed = self.placed.get(spec.actor)
            now = placed.member.node_id if placed is not None else self._members.own_id
            index = int(spec.strategy.get("bundle_index", -1))
            if index >= 0:
                is_right = homes.get(index, now) == now
            else:  # one that looked for a worker here before any node had come was chosen no place
                is_right = now in homes.values() and (spec.actor in self._group_of or len({*homes.values()}) == 1)
            if homes and not is_right:
                self.kill(spec.actor, "its placement group is on other nodes")
                self.forget(spec.actor)
                self._place_in_group(spec, is_new=False)
        for spec in [one for one in self._waiting.values() if one.group == group]:
            if control.lacks_host(spec.actor):
                self._place_in_group(spec, is_new=False)
            else:
                self._waiting.pop(spec.actor, None)

    def _join_group(self, spec: Any, node_id: str) -> None:
        self._group_of[spec.actor] = spec.group
        self._in_groups.setdefault(spec.group, {})[spec.actor] = node_id

    def _leave_group(self, actor: str) -> None:
        group = self._group_of.pop(actor, "")
        if group:
            del self._in_groups[group][actor]
            if not self._in_groups[group]:
                del self._in_groups[group]

    # ---- nodes that come, are drained and go ----

    def look(self) -> None:
        """Something may have ended on a node, which can host now what others look for a worker for."""
        members = self._members
        if not (self._sought and members.has_views and members.views.has_more):
            return
        began_s = self._daemon.now_s()
        if began_s >= self._look_s:  # else with the next word of a node
            self.place_anew()
            now_s = self._daemon.now_s()
            self._look_s = now_s + LOOK_SHARE * (now_s - began_s)

    def place_anew(self) -> None:
        """A node has come, or has more free: what others that look for a worker can never have, or not now, may be had there.
        None of them has called a constructor, so one that finds a worker all the same, before it hears of this, loses it."""
        from umbel._control import placing

        members = self._members
        if not self._sought:
            return
        for actor in [one for one in self._sought if not members.control.lacks_host(one)]:
            self._found(actor)
        members.see_own()
        in_vain: set[Any] = set()  # nothing becomes more free by what is done here, but where an actor was looked for
        for spec in [one for one in self._sought.values() if one.job is not None and not one.group]:
            placed = self.placed.get(spec.actor)
            now = members.own_id if placed is None else placed.member.node_id
            shape = self._shapes.get(spec.actor)
            if shape is None:
                shape = self._shapes[spec.actor] = placing.shape(spec)
            kind = (shape, now)
            if kind in in_vain:
                continue
            members.views.release(spec.actor)
            here, chosen = members.views.for_actors.find(now), self._choose(spec)
            there = members.views.for_actors.find(chosen)
            is_to_go = chosen != now and here is not None and there is not None and not here.is_draining
            if is_to_go and placing.is_better(spec, there, here):  # type: ignore[arg-type]  # neither is None
                self.kill(spec.actor, "another node can host it")
                self.forget(spec.actor)
                self._place_on(spec, chosen)
                in_vain.clear()
            else:
                members.views.claim(spec.actor, now, spec.running)
                in_vain.add(kind)
        members.views.has_more = False

    def node_drains(self, member: members.Member) -> None:
        """Whoever looks for a worker there looks elsewhere, if he can."""
        for placed in [*self._on.get(member.node_id, {}).values()]:
            spec = placed.spec
            if not placed.worker and not spec.group and spec.actor in self._seeking:
                self.kill(spec.actor, "its node is being drained")
                self.place(spec)

    def node_back(self, node_id: str) -> None:
        """It has come back to a head that has started again, or never will."""
        for spec in [one for one in self._postponed.values() if one.strategy["node_id"] == node_id]:
            del self._postponed[spec.actor]
            self.place(spec)
        for spec in [*self._waiting.values()]:
            if self._members.control.lacks_host(spec.actor):
                self._place_in_group(spec, is_new=False)

    def node_gone(self, member: members.Member, end: ev.HostEnd) -> None:
        for actor, placed in [*self._on.get(member.node_id, {}).items()]:
            if placed.worker:
                self._lose(actor, placed, end.reason, None, is_preempted=end.is_preempted)
            else:
                self.forget(actor)
                self._members.control.place_again(actor)

    def _lose(
        self, actor: str, placed: Placed, reason: str, memory: Message | None, *, is_preempted: bool = False
    ) -> None:
        self._members.control.host_died(actor, placed.worker, reason, memory=memory, is_preempted=is_preempted)
        if self.placed.get(actor) is placed:  # it was not placed again
            self.forget(actor)

    def _found(self, actor: str) -> None:
        """It has a worker, or needs none."""
        self._sought.pop(actor, None)
        self._shapes.pop(actor, None)
        self._seeking.pop(actor, None)
        self._waiting.pop(actor, None)

    def _claim_no_more(self, actor: str) -> None:
        if self._members.has_views:
            self._members.views.release(actor)

    def forget(self, actor: str) -> None:
        """It is nowhere, as far as is known here."""
        self._found(actor)
        self._claim_no_more(actor)
        self._leave_group(actor)
        placed = self.placed.pop(actor, None)
        if placed is not None:
            there = self._on[placed.member.node_id]
            del there[actor]
            if not there:
                del self._on[placed.member.node_id]
        self._postponed.pop(actor, None)

    # ---- what nodes say ----

    def is_known_attempt(self, attempt: int) -> None:
        """A head before this one has given orders up to this number."""
        self._attempts = max(self._attempts, attempt)

    def take_up(self, actor: str, member: members.Member, worker: str, one: Message) -> None:
        """A node that lived on while there was no head hosts it."""
        spec = self._members.control.spec_of(actor)
        placed = self._put(Placed(spec, member, one["attempt"]))
        placed.worker, placed.pid = worker, one["pid"]
        if spec.group:
            self._join_group(spec, member.node_id)

    def _placed_there(self, member: members.Member, message: Message) -> Placed | None:
        """None where it is somewhere else by now."""
        placed = self.placed.get(message["actor"])
        is_there = placed is not None and placed.member is member and placed.attempt == message["attempt"]
        return placed if is_there else None

    def on_hosted(self, member: members.Member, message: Message, _body: bytes) -> None:
        actor = message["actor"]
        placed = self._placed_there(member, message)
        if placed is None:
            return  # the node has been told meanwhile that it is not wanted there
        self._found(actor)
        self._members.views.has_worker(actor)
        placed.worker, placed.pid = message["worker"], message["pid"]
        self._members.control.hosted(actor, placed.worker, message["address"], message["accelerators"])

    def hosted_here(self, actor: str) -> None:
        """This node has found a worker for it."""
        if actor not in self.placed and self._members.has_views:
            self._members.views.has_worker(actor)

    def on_host_died(self, member: members.Member, message: Message, _body: bytes) -> None:
        placed = self._placed_there(member, message)
        if placed is not None and placed.worker == message["worker"]:
            self._lose(message["actor"], placed, message["reason"], message["memory"])

    def on_unhosted(self, member: members.Member, message: Message, _body: bytes) -> None:
        """The actor was to end, and never had a worker."""
        if self._placed_there(member, message) is not None:
            self.forget(message["actor"])

    def on_preparing(self, member: members.Member, message: Message, _body: bytes) -> None:
        placed = self._placed_there(member, message)
        if placed is not None:
            placed.preparing = message["text"]

    def on_unplaceable(self, member: members.Member, message: Message, _body: bytes) -> None:
        actor = message["actor"]
        placed = self._placed_there(member, message)
        if placed is not None:
            reason = f"on node {member.node_id}: {message['reason']}"
            self._members.control.unplaceable(actor, reason, is_unschedulable=message["is_unschedulable"])
            if self.placed.get(actor) is placed:
                self.forget(actor)

    # ---- what others ask ----

    def place_of(self, listed: Message) -> Message:
        """See `members.Members.place_of`."""
        members = self._members
        placed = self.placed.get(listed["actor"])
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
        awaited = members.awaited_of(listed["worker"])
        if awaited:
            return {"node_id": awaited, "reason": "the head has started again, and waits for its node"}
        if listed["worker"] or not members.has_any or not members.control.lacks_host(listed["actor"]):
            return {}
        sought_on = placed.member.node_id if placed is not None else members.own_id
        told = f"node {sought_on} looks for a worker for it"
        if placed is not None and placed.preparing:
            told = f"{told}, whose runtime environment {placed.preparing}"
        return {"reason": f"{listed['reason']}; {told}" if listed["reason"] else told, "sought_on": sought_on}

    def waiting_shapes(self) -> list[Any]:
        """Of those for which a worker is looked for, for the autoscaler."""
        sought = [spec for actor, spec in self._sought.items() if self._members.control.lacks_host(actor)]
        if not sought:
            return []
        from umbel._control import waiting

        self._members.see_own()
        return waiting.actors(sought, [one for one in self._members.views.for_actors.nodes if not one.is_draining])
