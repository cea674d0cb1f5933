"""The no-op rows on the standard library's process pools, which have tasks but neither references nor actors."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.measure import Workload
from benchmarks.rows import BATCH, SMALL, expect

WORKERS = 2

Submit = Callable[..., Any]
Collect = Callable[[Any], Any]


def noop() -> bytes:
    return SMALL


def size(payload: bytes) -> int:
    return len(payload)


@contextmanager
def executor() -> Iterator[dict[str, Workload]]:
    """`concurrent.futures.ProcessPoolExecutor`, by `submit` and `result`."""
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        yield _workloads(pool.submit, lambda future: future.result())


@contextmanager
def pool() -> Iterator[dict[str, Workload]]:
    """`multiprocessing.Pool`, by `apply_async` and `get`."""
    with multiprocessing.Pool(WORKERS) as workers:
        yield _workloads(lambda function, *args: workers.apply_async(function, args), lambda result: result.get())


def _workloads(submit: Submit, collect: Collect) -> dict[str, Workload]:
    payload = os.urandom(10_000)

    def pipelined(function: Callable[..., Any], *args: Any) -> list[Any]:
        return [collect(pending) for pending in [submit(function, *args) for _ in range(BATCH)]]

    expect(pipelined(size, payload), [10_000] * BATCH)
    return {
        "tasks_sync": Workload(lambda: collect(submit(noop))),
        "tasks_pipelined": Workload(lambda: pipelined(noop), units=BATCH),
        "tasks_pipelined_10kb": Workload(lambda: pipelined(size, payload), units=BATCH),
    }


POOLS = {"concurrent.futures": executor, "multiprocessing": pool}
