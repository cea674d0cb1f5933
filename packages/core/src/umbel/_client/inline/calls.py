"""One call of a task or of an actor's method, from submission to its results, and what all calls of a kind share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._client import context, refs, signatures
from umbel._client.inline import values
from umbel._model import options as option_model
from umbel._model import reasons
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    import asyncio

    from umbel._client.inline import actors, lanes, streams

INDEX_BYTES = 4
EXPLAIN_DEPTH = 3  # calls that wait for each other, in one message: enough to see a circle, short enough to read
_UNPICKLED = -1  # the kind of arguments that are immutable and need no pickle


class Recipe:
    """What all calls of one function or method with one set of options share."""

    __slots__ = (
        "engine", "env_vars", "function", "function_name", "gpu_count", "group", "has_events", "in_group", "infeasible",
        "is_async", "is_dynamic", "is_generator", "is_streaming", "max_retries", "method", "name", "num_returns", "resources",
        "retry_exceptions", "window", "worn",
    )  # fmt: skip

    def __init__(self, engine: Any, name: str, num_returns: option_model.NumReturns, *, is_generator: bool) -> None:
        self.engine = engine  # whose cache this is
        self.name = name
        self.function_name = name
        self.function: Callable[..., Any] | None = None  # tasks only
        self.method = ""  # actors only
        self.has_events = True  # its calls show in the timeline
        self.group: str | None = None
        self.is_async = False
        self.is_generator = is_generator
        if num_returns is None:
            num_returns = "streaming" if is_generator else 1
        self.is_dynamic = num_returns == "dynamic"
        self.is_streaming = isinstance(num_returns, str)
        self.num_returns = 1 if isinstance(num_returns, str) else num_returns
        self.max_retries = 0
        self.retry_exceptions: option_model.RetryExceptions = False
        self.window = -1  # unread items of a stream, after which the producer waits; no limit if not positive
        self.env_vars: tuple[tuple[str, str], ...] = ()
        self.worn: tuple[tuple[str, str], ...] = ()  # these, and what shows the assigned devices
        self.resources: Mapping[str, float] = {}
        self.gpu_count = 0
        self.infeasible: values.Failure | None = None
        self.in_group: option_model.InGroup | None = None  # the placement group to run in


class Arguments(NamedTuple):
    """A snapshot of a call's arguments. deps: (position or keyword, object id) of those that are references."""

    kind: int
    payload: Any
    deps: tuple[tuple[int | str, bytes], ...]
    contained: tuple[bytes, ...]


NO_ARGUMENTS = Arguments(_UNPICKLED, ((), {}), (), ())


