"""Who has to do with what, both ways round."""

from __future__ import annotations

from umbel._base.pairs import Pairs


def test_pairs_are_found_from_both_sides_and_end_with_one() -> None:
    known = Pairs()
    for pair in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
        known.add(*pair)
    assert list(known) == [("a", "x"), ("a", "y"), ("b", "x")]
    assert ("b", "x") in known
    known.discard("b", "y")
    known.discard("a", "y")
    assert known.lefts("x") == ["a", "b"]
    assert known.pop_right("x") == ["a", "b"]
    assert known.pop_right("x") == []
    assert list(known) == []
    assert known._rights == known._lefts == {}
