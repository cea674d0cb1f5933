"""Placement groups, on both engines."""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel.util import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from umbel.util.placement_group import PlacementGroup
from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup

SOON_S = 20.0
table_module: Any = importlib.import_module("umbel.util.placement_group")  # the name is the function's as well


@pytest.fixture
def make(engine: str) -> Iterator[Callable[..., PlacementGroup]]:
    """Makes groups, and removes them when the test is over."""
    made: list[PlacementGroup] = []

    def make_one(*args: Any, **kwargs: Any) -> PlacementGroup:
        made.append(placement_group(*args, **kwargs))
        return made[-1]

    yield make_one
    for group in made:
        remove_placement_group(group)


@umbel.remote
def whereabouts() -> tuple[str | None, bool, dict[str, float]]:
    context = umbel.get_runtime_context()
    return (
        context.get_placement_group_id(),
        context.should_capture_child_tasks_in_placement_group,
        context.get_assigned_resources(),
    )


@umbel.remote
def whereabouts_of_child(options: dict[str, Any]) -> Any:
    return umbel.get(whereabouts.options(**options).remote())


@umbel.remote
class Resident:
    def whereabouts(self) -> tuple[str | None, bool, dict[str, float]]:
        context = umbel.get_runtime_context()
        return (
            context.get_placement_group_id(),
            context.should_capture_child_tasks_in_placement_group,
            context.get_assigned_resources(),
        )

    def of_child(self) -> Any:
        return umbel.get(whereabouts.remote())

    def wait(self, signal: Any) -> None:
        umbel.get(signal.wait.remote())


@umbel.remote
def held_back(signal: Any) -> None:
    umbel.get(signal.wait.remote())


def test_a_group_is_ready_and_can_be_waited_for(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}, {"CPU": 0.5}])
    assert umbel.get(group.ready(), timeout=SOON_S) == group
    assert group.wait(SOON_S)
    assert (group.bundle_specs, group.bundle_count) == ([{"CPU": 1.0}, {"CPU": 0.5}], 2)


@pytest.fixture
def brisk() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("brisk")
def test_threads_make_groups_side_by_side(engine: str) -> None:
    """In a session that has none yet: each of them may be the one that loads what groups need."""
    if engine == "remote":
        pytest.skip("it is the native engine, which has a node of its own elsewhere")
    umbel.shutdown()
    umbel.init(num_cpus=4, engine=engine, log_to_driver=False)
    start = threading.Barrier(8)
    ready: list[bool] = []

    def make_one() -> None:
        start.wait(SOON_S)
        group = placement_group([{"CPU": 0.5}])
        ready.append(group.wait(SOON_S))
        remove_placement_group(group)

    threads = [threading.Thread(target=make_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert ready == [True] * 8


def test_handles_are_equal_and_travel(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}])
    copy = pickle.loads(pickle.dumps(group))
    assert (copy, hash(copy), copy.bundle_specs) == (group, hash(group), [{"CPU": 1.0}])

    @umbel.remote
    def use(given: PlacementGroup) -> Any:
        assert umbel.get(given.ready(), timeout=SOON_S) == given
        return umbel.get(whereabouts.options(scheduling_strategy=InGroup(given)).remote())[0]

    assert umbel.get(use.remote(group), timeout=SOON_S) == group.id.hex()


def test_tasks_and_actors_run_in_the_group(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}, {"CPU": 1}])
    inside = (group.id.hex(), False, {"CPU": 1.0})
    assert umbel.get(whereabouts.remote(), timeout=SOON_S) == (None, False, {"CPU": 1.0})
    for index in (-1, 0, 1):
        assert (
            umbel.get(whereabouts.options(scheduling_strategy=InGroup(group, index)).remote(), timeout=SOON_S) == inside
        )
    options: dict[str, Any] = {"placement_group": group, "placement_group_bundle_index": 1}
    assert umbel.get(whereabouts.options(**options).remote(), timeout=SOON_S) == inside
    actor = Resident.options(num_cpus=1, scheduling_strategy=InGroup(group, 1)).remote()
    assert umbel.get(actor.whereabouts.remote(), timeout=SOON_S) == inside
    light = Resident.options(scheduling_strategy=InGroup(group, 0)).remote()
    assert umbel.get(light.whereabouts.remote(), timeout=SOON_S) == (group.id.hex(), False, {})


