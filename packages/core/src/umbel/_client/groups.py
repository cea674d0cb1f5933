"""This process's side of placement groups: making and removing them, and waiting until they are placed.

The node's daemon places them; here is who waits for that. Loaded with the first group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import context, refs
from umbel._model import resources as resource_model

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine
    from umbel._objects import ownership

CREATED, REMOVED = "CREATED", "REMOVED"


class Awaited:
    """What a pending object stands for that becomes `value`, as encoded, when its group is placed."""

    __slots__ = ("awaited_group", "value")

    def __init__(self, group: str, value: tuple[int, Any, tuple[bytes, ...]]) -> None:
        self.awaited_group = group
        self.value = value


class Groups:
    """Methods are called without the engine's lock unless they say otherwise."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._waiting: dict[str, dict[bytes, ownership.Record]] = {}  # by group, records that wait for it, by id
        # Groups made here that have not lost their places, as far as was heard; whether it was heard that they have them.
        self._placed: dict[str, bool] = {}

    def create(
        self,
        group: str,
        bundles: Sequence[resource_model.ResourceSet],
        *,
        strategy: str,
        name: str,
        is_detached: bool,
        label_selectors: Sequence[Mapping[str, str]],
        soft_target: str,
    ) -> None:
        """Returns when it is known everywhere; where it is placed is found out later. Raises UmbelSystemError when the name
        is taken."""
        engine = self._engine
        task = context.current_task.get()
        message = {
            "t": "create_group",
            "group": group,
            "name": name,
            "namespace": engine.namespace,
            "bundles": [dict(one) for one in bundles],
            "strategy": strategy,
            "detached": is_detached,
            "label_selectors": [dict(one) for one in label_selectors],
            "soft_target": soft_target,
            "actor": task.actor.actor_id if task is not None and task.actor is not None else "",
            "depth": engine.leases.depth,
            "job": engine.welcome.get("job_id") or "",
        }
        is_placed = False
        self._placed[group] = False  # what is heard of it before this goes on is heard
        try:
            is_placed = self._ask(message).get("state") == CREATED
        finally:
            with engine.lock:
                if not is_placed:
                    self._placed.pop(group, None)
                elif group in self._placed:
                    self._placed[group] = True

    def is_placed(self, group: str) -> bool:
        """Whether all of it is known to have a place, without asking."""
        self._engine.check_running()
        return self._placed.get(group, False)

    def remove(self, group: str) -> None:
        """Returns when it is on its way out; whoever runs in it is being killed. One that is not there is no error."""
        self._placed.pop(group, None)
        self._ask({"t": "remove_group", "group": group})

    def find(self, name: str) -> tuple[str, list[dict[str, float]]]:
        """The id and the bundles of the group of that name. Raises ValueError when there is none."""
        return self._get({"t": "get_group", "name": name, "namespace": self._engine.namespace})

    def bundles(self, group: str) -> list[dict[str, float]]:
        """Raises ValueError for a group that nobody knows (any more)."""
        return self._get({"t": "get_group", "group": group})[1]

    def _get(self, message: dict[str, Any]) -> tuple[str, list[dict[str, float]]]:
        self._engine.check_running()
        answer, _ = self._engine.agent.request(message)
        error = answer.get("error") or {}
        if error.get("kind") == "missing":
            raise ValueError(error["text"])
        _raise_error(error)
        return answer["group"], [resource_model.ResourceSet(one).to_floats() for one in answer["bundles"]]

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self._engine.check_running()
        answer, _ = self._engine.agent.request(message, is_lone=not self._engine.tasks.unfinished)
        _raise_error(answer.get("error") or {})
        return answer

    def ready(self, group: str, value: Any) -> refs.ObjectRef[Any]:
        """A new object, which becomes `value` when the group is placed, or the error that says that it is gone."""
        engine = self._engine
        encoded = engine.values.encode(value)
        with engine.lock:
            engine.check_running()
            record = engine.own_next()
            if self._placed.get(group):
                engine.values.settle(record, *encoded)
                return refs.ObjectRef(record.object_id, engine)
            record.task = Awaited(group, encoded)
            known = engine.values.table.records
            waiting = {one: kept for one, kept in self._waiting.get(group, {}).items() if one in known}
            self._waiting[group] = {**waiting, record.object_id: record}
            engine.agent.notify({"t": "group_watch", "group": group})
        return refs.ObjectRef(record.object_id, engine)

    def on_state(self, message: dict[str, Any]) -> None:
        """From the agent. Lock held."""
        if message["state"] != CREATED:
            self._placed.pop(message["group"], None)
            if message["state"] != REMOVED:
                return  # who waits for it goes on waiting
        values = self._engine.values
        for object_id, record in self._waiting.pop(message["group"], {}).items():
            if object_id not in values.table.records:
                continue  # nobody waits for it any more
            if message["state"] == CREATED and isinstance(record.task, Awaited):
                values.settle(record, *record.task.value)
            else:
                values.settle_error(record, _gone(message))

    def agent_gone(self, error: BaseException) -> None:
        """Nobody will tell. Lock held."""
        for waiting in self._waiting.values():
            for object_id, record in waiting.items():
                if object_id in self._engine.values.table.records:
                    self._engine.values.settle_error(record, error)
        self._waiting.clear()
        self._placed.clear()


def stats(one: Mapping[str, Any]) -> dict[str, Any]:
    """How a group's placing went. `one`: as the engine lists it."""
    ready_ms = 1e3 * (one["ready_after_s"] or 0.0)
    state = {"CREATED": "FINISHED", "REMOVED": "REMOVED"}.get(one["state"], "QUEUED")
    if one["is_infeasible"] and one["state"] != "REMOVED":
        state = "INFEASIBLE"
    return {
        "end_to_end_creation_latency_ms": ready_ms,
        "scheduling_latency_ms": ready_ms,
        "scheduling_attempt": one["attempts"],
        "highest_retry_delay_ms": 0.0,
        "scheduling_state": state,
    }


def _gone(message: Mapping[str, Any]) -> BaseException:
    text = f"placement group {message['group']} "
    if message["unschedulable"]:
        return exceptions.TaskUnschedulableError(f"{text}can never be placed: {message['reason']}")
    return exceptions.TaskPlacementGroupRemoved(f"{text}is gone: {message['reason']}")


def _raise_error(error: Mapping[str, Any]) -> None:
    if error:
        raise exceptions.UmbelSystemError(str(error.get("text")))
