"""How long actors live: strong and weak handles, handles inside other things, names, detached ones."""

from __future__ import annotations

import gc
import os
import pathlib
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
    umbel.init(num_cpus=2, namespace="tests")
    yield
    umbel.shutdown()


@umbel.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0
        self.kept: list[Any] = []

    def pid(self) -> int:
        return os.getpid()

    def increment(self) -> int:
        self.count += 1
        return self.count

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    def keep(self, things: list[Any]) -> None:
        self.kept = things

    def use_kept(self) -> Any:
        return umbel.get(self.kept[0].increment.remote())

    def me(self) -> Any:
        return umbel.get_runtime_context().current_actor

    def make(self) -> Any:
        return Counter.remote()


def ends(pid: int) -> None:
    """Wait until the process has ended."""
    gc.collect()
    drivers.wait_until(lambda: not drivers.is_running(pid), what=f"the end of actor process {pid}")


def test_actor_ends_with_its_last_handle() -> None:
    counter = Counter.remote()
    pid = umbel.get(counter.pid.remote())
    again = counter
    del counter
    assert umbel.get(again.increment.remote()) == 1
    del again
    ends(pid)


def test_actors_that_were_never_called_end_with_their_handles() -> None:
    for _ in range(5):
        Counter.options(num_cpus=1).remote()
    assert umbel.get(Counter.options(num_cpus=2).remote().increment.remote(), timeout=30) == 1
    drivers.wait_until(lambda: umbel.available_resources().get("CPU") == 2.0)


def test_pending_calls_are_finished_before_it_ends() -> None:
    counter = Counter.remote()
    pid = umbel.get(counter.pid.remote())
    refs = [counter.sleep.remote(0.02) for _ in range(10)]
    del counter
    assert umbel.get(refs, timeout=30) == ["slept"] * 10
    ends(pid)


def test_anonymous_handle_lives_for_one_call() -> None:
    assert umbel.get(Counter.remote().increment.remote(), timeout=30) == 1


def test_task_argument_keeps_the_actor() -> None:
    @umbel.remote
    def use(counter: Any, seconds: float) -> Any:
        time.sleep(seconds)
        return umbel.get(counter.increment.remote()), umbel.get(counter.pid.remote())

    ref = use.remote(Counter.remote(), 0.2)
    gc.collect()
    value, pid = umbel.get(ref, timeout=30)
    assert value == 1
    ends(pid)


def test_handle_inside_a_stored_object_keeps_the_actor() -> None:
    counter = Counter.remote()
    pid = umbel.get(counter.pid.remote())
    stored = umbel.put({"deep": [counter]})
    del counter
    gc.collect()
    drivers.pause(0.1)
    assert umbel.get(umbel.get(stored)["deep"][0].increment.remote(), timeout=30) == 1
    gc.collect()
    assert umbel.get(umbel.get(stored)["deep"][0].increment.remote(), timeout=30) == 2
    del stored
    ends(pid)


def test_handle_in_another_actors_state_keeps_the_actor() -> None:
    holder, counter = Counter.remote(), Counter.remote()
    pid = umbel.get(counter.pid.remote())
    umbel.get(holder.keep.remote([counter]))
    del counter
    gc.collect()
    drivers.pause(0.1)
    assert umbel.get(holder.use_kept.remote(), timeout=30) == 1
    umbel.get(holder.keep.remote([]))
    ends(pid)


def test_actor_made_by_a_task_lives_as_long_as_its_handle() -> None:
    @umbel.remote
    def make() -> Any:
        return Counter.remote()

    counter = umbel.get(make.remote(), timeout=30)
    assert umbel.get(counter.increment.remote(), timeout=30) == 1
    drivers.pause(0.7)  # longer than an idle worker's lease
    assert umbel.get(counter.increment.remote(), timeout=30) == 2
    pid = umbel.get(counter.pid.remote())
    del counter
    ends(pid)


def test_handle_passed_through_several_owners() -> None:
    first = Counter.remote()
    made = umbel.get(first.make.remote(), timeout=30)
    second = Counter.remote()
    umbel.get(second.keep.remote([made]))
    pid = umbel.get(made.pid.remote())
    del made
    gc.collect()
    assert umbel.get(second.use_kept.remote(), timeout=30) == 1
    umbel.kill(second)
    ends(pid)


def test_own_handle_is_weak_and_works() -> None:
    counter = Counter.remote()
    pid = umbel.get(counter.pid.remote())
    weak = umbel.get(counter.me.remote())
    assert weak == counter
    assert hash(weak) == hash(counter)
    assert umbel.get(weak.increment.remote()) == 1
    del counter
    ends(pid)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(weak.increment.remote(), timeout=30)


def test_handle_from_get_actor_is_weak() -> None:
    counter = Counter.options(name="weakly").remote()
    pid = umbel.get(counter.pid.remote())
    weak = umbel.get_actor("weakly")
    assert umbel.get(weak.increment.remote()) == 1
    del counter
    ends(pid)
    drivers.wait_until(lambda: "weakly" not in umbel.util.list_named_actors())  # the daemon learns of it in its turn
    with pytest.raises(ValueError, match="weakly"):
        umbel.get_actor("weakly")
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(weak.increment.remote(), timeout=30)


def test_name_is_free_again_at_once_after_kill() -> None:
    for number in range(5):
        counter = Counter.options(name="phoenix").remote()
        assert umbel.get(counter.increment.remote(), timeout=30) == 1, number
        umbel.kill(counter)
        drivers.wait_until(lambda: "phoenix" not in umbel.util.list_named_actors())


