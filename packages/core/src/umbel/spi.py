"""What plugins provide: a Protocol for each kind of thing, and a frozen descriptor by which a plugin offers one.

A plugin's hook (`umbel.hookspecs`) returns descriptors. A descriptor is cheap: its factory is a callable, or better a
string "module:attribute" that is imported only when somebody chooses that name. `spi_version` is the version of this
module that the plugin was written for; this one and the one before are accepted. The suites of
`umbel.testing.conformance` say in tests what the docstrings here say in words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeAlias, TypeVar, runtime_checkable

from umbel._model.reasons import Reason
from umbel._model.resources import RESOURCE_UNIT, ResourceSet

if TYPE_CHECKING:
    from umbel._model.leases import Lease
    from umbel._model.node_labels import label_matches
    from umbel._model.placement import (
        ClusterView,
        Demand,
        Eligible,
        NodeAffinity,
        NodeView,
        Placement,
        Strategy,
        WaitingDemand,
        eligible_nodes,
        first_ready,
    )
    from umbel._model.runtime_envs import RuntimeEnvBuild, RuntimeEnvPacking, WorkerSetup

__all__ = [
    "RESOURCE_UNIT",
    "SPI_VERSION",
    "SPI_VERSIONS_ACCEPTED",
    "AcceleratorDescriptor",
    "AcceleratorManager",
    "ClusterView",
    "CollectiveDescriptor",
    "CollectiveGroup",
    "CollectivePeers",
    "CommandDescriptor",
    "ControlStorage",
    "ControlStorageDescriptor",
    "Demand",
    "Descriptor",
    "Eligible",
    "Engine",
    "EngineDescriptor",
    "HeldTensors",
    "Lease",
    "NodeAffinity",
    "NodeLauncher",
    "NodeLauncherDescriptor",
    "NodeSpec",
    "NodeView",
    "ObjectStore",
    "Placement",
    "Reason",
    "ResourceSet",
    "RuntimeEnvBuild",
    "RuntimeEnvDescriptor",
    "RuntimeEnvPacking",
    "RuntimeEnvPlugin",
    "SchedulerDescriptor",
    "SchedulingPolicy",
    "Segment",
    "SegmentT",
    "SpillableStore",
    "StoreDescriptor",
    "StoreUsage",
    "Strategy",
    "TensorLine",
    "TensorTransport",
    "TensorTransportDescriptor",
    "View",
    "WaitingDemand",
    "WorkerSetup",
    "eligible_nodes",
    "first_ready",
    "label_matches",
]

SPI_VERSION: Final = 1
SPI_VERSIONS_ACCEPTED: Final = range(max(1, SPI_VERSION - 1), SPI_VERSION + 1)


def __getattr__(name: str) -> Any:
    """What some plugins work with, imported at first use: `umbel.init()` loads this module and seldom needs them."""
    from umbel._model import leases, node_labels, placement, runtime_envs

    for module in (leases, placement, node_labels, runtime_envs):
        if name in __all__ and hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ---------------------------------------------------------------------------------------------------------------------
# Schedulers


@runtime_checkable
class SchedulingPolicy(Protocol):
    """Who is served first on a node, and on which node of a cluster.

    Pure: no clock, no chance, no I/O, nothing remembered between calls; the same question has the same answer. Neither
    method may change or keep what it is given. Answers that break the contract, and errors, switch the policy off.
    """

    def place(self, demand: Demand, view: ClusterView) -> Placement:
        """Where `demand` goes now: one of `eligible_nodes(demand, view).ready`, or nowhere, with the reason."""
        ...

    def order(self, waiting: Sequence[WaitingDemand]) -> Sequence[int]:
        """In which order a node considers its queue: each index of `waiting` once.

        Called at every change of the queue, so it should take no more than sorting does.
        """
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Object stores


class Segment(Protocol):
    """Memory for one value, which its creator writes until it is sealed. Its contents are arbitrary until then."""

    @property
    def name(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def buffer(self) -> memoryview:
        """All of it, writable, unsigned bytes, at an address that is a multiple of 64."""
        ...


SegmentT = TypeVar("SegmentT", bound=Segment)


class View(Protocol):
    """A sealed segment's bytes, for as long as `buffer`, or anything that shares its memory, lives."""

    @property
    def name(self) -> str: ...

    @property
    def buffer(self) -> memoryview:
        """Read-only, unsigned bytes, at an address that is a multiple of 64."""
        ...