def test_children_are_captured_where_that_is_asked_for(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 2}])
    captured = (group.id.hex(), True, {"CPU": 1.0})
    outside = (None, False, {"CPU": 1.0})
    plain = whereabouts_of_child.options(scheduling_strategy=InGroup(group))
    capturing = whereabouts_of_child.options(
        scheduling_strategy=InGroup(group, 0, placement_group_capture_child_tasks=True)
    )
    assert umbel.get(plain.remote({}), timeout=SOON_S) == outside
    assert umbel.get(capturing.remote({}), timeout=SOON_S) == captured
    assert umbel.get(capturing.remote({"scheduling_strategy": "DEFAULT"}), timeout=SOON_S) == outside
    assert umbel.get(capturing.remote({"scheduling_strategy": InGroup(None)}), timeout=SOON_S) == outside
    assert umbel.get(capturing.remote({"placement_group": None}), timeout=SOON_S) == outside
    assert umbel.get(whereabouts_of_child.remote({}), timeout=SOON_S) == outside
    strategy = InGroup(group, placement_group_capture_child_tasks=True)
    actor = Resident.options(num_cpus=1, scheduling_strategy=strategy).remote()
    assert umbel.get(actor.of_child.remote(), timeout=SOON_S) == captured


def test_a_captured_child_may_be_an_actor_or_name_its_bundle(make: Callable[..., PlacementGroup]) -> None:
    @umbel.remote
    def make_children() -> Any:
        actor = Resident.options(num_cpus=1).remote()
        where = umbel.get(actor.whereabouts.remote())
        last = whereabouts.options(placement_group_bundle_index=1).remote()
        with pytest.raises(ValueError, match="below 2, the number of bundles"):
            whereabouts.options(placement_group_bundle_index=2).remote()
        return where, umbel.get(last)

    group = make([{"CPU": 2}, {"CPU": 1}])
    strategy = InGroup(group, 0, placement_group_capture_child_tasks=True)
    captured = (group.id.hex(), True, {"CPU": 1.0})
    assert umbel.get(make_children.options(scheduling_strategy=strategy).remote(), timeout=SOON_S) == (
        captured,
        captured,
    )


def test_a_captured_child_that_fits_nowhere_is_refused(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}])
    strategy = InGroup(group, placement_group_capture_child_tasks=True)
    capturing = whereabouts_of_child.options(scheduling_strategy=strategy)
    with pytest.raises(ValueError, match="does not fit into any bundle"):
        umbel.get(capturing.remote({"num_cpus": 2}), timeout=SOON_S)


def test_the_current_group_is_known(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}])

    @umbel.remote
    def current() -> Any:
        return get_current_placement_group()

    assert get_current_placement_group() is None
    assert umbel.get_runtime_context().get_placement_group_id() is None
    assert umbel.get(current.remote(), timeout=SOON_S) is None
    assert umbel.get(current.options(scheduling_strategy=InGroup(group)).remote(), timeout=SOON_S) == group


def test_the_empty_group_is_no_group(engine: str) -> None:
    empty = PlacementGroup.empty()
    assert (empty.is_empty, empty.bundle_specs) == (True, [])
    assert umbel.get(empty.ready(), timeout=SOON_S) == empty
    assert umbel.get(whereabouts.options(scheduling_strategy=InGroup(empty)).remote(), timeout=SOON_S)[0] is None


