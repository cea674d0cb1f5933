"""Questions that the agent passes on: each is answered or refused once, and none is left."""

from __future__ import annotations

from umbel._agent.asks import PER_ASKER_MAX, Ask, Asks


def test_answer_goes_to_whoever_asked_once() -> None:
    asks = Asks()
    number = asks.passed_on("tool", 7, "w1")
    assert asks.answered(number, "w1") == Ask("tool", 7, "w1")
    assert asks.answered(number, "w1") is None


def test_nobody_answers_for_another() -> None:
    asks = Asks()
    number = asks.passed_on("tool", 7, "w1")
    assert asks.answered(number, "w2") is None
    assert asks.answered(number, "w1") is not None


def test_process_that_goes_leaves_its_askers_to_be_told() -> None:
    asks = Asks()
    first = asks.passed_on("tool", 1, "w1")
    second = asks.passed_on("tool", 2, "w2")
    assert asks.gone("w1") == [Ask("tool", 1, "w1")]
    assert asks.answered(first, "w1") is None
    assert asks.answered(second, "w2") == Ask("tool", 2, "w2")


def test_asker_that_goes_is_told_nothing_any_more() -> None:
    asks = Asks()
    numbers = [asks.passed_on("tool", 1, "w1"), asks.passed_on("tool", 2, "tool")]
    assert asks.gone("tool") == []
    assert [asks.answered(number, whom) for number, whom in zip(numbers, ("w1", "tool"), strict=True)] == [None, None]


def test_questions_of_one_asker_are_bounded() -> None:
    asks = Asks()
    for request in range(PER_ASKER_MAX):
        assert not asks.is_full("tool")
        asks.passed_on("tool", request, "w1")
    assert asks.is_full("tool")
    assert not asks.is_full("driver")