class StoreUsage(Protocol):
    """What one process holds of its node's store."""

    @property
    def live_bytes(self) -> int:
        """In segments that hold a value or are being written."""
        ...

    @property
    def viewed_bytes(self) -> int:
        """In segments that are freed but for the views into them in this process."""
        ...

    @property
    def warm_bytes(self) -> int:
        """Freed and kept for reuse."""
        ...


@runtime_checkable
class ObjectStore(Protocol[SegmentT]):
    """One process's part of a node's object store: it creates segments, others open them by name.

    A segment is a file called `<creator>.<owner>.<anything>` in the node's store directory, where creator and owner are
    process ids as given: so the node finds what dead processes left behind, and removes it. Who needs which value is
    decided elsewhere. Any thread may call any method.
    """

    def create(self, size_bytes: int, owner: str | None = None) -> SegmentT:
        """A segment to write. owner: the process that decides over the value's life; None for this one.

        Raises ObjectStoreFullError when the quota or the disk has no room.
        """
        ...

    def write(self, segment: SegmentT, offset: int, data: Any) -> None:
        """Copy `data`, any contiguous buffer, into a segment that is not sealed."""
        ...

    def seal(self, segment: SegmentT) -> None:
        """The value is complete: nobody writes to it any more, and any process of the node can open it."""
        ...

    def open(self, name: str, size_bytes: int, on_release: Callable[[], None] | None = None) -> View:
        """The first `size_bytes` of a sealed segment, without a copy. The caller keeps it from being freed meanwhile.

        on_release: called once when the view and all that shares its memory is gone, possibly in a garbage collection.
        Raises ObjectLostError when the segment is gone.
        """
        ...

    def free(self, name: str) -> None:
        """Nobody else needs this segment, which this process created. Views in this process go on; their bytes stay."""
        ...

    def unlink(self, name: str) -> int:
        """Remove a segment whose creator is dead. Returns the bytes removed, 0 when it was gone."""
        ...

    def trim(self, now_s: float | None = None) -> int:
        """Give back what has been unused for a while; called every few seconds. Returns the bytes given back."""
        ...

    def trim_due_s(self, now_s: float) -> float | None:
        """In how many seconds `trim` will have something to give back; None while nothing is kept unused."""
        ...

    def orphans_of(self, process_id: str) -> list[str]:
        """A process has died: free what was created here for it, and return what it had created for this one."""
        ...

    def trim_all(self) -> int:
        """Give back all that is unused, as when the node's store is full. Returns the bytes given back."""
        ...

    def usage(self) -> StoreUsage: ...

    def close(self, *, unlink_all: bool = False) -> None:
        """Remove this process's segments, but not sealed ones of other owners unless `unlink_all`. Views live on."""
        ...


