"""Whatever waits can be asked for its reason: by `explain`, the watchdog, the commands; and may be given up in time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import commands
import drivers
import pytest

import umbel
from umbel import exceptions
from umbel._base import sessions
from umbel._client import tool
from umbel._model import reasons
from umbel.util import state

HERE = pathlib.Path(__file__).name


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    with umbel.init(num_cpus=2):
        yield


@umbel.remote(num_cpus=0)
def hold(path: str) -> str:
    while not pathlib.Path(path).exists():
        time.sleep(0.005)  # the line that explain shows
    return "released"


@umbel.remote(num_cpus=0)
def lines(path: str) -> Iterator[str]:
    while not pathlib.Path(path).exists():
        time.sleep(0.005)
    yield "a line"


@umbel.remote(num_cpus=0)
def wait_for(boxed: list[Any]) -> Any:
    return umbel.get(boxed[0])


@umbel.remote(num_cpus=0)
class Caller:
    def meet(self, other: Any) -> None:
        self.other = other

    def call(self, depth: int) -> str:
        return str(umbel.get(self.other.call.remote(depth - 1))) if depth else "the end"

    def call_or_hold(self, path: str) -> None:
        umbel.wait([self.other.call.remote(1), hold.remote(path)])

    def answer(self) -> int:
        return 42


@umbel.remote(num_cpus=0, max_concurrency=2)
class Threaded:
    def hold(self, path: str) -> None:
        umbel.get(hold.remote(path))


def running(ref: Any) -> state.Reason:
    """The story of a reference, once it ends with something that runs."""
    reason: state.Reason = drivers.wait_until(lambda: (r := state.explain(ref)).last().facts.get("pid") and r)
    return reason


def codes(reason: state.Reason) -> list[str]:
    return [one.code for one in reason.chain()]


def test_story_of_a_running_task_ends_at_its_line(tmp_path: pathlib.Path) -> None:
    gate = tmp_path / "gate"
    ref = hold.remote(str(gate))
    reason = running(ref)
    assert codes(reason) == [reasons.RUNNING, reasons.RUNNING]
    assert HERE in reason.last().facts["at"]
    assert reason.last().facts["at"].endswith("in hold")
    assert reason.last().facts["task"] == ref.task_id().hex()
    gate.touch()
    assert umbel.get(ref, timeout=30) == "released"
    assert codes(state.explain(ref)) == [reasons.READY]


def test_story_goes_from_process_to_process(tmp_path: pathlib.Path) -> None:
    """A task waits in `get` for the task of another process, which waits for an argument that can never come."""
    unplaced = hold.options(resources={"licence": 1}).remote("/")
    ref = wait_for.remote([wait_for.remote([unplaced])])

    def story() -> Any:
        reason = state.explain(ref)
        return reason if reason.last().code == reasons.INFEASIBLE else None

    reason = drivers.wait_until(story)
    names = [one.facts.get("name", "") for one in reason.chain()]
    assert names.count("wait_for") >= 3
    assert reason.last().facts["lacking"] == {"licence": 10_000}
    assert "ask for less of licence" in reason.last().advice
    umbel.cancel(ref)


def test_actors_that_wait_for_each_other_are_a_deadlock() -> None:
    first, second = Caller.remote(), Caller.remote()
    umbel.get([first.meet.remote(second), second.meet.remote(first)], timeout=30)
    ref = first.call.remote(5)

    def story() -> Any:
        reason = state.explain(ref)
        return reason if reason.last().code == reasons.DEADLOCK else None

    reason = drivers.wait_until(story)
    assert "max_concurrency" in reason.last().advice
    assert str(reason).count(f"{HERE}") >= 2


def test_actor_that_waits_for_itself_is_a_deadlock() -> None:
    actor = Caller.remote()
    umbel.get(actor.meet.remote(actor), timeout=30)
    ref = actor.call.remote(1)
    drivers.wait_until(lambda: state.explain(ref).last().code == reasons.DEADLOCK)


def test_one_of_several_that_can_come_is_no_deadlock(tmp_path: pathlib.Path) -> None:
    first, second = Caller.remote(), Caller.remote()
    umbel.get([first.meet.remote(second), second.meet.remote(first)], timeout=30)
    ref = first.call_or_hold.remote(str(tmp_path / "gate"))
    drivers.wait_until(lambda: state.explain(ref).last().facts.get("name") == "hold")
    assert "in call_or_hold, and waits there" in str(state.explain(ref))
    (tmp_path / "gate").touch()
    umbel.get(ref, timeout=30)


def test_call_behind_a_long_one_names_it(tmp_path: pathlib.Path) -> None:
    gate = tmp_path / "gate"
    actor = Caller.remote()
    umbel.get(actor.meet.remote(None), timeout=30)
    busy = actor.__umbel_call__.remote(lambda _self, path: umbel.get(hold.remote(path)), str(gate))
    queued = actor.answer.remote()
    drivers.wait_until(lambda: "hold" in str(state.explain(queued)) and "behind it" in str(state.explain(queued)))
    gate.touch()
    umbel.get([busy, queued], timeout=30)


def test_threads_of_an_actor_are_told_apart(tmp_path: pathlib.Path) -> None:
    actor = Threaded.remote()
    paths = [tmp_path / "one", tmp_path / "two"]
    refs = [actor.hold.remote(str(path)) for path in paths]
    for ref in refs:
        drivers.wait_until(lambda ref=ref: state.explain(ref).last().facts.get("name") == "hold")
    paths[0].touch()
    umbel.get(refs[0], timeout=30)
    assert state.explain(refs[1]).last().facts["name"] == "hold"
    paths[1].touch()
    umbel.get(refs[1], timeout=30)


def test_constructor_that_takes_long_is_named(tmp_path: pathlib.Path) -> None:
    @umbel.remote(num_cpus=0)
    class Slow:
        def __init__(self, path: str) -> None:
            umbel.get(hold.remote(path))

        def ok(self) -> bool:
            return True

    ref = Slow.remote(str(tmp_path / "gate")).ok.remote()
    drivers.wait_until(lambda: "Slow.__init__" in str(state.explain(ref)))
    drivers.wait_until(lambda: state.explain(ref).last().facts.get("name") == "hold")
    (tmp_path / "gate").touch()
    assert umbel.get(ref, timeout=30)


def test_killed_worker_does_not_hold_an_explanation_up(tmp_path: pathlib.Path) -> None:
    """Questions to a process that ends are refused, and one that is stopped is not waited for."""
    ref = hold.options(max_retries=0).remote(str(tmp_path / "never"))
    reason = running(ref)
    drivers.kill(reason.last().facts["pid"])
    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(ref, timeout=30)
    assert state.explain(ref).code == reasons.READY


def test_infeasible_work_fails_when_its_time_is_up() -> None:
    umbel.shutdown()
    with umbel.init(num_cpus=1, infeasible_timeout_s=0.3):
        ref = hold.options(num_cpus=7).remote("/")
        actor = Caller.options(resources={"licence": 1}).remote()
        with pytest.raises(exceptions.TaskUnschedulableError, match=r"needs \{CPU: 7\}.*has \{CPU: 1\}.*0.3 s"):
            umbel.get(ref, timeout=30)
        with pytest.raises(exceptions.ActorUnschedulableError, match="licence"):
            umbel.get(actor.answer.remote(), timeout=30)


@pytest.mark.parametrize(("value", "kind"), [("1", TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)])
def test_infeasible_timeout_must_be_a_positive_number(value: Any, kind: type[Exception]) -> None:
    umbel.shutdown()
    with pytest.raises(kind, match="infeasible_timeout_s must be"):
        umbel.init(infeasible_timeout_s=value)


def test_watchdog_says_once_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    umbel.shutdown()
    monkeypatch.setenv("UMBEL_WATCHDOG_S", "0.1")
    with umbel.init(num_cpus=1):
        ref = hold.remote(str(tmp_path / "never"))
        running(ref)
        for _ in range(2):
            with pytest.raises(exceptions.GetTimeoutError):
                umbel.get(ref, timeout=0.5)
            assert umbel.wait([ref], timeout=0.5) == ([], [ref])
    said = [line for line in capfd.readouterr().err.splitlines() if "still waiting" in line]
    assert len(said) == 1
    assert "umbel: still waiting after 0.1 s for 1 of 1 objects; the first is object" in said[0]
    assert "in hold" in said[0]


def watchdog_says(capfd: pytest.CaptureFixture[str], wanted: str) -> str:
    """The first line of the watchdog's that has `wanted` in it."""
    said = ""

    def line() -> str:
        nonlocal said
        said += capfd.readouterr().err
        return next((one for one in said.splitlines() if "umbel: still waiting after" in one and wanted in one), "")

    try:
        return drivers.wait_until(line)
    except AssertionError:
        raise AssertionError(f"the watchdog did not say {wanted!r}; on standard error there is: {said}") from None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session whose watchdog waits for a tenth of a second."""
    umbel.shutdown()
    monkeypatch.setenv("UMBEL_WATCHDOG_S", "0.1")
    with umbel.init(num_cpus=2):
        yield


@pytest.mark.usefixtures("impatient")
def test_watchdog_names_a_deadlock(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = Caller.remote(), Caller.remote()
    umbel.get([first.meet.remote(second), second.meet.remote(first)], timeout=30)
    ref = first.call.remote(5)
    waiting = threading.Thread(target=lambda: umbel.wait([ref]))
    waiting.start()
    said = watchdog_says(capfd, "a deadlock")
    assert "for 1 of 1 objects; the first is object" in said
    umbel.kill(first)
    waiting.join(30)
    assert not waiting.is_alive()


async def _await(ref: Any) -> Any:
    return await ref


async def _gather(ref: Any) -> Any:
    return await asyncio.gather(ref, asyncio.sleep(0))


async def _iterate(stream: Any) -> Any:
    return [item async for item in stream]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("function", "wait"),
    [
        (lines, next),
        (lines, lambda stream: umbel.wait([stream])),
        (lines, lambda stream: asyncio.run(_iterate(stream))),
        (hold, lambda ref: asyncio.run(_await(ref))),
        (hold, lambda ref: asyncio.run(_gather(ref))),
        (hold, lambda ref: ref.future().result()),
        (hold, lambda ref: ref.future().exception(timeout=60)),
    ],
    ids=["next", "wait", "async for", "await", "gather", "result", "exception"],
)
def test_watchdog_watches_whatever_waits(
    function: Any, wait: Any, capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    source = function.remote(str(tmp_path / "gate"))
    running(source)
    waiting = threading.Thread(target=wait, args=(source,))
    waiting.start()
    said = watchdog_says(capfd, f"in {function.__name__}")
    assert "for 1 of 1 objects" in said
    (tmp_path / "gate").touch()
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.usefixtures("impatient")
def test_watchdog_of_awaits_says_each_cause_once_and_forgets_what_was_given_up(
    capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    refs = [hold.remote(str(tmp_path / "gate")) for _ in range(2)]
    for ref in refs:
        running(ref)

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*refs), timeout=1.5)

    asyncio.run(give_up())
    said = [line for line in capfd.readouterr().err.splitlines() if "umbel: still waiting" in line]
    assert len(said) == 2
    assert all(str(ref.hex()) in "".join(said) for ref in refs)
    (tmp_path / "gate").touch()
    assert umbel.get(refs, timeout=30) == ["released"] * 2
    asyncio.run(_await(refs[0]))
    assert "umbel-watchdog" not in [thread.name for thread in threading.enumerate()]


def test_future_of_a_reference_waits_as_get_does(tmp_path: pathlib.Path) -> None:
    """It gives its CPU to what it waits for, can be asked, times out and can be cancelled."""
    umbel.shutdown()
    with umbel.init(num_cpus=1):

        @umbel.remote
        def outer(path: str) -> str:
            return str(hold.options(num_cpus=1).remote(path).future().result())

        ref = outer.remote(str(tmp_path / "gate"))
        drivers.wait_until(lambda: state.explain(ref).last().facts.get("name") == "hold")
        future = ref.future()
        for timeout in (0, 0.01):
            with pytest.raises(concurrent.futures.TimeoutError):
                future.result(timeout=timeout)
        cancelled = ref.future()
        threading.Thread(target=lambda: (running(ref), cancelled.cancel())).start()
        with pytest.raises(concurrent.futures.CancelledError):
            cancelled.result(timeout=60)
        (tmp_path / "gate").touch()
        assert future.result(timeout=30) == "released"
        assert future.exception() is None
        failed = hold.remote(None).future()  # type: ignore[arg-type]  # so that it fails
        assert isinstance(failed.exception(timeout=30), TypeError)
        with pytest.raises(TypeError):
            failed.result()


def test_generators_can_be_explained(tmp_path: pathlib.Path) -> None:
    stream = lines.remote(str(tmp_path / "gate"))
    reason = running(stream)
    assert "generator lines" in reason.subject
    assert reason.last().facts["at"].endswith("in lines")
    assert umbel.explain(stream).startswith("object ")
    (tmp_path / "gate").touch()
    drivers.wait_until(lambda: state.explain(stream).code == reasons.READY)
    assert str(state.explain(stream)) == "item 0 of generator lines is ready"
    assert umbel.get(next(stream), timeout=30) == "a line"
    assert list(stream) == []
    assert str(state.explain(stream)) == "generator lines has ended"
    with pytest.raises(TypeError, match="takes an ObjectRef or ObjectRefGenerator"):
        state.explain("stream")


def test_task_that_reads_a_generator_waits_for_it(tmp_path: pathlib.Path) -> None:
    @umbel.remote(num_cpus=0)
    def read(path: str) -> Any:
        return umbel.get(next(lines.remote(path)))

    ref = read.remote(str(tmp_path / "gate"))
    drivers.wait_until(lambda: running(ref).last().facts["at"].endswith("in lines"))
    assert re.search(r"in read \(pid \d+\), and waits there: .* the end of generator lines,", str(state.explain(ref)))
    (tmp_path / "gate").touch()
    assert umbel.get(ref, timeout=30) == "a line"


def test_command_explains_objects_tasks_actors_and_the_node(tmp_path: pathlib.Path) -> None:
    ref = hold.remote(str(tmp_path / "gate"))
    unplaced = hold.options(num_cpus=9).remote("/")
    actor = Caller.remote()
    umbel.get(actor.meet.remote(None), timeout=30)
    running(ref)
    drivers.wait_until(umbel.explain)
    for about in (ref.hex(), ref.task_id().hex()):
        told = commands.run("explain", about)
        assert told.returncode == 0
        assert HERE in told.stdout
    assert "runs nothing" in commands.run("explain", actor._actor_id.hex()).stdout
    for about in ([], [umbel.nodes()[0]["NodeID"]]):
        told = commands.run("explain", *about).stdout
        assert "1 task with {CPU: 9}, waiting for " in told
        assert "needs {CPU: 9}, but this node has {CPU: 2}" in told
    (story,) = json.loads(commands.run("explain", unplaced.hex(), "--json").stdout)
    assert reasons.Reason.from_json(story).last().code == reasons.INFEASIBLE
    unknown = commands.run("explain", "abc")
    assert unknown.returncode == 1
    assert "nothing here is called 'abc'; give the id of" in unknown.stderr
    umbel.cancel(unplaced)
    (tmp_path / "gate").touch()


def test_long_chain_of_tasks_is_told_from_both_ends(tmp_path: pathlib.Path) -> None:
    """Before: a RecursionError, be it of `explain`, the watchdog, or a `get` whose time was up."""

    @umbel.remote(num_cpus=0)
    def passes_on(value: str) -> str:
        return value

    last = hold.remote(str(tmp_path / "gate"))
    for _ in range(1_500):
        last = passes_on.remote(last)
    left_out = "it waits for 1481 tasks, each of which waits for the next: "
    with pytest.raises(exceptions.GetTimeoutError, match=left_out):
        umbel.get(last, timeout=0.3)
    story = running(last)
    assert left_out in str(story)
    assert codes(story) == [reasons.ARGUMENT] * 20 + [reasons.RUNNING] * 2
    assert left_out[3:-2] in commands.run("explain", last.hex()).stdout
    (tmp_path / "gate").touch()
    assert umbel.get(last, timeout=60) == "released"


def test_command_shows_the_stack_of_a_running_task(tmp_path: pathlib.Path) -> None:
    ref = hold.remote(str(tmp_path / "gate"))
    pid = running(ref).last().facts["pid"]
    for about in ([], [ref.task_id().hex()], [str(pid)]):
        told = commands.run("stack", *about)
        assert told.returncode == 0, told.stderr
        assert "runs hold (task " in told.stdout
        assert "time.sleep(0.005)" in told.stdout
        assert "_worker" not in told.stdout
    assert "_worker" in commands.run("stack", "--all", str(pid)).stdout
    assert "no worker, actor or running task is called 'ffff'" in commands.run("stack", "ffff").stderr
    (tmp_path / "gate").touch()
    umbel.get(ref, timeout=30)


def test_stopped_worker_is_said_not_to_answer(tmp_path: pathlib.Path) -> None:
    ref = hold.remote(str(tmp_path / "gate"))
    pid = running(ref).last().facts["pid"]
    drivers.freeze(pid)
    try:
        assert "does not say what it does" in str(state.explain(ref))
    finally:
        os.kill(pid, signal.SIGCONT)
    (tmp_path / "gate").touch()
    assert umbel.get(ref, timeout=30) == "released"


def test_tools_only_look() -> None:
    with tool.Tool(commands.session_dir()) as looking:
        assert looking.query("nodes")[0]["node_id"] == umbel.nodes()[0]["NodeID"]
        with pytest.raises(exceptions.UmbelSystemError, match="a tool may only ask, got 'reserve_store'"):
            looking._request({"t": "reserve_store", "bytes": 1})
        with pytest.raises(exceptions.UmbelSystemError, match="there is no process 'nobody'"):
            looking.ask("nobody", "stack", "")
        with pytest.raises(exceptions.UmbelSystemError, match="cannot be asked for 'secrets'"):
            looking.ask(umbel.get_runtime_context().get_worker_id(), "secrets", "")
        with pytest.raises(exceptions.UmbelSystemError, match="makes no sense"):
            looking.ask(umbel.get_runtime_context().get_worker_id(), "explain", "xyz")


def test_command_says_which_sessions_there_are() -> None:
    assert commands.session_dir() in sessions.running_sessions(sessions.base_dir())
    command = [sys.executable, "-m", "umbel.cli", "stack", "--session", "no-such"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert told.returncode == 1
    assert "no node 'no-such' runs on this machine" in told.stderr
    assert commands.session_dir() in told.stderr
