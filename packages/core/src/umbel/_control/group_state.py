"""What is known of one placement group, and how that is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from umbel._base import checks
from umbel._control import cluster_events
from umbel._control import group_events as ev
from umbel._control.group_events import Cause, GroupSpec, GroupState
from umbel._model import reasons
from umbel._scheduling import bundles

Reason = reasons.Reason


Part = tuple[str, int]  # a node, and the number under which it was asked for bundles


class Attempt:
    """One attempt to place what has no place of a group."""

    __slots__ = ("is_committing", "nodes", "numbers", "until_s", "waits_for")

    def __init__(self, until_s: float | None) -> None:
        self.nodes: dict[int, str] = {}  # by index of the bundle
        self.numbers: dict[int, int] = {}  # likewise, under which it was asked for
        self.waits_for: dict[Part, None] = {}  # what was not answered, in order
        self.is_committing = False
        self.until_s = until_s  # when it has taken too long; None for never

    def asks(self, number: int, homes: Mapping[int, str]) -> None:
        """These nodes are asked for these bundles, some of them instead of others."""
        self.nodes.update(homes)
        self.numbers.update(dict.fromkeys(homes, number))
        self.waits_for.update(dict.fromkeys((node, number) for node in homes.values()))

    def parts(self) -> dict[Part, None]:
        return dict.fromkeys((node, self.numbers[index]) for index, node in self.nodes.items())

    def reserved(self) -> dict[int, str]:
        """Where bundles are that were."""
        return {index: node for index, node in self.nodes.items() if (node, self.numbers[index]) not in self.waits_for}


class Group:
    """One group's record."""

    __slots__ = (
        "attempt", "attempts", "cause", "created_s", "creator", "followers", "infeasible_since_s", "is_warned_of", "nodes",
        "number", "ready_s", "reason", "retry_s", "spec", "state", "watchers",
    )  # fmt: skip

    def __init__(self, spec: GroupSpec, number: int, at_s: float) -> None:
        self.spec = spec
        self.number = number  # they are placed in this order
        self.state = GroupState.PENDING
        self.nodes: dict[int, str] = {}  # of the bundles that tasks may use, by index
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.reason = ""  # why it is not CREATED
        self.cause = Cause.NONE
        self.created_s = at_s  # the record
        self.ready_s: float | None = None  # when it was first CREATED
        self.infeasible_since_s: float | None = None
        self.is_warned_of = False  # that it can never be placed
        self.retry_s: float | None = None  # when to attempt it again
        self.watchers: dict[str, None] = {}  # in order of arrival
        self.followers: dict[str, None] = {}  # nodes
        self.creator = ""  # a client that may take it for CREATED until it hears otherwise; "" for none


class Listed(NamedTuple):
    """One group for queries. nodes: of each bundle, "" for none. ready_after_s: from its creation until it was CREATED."""

    group: str
    name: str
    namespace: str
    state: GroupState
    strategy: str
    bundles: tuple[Any, ...]
    nodes: tuple[str, ...]
    is_detached: bool
    owner: str
    job: str
    attempts: int
    ready_after_s: float | None
    is_infeasible: bool
    why: Reason


def subject(spec: GroupSpec) -> str:
    return f"Placement group {spec.group}" + (f" ({spec.name!r})" if spec.name else "")


def why(group: Group) -> Reason:
    """Why it is as it is."""
    spec, attempt = group.spec, group.attempt
    subject = f"placement group {spec.group}"
    facts: dict[str, Any] = {"group": spec.group, "state": group.state.value}
    if group.state is GroupState.CREATED:
        return Reason(reasons.READY, subject, "is placed", facts=facts)
    if group.state is GroupState.REMOVED:
        return Reason(reasons.UNKNOWN, subject, f"is gone: {group.reason}", facts=facts)
    lost = "has lost bundles and " if group.state is GroupState.RESCHEDULING else ""
    if group.infeasible_since_s is not None:
        return Reason(reasons.INFEASIBLE, subject, f"{lost}cannot be placed: {group.reason}", facts=facts)
    if attempt is None:
        return Reason(reasons.GROUP, subject, f"{lost}{group.reason}", facts=facts)
    waits_for = list(dict.fromkeys(node for node, _ in attempt.waits_for))
    facts["nodes"] = waits_for
    count = len(attempt.nodes) - len(attempt.reserved())
    what = "take it up" if attempt.is_committing else f"have room for {count} of its bundles"
    where = f"node{'s' * (len(waits_for) > 1)} {', '.join(node[:8] for node in waits_for)}"
    return Reason(reasons.GROUP, subject, f"{lost}waits for {where} to {what}", facts=facts)


