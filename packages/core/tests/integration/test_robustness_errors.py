"""Whatever user code raises arrives as itself and as UmbelTaskError, and hurts nobody else."""

from __future__ import annotations

import asyncio
import builtins
import json
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


@umbel.remote(max_retries=0)
def fail(make: Any) -> None:
    raise make()


@umbel.remote
class Plain:
    def fail(self, make: Any) -> None:
        raise make()

    def ping(self) -> str:
        return "pong"


@umbel.remote
class Async:
    async def fail(self, make: Any) -> None:
        raise make()

    async def stream(self, make: Any) -> AsyncIterator[int]:
        yield 1
        raise make()

    async def ping(self) -> str:
        return "pong"

    async def exit(self) -> None:
        umbel.actor.exit_actor()

    def exit_plain(self) -> None:
        umbel.actor.exit_actor()


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "UnicodeDecodeError": ("utf8", b"x", 0, 1, "reason"),
    "UnicodeEncodeError": ("utf8", "x", 0, 1, "reason"),
    "UnicodeTranslateError": ("x", 0, 1, "reason"),
    "ExceptionGroup": ("group", [ValueError(1), TypeError(2)]),
}
BUILTIN = sorted(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
)


def test_builtin_exceptions_are_caught_as_themselves() -> None:
    for name in BUILTIN:
        kind = vars(builtins)[name]
        arguments = ARGUMENTS.get(name, ("text",))
        with pytest.raises(kind) as caught:
            umbel.get(fail.remote(lambda kind=kind, arguments=arguments: kind(*arguments)), timeout=30)
        assert isinstance(caught.value, exceptions.UmbelTaskError), name
        assert kind.__name__ in str(caught.value)


def test_library_exceptions_keep_their_attributes() -> None:
    with pytest.raises(subprocess.CalledProcessError) as process:
        umbel.get(fail.remote(lambda: subprocess.CalledProcessError(3, ["command"])), timeout=30)
    assert process.value.returncode == 3
    with pytest.raises(json.JSONDecodeError) as decode:
        umbel.get(fail.remote(lambda: json.JSONDecodeError("message", "doc", 2)), timeout=30)
    assert (decode.value.doc, decode.value.pos) == ("doc", 2)
    with pytest.raises(FileNotFoundError) as missing:
        umbel.get(fail.remote(lambda: FileNotFoundError(2, "No such file", "name")), timeout=30)
    assert missing.value.filename == "name"


BASE = [GeneratorExit, KeyboardInterrupt, asyncio.CancelledError, BaseException]


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_base_exceptions_are_reported_and_reach_nobody_else(kind: type[BaseException]) -> None:
    """Were they raised as themselves, they would end or cancel whoever reads the result."""
    with pytest.raises(exceptions.UmbelTaskError, match=kind.__name__):
        umbel.get(fail.remote(lambda: kind()), timeout=30)
    for actor in (Plain.remote(), Plain.options(max_concurrency=2).remote(), Async.remote()):
        with pytest.raises(exceptions.UmbelTaskError, match=kind.__name__):
            umbel.get(actor.fail.remote(lambda: kind()), timeout=30)
        assert umbel.get(actor.ping.remote(), timeout=30) == "pong"
    source = Async.remote()
    items = source.stream.remote(lambda: kind())
    assert umbel.get(next(items), timeout=30) == 1
    with pytest.raises(exceptions.UmbelTaskError, match=kind.__name__):
        umbel.get(next(items), timeout=30)
    assert umbel.get(source.ping.remote(), timeout=30) == "pong"


@pytest.mark.parametrize("how", ["exit", "exit_plain", "__umbel_terminate__"])
def test_exit_of_an_async_actor_is_told_as_what_it_is(how: str) -> None:
    actor = Async.remote()
    umbel.get(actor.ping.remote(), timeout=30)
    with pytest.raises(exceptions.ActorDiedError) as caught:
        umbel.get(getattr(actor, how).remote(), timeout=30)
    assert not isinstance(caught.value, exceptions.UmbelTaskError)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(actor.ping.remote(), timeout=30)


