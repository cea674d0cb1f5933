"""Defects that the world `autoscaling` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._autoscaling import autoscaler, packing, planning
from umbel._autoscaling import events as autoscaling_events
from umbel.testing.simulation.planted.defect import Planted, deaf, instead
from umbel.testing.simulation.processes import attribute

_SCALER: Final = autoscaler.Autoscaler


_offers_of = planning._offers


_drains_of = planning._drains


_rooms_of = planning._rooms


_on_ticked = autoscaler.Autoscaler._on_ticked


_dry_run = autoscaler.Autoscaler.dry_run


def _forget_the_leaving(now: planning.Situation) -> Any:
    """Nodes that leave count no more, though they are still there."""
    staying = [node for node in now.nodes if node.state not in planning.LEAVING]
    return _offers_of(now._replace(nodes=staying))


def _sure_of_failures(now: planning.Situation) -> Any:
    """What a launcher says that it has not launched is taken for not there."""
    return _offers_of(now._replace(unsure=()))


def _end_unasked(machine: autoscaler.Autoscaler, event: autoscaling_events.Ticked) -> list[Any]:
    """Nodes are ended without asking whether something runs on them now."""
    found = []
    for command in _on_ticked(machine, event):
        is_drain = isinstance(command, autoscaling_events.Drain)
        found.append(autoscaling_events.Terminate(*command) if is_drain else command)
    return found


def _drain_below_min(now: planning.Situation, causes: Mapping[str, str]) -> Any:
    """Only launching looks at min_workers."""
    types = tuple(one._replace(min_workers=0) for one in now.settings.node_types)
    return _drains_of(now._replace(settings=now.settings._replace(node_types=types)), causes)


def _drain_at_once(now: planning.Situation, causes: Mapping[str, str]) -> Any:
    """Whatever is idle goes."""
    types = tuple(one._replace(idle_timeout_s=0.0) for one in now.settings.node_types)
    return _drains_of(now._replace(settings=now.settings._replace(node_types=types)), causes)


def _launch_all(_now: Any, _at_once: Any, wanted: list[packing.Room]) -> tuple[list[Any], list[Any]]:
    """As fast as can be."""
    return [planning._Launch(room.type_name, room.cause, room.count) for room in wanted], []


def _forget_the_coming(now: planning.Situation, *, is_whole: bool) -> Any:
    """What is on its way is no room yet."""
    alive = [node for node in now.nodes if node.state is planning.NodeState.ALIVE]
    return _rooms_of(now._replace(nodes=alive, outstanding=()), is_whole=is_whole)


def _launch_part_of_a_group(packer: packing.Packer, group: Any, cause: str) -> Any:
    """What was launched for a group that cannot be placed is launched all the same."""
    found = _attempt(packer, group, cause)
    if found is not None and packer.offers.can(packer.offers.all[0]):
        packer.launch(packer.offers.all[0], cause, 1)
    return found


_attempt = packing.Packer._attempt


def _remember_the_question(machine: autoscaler.Autoscaler, now_s: float, *asked: Any) -> Any:
    """A dry run's demand stays."""
    if asked and asked[0]:
        machine._shapes = (*machine._shapes, *asked[0])
    return _dry_run(machine, now_s, *asked)


def _say_nothing_of_size(packer: packing.Packer, shape: Any, *, in_group: bool = False) -> Any:
    """Every type that does not serve is said to be used up."""
    return tuple(packing.Looked(one.name, packing.TYPE_MAX, "none is left") for one in packer.offers.all)


def _count_the_drained(machine: autoscaler.Autoscaler, event: autoscaling_events.NodeSeen) -> Any:
    """A node that others have had drained counts as one that stays."""
    return _on_seen(machine, event._replace(draining=""))


_on_seen = autoscaler.Autoscaler._on_seen


def _keep_the_idle(now: planning.Situation, _causes: Mapping[str, str]) -> Any:
    """Whatever is there is taken for needed."""
    return _drains_of(now, {node.name: "something" for node in now.nodes})


def _launch_whatever_comes(now: planning.Situation) -> planning.Plan:
    """However many launches have no answer."""
    with attribute(planning, "LAUNCHES_MAX", 1_000):
        return _plan_of(now)


_plan_of = planning.plan


PLANTS: Final[Mapping[str, Planted]] = {
    "leaving-forgotten": instead("autoscaling", planning, "_offers", _forget_the_leaving, "U1"),
    "failures-believed": instead("autoscaling", planning, "_offers", _sure_of_failures, "U1", "U2"),
    "ended-unasked": instead("autoscaling", _SCALER, "_on_ticked", _end_unasked, "U3"),
    "drained-counted": instead("autoscaling", _SCALER, "_on_seen", _count_the_drained, "U5"),
    "below-min": instead("autoscaling", planning, "_drains", _drain_below_min, "U2", "U5"),
    "idle-for-no-time": instead("autoscaling", planning, "_drains", _drain_at_once, "U2"),
    "idle-kept": instead("autoscaling", planning, "_drains", _keep_the_idle, "U5", "U6", "R2"),
    "coming-forgotten": instead("autoscaling", planning, "_rooms", _forget_the_coming, "U7"),
    "groups-in-part": instead("autoscaling", packing.Packer, "_attempt", _launch_part_of_a_group, "U7"),
    "as-fast-as-can-be": instead("autoscaling", planning, "_by_speed", _launch_all, "U9"),
    "failures-forgotten": instead("autoscaling", _SCALER, "_fail", lambda *_: None, "U10"),
    "listings-unread": instead("autoscaling", _SCALER, "_on_listed", deaf, "U", "R2"),
    "question-remembered": instead("autoscaling", _SCALER, "dry_run", _remember_the_question, "U8"),
    "reasons-made-up": instead("autoscaling", packing.Packer, "looked", _say_nothing_of_size, "U6"),
    "launches-unbounded": instead("autoscaling", planning, "plan", _launch_whatever_comes, "U11"),
    "rejections-unheard": instead("autoscaling", _SCALER, "_on_drain_answered", deaf, "U5", "R2"),
}