def encode_arguments(
    signature: signatures.Signature, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Arguments:
    """Raises TypeError for what cannot be pickled, with the name of the argument. Called without the mutex."""
    try:
        return _encode_arguments(args, kwargs)
    except TypeError as error:
        raise signature.blame(function, args, kwargs, error) from error.__cause__


def _encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    if not args and not kwargs:
        return NO_ARGUMENTS
    deps: list[tuple[int | str, bytes]] = [(i, v.binary()) for i, v in enumerate(args) if isinstance(v, refs.ObjectRef)]
    deps += [(name, v.binary()) for name, v in kwargs.items() if isinstance(v, refs.ObjectRef)]
    if deps:
        named = {key for key, _ in deps}
        args = tuple(None if i in named else v for i, v in enumerate(args))
        kwargs = {name: None if name in named else v for name, v in kwargs.items()}
    if all(map(serialization.is_raw, args)) and all(map(serialization.is_raw, kwargs.values())):
        return Arguments(_UNPICKLED, (args, dict(kwargs)), tuple(deps), ())
    serialized = serialization.serialize((args, kwargs))
    return Arguments(*serialized.inline(), tuple(deps), tuple(serialized.refs))


class Call:
    """One submitted call. The engine changes it, under the mutex."""

    __slots__ = (
        "actor", "arguments", "asyncio_task", "attempt", "caller", "children", "context", "deps", "is_cancelled",
        "is_done", "is_started", "lane", "missing", "name", "parent", "pins", "recipe", "records", "retries_left",
        "session", "started_s", "stream", "task_id",
    )  # fmt: skip

    def __init__(self, recipe: Recipe, task_id: bytes, arguments: Arguments, parent: Call | None, caller: str) -> None:
        self.recipe = recipe
        self.name = recipe.name
        self.task_id = task_id
        self.arguments = arguments
        self.parent = parent  # the call that submitted this one; None for the driver
        self.caller = caller  # the worker that submitted it, in the sense of the order of calls
        self.children: set[Call] = set()  # unfinished ones
        self.records: list[ownership.Record] = []
        self.pins: list[ownership.Record] = []
        self.deps: list[tuple[int | str, ownership.Record]] = []
        self.missing = 0  # arguments that are not there yet
        self.attempt = 0
        self.retries_left = recipe.max_retries
        self.lane: lanes.Lane | None = None
        self.actor: actors.Actor | None = None
        self.asyncio_task: asyncio.Task[None] | None = None
        self.stream: streams.Stream | None = None
        self.context: context.TaskContext | None = None
        self.session: context.SessionContext | None = None
        self.started_s = 0.0
        self.is_started = False
        self.is_cancelled = False
        self.is_done = False

    @property
    def in_group(self) -> option_model.InGroup | None:
        """The placement group in which it runs."""
        return self.recipe.in_group

    def read_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Called without the mutex, once the references among them are settled and none has failed."""
        kind, payload = self.arguments.kind, self.arguments.payload
        args, kwargs = payload if kind == _UNPICKLED else serialization.decode_inline(kind, payload)
        if self.deps:
            positional = list(args)
            kwargs = dict(kwargs)
            for key, record in self.deps:
                if isinstance(key, int):
                    positional[key] = values.read(record)
                else:
                    kwargs[key] = values.read(record)
            args = tuple(positional)
        return args, kwargs

    def may_retry(self) -> bool:
        """Takes one of the retries that are left, if there is one."""
        if self.retries_left == 0 or self.is_cancelled or self.is_done:
            return False
        if self.retries_left > 0:
            self.retries_left -= 1
        self.attempt += 1
        return True

    def retries_error(self, error: BaseException) -> bool:
        """Whether what the user's code raised is to be tried again."""
        wanted = self.recipe.retry_exceptions
        if isinstance(wanted, bool):
            return wanted and isinstance(error, Exception)
        return isinstance(error.cause if isinstance(error, exceptions.UmbelTaskError) else error, wanted)

    def reason_code(self) -> str:
        """Of `umbel._model.reasons`."""
        if self.missing > 0:
            return reasons.ARGUMENT
        if not self.is_started:
            return reasons.WORKER if self.actor is None else reasons.QUEUED
        return reasons.RUNNING

    def explain(self, depth: int = EXPLAIN_DEPTH) -> str:
        """The call's name and what it waits for, in words; `depth`: how many further ones are followed."""
        if self.missing > 0:
            record = next((record for _, record in self.deps if record.kind == values.PENDING), None)
            which = f" ({describe(record, depth - 1)})" if record is not None and depth > 0 else ""
            return f"{self.name}, which waits for {self.missing} of its arguments{which}"
        if not self.is_started:
            why = self.recipe.engine.groups.holds_back(self) if self.in_group is not None else None
            if why is not None:
                return f"{self.name}, which waits: {why}"
            return f"{self.name}, which {'has not started' if self.actor is None else 'queues at its actor'}"
        if depth > 0 and self.lane is not None and self.lane.reason is not None and self.asyncio_task is None:
            return f"{self.name}, which waits for {self.lane.reason(depth - 1)}"
        return f"{self.name}, which has started"


def describe(record: ownership.Record, depth: int = EXPLAIN_DEPTH) -> str:
    name = f"object {record.object_id.hex()}"
    if hasattr(record.task, "awaited_group"):
        return f"{name}: {record.task.why()}"
    return f"{name}, the result of {record.task.explain(depth)}" if isinstance(record.task, Call) else name
