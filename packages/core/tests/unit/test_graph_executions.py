"""The driver's book of a compiled graph: limits, results in and out of order, references that go."""

from __future__ import annotations

import random

import pytest

from umbel import exceptions
from umbel._client.graphs.executions import Executions


def book(outputs: int = 1, in_flight_max: int = 2, buffered_max: int = 2) -> Executions:
    return Executions(outputs, in_flight_max=in_flight_max, buffered_max=buffered_max)


def test_no_more_executions_than_may_be_in_flight() -> None:
    executions = book()
    assert [executions.submit(), executions.submit()] == [0, 1]
    assert executions.submit() is None
    executions.receive(0, "first")
    assert executions.submit() == 2
    executions.receive(0, "second")
    executions.receive(0, "third")
    with pytest.raises(exceptions.InternalError, match="without an execution"):
        executions.receive(0, "fourth")


def test_an_execution_is_in_flight_until_all_its_outputs_have_come() -> None:
    executions = book(outputs=2, in_flight_max=1)
    executions.submit()
    executions.receive(1, "b")
    assert executions.submit() is None
    executions.receive(0, "a")
    assert executions.submit() == 1
    assert [executions.take(0, 1), executions.take(0, 0)] == ["b", "a"]


def test_results_read_out_of_order_are_buffered_up_to_a_limit() -> None:
    executions = book(in_flight_max=4, buffered_max=1)
    for _ in range(3):
        executions.submit()
    assert executions.may_receive(2, 0)
    executions.receive(0, "first")
    assert not executions.may_receive(2, 0)
    assert executions.may_receive(1, 0), "the one that is asked for is not buffered"
    assert executions.take(0, 0) == "first"
    assert executions.may_receive(2, 0)


def test_a_result_nobody_wants_is_not_kept() -> None:
    executions = book()
    executions.submit()
    executions.drop(0, 0)
    assert executions.held_up_by() is None, "another may be in flight"
    executions.submit()
    assert executions.held_up_by() == 0
    executions.receive(0, "unwanted")
    assert (executions.buffered, executions.held_up_by()) == (0, None)
    executions.receive(0, "wanted")
    executions.drop(1, 0)
    assert executions.buffered == 0
    executions.check()


def test_other_results_of_an_execution_are_taken_in_once_one_has_come() -> None:
    executions = book(outputs=2, in_flight_max=1, buffered_max=1)
    executions.submit()
    assert executions.held_up_by() is None, "somebody will ask for them"
    executions.receive(0, "a")
    assert executions.held_up_by() is None, "there is no room for another"
    assert executions.take(0, 0) == "a"
    assert executions.held_up_by() == 1
    executions.receive(1, "b")
    assert (executions.held_up_by(), executions.in_flight, executions.take(0, 1)) == (None, 0, "b")


@pytest.mark.parametrize("seed", range(20))
def test_each_result_reaches_its_reference_once_or_nobody(seed: int) -> None:
    chance = random.Random(seed)
    executions = book(outputs=2, in_flight_max=3, buffered_max=100)
    wanted: list[tuple[int, int]] = []
    for _ in range(300):
        move = chance.randrange(4)
        if move == 0:
            number = executions.submit()
            wanted += [] if number is None else [(number, 0), (number, 1)]
        elif move == 1:
            output = chance.randrange(2)
            if executions.arrived[output] < executions.submitted:
                executions.receive(output, (executions.arrived[output], output))
        elif wanted:
            key = wanted.pop(chance.randrange(len(wanted)))
            if move == 2 and not executions.awaits(*key):
                assert executions.take(*key) == key
            else:
                executions.drop(*key)
        executions.check()