def test_groups_have_names(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}], name="gang")
    found = get_placement_group("gang")
    assert (found, found.bundle_specs) == (group, [{"CPU": 1.0}])
    with pytest.raises(exceptions.UmbelSystemError, match="'gang' already exists"):
        placement_group([{"CPU": 1}], name="gang")
    remove_placement_group(group)
    with pytest.raises(ValueError, match="no placement group named 'gang'"):
        get_placement_group("gang")
    again = make([{"CPU": 1}], name="gang")
    assert get_placement_group("gang") == again
    with pytest.raises(ValueError, match="takes the name"):
        get_placement_group("")


def test_resources_are_set_aside_and_shown(make: Callable[..., PlacementGroup], eventually: Any) -> None:
    eventually(lambda: umbel.available_resources().get("CPU") == 4.0)  # of what ran before, the last process is gone
    group = make([{"CPU": 2}, {"CPU": 1}])
    assert group.wait(SOON_S)
    one = group.id.hex()
    free, total = umbel.available_resources(), umbel.cluster_resources()
    assert (free["CPU"], total["CPU"]) == (1.0, 4.0)
    shown = {
        f"CPU_group_0_{one}": 2.0,
        f"CPU_group_1_{one}": 1.0,
        f"CPU_group_{one}": 3.0,
        f"bundle_group_{one}": 2000.0,
    }
    assert {name: free[name] for name in shown} == shown
    assert {name: total[name] for name in shown} == shown
    actor = Resident.options(num_cpus=1, scheduling_strategy=InGroup(group, 0)).remote()
    umbel.get(actor.whereabouts.remote(), timeout=SOON_S)
    free = umbel.available_resources()
    assert (free[f"CPU_group_0_{one}"], free[f"CPU_group_{one}"], free["CPU"]) == (1.0, 2.0, 1.0)


def test_what_a_removed_group_held_is_free_again(make: Callable[..., PlacementGroup], eventually: Any) -> None:
    group = make([{"CPU": 4}])
    assert group.wait(SOON_S)
    assert "CPU" not in umbel.available_resources()
    remove_placement_group(group)
    remove_placement_group(group)  # twice is no error
    eventually(lambda: umbel.available_resources().get("CPU") == 4.0)
    assert not [name for name in umbel.cluster_resources() if "group" in name]


def test_removal_ends_tasks_with_the_right_error(
    make: Callable[..., PlacementGroup], signal: Any, eventually: Any
) -> None:
    group = make([{"CPU": 1}])
    inside = held_back.options(scheduling_strategy=InGroup(group))
    running = inside.remote(signal)
    waiting = [inside.remote(signal) for _ in range(3)]
    eventually(lambda: not umbel.wait([running, *waiting], num_returns=4, timeout=0.05)[0])
    remove_placement_group(group)
    for ref in (running, *waiting):
        with pytest.raises(exceptions.TaskPlacementGroupRemoved, match=group.id.hex()):
            umbel.get(ref, timeout=SOON_S)
    later = whereabouts.options(scheduling_strategy=InGroup(group)).remote()
    with pytest.raises(exceptions.TaskPlacementGroupRemoved, match="remove_placement_group"):
        umbel.get(later, timeout=SOON_S)
    assert umbel.get(whereabouts.remote(), timeout=SOON_S)[0] is None


def test_removal_ends_actors_with_the_right_error(make: Callable[..., PlacementGroup], signal: Any) -> None:
    group = make([{"CPU": 2}])
    actor = Resident.options(num_cpus=1, max_restarts=-1, scheduling_strategy=InGroup(group)).remote()
    umbel.get(actor.whereabouts.remote(), timeout=SOON_S)
    busy = actor.wait.remote(signal)
    remove_placement_group(group)
    with pytest.raises(exceptions.ActorPlacementGroupRemoved, match=group.id.hex()):
        umbel.get(busy, timeout=SOON_S)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.whereabouts.remote(), timeout=SOON_S)
    later = Resident.options(num_cpus=1, scheduling_strategy=InGroup(group)).remote()
    with pytest.raises(exceptions.ActorPlacementGroupRemoved):
        umbel.get(later.whereabouts.remote(), timeout=SOON_S)


