"""Actors: state, order, names, lifetimes, concurrency, ends. Numbers are those of the list of semantics."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.usefixtures("engine")


@umbel.remote
class Counter:
    def __init__(self, start: int = 0, *, step: int = 1) -> None:
        self.n = start
        self.step = step

    def add(self, k: Any = None) -> int:
        self.n += self.step if k is None else k
        return self.n

    def value(self) -> int:
        return self.n

    def fail(self) -> None:
        raise OSError("method")

    @umbel.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return 1, 2


def test_calls_of_one_caller_run_in_order() -> None:
    """54"""
    counter = Counter.remote(10, step=5)
    assert umbel.get([counter.add.remote() for _ in range(50)]) == list(range(15, 265, 5))


def test_references_as_constructor_and_method_arguments() -> None:
    counter = Counter.remote(umbel.put(100), step=umbel.put(10))
    assert umbel.get(counter.add.remote()) == 110
    assert umbel.get(counter.add.remote(k=counter.value.remote())) == 220


def test_an_error_in_a_method_leaves_the_actor_alive() -> None:
    counter = Counter.remote()
    with pytest.raises(OSError, match="method"):
        umbel.get(counter.fail.remote())
    assert umbel.get(counter.add.remote()) == 1


def test_a_failing_constructor_fails_every_call_with_its_traceback() -> None:
    """10"""

    @umbel.remote
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("cannot be built")

        def hello(self) -> None: ...

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError, match="cannot be built") as caught:
            umbel.get(broken.hello.remote())
        assert caught.value.actor_init_failed


@umbel.remote
def value_of(box: Any) -> Any:
    """What another process gets of an actor."""
    return umbel.get(box[0].value.remote())


def test_an_actor_can_be_called_before_its_constructors_arguments_are_there(signal: Any) -> None:
    counter = Counter.remote(signal.wait.remote())
    theirs, ours = value_of.remote([counter]), counter.add.remote()
    assert umbel.wait([theirs, ours], num_returns=2, timeout=0.05)[0] == []
    signal.send.remote()
    umbel.get([theirs, ours], timeout=20)
    assert umbel.get(counter.value.remote(), timeout=20) == 2


@pytest.mark.parametrize("options", [{}, {"name": "hopeless"}])
def test_a_constructor_argument_that_fails_fails_every_holders_calls(signal: Any, options: dict[str, Any]) -> None:
    @umbel.remote(max_retries=0)
    def fails(_opened: Any) -> None:
        raise LookupError("argument")

    counter = Counter.options(**options).remote(fails.remote(signal.wait.remote()))
    calls = [counter.value.remote(), value_of.remote([counter])]
    signal.send.remote()
    for ref in (*calls, counter.value.remote(), value_of.remote([counter])):
        with pytest.raises(exceptions.ActorDiedError, match="LookupError: argument"):
            umbel.get(ref, timeout=20)
    with pytest.raises(exceptions.ActorDiedError) as caught:
        umbel.get(calls[0])
    assert caught.value.actor_init_failed


def test_a_name_is_taken_before_the_constructors_arguments_are_there(signal: Any) -> None:
    """61"""
    counter = Counter.options(name="early").remote(signal.wait.remote())
    assert umbel.get_actor("early") == counter
    with pytest.raises(exceptions.ActorAlreadyExistsError, match="early"):
        Counter.options(name="early").remote()
    found = umbel.get_actor("early").value.remote()
    signal.send.remote()
    assert umbel.get(found, timeout=20) is True


def test_an_actor_killed_before_its_constructors_arguments_are_there_stays_dead(signal: Any) -> None:
    opened = signal.wait.remote()
    counter = Counter.options(name="killed early").remote(opened)
    early = counter.value.remote()
    umbel.kill(counter)
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        umbel.get(early, timeout=20)
    signal.send.remote()
    umbel.get(opened, timeout=20)
    with pytest.raises(exceptions.ActorDiedError, match="kill"):
        umbel.get(counter.value.remote(), timeout=20)
    assert "killed early" not in umbel.util.list_named_actors()


def test_an_actor_without_handles_ends_though_its_constructors_arguments_come_late(
    signal: Any, eventually: Any
) -> None:
    """58"""
    opened = signal.wait.remote()
    Counter.options(name="unwanted").remote(opened)
    gc.collect()
    signal.send.remote()
    umbel.get(opened, timeout=20)
    eventually(lambda: "unwanted" not in umbel.util.list_named_actors())


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        (lambda: Counter(), TypeError, r"Counter\.remote"),
        (lambda: Counter.remote(1, 2), TypeError, "Counter"),
        (lambda: Counter.remote(nope=1), TypeError, "nope"),
        (lambda: Counter.remote().add(), TypeError, r"add\.remote"),
        (lambda: Counter.remote().nope, AttributeError, "has no method 'nope'"),
        (lambda: Counter.remote().value.remote(1), TypeError, "value"),
        (lambda: Counter.options(max_restarts=-2), ValueError, "-2"),
        (lambda: Counter.options(max_task_retries="x"), (ValueError, TypeError), "'x'"),
        (lambda: Counter.options(max_concurrency=0), ValueError, "0"),
        (lambda: Counter.options(lifetime="sometimes"), ValueError, "sometimes"),
        (lambda: Counter.options(name=""), ValueError, "name"),
        (lambda: Counter.options(name=5), (ValueError, TypeError), "5"),
        (lambda: Counter.options(num_returns=2), ValueError, "num_returns"),
        (lambda: Counter.options(concurrency_groups={"a": 1}), ValueError, "concurrency_groups"),
        (lambda: Counter.remote().add.options(nope=1), ValueError, "nope"),
        (lambda: Counter.remote().add.options(num_returns="streaming"), ValueError, "yield"),
        (lambda: umbel.kill("x"), ValueError, "kill"),
        (lambda: umbel.get_actor("nobody"), ValueError, "nobody"),
        (lambda: umbel.get_actor(""), ValueError, "name"),
        (lambda: umbel.actor.exit_actor(), TypeError, "outside an actor"),
        (lambda: umbel.method(), ValueError, "method"),
    ],
)
def test_misuse_is_refused_and_explained(wrong: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        wrong()


def test_an_actor_class_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="plain class"):

        class Child(Counter):  # type: ignore[valid-type,misc]
            pass


def test_several_returns() -> None:
    counter = Counter.remote()
    a, b = counter.pair.remote()
    assert umbel.get([a, b]) == [1, 2]
    assert umbel.get(counter.pair.options(num_returns=1).remote()) == (1, 2)


def test_handles_travel_and_are_equal() -> None:
    """59"""

    @umbel.remote
    def bump(box: Any) -> int:
        return umbel.get(box["counter"].add.remote())

    counter = Counter.remote()
    assert umbel.get(bump.remote({"counter": counter})) == 1
    twin = umbel.get(umbel.put([counter]))[0]
    assert twin == counter
    assert len({twin, counter}) == 1
    assert umbel.get(twin.value.remote()) == 1


def test_a_handle_made_in_a_task_keeps_its_actor_alive() -> None:
    @umbel.remote
    def make() -> Any:
        return Counter.remote(41)

    counter = umbel.get(make.remote())
    gc.collect()
    assert umbel.get(counter.add.remote()) == 42


def test_an_actor_ends_with_its_last_handle_after_its_calls(marks: Any, eventually: Any) -> None:
    """58"""

    @umbel.remote
    class Marker:
        def add(self, word: str) -> None:
            marks.add(word)

        def name(self) -> None: ...

    marker = Marker.options(name="fleeting").remote()
    refs = [marker.add.remote(str(i)) for i in range(5)]
    del marker
    gc.collect()
    umbel.get(refs)
    assert marks.all() == ["0", "1", "2", "3", "4"]

    def is_gone() -> bool:
        try:
            umbel.get_actor("fleeting")
        except ValueError:
            return True
        return False

    eventually(is_gone)


def test_names_are_unique_and_reused_after_death(eventually: Any) -> None:
    """14, 61"""
    first = Counter.options(name="one").remote(1)
    assert umbel.get(umbel.get_actor("one").value.remote()) == 1
    with pytest.raises(ValueError, match="one") as caught:
        Counter.options(name="one").remote(2)
    assert isinstance(caught.value, exceptions.ActorAlreadyExistsError)
    again = Counter.options(name="one", get_if_exists=True).remote(3)
    assert again == first
    assert "one" in umbel.util.list_named_actors()
    umbel.kill(first)

    def new() -> Any:
        try:
            return Counter.options(name="one").remote(4)
        except ValueError:
            return None

    assert umbel.get(eventually(new).value.remote()) == 4


def test_namespaces_keep_names_apart() -> None:
    here = Counter.options(name="both").remote(1)
    there = Counter.options(name="both", namespace="elsewhere").remote(2)
    assert umbel.get(umbel.get_actor("both").value.remote()) == 1
    assert umbel.get(umbel.get_actor("both", namespace="elsewhere").value.remote()) == 2
    assert here != there


def test_killed_actors_fail_their_calls() -> None:
    counter = Counter.remote()
    umbel.get(counter.value.remote())
    umbel.kill(counter)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(counter.value.remote(), timeout=20)


def test_exit_actor_ends_it_without_a_restart() -> None:
    """60"""

    @umbel.remote(max_restarts=5)
    class Leaver:
        def leave(self) -> None:
            umbel.actor.exit_actor()

        def ping(self) -> str:
            return "pong"

    leaver = Leaver.remote()
    assert umbel.get(leaver.ping.remote()) == "pong"
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(leaver.leave.remote(), timeout=20)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(leaver.ping.remote(), timeout=20)


def test_terminate_queues_behind_calls() -> None:
    """60"""
    counter = Counter.remote()
    refs = [counter.add.remote() for _ in range(3)]
    ended = counter.__umbel_terminate__.remote()
    assert umbel.get(refs) == [1, 2, 3]
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(ended, timeout=20)


def test_ready_and_call_with_the_instance() -> None:
    counter = Counter.remote(5)
    umbel.get(counter.__umbel_ready__.remote())
    assert umbel.get(counter.__umbel_call__.remote(lambda self, k: self.n * k, 3)) == 15
    assert umbel.get(counter.__ray_call__.remote(lambda self: self.n)) == 5


def test_pending_calls_are_limited_for_each_handle(signal: Any) -> None:
    """66"""

    @umbel.remote(max_pending_calls=3)
    class Slow:
        def wait(self, box: Any) -> Any:
            return umbel.get(box[0].wait.remote())

    slow = Slow.remote()
    refs = [slow.wait.remote([signal]) for _ in range(3)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded, match="3"):
        slow.wait.remote([signal])
    signal.send.remote()
    assert umbel.get(refs) == [True] * 3
    assert umbel.get(slow.wait.remote([signal])) is True


def test_async_methods_overlap() -> None:
    """63"""

    @umbel.remote
    class Meeting:
        def __init__(self) -> None:
            self.arrived = 0
            self.all_here = asyncio.Event()

        async def meet(self, count: int) -> int:
            self.arrived += 1
            if self.arrived == count:
                self.all_here.set()
            await self.all_here.wait()
            return self.arrived

    meeting = Meeting.remote()
    assert umbel.get([meeting.meet.remote(10) for _ in range(10)], timeout=20) == [10] * 10


def test_a_plain_method_does_not_block_an_async_actors_loop(signal: Any) -> None:
    """64, which is not imitated"""

    @umbel.remote
    class Mixed:
        def block(self, box: Any) -> Any:
            return umbel.get(box[0].wait.remote())

        async def quick(self) -> str:
            return "quick"

    mixed = Mixed.remote()
    held = mixed.block.remote([signal])
    assert umbel.get(mixed.quick.remote(), timeout=20) == "quick"
    signal.send.remote()
    assert umbel.get(held, timeout=20) is True


def test_async_methods_are_limited_by_max_concurrency() -> None:
    @umbel.remote(max_concurrency=2)
    class Limited:
        def __init__(self) -> None:
            self.running = self.most = 0
            self.two = asyncio.Event()

        async def run(self) -> int:
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == 2:
                self.two.set()
            await self.two.wait()
            await asyncio.sleep(0)
            self.running -= 1
            return self.most

    limited = Limited.remote()
    assert max(umbel.get([limited.run.remote() for _ in range(20)], timeout=20)) == 2


def test_threads_overlap_in_a_threaded_actor(signal: Any) -> None:
    """65"""

    @umbel.remote(max_concurrency=3)
    class Threaded:
        def wait(self, box: Any) -> Any:
            return umbel.get(box[0].wait.remote())

        def open(self, box: Any) -> None:
            umbel.get(box[0].send.remote())

    threaded = Threaded.remote()
    held = [threaded.wait.remote([signal]) for _ in range(2)]
    umbel.get(threaded.open.remote([signal]), timeout=20)
    assert umbel.get(held, timeout=20) == [True, True]


def test_concurrency_groups_do_not_hold_each_other_up(signal: Any) -> None:
    @umbel.remote(concurrency_groups={"io": 1})
    class Grouped:
        @umbel.method(concurrency_group="io")
        def wait(self, box: Any) -> Any:
            return umbel.get(box[0].wait.remote())

        def quick(self) -> int:
            return 1

    grouped = Grouped.remote()
    held = grouped.wait.remote([signal])
    assert umbel.get(grouped.quick.remote(), timeout=20) == 1
    with pytest.raises(ValueError, match="nope"):
        umbel.get(grouped.quick.options(concurrency_group="nope").remote(), timeout=20)
    signal.send.remote()
    assert umbel.get(held, timeout=20) is True


def test_a_call_asking_for_an_undeclared_group_is_refused_where_it_is_written() -> None:
    @umbel.remote
    class Plain:
        def run(self) -> int:
            return 1

    plain = Plain.remote()
    for handle in (plain, umbel.get(umbel.put([plain]))[0]):
        with pytest.raises(ValueError, match=r"method run asks for concurrency_group 'io', .* it has none; declare it"):
            handle.run.options(concurrency_group="io")
    assert umbel.get(plain.run.remote(), timeout=20) == 1


@pytest.mark.parametrize("num_returns", ["streaming", "dynamic"])
def test_a_method_that_yields_nothing_is_no_stream(num_returns: Any) -> None:
    with pytest.raises(
        ValueError, match=f"num_returns='{num_returns}' needs a generator method, got run, which has no"
    ):

        class Wrong:
            @umbel.method(num_returns=num_returns)
            def run(self) -> int:
                return 1


def test_a_method_asking_for_an_undeclared_group_is_refused() -> None:
    class Wrong:
        @umbel.method(concurrency_group="io")
        def run(self) -> None: ...

    with pytest.raises(ValueError, match="io"):
        umbel.remote(Wrong)


def test_a_slow_argument_holds_back_later_calls_of_its_caller_only(signal: Any) -> None:
    """54"""

    @umbel.remote
    def other(box: Any) -> int:
        return umbel.get(box[0].add.remote(1))

    counter = Counter.remote()
    first = counter.add.remote(signal.wait.remote())
    second = counter.value.remote()
    assert umbel.get(other.remote([counter]), timeout=20) == 1
    assert umbel.wait([first, second], num_returns=2, timeout=0.05)[0] == []
    signal.send.remote()
    assert umbel.get([first, second], timeout=20) == [2, 2]


def test_out_of_order_execution_lifts_that(signal: Any) -> None:
    counter = Counter.options(allow_out_of_order_execution=True).remote()
    first = counter.add.remote(signal.wait.remote())
    assert umbel.get(counter.value.remote(), timeout=20) == 0
    signal.send.remote()
    assert umbel.get(first, timeout=20) == 1


def test_cancelling_a_coroutine() -> None:
    """51"""

    @umbel.remote
    class Sleeper:
        def __init__(self) -> None:
            self.cancelled = 0

        async def sleep(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        async def count(self) -> int:
            return self.cancelled

    sleeper = Sleeper.remote()
    umbel.get(sleeper.count.remote())
    ref = sleeper.sleep.remote()
    umbel.get(sleeper.count.remote())
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=20)
    assert umbel.get(sleeper.count.remote(), timeout=20) == 1


def test_forcing_a_methods_cancellation_is_refused(signal: Any) -> None:
    """51"""
    ref = signal.wait.remote()
    with pytest.raises(ValueError, match="force"):
        umbel.cancel(ref, force=True)
    signal.send.remote()
    assert umbel.get(ref, timeout=20) is True


def test_an_actor_knows_itself() -> None:
    @umbel.remote(num_cpus=0.5)
    class Me:
        def tell(self) -> Any:
            context = umbel.get_runtime_context()
            return context.get_actor_id(), context.get_actor_name(), context.get_assigned_resources()

        def handle(self) -> Any:
            return umbel.get_runtime_context().current_actor

    me = Me.options(name="myself").remote()
    actor_id, name, resources = umbel.get(me.tell.remote())
    assert actor_id == me._actor_id.hex()
    assert name == "myself"
    assert resources == {"CPU": 0.5}
    assert umbel.get(me.handle.remote()) == me


def test_default_actors_hold_no_cpu() -> None:
    """33"""
    counters = [Counter.remote(i) for i in range(8)]
    assert umbel.get([c.value.remote() for c in counters], timeout=30) == list(range(8))


def test_static_and_class_methods_are_callable() -> None:
    @umbel.remote
    class Both:
        shared = 5

        @staticmethod
        def plain(x: int) -> int:
            return x + 1

        @classmethod
        def of_class(cls) -> int:
            return cls.shared

    both = Both.remote()
    assert umbel.get([both.plain.remote(1), both.of_class.remote()]) == [2, 5]
