"""What a node tells of what waits on it, and whether it is idle."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._agent import events as ev
from umbel._agent import load, state
from umbel._agent.ledger import Ledger

CPU = 10_000


def wants(cpus: float = 1, strategy: Any = None, selectors: Any = None, **others: float) -> dict[str, Any]:
    amounts = {"CPU": round(cpus * CPU), **{name: round(one * CPU) for name, one in others.items()}}
    return {
        "resources": {name: one for name, one in amounts.items() if one}, "strategy": strategy, "label_selectors": selectors,
    }  # fmt: skip


def test_equal_wishes_are_counted_together() -> None:
    waiting = [(wants(), 3), (wants(2), 1), (wants(), 512)]
    assert load.of_tasks(waiting) == [[{"CPU": CPU}, 515, []], [{"CPU": 2 * CPU}, 1, []]]


def test_label_selectors_tell_them_apart() -> None:
    here, there = [[["zone", "a"]]], [[["zone", "b"]], []]
    assert load.of_tasks([(wants(selectors=here), 1), (wants(selectors=there), 2), (wants(), 4)]) == [
        [{"CPU": CPU}, 1, here],
        [{"CPU": CPU}, 2, there],
        [{"CPU": CPU}, 4, []],
    ]


@pytest.mark.parametrize(
    "wish",
    [
        wants(strategy={"node_id": "aa", "soft": False}),
        wants(strategy={"placement_group": "g", "bundle_index": 0}),
        wants(0),  # it runs anywhere, once there is a worker
    ],
)
def test_what_no_other_node_helps_is_left_out(wish: dict[str, Any]) -> None:
    assert load.of_tasks([(wish, 5)]) == []


@pytest.mark.parametrize("strategy", ["SPREAD", {"node_id": "aa", "soft": True}])
def test_what_another_node_helps_is_told(strategy: Any) -> None:
    assert load.of_tasks([(wants(strategy=strategy), 5)]) == [[{"CPU": CPU}, 5, []]]


def test_tasks_without_resources_may_want_labels() -> None:
    assert load.of_tasks([(wants(0, selectors=[[["zone", "a"]]]), 1)]) == [[{}, 1, [[["zone", "a"]]]]]


def test_no_more_shapes_are_told_than_are_allowed_and_the_oldest_first() -> None:
    found = load.of_tasks([(wants(number), 1) for number in range(1, 1_000)] + [(wants(1), 6)])
    assert len(found) == load.SHAPES_MAX
    assert found[0] == [{"CPU": CPU}, 7, []]


class Node:
    """An agent, and what it says of being idle."""

    def __init__(self) -> None:
        self.agent = state.AgentState(
            ledger=Ledger({"CPU": CPU}, {}), worker_ids=iter(["w1", "w2", "w3"]), starts_max=2, idle_max=1
        )
        self.agent.apply(ev.ClientJoined("d", 0.0))

    def idle(self, *, has_drivers: bool = False) -> int:
        return load.idle_number(self.agent, has_drivers=has_drivers)

    def run_a_task(self) -> list[int]:
        """What was said while it waited, ran, and had ended."""
        self.agent.apply(ev.DemandChanged("d", "k", {"CPU": CPU}, 1, 0, "", "", 0.0))
        said = [self.idle()]
        for worker in [one for one, known in self.agent.workers.items() if known.state.value == "starting"]:
            self.agent.apply(ev.WorkerReady(worker, 0.0))
        said.append(self.idle())
        (leased,) = [one.id for one in self.agent.workers.values() if one.lease is not None]
        self.agent.apply(ev.LeaseReturned("d", leased, False, 0.0))
        return [*said, self.idle()]


def test_node_is_idle_by_another_number_after_each_time_that_it_was_not() -> None:
    node = Node()
    first = node.idle()
    assert first and node.idle() == first
    waited, ran, ended = node.run_a_task()
    assert (waited, ran) == (0, 0)
    assert ended not in (0, first)
    assert node.idle() == ended
    assert node.run_a_task()[2] not in (0, first, ended)


def test_node_with_a_program_is_not_idle() -> None:
    assert Node().idle(has_drivers=True) == 0


def test_node_with_reserved_bundles_is_not_idle() -> None:
    node = Node()
    node.agent.apply(ev.BundlesWanted("g", 1, {0: {"CPU": CPU}}, 0, 0.0))
    assert node.idle() == 0
    node.agent.apply(ev.GroupDropped("g", "removed", 0.0))
    assert node.idle() != 0


def test_what_several_nodes_tell_is_counted_together_whatever_it_is() -> None:
    told = [[{"CPU": CPU}, 3, []], [{}, 1, [[["zone", "a"]]]], [{"CPU": CPU}, 4, []]]
    assert load.merged(told, len(told)) == [[{"CPU": CPU}, 7, []], [{}, 1, [[["zone", "a"]]]]]
    assert told[0][1] == 3  # it is what the node has told
