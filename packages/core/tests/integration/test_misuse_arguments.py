"""Wrong arguments of every public call: an error of the right class that says what, got, allowed and what to do."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import current

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=1)
    yield
    umbel.shutdown()


@umbel.remote
def plain(value: Any = None) -> Any:
    return value


@umbel.remote
class Actor:
    def method(self, value: Any = None) -> Any:
        return value

    async def coroutine(self) -> None: ...


# get and wait


@pytest.mark.parametrize("wrong", [(), {}, "ref", 1, None, {1: 2}, object()])
def test_get_takes_a_reference_or_a_list(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"get\(\)"):
        umbel.get(wrong)


def test_get_of_a_tuple_says_to_make_a_list() -> None:
    with pytest.raises(ValueError, match="list"):
        umbel.get((plain.remote(),))


def test_get_says_which_item_is_wrong() -> None:
    with pytest.raises(ValueError, match="position 1"):
        umbel.get([plain.remote(), 5])


def test_get_of_the_same_reference_twice_is_fine() -> None:
    ref = plain.remote(3)
    assert umbel.get([ref, ref, ref]) == [3, 3, 3]


def test_get_of_nothing_is_nothing() -> None:
    assert umbel.get([]) == []


@pytest.mark.parametrize("wrong", ["1", [], True, float("nan")])
def test_timeouts_are_numbers(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):
        umbel.get(plain.remote(), timeout=wrong)
    with pytest.raises((TypeError, ValueError), match="timeout"):
        umbel.wait([plain.remote()], timeout=wrong)


@pytest.mark.parametrize("wrong", [-2, -0.5, -float("inf")])
def test_get_waits_no_negative_time(wrong: float) -> None:
    for refs in (plain.remote(), [plain.remote()]):
        with pytest.raises(ValueError, match=f"timeout must be >= 0 seconds, got {wrong}; omit it to wait for ever"):
            umbel.get(refs, timeout=wrong)


def test_minus_one_is_for_ever_as_in_ray() -> None:
    assert umbel.get(plain.remote(1), timeout=-1) == 1
    assert umbel.get([plain.remote(1)], timeout=-1) == [1]


@pytest.mark.parametrize("timeout", [float("inf"), 1e12, 1 << 40])
def test_huge_timeouts_are_as_none(timeout: float) -> None:
    assert umbel.get(plain.remote(1), timeout=timeout) == 1
    ref = plain.remote(2)
    assert umbel.wait([ref], timeout=timeout) == ([ref], [])


def test_wait_rules() -> None:
    refs = [plain.remote(number) for number in range(3)]
    with pytest.raises(TypeError, match="list"):
        umbel.wait(refs[0])
    for several in (tuple(refs), set(refs)):
        with pytest.raises(TypeError, match=r"wait\(\) takes a list .*; write list\(\.\.\.\) around it"):
            umbel.wait(several)  # type: ignore[call-overload]  # on purpose
    with pytest.raises(TypeError, match="position 1"):
        umbel.wait([refs[0], 1])
    with pytest.raises(ValueError, match="repeated"):
        umbel.wait([refs[0], refs[1], refs[0]])
    with pytest.raises(ValueError, match="timeout"):
        umbel.wait(refs, timeout=-1)
    for wrong in (0, -1, 4, "1", 1.5, True):
        with pytest.raises(ValueError, match="num_returns"):
            umbel.wait(refs, num_returns=wrong)
    assert umbel.wait([]) == ([], [])


def test_put_rules() -> None:
    with pytest.raises(TypeError, match="ObjectRef"):
        umbel.put(plain.remote())
    with pytest.raises(TypeError, match="lock"):
        umbel.put(threading.Lock())


def test_generators_cannot_be_passed_on() -> None:
    @umbel.remote
    def stream() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="ObjectRefGenerator"):
        plain.remote(stream.remote())
    with pytest.raises(TypeError, match=r"list\(generator\)\)$"):
        plain.remote(stream.remote())
    with pytest.raises(TypeError, match=r"the part at fault is \[0\] \(umbel\._client\.refs\.ObjectRefGenerator\)$"):
        umbel.put([stream.remote()])


# Calls


def test_calls_are_checked_where_they_are_written() -> None:
    with pytest.raises(TypeError, match="plain"):
        plain.remote(1, 2)
    with pytest.raises(TypeError, match="wrong"):
        plain.remote(wrong=1)
    with pytest.raises(TypeError, match="remote"):
        plain(1)
    with pytest.raises(TypeError, match="remote"):
        Actor()
    with pytest.raises(TypeError):
        Actor.remote(1)
    actor = Actor.remote()
    with pytest.raises(TypeError, match="remote"):
        actor.method(1)
    with pytest.raises(TypeError, match="method"):
        actor.method.remote(1, 2, 3)
    with pytest.raises(AttributeError, match=r"methdo.*method"):
        actor.methdo.remote()
    with pytest.raises(TypeError, match="subclass"):

        class Derived(Actor):  # type: ignore[misc,valid-type]  # what the test is about
            pass


def test_decorator_misuse() -> None:
    with pytest.raises((TypeError, ValueError)):
        umbel.remote()
    with pytest.raises((TypeError, ValueError)):
        umbel.remote(5)
    with pytest.raises(TypeError):
        umbel.remote(num_cpus=1)(5)
    with pytest.raises(ValueError, match="async def"):

        @umbel.remote
        async def coroutine() -> None: ...


TASK_OPTIONS: list[tuple[str, list[Any]]] = [
    ("num_cpus", ["1", -1, float("nan"), float("inf"), [], 0.00001]),
    ("num_gpus", ["1", -1, 1.5]),
    ("memory", ["1", -1]),
    ("resources", [5, {"CPU": 1}, {"GPU": 1}, {"a": -1}, {"a": "x"}, {1: 1}, ["a"]]),
    ("num_returns", [-1, 1.5, "many", "streaming", "dynamic"]),
    ("max_retries", [-2, 1.5, "3"]),
    ("retry_exceptions", ["ValueError", [1], [int], 5]),
    ("name", [5, b"x"]),
    ("runtime_env", [5, {"env_vars": 5}, {"env_vars": {"A": 1}}, {"nonsense": 1}, "env"]),
    ("scheduling_strategy", [5, "NOWHERE"]),
    ("_generator_backpressure_num_objects", [0, "x", -2]),
    ("max_concurrency", [2]),
    ("nonsense", [1]),
]
ACTOR_OPTIONS: list[tuple[str, list[Any]]] = [
    ("num_cpus", ["1", -1]),
    ("max_restarts", [-2, 1.5, "x"]),
    ("max_task_retries", [-2, 1.5, "x"]),
    ("max_concurrency", [0, -1, 1.5, "x"]),
    ("max_pending_calls", [-2, 1.5, "x"]),
    ("lifetime", ["forever", 5]),
    ("name", ["", 5]),
    ("namespace", ["", 5]),
    ("get_if_exists", [5, True]),  # True: without a name
    ("max_retries", [1]),
    ("num_returns", [1]),
    ("nonsense", [1]),
]
METHOD_OPTIONS: list[tuple[str, list[Any]]] = [
    ("num_returns", [-1, 1.5, "many", "streaming"]),
    ("max_task_retries", [-2, 1.5, "x"]),
    ("retry_exceptions", ["x", 5]),
    ("concurrency_group", ["nowhere", 5]),
    ("num_cpus", [1]),
    ("nonsense", [1]),
]


WRONG = (TypeError, ValueError, exceptions.UnsupportedFeature)


def spread(table: list[tuple[str, list[Any]]]) -> list[tuple[str, Any]]:
    return [(option, value) for option, values in table for value in values]


@pytest.mark.parametrize(("option", "value"), spread(TASK_OPTIONS))
def test_wrong_task_options_are_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(WRONG, match=option):
        plain.options(**{option: value}).remote()
    with pytest.raises(WRONG, match=option):
        umbel.remote(**{option: value})(lambda: None)


@pytest.mark.parametrize(("option", "value"), spread(ACTOR_OPTIONS))
def test_wrong_actor_options_are_refused_by_name(option: str, value: Any) -> None:
    class Plain:
        pass

    with pytest.raises((TypeError, ValueError), match=option):
        umbel.remote(Plain).options(**{option: value}).remote()


@pytest.mark.parametrize(("option", "value"), spread(METHOD_OPTIONS))
def test_wrong_method_options_are_refused_by_name(option: str, value: Any) -> None:
    actor = Actor.remote()
    with pytest.raises((TypeError, ValueError), match=option):
        umbel.get(actor.method.options(**{option: value}).remote(), timeout=30)


def test_wrong_init_arguments() -> None:
    for wrong in ({"num_cpus": "x"}, {"num_cpus": -1}, {"resources": 5}, {"labels": {"a": 1}}, {"namespace": 5},
                  {"object_store_memory": "x"}, {"object_store_memory": 1}, {"runtime_env": {"nonsense": 1}},
                  {"engine": "warp"}, {"nonsense": 1}):  # fmt: skip
        umbel.shutdown()
        with pytest.raises((TypeError, ValueError, RuntimeError, exceptions.UmbelError)) as caught:
            umbel.init(**wrong)  # type: ignore[arg-type]  # on purpose
        assert next(iter(wrong)) in str(caught.value) or "warp" in str(caught.value)
        assert not umbel.is_initialized()
    with pytest.raises(ConnectionError):
        umbel.init(address="auto")
    with pytest.raises(ConnectionError, match="example"):
        umbel.init(address="example.com:6379")
    with pytest.raises(ValueError, match="num_cpus"):
        umbel.init(address="example.com:6379", num_cpus=1)
    umbel.init(num_cpus=1)
    with pytest.raises(RuntimeError, match="ignore_reinit_error"):
        umbel.init()


# Things that cannot be pickled


class Holder:
    def __init__(self) -> None:
        self.name = "holder"
        self.inner = {"list": [1, socket.socket()]}


def test_unpicklable_arguments_name_the_part_at_fault() -> None:
    with pytest.raises(TypeError, match=r"inner.*list.*socket"):
        plain.remote(Holder())
    with pytest.raises(TypeError, match="lock"):
        plain.remote([{"key": threading.Lock()}])
    with pytest.raises(TypeError, match="lock"):
        Actor.remote().method.remote(threading.Lock())


def test_unpicklable_results_name_the_part_at_fault() -> None:
    @umbel.remote
    def make() -> Any:
        return {"deep": [threading.Lock()]}

    with pytest.raises(TypeError, match=r"deep.*lock"):
        umbel.get(make.remote(), timeout=30)
    with pytest.raises(TypeError, match="lock"):
        umbel.get(make.options(num_returns=1, max_retries=0).remote(), timeout=30)


def test_unpicklable_items_of_a_stream_come_after_the_good_ones() -> None:
    @umbel.remote
    def stream() -> Iterator[Any]:
        yield 1
        yield threading.Lock()

    items = stream.remote()
    assert umbel.get(next(items)) == 1
    with pytest.raises(TypeError, match="lock"):
        umbel.get(next(items), timeout=30)


def test_closure_over_something_unpicklable_names_it() -> None:
    guard = threading.Lock()

    @umbel.remote
    def locked() -> None:
        with guard:
            pass

    with pytest.raises(TypeError, match=r"locked.*guard"):
        locked.remote()


def test_actor_class_over_something_unpicklable_names_it() -> None:
    guard = threading.Lock()

    @umbel.remote
    class Locked:
        def work(self) -> None:
            with guard:
                pass

    with pytest.raises(TypeError, match=r"Locked.*lock"):
        Locked.remote()


def test_large_closures_warn_and_huge_ones_are_refused() -> None:
    large, huge = bytes(11_000_000), bytes(101_000_000)

    @umbel.remote
    def capture_large() -> int:
        return len(large)

    @umbel.remote
    def capture_huge() -> int:
        return len(huge)

    with pytest.warns(UserWarning, match=r"capture_large.*umbel\.put"):
        ref = capture_large.remote()
    assert umbel.get(ref, timeout=30) == len(large)
    with pytest.raises(ValueError, match=r"capture_huge.*umbel\.put"):
        capture_huge.remote()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert umbel.get(capture_large.remote(), timeout=30) == len(large)  # told once


def test_value_that_cannot_be_read_back_is_the_readers_error() -> None:
    class OneWay:
        def __reduce__(self) -> Any:
            return int, ("not a number",)

    with pytest.raises(ValueError, match="not a number"):
        umbel.get(umbel.put(OneWay()))
    with pytest.raises(ValueError, match="not a number"):
        umbel.get(plain.remote(OneWay()), timeout=30)

    @umbel.remote
    def make() -> Any:
        return OneWay()

    with pytest.raises(ValueError, match="not a number"):
        umbel.get(make.remote(), timeout=30)
    assert umbel.get(plain.remote(1), timeout=30) == 1


def test_errors_that_do_not_survive_pickling_keep_their_text() -> None:
    class Picky(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"picky {first} {second}")

    class Locked(Exception):
        def __init__(self) -> None:
            super().__init__("locked error")
            self.guard = threading.Lock()

    @umbel.remote
    def fail(kind: int) -> None:
        raise Picky(1, 2) if kind else Locked()

    for kind, text in ((0, "locked error"), (1, "picky 1 2")):
        with pytest.raises(exceptions.UmbelError, match=text):
            umbel.get(fail.remote(kind), timeout=30)
    assert umbel.get(plain.remote(1), timeout=30) == 1


def test_wrong_number_of_results() -> None:
    @umbel.remote(num_returns=3)
    def make(count: Any) -> Any:
        return None if count is None else list(range(count))

    assert umbel.get(make.remote(3), timeout=30) == [0, 1, 2]
    for count in (2, 4, None):
        for ref in make.remote(count):
            with pytest.raises(ValueError, match="num_returns"):
                umbel.get(ref, timeout=30)


def test_max_calls_belongs_to_the_decorator_or_options_alike() -> None:
    with pytest.raises((TypeError, ValueError), match="max_calls"):
        umbel.remote(max_calls=-1)(lambda: None)


def test_kill_takes_actors_only() -> None:
    for wrong in ("actor", None, plain.remote(), Actor):
        with pytest.raises(ValueError, match="actor handle"):
            umbel.kill(wrong)


def test_get_actor_takes_names_only() -> None:
    for wrong in ("", None, 5):
        with pytest.raises(ValueError, match="name"):
            umbel.get_actor(wrong)
    with pytest.raises(ValueError, match="nobody"):
        umbel.get_actor("nobody")


def test_request_that_the_daemon_refuses_says_why() -> None:
    with pytest.raises(exceptions.UmbelSystemError, match="all_namespaces must be true or false, got 'x'"):
        current.engine().list_named_actors("x")