@runtime_checkable
class SpillableStore(ObjectStore[SegmentT], Protocol[SegmentT]):
    """A store whose values can be moved to disk. One without these two methods is never asked to: it is full sooner."""

    def evict(self, name: str) -> int:
        """A sealed segment that this process created goes; its value lies elsewhere now.

        Its memory is given back at once, and its name never given again: whoever opens it is told that it is lost, and
        looks elsewhere. Other processes' views go on. Returns the bytes given back; 0 when this process views it, or it
        is not there, and then nothing has changed.
        """
        ...

    def viewed(self) -> Mapping[str, int]:
        """The segments of which this process has views now, as they were opened, and the bytes of each."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Control storages


@runtime_checkable
class ControlStorage(Protocol):
    """Where a cluster's control store keeps its records, and who may write them: one connection to it.

    Calls block, each for `timeout_s` of the factory at most, but for `load` and `watch_leader`, and come from one thread at
    a time. So a leader has two of these: one that commits, and one, in a thread of its own, that renews meanwhile.

    Every method raises StorageUnavailable when nothing has happened and asking again may help, ControlStorageError when
    it will not. Those that change something raise StorageUncertain when it may have happened: the same call again does
    it once. Keys are text of 1 to 1,024 bytes in UTF-8, without surrogates; a value has at most 1 MiB.
    """

    @property
    def cluster_id(self) -> str:
        """Whose records these are: as the factory was told, or as was found there."""
        ...

    def load(self) -> Iterator[tuple[str, bytes]]:
        """All records as of the moment of the first `next`, each once, in any order, whatever is committed meanwhile.

        Streamed: at a time there are at most some thousand records here, and a commit that was not finished. Each `next`
        waits for at most one answer.
        """
        ...

    def commit(self, writes: Sequence[tuple[str, bytes | None]], *, fencing: int, number: int) -> None:
        """Put and delete (None) records, all or none; of several writes of a key the last counts.

        Once it returns they survive any crash, loss of power included. fencing: of the caller's lease. number: 1 for the
        first commit under that, then one more each time. The same number again does nothing: so an uncertain commit is
        repeated until it is certain, before any other. At most 100,000 writes and 64 MiB; one commit of a thousand writes
        costs far less than a thousand commits.

        Raises StorageFenced when someone has led since, whoever leads now; that says nothing of an earlier call with this
        number, which was uncertain. Raises InvalidOption for what it cannot take.
        """
        ...

    def acquire(self, holder: str, ttl_s: float) -> Lease:
        """Lead, if nobody does: the lease is the caller's if its holder is. Else who leads.

        holder: not empty, and no other process's ever. Whoever leads already has his lease prolonged. A new lease's
        fencing number is larger than all before. ttl_s: at least 0.1; a storage may grant more. It is measured by the
        storage's clock, from the moment at which it grants.
        """
        ...

    def renew(self, fencing: int) -> Lease:
        """The lease, for as long again. Raises StorageFenced when it has run out, was released, or another one leads."""
        ...

    def release(self, fencing: int) -> None:
        """Lead no longer, so that another one can at once. Does nothing when the lease is gone."""
        ...

    def leader(self) -> Lease:
        """Who leads now."""
        ...

    def watch_leader(self, seen: Lease, timeout_s: float) -> Lease:
        """Who leads, once that is another lease than the one seen, or none; after `timeout_s` in any case. Tells of a
        leader that has died at most a second after its lease has run out."""
        ...

    def close(self) -> None:
        """Idempotent. A lease goes on until it runs out."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Node launchers


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A type of nodes. resources, labels: what a node of it is to have. config: what means something to its launcher alone."""

    type_name: str
    resources: ResourceSet
    labels: Mapping[str, str]
    config: Mapping[str, Any]


@runtime_checkable
class NodeLauncher(Protocol):
    """Starts and ends the nodes of one cluster: machines, containers or processes, each with a daemon that joins it.

    A node starts with the labels `umbel.io/node-group`, the name of its type, and `umbel.io/instance-id`, what the launcher
    calls it, beside those of its type: so the cluster knows which node is which. Whoever calls may be gone afterwards,
    and another launcher for the same cluster goes on from `running`: nothing that matters is kept in this object.

    Calls block. They end: after minutes at most, with an error if need be. `launch` is called while others of its calls, and one
    of another method, have not returned, each from a thread of its own; the others come one at a time. Each may raise
    NodeLaunchError, when asking again may help, and InvalidOption or AuthenticationError, when it will not.
    """

    def check(self, spec: NodeSpec) -> None:
        """Raises InvalidOption for a `config` or resources that no node here can have. Starts nothing."""
        ...

    def launch(self, spec: NodeSpec, count: int) -> Sequence[str]:
        """So many more nodes of a type; what each is called, unique for ever in this cluster.

        They need not have joined yet, but `running` has them once this returns, and may before. Raises NodeLaunchError when
        there are less, with those that there are: what the error does not name is ended, or `running` has it.
        """
        ...

    def terminate(self, instances: Sequence[str]) -> None:
        """End these, without asking what runs on them. What is not there is no error. Once this returns, `running` has
        none of them, and nothing is left of them that costs anything. Raises NodeLaunchError when some may be left."""
        ...

    def running(self) -> Mapping[str, str]:
        """The type of each node that a launcher of this cluster has launched and that has not ended, by what it is called."""
        ...

    def close(self) -> None:
        """Nodes go on. Idempotent."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Accelerators


