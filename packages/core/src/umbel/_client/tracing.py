"""Spans of submissions and runs by OpenTelemetry, linked across processes. Loaded only where `init` was told to trace.

Submitting and running are wrapped from outside: an engine that does not trace has nothing to ask. The context of a
submission travels as one more keyword argument, a string, which the wrapper of the run takes out again.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace

from umbel._client import context

KEYWORD = "_umbel_trace_context"
FLUSH_MS = 200  # when a session is shut down: less than its workers are given to exit


def find_hook(name: str) -> Callable[[], Any]:
    """What `init(_tracing_startup_hook="module:function")` names. Raises ImportError or AttributeError without it."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    hook: Callable[[], Any] = found
    return hook


def start(engine: Any) -> Tracing:
    """Trace what this engine submits."""
    tracing = Tracing(engine)
    engine.submit_task = tracing.submitting(engine.submit_task)
    engine.submit_actor_task = tracing.calling(engine.submit_actor_task)
    engine.create_actor = tracing.creating(engine.create_actor)
    return tracing


def start_in_worker(engine: Any, hook: str) -> Tracing:
    """The same, once the hook has run here. One that fails costs the spans of this process, and a line on standard error:
    what others submit carries its context all the same, and must run."""
    try:
        find_hook(hook)()
    except Exception as error:
        sys.stderr.write(
            f"umbel: the tracing hook {hook!r} failed in process {os.getpid()}, whose spans are not recorded: "
            f"{type(error).__name__}: {error}\n"
        )
    return start(engine)


class Tracing:
    """How one process traces."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._tracer = trace.get_tracer("umbel")

    # Submissions

    def submitting(self, submit: Callable[..., Any]) -> Callable[..., Any]:
        def traced(template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            with self._producer(template.name, _of_task(template.name)):
                return submit(template, args, _with_context(kwargs))

        return traced

    def calling(self, submit: Callable[..., Any]) -> Callable[..., Any]:
        def traced(handle: Any, template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if template.name.startswith("__umbel_"):
                return submit(handle, template, args, kwargs)
            about = _of_actor(handle._description.class_name, template.name, handle._actor_id.hex())
            with self._producer(about["umbel.function"], about):
                return submit(handle, template, args, _with_context(kwargs))

        return traced

    def creating(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def traced(template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            about = _of_actor(template.description.class_name, "__init__", "")
            with self._producer(about["umbel.function"], about) as span:
                handle = create(template, args, _with_context(kwargs))
                span.set_attribute("umbel.actor_id", handle._actor_id.hex())
                return handle

        return traced

    def _producer(self, name: str, about: dict[str, str]) -> Any:
        attributes = {**about, **self._here()}
        return self._tracer.start_as_current_span(
            f"{name} umbel.remote", kind=trace.SpanKind.PRODUCER, attributes=attributes
        )

    # Runs

    def running(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, run in a span whose parent is the submission's. Of the same kind: plain, generator, coroutine."""
        if inspect.isasyncgenfunction(function):

            async def items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                with self._consumer(kwargs):
                    async for item in function(*args, **kwargs):
                        yield item

            return items
        if inspect.iscoroutinefunction(function):

            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._consumer(kwargs):
                    return await function(*args, **kwargs)

            return coroutine
        if inspect.isgeneratorfunction(function):

            def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
                with self._consumer(kwargs), contextlib.closing(call_user(function, args, kwargs)) as items:
                    while True:
                        try:
                            item = call_user(next, (items,), {})
                        except StopIteration:
                            return
                        yield item

            return generator

        def plain(*args: Any, **kwargs: Any) -> Any:
            with self._consumer(kwargs):
                return call_user(function, args, kwargs)

        return plain

    def _consumer(self, kwargs: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
        """Takes the submission's context out of the arguments."""
        carried = kwargs.pop(KEYWORD, None)
        if carried is None:
            return contextlib.nullcontext()
        parent = propagate.extract(json.loads(carried))
        task = context.current_task.get()
        name, about = "", {}
        if task is not None:
            name = task.name
            about = _of_task(name)
            if task.actor is not None:
                about = _of_actor(task.actor.class_name, task.function_name, task.actor.actor_id)
                name = about["umbel.function"]
            about |= {"umbel.task_id": task.task_id, "umbel.attempt": str(task.attempt)}
        return _Run(self._tracer, parent, f"{name} umbel.remote_worker", {**about, **self._here()})

    def _here(self) -> dict[str, str]:
        session = self._engine.session_context
        return {
            "umbel.pid": str(os.getpid()),
            "umbel.job_id": session.job_id,
            "umbel.node_id": session.node_id,
            "umbel.worker_id": session.worker_id,
        }

    @staticmethod
    def flush() -> None:
        """Have spans exported that wait for that, as far as it is quick."""
        flush = getattr(
            trace.get_tracer_provider(), "force_flush", None
        )  # the SDK's provider has it, the API's has not
        if flush is None:
            return
        try:
            flush(FLUSH_MS)
        except Exception as error:  # the user's code; this process must end all the same
            sys.stderr.write(f"umbel: process {os.getpid()} could not export its last spans: {error!r}\n")


def call_user(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the user's code. Everything above this frame is his, as far as interrupting it goes."""
    return function(*args, **kwargs)


class _Run:
    """A span in another's context: entered, it is the current one."""

    def __init__(self, tracer: trace.Tracer, parent: Any, name: str, attributes: Mapping[str, str]) -> None:
        self._parent = parent
        self._span = tracer.start_as_current_span(
            name, context=parent, kind=trace.SpanKind.CONSUMER, attributes=attributes
        )
        self._token: Any = None

    def __enter__(self) -> Any:
        self._token = otel_context.attach(self._parent)  # for baggage, which is not the span's
        return self._span.__enter__()

    def __exit__(self, *error: Any) -> Any:
        try:
            return self._span.__exit__(*error)
        finally:
            otel_context.detach(self._token)


def _with_context(kwargs: dict[str, Any]) -> dict[str, Any]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {**kwargs, KEYWORD: json.dumps(carrier)}


def _of_task(name: str) -> dict[str, str]:
    return {"umbel.remote": "function", "umbel.function": name}


def _of_actor(class_name: str, method: str, actor_id: str) -> dict[str, str]:
    """method: with or without the class before it."""
    method = method.rpartition(".")[2]
    about = {
        "umbel.remote": "actor",
        "umbel.actor_class": class_name,
        "umbel.actor_method": method,
        "umbel.function": f"{class_name}.{method}",
    }
    return {**about, "umbel.actor_id": actor_id} if actor_id else about
