"""The joblib backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import umbel

joblib = pytest.importorskip("joblib", reason="joblib is not a dependency")


@pytest.fixture(scope="module", autouse=True, params=["native", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    from umbel.util.joblib import register_umbel

    with umbel.init(num_cpus=2, engine=request.param):
        register_umbel()
        yield request.param


def in_parallel(calls: Any, **options: Any) -> list[Any]:
    with joblib.parallel_config(backend="umbel", n_jobs=options.pop("n_jobs", -1)):
        return list(joblib.Parallel(**options)(calls))


def current_actor() -> str | None:
    return umbel.get_runtime_context().get_actor_id()


def test_calls_run_in_actors_and_results_keep_their_order() -> None:
    assert in_parallel(joblib.delayed(pow)(i, 2) for i in range(50)) == [i**2 for i in range(50)]
    assert all(in_parallel(joblib.delayed(current_actor)() for _ in range(4)))


def test_an_error_reaches_the_caller() -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match=r"^[0-3]$"):  # joblib reports the first that it hears of
        in_parallel(joblib.delayed(fail)(i) for i in range(4))
    assert in_parallel([joblib.delayed(abs)(-1), joblib.delayed(abs)(-2)]) == [1, 2]


def test_a_generator_of_results_is_supported() -> None:
    with joblib.parallel_config(backend="umbel", n_jobs=2):
        results = joblib.Parallel(return_as="generator")(joblib.delayed(abs)(-i) for i in range(10))
        assert list(results) == list(range(10))


def test_a_large_argument_arrives_whole() -> None:
    class Big(bytes):
        nbytes = property(len)  # as arrays have it

    big = Big(2_000_000)
    assert in_parallel(joblib.delayed(len)(big) for _ in range(6)) == [2_000_000] * 6


def test_n_jobs_counts_from_the_end_too() -> None:
    assert in_parallel([joblib.delayed(abs)(-1)], n_jobs=-2) == [1]  # all but one, which leaves this process
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        in_parallel([joblib.delayed(abs)(-1)], n_jobs=0)
