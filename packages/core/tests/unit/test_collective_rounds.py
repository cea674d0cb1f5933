"""What a rank makes of what the others send: events in, commands out."""

from __future__ import annotations

import pytest

from umbel import exceptions
from umbel.util.collective import rounds
from umbel.util.collective.rounds import Done, Fail, Fault, Frame, Kind, Problem, Rounds, Send

SUM = "allreduce(sum) of float32 (3,)"


def step(text: str = SUM, body: bytes = b"") -> Frame:
    return Frame(Kind.STEP, text, body)


def problem_in(commands: list[rounds.Command]) -> Problem:
    (fail,) = [one for one in commands if isinstance(one, Fail)]
    return fail.problem


def test_step_is_over_when_all_have_called_it() -> None:
    me = Rounds(0, 3)
    assert me.step(SUM, {1: b"x"}) == [Send(1, step(body=b"x")), Send(2, step())]
    assert me.arrived(2, step(body=b"two")) == []
    assert me.arrived(1, step(body=b"one")) == [Done({2: b"two", 1: b"one"})]
    assert not me.is_waiting


def test_alone_in_a_group_nobody_is_waited_for() -> None:
    assert Rounds(0, 1).step(SUM) == [Done({})]


def test_rank_that_is_ahead_is_heard_in_its_turn() -> None:
    me = Rounds(0, 2)
    assert me.arrived(1, step()) == []
    assert me.step(SUM) == [Send(1, step()), Done({1: b""})]
    me.step(SUM)
    me.arrived(1, step(body=b"this"))
    assert me.arrived(1, step("", b"next")) == []
    assert me.step("")[-1] == Done({1: b"next"})
    me.check()


def test_mismatch_is_told_alike_at_every_rank_and_the_group_goes_on() -> None:
    other = "barrier"
    ranks = [Rounds(rank, 3) for rank in range(3)]
    texts = [SUM, other, SUM]
    for me, text in zip(ranks, texts, strict=True):
        me.step(text)
    found = []
    for rank, me in enumerate(ranks):
        commands: list[rounds.Command] = []
        for peer, text in enumerate(texts):
            if peer != rank:
                commands = me.arrived(peer, step(text))
        found.append(problem_in(commands))
        assert me.problem is None
    assert {one.text for one in found} == {f"ranks 0, 2 called {SUM}; rank 1 called barrier"}
    assert ranks[0].step(other)[:1] == [Send(1, step(other))]


def test_death_of_an_awaited_rank_breaks_the_group_and_the_others_are_told() -> None:
    me = Rounds(0, 3)
    me.step(SUM)
    commands = me.gone(1)
    problem = Problem(Fault.DIED, 1, f"rank 1 died, or ended without leaving, and rank 0 needs it for {SUM}")
    assert commands == [Send(2, Frame(Kind.BROKEN, problem.encoded())), Fail(problem)]
    assert me.step(SUM) == me.offer(2, "x", b"") == me.expect(2, "x") == [Fail(problem)]
    me.check()


def test_what_a_rank_sent_before_its_death_counts() -> None:
    me = Rounds(0, 2)
    me.arrived(1, step(body=b"last words"))
    assert me.gone(1) == []
    assert me.step(SUM)[-1] == Done({1: b"last words"})
    assert problem_in(me.step(SUM)).fault is Fault.DIED


def test_verdict_of_another_rank_is_taken_over_and_passed_on() -> None:
    """That of rank 1, which has noticed the death of rank 3; rank 2 may wait for this one alone."""
    problem = Problem(Fault.DIED, 3, "rank 3 died")
    me = Rounds(0, 4)
    me.step(SUM)
    commands = me.arrived(1, Frame(Kind.BROKEN, problem.encoded()))
    assert [one.rank for one in commands if isinstance(one, Send)] == [1, 2, 3]
    assert problem_in(commands) == problem


def test_step_that_failed_elsewhere_does_not_succeed_here() -> None:
    """Rank 1 waited for this one, which was stopped, until its time was up."""
    me = Rounds(0, 2)
    problem = Problem(Fault.TIMEOUT, 0, "rank 1 waited")
    me.arrived(1, step())
    me.arrived(1, Frame(Kind.BROKEN, problem.encoded()))
    assert problem_in(me.step(SUM)) == problem


def test_rank_that_gives_up_after_its_part_of_a_step_ends_the_wait_for_another() -> None:
    """Rank 1 was interrupted while it waited for rank 2, which is stopped."""
    me = Rounds(0, 3)
    problem = Problem(Fault.FAILED, 1, "rank 1 gave up")
    me.step(SUM)
    assert me.arrived(1, step()) == []
    assert problem_in(me.arrived(1, Frame(Kind.BROKEN, problem.encoded()))) == problem
    assert not me.is_waiting


def test_verdict_waits_for_what_was_done_before_it() -> None:
    me = Rounds(0, 2)
    me.step(SUM)
    assert me.arrived(1, step()) == [Done({1: b""})]
    assert me.arrived(1, Frame(Kind.BROKEN, Problem(Fault.FAILED, 1, "gave up").encoded())) == []
    assert problem_in(me.step(SUM)).text == "gave up"


def test_rank_that_leaves_is_told_from_one_that_dies() -> None:
    me = Rounds(0, 2)
    assert Rounds(1, 2).left() == [Send(0, Frame(Kind.BYE))]
    me.step(SUM)
    assert problem_in(me.arrived(1, Frame(Kind.BYE))).text == f"rank 1 has left it, and rank 0 needs it for {SUM}"


