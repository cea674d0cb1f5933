"""What a node knows of others of which it may lease workers."""

from __future__ import annotations

from typing import Any

from umbel._agent.lease_nodes import ROOM_COUNTS_S, LeaseNodes

FREE, BUSY = {"CPU": 10_000}, {"CPU": 0}


def known() -> LeaseNodes:
    made = LeaseNodes()
    made.enter({"node_id": "b", "available": FREE})
    return made


def change(available: Any) -> dict[str, Any]:
    return {"node_id": "b", "available": available}


def room(available: Any, returns: int = 0) -> dict[str, Any]:
    return {"available": available, "returns": returns}


def test_what_the_head_says_while_a_nodes_own_word_counts_is_looked_at_after_that() -> None:
    """A process whose leases were all that was used there had ended: the node told only the head that it was free. Before: what
    waited here heard of that with the next change there, if any."""
    made = known()
    made.room_told("b", room(BUSY), 10.0)
    assert not made.changed(change(FREE), 11.5)
    assert list(made.due_s()) == [10.0 + ROOM_COUNTS_S]
    assert made.due(11.9) == []
    assert made.due(12.0) == ["b"]
    assert made.free("b") == FREE
    assert (made.due(20.0), list(made.due_s())) == ([], [])
    assert made.changed(change(BUSY), 20.0)


def test_what_a_node_says_itself_since_then_counts() -> None:
    made = known()
    made.room_told("b", room(FREE), 10.0)
    assert not made.changed(change(FREE), 11.0)
    made.room_told("b", room(BUSY), 11.5)
    assert made.due(20.0) == []
    assert made.free("b") == BUSY


def test_a_node_that_cannot_be_reached_is_looked_at_when_it_is_to_be_tried_again_and_a_dead_one_never() -> None:
    made = known()
    made.room_told("b", room(BUSY), 10.0)
    made.changed(change(FREE), 11.0)
    made.lost("b", 13.0)
    assert not made.changed(change(FREE), 12.5)
    assert (made.due(12.9), made.due(13.0)) == ([], ["b"])
    made.room_told("b", room(BUSY), 14.0)
    made.changed(change(FREE), 15.0)
    assert made.died("b", {}) == ""
    assert made.due(20.0) == []


def test_a_lease_that_was_given_back_is_room_until_the_node_has_heard_so() -> None:
    """What the node had said before, that all was in use, came after a lease was given back, and undid that: a task went where
    less of its arguments was."""
    made = known()
    made.room_told("b", room(BUSY), 10.0)
    assert made.given_back("b", FREE)
    assert made.free("b") == FREE
    made.room_told("b", room(BUSY), 10.1)
    assert made.free("b") == FREE
    assert made.given_back("b", FREE)
    made.room_told("b", room(BUSY, 1), 10.2)
    assert made.free("b") == FREE
    made.room_told("b", room(FREE, 2), 10.3)
    assert made.free("b") == FREE
    assert made.given_back("b", {}) is False


def test_what_the_head_says_does_not_undo_what_was_given_back() -> None:
    made = known()
    made.room_told("b", room(BUSY), 10.0)
    made.given_back("b", FREE)
    assert not made.changed(change(BUSY), 11.0)
    assert made.free("b") == FREE
    made.room_told("b", room(FREE, 1), 11.5)
    assert (made.due(20.0), made.free("b")) == ([], FREE)


def test_what_was_given_back_by_a_connection_that_broke_counts_no_more() -> None:
    made = known()
    made.room_told("b", room(BUSY), 10.0)
    made.given_back("b", FREE)
    made.lost("b", 11.0)
    made.room_told("b", room(BUSY), 12.0)
    assert made.free("b") == BUSY
    made.given_back("b", FREE)
    made.room_told("b", room(BUSY, 1), 12.5)
    assert made.free("b") == BUSY
