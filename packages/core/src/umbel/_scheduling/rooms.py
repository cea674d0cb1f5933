"""What room nodes have left, as far as it is known here: what each has said last of itself, less as much of what it is asked for
as fits into that.

What is asked for is taken in order. A node is looked at when somebody wants to know of it, and again after `changed`. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Protocol

from umbel._base import checks
from umbel._model import placement, resources
from umbel._scheduling import kept_view


class Asker(Protocol):
    """Who asks nodes for something. on: how often it asks which node for `resources`. order: the smallest goes first."""

    on: dict[str, int]

    @property
    def resources(self) -> resources.ResourceSet: ...

    @property
    def order(self) -> tuple[int, int]: ...


class Rooms:
    """Of all nodes."""

    def __init__(self, nodes: Mapping[str, placement.NodeView], asking: Mapping[str, Collection[Asker]]) -> None:
        """nodes: as they have said last. asking: by node, who asks it for something. Both change, of which `changed` tells."""
        self._nodes = nodes
        self._asking = asking
        # Nodes with what they have left, and how much of what each asks for fits; where nothing has changed since.
        self._left: dict[str, tuple[placement.NodeView, dict[Asker, int]]] = {}
        self._view = kept_view.KeptView()  # the same nodes, but for those that have changed since it was asked for
        self._moved = dict.fromkeys(nodes)  # those

    def changed(self, node: str) -> None:
        """It is there, or gone, or has said something else, or is asked for something else."""
        self._left.pop(node, None)
        self._moved[node] = None

    def view(self) -> kept_view.KeptView:
        """The nodes as they will be once they have granted what they can."""
        for node in self._moved:
            if node in self._nodes:
                self._view.put(self._standing(node)[0])
                self._view.changed(node)  # how much is asked of it has
            else:
                self._view.remove(node)
        self._moved.clear()
        return self._view

    def has_any_for(self, needs: resources.ResourceSet) -> bool:
        """Whether some node has room, whatever else is asked for."""
        return bool(self.view().ranked(needs, lambda node: node.node_id if needs.fits_in(node.available) else None))

    def fitting(self, asker: Asker, node: str) -> int:
        """How much of what a node is asked for it has room for."""
        return self._standing(node)[1].get(asker, 0) if node in self._nodes else 0

    def _standing(self, node: str) -> tuple[placement.NodeView, dict[Asker, int]]:
        found = self._left.get(node)
        if found is None:
            view, fitting = self._nodes[node], dict[Asker, int]()
            asking = self._asking.get(node)
            if asking:
                left = dict(view.available)
                for asker in sorted(asking, key=lambda one: one.order):
                    fitting[asker] = _take(left, asker.resources, asker.on[node])
                view = replace(view, available=resources.ResourceSet(left))
            found = self._left[node] = (view, fitting)
        return found

    def check(self) -> None:
        """For tests and the simulator. Raises InternalError unless each node is viewed as it is."""
        viewed = {node.node_id: node for node in self.view().nodes}
        if viewed != {node: self._standing(node)[0] for node in self._nodes}:
            raise checks.broken("what room nodes have left is old")


def _take(left: dict[str, int], wanted: resources.ResourceSet, count: int) -> int:
    """As often as there is enough; returns how often that is, up to `count`."""
    fitting = min([count, *(left.get(name, 0) // amount for name, amount in wanted.items())])
    for name, amount in wanted.items():
        left[name] = left.get(name, 0) - fitting * amount
    return fitting
