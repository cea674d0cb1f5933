"""What a session's tasks, actors, objects, workers, nodes, jobs and environments are: the living from those who know
them, the ended from the history.

A listing asks the agent and, where they know more, every process of the node; then it reads the history, which by then
has all that had ended when they answered. Rows are dictionaries with the fields of `umbel.util.state.common`. Nothing
here has state; `Asker` does the asking, for a driver, a worker or the command line.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from umbel._client import groups, inquiry, node_view, own_state, task_listing
from umbel._model import resources as resource_model

if TYPE_CHECKING:
    from umbel._history import store

Row = dict[str, Any]


def actors(asker: inquiry.Asker | None, request: node_view.Request, *, path: str = "") -> node_view.Listing:
    """path: as for `tasks`."""
    if asker is None:
        with contextlib.closing(node_view.opened(path)) as history:
            pids = {one["worker"]: one["pid"] for one in history.workers()}
            dead = [json.loads(text) for text in history.actors()]
        return node_view.filtered(
            [_actor({**one, "pid": pids.get(one["worker"])}, one) for one in dead], request, [], []
        )
    node = node_view.Node(asker, request.timeout_s)
    facts = node.query("nodes")[0]
    known = {one["actor"]: one for one in node.query("actors")}
    found = node.history_if_on()
    if found is not None:
        with contextlib.closing(found):
            dead = [json.loads(text) for text in found.actors()]
        known = {**{one["actor"]: {**one, "pid": 0} for one in dead}, **known}
    return node_view.filtered([_actor(one, facts) for one in known.values()], request, node.missing, node.notes)


_CAUSES = {
    "crashed": "ACTOR_DIED",
    "intended": "ACTOR_DIED",
    "group removed": "ACTOR_DIED",
    "preempted": "ACTOR_DIED",
    "init failed": "ACTOR_CREATION_FAILED",
    "unschedulable": "ACTOR_UNSCHEDULABLE_ERROR",
    "no environment": "RUNTIME_ENV_SETUP_FAILED",
}  # `umbel._control.events.Cause`, and what Ray calls them


def _actor(one: Row, node: Row) -> Row:
    state = one["state"]
    if state == "PENDING":
        state = "DEPENDENCIES_UNREADY" if one["lacks_arguments"] else "PENDING_CREATION"
    selectors = one.get("label_selectors") or []
    cause = {"error_type": _CAUSES.get(one["cause"], ""), "error_message": one["reason"]} if state == "DEAD" else None
    return {
        "actor_id": one["actor"],
        "class_name": one["class_name"],
        "state": state,
        "job_id": one["job_id"],
        "name": one["name"],
        "node_id": (one.get("node_id") or node["node_id"]) if one["worker"] or state == "DEAD" else None,
        "pid": one["pid"] or 0,
        "ray_namespace": one["namespace"],
        "serialized_runtime_env": json.dumps(one["env"] or {}),
        "required_resources": _floats(one["resources"]),
        "death_cause": cause,
        "is_detached": one["is_detached"],
        "placement_group_id": one.get("group") or None,  # histories of older versions have none
        "repr_name": one["repr_name"],
        "num_restarts": one["restarts"],
        "num_restarts_due_to_lineage_reconstruction": 0,
        "num_restarts_due_to_node_preemption": one.get("preemptions", 0),
        "call_site": one["call_site"] or None,
        "label_selector": dict(selectors[0]) if selectors else {},
        "fallback_strategy": [{"label_selector": dict(selector)} for selector in selectors[1:]] or None,
    }


def _floats(units: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / resource_model.RESOURCE_UNIT for name, amount in units.items()}


def workers(asker: inquiry.Asker | None, request: node_view.Request, *, path: str = "") -> node_view.Listing:
    """path: as for `tasks`. A history knows of no driver."""
    rows: dict[str, Row] = {}
    missing, notes = [], []
    if asker is None:
        history: store.Store | None = node_view.opened(path)
    else:
        node = node_view.Node(asker, request.timeout_s)
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
    return node_view.filtered(list(rows.values()), request, missing, notes)


def _milliseconds(seconds: float | None) -> int:
    return int(seconds * 1e3) if seconds is not None else 0


def _worker(worker: str, pid: int, node_id: str, *, is_driver: bool) -> Row:
    return {
        "worker_id": worker, "is_alive": True, "worker_type": "DRIVER" if is_driver else "WORKER", "exit_type": None,
        "node_id": node_id, "ip": resource_model.NODE_ADDRESS, "pid": pid, "exit_detail": None,
        "worker_launch_time_ms": -1, "worker_launched_time_ms": -1, "start_time_ms": 0, "end_time_ms": 0,
        "debugger_port": None, "num_paused_threads": None,
    }  # fmt: skip


def nodes(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    node = node_view.Node(asker, request.timeout_s)
    rows = [_node(one) for one in node.query("nodes")]
    return node_view.filtered(rows, request, node.missing, node.notes)


def _node(one: Row) -> Row:
    host = one["address"].rpartition(":")[0].strip("[]") or resource_model.NODE_ADDRESS
    how = "Expected" if one["is_expected"] else "Unexpected"
    return {
        "node_id": one["node_id"], "node_ip": host, "is_head_node": one["is_head"],
        "state": "ALIVE" if one["alive"] else "DEAD",
        "state_message": _drained(one) if one["alive"] else f"{how} termination: {one['reason']}", "node_name": host,
        "resources_total": _floats(one["resources"]) if one["alive"] else {}, "labels": one["labels"],
        "start_time_ms": _milliseconds(one["started_s"]), "end_time_ms": _milliseconds(one.get("ended_s")),
    }  # fmt: skip


def _drained(node: Row) -> str | None:
    """That it is, if it is."""
    facts = node.get("draining")
    if not facts:
        return None
    return f"Draining ({facts['reason']}{f': {facts_message}' if (facts_message := facts['message']) else ''})"


def jobs(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    """The drivers. runtime_env is None where the driver does not tell it, and of those that have ended."""
    node = node_view.Node(asker, request.timeout_s)
    node_id = node.query("nodes")[0]["node_id"]
    rows = [
        {
            "job_id": one["job_id"], "submission_id": None, "type": "DRIVER", "status": one["status"],
            "entrypoint": one["entrypoint"] or _command(one["pid"]), "message": one["message"] or None,
            "error_type": None,
            "driver_info": {"id": one["job_id"], "node_ip_address": resource_model.NODE_ADDRESS, "pid": str(one["pid"])},
            "start_time": _milliseconds(one["started_s"]),
            "end_time": _milliseconds(one["ended_s"]) if one["ended_s"] is not None else None,
            "metadata": one["metadata"], "priority": one["priority"], "weight": one["weight"],
            "preempt": one["preempt"],
            "runtime_env": node.runtime_env({**one, "id": one["driver"]}) if one["ended_s"] is None else None,
            "driver_agent_http_address": None, "driver_node_id": one.get("node_id", node_id), "driver_exit_code": None,
        }
        for one in node.query("jobs")
    ]  # fmt: skip
    return node_view.filtered(rows, request, node.missing, node.notes)


def _command(pid: int) -> str:
    """The command line of a process; "" where that cannot be known."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def objects(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    node = node_view.Node(asker, request.timeout_s)
    limit = None if request.limit is None else request.limit + request.offset
    asked = own_state.Question(request.wanted, request.order, limit)
    rows: list[Row] = []
    total = 0
    for process in node.query("owners"):
        for answer in node.ask_pages(process, "object_states", asked):
            rows += answer["rows"]
            total += sum(count for *_, count, _bytes in answer["counts"])
            if limit is not None and len(rows) > 2 * own_state.PAGE + limit:
                rows = node_view.page(rows, request._replace(limit=limit, offset=0))
    return node_view.Listing(node_view.page(rows, request), total, node.missing, [])


