"""umbel.util.ActorPool on real actors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import umbel
import umbel.actor
from umbel import exceptions
from umbel.util import ActorPool


@pytest.fixture(scope="module", autouse=True, params=["native", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with umbel.init(num_cpus=2, engine=request.param):
        yield request.param


@umbel.remote(num_cpus=0)
class Worker:
    def double(self, value: int) -> int:
        return 2 * value

    def fail(self, value: int) -> int:
        raise ValueError(value)

    def die(self, _value: int) -> None:
        umbel.actor.exit_actor()

    def wait_for(self, gate: Any) -> str:
        umbel.get(gate[0].wait.remote())
        return "waited"

    @umbel.method(num_returns=2)
    def both(self, value: int) -> tuple[int, int]:
        return value, -value


@umbel.remote(num_cpus=0)
class Gate:
    """Open once `open` was called; `wait` returns then."""

    def __init__(self) -> None:
        import asyncio

        self._opened = asyncio.Event()

    async def wait(self) -> None:
        await self._opened.wait()

    async def open(self) -> None:
        self._opened.set()


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


def fail(actor: Any, value: int) -> Any:
    return actor.fail.remote(value)


def die(actor: Any, value: int) -> Any:
    return actor.die.remote(value)


def pool_of(count: int) -> ActorPool[Any]:
    return ActorPool([Worker.remote() for _ in range(count)])


def test_map_keeps_the_order_of_the_values() -> None:
    assert list(pool_of(2).map(double, range(7))) == [0, 2, 4, 6, 8, 10, 12]


def test_map_unordered_gives_every_result() -> None:
    assert sorted(pool_of(2).map_unordered(double, range(7))) == [0, 2, 4, 6, 8, 10, 12]


def test_map_unordered_does_not_wait_for_the_slow_ones() -> None:
    gate = Gate.remote()
    pool = pool_of(2)
    pool.submit(lambda actor, _: actor.wait_for.remote([gate]), None)
    pool.submit(double, 1)
    assert pool.get_next_unordered() == 2
    umbel.get(gate.open.remote())
    assert pool.get_next_unordered() == "waited"


def test_map_drops_results_that_nobody_took() -> None:
    pool = pool_of(1)
    pool.submit(double, 100)
    pool.submit(double, 200)
    assert list(pool.map(double, [1, 2])) == [2, 4]


def test_a_submission_waits_for_an_idle_actor() -> None:
    pool = pool_of(1)
    pool.submit(double, 1)
    pool.submit(double, 2)
    assert not pool.has_free()
    assert (pool.get_next(), pool.get_next()) == (2, 4)
    assert pool.has_free()
    assert not pool.has_next()


def test_a_time_out_leaves_the_submission_where_it_is() -> None:
    gate = Gate.remote()
    pool = pool_of(1)
    pool.submit(lambda actor, _: actor.wait_for.remote([gate]), None)
    with pytest.raises(TimeoutError, match=r"no result within 0\.01 s"):
        pool.get_next(timeout=0.01)
    umbel.get(gate.open.remote())
    assert pool.get_next(timeout=30) == "waited"


@pytest.mark.parametrize("method", ["get_next", "get_next_unordered"])
def test_an_ignored_time_out_gives_the_submission_up(method: str) -> None:
    gate = Gate.remote()
    pool = pool_of(1)
    pool.submit(lambda actor, _: actor.wait_for.remote([gate]), None)
    with pytest.raises(TimeoutError, match="given up"):
        getattr(pool, method)(timeout=0.01, ignore_if_timedout=True)
    assert not pool.has_next()
    umbel.get(gate.open.remote())
    pool.submit(double, 3)
    assert getattr(pool, method)() == 6


def test_an_error_frees_the_actor() -> None:
    pool = pool_of(1)
    pool.submit(fail, 1)
    pool.submit(double, 2)
    with pytest.raises(ValueError, match="1"):
        pool.get_next()
    assert pool.get_next() == 4


def test_a_dead_actor_leaves_the_pool() -> None:
    pool = pool_of(2)
    results = pool.map(lambda actor, value: (die if value == 0 else double)(actor, value), range(4))
    with pytest.raises(exceptions.ActorDiedError):
        next(results)
    assert [pool.get_next() for _ in range(3)] == [2, 4, 6]
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is None


def test_what_waits_for_the_last_actor_fails_with_its_death() -> None:
    pool = pool_of(1)
    for value in range(3):
        pool.submit(die, value)
    seen = 0
    while pool.has_next():
        with pytest.raises(exceptions.ActorDiedError):
            pool.get_next()
        seen += 1
    assert seen == 3


def test_a_pushed_actor_takes_over_from_a_dead_one() -> None:
    pool = pool_of(1)
    pool.submit(die, 0)
    pool.submit(double, 1)
    with pytest.raises(exceptions.ActorDiedError):
        pool.get_next()
    pool.push(Worker.remote())
    assert pool.get_next() == 2


def test_get_next_after_get_next_unordered_is_an_error_while_earlier_results_are_out() -> None:
    gate = Gate.remote()
    pool = pool_of(2)
    pool.submit(lambda actor, _: actor.wait_for.remote([gate]), None)
    pool.submit(double, 1)
    assert pool.get_next_unordered() == 2
    with pytest.raises(ValueError, match="get_next_unordered"):
        pool.get_next()
    umbel.get(gate.open.remote())


def test_a_call_with_two_results_gives_both() -> None:
    pool = pool_of(1)
    pool.submit(lambda actor, value: actor.both.remote(value), 3)
    assert pool.get_next(timeout=30) == [3, -3]


def test_an_empty_pool_has_nothing_to_wait_for() -> None:
    pool: ActorPool[Any] = ActorPool([])
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()
    assert pool.pop_idle() is None


def test_an_actor_belongs_to_the_pool_once() -> None:
    actor = Worker.remote()
    pool = ActorPool([actor])
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(actor)
    pool.submit(double, 1)
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(actor)
    pool.get_next()
    assert pool.pop_idle() == actor
    pool.push(actor)
    assert pool.has_free()


def test_a_function_that_returns_no_reference_is_refused() -> None:
    pool = pool_of(1)
    with pytest.raises(TypeError, match=r"must return the reference"):
        pool.submit(lambda _actor, value: value, 1)
    assert pool.has_free()


def test_what_is_no_list_of_actors_is_refused() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="ActorPool takes a list of actor handles, got 5"):
        ActorPool(wrong)
