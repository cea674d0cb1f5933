"""How a worker ended, as listings tell it."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._agent import endings

REPORT: dict[str, Any] = {
    "source": "the session's processes hold", "used_bytes": 3 << 20, "limit_bytes": 2 << 20, "allowed_bytes": 2 << 20,
    "curve": [[0.0, 1 << 20], [1.0, 3 << 20]], "resident_bytes": 3 << 20, "peak_bytes": 3 << 20,
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ((0, 0, "", None, False), ("INTENDED_SYSTEM_EXIT", "it exited with code 0")),
        ((3, 0, "", None, False), ("SYSTEM_ERROR", "it exited with code 3")),
        ((0, 11, "", None, False), ("SYSTEM_ERROR", "it was killed by signal 11 (SIGSEGV)")),
        ((0, 9, "it did not answer", None, False), ("SYSTEM_ERROR", "it was killed: it did not answer")),
        ((0, 9, "umbel.kill()", None, True), ("INTENDED_SYSTEM_EXIT", "it was killed: umbel.kill()")),
    ],
)
def test_end_is_intended_when_somebody_wanted_it(how: tuple[Any, ...], told: tuple[str, str]) -> None:
    code, number, reason, report, is_intended = how
    assert endings.end_of(code, number, reason, report, is_intended=is_intended) == told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "memory ran short: the session's processes hold 3 MiB of 2 MiB"),
        ({"by_system": True}, "by the system, for want of memory"),
        ({"by_limit": True}, "it held 3 MiB, and had asked for memory= of 2 MiB"),
    ],
)
def test_end_for_memory_says_how_the_memory_was(more: dict[str, bool], words: str) -> None:
    exit_type, detail = endings.end_of(0, 9, "", {**REPORT, **more}, is_intended=False)
    assert exit_type == "NODE_OUT_OF_MEMORY"
    assert detail.startswith(f"it was killed: {words}")
