"""What this process tells of its own part of the session's state: the tasks it waits for, and the objects it knows.

Rows have the fields of `umbel.util.state.common`. Who asks goes through the tasks, or objects, page by page in the order of
their ids, and gets of each page the rows that come first in the order he wants, and counts of all. What runs elsewhere he
brings along, so that conditions are checked, rows sorted and tasks counted here: what travels is what was asked for.
Imported when the first question comes.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from umbel._base import nodes
from umbel._client import call_sites, recording, values
from umbel._client.task import Task
from umbel._history import batches, conditions, selections
from umbel._model import resources as resource_model
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

PAGE = 10_000  # tasks or objects that one answer is about: some 5 MB at most, which pass through the daemon
PENDING, ERROR, STORED = ownership.PENDING, serialization.ERROR, serialization.STORED
_OWN = frozenset(("task_id", "creation_time_ms", "start_time_ms"))  # columns that tasks do not share with others
_Key = TypeVar("_Key", int, bytes)
_Item = TypeVar("_Item")
Row = dict[str, Any]


class Question(NamedTuple):
    """What is asked of a process, one page at a time.

    order: column, and whether descending; by id for None. limit: of the rows of this page, None for all. after: where the
    page before has ended, None for the first. Of tasks, what only others know: running, by task, since when it runs and
    whether it waits in `get` or `wait`; pids, by worker; and all nodes of the cluster, by tag, where there are others. node,
    host: where the process is.
    """

    wanted: Sequence[conditions.Condition]
    order: tuple[str, bool] | None
    limit: int | None
    after: Any = None
    running: Mapping[str, Sequence[Any]] = {}
    pids: Mapping[str, int] = {}
    node: str = ""
    nodes: Mapping[str, str] = {}
    host: str = resource_model.NODE_ADDRESS

    def node_of(self, worker: str) -> str | None:
        """None for one that is not known any more."""
        return self.nodes.get(nodes.tag_in(worker)) if self.nodes else self.node

    def encoded(self) -> str:
        return json.dumps(self._asdict())


def _read(about: str) -> Question:
    """Raises ValueError for what is no question."""
    try:
        asked = Question(**json.loads(about))
        return asked._replace(wanted=[conditions.Condition(*one) for one in asked.wanted])
    except TypeError as error:
        raise ValueError(str(error)) from error


def sort_key(row: Mapping[str, Any], column: str) -> tuple[Any, ...]:
    """What has no value comes first, as in SQLite."""
    value = row.get(column)
    return value is not None, value if value is not None else 0


def _page(keys: Sequence[_Key], after: _Key | None, *, is_descending: bool = False) -> tuple[list[_Key], _Key | None]:
    """The next of them, and after which to go on; None for that when there are no more."""
    ordered = sorted(keys)  # they nearly are
    if is_descending:
        end = len(ordered) if after is None else bisect.bisect_left(ordered, after)
        chosen, has_more = ordered[max(0, end - PAGE) : end][::-1], end > PAGE
    else:
        start = 0 if after is None else bisect.bisect_right(ordered, after)
        chosen, has_more = ordered[start : start + PAGE], start + PAGE < len(ordered)
    return chosen, chosen[-1] if has_more else None


def _first(found: Iterable[_Item], limit: int | None, key: Callable[[_Item], Any] | None, way: bool) -> list[_Item]:
    """The first `limit` by the key, or as they come. way: whether descending."""
    if key is None:
        return list(itertools.islice(found, limit))
    if limit is None:
        return sorted(found, key=key, reverse=way)
    return (heapq.nlargest if way else heapq.nsmallest)(limit, found, key=key)


# ---- tasks ----


def running_here(engine: NativeEngine) -> dict[str, Any]:
    """{"running"}: by task, since when it runs here and whether it waits in `get` or `wait`."""
    with engine.lock:
        running = [one for one in engine.answers.running() if one.task]
        return {"running": {one.task: (one.since_s, bool(engine.answers.waits_of(one))) for one in running}}


def tasks_of(engine: NativeEngine, about: str) -> dict[str, Any]:
    """{"rows", "counts", "more"}: of the unfinished tasks that this process has submitted and that meet the conditions.

    counts: [name, type, state, attempt, ranges] of all on this page; ranges: (first, last) of their numbers. more: the
    `after` of the next page. A task that has ended before is in the history by the time that is read.
    """
    asked = _read(about)
    is_descending = asked.order is not None and asked.order[1]
    unfinished = engine.tasks.unfinished
    only = _only(engine, asked.wanted)
    if only is None:
        with engine.lock:
            only = list(unfinished)  # numbers only: touching each task would take much longer
    seqs, more = _page(only, asked.after, is_descending=is_descending)
    with engine.lock:  # one for both: what ends is either on this page, or told before, or comes with the next
        page = [(task, task.attempt, _worker_of(task)) for seq in seqs if (task := unfinished.get(seq)) is not None]
        engine.reports.send_tasks()
    teller = _Teller(engine, asked)
    counts: dict[tuple[str, str, str, int], list[list[int]]] = {}
    met: list[_Attempt] = []
    for task, number, worker in page:
        attempt = _Attempt(task, number, worker, teller.state(task, worker))
        if asked.wanted and not teller.is_wanted(attempt):
            continue
        met.append(attempt)
        described = teller.described(task)
        ranges = counts.setdefault((described.name, described.type, attempt.state, number), [])
        if ranges and abs(ranges[-1][1] - task.seq) == 1:
            ranges[-1][1] = task.seq
        else:
            ranges.append([task.seq, task.seq])
    key = teller.key(asked.order[0]) if asked.order is not None else None
    rows = [teller.row(one) for one in _first(met, asked.limit, key, is_descending)]
    told = [(*one, [(min(ends), max(ends)) for ends in ranges]) for one, ranges in counts.items()]
    return {"rows": rows, "counts": told, "more": more}


class _Attempt(NamedTuple):
    """A task as it was at one moment: by the time that it is told of it may have ended, or begun again."""

    task: Task
    number: int
    worker: str | None
    state: str


def _only(engine: NativeEngine, wanted: Sequence[conditions.Condition]) -> list[int] | None:
    """The numbers of the tasks of this process that a condition on ids leaves; None without one."""
    process = engine.process_id.hex()
    for one in wanted:
        if one.column == "task_id" and one.operator in ("=", "in"):
            texts = [text.lower() for text in (one.value if one.operator == "in" else [one.value]) if text]
            return [seq for text in texts if text[:32] == process and (seq := _number(text[32:])) is not None]
    return None


def _number(digits: str) -> int | None:
    try:
        return int.from_bytes(bytes.fromhex(digits), "big")
    except ValueError:
        return None


def _worker_of(task: Task) -> str | None:
    """Where an unfinished task was sent."""
    lease, actor = task.lease, task.actor
    if lease is not None:
        return lease.worker
    if actor is not None and task.seq in actor.calls.inflight:
        return str(actor.worker)
    return None


def _state_of(task: Task, worker: str | None) -> str:
    """As far as its owner knows."""
    if worker is None:
        return "PENDING_ARGS_AVAIL" if task.missing > 0 else "PENDING_NODE_ASSIGNMENT"
    return "SUBMITTED_TO_WORKER" if task.actor is None else "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"


class _Teller:
    """Tells of tasks what this process and the asker know together; describes each template once."""

    def __init__(self, engine: NativeEngine, asked: Question) -> None:
        self._engine = engine
        self._asked = asked
        self._process = engine.process_id.hex()
        self._job = engine.welcome.get("job_id", "")
        self._running = {int(task[32:], 16): facts for task, facts in asked.running.items()}
        self._own = [one for one in asked.wanted if one.column in _OWN]
        self._shared = [one for one in asked.wanted if one.column not in _OWN]
        self._templates: dict[int, batches.Template] = {}
        self._verdicts: dict[Any, bool] = {}

    def described(self, task: Task) -> batches.Template:
        found = self._templates.get(task.template.index)
        if found is None:
            found = self._templates[task.template.index] = recording.described(task.template)
        return found

    def state(self, task: Task, worker: str | None) -> str:
        facts = self._running.get(task.seq)
        if facts is None:
            return _state_of(task, worker)
        return "RUNNING_IN_RAY_GET" if facts[1] else "RUNNING"

    def is_wanted(self, attempt: _Attempt) -> bool:
        """Whether it meets all conditions. Those on what many tasks share are checked once for all of them."""
        task, number, worker, state = attempt
        if not conditions.all_met(self._own, self._times(task)):
            return False
        group = (task.template.index, number, task.parent, state, worker)
        found = self._verdicts.get(group)
        if found is None:
            found = self._verdicts[group] = conditions.all_met(self._shared, self.row(attempt))
        return found

    def key(self, column: str) -> Callable[[_Attempt], Any] | None:
        """By which to sort; None where tasks come in that order."""
        return None if column == "task_id" else lambda one: (sort_key(self._times(one.task), column), one.task.seq)

    def _times(self, task: Task) -> Row:
        facts = self._running.get(task.seq)
        return {
            "task_id": f"{self._process}{task.seq:016x}",
            "creation_time_ms": int(task.submitted_s * 1e3),
            "start_time_ms": int(facts[0] * 1e3) if facts is not None else None,
        }

    def row(self, attempt: _Attempt) -> Row:
        task, number, worker, state = attempt
        described = self.described(task)
        facts, parent = self._running.get(task.seq), task.parent
        return {
            **selections.CONSTANT,
            **self._times(task),
            "attempt_number": number,
            "name": described.name,
            "func_or_class_name": described.function,
            "type": described.type,
            "actor_id": described.actor or None,
            "required_resources": described.resources,
            "runtime_env_info": described.env,
            "state": state,
            "job_id": self._job,
            "parent_task_id": recording.parent_id(parent) if parent is not None else None,
            "worker_id": worker,
            "node_id": self._asked.node_of(worker) if worker is not None else None,
            "worker_pid": self._asked.pids.get(worker) if worker is not None else None,
            "error_type": None,
            "error_message": None,
            "submitted_s": task.submitted_s,
            "started_s": facts[0] if facts is not None else None,
            "ended_s": None,
            "end_time_ms": None,
            "call_site": call_sites.of_task(task) or None,
        }


# ---- objects ----


def objects_of(engine: NativeEngine, about: str) -> dict[str, Any]:
    """{"rows", "counts", "more"}: of the objects that this process refers to and that meet the conditions, one row for
    each kind of reference. counts: [call site, task's state, attempt, kind of reference, pid, ip, how many, bytes] of all
    on this page; the others are as those of `tasks_of`."""
    asked = _read(about)
    records = engine.values.table.records
    with engine.lock:
        engine.values.drain_drops()
        object_ids = list(records)
    after = None if asked.after is None else bytes.fromhex(asked.after)
    object_ids, more = _page(object_ids, after)
    with engine.lock:
        page = [record for one in object_ids if (record := records.get(one)) is not None]
    used, inside = _needed(engine, page)
    met = [
        row
        for record in page
        for row in _object_rows(record, engine, asked, used, inside)
        if conditions.all_met(asked.wanted, row)
    ]
    counts: dict[tuple[Any, ...], list[int]] = {}
    for row in met:
        group = tuple(row[name] for name in COUNTED)
        count = counts.setdefault(group, [0, 0])
        count[0] += 1
        count[1] += max(0, row["object_size"])
    key: Callable[[Row], Any] | None = None
    column, is_descending = asked.order or ("", False)
    if column:
        key = lambda row: sort_key(row, column)  # noqa: E731 - the other way is none
    rows = _first(met, asked.limit, key, is_descending)
    told = [(*group, *count) for group, count in counts.items()]
    return {"rows": rows, "counts": told, "more": None if more is None else more.hex()}


def _needed(engine: NativeEngine, page: Sequence[ownership.Record]) -> tuple[set[bytes], set[bytes]]:
    """The objects that unfinished tasks use, and those that others contain; of those on the page, at least."""
    if not any(record.pins for record in page):  # both pin what they need
        return set(), set()
    with engine.lock:
        unfinished = list(engine.tasks.unfinished.values())
        records = list(engine.values.table.records.values())
    used = {pin.object_id for task in unfinished for pin in task.argument_pins or ()}
    return used, {inner for record in records for inner in record.contained}


COUNTED = ("call_site", "task_status", "attempt_number", "reference_type", "pid", "ip")  # what `counts` tell apart


def _object_rows(
    record: ownership.Record, engine: NativeEngine, asked: Question, used: set[bytes], inside: set[bytes]
) -> Iterator[Row]:
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
        status = _state_of(task, _worker_of(task))
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
            "call_site": call_sites.call_site(record) or "disabled",
            "type": engine.kind.upper(),
            "pid": os.getpid(),
            "ip": asked.host,
            "node_id": asked.node,
        }


def _size_of(record: ownership.Record) -> int:
    """Bytes; -1 where that is not known."""
    if record.kind == STORED:
        return int(record.payload[1])
    if isinstance(record.payload, (bytes, bytearray, str)):
        return len(record.payload)
    return -1