@runtime_checkable
class AcceleratorManager(Protocol):
    """One maker's devices. Made anew in each process that needs it; what it asks of drivers, it asks when called."""

    @property
    def resource_name(self) -> str:
        """What tasks ask for, such as "GPU". Several managers may share one; the one that finds devices is used."""
        ...

    @property
    def visible_devices_variable(self) -> str | None:
        """The environment variable that limits a process to some devices; None if there is none."""
        ...

    def detect_count(self) -> int:
        """Devices in this machine, whatever the environment allows. 0 when there are none, or no driver."""
        ...

    def detect_type(self) -> str | None:
        """Their model, short, such as "A100"; None when there are none. Of several models, the first device's."""
        ...

    def labels(self) -> Mapping[str, str]:
        """Labels that they give their node."""
        ...

    def extra_resources(self) -> Mapping[str, float]:
        """Other resources that they give their node."""
        ...

    def validate_quantity(self, quantity: float) -> str | None:
        """Why nobody can have this many, in words for the user; None when one can. quantity: >= 0."""
        ...

    def get_visible_ids(self) -> list[str] | None:
        """The devices that this process's environment allows; None when it does not limit them."""
        ...

    def set_visible_ids(self, ids: Sequence[str]) -> None:
        """Limit this process, and what it starts, to these devices. An empty sequence hides all of them."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Collectives


class CollectivePeers(Protocol):
    """The other ranks of a group, as a backend's part in one of its processes sees them.

    Whatever waits here ends: with what was waited for, or with a CollectiveError when a rank died, left, did not come
    within `timeout_s`, or called something else. One thread at a time.
    """

    @property
    def group_name(self) -> str: ...

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def timeout_s(self) -> float:
        """For how long one rank waits for another."""
        ...

    @property
    def directory(self) -> str:
        """For files and sockets: private to the user, removed with the session."""
        ...

    @property
    def is_one_machine(self) -> bool:
        """Whether all ranks are on one machine, and can hand each other open files."""
        ...

    def exchange(self, text: str, bodies: Mapping[int, bytes] | None = None) -> Mapping[int, bytes]:
        """All ranks call this, with the same `text`: what they are doing, in words, or CollectiveMismatchError.

        An operation starts with its own text, "" stands for a further step of it. bodies: what to send to some ranks,
        at most `body_bytes_max` each. Returns once every rank has called it, with what each of the others sent here.
        """
        ...

    def exchange_descriptors(self, descriptor: int) -> Mapping[int, int]:
        """As `exchange`, with an open file of each rank; the caller closes what it gets. Only as the first call. Raises
        UnsupportedFeature where ranks are on several machines."""
        ...

    @property
    def body_bytes_max(self) -> int: ...

    def send(self, rank: int, text: str, body: bytes = b"", meanwhile: Callable[[], object] | None = None) -> None:
        """Returns once `rank` has received it, with the same text. meanwhile: called before waiting for that."""
        ...

    def receive(self, rank: int, text: str, consume: Callable[[bytes], object]) -> None:
        """What `rank` sends, with the same text. The sender goes on once `consume` has returned."""
        ...

    def check(self) -> None:
        """Raises when a rank has died or given up. Waits for nothing; for backends that wait by other means."""
        ...

    def timed_out(self, ranks: Sequence[int]) -> NoReturn:
        """Raises CollectiveTimeoutError, at all ranks: a backend that waits by other means has waited for `timeout_s`, for
        one or more of these."""
        ...


@runtime_checkable
class CollectiveGroup(Protocol):
    """One rank's part of a group; called by one thread at a time. Any: tensors are what the backend takes.

    Each operation first agrees with the others on what is done (`CollectivePeers.exchange`, `send`, `receive`), so that
    a mismatch is an error at every rank and no tensor has been touched. Raises TypeError or ValueError before that for
    tensors that it cannot take. op: "sum", "product", "min" or "max". Results are the same bits on every rank.
    """

    def allreduce(self, tensor: Any, op: str) -> None:
        """In place."""
        ...

    def reduce(self, tensor: Any, root: int, op: str) -> None:
        """In place at `root`; the others' tensors stay as they are."""
        ...

    def broadcast(self, tensor: Any, root: int) -> None: ...

    def allgather(self, outputs: Sequence[Any], tensor: Any) -> None:
        """outputs: one for each rank, of the tensor's shape and type."""
        ...

    def reducescatter(self, output: Any, tensors: Sequence[Any], op: str) -> None:
        """tensors: one for each rank; each rank gets the reduction of those for it in `output`."""
        ...

    def send(self, tensor: Any, rank: int) -> None: ...

    def recv(self, tensor: Any, rank: int) -> None: ...

    def barrier(self) -> None: ...

    def close(self) -> None:
        """Give everything back. Idempotent; does not wait for other ranks, some of which may be dead."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Direct transfer of tensors


class TensorLine(Protocol):
    """One end of a conversation between the process that holds tensors and one that takes them.

    Whatever waits here ends: ConnectionError when the other process has gone, TimeoutError when it lives and says nothing
    for a minute; `receive` also raises what the other end's transport raised. One thread at a time.
    """

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """descriptors: open files to go along, at most 253; they stay open here."""
        ...

    def receive(self) -> tuple[bytes, list[int]]:
        """What one `send` of the other end has sent. The caller closes the files."""
        ...


class HeldTensors(Protocol):
    """Tensors of one value, in the process that holds them. Dropped when nobody needs that value any more: what has to be
    given back is given back by `__del__` or `weakref.finalize`."""

    def give(self, line: TensorLine) -> None:
        """Someone has called `take` at the other end. In a thread of its own, beside others and beside the program."""
        ...


@runtime_checkable
class TensorTransport(Protocol):
    """A way for tensors to go from the process that made them to others. One for each process; any thread may call it."""

    def is_tensor(self, value: object) -> bool:
        """Whether it takes this part of a value, which is of no built-in type of Python's; all others are pickled. Quick,
        and imports nothing."""
        ...

    def hold(self, tensors: Sequence[Any]) -> HeldTensors:
        """Be ready to give these, in this order. Copies nothing: most are used where they are, or by nobody. The same
        tensors are what the process itself gets when it reads the value."""
        ...

    def take(self, line: TensorLine) -> list[Any]:
        """The tensors for which `hold` was called at the other end, in their order; writing to them changes nobody
        else's."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Runtime environments


