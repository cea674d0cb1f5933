"""What a program of another machine has to say before anything stands for it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from umbel._agent import relays

RIGHT: dict[str, Any] = {
    "t": "begin", "protocol": relays.PROTOCOL_VERSION, "version": "1.2", "python": list(sys.version_info[:2]),
    "secret": "s" * 32, "patience_s": 30,
}  # fmt: skip


def test_what_is_right_is_taken() -> None:
    assert relays.read(RIGHT, "1.2") == relays.Wish("s" * 32, 30.0)


@pytest.mark.parametrize(("wanted", "given"), [(-1, 0.0), (1e9, relays.PATIENCE_S_MAX)])
def test_patience_has_bounds(wanted: float, given: float) -> None:
    assert relays.read({**RIGHT, "patience_s": wanted}, "1.2").patience_s == given


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"t": "hello"}, "speaks version"),
        ({"protocol": 7}, "the program 7; install the same version of Umbel on both sides"),
        ({"version": "1.3"}, r"runs Umbel 1\.2, the program '1\.3'"),
        ({"version": None}, "the program None"),
        ({"python": [3, 2]}, r"the program 3\.2, and functions cannot be pickled"),
        ({"python": "three"}, "the program 'three'"),
        ({"secret": "short"}, "how it comes back"),
        ({"secret": 1}, "how it comes back"),
        ({"patience_s": True}, "for how long"),
        ({"patience_s": "long"}, "for how long"),
    ],
)
def test_what_is_wrong_is_told(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        relays.read({**RIGHT, **wrong}, "1.2")
