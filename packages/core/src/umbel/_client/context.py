"""What is running here: the context of the current task or actor call.

Engines set `current_task` around user code; `RuntimeContext` is its public face, from `umbel.get_runtime_context()`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from typing import Any

from umbel._client import current


class TaskContext:
    """One running task or actor call. Ids are in hex; empty strings where there is none."""

    __slots__ = ("actor", "attempt", "function_name", "is_canceled", "key", "name", "resources", "task_id")

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
    ) -> None:
        self.task_id = task_id
        self.name = name
        self.function_name = function_name
        self.resources = resources or {}
        self.attempt = attempt
        self.actor = actor
        self.is_canceled = False
        self.key = key  # the engine's own handle on the task, by which it finds the tasks this one submitted


class ActorContext:
    """The actor that this process, or this part of it, hosts."""

    __slots__ = ("actor_id", "class_name", "is_reconstructed", "make_handle", "name", "namespace", "resources")

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
    ) -> None:
        self.actor_id = actor_id
        self.class_name = class_name
        self.name = name
        self.namespace = namespace
        self.resources = resources or {}
        self.is_reconstructed = is_reconstructed
        self.make_handle = make_handle  # a weak handle to the actor itself


class SessionContext:
    """What holds for the whole process. `kind` is "driver" or "worker"."""

    __slots__ = (
        "accelerator_ids",
        "address",
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
        address: str = "",
        labels: Mapping[str, str] | None = None,
        accelerator_ids: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.kind = kind
        self.worker_id = worker_id
        self.node_id = node_id
        self.job_id = job_id
        self.namespace = namespace
        self.session_dir = session_dir
        self.address = address
        self.labels = labels or {}
        self.accelerator_ids = {} if accelerator_ids is None else accelerator_ids


current_task: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("umbel_current_task", default=None)


class RuntimeContext:
    """Where the calling code runs. Ids are in hex; what does not apply is None."""

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
        return dict(self._session.labels)

    @property
    def gcs_address(self) -> str:
        """The address other processes would connect to; empty for a private cluster."""
        return self._session.address

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
        return {name: list(ids) for name, ids in self._session.accelerator_ids.items()}

    def get_runtime_env_string(self) -> str:
        return "{}"

    def get_placement_group_id(self) -> str | None:
        """None: placement groups come with clusters of several nodes."""
        return None

    def is_canceled(self) -> bool:
        """Whether the running task was cancelled; for sync and threaded actors, which are not interrupted. Raises
        RuntimeError on the driver."""
        task = current_task.get()
        if task is None:
            raise RuntimeError("is_canceled() is only known inside a task or actor")
        return task.is_canceled

    @staticmethod
    def _actor() -> ActorContext | None:
        task = current_task.get()
        return task.actor if task is not None else None


def get_runtime_context() -> RuntimeContext:
    """The context of the calling code; starts a session when none runs."""
    return RuntimeContext(current.engine().session_context)
