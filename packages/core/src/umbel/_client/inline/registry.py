"""The actors of the session: creation, names, calls by handle, and what is known of the dead."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import actor as actor_api
from umbel._client import refs
from umbel._client.inline import actors, calls, tasks, values
from umbel._model import ids

if TYPE_CHECKING:
    from umbel._client.inline.engine import InlineEngine

DEAD_ACTORS_MAX = 10_000  # whose cause of death is remembered; about 1 KB each


class Registry:
    """Methods need the mutex held unless they say otherwise."""

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine
        self._values = engine.values
        self._tasks = engine.tasks
        self._actors: dict[bytes, actors.Actor] = {}
        self._dead: OrderedDict[bytes, values.Failure] = OrderedDict()
        self._names: dict[tuple[str, str], actors.Actor] = {}  # by namespace and name
        self._values.on_unreferenced = self._unreferenced

    # Creation

    def recipe(self, template: actor_api.ActorTemplate) -> calls.Recipe:
        """Called without the mutex."""
        options, class_name = template.options, template.description.class_name
        self._tasks.export(template.source)  # only to refuse what another process could not have
        recipe = calls.Recipe(self._engine, f"{class_name}.__init__", 0, is_generator=False)
        recipe.env_vars = self._tasks.env_vars(options.env_vars)
        if options.environment:
            tasks.refuse_environment(options.environment)
        self._tasks.place(recipe, options.placement_resources, options, exceptions.ActorUnschedulableError)
        recipe.resources = options.running_resources.to_floats()
        recipe.has_events = options.enable_task_events
        return recipe

    def create(
        self, template: actor_api.ActorTemplate, recipe: calls.Recipe, arguments: calls.Arguments
    ) -> tuple[calls.Call | None, actor_api.ActorHandle]:
        """The constructor's call, None if the actor exists already; and the handle."""
        options = template.options
        namespace = options.namespace or self._engine.namespace
        named = self._names.get((namespace, options.name)) if options.name else None
        if named is not None:
            if options.get_if_exists:
                return None, named.weak_handle()
            raise exceptions.ActorAlreadyExistsError(
                f"an actor called {options.name!r} exists in namespace {namespace!r}; choose another name, get it with "
                "umbel.get_actor, or pass get_if_exists=True"
            )
        caller = self._engine.session_context.worker_id
        self._engine.exits.install()
        creation = calls.Call(recipe, self._tasks.next_id(), arguments, None, caller)
        actor = actors.Actor(self._engine, self, template, creation, namespace)
        self._actors[actor.actor_id] = actor
        if options.name:
            self._names[namespace, options.name] = actor
        handle = actor_api.ActorHandle(actor.actor_id, template.description, self._count_handles(actor))
        if recipe.infeasible is not None:
            actor.die(recipe.infeasible)
            return creation, handle
        if recipe.in_group is not None and (trouble := self._engine.groups.trouble(recipe.in_group)):
            actor.die(self._engine.groups.actor_failure(actor, trouble))
            return creation, handle
        failure = self._tasks.attach(creation, actor.start, actor.init_failed)
        if failure is not None:
            actor.init_failed(failure)
        elif not creation.missing:
            actor.start()
        return creation, handle

    def _count_handles(self, actor: actors.Actor) -> refs.ObjectRef[Any] | None:
        """The reference that strong handles share. The constructor keeps it too, until it has run."""
        if actor.description.is_detached:
            return None
        record = actor.lifetime = self._values.new(
            actor.actor_id + actor_api.LIFETIME_SUFFIX, actor.creation, actor.creation.caller
        )
        self._values.settle(record, values.Encoded(values.LIFETIME, actor.actor_id))
        self._values.table.pin(record)
        actor.creation.pins.append(record)
        return self._values.ref(record.object_id)

    # Calls

    def submit(
        self, handle: actor_api.ActorHandle, template: actor_api.MethodTemplate, arguments: calls.Arguments
    ) -> tuple[calls.Call, Any]:
        actor = self._actors.get(handle._actor_id)
        death = self._death_of(handle) if actor is None else None
        recipe: calls.Recipe | None = template.engine_state
        if recipe is None or recipe.engine is not self._engine:
            recipe = template.engine_state = self._method_recipe(handle, template, actor)
        if actor is not None:
            self._check_limit(actor)
        call = self._tasks.new(recipe, arguments)
        result = self._tasks.open(call)
        if actor is None:
            self._tasks.fail(call, death or self._long_dead(handle))
            return call, result
        if actor.lifetime is not None:  # the actor stays while it has calls
            self._values.table.pin(actor.lifetime)
            call.pins.append(actor.lifetime)
        actor.accept(call)

        def failed(failure: values.Failure) -> None:
            actor.remove(call)
            self._tasks.fail(call, failure)

        failure = self._tasks.attach(call, lambda: actor.deliver(call.caller), failed)
        if failure is not None:
            self._tasks.fail(call, failure)
        else:
            actor.submit(call)
        return call, result

    def _method_recipe(
        self, handle: actor_api.ActorHandle, template: actor_api.MethodTemplate, actor: actors.Actor | None
    ) -> calls.Recipe:
        options, described, of_class = template.options, template.description, handle._description
        name = f"{of_class.class_name}.{template.name}"
        recipe = calls.Recipe(
            self._engine, options.name or name, options.num_returns, is_generator=template.is_generator
        )
        recipe.function_name = name
        recipe.method = template.name
        recipe.is_async = described.is_async or (of_class.is_async and template.name in actors.SYSTEM_METHODS)
        recipe.max_retries = of_class.max_task_retries if options.max_task_retries is None else options.max_task_retries
        recipe.retry_exceptions = options.retry_exceptions
        recipe.group = options.concurrency_group
        recipe.has_events = options.enable_task_events and (actor is None or actor.template.options.enable_task_events)
        windows = [options.generator_backpressure_num_objects or -1]
        if actor is not None:
            windows.append(actor.template.options.generator_backpressure_num_objects)
        recipe.window = min((window for window in windows if window > 0), default=-1)
        return recipe

    def _check_limit(self, actor: actors.Actor) -> None:
        limit = actor.description.max_pending_calls
        pending = actor.pending_count(self._engine.session_context.worker_id) if limit > 0 else 0
        if pending and pending >= limit:
            raise exceptions.PendingCallsLimitExceeded(
                f"actor {actor.description.class_name} has {pending} calls pending from this process, its "
                f"max_pending_calls is {limit}; wait for some results first"
            )

    # Death

    def _death_of(self, handle: actor_api.ActorHandle) -> values.Failure | None:
        actor_id = handle._actor_id
        if ids.ActorID(actor_id).owner().binary() != self._engine.process_id:
            raise exceptions.ActorHandleNotFoundError(
                f"actor {handle._description.class_name} ({actor_id.hex()}) is of another session; create it again"
            )
        return self._dead.get(actor_id)

    @staticmethod
    def _long_dead(handle: actor_api.ActorHandle) -> values.Failure:
        error = exceptions.ActorDiedError(
            f"{handle!r} is dead; it died too long ago to say why", actor_id=handle._actor_id.hex()
        )
        return values.Failure(error, handle._description.class_name)

    def _unreferenced(self, actor_id: bytes) -> None:
        actor = self._actors.get(actor_id)
        if actor is not None:
            actor.unreferenced()

    def owner_died(self, owner: str) -> None:
        """The worker has ended: so do the actors that it created."""
        for actor in [one for one in self._actors.values() if one.creation.caller == owner]:
            if not actor.description.is_detached:
                actor.crash(
                    f"its owner, the worker {owner} that created it, is gone; pass lifetime='detached' for actors that "
                    "shall outlive it",
                    may_restart=False,
                )

    def forget(self, actor: actors.Actor, death: values.Failure) -> None:
        """The actor has died."""
        self._actors.pop(actor.actor_id, None)
        if actor.name and self._names.get((actor.namespace, actor.name)) is actor:
            del self._names[actor.namespace, actor.name]
        self._dead[actor.actor_id] = death
        if len(self._dead) > DEAD_ACTORS_MAX:
            self._dead.popitem(last=False)

    def kill(self, handle: actor_api.ActorHandle, *, no_restart: bool) -> None:
        actor = self._actors.get(handle._actor_id)
        if actor is None:
            self._death_of(handle)
        else:
            actor.crash("it was killed by umbel.kill()", may_restart=not no_restart)

    def kill_all(self, reason: str) -> None:
        for actor in list(self._actors.values()):
            actor.crash(reason, may_restart=False)

    def living(self) -> list[actors.Actor]:
        return list(self._actors.values())

    def started(self) -> list[calls.Recipe]:
        """What the living actors hold."""
        return [actor.creation.recipe for actor in self._actors.values() if actor.creation.is_started]

    # Names

    def find(self, name: str, namespace: str) -> actor_api.ActorHandle:
        actor = self._names.get((namespace, name))
        if actor is None:
            raise ValueError(
                f"no actor called {name!r} lives in namespace {namespace!r}; create it with .options(name={name!r}), "
                "or name the namespace it was created in (umbel.util.list_named_actors(all_namespaces=True) lists all)"
            )
        return actor.weak_handle()

    def names(self, namespace: str | None) -> list[tuple[str, str]]:
        """(name, namespace) of the living; None for those of all namespaces."""
        return sorted((name, space) for space, name in self._names if namespace in (None, space))
