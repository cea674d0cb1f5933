"""What a session's tasks, actors, objects, workers, nodes, jobs and environments are: the living from those who know
them, the ended from the history.

A listing asks the agent and, where they know more, every process of the node, once each; then it reads the history,
which by then has all that had ended when they answered. Rows are dictionaries with the fields of
`umbel.util.state.common`. Nothing here has state; `Asker` does the asking, for a driver, a worker or the command line.
"""

from __future__ import annotations

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

    def ask_all(self, what: str, about: str) -> Iterator[tuple[Row, Row]]:
        """(process, answer) of each that answers; of the others it is noted that they do not."""
        for process in self.query("owners"):
            self.check_time()
            try:
                yield process, self._asker.ask(process["id"], what, about)
            except exceptions.UmbelError as error:
                if any(one["id"] == process["id"] for one in self.query("owners")):  # else it has just ended
                    self.missing.append(f"process {process['id'][:8]} (pid {process['pid']}) does not answer: {error}")

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


def tasks(asker: inquiry.Asker | None, request: Request, *, path: str = "") -> Listing:
    """path: of a history that was kept; then no session is asked."""
    if asker is None:
        return _with_history(opened(path), request, [], 0, [])
    node = Node(asker, request.timeout_s)
    live, unseen = _live_tasks(node, request)
    history = node.history()
    if history is None:
        return Listing(_page(live, request), len(live) + unseen, node.missing, [])
    return _with_history(history, request, live, unseen, node.missing)


def _with_history(history: store.Store, request: Request, live: list[Row], unseen: int, missing: list[str]) -> Listing:
    """The page of what is alive and what has ended. unseen: how many of the living are behind those in `live`."""
    try:
        limit, offset = request.limit, request.offset
        if live:
            limit, offset = None if limit is None else limit + offset, 0
        ended = [
            _with_times(row) for row in history.tasks(request.wanted, order=request.order, limit=limit, offset=offset)
        ]
        total = history.task_count(request.wanted)
        counts = history.counts()
    finally:
        history.close()
    notes = []
    if counts["removed"]:
        notes.append(f"{counts['removed']} older tasks were removed (UMBEL_HISTORY_TASKS_MAX, _AGE_MAX_S, _BYTES_MAX)")
    if counts["dropped"]:
        missing = [*missing, f"{counts['dropped']} ended tasks could not be recorded"]
    if not live:
        return Listing(ended, total, missing, notes)
    has_ended = {(row["task_id"], row["attempt_number"]) for row in ended}
    both = ended + [row for row in live if (row["task_id"], row["attempt_number"]) not in has_ended]
    return Listing(_page(both, request), total + len(both) - len(ended) + unseen, missing, notes)


def _live_tasks(node: Node, request: Request) -> tuple[list[Row], int]:
    """The unfinished tasks that meet the conditions, and how many more there are behind the last of them."""
    limit = None if request.limit is None else request.limit + request.offset
    is_newest_first = request.order is not None and request.order[1]
    about = own_state.question(list(request.wanted), limit, is_newest_first=is_newest_first)
    rows: list[Row] = []
    running: dict[str, tuple[Row, int]] = {}
    unseen = 0
    for process, answer in node.ask_all("task_states", about):
        rows += answer["rows"]
        told = sum(1 for row in answer["rows"] if not row["is_sent"])
        unseen += answer["count"] - told
        if told >= own_state.ROWS_MAX and answer["count"] > told:
            node.missing.append(
                f"{answer['count'] - told} unfinished tasks of process {process['id'][:8]} are not listed"
            )
        running.update({task: (facts, answer["pid"]) for task, facts in answer["running"].items()})
    node_id = node.query("nodes")[0]["node_id"]
    pids = {process["id"]: process["pid"] for process in node.query("owners")}
    for row in rows:
        if row["is_sent"]:
            row["node_id"], row["worker_pid"] = node_id, pids.get(row["worker_id"])
        found = running.get(row["task_id"])
        if found is not None:
            row["state"] = "RUNNING_IN_RAY_GET" if found[0]["waits"] else "RUNNING"
            row["started_s"], row["start_time_ms"] = found[0]["since_s"], int(found[0]["since_s"] * 1e3)
    rows += [row for row in map(_creation, node.query("actors")) if row is not None]
    return [_with_times(row) for row in rows if conditions.all_met(request.wanted, row)], unseen


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
        "worker_pid": actor["pid"], "submitted_s": None, "started_s": None, "ended_s": None,
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


def task_tally(asker: inquiry.Asker, request: Request) -> tuple[list[tuple[str, str, str, int]], list[str], list[str]]:
    """(name, type, state, how many) of all tasks that meet the conditions; what is missing; notes."""
    node = Node(asker, request.timeout_s)
    live, unseen = _live_tasks(node, request._replace(limit=None))
    if unseen:
        node.missing.append(f"{unseen} unfinished tasks are not counted")
    tally: dict[tuple[str, str, str], int] = {}
    for row in live:
        key = row["name"], row["type"], row["state"]
        tally[key] = tally.get(key, 0) + 1
    notes: list[str] = []
    history = node.history()
    if history is not None:
        try:
            for name, kind, state, count in history.task_tally(request.wanted):
                tally[name, kind, state] = tally.get((name, kind, state), 0) + count
            counts = history.counts()
        finally:
            history.close()
        if counts["removed"]:
            notes.append(f"{counts['removed']} older tasks were removed and are not counted")
        if counts["dropped"]:
            node.missing.append(f"{counts['dropped']} ended tasks could not be recorded")
    return [(*key, count) for key, count in tally.items()], node.missing, notes


_LOST = [conditions.Condition("start_time_ms", "=", None), conditions.Condition("worker_id", "!=", None)]