def test_whoever_waits_for_a_group_that_is_removed_is_told(make: Callable[..., PlacementGroup]) -> None:
    blocker = make([{"CPU": 4}])
    assert blocker.wait(SOON_S)
    group = make([{"CPU": 1}])
    ref = group.ready()
    assert not group.wait(0)
    task = whereabouts.options(scheduling_strategy=InGroup(group)).remote()
    actor = Resident.options(num_cpus=1, scheduling_strategy=InGroup(group)).remote()
    call = actor.whereabouts.remote()
    assert umbel.wait([ref, task, call], timeout=0.05)[0] == []
    remove_placement_group(group)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        umbel.get(ref, timeout=SOON_S)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        umbel.get(task, timeout=SOON_S)
    with pytest.raises(exceptions.ActorPlacementGroupRemoved):
        umbel.get(call, timeout=SOON_S)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        group.wait(SOON_S)


def test_a_group_waits_for_room_and_is_placed_then(make: Callable[..., PlacementGroup]) -> None:
    blocker = make([{"CPU": 3}])
    assert blocker.wait(SOON_S)
    group = make([{"CPU": 2}])
    task = whereabouts.options(scheduling_strategy=InGroup(group)).remote()
    assert not group.wait(0.05)
    told = umbel.explain(group.ready())
    assert f"placement group {group.id.hex()}" in told
    assert "room" in told
    assert "room" in umbel.explain(task)
    remove_placement_group(blocker)
    assert group.wait(SOON_S)
    assert umbel.get(task, timeout=SOON_S)[0] == group.id.hex()


