"""Runs of plans, as the rest of the package asks for them.

A run is driven by the calling thread where it ends with the call (`collect`, `write`), and by one of its own for consumers
that take their time (`stream`). It is over for sure, tasks cancelled and actors killed, when the call returns or raises, and
when the consumers have come to its end, closed their streams, or dropped them.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from umbel.data._engine import driving, events, held, reports, stages

Asked = Callable[[Callable[[], reports.Stats]], None]
"""Is given, when a run has begun, what tells of it so far; any thread may call that."""


def collect(
    plan: stages.Stage, options: reports.RunOptions, asked: Asked | None = None
) -> tuple[list[held.View], reports.Stats]:
    """Run it on this thread, to its end: all blocks of the last stage, which nobody has fetched, and the statistics.

    Raises what a user's function raised as umbel.exceptions.UmbelTaskError, an instance of its class as well.
    """
    _check_no_write(plan)
    with _driven_here(plan, options, asked) as (run, found):
        pass
    return found, run.stats()


def write(plan: stages.Write, options: reports.RunOptions, asked: Asked | None = None) -> tuple[Any, reports.Stats]:
    """Run it on this thread: what `commit` returned, or else what the tasks did. Raises as `collect` does."""
    with _driven_here(plan, options, asked) as (run, found):
        result = run.commit([view.value() for view in found]) if run.error is None else None
    return result, run.stats()


@contextlib.contextmanager
def _driven_here(
    plan: stages.Stage, options: reports.RunOptions, asked: Asked | None
) -> Iterator[tuple[driving.DrivenRun, list[held.View]]]:
    """The run, which has come to its end, and what it has delivered. It is ended, and raises what it has failed of, behind
    the `with` block."""
    found: list[held.View] = []
    taken: list[int] = []

    def deliver(_consumer: int, delivery: int, view: held.View) -> None:
        found.append(view)
        taken.append(delivery)

    run = driving.DrivenRun(plan, options, deliver)
    if asked is not None:
        asked(run.stats)
    try:
        run.begin()
        while not run.is_over:
            while taken and not run.is_over:  # they are kept, but by the caller: no reason to hold anything back
                run._tell(events.Took(taken.pop(), time.monotonic()))
            if not run.is_over:
                run.step()
        yield run, found
    except BaseException as error:
        run.error = run.error or error
        raise
    finally:
        run.end()
    _raise(run)


def _check_no_write(plan: stages.Stage) -> None:
    if isinstance(plan, stages.Write):
        raise TypeError(f"{plan.name} writes, and would not be committed; run it by write()")


def _raise(run: driving.DrivenRun) -> None:
    """To each consumer that comes to the end of a run that has failed, and each time that it does."""
    error = driving.as_raised(run.error)
    if error is not None:
        raise error if error is not run.error else error.with_traceback(None)


class Stream:
    """The blocks of one consumer, as they come. Close it, drop it, or read it to its end.

    A block that was handed out counts as held until the next one is asked for.
    """

    def __init__(self, source: _Source, consumer: int) -> None:
        self._source = source
        self._consumer = consumer
        self._last: int | None = None

    def __iter__(self) -> Iterator[held.View]:
        return self

    def __next__(self) -> held.View:
        view = self.next_view(None)
        if view is None:
            raise StopIteration
        return view

    def next_view(self, timeout_s: float | None) -> held.View | None:
        """The next one; None when there are no more. Raises TimeoutError."""
        self._took()
        found = self._source.next(self._consumer, timeout_s)
        if found is None:
            return None
        self._last, view = found
        return view

    def _took(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._source.tell(events.Took(last, time.monotonic()))

    def stats(self) -> reports.Stats:
        return self._source.run.stats()

    def close(self) -> None:
        """This consumer wants no more. When it was the last one, all of the run has ended when this returns."""
        self._source.leave(self._consumer, waits=True)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        source = getattr(self, "_source", None)
        if source is not None:
            source.leave(self._consumer, waits=False)


_OVER = object()


class _Source:
    """A run on a thread of its own. Does not know the streams, so that these can be dropped."""

    def __init__(self, plan: stages.Stage, options: reports.RunOptions, count: int) -> None:
        self._queues: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(count)]
        self._is_left = [False] * count
        queues = self._queues
        self.run = driving.DrivenRun(
            plan, options, lambda consumer, delivery, view: queues[consumer].put((delivery, view))
        )
        self._thread = threading.Thread(
            target=_drive, args=(self.run, queues), name=f"umbel-data-{plan.name}", daemon=True
        )
        self._thread.start()

    def tell(self, event: events.Event) -> None:
        self.run.inbox.put(event)

    def next(self, consumer: int, timeout_s: float | None) -> tuple[int, held.View] | None:
        waiting = self._queues[consumer]
        found = driving.taken_from(waiting, timeout_s)
        if found is None:
            raise TimeoutError(f"no block came within {timeout_s} s")
        if found is _OVER:
            waiting.put(_OVER)  # for whoever asks again
            self._thread.join()
            _raise(self.run)
            return None
        delivery: int = found[0]
        return delivery, found[1]

    def leave(self, consumer: int, *, waits: bool) -> None:
        if not self._is_left[consumer]:
            self._is_left[consumer] = True
            self.run.inbox.put(events.ConsumerDone(consumer, time.monotonic()))
        if waits and all(self._is_left):
            self._thread.join()


def _drive(run: driving.DrivenRun, queues: list[queue.SimpleQueue[Any]]) -> None:
    try:
        run.drive()
    except BaseException as error:  # for the consumers to raise
        run.error = run.error or error
    finally:
        for one in queues:
            one.put(_OVER)


def stream(plan: stages.Stage, options: reports.RunOptions) -> list[Stream]:
    """Run it on a thread of its own: a stream for each consumer (one, but for a `Split`). It is a step ahead of them as far as
    the budget allows."""
    _check_no_write(plan)
    count = plan.count if isinstance(plan, stages.Split) else 1
    source = _Source(plan, options, count)
    return [Stream(source, consumer) for consumer in range(count)]