def test_name_taken_is_an_error_that_names_it() -> None:
    counter = Counter.options(name="taken").remote()
    with pytest.raises(exceptions.ActorAlreadyExistsError, match="taken"):
        Counter.options(name="taken").remote()
    assert umbel.get(counter.increment.remote()) == 1
    other = Counter.options(name="taken", namespace="elsewhere").remote()
    assert other != counter
    assert umbel.get_actor("taken", namespace="elsewhere") == other


def test_detached_actor_needs_no_handle_and_ends_by_kill() -> None:
    Counter.options(name="detached", lifetime="detached").remote()
    gc.collect()
    drivers.pause(0.1)
    counter = umbel.get_actor("detached")
    pid = umbel.get(counter.pid.remote(), timeout=30)
    umbel.kill(counter)
    ends(pid)
    drivers.wait_until(lambda: "detached" not in umbel.util.list_named_actors())


def test_detached_actor_outlives_the_worker_that_made_it() -> None:
    @umbel.remote(max_retries=0)
    def make_and_die() -> None:
        umbel.get(Counter.options(name="orphan", lifetime="detached").remote().increment.remote())
        os._exit(1)

    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(make_and_die.remote(), timeout=30)
    orphan = umbel.get_actor("orphan")
    assert umbel.get(orphan.increment.remote(), timeout=30) == 2
    umbel.kill(orphan)


@pytest.mark.parametrize("processes", [8])
def test_of_many_that_get_or_create_exactly_one_creates(processes: int, tmp_path: pathlib.Path) -> None:
    @umbel.remote
    class Single:
        def __init__(self) -> None:
            (tmp_path / f"{os.getpid()}-{time.monotonic_ns()}").touch()

        def pid(self) -> int:
            return os.getpid()

    @umbel.remote(num_cpus=0)
    class Racer:
        def race(self, name: str, at: float) -> int:
            while time.time() < at:
                pass
            self.single = Single.options(name=name, get_if_exists=True, lifetime="detached").remote()
            pid: int = umbel.get(self.single.pid.remote())
            return pid

    racers = [Racer.remote() for _ in range(processes)]
    umbel.get([racer.__umbel_ready__.remote() for racer in racers], timeout=30)
    for number in range(5):
        at = time.time() + 0.05
        pids = umbel.get([racer.race.remote(f"single-{number}", at) for racer in racers], timeout=30)
        assert len(set(pids)) == 1
        assert len(list(tmp_path.iterdir())) == number + 1
        umbel.kill(umbel.get_actor(f"single-{number}"))


def test_of_many_that_create_the_same_name_exactly_one_succeeds() -> None:
    @umbel.remote(num_cpus=0)
    class Racer:
        def race(self, at: float) -> bool:
            while time.time() < at:
                pass
            try:
                self.counter = Counter.options(name="unique").remote()
            except exceptions.ActorAlreadyExistsError:
                return False
            return True

    racers = [Racer.remote() for _ in range(6)]
    umbel.get([racer.__umbel_ready__.remote() for racer in racers], timeout=30)
    won = umbel.get([racer.race.remote(time.time() + 0.05) for racer in racers], timeout=30)
    assert sum(won) == 1


def test_get_if_exists_returns_the_living_one() -> None:
    first = Counter.options(name="shared", get_if_exists=True).remote()
    umbel.get(first.increment.remote())
    second = Counter.options(name="shared", get_if_exists=True).remote()
    assert second == first
    assert umbel.get(second.increment.remote()) == 2


def test_many_actors_come_and_go_without_a_trace() -> None:
    """What the driver keeps per actor must go with it."""
    engine = umbel._client.current.engine()

    def one() -> int:
        counter = Counter.options(num_cpus=0).remote()
        result: int = umbel.get(counter.increment.remote(), timeout=30)
        return result

    for _ in range(10):
        assert one() == 1
    gc.collect()
    drivers.wait_until(lambda: len(engine.actors.clients) < 10, what="clients of ended actors to be forgotten")
    drivers.wait_until(lambda: umbel.available_resources().get("CPU") == 2.0)


def test_handle_of_an_ended_session_says_so() -> None:
    counter = Counter.remote()
    umbel.get(counter.increment.remote())
    umbel.shutdown()
    umbel.init(num_cpus=2, namespace="tests")
    for call in (counter.increment.remote, lambda: umbel.kill(counter)):
        with pytest.raises(exceptions.ActorHandleNotFoundError, match="session"):
            call()


@pytest.mark.parametrize("kind", ["plain", "threaded", "async"])
@pytest.mark.parametrize("constructor", ["succeeds", "fails"])
def test_actor_whose_handle_goes_while_it_is_made_ends(tmp_path: pathlib.Path, kind: str, constructor: str) -> None:
    class Base:
        def __init__(self) -> None:
            (tmp_path / f"pid-{os.getpid()}").touch()
            while not (tmp_path / "open").exists():
                time.sleep(0.002)
            if constructor == "fails":
                raise ValueError("constructor")

    class Plain(Base):
        def work(self) -> None: ...

    class Coroutines(Base):
        async def work(self) -> None: ...

    options: dict[str, Any] = {"max_concurrency": 3} if kind == "threaded" else {}
    actor = umbel.remote(Coroutines if kind == "async" else Plain).options(max_restarts=2, **options).remote()
    (found,) = drivers.wait_until(lambda: list(tmp_path.glob("pid-*")))
    del actor
    gc.collect()
    drivers.pause(0.05)
    (tmp_path / "open").touch()
    ends(int(found.name.removeprefix("pid-")))
