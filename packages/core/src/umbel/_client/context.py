"""What is running here: the context of the current task or actor call.

Engines set `current_task` around user code; `RuntimeContext` is its public face, from `umbel.get_runtime_context()`.
"""

from __future__ import annotations

import contextvars
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from umbel._client import current
from umbel._model import ids, node_labels
from umbel._model import options as option_model
from umbel._model import resources as resource_model


class TaskContext:
    """One running task or actor call. Ids are in hex; empty strings where there is none."""

    __slots__ = (
        "__weakref__", "actor", "attempt", "env_vars", "function_name", "is_canceled", "is_coroutine", "key", "name", "resources",
        "task_id",
    )  # fmt: skip

    def __init__(
        self,
        task_id: str,
        name: str,
        function_name: str,
        *,
        resources: Mapping[str, float] | None = None,
        attempt: int = 0,
        actor: ActorContext | None = None,
        key: Any = None,
        env_vars: Mapping[str, str] | None = None,
    ) -> None:
        self.task_id = task_id
        self.name = name
        self.function_name = function_name
        self.resources = resources or {}
        self.attempt = attempt
        self.actor = actor
        self.is_canceled = False
        self.is_coroutine = False  # of an actor: cancelled by asyncio's means, so that `is_canceled` stays False
        self.env_vars = env_vars  # None: those of the session, as where a process has one environment
        self.key = key  # the engine's own handle on the task, by which it finds the tasks this one submitted

    @property
    def in_group(self) -> option_model.InGroup | None:
        """The placement group in which it runs."""
        if self.actor is not None:
            return self.actor.in_group
        found: option_model.InGroup | None = getattr(self.key, "in_group", None)
        return found


class ActorContext:
    """The actor that this process, or this part of it, hosts."""

    __slots__ = (
        "actor_id",
        "class_name",
        "in_group",
        "is_reconstructed",
        "make_handle",
        "name",
        "namespace",
        "resources",
    )

    def __init__(
        self,
        actor_id: str,
        class_name: str,
        *,
        name: str = "",
        namespace: str = "",
        resources: Mapping[str, float] | None = None,
        is_reconstructed: bool = False,
        make_handle: Callable[[], Any] | None = None,
        in_group: option_model.InGroup | None = None,
    ) -> None:
        self.actor_id = actor_id
        self.class_name = class_name
        self.name = name
        self.namespace = namespace
        self.resources = resources or {}
        self.is_reconstructed = is_reconstructed
        self.make_handle = make_handle  # a weak handle to the actor itself
        self.in_group = in_group  # the placement group in which it lives


