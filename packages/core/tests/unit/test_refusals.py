"""What is logged of refused strangers: little, whatever they do."""

from __future__ import annotations

from umbel._transport import refusals

WRONG = "its token is wrong"


def test_first_refusal_has_a_line_and_the_others_of_a_minute_are_counted() -> None:
    told = refusals.Refusals()
    assert told.add("10.0.0.7", WRONG, at_s=0.0) == ["refused a connection from 10.0.0.7: its token is wrong"]
    assert [told.add("10.0.0.7", WRONG, at_s=at_s) for at_s in (0.1, 30.0, 59.9)] == [[], [], []]
    assert told.next_tick_s() == 60.0
    assert told.tick(at_s=59.9) == []
    assert told.tick(at_s=60.0) == ["refused 3 more from 10.0.0.7 within 60 s: its token is wrong"]


def test_address_that_goes_on_has_one_line_a_minute_and_one_that_stops_is_forgotten() -> None:
    told = refusals.Refusals()
    told.add("a", WRONG, at_s=0.0)
    told.add("a", WRONG, at_s=1.0)
    assert len(told.tick(at_s=60.0)) == 1
    assert told.add("a", WRONG, at_s=61.0) == []
    assert told.tick(at_s=120.0) == ["refused 1 more from a within 60 s: its token is wrong"]
    assert told.tick(at_s=180.0) == []
    assert told.next_tick_s() is None
    assert len(told.add("a", WRONG, at_s=200.0)) == 1


def test_addresses_and_reasons_are_told_apart() -> None:
    told = refusals.Refusals()
    assert len(told.add("a", WRONG, at_s=0.0)) == len(told.add("b", WRONG, at_s=0.0)) == 1
    assert told.add("a", "it is HTTP", at_s=0.0) == ["refused a connection from a: it is HTTP"]


def test_refusal_after_a_minute_brings_the_count_of_the_one_before() -> None:
    told = refusals.Refusals()
    told.add("a", WRONG, at_s=0.0)
    told.add("a", WRONG, at_s=1.0)
    assert told.add("b", WRONG, at_s=100.0) == [
        "refused 1 more from a within 60 s: its token is wrong",
        "refused a connection from b: its token is wrong",
    ]


def test_any_number_of_addresses_and_reasons_takes_bounded_memory_and_few_lines() -> None:
    told = refusals.Refusals()
    lines = [line for number in range(10_000) for line in told.add(f"host {number}", WRONG, at_s=0.0)]
    lines += [line for number in range(10_000) for line in told.add("a", f"reason {number}", at_s=0.0)]
    bound = refusals.ENTRY_COUNT_MAX + refusals.REASON_COUNT_MAX + 1
    assert len(lines) == len(told._entries) == bound
    counted = told.tick(at_s=60.0)
    assert counted == [
        f"refused {10_000 - refusals.ENTRY_COUNT_MAX - 1:,} more from other addresses within 60 s: {WRONG}",
        f"refused {10_000 - refusals.REASON_COUNT_MAX:,} more from other addresses within 60 s: for other reasons",
    ]
