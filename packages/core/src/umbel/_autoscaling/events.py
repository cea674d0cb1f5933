"""What the autoscaler is told, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from umbel._autoscaling import demand, node_types
from umbel._model import resources

# What has happened. Nodes are named by the ids that their launcher has given them, others by the ids of their daemons.


class DemandChanged(NamedTuple):
    """What waits now; what was told before is over."""

    shapes: tuple[demand.Shape, ...]
    groups: tuple[demand.Group, ...]
    now_s: float


class StandingChanged(NamedTuple):
    """There is to be room for this in any case, whether used or not (`request_resources`); replaces what was told before."""

    shapes: tuple[demand.Shape, ...]
    now_s: float


class Configured(NamedTuple):
    """Settings that were changed while the cluster runs."""

    settings: node_types.Settings
    now_s: float


class LaunchAnswered(NamedTuple):
    """The answer to a Launch; there is one for each. instances: as many as were launched, less than asked for after an error.
    retry_after_s: what the launcher says of it, 0 for nothing."""

    number: int
    instances: tuple[str, ...]
    now_s: float
    error: str = ""
    retry_after_s: float = 0.0


class Listed(NamedTuple):
    """What the launcher says that there is: the type of each instance. asked_at_s: before it was asked."""

    instances: Mapping[str, str]
    asked_at_s: float
    now_s: float


class NodeSeen(NamedTuple):
    """A member of the cluster as it is. type_name: "" for one that no launcher of ours has launched. idle_since_s: None while
    something runs on it. draining: why it takes nothing more and will end by itself, in words; "" if it goes on."""

    node: str
    type_name: str
    total: resources.ResourceSet
    available: resources.ResourceSet
    labels: Mapping[str, str]
    idle_since_s: float | None
    now_s: float
    draining: str = ""


class NodeDied(NamedTuple):
    """The cluster has lost this member. Its machine may still be there."""

    node: str
    now_s: float


class NodeEnded(NamedTuple):
    """There is nothing left of it: the answer to Terminate."""

    node: str
    now_s: float


class DrainAnswered(NamedTuple):
    """is_accepted: nothing runs on it, and nothing will. Otherwise it is in use again."""

    node: str
    is_accepted: bool
    now_s: float


class Ticked(NamedTuple):
    """A period has passed: decide."""

    now_s: float


Event: TypeAlias = (
    "DemandChanged | StandingChanged | Configured | LaunchAnswered | Listed | NodeSeen | NodeDied | NodeEnded | DrainAnswered"
    " | Ticked"
)


# What to do.


class Launch(NamedTuple):
    """Ask the launcher for nodes; answer with LaunchAnswered. number: unique."""

    number: int
    type_name: str
    node_count: int
    reason: str


class Drain(NamedTuple):
    """Give this node no work any more if it has none now, also when it joins only later; answer with DrainAnswered."""

    node: str
    reason: str


class Terminate(NamedTuple):
    """End it; answer with NodeEnded when nothing is left of it. Told again while there is no answer."""

    node: str
    reason: str


Command: TypeAlias = "Launch | Drain | Terminate"