@runtime_checkable
class RuntimeEnvPlugin(Protocol):
    """What one field of `runtime_env` means. Made anew in each process that needs it."""

    @property
    def priority(self) -> int:
        """When it is built: fields with smaller numbers first."""
        ...

    @property
    def conflicts(self) -> Collection[str]:
        """Fields that cannot be in one environment with this one."""
        ...

    def validate(self, value: Any) -> Any:
        """What a user has written, in the form that is kept, which is JSON and valid itself. Quick, and reads at most a
        small file. Raises ValueError or TypeError, in words for the user."""
        ...

    def pack(self, value: Any, packing: RuntimeEnvPacking) -> Any:
        """What travels, as JSON: it says all that decides what is built, and equal values share it. Called where an
        environment is first used, with what `validate` has returned; local files are read here. Must be valid too, and
        unchanged if it is packed again. Raises as `validate`."""
        ...

    def build(self, value: Any, build: RuntimeEnvBuild) -> None:
        """Make what was packed, and say by `build.workers` how workers come to run in it. Called on the node, in a
        process of its own that may block; whatever is raised fails the tasks and actors that need it."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Engines


@runtime_checkable
class Engine(Protocol):
    """What carries out the public functions of one session. Any thread may call it.

    Its arguments have been checked. Any: templates, references and handles are those of the public API, which is built
    on this module.
    """

    @property
    def address_info(self) -> Mapping[str, Any]:
        """What `umbel.init` returns as a mapping."""
        ...

    def submit_task(self, template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def create_actor(self, template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def submit_actor_task(self, handle: Any, template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def put(self, value: Any) -> Any: ...

    def get(self, wanted: list[Any], timeout_s: float | None) -> list[Any]:
        """The values, in order. Raises the first error that is known, GetTimeoutError when time is up."""
        ...

    def wait(
        self, waitables: list[Any], num_returns: int, timeout_s: float | None, fetch_local: bool
    ) -> tuple[list[Any], list[Any]]:
        """(ready, rest), both in the order given; at most `num_returns` are ready."""
        ...

    def cancel(self, target: Any, *, force: bool, recursive: bool) -> None: ...

    def kill(self, handle: Any, *, no_restart: bool) -> None: ...

    def get_actor(self, name: str, namespace: str | None) -> Any: ...

    def list_named_actors(self, all_namespaces: bool) -> list[Any]: ...

    def query(self, what: str) -> Any:
        """The node's or cluster's state: "nodes", "cluster_resources", "available_resources", "pending"; or "timeline",
        events of Chrome's trace format."""
        ...

    def explain(self, target: Any) -> Reason:
        """Why what a reference stands for is not there yet, and what would unblock it."""
        ...

    def exit_actor(self) -> None: ...

    def metrics_have_news(self) -> None:
        """`umbel.util.metrics` was used for the first time since the news were taken."""
        ...

    def shutdown(self) -> None:
        """End the session and all that it started. Idempotent."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Descriptors

EngineFactory: TypeAlias = Callable[..., Engine]
SchedulerFactory: TypeAlias = Callable[[], SchedulingPolicy]
StoreFactory: TypeAlias = Callable[..., ObjectStore[Any]]  # Any: a store's segments are its own affair
ControlStorageFactory: TypeAlias = Callable[..., ControlStorage]
NodeLauncherFactory: TypeAlias = Callable[..., NodeLauncher]
AcceleratorFactory: TypeAlias = Callable[[], AcceleratorManager]
CollectiveFactory: TypeAlias = Callable[[CollectivePeers], CollectiveGroup]
TensorTransportFactory: TypeAlias = Callable[[], TensorTransport]
RuntimeEnvFactory: TypeAlias = Callable[[], RuntimeEnvPlugin]
CommandFactory: TypeAlias = Callable[[], object]
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Descriptor(Generic[F]):
    """One thing that a plugin offers, of one of the kinds below.

    name: how users choose it; lower-case letters, digits, "-" and "_", beginning with a letter; unique in its kind.
    factory: makes it, or "module:attribute" for what does. summary: one line, for listings.
    """

    name: str
    factory: F | str
    spi_version: int = 1
    summary: str = ""


class EngineDescriptor(Descriptor[EngineFactory]):
    """An engine. factory: called with what `umbel.init` was given and has checked, as keywords."""

    __slots__ = ()


class SchedulerDescriptor(Descriptor[SchedulerFactory]):
    """A scheduling policy. factory: called without arguments, in the node's daemon."""

    __slots__ = ()