def object_tally(asker: inquiry.Asker, request: node_view.Request) -> tuple[list[Row], list[str]]:
    """What is alike among the objects that meet the conditions: the columns `own_state.COUNTED`, "count" and "bytes"; and
    what is missing."""
    node = node_view.Node(asker, request.timeout_s)
    tally: dict[tuple[Any, ...], list[int]] = {}
    for process in node.query("owners"):
        for answer in node.ask_pages(process, "object_states", own_state.Question(request.wanted, None, 0)):
            for *group, count, size_bytes in answer["counts"]:
                found = tally.setdefault(tuple(group), [0, 0])
                found[0] += count
                found[1] += size_bytes
    names = (*own_state.COUNTED, "count", "bytes")
    return [dict(zip(names, (*group, *found), strict=True)) for group, found in tally.items()], node.missing


def runtime_envs(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    """Those that a worker has, somebody waits for a worker with, or are kept or built for either or for a job. success is
    None while it is being built or waits for that; ref_cnt: the workers with it that are in use."""
    node = node_view.Node(asker, request.timeout_s)
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
    found += [({"built": json.loads(key)}, 0, False) for key in is_ready if key not in wanted and key != _build_key({})]
    rows = [
        {
            "runtime_env": env, "success": True if has_one or is_ready.get(_build_key(env)) else None,
            "creation_time_ms": None, "node_id": node_id, "ref_cnt": count, "error": None,
        }
        for env, count, has_one in found
    ]  # fmt: skip
    return node_view.filtered(rows, request, node.missing, node.notes)


def _build_key(env: Mapping[str, Any]) -> str:
    """By what the agent knows the part of an environment that has to be built; "{}" for nothing."""
    return json.dumps(env.get("built", {}), sort_keys=True, separators=(",", ":"))


def placement_groups(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    """Those that have ended are listed while the daemon remembers them."""
    node = node_view.Node(asker, request.timeout_s)
    rows = [
        {
            "placement_group_id": one["group"], "name": one["name"], "creator_job_id": one["job"], "state": one["state"],
            "bundles": [
                {
                    "bundle_id": {"placement_group_id": one["group"], "bundle_index": index},
                    "unit_resources": _floats(bundle), "node_id": one["nodes"][index] or None,
                }
                for index, bundle in enumerate(one["bundles"])
            ],
            "is_detached": one["is_detached"], "stats": groups.stats(one), "topology_strategy": {},
            "topology_assignments": {},
        }
        for one in node.query("placement_groups")
    ]  # fmt: skip
    return node_view.filtered(rows, request, node.missing, node.notes)


KINDS: dict[str, Callable[[inquiry.Asker, node_view.Request], node_view.Listing]] = {
    "actors": actors,
    "jobs": jobs,
    "nodes": nodes,
    "objects": objects,
    "placement_groups": placement_groups,
    "runtime_envs": runtime_envs,
    "tasks": task_listing.tasks,
    "workers": workers,
}
KEPT = ("actors", "tasks", "workers")  # what a history that was kept has
