"""What the listings consist of: one dataclass for each kind of thing, with Ray's names and meanings.

Columns marked as detail are filled in when `detail=True` was asked for, and by the `get_` functions. Times are
milliseconds since 1970. Beyond Ray's, the times of tasks and the sizes of objects can be compared by `<` and `>`.
"""

# ruff: noqa: RUF009 - `_column` makes a field

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

DEFAULT_RPC_TIMEOUT = 30
DEFAULT_LIMIT = 100
_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


def _column(*, filterable: bool = True, detail: bool = False) -> Any:
    """A field. Those of details, and of what may not be known, default to None."""
    return dataclasses.field(default=None, metadata={"filterable": filterable, "detail": detail})


class StateSchema:
    """What the dataclasses share: their columns, and access by name as to a dictionary."""

    ID: ClassVar[str] = ""  # the column by which `get_` finds one

    @classmethod
    def list_columns(cls, detail: bool = True) -> list[str]:
        """Names of the columns, without those of details unless `detail`."""
        return [one.name for one in _fields(cls) if detail or not one.metadata["detail"]]

    @classmethod
    def columns(cls) -> set[str]:
        return set(cls.list_columns(detail=True))

    @classmethod
    def base_columns(cls) -> set[str]:
        return set(cls.list_columns(detail=False))

    @classmethod
    def detail_columns(cls) -> set[str]:
        return set(cls.list_columns(detail=True))

    @classmethod
    def filterable_columns(cls) -> set[str]:
        return set(cls.filter_kinds())

    @classmethod
    def filter_kinds(cls) -> dict[str, type]:
        """The columns that may be filtered by, with what their values are."""
        kinds = {one.name: str(one.type).partition(" |")[0] for one in _fields(cls) if one.metadata["filterable"]}
        return {name: _KINDS[kind] for name, kind in kinds.items()}

    def asdict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]  # subclasses are dataclasses

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


@dataclass
class ActorState(StateSchema):
    """One actor. state: DEPENDENCIES_UNREADY (arguments of its constructor are being computed), PENDING_CREATION, ALIVE,
    RESTARTING or DEAD."""

    ID = "actor_id"

    actor_id: str = _column()
    class_name: str = _column()
    state: str = _column()
    job_id: str = _column()
    name: str | None = _column()
    node_id: str | None = _column()
    pid: int | None = _column()
    ray_namespace: str | None = _column()
    serialized_runtime_env: str | None = _column(filterable=False, detail=True)
    required_resources: dict[str, float] | None = _column(filterable=False, detail=True)
    death_cause: dict[str, Any] | None = _column(filterable=False, detail=True)
    is_detached: bool | None = _column(filterable=False, detail=True)
    placement_group_id: str | None = _column(detail=True)
    repr_name: str | None = _column(detail=True)
    num_restarts: int | None = _column(filterable=False, detail=True)
    num_restarts_due_to_lineage_reconstruction: int | None = _column(filterable=False, detail=True)
    num_restarts_due_to_node_preemption: int | None = _column(filterable=False, detail=True)
    call_site: str | None = _column(filterable=False, detail=True)
    label_selector: dict[str, Any] | None = _column(filterable=False, detail=True)
    fallback_strategy: dict[str, Any] | None = _column(filterable=False, detail=True)


@dataclass
class PlacementGroupState(StateSchema):
    """One placement group. state: PENDING, CREATED, RESCHEDULING (it has lost bundles with a node) or REMOVED."""

    ID = "placement_group_id"

    placement_group_id: str = _column()
    name: str = _column()
    creator_job_id: str = _column()
    state: str = _column()
    bundles: list[dict[str, Any]] | None = _column(filterable=False, detail=True)
    is_detached: bool | None = _column(detail=True)
    stats: dict[str, Any] | None = _column(filterable=False, detail=True)
    topology_strategy: dict[str, Any] | None = _column(filterable=False, detail=True)
    topology_assignments: dict[str, Any] | None = _column(filterable=False, detail=True)


@dataclass
class NodeState(StateSchema):
    """One node. state: ALIVE or DEAD."""

    ID = "node_id"

    node_id: str = _column()
    node_ip: str = _column()
    is_head_node: bool = _column()
    state: str = _column()
    state_message: str | None = _column(filterable=False)
    node_name: str = _column()
    resources_total: dict[str, float] = _column(filterable=False)
    labels: dict[str, str] = _column(filterable=False)
    start_time_ms: int | None = _column(filterable=False, detail=True)
    end_time_ms: int | None = _column(filterable=False, detail=True)


