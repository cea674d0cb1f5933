"""Leases for tasks in placement groups: they are asked for on the nodes of the group's bundles alone.

The head is asked once where those are, and says so again whenever one moves (`group_places`). While none of them has a place
nobody is asked, and what is wanted is only held. Made, and loaded, once there is another node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import lease_views
from umbel._agent.ledger import UNIT
from umbel._model import reasons
from umbel._scheduling import forwarding

if TYPE_CHECKING:
    from umbel._agent import lease_links
    from umbel._agent.control import Control
    from umbel._agent.lease_service import LeaseService
    from umbel._agent.state import AgentState
    from umbel._scheduling import group_places

Message = dict[str, Any]
Place = tuple[str, str]  # (client, key) of a wish


class Daemon(Protocol):
    """What is needed of the daemon that this is in."""

    agent: AgentState
    control: Control
    leases: LeaseService

    def now_s(self) -> float: ...


class Sharing(Protocol):
    """Whose wishes they are."""

    wishes: dict[Place, Message]  # of processes of this node, as said last
    forwarding: forwarding.Forwarding

    def tell(self, *events: Any) -> None:
        """The machine that forwards."""

    def forget_wish(self, place: Place) -> Message | None: ...

    def living(self) -> set[str]:
        """The nodes of which something may be asked, this one among them."""

    def see_room(self, nodes: Iterable[str]) -> None:
        """What there is room for on these nodes is to be looked at anew."""

    def lessees(self) -> set[lease_links.Lessee]:
        """That have processes that wanted leases here."""


class LeaseGroups:
    def __init__(self, daemon: Daemon, sharing: Sharing, node: str) -> None:
        self.held: dict[Place, None] = {}  # wishes of which nobody is asked
        self.are_wanted = False  # whether any process, here or elsewhere, has wanted some of this node's bundles
        self._daemon = daemon
        self._sharing = sharing
        self._node = node
        self._places: group_places.GroupPlaces | None = None  # once tasks of a group are wanted
        self._kinds: dict[Place, group_places.Kind] = {}  # of wishes in groups, maybe of some that are over
        self._free: dict[tuple[str, int], Message] = {}  # in bundles here, as last said to anybody

    # ---- wishes ----

    def wish(self, place: Place, message: Message) -> None:
        from umbel._scheduling import group_places

        self._places = self._places or group_places.GroupPlaces()
        self.are_wanted = True
        kind = group_places.of_strategy(message["strategy"], message["resources"])
        self._kinds[place] = kind
        self.held[place] = None
        if self._places.begins(kind.group):
            self._daemon.control.follow_group(kind.group)  # on the head, that is answered before this returns
        if place in self.held:
            self._ask(place)

    def ask_held(self) -> None:
        """There is another node: the head may have said sooner that a bundle is there."""
        for place in [*self.held]:
            if place in self.held:
                self._ask(place)

    def _ask(self, place: Place) -> None:
        """Of the nodes that have a place for it; or it fails, or is held."""
        sharing, places = self._sharing, self._places
        message, kind = sharing.wishes.get(place), self._kinds[place]
        if message is None or places is None:
            return
        trouble = places.trouble(kind)
        if places.groups[kind.group].is_gone:
            self._fail(place, places.groups[kind.group].reason)
        elif trouble:
            sharing.forget_wish(place)
            self._tell_none(place)
            self._daemon.leases.tell_failed(*place, trouble, is_unschedulable=True)
        else:
            living = sharing.living()
            homes = [node for node in places.homes(kind) if node in living]
            if homes:
                sharing.see_room(homes)
                self.held.pop(place, None)
                told = {**message, "resources": {kind.name: UNIT}, "strategy": None}
                demands = lease_views.demands_of(told, is_in_bundle=True)
                sharing.tell(forwarding.WishChanged(*place, demands, message["count"], self._daemon.now_s()))

    def _tell_none(self, place: Place) -> None:
        """Nobody is to be asked for it."""
        self._sharing.tell(forwarding.WishChanged(*place, (), 0, self._daemon.now_s()))

    def _hold(self, place: Place) -> None:
        """Nobody has a place for it any more."""
        wish = self._sharing.forwarding.wishes.get(place)
        if wish is not None:
            self._sharing.wishes[place] = {**self._sharing.wishes[place], "count": wish.count}
            self.held[place] = None
            self._tell_none(place)

    def _fail(self, place: Place, reason: str) -> None:
        text = f"the placement group {self._kinds[place].group} that it was to run in is gone: {reason}"
        self._sharing.forget_wish(place)
        self._tell_none(place)
        self._daemon.leases.tell_failed(*place, text, is_group_gone=True)

    def client_gone(self, client: str) -> None:
        books: tuple[dict[Place, Any], ...] = (self.held, self._kinds)
        for known in books:
            for place in [place for place in known if place[0] == client]:
                del known[place]

    def waiting(self) -> Iterator[tuple[Place, reasons.Reason]]:
        """What is held, and why."""
        for place in self.held:
            kind = self._kinds[place]
            text = self._places.reason(kind) if self._places is not None else ""
            waits_for = self._daemon.control.waits_for()
            text = f"{text} ({waits_for})" if waits_for else text
            facts: dict[str, object] = {"group": kind.group, "bundle": kind.bundle}
            yield place, reasons.Reason(reasons.GROUP, "its placement group", text, facts=facts)

    # ---- where bundles are ----

    def on_group(self, message: Message) -> None:
        """The head says where the bundles of a group are now: "group_places"."""
        places, group, is_gone = self._places, message["group"], message["is_gone"]
        if places is None:
            return
        before = places.groups.get(group)
        homes = set(before.nodes) if before is not None else set()
        if not places.told(group, message["nodes"], message["bundles"], message["reason"], is_gone=is_gone):
            return
        self._moved([group], {*homes, *message["nodes"]})
        if is_gone:
            places.forget(group)

    def node_lost(self, node: str) -> None:
        if self._places is not None:
            self._moved(self._places.node_lost(node), ())

    def _moved(self, moved: Sequence[str], nodes: Iterable[str]) -> None:
        places = self._places
        if places is None:
            return
        live = [place for place, kind in self._live_kinds().items() if kind.group in moved]
        for place in live:
            if place not in self.held and not places.homes(self._kinds[place]):
                self._hold(place)
        self._sharing.see_room(nodes)
        for place in live:
            if place in self.held:
                self._ask(place)

    def _live_kinds(self) -> dict[Place, group_places.Kind]:
        """Of the wishes that there are; all others are forgotten."""
        wishes = self._sharing.forwarding.wishes
        for place in [one for one in self._kinds if one not in self.held and one not in wishes]:
            del self._kinds[place]
        return self._kinds

    # ---- what there is room for in them ----

    def has_changed(self) -> bool:
        """Whether something else is free in this node's bundles than was said last."""
        return self.are_wanted and self._own() != self._free

    def see_own(self) -> None:
        if self.are_wanted:
            self._free = self._own()
            self.room_told(self._node, self._free)

    def room_told(self, node: str, free: Mapping[tuple[str, int], Message]) -> None:
        """So much is free in bundles on that node."""
        if self._places is not None:
            self._places.room_told(node, free)

    def _own(self) -> dict[tuple[str, int], Message]:
        """What is free in the bundles that lie here of groups that concern anybody."""
        held = self._daemon.agent.bundles.held
        concerned = {kind.group for kind in self._kinds.values()}
        for lessee in self._sharing.lessees():
            concerned |= lessee.groups
        return {
            (group, index): lease_views.positive(bundle.ledger.free)
            for group in concerned
            for index, bundle in held.get(group, {}).items()
        }

    def told_to(self, lessee: lease_links.Lessee) -> Message:
        """The same, for another node: by group, and by index as text."""
        found: dict[str, Message] = {}
        for group in [*lessee.groups]:
            held = self._daemon.agent.bundles.held.get(group)
            if held is None:
                lessee.groups.discard(group)  # it has gone from here
                continue
            found[group] = {str(index): lease_views.positive(bundle.ledger.free) for index, bundle in held.items()}
        return found

    def view_of(
        self, node: str, facts: Message, free: Mapping[str, int], *, is_local: bool, is_away: bool = False
    ) -> Any:
        """A node, with what there is room for in bundles there."""
        if self._places is not None and self._kinds:
            total, left = self._places.as_resources(node, set(self._live_kinds().values()))
            facts = {**facts, "resources": {**facts["resources"], **total}}
            free = {} if is_away else {**free, **left}
        return lease_views.view_of(node, facts, free, is_local=is_local)
