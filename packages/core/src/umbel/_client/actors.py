"""Actors from a caller's side: creation, calls, and what happens to calls when an actor comes and goes.

`umbel._scheduling.actor_calls` decides which calls may be sent; the agent tells where the actor is. Everything here
runs under the engine's lock unless it says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import actor as actor_api
from umbel._client import exports, leases, links, refs, strategies, values
from umbel._client.task import Task, Template, cancelled_error, resolve_deps
from umbel._objects import ownership, serialization
from umbel._scheduling import actor_calls
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

ActorState = actor_calls.ActorState
_MISSING = (ownership.PENDING, serialization.ERROR)  # what an argument that cannot be sent is


class ActorClient:
    """This process's side of one actor."""

    def __init__(self, engine: NativeEngine, actor_id: bytes, description: actor_api.ActorDescription) -> None:
        self._engine = engine
        self.actor_id = actor_id
        self.description = description
        self.calls = actor_calls.ActorCalls(allow_out_of_order=description.allow_out_of_order)
        self.link: links.Link | None = None
        self.worker = ""
        self.death: bytes | None = None  # the error of calls to a dead actor
        self.is_killed = False  # for good, by this process
        self.templates: dict[Any, Template] = {}

    @property
    def constructor(self) -> Task | None:
        """The constructor call, while it waits for arguments and is ours to send."""
        return self._engine.actors.constructors.get(self.actor_id)

    def pump(self) -> None:
        """Send what may be sent."""
        link = self.link
        if link is None:
            return
        sendable = self.calls.take_sendable()
        if not sendable:
            return
        was_idle = len(self.calls.inflight) == len(sendable)
        announce = leases.announce
        if link.depth_told != self._engine.leases.depth:
            self._engine.leases.tell_depth(link)
        for call in sendable:
            template = call.template
            if template.index not in link.known:
                announce(link, template)
            deps = resolve_deps(call) if call.deps is not None else None
            link.outbox.append((messages.CALL, call.seq, template.index, call.kind, call.payload, deps, call.attempt))
        if was_idle or len(link.outbox) >= leases.READY_PUSH:
            link.flush()
        else:
            self._engine.mark_dirty(link)
            self._engine.reactor.poke()

    def retry(self, call: Task) -> None:
        """The method raised an error that is to be tried again."""
        self.calls.queue.appendleft(call)
        self.pump()

    def cancel(self, call: Task, *, recursive: bool) -> None:
        if self.link is not None:
            self.link.post((messages.CANCEL, call.seq, False, recursive))
            self.link.flush()

    def on_state(self, message: dict[str, Any], body: bytes) -> None:
        state = ActorState(message["state"])
        calls = self.calls
        if state is ActorState.ALIVE and self.is_killed:
            return  # said before the agent knew; it will say that the actor is dead
        if state is ActorState.ALIVE:
            if self.link is None or self.worker != message["worker"] or self._is_cut_off():
                self._connected_away(message)
                self.worker = message["worker"]
                self.link = self._engine.links.to(bytes.fromhex(self.worker))
            calls.state = ActorState.ALIVE if self.link is not None else ActorState.RESTARTING
            self.pump()
        elif state is ActorState.DEAD:
            self._drain()
            self.link = None
            self._engine.actors.drop_constructor(self.actor_id)
            self.death = self._death_error(message, body)
            inflight = set(calls.inflight) if message.get("memory") else set()
            lost = self._out_of_memory(message, "It is dead.") if inflight else b""
            for call in calls.died():
                self._engine.tasks.fail(call, lost if call.seq in inflight else self.death)
        elif calls.state is not ActorState.DEAD:
            self._drain()
            self._connected_away(message)
            calls.state = state
        self._engine.carry_on()

    def _drain(self) -> None:
        """Replies that the actor sent before it died count."""
        if self.link is not None and self.link.stream is not None:
            self.link.stream.drain()

    def _connected_away(self, message: dict[str, Any]) -> None:
        """The process the calls went to is gone: those in flight are sent again or fail."""
        self.link = None
        failed, again = self.calls.disconnected()
        book = self._engine.tasks
        worker = bytes.fromhex(self.worker)
        if failed:
            blob = self._unavailable(message, "Set max_task_retries to have such calls repeated")
            for call in failed:
                book.fail(call, blob, worker)
        repeated = [call for call in again if not call.is_cancelled]
        if repeated:
            blob = self._unavailable(message, "It is sent again")
            for call in repeated:
                book.note_failure(call, worker, blob)
                call.attempt += 1
        for call in list(self.calls.queue):
            if call.is_cancelled:
                self.calls.remove(call)
                book.fail(call, cancelled_error(call))
            elif not call.missing:
                book.arguments.waits_again(call)

    def _unavailable(self, message: dict[str, Any], outcome: str) -> bytes:
        """outcome: what becomes of the call, or what to do about it."""
        if message.get("memory"):
            return self._out_of_memory(message, f"It restarts; the call may or may not have run. {outcome}.")
        why = f" ({message['reason']})" if message.get("reason") else ""
        return exceptions.dump_error(
            exceptions.ActorUnavailableError(
                f"actor {self.description.class_name} ({self.actor_id.hex()}) restarted or was out of reach while a "
                f"call was in flight{why}; the call may or may not have run. {outcome}",
                actor_id=self.actor_id.hex(),
                preempted=bool(message.get("preempted")),
            )
        )

    def _out_of_memory(self, message: dict[str, Any], outcome: str) -> bytes:
        from umbel._client import memory_kills  # most sessions never need it

        what = f"actor {self.description.class_name} ({self.actor_id.hex()})"
        return exceptions.dump_error(memory_kills.error_of(what, message["memory"], outcome))

    def link_gone(self) -> None:
        """The connection closed; the agent will say whether the actor restarts. One to another node may break while the actor
        lives, of which nobody would say anything."""
        if self.calls.state is ActorState.ALIVE:
            self.calls.state = ActorState.RESTARTING
            remote = self._engine.links.remote
            if remote is not None and self._is_cut_off():
                remote.ask_again(self._ask_again)

    def _is_cut_off(self) -> bool:
        """Whether the connection to the actor, on another node, has broken."""
        link, own = self.link, self._engine.links
        if link is None or own.remote is None or own.is_of_this_node(link.peer):
            return False
        return own.by_peer.get(link.peer) is not link

    def _ask_again(self) -> None:
        if self.calls.state is ActorState.RESTARTING and self._is_cut_off() and not self._engine.is_closed:
            self._engine.actors._watch(self.actor_id)

    def _death_error(self, message: dict[str, Any], body: bytes) -> bytes:
        if message.get("init_failed") and body:
            error = exceptions.load_error(body)
            text = (
                f"actor {self.description.class_name} ({self.actor_id.hex()}) could not be created: "
                f"{message['reason']}:\n{error}"
            )
        else:
            text = (
                f"actor {self.description.class_name} ({self.actor_id.hex()}) "
                f"{'can never run' if message.get('unschedulable') else 'is dead'}: "
                f"{message.get('reason') or 'its process ended'}"
            )
        if message.get("unschedulable"):
            return exceptions.dump_error(exceptions.ActorUnschedulableError(text))
        if message.get("group_removed"):
            return exceptions.dump_error(exceptions.ActorPlacementGroupRemoved(text, actor_id=self.actor_id.hex()))
        if message.get("no_environment"):
            return exceptions.dump_error(exceptions.RuntimeEnvSetupError(text))
        return exceptions.dump_error(
            exceptions.ActorDiedError(
                text,
                actor_id=self.actor_id.hex(),
                preempted=bool(message.get("preempted")),
                actor_init_failed=bool(message.get("init_failed")),
            )
        )


