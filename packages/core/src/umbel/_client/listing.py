"""What a node's actors, objects, workers and environments are, and the cluster's nodes, jobs and placement groups: the living
from those who know them, the ended from the history.

A listing asks the agent and, where they know more, every process of the node; then it reads the history, which by then
has all that had ended when they answered. Rows are dictionaries with the fields of `umbel.util.state.common`. Nothing
here has state; `Asker` does the asking, for a driver, a worker or the command line. `cluster_listing` has the same of all nodes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel._client import cluster_view, groups, inquiry, merging, node_view, own_state
from umbel._model import resources as resource_model

if TYPE_CHECKING:
    from umbel._history import store

Row = dict[str, Any]


def actors_of_history(path: str, request: node_view.Request) -> node_view.Listing:
    """The dead of one that was kept."""
    with contextlib.closing(node_view.opened(path)) as history:
        pids = {one["worker"]: one["pid"] for one in history.workers()}
        dead = [json.loads(text) for text in history.actors()]
    rows = [_actor({**one, "pid": pids.get(one["worker"])}, one) for one in dead]
    return node_view.filtered(rows, request, [], [])


def dead_actors(node: node_view.Node) -> list[Row]:
    """Those that its history has, as it has them."""
    history = node.history_if_on()
    if history is None:
        return []
    with contextlib.closing(history):
        return [{**json.loads(text), "pid": 0} for text in history.actors()]


def actors(facts: Row, living: Sequence[Row], dead: Sequence[Row]) -> list[Row]:
    """facts: of the node that was asked. living: as its agent tells them, some dead ones among them."""
    known = {**{one["actor"]: one for one in dead}, **{one["actor"]: one for one in living}}
    return [_actor(one, facts) for one in known.values()]


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


def workers_of_history(path: str, request: node_view.Request) -> node_view.Listing:
    """Those of one that was kept, which knows of no driver."""
    return node_view.filtered(_recorded(node_view.opened(path), {}, resource_model.NODE_ADDRESS), request, [], [])


def workers_of_node(node: node_view.Node, facts: Row, request: node_view.Request) -> node_view.Listing:
    """facts: of the node."""
    host = node_view.host_of(facts)
    rows = {
        one["id"]: _worker(one["id"], one["pid"], facts["node_id"], host, is_driver=one["is_driver"])
        for one in node.query("owners")
    }
    history = node.history_if_on()
    found = list(rows.values()) if history is None else _recorded(history, rows, host)
    return node_view.filtered(found, request, node.missing, node.notes)


def _recorded(history: store.Store, rows: dict[str, Row], host: str) -> list[Row]:
    """rows: of the living, by id."""
    with contextlib.closing(history):
        recorded = history.workers()
    for one in recorded:
        row = rows.setdefault(one["worker"], _worker(one["worker"], one["pid"], one["node"], host, is_driver=False))
        row["start_time_ms"] = _milliseconds(one["ready"])
        if one["ended"] is not None:
            row |= {
                "is_alive": False, "end_time_ms": _milliseconds(one["ended"]), "exit_type": one["exit_type"],
                "exit_detail": one["exit_detail"],
            }  # fmt: skip
    return list(rows.values())


def _milliseconds(seconds: float | None) -> int:
    return int(seconds * 1e3) if seconds is not None else 0


def _worker(worker: str, pid: int, node_id: str, host: str, *, is_driver: bool) -> Row:
    return {
        "worker_id": worker, "is_alive": True, "worker_type": "DRIVER" if is_driver else "WORKER", "exit_type": None,
        "node_id": node_id, "ip": host, "pid": pid, "exit_detail": None,
        "worker_launch_time_ms": -1, "worker_launched_time_ms": -1, "start_time_ms": 0, "end_time_ms": 0,
        "debugger_port": None, "num_paused_threads": None,
    }  # fmt: skip


def nodes(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    node = node_view.Node(asker, request.timeout_s)
    rows = [_node(one) for one in node.query("nodes")]
    return node_view.filtered(rows, request, node.missing, node.notes)


def _node(one: Row) -> Row:
    host = node_view.host_of(one)
    how = "Expected" if one["is_expected"] else "Unexpected"
    return {
        "node_id": one["node_id"], "node_ip": host, "is_head_node": one["is_head"],
        "state": "ALIVE" if one["alive"] else "DEAD",
        "state_message": _drained(one) if one["alive"] else f"{how} termination: {one['reason']}",
        "node_name": one.get("node_name") or host,
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
    cluster = cluster_view.Cluster(asker, request.timeout_s)
    node, node_id = cluster.node, cluster.own_id

    def is_here(job: Row) -> bool:
        return node.is_here and job.get("node_id", node_id) == node_id

    def runtime_env(job: Row) -> Any:
        if job["ended_s"] is not None or not cluster.does_answer(job.get("node_id", node_id)):
            return None
        return node.runtime_env({**job, "id": job["driver"]})

    rows = [
        {
            "job_id": one["job_id"], "submission_id": None, "type": "DRIVER", "status": one["status"],
            "entrypoint": one["entrypoint"] or (_command(one["pid"]) if is_here(one) else ""), "message": one["message"] or None,
            "error_type": None,
            "driver_info": {
                "id": one["job_id"], "pid": str(one["pid"]),
                "node_ip_address": cluster.host_of(one.get("node_id", node_id)) or resource_model.NODE_ADDRESS,
            },
            "start_time": _milliseconds(one["started_s"]),
            "end_time": _milliseconds(one["ended_s"]) if one["ended_s"] is not None else None,
            "metadata": one["metadata"], "priority": one["priority"], "weight": one["weight"],
            "preempt": one["preempt"],
            "runtime_env": runtime_env(one),
            "driver_agent_http_address": None, "driver_node_id": one.get("node_id", node_id), "driver_exit_code": None,
        }
        for one in node.query("jobs")
    ]  # fmt: skip
    return node_view.filtered(rows, request, [], node.notes + node.missing)  # of which only runtime_env is


def _command(pid: int) -> str:
    """The command line of a process; "" where that cannot be known."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def objects_of_node(node: node_view.Node, facts: Row, request: node_view.Request) -> node_view.Listing:
    """Those that its processes refer to."""
    limit = None if request.limit is None else request.limit + request.offset
    asked = own_state.Question(
        request.wanted, request.order, limit, node=facts["node_id"], host=node_view.host_of(facts)
    )
    rows: list[Row] = []
    total = 0
    for process in node.query("owners"):
        for answer in node.ask_pages(process, "object_states", asked):
            rows += answer["rows"]
            total += sum(count for *_, count, _bytes in answer["counts"])
            if limit is not None and len(rows) > 2 * own_state.PAGE + limit:
                rows = node_view.page(rows, request._replace(limit=limit, offset=0))
    return node_view.Listing(node_view.page(rows, request), total, node.missing, [])


