"""Every error that Umbel raises, and how an error crosses from one process to another.

The class says who must act. `InvalidOption` and its like: the caller. `UmbelTaskError`: user code, whose own exception
is
its `.cause`. `ActorUnavailableError`, `GetTimeoutError`: trying again is safe. `ObjectLostError`, `ActorDiedError`: it
is not of use. `InternalError`: us. Ids in the fields of errors are hex strings.

Any of these errors can be pickled whatever the constructor of its class asks for: what travels is `args` and the
fields.
A task's error travels with its cause as a separate pickle, so that a cause that cannot be read back costs only the
cause, never the traceback. Nothing here imports more than the interpreter has loaded at its start; `traceback` and the
pickles come when the first error does.
"""

from __future__ import annotations

import builtins
import functools
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

if TYPE_CHECKING:
    import traceback
    from collections.abc import Callable, Mapping, Sequence

_Error = TypeVar("_Error", bound="UmbelError")

_TRACEBACK_CHARS_MAX: Final = 256 * 1024  # a message that prints a whole array must not travel through every consumer
_INPUT_ERROR_BYTES_MAX: Final = 64 * 1024  # most have few KiB; one that holds data must not be copied for each consumer
_INPUT_NAMES_MAX: Final = 16  # of tasks in a row that did not run: the first ones and the last tell which they were
_INSTANCE_CLASSES_MAX: Final = 256  # kept in memory; a program has fewer classes of errors, one in a loop must not leak
_HEAP_TYPE_FLAG: Final = 1 << 9  # CPython's Py_TPFLAGS_HEAPTYPE: a class made by a class statement
_PICKLE_PROTOCOL: Final = 5
_PACKAGE_DIR: Final = __file__.rpartition("exceptions.py")[0]
_PICKLING_FILES: Final = ("/_objects/serialization.py", "/cloudpickle/cloudpickle.py")


class UmbelError(Exception):
    """Base of all errors that Umbel raises, InvalidOption and the errors of user code included."""

    _umbel_summary: ClassVar[str] = "something went wrong in Umbel"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self._umbel_summary if message is None else message)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[_Error], args: tuple[object, ...], fields: dict[str, object]) -> _Error:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


# ---------------------------------------------------------------------------------------------------------------------
# The caller has to act.


