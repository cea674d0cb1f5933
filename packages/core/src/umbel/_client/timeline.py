"""What ran when, as events of Chrome's trace format, which Perfetto and chrome://tracing show.

Each process is a process there. What overlaps in one process, calls of threaded and async actors, goes into lanes, shown
as threads. An arrow leads from where a task was submitted to where it runs; both viewers draw it between two spans, so that a
submission is a span of no length. How a task ended is in its title, as Perfetto colors by titles only. Nothing here
asks or waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

ARROWS_MAX = 100_000  # tasks with arrows; more, and a viewer shows nothing but arrows, if it opens the file at all
ERROR_CHARS_MAX = 500  # of an error's last line; a viewer shows about as much without scrolling
CATEGORIES = {"NORMAL_TASK": "task", "ACTOR_TASK": "actor_task", "ACTOR_CREATION_TASK": "actor_creation"}
_TOLD = (
    "task_id", "attempt_number", "state", "actor_id", "parent_task_id", "worker_id", "node_id", "job_id", "error_type",
    "func_or_class_name",
)  # fmt: skip
OWNER_DIGITS = 32  # of a task's id, which begin it: the process that submitted it
INLINE = "inline"  # the id that stands for the process of the inline engine
_COLORS = {"failed": "terrible", "cancelled": "grey"}  # chrome://tracing's names of red and grey

Event = dict[str, Any]


class Process(NamedTuple):
    """One that ran or submitted tasks. pid: by which it is drawn, as the system has it where there is one node. called: which it
    is among several nodes' in words."""

    pid: int
    is_driver: bool
    called: str = ""


class Place(NamedTuple):
    """Where something is drawn. pid, lane: a process and a thread of the viewer."""

    pid: int
    lane: int


class Lanes:
    """Where in a process to draw what runs there, so that nothing lies on anything else."""

    def __init__(self) -> None:
        self._ends_s: list[float] = []

    def __len__(self) -> int:
        return max(1, len(self._ends_s))

    def place(self, started_s: float, ended_s: float) -> int:
        """The lane of a span. Spans must come in the order of their starts."""
        for lane, end_s in enumerate(self._ends_s):
            if end_s <= started_s:
                self._ends_s[lane] = ended_s
                return lane
        self._ends_s.append(ended_s)
        return len(self._ends_s) - 1


class Arrows:
    """From submissions to the first known attempt of each task."""

    def __init__(self, processes: Mapping[str, Process]) -> None:
        self._processes = processes
        self._places: dict[str, Place] = {}  # of a task's latest attempt, where what it submits begins

    def lead(self, row: Mapping[str, Any], place: Place) -> tuple[list[Event], Event]:
        """The submission, if the task has one that is not drawn yet, and what ties the task, drawn at `place`, to it."""
        task = row["task_id"]
        if task in self._places:
            self._places[task] = place
            return [], {}
        if len(self._places) >= ARROWS_MAX or row["submitted_s"] is None:
            return [], {}
        self._places[task] = place
        source = self._places.get(row["parent_task_id"] or "")
        owner = self._processes.get(task[:OWNER_DIGITS])
        if source is None and owner is not None:
            source = Place(owner.pid, 0)
        if source is None:
            return [], {}
        arrow = {"bind_id": hex(len(self._places))}
        return [_submission(row, source) | arrow | {"flow_out": True}], arrow | {"flow_in": True}


def events(rows: Iterable[Mapping[str, Any]], processes: Mapping[str, Process], now_s: float) -> Iterator[Event]:
    """The events of tasks, given in the order of their starts; behind them those whose start nobody knows.

    processes: by id. now_s: the end of what still runs.
    """
    lanes: dict[str, Lanes] = {}
    arrows = Arrows(processes)
    drivers: dict[str, tuple[float, float]] = {}  # from its first task to the end of its last
    actors: dict[str, str] = {}
    for row in rows:
        owner, worker, submitted_s = row["task_id"][:OWNER_DIGITS], row["worker_id"], row["submitted_s"]
        extent = _extent(row, now_s)
        if extent is None:
            continue
        process = processes.get(worker) or Process(row["worker_pid"] or 0, False)
        used = lanes.setdefault(worker, Lanes())
        place = Place(process.pid, 0 if row["started_s"] is None else used.place(*extent))
        if row["actor_id"] and row["type"] != "NORMAL_TASK":
            actors[worker] = row["func_or_class_name"].rpartition(".")[0]
        if submitted_s is not None and owner in processes and processes[owner].is_driver:
            first_s, last_s = drivers.get(owner, (submitted_s, extent[1]))
            drivers[owner] = min(first_s, submitted_s), max(last_s, extent[1])
        submission, tie = arrows.lead(row, place)
        yield from submission
        yield _task(row, place, extent) | tie
    for driver, extent in drivers.items():
        lanes.setdefault(driver, Lanes())
        yield _span("driver", "driver", Place(processes[driver].pid, 0), extent)
    for worker, used in lanes.items():
        if worker in processes:
            yield from _names(processes[worker], actors.get(worker), len(used))


