"""Which placement groups there are, and on which nodes their bundles are.

A group is PENDING until all of its bundles are reserved, then CREATED; when a node goes it is RESCHEDULING until what was
lost has a place again; REMOVED is final. Bundles are placed in two phases. The nodes that are to hold what has no place
reserve it, which may take until they have room; once all have, all are told to let tasks in. Whatever happens before
that was done everywhere, a refusal, the loss of a node or a wait that takes too long, cancels the attempt on all of them,
so that a group that was never CREATED holds nothing. A name belongs to at most one group of a namespace that is not
REMOVED. A table that begins with records (`restore`) waits until `Recovered` for the nodes that groups are on; what is on
others then is lost. Nodes that follow a group are told of each change of its places. This module only
decides; `group_service` sends, and `umbel._scheduling.bundles` says where bundles could go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from umbel._base import checks, deadlines, pairs
from umbel._control import group_events as ev
from umbel._control import group_room, group_state
from umbel._control.group_events import Cause, GroupSpec, GroupState
from umbel._control.group_state import Attempt, Group, Part
from umbel._model import placement
from umbel._scheduling import bundles

INFEASIBLE_WARNING_S = 1.0  # as for tasks: users add nodes right after; do not cry at once
RESERVE_WAIT_S = (
    5.0  # for several nodes to have room at the same time; meanwhile each holds it for one that may be far off
)
RESERVE_RETRY_S = 1.0  # after an attempt that has failed, so that groups which want the same do not chase each other
_NOWHERE: Final[Mapping[int, str]] = {}
_NOT_RECOVERED = "waits for nodes to report what they have, since the control service has just started"
LOOKED_AT_MAX = 100  # groups that wait for full nodes, for one piece of news of nodes; the others look when it is time
REMOVED_KEPT_MAX = 1_000  # groups whose end can still be asked for


class GroupTable:
    """The machine. `apply` takes events and returns the commands that they cause."""

    def __init__(
        self, *, infeasible_timeout_s: float | None = None, launches: Callable[[str], str] = lambda _group: ""
    ) -> None:
        """infeasible_timeout_s: how long a group that no node could ever hold may wait; None for ever. launches: what is done to
        have nodes that could, as the end of a reason."""
        self._launches = launches
        self.groups: dict[str, Group] = {}
        self._unplaced: dict[str, Group] = {}  # those that are not CREATED: there may be a thousand others
        self._count = 0
        self._room = group_room.GroupRoom()
        self.nodes = self._room.nodes
        self._places = pairs.Pairs()  # groups, with the nodes that have bundles of them, were asked to, or follow them
        self._due: deadlines.Deadlines[str] = deadlines.Deadlines()  # groups
        self._undated: dict[str, None] = {}  # those of which that may be old
        self._concerned = pairs.Pairs()  # groups, with the processes and actors whose end concerns them
        self._removed: OrderedDict[str, Group] = OrderedDict()
        self._names: dict[tuple[str, str], str] = {}
        self._infeasible_timeout_s = infeasible_timeout_s
        self.changed: dict[str, None] | None = None  # whose records are to be kept anew; None where nobody keeps any
        self._awaited: dict[str, None] = {}  # while it is recovered: nodes with bundles that have not been seen
        self.awaited_owners: dict[str, None] = {}  # meanwhile: whose end would end groups
        self._is_recovering = False
        self._handlers: dict[type, Callable[..., list[ev.GroupCommand]]] = {
            ev.GroupCreated: self._on_created,
            ev.RemovalWanted: self._on_removal_wanted,
            ev.GroupWatched: self._on_watched,
            ev.GroupFollowed: self._on_followed,
            ev.NodeSeen: lambda event: self._see((event.view,), event.at_s),
            ev.NodesSeen: lambda event: self._see(event.views, event.at_s),
            ev.NodeLost: self._on_node_lost,
            ev.BundlesReserved: self._on_reserved,
            ev.BundlesRefused: self._on_refused,
            ev.BundlesCommitted: self._on_committed,
            ev.OwnerGone: self._on_owner_gone,
            ev.BundlesReported: self._on_reported,
            ev.Recovered: self._on_recovered,
            ev.Ticked: self._on_ticked,
        }

    def restore(self, kept: Iterable[Group]) -> None:
        """Begin with what was kept of each, in the order of their creation, or for removed ones of their ends."""
        for group in kept:
            spec = group.spec
            self._count = max(self._count, group.number)
            if group.state is GroupState.REMOVED:
                self._removed[spec.group] = group
                continue
            self.groups[spec.group] = group
            self._concerned.add(spec.group, spec.owner)
            if spec.name:
                self._names[spec.namespace, spec.name] = spec.group
            if not spec.is_detached:
                self.awaited_owners[spec.owner] = None
            if group.state is not GroupState.CREATED:
                group.reason = _NOT_RECOVERED
                self._unplaced[spec.group] = group
            for node in group.nodes.values():
                self._awaited[node] = None
                self._places.add(spec.group, node)
        while len(self._removed) > REMOVED_KEPT_MAX:
            self._forget_oldest()
        self._is_recovering = True
        self.check()

    def _changes(self, group: Group) -> None:
        """What is kept of it differs from now on."""
        if self.changed is not None:
            self.changed[group.spec.group] = None

    def record(self, group: str) -> Group | None:
        """What is to be kept of it; None for nothing."""
        return self.groups.get(group) or self._removed.get(group)

    def apply(self, *events: ev.GroupEvent) -> list[ev.GroupCommand]:
        commands: list[ev.GroupCommand] = []
        for event in events:
            commands += self._handlers[type(event)](event)
        if (self._room.has_more or self._room.concerned) and not self._is_recovering:
            commands += self._look_again(events[-1].at_s)
        return commands

    # ---- creation ----

    def _on_created(self, event: ev.GroupCreated) -> list[ev.GroupCommand]:
        spec = event.spec
        commands: list[ev.GroupCommand] = []
        if event.request is not None:
            commands.append(ev.AnswerCreate(event.client, event.request, spec.group))
        if spec.group in self.groups or spec.group in self._removed:
            return commands  # told twice
        if spec.name:
            place = (spec.namespace, spec.name)
            holder = self._names.get(place)
            if holder is not None:
                reason = (
                    f"a placement group named {spec.name!r} already exists in namespace {spec.namespace!r} (id {holder}); "
                    "choose another name, remove it, or get it with get_placement_group()"
                )
                return [ev.RefuseCreate(event.client, event.request, reason)]
            self._names[place] = spec.group
        self._count += 1
        group = self.groups[spec.group] = self._unplaced[spec.group] = Group(spec, self._count, event.at_s)
        self._concerned.add(spec.group, spec.owner)
        if event.is_near:
            group.creator = event.client
            self._concerned.add(spec.group, event.client)
        group.reason = _NOT_RECOVERED  # which is so if it is not placed presently
        self._changes(group)
        return commands + self._attempt(group, event.at_s)

    # ---- placing ----

    def _attempt(self, group: Group, at_s: float) -> list[ev.GroupCommand]:
        """Have what has no place reserved, where the policy says."""
        group.retry_s = None
        self._undated[group.spec.group] = None
        if self._is_recovering:
            return []  # nodes that are not seen yet may have its bundles, or more room
        found = self._place(group)
        if found.is_feasible:
            group.infeasible_since_s = None
            group.is_warned_of = False
        elif group.infeasible_since_s is None:
            group.infeasible_since_s = at_s
        group.reason = found.reason
        if not found.nodes:
            return []  # until the nodes change
        is_choice = len({*found.nodes.values()}) > 1 or len(self.nodes) > 1
        group.attempt = Attempt(at_s + RESERVE_WAIT_S if is_choice else None)
        return self._ask(group, group.attempt, found.nodes)

    def _ask(self, group: Group, attempt: Attempt, homes: Mapping[int, str]) -> list[ev.GroupCommand]:
        """Nodes, for these bundles."""
        spec = group.spec
        group.attempts += 1
        self._changes(group)  # before a node is asked, so that it is never asked twice by one number
        attempt.asks(group.attempts, homes)
        commands: list[ev.GroupCommand] = []
        for node in dict.fromkeys(homes.values()):
            wanted = {index: spec.bundles[index] for index, home in homes.items() if home == node}
            commands.append(ev.Reserve(node, spec.group, group.attempts, wanted, spec.depth))
            self._places.add(spec.group, node)
            self._room.ask(node, spec.group, wanted.values())
        return commands

    def _place(self, group: Group, reserved: Mapping[int, str] = _NOWHERE) -> bundles.GroupPlacement:
        """reserved: where bundles of it stay that it does not have yet."""
        spec, homes = group.spec, {**group.nodes, **reserved}
        return self._room.place(
            bundles.GroupDemand(spec.bundles, spec.strategy, homes, spec.label_selectors, spec.soft_target)
        )

    def _look_again(self, at_s: float) -> list[ev.GroupCommand]:
        """There is more room somewhere, or less: groups that wait for room where there is none go where there is some."""
        commands: list[ev.GroupCommand] = []
        room = self._room
        while room.has_more or room.concerned:  # whoever goes may leave room
            concerned = [self._unplaced[one] for one in room.concerned if one in self._unplaced]
            groups = self._in_order() if room.has_more else sorted(concerned, key=lambda group: group.number)
            room.has_more, room.concerned, looked_at = False, {}, 0
            for group in groups:
                attempt = group.attempt
                if attempt is None or attempt.is_committing or not self._is_crowded(group, attempt):
                    continue
                commands += self._move(group, attempt, at_s)
                looked_at += 1
                if looked_at == LOOKED_AT_MAX:
                    break
        return commands

    def _is_crowded(self, group: Group, attempt: Attempt) -> bool:
        return any(self._room.is_crowded(node, group.spec.group) for node, _ in attempt.waits_for)

    def _move(self, group: Group, attempt: Attempt, at_s: float) -> list[ev.GroupCommand]:
        """Ask others for what was not reserved, if they have room now."""
        found = self._place(group, attempt.reserved())
        if not found.is_ready:
            return []
        left, attempt.waits_for = attempt.waits_for, {}
        commands: list[ev.GroupCommand] = [ev.Cancel(node, group.spec.group, number) for node, number in left]
        for node, _ in left:
            self._room.answered(node, group.spec.group)
        commands += self._ask(group, attempt, found.nodes)
        for node, _ in left:
            self._let_go(group, node)
        group.reason = found.reason
        attempt.until_s = at_s + RESERVE_WAIT_S
        self._undated[group.spec.group] = None
        return commands

    def _current(self, group_id: str, part: Part) -> tuple[Group, Attempt] | None:
        """The group and its attempt, if this is of it."""
        group = self.groups.get(group_id)
        if group is None or group.attempt is None or part not in group.attempt.parts():
            return None
        return group, group.attempt

    def _on_reserved(self, event: ev.BundlesReserved) -> list[ev.GroupCommand]:
        part = (event.node, event.attempt)
        found = self._current(event.group, part)
        if found is None:
            return [] if self._holds(event) else [ev.Cancel(event.node, event.group, event.attempt)]
        group, attempt = found
        if attempt.is_committing or part not in attempt.waits_for:
            return []  # told twice
        del attempt.waits_for[part]
        self._room.reserved(event.node, event.group, event.view)
        if attempt.waits_for:
            self._room.concerned[event.group] = None  # there is less of it to place
            return []
        attempt.is_committing = True
        attempt.waits_for = attempt.parts()
        attempt.until_s = None
        self._undated[event.group] = None
        return [ev.Commit(node, group.spec.group, number) for node, number in attempt.waits_for]

    def _holds(self, event: ev.BundlesReserved) -> bool:
        """Whether this late message is of bundles that the group has by now; each attempt that succeeded is the last one
        of which the node was told."""
        group = self.groups.get(event.group)
        return group is not None and event.attempt <= group.attempts and event.node in group.nodes.values()

    def _on_committed(self, event: ev.BundlesCommitted) -> list[ev.GroupCommand]:
        part = (event.node, event.attempt)
        found = self._current(event.group, part)
        if found is None or not found[1].is_committing:
            return []
        group, attempt = found
        attempt.waits_for.pop(part, None)
        if attempt.waits_for:
            return []
        group.nodes.update(attempt.nodes)
        group.nodes = dict(sorted(group.nodes.items()))
        group.attempt = None
        group.reason = ""
        group.state = GroupState.CREATED
        del self._unplaced[group.spec.group]
        self._undated[group.spec.group] = None
        if group.ready_s is None:
            group.ready_s = event.at_s
        self._changes(group)
        return self._moved(group) + self._publish(group)

    def _on_refused(self, event: ev.BundlesRefused) -> list[ev.GroupCommand]:
        part = (event.node, event.attempt)
        found = self._current(event.group, part)
        if found is None or found[1].is_committing:
            return []
        group, _ = found
        commands = self._give_up(group, but=[part])
        group.reason = f"node {event.node[:8]} refused its bundles: {event.reason}"
        group.retry_s = event.at_s + RESERVE_RETRY_S
        self._undated[event.group] = None
        return commands

    def _give_up(self, group: Group, *, but: Collection[Part] = ()) -> list[ev.GroupCommand]:
        """End the attempt on all its nodes, but for what they know of."""
        attempt, group.attempt = group.attempt, None
        if attempt is None:
            return []
        self._undated[group.spec.group] = None
        for node in dict.fromkeys(attempt.nodes.values()):
            self._room.answered(node, group.spec.group)
            self._let_go(group, node)
        return [
            ev.Cancel(node, group.spec.group, number) for node, number in attempt.parts() if (node, number) not in but
        ]

    def _let_go(self, group: Group, node: str) -> None:
        """It may have nothing to do with the group any more."""
        if node not in group_state.nodes_of(group):
            self._places.discard(group.spec.group, node)

    # ---- nodes ----

    def _see(self, views: Sequence[placement.NodeView], at_s: float) -> list[ev.GroupCommand]:
        changed = [view for view in views if self.nodes.get(view.node_id) != view]
        if not changed:
            return []  # what had no place has none now
        is_other = any(_in_all(self.nodes.get(view.node_id)) != _in_all(view) for view in changed)
        for view in changed:
            self._room.see(view)
        commands: list[ev.GroupCommand] = []
        for group in self._in_order():
            attempt = group.attempt
            if attempt is not None and not attempt.is_committing and attempt.until_s is None and len(self.nodes) > 1:
                attempt.until_s = at_s + RESERVE_WAIT_S  # it began when there was no other node
                self._undated[group.spec.group] = None
            may_help = is_other or group.infeasible_since_s is None
            if attempt is None and group.retry_s is None and may_help:
                commands += self._attempt(group, at_s)
        return commands

    def _in_order(self) -> list[Group]:
        """Those that are not CREATED, in the order in which they are placed."""
        return sorted(self._unplaced.values(), key=lambda group: group.number)

    def _on_node_lost(self, event: ev.NodeLost) -> list[ev.GroupCommand]:
        return self._lose(event.node, event.at_s)

    def _lose(self, lost_node: str, at_s: float) -> list[ev.GroupCommand]:
        self._room.lose(lost_node)
        self._awaited.pop(lost_node, None)
        commands: list[ev.GroupCommand] = []
        hit: list[Group] = []
        concerned = [self.groups[one] for one in self._places.pop_right(lost_node)]
        for group in sorted(concerned, key=lambda one: one.number):
            group.followers.pop(lost_node, None)
            is_attempted = group.attempt is not None and lost_node in group.attempt.nodes.values()
            lost = [index for index, node in group.nodes.items() if node == lost_node]
            if not lost and not is_attempted:
                continue
            for index in lost:
                del group.nodes[index]
            if lost:
                group.state = GroupState.RESCHEDULING
                self._unplaced[group.spec.group] = group
                self._changes(group)
                if self._is_recovering:
                    group.reason = _NOT_RECOVERED
                commands += [*self._moved(group), group_state.lost_bundles(group, lost, lost_node)]
                commands += group_state.not_created(group)
            parts = group.attempt.parts() if group.attempt is not None else ()
            commands += self._give_up(group, but=[part for part in parts if part[0] == lost_node])
            hit.append(group)
        for group in hit:  # once all have let go of what they will not have
            commands += self._attempt(group, at_s)
        for group in self._in_order():
            if group not in hit and group.attempt is None and group.retry_s is None:
                commands += self._attempt(group, at_s)  # why it has no place may be another reason now
        return commands

    # ---- recovery ----

    def _on_reported(self, event: ev.BundlesReported) -> list[ev.GroupCommand]:
        """A node that lived on says what it has: what nobody wants goes, what it has lost is placed anew."""
        if not self._is_recovering:
            return []
        self._room.see(event.view)
        self._awaited.pop(event.view.node_id, None)
        node = event.view.node_id
        commands: list[ev.GroupCommand] = []
        kept: set[tuple[str, int]] = set()
        for group_id, held in event.held.items():
            group = self.groups.get(group_id)
            if group is None:
                commands.append(ev.Drop(node, group_id, self.ended(group_id)[1]))
                continue
            for one in held:
                if any(group.nodes.get(index) != node for index in one.indices):  # it never had all of its bundles
                    commands.append(ev.Cancel(node, group_id, one.attempt))
                    continue
                kept.update((group_id, index) for index in one.indices)
                if not one.is_committed:
                    commands.append(ev.Commit(node, group_id, one.attempt))
        for group in [self.groups[one] for one in self._places.lefts(node)]:
            mine = [index for index, home in group.nodes.items() if home == node]
            lost = [index for index in mine if (group.spec.group, index) not in kept]
            if lost:
                for index in lost:
                    del group.nodes[index]
                self._let_go(group, node)
                group.state = GroupState.RESCHEDULING
                group.reason = _NOT_RECOVERED
                self._unplaced[group.spec.group] = group
                self._changes(group)
                commands += [*self._moved(group), group_state.lost_bundles(group, lost, node)]
        return commands

    def _on_recovered(self, event: ev.Recovered) -> list[ev.GroupCommand]:
        commands: list[ev.GroupCommand] = []
        for node in list(self._awaited):
            seen = self.nodes.get(node)
            commands += self._lose(node, event.at_s)
            if seen is not None:  # it is there, without what it held
                self._room.see(seen)
        self._is_recovering = False
        self.awaited_owners = {}
        for group in self._in_order():
            if group.attempt is None and group.retry_s is None:
                commands += self._attempt(group, event.at_s)
        return commands

    # ---- the end ----

    def _on_removal_wanted(self, event: ev.RemovalWanted) -> list[ev.GroupCommand]:
        group = self.groups.get(event.group)
        if group is None:
            return []
        if group.creator and event.client == group.creator:  # it knows
            if event.client not in (group.spec.owner, *group.watchers):
                self._concerned.discard(event.group, event.client)
            group.creator = ""
        return self._remove(group, "it was removed by remove_placement_group()")

    def _on_owner_gone(self, event: ev.OwnerGone) -> list[ev.GroupCommand]:
        commands: list[ev.GroupCommand] = []
        for group in [self.groups[one] for one in self._concerned.pop_right(event.owner)]:
            group.watchers.pop(event.owner, None)
            if group.creator == event.owner:
                group.creator = ""
            if group.spec.owner == event.owner and not group.spec.is_detached:
                reason = (
                    f"{event.owner}, with which it was to end, is gone; pass lifetime='detached' for a placement group that "
                    "shall outlive its creator"
                )
                commands += self._remove(group, reason)
        return commands

    def _remove(self, group: Group, reason: str, cause: Cause = Cause.REMOVED) -> list[ev.GroupCommand]:
        spec = group.spec
        group.state = GroupState.REMOVED
        group.reason = reason
        group.cause = cause
        homes = {*group.nodes.values(), *(group.attempt.nodes.values() if group.attempt is not None else ())}
        self._give_up(group)  # of which the nodes hear by `Drop`
        group.retry_s = None
        del self.groups[spec.group]
        self._unplaced.pop(spec.group, None)
        self._undated[spec.group] = None
        self._places.pop_left(spec.group)
        if spec.name:
            del self._names[spec.namespace, spec.name]
        self._removed[spec.group] = group
        self._changes(group)
        if len(self._removed) > REMOVED_KEPT_MAX:
            self._forget_oldest()
        commands: list[ev.GroupCommand] = [ev.GroupEnded(spec.group, reason)]
        # Here, what is to run in a group waits for it while there are no other nodes.
        homes |= {self._room.own}
        commands += [ev.Drop(node, spec.group, reason) for node in sorted(homes) if node in self.nodes]
        commands += self._moved(group)
        group.followers = {}
        if group.creator not in group.watchers:
            commands += group_state.not_created(group)
        published = self._publish(group)
        for process in (spec.owner, group.creator):
            self._concerned.discard(spec.group, process)
        group.creator = ""
        return commands + published

    def _forget_oldest(self) -> None:
        _, group = self._removed.popitem(last=False)
        self._changes(group)

    # ---- finding ----

    def find(self, name: str, namespace: str) -> str | None:
        """The id of the group of that name."""
        return self._names.get((namespace, name))

    def named(self) -> list[tuple[str, str]]:
        """(namespace, name) of all that have one."""
        return sorted(self._names)

    def spec(self, group: str) -> GroupSpec | None:
        found = self.groups.get(group) or self._removed.get(group)
        return found.spec if found is not None else None

    def ended(self, group: str) -> tuple[Cause, str]:
        """Why nothing will ever run in this group; (Cause.NONE, "") for one that is there."""
        if group in self.groups:
            return Cause.NONE, ""
        removed = self._removed.get(group)
        if removed is None:
            return Cause.UNKNOWN, "there is no such placement group (any more)"
        return removed.cause, removed.reason

    def _on_watched(self, event: ev.GroupWatched) -> list[ev.GroupCommand]:
        group = self.groups.get(event.group)
        if group is None:
            cause, reason = self.ended(event.group)
            return [ev.Publish(event.client, event.group, GroupState.REMOVED, reason, cause)]
        group.watchers[event.client] = None
        self._concerned.add(event.group, event.client)
        return self._publish(group) if group.state is GroupState.CREATED else []

    def _publish(self, group: Group) -> list[ev.GroupCommand]:
        """Of what they wait for, once."""
        watchers, group.watchers = group.watchers, {}
        for client in watchers:
            if client not in (group.spec.owner, group.creator):
                self._concerned.discard(group.spec.group, client)
        return [ev.Publish(client, group.spec.group, group.state, group.reason, group.cause) for client in watchers]

    def _on_followed(self, event: ev.GroupFollowed) -> list[ev.GroupCommand]:
        group = self.groups.get(event.group)
        if group is None:
            cause, reason = self.ended(event.group)
            return [ev.Tell(event.node, event.group, GroupState.REMOVED, (), (), reason, cause)]
        group.followers[event.node] = None
        self._places.add(event.group, event.node)
        return [group_state.told(event.node, group)]

    def _moved(self, group: Group) -> list[ev.GroupCommand]:
        """Bundles have a place now that had none, or have lost it."""
        return [group_state.told(node, group) for node in group.followers]

    def homes(self) -> list[str]:
        """The nodes that have bundles which may be used."""
        return sorted({node for group in self.groups.values() for node in group.nodes.values()})

    def has_unplaced(self) -> bool:
        """Whether any waits for nodes."""
        return bool(self._unplaced)

    def listed(self, group: str = "") -> list[group_state.Listed]:
        """This group if it is known; for "" all, the removed ones that are remembered last."""
        if group:
            found = self.groups.get(group) or self._removed.get(group)
            return [group_state.listed(found)] if found is not None else []
        return [group_state.listed(one) for known in (self.groups, self._removed) for one in known.values()]

    # ---- time ----

    def next_tick_s(self) -> float | None:
        """When `Ticked` is due next, or None while nothing depends on time."""
        self._date()
        return self._due.first_s()

    def _date(self) -> None:
        undated, self._undated = self._undated, {}
        for group_id in undated:
            group = self._unplaced.get(group_id)
            self._due.set(group_id, self._due_s(group) if group is not None else None)

    def _due_s(self, group: Group) -> float | None:
        due = [group.retry_s, group.attempt.until_s if group.attempt is not None else None]
        if group.infeasible_since_s is not None:
            if not group.is_warned_of:
                due.append(group.infeasible_since_s + INFEASIBLE_WARNING_S)
            if self._infeasible_timeout_s is not None:
                due.append(group.infeasible_since_s + self._infeasible_timeout_s)
        return min((at_s for at_s in due if at_s is not None), default=None)

    def _on_ticked(self, event: ev.Ticked) -> list[ev.GroupCommand]:
        at_s = event.at_s
        commands: list[ev.GroupCommand] = []
        self._date()
        for group in sorted([self._unplaced[one] for one in self._due.due(at_s)], key=lambda one: one.number):
            self._undated[group.spec.group] = None
            attempt = group.attempt
            if attempt is not None and attempt.until_s is not None and attempt.until_s <= at_s:
                commands += self._look_elsewhere(group, attempt, at_s)
            if group.retry_s is not None and group.retry_s <= at_s:
                commands += self._attempt(group, at_s)
            if group.infeasible_since_s is not None:
                commands += self._look_at_infeasible(group, group.infeasible_since_s, at_s)
        return commands

    def _look_elsewhere(self, group: Group, attempt: Attempt, at_s: float) -> list[ev.GroupCommand]:
        """Nodes have not had room for long. One alone keeps its place in the queue there, unless another has room now."""
        moved = self._move(group, attempt, at_s)
        if moved:
            return moved
        if len(set(attempt.nodes.values())) == 1:
            attempt.until_s = at_s + RESERVE_WAIT_S
            return []
        slow = ", ".join(node[:8] for node, _ in attempt.waits_for)
        commands = self._give_up(group)
        group.reason = f"waits for its nodes to have room at the same time; {slow} had none for {RESERVE_WAIT_S:g} s"
        group.retry_s = at_s + RESERVE_RETRY_S
        return commands

    def _look_at_infeasible(self, group: Group, since_s: float, at_s: float) -> list[ev.GroupCommand]:
        limit_s = self._infeasible_timeout_s
        if limit_s is not None and since_s + limit_s <= at_s:
            reason = f"{group.reason} (it has waited for {limit_s:g} s, which is infeasible_timeout_s)"
            reason += self._launches(group.spec.group)
            return self._remove(group, reason, Cause.UNSCHEDULABLE)
        if not group.is_warned_of and since_s + INFEASIBLE_WARNING_S <= at_s:
            group.is_warned_of = True
            text = f"{group_state.subject(group.spec)} cannot be placed and waits: {group.reason}"
            return [ev.Warn(text + self._launches(group.spec.group))]
        return []

    # ---- invariants ----

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        nodes = {*self.nodes, *self._awaited}
        for group_id, group in self.groups.items():
            spec = group.spec
            is_created = group.state is GroupState.CREATED
            if group.state is GroupState.REMOVED:
                raise checks.broken("a removed group among the living", group=group_id)
            if group_id in self._removed:
                raise checks.broken("a living group among the removed", group=group_id)
            group_state.check(group, nodes)
            for process in (spec.owner, *group.watchers):
                # The owner of what is detached may have gone.
                if not spec.is_detached and (group_id, process) not in self._concerned:
                    raise checks.broken("an end is not heard that concerns a group", group=group_id, process=process)
            if group.creator and (group_id, group.creator) not in self._concerned:
                raise checks.broken("an end is not heard that concerns a group", group=group_id, process=group.creator)
            if spec.name:
                holder = self._names.get((spec.namespace, spec.name))
                checks.invariant(holder == group_id, "a group lost its name", group=group_id, name=spec.name)
            if (self._unplaced.get(group_id) is group) == is_created:
                raise checks.broken("not looked after", group=group_id)
        for group_id in self._unplaced:
            checks.invariant(group_id in self.groups, "looked after in vain", group=group_id)
        for (namespace, name), group_id in self._names.items():
            checks.invariant(group_id in self.groups, "a name of no group", name=name, namespace=namespace)
        for group_id, group in self._removed.items():  # which are many
            if group.state is not GroupState.REMOVED:
                raise checks.broken("a living group among the removed", group=group_id)
            if group.watchers or group.followers or group.creator or group.attempt is not None:
                raise checks.broken("attended to in vain", group=group_id)
        for group_id, process in self._concerned:
            if group_id not in self.groups:
                raise checks.broken("a process is to do with a group that is gone", process=process)
        for node, group_id in self._room.asked():
            attempt = self.groups[group_id].attempt if group_id in self.groups else None
            waits_for = () if attempt is None or attempt.is_committing else attempt.waits_for
            is_asked = any(one == node for one, _ in waits_for)
            checks.invariant(is_asked, "counted as asked for in vain", group=group_id, node=node)
        self._room.check()
        checks.invariant(len(self._removed) <= REMOVED_KEPT_MAX, "too many are remembered", count=len(self._removed))
        self._date()
        due = {one: self._due_s(group) for one, group in self._unplaced.items()}
        due_s = {one: at_s for one, at_s in due.items() if at_s is not None}
        checks.invariant(due_s == self._due.as_dict(), "a group is looked at too late, or in vain", due=due_s)
        places = {(one, node) for one, group in self.groups.items() for node in group_state.nodes_of(group)}
        checks.invariant(places == set(self._places), "the end of a node is not heard, or in vain")


def _in_all(view: placement.NodeView | None) -> object:
    """What decides whether it could ever hold something."""
    return None if view is None else (view.total, view.labels, view.is_alive)
