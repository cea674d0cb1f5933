"""What the node agent is told, and what it orders done; what concerns environments is in `environments`.

Named tuples rather than frozen dataclasses: they are as immutable, and creating fifty dataclasses would take a third of
the daemon's start. Times are seconds of one monotonic clock. Amounts of resources are integer units of 1/10,000.
An `env` is the canonical JSON text of the environment that a worker must be started with; "" is the plain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# ---- events ----


class Job(NamedTuple):
    """What the scheduling of one driver's work depends on. id: as all nodes of the cluster know it; "" where all is of one job.
    priority: higher ones go first. weight: of its share among jobs of its priority. preempts: whether tasks of lower ones are
    stopped for it."""

    id: str = ""
    priority: int = 0
    weight: float = 1.0
    preempts: bool = False


NO_JOB = Job()


class ClientJoined(NamedTuple):
    """A driver or worker has introduced itself."""

    client: str
    at_s: float


class ClientLeft(NamedTuple):
    """A client's connection has ended. Its wishes end too, and its tasks are orphans."""

    client: str
    at_s: float


class DemandChanged(NamedTuple):
    """A client wants `lease_count` more leases for scheduling key `key`; 0 withdraws the wish.

    depth: of the tasks' nesting; deeper demands go first, because shallower ones wait for them.
    refusal: why this node can never serve it, whatever its resources; "" if it can. strategy: as it was sent, for
    policies of plugins. build_key: what of the environment has to be built before workers can be started, as canonical
    JSON; "" for nothing. build_timeout_s: how long that may take; None for no limit. source: another node that has the
    packages that it is built from; "" for none. label_selectors: the best first, to be told of only. is_claim: it is for what
    other jobs have to give up, on a node that has no room: its own job gives up nothing for it.
    """

    client: str
    key: str
    resources: Mapping[str, int]
    lease_count: int
    depth: int
    env: str
    refusal: str
    at_s: float
    strategy: str | Mapping[str, Any] | None = None
    build_key: str = ""
    build_timeout_s: float | None = None
    source: str = ""
    job: Job = NO_JOB
    label_selectors: Any = None
    is_claim: bool = False


class LeaseReturned(NamedTuple):
    """The holder of a lease needs it no more. is_retired: nobody may use this worker again."""

    client: str
    worker: str
    is_retired: bool
    at_s: float


class WorkerBlocked(NamedTuple):
    """A worker waits for other tasks: its CPUs are free meanwhile."""

    worker: str
    at_s: float


class WorkerUnblocked(NamedTuple):
    worker: str
    at_s: float


class KillRequested(NamedTuple):
    """The holder of a lease wants its worker dead at once."""

    client: str
    worker: str
    reason: str
    at_s: float


class ActorWanted(NamedTuple):
    """An actor needs a worker for life.

    placement: what the node must have in all; running: what the actor holds while it lives. The rest: as above.
    """

    actor: str
    placement: Mapping[str, int]
    running: Mapping[str, int]
    depth: int
    env: str
    refusal: str
    at_s: float
    strategy: str | Mapping[str, Any] | None = None
    build_key: str = ""
    build_timeout_s: float | None = None
    source: str = ""
    job: Job = NO_JOB
    label_selectors: Any = None


class ActorUnwanted(NamedTuple):
    """An actor needs no worker any more: the wish is withdrawn; a worker it already has is killed. worker: only that one, which
    it was given before it was wanted anew; "" for all."""

    actor: str
    reason: str
    at_s: float
    worker: str = ""


class ActorReleased(NamedTuple):
    """An actor's worker shall finish what it has received and exit; after `grace_s`, unless None, it is killed."""

    actor: str
    grace_s: float | None
    at_s: float


class BundlesWanted(NamedTuple):
    """A placement group wants all of these bundles, by index, as soon as there is room for them. attempt: by which it is
    told of them; one of a group is under way at a time."""

    group: str
    attempt: int
    bundles: Mapping[int, Mapping[str, int]]
    depth: int
    at_s: float
    job: Job = NO_JOB


class BundlesCommitted(NamedTuple):
    """The group has all that this attempt was about: tasks and actors can be run in its bundles."""

    group: str
    attempt: int
    at_s: float


class BundlesUnwanted(NamedTuple):
    """The attempt was given up: what was reserved for it, or is wanted, is not."""

    group: str
    attempt: int
    at_s: float


class GroupDropped(NamedTuple):
    """The group is gone: what waits for it fails, what runs in its bundles is killed, and they go back to the node."""

    group: str
    reason: str
    at_s: float


class WorkerReady(NamedTuple):
    """A started worker has introduced itself and can be leased."""

    worker: str
    at_s: float


class WorkerStayed(NamedTuple):
    """A worker that was asked to exit cannot yet: it owns objects that somebody refers to, or still runs a task."""

    worker: str
    at_s: float
    is_running: bool = False


class MemoryShort(NamedTuple):
    """This worker, which is in use, must go: memory is short, and it is to blame. reason: for whoever waits for it."""

    worker: str
    reason: str
    at_s: float


class WorkerOvergrown(NamedTuple):
    """A worker that runs tasks, or may run some, holds more than one should that is used again."""

    worker: str
    at_s: float


class WorkerDismissed(NamedTuple):
    """Memory is short: this worker is to exit if it is idle and nobody needs what it owns."""

    worker: str
    at_s: float


class TaskSeen(NamedTuple):
    """A worker has answered `LookAtTask`. task: the number of what it runs, -1 for nothing. since_s: since when, by the
    system's clock. keeps: why it cannot be stopped, "" if it can."""

    worker: str
    task: int
    since_s: float
    keeps: str
    at_s: float


