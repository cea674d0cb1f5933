"""What to do about a situation, and why: nothing is remembered here, so asking changes nothing.

In this order there is room for: each type's min_workers; standing requests, whatever is in use; placement groups; the rest of
what waits. The first two are launched at once, the others as fast as the upscaling speed allows. A node that is idle for its
time goes, unless one of these needs it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from umbel._autoscaling import demand, node_types, packing
from umbel._model import resources

LAUNCHES_MAX: Final = 16  # without an answer at a time; for each there is a thread that waits for the launcher
UPSCALING_MIN: Final = 5  # Ray's: so many of a type may be on their way, however few there are
_CAUSES_NAMED_MAX: Final = 3  # in the reason of one launch


class NodeState(Enum):
    LAUNCHING = "launching"  # it has an id, and has not joined
    ALIVE = "alive"
    DRAINING = "draining"
    LEAVING = "leaving"  # others have had it drained, and it ends by itself
    TERMINATING = "terminating"


LEAVING: Final = (NodeState.DRAINING, NodeState.LEAVING, NodeState.TERMINATING)


class Node:
    """One that is there, or comes. type_name: "" for one that was not launched here. reason: why it was launched.
    total, available, labels, idle_since_s: as it was last seen. since_s: when its state began. needed_s: when it was last needed
    though nothing ran on it. is_early: it may be of a launch that was not answered yet."""

    __slots__ = (
        "asked_at_s", "available", "idle_since_s", "is_early", "known_at_s", "labels", "name", "needed_s", "reason", "since_s",
        "state", "total", "type_name", "why_it_goes",
    )  # fmt: skip

    def __init__(self, name: str, type_name: str, reason: str, now_s: float) -> None:
        self.name = name
        self.type_name = type_name
        self.reason = reason
        self.is_early = False
        self.why_it_goes = ""
        self.state = NodeState.LAUNCHING
        self.since_s = self.known_at_s = self.needed_s = now_s
        self.asked_at_s = -math.inf  # to drain, or to end
        self.total = self.available = resources.EMPTY
        self.labels: Mapping[str, str] = {}
        self.idle_since_s: float | None = None

    def idle_s(self, now_s: float) -> float | None:
        """Since when neither something ran on it nor anything needed it; of one that comes, since it is not needed."""
        if self.state is NodeState.LAUNCHING:
            return now_s - self.needed_s
        return None if self.idle_since_s is None else now_s - max(self.idle_since_s, self.needed_s)


class Outstanding(NamedTuple):
    """A launch without an answer. since_s: when it was asked for."""

    type_name: str
    node_count: int
    reason: str
    since_s: float


class Unsure(NamedTuple):
    """Nodes that may have been launched though the launcher has answered that they were not: they count until a listing has been
    asked for since."""

    type_name: str
    node_count: int
    since_s: float


class Failure(NamedTuple):
    """A type that could not be launched. times: how often in a row."""

    times: int
    reason: str
    retry_at_s: float


class Situation(NamedTuple):
    """All that a plan depends on. found: of each type, what the last of its nodes to join really had. unsure: see
    there."""

    settings: node_types.Settings
    nodes: Sequence[Node]
    outstanding: Sequence[Outstanding]
    unsure: Sequence[Unsure]
    failures: Mapping[str, Failure]
    found: Mapping[str, resources.ResourceSet]
    shapes: tuple[demand.Shape, ...]
    groups: tuple[demand.Group, ...]
    standing: tuple[demand.Shape, ...]
    now_s: float


class PlannedLaunch(NamedTuple):
    type_name: str
    node_count: int
    reason: str


class PlannedDrain(NamedTuple):
    node: str
    reason: str


class Plan(NamedTuple):
    """launches, drains: what is to be done now. deferred: what is launched later, so as not to be faster than the upscaling
    speed, or since too many launches have no answer. kept: why each other node is there. needed: those that something needs which
    waits or stands. unmet: what finds no room, with every type of nodes that was looked at."""

    launches: tuple[PlannedLaunch, ...]
    drains: tuple[PlannedDrain, ...]
    deferred: tuple[PlannedLaunch, ...]
    kept: Mapping[str, str]
    needed: frozenset[str]
    unmet: tuple[packing.Unplaced, ...]


def plan(now: Situation) -> Plan:
    found = _pack(now, serves_most=False)
    if any(looked.kind == packing.CLUSTER_MAX for one in found.unmet for looked in one.looked):
        other = _pack(now, serves_most=True)  # few nodes are left to be launched: rather those that serve much
        if _unmet_count(other) < _unmet_count(found):
            found = other
    at_once = [_Launch(room.type_name, room.cause, room.count) for room in found.at_once]
    soon, later = _by_speed(now, at_once, found.wanted)
    drains, kept = _drains(now, found.causes)
    launches = _launches(at_once) + _launches(soon)
    now_count = max(0, LAUNCHES_MAX - len(now.outstanding))
    deferred = launches[now_count:] + _launches(later)
    return Plan(launches[:now_count], drains, deferred, kept, frozenset(found.causes), tuple(found.unmet))


class _Launch(NamedTuple):
    """Nodes that are launched for the same."""

    type_name: str
    cause: str
    node_count: int


class _Packed(NamedTuple):
    """at_once, wanted: new nodes. causes: for what other nodes are needed."""

    at_once: Sequence[packing.Room]
    wanted: Sequence[packing.Room]
    causes: Mapping[str, str]
    unmet: Sequence[packing.Unplaced]


def _unmet_count(packed: _Packed) -> int:
    return sum(one.unit_count for one in packed.unmet)


def _pack(now: Situation, *, serves_most: bool) -> _Packed:
    offers = _offers(now)
    standing = packing.Packer(_rooms(now, is_whole=True), offers, serves_most=serves_most)
    unmet = []
    for made, offer in zip(now.settings.node_types, offers.all, strict=True):
        count, least = _count_of(now, made.name), made.min_workers
        possible = min(max(0, least - count), offers.can(offer))
        if possible:
            standing.launch(offer, f"min_workers is {least}", possible)
        if count + possible < least:
            looked = standing.looked_at(offer, demand.Shape(offer.resources))
            unmet.append(packing.Unplaced(f"min_workers of {made.name}", least - count - possible, (looked,)))
    unmet += [
        one._replace(what=f"{one.what}, of a standing request")
        for one in standing.place(now.standing, "{} of a standing request")
    ]
    at_once = [room for room in standing.rooms if room.is_new]
    coming = [packing.Room(room.name, room.type_name, room.whole, room.labels, count=room.count) for room in at_once]
    waiting = packing.Packer([*_rooms(now, is_whole=False), *coming], offers, serves_most=serves_most)
    for group in sorted(now.groups, key=lambda one: (-len(one.bundles), one.group)):
        unplaced = waiting.place_group(group, f"placement group {group.group} ({group.strategy})")
        if unplaced is not None:
            unmet.append(unplaced)
    unmet += waiting.place(now.shapes, "{}, which waits")
    wanted = [room for room in waiting.rooms if room.is_new]
    there = {node.name for node in now.nodes}
    causes = {room.name: room.cause for room in (*waiting.rooms, *standing.rooms) if room.cause and room.name in there}
    return _Packed(at_once, wanted, causes, unmet)


# ---- what there is ----


def _count_of(now: Situation, type_name: str) -> int:
    """Those that will stay: there, or on their way."""
    here = sum(node.type_name == type_name and node.state not in LEAVING for node in now.nodes)
    return here + sum(count for one, count in _coming(now) if one.type_name == type_name)


def _coming(now: Situation) -> Iterable[tuple[Outstanding, int]]:
    """Launches without an answer, each with the number of its nodes that have not been seen before it."""
    early = Counter(node.type_name for node in now.nodes if node.is_early)
    for one in now.outstanding:
        seen = min(one.node_count, early[one.type_name])
        early[one.type_name] -= seen
        if seen < one.node_count:
            yield one, one.node_count - seen


def _offers(now: Situation) -> packing.Offers:
    counts = Counter(node.type_name for node in now.nodes if node.type_name)  # those that leave are still there
    for one in now.outstanding:
        counts[one.type_name] += one.node_count
    for hidden in now.unsure:
        counts[hidden.type_name] += hidden.node_count
    offers = []
    for made in now.settings.node_types:
        failure = now.failures.get(made.name)
        refusal = ""
        if failure is not None and failure.retry_at_s > now.now_s:
            refusal = (
                f"it could not be launched ({failure.reason}); tried again in {failure.retry_at_s - now.now_s:.0f} s"
            )
        offers.append(packing.Offer(made, _resources_of(now, made), made.max_workers - counts[made.name], refusal))
    limit = now.settings.max_workers
    return packing.Offers(offers, limit - sum(counts.values()), limit)


def _resources_of(now: Situation, made: node_types.NodeType) -> resources.ResourceSet:
    """What its nodes have, which may be less than they should: else what never fits would be launched for again and again."""
    found = now.found.get(made.name)
    if found is None:
        return made.resources
    return resources.ResourceSet({name: min(amount, found.get(name, 0)) for name, amount in made.resources.items()})


def _rooms(now: Situation, *, is_whole: bool) -> list[packing.Room]:
    """Those first that stay in any case: in use, idle for the shortest time, on their way."""
    offered = {made.name: (_resources_of(now, made), made.labels) for made in now.settings.node_types}
    staying = [node for node in now.nodes if node.state is NodeState.ALIVE]
    staying.sort(key=lambda node: (node.idle_since_s is not None, -(node.idle_since_s or 0.0), node.name))
    rooms = [
        packing.Room(node.name, node.type_name, node.total, node.labels, None if is_whole else node.available)
        for node in staying
    ]
    for node in now.nodes:
        if node.state is NodeState.LAUNCHING and node.type_name in offered:
            rooms.append(packing.Room(node.name, node.type_name, *offered[node.type_name]))
    for index, (one, count) in enumerate(_coming(now)):
        if one.type_name in offered:
            name = f"launch {index} of {one.type_name}"
            rooms.append(packing.Room(name, one.type_name, *offered[one.type_name], count=count))
    return rooms


# ---- what comes ----


def _by_speed(
    now: Situation, at_once: Sequence[_Launch], wanted: Sequence[packing.Room]
) -> tuple[list[_Launch], list[_Launch]]:
    """Of what is wanted, what may be launched now and what later."""
    alive = Counter(node.type_name for node in now.nodes if node.state is NodeState.ALIVE)
    coming = Counter(node.type_name for node in now.nodes if node.state is NodeState.LAUNCHING)
    for one in now.outstanding:
        coming[one.type_name] += one.node_count
    for launch in at_once:
        coming[launch.type_name] += launch.node_count
    soon, later = [], []
    for room in wanted:
        limit = max(UPSCALING_MIN, math.ceil(now.settings.upscaling_speed * alive[room.type_name]))
        count = min(room.count, max(0, limit - coming[room.type_name]))
        coming[room.type_name] += count
        if count:
            soon.append(_Launch(room.type_name, room.cause, count))
        if count < room.count:
            later.append(_Launch(room.type_name, room.cause, room.count - count))
    return soon, later


def _launches(launches: Iterable[_Launch]) -> tuple[PlannedLaunch, ...]:
    by_type: dict[str, list[_Launch]] = {}
    for one in launches:
        by_type.setdefault(one.type_name, []).append(one)
    return tuple(
        PlannedLaunch(name, sum(one.node_count for one in alike), _in_words([one.cause for one in alike]))
        for name, alike in by_type.items()
    )


def _in_words(causes: Sequence[str]) -> str:
    named = list(dict.fromkeys(causes))
    more = len(named) - _CAUSES_NAMED_MAX
    return "; ".join(named[:_CAUSES_NAMED_MAX]) + (f"; and {more} more" if more > 0 else "")


# ---- what goes, and what stays ----


def _drains(now: Situation, causes: Mapping[str, str]) -> tuple[tuple[PlannedDrain, ...], dict[str, str]]:
    settings = now.settings
    least = {made.name: made.min_workers for made in settings.node_types}
    most = {made.name: made.max_workers for made in settings.node_types}
    joined = Counter(node.type_name for node in now.nodes if node.state is NodeState.ALIVE)
    there = Counter(node.type_name for node in now.nodes if node.type_name and node.state not in LEAVING)
    kept = {}
    drains: list[PlannedDrain] = []
    total = there.total()

    def is_left_over(node: Node) -> bool:
        """More are there than may be: the settings have changed."""
        return there[node.type_name] > most.get(node.type_name, 0) or total - len(drains) > settings.max_workers

    def why_kept(node: Node) -> str:
        """Why it stays; "" when it goes."""
        if not node.type_name:
            return "it was not launched by the autoscaler"
        if node.state in LEAVING:
            return f"it is {node.state.value}: {node.why_it_goes}"
        cause = causes.get(node.name)
        idle_s = node.idle_s(now.now_s)
        if node.state is NodeState.LAUNCHING:
            age_s = now.now_s - node.since_s
            if age_s >= settings.boot_timeout_s:
                return ""
            if cause or not is_left_over(node):
                within = settings.idle_timeout_of(node.type_name)
                if cause or idle_s is None or idle_s < within or there[node.type_name] <= least.get(node.type_name, 0):
                    return f"it was launched {age_s:.0f} s ago and has not joined yet: {node.reason}"
            return ""
        if idle_s is None:
            return "it is in use"
        if is_left_over(node) and joined[node.type_name] > least.get(node.type_name, 0):
            return ""
        if cause:
            return f"it is needed for {cause}"
        if joined[node.type_name] <= least.get(node.type_name, 0):
            return f"its type's min_workers are {least[node.type_name]}"
        limit_s = settings.idle_timeout_of(node.type_name)
        return "" if idle_s >= limit_s else f"it is idle for {idle_s:.0f} of {limit_s:g} s"

    for node in sorted(now.nodes, key=lambda one: (-(one.idle_s(now.now_s) or 0.0), one.name)):
        why = why_kept(node)
        if why:
            kept[node.name] = why
            continue
        drains.append(PlannedDrain(node.name, _why_gone(now, node, is_left_over=is_left_over(node))))
        there[node.type_name] -= 1
        if node.state is NodeState.ALIVE:
            joined[node.type_name] -= 1
    return tuple(drains), kept


def _why_gone(now: Situation, node: Node, *, is_left_over: bool) -> str:
    if node.state is NodeState.LAUNCHING and now.now_s - node.since_s >= now.settings.boot_timeout_s:
        return f"it has not joined within {now.settings.boot_timeout_s:g} s"
    if is_left_over:
        return "more nodes are there than max_workers allow"
    if node.state is NodeState.LAUNCHING:
        return "nothing needs it any more, before it has joined"
    return f"it is idle for {node.idle_s(now.now_s) or 0.0:.0f} s, and nothing needs it"
