"""Options: defaults, precedence, and what is said about each bad value."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from umbel import exceptions
from umbel._model import ids, options
from umbel._model.resources import ResourceSet
from umbel.util.placement_group import PlacementGroup
from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy

NAN = float("nan")
BUILDERS: dict[str, Callable[[Mapping[str, object], Mapping[str, object]], object]] = {
    "task": options.task_options,
    "actor": options.actor_options,
    "method": options.method_options,
}


class Affinity:
    node_id, soft = "ab" * 16, False


def amounts(**given: float) -> ResourceSet:
    return ResourceSet.from_floats(given)


# What each option refuses, and whether it is the type that is wrong.
RESOURCE_VALUES: dict[str, list[tuple[object, bool]]] = {
    "num_cpus": [(-1, False), (NAN, False), (0.00001, False), ("1", True), ([], True)],
    "num_gpus": [(-1, False), (1.5, False), (NAN, False), ("1", True)],
    "memory": [(-1, False), (float("inf"), False), ("1G", True)],
    "resources": [({"CPU": 1}, False), ({"GPU": 1}, False), ({"memory": 1}, False), ([], True), ("x", True)],
    "accelerator_type": [("", False), (5, True)],
    "name": [("", False), (5, True)],
    "runtime_env": [("x", True), ([], True)],
    "scheduling_strategy": [("PACK", False), ("", False), (5, True), ({}, True)],
    "label_selector": [([], True), ({"a": 1}, True), ("x", True)],
    "fallback_strategy": [({}, True), ([5], True), ("x", True)],
    "placement_group": [(b"x", True), ("x", True), (3, True)],
    "placement_group_bundle_index": [(-2, False), (1.5, True), ("x", True)],
    "placement_group_capture_child_tasks": [(1, True), ("yes", True)],
    "enable_task_events": [(1, True), ("yes", True)],
    "_labels": [({"a": 1}, True), ([], True)],
}
STREAM_VALUES: dict[str, list[tuple[object, bool]]] = {
    "num_returns": [(-1, False), (1.5, True), ("stream", True), ([], True)],
    "retry_exceptions": [(1, True), ("x", True), ([5], True), ([KeyboardInterrupt], True), ({}, True)],
    "_generator_backpressure_num_objects": [(0, False), (-2, False), (1.5, True), ("x", True)],
    "_num_objects_per_yield": [(0, False), (-1, False), ("x", True)],
}
BAD: dict[str, dict[str, list[tuple[object, bool]]]] = {
    "task": {
        **RESOURCE_VALUES,
        **STREAM_VALUES,
        "max_retries": [(-2, False), (1.5, True), ("x", True)],
        "max_calls": [(-1, False), (1.5, True), ("x", True)],
    },
    "actor": {
        **RESOURCE_VALUES,
        "object_store_memory": [(-1, False), ("x", True)],
        "max_restarts": [(-2, False), (1.5, True), ("x", True)],
        "max_task_retries": [(-2, False), (1.5, True), ("x", True)],
        "max_concurrency": [(0, False), (-1, False), (1.5, True), ("x", True)],
        "concurrency_groups": [(["io"], True), ("io", True), ({"io": 0}, False), ({"io": "2"}, True), ({"": 1}, False)],
        "lifetime": [("sometimes", False), ("", False), (5, True)],
        "namespace": [("", False), (5, True)],
        "get_if_exists": [(1, True), ("yes", True)],
        "max_pending_calls": [(-2, False), (1.5, True), ("x", True)],
        "allow_out_of_order_execution": [(1, True), ("yes", True)],
        "enable_tensor_transport": [("shm", True), (1, True)],
        "_actor_generator_backpressure_num_objects": [(0, False), (-2, False), ("x", True)],
    },
    "method": {
        **STREAM_VALUES,
        "max_task_retries": [(-2, False), (1.5, True), ("x", True)],
        "concurrency_group": [("", False), (5, True)],
        "name": [("", False), (5, True)],
        "enable_task_events": [(1, True)],
        "tensor_transport": [("", False), (True, True)],
        "_labels": [({"a": 1}, True), ([], True)],
    },
}
BAD_CASES = [
    pytest.param(kind, option, value, is_type, id=f"{kind}-{option}-{value!r}")
    for kind, table in BAD.items()
    for option, values in table.items()
    for value, is_type in values
]
UNSUPPORTED = [
    ("method", "_num_objects_per_yield", 2),
]


def place_of(kind: str, option: str) -> str:
    return options._TABLES[kind][option].only_in or "call"


def build(kind: str, given: Mapping[str, object]) -> Any:
    """Each option in a place where it may be."""
    places: dict[str, dict[str, object]] = {"decorator": {}, "call": {}}
    for name, value in given.items():
        places[place_of(kind, name)][name] = value
    return BUILDERS[kind](places["decorator"], places["call"])


@pytest.mark.parametrize(("kind", "option", "value", "is_type"), BAD_CASES)
def test_bad_value_is_refused_with_option_and_value(kind: str, option: str, value: object, is_type: bool) -> None:
    with pytest.raises(exceptions.InvalidOption) as info:
        build(kind, {option: value})
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else []
    assert option in str(info.value)
    assert any(repr(part) in str(info.value) for part in [value, *parts])
    assert isinstance(info.value, ValueError)
    assert isinstance(info.value, TypeError) is is_type


def test_every_option_has_a_bad_value_above_or_is_one_that_needs_a_cluster() -> None:
    listed = {(kind, option) for kind, table in BAD.items() for option in table} | {case[:2] for case in UNSUPPORTED}
    assert {(kind, option) for kind, table in options._TABLES.items() for option in table} <= listed


@pytest.mark.parametrize("kind", ["task", "actor", "method"])
def test_none_is_the_same_as_leaving_out(kind: str) -> None:
    others = options._TABLES[kind].keys() - {"placement_group"}
    assert build(kind, dict.fromkeys(others)) == build(kind, {})


@pytest.mark.parametrize("kind", ["task", "actor"])
def test_no_placement_group_is_not_the_same_as_leaving_it_out(kind: str) -> None:
    assert build(kind, {}).scheduling_strategy is None  # in the group of whoever submits, if that captures
    assert build(kind, {"placement_group": None}).scheduling_strategy == "DEFAULT"


@pytest.mark.parametrize(("kind", "option", "value"), UNSUPPORTED)
def test_what_needs_more_than_this_version_has_is_named(kind: str, option: str, value: object) -> None:
    with pytest.raises(exceptions.UnsupportedFeature, match=option):
        build(kind, {option: value})


def test_message_says_what_got_allowed_and_do() -> None:
    with pytest.raises(exceptions.InvalidOption) as info:
        options.task_options({}, {"num_cpus": -1})
    assert str(info.value) == "num_cpus must be a number >= 0, got -1; omit it for the default of 1"
    assert info.value.option == "num_cpus"


@pytest.mark.parametrize("kind", ["task", "actor", "method"])
def test_unknown_option_is_refused(kind: str) -> None:
    wrong: dict[str, object] = {"no_such_option": 1}
    for decorator, call in ((wrong, {}), ({}, wrong)):
        with pytest.raises(ValueError, match="'no_such_option', got no_such_option=1; allowed are"):
            BUILDERS[kind](decorator, call)


def test_misspelt_option_is_answered_with_the_right_one() -> None:
    with pytest.raises(ValueError, match="did you mean num_cpus"):
        options.task_options({"num_cpu": 1}, {})


@pytest.mark.parametrize(
    ("kind", "option", "home"),
    [
        ("task", "max_restarts", "actors"),
        ("task", "lifetime", "actors"),
        ("task", "object_store_memory", "actors"),
        ("actor", "max_retries", "tasks"),
        ("actor", "max_calls", "tasks"),
        ("actor", "num_returns", "tasks and methods"),
        ("method", "num_cpus", "tasks and actors"),
    ],
)
def test_option_of_another_kind_is_refused_with_its_home(kind: str, option: str, home: str) -> None:
    with pytest.raises(ValueError, match=f"it is an option of {home};"):
        BUILDERS[kind]({}, {option: 1})


@pytest.mark.parametrize(
    ("kind", "option", "value"), [("task", "max_calls", 2), ("actor", "concurrency_groups", {"io": 2})]
)
def test_option_of_the_decorator_is_refused_in_a_call(kind: str, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be set in @umbel.remote\(...\), got"):
        BUILDERS[kind]({}, {option: value})


def test_name_of_a_method_is_refused_in_its_decorator() -> None:
    with pytest.raises(ValueError, match=r"name must be set in \.options"):
        options.method_options({"name": "x"}, {})


def test_defaults_of_a_task() -> None:
    assert options.task_options({}, {}) == options.TaskOptions(resources=amounts(CPU=1))
    one = options.task_options({}, {}, default_max_retries=0)
    assert one.max_retries == 0


def test_call_replaces_what_the_decorator_says() -> None:
    one = options.task_options(
        {"num_cpus": 2, "resources": {"a": 1}, "name": "x"}, {"num_cpus": 0.5, "resources": {"b": 1}}
    )
    assert one == options.TaskOptions(resources=amounts(CPU=0.5, b=1), name="x")


def test_none_in_a_call_goes_back_to_the_default() -> None:
    assert options.task_options({"num_cpus": 2, "max_retries": 0}, {"num_cpus": None, "max_retries": None}) == (
        options.task_options({}, {})
    )


def test_task_without_cpu_needs_nothing() -> None:
    assert options.task_options({"num_cpus": 0}, {}).resources.is_empty


def test_accelerator_type_takes_a_trace_of_its_resource() -> None:
    one = options.task_options({"accelerator_type": "H200"}, {})
    assert one.resources.to_floats() == {"CPU": 1.0, "accelerator_type:H200": 0.001}


@pytest.mark.parametrize(
    ("decorator", "call", "max_calls"),
    [
        ({}, {}, 0),
        ({"num_gpus": 1}, {}, 1),
        ({}, {"num_gpus": 0.5}, 1),
        ({"num_gpus": 1}, {"num_gpus": 0}, 0),
        ({"num_gpus": 1, "max_calls": 0}, {}, 0),
        ({"max_calls": 7}, {"num_gpus": 1}, 7),
    ],
)
def test_worker_of_a_gpu_task_is_replaced_wherever_the_gpu_was_asked_for(
    decorator: dict[str, object], call: dict[str, object], max_calls: int
) -> None:
    assert options.task_options(decorator, call).max_calls == max_calls


@pytest.mark.parametrize(
    ("given", "placement", "running"),
    [
        ({}, {"CPU": 1}, {}),
        ({"memory": 100}, {"CPU": 1, "memory": 100}, {"memory": 100}),
        ({"resources": {}}, {"CPU": 1}, {}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_cpus": 2}, {"CPU": 2}, {"CPU": 2}),
        ({"num_gpus": 1}, {"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}),
        ({"num_gpus": 0}, {"CPU": 1}, {"CPU": 1}),
        ({"resources": {"x": 1}}, {"CPU": 1, "x": 1}, {"CPU": 1, "x": 1}),
        ({"num_cpus": 0, "resources": {"x": 1}}, {"x": 1}, {"x": 1}),
    ],
)
def test_actor_needs_a_cpu_to_be_placed_and_holds_what_it_was_given(
    given: dict[str, object], placement: dict[str, float], running: dict[str, float]
) -> None:
    for one in (options.actor_options(given, {}), options.actor_options({}, given)):
        assert one.placement_resources == ResourceSet.from_floats(placement)
        assert one.running_resources == ResourceSet.from_floats(running)


def test_options_of_an_actor_are_kept() -> None:
    one = options.actor_options(
        {
            "max_restarts": -1,
            "max_task_retries": 2,
            "concurrency_groups": {"io": 2},
            "max_concurrency": 4,
            "num_cpus": 0,
        },
        {"name": "n", "namespace": "s", "lifetime": "detached", "get_if_exists": True, "max_pending_calls": 5},
    )
    assert one == options.ActorOptions(
        placement_resources=ResourceSet(),
        running_resources=ResourceSet(),
        max_restarts=-1,
        max_task_retries=2,
        max_concurrency=4,
        concurrency_groups={"io": 2},
        lifetime="detached",
        name="n",
        namespace="s",
        get_if_exists=True,
        max_pending_calls=5,
    )


def test_zero_pending_calls_means_no_limit() -> None:
    assert options.actor_options({}, {"max_pending_calls": 0}).max_pending_calls == -1


def test_get_if_exists_needs_a_name() -> None:
    with pytest.raises(ValueError, match="get_if_exists=True needs a name, got name=None"):
        options.actor_options({}, {"get_if_exists": True})


def test_options_of_a_method_are_kept() -> None:
    one = options.method_options(
        {"num_returns": 2, "concurrency_group": "io", "retry_exceptions": [KeyError]},
        {"num_returns": 3, "name": "n", "max_task_retries": -1},
    )
    assert one == options.MethodOptions(
        num_returns=3, concurrency_group="io", retry_exceptions=(KeyError,), name="n", max_task_retries=-1
    )


@pytest.mark.parametrize("value", ["streaming", "dynamic", 0, 1, 7])
def test_number_of_returns_is_kept(value: object) -> None:
    assert options.task_options({}, {"num_returns": value}).num_returns == value


def test_affinity_is_left_for_the_engine() -> None:
    strategy = Affinity()
    assert options.task_options({}, {"scheduling_strategy": strategy}).scheduling_strategy is strategy


@pytest.mark.parametrize("value", ["DEFAULT", "SPREAD"])
def test_strategies_that_one_node_can_honour_are_kept(value: str) -> None:
    assert options.actor_options({}, {"scheduling_strategy": value}).scheduling_strategy == value


@pytest.mark.parametrize("group", [None, PlacementGroup.empty()])
def test_strategy_of_no_group_is_the_default_one(group: Any) -> None:
    strategy = PlacementGroupSchedulingStrategy(group)
    assert options.task_options({}, {"scheduling_strategy": strategy}).scheduling_strategy == "DEFAULT"


def group_of(*bundles: dict[str, float]) -> PlacementGroup:
    return PlacementGroup(ids.PlacementGroupID.from_random(), list(bundles))


def test_strategy_of_a_group_names_it() -> None:
    group = group_of({"CPU": 1}, {"CPU": 2})
    strategy = PlacementGroupSchedulingStrategy(group, 1, placement_group_capture_child_tasks=True)
    expected = options.InGroup(group.id.hex(), 1, captures=True)
    assert options.task_options({}, {"scheduling_strategy": strategy, "num_cpus": 2}).scheduling_strategy == expected
    older = {"placement_group": group, "placement_group_bundle_index": 1, "placement_group_capture_child_tasks": True}
    assert options.actor_options(older, {}).scheduling_strategy == expected


def test_bundle_of_whatever_group_the_submitter_is_in_is_left_for_the_engine() -> None:
    found = options.task_options({}, {"placement_group_bundle_index": 2}).scheduling_strategy
    assert found == options.InGroup("", 2)


@pytest.mark.parametrize(
    ("kind", "given", "bundle"),
    [
        ("task", {"num_cpus": 2}, {"CPU": 1}),
        ("task", {"num_gpus": 1}, {"CPU": 1}),
        ("actor", {}, {"x": 1}),  # it needs a CPU to be placed
        ("actor", {"num_cpus": 2}, {"CPU": 1}),
    ],
)
def test_what_fits_into_no_bundle_is_refused(kind: str, given: dict[str, Any], bundle: dict[str, float]) -> None:
    strategy = PlacementGroupSchedulingStrategy(group_of(bundle))
    with pytest.raises(exceptions.InvalidOption, match="does not fit into any bundle of the placement group"):
        build(kind, {**given, "scheduling_strategy": strategy})


def test_a_task_without_cpus_fits_into_a_bundle_without() -> None:
    strategy = PlacementGroupSchedulingStrategy(group_of({"x": 1}))
    assert options.task_options({"num_cpus": 0}, {"scheduling_strategy": strategy}).resources.is_empty


def test_what_one_node_does_anyhow_is_accepted() -> None:
    harmless = {
        "label_selector": {},
        "fallback_strategy": [],
        "placement_group": "default",
        "_labels": {"b": "2", "a": "1"},
    }
    assert options.task_options({}, harmless).labels == (("a", "1"), ("b", "2"))


def test_environment_variables_are_kept_in_order_of_name() -> None:
    one = options.task_options({}, {"runtime_env": {"env_vars": {"B": "2", "A": "1"}}})
    assert one.env_vars == (("A", "1"), ("B", "2"))
    assert one.runtime_env == {"env_vars": {"A": "1", "B": "2"}}
    assert options.task_options({}, {"runtime_env": {}}).runtime_env == {}


def test_other_fields_of_an_environment_are_kept_as_text() -> None:
    env = {"pip": ["a"], "env_vars": {"A": "1"}, "working_dir": None}
    one = options.task_options({}, {"runtime_env": env})
    assert (one.env_vars, one.environment) == ((("A", "1"),), '{"pip": ["a"]}')
    assert one.runtime_env == {"pip": ["a"], "env_vars": {"A": "1"}}


@pytest.mark.parametrize("bad", [{"A": 1}, {1: "A"}, {"": "x"}, {"A=B": "x"}, {"A": "\0"}, ["A"]])
def test_bad_environment_variables_are_refused(bad: object) -> None:
    with pytest.raises(exceptions.InvalidOption, match="env_vars"):
        options.task_options({}, {"runtime_env": {"env_vars": bad}})


@pytest.mark.parametrize("kind", ["task", "actor", "method"])
def test_options_are_frozen_hashable_and_picklable(kind: str) -> None:
    one = build(kind, {})
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(one) == hash(build(kind, {}))
    with pytest.raises(AttributeError):
        one.name = "other"
