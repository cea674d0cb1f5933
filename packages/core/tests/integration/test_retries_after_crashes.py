"""Workers that die and functions that raise: what is run again, how often, and what is spared."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions
from umbel._client import current
from umbel._scheduling import dispatch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=1)
    yield
    umbel.shutdown()


def count(path: pathlib.Path) -> int:
    """Note one more call in a directory; returns how many there were before."""
    number = len(list(path.iterdir()))
    (path / f"{number}-{os.urandom(4).hex()}").touch()
    return number


def calls(path: pathlib.Path) -> int:
    return len(list(path.iterdir()))


@umbel.remote
def quick(number: int) -> int:
    return number


@umbel.remote
def crash(path: pathlib.Path, survive_after: int = 1 << 30) -> int:
    number = count(path)
    if number < survive_after:
        os._exit(1)
    return number


@umbel.remote
def slow_once(path: pathlib.Path) -> str:
    if path.exists():
        return "again"
    draft = path.with_suffix(".new")
    draft.write_text(str(os.getpid()))
    draft.rename(path)
    time.sleep(600)
    return "once"


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_crashing_task_runs_once_more_than_max_retries(tmp_path: pathlib.Path, max_retries: int) -> None:
    with pytest.raises(exceptions.WorkerCrashedError, match="crash"):
        umbel.get(crash.options(max_retries=max_retries).remote(tmp_path), timeout=30)
    assert calls(tmp_path) == max_retries + 1


def test_default_is_three_retries(tmp_path: pathlib.Path) -> None:
    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(crash.remote(tmp_path), timeout=30)
    assert calls(tmp_path) == 4


def test_endless_retries_end_with_success(tmp_path: pathlib.Path) -> None:
    assert umbel.get(crash.options(max_retries=-1).remote(tmp_path, 8), timeout=30) == 8


@pytest.mark.parametrize("how", ["exit", "kill", "segfault"])
def test_error_says_how_the_worker_died(how: str) -> None:
    @umbel.remote(max_retries=0)
    def die() -> None:
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSEGV)

    told = {"exit": "exited with code 7", "kill": "SIGKILL", "segfault": "SIGSEGV"}[how]
    with pytest.raises(exceptions.WorkerCrashedError, match=told) as caught:
        umbel.get(die.remote(), timeout=30)
    assert "die" in str(caught.value)
    assert "max_retries" in str(caught.value)


def test_tasks_queued_behind_a_crash_are_neither_lost_nor_charged(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=0)
    def work(name: str) -> str:
        (tmp_path / f"{name}-{os.urandom(4).hex()}").touch()
        if name == "crash":
            os._exit(1)
        return name

    umbel.get([work.remote("warm") for _ in range(300)])
    refs = [work.remote("crash" if number == 20 else str(number)) for number in range(100)]
    for number, ref in enumerate(refs):
        if number == 20:
            with pytest.raises(exceptions.WorkerCrashedError):
                umbel.get(ref, timeout=30)
        else:
            assert umbel.get(ref, timeout=30) == str(number)
    assert len(list(tmp_path.glob("*"))) == 400  # each ran once, also those before the crash


def test_tasks_that_share_a_worker_with_one_that_always_crashes_all_succeed(tmp_path: pathlib.Path) -> None:
    """Their replies may be lost with the worker, again and again; that must not use up their retries."""

    @umbel.remote(max_retries=3)
    def work(number: int) -> int:
        if number % 40 == 39:
            count(tmp_path)
            os._exit(1)
        return number

    umbel.get([work.remote(0) for _ in range(300)])
    refs = [work.remote(number) for number in range(160)]
    for number, ref in enumerate(refs):
        if number % 40 == 39:
            with pytest.raises(exceptions.WorkerCrashedError):
                umbel.get(ref, timeout=30)
        else:
            assert umbel.get(ref, timeout=30) == number
    assert calls(tmp_path) == 4 * 4


def test_mixed_functions_with_and_without_retries_keep_their_promises(tmp_path: pathlib.Path) -> None:
    (tmp_path / "once").mkdir()

    @umbel.remote(max_retries=0)
    def once(number: int) -> int:
        (tmp_path / "once" / f"{number}-{os.urandom(4).hex()}").touch()
        return number

    @umbel.remote(max_retries=2)
    def fragile(number: int) -> int:
        marker = tmp_path / f"crashed-{number}"
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return number

    umbel.get([once.remote(-1) for _ in range(100)] + [quick.remote(1) for _ in range(200)])
    refs: list[Any] = []
    for number in range(30):
        refs += [once.remote(number), quick.remote(number)]
        if number % 10 == 5:
            refs.append(fragile.remote(number))
    umbel.get(refs, timeout=30)
    for number in range(30):
        assert len(list((tmp_path / "once").glob(f"{number}-*"))) == 1


def test_crash_while_arguments_are_read_is_retried(tmp_path: pathlib.Path) -> None:
    class Bomb:
        def __init__(self, path: pathlib.Path) -> None:
            self.path = path

        def __setstate__(self, state: dict[str, Any]) -> None:
            self.__dict__ = state
            if count(self.path) < 2:
                os._exit(1)

    @umbel.remote
    def take(bomb: Bomb) -> str:
        return "taken"

    assert umbel.get(take.remote(Bomb(tmp_path)), timeout=30) == "taken"
    assert calls(tmp_path) == 3


def test_crash_while_the_result_is_pickled_is_retried(tmp_path: pathlib.Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            if count(tmp_path) < 2:
                os._exit(1)
            return str, ("pickled",)

    @umbel.remote
    def make() -> Any:
        return Bomb()

    assert umbel.get(make.remote(), timeout=30) == "pickled"


def test_crash_after_the_reply_costs_nothing() -> None:
    @umbel.remote(max_retries=0)
    def reply_and_die() -> int:
        import threading

        threading.Timer(0.05, os._exit, (1,)).start()
        return os.getpid()

    pid = umbel.get(reply_and_die.remote(), timeout=30)
    drivers.wait_until(lambda: not drivers.is_running(pid))
    assert umbel.get([quick.remote(number) for number in range(50)], timeout=30) == list(range(50))


def test_exit_in_a_task_is_a_crash_of_that_task_alone(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=0)
    def work(number: int) -> int:
        if number == 10:
            sys.exit(3)
        return number

    umbel.get([work.remote(0) for _ in range(200)])
    refs = [work.remote(number) for number in range(30)]
    with pytest.raises(exceptions.WorkerCrashedError, match="code 3"):
        umbel.get(refs[10], timeout=30)
    assert umbel.get(refs[:10] + refs[11:], timeout=30) == [n for n in range(30) if n != 10]


def test_raised_errors_are_retried_only_when_asked(tmp_path: pathlib.Path) -> None:
    for name in ("never", "always", "listed", "other"):
        (tmp_path / name).mkdir()

    @umbel.remote(max_retries=2)
    def fail(name: str) -> None:
        number = count(tmp_path / name)
        raise KeyError(f"attempt {number}, {umbel.get_runtime_context().get_attempt_number()}")

    with pytest.raises(KeyError, match="attempt 0, 0"):
        umbel.get(fail.remote("never"), timeout=30)
    with pytest.raises(KeyError, match="attempt 2, 2"):
        umbel.get(fail.options(retry_exceptions=True).remote("always"), timeout=30)
    with pytest.raises(KeyError, match="attempt 2, 2"):
        umbel.get(fail.options(retry_exceptions=[LookupError]).remote("listed"), timeout=30)
    with pytest.raises(KeyError, match="attempt 0, 0"):
        umbel.get(fail.options(retry_exceptions=[ValueError]).remote("other"), timeout=30)
    assert [calls(tmp_path / name) for name in ("never", "always", "listed", "other")] == [1, 3, 3, 1]


def test_retried_stream_repeats_nothing_that_was_taken(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=3)
    def stream() -> Iterator[bytes]:
        number = count(tmp_path)
        for index in range(20):
            if index == 5 * (number + 1) and number < 3:
                time.sleep(0.05)  # let what was yielded leave
                os._exit(1)
            yield bytes([index]) * 200_000

    items = [umbel.get(ref, timeout=30) for ref in stream.remote()]
    assert [item[0] for item in items] == list(range(20))
    assert calls(tmp_path) == 4


def test_stream_out_of_retries_ends_with_the_crash(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=1)
    def stream() -> Iterator[int]:
        count(tmp_path)
        yield 0
        yield 1
        time.sleep(0.05)
        os._exit(1)

    items = stream.remote()
    assert [umbel.get(next(items)), umbel.get(next(items))] == [0, 1]
    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(next(items), timeout=30)
    with pytest.raises(StopIteration):
        next(items)
    assert calls(tmp_path) == 2


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_stream_that_is_shorter_when_retried_fails_after_what_was_there(tmp_path: pathlib.Path, how: str) -> None:
    @umbel.remote(max_retries=1)
    def stream() -> Iterator[int]:
        number = count(tmp_path)
        for index in range(6):
            if number and index == 2:
                if how == "raises":
                    raise ValueError("shorter")
                return
            yield index
        time.sleep(0.05)
        os._exit(1)

    items = stream.remote()
    assert [umbel.get(next(items), timeout=30) for _ in range(6)] == list(range(6))
    expected = ValueError if how == "raises" else exceptions.StreamingGeneratorReplayInconsistentError
    with pytest.raises(expected):
        umbel.get(next(items), timeout=30)
    with pytest.raises(StopIteration):
        next(items)


def test_argument_objects_stay_for_the_retry(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=5)
    def use(large: bytes, nested: list[Any]) -> int:
        if count(tmp_path) < 3:
            os._exit(1)
        return len(large) + len(umbel.get(nested[0]))

    ref = use.remote(umbel.put(bytes(1_000_000)), [umbel.put(bytes(500_000))])  # nobody else refers to them
    assert umbel.get(ref, timeout=30) == 1_500_000


def test_worker_that_ran_for_another_owner_is_not_charged_for_its_tasks(tmp_path: pathlib.Path) -> None:
    """What a worker ran last, for one owner, says nothing about another's tasks of the same numbers."""

    @umbel.remote(max_retries=0)
    def count_once(name: str) -> str:
        (tmp_path / f"{name}-{os.urandom(4).hex()}").touch()
        return name

    @umbel.remote
    def submit(round_number: int) -> list[str]:
        refs = [count_once.remote(f"{round_number}-{n}") for n in range(20)]
        return list(umbel.get(refs))

    for round_number in range(3):
        assert umbel.get(submit.remote(round_number), timeout=30) == [f"{round_number}-{n}" for n in range(20)]
        with pytest.raises(exceptions.WorkerCrashedError):
            umbel.get(umbel.remote(max_retries=0)(os._exit).remote(1), timeout=30)
    assert len(list(tmp_path.iterdir())) == 60


