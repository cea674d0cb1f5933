"""Whether a head leads and may act, as lists of events."""

from __future__ import annotations

import math
from typing import Any

import pytest

from umbel import exceptions
from umbel._control import leadership
from umbel._control.leadership import (
    Acquire,
    Failed,
    Fenced,
    Granted,
    Held,
    Lead,
    Leadership,
    Renew,
    Renewed,
    StepDown,
    Tick,
)

# A lease of 10 s of which 2 s are margin and 0.1 s are for clocks that disagree: 7.9 s from the question on.


def machine() -> Leadership:
    made = Leadership(ttl_s=10.0, now_s=0.0)
    assert made.apply(Tick(0.0)) == [Acquire()]
    return made


def leading(fencing: int = 1) -> Leadership:
    """Since 0.0."""
    made = machine()
    assert made.apply(Granted(fencing, asked_at_s=0.0, now_s=0.5)) == [Lead(fencing)]
    return made


def test_follows_until_it_is_told_that_it_leads() -> None:
    made = machine()
    assert not made.may_act(0.1)
    assert made.wake_at_s == math.inf  # the answer comes, or Failed
    assert made.apply(Tick(1.0)) == []
    assert made.apply(Granted(7, asked_at_s=0.0, now_s=1.0)) == [Lead(7)]
    assert made.may_act(1.0)
    assert made.reason(1.0) == ""


def test_asks_again_when_the_other_ones_lease_may_have_run_out() -> None:
    made = machine()
    assert made.apply(Held("other", remaining_s=2.0, now_s=0.5)) == []
    assert made.wake_at_s == pytest.approx(2.5)
    assert "'other' leads" in made.reason(1.0)
    assert made.apply(Tick(2.4)) == []
    assert made.apply(Tick(2.5)) == [Acquire()]


def test_asks_now_and_then_while_another_one_leads_for_long() -> None:
    """He may release it."""
    made = machine()
    made.apply(Held("other", remaining_s=1000.0, now_s=0.0))
    assert made.wake_at_s == pytest.approx(10 / 3)


def test_storage_that_does_not_answer_is_asked_again_and_named() -> None:
    made = machine()
    assert made.apply(Failed("connection refused", now_s=5.0)) == []
    assert made.reason(5.0) == "the control storage does not answer: connection refused"
    assert made.wake_at_s == pytest.approx(6.0)
    assert made.apply(Tick(6.0)) == [Acquire()]


def test_renews_after_a_third_and_goes_on() -> None:
    made = leading()
    assert made.wake_at_s == pytest.approx(10 / 3)
    assert made.apply(Tick(3.4)) == [Renew(1)]
    assert made.apply(Renewed(1, asked_at_s=3.4, now_s=3.5)) == []
    assert made.may_act(3.4 + 7.89)
    assert not made.may_act(3.4 + 7.91)


def test_time_counts_from_the_question_not_from_the_answer() -> None:
    made = machine()
    made.apply(Granted(1, asked_at_s=0.0, now_s=7.0))
    assert made.may_act(7.8)
    assert not made.may_act(7.95)


def test_margin_is_left_when_its_clock_is_slow() -> None:
    made = leading()
    last_s = max(hundredths / 100 for hundredths in range(1000) if made.may_act(hundredths / 100))
    slow = 1 - leadership.DRIFT
    assert (last_s + 2.0) / slow <= 10.0


def test_lease_that_was_granted_too_late_is_asked_for_again() -> None:
    made = machine()
    assert made.apply(Granted(1, asked_at_s=0.0, now_s=8.0)) == [Acquire()]
    assert not made.may_act(8.0)
    assert "too late" in made.reason(8.0)


def test_stops_before_its_lease_runs_out_though_nothing_is_heard() -> None:
    made = leading()
    assert made.apply(Tick(3.4)) == [Renew(1)]
    assert made.wake_at_s == pytest.approx(7.9)
    assert not made.may_act(7.9)  # whoever asks is told, before any event
    assert made.apply(Tick(7.9)) == [StepDown(1, "the lease could not be renewed in time")]
    assert made.apply(Tick(100.0)) == []  # the question is still out


def test_failed_renewals_are_repeated_until_it_stops() -> None:
    made = leading()
    commands: list[Any] = []
    now_s = 3.4
    while made.fencing:
        for command in made.apply(Tick(now_s)):
            commands.append(command)
            if command == Renew(1):
                commands += made.apply(Failed("no answer", now_s=now_s + 0.1))
        now_s = made.wake_at_s
    assert commands == [Renew(1)] * 5 + [StepDown(1, "the lease could not be renewed in time: no answer")]


def test_answer_that_comes_after_stepping_down_does_not_bring_it_back() -> None:
    made = leading()
    made.apply(Tick(3.4))
    assert made.apply(Renewed(1, asked_at_s=3.4, now_s=8.0)) == [
        StepDown(1, "the lease could not be renewed in time"),
        Acquire(),
    ]
    assert not made.may_act(8.0)
    assert made.apply(Granted(1, asked_at_s=8.0, now_s=8.1)) == [Lead(1)]  # as anew


def test_fenced_renewal_ends_it_at_once() -> None:
    made = leading(4)
    made.apply(Tick(3.4))
    assert made.apply(Fenced(4, now_s=3.5)) == [StepDown(4, "another one leads, or the lease has run out"), Acquire()]


def test_fenced_commit_ends_it_while_a_renewal_is_out() -> None:
    made = leading(4)
    assert made.apply(Tick(3.4)) == [Renew(4)]
    assert made.apply(Fenced(4, now_s=3.5, is_answer=False)) == [
        StepDown(4, "another one leads, or the lease has run out")
    ]
    assert made.apply(Tick(9.0)) == []  # one question at a time
    assert made.apply(Fenced(4, now_s=9.1)) == [Acquire()]


def test_fenced_commit_of_a_former_time_changes_nothing() -> None:
    made = leading(4)
    assert made.apply(Fenced(3, now_s=1.0, is_answer=False)) == []
    assert made.may_act(1.0)


def test_margin_must_leave_something_of_the_lease() -> None:
    with pytest.raises(exceptions.InternalError, match="margin"):
        Leadership(ttl_s=1.0, now_s=0.0, margin_s=1.0)
