"""One question to several nodes: each asker is answered once, with all there is."""

from __future__ import annotations

from umbel._agent import gathers

A, B = "a" * 56, "b" * 56
YES = {"result": True}


def begun(*nodes: str, asker: str = "p", limit_s: float = 2.0, now_s: float = 0.0) -> tuple[gathers.Gathers, int]:
    made = gathers.Gathers()
    return made, made.begin(asker, 7, nodes, limit_s, now_s)


def test_asker_is_answered_when_the_last_node_has() -> None:
    made, number = begun(A, B)
    assert made.answered(number, A, YES) is None
    assert made.answered(number, B, YES) == gathers.Done("p", 7, {A: YES, B: YES})
    assert made.next_tick_s() is None


def test_node_that_is_late_is_named_and_counts_no_more() -> None:
    made, number = begun(A, B, now_s=1.0)
    made.answered(number, A, YES)
    assert made.next_tick_s() == 3.0
    assert made.late(2.9) == []
    late = {"error": {"kind": "late", "text": "it has not answered within 2 s"}}
    assert made.late(3.0) == [gathers.Done("p", 7, {A: YES, B: late})]
    assert made.answered(number, B, YES) is None


def test_node_that_answers_twice_counts_once() -> None:
    made, number = begun(A, B)
    made.answered(number, A, YES)
    assert made.answered(number, A, {"result": 2}) is None
    assert made.answered(number, B, YES) == gathers.Done("p", 7, {A: YES, B: YES})


def test_question_is_forgotten_with_its_asker() -> None:
    made, number = begun(A)
    made.gone("p")
    assert made.answered(number, A, YES) is None
    assert made.late(100.0) == []


def test_asker_may_have_some_open_and_no_more() -> None:
    made = gathers.Gathers()
    for _ in range(gathers.PER_ASKER_MAX):
        assert not made.is_full("p")
        made.begin("p", 1, [A], 1.0, 0.0)
    assert made.is_full("p")
    assert not made.is_full("q")
