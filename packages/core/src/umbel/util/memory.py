"""Who holds what in this session's memory, and why an object is alive. `umbel memory` and `umbel explain` print the same."""

from __future__ import annotations

from typing import Any

from umbel import exceptions
from umbel._client import current, inquiry, memory_report, refs
from umbel._model.reasons import Reason

__all__ = ["memory_summary", "why_alive"]

ANSWER_S = 5.0  # of one process


def memory_summary(
    address: str | None = None,
    group_by: str = "STACK_TRACE",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    line_wrap: bool = True,
    stats_only: bool = False,
    num_entries: int | None = None,
) -> str:
    """Tables of all objects of the session, grouped, and sums.

    group_by: "STACK_TRACE" (the line that made them, where UMBEL_RECORD_CALL_SITES=1 recorded it, else the task) or
    "NODE_ADDRESS" (the process that owns them, and its node where there are several). sort_by: "OBJECT_SIZE", "PID" or
    "REFERENCE_TYPE", within a group. units: "B", "KB", "MB", "GB" or "auto". num_entries: of each group, None for all.
    line_wrap: accepted for Ray's sake; lines are never wrapped. Asks each process, with at most 5 s for it. Raises
    InvalidOption for other values, UnsupportedFeature for an address.
    """
    del line_wrap
    if address is not None:
        raise exceptions.UnsupportedFeature(
            "memory_summary(address=...) is not there: it is about the session of this program; for another one, use "
            "`umbel memory --session`"
        )
    memory_report.check_arguments(group_by, sort_by, units, num_entries)
    report = memory_report.collect(_asker())
    if stats_only:
        return memory_report.stats(report, units=units)
    return memory_report.in_words(report, group_by=group_by, sort_by=sort_by, units=units, num_entries=num_entries)


def why_alive(target: Any) -> list[Reason]:
    """What keeps the object of a reference: references and where in the program they are, views, tasks that take it,
    values that contain it, borrowers. Raises TypeError for anything but a reference."""
    if not isinstance(target, refs.ObjectRef):
        raise TypeError(f"why_alive() takes an ObjectRef, got {target!r}")
    return memory_report.why_alive(_asker(), target.hex())


def _asker() -> inquiry.EngineAsker:
    engine = current.engine()
    if getattr(engine, "answers", None) is None:
        raise exceptions.UnsupportedFeature(
            f"the {engine.name!r} engine does not tell of memory: all its objects are in this process"
        )
    return inquiry.EngineAsker(engine, timeout_s=ANSWER_S)