def busy_lease() -> Any:
    """Of the worker that runs something."""
    engine: Any = current.running_engine()
    with engine.lock:
        leases = [lease for cls in engine.leases.classes.values() for lease in cls.leases.values()]
        (found,) = [lease for lease in leases if lease.inflight]
    return found


def give_back_unsaid() -> None:
    """That worker, while the engine counts on it: as after a defect of the daemon."""
    engine: Any = current.running_engine()
    engine.agent.notify({"t": "return", "worker": busy_lease().worker})


@pytest.mark.parametrize("max_retries", [1, 0])
def test_what_waits_for_a_worker_whose_lease_has_ended_unsaid_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, max_retries: int
) -> None:
    """The daemon tells nobody of its death; who waits asks in the end."""
    monkeypatch.setattr(dispatch, "CHECKED_AFTER_S", 0.3)
    running = slow_once.options(max_retries=max_retries).remote(tmp_path / "pid")
    drivers.wait_until((tmp_path / "pid").exists)
    give_back_unsaid()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    if max_retries:
        assert umbel.get(running, timeout=30) == "again"
    else:
        with pytest.raises(exceptions.WorkerCrashedError, match="its lease had ended, which this process was not told"):
            umbel.get(running, timeout=30)


@umbel.remote
def held_up(runs: pathlib.Path, gate: pathlib.Path) -> int:
    number = count(runs)
    while not gate.exists():
        time.sleep(0.005)
    return number


