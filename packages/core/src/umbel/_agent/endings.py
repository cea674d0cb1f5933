"""How a process ended, in words."""

from __future__ import annotations

import signal
from typing import Any


def end_of(
    exit_code: int, number: int, reason: str, report: dict[str, Any] | None, *, is_intended: bool
) -> tuple[str, str]:
    """How a worker ended: (type, which is one of Ray's, words). number: of the signal, or 0. reason: why it was killed, if
    it was. report: how the memory was, if it was killed for that."""
    exit_type = "SYSTEM_ERROR"
    if report is not None:
        from umbel._agent import memory_watch

        exit_type = "NODE_OUT_OF_MEMORY"
        reason = memory_watch.in_words(report)
    elif is_intended or not (exit_code or number):
        exit_type = "INTENDED_SYSTEM_EXIT"
    return exit_type, f"it {in_words(exit_code, number, reason)}"


def in_words(exit_code: int, number: int, reason: str) -> str:
    """What follows its name."""
    if reason:
        return f"was killed: {reason}"
    if not number:
        return f"exited with code {exit_code}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    hint = "; the system may have run out of memory" if number == signal.SIGKILL else ""
    return f"was killed by signal {number} ({name}){hint}"
