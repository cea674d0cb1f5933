"""When each of many is due."""

from __future__ import annotations

import random

import pytest

from umbel._base.deadlines import Deadlines


@pytest.mark.parametrize("seed", range(20))
def test_the_earliest_is_that_of_all(seed: int) -> None:
    chance = random.Random(seed)
    found: Deadlines[str] = Deadlines()
    expected: dict[str, float] = {}
    for _ in range(400):
        key, due_s = f"k{chance.randrange(30)}", chance.choice([None, float(chance.randrange(10))])
        found.set(key, due_s)
        if due_s is None:
            expected.pop(key, None)
        else:
            expected[key] = due_s
        at_s = float(chance.randrange(10))
        assert found.first_s() == min(expected.values(), default=None)
        assert sorted(found.due(at_s)) == sorted(one for one, due_s in expected.items() if due_s <= at_s)
        assert found.as_dict() == expected


def test_those_that_are_due_come_in_order() -> None:
    found: Deadlines[str] = Deadlines()
    for key, due_s in (("a", 3.0), ("b", 1.0), ("c", 1.0), ("a", 0.5)):
        found.set(key, due_s)
    assert found.due(2.0) == found.due(2.0) == ["a", "b", "c"]


def test_what_is_set_again_and_again_takes_no_more_room() -> None:
    found: Deadlines[str] = Deadlines()
    for number in range(10_000):
        found.set("a", float(number))
    assert len(found._heap) < 100
    assert found.first_s() == 9999.0
