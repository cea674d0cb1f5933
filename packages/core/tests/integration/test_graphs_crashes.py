"""Compiled graphs when processes die, methods hang, or the program is interrupted. Real kills."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import drivers
import pytest

import umbel
from umbel import exceptions
from umbel.dag import DAGContext, InputNode, MultiOutputNode
from umbel.util import state

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")

SOON_S = 10.0  # in which an actor's death is told: 0.3 s, but without looking for it never


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.shutdown()
    umbel.init(num_cpus=2, log_to_driver=False)
    yield
    umbel.shutdown()


@umbel.remote(num_cpus=0)
class Worker:
    def pid(self) -> int:
        return os.getpid()

    def add(self, x: Any) -> Any:
        return x + 1

    def hold(self, path: str) -> str:
        """Until a file is there."""
        with open(path + ".held", "w"):
            pass
        while not os.path.exists(path):
            time.sleep(0.005)
        return path

    def leave(self, code: int) -> None:
        sys.exit(code)

    def exit(self, _x: Any) -> None:
        umbel.actor.exit_actor()

    def large(self, size: int) -> bytes:
        return bytes(size)

    def kill_if(self, x: Any) -> Any:
        if x == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    def maps(self) -> int:
        """How much of a graph's memory is mapped here."""
        with open("/proc/self/maps") as lines:
            return sum("umbel-" in line and "(deleted)" in line for line in lines)


def chain(*methods: Any) -> Any:
    with InputNode() as given:
        node = given
        for method in methods:
            node = method.bind(node)
    return node


def shared_files() -> list[str]:
    session = os.path.basename(umbel.get_runtime_context().get_session_name())
    return [name for name in os.listdir(f"/dev/shm/umbel-{os.getuid()}-{session}") if name != "processes"]


def pid_in(compiled: Any, actor: int) -> int:
    """The process of an actor that takes part, asked of nobody, as it may be stopped or dead."""
    pid: int = compiled._backend._joined[actor].process.pid
    return pid


def test_a_killed_actor_is_the_error_of_all_that_wait_and_of_what_comes_after() -> None:
    one, two = Worker.remote(), Worker.remote()
    compiled = chain(one.add, two.add).experimental_compile()
    assert umbel.get(compiled.execute(1)) == 3
    drivers.freeze(pid_in(compiled, 1))
    refs = [compiled.execute(number) for number in range(5)]
    os.kill(pid_in(compiled, 1), signal.SIGKILL)
    began_s = time.monotonic()
    for ref in refs:
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(ref)
    with pytest.raises(exceptions.ActorDiedError):
        compiled.execute(1)
    assert time.monotonic() - began_s < SOON_S
    compiled.teardown()
    assert umbel.get(one.add.remote(1)) == 2, "the others go on"


def test_results_that_came_before_the_death_can_be_read() -> None:
    one, two = Worker.remote(), Worker.remote()
    compiled = chain(one.add, two.add).experimental_compile()
    first = compiled.execute(1)
    assert umbel.get(compiled.execute(2)) == 4
    umbel.kill(two)
    drivers.wait_until(lambda: not drivers.is_running(pid_in(compiled, 1)))
    assert umbel.get(first) == 3
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        umbel.get(compiled.execute(3))
    compiled.teardown()


def test_an_actor_that_dies_by_its_own_method() -> None:
    worker = Worker.remote()
    compiled = chain(worker.kill_if).experimental_compile()
    refs = [compiled.execute(value) for value in (1, "die", 2)]
    assert umbel.get(refs[0]) == 1
    for ref in refs[1:]:
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(ref)


def test_an_actor_that_restarts_is_not_part_of_the_graph_any_more() -> None:
    worker = Worker.options(max_restarts=1).remote()
    compiled = chain(worker.kill_if).experimental_compile()
    with pytest.raises(exceptions.ActorDiedError, match="compile the graph again"):
        umbel.get(compiled.execute("die"))
    compiled.teardown()
    again = chain(worker.kill_if).experimental_compile()
    assert umbel.get(again.execute(1)) == 1
    again.teardown()


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_in_a_method_ends_the_actor(code: int) -> None:
    worker = Worker.remote()
    compiled = chain(worker.leave).experimental_compile()
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(compiled.execute(code))
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(worker.pid.remote())
    drivers.wait_until(lambda: not drivers.is_running(pid_in(compiled, 0)))


def test_exit_actor_in_a_method_ends_the_actor() -> None:
    worker = Worker.remote()
    compiled = chain(worker.exit).experimental_compile()
    with pytest.raises(exceptions.ActorDiedError, match="exit"):
        umbel.get(compiled.execute(1))
    drivers.wait_until(lambda: not drivers.is_running(pid_in(compiled, 0)))


