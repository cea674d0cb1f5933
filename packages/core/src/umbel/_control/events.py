"""What the actor table is told, and what it orders done.

Named tuples for the reason given in `umbel._agent.events`. An actor's constructor call and class description are opaque
bytes that never come here: the shell keeps them by actor id until `Forget`. `owner` and `client` are client ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, NamedTuple

from umbel._control import cluster_events


class ActorState(Enum):
    PENDING = "PENDING"  # waits for arguments or resources, or its constructor runs for the first time
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"
    DEAD = "DEAD"  # final


class Cause(Enum):
    """Why an actor is DEAD, as far as callers' errors differ."""

    NONE = "none"  # it is not dead
    CRASHED = "crashed"  # its process, its owner, or what its restarts were for
    INTENDED = "intended"  # killed by kill(), exited by itself, or no longer referred to
    INIT_FAILED = "init failed"  # its constructor raised, or an argument of it could not be computed
    UNSCHEDULABLE = "unschedulable"  # what it asked for cannot be had
    GROUP_REMOVED = "group removed"  # the placement group that it lived in, or was to, has ended
    PREEMPTED = "preempted"  # its node was taken away with notice, and it had no restarts from the first
    NO_ENVIRONMENT = "no environment"  # no worker could be started in what it is to run in


class ActorSpec(NamedTuple):
    """What the creator asked for. max_restarts: -1 is without limit. name: "" for none.

    placement, running, env, strategy, label_selectors and job (`jobs.JobEnvironment`, or None) are the node's business; here
    only the group in strategy is looked at. call_site: "" unless it was recorded.
    """

    actor: str
    owner: str
    name: str
    namespace: str
    class_name: str
    is_detached: bool
    max_restarts: int
    placement: Mapping[str, int]
    running: Mapping[str, int]
    env: Any
    strategy: Any
    label_selectors: Any
    depth: int
    call_site: str = ""
    job: Any = None
    job_id: str = ""

    @property
    def group(self) -> str:
        """The placement group in which it lives; "" for none."""
        found = self.strategy.get("placement_group", "") if isinstance(self.strategy, Mapping) else ""
        return str(found)


# ---- events ----


class ActorCreated(NamedTuple):
    """request: the number to answer by when the actor is named, else None.

    lacks_arguments: they are still being computed; `ArgumentsArrived` or `ArgumentsFailed` will follow.
    """

    spec: ActorSpec
    get_if_exists: bool
    request: int | None
    at_s: float
    lacks_arguments: bool = False


class ArgumentsArrived(NamedTuple):
    """The creator has sent the constructor call of an actor that lacked arguments. client: who says so."""

    actor: str
    client: str
    at_s: float


class ArgumentsFailed(NamedTuple):
    """An argument that an actor lacked could not be computed."""

    actor: str
    client: str
    at_s: float


class ActorWatched(NamedTuple):
    """A client wants to know every state of the actor from now on. late_s: how much longer than usual to wait for the creation
    of one that is not known yet."""

    client: str
    actor: str
    at_s: float
    late_s: float = 0.0


class ActorHosted(NamedTuple):
    """The actor got a worker."""

    actor: str
    worker: str
    address: str
    at_s: float


class ActorReady(NamedTuple):
    """The constructor has returned. worker: who says so. repr_name: how the instance calls itself, "" for as its class."""

    actor: str
    worker: str
    at_s: float
    repr_name: str = ""


class ActorInitFailed(NamedTuple):
    """The constructor raised."""

    actor: str
    worker: str
    at_s: float


class ActorExiting(NamedTuple):
    """The actor is about to exit because it wants to."""

    actor: str
    worker: str
    reason: str
    at_s: float


class ActorKilled(NamedTuple):
    """Somebody called kill(). is_final: it shall not restart."""

    actor: str
    is_final: bool
    at_s: float


class ActorUnreferenced(NamedTuple):
    """The owner knows of no handle and no unfinished call any more."""

    actor: str
    at_s: float


class HostDied(NamedTuple):
    """The actor's worker process is gone. reason: what to tell callers. is_preempted: with its node, which was drained for that;
    the restart counts against nothing."""

    actor: str
    worker: str
    reason: str
    at_s: float
    is_preempted: bool = False


class HostingFailed(NamedTuple):
    """No worker will be found for the actor. is_unschedulable: because of what was asked for."""

    actor: str
    reason: str
    is_unschedulable: bool
    at_s: float


class GroupEnded(NamedTuple):
    """A placement group has ended, and so do the actors in it."""

    group: str
    reason: str
    at_s: float


class ClientGone(NamedTuple):
    """A process that may own actors and watch others is gone."""

    client: str
    at_s: float


class Stage(Enum):
    """How far a worker is with an actor that it hosts."""

    UNCALLED = "uncalled"  # the constructor call has not reached it
    CONSTRUCTING = "constructing"
    READY = "ready"


class Hosting(NamedTuple):
    """What a worker hosts."""

    actor: str
    stage: Stage


class HostsReported(NamedTuple):
    """A node that lived on while the service was away: its workers that host actors, and all its processes."""

    node: str
    hosts: Mapping[str, Hosting]
    processes: Collection[str]
    at_s: float


class HostEnd(NamedTuple):
    """How the node of a worker ended."""

    reason: str
    is_preempted: bool


class Recovered(NamedTuple):
    """Who has not been reported by now is gone. reason: what to tell callers of a worker's end, unless `ends` has of its node how
    that ended."""

    reason: str
    at_s: float
    ends: Mapping[str, HostEnd] = {}  # by worker


class Ticked(NamedTuple):
    at_s: float


ActorEvent = (
    ActorCreated
    | ArgumentsArrived
    | ArgumentsFailed
    | ActorWatched
    | ActorHosted
    | ActorReady
    | ActorInitFailed
    | ActorExiting
    | ActorKilled
    | ActorUnreferenced
    | HostDied
    | HostingFailed
    | GroupEnded
    | ClientGone
    | HostsReported
    | Recovered
    | Ticked
)

# ---- commands ----


class Place(NamedTuple):
    """Find a worker for the actor."""

    spec: ActorSpec


class Create(NamedTuple):
    """Send the constructor call to the worker. reconstructed: how many times it has run before."""

    actor: str
    worker: str
    reconstructed: int


class Release(NamedTuple):
    """Ask the actor's worker to finish what it has received and exit; kill it after `grace_s` unless that is None."""

    actor: str
    grace_s: float | None


class Kill(NamedTuple):
    """Kill the actor's worker, or stop looking for one."""

    actor: str
    reason: str


class Publish(NamedTuple):
    """Tell `client` the state of an actor."""

    client: str
    actor: str
    state: ActorState
    address: str
    worker: str
    restarts: int
    reason: str
    cause: Cause


class AnswerCreate(NamedTuple):
    """The request to create a named actor succeeded, or found `actor` (is_existing)."""

    client: str
    request: int
    actor: str
    is_existing: bool


class RefuseCreate(NamedTuple):
    client: str
    request: int | None
    actor: str
    reason: str


class Forget(NamedTuple):
    """The constructor call is needed no more."""

    actor: str


ActorCommand = (
    Place | Create | Release | Kill | Publish | AnswerCreate | RefuseCreate | Forget | cluster_events.Happened
)
