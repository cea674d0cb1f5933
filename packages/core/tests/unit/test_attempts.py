"""How one connection to another node comes about: lists of events, and what follows."""

from __future__ import annotations

import pytest

from umbel._wire import attempts
from umbel._wire.attempts import HEAD_START_S, RECHECK_S, Attempt, Dialled, Do

NODE = b"node-a"


def begun(*, is_dialled: bool = True, can_ask: bool = True) -> Attempt:
    attempt = Attempt(at_s=0.0, is_dialled=is_dialled, can_ask=can_ask)
    assert attempt.begin() is (Do.DIAL if is_dialled or not can_ask else Do.ASK)
    attempt.check()
    return attempt


def test_a_node_that_answers_is_asked_for_nothing() -> None:
    attempt = begun()
    attempt.reached()
    assert attempt.tick(10.0) is None
    assert attempt.connected() is Do.SUCCEED
    assert attempt.tick(10.0) is None


def test_a_node_that_does_not_answer_is_asked_and_dialled_at_the_same_time() -> None:
    attempt = begun()
    assert attempt.tick(HEAD_START_S - 0.01) is None
    assert attempt.tick(HEAD_START_S) is Do.ASK
    assert attempt.tick(10.0) is None
    assert attempt.dial_failed(is_final=False) is None
    assert attempt.arrived() is Do.PROVE
    assert attempt.connected() is Do.SUCCEED


def test_a_node_that_cannot_be_dialled_is_asked_at_once() -> None:
    attempt = begun()
    assert attempt.dial_failed(is_final=False) is Do.ASK
    assert attempt.ask_s is None
    assert attempt.asking_failed(is_final=False) is Do.FAIL


def test_a_dial_that_comes_through_after_all_is_as_good() -> None:
    attempt = begun()
    assert attempt.tick(1.0) is Do.ASK
    assert attempt.connected() is Do.SUCCEED
    assert attempt.arrived() is Do.CLOSE


def test_a_dial_goes_on_when_there_is_nobody_by_whom_to_ask() -> None:
    attempt = begun()
    assert attempt.tick(1.0) is Do.ASK
    assert attempt.asking_failed(is_final=False) is None
    assert attempt.connected() is Do.SUCCEED


def test_who_is_heard_and_refuses_is_not_asked() -> None:
    attempt = begun()
    assert attempt.dial_failed(is_final=True) is Do.FAIL
    attempt = begun()
    assert attempt.tick(1.0) is Do.ASK
    assert attempt.arrived() is Do.PROVE
    assert attempt.asking_failed(is_final=True) is Do.FAIL  # while nothing has answered the dial


def test_a_node_that_had_to_be_asked_is_dialled_only_if_it_cannot_be_asked() -> None:
    attempt = begun(is_dialled=False)
    assert attempt.ask_s is None
    assert attempt.asking_failed(is_final=False) is Do.DIAL
    assert attempt.dial_failed(is_final=False) is Do.FAIL


def test_without_anybody_by_whom_to_ask_there_is_only_the_dial() -> None:
    attempt = begun(is_dialled=False, can_ask=False)
    assert attempt.tick(10.0) is None
    assert attempt.dial_failed(is_final=False) is Do.FAIL


def test_only_the_first_connection_that_was_asked_for_is_taken() -> None:
    attempt = begun(is_dialled=False)
    assert attempt.arrived() is Do.PROVE
    assert attempt.arrived() is Do.CLOSE


def test_networks_are_looked_at_again_after_a_while() -> None:
    dialled = Dialled()
    assert dialled.is_worth_a_try(NODE, 0.0)
    dialled.had_to_be_asked(NODE, 0.0)
    assert not dialled.is_worth_a_try(NODE, RECHECK_S - 1)
    assert dialled.is_worth_a_try(NODE, RECHECK_S)
    assert dialled.was_asked(NODE)
    dialled.had_to_be_asked(NODE, RECHECK_S)
    dialled.could_be_dialled(NODE)
    assert dialled.is_worth_a_try(NODE, RECHECK_S)
    assert not dialled.was_asked(NODE)


def test_not_more_is_remembered_than_there_are_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "NODE_COUNT_MAX", 2)
    dialled = Dialled()
    for tag in (b"a", b"b", b"c"):
        dialled.had_to_be_asked(tag, 0.0)
    assert [dialled.is_worth_a_try(tag, 1.0) for tag in (b"a", b"b", b"c")] == [True, False, False]
