"""Who hosts the ranks of a group, and what does not fit together."""

from __future__ import annotations

import pytest

from umbel.util.collective.meeting import Arrival, Closed, Declaration, Join, Lead, Meeting, Refuse

DECLARATION = Declaration(2, "shm", 30.0, {"ab": 0, "cd": 1})


def rank(number: int, world_size: int = 2, backend: str = "shm", door: bytes | None = None) -> Arrival:
    return Arrival(number, world_size, backend, b"door %d" % number if door is None else door, b"process %d" % number)


def declared() -> Meeting:
    meeting = Meeting()
    meeting.declare(DECLARATION)
    return meeting


def test_rank_that_calls_a_meeting_is_its_host_even_if_it_comes_last() -> None:
    """Otherwise the place would end with a rank that is refused there."""
    meeting = Meeting(rank(2, 3))
    assert meeting.arrive(rank(0, 3)) == Join(b"door 2", b"process 2")
    assert meeting.arrive(rank(2, 3)) == Lead()
    assert meeting.arrive(rank(1, 3)) == Join(b"door 2", b"process 2")


def test_meeting_of_a_rank_is_for_one_round() -> None:
    meeting = Meeting(rank(0))
    meeting.arrive(rank(1))
    assert meeting.arrive(rank(1)) == Closed()


def test_first_to_arrive_at_a_declared_group_hosts_whatever_its_rank() -> None:
    meeting = declared()
    assert meeting.arrive(rank(1)) == Lead()
    assert meeting.arrive(rank(0)) == Join(b"door 1", b"process 1")
    assert meeting.arrive(rank(0)) == Lead()  # another round
    assert meeting.arrive(rank(1)) == Join(b"door 0", b"process 0")


def test_group_of_one_needs_nobody() -> None:
    meeting = declared()
    assert [meeting.arrive(rank(0, 1)), meeting.arrive(rank(0, 1))] == [Lead(), Lead()]
    assert Meeting(rank(0, 1)).arrive(rank(0, 1)) == Lead()


def test_what_does_not_fit_is_refused_and_the_round_goes_on() -> None:
    meeting = Meeting(rank(0))
    for answer, words in (
        (meeting.arrive(rank(1, 3)), "rank 1 came for 3 ranks by 'shm', and rank 0 for 2 by 'shm'"),
        (meeting.arrive(rank(1, backend="gloo")), "rank 1 came for 2 ranks by 'gloo'"),
        (meeting.arrive(rank(0, door=b"another")), "two processes came as rank 0"),
    ):
        assert isinstance(answer, Refuse)
        assert words in answer.text
    assert meeting.arrive(rank(1)) == Join(b"door 0", b"process 0")


@pytest.mark.parametrize(("meeting", "answer"), [(declared(), Lead()), (Meeting(rank(0)), Closed())])
def test_round_of_a_host_that_gave_up_is_over(meeting: Meeting, answer: object) -> None:
    meeting.arrive(rank(0))
    meeting.abandon(b"door of nobody")
    assert isinstance(meeting.arrive(rank(0, door=b"another")), Refuse)  # it goes on
    meeting.abandon(b"door 0")
    assert meeting.arrive(rank(1)) == answer


def test_group_is_declared_once() -> None:
    meeting = declared()
    assert meeting.declaration == DECLARATION
    assert meeting.declare(DECLARATION) != ""
    called = Meeting(rank(0))
    refused = called.declare(DECLARATION)
    assert isinstance(refused, str)
    assert "already" in refused
    called.abandon(b"door 0")
    assert called.declare(DECLARATION) == Closed()
