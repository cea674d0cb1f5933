"""Placement groups of the inline engine: what they hold of the session's resources, and what waits for them.

Nothing that runs here is counted against resources, so bundles compete with other bundles only. A group is placed at once
if what the groups before it have left is enough, else when one of them is removed.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import refs
from umbel._client.inline import actors, calls, values
from umbel._model import options as option_model
from umbel._model import placement, reasons
from umbel._model import resources as resource_model
from umbel._objects import ownership
from umbel._scheduling import bundles

if TYPE_CHECKING:
    from umbel._client.inline.engine import InlineEngine

REMOVED_KEPT_MAX = 1_000  # groups whose end can still be asked for
PENDING, CREATED, REMOVED = "PENDING", "CREATED", "REMOVED"


class Awaited:
    """What a pending object stands for that becomes a handle to the group."""

    def __init__(self, group: Group) -> None:
        self.awaited_group = group.id
        self._group = group

    def why(self) -> reasons.Reason:
        return self._group.why()


class Group:
    """One group."""

    def __init__(
        self, group_id: str, amounts: Sequence[resource_model.ResourceSet], strategy: str, name: str, namespace: str
    ) -> None:
        self.id = group_id
        self.bundles = list(amounts)
        self.strategy = strategy
        self.name = name
        self.namespace = namespace
        self.is_detached = False
        self.label_selectors: Sequence[Mapping[str, str]] = ()
        self.state = PENDING
        self.reason = ""
        self.is_infeasible = False
        self.created_s = time.monotonic()
        self.ready_s: float | None = None
        self.waiting: list[tuple[ownership.Record, values.Encoded]] = []
        self.held_back: list[Callable[[], None]] = []  # what starts when it is placed

    def why(self) -> reasons.Reason:
        facts = {"group": self.id, "state": self.state}
        subject = f"placement group {self.id}"
        if self.state != PENDING:
            code = reasons.READY if self.state == CREATED else reasons.UNKNOWN
            return reasons.Reason(code, subject, "is placed" if self.state == CREATED else self.reason, facts=facts)
        code = reasons.INFEASIBLE if self.is_infeasible else reasons.GROUP
        text = f"cannot be placed: {self.reason}" if self.is_infeasible else self.reason
        return reasons.Reason(code, subject, text, facts=facts)


class Groups:
    """The session's groups. Methods take the turn and the mutex, unless they say that the mutex is held."""

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine
        self._groups: dict[str, Group] = {}  # in order of creation
        self._removed: OrderedDict[str, Group] = OrderedDict()

    # What the public functions call

    def create(
        self,
        group: str,
        amounts: Sequence[resource_model.ResourceSet],
        *,
        strategy: str,
        name: str,
        is_detached: bool,
        label_selectors: Sequence[Mapping[str, str]],
        soft_target: str,  # there is one node
    ) -> None:
        engine = self._engine
        with engine.baton.turn(), engine.mutex:
            engine._check_open()
            taken = self._named(name) if name else None
            if taken is not None:
                raise exceptions.UmbelSystemError(
                    f"a placement group named {name!r} already exists in namespace {engine.namespace!r} (id {taken.id}); "
                    "choose another name, remove it, or get it with get_placement_group()"
                )
            made = self._groups[group] = Group(group, amounts, strategy, name, engine.namespace)
            made.is_detached = is_detached
            made.label_selectors = label_selectors
            self._place()

    def _named(self, name: str) -> Group | None:
        return next((one for one in self._groups.values() if one.name == name), None)

    def remove(self, group: str) -> None:
        engine = self._engine
        with engine.baton.turn(), engine.mutex:
            engine._check_open()
            found = self._groups.pop(group, None)
            if found is not None:
                self._remove(found)
                self._place()

    def find(self, name: str) -> tuple[str, list[dict[str, float]]]:
        with self._engine.baton.turn(), self._engine.mutex:
            found = self._named(name)
            if found is None:
                raise ValueError(
                    f"there is no placement group named {name!r} in namespace {self._engine.namespace!r}; "
                    "umbel.util.placement_group_table() lists all"
                )
            return found.id, [one.to_floats() for one in found.bundles]

    def bundles(self, group: str) -> list[dict[str, float]]:
        with self._engine.baton.turn(), self._engine.mutex:
            found = self._groups.get(group) or self._removed.get(group)
            if found is None:
                raise ValueError(f"there is no placement group with the id {group}")
            return [one.to_floats() for one in found.bundles]

    def is_placed(self, group: str) -> bool:
        return False  # `ready` tells as soon

    def ready(self, group: str, value: Any) -> refs.ObjectRef[Any]:
        engine = self._engine
        encoded = values.encode(value)
        with engine.baton.turn(), engine.mutex:
            engine._check_open()
            found = self._groups.get(group)
            object_id = engine.tasks.next_id() + bytes(calls.INDEX_BYTES)
            owner = engine.session_context.worker_id
            record = engine.values.new(object_id, Awaited(found) if found is not None else None, owner)
            if found is None:
                engine.values.settle(record, values.Failure(_gone(group, self._end_of(group)), "ready").encoded())
            elif found.state == CREATED:
                engine.values.settle(record, encoded)
            else:
                found.waiting.append((record, encoded))
            return engine.values.ref(object_id)

    # Placing; mutex held

    def _place(self) -> None:
        """Place what can be, in the order of creation."""
        engine = self._engine
        left = engine.resources
        for group in self._groups.values():
            if group.state == CREATED:
                left = left.subtract(_sum(group))
        for group in self._groups.values():
            if group.state != PENDING:
                continue
            view = placement.NodeView(engine.node_id, engine.resources, left, engine.labels, is_local=True)
            demand = bundles.GroupDemand(group.bundles, group.strategy, {}, group.label_selectors)
            found = bundles.place(demand, placement.ClusterView((view,)))
            group.reason, group.is_infeasible = found.reason, not found.is_feasible
            if found.is_ready:
                left = left.subtract(_sum(group))
                self._created(group)

    def _created(self, group: Group) -> None:
        group.state = CREATED
        group.ready_s = time.monotonic()
        waiting, group.waiting = group.waiting, []
        for record, encoded in waiting:
            self._engine.values.settle(record, encoded)
        held_back, group.held_back = group.held_back, []
        for start in held_back:
            start()

    def admits(self, recipe: calls.Recipe, start: Callable[[], None]) -> bool:
        """Whether what runs in this group may start now. If not, `start` is called when the group is placed; where it has
        ended, see `trouble`. Mutex held."""
        found = self._groups.get(recipe.in_group.group) if recipe.in_group is not None else None
        if found is None or found.state == CREATED:
            return True
        found.held_back.append(start)
        return False

    def holds_back(self, call: calls.Call) -> reasons.Reason | None:
        """What a call that has not started waits for, if that is its group. Mutex held."""
        found = self._groups.get(call.recipe.in_group.group) if call.recipe.in_group is not None else None
        return found.why() if found is not None and found.state == PENDING and not call.is_started else None

    def trouble(self, in_group: option_model.InGroup | None) -> str:
        """Why nothing will ever run in the group; "" if something may. Mutex held."""
        return "" if in_group is None or in_group.group in self._groups else self._end_of(in_group.group)

    def _end_of(self, group: str) -> str:
        removed = self._removed.get(group)
        return removed.reason if removed is not None else "there is no such placement group (any more)"

    def _remove(self, group: Group) -> None:
        engine = self._engine
        group.state = REMOVED
        group.reason = "it was removed by remove_placement_group()"
        self._removed[group.id] = group
        if len(self._removed) > REMOVED_KEPT_MAX:
            self._removed.popitem(last=False)
        group.held_back.clear()
        waiting, group.waiting = group.waiting, []
        for record, _ in waiting:
            engine.values.settle(record, values.Failure(_gone(group.id, group.reason), "ready").encoded())
        for actor in engine.registry.living():
            if _is_in(group, actor.creation):
                actor.die(self.actor_failure(actor, group.reason))
        for call in sorted(engine.tasks.unfinished, key=lambda one: one.task_id):
            if call.actor is None and not call.is_done and _is_in(group, call):
                failure = self.task_failure(call, group.reason)
                if call.is_started:
                    engine.tasks.stop(call, failure)
                else:
                    engine.tasks.fail(call, failure)

    @staticmethod
    def task_failure(call: calls.Call, reason: str) -> values.Failure:
        group = call.recipe.in_group.group if call.recipe.in_group is not None else ""
        text = f"task {call.name} cannot run: the placement group {group} that it was to run in is gone: {reason}"
        return values.Failure(exceptions.TaskPlacementGroupRemoved(text), call.name)

    @staticmethod
    def actor_failure(actor: actors.Actor, reason: str) -> values.Failure:
        in_group = actor.creation.recipe.in_group
        group = in_group.group if in_group is not None else ""
        text = f"{actor.label} is dead: the placement group {group} that it was to live in is gone: {reason}"
        error = exceptions.ActorPlacementGroupRemoved(text, actor_id=actor.actor_id.hex())
        return values.Failure(error, actor.label)

    # Queries; mutex held

    def listed(self, group: str = "") -> list[dict[str, Any]]:
        """As the native engine's agent lists them: this one if it is known, or all."""
        if group:
            found = self._groups.get(group) or self._removed.get(group)
            return [self._listed(found)] if found is not None else []
        return [self._listed(one) for known in (self._groups, self._removed) for one in known.values()]

    def _listed(self, one: Group) -> dict[str, Any]:
        return {
            "group": one.id,
            "name": one.name,
            "namespace": one.namespace,
            "state": one.state,
            "strategy": one.strategy,
            "bundles": [dict(bundle) for bundle in one.bundles],
            "nodes": [self._engine.node_id if one.ready_s is not None else ""] * len(one.bundles),
            "is_detached": one.is_detached,
            "owner": self._engine.process_id.hex(),
            "job": self._engine._driver_session.job_id,
            "attempts": int(one.ready_s is not None),
            "ready_after_s": None if one.ready_s is None else one.ready_s - one.created_s,
            "is_infeasible": one.is_infeasible,
            "why": one.why().as_json(),
        }

    def held(self) -> resource_model.ResourceSet:
        """What all groups hold."""
        total = resource_model.EMPTY
        for group in self._groups.values():
            if group.state == CREATED:
                total = total.add(_sum(group))
        return total

    def as_resources(self, used: Sequence[tuple[option_model.InGroup, Mapping[str, int]]]) -> dict[str, int]:
        """What bundles have, less what is used in them, under the names that programs know."""
        found: dict[str, int] = {}
        for group in self._groups.values():
            if group.state != CREATED:
                continue
            free = [{**bundle, "bundle": 1_000 * resource_model.RESOURCE_UNIT} for bundle in group.bundles]
            for in_group, amounts in used:
                if in_group.group != group.id:
                    continue
                meant = free if in_group.bundle_index < 0 else [free[in_group.bundle_index]]
                room = (one for one in meant if all(one.get(name, 0) >= need for name, need in amounts.items()))
                chosen = next(room, meant[0])
                for name, need in amounts.items():
                    chosen[name] = max(0, chosen.get(name, 0) - need)
            for index, one in enumerate(free):
                for name, amount in one.items():
                    for shown in (f"{name}_group_{index}_{group.id}", f"{name}_group_{group.id}"):
                        found[shown] = found.get(shown, 0) + amount
        return found


def _sum(group: Group) -> resource_model.ResourceSet:
    total = resource_model.EMPTY
    for bundle in group.bundles:
        total = total.add(bundle)
    return total


def _is_in(group: Group, call: calls.Call) -> bool:
    return call.recipe.in_group is not None and call.recipe.in_group.group == group.id


def _gone(group: str, reason: str) -> exceptions.TaskPlacementGroupRemoved:
    return exceptions.TaskPlacementGroupRemoved(f"placement group {group} is gone: {reason}")
