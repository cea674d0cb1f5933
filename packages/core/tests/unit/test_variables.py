"""Environment variables that refer to others, as Ray expands them."""

from __future__ import annotations

import os

import pytest

from umbel._base import variables


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("${BASE}:x", "base:x"),
        ("$BASE:x", "base:x"),
        ("${lower}$lower", "lowlow"),
        ("${UNSET}:x", ":x"),
        ("$UNSET:x", "$UNSET:x"),
        ("${unset}:x", "${unset}:x"),
        ("$$BASE ${} ${BASE $ $1 ${A-B} ${BASE:-d}", "$base ${} ${BASE $ $1 ${A-B} ${BASE:-d}"),
        ("${DOLLAR}", "${BASE}"),
        ("plain", "plain"),
    ],
)
def test_references_are_expanded_once(text: str, wanted: str) -> None:
    assert variables.expanded(text, {"BASE": "base", "lower": "low", "DOLLAR": "${BASE}"}) == wanted


def test_variables_are_set_in_order_of_their_names_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"B": "base", "C": "c"})
    replaced = variables.put({"C": "${B}", "B": "${B}:b", "A": "${B}:a", "D": "${E}d", "E": "e"}.items())
    assert os.environ == {"A": "base:a", "B": "base:b", "C": "base:b", "D": "d", "E": "e"}
    variables.put_back(replaced)
    assert os.environ == {"B": "base", "C": "c"}
