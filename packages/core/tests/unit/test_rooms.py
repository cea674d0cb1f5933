"""What room nodes have left of what they are asked for."""

from __future__ import annotations

import pytest

from umbel import exceptions
from umbel._model.placement import NodeView
from umbel._model.resources import ResourceSet
from umbel._scheduling.rooms import Rooms


def node(name: str, **free: int) -> NodeView:
    return NodeView(name, ResourceSet(free), ResourceSet(free))


class Asker:
    def __init__(self, turn: int, resources: dict[str, int], **on: int) -> None:
        self.order = (0, turn)
        self.resources = ResourceSet(resources)
        self.on = on


def free(rooms: Rooms) -> dict[str, dict[str, int]]:
    rooms.check()
    return {one.node_id: dict(one.available) for one in rooms.view().nodes}


def test_a_node_has_what_it_has_said_less_what_is_asked_of_it() -> None:
    one = Asker(1, {"CPU": 2}, a=1, b=3)
    rooms = Rooms({"a": node("a", CPU=5), "b": node("b", CPU=4), "c": node("c", CPU=1)}, {"a": {one}, "b": {one}})
    assert free(rooms) == {"a": {"CPU": 3}, "b": {}, "c": {"CPU": 1}}
    assert [rooms.fitting(one, name) for name in ("a", "b", "c", "gone")] == [1, 2, 0, 0]


def test_who_comes_first_gets_what_there_is_and_others_what_fits_beside_it() -> None:
    first, wide, last = Asker(1, {"CPU": 2}, a=1), Asker(2, {"CPU": 2, "GPU": 1}, a=1), Asker(3, {"CPU": 1}, a=2)
    rooms = Rooms({"a": node("a", CPU=4)}, {"a": {last, wide, first}})
    assert [rooms.fitting(one, "a") for one in (first, wide, last)] == [1, 0, 2]
    assert free(rooms) == {"a": {}}


def test_a_node_is_another_one_once_it_was_said_to_have_changed() -> None:
    one = Asker(1, {"CPU": 1}, a=1)
    nodes, asking = {"a": node("a", CPU=2)}, {"a": {one}}
    rooms = Rooms(nodes, asking)
    assert free(rooms) == {"a": {"CPU": 1}}
    one.on["a"] = 2
    rooms.changed("a")
    assert free(rooms) == {"a": {}}
    nodes["a"], nodes["b"] = node("a", CPU=7), node("b", CPU=1)
    rooms.changed("a")
    rooms.changed("b")
    assert free(rooms) == {"a": {"CPU": 5}, "b": {"CPU": 1}}
    del nodes["a"], asking["a"]
    rooms.changed("a")
    assert free(rooms) == {"b": {"CPU": 1}}
    assert rooms.fitting(one, "a") == 0


def test_some_node_has_room_for_what_fits_in_what_is_left_of_one() -> None:
    one = Asker(1, {"CPU": 2}, a=1)
    rooms = Rooms({"a": node("a", CPU=3), "b": node("b", GPU=1)}, {"a": {one}})
    assert rooms.has_any_for(ResourceSet({"CPU": 1}))
    assert not rooms.has_any_for(ResourceSet({"CPU": 2}))
    assert not rooms.has_any_for(ResourceSet({"CPU": 1, "GPU": 1})), "which no node has both of"


def test_check_finds_a_node_of_which_nobody_was_told_that_it_is_gone() -> None:
    nodes = {"a": node("a", CPU=3)}
    rooms = Rooms(nodes, {})
    assert free(rooms) == {"a": {"CPU": 3}}
    nodes.clear()
    with pytest.raises(exceptions.InternalError, match="what room nodes have left is old"):
        rooms.check()