def test_what_one_node_cannot_hold_is_infeasible_and_says_so(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert not group.wait(0.05)
    told = umbel.explain(group.ready())
    assert "its 2 bundles need as many nodes, one each (STRICT_SPREAD), but 1 node is alive" in told
    assert placement_group_table(group)["stats"]["scheduling_state"] == "INFEASIBLE"
    large = make([{"CPU": 5}])
    assert "bundle 0 needs {CPU: 5}, which no node that may hold it has in all" in umbel.explain(large.ready())
    assert make([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD").wait(SOON_S)
    assert make([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_PACK").wait(SOON_S)


def test_the_table_tells_what_ray_s_tells(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}, {"CPU": 0.5}], strategy="SPREAD", name="tabled")
    assert group.wait(SOON_S)
    row = placement_group_table(group)
    here = umbel.get_runtime_context().get_node_id()
    assert row.pop("stats")["scheduling_state"] == "FINISHED"
    assert row == {
        "placement_group_id": group.id.hex(),
        "name": "tabled",
        "bundles": {0: {"CPU": 1.0}, 1: {"CPU": 0.5}},
        "bundles_to_node_id": {0: here, 1: here},
        "strategy": "SPREAD",
        "state": "CREATED",
    }
    assert placement_group_table()[group.id.hex()]["name"] == "tabled"
    remove_placement_group(group)
    assert placement_group_table(group)["state"] == "REMOVED"
    assert placement_group_table(PlacementGroup.empty()) == {}


def test_the_table_of_one_group_is_made_of_no_other(
    make: Callable[..., PlacementGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand removed groups may be remembered; who asks for one does not pay for them."""
    group, removed = make([{"CPU": 1}]), make([{"CPU": 1}])
    remove_placement_group(removed)
    rows: list[str] = []
    row_of = table_module._as_row

    def counted(one: Mapping[str, Any]) -> dict[str, Any]:
        rows.append(one["group"])
        return row_of(one)

    monkeypatch.setattr(table_module, "_as_row", counted)
    assert placement_group_table(group)["placement_group_id"] == group.id.hex()
    assert placement_group_table(removed)["state"] == "REMOVED"
    assert rows == [group.id.hex(), removed.id.hex()]
    assert {group.id.hex(), removed.id.hex()} <= placement_group_table().keys()


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"bundles": []}, "non-empty list"),
    ({"bundles": "x"}, "non-empty list"),
    ({"bundles": ["x"]}, "non-empty list"),
    ({"bundles": [{}]}, "must have something in it"),
    ({"bundles": [{"CPU": 0}]}, "must have something in it"),
    ({"bundles": [{"CPU": -1}]}, "must be a number >= 0"),
    ({"bundles": [{"GPU": 1.5}]}, "must be a whole number"),
    ({"bundles": [{"CPU": 1}], "strategy": "x"}, "must be one of PACK, SPREAD"),
    ({"bundles": [{"CPU": 1}], "lifetime": "x"}, "lifetime must be"),
    ({"bundles": [{"CPU": 1}], "_soft_target_node_id": "ab"}, "STRICT_PACK"),
    ({"bundles": [{"CPU": 1}], "bundle_label_selector": [{}, {}]}, "list of 1 dicts"),
    ({"bundles": [{"CPU": 1}], "bundle_label_selector": [{"a": "in("}]}, "label selector"),
]


@pytest.mark.parametrize(("given", "says"), _BAD)
def test_a_group_that_makes_no_sense_is_refused(engine: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        placement_group(**given)


def test_wrong_arguments_are_named(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 1}])
    wrong: Any = 5
    with pytest.raises(TypeError, match="name must be a str, got 5; omit it for no name"):
        make([{"CPU": 1}], name=wrong)
    with pytest.raises(ValueError, match=r"get_placement_group\(\) takes the name of a group, .* got 5"):
        get_placement_group(wrong)
    for function in (remove_placement_group, placement_group_table):
        with pytest.raises(
            TypeError, match=rf"{function.__name__}\(\) takes a PlacementGroup, got 5; placement_group\(\)"
        ):
            function(wrong)
    wrong = "x"
    with pytest.raises(TypeError, match="timeout_seconds must be a number of seconds or None, got 'x'"):
        group.wait(wrong)
    assert group.wait(20)


def test_what_fits_into_no_bundle_is_refused_at_once(make: Callable[..., PlacementGroup]) -> None:
    group = make([{"CPU": 2}, {"CPU": 1}])
    for options, says in (
        ({"scheduling_strategy": InGroup(group, 2)}, "below 2, the number of bundles"),
        ({"scheduling_strategy": InGroup(group, -2)}, ">= -1"),
        ({"scheduling_strategy": InGroup(group), "num_cpus": 3}, "does not fit into any bundle"),
        ({"scheduling_strategy": InGroup(group, 1), "num_cpus": 2}, "does not fit into bundle 1"),
        ({"scheduling_strategy": "SPREAD", "placement_group": group}, "were both given"),
        ({"placement_group_bundle_index": 1}, "where there is no placement group"),
        ({"placement_group": None, "placement_group_bundle_index": 1}, "where there is no placement group"),
    ):
        with pytest.raises(ValueError, match=says):
            whereabouts.options(**options).remote()
    for wrong in ({"placement_group": 3}, {"scheduling_strategy": InGroup(3)}):
        with pytest.raises(TypeError, match="PlacementGroup"):
            whereabouts.options(**wrong).remote()
    none = make([{"memory": 1 << 20}]) if "memory" in umbel.cluster_resources() else None
    if none is not None:
        with pytest.raises(ValueError, match="does not fit into any bundle"):
            Resident.options(scheduling_strategy=InGroup(none)).remote()


def test_labels_choose_the_node(make: Callable[..., PlacementGroup]) -> None:
    elsewhere = make([{"CPU": 1}], bundle_label_selector=[{"zone": "mars"}])
    assert not elsewhere.wait(0.05)
    assert "needs a node with labels like {'zone': 'mars'}" in umbel.explain(elsewhere.ready())
    assert make([{"CPU": 1}], bundle_label_selector=[{"zone": "!mars"}]).wait(SOON_S)
