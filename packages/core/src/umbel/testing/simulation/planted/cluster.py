"""Defects that the world `cluster` finds: of what the parts of a cluster do to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import head_link, lease_links, lease_sharing, reacher
from umbel._control import actor_places, members, node_service
from umbel._scheduling import dispatch as sched
from umbel._scheduling import forwarding
from umbel.testing.simulation.planted import agent, control, dispatch
from umbel.testing.simulation.planted import members as of_members
from umbel.testing.simulation.planted.defect import Planted, instead


def _keep_leases(_sharing: lease_sharing.Sharing, _node: str, _reason: str, _drained: str) -> None:
    """The processes of a node do not hear that workers of another one are gone."""


def _keep_guests(_sharing: lease_sharing.Sharing, _lessee: lease_links.Lessee) -> None:
    """What a node has leased whose connection broke stays leased."""


def _keep_hosts(_places: actor_places.ActorPlaces, _member: members.Member, _end: Any) -> None:
    """What a dead node has hosted is not missed."""


def _go_on(_link: head_link.HeadLink, _command: Any) -> None:
    """A node that was given up goes on."""


def _ask_nobody(_service: node_service.NodeService, _node_id: str, _message: Any) -> None:
    """A node that cannot be dialled does not hear that another one wants it."""


def _meet_nobody(_reacher: reacher.Reacher, _ticket: bytes, _other: bytes) -> None:
    """Two of which neither can dial the other come to the head, and are not expected."""


def _stay(_machine: forwarding.Forwarding, _wish: Any, _node: str, _at_s: float) -> bool:
    """What waits at a node stays there."""
    return False


_wanted = sched.SchedulingClass.wanted


def _want_for_the_waiting(cls: sched.SchedulingClass, now_s: float) -> int:
    """What is queued at a worker behind a task that takes long counts for nothing."""
    return _wanted(cls, now_s) if cls.ready else 0


def _here_too(plant: Planted, *signs: str) -> Planted:
    """One that another world finds as well, by other signs."""
    return plant._replace(machine="cluster", signs=signs)


PLANTS: Final[Mapping[str, Planted]] = {
    "leases-of-the-dead-kept": instead("cluster", lease_sharing.Sharing, "_break_leases", _keep_leases, "B", "R2"),
    "guests-kept": instead("cluster", lease_sharing.Sharing, "on_lessee_gone", _keep_guests, "B", "R2"),
    "hosts-not-missed": instead("cluster", actor_places.ActorPlaces, "node_gone", _keep_hosts, "B", "R2"),
    "refused-go-on": instead("cluster", head_link.HeadLink, "_end", _go_on, "B9", "R2"),
    "nobody-asked": instead("cluster", node_service.NodeService, "_on_reach", _ask_nobody, "B", "R2"),
    "nobody-expected": instead("cluster", reacher.Reacher, "expect", _meet_nobody, "B", "R2"),
    "queued-behind-not-wanted": instead("cluster", sched.SchedulingClass, "wanted", _want_for_the_waiting, "B10"),
    "queued-behind-kept": instead("cluster", sched.SchedulingClass, "steal_from", lambda _: None, "B10"),
    "never-asked-elsewhere": instead("cluster", forwarding.Forwarding, "_move", _stay, "B10"),
    "losses-free": _here_too(dispatch.PLANTS["crash-charges-none"], "B5"),
    "told-before-kept": _here_too(control.PLANTS["said-at-once"], "B", "R2"),
    "starting-always": _here_too(agent.PLANTS["always-starting"], "B7"),
    "jobs-numbered-twice": _here_too(of_members.PLANTS["jobs-counted-apart"], "B2"),
    "dead-nodes-listed": _here_too(of_members.PLANTS["dead-nodes-kept"], "B", "R2"),
    "nothing-left-open": _here_too(of_members.PLANTS["left-unsaid"], "B", "R2"),
}
