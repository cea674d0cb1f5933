"""The shell of the journal: effects in their order, a clock that goes on, and a lease that runs out."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._control import journal, keeping, kept, leadership


class Storing:
    """A `keeping.Storing` that is told what to have heard."""

    def __init__(self) -> None:
        self.commits: list[journal.Commit] = []
        self.asked: list[Any] = []
        self.heard: list[Any] = []
        self.closed: list[int] = []

    def commit(self, command: journal.Commit) -> None:
        self.commits.append(command)

    def ask(self, command: Any) -> None:
        self.asked.append(command)

    @property
    def has_heard(self) -> bool:
        return bool(self.heard)

    def take(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard

    def close(self, fencing: int) -> None:
        self.closed.append(fencing)


class Head:
    """A leader by number 3 since 0.0, on a clock that goes on a little whenever somebody looks at it."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.ends: list[str] = []
        self.did: list[Any] = []
        self.storing = Storing()
        leader = leadership.Leadership(ttl_s=10.0, now_s=0.0)
        leader.apply(leadership.Tick(0.0))
        leader.apply(leadership.Granted(3, asked_at_s=0.0, now_s=0.0))
        self.keeping = keeping.Keeping(
            kept.Kept([], 0.0), leader, self.storing, now_s=self.now_s, lease_now_s=self.now_s,
            on_step_down=self.ends.append, recovery_s=0.0,
        )  # fmt: skip

    def now_s(self) -> float:
        self.at_s += 1e-6
        return self.at_s

    def put(self, value: bytes) -> None:
        self.keeping.kept.kv.put(b"", b"a", value, overwrites=True)
        self.keeping.keep()

    def hear(self, *events: Any) -> None:
        self.storing.heard += events
        self.keeping.tick()

    def do(self, what: Any) -> None:
        self.keeping.withhold(lambda: self.did.append(what))


@pytest.fixture
def head() -> Head:
    return Head()


def is_due(head: Head) -> bool:
    """As the daemon's loop finds out: it looks at the time before it asks."""
    now_s = head.now_s()
    due_s = head.keeping.next_tick_s()
    return due_s is not None and due_s <= now_s


def test_what_was_heard_is_due_at_once(head: Head) -> None:
    assert not is_due(head)
    head.storing.heard.append(journal.Committed(3, 1, 0.0))
    assert is_due(head)


def test_lease_that_is_to_be_renewed_is_due(head: Head) -> None:
    head.at_s = 4.0
    assert is_due(head)
    head.keeping.tick()
    assert head.storing.asked == [leadership.Renew(3)]
    assert not is_due(head)


def test_what_follows_from_an_effect_comes_after_those_that_are_due(head: Head) -> None:
    head.put(b"1")
    head.keeping.withhold(lambda: (head.did.append(1), head.do(3))[0])
    head.do(2)
    head.hear(journal.Committed(3, 1, 0.0))
    assert head.did == [1, 2, 3]


def lose(head: Head) -> None:
    """Its lease has run out."""
    head.at_s = 9.0
    head.keeping.tick()
    assert head.storing.asked == [leadership.Acquire()]


def test_nothing_is_done_while_the_lease_has_run_out_and_then_all_in_order(head: Head) -> None:
    """Also what was withheld before, of which the storage has the records."""
    head.put(b"1")
    head.do(1)
    lose(head)
    head.hear(journal.Committed(3, 1, 0.0))
    head.do(2)
    head.put(b"2")
    head.do(3)
    assert (head.did, head.ends, len(head.storing.commits)) == ([], [], 1)
    assert "may not act" in head.keeping.reason()
    head.hear(leadership.Granted(4, asked_at_s=9.0, now_s=9.1))
    assert head.did == [1]
    assert head.storing.commits[1][:2] == (4, 1)
    head.hear(journal.Committed(4, 1, 9.2))
    assert head.did == [1, 2, 3]


@pytest.mark.parametrize(
    "event", [leadership.Held("other", 5.0, 9.1), leadership.Granted(5, asked_at_s=9.0, now_s=9.1)]
)
def test_whoever_sees_that_another_one_leads_or_has_led_ends(head: Head, event: leadership.Event) -> None:
    head.put(b"1")
    head.do(1)
    lose(head)
    head.hear(event)
    head.do(2)
    head.put(b"2")
    assert (head.did, len(head.ends), len(head.storing.commits)) == ([], 1, 1)
    assert head.keeping.next_tick_s() is None
    head.keeping.end()
    assert head.storing.closed == [0]


def test_effect_that_takes_too_long_is_the_last_until_the_lease_is_had_again(head: Head) -> None:
    head.put(b"1")
    head.keeping.withhold(lambda: setattr(head, "at_s", 9.0))
    head.do(2)
    head.hear(journal.Committed(3, 1, 0.0))
    assert (head.did, head.ends) == ([], [])
    head.hear(leadership.Granted(3, asked_at_s=9.0, now_s=9.1))
    assert head.did == [2]


def test_answer_about_the_lease_that_was_heard_late_is_taken_as_of_now(head: Head) -> None:
    """The process stood still between: it must not believe that the lease is as young as when it was told."""
    head.at_s = 4.0
    head.keeping.tick()
    head.at_s = 20.0
    head.hear(leadership.Renewed(3, asked_at_s=4.0, now_s=4.1))
    assert not head.keeping.may_act()


def test_lease_is_given_back_in_the_end(head: Head) -> None:
    head.keeping.end()
    assert head.storing.closed == [3]


def test_request_that_no_commit_takes_is_refused(head: Head) -> None:
    assert head.keeping.trouble(keeping.BODY_BYTES_MAX) == ""
    assert "bytes, and what is kept in a control storage at most" in head.keeping.trouble(keeping.BODY_BYTES_MAX + 1)
