"""A worker's queue, while its main thread takes from it."""

from __future__ import annotations

import concurrent.futures
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from umbel._client import links
from umbel._objects import serialization
from umbel._wire import messages
from umbel._worker import execute, queued

TEMPLATE = execute.Template({"name": "f", "num_returns": 1, "is_streaming": False, "backpressure": -1})
METHOD = execute.Template({"name": "m", "method": "m", "num_returns": 1, "is_streaming": False, "backpressure": -1})


def job_of(link: links.Link, seq: int, template: execute.Template = TEMPLATE) -> execute.Execution:
    return execute.Execution(link, (messages.TASK, seq, 1, messages.ARGS, (), None, 0), template)


class Meanwhile(int):
    """A number whose comparisons give the main thread a turn, in which it takes what is first."""

    queue: deque[Any]

    def __gt__(self, other: int) -> bool:
        if self.queue:
            self.queue.popleft()
        return int(self) > other


@pytest.mark.parametrize("length", range(1, 7))
def test_no_task_is_lost_that_is_taken_back_while_others_begin(length: int) -> None:
    link = links.Link(b"a")
    queue = deque(job_of(link, seq) for seq in range(length))
    count = Meanwhile(10)
    count.queue = queue
    taken = queued.take_back(queue, link, count)
    assert taken == list(range(length - len(taken), length))
    assert not queue
    assert len(taken) >= length // 2


def test_others_and_methods_stay() -> None:
    ours, theirs = links.Link(b"a"), links.Link(b"b")
    jobs: list[Any] = [job_of(ours, 1), job_of(theirs, 2), job_of(ours, 3, METHOD), print, job_of(ours, 4)]
    queue = deque(jobs)
    assert [job.seq for job in queued.of(queue, ours)] == [1, 3, 4]
    assert queued.take_back(queue, ours, 10) == [1, 4]
    assert list(queue) == jobs[1:4]


def test_a_task_that_has_just_begun_is_not_withdrawn() -> None:
    link = links.Link(b"a")
    queue = deque([job_of(link, 1), job_of(link, 2)])
    first, second = queued.of(queue, link)
    queue.popleft()
    assert not queued.withdraw(queue, first)
    assert queued.withdraw(queue, second)
    assert not queue


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that give way to one another as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_of_an_actor_keep_recent_results_at_the_same_time(restless: None) -> None:
    """Two of them removed the oldest one at once, and a method that had returned was told to have failed."""
    link = links.Link(b"a")

    def remember(first: int) -> None:
        for seq in range(first, first + 5_000):
            execute.Executor._remember(job_of(link, seq, METHOD), serialization.PICKLE, b"")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(remember, at * 5_000) for at in range(4)]:
            future.result()
    assert len(link.recent) == execute.RECENT_MAX
