"""What a session is doing, for programs: listings of tasks, actors and all else, and why something is not there yet.

Names and meanings are Ray's; see `common` for what the states hold. What is alive is asked of those who know it, what
has ended is read from the session's history, so that a listing is never older than its question.
"""

from __future__ import annotations

from typing import Any

from umbel._client import current
from umbel._model.reasons import Reason as Reason
from umbel.util.state import common
from umbel.util.state.api import StateApiClient as StateApiClient
from umbel.util.state.logs import get_log as get_log
from umbel.util.state.logs import list_logs as list_logs

__all__ = [
    "Reason",
    "StateApiClient",
    "explain",
    "get_actor",
    "get_job",
    "get_log",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_cluster_events",
    "list_jobs",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_runtime_envs",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]


def explain(target: Any) -> Reason:
    """Why what a reference stands for is not there yet, followed from process to process.

    `str()` of the answer is the story in words; `code` and `facts` are for programs, `because` is what it waits for in
    turn, `advice` what would unblock it. Asks each process of the story once and waits at most a second for it. Raises
    TypeError for anything but a reference of this session, to an object or to a result of a compiled graph.
    """
    reason: Reason = current.engine().explain(target)
    return reason


def get_actor(
    id: str, address: str | None = None, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> common.ActorState | None:
    """The state of that id, or None when there is none."""
    found: common.ActorState | None = StateApiClient(address).get("actors", id, timeout=timeout, _explain=_explain)
    return found


def get_placement_group(
    id: str, address: str | None = None, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> common.PlacementGroupState | None:
    """The state of that id, or None when there is none."""
    found: common.PlacementGroupState | None = StateApiClient(address).get(
        "placement_groups", id, timeout=timeout, _explain=_explain
    )
    return found


def get_node(
    id: str, address: str | None = None, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> common.NodeState | None:
    """The state of that id, or None when there is none."""
    found: common.NodeState | None = StateApiClient(address).get("nodes", id, timeout=timeout, _explain=_explain)
    return found


def get_job(
    id: str, address: str | None = None, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> common.JobState | None:
    """The state of that id, or None when there is none."""
    found: common.JobState | None = StateApiClient(address).get("jobs", id, timeout=timeout, _explain=_explain)
    return found


def get_worker(
    id: str, address: str | None = None, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> common.WorkerState | None:
    """The state of that id, or None when there is none."""
    found: common.WorkerState | None = StateApiClient(address).get("workers", id, timeout=timeout, _explain=_explain)
    return found


def get_task(
    id: Any, address: str | None = None, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> Any:
    """The state of a task, given its id or a reference to its result; None when it is not known. A list, in order, when
    it was attempted several times."""
    text = id if isinstance(id, str) else id.task_id().hex()
    return StateApiClient(address).get("tasks", text, timeout=timeout, _explain=_explain)


def get_objects(
    id: str, address: str | None = None, timeout: float = common.DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> list[common.ObjectState]:
    """Who refers to the object of that id, and how; empty when nobody does."""
    found: list[common.ObjectState] = StateApiClient(address).get("objects", id, timeout=timeout, _explain=_explain)
    return found


def list_actors(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.ActorState]:
    """As `list_tasks`."""
    return StateApiClient(address).list(
        "actors", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_cluster_events(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.ClusterEventState]:
    """As `list_tasks`, but the latest come first: nodes that came and went, jobs, actors that failed or restarted, groups that
    lost bundles, what the autoscaler did and why, workers that were killed for their memory. Of each source the latest 1,000
    are remembered, where a head keeps anything also by the next one."""
    return StateApiClient(address).list(
        "cluster_events", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_placement_groups(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.PlacementGroupState]:
    """As `list_tasks`; none yet."""
    return StateApiClient(address).list(
        "placement_groups", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_nodes(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.NodeState]:
    """As `list_tasks`."""
    return StateApiClient(address).list(
        "nodes", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_jobs(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.JobState]:
    """As `list_tasks`."""
    return StateApiClient(address).list(
        "jobs", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_workers(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.WorkerState]:
    """As `list_tasks`."""
    return StateApiClient(address).list(
        "workers", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_tasks(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.TaskState]:
    """Tasks and calls, a state for each attempt, as the other `list_` functions.

    address: see `StateApiClient`; None for the session of this process. filters: a list of (column, operator, value), of
    which all must be met; the operators are = != < > and "in" with a list, and text is compared without regard to case.
    limit: how many at most, `offset` how many to leave out before. order_by: a column, or "-column" for descending;
    tasks come by id, which is each owner's order of submission, unless this says otherwise. detail: fill in all columns.
    timeout: seconds. raise_on_missing_output: raise UmbelStateApiException when something is not known, such as what a
    stopped process does; else warn. Raises InvalidOption, a ValueError that says what is allowed, for bad arguments.
    """
    return StateApiClient(address).list(
        "tasks", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_objects(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.ObjectState]:
    """As `list_tasks`."""
    return StateApiClient(address).list(
        "objects", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def list_runtime_envs(
    address: str | None = None,
    filters: Any = None,
    limit: int = common.DEFAULT_LIMIT,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    order_by: str | None = None,
    offset: int = 0,
) -> list[common.RuntimeEnvState]:
    """As `list_tasks`."""
    return StateApiClient(address).list(
        "runtime_envs", filters=filters, limit=limit, timeout=timeout, detail=detail, order_by=order_by, offset=offset,
        raise_on_missing_output=raise_on_missing_output, _explain=_explain,
    )  # fmt: skip


def summarize_tasks(
    address: str | None = None,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    filters: Any = None,
) -> dict[str, Any]:
    """How many tasks are in which state, by name: {"cluster": {"summary": {name: {"state_counts": ...}}, ...}}."""
    return StateApiClient(address).summary(
        "tasks", filters=filters, timeout=timeout, raise_on_missing_output=raise_on_missing_output, _explain=_explain
    )


def summarize_actors(
    address: str | None = None,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    filters: Any = None,
) -> dict[str, Any]:
    """How many actors are in which state, by class."""
    return StateApiClient(address).summary(
        "actors", filters=filters, timeout=timeout, raise_on_missing_output=raise_on_missing_output, _explain=_explain
    )


def summarize_objects(
    address: str | None = None,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
    *,
    filters: Any = None,
) -> dict[str, Any]:
    """How many objects there are and how large they are, by call site."""
    return StateApiClient(address).summary(
        "objects", filters=filters, timeout=timeout, raise_on_missing_output=raise_on_missing_output, _explain=_explain
    )