def test_a_dead_actor_cannot_be_compiled_in() -> None:
    one, two = Worker.remote(), Worker.remote()
    umbel.kill(two)
    with pytest.raises(exceptions.ActorDiedError):
        chain(one.add, two.add).experimental_compile()
    assert umbel.get(one.add.remote(1)) == 2
    assert shared_files() == []


def test_time_outs_say_what_is_waited_for_and_the_result_may_still_come(tmp_path: Path) -> None:
    one, two = Worker.remote(), Worker.remote()
    compiled = chain(one.hold, two.kill_if).experimental_compile()
    path = str(tmp_path / "go")
    ref = compiled.execute(path)
    with pytest.raises(exceptions.UmbelChannelTimeoutError, match=f"execution 0 .*{one._actor_id.hex()}") as caught:
        umbel.get(ref, timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(exceptions.UmbelChannelTimeoutError):
        umbel.get([ref], timeout=0)
    Path(path).touch()
    assert umbel.get(ref) == path
    compiled.teardown()


def test_whatever_waits_in_a_graph_says_for_what(tmp_path: Path) -> None:
    one, two = Worker.remote(), Worker.remote()
    compiled = chain(one.hold, two.kill_if).experimental_compile()
    first = f"actor Worker ({one._actor_id.hex()})"
    runs = f"it runs the compiled graph of process {os.getpid()}"
    asked = commands.run("explain", two._actor_id.hex()).stdout
    assert f"{runs}, and waits for the input of Worker.kill_if in execution 0 from {first}, for " in asked
    assert f"{runs}, and waits for the input of Worker.hold in execution 0 from process {os.getpid()}, for " in asked
    path = str(tmp_path / "go")
    ref = compiled.execute(path)
    held = re.compile(
        rf"result 0 of execution 0 of a compiled graph waits for {re.escape(first)}: {runs}, at .* in hold$"
    )
    drivers.wait_until(lambda: held.match(umbel.explain(ref)))
    assert [reason.code for reason in state.explain(ref).chain()] == ["graph", "running"]

    reader = threading.Thread(target=umbel.get, args=(ref,))
    reader.start()
    reads = f"it waits for result 0 of execution 0 of a compiled graph from {first}, for "
    drivers.wait_until(lambda: reads in commands.run("explain").stdout)
    driver = umbel.get_runtime_context().get_worker_id()
    assert reads in commands.run("explain", driver).stdout
    Path(path).touch()
    reader.join()
    assert "is ready" in umbel.explain(ref)
    assert "runs nothing and waits for nothing" in commands.run("explain", driver).stdout
    later = compiled.execute(path)
    drivers.wait_until(lambda: umbel.explain(later).endswith("is ready"))
    assert umbel.get(later) == path
    compiled.teardown()
    assert "runs nothing" in commands.run("explain", two._actor_id.hex()).stdout


def test_default_times_are_those_of_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = DAGContext.get_current()
    monkeypatch.setattr(context, "get_timeout", 0.05)
    monkeypatch.setattr(context, "teardown_timeout", 0.05)
    worker = Worker.remote()
    compiled = chain(worker.hold).experimental_compile()
    path = str(tmp_path / "go")
    ref = compiled.execute(path)
    with pytest.raises(exceptions.UmbelChannelTimeoutError):
        umbel.get(ref)
    drivers.wait_until(lambda: os.path.exists(path + ".held"))
    compiled.teardown()  # says that a method still runs
    with pytest.raises(exceptions.UmbelChannelError, match="torn down"):
        umbel.get(ref)
    Path(path).touch()
    assert umbel.get(worker.add.remote(1)) == 2


def test_other_calls_of_the_actors_go_on_beside_the_graph(tmp_path: Path) -> None:
    worker = Worker.remote()
    compiled = chain(worker.hold).experimental_compile()
    path = str(tmp_path / "go")
    ref = compiled.execute(path)
    drivers.wait_until(lambda: os.path.exists(path + ".held"))
    assert umbel.get(worker.add.remote(1)) == 2
    Path(path).touch()
    assert umbel.get(ref) == path
    compiled.teardown()


def test_memory_has_no_name_and_is_unmapped_after_the_end() -> None:
    worker = Worker.remote()
    compiled = chain(worker.add).experimental_compile()
    assert umbel.get(compiled.execute(1)) == 2
    assert shared_files() == []
    assert umbel.get(worker.maps.remote()) == 1
    compiled.teardown()
    drivers.wait_until(lambda: umbel.get(worker.maps.remote()) == 0)


def test_a_graph_that_nobody_has_ends() -> None:
    worker = Worker.remote()
    compiled = chain(worker.add).experimental_compile()
    assert umbel.get(compiled.execute(1)) == 2
    held = [worker]
    pid = umbel.get(worker.pid.remote())
    del compiled, worker
    drivers.wait_until(lambda: umbel.get(held[0].maps.remote()) == 0)
    held.clear()
    gc.collect()  # a node knows those that depend on it
    drivers.wait_until(lambda: not drivers.is_running(pid))


def test_large_values_are_freed_when_they_were_read() -> None:
    worker = Worker.remote()
    compiled = chain(worker.large).experimental_compile()
    size = 2_000_000
    for _ in range(40):
        assert len(umbel.get(compiled.execute(size))) == size
    compiled.teardown()
    assert len(shared_files()) < 20, "segments are used again"


def test_ctrl_c_interrupts_a_wait_and_the_result_can_still_be_read(tmp_path: Path) -> None:
    worker = Worker.remote()
    compiled = chain(worker.hold).experimental_compile()
    path = str(tmp_path / "go")
    ref = compiled.execute(path)

    def interrupt() -> None:
        drivers.wait_until(lambda: os.path.exists(path + ".held"))
        drivers.pause(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        umbel.get(ref)
    thread.join()
    Path(path).touch()
    assert umbel.get(ref) == path
    compiled.teardown()


def test_killed_driver_leaves_nothing_of_its_graphs() -> None:
    source = """
        import os, time, umbel
        from umbel.dag import InputNode
        umbel.init(num_cpus=2)

        @umbel.remote(num_cpus=0)
        class Worker:
            def step(self, x):
                return x

        workers = [Worker.remote() for _ in range(3)]
        with InputNode() as given:
            node = given
            for worker in workers:
                node = worker.step.bind(node)
        graph = node.experimental_compile()
        print(umbel.get(graph.execute(b"x" * 1_000_000))[:1], flush=True)
        while True:
            umbel.get(graph.execute(b"x" * 300_000))
    """
    with drivers.driver(source) as driver:
        assert driver.line() == "b'x'"
        driver.kill()
        driver.expect_nothing_left()


def test_a_killed_compiler_that_is_no_driver_sets_its_actors_free() -> None:
    @umbel.remote(max_retries=0)
    def run(worker: Any) -> None:
        compiled = chain(worker.kill_if).experimental_compile()
        umbel.get(compiled.execute(1))
        os.kill(os.getpid(), signal.SIGKILL)

    worker = Worker.remote()
    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(run.remote(worker))
    drivers.wait_until(lambda: umbel.get(worker.maps.remote()) == 0)
    assert [name for name in shared_files() if len(name.split(".")[-1]) > 18] == []


def test_killed_daemon_ends_all_waits() -> None:
    source = """
        import time, umbel
        from umbel.dag import InputNode
        umbel.init(num_cpus=2)

        @umbel.remote(num_cpus=0)
        class Worker:
            def hold(self, x):
                time.sleep(1000)

        worker = Worker.remote()
        with InputNode() as given:
            graph = worker.hold.bind(given).experimental_compile()
        ref = graph.execute(1)
        print("waiting", flush=True)
        for attempt in (lambda: umbel.get(ref), lambda: graph.execute(1)):
            try:
                attempt()
            except umbel.exceptions.UmbelError as error:
                print(type(error).__name__, flush=True)
        graph.teardown()
        umbel.shutdown()
    """
    with drivers.driver(source) as driver:
        assert driver.line() == "waiting"
        os.kill(driver.daemon_pids()[0], signal.SIGKILL)
        assert driver.line() in ("LocalNodeDiedError", "ActorDiedError")
        assert driver.line() in ("LocalNodeDiedError", "ActorDiedError")
        driver.finish()
        driver.expect_nothing_left()


def test_a_graph_of_a_session_that_has_ended_says_so() -> None:
    source = """
        import umbel
        from umbel.dag import InputNode
        umbel.init(num_cpus=1)

        @umbel.remote(num_cpus=0)
        class Worker:
            def step(self, x):
                return x

        worker = Worker.remote()
        with InputNode() as given:
            graph = worker.step.bind(given).experimental_compile()
        ref = graph.execute(1)
        umbel.shutdown()
        for attempt in (lambda: graph.execute(1), lambda: ref.get(timeout=5)):
            try:
                print(attempt(), flush=True)
            except umbel.exceptions.UmbelSystemError as error:
                print("shut down" in str(error), flush=True)
        graph.teardown()
    """
    output, _ = drivers.run(source)
    assert output.splitlines()[0] == "True"
    assert output.splitlines()[1] in ("True", "1")


def test_many_outputs_of_many_actors() -> None:
    workers = [Worker.remote() for _ in range(8)]
    with InputNode() as given:
        graph = MultiOutputNode([worker.add.bind(given) for worker in workers])
    compiled = graph.experimental_compile()
    for number in range(50):
        assert umbel.get(compiled.execute(number)) == [number + 1] * 8
    compiled.teardown(kill_actors=True)