class InvalidOption(UmbelError, ValueError):
    """An option has a value that is not allowed, or there is no such option. `option` names it."""

    _umbel_summary = "an option has a value that is not allowed"

    def __init__(self, message: str | None = None, *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class InvalidOptionType(InvalidOption, TypeError):
    """An option has a value of a wrong type."""

    _umbel_summary = "an option has a value of a wrong type"


class UnsupportedFeature(UmbelError, NotImplementedError):
    """What was asked for is not in this version of Umbel. The message says what is missing and what to do instead."""

    _umbel_summary = "this version of Umbel does not have what was asked for"


class UnsupportedAttribute(UnsupportedFeature, AttributeError):
    """The same, asked for as an attribute: `hasattr` says that it is not there."""


class PluginError(UmbelError):
    """A plugin is missing, broken, or does not fit this version. `plugin` names it."""

    _umbel_summary = "a plugin cannot be used"

    def __init__(self, message: str | None = None, *, plugin: str | None = None) -> None:
        super().__init__(message)
        self.plugin = plugin


class PluginConflict(PluginError):
    """Two plugins claim one name. The message lists both."""

    _umbel_summary = "two plugins claim one name"


class AuthenticationError(UmbelError):
    """The other side does not accept this process's credentials, or has none to show."""

    _umbel_summary = "the connection was not authenticated"


class ActorAlreadyExistsError(UmbelError, ValueError):
    """An actor of this name is alive in this namespace."""

    _umbel_summary = "an actor of this name exists already; choose another name or pass get_if_exists=True"


class ActorHandleNotFoundError(UmbelError, ValueError):
    """The handle is of another session of Umbel."""

    _umbel_summary = "the actor of this handle is not of this session; create it again after init"


class PendingCallsLimitExceeded(UmbelError):
    """The handle has `max_pending_calls` calls that are not finished. This call was not submitted."""

    _umbel_summary = "too many calls of this handle are pending; get some results first or raise max_pending_calls"


class OufOfBandObjectRefSerializationException(UmbelError):  # spelt as in Ray, whose programs catch it by this name
    """A reference was pickled outside of a task's arguments, `put` or a return, and that is forbidden here."""

    _umbel_summary = "an ObjectRef was pickled out of band; pass it to a task or an actor, or put it, instead"


class CrossLanguageError(UmbelError):
    """An error of a task that is written in another language."""

    _umbel_summary = "a task in another language failed"


# ---------------------------------------------------------------------------------------------------------------------
# Waiting and cancelling.


class GetTimeoutError(UmbelError, TimeoutError):
    """The value was not there in time. It may still come: getting again is safe."""

    _umbel_summary = "the value was not there in time; get it again or with a longer timeout"


class TaskCancelledError(UmbelError):
    """The task was cancelled. It is not retried."""

    _umbel_summary = "the task was cancelled"

    def __init__(self, message: str | None = None, *, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id


class PlasmaObjectNotAvailable(UmbelError):
    """The object is not in this node's store now."""

    _umbel_summary = "the object is not in this node's store"


# ---------------------------------------------------------------------------------------------------------------------
# Processes, nodes and their means.


class WorkerCrashedError(UmbelError):
    """The worker process ended while it ran the task, and no retry was left. It may have run in part."""

    _umbel_summary = "the worker that ran the task died unexpectedly"


class LocalNodeDiedError(UmbelError):
    """The daemon of this process's own node is gone. Ray calls it LocalRayletDiedError."""

    _umbel_summary = "this node's daemon died; call shutdown() and init() again"


class ConnectionLostError(LocalNodeDiedError, ConnectionError):
    """The connection of a remote driver (`umbel://`) to its cluster was broken for too long, or what acts for it there has
    ended; its objects and actors are gone."""

    _umbel_summary = "the connection to the cluster is lost; call shutdown() and init() again"


class NodeDiedError(UmbelError):
    """The node that ran the task or held the object is gone."""

    _umbel_summary = "the node died"


class OutOfMemoryError(UmbelError):
    """The task, or the actor that a call was sent to, was stopped because its node was running out of memory.

    curve: (seconds, bytes) that its process held, from the task's beginning on; peak_bytes: the most. used_bytes and
    limit_bytes: of whatever was scarce. demand_bytes: the `memory` it had asked for. others: what other workers held
    ("worker", "actor", "bytes"). kills: how often it was stopped for memory.
    """

    _umbel_summary = "the task was stopped because its node was running out of memory"

    def __init__(
        self,
        message: str | None = None,
        *,
        curve: Sequence[tuple[float, int]] = (),
        peak_bytes: int = 0,
        used_bytes: int = 0,
        limit_bytes: int = 0,
        demand_bytes: int = 0,
        others: Sequence[Mapping[str, Any]] = (),
        kills: int = 1,
    ) -> None:
        super().__init__(message)
        self.curve = curve
        self.peak_bytes = peak_bytes
        self.used_bytes = used_bytes
        self.limit_bytes = limit_bytes
        self.demand_bytes = demand_bytes
        self.others = others
        self.kills = kills


class OutOfDiskError(UmbelError):
    """There is no room on the disk that objects are spilled to."""

    _umbel_summary = "the disk that objects are spilled to is full"


class ObjectStoreFullError(UmbelError):
    """The object store has no room for the value and nothing more to evict."""

    _umbel_summary = "the object store is full; drop references to large values, or give it a larger capacity"


class ControlStorageError(UmbelError):
    """The cluster's control storage refused something, which therefore has not happened. Trying again is of no use until
    what the message names has changed."""

    _umbel_summary = "the control storage refused what was asked of it"


class StorageUnavailable(ControlStorageError):
    """The control storage could not be asked. What was asked has not happened; trying again is safe."""

    _umbel_summary = "the control storage cannot be reached"


class StorageUncertain(ControlStorageError):
    """The control storage was asked and has not answered: what was asked has happened, or not, or will. Ask for the same
    again, with the same number: it is done once."""

    _umbel_summary = "the control storage did not answer; ask for the same again"


class StorageFenced(ControlStorageError):
    """Who asked leads the cluster no longer. What was asked has not happened, and he may not act any more.

    fencing: the number he asked with; leader and leader_fencing: who has led since, "" if nobody, and by which number.
    """

    _umbel_summary = "this process leads the cluster no longer"

    def __init__(
        self, message: str | None = None, *, fencing: int = 0, leader: str = "", leader_fencing: int = 0
    ) -> None:
        super().__init__(message)
        self.fencing = fencing
        self.leader = leader
        self.leader_fencing = leader_fencing


class StorageMismatch(ControlStorageError):
    """What lies there is another cluster's, of a newer version, or nothing of Umbel's. It was left as it is."""

    _umbel_summary = "the control storage holds something else than this cluster's records"


class NodeLaunchError(UmbelError):
    """A launcher could not launch all the nodes that it was asked for.

    launched: those that it has launched all the same. retry_after_s: when to try again, 0 if it does not know.
    """

    _umbel_summary = "nodes could not be launched"

    def __init__(self, message: str | None = None, *, launched: Sequence[str] = (), retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.launched = tuple(launched)
        self.retry_after_s = retry_after_s


class RuntimeEnvSetupError(UmbelError):
    """The runtime environment of a task or an actor could not be made."""

    _umbel_summary = "the runtime environment could not be set up"


class RpcError(UmbelError):
    """A remote call between Umbel's own processes failed. `rpc_code` is the transport's code."""

    _umbel_summary = "a remote call failed"

    def __init__(self, message: str | None = None, *, rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class TaskUnschedulableError(UmbelError):
    """No node can ever run the task: its hard constraints exclude all of them."""

    _umbel_summary = "no node can ever run the task"


class ActorUnschedulableError(UmbelError):
    """No node can ever host the actor: its hard constraints exclude all of them."""

    _umbel_summary = "no node can ever host the actor"


class TaskPlacementGroupRemoved(UmbelError):
    """The placement group that the task was to run in was removed."""

    _umbel_summary = "the placement group of the task was removed"


class UmbelActorError(UmbelError):
    """A call did not get its result because of the actor, not because of what the method did.

    preempted: its node was taken away with notice. actor_init_failed: its constructor raised, and the message ends with
    the traceback of that.
    """

    _umbel_summary = "the actor failed"

    def __init__(
        self,
        message: str | None = None,
        *,
        actor_id: str | None = None,
        preempted: bool = False,
        actor_init_failed: bool = False,
    ) -> None:
        super().__init__(message)
        self.actor_id = actor_id
        self.preempted = preempted
        self.actor_init_failed = actor_init_failed


class ActorDiedError(UmbelActorError):
    """The actor is dead for good. Calling it again gives this error again."""

    _umbel_summary = "the actor is dead"


class ActorPlacementGroupRemoved(ActorDiedError):
    """The placement group that the actor lived in, or was to live in, was removed."""

    _umbel_summary = "the placement group of the actor was removed"


class ActorUnavailableError(UmbelActorError):
    """The actor cannot be reached now, perhaps because it restarts. The call may have run or not."""

    _umbel_summary = "the actor cannot be reached at the moment; the call may have run or not"


class AsyncioActorExit(UmbelError):
    """Raised by `exit_actor()` inside of an async actor to end it."""

    _umbel_summary = "the actor exits because it was asked to"


# ---------------------------------------------------------------------------------------------------------------------
# Objects.


class ObjectLostError(UmbelError):
    """No copy of the object is left. `owner` is the process that made the reference."""

    _umbel_summary = "the object is lost: no copy of it is left"

    def __init__(self, message: str | None = None, *, object_id: str | None = None, owner: str | None = None) -> None:
        super().__init__(message)
        self.object_id = object_id
        self.owner = owner


class ObjectFetchTimedOutError(ObjectLostError):
    """Copies of the object are known, but none could be read in time."""

    _umbel_summary = "the object could not be fetched in time"


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted though a reference to it is left. A bug in Umbel."""

    _umbel_summary = "the object was deleted though it is referred to; please report this as a bug in Umbel"


class ObjectFreedError(ObjectLostError):
    """The object was freed on purpose."""

    _umbel_summary = "the object was freed"


class OwnerDiedError(ObjectLostError):
    """The process that made the reference is gone, and the object with it."""

    _umbel_summary = "the owner of the object died, and the object with it"


class ObjectReconstructionFailedError(ObjectLostError):
    """The object is lost and its task may not run again. `reason` is one of REASONS."""

    _umbel_summary = "the object is lost and could not be computed again"

    REASONS: ClassVar[tuple[str, ...]] = (
        "max_attempts_exceeded",
        "lineage_evicted",
        "put",
        "retries_disabled",
        "borrowed",
        "ref_not_found",
        "task_cancelled",
        "lineage_disabled",
    )

    def __init__(
        self,
        message: str | None = None,
        *,
        object_id: str | None = None,
        owner: str | None = None,
        reason: str | None = None,
    ) -> None:
        if reason is not None and reason not in self.REASONS:
            raise InternalError("unknown reason for a failed reconstruction", reason=reason, allowed=self.REASONS)
        super().__init__(message, object_id=object_id, owner=owner)
        self.reason = reason


class ObjectRefStreamEndOfStreamError(UmbelError):
    """The generator has no further items."""

    _umbel_summary = "the stream of references has ended"


class UnserializableException(UmbelError):
    """Stands for an exception that cannot be rebuilt in this process. The message has its class and its text."""

    _umbel_summary = "an exception could not be rebuilt in this process"


class UserCodeException(UmbelError):
    """Code that the user handed to a library of Umbel raised. The cause is its `__cause__`."""

    _umbel_summary = "user code raised an exception"


# ---------------------------------------------------------------------------------------------------------------------
# The runtime itself.


class DeadlockError(UmbelError, RuntimeError):
    """Everybody waits and nobody is left who could end it. The message lists who waits for what. (Inline engine.)"""

    _umbel_summary = "everybody waits for somebody else"


class UmbelSystemError(UmbelError):
    """The runtime failed, not the program."""

    _umbel_summary = "the runtime failed"


class InternalError(UmbelSystemError):
    """Something that must hold inside Umbel does not. `ids` names the things concerned."""

    _umbel_summary = "an invariant does not hold"

    def __init__(self, message: str | None = None, **ids: object) -> None:
        named = "".join(f", {name}={value}" for name, value in ids.items())
        super().__init__(f"{message or self._umbel_summary}{named} (a bug in Umbel; please report it with this text)")
        self.ids = {name: str(value) for name, value in ids.items()}


class UmbelChannelError(UmbelSystemError):
    """A channel between actors is closed or broken."""

    _umbel_summary = "a channel is closed or broken"


class UmbelChannelTimeoutError(UmbelChannelError, TimeoutError):
    """A channel had nothing to read, or no room to write, in time."""

    _umbel_summary = "a channel was not ready in time"


class UmbelCgraphCapacityExceeded(UmbelSystemError):
    """A compiled graph has as many unread results as it may hold."""

    _umbel_summary = "the compiled graph holds as many unread results as it may; get some first"


class CollectiveError(UmbelError):
    """An operation of a collective group failed. `group_name` says of which; `rank` is the rank that is to blame, None where
    several are late."""

    _umbel_summary = "an operation of a collective group failed"

    def __init__(self, message: str | None = None, *, group_name: str | None = None, rank: int | None = None) -> None:
        super().__init__(message)
        self.group_name = group_name
        self.rank = rank


class CollectiveRankDiedError(CollectiveError):
    """A rank of the group died or left. The group is of no more use: make a new one."""

    _umbel_summary = "a rank of a collective group died"


class CollectiveTimeoutError(CollectiveError, TimeoutError):
    """A rank did not come within the group's time-out. The group is of no more use: make a new one."""

    _umbel_summary = "a rank of a collective group did not come in time"


class CollectiveMismatchError(CollectiveError, ValueError):
    """The ranks of a group called different operations, or with tensors of different shapes or types."""

    _umbel_summary = "the ranks of a collective group called different things"


class UmbelDirectTransportError(UmbelSystemError):
    """A tensor could not be moved from device to device."""

    _umbel_summary = "a direct transfer between devices failed"


class StreamingGeneratorReplayInconsistentError(UmbelSystemError):
    """A retried generator yielded another number of items than its first run."""

    _umbel_summary = "a retried generator yielded another number of items than before; make it deterministic"


# ---------------------------------------------------------------------------------------------------------------------
# Errors of user code.


class UmbelTaskError(UmbelError):
    """A task or an actor's method raised.

    cause: what the user's code raised, never an UmbelTaskError; a stand-in when the original cannot travel.
    str() is the remote traceback. `get` raises `as_instanceof_cause()`, which the user's own `except` clauses catch.
    """

    def __init__(
        self,
        function_name: str = "a task",
        traceback_str: str = "",
        cause: BaseException | None = None,
        *,
        pid: int | None = None,
        node_ip: str | None = None,
        task_id: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        if isinstance(cause, UmbelTaskError):
            cause = cause.cause
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause: BaseException = UmbelError("no cause was given") if cause is None else cause
        self.pid = pid
        self.node_ip = node_ip
        self.task_id = task_id
        self.actor_id = actor_id
        super().__init__(traceback_str)

    @classmethod
    def from_exception(
        cls,
        error: BaseException,
        function_name: str,
        *,
        pid: int | None = None,
        node_ip: str | None = None,
        task_id: str | None = None,
        actor_id: str | None = None,
    ) -> UmbelTaskError:
        """The error of a task whose code raised `error`. Call it where `error` was caught: the traceback is taken here.

        Never fails: a cause that cannot be pickled becomes an UmbelError with its text, one that could not be read back
        an UnserializableException. Finding that out costs one pickling there and back, and runs the cause's own code.
        """
        text = format_remote_traceback(error)
        original = error.cause if isinstance(error, UmbelTaskError) else error
        cause, why_not = _portable(original)
        if why_not:
            text += f"\n(its .cause stands for the original, {why_not})"
        return UmbelTaskError(function_name, text, cause, pid=pid, node_ip=node_ip, task_id=task_id, actor_id=actor_id)

    def as_instanceof_cause(self) -> UmbelTaskError:
        """A new error that is both an UmbelTaskError and of the cause's class, with the cause's attributes.

        The plain error where that cannot be: the class refuses to be subclassed (a warning says so), or the cause is no
        Exception: a SystemExit or a cancellation in a task must not end or cancel the one who reads its result.
        """
        plain = cast("UmbelTaskError", self.__dict__.get("_umbel_plain", self))
        cause = plain.cause
        cause_class = type(cause)
        if not isinstance(cause, Exception) or isinstance(plain, cause_class):
            return plain
        made = _instance_class(cause_class)  # type: ignore[arg-type]  # mypy takes the class's own __hash__ for the type's
        return plain if made is None else _instance_of_cause(plain, cause, made)

    def __str__(self) -> str:
        plain = cast("UmbelTaskError", self.__dict__.get("_umbel_plain", self)).__dict__
        place = [
            f"{name}={plain[key]}"
            for name, key in (("pid", "pid"), ("node", "node_ip"), ("actor", "actor_id"))
            if plain[key]
        ]
        where = f" ({', '.join(place)})" if place else ""
        name = plain["function_name"]
        return f"{name}{'' if name.endswith(')') else '()'} failed{where}:\n{plain['traceback_str']}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__dict__.get('cause')!r})"

    def __getattr__(self, name: str) -> Any:  # Any: whatever the user's exception has
        cause = self.__dict__.get("cause")
        if cause is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(cause, name)

    # An instance of the cause's class must not compare, hash, store or pickle as the user's class would.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __setattr__(self, name: str, value: object) -> None:
        Exception.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        Exception.__delattr__(self, name)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        plain = cast("UmbelTaskError", self.__dict__.get("_umbel_plain", self))
        fields = plain.__dict__.copy()
        cause = fields.pop("cause")
        return _rebuild_task_error, (dump_error(cause), fields, plain is not self)

    def __reduce_ex__(self, protocol: object) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.__reduce__()


def _rebuild_task_error(cause: bytes, fields: dict[str, Any], is_instance_of_cause: bool) -> UmbelTaskError:
    plain = UmbelTaskError(fields["function_name"], fields["traceback_str"], load_error(cause))
    plain.__dict__.update(fields)
    return plain.as_instanceof_cause() if is_instance_of_cause else plain


@functools.lru_cache(maxsize=_INSTANCE_CLASSES_MAX)
def _instance_class(cause_class: type[Exception]) -> type[UmbelTaskError] | None:
    """The class that derives from both UmbelTaskError and `cause_class`; None, with a warning, where that cannot be."""
    import types

    name = f"UmbelTaskError({cause_class.__name__})"
    try:
        made = types.new_class(name, (UmbelTaskError, cause_class), exec_body=lambda body: body.update(_INSTANCE_BODY))
    except Exception as refusal:
        import logging

        logging.getLogger("umbel").warning(
            "errors of class %s arrive as plain UmbelTaskError, because the class cannot be subclassed (%s); "
            "'except UmbelTaskError' catches them, and .cause is the original",
            _qualified_name(cause_class),
            _summary_of(refusal),
        )
        return None
    return cast("type[UmbelTaskError]", made)


_INSTANCE_BODY: Final = {
    "__module__": __name__,
    "__doc__": "An UmbelTaskError that is also of the class of its cause.",
    # The user's class may have one that reads state which only the cause has.
    "__getattribute__": Exception.__getattribute__,
}
_ARGS: Final[Any] = vars(BaseException)["args"]  # the descriptor: a class may hide `args` behind a property of its own


def _instance_of_cause(plain: UmbelTaskError, cause: Exception, cls: type[UmbelTaskError]) -> UmbelTaskError:
    # The cause's constructor may have effects, or want arguments that nobody has. So only the interpreter's own part of
    # the object is made, and everything is copied.
    cause_mro = type(cause).__mro__
    builtin = next(one for one in cause_mro if not one.__flags__ & _HEAP_TYPE_FLAG)
    group = getattr(builtins, "BaseExceptionGroup", None)  # not in Python 3.10
    arguments = (cause.message, cause.exceptions) if group is not None and isinstance(cause, group) else ()
    try:
        error: UmbelTaskError = builtin.__new__(cls, *arguments)
    except TypeError:  # MemoryError's own takes from a reserve, for itself alone
        error = BaseException.__new__(cls)
    _ARGS.__set__(error, _ARGS.__get__(cause))
    for owner in cause_mro[cause_mro.index(builtin) : cause_mro.index(BaseException)]:
        for name, member in vars(owner).items():  # OSError.errno and the like, which live outside of __dict__
            if hasattr(member, "__set__") and not name.startswith("__"):
                try:
                    member.__set__(error, member.__get__(cause))
                except (AttributeError, TypeError):
                    continue  # read-only, or not set in the cause
    fields = {name: value for name, value in plain.__dict__.items() if not _has(cause, name)}
    fields.update(object.__getattribute__(cause, "__dict__"))
    fields.pop("__notes__", None)  # they are in the remote traceback already
    error.__dict__.update(fields, _umbel_plain=plain, cause=cause)
    return error


def _has(cause: BaseException, name: str) -> bool:
    try:
        getattr(cause, name)
    except Exception:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Text.


def format_remote_traceback(error: BaseException, *, skip_frames_in: str | None = None) -> str:
    """The traceback of `error` and of what it was chained to, at most 256 Ki characters.

    skip_frames_in: frames of files in this directory are left out; None for Umbel's own package. Where there is no other
    frame, they are shown only if Umbel is at fault: an InternalError, or one that its code has neither raised by a `raise`
    of its own nor met in a pickle, which is a value's doing.
    """
    import traceback

    directory = _PACKAGE_DIR if skip_frames_in is None else skip_frames_in
    try:
        whole = traceback.TracebackException(type(error), error, error.__traceback__)
        _leave_out(whole, directory, is_internal=isinstance(error, InternalError))
        text = "".join(whole.format())
    except Exception as trouble:
        text = f"{_summary_of(error)}\n(its traceback could not be printed: {_summary_of(trouble)})\n"
    return _shortened(text.rstrip("\n"))


def _leave_out(whole: traceback.TracebackException, directory: str, *, is_internal: bool) -> None:
    waiting: list[traceback.TracebackException | None] = [whole]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        frames = list(one.stack or ())
        kept = [frame for frame in frames if not frame.filename.startswith(directory)]
        if not all(frame.filename.endswith(_PICKLING_FILES) for frame in kept):
            one.stack[:] = kept
        elif frames and not is_internal and _speaks_for_itself(frames[-1]):
            one.stack = None  # type: ignore[assignment]  # no frames, and no heading that announces them
        waiting += (one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ()))


def _speaks_for_itself(innermost: traceback.FrameSummary) -> bool:
    """Whether our code said by this error what the user's value or option has done, and did not stumble over it."""
    line = innermost.line or ""  # none where the source is not there
    return line.startswith("raise ") or innermost.filename.endswith(_PICKLING_FILES)


def _shortened(text: str) -> str:
    if len(text) <= _TRACEBACK_CHARS_MAX:
        return text
    half = _TRACEBACK_CHARS_MAX // 2
    return f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"


def _qualified_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return _shortened(str(error))
    except Exception as trouble:
        return f"<its text could not be made: {type(trouble).__name__}>"


def _summary_of(error: BaseException) -> str:
    return f"{_qualified_name(type(error))}: {_text_of(error)}"


# ---------------------------------------------------------------------------------------------------------------------
# Transport.


def dump_error(error: BaseException) -> bytes:
    """`error` for another process; never fails. One that cannot be pickled travels as an UmbelError with its text."""
    import pickle

    import cloudpickle

    summary = _summary_of(error)
    try:
        body = cloudpickle.dumps(error, protocol=_PICKLE_PROTOCOL)
    except Exception as trouble:
        body = pickle.dumps(_not_picklable(error, _why_not_picklable(error, trouble)), protocol=_PICKLE_PROTOCOL)
    return pickle.dumps((summary, body), protocol=_PICKLE_PROTOCOL)


def dump_failed_input(upstream: bytes, function_name: str, *, task_id: str, actor_id: str | None = None) -> bytes:
    """The error, for others, of a task that did not run, because an argument of it ended with the error `upstream`.

    Read, it is an UmbelTaskError of this task with the cause of the first error. Runs none of the cause's code: an owner
    calls this with its lock held. An `upstream` of more than 64 KiB is returned as it is, and shared.
    """
    import pickle

    if len(upstream) > _INPUT_ERROR_BYTES_MAX:
        return upstream
    summary, body, *inputs = pickle.loads(upstream)
    names, left_out = (*(inputs[0] if inputs else ()), function_name), inputs[1] if inputs else 0
    if len(names) > _INPUT_NAMES_MAX:
        half = _INPUT_NAMES_MAX // 2
        names, left_out = names[:half] + names[half + 1 :], left_out + 1
    return pickle.dumps((summary, body, names, left_out, task_id, actor_id), protocol=_PICKLE_PROTOCOL)


def first_of_failed_input(data: bytes) -> bytes | None:
    """The error, as it travels, with which it began, if `data` is of a task that did not run because of that one."""
    import pickle

    summary, body, *inputs = pickle.loads(data)
    return pickle.dumps((summary, body), protocol=_PICKLE_PROTOCOL) if inputs else None


def summary_of_dump(data: bytes) -> str:
    """Class and text of an error as it travels. Does not build the error, which may run its own code."""
    import pickle

    summary, _, *inputs = pickle.loads(data)
    if not inputs:
        return str(summary)
    class_name, _, text = summary.partition(": ")
    return f"{class_name}: {_did_not_run(inputs[0][-1])}{text}"


def load_error(data: bytes) -> BaseException:
    """What `dump_error` wrote; an UnserializableException with its text when that cannot be rebuilt in this process.

    Runs code that the sender chose: only for data of an authenticated peer, and never in a daemon.
    """
    import pickle

    summary, body, *inputs = pickle.loads(data)
    try:
        error = pickle.loads(body)
    except Exception as trouble:
        error = _not_readable(summary, _why_not_readable(trouble))
    if not isinstance(error, BaseException):
        wrong = TypeError(f"its pickle holds a {type(error).__name__}, which is no exception")
        error = _not_readable(summary, _why_not_readable(wrong))
    return _of_failed_input(error, *inputs) if inputs else error


def _of_failed_input(
    first: BaseException, names: Sequence[str], left_out: int, task_id: str, actor_id: str | None
) -> UmbelTaskError:
    text = str(first) if isinstance(first, UmbelTaskError) else format_remote_traceback(first)
    for index, name in enumerate(names):
        if left_out and index == _INPUT_NAMES_MAX // 2:
            text = f"... ({left_out} more tasks did not run) ...\n{text}"
        text = _did_not_run(name) + text
    return UmbelTaskError(names[-1], _shortened(text), first, task_id=task_id, actor_id=actor_id)


def _did_not_run(function_name: str) -> str:
    return f"{function_name}() did not run, because an argument of it could not be computed:\n"


def _portable(cause: BaseException) -> tuple[BaseException, str]:
    """`cause` as every reader will see it: itself, if it survives a journey; else a stand-in, and why."""
    import pickle

    import cloudpickle

    try:
        body = cloudpickle.dumps(cause, protocol=_PICKLE_PROTOCOL)
    except Exception as trouble:
        why_not = _why_not_picklable(cause, trouble)
        return _not_picklable(cause, why_not), why_not
    try:
        if isinstance(pickle.loads(body), BaseException):
            return cause, ""
        why_not = _why_not_readable(TypeError("its pickle holds no exception"))
    except Exception as trouble:
        why_not = _why_not_readable(trouble)
    return _not_readable(_summary_of(cause), why_not), why_not


def _not_picklable(error: BaseException, why_not: str) -> UmbelError:
    return UmbelError(f"{_summary_of(error)}\n(stands for the original, {why_not})")


def _why_not_picklable(error: BaseException, trouble: Exception) -> str:
    from umbel import _offenders

    part = _offenders.find(error, trouble)
    at_fault = f"; the part at fault is {part}" if part else ""
    return (
        f"which cannot be pickled: {_summary_of(trouble)}{at_fault}; leave that out of the exception, or give its class "
        "a __reduce__ that does"
    )


def _not_readable(summary: str, why_not: str) -> UnserializableException:
    return UnserializableException(f"{summary}\n(stands for the original, {why_not})")


def _why_not_readable(trouble: Exception) -> str:
    return (
        f"which cannot be unpickled: {_summary_of(trouble)}; give its class a __reduce__ that fits its constructor, and "
        "make its module importable everywhere"
    )


__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "AuthenticationError",
    "CollectiveError",
    "CollectiveMismatchError",
    "CollectiveRankDiedError",
    "CollectiveTimeoutError",
    "ConnectionLostError",
    "ControlStorageError",
    "CrossLanguageError",
    "DeadlockError",
    "GetTimeoutError",
    "InternalError",
    "InvalidOption",
    "InvalidOptionType",
    "LocalNodeDiedError",
    "NodeDiedError",
    "NodeLaunchError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectRefStreamEndOfStreamError",
    "ObjectStoreFullError",
    "OufOfBandObjectRefSerializationException",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "PluginConflict",
    "PluginError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "StorageFenced",
    "StorageMismatch",
    "StorageUnavailable",
    "StorageUncertain",
    "StreamingGeneratorReplayInconsistentError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UmbelActorError",
    "UmbelCgraphCapacityExceeded",
    "UmbelChannelError",
    "UmbelChannelTimeoutError",
    "UmbelDirectTransportError",
    "UmbelError",
    "UmbelSystemError",
    "UmbelTaskError",
    "UnserializableException",
    "UnsupportedAttribute",
    "UnsupportedFeature",
    "UserCodeException",
    "WorkerCrashedError",
]
