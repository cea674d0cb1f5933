"""The inline engine's interface: what the public functions call.

Every public method is a call of Umbel in the sense of `baton`: it takes the turn, changes the books under the mutex,
perhaps waits, and gives the turn back. User code (pickling, unpickling, callbacks) runs outside of the mutex.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import actor as actor_api
from umbel._client import context, current, refs, remote_function
from umbel._client.inline import baton as baton_module
from umbel._client.inline import calls, exits, lanes, pool, registry, running, streams, tasks, values
from umbel._client.inline import mutex as mutex_module
from umbel._model import ids, node_labels, reasons
from umbel._model import options as option_model
from umbel._model import resources as resource_model
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    from umbel._client.inline import groups

PENDING = values.PENDING
ERROR = values.ERROR


class _Waker:
    """Wakes a lane when `count` records are settled, or one of them with an error if `stops_at_error`. Mutex held."""

    __slots__ = ("_baton", "_count", "_lane", "_stops_at_error")

    def __init__(self, baton: baton_module.Baton, lane: lanes.Lane, count: int, *, stops_at_error: bool) -> None:
        self._baton = baton
        self._lane = lane
        self._count = count
        self._stops_at_error = stops_at_error

    def __call__(self, record: ownership.Record | None = None) -> None:
        self._count -= 1
        if self._count <= 0 or (self._stops_at_error and record is not None and record.kind == ERROR):
            self._baton.wake(self._lane)


class InlineEngine:
    """A session within one process. See the package's docstring for what it can and cannot do.

    resources: all there is, such as {"CPU": 4.0}; what does not fit into it fails with TaskUnschedulableError or
    ActorUnschedulableError, because here no node will ever join. env_vars: set wherever tasks and actors run.
    environment: other fields of the job's runtime_env, as JSON; those that need processes are refused.
    """

    name = "inline"

    def __init__(
        self,
        *,
        resources: Mapping[str, float],
        namespace: str,
        labels: Mapping[str, str] | None = None,
        env_vars: Mapping[str, str] | None = None,
        environment: str = "",
        config: configuration.Config | None = None,
        accelerator_ids: Mapping[str, Sequence[str]] | None = None,
        node_name: str = "",
        **_for_processes: object,
    ) -> None:
        """As `umbel.init` calls every engine; what concerns processes and their memory means nothing here."""
        self.namespace = namespace
        self.config = configuration.Config() if config is None else config
        self.resources = resource_model.ResourceSet.from_floats(resources)
        self.env_vars = tuple(sorted((env_vars or {}).items()))
        if environment:
            tasks.refuse_environment(environment)
        self.labels = dict(labels or {})
        self._node_name = node_name
        gpu_count = -(-self.resources.get(resource_model.GPU, 0) // resource_model.RESOURCE_UNIT)
        named = (accelerator_ids or {}).get(resource_model.GPU)
        self._gpu_ids = [str(index) for index in range(gpu_count)] if named is None else list(named)
        self.process_id = ids.WorkerID.from_random().binary()
        self.node_id = ids.NodeID.from_random().hex()
        self.mutex = mutex_module.Mutex(self._drain)
        self.baton = baton_module.Baton(self.mutex)
        self.pool = pool.Pool(self.baton)
        self.values = values.Values(self, self.mutex, self.process_id, self.config)
        self.troubles = self.values.troubles
        self.tasks = tasks.Tasks(self)
        self.registry = registry.Registry(self)
        self.exits = exits.ExitHandlers(self)
        self._groups: groups.Groups | None = None
        self._key_values: Any = None  # with the first one
        self._making = threading.Lock()
        self._session_dir = os.path.join(
            tempfile.gettempdir(), f"umbel-inline-{os.getpid()}"
        )  # a name; nothing is there
        self._driver_session = self._session("driver", self.process_id.hex(), 0)
        self.address_info: dict[str, Any] = {
            "node_id": self.node_id,
            "session_dir": self._session_dir,
            "address": "",
            "node_ip_address": "127.0.0.1",
            "namespace": namespace,
        }
        self._is_closed = False
        self.tracing: Any = None  # set where calls are traced

    @property
    def groups(self) -> groups.Groups:
        if self._groups is None:
            from umbel._client.inline import groups  # few sessions have any

            made = groups.Groups(self)
            with self._making:
                self._groups = self._groups or made
        return self._groups

    # Calls

    def submit_task(self, template: remote_function.TaskTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recipe: calls.Recipe | None = template.engine_state
        if recipe is None or recipe.engine is not self:
            recipe = template.engine_state = self.tasks.recipe(template)
        arguments = calls.encode_arguments(template.signature, recipe.name, args, kwargs)
        with self.baton.turn() as lane:
            with self.mutex:
                self._check_open()
                call, result = self.tasks.submit(recipe, arguments)
                is_waiting = self.baton.run_first(lane, call.lane)
            if is_waiting:
                self._await_turn(lane)
        return result

    def create_actor(
        self, template: actor_api.ActorTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> actor_api.ActorHandle:
        recipe: calls.Recipe | None = template.engine_state
        if recipe is None or recipe.engine is not self:
            recipe = template.engine_state = self.registry.recipe(template)
        arguments = calls.encode_arguments(template.init_signature, recipe.name, args, kwargs)
        with self.baton.turn() as lane:
            with self.mutex:
                self._check_open()
                handle: actor_api.ActorHandle
                creation, handle = self.registry.create(template, recipe, arguments)
                is_waiting = creation is not None and self.baton.run_first(lane, creation.lane)
            if is_waiting:
                self._await_turn(lane)
        return handle

    def submit_actor_task(
        self,
        handle: actor_api.ActorHandle,
        template: actor_api.MethodTemplate,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        name = f"{handle._description.class_name}.{template.name}"
        arguments = calls.encode_arguments(template.description.signature, name, args, kwargs)
        with self.baton.turn() as lane:
            with self.mutex:
                self._check_open()
                call, result = self.registry.submit(handle, template, arguments)
                is_waiting = self.baton.run_first(lane, call.lane)
            if is_waiting:
                self._await_turn(lane)
        return result

    def _await_turn(self, lane: lanes.Lane) -> None:
        self.baton.park(lane)
        self.baton.check_interrupt(lane)

    def current_call(self) -> calls.Call | None:
        """The call whose code this is; None for the driver's."""
        task = context.current_task.get()
        if task is None or not isinstance(task.key, calls.Call) or task.key.recipe.engine is not self:
            return None
        return task.key

    def _check_open(self) -> None:
        if self._is_closed:
            raise exceptions.UmbelSystemError("this session was shut down; call umbel.init() to start another")

    def cancel(self, target: Any, *, force: bool, recursive: bool) -> None:
        with self.baton.turn(), self.mutex:
            self._check_open()
            source = self._source(target)
            call = source.call if isinstance(source, streams.Stream) else source.task
            if not isinstance(call, calls.Call):
                return
            if force and call.actor is not None:
                raise ValueError(
                    "force=True is not allowed for an actor's method: it would kill the actor; use umbel.kill(actor) "
                    "for that"
                )
            self.tasks.cancel(call, force=force, recursive=recursive)

    # Actors

    def kill(self, handle: actor_api.ActorHandle, *, no_restart: bool) -> None:
        with self.baton.turn(), self.mutex:
            self._check_open()
            self.registry.kill(handle, no_restart=no_restart)

    def get_actor(self, name: str, namespace: str | None) -> actor_api.ActorHandle:
        with self.baton.turn(), self.mutex:
            self._check_open()
            handle: actor_api.ActorHandle = self.registry.find(name, namespace or self.namespace)
            return handle

    @property
    def key_values(self) -> Any:
        """The internal key-value store."""
        from umbel._client.inline import key_values

        if self._key_values is None:
            self._key_values = key_values.KeyValues()
        return self._key_values

    def list_named_actors(self, all_namespaces: bool) -> list[Any]:
        with self.baton.turn(), self.mutex:
            self._check_open()
            if all_namespaces:
                return [{"name": name, "namespace": space} for name, space in self.registry.names(None)]
            return [name for name, _ in self.registry.names(self.namespace)]

    def exit_actor(self) -> None:
        task = context.current_task.get()
        if task is None or task.actor is None:
            raise TypeError(
                "umbel.actor.exit_actor() was called outside an actor; it ends the actor whose method calls it"
            )
        call = self.current_call()
        if call is not None and call.asyncio_task is not None:
            raise exceptions.AsyncioActorExit
        raise running.ActorExit

    # Objects

    def put(self, value: Any) -> refs.ObjectRef[Any]:
        if isinstance(value, refs.ObjectRef):
            raise TypeError(
                f"put takes a value, got {value!r}, which is a reference already; put it in a list to share it"
            )
        encoded = values.encode(value)
        with self.baton.turn(), self.mutex:
            self._check_open()
            lost = self.values.first_lost(encoded.contained)
            if lost is not None:
                raise lost
            object_id = self.tasks.next_id() + bytes(calls.INDEX_BYTES)
            self.values.settle(self.values.new(object_id, None, self.session_context.worker_id), encoded)
            return self.values.ref(object_id)

    def get(self, wanted: list[refs.ObjectRef[Any]], timeout_s: float | None) -> list[Any]:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self.baton.turn() as lane:
            with self.mutex:
                records = [self.values.find(ref) for ref in wanted]
            is_in_time = True
            while True:
                with self.mutex:
                    failed = next((record for record in records if record.kind == ERROR), None)
                    pending = list({r.object_id: r for r in records if r.kind == PENDING}.values())
                    if failed is not None or not pending:
                        break
                    self._check_open()
                    if not is_in_time:
                        raise exceptions.GetTimeoutError(
                            f"{len(pending)} of {len(records)} objects were not ready within {timeout_s} s; the first "
                            f"one: {calls.describe(pending[0])}"
                        )
                    waker = _Waker(self.baton, lane, len(pending), stops_at_error=True)
                    for record in pending:
                        self.values.on_settled(record, waker)
                    self._give_up(lane, pending[0], deadline_s)
                is_in_time = self.baton.park(lane, deadline_s)
                self._forget(waker, pending)
                self.baton.check_interrupt(lane)
        try:
            if failed is not None:
                values.read(failed)
            return [values.read(record) for record in records]
        except BaseException:
            for record in records:
                record.is_read = True  # one error stands for those of all that were asked for
            raise

    def _give_up(self, lane: lanes.Lane, first: ownership.Record | streams.Stream, deadline_s: float | None) -> None:
        call = self.current_call()
        if call is not None and call.actor is not None:
            call.actor.blocked(lane)
        self.baton.give_up(lane, functools.partial(_name, first), deadline_s)

    def _forget(self, waker: Callable[..., None], records: list[ownership.Record]) -> None:
        with self.mutex:
            for record in records:
                if record.waiters is not None and waker in record.waiters:
                    record.waiters.remove(waker)

    def wait(
        self,
        waitables: list[Any],
        num_returns: int,
        timeout_s: float | None,
        fetch_local: bool,  # everything is local
    ) -> tuple[list[Any], list[Any]]:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self.baton.turn() as lane:
            is_in_time = True
            while True:
                with self.mutex:
                    sources = [self._source(item) for item in waitables]
                    ready = [index for index, source in enumerate(sources) if _is_ready(source)]
                    if len(ready) >= num_returns or not is_in_time:
                        break
                    self._check_open()
                    waker = _Waker(self.baton, lane, num_returns - len(ready), stops_at_error=False)
                    pending = [source for source in sources if not _is_ready(source)]
                    for source in pending:
                        self._subscribe(source, waker)
                    self._give_up(lane, pending[0], deadline_s)
                is_in_time = self.baton.park(lane, deadline_s)
                with self.mutex:
                    for source in pending:
                        _unsubscribe(source, waker)
                self.baton.check_interrupt(lane)
        chosen = set(ready[:num_returns])
        return (
            [item for index, item in enumerate(waitables) if index in chosen],
            [item for index, item in enumerate(waitables) if index not in chosen],
        )

    def _source(self, item: Any) -> ownership.Record | streams.Stream:
        if isinstance(item, refs.ObjectRefGenerator):
            reader = item._stream
            if isinstance(reader, streams.Reader) and reader.stream.values is self.values:
                return reader.stream
            raise exceptions.ObjectLostError("the generator belongs to a session that has ended; call its task again")
        return self.values.find(item)

    def _subscribe(self, source: ownership.Record | streams.Stream, waker: _Waker) -> None:
        if isinstance(source, streams.Stream):
            source.callbacks.append(waker)
        else:
            self.values.on_settled(source, waker)

    def get_ready(self, ref: refs.ObjectRef[Any], *, waits: bool) -> tuple[Any]:
        return (self.get([ref], None)[0],)

    def add_done_callback(self, ref: refs.ObjectRef[Any], callback: Callable[[], None], _future: Any = None) -> None:
        with self.mutex:
            if self._is_closed:
                raise exceptions.ObjectLostError(
                    f"{ref!r} belongs to a session that has ended; references do not outlive umbel.shutdown()"
                )
            record = self.values.find(ref)
            if record.kind == PENDING:
                self.values.on_settled(record, lambda _record: self.mutex.later.append(callback))
                return
        callback()

    def wait_beside(
        self, _ref: refs.ObjectRef[Any] | None, wait: Callable[[float | None], bool], timeout_s: float | None
    ) -> None:
        wait(timeout_s)

    # References

    def drop_ref(self, object_id: bytes) -> None:
        self.mutex.drop(object_id)

    def adopt_ref(self, object_id: bytes) -> None:
        self.values.adopt(object_id)

    def ref_pickled(self, object_id: bytes) -> None:
        if not serialization.note_reference(object_id):
            refs.check_out_of_band(object_id, is_allowed=self.config.allow_out_of_band_refs)
            with self.mutex:
                self.values.pin_all([object_id])

    def call_site(self, object_id: bytes) -> str:
        return getattr(self.values.table.records.get(object_id), "call_site", "")

    def _drain(self) -> None:
        """Count references and generators that were garbage collected since. Mutex held."""
        dropped = self.mutex.dropped
        self.baton.is_deferring = True
        try:
            while dropped:
                what = dropped.popleft()
                if isinstance(what, bytes):
                    self.values.table.drop_local(what)
                else:
                    what.close()
            self.values.carry_out()
        finally:
            self.baton.is_deferring = False

    # The session

    @property
    def session_context(self) -> context.SessionContext:
        call = self.current_call()
        return self._driver_session if call is None or call.session is None else call.session

    def meets_one(self, selectors: Sequence[node_labels.Selector]) -> bool:
        """Whether the only node's labels meet one of these."""
        labels = {node_labels.NODE_ID: self.node_id, **self.labels}
        return any(node_labels.meets(selector, labels) for selector in selectors)

    def new_session(self, gpu_count: int) -> context.SessionContext:
        """The view of one more worker."""
        return self._session("worker", ids.WorkerID.from_random().hex(), gpu_count)

    def devices(self, gpu_count: int) -> list[str]:
        """The ids of the GPUs of whoever is assigned so many: always the first ones, as resources are not counted."""
        return self._gpu_ids[:gpu_count]

    def _session(self, kind: str, worker_id: str, gpu_count: int) -> context.SessionContext:
        return context.SessionContext(
            kind=kind,
            worker_id=worker_id,
            node_id=self.node_id,
            job_id=ids.JobID.from_int(1).hex(),
            namespace=self.namespace,
            session_dir=self._session_dir,
            labels=self.labels,
            accelerator_ids={resource_model.GPU: self.devices(gpu_count)},
            env_vars=dict(self.env_vars),
        )

    def metrics_have_news(self) -> None:
        """Nobody is told: there is no node that could serve them."""

    def worker_ended(self, worker_id: str) -> None:
        """What it had submitted and not finished stops, what it owned is lost, and its actors end. Mutex held."""
        if not self._is_closed:
            self.values.owner_died(worker_id)
            self.tasks.owner_died(worker_id)
            self.registry.owner_died(worker_id)

    def query(self, what: str, *, about: str = "") -> Any:
        """ "nodes", "cluster_resources", "available_resources", "placement_groups", "timeline" or "pending". about: one of
        the placement groups."""
        units = dict(self.resources)
        with self.mutex:
            if what == "nodes":
                own = {"node_id": self.node_id, "node_name": self._node_name, "labels": dict(self.labels)}
                return [{**own, "alive": True, "resources": units}]
            if what == "cluster_resources":
                return units if self._groups is None else {**units, **self._groups.as_resources([])}
            if what == "placement_groups":
                return self._groups.listed(about) if self._groups is not None else []
            if what == "available_resources":
                return self._available(units)
            if what == "timeline":
                from umbel._client import timeline

                processes = {timeline.INLINE: timeline.Process(os.getpid(), True)}
                return list(timeline.events(timeline.inline_rows(self.tasks.events), processes, 0.0))
            if what == "pending":
                return [{"reason": call.explain()} for call in self.tasks.unfinished]
        raise exceptions.UnsupportedFeature(
            f"the inline engine knows nothing of {what!r}, only of nodes, cluster_resources, available_resources, "
            "placement_groups, timeline and pending; use the native engine"
        )

    def _available(self, units: dict[str, int]) -> dict[str, int]:
        """What is left of `units`: nothing waits for it, so what runs may hold more than there is. Mutex held."""
        holders = [
            (call.recipe, call.lane is not None and call.lane.state is lanes.State.BLOCKED)
            for call in self.tasks.unfinished
            if call.is_started and call.actor is None
        ]
        holders += [(recipe, False) for recipe in self.registry.started()]
        in_groups: list[tuple[option_model.InGroup, dict[str, int]]] = []
        for recipe, is_blocked in holders:
            held = {
                name: round(amount * resource_model.RESOURCE_UNIT)
                for name, amount in recipe.resources.items()
                if not (is_blocked and name == resource_model.CPU)  # who waits for a result lends its CPUs
            }
            if recipe.in_group is not None:
                in_groups.append((recipe.in_group, held))
                continue
            for name, amount in held.items():
                units[name] -= amount
        if self._groups is not None:
            for name, amount in self._groups.held().items():
                units[name] -= amount
            units |= self._groups.as_resources(in_groups)
        return {name: max(0, amount) for name, amount in units.items()}

    def explain(self, target: Any) -> reasons.Reason:
        """What a reference or a generator waits for."""
        if isinstance(target, refs.GraphRef):
            return target.explain()
        with self.mutex:
            source = self._source(target)
            if _is_ready(source):
                return reasons.Reason(reasons.READY, _name(source), "is ready")
            call: Any = source.call if isinstance(source, streams.Stream) else source.task
            if hasattr(call, "awaited_group"):
                told: reasons.Reason = call.why()
                return told
            if not isinstance(call, calls.Call):
                return reasons.Reason(reasons.UNKNOWN, "", _name(source))
            return reasons.Reason(call.reason_code(), "", _name(source))

    def shutdown(self) -> None:
        """End everything that runs. Code that does not call Umbel any more is left behind in a daemon thread."""
        if self._is_closed:
            return
        process_engine = current.running_engine()
        if process_engine is None:
            current.set_engine(self)  # code that cleans up shall be refused by this session, not start another
        try:
            self._end()
        finally:
            current.set_engine(process_engine)

    def _end(self) -> None:
        with self.baton.turn() as lane:
            with self.mutex:
                self._is_closed = self.values.is_closed = True
                self.registry.kill_all("the session was shut down")
                error = exceptions.UmbelSystemError("the session was shut down before the result came")
                failure = values.Failure(error, "the session")
                for call in list(self.tasks.unfinished):
                    self.tasks.fail(call, failure)
            self.pool.close(lane)
        self.exits.remove()


def _is_ready(source: ownership.Record | streams.Stream) -> bool:
    return source.is_ready() if isinstance(source, streams.Stream) else source.kind != PENDING


def _name(source: ownership.Record | streams.Stream, depth: int = calls.EXPLAIN_DEPTH) -> str:
    if isinstance(source, streams.Stream):
        return f"an item of {source.call.explain(depth)}"
    return calls.describe(source, depth)


def _unsubscribe(source: ownership.Record | streams.Stream, waker: _Waker) -> None:
    found: list[Any] | None = source.callbacks if isinstance(source, streams.Stream) else source.waiters
    if found is not None and waker in found:
        found.remove(waker)
