"""Cancelling tasks: waiting, queued, running, blocked, forced, recursive, through borrowers, with dependents."""

from __future__ import annotations

import os
import pathlib
import pickle
import signal
import time
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions
from umbel._client import current, interrupts

pytestmark = pytest.mark.slow
CANCELLED = (exceptions.TaskCancelledError, exceptions.UmbelTaskError)  # which of them depends on the moment, as in Ray


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


@umbel.remote
def sleep(seconds: float, mark: str = "") -> str:
    if mark:
        pathlib.Path(mark).touch()
    time.sleep(seconds)
    return "slept"


@umbel.remote
def get(refs: list[Any], mark: str = "") -> Any:
    if mark:
        pathlib.Path(mark).touch()
    return umbel.get(refs)


@umbel.remote
def double(number: int) -> int:
    return number * 2


def cpus_are_free() -> bool:
    return umbel.available_resources().get("CPU") == 2.0


def test_running_task_is_interrupted(tmp_path: pathlib.Path) -> None:
    ref = sleep.remote(1000, str(tmp_path / "mark"))
    drivers.wait_until((tmp_path / "mark").exists)
    umbel.cancel(ref)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    drivers.wait_until(cpus_are_free)


def test_cancellation_that_is_raised_where_python_ignores_it_is_raised_again(tmp_path: pathlib.Path) -> None:
    """The task went on for ever, and its result never came."""

    class Dying:
        def __del__(self) -> None:
            (tmp_path / "dies").touch()
            time.sleep(1000)

    @umbel.remote
    def leave_something() -> None:
        Dying()
        time.sleep(1000)

    ref = leave_something.remote()
    drivers.wait_until((tmp_path / "dies").exists)
    umbel.cancel(ref)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    drivers.wait_until(cpus_are_free)


def test_worker_survives_a_cancellation_while_its_task_s_error_is_pickled(tmp_path: pathlib.Path) -> None:
    """The interruption that waited for the next call of the runtime was raised where nobody expected it, and ended it."""

    class SlowError(Exception):
        def __reduce__(self) -> tuple[Any, ...]:
            (tmp_path / "pickles").touch()
            drivers.wait_until((tmp_path / "go on").exists)
            umbel.put(1)
            return Exception, ("slow",)

    @umbel.remote(max_retries=0)
    def fail() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        raise SlowError

    ref = fail.remote()
    drivers.wait_until((tmp_path / "pickles").exists)
    umbel.cancel(ref)
    drivers.pause(0.1)  # the request is there, and has found what may not be interrupted
    (tmp_path / "go on").touch()
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    pid = int((tmp_path / "pid").read_text())
    drivers.wait_until(lambda: drivers.is_idle(pid))
    assert drivers.is_running(pid)


