"""Where things run and what they are called: strategies, named actors, addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel.util import get_node_ip_address, list_named_actors, node_address
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy


@pytest.fixture(scope="module", autouse=True, params=["native", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with umbel.init(num_cpus=2, engine=request.param, namespace="here"):
        yield request.param


@umbel.remote(num_cpus=0)
class Nothing:
    def node(self) -> str:
        return umbel.get_runtime_context().get_node_id()


@umbel.remote
def where() -> str:
    return umbel.get_runtime_context().get_node_id()


def test_named_actors_are_listed_by_namespace() -> None:
    before = list_named_actors()
    here = Nothing.options(name="one").remote()
    there = Nothing.options(name="two", namespace="there").remote()
    umbel.get([here.node.remote(), there.node.remote()])
    assert before == []
    assert list_named_actors() == ["one"]
    listed: Any = list_named_actors(all_namespaces=True)
    assert sorted((actor["namespace"], actor["name"]) for actor in listed) == [("here", "one"), ("there", "two")]
    for actor in (here, there):
        umbel.kill(actor)
        with pytest.raises(exceptions.UmbelActorError):
            while True:
                umbel.get(actor.node.remote(), timeout=30)
    assert list_named_actors(all_namespaces=True) == []


@pytest.mark.parametrize("soft", [True, False])
def test_affinity_to_this_node_is_honoured(soft: bool) -> None:
    here = umbel.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=soft)
    assert umbel.get(where.options(scheduling_strategy=strategy).remote(), timeout=30) == here
    assert umbel.get(Nothing.options(scheduling_strategy=strategy).remote().node.remote(), timeout=30) == here


def test_hard_affinity_to_a_node_that_is_not_there_fails() -> None:
    elsewhere = NodeAffinitySchedulingStrategy("a" * 56, soft=False)
    assert umbel.get(where.remote(), timeout=30)  # a worker is leased now: the strategy must not share its class
    with pytest.raises(exceptions.TaskUnschedulableError, match=r"node a{56}"):
        umbel.get(where.options(scheduling_strategy=elsewhere).remote(), timeout=30)
    nothing = Nothing.options(scheduling_strategy=elsewhere).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match=r"node a{56}"):
        umbel.get(nothing.node.remote(), timeout=30)
    assert umbel.get(where.remote(), timeout=30)


def test_soft_affinity_to_a_node_that_is_not_there_runs_elsewhere() -> None:
    here = umbel.get_runtime_context().get_node_id()
    elsewhere = NodeAffinitySchedulingStrategy("a" * 56, soft=True)
    assert umbel.get(where.options(scheduling_strategy=elsewhere).remote(), timeout=30) == here
    assert umbel.get(Nothing.options(scheduling_strategy=elsewhere).remote().node.remote(), timeout=30) == here


def test_the_plain_strategies_are_accepted() -> None:
    here = umbel.get_runtime_context().get_node_id()
    for strategy in ("DEFAULT", "SPREAD", PlacementGroupSchedulingStrategy(None)):
        assert umbel.get(where.options(scheduling_strategy=strategy).remote(), timeout=30) == here


def test_the_address_is_the_node_s_own() -> None:
    assert str(ipaddress.ip_address(get_node_ip_address())) == umbel.nodes()[0]["NodeManagerAddress"]
    ipaddress.ip_address(node_address.outgoing_address())
