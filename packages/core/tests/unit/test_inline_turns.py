"""Whose turn it is on the inline engine: the order of things, and the escapes from waiting for oneself.

Threads and signals are real here; what they wait for is always an event, never time.
"""

from __future__ import annotations

import _thread
import asyncio
import bdb
import concurrent.futures
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import current
from umbel._client.inline import pool

PATIENCE_S = 20.0  # for what is bound to happen


@pytest.fixture(autouse=True)
def session() -> Iterator[Any]:
    with umbel.init(engine="inline", num_cpus=4):
        yield current.engine()


@umbel.remote
class Log:
    def __init__(self) -> None:
        self.words: list[Any] = []

    def add(self, word: Any) -> None:
        self.words.append(word)

    def read(self) -> list[Any]:
        return self.words


@umbel.remote
class Gate:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, value: Any = None) -> Any:
        await self.event.wait()
        return value

    async def open(self) -> None:
        self.event.set()


def test_submitter_goes_on_when_the_task_blocks_and_the_task_when_its_object_is_there() -> None:
    log, gate = Log.remote(), Gate.remote()

    @umbel.remote
    def task(box: Any) -> None:
        log, gate = box
        umbel.get(log.add.remote("begin"))
        umbel.get(gate.wait.remote())
        umbel.get(log.add.remote("end"))

    ref = task.remote([log, gate])
    log.add.remote("driver")
    gate.open.remote()
    log.add.remote("after")
    assert umbel.get(log.read.remote()) == ["begin", "driver", "end", "after"]
    assert umbel.get(ref) is None


def test_those_who_wait_for_one_object_go_on_in_the_order_in_which_they_began_to_wait() -> None:
    log, gate = Log.remote(), Gate.remote()

    @umbel.remote
    def task(box: Any, name: str) -> None:
        log, opened = box
        umbel.get(opened)
        umbel.get(log.add.remote(name))

    opened = gate.wait.remote()
    refs = [task.remote([log, opened], name) for name in "abcdef"]
    gate.open.remote()
    umbel.get(refs)
    assert umbel.get(log.read.remote()) == list("abcdef")


def test_the_same_program_runs_in_the_same_order_every_time() -> None:
    @umbel.remote
    def work(log: Any, gates: Any, name: int) -> int:
        for step in range(3):
            umbel.get(log.add.remote((name, step)))
            if (name + step) % 3 == 0:
                umbel.get(gates[(name + step) % len(gates)].wait.remote())
        return name

    @umbel.remote
    def combine(*names: int) -> int:
        return sum(names)

    def run() -> Any:
        log, gates = Log.remote(), [Gate.remote() for _ in range(3)]
        refs = [work.remote(log, gates, name) for name in range(8)]
        total = combine.remote(*refs)
        for gate in gates:
            gate.open.remote()
        return umbel.get(total), umbel.get(log.read.remote())

    first = run()
    assert first[0] == 28
    assert all(run() == first for _ in range(5))


def test_get_and_wait_end_at_their_timeouts() -> None:
    ref = Gate.remote().wait.remote()
    for timeout in (0, 0.01):
        with pytest.raises(exceptions.GetTimeoutError, match=r"1 of 2 objects.*Gate\.wait"):
            umbel.get([umbel.put(1), ref], timeout=timeout)
        assert umbel.wait([ref], timeout=timeout) == ([], [ref])


def test_timeouts_in_tasks_run_out_while_the_driver_waits() -> None:
    @umbel.remote
    def patient(box: Any) -> str:
        try:
            umbel.get(box[0].wait.remote(), timeout=0.01)
        except TimeoutError:
            return "timed out"
        return "not reached"

    assert umbel.get(patient.remote([Gate.remote()])) == "timed out"


def test_wait_returns_when_enough_are_ready() -> None:
    gates = [Gate.remote() for _ in range(3)]
    refs = [gate.wait.remote(i) for i, gate in enumerate(gates)]

    @umbel.remote
    def two(refs: Any) -> Any:
        ready, rest = umbel.wait(refs, num_returns=2)
        return umbel.get(ready), len(rest)

    result = two.remote(refs)
    gates[2].open.remote()
    assert umbel.wait([result], timeout=0)[0] == []
    gates[0].open.remote()
    assert umbel.get(result) == ([0, 2], 1)


def test_deadlock_says_who_waits_for_what() -> None:
    @umbel.remote
    class Selfish:
        def call_myself(self) -> Any:
            return umbel.get(umbel.get_runtime_context().current_actor.other.remote())

        def other(self) -> None:
            pass

    selfish = Selfish.remote()
    ref = selfish.call_myself.remote()
    with pytest.raises(exceptions.DeadlockError, match=r"(?s)Selfish\.call_myself.*Selfish\.other, which queues"):
        umbel.get(ref)
    umbel.kill(selfish)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(ref)


