"""What a session's tasks, actors, objects, workers, nodes, jobs and environments are: the living from those who know
them, the ended from the history.

A listing asks the agent and, where they know more, every process of the node, once each; then it reads the history,
which by then has all that had ended when they answered. Rows are dictionaries with the fields of
`umbel.util.state.common`. Nothing here has state; `Asker` does the asking, for a driver, a worker or the command line.
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._client import inquiry, own_state
from umbel._client import timeline as timelines
from umbel._history import conditions, selections
from umbel._model import resources as resource_model

if TYPE_CHECKING:
    from umbel._history import store

Row = dict[str, Any]
Order = tuple[str, bool] | None


class Request(NamedTuple):
    """What is asked for. order: column, and whether descending; timeout_s: for all of it."""

    wanted: Sequence[conditions.Condition] = ()
    order: Order = None
    limit: int | None = None
    offset: int = 0
    timeout_s: float = 30.0


class Listing(NamedTuple):
    """rows: those asked for. total: how many meet the conditions. missing: why rows may be missing, in words. notes:
    what is not there any more, in words."""

    rows: list[Row]
    total: int
    missing: list[str]
    notes: list[str]


class Node:
    """One node's state, looked at within a time-out."""

    def __init__(self, asker: inquiry.Asker, timeout_s: float) -> None:
        self._asker = asker
        self._until_s = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self.missing: list[str] = []
        self.notes: list[str] = []

    def query(self, what: str) -> Any:
        self.check_time()
        return self._asker.query(what)

    def check_time(self) -> None:
        if time.monotonic() > self._until_s:
            raise exceptions.GetTimeoutError(
                f"the node did not tell its state within {self._timeout_s:g} s; allow more by timeout="
            )

    def ask_all(self, what: str, about: str, processes: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
        """(process, answer) of each that answers."""
        for process in processes:
            answer = self.ask(process, what, about)
            if answer is not None:
                yield process, answer

    def ask_pages(self, process: Row, what: str, asked: own_state.Question) -> Iterator[Row]:
        """A process's answers, until it has told all. Rows that come by id are asked for until there are enough."""
        left = asked.limit
        in_order = asked.order is None or asked.order[0] == "task_id"
        while True:
            answer = self.ask(process, what, asked.encoded())
            if answer is None:
                return
            yield answer
            if answer["more"] is None:
                return
            if left is not None and in_order:
                left -= len(answer["rows"])
            asked = asked._replace(after=answer["more"], limit=left)

    def ask(self, process: Row, what: str, about: str) -> Row | None:
        """Its answer; None if there is none, which is noted unless it has just ended."""
        self.check_time()
        try:
            return self._asker.ask(process["id"], what, about)
        except exceptions.UmbelError as error:
            if any(one["id"] == process["id"] for one in self.query("owners")):
                self.missing.append(f"process {process['id'][:8]} (pid {process['pid']}) does not answer: {error}")
            return None

    def runtime_env(self, process: Row) -> dict[str, Any] | None:
        """The environment in which a process runs, as the option is written; None if it does not answer."""
        self.check_time()
        try:
            found: dict[str, Any] = self._asker.ask(process["id"], "runtime_env", "")["runtime_env"]
        except exceptions.UmbelError as error:
            self.notes.append(
                f"the runtime_env of process {process['id'][:8]} (pid {process['pid']}) is not known: {error}"
            )
            return None
        return found

    def history(self) -> store.Store | None:
        """The history of this node, with all in it that had ended; None when nothing is recorded."""
        found = self.query("history")
        if found["trouble"]:
            self.missing.append(f"what has ended is not known: {found['trouble']}")
            return None
        return opened(found["path"])

    def history_if_on(self) -> store.Store | None:
        """The same for what lists the living in the first place: that nothing is recorded is only noted."""
        found = self.query("history")
        if not found["is_on"]:
            self.notes.append(f"the dead are not listed: {found['trouble']}")
            return None
        return self.history()


def opened(path: str) -> store.Store:
    """A history, with all in it that was written down. Raises UmbelSystemError when it cannot be read."""
    from umbel._history import store

    try:
        made = store.Store(path)
        made.absorb_all()
    except store.Error as error:
        raise exceptions.UmbelSystemError(f"the history in {path} cannot be read: {error}") from error
    return made


# ---- tasks ----


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


def tasks(asker: inquiry.Asker | None, request: Request, *, path: str = "") -> Listing:
    """path: of a history that was kept; then no session is asked."""
    if asker is None:
        return _with_history(opened(path), request, Living([], []), [])
    node = Node(asker, request.timeout_s)
    living = _living_tasks(node, request)
    history = node.history()
    if history is None:
        return Listing(_page(living.rows, request), sum(one.total for one in living.counts), node.missing, [])
    return _with_history(history, request, living, node.missing)


def _with_history(history: store.Store, request: Request, living: Living, missing: list[str]) -> Listing:
    """The page of what is alive and what has ended."""
    wanted, limit, offset = request.wanted, request.limit, request.offset
    has_all = not living.rows
    if not has_all:
        limit, offset = None if limit is None else limit + offset, 0
    with contextlib.closing(history), history.reading():
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
        return Listing(ended, total, missing, notes)
    return Listing(_page(ended + living.rows, request, owners), total, missing, notes)


def _living_tasks(node: Node, request: Request) -> Living:
    """In this order: what comes last has ended, if it has, in the history; and who is asked what he has submitted is
    told what runs."""
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
                rows = _page(rows, request._replace(limit=limit, offset=0))
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
    asker: inquiry.Asker | None, request: Request, *, path: str = ""
) -> tuple[list[tuple[str, str, str, int]], list[str], list[str]]:
    """(name, type, state, how many) of all tasks that meet the conditions; what is missing; notes. path: as for `tasks`."""
    living, missing, notes = Living([], []), [], []
    if asker is None:
        history: store.Store | None = opened(path)
    else:
        node = Node(asker, request.timeout_s)
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
        history: store.Store | None = opened(path)
    else:
        node = Node(asker, timeout_s)
        living = _living_tasks(node, Request(_RUNNING, order, timeout_s=timeout_s))
        processes = {one["id"]: timelines.Process(one["pid"], one["is_driver"]) for one in node.query("owners")}
        history = node.history()
        if history is None:
            raise exceptions.UmbelSystemError("; ".join(node.missing))
    assert history is not None
    with contextlib.closing(history), history.reading():
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
    history = opened(found["path"])
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


