"""Defects that the world `leadership` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._control import leadership
from umbel._control.storage import in_sqlite
from umbel.testing.simulation.planted.defect import Planted, instead

_apply_event = leadership.Leadership.apply


_commit = in_sqlite.SqliteStorage.commit


def _count_from_the_answer(machine: leadership.Leadership, event: leadership.Event) -> list[leadership.Command]:
    """A lease is taken to begin when it is heard of."""
    if isinstance(event, (leadership.Granted, leadership.Renewed)):
        event = event._replace(asked_at_s=event.now_s)
    return _apply_event(machine, event)


def _commit_unfenced(storage: in_sqlite.SqliteStorage, writes: Any, *, fencing: int, number: int) -> None:
    """Whoever commits is taken to lead."""
    _, lease = storage._lease()
    done = int(str(storage._value("SELECT number FROM leader")))
    is_former = fencing != lease.fencing
    _commit(storage, writes, fencing=lease.fencing, number=done + 1 if is_former else number)


def _commit_again(storage: in_sqlite.SqliteStorage, writes: Any, *, fencing: int, number: int) -> None:
    """What is repeated is done again."""
    done = int(str(storage._value("SELECT number FROM leader")))
    _commit(storage, writes, fencing=fencing, number=done + 1 if number <= done else number)


PLANTS: Final[Mapping[str, Planted]] = {
    "counted-from-answer": instead("leadership", leadership.Leadership, "apply", _count_from_the_answer, "L4"),
    "no-margin": instead("leadership", leadership.Leadership, "_valid_s", property(lambda one: one.ttl_s * 0.99), "L4"),
    "clocks-agree": instead(
        "leadership", leadership.Leadership, "_valid_s", property(lambda one: one.ttl_s * 0.8), "L4"
    ),
    "commits-unfenced": instead("leadership", in_sqlite.SqliteStorage, "commit", _commit_unfenced, "L"),
    "commits-twice": instead("leadership", in_sqlite.SqliteStorage, "commit", _commit_again, "L1"),
}
