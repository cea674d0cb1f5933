"""What ran when, as events of Chrome's trace format, which Perfetto and chrome://tracing show.

Each process is a process there. What overlaps in one process, calls of threaded and async actors, goes into lanes, shown
as threads. An arrow leads from where a task was submitted to where it runs. Nothing here asks or waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

ARROWS_MAX = 100_000  # tasks with arrows; more, and a viewer shows nothing but arrows, if it opens the file at all
CATEGORIES = {"NORMAL_TASK": "task", "ACTOR_TASK": "actor_task", "ACTOR_CREATION_TASK": "actor_creation"}
_TOLD = (
    "task_id", "attempt_number", "state", "actor_id", "parent_task_id", "worker_id", "node_id", "job_id", "error_type",
    "func_or_class_name",
)  # fmt: skip

Event = dict[str, Any]


class Process(NamedTuple):
    """One that ran or submitted tasks. pid: as the system has it."""

    pid: int
    is_driver: bool


class Lanes:
    """Where in a process to draw what runs there, so that nothing lies on anything else."""

    def __init__(self) -> None:
        self._ends_s: list[float] = []

    def place(self, started_s: float, ended_s: float) -> int:
        """The lane of a span. Spans must come in the order of their starts."""
        for lane, end_s in enumerate(self._ends_s):
            if end_s <= started_s:
                self._ends_s[lane] = ended_s
                return lane
        self._ends_s.append(ended_s)
        return len(self._ends_s) - 1


def events(rows: Iterable[Mapping[str, Any]], processes: Mapping[str, Process], now_s: float) -> Iterator[Event]:
    """The events of tasks, given in the order of their starts. processes: by id; now_s: the end of what still runs."""
    lanes: dict[str, Lanes] = {}
    places: dict[str, tuple[int, int]] = {}  # where a task is drawn, for arrows from it
    spans: dict[str, tuple[float, float]] = {}  # of each driver: from its first task to the end of its last
    actors: dict[str, str] = {}
    for row in rows:
        owner, worker = row["task_id"][:32], row["worker_id"]
        started_s = row["started_s"]
        if started_s is None or worker is None:
            continue  # it never ran
        ended_s = now_s if row["ended_s"] is None else max(row["ended_s"], started_s)
        process = processes.get(worker) or Process(row["worker_pid"] or 0, False)
        lane = lanes.setdefault(worker, Lanes()).place(started_s, ended_s)
        if row["actor_id"] and row["type"] != "NORMAL_TASK":
            actors[worker] = row["func_or_class_name"].rpartition(".")[0]
        yield {
            "cat": CATEGORIES[row["type"]],
            "name": row["name"],
            "ph": "X",
            "ts": _micros(started_s),
            "dur": _micros(ended_s - started_s),
            "pid": process.pid,
            "tid": lane,
            "args": {**{name: row[name] for name in _TOLD if row.get(name) is not None}, "name": row["name"]},
        }
        submitted_s = row["submitted_s"]
        if submitted_s is None:
            continue
        if owner in processes and processes[owner].is_driver:
            first_s, last_s = spans.get(owner, (submitted_s, ended_s))
            spans[owner] = min(first_s, submitted_s), max(last_s, ended_s)
        if len(places) < ARROWS_MAX and row["attempt_number"] == 0:
            places[row["task_id"]] = process.pid, lane
            source = places.get(row["parent_task_id"] or "")
            if source is None and owner in processes:
                source = processes[owner].pid, 0
            if source is not None:
                yield from _arrow(len(places), source, (process.pid, lane), submitted_s, started_s)
    for driver, (first_s, last_s) in spans.items():
        span = {"ts": _micros(first_s), "dur": _micros(last_s - first_s), "pid": processes[driver].pid, "tid": 0}
        yield {"cat": "driver", "name": "driver", "ph": "X", **span, "args": {}}
    used = {worker: processes.get(worker) for worker in [*spans, *lanes]}
    for worker, found in used.items():
        if found is not None:
            kind = "driver" if found.is_driver else f"actor {actors[worker]}" if worker in actors else "worker"
            yield from _names(found, kind)


def _arrow(
    number: int, source: tuple[int, int], target: tuple[int, int], from_s: float, to_s: float
) -> Iterator[Event]:
    shared = {"cat": "submit", "name": "submit", "id": number}
    yield {**shared, "ph": "s", "ts": _micros(from_s), "pid": source[0], "tid": source[1]}
    yield {**shared, "ph": "f", "bp": "e", "ts": _micros(max(from_s, to_s)), "pid": target[0], "tid": target[1]}


def _names(process: Process, kind: str) -> Iterator[Event]:
    shared = {"cat": "__metadata", "ph": "M", "ts": 0, "pid": process.pid, "tid": 0}
    yield {**shared, "name": "process_name", "args": {"name": kind}}
    yield {**shared, "name": "process_sort_index", "args": {"sort_index": 0 if process.is_driver else 1}}


def _micros(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def inline_rows(told: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Rows of what the inline engine tells, all of it in one process."""
    kinds = {category: kind for kind, category in CATEGORIES.items()}
    for name, task_id, started_s, ended_s, kind, *_ in sorted(told, key=lambda one: one[2]):
        yield {
            "task_id": task_id, "name": name, "func_or_class_name": name, "type": kinds[kind], "attempt_number": 0,
            "state": "FINISHED", "worker_id": "inline", "worker_pid": 0, "actor_id": None, "parent_task_id": None,
            "started_s": started_s, "ended_s": ended_s, "submitted_s": None,
        }  # fmt: skip
