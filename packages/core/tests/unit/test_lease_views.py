"""What processes say of leases, as it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from umbel._agent import lease_views
from umbel._model import placement, resources
from umbel._scheduling import forwarding, policies

CPU = resources.ResourceSet({"CPU": 10_000})


def wish(*selector: Sequence[str]) -> dict[str, Any]:
    return {"resources": {"CPU": 10_000}, "strategy": None, "label_selectors": [list(map(list, selector))], "depth": 0}


@pytest.mark.parametrize("selector", [(("zone", "!a"), ("zone", "!b")), (("zone", "!b"), ("zone", "!a"))])
def test_all_conditions_on_one_label_count(selector: Any) -> None:
    """Before: of two, as a selector and a strategy may have them, the first was lost."""
    machine = forwarding.Forwarding("1", policies.HybridPolicy())
    for number, zone in enumerate("abc", 1):
        view = placement.NodeView(str(number), CPU, CPU, {"zone": zone}, is_local=number == 1)
        machine.apply(forwarding.NodeSeen(view, 0.0))
    (want,) = machine.apply(forwarding.WishChanged("p", "f", lease_views.demands_of(wish(*selector)), 1, 0.0))
    assert isinstance(want, forwarding.Want)
    assert want.node == "3"


def test_a_refusal_names_all_conditions() -> None:
    (demand,) = lease_views.demands_of(wish(("zone", "!a"), ("zone", "!b")))
    view = placement.ClusterView((placement.NodeView("1", CPU, CPU, {"zone": "b"}),))
    assert (
        "no node with the labels zone=!a and zone=!b is alive" in placement.eligible_nodes(demand, view).refusal.reason
    )


def test_what_policies_read_is_the_first_condition_on_each_label() -> None:
    (demand,) = lease_views.demands_of(wish(("zone", "!a"), ("rack", "7"), ("zone", "!b")))
    assert (demand.label_selector, demand.conditions) == ({"zone": "!a", "rack": "7"}, (("zone", "!b"),))