class Actors:
    """The actors this process has handles to."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self.clients: dict[bytes, ActorClient] = {}
        self.constructors: dict[bytes, Task] = {}  # of actors of ours whose arguments are not all there

    # Creation; called without the lock

    def create(
        self, template: actor_api.ActorTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> actor_api.ActorHandle:
        engine = self._engine
        description = template.description
        blob = exports.exported(engine, template.source)
        meta = template.description_bytes = template.description_bytes or serialization.dumps(description)
        try:
            kind, payload, deps, inner = engine.tasks.arguments.encode(args, kwargs)
        except TypeError as error:
            name = f"{description.class_name}.__init__"
            raise template.init_signature.blame(name, args, kwargs, error) from error.__cause__
        with engine.lock:
            engine.check_running()
            seq = engine.tasks.next_seq()
            actor_id = engine.process_id + seq.to_bytes(8, "big")
            maker = engine.tasks.new_template(f"{description.class_name}.__init__", 1, False)
            task = Task(seq, maker, kind, payload)
            engine.tasks.arguments.attach(task, deps, inner)
            lacks_arguments = any(record.kind in _MISSING for _, record in task.deps or ())
        spec = self._spec(template, blob, meta)
        message = {**self._creation(template), "actor": actor_id.hex(), "meta_size": len(meta)}
        if engine.config.record_call_sites:
            from umbel._client import call_sites

            spec["call_site"] = message["call_site"] = call_sites.here()
        if lacks_arguments:  # they follow; meanwhile the actor can be found, watched and killed
            message["lacks_arguments"] = True
            body = meta
        else:
            body = meta + self._spec_bytes(spec, task)
        if message["name"]:
            existing = self._take_name(message, body, task)
            if existing is not None:
                return existing
        handle = self._new_handle(actor_id, description, task)
        with engine.lock:
            if not message["name"]:
                engine.agent.notify(message, body)
            self._watch(actor_id)
            if lacks_arguments:
                self._await_arguments(actor_id, spec, task)
        return handle

    def _spec(self, template: actor_api.ActorTemplate, blob: bytes, meta: bytes) -> dict[str, Any]:
        """What the actor's process needs, but for the arguments."""
        return {
            "cls": blob,
            "max_concurrency": template.options.max_concurrency,
            "concurrency_groups": template.options.concurrency_groups,
            "description": meta,
            "name": template.options.name,
            "class_name": template.description.class_name,
            "creator_depth": self._engine.leases.depth,
            "is_async": template.description.is_async,
            "has_events": template.description.has_events,
        }

    def _creation(self, template: actor_api.ActorTemplate) -> dict[str, Any]:
        """What the agent needs to know of every actor of this template."""
        engine, options = self._engine, template.options
        return {
            "t": "create_actor",
            "name": options.name,
            "namespace": options.namespace or engine.namespace,
            "get_if_exists": bool(options.get_if_exists),
            "detached": options.lifetime == "detached",
            "max_restarts": options.max_restarts,
            "placement": dict(options.placement_resources.items()),
            "running": dict(options.running_resources.items()),
            "env": engine.own_environment.inherited(options.env_vars, options.environment),
            "strategy": strategies.wire_strategy(options.scheduling_strategy),
            "label_selectors": options.label_selectors or None,
            "class_name": template.description.class_name,
            "depth": engine.leases.depth,
        }

    def _take_name(self, message: dict[str, Any], body: bytes, task: Task) -> actor_api.ActorHandle | None:
        """Create a named actor; the handle to the one that has the name already, if that will do. Called without the
        lock: a name is taken, or not, before `.remote()` returns."""
        engine = self._engine
        answer, meta = engine.agent.request(message, body)
        error = answer.get("error")
        if error is None and not answer.get("existing"):
            return None
        with engine.lock:
            engine.tasks._unpin_arguments(task)
        if error is None:
            return self._weak_handle(bytes.fromhex(answer["actor"]), meta)
        if error.get("kind") == "exists":
            raise exceptions.ActorAlreadyExistsError(
                f"an actor called {message['name']!r} exists in namespace {message['namespace']!r}; choose another "
                "name, get it with umbel.get_actor, or pass get_if_exists=True"
            )
        links.raise_refusal(answer)
        return None

    def _await_arguments(self, actor_id: bytes, spec: dict[str, Any], task: Task) -> None:
        """Send the constructor call when all arguments are there, or the error of the first that fails."""
        waiting = [record for _, record in task.deps or () if record.kind == ownership.PENDING]
        task.missing = len(waiting)
        self.constructors[actor_id] = task

        def arrived(record: ownership.Record) -> None:
            if self.constructors.get(actor_id) is not task or self._engine.is_closed:
                return  # the actor is dead, or nobody wants it any more, or we leave and it goes with us
            task.missing -= 1
            if record.kind == serialization.ERROR:
                self._arguments_failed(actor_id, record)
            elif not task.missing:
                self._arguments_arrived(actor_id, spec, task)

        failed = [record for _, record in task.deps or () if record.kind == serialization.ERROR]
        if failed:
            self._arguments_failed(actor_id, failed[0])
        elif not waiting:  # the last one came while the name was asked for
            self._arguments_arrived(actor_id, spec, task)
        else:
            for record in waiting:
                self._engine.values.on_settled(record, arrived)

    def drop_constructor(self, actor_id: bytes) -> None:
        """The actor is dead, or nobody wants it any more: if its constructor call was not sent, it never is."""
        task = self.constructors.pop(actor_id, None)
        if task is not None:
            self._engine.tasks._unpin_arguments(task)

    def _arguments_arrived(self, actor_id: bytes, spec: dict[str, Any], task: Task) -> None:
        del self.constructors[actor_id]
        self._engine.agent.notify({"t": "actor_arguments", "actor": actor_id.hex()}, self._spec_bytes(spec, task))

    def _arguments_failed(self, actor_id: bytes, argument: ownership.Record) -> None:
        """The calls fail when the agent has told us, and everybody else, that the actor is dead."""
        error = self._engine.tasks.input_failed(self.constructors[actor_id], argument.payload)
        self._engine.agent.notify({"t": "actor_arguments_failed", "actor": actor_id.hex()}, error)
        argument.is_read = True
        self.drop_constructor(actor_id)

    def _spec_bytes(self, spec: dict[str, Any], task: Task) -> bytes:
        spec["kind"], spec["payload"], spec["deps"] = task.kind, task.payload, resolve_deps(task)
        spec["submitted_s"] = task.submitted_s
        return serialization.dumps(spec)

    def _new_handle(
        self, actor_id: bytes, description: actor_api.ActorDescription, task: Task
    ) -> actor_api.ActorHandle:
        """The creator's handle. The arguments stay pinned as long as the actor may be restarted with them."""
        engine = self._engine
        with engine.lock:
            client = self._client(actor_id, description)
            lifetime: refs.ObjectRef[Any] | None = None
            if not description.is_detached:
                record = engine.values.table.own(actor_id + actor_api.LIFETIME_SUFFIX)
                record.task = client
                engine.values.table.settle(record, values.LIFETIME, (actor_id, task))
                lifetime = refs.ObjectRef(record.object_id, engine)
            return actor_api.ActorHandle(actor_id, description, lifetime)

    def lifetime_over(self, payload: Any) -> None:
        """The last strong handle is gone, and with it every call in flight: the actor may end."""
        actor_id, task = payload
        self.drop_constructor(actor_id)
        self.forget(actor_id)
        self._engine.tasks._unpin_arguments(task)
        self._engine.agent.notify({"t": "actor_unreferenced", "actor": actor_id.hex()})

    def hold_calls(self, actor_id: bytes, *, for_good: bool) -> None:
        """The actor is about to be killed: later calls wait for what the agent says of it next."""
        client = self.clients.get(actor_id)
        if client is not None:
            client.is_killed |= for_good
            if client.calls.state is ActorState.ALIVE:
                client.calls.state = ActorState.RESTARTING

    def forget(self, actor_id: bytes) -> None:
        """This process has no strong handle any more, and so no call in flight; a weak one starts afresh."""
        client = self.clients.get(actor_id)
        if client is not None and not client.calls.pending_count:
            del self.clients[actor_id]

    def _client(self, actor_id: bytes, description: actor_api.ActorDescription) -> ActorClient:
        client = self.clients.get(actor_id)
        if client is None:
            client = self.clients[actor_id] = ActorClient(self._engine, actor_id, description)
        return client

    def _watch(self, actor_id: bytes) -> None:
        self._engine.agent.notify({"t": "actor_watch", "actor": actor_id.hex()})

    def _weak_handle(self, actor_id: bytes, meta: bytes) -> actor_api.ActorHandle:
        return actor_api.ActorHandle(actor_id, serialization.loads(meta), None)

    def get(self, name: str, namespace: str) -> actor_api.ActorHandle:
        """A weak handle to a named actor. Called without the lock. Raises ValueError when there is none."""
        answer, body = self._engine.agent.request({"t": "get_actor", "name": name, "namespace": namespace})
        if (answer.get("error") or {}).get("kind") == "missing":
            raise ValueError(
                f"no actor called {name!r} lives in namespace {namespace!r}; create it with "
                f".options(name={name!r}), or name "
                "the namespace it was created in (umbel.util.list_named_actors(all_namespaces=True) lists all)"
            )
        links.raise_refusal(answer)
        return self._weak_handle(bytes.fromhex(answer["actor"]), body)

    # Calls

    def submit(
        self,
        handle: actor_api.ActorHandle,
        template: actor_api.MethodTemplate,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Called without the lock. Returns what `ActorMethod.remote` does."""
        engine = self._engine
        actor_id = handle._actor_id
        client = self.clients.get(actor_id)
        if client is None:
            engine.check_handle(handle)
            with engine.lock:
                client = self._client(actor_id, handle._description)
                self._watch(actor_id)
        state: Template | None = template.engine_state
        if state is None or state.engine is not engine:
            state = self._prepare(client, template)
        kind, payload, deps, pins = messages.ARGS, args, None, None
        if args or kwargs:
            try:
                kind, payload, deps, pins = engine.tasks.arguments.encode(args, kwargs)
            except TypeError as error:
                raise template.description.signature.blame(state.name, args, kwargs, error) from error.__cause__
        with engine.lock:
            engine.check_running()
            limit = client.description.max_pending_calls
            calls = client.calls
            if 0 < limit <= calls.pending_count:
                raise exceptions.PendingCallsLimitExceeded(
                    f"actor {client.description.class_name} has {calls.pending_count} calls pending from this "
                    f"process, its "
                    f"max_pending_calls is {limit}; wait for some results first"
                )
            book = engine.tasks
            book.last_seq = seq = book.last_seq + 1
            call = Task(seq, state, kind, payload)
            call.actor = client
            result = book.open_results(call, state)
            if handle._lifetime is not None:  # the actor stays while it has calls of ours
                record = engine.values.table.records.get(handle._lifetime._id)
                if record is not None:
                    record.pins += 1
                    call.argument_pins = [record]
            if deps or pins or kind == messages.ARGS_OBJECT:
                book.arguments.attach(call, deps, pins)
            book.unfinished[seq] = call
            if engine.context_of is not None:
                call.parent = engine.context_of()
            if call.error is not None:
                book.fail(call, call.error)
            elif client.death is not None:
                book.fail(call, client.death)
            else:
                calls.queue.append(call)
                if not call.missing or calls.allow_out_of_order:
                    client.pump()
            if engine.values._drops:
                engine.values.drain_drops()
        return result

    def _prepare(self, client: ActorClient, template: actor_api.MethodTemplate) -> Template:
        options = template.options
        key = (template.name, options)
        with self._engine.lock:
            made = client.templates.get(key)
            if made is None:
                made = self._engine.tasks.new_template(
                    options.name or f"{client.description.class_name}.{template.name}",
                    options.num_returns,
                    template.is_generator,
                )
                retries = options.max_task_retries
                made.max_retries = client.description.max_task_retries if retries is None else retries
                made.retry_exceptions = options.retry_exceptions
                limit = options.generator_backpressure_num_objects
                made.backpressure = -1 if limit is None else limit
                made.announcement = {
                    "method": template.name,
                    "name": made.name,
                    "num_returns": made.num_returns,
                    "is_streaming": made.is_streaming,
                    "backpressure": made.backpressure,
                    "group": options.concurrency_group,
                    "tensor_transport": options.tensor_transport,
                    "events": options.enable_task_events and client.description.has_events,
                    "class_name": client.description.class_name,
                    "actor": client.actor_id.hex(),
                }
                client.templates[key] = made
            template.engine_state = made
        return made

    # From the agent and the links

    def on_state(self, message: dict[str, Any], body: bytes) -> None:
        client = self.clients.get(bytes.fromhex(message["actor"]))
        if client is not None and client.calls.state is not ActorState.DEAD:
            client.on_state(message, body)

    def link_gone(self, link: links.Link) -> None:
        for client in self.clients.values():
            if client.link is link:
                client.link_gone()
