"""What a pending object waits for, in words: at this owner, and, where that is the reason, at the node's agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import refs, tasks
from umbel._model import resources as resource_model
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

PENDING = ownership.PENDING
ASKING_S = 0.1  # the agent answers within a millisecond, unless it is stopped or the machine is overloaded


def of_record(record: ownership.Record) -> str:
    """As far as the owner knows. Lock held or not."""
    task = record.task
    name = f"object {record.object_id.hex()}"
    if not isinstance(task, tasks.Task):
        return f"{name} is computed by another process ({record.object_id[:16].hex()}) and has not arrived"
    what = f"{name}, the result of {task.template.name},"
    waiting = _missing_argument(task)
    if waiting is not None:
        return f"{what} waits for {task.missing} of its arguments ({of_record(waiting)})"
    if task.actor is not None:
        state = task.actor.calls.state.value
        constructor = task.actor.constructor
        waiting = _missing_argument(constructor) if constructor is not None else None
        if waiting is not None:
            return (
                f"{what} is queued at the caller; the actor waits for {constructor.missing} of its constructor's "
                f"arguments ({of_record(waiting)})"
            )
        if task.seq in task.actor.calls.inflight:
            return f"{what} was sent to its actor, which is {state} and has not answered"
        return f"{what} is queued at the caller; the actor is {state}"
    if task.lease is None:
        cls = task.template.cls
        held = len(cls.leases) if cls is not None else 0
        return f"{what} waits for a worker with {_amounts(task.template.announcement['resources'])} (held: {held})"
    behind = list(task.lease.inflight).index(task.seq) if task.seq in task.lease.inflight else 0
    if behind:
        return f"{what} is queued at worker {task.lease.worker[:8]} behind {behind} other tasks"
    seconds = time.monotonic() - task.lease.last_reply_s
    return f"{what} is running on worker {task.lease.worker[:8]}, for {seconds:.1f} s"


def _missing_argument(task: tasks.Task) -> ownership.Record | None:
    if task.missing <= 0:
        return None
    return next((record for _, record in task.deps or () if record.kind == PENDING), None)


def _amounts(units: dict[str, int]) -> str:
    parts = [f"{amount / resource_model.RESOURCE_UNIT:g} {name}" for name, amount in units.items() if amount]
    return " and ".join(parts) or "no resources"


def of_timeout(engine: NativeEngine, target: refs.ObjectRef[Any]) -> str:
    """What a reference still waits for, for somebody who has waited long enough: an agent that does not answer at once
    is not waited for. No lock."""
    try:
        return explain(engine, target, timeout_s=ASKING_S)
    except exceptions.UmbelError:
        with engine.lock:
            record = engine.values.table.records.get(target._id)
            return of_record(record) if record is not None and record.kind == PENDING else "became ready just now"


def explain(engine: NativeEngine, target: Any, *, timeout_s: float | None = None) -> str:
    """What a reference waits for; asks the agent if need be. No lock. Raises TypeError for anything else."""
    with engine.lock:
        record = engine.values.table.records.get(target._id) if isinstance(target, refs.ObjectRef) else None
        if record is None:
            raise TypeError(f"explain() takes an ObjectRef of this session, got {target!r}")
        if record.kind != PENDING:
            return f"object {target.hex()} is ready" + (
                ": its task failed" if record.kind == serialization.ERROR else ""
            )
        text = of_record(record)
        last = record
        while isinstance(last.task, tasks.Task):
            argument = _missing_argument(last.task)
            if argument is None and last.task.actor is not None and last.task.actor.constructor is not None:
                argument = _missing_argument(last.task.actor.constructor)
            if argument is None:
                break
            last = argument
        task = last.task if isinstance(last.task, tasks.Task) else None
    if task is None or task.lease is not None:
        return text
    actor = task.actor.actor_id.hex() if task.actor is not None else ""
    key = task.template.cls.key if task.template.cls is not None else ""
    for entry in engine.query("pending", timeout_s=timeout_s):
        is_it = entry["actor"] == actor if actor else (entry["client"], entry["key"]) == (engine.process_id.hex(), key)
        if is_it:
            return f"{text}: {entry['reason']}"
    # An actor may wait for what only its creator has.
    for one in engine.query("actors", timeout_s=timeout_s) if actor else ():
        if one["actor"] == actor and one["reason"]:
            return f"{text}: {one['reason']}"
    return text
