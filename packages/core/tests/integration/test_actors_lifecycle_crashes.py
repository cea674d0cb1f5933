"""Actors that die: by accident, on purpose, while being made, with calls under way; and those that come back."""

from __future__ import annotations

import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


def note(path: pathlib.Path) -> int:
    """Note one more event in a directory; returns how many there were before."""
    number = len(list(path.iterdir()))
    (path / f"{number}-{os.urandom(4).hex()}").touch()
    return number


@umbel.remote
class Fragile:
    """Dies when told to."""

    def __init__(self, path: pathlib.Path | None = None) -> None:
        self.calls = 0
        if path is not None:
            note(path)

    def pid(self) -> int:
        return os.getpid()

    def increment(self) -> int:
        self.calls += 1
        return self.calls

    def die(self) -> None:
        os._exit(5)

    def die_first(self, path: pathlib.Path, deaths: int = 1) -> int:
        number = note(path)
        if number < deaths:
            os._exit(5)
        return number

    def sleep(self, seconds: float, mark: str = "") -> str:
        if mark:
            pathlib.Path(mark).touch()
        time.sleep(seconds)
        return "slept"

    def was_reconstructed(self) -> bool:
        return umbel.get_runtime_context().was_current_actor_reconstructed

    def exit(self) -> None:
        umbel.actor.exit_actor()

    def sys_exit(self, code: Any) -> None:
        sys.exit(code)

    def stream_and_die(self, path: pathlib.Path) -> Iterator[int]:
        number = note(path)
        for index in range(10):
            if index == 5 and not number:
                time.sleep(0.05)
                os._exit(5)
            yield index


def test_crash_fails_the_running_call_and_all_later_ones() -> None:
    actor = Fragile.remote()
    assert umbel.get(actor.increment.remote()) == 1
    refs = [actor.increment.remote(), actor.die.remote(), actor.increment.remote()]
    assert umbel.get(refs[0], timeout=30) == 2
    for ref in refs[1:]:
        with pytest.raises(exceptions.ActorDiedError, match="code 5"):
            umbel.get(ref, timeout=30)
    with pytest.raises(exceptions.ActorDiedError, match="Fragile"):
        umbel.get(actor.increment.remote(), timeout=30)


def test_results_before_a_crash_survive_it() -> None:
    actor = Fragile.remote()
    refs = [actor.increment.remote() for _ in range(200)]
    died = actor.die.remote()
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(died, timeout=30)
    assert umbel.get(refs, timeout=30) == list(range(1, 201))


def test_restarted_actor_begins_anew_with_its_arguments(tmp_path: pathlib.Path) -> None:
    actor = Fragile.options(max_restarts=2).remote(tmp_path)
    for deaths in range(2):
        assert umbel.get(actor.was_reconstructed.remote(), timeout=30) is (deaths > 0)
        assert umbel.get(actor.increment.remote(), timeout=30) == 1
        with pytest.raises(exceptions.ActorUnavailableError):
            umbel.get(actor.die.remote(), timeout=30)
    assert umbel.get(actor.increment.remote(), timeout=30) == 1
    with pytest.raises(exceptions.ActorDiedError, match="restarts are used up"):
        umbel.get(actor.die.remote(), timeout=30)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.increment.remote(), timeout=30)
    assert len(list(tmp_path.iterdir())) == 3


def test_constructor_arguments_stay_for_a_restart() -> None:
    @umbel.remote(max_restarts=1)
    class Keeper:
        def __init__(self, value: bytes, nested: list[Any]) -> None:
            self.size = len(value) + len(umbel.get(nested[0]))

        def get(self) -> int:
            return self.size

        def die(self) -> None:
            os._exit(1)

    keeper = Keeper.remote(umbel.put(bytes(1_000_000)), [umbel.put(bytes(500_000))])
    assert umbel.get(keeper.get.remote(), timeout=30) == 1_500_000
    with pytest.raises(exceptions.ActorUnavailableError):
        umbel.get(keeper.die.remote(), timeout=30)
    assert umbel.get(keeper.get.remote(), timeout=30) == 1_500_000


def test_calls_queued_behind_a_crash_are_lost_unless_retries_are_asked_for() -> None:
    """They were sent, and may have run as far as the caller knows."""
    actor = Fragile.options(max_restarts=1).remote()
    refs = [actor.die.remote(), *(actor.increment.remote() for _ in range(10))]
    for ref in refs:
        with pytest.raises(exceptions.ActorUnavailableError):
            umbel.get(ref, timeout=30)
    assert umbel.get(actor.increment.remote(), timeout=30) == 1


def test_calls_are_retried_across_a_restart(tmp_path: pathlib.Path) -> None:
    actor = Fragile.options(max_restarts=-1, max_task_retries=3).remote()
    refs = [actor.die_first.remote(tmp_path, 2), *(actor.increment.remote() for _ in range(10))]
    assert umbel.get(refs[0], timeout=30) == 2
    assert sorted(umbel.get(refs[1:], timeout=30)) == list(range(1, 11))


