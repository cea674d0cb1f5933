"""What happens when code runs: how it exits, what it yields, how it is cancelled, and what is said of its errors."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import troubles

pytestmark = pytest.mark.usefixtures("engine")
TIMEOUT_S = 30


@umbel.remote(max_retries=0)
def fail(text: str = "wrong") -> None:
    raise ValueError(text)


@umbel.remote(max_retries=0)
def items(count: int, *, fails: bool = False) -> Any:
    yield from range(1, count + 1)
    if fails:
        raise KeyError("after the items")


@pytest.fixture(autouse=True)
def _no_line_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test looks for its own lines, whatever the one before it has logged a moment ago."""
    monkeypatch.setattr(troubles, "LINES_MAX", 1_000)


def outcomes(refs: list[Any]) -> list[Any]:
    """The value of each reference, or the class of the user's error."""

    def outcome(ref: Any) -> Any:
        try:
            return umbel.get(ref, timeout=TIMEOUT_S)
        except exceptions.UmbelTaskError as error:
            return type(error.cause)

    return [outcome(ref) for ref in refs]


# Exits


class Plain:
    def leave(self, code: Any) -> None:
        raise SystemExit(code)

    def sys_exit(self, code: Any) -> None:
        sys.exit(code)

    def hello(self) -> str:
        return "hello"


class Async(Plain):
    async def leave(self, code: Any) -> None:
        raise SystemExit(code)

    async def sys_exit(self, code: Any) -> None:
        sys.exit(code)


KINDS = {"plain": (Plain, {}), "threaded": (Plain, {"max_concurrency": 2}), "async": (Async, {})}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [1, "a text"])
def test_an_exit_with_a_failure_is_a_crash_and_the_actor_restarts(kind: str, code: Any) -> None:
    cls, options = KINDS[kind]
    actor = umbel.remote(max_restarts=1, **options)(cls).remote()
    with pytest.raises(exceptions.ActorUnavailableError):
        umbel.get(actor.sys_exit.remote(code), timeout=TIMEOUT_S)
    assert umbel.get(actor.hello.remote(), timeout=TIMEOUT_S) == "hello"
    with pytest.raises(exceptions.ActorDiedError):  # no restart is left
        umbel.get(actor.leave.remote(code), timeout=TIMEOUT_S)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.hello.remote(), timeout=TIMEOUT_S)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [0, None])
def test_an_exit_with_success_is_meant(kind: str, code: Any) -> None:
    cls, options = KINDS[kind]
    actor = umbel.remote(max_restarts=1, **options)(cls).remote()
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(actor.leave.remote(code), timeout=TIMEOUT_S)


# Generators with a number of returns


@pytest.mark.parametrize(
    ("num_returns", "count", "fails", "wanted"),
    [
        (2, 2, False, [1, 2]),
        (2, 3, False, [1, 2]),
        (3, 2, False, [1, 2, ValueError]),
        (1, 1, False, [1]),
        (1, 2, False, [1]),
        (1, 0, False, [ValueError]),
        (3, 1, True, [1, KeyError, KeyError]),
        (2, 2, True, [1, 2]),
        (2, 0, True, [KeyError, KeyError]),
    ],
)
def test_a_generator_fills_its_returns_one_by_one(num_returns: int, count: int, fails: bool, wanted: list[Any]) -> None:
    made = items.options(num_returns=num_returns).remote(count, fails=fails)
    assert outcomes(made if num_returns > 1 else [made]) == wanted


def test_a_generator_method_fills_its_returns_one_by_one() -> None:
    @umbel.remote
    class Maker:
        def items(self, count: int) -> Any:
            yield from range(1, count + 1)

    maker = Maker.remote()
    assert outcomes(maker.items.options(num_returns=2).remote(3)) == [1, 2]
    assert outcomes(maker.items.options(num_returns=3).remote(1)) == [1, ValueError, ValueError]
    assert outcomes([maker.items.options(num_returns=1).remote(1)]) == [1]


def test_what_a_generator_cannot_deliver_is_logged(
    caplog: pytest.LogCaptureFixture, engine: str, eventually: Any
) -> None:
    if engine != "inline":
        pytest.skip("it is the worker's log: see test_run_semantics_native.py")
    assert outcomes(items.options(num_returns=2).remote(3)) == [1, 2]
    eventually(lambda: "num_returns=2" in caplog.text)


def test_a_generator_that_fails_is_retried_as_a_whole(marks: Any) -> None:
    @umbel.remote(num_returns=2, max_retries=1, retry_exceptions=True)
    def flaky() -> Any:
        yield marks.add()
        if len(marks.all()) == 1:
            raise ValueError("the first time")
        yield "second"

    assert outcomes(flaky.remote()) == [2, "second"]


def test_a_dynamic_generator_that_fails_keeps_its_items() -> None:
    inner = umbel.get(items.options(num_returns="dynamic").remote(2, fails=True), timeout=TIMEOUT_S)
    assert outcomes(list(inner)) == [1, 2, KeyError]


# Cancellation


def test_a_forced_cancellation_is_a_cancellation(signal: Any, marks: Any, eventually: Any) -> None:
    @umbel.remote(max_retries=3)
    def held(box: Any) -> None:
        marks.add()
        umbel.get(box[0].wait.remote())

    ref = held.remote([signal])
    eventually(marks.all)
    umbel.cancel(ref, force=True)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=TIMEOUT_S)


