"""umbel.util.debug: saying a thing once."""

from __future__ import annotations

from umbel.util import debug, log_once


def test_a_key_is_admitted_once() -> None:
    once = debug.OnceFilter()
    assert [once.admits(key, 0.0) for key in ("a", "b", "a")] == [True, True, False]
    assert not once.admits("a", 1e9)


def test_with_repetition_it_is_admitted_again_after_the_period() -> None:
    once = debug.OnceFilter()
    once.repeat()
    times_s = (0.0, debug.PERIOD_S, debug.PERIOD_S + 1, debug.PERIOD_S + 2)
    assert [once.admits("a", now_s) for now_s in times_s] == [True, False, True, False]


def test_disabled_it_admits_nothing() -> None:
    once = debug.OnceFilter()
    once.disable()
    assert not once.admits("a", 0.0)


def test_memory_is_bounded() -> None:
    once = debug.OnceFilter()
    for number in range(debug.KEYS_MAX + 1):
        assert once.admits(str(number), 0.0)
    assert once.admits("0", 0.0)  # the oldest was forgotten
    assert not once.admits(str(debug.KEYS_MAX), 0.0)


def test_the_public_function_remembers_for_the_process() -> None:
    assert [log_once("test_once_filter"), log_once("test_once_filter")] == [True, False]


def test_what_is_reset_is_let_through_once_more() -> None:
    assert log_once("reset") and log_once("kept")
    debug.reset_log_once("reset")
    debug.reset_log_once("never seen")
    assert [log_once("reset"), log_once("reset"), log_once("kept")] == [True, False, False]
    debug.reset_log_once()
    assert log_once("kept")
