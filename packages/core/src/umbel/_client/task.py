"""One submitted task or call, and the function or method that it calls, as their owner sees them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import streams
from umbel._objects import ownership
from umbel._scheduling import dispatch
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine


def return_id(process_id: bytes, seq: int, index: int) -> bytes:
    """The object id of a task's return value."""
    return process_id + seq.to_bytes(8, "big") + index.to_bytes(4, "big")


class Template:
    """The engine's view of a function or method with its options: how to announce it and how its calls behave."""

    __slots__ = (
        "announcement", "backpressure", "cls", "digest", "durations", "engine", "function_blob", "index",
        "is_dynamic", "is_streaming", "max_retries", "name", "num_returns", "retry_exceptions",
    )  # fmt: skip

    def __init__(self, engine: NativeEngine, index: int, name: str, num_returns: Any, is_generator: bool) -> None:
        self.engine = engine
        self.index = index
        self.name = name
        if num_returns is None:
            num_returns = "streaming" if is_generator else 1
        self.is_dynamic = num_returns == "dynamic"
        self.is_streaming = num_returns in ("streaming", "dynamic")
        self.num_returns = 1 if self.is_streaming else num_returns
        self.durations = dispatch.Durations()
        self.cls: dispatch.SchedulingClass | None = None
        self.digest = b""
        self.function_blob = b""
        self.max_retries = 0
        self.retry_exceptions: Any = False
        self.backpressure = -1
        self.announcement: dict[str, Any] = {}


class Task:
    """One submitted task or actor call, until it is settled."""

    __slots__ = (
        "actor", "argument_pins", "attempt", "deps", "durations", "error", "is_cancelled", "kind", "lease",
        "missing", "parent", "payload", "records", "retries_left", "seq", "stream", "submitted_s", "template",
    )  # fmt: skip

    def __init__(self, seq: int, template: Template, kind: int, payload: Any) -> None:
        self.seq = seq
        self.template = template
        self.durations = template.durations
        self.kind = kind
        self.payload = payload
        self.deps: list[tuple[Any, ownership.Record]] | None = None
        self.argument_pins: list[ownership.Record] | None = None
        self.records: list[ownership.Record] = []
        self.missing = 0
        self.retries_left = template.max_retries
        self.attempt = 0
        self.lease: dispatch.Lease | None = None
        self.actor: Any = None
        self.stream: streams.StreamState | streams.Replay | None = None
        self.is_cancelled = False
        self.parent: Any = None
        self.error: bytes | None = None
        self.submitted_s = time.time()


def cancelled_error(task: Task) -> bytes:
    return exceptions.dump_error(exceptions.TaskCancelledError(f"task {task.template.name} was cancelled"))


def resolve_deps(task: Task) -> list[tuple[Any, bytes, int, Any]] | None:
    """The arguments that were references, with their values as they travel."""
    if task.deps is None:
        return None
    return [
        (key, record.object_id, record.kind, record.payload)
        if record.kind != ownership.PENDING
        else (key, record.object_id, messages.AWAITED, record.task.seq)
        for key, record in task.deps
    ]


def known(cls: dispatch.SchedulingClass | None) -> dispatch.SchedulingClass:
    """A plain task's scheduling class; calls of actors have none and do not come here."""
    if cls is None:
        raise exceptions.InternalError("a task has no scheduling class")
    return cls
