"""Where tasks of placement groups may be asked for, and what there is room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from umbel._model.resources import ResourceSet
from umbel._scheduling.group_places import COUNT_MAX, UNIT, GroupPlaces, Kind

Units = Mapping[str, int]


def cpus(count: float) -> ResourceSet:
    return ResourceSet.from_floats({"CPU": count})


def kind(needs: float = 1, bundle: int = -1) -> Kind:
    return Kind("g", bundle, cpus(needs))


def followed(nodes: Sequence[str], bundles: Sequence[float] = (1, 2)) -> GroupPlaces:
    made = GroupPlaces()
    assert made.begins("g")
    assert made.told("g", nodes, [cpus(one) for one in bundles], "", is_gone=False)
    return made


def rooms(places: GroupPlaces, node: str, *kinds: Kind) -> list[tuple[int, int]]:
    """How often each fits in all, and now."""
    total, free = places.as_resources(node, kinds)
    return [(total.get(one.name, 0) // UNIT, free.get(one.name, 0) // UNIT) for one in kinds]


def test_the_head_is_asked_once() -> None:
    places = GroupPlaces()
    assert places.begins("g")
    assert not places.begins("g")
    assert places.homes(kind()) == []
    assert places.reason(kind()) == "is being asked for at the head"
    assert not places.told("other", ["a"], [cpus(1)], "", is_gone=False)
    places.told("g", [], [], "it was removed", is_gone=True)
    assert places.homes(kind()) == []
    places.forget("g")
    assert places.begins("g")


def test_a_task_may_run_on_the_nodes_of_bundles_that_hold_it() -> None:
    places = followed(["a", "b"])
    assert places.homes(kind(1)) == ["a", "b"]
    assert places.homes(kind(2)) == ["b"]
    assert places.homes(kind(1, 0)) == ["a"]


def test_bundles_of_one_node_are_counted_each_by_itself() -> None:
    """Two with one CPU do not hold a task of two. (design/0031)"""
    places = followed(["a", "a", "a"], (1, 1, 3))
    assert rooms(places, "a", kind(1), kind(2), kind(3), kind(1, 0)) == [(5, 5), (1, 1), (1, 1), (1, 1)]
    assert rooms(places, "b", kind(1)) == [(0, 0)]
    places.room_told("a", {("g", 0): cpus(0), ("g", 2): cpus(2)})
    assert rooms(places, "a", kind(1), kind(2), kind(3), kind(1, 0)) == [(5, 3), (1, 1), (1, 0), (1, 0)]


def test_what_needs_nothing_fits_often() -> None:
    places = followed(["a", "b"])
    assert rooms(places, "a", Kind("g", -1, ResourceSet({}))) == [(COUNT_MAX, COUNT_MAX)]


def test_with_a_node_its_bundles_are_lost_until_the_head_says_where_they_are() -> None:
    places = followed(["a", "b"])
    places.room_told("b", {("g", 1): cpus(0)})
    assert places.node_lost("b") == ["g"]
    assert places.node_lost("c") == []
    assert places.homes(kind(2)) == []
    assert places.reason(kind(2)) == "has no place for bundle 1: its node is dead"
    assert places.homes(kind(1)) == ["a"]
    places.told("g", ["a", ""], [cpus(1), cpus(2)], "waits for room on node c", is_gone=False)
    assert places.reason(kind(2)) == "has no place for bundle 1: waits for room on node c"
    places.told("g", ["a", "b"], [cpus(1), cpus(2)], "", is_gone=False)
    assert rooms(places, "b", kind(2)) == [(1, 1)]  # as it says nothing yet, all of it


def test_what_can_never_run_in_the_group_says_so() -> None:
    places = followed(["a", ""])
    assert places.trouble(kind(2)) == ""
    assert "no bundle of placement group g that it may run in has {'CPU': 3.0}" in places.trouble(kind(3))
