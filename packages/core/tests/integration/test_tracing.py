"""Tracing by OpenTelemetry: spans of submissions and runs, and their links across processes, on both engines."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import drivers
import pytest

pytest.importorskip("opentelemetry.sdk")

import tracing_hook
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context

import umbel


@pytest.fixture(scope="module", params=["native", "inline"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    umbel.shutdown()
    os.environ[tracing_hook.DIRECTORY] = str(tmp_path_factory.mktemp("spans"))
    hook = "tracing_hook:set_up"
    with umbel.init(num_cpus=2, engine=request.param, log_to_driver=False, _tracing_startup_hook=hook):
        yield request.param
    del os.environ[tracing_hook.DIRECTORY]


@pytest.fixture(autouse=True)
def nothing_yet(request: pytest.FixtureRequest) -> None:
    if "engine" in request.fixturenames:
        tracing_hook.taken()


def collect() -> dict[str, dict[str, Any]]:
    """The spans of this test, by name; the last of each."""
    return {span["name"]: span for span in tracing_hook.taken()}


def linked(spans: dict[str, dict[str, Any]], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The submission's span and the run's, whose parent it is."""
    submitted, ran = spans[f"{name} umbel.remote"], spans[f"{name} umbel.remote_worker"]
    assert (submitted["kind"], ran["kind"]) == ("PRODUCER", "CONSUMER")
    assert (ran["trace"], ran["parent"]) == (submitted["trace"], submitted["id"])
    return submitted, ran


@umbel.remote(name="inner")
def inner(**extra: Any) -> dict[str, Any]:
    return extra


@umbel.remote(name="outer")
def outer() -> tuple[Any, str]:
    return umbel.get(inner.remote(a=1)), umbel.get_runtime_context().get_task_id() or ""


def test_spans_of_nested_tasks_hang_together_across_processes(engine: str) -> None:
    with trace.get_tracer("test").start_as_current_span("program"):
        extra, task = umbel.get(outer.remote())
    assert extra == {"a": 1}  # the function sees nothing of what travels along
    spans = collect()
    of_outer, outer_run = linked(spans, "outer")
    of_inner, inner_run = linked(spans, "inner")
    assert of_outer["parent"] == spans["program"]["id"]
    assert of_inner["parent"] == outer_run["id"]
    assert {span["trace"] for span in spans.values()} == {spans["program"]["trace"]}
    assert outer_run["attributes"]["umbel.task_id"] == task
    assert outer_run["attributes"]["umbel.function"] == "outer"
    assert (of_outer["pid"], of_inner["pid"]) == (os.getpid(), outer_run["pid"])
    if engine == "native":
        assert os.getpid() not in (outer_run["pid"], inner_run["pid"])


@umbel.remote(num_cpus=0)
class Actor:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, more: int) -> int:
        self.value += umbel.get(inner.remote(more=more))["more"]
        return self.value

    def count(self, limit: int) -> Iterator[int]:
        yield from range(limit)


@umbel.remote(num_cpus=0)
class AsyncActor:
    async def add(self, more: int) -> int:
        await asyncio.sleep(0)
        return int((await inner.remote(more=more))["more"]) + 1

    async def count(self, limit: int) -> AsyncIterator[int]:
        for number in range(limit):
            yield number


@pytest.mark.usefixtures("engine")
def test_actors_constructor_and_methods_are_traced() -> None:
    actor = Actor.remote(1)
    assert umbel.get(actor.add.remote(2)) == 3
    assert umbel.get(list(actor.count.remote(3))) == [0, 1, 2]
    spans = collect()
    created, _ = linked(spans, "Actor.__init__")
    called, ran = linked(spans, "Actor.add")
    linked(spans, "Actor.count")
    assert spans["inner umbel.remote"]["parent"] == ran["id"]
    for span in (created, called, ran):
        assert span["attributes"]["umbel.actor_id"] == actor._actor_id_hex
        assert span["attributes"]["umbel.actor_class"] == "Actor"
    assert (called["attributes"]["umbel.actor_method"], called["attributes"]["umbel.remote"]) == ("add", "actor")


@pytest.mark.usefixtures("engine")
def test_coroutines_and_async_generators_are_traced_apart_though_they_overlap() -> None:
    actor = AsyncActor.remote()
    with trace.get_tracer("test").start_as_current_span("one"):
        first = actor.add.remote(1)
    assert umbel.get(first) == 2
    assert umbel.get(list(actor.count.remote(2))) == [0, 1]
    spans = collect()
    called, ran = linked(spans, "AsyncActor.add")
    linked(spans, "AsyncActor.count")
    linked(spans, "inner")
    assert called["parent"] == spans["one"]["id"]
    assert spans["inner umbel.remote"]["parent"] == ran["id"]


@pytest.mark.usefixtures("engine")
def test_span_of_a_generator_lasts_until_its_end() -> None:
    @umbel.remote(name="generate")
    def generate() -> Iterator[int]:
        yield 1
        time.sleep(0.05)
        yield 2

    assert umbel.get(list(generate.remote())) == [1, 2]
    _, ran = linked(collect(), "generate")
    assert ran["took_ns"] >= 50_000_000


@pytest.mark.usefixtures("engine")
def test_errors_are_recorded_in_the_run_and_come_as_always() -> None:
    @umbel.remote(name="failing", max_retries=0)
    def failing() -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        umbel.get(failing.remote())
    submitted, ran = linked(collect(), "failing")
    assert (ran["is_error"], ran["events"], submitted["is_error"]) == (True, ["exception"], False)


