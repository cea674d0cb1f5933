"""Correct programs: mypy --strict and pyright find nothing here, and the types are those said."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from typing_extensions import assert_type

import umbel
from umbel import util


@umbel.remote
def add(a: int, b: int = 2) -> int:
    return a + b


@umbel.remote(num_cpus=2, resources={"disk": 1}, max_retries=-1, retry_exceptions=[ValueError])
def scale(values: list[float], *, by: float) -> list[float]:
    return [value * by for value in values]


@umbel.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@umbel.remote(num_cpus=1, runtime_env={"env_vars": {"A": "1"}})
def talk(n: int) -> Generator[str, None, None]:
    yield str(n)


@umbel.remote
def walk(n: int) -> Iterable[int]:
    yield n


@umbel.remote(num_returns=2)
def halves(text: str) -> tuple[str, str]:
    return text[:1], text[1:]


@umbel.remote
def nothing() -> None: ...


@umbel.remote
def spread(*numbers: int, **more: str) -> int:
    return sum(numbers)


@umbel.remote
def factorial(n: int) -> int:
    return 1 if n < 2 else n * umbel.get(factorial.remote(n - 1))


# Results of functions.
assert_type(add.remote(1), umbel.ObjectRef[int])
assert_type(add.remote(a=1, b=2), umbel.ObjectRef[int])
assert_type(umbel.get(add.remote(1)), int)
assert_type(umbel.get([add.remote(1), add.remote(2)], timeout=1), list[int])
assert_type(scale.remote([1.0], by=2.0), umbel.ObjectRef[list[float]])
assert_type(nothing.remote(), umbel.ObjectRef[None])
assert_type(spread.remote(1, 2, 3, a="x"), umbel.ObjectRef[int])
assert_type(add.options(num_cpus=0.5, name="n").remote(1, b=3), umbel.ObjectRef[int])
assert_type(umbel.remote(len).remote("abc"), umbel.ObjectRef[int])
assert_type(umbel.remote(max_calls=1)(factorial.__wrapped__).remote(3), umbel.ObjectRef[int])
umbel.remote(functools.partial(factorial.__wrapped__, 2)).remote()
umbel.remote(lambda: 1).remote()
print(add.__name__, add.__doc__, add.__module__)

# References as arguments.
one = add.remote(1)
assert_type(add.remote(one), umbel.ObjectRef[int])
assert_type(add.remote(one, one), umbel.ObjectRef[int])
assert_type(add.remote(1, one), umbel.ObjectRef[int])
assert_type(add.remote(one, b=2), umbel.ObjectRef[int])
assert_type(add.remote(one, b=one), umbel.ObjectRef[int])
assert_type(add.options(num_cpus=1).remote(one), umbel.ObjectRef[int])
assert_type(spread.remote(1, 2, 3, 4, 5, 6, 7, one), umbel.ObjectRef[int])
scale.remote(umbel.put([1.0, 2.0]), by=umbel.put(2.0))
# By name alone: with the plugin of mypy.
add.remote(1, b=one)  # pyright: ignore[reportCallIssue, reportArgumentType]
scale.remote([1.0], by=umbel.put(2.0))  # pyright: ignore[reportCallIssue, reportArgumentType]

# Generators and several results.
for item in count.remote(3):
    assert_type(item, umbel.ObjectRef[int])
assert_type([umbel.get(item) for item in talk.remote(3)], list[str])
assert_type(count.options(name="n").remote(3), umbel.ObjectRefGenerator[int])
for each in walk.remote(3):
    print(umbel.get(each))
first, rest = halves.remote("ab")
print(umbel.get([first, rest]))
a, b = add.options(num_returns=2).remote(1)

# References.
assert_type(umbel.put("x"), umbel.ObjectRef[str])
assert_type(one.future(), concurrent.futures.Future[int])
ready, unready = umbel.wait([one, add.remote(2)], num_returns=1, timeout=0)
assert_type(ready, list[umbel.ObjectRef[int]])
assert_type(unready, list[umbel.ObjectRef[int]])
umbel.wait([one, count.remote(2)])


def several(references: Sequence[umbel.ObjectRef[int]]) -> list[int]:
    return umbel.get(references)


numbers: umbel.ObjectRef[int | str] = one
anything: list[umbel.ObjectRef] = [one, umbel.put(None)]
mixed: list[umbel.ObjectRef[Any]] = [one, umbel.put("x")]
assert_type(umbel.get(mixed), list[Any])
print(umbel.get([one, umbel.put("x")]), umbel.wait(mixed), umbel.wait([], timeout=0), umbel.get([]))


async def waits() -> int:
    assert_type(await add.remote(1), int)
    async for reference in count.remote(2):
        assert_type(await reference, int)
    assert_type(await asyncio.gather(one, add.remote(1)), "tuple[int, int]")
    return await asyncio.wait_for(one.as_future(), 1)


# Actors.
@umbel.remote
class Counter:
    def __init__(self, start: int, step: int = 1) -> None:
        self.value = start

    def more(self, by: int) -> int:
        return self.value + by

    @umbel.method(num_returns=2)
    def two(self) -> tuple[int, int]:
        return 1, 2

    @umbel.method
    async def later(self) -> int:
        return self.value

    def each(self) -> Iterator[int]:
        yield self.value


class Plain:
    def __init__(self, start: int) -> None:
        self.twice = Plain.doubled(start)

    @staticmethod
    @umbel.method(concurrency_group="io")
    def doubled(start: int) -> int:
        return start * 2


@umbel.remote(num_cpus=1)
class Empty: ...


@umbel.remote(max_restarts=-1, lifetime="detached", name="x", concurrency_groups={"io": 2})
class Restarted:
    def __init__(self, *parts: str) -> None: ...


counter = Counter.remote(1, step=2)
Counter.remote(one)
Counter.remote(1, one)
Counter.remote(one, step=2)
Counter.options(name="c", get_if_exists=True, namespace=None).remote(1)
print(umbel.get(counter.more.remote(1)), umbel.get([counter.more.remote(one), counter.more.remote(by=one)]))
x, y = umbel.get(counter.two.remote())
for ref in counter.each.options(name="n").remote():
    print(umbel.get(ref))
Empty.remote()
Restarted.remote("a", "b")
PlainActor = umbel.remote(Plain)
plain = PlainActor.remote(1)
assert_type(Plain.doubled(1), int)
assert_type(plain, umbel.ActorHandle[Plain])
assert_type(umbel.remote(num_cpus=1)(Plain).options(name="p").remote(1), umbel.ActorHandle[Plain])
PlainActor.options(max_concurrency=2).remote(one)
handle: umbel.ActorHandle = plain
typed: umbel.ActorHandle[Plain] = plain
actor_class: umbel.ActorClass[Plain] = PlainActor
actor_class.remote(1)
umbel.kill(umbel.get_actor("x"), no_restart=True)
handles: list[umbel.ActorHandle] = [Counter.remote(i) for i in range(3)]

# Tools.
assert_type(next(util.as_completed([one])), int)
assert_type(next(util.as_completed([one], yield_obj_refs=True)), umbel.ObjectRef[int])
assert_type(next(util.map_unordered(add, [1, 2])), int)
assert_type(next(util.map_unordered(add, [1, 2], yield_obj_refs=True)), umbel.ObjectRef[int])
print(next(util.map_unordered(counter.more, [1, 2])))