def test_errors_in_the_text_of_errors() -> None:
    class NoText(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class NoAttributes(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no {name}")

    for kind in (NoText, NoAttributes):
        with pytest.raises(exceptions.UmbelTaskError) as caught:
            umbel.get(fail.remote(lambda kind=kind: kind("x")), timeout=30)
        assert kind.__name__ in str(caught.value)


def test_values_nested_too_deeply_are_refused() -> None:
    def deep() -> Any:
        value: Any = []
        for _ in range(100_000):
            value = [value]
        return value

    with pytest.raises(TypeError, match="deep"):
        umbel.put(deep())
    with pytest.raises(TypeError, match="deep"):
        umbel.get(umbel.remote(deep).remote(), timeout=30)


def test_chains_of_causes_show_and_our_own_frames_do_not() -> None:
    @umbel.remote
    def outer() -> None:
        try:
            umbel.get(inner.remote())
        except KeyError as error:
            raise RuntimeError("outer failed") from error

    @umbel.remote
    def inner() -> None:
        raise KeyError("inner failed")

    with pytest.raises(RuntimeError, match="outer failed") as caught:
        umbel.get(outer.remote(), timeout=30)
    text = str(caught.value)
    assert "inner failed" in text
    assert "in outer" in text
    assert "_worker/execute.py" not in text


def test_threads_and_loops_inside_a_task_use_the_runtime() -> None:
    @umbel.remote
    def child(number: int) -> int:
        return number + 1

    @umbel.remote
    def parent() -> tuple[list[int], list[int]]:
        seen: list[int] = []
        threads = [threading.Thread(target=lambda n=n: seen.append(umbel.get(child.remote(n)))) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def main() -> list[int]:
            return list(await asyncio.gather(*(child.remote(number) for number in range(5))))

        return sorted(seen), asyncio.run(main())

    assert umbel.get(parent.remote(), timeout=30) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])


def test_unusual_callables_and_classes() -> None:
    import functools

    class Meta(type):
        pass

    @umbel.remote
    class Slots(metaclass=Meta):
        __slots__ = ("value",)

        def __init__(self, value: int) -> None:
            self.value = value

        def get(self) -> int:
            return self.value

        @staticmethod
        def static(value: int) -> int:
            return value

        @classmethod
        def named(cls, value: int) -> tuple[str, int]:
            return cls.__name__, value

    slots = Slots.remote(7)
    refs = [slots.get.remote(), slots.static.remote(1), slots.named.remote(2)]
    assert umbel.get(refs, timeout=30) == [7, 1, ("Slots", 2)]
    assert umbel.get(umbel.remote("abc".upper).remote(), timeout=30) == "ABC"
    assert umbel.get(umbel.remote(functools.partial(pow, 2)).remote(5), timeout=30) == 32
    assert umbel.get(umbel.remote(len).remote([1, 2]), timeout=30) == 2


def test_functions_and_classes_that_refer_to_themselves() -> None:
    @umbel.remote
    def count(number: int, total: int = 0, *, step: int = 1) -> tuple[int, int]:
        if number == 0:
            return total, step
        result: tuple[int, int] = umbel.get(count.remote(number - 1, step=step + 1))
        return result

    @umbel.remote(num_cpus=0)
    class Tree:
        def __init__(self, depth: int = 0) -> None:
            self.children = [Tree.remote(depth - 1) for _ in range(2)] if depth else []

        def size(self) -> int:
            return 1 + sum(umbel.get([child.size.remote() for child in self.children]))

    assert umbel.get(count.remote(3), timeout=30) == (0, 4)
    assert umbel.get(Tree.remote(2).size.remote(), timeout=30) == 7


def test_very_many_arguments_and_results() -> None:
    @umbel.remote
    def size(*args: Any, **kwargs: Any) -> tuple[int, int]:
        return len(args), len(kwargs)

    assert umbel.get(size.remote(*range(1000), **{f"k{n}": n for n in range(200)}), timeout=30) == (1000, 200)
    assert umbel.get(size.remote(*[umbel.put(n) for n in range(3000)]), timeout=30) == (3000, 0)
    many = umbel.remote(num_returns=500)(lambda: range(500))
    assert umbel.get(many.remote(), timeout=30) == list(range(500))