class TasksPreempted(NamedTuple):
    """What these workers run is stopped for others, see `Preempt`."""

    workers: tuple[str, ...]
    reason: str
    at_s: float


class WorkerExited(NamedTuple):
    """The process is gone (and reaped). signal: what killed it, or 0. failure: why it could not start, if it said so."""

    worker: str
    exit_code: int
    signal: int
    at_s: float
    failure: str = ""


class DrainingChanged(NamedTuple):
    """From now on nothing begins here but what runs in bundles that are there; reason: why, "" for that all is as before."""

    reason: str
    at_s: float


class ClusterUseTold(NamedTuple):
    """What the jobs of the cluster have of all its nodes: a `cluster_use.ClusterUse`, None where nobody tells any more."""

    use: Any
    at_s: float


class Ticked(NamedTuple):
    at_s: float


AgentEvent = (
    ClientJoined
    | ClientLeft
    | DemandChanged
    | LeaseReturned
    | WorkerBlocked
    | WorkerUnblocked
    | KillRequested
    | ActorWanted
    | ActorUnwanted
    | ActorReleased
    | BundlesWanted
    | BundlesCommitted
    | BundlesUnwanted
    | GroupDropped
    | WorkerReady
    | WorkerStayed
    | MemoryShort
    | WorkerOvergrown
    | WorkerDismissed
    | TaskSeen
    | TasksPreempted
    | WorkerExited
    | DrainingChanged
    | ClusterUseTold
    | Ticked
)

# ---- commands ----


class StartWorker(NamedTuple):
    """Fork a worker with this id. server: the fork server of its environment; "" for the plain one."""

    worker: str
    env: str
    server: str = ""


class KillWorker(NamedTuple):
    """SIGKILL. An order that may be repeated, and may come after the process has gone."""

    worker: str


class AskExit(NamedTuple):
    """Ask the worker to exit. is_idle: it may refuse because it owns objects, and is then used again."""

    worker: str
    is_idle: bool


class Grant(NamedTuple):
    """A lease: `client` alone may use `worker` until it gives it back."""

    client: str
    key: str
    worker: str
    resources: Mapping[str, int]
    accelerators: Mapping[str, tuple[str, ...]]


class Reclaim(NamedTuple):
    """Others wait, or the worker is to be replaced: `client` shall give `worker` back once what it has sent there is
    done."""

    client: str
    worker: str


class LookAtTask(NamedTuple):
    """Ask a worker what it runs: it may have to go for a job of higher priority."""

    worker: str


class Preempt(NamedTuple):
    """Stop what these workers run, if each still runs this task, and say so by `TasksPreempted`; else nothing of it, as only all
    of it together makes the room that is needed. tasks: (worker, number of its task). reason: for their owners."""

    tasks: tuple[tuple[str, int], ...]
    reason: str


class HostActor(NamedTuple):
    """`worker` is `actor`'s, for life."""

    actor: str
    worker: str
    resources: Mapping[str, int]
    accelerators: Mapping[str, tuple[str, ...]]


class BundlesReserved(NamedTuple):
    """The node holds all that this attempt of a placement group wants of it."""

    group: str
    attempt: int


class BundlesRefused(NamedTuple):
    """The node could never hold it; the wish is dropped."""

    group: str
    attempt: int
    reason: str


class LeaseBroken(NamedTuple):
    """A leased worker died. is_intended: this agent or its holder had it killed. group: the placement group the end of
    which was the worker's, or "". is_preempted: for a job of higher priority, which is no fault of its task."""

    client: str
    worker: str
    exit_code: int
    signal: int
    reason: str
    is_intended: bool
    group: str = ""
    is_preempted: bool = False


class ActorWorkerDied(NamedTuple):
    """An actor's worker died."""

    actor: str
    worker: str
    exit_code: int
    signal: int
    reason: str


class DemandFailed(NamedTuple):
    """A demand will not be served; it is dropped. is_unschedulable: because of what it asks for, not because workers
    fail to start. log_of: the fork server the output of whose build belongs to the reason. is_group_gone: because its
    placement group has ended. lacks: what no node has, as `launches` is asked about it; None where nobody could help. is_busy:
    because others have now what it needs, and it is not to wait."""

    client: str
    key: str
    reason: str
    is_unschedulable: bool = False
    log_of: str = ""
    is_group_gone: bool = False
    lacks: Mapping[str, Any] | None = None
    is_busy: bool = False


class ActorUnplaceable(NamedTuple):
    """An actor will have no worker; the wish is dropped. The rest: as for DemandFailed."""

    actor: str
    reason: str
    is_unschedulable: bool = False
    log_of: str = ""


class Preparing(NamedTuple):
    """What is done for the environment that a demand waits for, in words; "" when that is there, or the demand is over. Said
    when it changes."""

    client: str
    actor: str
    key: str
    text: str


class Promised(NamedTuple):
    """A client will be granted so many leases of what it waits for, by what is free and what was asked back for it. Said when it
    changes, where shares of the cluster are told."""

    client: str
    key: str
    lease_count: int


class Warn(NamedTuple):
    """Tell the drivers. lacks: as for DemandFailed."""

    text: str
    lacks: Mapping[str, Any] | None = None


AgentCommand = (
    StartWorker
    | KillWorker
    | AskExit
    | Grant
    | Reclaim
    | LookAtTask
    | Preempt
    | HostActor
    | BundlesReserved
    | BundlesRefused
    | LeaseBroken
    | ActorWorkerDied
    | DemandFailed
    | ActorUnplaceable
    | Preparing
    | Promised
    | Warn
)