class SessionContext:
    """What holds for the whole process. `kind` is "driver" or "worker"."""

    __slots__ = (
        "__weakref__",
        "accelerator_ids",
        "env_vars",
        "environment",
        "job_id",
        "kind",
        "labels",
        "namespace",
        "node_id",
        "session_dir",
        "worker_id",
    )

    def __init__(
        self,
        *,
        kind: str,
        worker_id: str,
        node_id: str,
        job_id: str,
        namespace: str,
        session_dir: str,
        labels: Mapping[str, str] | None = None,
        accelerator_ids: Mapping[str, list[str]] | None = None,
        env_vars: Mapping[str, str] | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.worker_id = worker_id
        self.node_id = node_id
        self.job_id = job_id
        self.namespace = namespace
        self.session_dir = session_dir
        self.labels = labels or {}
        self.accelerator_ids = {} if accelerator_ids is None else accelerator_ids
        self.env_vars = env_vars or {}  # of the runtime_env in which this process runs
        self.environment = environment or {}  # the rest of it, as it travels

    def runtime_env(self, env_vars: Mapping[str, str]) -> dict[str, Any]:
        """The environment of this process with these variables, as the option is written; {} where none was asked for."""
        if self.environment:
            from umbel._model import runtime_envs

            return runtime_envs.as_option({**self.environment, "env_vars": env_vars})
        return {"env_vars": dict(env_vars)} if env_vars else {}


current_task: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("umbel_current_task", default=None)


def current_group() -> option_model.InGroup | None:
    """The placement group in which the calling code runs."""
    task = current_task.get()
    return task.in_group if task is not None else None


class RuntimeContext:
    """Where the calling code runs. Ids are in hex; what does not apply is None.

    The properties that give ids as objects, `get` and `get_resource_ids` are there for older programs, and warn.
    """

    def __init__(self, session: SessionContext) -> None:
        self._session = session

    def get_job_id(self) -> str:
        return self._session.job_id

    def get_node_id(self) -> str:
        return self._session.node_id

    def get_worker_id(self) -> str:
        return self._session.worker_id

    def get_session_name(self) -> str:
        return self._session.session_dir.rsplit("/", 1)[-1]

    def get_temp_dir(self) -> str:
        return self._session.session_dir.rsplit("/", 1)[0]

    def get_node_labels(self) -> dict[str, str]:
        """The labels of this node: its id as "umbel.io/node-id", and those it was started with."""
        return {node_labels.NODE_ID: self._session.node_id, **self._session.labels}

    @property
    def gcs_address(self) -> str:
        """host:port of the cluster's head; "" for a node that is in none."""
        from umbel._client import current

        heads = [one for one in current.running().query("nodes") if one.get("is_head") and one.get("alive", True)]
        return str(heads[0].get("address", "")) if heads else ""

    @property
    def namespace(self) -> str:
        return self._session.namespace

    @property
    def worker_mode(self) -> str:
        return self._session.kind

    def get_task_id(self) -> str | None:
        task = current_task.get()
        return task.task_id if task is not None else None

    def get_task_name(self) -> str | None:
        task = current_task.get()
        return task.name if task is not None else None

    def get_task_function_name(self) -> str | None:
        task = current_task.get()
        return task.function_name if task is not None else None

    def get_attempt_number(self) -> int | None:
        """How often the current task was tried before."""
        task = current_task.get()
        return task.attempt if task is not None else None

    def get_actor_id(self) -> str | None:
        actor = self._actor()
        return actor.actor_id if actor is not None else None

    def get_actor_name(self) -> str | None:
        actor = self._actor()
        return actor.name if actor is not None else None

    @property
    def was_current_actor_reconstructed(self) -> bool:
        actor = self._actor()
        if actor is None:
            raise RuntimeError("was_current_actor_reconstructed is only known inside an actor")
        return actor.is_reconstructed

    @property
    def current_actor(self) -> Any:
        """A weak handle to the actor that runs this. Raises RuntimeError outside an actor."""
        actor = self._actor()
        if actor is None or actor.make_handle is None:
            raise RuntimeError("current_actor is only known inside an actor; this code runs in a task or the driver")
        return actor.make_handle()

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task or actor holds, such as {"CPU": 1.0}. Raises RuntimeError on the driver."""
        task = current_task.get()
        if task is None:
            if self._session.kind == "driver":
                raise RuntimeError(
                    "get_assigned_resources() is only known inside a task or actor; the driver holds none"
                )
            return {}
        if task.actor is not None:
            return dict(task.actor.resources)
        return dict(task.resources)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The devices assigned to the running task or actor, by resource; "GPU" is always among them."""
        return {resource_model.GPU: [], **{name: list(one) for name, one in self._session.accelerator_ids.items()}}

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The environment in which this runs, as the option `runtime_env` is written; {} where none was asked for."""
        task = current_task.get()
        env_vars = self._session.env_vars if task is None or task.env_vars is None else task.env_vars
        return self._session.runtime_env(env_vars)

    def get_runtime_env_string(self) -> str:
        """`runtime_env` as JSON."""
        import json

        return json.dumps(self.runtime_env)

    def get_placement_group_id(self) -> str | None:
        """Of the placement group in which the running task or actor is."""
        group = current_group()
        return group.group if group is not None else None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what the running task or actor submits runs in its placement group, unless it says otherwise."""
        group = current_group()
        return group is not None and bool(group.captures)

    def is_canceled(self) -> bool:
        """Whether the running task was cancelled; for sync and threaded actors, which are not interrupted. Raises
        RuntimeError on the driver and in a coroutine, which gets asyncio.CancelledError instead."""
        task = current_task.get()
        if task is None:
            raise RuntimeError("is_canceled() is only known inside a task or actor; the driver is not cancelled")
        if task.is_coroutine:
            raise RuntimeError(
                "is_canceled() is not there for an actor's coroutines, which are cancelled by asyncio.CancelledError at "
                "an await; catch that, or use a plain method"
            )
        return task.is_canceled

    @staticmethod
    def _actor() -> ActorContext | None:
        task = current_task.get()
        return task.actor if task is not None else None

    # For older programs

    @property
    def job_id(self) -> ids.JobID:
        """Deprecated: use `get_job_id()`."""
        _deprecated("job_id", "get_job_id()")
        return ids.JobID.from_hex(self.get_job_id())

    @property
    def node_id(self) -> ids.NodeID:
        """Deprecated: use `get_node_id()`."""
        _deprecated("node_id", "get_node_id()")
        return ids.NodeID.from_hex(self.get_node_id())

    @property
    def task_id(self) -> ids.TaskID | None:
        """Deprecated: use `get_task_id()`."""
        _deprecated("task_id", "get_task_id()")
        return self._task_id()

    @property
    def actor_id(self) -> ids.ActorID | None:
        """Deprecated: use `get_actor_id()`."""
        _deprecated("actor_id", "get_actor_id()")
        return self._actor_id()

    @property
    def current_placement_group_id(self) -> ids.PlacementGroupID:
        """Deprecated: use `get_placement_group_id()`. The nil id where there is none."""
        _deprecated("current_placement_group_id", "get_placement_group_id()")
        group = current_group()
        return ids.PlacementGroupID.from_hex(group.group) if group is not None else ids.PlacementGroupID.nil()

    def get(self) -> dict[str, Any]:
        """Deprecated: use the methods `get_..._id()`. The ids that apply, as objects, and the namespace."""
        _deprecated("get()", "get_job_id(), get_node_id() and the like")
        found = {
            "job_id": ids.JobID.from_hex(self.get_job_id()),
            "node_id": ids.NodeID.from_hex(self.get_node_id()),
            "namespace": self.namespace,
            "task_id": self._task_id(),
            "actor_id": self._actor_id(),
        }
        return {name: value for name, value in found.items() if value is not None}

    def get_resource_ids(self) -> dict[str, list[str]]:
        """Deprecated: use `get_accelerator_ids()`."""
        _deprecated("get_resource_ids()", "get_accelerator_ids()")
        return self.get_accelerator_ids()

    def _task_id(self) -> ids.TaskID | None:
        text = self.get_task_id()
        return ids.TaskID.from_hex(text) if text else None

    def _actor_id(self) -> ids.ActorID | None:
        text = self.get_actor_id()
        return ids.ActorID.from_hex(text) if text else None


def _deprecated(name: str, instead: str) -> None:
    warnings.warn(f"RuntimeContext.{name} is deprecated; use {instead}", DeprecationWarning, stacklevel=3)


def get_runtime_context() -> RuntimeContext:
    """The context of the calling code; starts a session when none runs."""
    return RuntimeContext(current.engine().session_context)