class _Slow:
    """What takes until there is a file to be unpickled."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_slowly, (self.directory,)


def _load_slowly(directory: str) -> None:
    pathlib.Path(directory, "loads").touch()
    until_s = time.monotonic() + 30
    while not pathlib.Path(directory, "go on").exists() and time.monotonic() < until_s:
        time.sleep(0.005)


@pytest.mark.parametrize("force", [False, True])
def test_task_that_is_cancelled_while_its_function_is_loaded_does_not_go_on(
    tmp_path: pathlib.Path, force: bool
) -> None:
    slow = _Slow(str(tmp_path))

    @umbel.remote(max_retries=0)
    def task(_slow: Any = slow) -> None:
        time.sleep(1000)

    ref = task.remote()
    drivers.wait_until((tmp_path / "loads").exists)
    umbel.cancel(ref, force=force)
    drivers.pause(0.1)  # the request is there, and nothing runs that could be interrupted
    (tmp_path / "go on").touch()
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=20)
    drivers.wait_until(cpus_are_free)


def test_task_whose_submitter_dies_while_its_function_is_loaded_is_interrupted(tmp_path: pathlib.Path) -> None:
    """Nothing ran that could be told so. The task went on, until its worker was killed with all that it had."""

    @umbel.remote(max_retries=0)
    def parent() -> None:
        slow = _Slow(str(tmp_path))

        @umbel.remote
        def child(_slow: Any = slow) -> None:
            try:
                time.sleep(1000)
            finally:
                (tmp_path / "interrupted").touch()

        (tmp_path / "pid").write_text(str(os.getpid()))
        umbel.get(child.remote())

    ref = parent.remote()
    drivers.wait_until((tmp_path / "loads").exists)
    drivers.kill(int((tmp_path / "pid").read_text()))
    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(ref, timeout=10)
    drivers.pause(0.1)  # the child's worker has heard of it too
    (tmp_path / "go on").touch()
    drivers.wait_until((tmp_path / "interrupted").exists)
    drivers.wait_until(cpus_are_free)


@pytest.mark.parametrize("wait", ["get", "wait", "next"])
def test_task_blocked_in_the_runtime_is_interrupted(tmp_path: pathlib.Path, wait: str) -> None:
    @umbel.remote
    def block(refs: list[Any]) -> None:
        @umbel.remote
        def stream() -> Iterator[int]:
            time.sleep(1000)
            yield 1

        (tmp_path / "mark").touch()
        if wait == "get":
            umbel.get(refs)
        elif wait == "wait":
            umbel.wait(refs)
        else:
            umbel.get(next(stream.remote()))  # the stream is cancelled too, so that either may end first

    never = sleep.remote(1000)
    ref = block.remote([never])
    drivers.wait_until((tmp_path / "mark").exists)
    umbel.cancel(ref)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    umbel.cancel(never)
    drivers.wait_until(cpus_are_free)


@pytest.mark.parametrize("buffer_bytes", [0, 10_000, 1_000_000])  # none; in the message; in the store
def test_task_is_interrupted_while_its_arguments_are_unpickled(tmp_path: pathlib.Path, buffer_bytes: int) -> None:
    def unpickle(mark: str) -> None:
        pathlib.Path(mark).touch()
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            time.sleep(0.01)

    class Slow:
        def __reduce__(self) -> Any:
            return unpickle, (str(tmp_path / "mark"),)

    @umbel.remote
    def take(_values: Any) -> None:
        pass

    ref = take.remote([Slow(), *([pickle.PickleBuffer(bytearray(buffer_bytes))] if buffer_bytes else [])])
    drivers.wait_until((tmp_path / "mark").exists)
    umbel.cancel(ref)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)


def test_task_submitted_while_the_cancellation_waits_is_cancelled_too(tmp_path: pathlib.Path) -> None:
    """The request found our own code at work, submitting; what it submitted ran on, with a CPU, for nobody."""

    @umbel.remote
    def forever(_mark: Any, _large: Any) -> None:
        time.sleep(1000)

    class Mark:
        def __reduce__(self) -> Any:
            (tmp_path / "mark").touch()
            return (int, ())

    @umbel.remote
    def parent() -> None:
        large = pickle.PickleBuffer(bytearray(256 << 20))
        umbel.get(forever.remote(Mark(), large))  # copied after the mark

    ref = parent.remote()
    drivers.wait_until((tmp_path / "mark").exists)
    umbel.cancel(ref)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    drivers.wait_until(cpus_are_free)


@umbel.remote
class Doubler:
    def double(self, number: int) -> int:
        return number * 2


class InterruptedTooLate:
    """While this is read, an interrupt comes that is meant for a task which has ended meanwhile."""

    def __reduce__(self) -> tuple[Any, ...]:
        return interrupts.lay_trap, (_EngineHere(), _never)


class _EngineHere:
    def __reduce__(self) -> tuple[Any, ...]:
        return current.session, ()


def _never() -> bool:
    return False


def test_handle_read_while_an_interrupt_is_pending_is_of_this_session() -> None:
    @umbel.remote
    def ask(given: list[Any]) -> int:
        answer: int = umbel.get(given[1].double.remote(21), timeout=30)
        return answer

    assert umbel.get(ask.remote([InterruptedTooLate(), Doubler.remote()]), timeout=60) == 42


def test_worker_is_of_use_after_an_interrupted_task(tmp_path: pathlib.Path) -> None:
    never = sleep.remote(1000)
    for number in range(5):
        mark = tmp_path / str(number)
        ref = get.remote([never], str(mark))
        drivers.wait_until(mark.exists)
        umbel.cancel(ref)
        with pytest.raises(CANCELLED):
            umbel.get(ref, timeout=10)
        assert umbel.get([double.remote(i) for i in range(20)], timeout=30) == [i * 2 for i in range(20)]
    umbel.cancel(never)
    drivers.wait_until(cpus_are_free)


def test_task_that_waits_for_an_argument_never_starts(tmp_path: pathlib.Path) -> None:
    argument = sleep.remote(0.2)

    @umbel.remote
    def consume(_value: Any) -> None:
        (tmp_path / "ran").touch()

    ref = consume.remote(argument)
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=10)
    assert umbel.get(argument) == "slept"
    assert not (tmp_path / "ran").exists()


def test_tasks_without_a_worker_never_start(tmp_path: pathlib.Path) -> None:
    blockers = [sleep.remote(0.3) for _ in range(2)]
    refs = [sleep.remote(0, str(tmp_path / str(number))) for number in range(20)]
    for ref in refs:
        umbel.cancel(ref)
    for ref in refs:
        with pytest.raises(exceptions.TaskCancelledError):
            umbel.get(ref, timeout=10)
    umbel.get(blockers)
    umbel.get(double.remote(1))
    assert list(tmp_path.iterdir()) == []


def test_tasks_queued_at_a_busy_worker_never_start(tmp_path: pathlib.Path) -> None:
    """Quick functions are pushed many at a time; those behind a slow one are cancelled where they are queued."""

    @umbel.remote
    def touch(name: str, seconds: float) -> None:
        pathlib.Path(name).touch()
        time.sleep(seconds)

    umbel.get([touch.remote(str(tmp_path / "warm"), 0) for _ in range(200)])
    first = [touch.remote(str(tmp_path / f"first{number}"), 0.5) for number in range(2)]
    drivers.wait_until(lambda: (tmp_path / "first0").exists() and (tmp_path / "first1").exists())
    behind = [touch.remote(str(tmp_path / f"behind{number}"), 0) for number in range(50)]
    for ref in behind:
        umbel.cancel(ref)
    for ref in behind:
        with pytest.raises(CANCELLED):
            umbel.get(ref, timeout=10)
    umbel.get(first)
    umbel.get([touch.remote(str(tmp_path / "after"), 0) for _ in range(20)])
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("behind")]


def test_task_cancelled_while_it_is_handed_back_never_starts(tmp_path: pathlib.Path) -> None:
    """A worker hands back what is queued behind a slow task for another; the cancellation crosses it on the way."""

    @umbel.remote
    def work(name: str, until: str = "") -> int:
        (tmp_path / name).touch()
        while until and not (tmp_path / until).exists():
            time.sleep(0.001)
        return os.getpid()

    pids = set(umbel.get([work.remote("warm") for _ in range(400)]))
    while len(pids) < 2:
        pids |= set(umbel.get([work.remote("warm") for _ in range(400)]))
    slow = [work.remote(f"slow{n}", f"go{n}") for n in range(2)]
    drivers.wait_until(lambda: (tmp_path / "slow0").exists() and (tmp_path / "slow1").exists())
    behind = [work.remote(f"behind{n}") for n in range(60)]
    (tmp_path / "go0").touch()
    other = umbel.get(slow[0], timeout=10)
    (stopped,) = pids - {other}
    os.kill(stopped, signal.SIGSTOP)
    try:
        drivers.wait_until(lambda: drivers.is_idle(other))  # it has run what it had, and has asked for more
        started = len(list(tmp_path.glob("behind*")))
        _, left = umbel.wait(behind, num_returns=started, timeout=10)
        assert len(left) == len(behind) - started > 0
        for ref in left:
            umbel.cancel(ref)
    finally:
        os.kill(stopped, signal.SIGCONT)
    for ref in left:  # before the slow task ends, after which the worker may be at the next before it has read of this
        with pytest.raises(CANCELLED):
            umbel.get(ref, timeout=10)
    (tmp_path / "go1").touch()
    assert umbel.get(slow[1], timeout=10) == stopped
    umbel.get([work.remote("after") for _ in range(20)], timeout=10)
    assert len(list(tmp_path.glob("behind*"))) == started
    drivers.wait_until(cpus_are_free)


def test_forced_cancel_kills_the_worker_and_spares_what_is_queued_behind(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=0)
    def work(name: str, seconds: float) -> int:
        try:
            pathlib.Path(name).touch()
            time.sleep(seconds)
        except KeyboardInterrupt:
            time.sleep(1000)
        return os.getpid()

    umbel.get([work.remote(str(tmp_path / "warm"), 0) for _ in range(100)])
    stuck = [work.remote(str(tmp_path / f"stuck{n}"), 1000) for n in range(2)]
    drivers.wait_until(lambda: (tmp_path / "stuck0").exists() and (tmp_path / "stuck1").exists())
    behind = [work.remote(str(tmp_path / f"behind{n}"), 0) for n in range(30)]
    for ref in stuck:
        umbel.cancel(ref, force=True)
    for ref in stuck:
        with pytest.raises((exceptions.WorkerCrashedError, exceptions.TaskCancelledError)):
            umbel.get(ref, timeout=10)
    assert len(umbel.get(behind, timeout=30)) == 30
    drivers.wait_until(cpus_are_free)


def test_cancel_reaches_the_children_unless_told_not_to(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def parent(name: str, depth: int) -> Any:
        if depth:
            return umbel.get(parent.remote(name, depth - 1))
        try:
            pathlib.Path(name).touch()
            time.sleep(1000)
        finally:
            pathlib.Path(name + "-interrupted").touch()

    ref = parent.remote(str(tmp_path / "leaf"), 3)
    drivers.wait_until((tmp_path / "leaf").exists)
    umbel.cancel(ref)
    drivers.wait_until((tmp_path / "leaf-interrupted").exists)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    drivers.wait_until(cpus_are_free)

    @umbel.remote
    def touch_later(name: str) -> None:
        pathlib.Path(name).touch()
        time.sleep(0.2)
        pathlib.Path(name + "-done").touch()

    @umbel.remote
    def start(name: str) -> list[Any]:
        child = touch_later.remote(name)
        time.sleep(1000)
        return [child]

    ref = start.remote(str(tmp_path / "child"))
    drivers.wait_until((tmp_path / "child").exists)
    umbel.cancel(ref, recursive=False)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    drivers.wait_until((tmp_path / "child-done").exists)


@umbel.remote
def clean_up_in_the_end(directory: pathlib.Path) -> None:
    try:
        (directory / "begun").touch()
        time.sleep(1000)
    finally:
        (directory / "cleans").touch()
        drivers.wait_until((directory / "go on").exists)
        (directory / "is clean").touch()


def test_child_of_a_cancelled_task_may_clean_up(tmp_path: pathlib.Path) -> None:
    """It was interrupted twice: when its parent was told to end, and again when that had come about, a moment later on a
    busy machine. What it did in the end was cut short."""

    @umbel.remote
    def parent() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it is interrupted late
        ref = clean_up_in_the_end.remote(tmp_path)
        drivers.wait_until((tmp_path / "cleans").exists)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        umbel.get(ref)

    ref = parent.remote()
    drivers.wait_until((tmp_path / "begun").exists)
    umbel.cancel(ref)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=60)
    drivers.pause(0.1)  # whatever the parent has sent the child is there
    (tmp_path / "go on").touch()
    drivers.wait_until((tmp_path / "is clean").exists)
    drivers.wait_until(cpus_are_free)


def test_cancelled_task_whose_submitter_dies_may_clean_up(tmp_path: pathlib.Path) -> None:
    """It was interrupted for each of the two."""

    @umbel.remote
    def parent() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        umbel.get(clean_up_in_the_end.remote(tmp_path))

    ref = parent.remote()
    drivers.wait_until((tmp_path / "begun").exists)
    umbel.cancel(ref)
    drivers.wait_until((tmp_path / "cleans").exists)
    drivers.kill(int((tmp_path / "pid").read_text()))
    drivers.pause(0.2)  # the child's worker has heard of it
    (tmp_path / "go on").touch()
    drivers.wait_until((tmp_path / "is clean").exists)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    drivers.wait_until(cpus_are_free)


def test_dependents_of_a_cancelled_task_fail_too() -> None:
    first = sleep.remote(1000)
    second = double.remote(first)
    third = double.remote(second)
    umbel.cancel(first)
    for ref in (first, second, third):
        with pytest.raises(CANCELLED):
            umbel.get(ref, timeout=10)


def test_borrower_cancels_at_the_owner(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def cancel(refs: list[Any]) -> None:
        umbel.cancel(refs[0])

    ref = sleep.remote(1000, str(tmp_path / "mark"))
    drivers.wait_until((tmp_path / "mark").exists)
    umbel.get(cancel.remote([ref]))
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)


def test_finished_task_is_left_alone() -> None:
    ref = double.remote(4)
    assert umbel.get(ref) == 8
    umbel.cancel(ref)
    umbel.cancel(ref, force=True)
    assert umbel.get(ref) == 8


def test_put_object_is_left_alone() -> None:
    ref = umbel.put(1)
    umbel.cancel(ref)
    assert umbel.get(ref) == 1


def test_cancelled_task_is_not_retried(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=5, retry_exceptions=True)
    def count() -> None:
        number = len(list(tmp_path.iterdir()))
        (tmp_path / str(number)).touch()
        time.sleep(1000)

    ref = count.remote()
    drivers.wait_until((tmp_path / "0").exists)
    umbel.cancel(ref)
    with pytest.raises(CANCELLED):
        umbel.get(ref, timeout=10)
    umbel.get([double.remote(i) for i in range(10)])
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_stream_ends_with_the_cancellation(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def stream() -> Iterator[int]:
        yield 1
        (tmp_path / "mark").touch()
        time.sleep(1000)
        yield 2

    items = stream.remote()
    assert umbel.get(next(items)) == 1
    drivers.wait_until((tmp_path / "mark").exists)
    umbel.cancel(items)
    with pytest.raises(CANCELLED):
        umbel.get(next(items), timeout=10)
    with pytest.raises(StopIteration):
        next(items)


def test_held_back_stream_is_cancelled() -> None:
    @umbel.remote(_generator_backpressure_num_objects=1)
    def stream() -> Iterator[int]:
        yield from range(1000)

    items = stream.remote()
    assert umbel.get(next(items)) == 0
    umbel.cancel(items)
    seen = 0
    with pytest.raises(CANCELLED):
        for ref in items:
            umbel.get(ref, timeout=10)
            seen += 1
    assert seen < 5
    drivers.wait_until(cpus_are_free)


def test_many_cancellations_under_load_leave_a_working_runtime() -> None:
    refs = []
    for number in range(1000):
        ref = double.remote(number)
        refs.append(ref)
        if number % 3 == 0:
            umbel.cancel(ref)
    for number, ref in enumerate(refs):
        try:
            assert umbel.get(ref, timeout=30) == number * 2
        except CANCELLED:
            assert number % 3 == 0
    assert umbel.get(double.remote(1), timeout=10) == 2


def test_cancelled_generator_task_runs_its_finally_blocks(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def stream() -> Iterator[int]:
        try:
            yield 1
            time.sleep(1000)
        finally:
            (tmp_path / "cleaned").touch()

    items = stream.remote()
    umbel.get(next(items))
    umbel.cancel(items)
    drivers.wait_until((tmp_path / "cleaned").exists)


def test_cancel_takes_references_only() -> None:
    with pytest.raises(TypeError, match="ObjectRef"):
        umbel.cancel("a task")
    with pytest.raises(TypeError, match="ObjectRef"):
        umbel.cancel([double.remote(1)])
