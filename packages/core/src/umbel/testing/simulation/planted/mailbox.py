"""Defects that the world `mailbox` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._scheduling import actor_calls
from umbel._worker import mailbox
from umbel.testing.simulation.planted.defect import Planted, instead

_take_sendable = actor_calls.ActorCalls.take_sendable


def _send_backwards(calls: actor_calls.ActorCalls) -> list[Any]:
    """Calls are sent in the wrong order."""
    return _take_sendable(calls)[::-1]


def _retry_for_free(calls: actor_calls.ActorCalls) -> tuple[list[Any], list[Any]]:
    """Every call that was in flight is sent again, whatever its retries."""
    again = list(calls.inflight.values())
    calls.inflight.clear()
    calls.queue.extendleft(reversed(again))
    return [], again


def _forget_waiting(box: mailbox.Mailbox, group: str, is_async: bool) -> list[Any]:
    """The end of a call starts no other."""
    box._lanes[group, is_async].running -= 1
    return []


def _start_all(_box: mailbox.Mailbox, lane: mailbox.Lane) -> list[Any]:
    """A lane has no limit."""
    started = list(lane.waiting)
    lane.waiting.clear()
    lane.running += len(started)
    return started


_CALLS: Final = actor_calls.ActorCalls


PLANTS: Final[Mapping[str, Planted]] = {
    "wrong-order": instead("mailbox", _CALLS, "take_sendable", _send_backwards, "C1"),
    "retries-for-free": instead("mailbox", _CALLS, "disconnected", _retry_for_free, "C3"),
    "waiting-forgotten": instead("mailbox", mailbox.Mailbox, "finished", _forget_waiting, "a lane idles", "C5"),
    "no-limit": instead("mailbox", mailbox.Mailbox, "_start", _start_all, "a lane runs", "M1"),
}
