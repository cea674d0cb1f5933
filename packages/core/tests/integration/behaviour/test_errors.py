"""How errors travel. Numbers are those of the list of semantics."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.usefixtures("engine")


class Trouble(Exception):
    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text, code)
        self.code = code


@umbel.remote
def trouble(text: str, code: int = 0) -> None:
    raise Trouble(text, code)


@umbel.remote
def consume(*values: Any, mark: Any = None) -> Any:
    if mark is not None:
        mark.add()
    return values


def test_an_error_is_of_the_users_class_and_of_ours() -> None:
    """1"""
    with pytest.raises(Trouble) as caught:
        umbel.get(trouble.remote("both", 7))
    assert isinstance(caught.value, exceptions.UmbelTaskError)
    assert isinstance(caught.value, exceptions.UmbelError)
    assert caught.value.code == 7
    assert type(caught.value.cause).__name__ == "Trouble"  # type: ignore[attr-defined]
    assert not isinstance(caught.value.cause, exceptions.UmbelTaskError)  # type: ignore[attr-defined]


def test_the_text_is_the_remote_traceback_without_our_frames() -> None:
    with pytest.raises(Trouble) as caught:
        umbel.get(trouble.remote("needle"))
    text = str(caught.value)
    assert "needle" in text
    assert "in trouble" in text
    assert "_worker" not in text
    assert "call_user" not in text


@umbel.remote
def give(value: Any = None) -> Any:
    return value


@umbel.remote
def give_lock() -> Any:
    import threading

    return {"it": threading.Lock()}


@umbel.remote
def yield_locks() -> Any:
    import threading

    yield threading.Lock()


@umbel.remote
def yield_one() -> Any:
    yield 1


@umbel.remote
class Giver:
    def method(self, value: Any = None) -> Any:
        return value

    async def coroutine(self, value: Any = None) -> Any:
        return value


class Unreadable:
    def __reduce__(self) -> Any:
        return getattr, (1, "absent")


class Refusing:
    def __reduce__(self) -> Any:
        return refuse, ()


def refuse() -> None:
    raise LookupError("not to be read")


WHERE_NO_CODE_OF_THE_USER_FAILS: dict[str, tuple[type[Exception], Any]] = {
    "too few values": (ValueError, lambda: give.options(num_returns=2).remote((1,))[0]),
    "no values": (ValueError, lambda: give.options(num_returns=2).remote(1)[0]),
    "too few items": (ValueError, lambda: yield_one.options(num_returns=2).remote()[1]),
    "method, no values": (ValueError, lambda: Giver.remote().method.options(num_returns=2).remote(1)[0]),
    "coroutine, no values": (ValueError, lambda: Giver.remote().coroutine.options(num_returns=2).remote(1)[0]),
    "unpicklable result": (TypeError, lambda: give_lock.remote()),
    "unpicklable item": (TypeError, lambda: next(yield_locks.remote())),
    "unreadable argument": (AttributeError, lambda: give.remote(Unreadable())),
    "unreadable argument by name": (AttributeError, lambda: give.remote(value=[Unreadable(), b"x" * 1_000_000])),
    "method, unreadable argument": (AttributeError, lambda: Giver.remote().method.remote(Unreadable())),
    "coroutine, unreadable argument": (AttributeError, lambda: Giver.remote().coroutine.remote(Unreadable())),
}


@pytest.mark.parametrize("name", WHERE_NO_CODE_OF_THE_USER_FAILS)
def test_our_frames_do_not_show_where_there_are_no_others(name: str) -> None:
    error_class, call = WHERE_NO_CODE_OF_THE_USER_FAILS[name]
    with pytest.raises(error_class) as caught:
        umbel.get(call())
    text = str(caught.value)
    assert isinstance(caught.value, exceptions.UmbelTaskError)
    assert str(caught.value.cause) in text
    assert "File" not in text
    assert "Traceback" not in text


def test_only_the_frames_of_what_an_argument_runs_as_it_is_read_show() -> None:
    with pytest.raises(LookupError) as caught:
        umbel.get(give.remote(Refusing()))
    text = str(caught.value)
    assert "in refuse" in text
    assert text.count("File") == 1


def test_every_get_raises_anew() -> None:
    ref = trouble.remote("again")
    raised = []
    for _ in range(2):
        with pytest.raises(Trouble) as caught:
            umbel.get(ref)
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_a_failed_input_fails_the_consumer_without_running_it(marks: Any) -> None:
    """5"""
    with pytest.raises(Trouble, match="source"):
        umbel.get(consume.remote(consume.remote(trouble.remote("source"), mark=marks), mark=marks))
    assert marks.all() == []


@umbel.remote
class Consumer:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def method(self, value: Any) -> Any:
        return value

    async def coroutine(self, value: Any) -> Any:
        return value

    def items(self, value: Any) -> Any:
        yield value


@umbel.remote
def items(value: Any) -> Any:
    yield value


def is_there(ref: Any) -> Any:
    umbel.wait([ref])
    return ref


def pending_trouble(signal: Any) -> tuple[Any, Any]:
    """A task that fails once the other one returned here has run."""

    @umbel.remote
    def later(_: Any) -> None:
        raise Trouble("source")

    gate = signal.wait.remote()
    return later.remote(gate), signal


WAYS_TO_CONSUME: dict[str, Any] = {
    "consume": lambda ref: consume.remote(ref),
    "consume by keyword": lambda ref: consume.options(name="consume by keyword").remote(mark=ref),
    "several": lambda ref: consume.options(name="several", num_returns=2).remote(1, ref)[1],
    "Consumer.method": lambda ref: Consumer.remote().method.remote(ref),
    "Consumer.coroutine": lambda ref: Consumer.remote().coroutine.remote(ref),
    "items": lambda ref: next(items.remote(ref)),
    "Consumer.items": lambda ref: next(Consumer.remote().items.remote(ref)),
}


@pytest.mark.parametrize("name", WAYS_TO_CONSUME)
@pytest.mark.parametrize("is_pending", [False, True], ids=["done", "pending"])
def test_the_error_of_a_failed_input_names_who_did_not_run(name: str, is_pending: bool, signal: Any) -> None:
    """5"""
    if is_pending:
        source, gate = pending_trouble(signal)
    else:
        source, gate = is_there(trouble.remote("source")), None
    if is_pending and "items" in name:
        gate.send.remote()  # the first item is asked for below
    consumed = WAYS_TO_CONSUME[name](source)
    if gate is not None:
        gate.send.remote()
    with pytest.raises(Trouble) as caught:
        umbel.get(consumed)
    error: Any = caught.value
    assert isinstance(error, exceptions.UmbelTaskError)
    assert error.function_name == name
    assert f"{name}() did not run, because an argument of it could not be computed:\n" in str(error)
    assert ("later" if is_pending else "trouble") + "() failed (pid=" in str(error)
    assert (type(error.cause).__name__, error.cause.args) == ("Trouble", ("source", 0))
    assert error.task_id
    assert bool(error.actor_id) == name.startswith("Consumer")


def test_a_chain_of_failed_inputs_names_all_who_did_not_run() -> None:
    """5"""
    first = consume.options(name="first").remote(trouble.remote("source"))
    second = Consumer.remote().method.remote(first)
    with pytest.raises(Trouble) as caught:
        umbel.get(consume.options(name="third").remote(second))
    text = str(caught.value)
    places = [text.index(f"{name}() did not run") for name in ("third", "Consumer.method", "first")]
    assert sorted(places) == places
    assert text.index("trouble() failed") > places[-1]


def test_a_long_chain_of_failed_inputs_fails_to_its_end() -> None:
    ref = trouble.remote("source")
    for _ in range(500):
        ref = consume.remote(ref)
    with pytest.raises(Trouble, match="more tasks did not run"):
        umbel.get(ref)


def test_a_constructor_whose_argument_failed_is_named() -> None:
    """5, 10"""
    with pytest.raises(exceptions.ActorDiedError) as caught:
        umbel.get(Consumer.remote(trouble.remote("source")).method.remote(1))
    assert "Consumer.__init__() did not run, because an argument of it could not be computed:" in str(caught.value)
    assert "Trouble: ('source', 0)" in str(caught.value)


def test_an_input_that_an_error_of_ours_ended_passes_its_class_on() -> None:
    """5, 53"""

    @umbel.remote(max_retries=0)
    def leaves() -> None:
        raise SystemExit(3)

    with pytest.raises(exceptions.WorkerCrashedError) as caught:
        umbel.get(consume.remote(leaves.remote()))
    assert isinstance(caught.value, exceptions.UmbelTaskError)
    assert "consume() did not run" in str(caught.value)


def test_a_failed_input_is_nothing_to_try_again(marks: Any) -> None:
    with pytest.raises(Trouble):
        umbel.get(consume.options(max_retries=3, retry_exceptions=True).remote(trouble.remote("source"), mark=marks))
    assert marks.all() == []


def test_all_returns_of_a_failed_task_fail() -> None:
    """6"""
    for ref in trouble.options(num_returns=3).remote("all"):
        with pytest.raises(Trouble, match="all"):
            umbel.get(ref)


def test_a_nested_error_keeps_its_class() -> None:
    @umbel.remote
    def outer() -> Any:
        return umbel.get(trouble.remote("inner"))

    with pytest.raises(Trouble, match="inner"):
        umbel.get(outer.remote())


def test_an_exception_group_is_one() -> None:
    """3"""
    group = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        pytest.skip("exception groups came with Python 3.11")

    @umbel.remote
    def several() -> None:
        raise group("several", [ValueError("one"), KeyError("two")])

    with pytest.raises(group) as caught:
        umbel.get(several.remote())
    assert [type(e) for e in caught.value.exceptions] == [ValueError, KeyError]


def test_returning_an_exception_is_not_raising_it() -> None:
    @umbel.remote
    def give() -> Exception:
        return ValueError("a value")

    assert umbel.get(give.remote()).args == ("a value",)


def test_an_unpicklable_result_is_a_type_error() -> None:
    @umbel.remote
    def lock() -> Any:
        import threading

        return {"it": threading.Lock()}

    with pytest.raises(TypeError, match="lock") as caught:
        umbel.get(lock.remote())
    assert isinstance(caught.value, exceptions.UmbelTaskError)


def test_an_unpicklable_error_keeps_its_text_and_names_the_part_at_fault() -> None:
    """4"""

    @umbel.remote
    def stubborn() -> None:
        import threading

        class Stubborn(Exception):
            def __init__(self) -> None:
                super().__init__("stubborn thing")
                self.lock = threading.Lock()

        raise Stubborn

    with pytest.raises(exceptions.UmbelError, match="stubborn thing") as caught:
        umbel.get(stubborn.remote())
    error: Any = caught.value
    for text in (str(error), str(error.cause)):
        assert "cannot pickle '_thread.lock' object; the part at fault is .lock (_thread.lock)" in text


def test_a_wrong_number_of_values_fails_every_return() -> None:
    @umbel.remote(num_returns=3)
    def two() -> tuple[int, int]:
        return 1, 2

    for ref in two.remote():
        with pytest.raises(ValueError, match="got 2"):
            umbel.get(ref)


def test_retry_exceptions_tries_again(marks: Any) -> None:
    """46"""

    @umbel.remote(max_retries=3, retry_exceptions=[Trouble])
    def flaky() -> int:
        if marks.add() < 3:
            raise Trouble("not yet")
        return 1

    assert umbel.get(flaky.remote()) == 1
    assert len(marks.all()) == 3


def test_retry_exceptions_is_an_allow_list(marks: Any) -> None:
    """46"""

    @umbel.remote(max_retries=3, retry_exceptions=[KeyError])
    def flaky() -> None:
        marks.add()
        raise Trouble("another kind")

    with pytest.raises(Trouble):
        umbel.get(flaky.remote())
    assert len(marks.all()) == 1


def test_the_last_attempts_error_is_what_get_raises(marks: Any) -> None:
    @umbel.remote(max_retries=2, retry_exceptions=True)
    def flaky() -> None:
        raise Trouble(f"attempt {marks.add()}")

    with pytest.raises(Trouble, match="attempt 3"):
        umbel.get(flaky.remote())


def test_errors_are_not_retried_by_default(marks: Any) -> None:
    @umbel.remote
    def once() -> None:
        marks.add()
        raise Trouble("once")

    with pytest.raises(Trouble):
        umbel.get(once.remote())
    assert len(marks.all()) == 1


class Held:
    """Something large that a caller has in a local variable."""


async def _awaits(ref: umbel.ObjectRef[None]) -> weakref.ref[Held]:
    held = Held()
    with contextlib.suppress(Trouble):
        await ref
    return weakref.ref(held)


def _catches(call: Callable[[], Any]) -> weakref.ref[Held]:
    held = Held()
    with contextlib.suppress(Trouble):
        call()
    return weakref.ref(held)


@pytest.mark.parametrize("is_done", [False, True])
def test_an_error_that_was_caught_keeps_nothing_of_the_caller(
    is_done: bool, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    """As when a traceback is in a cycle: what the frames held, handles of actors too, lived on until a collection."""

    def failing() -> umbel.ObjectRef[None]:
        ref = trouble.remote("caught")
        if is_done:
            umbel.wait([ref])
        return ref

    async def awaits() -> weakref.ref[Held]:
        return await _awaits(failing())

    gc.collect()
    gc.disable()
    try:
        held = [
            _catches(lambda: umbel.get(failing())),
            _catches(lambda: umbel.get([failing(), failing()])),
            _catches(lambda: failing().future().result()),
            asyncio.run(awaits()),
        ]
        eventually(lambda: not any(one() for one in held))  # the thread that settles futures may not be done
    finally:
        gc.enable()