def object_tally_of_node(node: node_view.Node, facts: Row, request: node_view.Request) -> list[tuple[Any, ...]]:
    """What is alike among the objects that meet the conditions: the columns `own_state.COUNTED`, how many, and bytes."""
    asked = own_state.Question(request.wanted, None, 0, node=facts["node_id"], host=node_view.host_of(facts))
    answers = (
        answer["counts"]
        for process in node.query("owners")
        for answer in node.ask_pages(process, "object_states", asked)
    )
    return merging.summed(answers, key_size=len(own_state.COUNTED))


def runtime_envs_of_node(node: node_view.Node, facts: Row, request: node_view.Request) -> node_view.Listing:
    """Those that a worker has, somebody waits for a worker with, or are kept or built for either or for a job. success is
    None while it is being built or waits for that; ref_cnt: the workers with it that are in use."""
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
            "creation_time_ms": None, "node_id": facts["node_id"], "ref_cnt": count, "error": None,
        }
        for env, count, has_one in found
    ]  # fmt: skip
    return node_view.filtered(rows, request, node.missing, node.notes)


def _build_key(env: Mapping[str, Any]) -> str:
    """By what the agent knows the part of an environment that has to be built; "{}" for nothing."""
    return json.dumps(env.get("built", {}), sort_keys=True, separators=(",", ":"))


def cluster_events(asker: inquiry.Asker, request: node_view.Request) -> node_view.Listing:
    """What the head remembers of what has happened, the latest first."""
    node = node_view.Node(asker, request.timeout_s)
    rows = [
        {
            "event_id": f"{one['number']:016x}", "severity": one["severity"], "source_type": one["source"],
            "time": str(datetime.datetime.fromtimestamp(one["time_s"]).astimezone().isoformat(" ", "milliseconds")),
            "message": one["text"], "custom_fields": one["facts"],
        }
        for one in node.query("cluster_events")
    ]  # fmt: skip
    return node_view.filtered(
        rows, request._replace(order=request.order or ("event_id", True)), node.missing, node.notes
    )


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
