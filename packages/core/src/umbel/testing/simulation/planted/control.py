"""Defects that the world `control` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._control import actors, journal, keeping
from umbel._control.events import ActorState
from umbel.testing.simulation.planted.defect import Planted, instead

_bury = actors.ActorTable._bury


_record_event = journal.Journal.apply


_on_hosted = actors.ActorTable._on_hosted


_needs_call = actors.needs_call


def _say_at_once(machine: journal.Journal, effect: Any) -> list[Any]:
    """Nothing waits for its record."""
    return [journal.Do((effect,))] if not machine.ended else []


def _say_with_the_one_before(machine: journal.Journal, effect: Any) -> list[Any]:
    """What is said depends on a commit that is collected, and goes with the one under way."""
    batch = machine._under_way
    if batch is None:
        return [journal.Do((effect,))]
    batch.effects.append(effect)
    machine._withheld_count += 1
    return []


def _take_failed_as_done(machine: journal.Journal, event: journal.Event) -> list[Any]:
    """A commit that nobody has confirmed counts."""
    if isinstance(event, journal.Failed):
        event = journal.Committed(event.fencing, event.number, event.at_s)
    return _record_event(machine, event)


def _host_unrecorded(table: actors.ActorTable, event: Any) -> list[Any]:
    """A constructor is called before anybody knows that it is."""
    commands = _on_hosted(table, event)
    if table.changed is not None:
        table.changed.pop(event.actor, None)
    return commands


def _bury_unrecorded(table: actors.ActorTable, actor: actors.Actor, *values: Any) -> list[Any]:
    """The end of an actor is not kept."""
    commands = _bury(table, actor, *values)
    if table.changed is not None:
        table.changed.pop(actor.spec.actor, None)
    return commands


def _forget_call_early(actor: actors.Actor) -> bool:
    """Constructor calls are not kept for restarts."""
    return _needs_call(actor) and actor.state is not ActorState.ALIVE


def _go_on_anyway(shell: keeping.Keeping, fencing: int) -> None:
    """A head goes on though another one has led meanwhile."""
    shell._apply(journal.Resumed(fencing, shell._now_s()))
    shell._do_rest()


def _recover_nobody(table: actors.ActorTable, _event: Any) -> list[Any]:
    """What was under way is not taken up again."""
    table._unreported = None
    return []


PLANTS: Final[Mapping[str, Planted]] = {
    "said-at-once": instead("control", journal.Journal, "_withhold", _say_at_once, "J"),
    "said-with-the-one-before": instead("control", journal.Journal, "_withhold", _say_with_the_one_before, "J1", "J2"),
    "failed-is-done": instead("control", journal.Journal, "apply", _take_failed_as_done, "J1", "J2"),
    "hosting-unrecorded": instead("control", actors.ActorTable, "_on_hosted", _host_unrecorded, "J4"),
    "death-unrecorded": instead("control", actors.ActorTable, "_bury", _bury_unrecorded, "J1"),
    "acts-on": instead("control", keeping.Keeping, "may_act", lambda _one: True, "J3"),
    "goes-on-anyway": instead("control", keeping.Keeping, "_lead_again", _go_on_anyway, "J", "R2"),
    "call-not-kept": instead("control", actors, "needs_call", _forget_call_early, "'a"),
    "nobody-recovered": instead("control", actors.ActorTable, "_on_recovered", _recover_nobody, "R2", "J4"),
}