# ---- everything else ----


def _page(rows: list[Row], request: Request, owners: Mapping[str, int] | None = None) -> list[Row]:
    """Those that are asked for. owners: for tasks by id, which come as in the history, each owner's number there."""
    column, is_descending = request.order or ("", False)
    if owners is not None and column in ("", "task_id"):
        rows = sorted(rows, key=lambda row: _task_key(row, owners), reverse=is_descending)
    elif column or (rows and "task_id" in rows[0]):
        rows = sorted(rows, key=lambda row: own_state.sort_key(row, column or "task_id"), reverse=is_descending)
    end = None if request.limit is None else request.offset + request.limit
    return rows[request.offset : end]


def _task_key(row: Row, owners: Mapping[str, int]) -> tuple[Any, ...]:
    number = owners.get(row["task_id"][:32])
    return number is None, number or 0, row["task_id"], row["attempt_number"]


def _of(rows: Sequence[Row], request: Request, missing: list[str], notes: list[str]) -> Listing:
    met = [row for row in rows if conditions.all_met(request.wanted, row)]
    return Listing(_page(met, request), len(met), missing, notes)


def actors(asker: inquiry.Asker | None, request: Request, *, path: str = "") -> Listing:
    """path: as for `tasks`."""
    if asker is None:
        with contextlib.closing(opened(path)) as history:
            pids = {one["worker"]: one["pid"] for one in history.workers()}
            dead = [json.loads(text) for text in history.actors()]
        return _of([_actor({**one, "pid": pids.get(one["worker"])}, one) for one in dead], request, [], [])
    node = Node(asker, request.timeout_s)
    facts = node.query("nodes")[0]
    known = {one["actor"]: one for one in node.query("actors")}
    found = node.history_if_on()
    if found is not None:
        with contextlib.closing(found):
            dead = [json.loads(text) for text in found.actors()]
        known = {**{one["actor"]: {**one, "pid": 0} for one in dead}, **known}
    return _of([_actor(one, facts) for one in known.values()], request, node.missing, node.notes)


_CAUSES = {
    "crashed": "ACTOR_DIED",
    "intended": "ACTOR_DIED",
    "init failed": "ACTOR_CREATION_FAILED",
    "unschedulable": "ACTOR_UNSCHEDULABLE_ERROR",
    "no environment": "RUNTIME_ENV_SETUP_FAILED",
}  # `umbel._control.events.Cause`, and what Ray calls them


