"""The native engine: one process's part in a running session, for drivers and workers alike.

It ties the parts together and owns what they share: the lock, the reactor, the links. One lock guards all bookkeeping;
it is held for microseconds and never while waiting. References that are garbage collected are only noted, in a queue
drained at the next opportunity, because a destructor may run at any point, the bookkeeping included.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import actor as actor_api
from umbel._client import (
    actors,
    answers,
    arrivals,
    context,
    current,
    deaths,
    leases,
    links,
    own_environment,
    reasons,
    refs,
    remote_function,
    reports,
    store_quota,
    streams,
    tasks,
    troubles,
    values,
    waits,
)
from umbel._client.task import Task
from umbel._model import reasons as model_reasons
from umbel._objects import ownership, serialization
from umbel._transport import connection, reactor
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel import spi
    from umbel._client import awaits, groups, inboxes, rebuild, spill_thread
    from umbel._client.tensors import holding

PENDING = ownership.PENDING
ERROR = serialization.ERROR
RAW = serialization.RAW
HISTORY_ANSWER_S = 30.0  # for the agent to have all written down, which takes milliseconds on a machine that is idle


class NativeEngine:
    """One process in a session. `kind` is "driver" or "worker"."""

    name = "native"
    is_remote = False  # of the node that it is connected to: on a machine without one

    def __init__(
        self,
        *,
        kind: str,
        process_id: bytes,
        session_dir: str,
        namespace: str,
        config: configuration.Config,
        depth: int = 0,
        job: dict[str, Any] | None = None,
        has_door: bool = False,
        on_notice: Callable[[dict[str, Any], bytes], bool] | None = None,
        on_agent_gone: Callable[[], None] | None = None,
    ) -> None:
        """has_door: the node may be one of a cluster, whose processes connect to each other. on_agent_gone: ends this process."""
        self.kind = kind
        self.process_id = process_id
        self.namespace = namespace
        self.session_dir = session_dir
        self.config = config
        self.lock = threading.RLock()
        self.frame_time_s = 0.0
        self.has_settled = False
        self.is_closed = False
        self.agent_is_gone = False
        self.context_of: Callable[[], Any] | None = None
        self.extra_housekeeping: Callable[[float], float | None] | None = None
        self.own_metrics: Any = None  # where metrics are served
        self._tensor_holder: holding.Holder | None = None  # once tensors are to stay here
        self._on_agent_gone = on_agent_gone
        self.dirty_links: set[links.Link] = set()
        self._soon: deque[Callable[[], None]] = deque()  # see `call_soon`
        self._awaits: awaits.Awaits | None = None
        self._groups: groups.Groups | None = None
        self._inboxes: inboxes.Inboxes | None = None
        self.welcome: dict[str, Any] = {}
        self.agent_ended = reactor.Waiter()
        self.session_context: context.SessionContext
        self.address_info: dict[str, Any] = {}
        self.own_environment = own_environment.OwnEnvironment(session_dir)
        self.arrivals = arrivals.Arrivals(self, on_notice)
        self.reactor = reactor.Reactor(self._housekeeping, name="umbel-background")
        self.waits = waits.Waits(self)
        self.links = self._make_links()
        door = self._make_door() if has_door else None
        self.answers = answers.Answers(self)
        self.agent = self._connect_agent()
        self.agent.is_vital = on_agent_gone is not None
        hello = {
            "t": "hello",
            "kind": kind,
            "id": process_id.hex(),
            "pid": self._pid(),
            "protocol": 1,
            "namespace": namespace,
            "job": job,
        }
        self.agent.notify(hello)
        self.reactor.poke()
        if not self.reactor.wait(self.arrivals.welcomed, time.monotonic() + config.worker_register_timeout_s):
            raise exceptions.UmbelSystemError(
                f"the node's daemon did not answer within {config.worker_register_timeout_s} s; see its log in "
                f"{session_dir}"
            )
        if self.agent_is_gone or self.welcome.get("t") != "welcome":
            reason = self.welcome.get("text", "it ended while this process was connecting to it")
            raise exceptions.UmbelSystemError(f"the node's daemon did not accept this process: {reason}")
        if door is not None:
            self._open_door(door, self.welcome.pop("token", ""))
        self.values = values.Values(self, process_id, self._make_store(), config.inline_bytes_max)
        self.links.on_again = self.values.connected_again
        self.troubles = troubles.TroubleLog()
        self.leases = leases.Leases(self, depth)
        self.tasks = tasks.Tasks(self)
        self.deaths = deaths.Deaths(self)
        self.actors = actors.Actors(self)
        self.reports = reports.Reports(self)
        self.arrivals.add_common()
        self.rebuilder: rebuild.Rebuilder | None = None  # until a result is large
        if self.welcome.get("metrics_port"):
            from umbel._client import own_metrics

            self.own_metrics = own_metrics.OwnMetrics(self)

    def start(self) -> None:
        """Everything is set up: handle what has arrived meanwhile, and from now on."""
        current.set_on_fork(self.forked)
        self.reports.begin()
        self.arrivals.begin()

    def _make_links(self) -> links.Links:
        return links.Links(
            self.process_id,
            self.session_dir,
            self.reactor.poller,
            self.arrivals.on_messages,
            self.arrivals.on_link_gone,
        )

    def _connect_agent(self) -> links.AgentLink:
        path = os.path.join(self.session_dir, "agent.sock")
        return links.AgentLink(path, self.reactor, self.arrivals.on_notice, self._agent_gone)

    def _pid(self) -> int:
        """Of this process, or what stands on the node for it."""
        return os.getpid()

    def _make_store(self) -> spi.ObjectStore[Any]:
        return store_quota.make_store(self)

    def make_spilling(self) -> spill_thread.Spilling:
        from umbel._client import spill_thread

        return spill_thread.Spilling(self)

    def _make_door(self) -> socket.socket:
        """Where the daemon passes on connections from other nodes: there before the daemon knows of this process."""
        return connection.listen_unix(f"{self.session_dir}/{self.process_id.hex()}.door")

    def _open_door(self, door: socket.socket, token: str) -> None:
        """token: "" if the node is alone after all."""
        if not token:
            os.unlink(door.getsockname())
            door.close()
            return
        from umbel._client import remote_links
        from umbel._transport import addresses, own_tls

        own_tls.use(self.welcome["tls_directory"])
        addresses.bear(self.welcome["silence_s"])
        self.links.remote = remote_links.RemoteLinks(
            self.links, self.process_id, token, door, self.reactor, self.lock, self.agent.notify
        )

    def make_rebuilder(self) -> rebuild.Rebuilder:
        from umbel._client import rebuild

        self.rebuilder = rebuild.Rebuilder(self)
        return self.rebuilder

    # Events

    def carry_on(self) -> None:
        """After anything happened: push what became possible, wake who waits for anything. Lock held."""
        if self.leases.dirty:
            self.leases.pump()
        if self.has_settled:
            self.has_settled = False
            if self.waits.for_any:
                waiters, self.waits.for_any = self.waits.for_any, []
                for waiter in waiters:
                    waiter.finish()
        if self.dirty_links:
            self._flush()

    def mark_dirty(self, link: links.Link) -> None:
        """The link has messages that should not wait for long. Lock held."""
        self.dirty_links.add(link)

    def _flush(self) -> None:
        dirty, self.dirty_links = self.dirty_links, set()
        for link in dirty:
            link.flush()

    def _agent_gone(self) -> None:
        self.agent_is_gone = True
        self.arrivals.welcomed.finish()
        self.agent_ended.finish()
        if self.is_closed:
            return
        if self._on_agent_gone is not None:
            self._on_agent_gone()
        if not self.arrivals.is_ready:
            return
        with self.lock:
            blob = exceptions.dump_error(self.daemon_died())
            for task in list(self.tasks.unfinished.values()):
                self.tasks.settle_failure(task, blob)
            for record in list(self.values.table.records.values()):
                if record.kind == PENDING and record.is_fetching:
                    self.values.settle_error(record, self.daemon_died())
            if self._groups is not None:
                self._groups.agent_gone(self.daemon_died())
            if self.values.fetching is not None:
                self.values.fetching.end(self.daemon_died())
            self.carry_on()

    def peer_gone(self, peer: bytes, *, may_live: bool) -> None:
        """A process is gone, or the connection to it. Lock held."""
        self.values.peer_gone(peer, may_live=may_live)
        if self._inboxes is not None:
            self._inboxes.peer_gone(peer)

    def daemon_died(self) -> BaseException:
        return self.agent.died()

    def check_running(self) -> None:
        """Raises when the session has ended under the caller. Lock held or not."""
        if self.is_closed:
            raise exceptions.UmbelSystemError("this session was shut down; call umbel.init() to start another")
        if self.agent_is_gone:
            raise self.daemon_died()

    def _housekeeping(self) -> float | None:
        if not self.arrivals.is_ready or self.is_closed:
            return None
        # A new worker is here at once: what it calls for nothing is pages that it copies from its parent for nothing.
        now = time.monotonic()
        tasks, objects = self.tasks, self.values
        with self.lock:
            self.frame_time_s = now
            while self._soon:
                self._soon.popleft()()
            has_drops = bool(objects._drops)
            if has_drops or objects.table.commands:
                objects.drain_drops()
            due = self.leases.housekeep(now) if not self.agent_is_gone else None
            if has_drops:  # more are likely, and need not wake us one by one, see `drop_ref`
                due = reactor.TICK_S if due is None else min(due, reactor.TICK_S)
            if tasks.recorder is not None and tasks.recorder.rows and tasks.recorder.is_loose:
                tasks.recorder.compact()
            self.carry_on()
        report_due = self.reports.send_due(now)
        if report_due is not None:
            due = report_due if due is None else min(due, report_due)
        objects.store.trim(now)
        trim_due = objects.store.trim_due_s(now)
        if trim_due is not None:
            due = trim_due if due is None else min(due, trim_due)
        if self.extra_housekeeping is not None:
            extra = self.extra_housekeeping(now)
            if extra is not None:
                due = extra if due is None else min(due, extra)
        for source in (self.own_metrics, self.reports.metrics, self._awaits, self.links.remote, objects.fetching):
            if source is not None:
                extra = source.housekeep(now)
                if extra is not None:
                    due = extra if due is None else min(due, extra)
        return due

    # Waiting

    def prepare_to_wait(self) -> None:
        """Send everything that is still to be sent. Lock held."""
        if self.values._drops:
            self.values.drain_drops()
        if self.leases.dirty:
            self.leases.pump()
        if self.dirty_links:
            self._flush()

    # The engine's interface

    def check_handle(self, handle: actor_api.ActorHandle) -> None:
        """Raises ActorHandleNotFoundError for a handle of a session that has ended."""
        if handle._session is not None and handle._session is not self:
            raise exceptions.ActorHandleNotFoundError(
                f"{handle!r} belongs to a session that has ended, and so did its actor; create the actor again after "
                "umbel.init()"
            )

    def submit_task(self, template: remote_function.TaskTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.tasks.submit(template, args, kwargs)

    def create_actor(self, template: actor_api.ActorTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.check_running()
        return self.actors.create(template, args, kwargs)

    def submit_actor_task(
        self,
        handle: actor_api.ActorHandle,
        template: actor_api.MethodTemplate,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return self.actors.submit(handle, template, args, kwargs)

    def put(self, value: Any) -> refs.ObjectRef[Any]:
        self.check_running()
        return self.put_encoded(*self.values.encode(value))

    def put_encoded(self, kind: int, payload: Any, contained: tuple[bytes, ...]) -> refs.ObjectRef[Any]:
        """A new object of ours with this value."""
        if contained:
            try:
                self.tasks.arguments.check_known(contained)
            except BaseException:
                if kind == serialization.STORED:
                    self.values.discard(payload[0])
                raise
        with self.lock:
            record = self.own_next()
            self.values.table.settle(record, kind, payload, contained)
            if self.values._drops:
                self.values.drain_drops()
        return refs.ObjectRef(record.object_id, self)

    def own_next(self) -> ownership.Record:
        """A new object of ours, with one reference to it, which is the caller's to make. Lock held."""
        self.tasks.last_seq = seq = self.tasks.last_seq + 1
        return self.values.table.own(self.process_id + seq.to_bytes(8, "big") + b"\0\0\0\0")

    def tensor_holder(self) -> holding.Holder:
        """What keeps the tensors that stay in this process."""
        with self.lock:
            if self._tensor_holder is None:
                from umbel._client.tensors import holding

                self._tensor_holder = holding.Holder(self)
            return self._tensor_holder

    def get(self, wanted: list[refs.ObjectRef[Any]], timeout_s: float | None) -> list[Any]:
        records = self.values.table.records
        at_hand = []
        for ref in wanted:
            record = records.get(ref._id)
            if record is None or record.kind != RAW:
                return self._get_by(wanted, timeout_s, None if timeout_s is None else time.monotonic() + timeout_s)
            at_hand.append(record.payload)
        return at_hand

    def _get_by(self, wanted: list[refs.ObjectRef[Any]], timeout_s: float | None, deadline: float | None) -> list[Any]:
        """deadline: of the whole call, time.monotonic()."""
        while True:
            try:
                return self._get_once(wanted, timeout_s, deadline)
            except values.ValueLost:
                self._lose_lost(wanted, deadline)
            except values.NotThere:
                pass

    def _get_once(
        self, wanted: list[refs.ObjectRef[Any]], timeout_s: float | None, deadline: float | None
    ) -> list[Any]:
        """Raises what `Values.decode` does."""
        records = self.values.table.records
        found = []
        is_pending = False
        for ref in wanted:
            record = records.get(ref._id)
            if record is None:
                raise self.stale(ref._id)
            found.append(record)
            if record.kind == PENDING:
                is_pending = True
        if is_pending and not self.waits.wait_for_records(
            found, None if deadline is None else deadline - time.monotonic()
        ):
            raise exceptions.GetTimeoutError(self._not_ready(wanted, found, timeout_s))
        decode = self.values.decode
        try:
            if is_pending:
                for record in found:
                    if record.kind == ERROR:
                        decode(record)
            beside = [found]
            return [record.payload if record.kind == RAW else decode(record, deadline, beside) for record in found]
        except (values.ValueLost, values.NotThere):
            raise
        except BaseException:
            for record in found:
                record.is_read = True  # one error stands for those of all that were asked for
            raise

    def _lose_lost(self, wanted: list[refs.ObjectRef[Any]], deadline: float | None) -> None:
        """Have all of these computed again that are lost, at once and not one after the other."""
        for ref in wanted:
            record = self.values.table.records.get(ref._id)
            if record is None or record.kind != serialization.STORED:
                continue
            try:
                self.values.decode(record, deadline)
            except values.ValueLost as lost:
                with self.lock:
                    self.values.lose(lost)
            except values.NotThere:
                continue

    def get_ready(self, ref: refs.ObjectRef[Any], *, waits: bool) -> tuple[Any] | None:
        record = self.values.table.records.get(ref._id)
        if record is None:
            raise self.stale(ref._id)
        if record.kind == PENDING:
            return None
        kind, payload = record.kind, record.payload
        try:
            if kind != serialization.STORED:
                return (self.values.decode(record),)
            return (self.values.read(kind, payload, record.object_id, record, waits=waits),)
        except values.NotThere:
            return None
        except values.ValueLost as lost:
            if waits:
                with self.lock:
                    self.values.lose(lost)
            return None

    def _not_ready(self, wanted: list[refs.ObjectRef[Any]], found: list[ownership.Record], timeout_s: Any) -> str:
        pending = [index for index, record in enumerate(found) if record.kind == PENDING]
        why = "became ready just now"
        if pending:  # who polls is not made to wait for the agent's answer
            from umbel._client import inquiry

            first = found[pending[0]]
            why = str(inquiry.of_timeout(self, first) if timeout_s else reasons.of_record(first))
        return f"{len(pending)} of {len(found)} objects were not ready within {timeout_s} s; the first one: {why}"

    @staticmethod
    def stale(object_id: bytes) -> Exception:
        return exceptions.ObjectLostError(
            f"object {object_id.hex()} belongs to a session that has ended or to another process's; references "
            f"outlive neither "
            "umbel.shutdown() nor a fork"
        )

    def wait(
        self, waitables: list[Any], num_returns: int, timeout_s: float | None, fetch_local: bool
    ) -> tuple[list[Any], list[Any]]:
        ready = self.waits.ready(waitables, num_returns, timeout_s, fetch_local=fetch_local)
        if len(ready) == 1:
            index = ready[0]
            return [waitables[index]], waitables[:index] + waitables[index + 1 :]
        chosen = set(ready)
        return [waitables[i] for i in ready], [w for i, w in enumerate(waitables) if i not in chosen]

    def wait_beside(
        self, ref: refs.ObjectRef[Any] | None, wait: Callable[[float | None], bool], timeout_s: float | None
    ) -> None:
        record = None if ref is None else self.values.table.records.get(ref._id)
        if (ref is not None and record is None) or self.is_closed:
            wait(timeout_s)
        else:
            self.waits.wait_beside(() if record is None else (record,), wait, timeout_s)

    def stream_of(self, generator: refs.ObjectRefGenerator[Any]) -> streams.NativeStream:
        """Raises ObjectLostError for a generator of a session that has ended."""
        stream = generator._stream
        if isinstance(stream, streams.NativeStream) and stream._engine is self:
            return stream
        raise self.stale(stream.completed._id)

    @property
    def awaits(self) -> awaits.Awaits:
        if self._awaits is None:
            from umbel._client import awaits  # not before something is awaited

            self._awaits = awaits.Awaits(self)
        return self._awaits

    @property
    def groups(self) -> groups.Groups:
        if self._groups is None:
            from umbel._client import groups  # few sessions have any

            with self.lock:
                self._groups = self._groups or groups.Groups(self)
        return self._groups

    @property
    def inboxes(self) -> inboxes.Inboxes:
        if self._inboxes is None:
            from umbel._client import inboxes  # few programs have any

            with self.lock:
                self._inboxes = self._inboxes or inboxes.Inboxes(self)
        return self._inboxes

    def add_done_callback(self, ref: refs.ObjectRef[Any], callback: Callable[[], None], future: Any = None) -> None:
        with self.lock:
            record = self.values.table.records.get(ref._id)
            if record is None or self.is_closed:
                raise self.stale(ref._id)
            if record.kind == PENDING:
                ends = (lambda _record: callback()) if future is None else self.awaits.add(record, future, callback)
                self.values.on_settled(record, ends)
                self.prepare_to_wait()
                self.reactor.poke()
                return
        callback()

    def cancel(self, target: Any, *, force: bool, recursive: bool) -> None:
        with self.lock:
            if isinstance(target, refs.ObjectRefGenerator):
                task = self.stream_of(target)._state.task
            else:
                record = self.values.table.records.get(target._id)
                if record is None:
                    raise self.stale(target._id)
                task = record.task
                if task is None and not self.values.table.is_owner(target._id):
                    link = self.links.to(target._id[:16])
                    if link is not None:
                        link.post((messages.CANCEL_OBJECT, target._id, force, recursive))
                        link.flush()
                    return
            if not isinstance(task, Task):
                return
            if force and task.actor is not None:
                raise ValueError(
                    "force=True is not allowed for an actor's method: it would kill the actor; use "
                    "umbel.kill(actor) for that"
                )
            self.tasks.cancel(task, force=force, recursive=recursive)
            self.carry_on()

    def kill(self, handle: actor_api.ActorHandle, *, no_restart: bool) -> None:
        self.check_running()
        self.check_handle(handle)
        with self.lock:
            self.actors.hold_calls(handle._actor_id, for_good=no_restart)
        self.agent.notify({"t": "kill_actor", "actor": handle._actor_id.hex(), "no_restart": no_restart})

    def get_actor(self, name: str, namespace: str | None) -> actor_api.ActorHandle:
        self.check_running()
        return self.actors.get(name, namespace or self.namespace)

    def list_named_actors(self, all_namespaces: bool) -> list[Any]:
        self.check_running()
        answer = self._ask({"t": "list_actors", "all_namespaces": all_namespaces, "namespace": self.namespace})
        found = answer["actors"]
        if all_namespaces:
            return [{"name": a["name"], "namespace": a["namespace"]} for a in found]
        return [a["name"] for a in found]

    @property
    def key_values(self) -> Any:
        """The internal key-value store."""
        from umbel._client import key_values

        return key_values.KeyValues(self)

    def query(self, what: str, *, about: str = "", node: str = "", timeout_s: float | None = None) -> Any:
        """Ask the agent: "nodes", "cluster_resources", "available_resources", "pending", ... Only "timeline", trace events
        as `umbel._client.timeline` makes them, comes from others as well. node: the tag of another one that is to answer."""
        self.check_running()
        if what == "timeline":
            from umbel._client import cluster_listing, inquiry

            return list(cluster_listing.timeline(inquiry.EngineAsker(self, query_timeout_s=HISTORY_ANSWER_S)))
        if what == "available_resources":
            with self.lock:
                self.leases.give_back_unused()  # what is kept for a moment, in case more comes, is not in use
        answer = self._ask({"t": "query", "what": what, "about": about, "node": node}, timeout_s=timeout_s)["result"]
        if what in ("available_resources", "cluster_resources") and self.links.remote is not None:
            from umbel._client import far_bundles

            return far_bundles.add(self, what, answer)
        return answer

    def _ask(self, message: dict[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        """The agent's answer. Raises UmbelSystemError when it refuses."""
        answer, _ = self.agent.request(message, timeout_s=timeout_s)
        links.raise_refusal(answer)
        return answer

    def explain(self, target: Any) -> model_reasons.Reason:
        from umbel._client import inquiry

        return inquiry.of_target(self, target)

    def exit_actor(self) -> None:
        raise TypeError("umbel.actor.exit_actor() was called outside an actor; it ends the actor whose method calls it")

    def leave_actor(self, error: SystemExit) -> None:
        """A thread of a compiled graph has left a method of the actor here by `error`: end the actor."""
        raise error

    def metrics_have_news(self) -> None:
        self.reports.expect_metrics()
        self.reactor.poke()

    # References

    def drop_ref(self, dropped: bytes | list[ownership.Record]) -> None:
        """An object's id: a reference to it is gone. Records: so is what pinned them."""
        self.values.drop(dropped)
        self.reactor.nudge()

    def adopt_ref(self, object_id: bytes) -> None:
        self.values.adopt(object_id)

    def ref_pickled(self, object_id: bytes) -> None:
        self.values.pickled(object_id)

    def call_site(self, object_id: bytes) -> str:
        return getattr(self.values.table.records.get(object_id), "call_site", "")

    def error_unread(self, blob: bytes) -> None:
        """The last reference to an error went away, and nobody had asked for it. Lock held."""
        if not self.is_closed and not self.config.ignore_unhandled_errors:
            self.troubles.unread(blob)

    def close_stream(self, state: streams.StreamState) -> None:
        """A generator object is gone. Called from `__del__`."""
        self.call_soon(state.close)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call it with the lock held, on another thread. A destructor may ask for that, at any point."""
        self._soon.append(call)
        self.reactor.poke()

    # The end

    def forked(self) -> None:
        """This is a copy in a forked child: it may read what it has, but it must not touch the parent's sockets."""
        self.is_closed = True
        self.lock = self.values._lock = threading.RLock()
        self.reactor.forked()
        if self._tensor_holder is not None:
            self._tensor_holder.door.forked()

    def shutdown(self) -> None:
        """Leave the session: close what this process holds. Does not end the daemon."""
        if self.leave():
            self.close()

    def leave(self) -> bool:
        """Begin nothing new and tell all who wait; whether that was still to be done. `close` must follow."""
        with self.lock:
            if self.is_closed:
                return False
            self.is_closed = True
            blob = exceptions.dump_error(
                exceptions.UmbelSystemError("the session was shut down before the result came")
            )
            for task in list(self.tasks.unfinished.values()):
                if task.stream is not None:
                    task.stream.fail(blob)
            for record in list(self.values.table.records.values()):
                if record.kind == PENDING:
                    self.values._settle(record, ERROR, blob, ())
            if self.values.fetching is not None:
                self.values.fetching.end(exceptions.UmbelSystemError("the session was shut down before the value came"))
            self.carry_on()
        return True

    def close(self) -> None:
        """Close what this process holds."""
        if self.values.spilling is not None:
            self.values.spilling.stop()
        if self.values.takeover is not None:
            self.values.takeover.stop()
        if self._tensor_holder is not None:
            self._tensor_holder.door.close()
        self.agent.close()
        self.links.close()
        self.reactor.close()
        self.values.store.close()
