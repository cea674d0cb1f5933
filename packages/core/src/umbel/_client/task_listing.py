"""What a session's tasks are, each attempt: the living from those who know them, the ended from the history.

In this order: what runs is asked of all processes; then each is asked for what it has submitted and what of that is
unfinished, and reports what has ended; then the history is read, which by then has all that had. What has ended in between
is in both, and told once. Nothing here has state.
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._client import inquiry, node_view, own_state
from umbel._client import timeline as timelines
from umbel._history import conditions, selections

if TYPE_CHECKING:
    from umbel._history import store

Row = dict[str, Any]


class Count(NamedTuple):
    """So many tasks of one process that are alike. ranges: (first, last) of their numbers there."""

    process: str
    name: str
    type: str
    state: str
    attempt: int
    ranges: Sequence[Sequence[int]]

    @property
    def total(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)


class Living(NamedTuple):
    """The unfinished tasks that meet the conditions: those that come first, as many as are asked for, and all counted."""

    rows: list[Row]
    counts: list[Count]

    def without(self, history: store.Store, wanted: Sequence[conditions.Condition]) -> Living:
        """But for those that have ended since they were told, and are in the history as what meets the conditions."""
        ended: set[tuple[str, int]] = set()
        left = []
        for one in self.counts:
            found = history.ended(one.process, one.attempt, one.ranges, wanted)
            ended.update((selections.task_id(one.process, seq), one.attempt) for seq in found)
            left.append(one._replace(ranges=_cut(one.ranges, found)) if found else one)
        return Living([row for row in self.rows if (row["task_id"], row["attempt_number"]) not in ended], left)


def _cut(ranges: Sequence[Sequence[int]], without: Sequence[int]) -> list[tuple[int, int]]:
    """What is left of the ranges. without: numbers in them, in order."""
    left = []
    for first, last in ranges:
        for seq in without[bisect.bisect_left(without, first) : bisect.bisect_right(without, last)]:
            if first < seq:
                left.append((first, seq - 1))
            first = seq + 1
        if first <= last:
            left.append((first, last))
    return left


def tasks(asker: inquiry.Asker | None, request: node_view.Request, *, path: str = "") -> node_view.Listing:
    """path: of a history that was kept; then no session is asked."""
    if asker is None:
        return _with_history(node_view.opened(path), request, Living([], []), [])
    node = node_view.Node(asker, request.timeout_s)
    living = _living_tasks(node, request)
    history = node.history()
    if history is None:
        return node_view.Listing(
            node_view.page(living.rows, request), sum(one.total for one in living.counts), node.missing, []
        )
    return _with_history(history, request, living, node.missing)


def _with_history(
    history: store.Store, request: node_view.Request, living: Living, missing: list[str]
) -> node_view.Listing:
    """The page of what is alive and what has ended."""
    wanted, limit, offset = request.wanted, request.limit, request.offset
    has_all = not living.rows
    if not has_all:
        limit, offset = None if limit is None else limit + offset, 0
    with contextlib.closing(history), _prepared(history, wanted, None if limit is None else limit + offset):
        ended = [_with_times(row) for row in history.tasks(wanted, order=request.order, limit=limit, offset=offset)]
        living = living.without(history, wanted)
        total = history.task_count(wanted) + sum(one.total for one in living.counts)
        counts, owners = history.counts(), history.owners()
    missing, notes = [*missing], []
    if counts["removed"]:
        notes.append(f"{counts['removed']} older tasks were removed (UMBEL_HISTORY_TASKS_MAX, _AGE_MAX_S, _BYTES_MAX)")
    if counts["dropped"]:
        missing.append(f"{counts['dropped']} ended tasks could not be recorded")
    if has_all:
        return node_view.Listing(ended, total, missing, notes)
    return node_view.Listing(node_view.page(ended + living.rows, request, owners), total, missing, notes)


@contextlib.contextmanager
def _prepared(history: store.Store, wanted: Sequence[conditions.Condition], end: int | None) -> Iterator[None]:
    """To list so many of its tasks, None for all, as of one moment."""
    history.prepare(wanted, end)
    with history.reading():
        yield


def _living_tasks(node: node_view.Node, request: node_view.Request) -> Living:
    """Actors that are being made come first: when one has ended, its worker reports that later."""
    limit = None if request.limit is None else request.limit + request.offset
    creations = [_with_times(row) for row in map(_creation, node.query("actors")) if row is not None]
    processes = node.query("owners")
    running: dict[str, dict[str, Any]] = {process["id"]: {} for process in processes}
    answering = []
    for process, answer in node.ask_all("running", "", processes):
        answering.append(process)
        for task, facts in answer["running"].items():
            running.setdefault(task[:32], {})[task] = facts
    pids = {process["id"]: process["pid"] for process in processes}
    asked = own_state.Question(request.wanted, request.order, limit, pids=pids, node=node.query("nodes")[0]["node_id"])
    rows = [row for row in creations if conditions.all_met(request.wanted, row)]
    counts = [
        Count(
            row["task_id"][:32], row["name"], row["type"], row["state"], row["attempt_number"],
            [[int(row["task_id"][32:], 16)] * 2],
        )
        for row in rows
    ]  # fmt: skip
    in_order = request.order is None or request.order[0] == "task_id"
    for process in answering:
        question = asked._replace(running=running[process["id"]])
        for answer in node.ask_pages(process, "task_states", question):
            rows += answer["rows"]
            counts += [Count(process["id"], *one) for one in answer["counts"]]
            if limit is not None and not in_order and len(rows) > 2 * own_state.PAGE + limit:
                rows = node_view.page(rows, request._replace(limit=limit, offset=0))
    return Living(rows, counts)


def _creation(actor: Row) -> Row | None:
    """The creation of an actor that is not there yet, as a task."""
    if actor["state"] not in ("PENDING", "RESTARTING"):
        return None
    function = f"{actor['class_name']}.__init__"
    state = "RUNNING" if actor["worker"] else "PENDING_NODE_ASSIGNMENT"
    return {
        **selections.CONSTANT, "task_id": actor["actor"], "attempt_number": actor["restarts"], "name": function,
        "func_or_class_name": function, "type": "ACTOR_CREATION_TASK", "actor_id": actor["actor"],
        "state": "PENDING_ARGS_AVAIL" if actor["lacks_arguments"] else state, "worker_id": actor["worker"] or None,
        "worker_pid": actor["pid"], "call_site": actor["call_site"] or None, "submitted_s": None, "started_s": None,
        "ended_s": None,
    }  # fmt: skip


def _with_times(row: Row) -> Row:
    for name, seconds in (
        ("creation_time_ms", "submitted_s"),
        ("start_time_ms", "started_s"),
        ("end_time_ms", "ended_s"),
    ):
        value = row.get(seconds)
        row[name] = int(value * 1e3) if value is not None else None
    return {**selections.CONSTANT, **row}


def task_tally(
    asker: inquiry.Asker | None, request: node_view.Request, *, path: str = ""
) -> tuple[list[tuple[str, str, str, int]], list[str], list[str]]:
    """(name, type, state, how many) of all tasks that meet the conditions; what is missing; notes. path: as for `tasks`."""
    living, missing, notes = Living([], []), [], []
    if asker is None:
        history: store.Store | None = node_view.opened(path)
    else:
        node = node_view.Node(asker, request.timeout_s)
        living = _living_tasks(node, request._replace(limit=0, offset=0))
        history, missing = node.history(), node.missing
    tally: dict[tuple[str, str, str], int] = {}
    if history is not None:
        with contextlib.closing(history), history.reading():
            living = living.without(history, request.wanted)
            for name, kind, state, count in history.task_tally(request.wanted):
                tally[name, kind, state] = count
            counts = history.counts()
        if counts["removed"]:
            notes.append(f"{counts['removed']} older tasks were removed and are not counted")
        if counts["dropped"]:
            missing.append(f"{counts['dropped']} ended tasks could not be recorded")
    for one in living.counts:
        if total := one.total:
            key = one.name, one.type, one.state
            tally[key] = tally.get(key, 0) + total
    return [(*key, count) for key, count in tally.items()], missing, notes


_LOST = [conditions.Condition("start_time_ms", "=", None), conditions.Condition("worker_id", "!=", None)]
_RUNNING = [conditions.Condition("state", "in", ["RUNNING", "RUNNING_IN_RAY_GET"])]


def timeline(asker: inquiry.Asker | None, timeout_s: float = 30.0, *, path: str = "") -> Iterator[timelines.Event]:
    """The trace events of all tasks that run or have ended. path: as for `tasks`. Raises UmbelSystemError."""
    now_s = time.time()
    order = ("start_time_ms", False)
    processes: dict[str, timelines.Process] = {}
    living = Living([], [])
    if asker is None:
        history: store.Store | None = node_view.opened(path)
    else:
        node = node_view.Node(asker, timeout_s)
        living = _living_tasks(node, node_view.Request(_RUNNING, order, timeout_s=timeout_s))
        processes = {one["id"]: timelines.Process(one["pid"], one["is_driver"]) for one in node.query("owners")}
        history = node.history()
        if history is None:
            raise exceptions.UmbelSystemError("; ".join(node.missing))
    assert history is not None
    with contextlib.closing(history), _prepared(history, (), None):
        for one in history.workers():
            processes.setdefault(one["worker"], timelines.Process(one["pid"], False))
        running = [row for row in living.without(history, ()).rows if row["started_s"] is not None]
        ended = (row for row in history.tasks(order=order) if row["started_s"] is not None)
        started = heapq.merge(ended, sorted(running, key=_start), key=_start)
        yield from timelines.events(itertools.chain(started, history.tasks(_LOST)), processes, now_s)


def _start(row: Row) -> float:
    return float(row["started_s"])


def task_names(asker: inquiry.Asker, task_ids: Sequence[str]) -> dict[str, str]:
    """The names of tasks that have ended, by id, as far as the history has them. Raises UmbelError when it cannot be
    read."""
    found = asker.query("history")
    if found["trouble"]:
        raise exceptions.UmbelSystemError(found["trouble"])
    history = node_view.opened(found["path"])
    try:
        at_once = range(0, len(task_ids), conditions.VALUES_MAX)
        chunks = [list(task_ids[start : start + conditions.VALUES_MAX]) for start in at_once]
        return {
            row["task_id"]: row["name"]
            for chunk in chunks
            for row in history.tasks([conditions.Condition("task_id", "in", chunk)])
        }
    finally:
        history.close()
