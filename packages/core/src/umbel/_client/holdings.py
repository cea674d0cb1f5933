"""What this process keeps and why: its answers for `umbel memory` and for `umbel explain` of an object.

Loaded when somebody asks. Counts are read without holding the program up: it goes on meanwhile, so that they may be a
moment apart.
"""

from __future__ import annotations

import heapq
import itertools
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from umbel._client import holders, values
from umbel._client.task import Task
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

OBJECTS_MAX = 10_000  # told one by one, the largest; some 2 MB
BORROWERS_MAX = ARGUMENTS_MAX = CONTAINERS_MAX = 100  # told of one object
KIND_NAMES = {
    ownership.PENDING: "pending",
    serialization.STORED: "shared",
    serialization.ERROR: "error",
    values.LIFETIME: "actor",
    values.HELD: "tensors",
}  # else "inline": in the owner's own memory


def size_bytes(record: ownership.Record) -> int:
    """Of the encoded value; 0 while there is none, and for what stands for an actor."""
    kind, payload = record.kind, record.payload
    if kind == serialization.STORED:
        return int(payload[1])
    if kind == serialization.BUFFERS:
        return len(payload[0]) + sum(map(len, payload[1]))
    if kind == values.HELD:
        return int(payload.size_bytes)
    if kind in (serialization.PICKLE, serialization.ERROR):
        return len(payload or b"")
    return sys.getsizeof(payload) if kind == serialization.RAW else 0


def objects(engine: NativeEngine) -> dict[str, Any]:
    """Every object that this process owns or borrows; the small ones of very many as a sum."""
    engine.reports.send_tasks()  # whoever asks looks up next what the tasks were called
    records = _records(engine)
    sized = [(size_bytes(record), number, record) for number, record in enumerate(records)]
    told = heapq.nlargest(OBJECTS_MAX, sized)
    left = len(records) - len(told)
    sought = [found for record in records if (found := _sought(engine, record))]
    return {
        **_self(engine),
        "objects": [_row(engine, record, size) for size, _, record in told],
        "left_out": left,
        "left_out_bytes": sum(size for size, *_ in sized) - sum(size for size, *_ in told),
        "lineage": _lineage(engine),
        "sought": [len(sought), len(set(itertools.chain(*sought)))],
    }


def keeps(engine: NativeEngine, about: str) -> dict[str, Any]:
    """Why this process keeps one object: references and where they are, views, pins of each kind, borrowers, and which of
    these it is no longer connected to."""
    object_id = bytes.fromhex(about)
    records = _records(engine)
    record = engine.values.table.records.get(object_id)
    if record is None:
        return {**_self(engine), "known": False, "lineage": _kept_call(engine, object_id)}
    count, where = holders.of(object_id)
    arguments = Counter(
        (task.template.name, _is_sent(task))
        for task in list(engine.tasks.unfinished.values())
        for one in list(task.argument_pins or ())
        if one is record
    )
    containers = [one.object_id.hex() for one in records if object_id in one.contained]
    constructors = sum(
        _pins_of_constructor(one).count(record) for one in records if one.kind == values.LIFETIME and one.payload
    )
    loans = sum(one.outer is record for waiting in list(engine.values.table._asked.values()) for one in list(waiting))
    streams = sum(
        task.stream is not None and any(one is record for one in list(task.stream.items.values()))
        for task in list(engine.tasks.unfinished.values())
    )
    remote = engine.links.remote
    explained = sum(arguments.values()) + len(containers) + constructors + loans + streams
    return {
        **_self(engine),
        "known": True,
        **_row(engine, record, size_bytes(record)),
        "references": count,
        "where": where,
        "views": max(0, record.local - count) if record.kind == serialization.STORED else 0,
        "arguments": [
            {"name": name, "sent": sent, "count": count} for (name, sent), count in arguments.most_common(ARGUMENTS_MAX)
        ],
        "contained_in": containers[:CONTAINERS_MAX],
        "container_count": len(containers),
        "constructors": constructors,
        "loans": loans,
        "streams": streams,
        "for_good": max(0, record.pins - explained),
        "lineage": _kept_call(engine, object_id),
        "sought": {} if remote is None else {one.hex(): remote.reason(one).text for one in _sought(engine, record)},
    }


def _sought(engine: NativeEngine, record: ownership.Record) -> list[bytes]:
    """The borrowers to which the connection has broken, while another one is being made."""
    remote = engine.links.remote
    return [] if remote is None else [one for one in list(record.borrowers or ()) if remote.is_sought(one)]


def _records(engine: NativeEngine) -> list[ownership.Record]:
    with engine.lock:
        engine.values.drain_drops()
        return list(engine.values.table.records.values())


def _lineage(engine: NativeEngine) -> tuple[int, int]:
    """The calls that are kept to compute lost values again: how many, and their bytes."""
    with engine.lock:
        if engine.rebuilder is None:
            return 0, 0
        return engine.rebuilder.lineage.kept_count(), engine.rebuilder.lineage.size_bytes


def _kept_call(engine: NativeEngine, object_id: bytes) -> dict[str, Any] | None:
    """The one that would make this object again; "name" is empty for a put value, which other calls need."""
    with engine.lock:
        kept = engine.rebuilder.lineage.told(object_id) if engine.rebuilder is not None else None
    if kept is None:
        return None
    name = kept.task[0].template.name if kept.task is not None else ""
    return {"name": name, "size": kept.size_bytes, "needed_by": kept.needed_by}


def _is_sent(task: Task) -> bool:
    return task.lease is not None or (task.actor is not None and task.seq in task.actor.calls.inflight)


def _pins_of_constructor(lifetime: ownership.Record) -> list[Any]:
    _, task = lifetime.payload
    return list(task.argument_pins or ())


def _self(engine: NativeEngine) -> dict[str, Any]:
    return {"process": engine.process_id.hex(), "pid": os.getpid(), "is_driver": engine.kind == "driver"}


def _row(engine: NativeEngine, record: ownership.Record, size: int) -> dict[str, Any]:
    task = record.task if record.kind == ownership.PENDING else None
    borrowers = Counter({one.hex(): grants for one, grants in dict(record.borrowers or {}).items()})
    return {
        "id": record.object_id.hex(),
        "kind": KIND_NAMES.get(record.kind, "inline"),
        "size": size,
        "owned": engine.values.table.is_owner(record.object_id),
        "local": record.local,
        "pins": record.pins,
        "borrowers": dict(borrowers.most_common(BORROWERS_MAX)),
        "site": getattr(record, "call_site", ""),
        "name": task.template.name if isinstance(task, Task) else "",
    }