def _actor(one: Row, node: Row) -> Row:
    state = one["state"]
    if state == "PENDING":
        state = "DEPENDENCIES_UNREADY" if one["lacks_arguments"] else "PENDING_CREATION"
    cause = {"error_type": _CAUSES.get(one["cause"], ""), "error_message": one["reason"]} if state == "DEAD" else None
    return {
        "actor_id": one["actor"],
        "class_name": one["class_name"],
        "state": state,
        "job_id": node["job_id"],
        "name": one["name"],
        "node_id": node["node_id"] if one["worker"] or state == "DEAD" else None,
        "pid": one["pid"] or 0,
        "ray_namespace": one["namespace"],
        "serialized_runtime_env": json.dumps(one["env"] or {}),
        "required_resources": _floats(one["resources"]),
        "death_cause": cause,
        "is_detached": one["is_detached"],
        "placement_group_id": None,
        "repr_name": one["repr_name"],
        "num_restarts": one["restarts"],
        "num_restarts_due_to_lineage_reconstruction": 0,
        "num_restarts_due_to_node_preemption": 0,
        "call_site": one["call_site"] or None,
        "label_selector": one["label_selector"] or {},
        "fallback_strategy": None,
    }


def _floats(units: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / resource_model.RESOURCE_UNIT for name, amount in units.items()}


def workers(asker: inquiry.Asker | None, request: Request, *, path: str = "") -> Listing:
    """path: as for `tasks`. A history knows of no driver."""
    rows: dict[str, Row] = {}
    missing, notes = [], []
    if asker is None:
        history: store.Store | None = opened(path)
    else:
        node = Node(asker, request.timeout_s)
        node_id = node.query("nodes")[0]["node_id"]
        rows = {
            one["id"]: _worker(one["id"], one["pid"], node_id, is_driver=one["is_driver"])
            for one in node.query("owners")
        }
        history, missing, notes = node.history_if_on(), node.missing, node.notes
    if history is not None:
        with contextlib.closing(history):
            recorded = history.workers()
        for one in recorded:
            row = rows.setdefault(one["worker"], _worker(one["worker"], one["pid"], one["node"], is_driver=False))
            row["start_time_ms"] = _milliseconds(one["ready"])
            if one["ended"] is not None:
                row |= {
                    "is_alive": False, "end_time_ms": _milliseconds(one["ended"]), "exit_type": one["exit_type"],
                    "exit_detail": one["exit_detail"],
                }  # fmt: skip
    return _of(list(rows.values()), request, missing, notes)


def _milliseconds(seconds: float | None) -> int:
    return int(seconds * 1e3) if seconds is not None else 0


def _worker(worker: str, pid: int, node_id: str, *, is_driver: bool) -> Row:
    return {
        "worker_id": worker, "is_alive": True, "worker_type": "DRIVER" if is_driver else "WORKER", "exit_type": None,
        "node_id": node_id, "ip": resource_model.NODE_ADDRESS, "pid": pid, "exit_detail": None,
        "worker_launch_time_ms": -1, "worker_launched_time_ms": -1, "start_time_ms": 0, "end_time_ms": 0,
        "debugger_port": None, "num_paused_threads": None,
    }  # fmt: skip


def nodes(asker: inquiry.Asker, request: Request) -> Listing:
    node = Node(asker, request.timeout_s)
    rows = [
        {
            "node_id": one["node_id"], "node_ip": resource_model.NODE_ADDRESS, "is_head_node": True, "state": "ALIVE",
            "state_message": None, "node_name": resource_model.NODE_ADDRESS,
            "resources_total": _floats(one["resources"]), "labels": one["labels"],
            "start_time_ms": _milliseconds(one["started_s"]), "end_time_ms": 0,
        }
        for one in node.query("nodes")
    ]  # fmt: skip
    return _of(rows, request, node.missing, node.notes)