def test_threads_that_ended_unknown_to_threading_do_not_hide_a_deadlock() -> None:
    """Python 3.11 lists them for ever, if they have asked who they are, as whoever logs does; but for those whose place new
    threads take."""
    ended = threading.Semaphore(0)
    all_there = threading.Barrier(20)

    def run() -> None:
        threading.current_thread()
        all_there.wait(30)
        ended.release()

    for _ in range(20):
        _thread.start_new_thread(run, ())
    for _ in range(20):
        assert ended.acquire(timeout=30)
    gate = Gate.remote()
    with pytest.raises(exceptions.DeadlockError):
        umbel.get(gate.wait.remote())


def test_circle_of_tasks_that_wait_for_each_other_is_a_deadlock() -> None:
    gate, log = Gate.remote(), Log.remote()

    @umbel.remote
    def task(box: Any) -> Any:
        gate, log = box
        umbel.get(gate.wait.remote())
        return umbel.get(umbel.get(log.read.remote())[0])

    ref = task.remote([gate, log])
    log.add.remote([ref])
    log.__umbel_call__.remote(lambda self: self.words.__setitem__(slice(None), self.words[0]))
    gate.open.remote()
    with pytest.raises(exceptions.DeadlockError, match=r"task .* waits for object .*, the result of .*task"):
        umbel.get(ref)


def test_event_that_nobody_will_set_is_a_deadlock_and_one_with_a_timer_is_not() -> None:
    @umbel.remote
    class Waiting:
        async def for_ever(self) -> None:
            await asyncio.Event().wait()

        async def for_a_while(self) -> str:
            try:
                await asyncio.wait_for(asyncio.Event().wait(), 0.01)
            except asyncio.TimeoutError:
                return "timer"
            return "not reached"

    waiting = Waiting.remote()
    assert umbel.get(waiting.for_a_while.remote()) == "timer"
    with pytest.raises(exceptions.DeadlockError, match="the driver's thread MainThread waits for"):
        umbel.get(waiting.for_ever.remote())


def test_no_deadlock_is_seen_while_another_thread_of_the_user_may_help() -> None:
    gate = Gate.remote()
    go = threading.Event()

    def help_later() -> None:
        go.wait(PATIENCE_S)
        gate.open.remote()

    helper = threading.Thread(target=help_later)
    helper.start()
    ref = gate.wait.remote("helped")
    threading.Thread(target=go.set).start()
    assert umbel.get(ref) == "helped"
    helper.join()


def test_task_that_polls_does_not_hold_up_its_submitter() -> None:
    @umbel.remote
    class Flag:
        def __init__(self) -> None:
            self.is_set = False

        def set(self) -> None:
            self.is_set = True

        def read(self) -> bool:
            return self.is_set

    @umbel.remote
    def poll(flag: Any) -> str:
        while not umbel.get(flag.read.remote()):
            pass
        return "seen"

    flag = Flag.remote()
    ref = poll.remote(flag)
    flag.set.remote()
    assert umbel.get(ref) == "seen"


@pytest.mark.parametrize("threads", [1, 8])
def test_threads_of_the_driver_share_the_engine(threads: int) -> None:
    @umbel.remote
    def square(x: int) -> int:
        return x * x

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda x: umbel.get(square.remote(x)), range(40)))
    assert found == [x * x for x in range(40)]


def test_task_may_wait_for_threads_of_its_own_that_use_umbel() -> None:
    """The task has the turn while it joins; it lends it, or its threads would wait for it for ever."""

    @umbel.remote
    def inner(x: int) -> int:
        return x + 1

    @umbel.remote
    def outer() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda x: umbel.get(inner.remote(x)), range(6)))

    assert umbel.get(outer.remote()) == [1, 2, 3, 4, 5, 6]


def test_task_may_run_an_event_loop_of_its_own() -> None:
    gate = Gate.remote()

    @umbel.remote
    def outer(box: Any) -> Any:
        async def main() -> Any:
            return await asyncio.gather(box[0].wait.remote(1), umbel.put(2))

        return asyncio.run(main())

    ref = outer.remote([gate])
    gate.open.remote()
    assert umbel.get(ref) == [1, 2]


def test_methods_of_a_threaded_actor_may_wait_for_each_other_without_umbel() -> None:
    @umbel.remote(max_concurrency=2)
    class Pair:
        def __init__(self) -> None:
            self.items: queue.Queue[str] = queue.Queue()

        def take(self) -> str:
            return self.items.get(timeout=PATIENCE_S)

        def give(self, item: str) -> None:
            self.items.put(item)

    pair = Pair.remote()
    taken = pair.take.remote()
    pair.give.remote("item")
    assert umbel.get(taken) == "item"


def test_futures_of_references() -> None:
    gate = Gate.remote()
    ref = gate.wait.remote("value")
    future = ref.future()
    assert not future.done()
    gate.open.remote()
    assert future.result(PATIENCE_S) == "value"
    assert umbel.put(3).future().result(PATIENCE_S) == 3

    async def main() -> Any:
        return await asyncio.gather(ref, umbel.put(4))

    assert asyncio.run(main()) == ["value", 4]


