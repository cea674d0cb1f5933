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


def room(available: Any) -> dict[str, Any]:
    return {"available": available}


def test_what_the_head_says_while_a_nodes_own_word_counts_is_looked_at_after_that() -> None:
    """A process whose leases were all that was used there had ended: the node told only the head that it was free. Before: what
    waited here heard of that with the next change there, if any."""
    made = known()
    made.room_told("b", room(BUSY), 10.0)
    assert not made.changed(change(FREE), 11.5)
    assert list(made.due_s()) == [10.0 + ROOM_COUNTS_S]
    assert made.due(11.9) == []
    assert made.due(12.0) == ["b"]
    assert made.members["b"]["available"] == FREE
    assert (made.due(20.0), list(made.due_s())) == ([], [])
    assert made.changed(change(BUSY), 20.0)


def test_what_a_node_says_itself_since_then_counts() -> None:
    made = known()
    made.room_told("b", room(FREE), 10.0)
    assert not made.changed(change(FREE), 11.0)
    made.room_told("b", room(BUSY), 11.5)
    assert made.due(20.0) == []
    assert made.members["b"]["available"] == BUSY


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
