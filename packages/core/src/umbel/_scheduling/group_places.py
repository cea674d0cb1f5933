"""Where the bundles of placement groups are that processes of this node want to run tasks in, and what fits into them there.

The head says where a group's bundles are, and says it again whenever one moves; each node says what is free in the bundles
that it holds. To `forwarding`, a bundle's room is a resource of its node: for each kind of task, how many fit there at once. So
tasks of a group are asked for, queued and moved as all others are, among the nodes of their bundles. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from umbel._model import resources

UNIT: Final = 10_000
COUNT_MAX: Final = 1_000  # of tasks at once in a bundle of which they need nothing

Amounts = Mapping[str, int]


class Kind(NamedTuple):
    """Tasks that need the same of one bundle of a group, or of any for -1."""

    group: str
    bundle: int
    needs: resources.ResourceSet

    @property
    def name(self) -> str:
        """Of their resource."""
        needs = ", ".join(f"{name}: {amount:g}" for name, amount in self.needs.to_floats().items())
        where = f"bundle {self.bundle}" if self.bundle >= 0 else "a bundle"
        return f"room for {{{needs}}} in {where} of placement group {self.group}"


class Places:
    """One group's. nodes: of each bundle, "" for none; is_known: whether the head has said anything."""

    __slots__ = ("bundles", "is_gone", "is_known", "nodes", "reason")

    def __init__(self) -> None:
        self.is_known = self.is_gone = False
        self.nodes: list[str] = []
        self.bundles: Sequence[Amounts] = ()
        self.reason = ""


class GroupPlaces:
    """Of all groups that are followed here."""

    def __init__(self) -> None:
        self.groups: dict[str, Places] = {}
        self._free: dict[str, dict[tuple[str, int], Amounts]] = {}  # by node, group and bundle, as it has said last

    def begins(self, group: str) -> bool:
        """The group is wanted. Whether the head has to be asked for it."""
        if group in self.groups:
            return False
        self.groups[group] = Places()
        return True

    def told(self, group: str, nodes: Sequence[str], bundles: Sequence[Amounts], reason: str, *, is_gone: bool) -> bool:
        """By the head. Whether it is of a group that is followed."""
        places = self.groups.get(group)
        if places is None:
            return False
        places.is_known, places.is_gone = True, is_gone
        places.nodes, places.bundles, places.reason = list(nodes), bundles, reason
        return True

    def forget(self, group: str) -> None:
        """It is gone, and whoever wanted it has been told."""
        self.groups.pop(group, None)
        for of_node in self._free.values():
            for place in [place for place in of_node if place[0] == group]:
                del of_node[place]

    def room_told(self, node: str, free: Mapping[tuple[str, int], Amounts]) -> None:
        """By a node: what is free in all bundles that concern this one."""
        self._free[node] = dict(free)

    def node_lost(self, node: str) -> list[str]:
        """The node is dead, of which the head will say the same. Returns the groups that had bundles there."""
        self._free.pop(node, None)
        hit = [group for group, places in self.groups.items() if node in places.nodes]
        for group in hit:
            self.groups[group].nodes = ["" if home == node else home for home in self.groups[group].nodes]
        return hit

    def homes(self, kind: Kind) -> list[str]:
        """The nodes with bundles of which tasks of this kind could run in one."""
        places = self.groups.get(kind.group)
        if places is None or places.is_gone:
            return []
        found = (places.nodes[index] for index in self._suitable(kind, places))
        return list(dict.fromkeys(node for node in found if node))

    def trouble(self, kind: Kind) -> str:
        """Why tasks of this kind can never run, wherever the bundles are or will be; "" if they may."""
        places = self.groups.get(kind.group)
        if places is None or not places.is_known or places.is_gone:
            return ""
        if not self._suitable(kind, places):
            return f"no bundle of placement group {kind.group} that it may run in has {kind.needs.to_floats()} in all"
        return ""

    @staticmethod
    def _suitable(kind: Kind, places: Places) -> list[int]:
        indices = range(len(places.bundles)) if kind.bundle < 0 else [kind.bundle]
        return [index for index in indices if index < len(places.bundles) and _count(places.bundles[index], kind.needs)]

    def reason(self, kind: Kind) -> str:
        """Why nobody is asked for leases of this kind now, as the rest of a sentence about its placement group."""
        places = self.groups.get(kind.group)
        if places is None or not places.is_known:
            return "is being asked for at the head"
        lost = [index for index in self._suitable(kind, places) if not places.nodes[index]]
        which = ", ".join(map(str, lost))
        return f"has no place for {'bundle' if len(lost) == 1 else 'bundles'} {which}: {places.reason or 'its node is dead'}"

    def as_resources(self, node: str, kinds: Iterable[Kind]) -> tuple[dict[str, int], dict[str, int]]:
        """What the node's bundles have for these kinds in all, and free, in units."""
        total: dict[str, int] = {}
        free: dict[str, int] = {}
        told = self._free.get(node, {})
        for kind in kinds:
            places = self.groups.get(kind.group)
            if places is None:
                continue
            for index in self._suitable(kind, places):
                if places.nodes[index] != node:
                    continue
                bundle, name = places.bundles[index], kind.name
                total[name] = total.get(name, 0) + UNIT * _count(bundle, kind.needs)
                left = told.get((kind.group, index), bundle)
                free[name] = free.get(name, 0) + UNIT * _count(left, kind.needs)
        return total, free


def _count(room: Amounts, needs: resources.ResourceSet) -> int:
    """How often it fits."""
    return max(0, min((room.get(name, 0) // amount for name, amount in needs.items()), default=COUNT_MAX))


def of_strategy(strategy: Any, needs: Amounts) -> Kind:
    """strategy: as a process says it, of a group."""
    return Kind(strategy["placement_group"], strategy.get("bundle_index", -1), resources.ResourceSet(needs))