def test_callback_must_not_wait_for_others() -> None:
    gate = Gate.remote()
    never = Gate.remote().wait.remote()
    future = gate.wait.remote().future()
    seen: list[BaseException] = []

    def callback(_future: Any) -> None:
        try:
            umbel.get(never, timeout=PATIENCE_S)
        except RuntimeError as error:
            seen.append(error)

    future.add_done_callback(callback)
    gate.open.remote()
    assert future.result(PATIENCE_S) is None
    assert all("callback must not wait" in str(error) for error in seen)


def test_interrupting_the_driver_leaves_the_session_usable() -> None:
    released = threading.Event()

    @umbel.remote
    def stuck(number: int) -> str:
        signal.pthread_kill(number, signal.SIGINT)
        release = next(t for t in threading.enumerate() if t.name == "holds the event").event  # type: ignore[attr-defined]
        return "released" if release.wait(PATIENCE_S) else "late"

    holder = threading.Thread(target=released.wait, name="holds the event")
    holder.event = released  # type: ignore[attr-defined]  # functions are copied, threads are found
    holder.start()
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stuck.remote(threading.get_ident())
        assert umbel.get(umbel.remote(lambda: "works").remote()) == "works"
    finally:
        released.set()
        signal.signal(signal.SIGINT, previous)
        holder.join()


def test_too_many_blocked_tasks_fail_instead_of_exhausting_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LANES_MAX", 8)
    gate = Gate.remote()

    @umbel.remote
    def hold(box: Any) -> Any:
        return umbel.get(box[0].wait.remote("held"))

    refs = [hold.remote([gate]) for _ in range(10)]
    with pytest.raises(exceptions.UmbelSystemError, match="at most 8"):
        umbel.get(refs[-1])
    actor = Log.remote()
    with pytest.raises(exceptions.UmbelSystemError, match="at most 8"):
        umbel.get(actor.read.remote())
    gate.open.remote()
    assert umbel.get(refs[0]) == "held"
    assert umbel.get(Log.remote().read.remote()) == []


class Stops(bdb.Bdb):
    """A debugger that notes where it stops and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def user_line(self, frame: FrameType) -> None:
        if self.break_here(frame):
            self.seen.append((frame.f_code.co_name, threading.current_thread().name))
        self.set_continue()


def test_breakpoints_of_a_debugger_hold_in_tasks_and_actors() -> None:
    class Actor:
        def method(self) -> int:
            return 1

    def task() -> int:
        return 2

    debugger = Stops()
    for function in (Actor.method, task):
        assert debugger.set_break(__file__, function.__code__.co_firstlineno + 1) is None
    handle = umbel.remote(Actor).remote()
    remote = umbel.remote(task)

    def program() -> Any:
        return umbel.get([handle.method.remote(), remote.remote()])

    assert debugger.runcall(program) == [1, 2]
    assert [name for name, _ in debugger.seen] == ["method", "task"]


def test_breakpoint_in_a_task_reads_standard_input() -> None:
    program = """
import umbel
umbel.init(engine="inline")
def task(x):
    y = x + 1
    breakpoint()
    return y
print("result", umbel.get(umbel.remote(task).remote(4)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input="p y\ny = 10\nc\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert "(Pdb) 5" in ran.stdout
    assert "result 10" in ran.stdout


def test_code_that_cleans_up_at_shutdown_starts_no_other_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_TEST_CLEANUP", "")

    @umbel.remote
    def holds(box: Any) -> None:
        try:
            umbel.get(box[0].wait.remote())
        finally:
            try:
                umbel.put("more")
            except BaseException as error:
                os.environ["UMBEL_TEST_CLEANUP"] = type(error).__name__
                raise

    ref = holds.remote([Gate.remote()])
    umbel.shutdown()
    assert os.environ["UMBEL_TEST_CLEANUP"] == "LaneExit"
    assert not umbel.is_initialized()
    del ref


def test_code_that_catches_its_own_end_is_left_standing() -> None:
    @umbel.remote
    class Stubborn:
        def hold(self, box: Any) -> None:
            while True:
                try:
                    umbel.get(box[0].wait.remote())
                except BaseException:
                    continue

    stubborn = Stubborn.remote()
    ref = stubborn.hold.remote([Gate.remote()])
    umbel.kill(stubborn)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(ref)
    assert umbel.get(umbel.remote(lambda: "works").remote()) == "works"


def test_explain_follows_what_others_wait_for(session: Any) -> None:
    gate = Gate.remote()
    hold = umbel.remote(lambda box: umbel.get(box[0].wait.remote())).options(name="hold").remote([gate])
    late = umbel.remote(lambda x: x).options(name="late").remote(hold)
    text = str(session.explain(late))
    assert re.search(r"late, which waits for 1 of its arguments .*hold, which waits for .*Gate\.wait", text)
    assert len(session.query("pending")) == 3
    gate.open.remote()
    assert "is ready" in str(session.explain(late))
