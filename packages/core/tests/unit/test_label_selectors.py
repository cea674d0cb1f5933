"""Conditions on the labels of nodes."""

from __future__ import annotations

from typing import Any

import pytest

from umbel import exceptions
from umbel._model import node_labels, options
from umbel.util.scheduling_strategies import DoesNotExist, Exists, In, NodeLabelSchedulingStrategy, NotIn

LABELS = {"zone": "a", "example.com/rack": "7"}


@pytest.mark.parametrize(
    ("condition", "value", "is_met"),
    [
        ("a", "a", True), ("a", "b", False), ("a", None, False), ("!a", "b", True), ("!a", None, True), ("!a", "a", False),
        ("in(a,b)", "b", True), ("in( a , b )", "a", True), ("in(a,b)", "c", False), ("in(a)", None, False),
        ("!in(a,b)", "c", True), ("!in(a,b)", None, True), ("!in(a,b)", "a", False),
        ("*", "x", True), ("*", None, False), ("!*", None, True), ("!*", "x", False),
    ],
)  # fmt: skip
def test_condition(condition: str, value: str | None, is_met: bool) -> None:
    assert node_labels.label_matches(condition, value) is is_met


@pytest.mark.parametrize("wrong", ["", "in(", "in()", "a,b", "!!a", "in(a", "a b", "-a", "a" * 64, "in(a,)", "!"])
def test_condition_that_is_none(wrong: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match=r"must be 'v', '!v', 'in\(a,b\)' or '!in\(a,b\)', got"):
        node_labels.label_matches(wrong, "a")


@pytest.mark.parametrize(
    ("key", "told"),
    [("zo ne", "a label must be called"), ("/a", "a label"), ("a/", "a label"), ("", "without empty names")],
)
def test_name_that_no_label_has(key: str, told: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match=told):
        options.task_options({"label_selector": {key: "a"}}, {})


def _asked(**given: Any) -> tuple[Any, ...]:
    return options.task_options(given, {}).label_selectors


def test_what_is_asked_for_in_order() -> None:
    assert _asked() == ()
    assert _asked(label_selector={}) == ()
    assert _asked(label_selector={"zone": "a", "rack": "!7"}) == ((("rack", "!7"), ("zone", "a")),)
    fallbacks = [{"label_selector": {"zone": "b"}}, {"label_selector": {}}, {"label_selector": {"zone": "c"}}]
    found = _asked(label_selector={"zone": "a"}, fallback_strategy=fallbacks)
    assert found == ((("zone", "a"),), (("zone", "b"),), ())
    assert _asked(fallback_strategy=fallbacks) == ()  # what comes first has any node, as in Ray


def test_strategy_by_labels_is_a_selector_and_its_wishes_come_first() -> None:
    strategy = NodeLabelSchedulingStrategy(
        {"zone": In("a", "b"), "old": DoesNotExist()}, soft={"disk": Exists(), "rack": NotIn("7")}
    )
    hard = (("old", "!*"), ("zone", "in(a,b)"))
    soft = (("disk", "*"), ("rack", "!in(7)"))
    assert _asked(scheduling_strategy=strategy) == ((*hard, *soft), hard)
    assert options.task_options({"scheduling_strategy": strategy}, {}).scheduling_strategy == "DEFAULT"
    both = _asked(scheduling_strategy=strategy, label_selector={"zone": "a"})
    assert both == ((("zone", "a"), *hard, *soft), (("zone", "a"), *hard))
    only_soft = NodeLabelSchedulingStrategy(None, soft={"disk": Exists()})
    assert _asked(scheduling_strategy=only_soft) == ((("disk", "*"),), ())


@pytest.mark.parametrize(
    "given",
    [
        {"label_selector": {"zone": "*"}},
        {"fallback_strategy": [{"num_cpus": 1}]},
        {"fallback_strategy": [{"label_selector": {"zone": "in("}}]},
        {"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": In("a,b")})},
    ],
)
def test_what_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidOption):
        options.actor_options(given, {})


def test_which_labels_meet() -> None:
    assert node_labels.meets((("zone", "a"), ("example.com/rack", "in(7,8)")), LABELS)
    assert not node_labels.meets((("zone", "a"), ("example.com/rack", "8")), LABELS)
    assert node_labels.meets((), {})
    assert (
        node_labels.in_words([[("zone", "a"), ("rack", "!7")], [("zone", "b")]]) == "zone=a and rack=!7, or else zone=b"
    )
