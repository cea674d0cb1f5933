"""Plans in which equal nodes are counted are those in which each is looked at by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel._autoscaling import demand, packing, planning
from umbel._autoscaling.node_types import NodeType, Settings
from umbel._model import resources
from umbel._scheduling import bundles


class Plain(packing.Packer):
    """Each node by itself."""

    def __init__(self, rooms: Iterable[packing.Room], offers: packing.Offers, *, serves_most: bool = False) -> None:
        super().__init__([one for room in rooms for one in _each(room)], offers, serves_most=serves_most)
        self._launched: dict[packing.Room, list[packing.Room]] = {}

    def launch(self, offer: packing.Offer, cause: str, count: int) -> packing.Room:
        first = len(self._rows)
        for _ in range(count):
            super().launch(offer, cause, 1)
        found = packing.Room("", offer.name, offer.resources, offer.labels, count=count, is_new=True)
        self._launched[found] = self._rows[first:]
        return found

    def _take(self, room: packing.Room, shape: demand.Shape, times: int, cause: str) -> None:
        for one in self._launched.get(room, [room]):
            super()._take(one, shape, times, cause)


def _each(room: packing.Room) -> list[packing.Room]:
    return [
        packing.Room(f"{room.name}.{number}" if room.count > 1 else room.name, room.type_name, room.whole, room.labels, room.left)
        for number in range(room.count)
    ]  # fmt: skip


def amounts(cpus: int, gpus: int = 0) -> resources.ResourceSet:
    return resources.ResourceSet({name: count for name, count in (("CPU", cpus), ("GPU", gpus)) if count})


ZONES = st.sampled_from(({}, {"zone": "a"}, {"zone": "b"}))
AMOUNTS = st.builds(amounts, st.integers(0, 5), st.sampled_from((0, 0, 1, 2)))
SELECTORS = st.sampled_from(((), ((("zone", "a"),),), ((("zone", "b"),), (("zone", "a"),))))
SHAPES = st.builds(demand.Shape, AMOUNTS, st.sampled_from((1, 2, 3, 7, 40, 200)), SELECTORS)
GROUPS = st.builds(
    lambda name, bundles, strategy: demand.Group(name, tuple(bundles), strategy),
    st.sampled_from("wxyz"), st.lists(AMOUNTS, min_size=1, max_size=5), st.sampled_from(bundles.STRATEGIES),
)  # fmt: skip


@st.composite
def situations(draw: Any) -> planning.Situation:
    types = tuple(
        NodeType(
            f"t{number}", amounts(draw(st.integers(1, 9)), draw(st.sampled_from((0, 0, 2)))), labels=draw(ZONES),
            min_workers=least, max_workers=least + draw(st.integers(0, 60)),
        )
        for number in range(draw(st.integers(1, 3)))
        for least in [draw(st.integers(0, 3))]
    )  # fmt: skip
    nodes = []
    for number in range(draw(st.integers(0, 4))):
        node = planning.Node(f"n{number}", draw(st.sampled_from(("", *(one.name for one in types)))), "because", 0.0)
        node.state = draw(st.sampled_from((planning.NodeState.ALIVE, planning.NodeState.LAUNCHING)))
        node.total = amounts(draw(st.integers(1, 9)), draw(st.sampled_from((0, 2))))
        node.available = draw(st.sampled_from((node.total, amounts(1), resources.EMPTY)))
        node.labels = draw(ZONES)
        node.idle_since_s = draw(st.sampled_from((None, 1.0)))
        node.is_early = draw(st.booleans())
        nodes.append(node)
    outstanding = [
        planning.Outstanding(draw(st.sampled_from(types)).name, draw(st.integers(1, 20)), "because", 0.0)
        for _ in range(draw(st.integers(0, 2)))
    ]
    made = Settings(types, draw(st.sampled_from((5, 60, 1_000))), upscaling_speed=draw(st.sampled_from((0.5, 100.0))))
    shapes, groups, standing = (draw(st.lists(one, max_size=4)) for one in (SHAPES, GROUPS, SHAPES))
    asked = tuple(shapes), tuple({one.group: one for one in groups}.values()), tuple(standing)
    return planning.Situation(made, nodes, outstanding, (), {}, {}, *asked, 100.0)


@given(situations())
@settings(max_examples=200, deadline=None, database=None, derandomize=True)
def test_a_plan_is_that_in_which_each_node_is_looked_at_by_itself(now: planning.Situation) -> None:
    found = planning.plan(now)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing, "Packer", Plain)
        assert planning.plan(now) == found
