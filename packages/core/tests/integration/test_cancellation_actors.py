"""Cancelling actors' calls: queued, running plain ones, threads, coroutines, streams; what they see and what is
spared."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.slow
CANCELLED = (exceptions.TaskCancelledError, exceptions.UmbelTaskError)


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


@umbel.remote
class Plain:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def work(self, name: str, path: pathlib.Path | None = None, until_cancelled: bool = False) -> str:
        self.calls.append(name)
        if path is not None:
            (path / name).touch()
            deadline = time.monotonic() + 20
            while not (path / "open").exists() and time.monotonic() < deadline:
                if until_cancelled and umbel.get_runtime_context().is_canceled():
                    return "saw it"
                time.sleep(0.002)
        return name

    def names(self) -> list[str]:
        return self.calls

    def submit_and_wait(self, path: pathlib.Path) -> None:
        umbel.get(forever.remote(path))


@umbel.remote
def forever(path: pathlib.Path) -> None:
    try:
        (path / "child").touch()
        time.sleep(1000)
    finally:
        (path / "child-interrupted").touch()


@umbel.remote
class Async:
    def __init__(self) -> None:
        self.cleaned = 0

    async def wait(self, path: pathlib.Path) -> None:
        (path / "entered").touch()
        try:
            await asyncio.sleep(1000)
        finally:
            self.cleaned += 1

    async def wait_for_child(self, path: pathlib.Path) -> None:
        await forever.remote(path)

    async def stream(self) -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(1000)
        finally:
            self.cleaned += 1

    async def stubborn(self, path: pathlib.Path) -> str:
        (path / "entered").touch()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "finished all the same"
        return "never"

    async def count(self) -> int:
        return self.cleaned


def test_queued_calls_never_start(tmp_path: pathlib.Path) -> None:
    actor = Plain.remote()
    first = actor.work.remote("first", tmp_path)
    drivers.wait_until((tmp_path / "first").exists)
    queued = [actor.work.remote(f"queued{number}") for number in range(20)]
    last = actor.work.remote("last")
    for ref in queued:
        umbel.cancel(ref)
    for ref in queued:
        with pytest.raises(exceptions.TaskCancelledError):
            umbel.get(ref, timeout=10)
    (tmp_path / "open").touch()
    assert umbel.get([first, last], timeout=10) == ["first", "last"]
    assert umbel.get(actor.names.remote()) == ["first", "last"]


def test_call_that_waits_for_an_argument_never_starts_and_lets_others_pass(tmp_path: pathlib.Path) -> None:
    actor = Plain.remote()
    never = forever.remote(tmp_path)
    waiting = actor.work.remote(never)
    behind = actor.work.remote("behind")
    umbel.cancel(waiting)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(waiting, timeout=10)
    assert umbel.get(behind, timeout=10) == "behind"
    umbel.cancel(never)


def test_call_of_an_actor_that_is_not_placed_is_cancelled() -> None:
    actor = Plain.options(num_cpus=1000).remote()
    ref = actor.work.remote("never")
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=10)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_running_plain_call_sees_the_flag_and_is_not_interrupted(tmp_path: pathlib.Path, concurrency: int) -> None:
    actor = Plain.options(max_concurrency=concurrency).remote()
    ref = actor.work.remote("running", tmp_path, True)
    drivers.wait_until((tmp_path / "running").exists)
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):  # whatever it returned
        umbel.get(ref, timeout=10)
    assert umbel.get(actor.work.remote("next"), timeout=10) == "next"


def test_queued_calls_of_a_threaded_actor_never_start(tmp_path: pathlib.Path) -> None:
    actor = Plain.options(max_concurrency=2).remote()
    running = [actor.work.remote(f"running{number}", tmp_path) for number in range(2)]
    drivers.wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    queued = [actor.work.remote(f"queued{number}") for number in range(5)]
    for ref in queued:
        umbel.cancel(ref)
    for ref in queued:
        with pytest.raises(exceptions.TaskCancelledError):
            umbel.get(ref, timeout=10)
    (tmp_path / "open").touch()
    umbel.get(running, timeout=10)
    assert sorted(umbel.get(actor.names.remote())) == ["running0", "running1"]


def test_coroutine_is_cancelled_and_cleans_up(tmp_path: pathlib.Path) -> None:
    actor = Async.remote()
    ref = actor.wait.remote(tmp_path)
    drivers.wait_until((tmp_path / "entered").exists)
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=10)
    assert umbel.get(actor.count.remote(), timeout=10) == 1


def test_coroutine_that_swallows_the_cancellation_returns_its_value(tmp_path: pathlib.Path) -> None:
    actor = Async.remote()
    ref = actor.stubborn.remote(tmp_path)
    drivers.wait_until((tmp_path / "entered").exists)
    umbel.cancel(ref)
    assert umbel.get(ref, timeout=10) == "finished all the same"


def test_queued_coroutines_never_start(tmp_path: pathlib.Path) -> None:
    actor = Async.options(max_concurrency=1).remote()
    running = actor.wait.remote(tmp_path)
    drivers.wait_until((tmp_path / "entered").exists)
    queued = [actor.wait.remote(tmp_path) for _ in range(5)]
    for ref in [*queued, running]:
        umbel.cancel(ref)
    for ref in [*queued, running]:
        with pytest.raises(exceptions.TaskCancelledError):
            umbel.get(ref, timeout=10)
    assert umbel.get(actor.count.remote(), timeout=10) == 1


def test_async_stream_is_cancelled() -> None:
    actor = Async.remote()
    items = actor.stream.remote()
    assert umbel.get(next(items), timeout=10) == 1
    umbel.cancel(items)
    with pytest.raises(CANCELLED):
        umbel.get(next(items), timeout=10)
    with pytest.raises(StopIteration):
        next(items)
    drivers.wait_until(lambda: umbel.get(actor.count.remote(), timeout=10) == 1)


def test_cancellation_reaches_the_tasks_a_method_has_submitted(tmp_path: pathlib.Path) -> None:
    for kind in ("plain", "async"):
        path = tmp_path / kind
        path.mkdir()
        actor: Any = Plain.remote() if kind == "plain" else Async.remote()
        ref = actor.submit_and_wait.remote(path) if kind == "plain" else actor.wait_for_child.remote(path)
        drivers.wait_until((path / "child").exists)
        umbel.cancel(ref)
        drivers.wait_until((path / "child-interrupted").exists)
        with pytest.raises(CANCELLED):
            umbel.get(ref, timeout=10)


def test_force_is_refused_for_actors_calls(tmp_path: pathlib.Path) -> None:
    actor = Plain.remote()
    ref = actor.work.remote("running", tmp_path)
    drivers.wait_until((tmp_path / "running").exists)
    with pytest.raises(ValueError, match="force"):
        umbel.cancel(ref, force=True)
    (tmp_path / "open").touch()
    assert umbel.get(ref, timeout=10) == "running"


def test_finished_calls_are_left_alone() -> None:
    actor = Plain.remote()
    ref = actor.work.remote("done")
    umbel.get(ref)
    umbel.cancel(ref)
    assert umbel.get(ref) == "done"
    assert umbel.get(actor.work.remote("next"), timeout=10) == "next"


def test_borrower_cancels_a_call(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def cancel(refs: list[Any]) -> None:
        umbel.cancel(refs[0])

    actor = Async.remote()
    ref = actor.wait.remote(tmp_path)
    drivers.wait_until((tmp_path / "entered").exists)
    umbel.get(cancel.remote([ref]), timeout=10)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=10)


def test_cancelled_call_is_not_repeated_after_a_restart(tmp_path: pathlib.Path) -> None:
    actor = Plain.options(max_restarts=-1, max_task_retries=-1).remote()
    ref = actor.work.remote("running", tmp_path)
    drivers.wait_until((tmp_path / "running").exists)
    umbel.cancel(ref)
    umbel.kill(actor, no_restart=False)
    with pytest.raises((*CANCELLED, exceptions.UmbelActorError)):
        umbel.get(ref, timeout=10)
    assert umbel.get(actor.names.remote(), timeout=10) == []
