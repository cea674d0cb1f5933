"""A view of all nodes that is kept as they change, for decisions that must not look at each node.

What is asked for is an order of the nodes (`ranked`), which is remembered by its key. A node that changes is put into its new
place in an order when somebody next asks for that: so each change costs a search in the orders that are in use, and a decision
no look at any other node. Pure.
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, overload

from umbel._base import checks
from umbel._model import placement

RANKINGS_MAX: Final = 64  # as many as there are shapes of what is placed at a time; those of others are made anew
REBUILT_SHARE: Final = 4  # where more than a fourth of all nodes have changed, sorting them is quicker

NodeView = placement.NodeView


class KeptView(placement.ClusterView):
    """Not frozen, other than what it stands for: whoever keeps it asks and changes in turn."""

    def __init__(self, nodes: Iterable[NodeView] = ()) -> None:
        self._known: dict[str, NodeView] = {node.node_id: node for node in nodes}
        self._rankings: dict[Hashable, _Ranking] = {}  # the one used last comes last
        self._all: tuple[NodeView, ...] | None = None
        self.version = 0  # which each change makes another

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        if self._all is None:
            self._all = tuple(self._known.values())
        return self._all

    def __len__(self) -> int:
        return len(self._known)

    def find(self, node_id: str) -> NodeView | None:
        return self._known.get(node_id)

    def put(self, node: NodeView) -> None:
        """The node is so from now on."""
        if self._known.get(node.node_id) != node:
            self._known[node.node_id] = node
            self.changed(node.node_id)

    def remove(self, node_id: str) -> None:
        if self._known.pop(node_id, None) is not None:
            self.changed(node_id)

    def changed(self, node_id: str) -> None:
        """Something of the node has that a rank depends on."""
        self._all = None
        self.version += 1
        for ranking in self._rankings.values():
            ranking.stale[node_id] = None

    def ranked(self, key: Hashable, rank: placement.Rank) -> Sequence[NodeView]:
        """To be used before anything changes. rank: may depend on other things than the node, of which `changed` tells."""
        return self.ranking(key, rank)

    def ranking(self, key: Hashable, rank: placement.Rank) -> _Ranking:
        found = self._rankings.pop(key, None)
        if found is None:
            if len(self._rankings) >= RANKINGS_MAX:
                del self._rankings[next(iter(self._rankings))]
            found = _Ranking(rank, self._known)
        self._rankings[key] = found
        found.catch_up()
        return found

    def without(self, node_id: str) -> placement.ClusterView:
        """All but this node, until the view changes."""
        return _Without(self, node_id)

    def check(self) -> None:
        """Raises InternalError unless each order is that of a snapshot; for tests and the simulator."""
        for ranking in self._rankings.values():
            ranking.catch_up()
            ranking.check()


class _Ranking(Sequence[NodeView]):
    """One order. stale: nodes that may have another place now, or none."""

    def __init__(self, rank: placement.Rank, known: dict[str, NodeView]) -> None:
        self._rank = rank
        self._known = known
        self._places: dict[str, Any] = {}
        self._order: list[tuple[Any, str]] = []
        self.stale: dict[str, None] = dict.fromkeys(known)

    def catch_up(self) -> None:
        stale = self.stale
        if len(stale) * REBUILT_SHARE > len(self._known):
            self._places = {
                node_id: place for node_id, node in self._known.items() if (place := self._rank(node)) is not None
            }
            self._order = sorted((place, node_id) for node_id, place in self._places.items())
        else:
            for node_id in stale:
                self._place(node_id)
        stale.clear()

    def _place(self, node_id: str) -> None:
        node = self._known.get(node_id)
        place, before = None if node is None else self._rank(node), self._places.get(node_id)
        if place == before:
            return
        if before is not None:
            del self._order[bisect.bisect_left(self._order, (before, node_id))]
        if place is None:
            del self._places[node_id]
        else:
            self._places[node_id] = place
            bisect.insort(self._order, (place, node_id))

    def position(self, node_id: str) -> int | None:
        place = self._places.get(node_id)
        return None if place is None else bisect.bisect_left(self._order, (place, node_id))

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> NodeView: ...
    @overload
    def __getitem__(self, index: slice) -> list[NodeView]: ...
    def __getitem__(self, index: int | slice) -> NodeView | list[NodeView]:
        if isinstance(index, slice):
            return [self._known[node_id] for _, node_id in self._order[index]]
        return self._known[self._order[index][1]]

    def check(self) -> None:
        expected = placement.ClusterView(tuple(self._known.values())).ranked(None, self._rank)
        checks.invariant([*self] == expected, "an order of nodes is not kept", kept=len(self), expected=len(expected))


class _Without(placement.ClusterView):
    def __init__(self, view: KeptView, node_id: str) -> None:
        self._view = view
        self._left_out = node_id

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        return tuple(node for node in self._view.nodes if node.node_id != self._left_out)

    def find(self, node_id: str) -> NodeView | None:
        return None if node_id == self._left_out else self._view.find(node_id)

    def ranked(self, key: Hashable, rank: placement.Rank) -> Sequence[NodeView]:
        found = self._view.ranking(key, rank)
        position = found.position(self._left_out)
        return found if position is None else _Shorter(found, position)


class _Shorter(Sequence[NodeView]):
    """A sequence without what is at one place of it."""

    def __init__(self, whole: _Ranking, left_out: int) -> None:
        self._whole = whole
        self._left_out = left_out

    def __len__(self) -> int:
        return len(self._whole) - 1

    @overload
    def __getitem__(self, index: int) -> NodeView: ...
    @overload
    def __getitem__(self, index: slice) -> list[NodeView]: ...
    def __getitem__(self, index: int | slice) -> NodeView | list[NodeView]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._whole[index if index < self._left_out else index + 1]
