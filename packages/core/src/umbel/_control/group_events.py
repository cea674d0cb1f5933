"""What the table of placement groups is told, and what it orders done.

Named tuples for the reason given in `umbel._agent.events`. Amounts are integer units of 1/10,000. An `attempt` numbers the
attempts to place what has no place of one group: a node answers with the number that it was asked under, and an answer
to an earlier one is void.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from umbel._control import cluster_events
from umbel._model import resources


class GroupState(Enum):
    PENDING = "PENDING"  # nothing of it is placed
    CREATED = "CREATED"  # all of it is placed
    RESCHEDULING = "RESCHEDULING"  # it was all placed, and nodes with some of it are gone
    REMOVED = "REMOVED"  # final


class Cause(Enum):
    """Why a group is REMOVED, as far as waiters' errors differ."""

    NONE = "none"  # it is not
    REMOVED = "removed"  # by somebody, or with whoever had created it
    UNSCHEDULABLE = "unschedulable"  # no node that there is could ever hold it
    UNKNOWN = "unknown"  # there is no such group, or it has been forgotten


class GroupSpec(NamedTuple):
    """What the creator asked for.

    owner: with whom the group ends unless it is detached, a process or an actor. name: "" for none. label_selectors: one
    for each bundle, or none. depth: of the tasks of whoever created it, as for demands. job: for listings.
    """

    group: str
    owner: str
    name: str
    namespace: str
    bundles: tuple[resources.ResourceSet, ...]
    strategy: str
    is_detached: bool
    label_selectors: tuple[Mapping[str, str], ...] = ()
    soft_target: str = ""
    depth: int = 0
    job: str = ""


# ---- events ----


class GroupCreated(NamedTuple):
    """client, request: whom to answer, and under which number. is_near: it may be told with the answer that the group is CREATED,
    and hears when that is over."""

    spec: GroupSpec
    client: str
    request: int | None
    at_s: float
    is_near: bool = False


class RemovalWanted(NamedTuple):
    """Somebody called remove_placement_group()."""

    group: str
    at_s: float
    client: str = ""


class GroupWatched(NamedTuple):
    """A client wants to know when the group is CREATED or REMOVED."""

    client: str
    group: str
    at_s: float


class GroupFollowed(NamedTuple):
    """Processes of a node want to run something in the group: the node wants to know where its bundles are, until it ends."""

    node: str
    group: str
    at_s: float


class NodeSeen(NamedTuple):
    """A node as it is now: a `umbel._model.placement.NodeView`. What it was asked for and has not answered is free there."""

    view: Any
    at_s: float


class NodesSeen(NamedTuple):
    """Several of them at once."""

    views: Sequence[Any]
    at_s: float


class NodeLost(NamedTuple):
    """A node is gone for good, and what it held."""

    node: str
    at_s: float


class BundlesReserved(NamedTuple):
    """A node holds the bundles it was asked for. view: the node since then; None where it is not known."""

    node: str
    group: str
    attempt: int
    at_s: float
    view: Any = None


class BundlesRefused(NamedTuple):
    """A node will not hold them."""

    node: str
    group: str
    attempt: int
    reason: str
    at_s: float


class BundlesCommitted(NamedTuple):
    """Tasks and actors of the group can be run in them."""

    node: str
    group: str
    attempt: int
    at_s: float


class OwnerGone(NamedTuple):
    """A process, or an actor, is gone: its groups go, and it watches no others."""

    owner: str
    at_s: float


class HeldBundles(NamedTuple):
    """What a node holds of a group by one attempt. is_committed: tasks and actors may be in them."""

    attempt: int
    indices: Collection[int]
    is_committed: bool


class BundlesReported(NamedTuple):
    """A node, as it is now, that lived on while the service was away: what it holds, by group, and of each attempt at that."""

    view: Any
    held: Mapping[str, Collection[HeldBundles]]
    at_s: float


class Recovered(NamedTuple):
    """Which node has not been reported by now is gone."""

    at_s: float


class Ticked(NamedTuple):
    at_s: float


GroupEvent = (
    GroupCreated
    | RemovalWanted
    | GroupWatched
    | GroupFollowed
    | NodeSeen
    | NodesSeen
    | NodeLost
    | BundlesReserved
    | BundlesRefused
    | BundlesCommitted
    | OwnerGone
    | BundlesReported
    | Recovered
    | Ticked
)

# ---- commands ----


class Reserve(NamedTuple):
    """Have the node reserve these bundles, by index: now or when there is room, all or none."""

    node: str
    group: str
    attempt: int
    bundles: Mapping[int, Mapping[str, int]]
    depth: int


class Commit(NamedTuple):
    """All that the attempt is about is reserved: have the node let tasks and actors in."""

    node: str
    group: str
    attempt: int


class Cancel(NamedTuple):
    """Have the node give back what it holds, or wants, of this attempt."""

    node: str
    group: str
    attempt: int


class Drop(NamedTuple):
    """Have the node give back all of the group, end what runs in it, and fail what waits for it there."""

    node: str
    group: str
    reason: str


class Tell(NamedTuple):
    """Tell `node`, which follows the group, where its bundles are: their nodes by index, "" for those that have none."""

    node: str
    group: str
    state: GroupState
    nodes: Sequence[str]
    bundles: Sequence[resources.ResourceSet]
    reason: str
    cause: Cause


class Publish(NamedTuple):
    """Tell `client` what has become of a group that it watches."""

    client: str
    group: str
    state: GroupState
    reason: str
    cause: Cause


class GroupEnded(NamedTuple):
    """Its actors end, wherever they are."""

    group: str
    reason: str


class AnswerCreate(NamedTuple):
    client: str
    request: int
    group: str


class RefuseCreate(NamedTuple):
    client: str
    request: int | None
    reason: str


class Warn(NamedTuple):
    """Tell the drivers."""

    text: str


GroupCommand = (
    Reserve
    | Commit
    | Cancel
    | Drop
    | Tell
    | Publish
    | GroupEnded
    | AnswerCreate
    | RefuseCreate
    | Warn
    | cluster_events.Happened
)
