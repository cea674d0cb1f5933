"""Actors on the inline engine: order, concurrency, names, life and death."""

from __future__ import annotations

import asyncio
import atexit
import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import current


@pytest.fixture(autouse=True)
def session() -> Iterator[Any]:
    with umbel.init(engine="inline", num_cpus=4, namespace="tests"):
        yield current.engine()


@umbel.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, k: int = 1) -> int:
        self.n += k
        return self.n

    def fail(self) -> None:
        raise OSError("method")

    def leave(self, code: int) -> None:
        raise SystemExit(code)

    def exit(self) -> None:
        umbel.actor.exit_actor()

    def call_myself(self) -> Any:
        return umbel.get(umbel.get_runtime_context().current_actor.add.remote())

    def facts(self) -> Any:
        context = umbel.get_runtime_context()
        return context.was_current_actor_reconstructed, context.get_actor_id(), context.get_worker_id()


@umbel.remote
class Gate:
    """Holds back who waits, until it is opened."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, value: Any = None) -> Any:
        await self.event.wait()
        return value

    async def open(self) -> None:
        self.event.set()


def wait_for(box: Any, value: Any = None) -> Any:
    return umbel.get(box[0].wait.remote(value))


def test_calls_of_one_caller_run_in_order() -> None:
    counter = Counter.remote(10)
    assert umbel.get([counter.add.remote(k) for k in (1, 2, 3)]) == [11, 13, 16]


def test_late_argument_holds_back_its_own_caller_only() -> None:
    gate, counter = Gate.remote(), Counter.remote()
    first = counter.add.remote(gate.wait.remote(100))
    second = counter.add.remote()
    other = umbel.remote(lambda c: umbel.get(c.add.remote(1))).remote(counter)
    assert umbel.get(other) == 1
    assert umbel.wait([first, second], num_returns=2, timeout=0)[0] == []
    gate.open.remote()
    assert umbel.get([first, second]) == [101, 102]


def test_late_argument_holds_back_nobody_if_order_does_not_matter() -> None:
    gate, counter = Gate.remote(), Counter.options(allow_out_of_order_execution=True).remote()
    first = counter.add.remote(gate.wait.remote(100))
    assert umbel.get(counter.add.remote()) == 1
    gate.open.remote()
    assert umbel.get(first) == 101


def test_failed_argument_fails_its_call_and_lets_later_ones_go() -> None:
    gate, counter = Gate.remote(), Counter.remote()

    @umbel.remote
    def fails(_opened: Any) -> None:
        raise LookupError("argument")

    first = counter.add.remote(fails.remote(gate.wait.remote()))
    second = counter.add.remote(5)
    gate.open.remote()
    assert umbel.get(second) == 5
    with pytest.raises(LookupError, match="argument"):
        umbel.get(first)


def test_call_while_the_actor_waits_queues_behind() -> None:
    @umbel.remote
    class Slow:
        def __init__(self, gate: Any) -> None:
            self.gate = gate
            self.seen: list[str] = []

        def wait(self) -> None:
            self.seen.append("begin")
            umbel.get(self.gate.wait.remote())
            self.seen.append("end")

        def look(self) -> list[str]:
            return self.seen

    gate = Gate.remote()
    slow = Slow.remote(gate)
    slow.wait.remote()
    look = slow.look.remote()
    assert umbel.wait([look], timeout=0)[0] == []
    gate.open.remote()
    assert umbel.get(look) == ["begin", "end"]


def test_threaded_actor_runs_as_many_calls_at_a_time_as_it_may() -> None:
    @umbel.remote(max_concurrency=2)
    class Threaded:
        def __init__(self) -> None:
            self.inside = 0

        def wait(self, box: Any) -> int:
            self.inside += 1
            wait_for(box)
            return threading.get_ident()

        def look(self) -> int:
            return self.inside

    gate = Gate.remote()
    threaded = Threaded.remote()
    waiting = [threaded.wait.remote([gate]) for _ in range(3)]
    assert umbel.wait(waiting, timeout=0)[0] == []
    gate.open.remote()
    assert len(set(umbel.get(waiting))) == 2
    assert umbel.get(threaded.look.remote()) == 3


def test_concurrency_groups_do_not_hold_each_other_back() -> None:
    @umbel.remote(concurrency_groups={"io": 1})
    class Grouped:
        @umbel.method(concurrency_group="io")
        def wait(self, box: Any) -> str:
            wait_for(box)
            return "io"

        def quick(self) -> str:
            return "quick"

    gate = Gate.remote()
    grouped = Grouped.remote()
    slow = grouped.wait.remote([gate])
    held = grouped.quick.options(concurrency_group="io").remote()
    assert umbel.get(grouped.quick.remote()) == "quick"
    assert umbel.wait([slow, held], num_returns=2, timeout=0)[0] == []
    gate.open.remote()
    assert umbel.get([slow, held]) == ["io", "quick"]
    with pytest.raises(ValueError, match="concurrency_group 'nope', which the actor does not declare"):
        grouped.quick.options(concurrency_group="nope").remote()


def test_coroutines_of_one_actor_interleave() -> None:
    gate = Gate.remote()
    waiting = [gate.wait.remote(i) for i in range(5)]
    assert umbel.wait(waiting, timeout=0)[0] == []
    gate.open.remote()
    assert umbel.get(waiting) == [0, 1, 2, 3, 4]


def test_blocking_method_of_an_async_actor_does_not_block_its_loop() -> None:
    @umbel.remote
    class Mixed:
        def block(self, box: Any) -> str:
            return str(wait_for(box, "unblocked"))

        async def quick(self) -> str:
            return "quick"

    gate = Gate.remote()
    mixed = Mixed.remote()
    blocked = mixed.block.remote([gate])
    assert umbel.get(mixed.quick.remote()) == "quick"
    gate.open.remote()
    assert umbel.get(blocked) == "unblocked"


def test_coroutine_that_blocks_its_loop_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    @umbel.remote
    class Blocks:
        async def block(self, box: Any) -> Any:
            return wait_for(box)

    blocks = Blocks.remote()
    for _ in range(2):
        gate = Gate.remote()
        ref = blocks.block.remote([gate])
        gate.open.remote()
        umbel.get(ref)
    assert [record.getMessage().split(" waits")[0] for record in caplog.records] == ["a coroutine of actor Blocks"]


def test_coroutines_may_await_references_and_block_in_get() -> None:
    @umbel.remote
    class Both:
        async def awaits(self, box: Any) -> Any:
            return await box[0].wait.remote(1), await umbel.put(2)

        async def gets(self) -> Any:
            return umbel.get(umbel.put(3))

    gate = Gate.remote()
    both = Both.remote()
    ref = both.awaits.remote([gate])
    assert umbel.get(both.gets.remote()) == 3
    gate.open.remote()
    assert umbel.get(ref) == (1, 2)


def test_max_concurrency_bounds_coroutines() -> None:
    @umbel.remote(max_concurrency=1)
    class Narrow:
        async def wait(self, box: Any) -> str:
            return str(await box[0].wait.remote("first"))

        async def next(self) -> str:
            return "second"

    gate = Gate.remote()
    narrow = Narrow.remote()
    first, second = narrow.wait.remote([gate]), narrow.next.remote()
    assert umbel.wait([first, second], timeout=0)[0] == []
    gate.open.remote()
    assert umbel.get([first, second]) == ["first", "second"]


def test_timers_of_an_async_actor_go_on_while_the_driver_waits() -> None:
    @umbel.remote
    class Sleeper:
        def __init__(self) -> None:
            self.ticks = 0
            self.task = asyncio.get_running_loop().create_task(self.tick())

        async def tick(self) -> None:
            while True:
                await asyncio.sleep(0.001)
                self.ticks += 1

        async def after(self, ticks: int) -> bool:
            while self.ticks < ticks:
                await asyncio.sleep(0)
            return True

    assert umbel.get(Sleeper.remote().after.remote(3)) is True


def test_failing_constructor_fails_every_call_with_its_traceback() -> None:
    def explode() -> None:
        raise RuntimeError("cannot be built")

    @umbel.remote
    class Broken:
        def __init__(self) -> None:
            explode()

        def hello(self) -> int:
            return 1

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError, match=r"(?s)constructor.*in explode.*cannot be built") as info:
            umbel.get(broken.hello.remote())
        assert info.value.actor_init_failed is True


def test_failed_constructor_argument_fails_the_actor() -> None:
    @umbel.remote
    def fails(_opened: Any) -> int:
        raise LookupError("argument")

    gate = Gate.remote()
    now = Counter.remote(fails.remote(None))
    later = Counter.remote(fails.remote(gate.wait.remote()))
    calls = [now.add.remote(), later.add.remote()]
    gate.open.remote()
    for call in calls:
        with pytest.raises(exceptions.ActorDiedError, match="argument") as info:
            umbel.get(call)
        assert info.value.actor_init_failed is True
        assert "an argument of its constructor" in str(info.value)


def test_constructor_waits_for_its_arguments_and_calls_for_it() -> None:
    gate = Gate.remote()
    counter = Counter.remote(gate.wait.remote(40))
    ref = counter.add.remote(2)
    gate.open.remote()
    assert umbel.get(ref) == 42


def test_system_methods() -> None:
    counter = Counter.remote(5)
    assert umbel.get(counter.__umbel_ready__.remote()) is True
    assert umbel.get(counter.__umbel_call__.remote(lambda self, k: self.n * k, 3)) == 15
    gate = Gate.remote()
    assert umbel.get(gate.__umbel_call__.remote(lambda self: asyncio.get_running_loop().is_running())) is True
    ended = counter.__umbel_terminate__.remote()
    for ref in (ended, counter.add.remote()):
        with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
            umbel.get(ref)


def test_exit_actor_lets_running_calls_finish_and_fails_the_others() -> None:
    @umbel.remote(max_restarts=-1)
    class Leaving(Gate._cls):  # type: ignore[misc]  # the plain class
        async def exit(self) -> None:
            umbel.actor.exit_actor()

    leaving = Leaving.options(max_concurrency=3).remote()
    running = leaving.wait.remote("finished")
    opener = leaving.__umbel_call__.remote(
        lambda self: asyncio.get_running_loop().call_later(0.01, self.event.set) and 1
    )
    exiting = leaving.exit.remote()
    late = leaving.wait.remote()
    assert umbel.get([opener, running]) == [1, "finished"]
    for ref in (exiting, late, leaving.open.remote()):
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(ref)


def test_exit_actor_outside_an_actor_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="outside an actor"):
        umbel.actor.exit_actor()
    with pytest.raises(TypeError, match="outside an actor"):
        umbel.get(umbel.remote(lambda: umbel.actor.exit_actor()).remote())


def test_sys_exit_zero_ends_an_actor_for_good_and_another_code_restarts_it() -> None:
    counter = Counter.options(max_restarts=1).remote(5)
    assert umbel.get(counter.add.remote()) == 6
    with pytest.raises(exceptions.ActorUnavailableError, match=r"sys\.exit\(1\)"):
        umbel.get(counter.leave.remote(1))
    assert umbel.get(counter.add.remote()) == 6
    with pytest.raises(exceptions.ActorDiedError, match=r"sys\.exit\(0\)"):
        umbel.get(counter.leave.remote(0))
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(counter.add.remote())


def test_sys_exit_in_a_coroutine_restarts_the_loop_too() -> None:
    @umbel.remote(max_restarts=1)
    class Crashing:
        async def leave(self) -> None:
            raise SystemExit(2)

        async def alive(self) -> bool:
            await asyncio.sleep(0)
            return umbel.get_runtime_context().was_current_actor_reconstructed

    actor = Crashing.remote()
    assert umbel.get(actor.alive.remote()) is False
    with pytest.raises(exceptions.ActorUnavailableError):
        umbel.get(actor.leave.remote())
    assert umbel.get(actor.alive.remote()) is True


def test_restart_runs_the_constructor_again_and_keeps_what_has_not_started() -> None:
    counter = Counter.options(max_restarts=2, max_task_retries=1).remote(7)
    was, actor_id, worker_id = umbel.get(counter.facts.remote())
    umbel.kill(counter, no_restart=False)
    assert umbel.get(counter.add.remote()) == 8
    again, same_actor_id, other_worker_id = umbel.get(counter.facts.remote())
    assert (was, again, actor_id == same_actor_id, worker_id == other_worker_id) == (False, True, True, False)
    with pytest.raises(exceptions.ActorDiedError):  # the retry crashes as well, and nothing is left then
        umbel.get(counter.leave.remote(1))


def test_calls_that_a_restart_interrupts_are_repeated_if_they_may_be() -> None:
    @umbel.remote(max_restarts=-1)
    class Waiter:
        def wait(self, box: Any) -> Any:
            return wait_for(box, umbel.get_runtime_context().get_attempt_number())

    gate = Gate.remote()
    for retries in (0, 1):
        waiter = Waiter.options(max_task_retries=retries).remote()
        ref = waiter.wait.remote([gate])
        queued = waiter.wait.remote([gate])
        umbel.kill(waiter, no_restart=False)
        if retries:
            gate.open.remote()
            assert umbel.get([ref, queued]) == [1, 0]
        else:
            with pytest.raises(exceptions.ActorUnavailableError):
                umbel.get(ref)
            umbel.kill(waiter)
            with pytest.raises(exceptions.ActorDiedError):
                umbel.get(queued)


def test_method_errors_are_retried_within_max_task_retries() -> None:
    @umbel.remote
    class Flaky:
        def __init__(self) -> None:
            self.calls = 0

        @umbel.method(max_task_retries=2, retry_exceptions=True)
        def third(self) -> int:
            self.calls += 1
            if self.calls < 3:
                raise KeyError(self.calls)
            return self.calls

        @umbel.method(max_task_retries=1, retry_exceptions=[KeyError])
        async def second(self) -> int:
            self.calls += 1
            if self.calls < 2:
                raise KeyError(self.calls)
            return self.calls

    assert umbel.get(Flaky.remote().third.remote()) == 3
    assert umbel.get(Flaky.remote().second.remote()) == 2


def test_kill_fails_running_and_queued_calls_and_frees_the_name() -> None:
    @umbel.remote
    class Waiter:
        def wait(self, box: Any) -> Any:
            return wait_for(box)

    gate = Gate.remote()
    waiter = Waiter.options(name="w").remote()
    calls = [waiter.wait.remote([gate]) for _ in range(2)]
    umbel.kill(waiter)
    for ref in (*calls, waiter.wait.remote([gate])):
        with pytest.raises(exceptions.ActorDiedError, match="killed"):
            umbel.get(ref)
    with pytest.raises(ValueError, match="no actor called 'w'"):
        umbel.get_actor("w")
    umbel.kill(waiter)


def test_actor_that_kills_itself_does_not_return() -> None:
    @umbel.remote
    class Own:
        def end(self) -> str:
            umbel.kill(umbel.get_runtime_context().current_actor)
            return "not reached"

    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(Own.remote().end.remote())


def test_kill_while_the_constructor_waits() -> None:
    @umbel.remote
    class Slow:
        def __init__(self, box: Any) -> None:
            wait_for(box)

        async def hello(self) -> None:
            pass

    class Plain(Slow._cls):  # type: ignore[misc]  # the plain class
        hello = None  # not async any more

        def hi(self) -> None:
            pass

    gate = Gate.remote()
    slow, plain = Slow.remote([gate]), umbel.remote(Plain).remote([gate])
    calls = [slow.hello.remote(), plain.hi.remote()]
    umbel.kill(slow)
    umbel.kill(plain)
    for ref in calls:
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(ref)


def test_kill_while_the_constructor_waits_for_its_arguments() -> None:
    gate = Gate.remote()
    killed, restarted = (Counter.options(max_restarts=1).remote(gate.wait.remote(1)) for _ in range(2))
    umbel.kill(killed)
    umbel.kill(restarted, no_restart=False)
    calls = [killed.add.remote(), restarted.add.remote()]
    gate.open.remote()
    with pytest.raises(exceptions.ActorDiedError, match="killed"):
        umbel.get(calls[0])
    assert umbel.get(calls[1]) == 2


def test_actor_ends_when_its_last_strong_handle_and_call_are_gone(session: Any) -> None:
    counter = Counter.options(name="c").remote()
    weak = umbel.get_actor("c")
    ref = counter.add.remote()
    kept = umbel.put([counter])
    del counter
    gc.collect()
    assert umbel.get([ref, weak.add.remote()]) == [1, 2]
    del kept
    gc.collect()
    with pytest.raises(exceptions.ActorDiedError, match="all handles"):
        umbel.get(weak.add.remote())
    with pytest.raises(ValueError, match="no actor"):
        umbel.get_actor("c")


def test_actor_without_a_handle_finishes_the_calls_it_has() -> None:
    gate = Gate.remote()
    counter = Counter.remote()
    late = counter.add.remote(gate.wait.remote(3))
    del counter
    gc.collect()
    gate.open.remote()
    assert umbel.get(late) == 3


def test_destructor_of_an_actor_may_call_umbel() -> None:
    @umbel.remote
    class Last:
        def __init__(self, log: Any) -> None:
            self.log = log

        def __del__(self) -> None:
            self.log.add.remote(10)

    log = Counter.remote()
    last = Last.remote(log)
    umbel.get(last.__umbel_ready__.remote())
    del last
    gc.collect()
    assert umbel.get(log.add.remote()) == 11


def test_detached_actor_lives_without_handles() -> None:
    Counter.options(name="d", lifetime="detached").remote(3)
    gc.collect()
    assert umbel.get(umbel.get_actor("d").add.remote()) == 4


def test_names_belong_to_namespaces() -> None:
    kept = [Counter.options(name="n", namespace=space).remote(i) for i, space in enumerate(("a", "b"))]
    assert [umbel.get(umbel.get_actor("n", space).add.remote()) for space in ("a", "b")] == [1, 2]
    with pytest.raises(ValueError, match="namespace 'tests'"):
        umbel.get_actor("n")
    assert umbel.util.list_named_actors() == []
    assert umbel.util.list_named_actors(all_namespaces=True) == [
        {"name": "n", "namespace": "a"},
        {"name": "n", "namespace": "b"},
    ]
    del kept


def test_name_is_taken_once_unless_get_if_exists() -> None:
    first = Counter.options(name="one").remote(10)
    with pytest.raises(exceptions.ActorAlreadyExistsError, match="'one'"):
        Counter.options(name="one").remote()
    second = Counter.options(name="one", get_if_exists=True).remote(99)
    assert second == first
    assert umbel.get(second.add.remote()) == 11


def test_pending_calls_are_limited_per_caller() -> None:
    gate = Gate.remote()
    counter = Counter.options(max_pending_calls=2).remote()
    refs = [counter.add.remote(gate.wait.remote(1)), counter.add.remote()]
    with pytest.raises(exceptions.PendingCallsLimitExceeded, match="max_pending_calls is 2"):
        counter.add.remote()
    assert umbel.get(umbel.remote(lambda c: umbel.get(c.add.remote())).remote(counter)) == 1
    gate.open.remote()
    assert umbel.get(refs) == [2, 3]
    assert umbel.get(counter.add.remote()) == 4


def test_handles_count_wherever_they_are() -> None:
    @umbel.remote
    class Keeper:
        def keep(self, handle: Any) -> None:
            self.handle = handle

        def use(self) -> Any:
            return umbel.get(self.handle.add.remote())

    keeper, counter = Keeper.remote(), Counter.remote()
    umbel.get(keeper.keep.remote(counter))
    del counter
    gc.collect()
    assert umbel.get(keeper.use.remote()) == 1


def test_actor_that_fits_nowhere_fails_its_calls() -> None:
    actor = Counter.options(num_cpus=9).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match="ask for less"):
        umbel.get(actor.add.remote())


def test_handle_of_an_earlier_session_is_refused() -> None:
    import pickle

    counter = Counter.options(name="old", lifetime="detached").remote()
    data = pickle.dumps(counter)
    umbel.shutdown()
    with umbel.init(engine="inline"), pytest.raises(exceptions.ActorHandleNotFoundError, match="another session"):
        pickle.loads(data).add.remote()


def test_environment_of_an_actor_is_its_own() -> None:
    @umbel.remote(runtime_env={"env_vars": {"UMBEL_TEST_C": "inside"}})
    class Env:
        def plain(self) -> Any:
            import os

            return os.environ.get("UMBEL_TEST_C")

        async def coroutine(self) -> Any:
            import os

            await asyncio.sleep(0)
            return os.environ.get("UMBEL_TEST_C")

    import os

    env = Env.remote()
    assert umbel.get([env.plain.remote(), env.coroutine.remote()]) == ["inside", "inside"]
    assert "UMBEL_TEST_C" not in os.environ


def test_atexit_is_the_programs_own_again_after_the_session() -> None:
    before = atexit.register, atexit.unregister
    umbel.shutdown()
    with umbel.init(engine="inline"):
        umbel.get(Counter.remote().add.remote())
        assert atexit.register(test_names_belong_to_namespaces) is test_names_belong_to_namespaces  # the driver's
        atexit.unregister(test_names_belong_to_namespaces)
    assert (atexit.register, atexit.unregister) == before


def test_worker_of_a_task_that_leaves_takes_its_objects_along() -> None:
    @umbel.remote(max_retries=0)
    def leave(box: Any) -> None:
        box[0].open.remote([umbel.put("lost")])
        sys.exit(1)

    @umbel.remote
    class Box:
        def open(self, refs: Any) -> None:
            self.refs = refs

        def take(self) -> Any:
            return self.refs

    box = Box.remote()
    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(leave.remote([box]))
    [ref] = umbel.get(box.take.remote())
    with pytest.raises(exceptions.OwnerDiedError):
        umbel.get(ref)