@pytest.mark.parametrize(("retries", "deaths", "succeeds"), [(1, 1, True), (1, 2, False), (-1, 4, True), (0, 1, False)])
def test_max_task_retries_is_honoured(tmp_path: pathlib.Path, retries: int, deaths: int, succeeds: bool) -> None:
    actor = Fragile.options(max_restarts=-1, max_task_retries=retries).remote()
    ref = actor.die_first.remote(tmp_path, deaths)
    if succeeds:
        assert umbel.get(ref, timeout=30) == deaths
    else:
        with pytest.raises(exceptions.ActorUnavailableError):
            umbel.get(ref, timeout=30)
        assert len(list(tmp_path.iterdir())) == retries + 1
    umbel.kill(actor)


def test_call_option_overrides_the_actors_retries(tmp_path: pathlib.Path) -> None:
    actor = Fragile.options(max_restarts=-1, max_task_retries=0).remote()
    assert umbel.get(actor.die_first.options(max_task_retries=2).remote(tmp_path, 2), timeout=30) == 2
    umbel.kill(actor)


def test_method_errors_are_retried_when_asked(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    class Moody:
        @umbel.method(max_task_retries=3, retry_exceptions=[ValueError])
        def work(self) -> int:
            number = note(tmp_path)
            if number < 2:
                raise ValueError(f"mood {number}")
            return number

    actor = Moody.remote()
    assert umbel.get(actor.work.remote(), timeout=30) == 2


def test_stream_is_retried_across_a_restart(tmp_path: pathlib.Path) -> None:
    actor = Fragile.options(max_restarts=1, max_task_retries=1).remote()
    items = [umbel.get(ref, timeout=30) for ref in actor.stream_and_die.remote(tmp_path)]
    assert items == list(range(10))


def test_stream_of_a_dead_actor_ends_with_the_error(tmp_path: pathlib.Path) -> None:
    actor = Fragile.remote()
    items = actor.stream_and_die.remote(tmp_path)
    assert [umbel.get(next(items), timeout=30) for _ in range(5)] == list(range(5))
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(next(items), timeout=30)
    with pytest.raises(StopIteration):
        next(items)


def test_constructor_error_shows_at_every_call() -> None:
    @umbel.remote
    class Broken:
        def __init__(self, reason: str) -> None:
            raise ValueError(reason)

        def work(self) -> None: ...

    broken = Broken.remote("no luck today")
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError, match="no luck today") as caught:
            umbel.get(broken.work.remote(), timeout=30)
        assert caught.value.actor_init_failed
    with pytest.raises(exceptions.ActorDiedError, match="ValueError"):
        umbel.get(broken.__umbel_ready__.remote(), timeout=30)


def test_constructor_that_crashes_is_tried_as_often_as_restarts_allow(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_restarts=2)
    class Crashing:
        def __init__(self, survive_after: int) -> None:
            if note(tmp_path) < survive_after:
                os._exit(9)

        def work(self) -> str:
            return "works"

    assert umbel.get(Crashing.remote(2).work.remote(), timeout=30) == "works"
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(exceptions.ActorDiedError, match="code 9"):
        umbel.get(Crashing.remote(1000).work.remote(), timeout=30)
    assert len(list(tmp_path.iterdir())) == 6


def test_constructor_argument_that_failed_shows_at_the_calls() -> None:
    @umbel.remote
    def fail() -> None:
        raise KeyError("upstream")

    actor = Fragile.remote(fail.remote())
    with pytest.raises(exceptions.ActorDiedError, match="upstream") as caught:
        umbel.get(actor.increment.remote(), timeout=30)
    assert caught.value.actor_init_failed


def test_killed_while_it_is_being_made(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    class Slow:
        def __init__(self) -> None:
            (tmp_path / "mark").touch()
            time.sleep(1000)

        def work(self) -> None: ...

    slow = Slow.remote()
    ref = slow.work.remote()
    drivers.wait_until((tmp_path / "mark").exists)
    umbel.kill(slow)
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        umbel.get(ref, timeout=30)


def test_killed_before_it_was_placed() -> None:
    actor = Fragile.options(num_cpus=1000).remote()
    ref = actor.increment.remote()
    umbel.kill(actor)
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        umbel.get(ref, timeout=30)


def test_kill_interrupts_the_running_call_and_runs_no_exit_handlers(tmp_path: pathlib.Path) -> None:
    actor = Fragile.remote()
    mark = tmp_path / "mark"
    pid = umbel.get(actor.pid.remote())
    ref = actor.sleep.remote(1000, str(mark))
    drivers.wait_until(mark.exists)
    umbel.kill(actor)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(ref, timeout=30)
    drivers.wait_until(lambda: not drivers.is_running(pid))


def test_kill_with_restart_counts_as_a_crash() -> None:
    actor = Fragile.options(max_restarts=1).remote()
    first = umbel.get(actor.pid.remote(), timeout=30)
    umbel.kill(actor, no_restart=False)
    drivers.wait_until(lambda: not drivers.is_running(first))
    second = umbel.get(actor.pid.options(max_task_retries=-1).remote(), timeout=30)
    assert second != first
    umbel.kill(actor, no_restart=False)
    drivers.wait_until(lambda: not drivers.is_running(second))
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.pid.options(max_task_retries=-1).remote(), timeout=30)


