"""What nodes have left for placement groups, as the head sees it.

What was asked of a node, and has no answer yet, is taken from what the node has said last: others are not sent where one was.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from umbel._base import checks
from umbel._model import placement, resources
from umbel._scheduling import bundles, kept_view


class GroupRoom:
    """All nodes that have been seen. nodes: as they have been. own: the local one, "" for none."""

    def __init__(self) -> None:
        self.nodes: dict[str, placement.NodeView] = {}
        self.own = ""
        self._asked: dict[str, dict[str, resources.ResourceSet]] = {}  # by node and group, until it has answered
        self._asked_in_all: dict[str, resources.ResourceSet] = {}  # of the same nodes
        self._left = kept_view.KeptView()  # the nodes, less that
        self._crowded: dict[str, set[str]] = {}  # by node, those it has no room for; where nothing has changed since
        # Since somebody has looked last: whether a node has more left, and the groups of which another node may be better now.
        self.has_more = False
        self.concerned: dict[str, None] = {}
        self._found: dict[tuple[Any, ...], bundles.GroupPlacement] = {}  # by what is wanted, while nothing changes
        self._found_at = 0  # that view's version

    def place(self, demand: bundles.GroupDemand) -> bundles.GroupPlacement:
        """See `bundles.place`. Many groups may wait for the same; it is looked for once."""
        if self._found_at != self._left.version:
            self._found, self._found_at = {}, self._left.version
        placed, selectors = tuple(sorted(demand.placed.items())), repr(demand.label_selectors)
        wanted = (demand.bundles, demand.strategy, placed, selectors, demand.soft_target)
        if wanted not in self._found:
            self._found[wanted] = bundles.place(demand, self._left)
        return self._found[wanted]

    def see(self, view: placement.NodeView, taken: resources.ResourceSet = resources.EMPTY) -> None:
        """taken: so much less was to be expected."""
        node, before = view.node_id, self.nodes.get(view.node_id)
        if before is not None and node in self._asked:
            had, now = before.available, view.available
            if any(now.get(name, 0) + taken.get(name, 0) != had.get(name, 0) for name in {*had, *now}):
                self.concerned.update(dict.fromkeys(self._asked[node]))
        self.nodes[node] = view
        self.own = node if view.is_local else self.own
        self._look_at(node)

    def lose(self, node: str) -> None:
        self.nodes.pop(node, None)
        self._asked.pop(node, None)
        self._asked_in_all.pop(node, None)
        self._look_at(node)

    def ask(self, node: str, group: str, wanted: Iterable[resources.ResourceSet]) -> None:
        asked = self._asked.setdefault(node, {})[group] = _sum(wanted)
        self._asked_in_all[node] = self._asked_in_all.get(node, resources.EMPTY).add(asked)
        self._look_at(node, may_have_more=False)

    def answered(self, node: str, group: str) -> None:
        """The node need not any more."""
        self._take_back(node, group)
        # One that comes before others, and had no room, may have some now.
        self.concerned.update(dict.fromkeys(self._asked.get(node, ())))
        self._look_at(node)

    def reserved(self, node: str, group: str, view: placement.NodeView | None) -> None:
        """The node has what it was asked for. view: how it is now; None if it has not said so."""
        was_first = next(iter(self._asked.get(node, ())), group) == group
        taken = self._take_back(node, group)
        is_known = was_first and taken.fits_in(self.nodes[node].available)  # so others have no less than was thought
        self.see(view or _less(self.nodes[node], taken), taken if is_known else resources.EMPTY)

    def is_crowded(self, node: str, group: str) -> bool:
        """Whether it has no room for what it was asked for, after what it was asked before."""
        found = self._crowded.get(node)
        if found is None:
            found, left = set(), dict(self.nodes[node].available)
            for one, wanted in self._asked.get(node, {}).items():
                if not wanted.fits_in(left):
                    found.add(one)
                    continue
                for name, amount in wanted.items():
                    left[name] -= amount
            self._crowded[node] = found
        return group in found

    def _take_back(self, node: str, group: str) -> resources.ResourceSet:
        asked = self._asked.get(node, {})
        found = asked.pop(group, resources.EMPTY)
        if asked:
            self._asked_in_all[node] = self._asked_in_all[node].subtract(found)
        else:
            self._asked.pop(node, None)
            self._asked_in_all.pop(node, None)
        return found

    def _look_at(self, node: str, *, may_have_more: bool = True) -> None:
        self._crowded.pop(node, None)
        view, asked = self.nodes.get(node), self._asked_in_all.get(node)
        if view is None:
            self._left.remove(node)
        else:
            now = _less(view, asked) if asked else view
            if may_have_more and not self.has_more:
                before = self._left.find(node)
                had = before.available if before is not None else resources.EMPTY
                self.has_more = any(had.get(name, 0) < amount for name, amount in now.available.items())
            self._left.put(now)

    def asked(self) -> list[tuple[str, str]]:
        """Nodes that have not answered, with the groups."""
        return [(node, group) for node, groups in self._asked.items() for group in groups]

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        expected = {
            node: _less(view, _sum(self._asked[node].values())) if node in self._asked else view
            for node, view in self.nodes.items()
        }
        left = {one.node_id: one for one in self._left.nodes}
        checks.invariant(left == expected, "a node is seen as it was", nodes=sorted(left))


def _sum(amounts: Iterable[resources.ResourceSet]) -> resources.ResourceSet:
    total = resources.EMPTY
    for one in amounts:
        total = total.add(one)
    return total


def _less(view: placement.NodeView, wanted: resources.ResourceSet) -> placement.NodeView:
    """The node without what has been taken there."""
    left = dict(view.available)
    for name, amount in wanted.items():
        left[name] = max(0, left.get(name, 0) - amount)
    return replace(view, available=resources.ResourceSet(left))
