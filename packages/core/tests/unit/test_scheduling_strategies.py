"""umbel.util.scheduling_strategies: values and their checks."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from umbel.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

NODE = "ab" * 16


def test_strategies_compare_print_and_pickle_by_value() -> None:
    for make in (
        lambda: NodeAffinitySchedulingStrategy(NODE, soft=True, _spill_on_unavailable=True),
        lambda: NodeLabelSchedulingStrategy({"zone": In("a", "b")}, soft={"disk": Exists(), "old": DoesNotExist()}),
        lambda: PlacementGroupSchedulingStrategy(None, placement_group_bundle_index=2),
        lambda: NotIn("a"),
    ):
        strategy = make()
        assert strategy == make()
        assert hash(strategy) == hash(make())
        assert pickle.loads(pickle.dumps(strategy)) == strategy
        assert type(strategy).__name__ in repr(strategy)
    assert In("a") != NotIn("a")


@pytest.mark.parametrize("name", ["soft", "_spill_on_unavailable", "_fail_on_unavailable"])
def test_flags_of_an_affinity_are_true_or_false(name: str) -> None:
    given = {"soft": True, name: "x"}
    with pytest.raises(TypeError, match=f"^{name} must be True or False, got 'x'; "):
        NodeAffinitySchedulingStrategy(NODE, **given)  # type: ignore[arg-type]  # on purpose


def test_a_node_id_object_is_accepted() -> None:
    class NodeID:
        def hex(self) -> str:
            return NODE

    assert NodeAffinitySchedulingStrategy(NodeID(), soft=False).node_id == NODE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NodeAffinitySchedulingStrategy("zz", soft=False), "node's id in hex, got 'zz'"),
        (lambda: NodeAffinitySchedulingStrategy("", soft=False), "node's id in hex, got ''"),
        (lambda: NodeAffinitySchedulingStrategy(1, soft=False), "node's id in hex, got 1"),  # type: ignore[arg-type]
        (lambda: NodeAffinitySchedulingStrategy(NODE, soft=False, _spill_on_unavailable=True), "needs soft=True"),
        (lambda: NodeAffinitySchedulingStrategy(NODE, soft=True, _fail_on_unavailable=True), "needs soft=False"),
        (lambda: In(), "In needs at least one value"),
        (lambda: NotIn(1), "values of NotIn must be str, got 1"),  # type: ignore[arg-type]
        (lambda: NodeLabelSchedulingStrategy(None), "both empty"),
        (lambda: NodeLabelSchedulingStrategy({}, soft={}), "both empty"),
        (lambda: NodeLabelSchedulingStrategy({"zone": "a"}), "must be In"),  # type: ignore[dict-item]
        (lambda: NodeLabelSchedulingStrategy({1: In("a")}), "labels of hard must be str, got 1"),  # type: ignore[dict-item]
        (lambda: NodeLabelSchedulingStrategy({}, soft=[1]), "soft must map labels"),  # type: ignore[arg-type]
    ],
)
def test_bad_values_are_named(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