@dataclass
class JobState(StateSchema):
    """One job: a driver and all it has submitted. Submitted jobs come with clusters. priority, weight and preempt are not
    Ray's: see `umbel.job_config.JobConfig`."""

    ID = "job_id"

    job_id: str | None = _column()
    submission_id: str | None = _column()
    entrypoint: str = _column(filterable=False)
    type: str = _column()
    status: str = _column()
    priority: int = _column()
    weight: float = _column(filterable=False)
    message: str | None = _column(filterable=False)
    error_type: str | None = _column(filterable=False)
    driver_info: dict[str, Any] | None = _column(filterable=False)
    start_time: int | None = _column(filterable=False, detail=True)
    end_time: int | None = _column(filterable=False, detail=True)
    metadata: dict[str, str] | None = _column(filterable=False, detail=True)
    runtime_env: dict[str, Any] | None = _column(filterable=False, detail=True)
    driver_agent_http_address: str | None = _column(filterable=False, detail=True)
    driver_node_id: str | None = _column(filterable=False, detail=True)
    preempt: bool = _column(filterable=False, detail=True)
    driver_exit_code: int | None = _column(filterable=False, detail=True)


@dataclass
class WorkerState(StateSchema):
    """One process that runs tasks, or a driver."""

    ID = "worker_id"

    worker_id: str = _column()
    is_alive: bool = _column()
    worker_type: str = _column()
    exit_type: str | None = _column()
    node_id: str = _column()
    ip: str = _column()
    pid: int = _column()
    exit_detail: str | None = _column(filterable=False, detail=True)
    worker_launch_time_ms: int | None = _column(filterable=False, detail=True)
    worker_launched_time_ms: int | None = _column(filterable=False, detail=True)
    start_time_ms: int | None = _column(filterable=False, detail=True)
    end_time_ms: int | None = _column(filterable=False, detail=True)
    debugger_port: int | None = _column(detail=True)
    num_paused_threads: int | None = _column(detail=True)


@dataclass
class TaskState(StateSchema):
    """One attempt of one task or call.

    state: PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY
    (sent to its actor), RUNNING, RUNNING_IN_RAY_GET (it waits in `get` or `wait`), FINISHED or FAILED. type: NORMAL_TASK,
    ACTOR_CREATION_TASK or ACTOR_TASK.
    """

    ID = "task_id"

    task_id: str = _column()
    attempt_number: int = _column()
    name: str = _column()
    state: str = _column()
    job_id: str = _column()
    actor_id: str | None = _column()
    type: str = _column()
    func_or_class_name: str = _column()
    parent_task_id: str | None = _column()
    node_id: str | None = _column()
    worker_id: str | None = _column()
    worker_pid: int | None = _column()
    error_type: str | None = _column()
    language: str | None = _column(detail=True)
    required_resources: dict[str, float] | None = _column(filterable=False, detail=True)
    runtime_env_info: dict[str, Any] | None = _column(filterable=False, detail=True)
    placement_group_id: str | None = _column(detail=True)
    events: list[dict[str, Any]] | None = _column(filterable=False, detail=True)
    profiling_data: dict[str, Any] | None = _column(filterable=False, detail=True)
    creation_time_ms: int | None = _column(detail=True)
    start_time_ms: int | None = _column(detail=True)
    end_time_ms: int | None = _column(detail=True)
    task_log_info: dict[str, Any] | None = _column(filterable=False, detail=True)
    error_message: str | None = _column(filterable=False, detail=True)
    is_debugger_paused: bool | None = _column(detail=True)
    call_site: str | None = _column(filterable=False, detail=True)
    label_selector: dict[str, Any] | None = _column(filterable=False, detail=True)
    fallback_strategy: dict[str, Any] | None = _column(filterable=False, detail=True)


@dataclass
class ObjectState(StateSchema):
    """One kind of reference of one process to one object. object_size: bytes, -1 where it is not known."""

    ID = "object_id"

    object_id: str = _column()
    object_size: int = _column()
    task_status: str = _column()
    attempt_number: int = _column()
    reference_type: str = _column()
    call_site: str = _column()
    type: str = _column()
    pid: int = _column()
    ip: str = _column()
    node_id: str | None = _column()


@dataclass
class RuntimeEnvState(StateSchema):
    """One runtime environment that a worker has, or that is built or waited for. success: None until it is there."""

    runtime_env: dict[str, Any] = _column(filterable=False)
    success: bool | None = _column()
    creation_time_ms: float | None = _column(filterable=False)
    node_id: str = _column()
    ref_cnt: int | None = _column(filterable=False, detail=True)
    error: str | None = _column(detail=True)


@dataclass
class ClusterEventState(StateSchema):
    """Something that has happened to the cluster. time: local, with its offset. severity: INFO, WARNING or ERROR. source_type:
    CLUSTER_LIFECYCLE (nodes), JOBS, ACTORS, PLACEMENT_GROUPS, AUTOSCALER or MEMORY."""

    severity: str = _column()
    time: str = _column(filterable=False)
    source_type: str = _column()
    message: str = _column(filterable=False)
    event_id: str = _column()
    custom_fields: dict[str, Any] | None = _column(filterable=False, detail=True)


SCHEMAS: dict[str, type[StateSchema]] = {
    "actors": ActorState,
    "cluster_events": ClusterEventState,
    "jobs": JobState,
    "nodes": NodeState,
    "objects": ObjectState,
    "placement_groups": PlacementGroupState,
    "runtime_envs": RuntimeEnvState,
    "tasks": TaskState,
    "workers": WorkerState,
}
