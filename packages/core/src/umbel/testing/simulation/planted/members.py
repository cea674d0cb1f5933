"""Defects that the world `members` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import control_proxy
from umbel._base import nodes as node_ids
from umbel._control import actor_places, answers, members, service
from umbel._wire import channels as channels_of_nodes
from umbel.testing.simulation.planted.defect import Planted, instead


def _keep_dead_node(one: members.Members, node_id: str, _reason: str) -> None:
    one._members.pop(node_ids.tag_of_node(node_id).hex(), None)


def _count_void_orders(one: actor_places.ActorPlaces, _member: members.Member, message: Any) -> Any:
    return one.placed.get(message["actor"])


def _reserve_unkept(one: service.ActorService, count: int) -> int:
    return one.jobs.reserve(count)


_is_open = control_proxy.ControlProxy._is_open


def _drop_unsaid(one: control_proxy.ControlProxy, message: Any) -> bool:
    """That the last handle to an actor has gone is said to one head only."""
    return control_proxy._kind(message) != "actor_unreferenced" and _is_open(one, message)


PLANTS: Final[Mapping[str, Planted]] = {
    "drops-said-once": instead("members", control_proxy.ControlProxy, "_is_open", _drop_unsaid, "Q2"),
    "not-said-again": instead("members", channels_of_nodes.Channel, "linked", lambda *_: [], "number", "Q2"),
    "dead-nodes-kept": instead("members", members.Members, "node_gone", _keep_dead_node, "Q4", "Q2"),
    "jobs-counted-apart": instead("members", service.ActorService, "reserve_job_ids", lambda *_: 1, "Q1"),
    "void-orders-count": instead(
        "members", actor_places.ActorPlaces, "_placed_there", _count_void_orders, "Q", "an actor got"
    ),
    "dead-looked-for": instead(
        "members", service.ActorService, "lacks_host", lambda *_: True, "what was withheld", "Q"
    ),
    "not-placed-anew": instead("members", actor_places.ActorPlaces, "place_anew", lambda _one: None, "Q2"),
    "bundles-kept-elsewhere": instead("members", members.Members, "drop_group", lambda *_: None, "Q5"),
    "groups-not-moved": instead("members", actor_places.ActorPlaces, "group_moved", lambda *_: None, "Q2"),
    "vouched-for-at-once": instead(
        "members", channels_of_nodes.Channel, "counts", property(lambda one: one.heard), "Q"
    ),
    "answers-forgotten": instead("members", answers.Answers, "keep", lambda *_: None, "Q1"),
    "left-unsaid": instead("members", control_proxy.ControlProxy, "_left_open", lambda _one: [], "Q"),
    "not-restated": instead("members", control_proxy.ControlProxy, "_restate", lambda *_: None, "Q"),
    "watches-not-said-again": instead(
        "members", control_proxy.ControlProxy, "_watched_again", lambda _one: None, "Q2", "Q5"
    ),
    "reserved-unkept": instead("members", service.ActorService, "reserve_job_ids", _reserve_unkept, "Q1"),
    "recovered-at-once": instead(
        "members", service.ActorService, "await_nodes", lambda _one: None, "Q", "an actor got"
    ),
}