@pytest.mark.parametrize("max_concurrency", [1, 2])
def test_a_method_that_leaves_early_was_cancelled_all_the_same(
    max_concurrency: int, marks: Any, eventually: Any
) -> None:
    @umbel.remote(max_concurrency=max_concurrency)
    class Watcher:
        def watch(self, *, fails: bool) -> str:
            marks.add()
            while not umbel.get_runtime_context().is_canceled():
                umbel.wait([umbel.put(None)])
            if fails:
                raise KeyError("its own")
            return "early"

    watcher = Watcher.remote()
    ref = watcher.watch.remote(fails=False)
    eventually(lambda: len(marks.all()) == 1)
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(ref, timeout=TIMEOUT_S)
    ref = watcher.watch.remote(fails=True)
    eventually(lambda: len(marks.all()) == 2)
    umbel.cancel(ref)
    with pytest.raises(KeyError, match="its own"):
        umbel.get(ref, timeout=TIMEOUT_S)


# Errors that nobody reads


def settled(ref: Any) -> Any:
    umbel.wait([ref], timeout=TIMEOUT_S)
    return ref


def test_an_error_that_nobody_read_is_logged_when_it_goes(caplog: pytest.LogCaptureFixture, eventually: Any) -> None:
    ref = settled(fail.remote("unread one"))
    assert "unread one" not in caplog.text
    del ref
    gc.collect()
    eventually(lambda: "unread one" in caplog.text)
    [record] = [record for record in caplog.records if "unread one" in record.message]
    assert (record.levelno, record.name) == (logging.ERROR, "umbel")
    assert "fail() failed" in record.message and "ValueError" in record.message  # the traceback


def test_an_error_nobody_could_read_is_logged_too(caplog: pytest.LogCaptureFixture, eventually: Any) -> None:
    fail.remote("dropped at once")
    eventually(lambda: "dropped at once" in caplog.text)


def test_an_error_that_was_read_is_not_logged(caplog: pytest.LogCaptureFixture, eventually: Any) -> None:
    @umbel.remote
    def same(value: Any) -> Any:
        return value

    async def awaited() -> None:
        with pytest.raises(ValueError, match="read"):
            await fail.remote("read by await")

    with pytest.raises(ValueError, match="read"):
        umbel.get(fail.remote("read by get"))
    with pytest.raises(ValueError, match="read"):  # the first error stands for those of all
        umbel.get([settled(fail.remote("read in a list")), settled(fail.remote("read in a list, too"))])
    with pytest.raises(ValueError, match="read"):
        fail.remote("read by a future").future().result(TIMEOUT_S)
    asyncio.run(awaited())
    with pytest.raises(ValueError, match="read"):
        umbel.get(same.remote(fail.remote("read as an argument")))
    stream = items.options(num_returns="streaming").remote(0, fails=True)
    with pytest.raises(KeyError):
        umbel.get(next(stream))
    del stream
    gc.collect()
    fail.remote("the last one")
    eventually(lambda: "the last one" in caplog.text)
    assert [record.message for record in caplog.records if "the last one" not in record.message] == []


def test_cancellations_are_not_errors_to_tell(caplog: pytest.LogCaptureFixture, signal: Any, eventually: Any) -> None:
    @umbel.remote
    def held(box: Any) -> None:
        umbel.get(box[0].wait.remote())

    ref = held.remote([signal])
    umbel.cancel(ref)
    settled(ref)
    del ref
    gc.collect()
    fail.remote("the last one")
    eventually(lambda: "the last one" in caplog.text)
    assert "ancel" not in caplog.text
    umbel.get(signal.send.remote())


# Retries, reasons, names


def test_each_retry_is_logged(caplog: pytest.LogCaptureFixture, eventually: Any) -> None:
    ref = fail.options(max_retries=2, retry_exceptions=True).remote("again and again")
    with pytest.raises(ValueError, match="again"):
        umbel.get(ref, timeout=TIMEOUT_S)
    eventually(lambda: sum("again and again" in message for message in caplog.messages) == 2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "2 retries left" in caplog.messages[0] and "1 retries left" in caplog.messages[1]


def test_an_argument_that_cannot_be_sent_is_named() -> None:
    @umbel.remote
    def take(first: Any, *, second: Any = None) -> None: ...

    @umbel.remote
    class Taker:
        def __init__(self, third: Any = None) -> None: ...

        def take(self, fourth: Any) -> None: ...

    bad = [(one for one in ())]
    with pytest.raises(TypeError, match=r"'first'.*take.*generator"):
        take.remote(bad)
    with pytest.raises(TypeError, match=r"'second'.*take.*generator"):
        take.remote(1, second=bad)
    with pytest.raises(TypeError, match=r"'third'.*Taker.__init__.*generator"):
        Taker.remote(bad)
    with pytest.raises(TypeError, match=r"'fourth'.*Taker.take.*generator"):
        Taker.remote().take.remote(bad)


def test_calls_are_named_with_their_class() -> None:
    @umbel.remote
    class Named:
        def name(self) -> Any:
            return umbel.get_runtime_context().get_task_name()

        def boom(self) -> None:
            raise ValueError

    named = Named.remote()
    assert umbel.get(named.name.remote()) == "Named.name"
    assert umbel.get(named.name.options(name="other").remote()) == "other"
    with pytest.raises(ValueError, match=r"Named\.boom\(\) failed"):
        umbel.get(named.boom.remote())
