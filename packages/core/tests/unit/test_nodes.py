"""Ids of processes tell their node."""

from umbel._base import nodes


def test_process_ids_tell_their_node_and_differ_from_their_first_bytes_on() -> None:
    here, there = nodes.new_node_id(), nodes.new_node_id()
    mine = {nodes.new_process_id(here) for _ in range(100)}
    assert len({one[:4] for one in mine}) == 100
    assert {len(one) for one in mine} == {nodes.PROCESS_ID_BYTES}
    assert {nodes.tag_of_process(one) for one in mine} == {nodes.tag_of_node(here)} != {nodes.tag_of_node(there)}