def test_time_out_names_those_who_are_late() -> None:
    me = Rounds(1, 4)
    me.step(SUM)
    me.arrived(0, step())
    problem = problem_in(me.timed_out(2.5))
    assert (problem.fault, problem.rank) == (Fault.TIMEOUT, rounds.UNKNOWN)
    assert problem.text.startswith(f"rank 1 waited 2.5 s in {SUM} for ranks 2, 3;")
    assert Rounds(0, 2).timed_out(1.0) == []


def test_time_out_blames_the_only_one_who_is_late() -> None:
    me = Rounds(1, 3)
    me.step(SUM)
    me.arrived(0, step())
    assert problem_in(me.timed_out(2.5)).rank == 2


@pytest.mark.parametrize(
    ("ranks", "blamed", "named"), [([2], 2, "rank 2"), ([0, 2], rounds.UNKNOWN, "one or more of ranks 0, 2")]
)
def test_time_out_of_a_wait_by_other_means_is_told_to_all(ranks: list[int], blamed: int, named: str) -> None:
    me = Rounds(1, 3)
    me.step(SUM)
    me.heard([(0, step()), (2, step())])
    commands = me.timed_out_otherwise(2.5, ranks)
    problem = problem_in(commands)
    assert commands[:2] == [Send(rank, Frame(Kind.BROKEN, problem.encoded())) for rank in (0, 2)]
    assert (problem.fault, problem.rank) == (Fault.TIMEOUT, blamed)
    assert problem.text.startswith(f"rank 1 waited 2.5 s in {SUM} for {named};")


def test_offer_is_received_and_accepted() -> None:
    sender, receiver = Rounds(0, 2), Rounds(1, 2)
    assert sender.offer(1, "float32 (3,)", b"abc") == [Send(1, Frame(Kind.OFFER, "float32 (3,)", b"abc"))]
    assert receiver.expect(0, "float32 (3,)") == []
    assert receiver.arrived(0, Frame(Kind.OFFER, "float32 (3,)", b"abc")) == [Done({0: b"abc"})]
    assert receiver.accepted() == [Send(0, Frame(Kind.ACCEPTED))]
    assert sender.arrived(1, Frame(Kind.ACCEPTED)) == [Done({})]


def test_accepting_what_was_not_received_is_an_error() -> None:
    with pytest.raises(exceptions.InternalError):
        Rounds(0, 2).accepted()


def test_offer_of_another_shape_is_refused_at_both_ends_and_the_group_goes_on() -> None:
    sender, receiver = Rounds(0, 2), Rounds(1, 2)
    sender.offer(1, "float32 (3,)", b"")
    receiver.arrived(0, Frame(Kind.OFFER, "float32 (3,)", b""))
    refusal, fail = receiver.expect(0, "int64 (2,)")
    assert isinstance(refusal, Send)
    text = "rank 0 sends float32 (3,), and rank 1 receives int64 (2,)"
    assert fail == Fail(Problem(Fault.MISMATCH, 0, text))
    assert problem_in(sender.arrived(1, refusal.frame)).text == text
    assert sender.problem is receiver.problem is None


@pytest.mark.parametrize("is_sender", [True, False])
def test_ranks_that_can_only_wait_for_each_other_do_not(is_sender: bool) -> None:
    """One sends, the other is in an operation of all: neither will ever get what it waits for."""
    me = Rounds(0, 2)
    if is_sender:
        me.offer(1, "x", b"")
        commands = me.arrived(1, step("barrier"))
        text = "rank 0 called send of x to rank 1; rank 1 called barrier"
    else:
        me.step("barrier")
        commands = me.arrived(1, Frame(Kind.OFFER, "x"))
        text = "rank 0 called barrier; rank 1 called send of x to rank 0"
    assert problem_in(commands) == Problem(Fault.MISMATCH, 1, text)
    assert me.problem is not None


def test_two_that_send_to_each_other_do_not_wait() -> None:
    me = Rounds(0, 2)
    me.offer(1, "x", b"")
    assert problem_in(me.arrived(1, Frame(Kind.OFFER, "x"))).fault is Fault.MISMATCH


def test_death_of_a_third_does_not_concern_a_pair() -> None:
    me = Rounds(0, 3)
    me.expect(1, "x")
    assert me.gone(2) == []
    assert me.arrived(1, Frame(Kind.OFFER, "x", b"y")) == [Done({1: b"y"})]
    assert problem_in(me.look_around()).rank == 2


def test_looking_around_finds_nothing_while_all_are_well() -> None:
    me = Rounds(0, 3)
    assert me.look_around() == []
    me.arrived(1, step())
    me.arrived(2, Frame(Kind.BYE))
    me.gone(2)
    assert me.look_around() == []
    me.arrived(1, Frame(Kind.BROKEN, "died 2 rank 2 died"))
    assert me.look_around() == []  # in its turn
    me.step(SUM)
    assert me.problem is not None


def test_giving_up_is_told_to_all() -> None:
    me = Rounds(0, 2)
    me.step(SUM)
    commands = me.gave_up("KeyboardInterrupt")
    assert problem_in(commands).text == f"rank 0 gave up in {SUM}: KeyboardInterrupt"
    assert commands[0] == Send(1, Frame(Kind.BROKEN, problem_in(commands).encoded()))
    assert me.gave_up("again") == []


def test_problem_is_read_back() -> None:
    problem = Problem(Fault.TIMEOUT, rounds.UNKNOWN, "a text with  spaces\nand lines")
    assert Problem.decoded(problem.encoded()) == problem
