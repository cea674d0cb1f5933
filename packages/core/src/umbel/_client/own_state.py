"""What this process tells of its own part of the session's state: the tasks it waits for, and the objects it knows.

Rows have the fields of `umbel.util.state.common`. They are filtered here, as far as this process knows the fields, so
that what travels is what was asked for. Imported when the first question comes.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from umbel._client import recording, values
from umbel._client.task import Task
from umbel._history import batches, conditions, selections
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

ROWS_MAX = 10_000  # told at once: some 5 MB, which pass through the daemon
PENDING, ERROR, STORED = ownership.PENDING, serialization.ERROR, serialization.STORED
UNTOLD = frozenset(("state", "worker_pid", "node_id", "start_time_ms"))  # of a sent task, its worker knows these


def question(wanted: list[conditions.Condition], limit: int | None, *, is_newest_first: bool) -> str:
    """What to ask of a process, as it travels."""
    return json.dumps({"filters": wanted, "limit": limit, "newest_first": is_newest_first})


def _read(about: str) -> tuple[list[conditions.Condition], int, bool]:
    asked = json.loads(about)
    limit = ROWS_MAX if asked["limit"] is None else min(asked["limit"], ROWS_MAX)
    return [conditions.Condition(*one) for one in asked["filters"]], limit, asked["newest_first"]


def tasks_of(engine: NativeEngine, about: str) -> dict[str, Any]:
    """{"rows", "count"}: the unfinished tasks that this process has submitted and that meet the conditions. All that
    were sent to a worker are among the rows, whatever the limit: how those go on, others know."""
    wanted, limit, is_newest_first = _read(about)
    known = [one for one in wanted if one.column not in UNTOLD]
    engine.report_tasks()  # what has ended meanwhile is in the history by the time that is read
    with engine.lock:
        unfinished = list(engine.tasks.unfinished.values())
        running = {one.task: one for one in engine.answers.running()}
        waiting = {one.task for one in running.values() if engine.waited_for(one.thread, 1)}
    if is_newest_first:
        unfinished.reverse()
    rows: list[dict[str, Any]] = []
    kept = count = 0
    describe = _Describer(engine)
    for task in unfinished:
        if not wanted and kept >= limit and _worker_of(task) is None:
            count += 1  # it would be left out
            continue
        row = describe.task(task)
        if not conditions.all_met(known if row["is_sent"] else wanted, row):
            continue
        count += not row["is_sent"]
        if row["is_sent"] or kept < limit:
            kept += not row["is_sent"]
            rows.append(row)
    runs = {one.task: {"since_s": one.since_s, "waits": one.task in waiting} for one in running.values() if one.task}
    return {"rows": rows, "count": count, "running": runs, "pid": os.getpid()}


def _worker_of(task: Task) -> str | None:
    """Where an unfinished task was sent."""
    if task.lease is not None:
        return task.lease.worker
    if task.actor is not None and task.seq in task.actor.calls.inflight:
        return str(task.actor.worker)
    return None


def _state_of(task: Task) -> str:
    """As far as its owner knows."""
    if _worker_of(task) is None:
        return "PENDING_ARGS_AVAIL" if task.missing > 0 else "PENDING_NODE_ASSIGNMENT"
    return "SUBMITTED_TO_WORKER" if task.actor is None else "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"


class _Describer:
    """Makes rows of tasks; describes each template once."""

    def __init__(self, engine: NativeEngine) -> None:
        self._process_id = engine.process_id
        self._job = engine.welcome.get("job_id", "")
        self._templates: dict[int, batches.Template] = {}

    def task(self, task: Task) -> dict[str, Any]:
        described = self._templates.get(task.template.index)
        if described is None:
            described = self._templates[task.template.index] = recording.described(task.template)
        worker = _worker_of(task)
        return {
            **selections.CONSTANT,
            "task_id": (self._process_id + task.seq.to_bytes(8, "big")).hex(),
            "attempt_number": task.attempt,
            "name": described.name,
            "func_or_class_name": described.function,
            "type": described.type,
            "actor_id": described.actor or None,
            "required_resources": described.resources,
            "runtime_env_info": described.env,
            "state": _state_of(task),
            "job_id": self._job,
            "parent_task_id": recording.parent_id(task.parent) if task.parent is not None else None,
            "worker_id": worker,
            "node_id": None,
            "worker_pid": None,
            "error_type": None,
            "error_message": None,
            "submitted_s": task.submitted_s,
            "started_s": None,
            "ended_s": None,
            "creation_time_ms": int(task.submitted_s * 1e3),
            "start_time_ms": None,
            "end_time_ms": None,
            "is_sent": worker is not None,
        }


def objects_of(engine: NativeEngine, about: str) -> dict[str, Any]:
    """{"rows", "count"}: the objects that this process refers to and that meet the conditions, one row for each kind of
    reference."""
    wanted, limit, _ = _read(about)
    with engine.lock:
        engine.values.drain_drops()
        records = list(engine.values.table.records.values())
        used = _used_by_tasks(engine)
        inside = {inner for record in records for inner in record.contained}
    met = (row for record in records for row in _object_rows(record, engine, used, inside))
    found = (row for row in met if conditions.all_met(wanted, row))
    rows = list(itertools.islice(found, limit))
    return {"rows": rows, "count": len(rows) + sum(1 for _ in found)}


def _used_by_tasks(engine: NativeEngine) -> set[bytes]:
    pins: Iterable[ownership.Record] = itertools.chain.from_iterable(
        task.argument_pins or () for task in engine.tasks.unfinished.values()
    )
    return {record.object_id for record in pins}


def _object_rows(
    record: ownership.Record, engine: NativeEngine, used: set[bytes], inside: set[bytes]
) -> Iterator[dict[str, Any]]:
    object_id = record.object_id
    kinds = []
    if record.kind == values.LIFETIME:
        kinds.append("ACTOR_HANDLE")
    elif record.local:
        kinds.append("LOCAL_REFERENCE")
    if object_id in used:
        kinds.append("USED_BY_PENDING_TASK")
    if object_id in inside:
        kinds.append("CAPTURED_IN_OBJECT")
    if not kinds:
        kinds.append("PINNED_IN_MEMORY" if record.pins or record.borrowers else "UNKNOWN_STATUS")
    task = record.task
    is_task = isinstance(task, Task)
    status = "NIL"
    if is_task:
        status = _state_of(task)
    elif record.kind == ERROR:
        status = "FAILED"
    elif record.kind not in (PENDING, values.LIFETIME):
        status = "FINISHED"
    for kind in kinds:
        yield {
            "object_id": object_id.hex(),
            "object_size": _size_of(record),
            "task_status": status,
            "attempt_number": task.attempt + 1 if is_task else 1,
            "reference_type": kind,
            "call_site": getattr(record, "call_site", "") or "disabled",
            "type": engine.kind.upper(),
            "pid": os.getpid(),
            "ip": "127.0.0.1",
        }


def _size_of(record: ownership.Record) -> int:
    """Bytes; -1 where that is not known."""
    if record.kind == STORED:
        return int(record.payload[1])
    if isinstance(record.payload, (bytes, bytearray, str)):
        return len(record.payload)
    return -1