class StoreDescriptor(Descriptor[StoreFactory]):
    """An object store. factory: called in every process that uses it, as

        factory(directory, process_id, reserve=..., release=...)
        factory(directory, process_id, capacity_bytes=...)

    directory: in a memory file system where there is one; mode 0700. process_id: hex. reserve(size_bytes): how many of
    these bytes the node grants, at least 1; may block; raises ObjectStoreFullError or OutOfDiskError.
    release(size_bytes): gives bytes back. capacity_bytes: a fixed quota instead, for a store on its own.
    """

    __slots__ = ()


class ControlStorageDescriptor(Descriptor[ControlStorageFactory]):
    """A control storage. name: the scheme of its URLs. factory: called as

        factory(url, cluster_id=..., timeout_s=...)

    url: as the user has written it; what belongs to it alone is kept apart from what else the server holds. cluster_id:
    whose records they must be, which become so if there are none; None for whoever's there are, and a new one's if there
    are none. Raises InvalidOption, PluginError when what it needs is not installed, StorageUnavailable,
    AuthenticationError, StorageMismatch, and ControlStorageError where a commit would not survive a crash.
    """

    __slots__ = ()


class NodeLauncherDescriptor(Descriptor[NodeLauncherFactory]):
    """A node launcher. factory: called as

        factory(cluster, address=..., token_file=..., config=...)

    cluster: its name; launchers for one name share their nodes. address: host:port of the head that nodes are to join.
    token_file: of this machine; its token lets them in. config: what means something to this launcher alone. Raises
    InvalidOption, AuthenticationError, and PluginError when what it needs is not installed.
    """

    __slots__ = ()


class AcceleratorDescriptor(Descriptor[AcceleratorFactory]):
    """An accelerator manager. factory: called without arguments."""

    __slots__ = ()


class CollectiveDescriptor(Descriptor[CollectiveFactory]):
    """A backend of `umbel.util.collective`. factory: called in each process of a group, with its peers, at the same
    time in all; it may exchange with them. Raises PluginError when what it needs is not installed."""

    __slots__ = ()


class TensorTransportDescriptor(Descriptor[TensorTransportFactory]):
    """A way for tensors to go from one actor to another. factory: called without arguments, once in each process that
    holds or takes tensors by it. Raises PluginError when what it needs is not installed."""

    __slots__ = ()


class RuntimeEnvDescriptor(Descriptor[RuntimeEnvFactory]):
    """A field of `runtime_env`. name: the field. factory: called without arguments."""

    __slots__ = ()


class CommandDescriptor(Descriptor[CommandFactory]):
    """A subcommand of `umbel`. factory: called without arguments, returns a click.Command. summary: its help line."""

    __slots__ = ()