def test_kill_twice_and_kill_of_the_dead_are_no_errors() -> None:
    actor = Fragile.remote()
    umbel.get(actor.pid.remote())
    umbel.kill(actor)
    umbel.kill(actor)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.pid.remote(), timeout=30)
    umbel.kill(actor)


@pytest.mark.parametrize("how", ["exit_actor", "sys.exit"])
def test_exit_is_intended_and_never_restarts(how: str) -> None:
    actor = Fragile.options(max_restarts=5, max_task_retries=5).remote()
    pid = umbel.get(actor.pid.remote(), timeout=30)
    ref = actor.exit.remote() if how == "exit_actor" else actor.sys_exit.remote(0)
    behind = [actor.increment.remote() for _ in range(5)]
    for one in [ref, *behind]:
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(one, timeout=30)
    drivers.wait_until(lambda: not drivers.is_running(pid))
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.increment.remote(), timeout=30)


def test_terminate_finishes_what_was_called_before_and_runs_exit_handlers(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    class Polite:
        def __init__(self) -> None:
            import atexit

            atexit.register(lambda: (tmp_path / "handler").touch())

        def work(self, seconds: float) -> str:
            time.sleep(seconds)
            return "done"

    actor = Polite.remote()
    refs = [actor.work.remote(0.02) for _ in range(10)]
    end = actor.__umbel_terminate__.remote()
    assert umbel.get(refs, timeout=30) == ["done"] * 10
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(end, timeout=30)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.work.remote(0), timeout=30)
    drivers.wait_until((tmp_path / "handler").exists)


@pytest.mark.parametrize("kind", ["threaded", "async"])
def test_exit_of_a_concurrent_actor_lets_running_calls_finish(tmp_path: pathlib.Path, kind: str) -> None:
    class Base:
        def exit(self) -> None:
            umbel.actor.exit_actor()

    if kind == "threaded":

        class Concurrent(Base):
            def wait(self, name: str) -> str:
                (tmp_path / name).touch()
                while not (tmp_path / "go").exists():
                    time.sleep(0.005)
                return name

    else:

        class Concurrent(Base):  # type: ignore[no-redef]
            async def wait(self, name: str) -> str:
                import asyncio

                (tmp_path / name).touch()
                while not (tmp_path / "go").exists():
                    await asyncio.sleep(0.005)
                return name

    actor = umbel.remote(Concurrent).options(max_concurrency=4, max_restarts=3).remote()
    running = [actor.wait.remote("a"), actor.wait.remote("b")]
    drivers.wait_until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    end = actor.exit.remote()
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(end, timeout=30)
    (tmp_path / "go").touch()
    assert umbel.get(running, timeout=30) == ["a", "b"]
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.wait.remote("c"), timeout=30)


def test_actor_dies_with_the_process_that_made_it() -> None:
    @umbel.remote
    class Parent:
        def make(self) -> Any:
            self.child = Fragile.remote()
            return self.child, umbel.get(self.child.pid.remote())

        def die(self) -> None:
            os._exit(1)

    parent = Parent.remote()
    child, pid = umbel.get(parent.make.remote(), timeout=30)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(parent.die.remote(), timeout=30)
    drivers.wait_until(lambda: not drivers.is_running(pid))
    with pytest.raises(exceptions.ActorDiedError, match="owner"):
        umbel.get(child.increment.remote(), timeout=30)


def test_resources_of_dead_actors_come_back() -> None:
    actors = [Fragile.options(num_cpus=1).remote() for _ in range(2)]
    umbel.get([actor.pid.remote() for actor in actors], timeout=30)
    drivers.wait_until(lambda: "CPU" not in umbel.available_resources())
    umbel.kill(actors[0])
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actors[1].die.remote(), timeout=30)
    drivers.wait_until(lambda: umbel.available_resources().get("CPU") == 2.0)


def test_unavailable_and_dead_errors_are_both_actor_errors_with_the_id() -> None:
    actor = Fragile.options(max_restarts=1).remote()
    with pytest.raises(exceptions.UmbelActorError) as unavailable:
        umbel.get(actor.die.remote(), timeout=30)
    umbel.kill(actor)
    with pytest.raises(exceptions.UmbelActorError) as dead:
        umbel.get(actor.increment.remote(), timeout=30)
    assert type(unavailable.value) is exceptions.ActorUnavailableError
    assert type(dead.value) is exceptions.ActorDiedError
    assert unavailable.value.actor_id == dead.value.actor_id == actor._actor_id.hex()
    assert "max_task_retries" in str(unavailable.value)
