"""Graphs before anything runs: what nodes remember, what each actor is told, and which graphs cannot be compiled."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import actor as actor_api
from umbel._client.graphs import plan
from umbel._model import options
from umbel.dag import InputNode, MultiOutputNode


class Worker:
    def step(self, x: Any, y: Any = 0) -> Any:
        return x, y

    @umbel.method(num_returns=2)
    def pair(self, x: Any) -> Any:
        return x, x

    async def wait(self, x: Any) -> Any:
        return x

    def items(self, x: Any) -> Any:
        yield x


def handle(number: int) -> Any:
    """To an actor of no session."""
    return actor_api.ActorHandle(bytes([number]) * 24, actor_api.describe(Worker, options.actor_options({}, {})), None)


A, B = handle(1), handle(2)


@umbel.remote
def function(x: Any) -> Any:
    return x


def edges_of(graph: plan.GraphPlan) -> list[tuple[int, int]]:
    return [(edge.sender, edge.receiver) for edge in graph.edges]


def test_a_chain_has_one_edge_between_each_two() -> None:
    with InputNode() as given:
        graph = plan.plan_of(B.step.bind(A.step.bind(given)))
    assert edges_of(graph) == [(plan.DRIVER, 0), (0, 1), (1, plan.DRIVER)]
    assert (graph.input_keys, graph.outputs, graph.is_list, graph.positional_count) == ({0: None}, (2,), False, 1)
    first, second = (actor.steps[0] for actor in graph.actors)
    assert first.reads == (plan.Read(0, (0,)),)
    assert first.outputs == (plan.Output(None, None, (1,)),)
    assert (second.args, second.name) == ((plan.Slot(0),), "Worker.step")


def test_values_within_an_actor_need_no_edge() -> None:
    with InputNode() as given:
        graph = plan.plan_of(A.step.bind(A.step.bind(given, 7), y=given))
    assert edges_of(graph) == [(plan.DRIVER, 0), (0, plan.DRIVER)]
    first, second = graph.actors[0].steps
    assert first.args == (plan.Slot(0), plan.Constant(7))
    assert (second.reads, second.args, second.kwargs) == ((), (plan.Slot(1),), (("y", plan.Slot(0)),))


def test_a_value_goes_once_to_each_actor_that_needs_it() -> None:
    with InputNode() as given:
        value = A.step.bind(given)
        graph = plan.plan_of(MultiOutputNode([B.step.bind(value), B.step.bind(value, value), value, value]))
    assert sorted(edges_of(graph)) == sorted(
        [(plan.DRIVER, 0), (0, 1), *[(0, plan.DRIVER)] * 2, *[(1, plan.DRIVER)] * 2]
    )
    assert len(set(graph.outputs)) == 4
    assert graph.is_list


def test_parts_of_the_input_go_where_they_are_needed() -> None:
    with InputNode() as given:
        graph = plan.plan_of(MultiOutputNode([A.step.bind(given[0], given.key), B.step.bind(given[1])]))
    assert (graph.positional_count, graph.names) == (2, {"key"})
    sent = {graph.edges[edge].receiver: graph.input_of(edge, (1, 2), {"key": 3}) for edge in graph.input_keys}
    assert sent == {0: (1, 3), 1: 2}
    assert graph.actors[0].steps[0].reads == (plan.Read(0, (0, 1)),)


def test_the_input_must_be_what_the_graph_takes() -> None:
    with InputNode() as given:
        whole, parts = plan.plan_of(A.step.bind(given)), None
    with InputNode() as given:
        parts = plan.plan_of(A.step.bind(given[0], given.key))
    whole.check_input((1,), {})
    parts.check_input((1,), {"key": 2})
    for graph, args, kwargs in ((whole, (1, 2), {}), (whole, (), {"x": 1}), (parts, (1,), {}), (parts, (), {"key": 1})):
        with pytest.raises(ValueError, match=r"executed with 1 positional arguments.*, got"):
            graph.check_input(args, kwargs)


def test_results_of_one_call_are_told_apart() -> None:
    with InputNode() as given:
        first, second = A.pair.bind(given)
        graph = plan.plan_of(MultiOutputNode([B.step.bind(second), first]))
    step = graph.actors[0].steps[0]
    assert step.num_returns == 2
    assert {output.index for output in step.outputs} == {0, 1}


def test_all_actors_run_their_calls_in_the_order_of_binding() -> None:
    with InputNode() as given:
        one = A.step.bind(given)
        two = B.step.bind(one)
        three = A.step.bind(two)
        graph = plan.plan_of(MultiOutputNode([B.step.bind(three, one), two]))
    assert [[step.args for step in actor.steps] for actor in graph.actors] == [
        [(plan.Slot(0),), (plan.Slot(1),)],
        [(plan.Slot(0),), (plan.Slot(1), plan.Slot(0))],
    ]


def bound_to_nothing(_given: Any) -> Any:
    return A.step.bind(1)


def in_a_list(given: Any) -> Any:
    return A.step.bind([given], given)


def both_ways(given: Any) -> Any:
    return A.step.bind(given, given[0])


def a_leaf(given: Any) -> Any:
    A.step.bind(given)
    return B.step.bind(given)


def of_a_new_actor(given: Any) -> Any:
    return umbel.remote(Worker).bind().step.bind(given)


def the_input(given: Any) -> Any:
    return MultiOutputNode([A.step.bind(given), given])


def two_inputs(given: Any) -> Any:
    return A.step.bind(given, InputNode())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (bound_to_nothing, "takes nothing of the graph"),
        (in_a_list, "inside of a container"),
        (both_ways, "got both"),
        (a_leaf, "add it to a MultiOutputNode"),
        (of_a_new_actor, r"made with .remote\(\)"),
        (the_input, "those of actors' methods"),
        (two_inputs, "one InputNode"),
        (lambda given: A.step.bind(given[-1]), "numbered from 0"),
        (lambda given: MultiOutputNode([]), "nothing to compute"),
        (lambda given: A.step.options(num_returns=0).bind(given), "num_returns=0"),
        (lambda given: MultiOutputNode([MultiOutputNode([A.step.bind(given)])]), "end of a graph"),
    ],
)
def test_graphs_that_cannot_be_compiled_say_why(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.plan_of(build(InputNode()))


@pytest.mark.parametrize(
    "build",
    [lambda given: function.bind(given), lambda given: A.wait.bind(given), lambda given: A.items.bind(given)],
)
def test_what_only_execute_can_run_says_so(build: Any) -> None:
    with pytest.raises(exceptions.UnsupportedFeature, match=r"execute\(\)"):
        plan.plan_of(build(InputNode()))


def test_binding_checks_the_arguments() -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        function.bind()
    with pytest.raises(TypeError, match="too many positional"):
        A.step.bind(1, 2, 3)
    with pytest.raises(TypeError, match="too many positional"):
        umbel.remote(Worker).bind(1)


def test_nodes_have_no_remote_and_are_bound_once() -> None:
    node = function.bind(1)
    for name, words in (("remote", "execute"), ("bind", "bound already"), ("nonsense", "no attribute")):
        with pytest.raises(AttributeError, match=words):
            getattr(node, name)
    with pytest.raises(AttributeError):
        _ = umbel.remote(Worker).bind().nonsense


def test_a_constructor_cannot_take_the_input() -> None:
    class Needs:
        def __init__(self, x: Any) -> None: ...

    with pytest.raises(ValueError, match="is there only when the graph is executed"):
        umbel.remote(Needs).bind(InputNode())


def test_an_input_has_parts_by_number_and_name_only() -> None:
    given = InputNode()
    assert given.key is given.key
    assert given["key"] is not given[0]
    with pytest.raises(TypeError, match="by number or name"):
        given[1.5]  # type: ignore[index]  # that is the point
    with pytest.raises(ValueError, match="takes no values"):
        InputNode(1)


def test_nodes_survive_pickling_with_their_order() -> None:
    with InputNode() as given:
        graph = A.step.bind(A.step.bind(given), given)
    copy = pickle.loads(pickle.dumps(graph))
    again, before = plan.plan_of(copy), plan.plan_of(graph)
    assert (again.edges, again.actors) == (before.edges, before.actors)


def test_nodes_of_parts_survive_pickling() -> None:
    with InputNode() as given:
        graph = MultiOutputNode([A.step.bind(given[0], given.key), B.step.bind(given.key)])
    copy = pickle.loads(pickle.dumps(graph))
    again, before = plan.plan_of(copy), plan.plan_of(graph)
    assert (again.edges, again.actors, again.names) == (before.edges, before.actors, before.names)


def test_tensors_travel_through_shared_memory_only() -> None:
    node = A.step.bind(InputNode())
    assert node.with_tensor_transport("shm") is node
    with pytest.raises(exceptions.UnsupportedFeature, match="nccl"):
        node.with_tensor_transport("nccl")
