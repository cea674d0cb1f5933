"""Why an object of this process is not there yet, as far as this process knows.

Nothing here waits or asks: `inquiry` follows the story through other processes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from umbel._base import nodes
from umbel._client import refs
from umbel._client.task import Task
from umbel._model import reasons
from umbel._model import resources as resource_model
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

PENDING = ownership.PENDING
Reason = reasons.Reason
TOLD_MAX = 20  # of tasks here that wait for each other: what waits and what it waits for in the end matter


def of_object(engine: NativeEngine, object_id: bytes) -> Reason:
    """Lock held."""
    record = engine.values.table.records.get(object_id)
    subject = f"object {object_id.hex()}"
    if record is None:
        return Reason(reasons.UNKNOWN, subject, "is not known here any more", facts={"object": object_id.hex()})
    if record.kind != PENDING:
        text = "is ready: its task failed" if record.kind == serialization.ERROR else "is ready"
        facts: dict[str, Any] = {"object": object_id.hex()}
        if record.kind == serialization.STORED:
            fetching = engine.values.fetching
            told = fetching.reason_of(object_id, record.payload[0]) if fetching is not None else None
            if told is not None:
                return told
            facts |= {"segment": record.payload[0], "bytes": record.payload[1]}
        return Reason(reasons.READY, subject, text, facts=facts)
    told = of_record(record)
    last, remote = told.last(), engine.links.remote
    if remote is None or last.code != reasons.ELSEWHERE:
        return told
    owner = bytes.fromhex(last.facts["owner"])
    return told if engine.links.is_of_this_node(owner) else told.followed_by(remote.reason(owner))


def of_record(record: ownership.Record) -> Reason:
    """Of one that is pending, with what it waits for in turn here. Of a long chain the middle is left out. Lock held or not."""
    chain = [record]
    while (waiting := _waits_for(chain[-1])) is not None:
        chain.append(waiting)
    half = TOLD_MAX // 2
    left_out = len(chain) - 2 * half
    if left_out > 1:
        told = [*map(_of_one, chain[:half]), _of_many(left_out), *map(_of_one, chain[-half:])]
    else:
        told = [*map(_of_one, chain)]
    story = told.pop()
    while told:
        story = told.pop()._replace(because=story)
    return story


def _waits_for(record: ownership.Record) -> ownership.Record | None:
    """Another one of this process that has to come first."""
    task = record.task
    if not isinstance(task, Task):
        return None
    constructor = task.actor.constructor if task.actor is not None else None
    return _missing_argument(task) or (_missing_argument(constructor) if constructor is not None else None)


def _of_many(count: int) -> Reason:
    return Reason(reasons.ARGUMENT, "it", f"waits for {count} tasks, each of which waits for the next")


def _of_one(record: ownership.Record) -> Reason:
    """Without what it waits for."""
    task = record.task
    subject = f"object {record.object_id.hex()}"
    facts: dict[str, Any] = {"object": record.object_id.hex()}
    group = getattr(task, "awaited_group", "")
    if group:
        facts["group"] = group
        return Reason(reasons.GROUP, subject, f"is there once placement group {group} is placed", facts=facts)
    if not isinstance(task, Task):
        owner = record.object_id[:16].hex()
        facts["owner"] = owner
        text = f"is computed by another process ({owner}) and has not arrived"
        return Reason(reasons.ELSEWHERE, subject, text, facts=facts)
    what = "the result of" if task.stream is None else "the end of generator"
    subject += f", {what} {task.template.name},"
    facts |= {"task": record.object_id[:24].hex(), "name": task.template.name}
    kills = task.template.engine.deaths.memory_kills
    killed = kills.of(task.seq) if kills is not None else None
    if killed is not None:
        times = "once" if killed.count == 1 else f"{killed.count} times"
        subject += f" which was killed {times} when memory was short (it held {_mib(killed.peak_bytes)}),"
        facts |= {"memory_kills": killed.count, "peak_bytes": killed.peak_bytes, "demand_bytes": killed.demand_bytes}
    if _missing_argument(task) is not None:
        text = f"waits for {task.missing} of its arguments"
        return Reason(reasons.ARGUMENT, subject, text, facts=facts)
    if task.actor is not None:
        return _of_call(task, subject, facts)
    return _of_task(task, subject, facts)


def _of_call(call: Task, subject: str, facts: dict[str, Any]) -> Reason:
    client = call.actor
    state = client.calls.state.value
    facts |= {"actor": client.actor_id.hex(), "state": state}
    constructor = client.constructor
    if constructor is not None and _missing_argument(constructor) is not None:
        text = f"is queued at the caller; the actor waits for {constructor.missing} of its constructor's arguments"
        return Reason(reasons.CONSTRUCTOR_ARGUMENT, subject, text, facts=facts)
    if call.seq in client.calls.inflight:
        facts["worker"] = client.worker
        text = f"was sent to its actor, which is {state} and has not answered"
        return Reason(reasons.QUEUED, subject, text, facts=facts)
    return Reason(reasons.ACTOR, subject, f"is queued at the caller; the actor is {state}", facts=facts)


def _of_task(task: Task, subject: str, facts: dict[str, Any]) -> Reason:
    if task.lease is None:
        wait_s = facts.get("memory_kills", 0) and _delay_s(task)
        if wait_s > 0:
            return Reason(reasons.MEMORY, subject, f"waits for {wait_s:.1f} s before it is tried again", facts=facts)
        cls = task.template.cls
        held = len(cls.leases) if cls is not None else 0
        facts["key"] = cls.key if cls is not None else ""
        text = f"waits for a worker with {_amounts(task.template.announcement['resources'])} (held: {held})"
        return Reason(reasons.WORKER, subject, text, facts=facts)
    facts["worker"] = task.lease.worker
    worker = worker_in_words(task.lease.worker, task.template.engine.process_id.hex())
    behind = list(task.lease.inflight).index(task.seq) if task.seq in task.lease.inflight else 0
    if behind:
        others = "1 other task" if behind == 1 else f"{behind} other tasks"
        text = f"is queued at {worker} behind {others}"
        return Reason(reasons.QUEUED, subject, text, facts=facts)
    facts["for_s"] = time.monotonic() - task.lease.last_reply_s
    text = f"is running on {worker}, for {facts['for_s']:.1f} s"
    return Reason(reasons.RUNNING, subject, text, facts=facts)


def worker_in_words(worker: str, beside: str) -> str:
    """As somebody calls it who is on the node of the process `beside`."""
    tag = nodes.tag_in(worker)
    return f"worker {worker[:8]}" + (f" of node {tag[:8]}" if tag != nodes.tag_in(beside) else "")


def _missing_argument(task: Task) -> ownership.Record | None:
    if task.missing <= 0:
        return None
    return next((record for _, record in task.deps or () if record.kind == PENDING), None)


def _amounts(units: dict[str, int]) -> str:
    parts = [
        f"{_mib(amount / resource_model.RESOURCE_UNIT)} of memory"
        if name == resource_model.MEMORY
        else f"{amount / resource_model.RESOURCE_UNIT:g} {name}"
        for name, amount in units.items()
        if amount
    ]
    return " and ".join(parts) or "no resources"


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"


def _delay_s(task: Task) -> float:
    """How long a task that was killed for its memory is held back yet."""
    kills = task.template.engine.deaths.memory_kills
    killed = kills.of(task.seq) if kills is not None else None
    return killed.due_s - time.monotonic() if killed is not None else 0.0


def pending_id(engine: NativeEngine, target: Any) -> bytes:
    """The id of a reference of this session. Raises TypeError for anything else. Lock held."""
    if not isinstance(target, refs.ObjectRef) or target._id not in engine.values.table.records:
        raise TypeError(f"explain() takes an ObjectRef or ObjectRefGenerator of this session, got {target!r}")
    return target._id