def listed(one: Group) -> Listed:
    spec = one.spec
    nodes = tuple(one.nodes.get(index, "") for index in range(len(spec.bundles)))
    return Listed(
        spec.group, spec.name, spec.namespace, one.state, spec.strategy, spec.bundles, nodes, spec.is_detached,
        spec.owner, spec.job, one.attempts, None if one.ready_s is None else one.ready_s - one.created_s,
        one.infeasible_since_s is not None, why(one),
    )  # fmt: skip


def told(node: str, group: Group) -> ev.GroupCommand:
    spec = group.spec
    if group.state is GroupState.REMOVED:
        return ev.Tell(node, spec.group, group.state, (), (), group.reason, group.cause)
    nodes = tuple(group.nodes.get(index, "") for index in range(len(spec.bundles)))
    return ev.Tell(node, spec.group, group.state, nodes, spec.bundles, group.reason, group.cause)


def not_created(group: Group) -> list[ev.GroupCommand]:
    """Its creator hears that it is not CREATED any more."""
    if not group.creator:
        return []
    return [ev.Publish(group.creator, group.spec.group, group.state, group.reason, group.cause)]


def nodes_of(group: Group) -> set[str]:
    """All that it has to do with."""
    attempted = group.attempt.nodes.values() if group.attempt is not None else ()
    return {*group.nodes.values(), *attempted, *group.followers}


def lost_bundles(group: Group, lost: Sequence[int], node: str) -> cluster_events.Happened:
    spec = group.spec
    which = f"{len(lost)} of its {len(spec.bundles)} bundles"
    text = f"placement group {spec.name or spec.group} lost {which} with node {node}, and looks for another place"
    facts = {"placement_group_id": spec.group, "name": spec.name, "node_id": node, "bundles": list(lost)}
    return cluster_events.Happened(cluster_events.WARNING, cluster_events.GROUPS, text, facts)


def check(group: Group, nodes: Collection[str]) -> None:
    """nodes: all that it may be on."""
    spec, attempt = group.spec, group.attempt
    is_created = group.state is GroupState.CREATED
    if (len(group.nodes) == len(spec.bundles)) != is_created:
        raise checks.broken("CREATED is not whole", group=spec.group)
    if group.state is GroupState.PENDING and group.nodes:
        raise checks.broken("a group that was never created has bundles", group=spec.group)
    if not is_created and not group.reason:
        raise checks.broken("a group waits without a reason", group=spec.group)
    homes = dict(group.nodes)
    if attempt is not None:
        missing = [index for index in range(len(spec.bundles)) if index not in group.nodes]
        checks.invariant(sorted(attempt.nodes) == missing, "an attempt for other bundles", group=spec.group)
        waits_for = set(attempt.waits_for)
        checks.invariant(waits_for and waits_for <= set(attempt.parts()), "an attempt hangs", group=spec.group)
        homes |= attempt.nodes
    for node in homes.values():
        if node not in nodes:
            raise checks.broken("a bundle on a node that is gone", group=spec.group, node=node)
    count = len(set(homes.values()))
    if spec.strategy == bundles.STRICT_SPREAD:
        checks.invariant(count == len(homes), "two bundles of STRICT_SPREAD on one node", group=spec.group)
    if spec.strategy == bundles.STRICT_PACK:
        checks.invariant(count <= 1, "bundles of STRICT_PACK on several nodes", group=spec.group)
