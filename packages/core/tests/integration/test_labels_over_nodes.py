"""Tasks and actors that want nodes with certain labels or devices, or to be spread: three real daemons."""

from __future__ import annotations

import collections
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import homes
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
SMALL: dict[str, Any] = {"num_cpus": 0.1}  # so that no node is full of what has just ended
SLOTS = {"slots": 10}  # which nothing takes but actors that are to be spread: how nodes are used is seen with a delay
NO_SUCH = {"label_selector": {"zone": "q"}}


class Nodes(NamedTuple):
    """names: "a" for the head, of which this process is a driver, "b" and "c", by id."""

    cluster: cluster_utils.Cluster
    names: dict[str, str]

    def on(self, name: str) -> NodeAffinitySchedulingStrategy:
        (node_id,) = [node_id for node_id, called in self.names.items() if called == name]
        return NodeAffinitySchedulingStrategy(node_id, soft=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with homes.own_home(UMBEL_NODE_RECONNECT_S="1", UMBEL_INFEASIBLE_TIMEOUT_S="1"):
        head = {"num_cpus": 2, "labels": {"zone": "a"}, "resources": SLOTS}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            with_l4, with_t4 = {**SLOTS, "accelerator_type:L4": 1}, {**SLOTS, "accelerator_type:T4": 1}
            cluster.add_node(num_cpus=2, num_gpus=1, labels={"zone": "b", "rack": "7"}, resources=with_l4)
            cluster.add_node(num_cpus=2, num_gpus=1, labels={"zone": "c", "disk": "ssd"}, resources=with_t4)
            cluster.wait_for_nodes()
            cluster.connect()
            yield Nodes(cluster, {one["NodeID"]: one["Labels"]["zone"] for one in umbel.nodes()})
        finally:
            umbel.shutdown()
            cluster.shutdown()


@umbel.remote(**SMALL)
def where() -> str:
    return umbel.get_runtime_context().get_node_id()


@umbel.remote(**SMALL)
class Actor:
    def where(self) -> str:
        return umbel.get_runtime_context().get_node_id()

    def submit(self, options: dict[str, Any]) -> str:
        return umbel.get(where.options(**options).remote())


def labels(hard: Any, soft: Any = None) -> dict[str, Any]:
    return {"scheduling_strategy": NodeLabelSchedulingStrategy(hard, soft=soft)}


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "v": ({"label_selector": {"zone": "b"}}, "b"),
    "not v": ({"label_selector": {"zone": "!a"}}, "bc"),
    "not v, of those without the label too": ({"label_selector": {"disk": "!ssd"}}, "ab"),
    "in": ({"label_selector": {"zone": "in(b, c)"}}, "bc"),
    "not in": ({"label_selector": {"zone": "!in(a,b)"}}, "c"),
    "both": ({"label_selector": {"zone": "!a", "disk": "!ssd"}}, "b"),
    "a node's id": ({"label_selector": {"umbel.io/node-id": "b"}}, "b"),
    "fallback": ({**NO_SUCH, "fallback_strategy": [{"label_selector": {"zone": "r"}}, {"label_selector": {"zone": "c"}}]}, "c"),
    "first, and not its fallback": (
        {"label_selector": {"zone": "c"}, "fallback_strategy": [{"label_selector": {"zone": "a"}}]}, "c",
    ),
    "hard In": (labels({"zone": In("b", "q")}), "b"),
    "hard NotIn": (labels({"zone": NotIn("a", "b")}), "c"),
    "hard Exists": (labels({"disk": Exists()}), "c"),
    "hard DoesNotExist": (labels({"disk": DoesNotExist(), "rack": DoesNotExist()}), "a"),
    "soft": (labels({"zone": Exists()}, {"zone": In("b")}), "b"),
    "soft Exists": (labels({}, {"disk": Exists()}), "c"),
    "soft that none has": (labels({"zone": In("c")}, {"zone": In("q")}), "c"),
    "soft among hard": (labels({"zone": NotIn("a")}, {"disk": DoesNotExist()}), "b"),
    "accelerator type": ({"accelerator_type": "L4"}, "b"),
    "another accelerator type, and one": ({"accelerator_type": "T4", "num_gpus": 1}, "c"),
}  # fmt: skip


def meant(case: str, nodes: Nodes) -> tuple[dict[str, Any], set[str]]:
    options, names = CASES[case]
    if case == "a node's id":
        options = {"label_selector": {"umbel.io/node-id": nodes.on("b").node_id}}
    return options, set(names)


@pytest.mark.parametrize("case", CASES)
def test_tasks_and_actors_run_where_the_labels_are(case: str, nodes: Nodes) -> None:
    options, names = meant(case, nodes)
    assert nodes.names[umbel.get(where.options(**options).remote(), timeout=TIMEOUT_S)] in names
    actor = Actor.options(**options).remote()
    assert nodes.names[umbel.get(actor.where.remote(), timeout=TIMEOUT_S)] in names


@pytest.mark.parametrize("name", ["b", "c"])
def test_what_a_process_of_another_node_submits_goes_where_the_labels_are(name: str, nodes: Nodes) -> None:
    asker = Actor.options(scheduling_strategy=nodes.on(name)).remote()
    cases = {case: meant(case, nodes) for case in CASES}
    found = {case: asker.submit.remote(options) for case, (options, _) in cases.items()}
    there = {case: nodes.names[umbel.get(ref, timeout=TIMEOUT_S)] for case, ref in found.items()}
    assert {case: names for case, (_, names) in cases.items() if there[case] not in names} == {}


def test_what_no_node_has_is_told_and_an_error_in_time(nodes: Nodes) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "zone=q": NO_SUCH,
        r"zone=!in\(a,b,c\)": labels({"zone": NotIn("a", "b", "c")}),
        "accelerator_type:H100": {"accelerator_type": "H100"},
        "GPU": {"label_selector": {"zone": "a"}, "num_gpus": 1},  # which only others have
    }
    tasks = {text: where.options(**options).remote() for text, options in wanted.items()}
    actors = {text: Actor.options(**options).remote() for text, options in wanted.items()}
    for text in wanted:
        with pytest.raises(exceptions.TaskUnschedulableError, match=text):
            umbel.get(tasks[text], timeout=TIMEOUT_S)
        with pytest.raises(exceptions.ActorUnschedulableError, match=text):
            umbel.get(actors[text].where.remote(), timeout=TIMEOUT_S)


def test_actors_that_are_to_be_spread_are(nodes: Nodes) -> None:
    wanted: dict[str, Any] = {"scheduling_strategy": "SPREAD", "num_cpus": 0, "resources": {"slots": 1}}
    spread = Actor.options(**wanted)
    actors = [spread.remote() for _ in range(6)]
    found = umbel.get([one.where.remote() for one in actors], timeout=TIMEOUT_S)
    assert collections.Counter(nodes.names[one] for one in found) == {"a": 2, "b": 2, "c": 2}
    labelled = Actor.options(**wanted, label_selector={"zone": "!a"})
    actors += [labelled.remote() for _ in range(4)]
    found = umbel.get([one.where.remote() for one in actors[6:]], timeout=TIMEOUT_S)
    assert collections.Counter(nodes.names[one] for one in found) == {"b": 2, "c": 2}
