"""Who hosts the ranks of a group, and what does not fit together."""

from __future__ import annotations

from umbel.util.collective.meeting import Declaration, Join, Lead, Meeting, Refuse


def test_first_to_arrive_hosts_whatever_its_rank() -> None:
    meeting = Meeting()
    assert meeting.arrive(2, 3, "shm", b"door 2") == Lead()
    assert meeting.arrive(0, 3, "shm", b"door 0") == Join(b"door 2")
    assert meeting.arrive(1, 3, "shm", b"door 1") == Join(b"door 2")


def test_when_all_have_come_the_next_begins_another_round() -> None:
    meeting = Meeting()
    meeting.arrive(0, 2, "shm", b"a")
    meeting.arrive(1, 2, "shm", b"b")
    assert meeting.arrive(1, 2, "shm", b"c") == Lead()
    assert meeting.arrive(0, 2, "shm", b"d") == Join(b"c")


def test_group_of_one_needs_nobody() -> None:
    meeting = Meeting()
    assert [meeting.arrive(0, 1, "shm", b"a"), meeting.arrive(0, 1, "shm", b"b")] == [Lead(), Lead()]


def test_what_does_not_fit_is_refused_and_the_round_goes_on() -> None:
    meeting = Meeting()
    meeting.arrive(0, 2, "shm", b"a")
    for answer, words in (
        (meeting.arrive(1, 3, "shm", b"b"), "rank 1 came for 3 ranks by 'shm', and rank 0 for 2 by 'shm'"),
        (meeting.arrive(1, 2, "gloo", b"b"), "rank 1 came for 2 ranks by 'gloo'"),
        (meeting.arrive(0, 2, "shm", b"b"), "two processes came as rank 0"),
    ):
        assert isinstance(answer, Refuse)
        assert words in answer.text
    assert meeting.arrive(1, 2, "shm", b"b") == Join(b"a")


def test_round_of_a_host_that_gave_up_is_over() -> None:
    meeting = Meeting()
    meeting.arrive(0, 2, "shm", b"a")
    meeting.abandon(b"a")
    assert meeting.arrive(1, 2, "shm", b"b") == Lead()
    meeting.abandon(b"a")  # told twice
    assert meeting.arrive(0, 2, "shm", b"c") == Join(b"b")


def test_group_is_declared_once() -> None:
    meeting = Meeting()
    declaration = Declaration(2, "shm", 30.0, {"ab": 0, "cd": 1})
    assert meeting.declare(declaration) == ""
    assert meeting.declaration == declaration
    assert "already" in meeting.declare(declaration)
    begun = Meeting()
    begun.arrive(0, 2, "shm", b"a")
    assert "already" in begun.declare(declaration)