def timeline(asker: inquiry.Asker | None, timeout_s: float = 30.0, *, path: str = "") -> Iterator[timelines.Event]:
    """The trace events of all tasks that run or have ended. path: as for `tasks`. Raises UmbelSystemError."""
    now_s = time.time()
    request = Request(order=("start_time_ms", False), timeout_s=timeout_s)
    processes: dict[str, timelines.Process] = {}
    if asker is None:
        history: store.Store | None = opened(path)
        live: list[Row] = []
    else:
        node = Node(asker, timeout_s)
        live, _ = _live_tasks(node, request._replace(limit=0))
        processes = {one["id"]: timelines.Process(one["pid"], one["is_driver"]) for one in node.query("owners")}
        history = node.history()
        if history is None:
            raise exceptions.UmbelSystemError("; ".join(node.missing))
    assert history is not None
    for one in history.workers():
        processes.setdefault(one["worker"], timelines.Process(one["pid"], False))
    running = [row for row in live if row["state"].startswith("RUNNING") and row["started_s"] is not None]
    ended = (row for row in history.tasks(order=request.order) if row["started_s"] is not None)
    try:
        started = heapq.merge(ended, sorted(running, key=_start), key=_start)
        yield from timelines.events(itertools.chain(started, history.tasks(_LOST)), processes, now_s)
    finally:
        history.close()


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


def _page(rows: list[Row], request: Request) -> list[Row]:
    column, is_descending = request.order or ("", False)
    column = column or next((name for name in ("task_id",) if rows and name in rows[0]), "")
    if column:
        rows = sorted(rows, key=lambda row: _sort_key(row, column), reverse=is_descending)
    end = None if request.limit is None else request.offset + request.limit
    return rows[request.offset : end]


def _sort_key(row: Row, column: str) -> tuple[Any, ...]:
    value = row.get(column)
    tie = row.get("attempt_number") if column == "task_id" else 0
    return value is not None, value if value is not None else 0, tie


def _of(node: Node, rows: Sequence[Row], request: Request) -> Listing:
    met = [row for row in rows if conditions.all_met(request.wanted, row)]
    return Listing(_page(met, request), len(met), node.missing, node.notes)


def actors(asker: inquiry.Asker, request: Request) -> Listing:
    node = Node(asker, request.timeout_s)
    facts = node.query("nodes")[0]
    known = {one["actor"]: one for one in node.query("actors")}
    history = node.history_if_on()
    if history is not None:
        try:
            dead = [json.loads(text) for text in history.actors()]
        finally:
            history.close()
        known = {**{one["actor"]: {**one, "pid": 0} for one in dead}, **known}
    return _of(node, [_actor(one, facts) for one in known.values()], request)


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
        "repr_name": "",
        "num_restarts": one["restarts"],
        "num_restarts_due_to_lineage_reconstruction": 0,
        "num_restarts_due_to_node_preemption": 0,
        "call_site": None,
        "label_selector": one["label_selector"] or {},
        "fallback_strategy": None,
    }


def _floats(units: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / resource_model.RESOURCE_UNIT for name, amount in units.items()}


def workers(asker: inquiry.Asker, request: Request) -> Listing:
    node = Node(asker, request.timeout_s)
    facts = node.query("nodes")[0]
    rows = {
        one["id"]: _worker(one["id"], one["pid"], facts, is_driver=one["is_driver"]) for one in node.query("owners")
    }
    history = node.history_if_on()
    if history is not None:
        try:
            recorded = history.workers()
        finally:
            history.close()
        for one in recorded:
            row = rows.setdefault(one["worker"], _worker(one["worker"], one["pid"], facts, is_driver=False))
            row["start_time_ms"] = _milliseconds(one["ready"])
            if one["ended"] is not None:
                row |= {
                    "is_alive": False, "end_time_ms": _milliseconds(one["ended"]), "exit_type": one["exit_type"],
                    "exit_detail": one["exit_detail"],
                }  # fmt: skip
    return _of(node, list(rows.values()), request)


def _milliseconds(seconds: float | None) -> int:
    return int(seconds * 1e3) if seconds is not None else 0


def _worker(worker: str, pid: int, node: Row, *, is_driver: bool) -> Row:
    return {
        "worker_id": worker, "is_alive": True, "worker_type": "DRIVER" if is_driver else "WORKER", "exit_type": None,
        "node_id": node["node_id"], "ip": resource_model.NODE_ADDRESS, "pid": pid, "exit_detail": None,
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
    return _of(node, rows, request)


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
    return _of(node, rows, request)


def _command(pid: int) -> str:
    """The command line of a process; "" where that cannot be known."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def objects(asker: inquiry.Asker, request: Request) -> Listing:
    node = Node(asker, request.timeout_s)
    limit = None if request.limit is None or request.order is not None else request.limit + request.offset
    about = own_state.question(list(request.wanted), limit, is_newest_first=False)
    rows: list[Row] = []
    total = 0
    for process, answer in node.ask_all("object_states", about):
        rows += answer["rows"]
        total += answer["count"]
        left = answer["count"] - len(answer["rows"])
        if left and len(answer["rows"]) >= own_state.ROWS_MAX:
            node.missing.append(f"{left} objects of process {process['id'][:8]} are not listed")
    return Listing(_page(rows, request), total, node.missing, [])


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
    return _of(node, rows, request)


def _build_key(env: Mapping[str, Any]) -> str:
    """By what the agent knows the part of an environment that has to be built; "{}" for nothing."""
    return json.dumps(env.get("built", {}), sort_keys=True, separators=(",", ":"))


def placement_groups(asker: inquiry.Asker, request: Request) -> Listing:
    """None: placement groups come with clusters of several nodes."""
    return _of(Node(asker, request.timeout_s), [], request)


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
