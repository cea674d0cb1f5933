"""Conditions on the labels of nodes: how they are written, in which order they are tried, and which node meets them.

A selector is (label, condition) pairs, all of which must hold. What wants a node gives several: a node that meets the first
is preferred to one that only meets the second. None at all: any node will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umbel import exceptions

Selector = tuple[tuple[str, str], ...]
NODE_ID = "umbel.io/node-id"  # every node has it
NODE_GROUP = "umbel.io/node-group"  # the type of a node that a launcher has launched; Ray's name
INSTANCE_ID = "umbel.io/instance-id"  # what that launcher calls it
PRESENT, ABSENT = "*", "!*"  # conditions that only strategies can make
_NAME = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")  # of labels and their values; Kubernetes' rule
_PREFIX = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]{0,251}[A-Za-z0-9])?")


def label_matches(condition: str, value: str | None) -> bool:
    """Whether a label has the value that a selector asks for: `v`, `!v`, `in(a, b)` or `!in(a, b)`.

    value: None when the node has no such label, which satisfies the two negative forms. Raises InvalidOption.
    """
    text = condition.strip()
    is_negative = text.startswith("!")
    text = text.removeprefix("!").strip()
    if text == PRESENT:
        return (value is not None) is not is_negative
    if text.startswith("in(") and text.endswith(")"):
        wanted = {one.strip() for one in text[3:-1].split(",")}
    else:
        wanted = {text}
    if not all(_NAME.fullmatch(one) for one in wanted):
        raise exceptions.InvalidOption(
            f"a label selector's value must be 'v', '!v', 'in(a,b)' or '!in(a,b)', got {condition!r}; name the values to "
            "match, of at most 63 letters, digits and -_. with a letter or digit at both ends",
            option="label_selector",
        )
    return (value in wanted) is not is_negative


def meets(selector: Iterable[tuple[str, str]], labels: Mapping[str, str]) -> bool:
    return all(label_matches(condition, labels.get(key)) for key, condition in selector)


def checked(option: str, value: Mapping[str, str]) -> Selector:
    """A selector as a user writes it. Raises InvalidOption."""
    for key, condition in value.items():
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
            raise exceptions.InvalidOption(
                f"{option}: a label must be called 'name' or 'domain/name', of letters, digits and -_. with a letter or "
                f"digit at both ends, got {key!r}; correct it",
                option=option,
            )
        if PRESENT in condition:
            raise exceptions.InvalidOption(
                f"{option}[{key!r}] must be 'v', '!v', 'in(a,b)' or '!in(a,b)', got {condition!r}; for any value use a "
                "NodeLabelSchedulingStrategy with Exists() or DoesNotExist()",
                option=option,
            )
        label_matches(condition, None)
    return tuple(sorted(value.items()))


def of_operators(labels: Mapping[str, Any]) -> Selector:
    """Of `umbel.util.scheduling_strategies`: In, NotIn, Exists or DoesNotExist for each label. Raises InvalidOption."""
    found = []
    for key, operator in labels.items():
        kind = type(operator).__name__
        if kind in ("In", "NotIn"):
            for value in operator.values:
                if not _NAME.fullmatch(value):
                    raise exceptions.InvalidOption(
                        f"the values of {kind} must be values of labels, of at most 63 letters, digits and -_. with a letter "
                        f"or digit at both ends, got {value!r}; name several one by one",
                        option="scheduling_strategy",
                    )
            condition = f"{'!' if kind == 'NotIn' else ''}in({','.join(operator.values)})"
        else:
            condition = PRESENT if kind == "Exists" else ABSENT
        found.append((key, condition))
    return tuple(sorted(found))


def in_order(selector: Selector, fallbacks: Sequence[Selector], hard: Selector, soft: Selector) -> tuple[Selector, ...]:
    """The selectors of what asks for all of this; the best first."""
    wanted = [(*one, *hard) for one in (selector, *fallbacks)]
    if soft:
        wanted = [(*one, *soft) for one in wanted] + wanted
    kept: list[Selector] = []
    for one in wanted:
        kept.append(one)
        if not one:
            break  # any node will do, so what comes after it is never looked at
    return () if not kept[0] else tuple(kept)


def in_words(selectors: Sequence[Sequence[Sequence[str]]]) -> str:
    """As `zone=a and rack=7, or else zone=b`."""
    return ", or else ".join(" and ".join(f"{key}={condition}" for key, condition in one) for one in selectors)
