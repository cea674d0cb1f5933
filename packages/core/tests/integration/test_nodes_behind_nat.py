"""Nodes that can dial others, and cannot be dialled: behind NAT, or a firewall."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import drivers
import homes
import network
import pytest
from machines import Machines

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 60


@contextlib.contextmanager
def _cluster(behind_nat: Sequence[int], resources: Sequence[Mapping[str, int]]) -> Iterator[Machines]:
    cables = network.Network(len(resources), behind_nat)
    try:
        with homes.own_home() as home:
            made = Machines(cables, home)
            try:
                made.start(resources)
                yield made
            finally:
                made.end()
    finally:
        cables.close()


USES_THERE = """
    size = 4 << 20
    say(get(where.remote()))
    made = makes.remote(size)
    data = bytes(range(256)) * (size // 256)
    say(zlib.crc32(get(made)) == zlib.crc32(data))
    say(get(checksum.remote(umbel.put(data))) == zlib.crc32(data))
    counter = Counter.remote()
    say(get([counter.add.remote() for _ in range(3)]))
"""


AGAIN = """
    say("again?")
    sys.stdin.readline()
    say(get(where.remote()), get(makes.options(max_retries=3).remote(size)) == data)  # where it was connected it may have begun
"""


def _is_used(program: drivers.Driver, node_id: str) -> None:
    """What `USES_THERE` says: a task, a large value from there, one to there, and an actor."""
    assert program.line() == node_id
    assert program.line() == "True"
    assert program.line() == "True"
    assert program.line() == "[1, 2, 3]"


def test_a_node_behind_nat_is_used_from_another_node() -> None:
    with _cluster(behind_nat=[1], resources=[{}, {"there": 4}, {}]) as made:
        there = made.nodes[1].node_id
        program = made.program(USES_THERE)
        _is_used(program, there)
        assert made.ways(2) == {there: "by connections that it makes itself"}
        assert program.finish(TIMEOUT_S)[0] == ""


def test_a_node_behind_nat_runs_programs_that_use_another_node() -> None:
    """Which sends what comes of it, and reads what the program has."""
    with _cluster(behind_nat=[2], resources=[{}, {"there": 4}, {}]) as made:
        program = made.program(USES_THERE)
        _is_used(program, made.nodes[1].node_id)
        assert program.finish(TIMEOUT_S)[0] == ""


def test_a_node_behind_a_firewall_that_answers_nothing_is_used_from_the_head() -> None:
    with _cluster(behind_nat=[], resources=[{}, {"there": 4}]) as made:
        made.network.refuse_dials(1)
        program = made.program(USES_THERE, host=0)
        _is_used(program, made.nodes[1].node_id)
        assert program.finish(TIMEOUT_S)[0] == ""
        assert made.ways(0) == {made.nodes[1].node_id: "by connections that it makes itself"}


def test_nodes_behind_different_nats_meet_at_the_head() -> None:
    """Both have the same address, in networks of their own."""
    with _cluster(behind_nat=[1, 2], resources=[{}, {"there": 4}, {}]) as made:
        program = made.program(USES_THERE + AGAIN)
        _is_used(program, made.nodes[1].node_id)
        assert made.ways(2)[made.nodes[1].node_id] == "through the head"
        assert program.line() == "again?"
        drivers.kill(made.forwarder())
        program.tell()
        assert program.finish(TIMEOUT_S)[0].splitlines() == [f"{made.nodes[1].node_id} True"]