@pytest.mark.usefixtures("engine")
def test_each_attempt_is_a_run_of_the_same_submission(tmp_path: Any) -> None:
    @umbel.remote(name="flaky", max_retries=2, retry_exceptions=True)
    def flaky(path: str) -> str:
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise OSError("again")
        return "done"

    assert umbel.get(flaky.remote(str(tmp_path / "count"))) == "done"
    _, ran = linked(collect(), "flaky")
    assert ran["attributes"]["umbel.attempt"] == "2"


def test_traced_tasks_can_be_cancelled_wherever_they_are(engine: str, tmp_path: Any) -> None:
    if engine == "inline":
        pytest.skip("there, code that calls nothing of Umbel is not interrupted")
    began = tmp_path / "began"

    @umbel.remote
    def hang() -> None:
        began.touch()
        while True:
            time.sleep(0.01)

    @umbel.remote
    def hang_between_items() -> Iterator[int]:
        yield 1
        began.touch()
        while True:
            time.sleep(0.01)

    for started in (hang.remote(), hang_between_items.remote()):
        drivers.wait_until(began.exists)
        began.unlink()
        umbel.cancel(started)
        with pytest.raises(umbel.exceptions.TaskCancelledError):
            umbel.get(started if isinstance(started, umbel.ObjectRef) else list(started), timeout=drivers.PATIENCE_S)


@pytest.mark.usefixtures("engine")
def test_baggage_travels_along() -> None:
    @umbel.remote
    def carried() -> Any:
        return baggage.get_baggage("user")

    token = otel_context.attach(baggage.set_baggage("user", "u1"))
    try:
        reference = carried.remote()
    finally:
        otel_context.detach(token)
    assert umbel.get(reference) == "u1"
    assert umbel.get(carried.remote()) is None


@pytest.mark.usefixtures("engine")
def test_large_and_referred_arguments_come_as_they_are() -> None:
    @umbel.remote
    def lengths(first: bytes, *, second: bytes) -> tuple[int, int]:
        return len(first), len(second)

    large = bytes(300_000)
    assert umbel.get(lengths.remote(umbel.put(large), second=large)) == (300_000, 300_000)
    with pytest.raises(TypeError, match="missing a required argument: 'second'"):
        lengths.remote(large)


def drive(body: str) -> tuple[str, str]:
    here = os.path.dirname(__file__)
    return drivers.run(f"import sys; sys.path.insert(0, {here!r}); import umbel\n{body}")


def test_hook_that_fails_in_a_worker_costs_its_spans_and_no_task() -> None:
    output, errors = drive(
        "umbel.init(num_cpus=1, _tracing_startup_hook='tracing_hook:fail_in_workers')\n"
        "print(umbel.get(umbel.remote(lambda **more: more).remote(a=1)))\n"
    )
    assert "{'a': 1}" in output
    assert "the tracing hook 'tracing_hook:fail_in_workers' failed in process" in output + errors
    assert "RuntimeError: not here" in output + errors


def test_spans_of_an_actor_that_leaves_from_a_thread_are_exported(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracing_hook.DIRECTORY, str(tmp_path))
    output, _ = drive("""
umbel.init(num_cpus=1, _tracing_startup_hook="tracing_hook:set_up_late")

@umbel.remote(max_concurrency=2)
class Threaded:
    def well(self):
        return 1
    def leave(self):
        sys.exit(3)

actor = Threaded.remote()
umbel.get(actor.well.remote())
try:
    umbel.get(actor.leave.remote())
except umbel.exceptions.ActorDiedError:
    pass
import tracing_hook
print(sorted(span["name"] for span in tracing_hook.taken()))
""")
    names = ["__init__", "leave", "well"]
    assert output.splitlines()[-1] == str([f"Threaded.{name} umbel.remote_worker" for name in names])


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ("'tracing_hook:fail'", "RuntimeError: not anywhere"),
        ("'tracing_hook:no_such'", "AttributeError: module 'tracing_hook' has no attribute 'no_such'"),
        ("'no_such_module:f'", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("'tracing_hook'", "ValueError: _tracing_startup_hook must be 'module:function'"),
        ("'__main__:f'", "ValueError: _tracing_startup_hook must be 'module:function' in a module that workers can"),
        ("print", "TypeError: _tracing_startup_hook must be a str 'module:function'"),
    ],
)
def test_hook_that_cannot_be_used_is_an_error_of_init(hook: str, told: str) -> None:
    output, _ = drive(
        f"try:\n    umbel.init(num_cpus=1, _tracing_startup_hook={hook})\n"
        "except Exception as error:\n    print(f'{type(error).__name__}: {error}', umbel.is_initialized())\n"
    )
    assert told in output and output.rstrip().endswith("False")


def test_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    output, _ = drive(
        "sys.modules['opentelemetry'] = None\n"
        "try:\n    umbel.init(num_cpus=1, _tracing_startup_hook='json:dumps')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    assert 'pip install "umbel[otel]"' in output


def test_session_that_does_not_trace_loads_nothing_of_it() -> None:
    output, _ = drive(
        "umbel.init(num_cpus=1)\n"
        "found = lambda: [name for name in sys.modules if 'opentelemetry' in name or '_client.tracing' in name]\n"
        "print(umbel.get(umbel.remote(found).remote()), found())\n"
    )
    assert output.splitlines()[-1] == "[] []"