def _extent(row: Mapping[str, Any], now_s: float) -> tuple[float, float] | None:
    """From when to when to draw a task. Of one lost with its worker only the end is known; None: it never ran."""
    started_s, ended_s = row["started_s"], row["ended_s"]
    if row["worker_id"] is None or (started_s is None and ended_s is None):
        return None
    if started_s is None:
        return ended_s, ended_s
    return started_s, now_s if ended_s is None else max(ended_s, started_s)


def _task(row: Mapping[str, Any], place: Place, extent: tuple[float, float]) -> Event:
    outcome = _outcome(row)
    span = _span(CATEGORIES[row["type"]], f"{row['name']} ({outcome})" if outcome else row["name"], place, extent)
    if outcome in _COLORS:
        span["cname"] = _COLORS[outcome]
    span["args"] = {**{name: row[name] for name in _TOLD if row.get(name) is not None}, "name": row["name"]}
    message = (row.get("error_message") or "").strip()
    if message:
        span["args"]["error_message"] = message.splitlines()[-1][:ERROR_CHARS_MAX]
    return span


def _outcome(row: Mapping[str, Any]) -> str:
    """What a reader should see at a glance; nothing of a task that went well."""
    if row["state"] == "FAILED":
        return "cancelled" if row.get("error_type") == "TASK_CANCELLED" else "failed"
    return "running" if row["state"].startswith("RUNNING") else ""


def _submission(row: Mapping[str, Any], source: Place) -> Event:
    span = _span("submit", f"submit {row['name']}", source, (row["submitted_s"], row["submitted_s"]))
    return span | {"args": {"submits": row["task_id"]}}  # not "task_id", as chrome://tracing puts both ends' in one


def _span(category: str, name: str, place: Place, extent: tuple[float, float]) -> Event:
    """dur is the difference of what is written, so that rounding lets no span reach into the next, which Perfetto drops."""
    start, end = _micros(extent[0]), _micros(extent[1])
    return {
        "cat": category, "name": name, "ph": "X", "ts": start, "dur": end - start, "pid": place.pid,
        "tid": place.lane, "args": {},
    }  # fmt: skip


def _names(process: Process, actor: str | None, lane_count: int) -> Iterator[Event]:
    """Both viewers put the ids of processes behind their names, and Perfetto the numbers of lanes behind theirs."""
    shared = {"cat": "__metadata", "ph": "M", "ts": 0, "pid": process.pid}
    kind = "driver" if process.is_driver else f"actor {actor}" if actor is not None else "worker"
    kind = f"{kind} {process.called}" if process.called else kind
    yield {**shared, "tid": 0, "name": "process_name", "args": {"name": kind}}
    yield {**shared, "tid": 0, "name": "process_sort_index", "args": {"sort_index": 0 if process.is_driver else 1}}
    lane_name = "driver" if process.is_driver else "calls" if actor is not None else "tasks"
    for lane in range(lane_count):
        yield {**shared, "tid": lane, "name": "thread_name", "args": {"name": lane_name}}
        yield {**shared, "tid": lane, "name": "thread_sort_index", "args": {"sort_index": lane}}


def _micros(seconds: float) -> int:
    """Whole ones: Perfetto reads those exactly, and fractions, so long after 1970, to a quarter of one."""
    return round(seconds * 1e6)


def inline_rows(told: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Rows of what the inline engine tells, all of it in one process."""
    kinds = {category: kind for kind, category in CATEGORIES.items()}
    for name, task_id, started_s, ended_s, kind, has_failed in sorted(told, key=lambda one: one[2]):
        yield {
            "task_id": task_id, "name": name, "func_or_class_name": name, "type": kinds[kind], "attempt_number": 0,
            "state": "FAILED" if has_failed else "FINISHED", "worker_id": INLINE, "worker_pid": None, "actor_id": None,
            "parent_task_id": None, "started_s": started_s, "ended_s": ended_s, "submitted_s": None,
        }  # fmt: skip
