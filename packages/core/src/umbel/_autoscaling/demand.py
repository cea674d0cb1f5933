"""What waits for room: resources of tasks and actors, counted, and placement groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from umbel._model import node_labels, resources


class Shape(NamedTuple):
    """So many that need the same, each on one node. label_selectors: the best first; none for any node."""

    resources: resources.ResourceSet
    unit_count: int = 1
    label_selectors: tuple[node_labels.Selector, ...] = ()


class Group(NamedTuple):
    """The bundles of a placement group that have no node, which need one all at once.

    strategy: as in `umbel._scheduling.bundles`. label_selectors: one for each of them, or none at all. placed_on: the nodes of
    its other bundles.
    """

    group: str
    bundles: tuple[resources.ResourceSet, ...]
    strategy: str
    label_selectors: tuple[node_labels.Selector, ...] = ()
    placed_on: tuple[str, ...] = ()

    def shape(self, index: int) -> Shape:
        """Of one bundle."""
        selector = self.label_selectors[index] if self.label_selectors else ()
        return Shape(self.bundles[index], 1, (selector,) if selector else ())

    def as_one(self) -> Shape:
        """All of them together, on one node."""
        total = resources.EMPTY
        for bundle in self.bundles:
            total = total.add(bundle)
        selector = tuple(sorted({pair for one in self.label_selectors for pair in one}))
        return Shape(total, 1, (selector,) if selector else ())


def merged(shapes: Iterable[Shape]) -> list[Shape]:
    """Equal ones counted together, in the order of the first of each."""
    counts: dict[Shape, int] = {}
    for shape in shapes:
        key = shape._replace(unit_count=0)
        counts[key] = counts.get(key, 0) + shape.unit_count
    return [key._replace(unit_count=count) for key, count in counts.items() if count > 0]


def in_words(shape: Shape, count: int | None = None) -> str:
    """As `3 x {CPU: 4} with zone=a`. count: None for the shape's."""
    number = shape.unit_count if count is None else count
    what = amounts_in_words(shape.resources)
    wanted = f" with {node_labels.in_words(shape.label_selectors)}" if shape.label_selectors else ""
    return f"{f'{number} x ' if number != 1 else ''}{what}{wanted}"


def amounts_in_words(amounts: resources.ResourceSet) -> str:
    return "{" + ", ".join(f"{name}: {amount:g}" for name, amount in amounts.to_floats().items()) + "}"
