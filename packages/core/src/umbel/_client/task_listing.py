"""What a session's tasks are, each attempt: the living from those who know them, the ended from the history.

In this order: what runs is asked of all processes; then each is asked for what it has submitted and what of that is
unfinished, and reports what has ended; then the history is read, which by then has all that had. What has ended in between
is in both, and told once. Here one node's are put together, `cluster_listing` asks all; a task belongs to the node of the process
that has submitted it, wherever it runs. Nothing here has state.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._base import nodes as node_ids
from umbel._client import inquiry, node_view, own_state
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


class Elsewhere(NamedTuple):
    """What is known of other nodes. nodes: all of the cluster by tag, {} where there is one. running: of tasks that processes of
    this node have submitted, those that run elsewhere, with what is told of them. pids: of workers there, where it matters which
    of them have a pid that is asked for, those that have."""

    nodes: Mapping[str, str] = {}
    running: Mapping[str, Sequence[Any]] = {}
    pids: Mapping[str, int] = {}


ALONE = Elsewhere()


def of_history(path: str, request: node_view.Request) -> node_view.Listing:
    """The tasks of one that was kept."""
    return _with_history(node_view.opened(path), request, Living([], []), [], ALONE)


def of_node(
    node: node_view.Node, node_id: str, request: node_view.Request, elsewhere: Elsewhere = ALONE
) -> node_view.Listing:
    """What its processes have submitted."""
    living = _living_tasks(node, node_id, request, elsewhere)
    history = node.history()
    if history is None:
        return node_view.Listing(
            node_view.page(living.rows, request), sum(one.total for one in living.counts), node.missing, []
        )
    return _with_history(history, request, living, node.missing, elsewhere)


def _with_history(
    history: store.Store, request: node_view.Request, living: Living, missing: list[str], elsewhere: Elsewhere
) -> node_view.Listing:
    """The page of what is alive and what has ended."""
    wanted, limit, offset = request.wanted, request.limit, request.offset
    has_all = not living.rows
    if not has_all:
        limit, offset = None if limit is None else limit + offset, 0
    with contextlib.closing(history), _prepared(history, wanted, None if limit is None else limit + offset):
        found = history.tasks(wanted, order=request.order, limit=limit, offset=offset)
        ended = [_with_times(_with_node(row, elsewhere)) for row in found]
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


def running(node: node_view.Node, processes: Sequence[Row]) -> tuple[list[Row], dict[str, Sequence[Any]]]:
    """Those of the processes that answer, and what runs in them: by task, since when, and whether it waits."""
    answering: list[Row] = []
    found: dict[str, Sequence[Any]] = {}
    for process, answer in node.ask_all("running", "", processes):
        answering.append(process)
        found.update(answer["running"])
    return answering, found


def _living_tasks(node: node_view.Node, node_id: str, request: node_view.Request, elsewhere: Elsewhere) -> Living:
    """Actors that are being made come first: when one has ended, its worker reports that later."""
    limit = None if request.limit is None else request.limit + request.offset
    own = node_ids.tag_text(node_id)
    actors = [one for one in node.query("actors") if not elsewhere.nodes or node_ids.tag_in(one["actor"]) == own]
    creations = [_with_times(row) for row in map(_creation, actors) if row is not None]
    processes = node.query("owners")
    answering, runs_here = running(node, processes)
    by_owner: dict[str, dict[str, Any]] = {process["id"]: {} for process in processes}
    for task, facts in (*elsewhere.running.items(), *runs_here.items()):
        by_owner.setdefault(task[:32], {})[task] = facts
    pids = {**elsewhere.pids, **{process["id"]: process["pid"] for process in processes}}
    asked = own_state.Question(
        request.wanted, request.order, limit, pids=pids, node=node_id, nodes=dict(elsewhere.nodes)
    )
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
        question = asked._replace(running=by_owner[process["id"]])
        for answer in node.ask_pages(process, "task_states", question):
            rows += answer["rows"]
            counts += [Count(process["id"], *one) for one in answer["counts"]]
            if limit is not None and not in_order and len(rows) > 2 * own_state.PAGE + limit:
                rows = node_view.page(rows, request._replace(limit=limit, offset=0))
    return Living(rows, counts)


def _with_node(row: Row, elsewhere: Elsewhere) -> Row:
    """A row of the history, which does not know all workers of other nodes."""
    if elsewhere.nodes and row["node_id"] is None and row["worker_id"] is not None:
        row["node_id"] = elsewhere.nodes.get(node_ids.tag_in(row["worker_id"]))
    return row


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
        "worker_pid": actor["pid"], "node_id": actor.get("node_id") if actor["worker"] else None,
        "call_site": actor["call_site"] or None, "submitted_s": None, "started_s": None,
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


Tally = list[tuple[str, str, str, int]]  # (name, type, state, how many)


class Tallied(NamedTuple):
    """What is counted; what is missing, and notes, in words."""

    tally: Tally
    missing: list[str]
    notes: list[str]


def tally_of_history(path: str, request: node_view.Request) -> Tallied:
    return _tallied(node_view.opened(path), request, Living([], []), [])


def tally_of_node(
    node: node_view.Node, node_id: str, request: node_view.Request, elsewhere: Elsewhere = ALONE
) -> Tallied:
    """All tasks that meet the conditions of those that its processes have submitted."""
    living = _living_tasks(node, node_id, request._replace(limit=0, offset=0), elsewhere)
    return _tallied(node.history(), request, living, node.missing)


def _tallied(history: store.Store | None, request: node_view.Request, living: Living, missing: list[str]) -> Tallied:
    notes = []
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
    return Tallied([(*key, count) for key, count in tally.items()], missing, notes)


BY_START = ("start_time_ms", False)
STARTED = (conditions.Condition("start_time_ms", "!=", None),)
LOST = (conditions.Condition("start_time_ms", "=", None), conditions.Condition("worker_id", "!=", None))
_RUNNING = (conditions.Condition("state", "in", ["RUNNING", "RUNNING_IN_RAY_GET"]),)


class Begun(NamedTuple):
    """For a trace. running: tasks that run, each attempt, as of the moment when those that have ended are `history`'s.
    processes: [id, pid, whether it is a driver]."""

    running: list[Row]
    processes: list[tuple[str, int, bool]]
    path: str


def begun_of_node(node: node_view.Node, node_id: str, elsewhere: Elsewhere = ALONE) -> Begun:
    """Raises UmbelSystemError without a history."""
    request = node_view.Request(_RUNNING, BY_START, timeout_s=node.left_s())
    living = _living_tasks(node, node_id, request, elsewhere)
    processes = {one["id"]: (one["pid"], bool(one["is_driver"])) for one in node.query("owners")}
    history = node.history()
    if history is None:
        raise exceptions.UmbelSystemError("; ".join(node.missing))
    with contextlib.closing(history), _prepared(history, (), None):
        for one in history.workers():
            processes.setdefault(one["worker"], (one["pid"], False))
        rows = [row for row in living.without(history, ()).rows if row["started_s"] is not None]
    return Begun(rows, [(one, *facts) for one, facts in processes.items()], history.path)


def ended(history: store.Store, request: node_view.Request, elsewhere: Elsewhere = ALONE) -> Iterator[Row]:
    """What has ended, as the history has it. Closes it."""
    with contextlib.closing(history), _prepared(history, request.wanted, None):
        for row in history.tasks(request.wanted, order=request.order, limit=request.limit, offset=request.offset):
            yield _with_node(row, elsewhere)


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
