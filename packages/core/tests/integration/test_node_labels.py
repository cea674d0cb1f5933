"""Tasks and actors that want a node with certain labels, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions
from umbel.util import state
from umbel.util.scheduling_strategies import Exists, In, NodeLabelSchedulingStrategy

TIMEOUT_S = 30


@pytest.fixture(params=["native", "inline"], autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with umbel.init(num_cpus=2, labels={"zone": "a", "rack": "7"}, engine=request.param, infeasible_timeout_s=1.5):
        yield request.param


@umbel.remote
def labels() -> dict[str, str]:
    return umbel.get_runtime_context().get_node_labels()


@umbel.remote
class Plain:
    def answer(self) -> int:
        return 42


@pytest.mark.parametrize(
    "options",
    [
        {"label_selector": {"zone": "a", "rack": "!8"}},
        {"label_selector": {"zone": "in(a,b)"}},
        {"label_selector": {"zone": "b"}, "fallback_strategy": [{"label_selector": {"rack": "7"}}]},
        {"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": In("a")}, soft={"disk": Exists()})},
    ],
)  # fmt: skip
def test_a_node_that_has_them_is_found(options: dict[str, Any]) -> None:
    found = umbel.get(labels.options(**options).remote(), timeout=TIMEOUT_S)
    assert (found["zone"], found["rack"]) == ("a", "7")
    actor = Plain.options(**options).remote()  # type: ignore[arg-type]
    assert umbel.get(actor.answer.remote(), timeout=TIMEOUT_S) == 42


def test_the_nodes_id_is_a_label() -> None:
    node_id = umbel.get_runtime_context().get_node_id()
    assert umbel.get(labels.options(label_selector={"umbel.io/node-id": node_id}).remote(), timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    "options",
    [
        {"label_selector": {"zone": "b"}, "fallback_strategy": [{"label_selector": {"zone": "c"}}]},
        {"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": In("b", "c")})},
    ],
)
def test_none_that_has_them_is_told_and_an_error_in_time(options: dict[str, Any]) -> None:
    ref = labels.options(**options).remote()
    with pytest.raises(exceptions.TaskUnschedulableError, match=r"the labels zone=.*has \{"):
        umbel.get(ref, timeout=TIMEOUT_S)
    actor = Plain.options(**options).remote()  # type: ignore[arg-type]
    with pytest.raises(exceptions.ActorUnschedulableError, match=r"the labels zone="):
        umbel.get(actor.answer.remote(), timeout=TIMEOUT_S)


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_reasons_and_listings_say_what_is_asked_for() -> None:
    waiting = labels.options(label_selector={"zone": "b"}).remote()
    drivers.wait_until(lambda: "zone=b" in str(umbel.explain(waiting)))
    actor = Plain.options(label_selector={"zone": "x"}, fallback_strategy=[{"label_selector": {"zone": "a"}}]).remote()
    umbel.get(actor.answer.remote(), timeout=TIMEOUT_S)
    (found,) = [one for one in state.list_actors(detail=True) if one.state == "ALIVE"]
    assert found.label_selector == {"zone": "x"}
