"""Defects that the world `actors` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._control import actors
from umbel.testing.simulation.planted.defect import Planted, instead

_bury = actors.ActorTable._bury


def _bury_in_silence(table: actors.ActorTable, actor: actors.Actor, *arguments: Any, **options: Any) -> Any:
    """Nobody is told of a death."""
    actor.watchers.clear()
    return _bury(table, actor, *arguments, **options)


_on_host_died = actors.ActorTable._on_host_died


def _restart_uncounted(table: actors.ActorTable, event: Any) -> Any:
    """Restarts are not counted."""
    actor = table.actors.get(event.actor)
    before = actor.restarts if actor is not None else 0
    commands = _on_host_died(table, event)
    if actor is not None:
        actor.restarts = before
    return commands


PLANTS: Final[Mapping[str, Planted]] = {
    "silent-death": instead(
        "actors", actors.ActorTable, "_bury", _bury_in_silence, "T6", "a process is to do with actors that are dead"
    ),
    "restarts-uncounted": instead("actors", actors.ActorTable, "_on_host_died", _restart_uncounted, "T5", "T6"),
}