def jobs(asker: inquiry.Asker, request: Request) -> Listing:
    """The drivers. runtime_env is None where the driver does not tell it."""
    node = Node(asker, request.timeout_s)
    facts = node.query("nodes")[0]
    rows = [
        {
            "job_id": facts["job_id"], "submission_id": None, "type": "DRIVER", "status": "RUNNING",
            "entrypoint": _command(one["pid"]), "message": None, "error_type": None,
            "driver_info": {"id": facts["job_id"], "node_ip_address": resource_model.NODE_ADDRESS, "pid": str(one["pid"])},
            "start_time": _milliseconds(facts["started_s"]), "end_time": None, "metadata": {},
            "runtime_env": node.runtime_env(one), "driver_agent_http_address": None, "driver_node_id": facts["node_id"],
            "driver_exit_code": None,
        }
        for one in node.query("owners")
        if one["is_driver"]
    ]  # fmt: skip
    return _of(rows, request, node.missing, node.notes)


def _command(pid: int) -> str:
    """The command line of a process; "" where that cannot be known."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def objects(asker: inquiry.Asker, request: Request) -> Listing:
    node = Node(asker, request.timeout_s)
    limit = None if request.limit is None else request.limit + request.offset
    asked = own_state.Question(request.wanted, request.order, limit)
    rows: list[Row] = []
    total = 0
    for process in node.query("owners"):
        for answer in node.ask_pages(process, "object_states", asked):
            rows += answer["rows"]
            total += sum(count for *_, count, _bytes in answer["counts"])
            if limit is not None and len(rows) > 2 * own_state.PAGE + limit:
                rows = _page(rows, request._replace(limit=limit, offset=0))
    return Listing(_page(rows, request), total, node.missing, [])


def object_tally(asker: inquiry.Asker, request: Request) -> tuple[list[Row], list[str]]:
    """What is alike among the objects that meet the conditions: the columns `own_state.COUNTED`, "count" and "bytes"; and
    what is missing."""
    node = Node(asker, request.timeout_s)
    tally: dict[tuple[Any, ...], list[int]] = {}
    for process in node.query("owners"):
        for answer in node.ask_pages(process, "object_states", own_state.Question(request.wanted, None, 0)):
            for *group, count, size_bytes in answer["counts"]:
                found = tally.setdefault(tuple(group), [0, 0])
                found[0] += count
                found[1] += size_bytes
    names = (*own_state.COUNTED, "count", "bytes")
    return [dict(zip(names, (*group, *found), strict=True)) for group, found in tally.items()], node.missing


def runtime_envs(asker: inquiry.Asker, request: Request) -> Listing:
    """Those that a worker has, somebody waits for a worker with, or are kept or built for either or for a job. success is
    None while it is being built or waits for that; ref_cnt: the workers with it that are in use."""
    node = Node(asker, request.timeout_s)
    node_id = node.query("nodes")[0]["node_id"]
    counts: dict[str, int] = {}
    for one in node.query("workers"):
        if one["env"]:
            counts[one["env"]] = counts.get(one["env"], 0) + bool(one["client"] or one["actor"])
    has_worker = set(counts)
    for one in node.query("pending"):
        if one["env"]:
            counts.setdefault(one["env"], 0)
    is_ready = {one["built"]: one["state"] == "ready" for one in node.query("environments")}
    found = [(json.loads(text), count, text in has_worker) for text, count in counts.items()]
    wanted = {_build_key(env) for env, _, _ in found}
    found += [({"built": json.loads(key)}, 0, False) for key in is_ready if key not in wanted]
    rows = [
        {
            "runtime_env": env, "success": True if has_one or is_ready.get(_build_key(env)) else None,
            "creation_time_ms": None, "node_id": node_id, "ref_cnt": count, "error": None,
        }
        for env, count, has_one in found
    ]  # fmt: skip
    return _of(rows, request, node.missing, node.notes)


def _build_key(env: Mapping[str, Any]) -> str:
    """By what the agent knows the part of an environment that has to be built; "{}" for nothing."""
    return json.dumps(env.get("built", {}), sort_keys=True, separators=(",", ":"))


def placement_groups(_asker: inquiry.Asker, request: Request) -> Listing:
    """None: placement groups come with clusters of several nodes."""
    return _of([], request, [], [])


KINDS: dict[str, Callable[[inquiry.Asker, Request], Listing]] = {
    "actors": actors,
    "jobs": jobs,
    "nodes": nodes,
    "objects": objects,
    "placement_groups": placement_groups,
    "runtime_envs": runtime_envs,
    "tasks": tasks,
    "workers": workers,
}
KEPT = ("actors", "tasks", "workers")  # what a history that was kept has