def test_an_answer_that_comes_after_its_lease_was_lost_counts_and_nothing_is_run_again(tmp_path: pathlib.Path) -> None:
    """The worker lives, and its connection holds. Before: the task had its answer, and was run once more for nobody."""
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    runs.mkdir()
    running = held_up.options(max_retries=2).remote(runs, gate)
    drivers.wait_until(lambda: bool(calls(runs)))
    engine: Any = current.running_engine()
    lease = busy_lease()
    with engine.lock:
        engine.deaths.lease_ended_unsaid(lease.worker, 0)
    gate.touch()
    assert umbel.get(running, timeout=30) == 0
    engine.agent.notify({"t": "return", "worker": lease.worker})
    assert umbel.get(quick.remote(1), timeout=30) == 1  # behind whatever waits
    assert calls(runs) == 1


def test_what_a_worker_had_that_is_granted_anew_is_not_forgotten(tmp_path: pathlib.Path) -> None:
    running = slow_once.options(max_retries=2).remote(tmp_path / "pid")
    drivers.wait_until((tmp_path / "pid").exists)
    before = busy_lease()
    waiting = quick.remote(1)  # for which the worker is granted again as soon as it is back
    give_back_unsaid()
    drivers.wait_until(lambda: busy_lease() is not before)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert umbel.get([running, waiting], timeout=30) == ["again", 1]
