"""What a pool's asynchronous calls return.

Outcomes arrive on the pool's own thread, which also runs the callbacks; readers wait on any thread.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import TimeoutError as PoolTimeoutError
from typing import Any

from umbel._client import api
from umbel.util.multiprocessing.child import Failure, Outcomes

_logger = logging.getLogger(__name__)

Callback = Callable[[Any], object]
Deliver = Callable[[Outcomes], None]


class AsyncResult:
    """The result of one `*_async` call: a value, or for the `map` kinds a list in the order of the arguments."""

    def __init__(
        self,
        chunk_count: int,
        *,
        is_single: bool,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        keep_alive: object = None,
    ) -> None:
        self._chunks: list[Outcomes | None] = [None] * chunk_count
        self._missing_count = chunk_count
        self._is_single = is_single
        self._callback = callback
        self._error_callback = error_callback
        self._keep_alive = keep_alive  # the pool: while somebody waits for its results, it must not be collected
        self._failure: Failure | None = None
        self._done = threading.Event()
        if chunk_count == 0:
            self._finish()

    def get(self, timeout: float | None = None) -> Any:
        """The value; raises what the call (of several, the first that failed) raised.

        Raises multiprocessing.TimeoutError after `timeout` seconds; the result may still come.
        """
        api.check_timeout(timeout)
        if not self._done.wait(timeout):
            raise PoolTimeoutError(f"no result within {timeout} s")
        if self._failure is not None:
            raise self._failure.exception()
        return self._value()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the result is there, or after `timeout` seconds."""
        api.check_timeout(timeout)
        self._done.wait(timeout)

    def ready(self) -> bool:
        return self._done.is_set()

    def successful(self) -> bool:
        """Whether no call failed. Raises ValueError when the result is not there yet."""
        if not self._done.is_set():
            raise ValueError(f"{self!r} is not ready; call wait() first")
        return self._failure is None

    def deliverer(self, index: int) -> Deliver:
        """Takes the outcomes of chunk `index`, once."""

        def deliver(outcomes: Outcomes) -> None:
            self._chunks[index] = outcomes
            self._missing_count -= 1
            if self._missing_count == 0:
                self._finish()

        return deliver

    def _value(self) -> Any:
        values = [value for chunk in self._chunks if chunk is not None for value in chunk.values]
        return values[0] if self._is_single else values

    def _finish(self) -> None:
        failed = [chunk for chunk in self._chunks if chunk is not None and chunk.failures]
        self._failure = failed[0].failures[min(failed[0].failures)] if failed else None
        try:
            if self._failure is not None:
                if self._error_callback is not None:
                    self._error_callback(self._failure.exception())
            elif self._callback is not None:
                self._callback(self._value())
        except Exception:
            _logger.exception("a callback of a pool's result raised; the result itself is not affected")
        finally:
            self._keep_alive = None
            self._done.set()


class ResultIterator:
    """The results of `imap` and `imap_unordered`.

    Reads its input as its results are taken, at most `window` chunks ahead, so the input may be endless. A failed
    call raises in its place, and the iteration goes on behind it. An error of the input itself comes after all
    results.
    """

    def __init__(
        self,
        chunks: Iterator[Any],
        submit: Callable[[Any, Deliver], None],
        *,
        window: int,
        is_ordered: bool,
    ) -> None:
        self._input = chunks
        self._submit = submit
        self._window: int | None = window
        self._is_ordered = is_ordered
        self._reading = threading.Lock()  # around the input: a reader and `submit_rest` may come from two threads
        self._changed = threading.Condition()
        self._arrived: dict[int, Outcomes] = {}  # by number of the chunk, in the order of arrival
        self._submitted_count = 0
        self._taken_count = 0
        self._current: deque[tuple[Any, Failure | None]] = deque()  # value, or why there is none
        self._input_error: BaseException | None = None
        self._is_exhausted = False
        self._top_up()

    def __iter__(self) -> ResultIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result; raises multiprocessing.TimeoutError after `timeout` seconds, StopIteration at the end."""
        api.check_timeout(timeout)
        while not self._current:
            self._top_up()
            if self._taken_count == self._submitted_count:
                self._raise_end()
            chunk = self._next_chunk(timeout)
            self._current.extend((value, chunk.failures.get(index)) for index, value in enumerate(chunk.values))
            self._top_up()
        value, failure = self._current.popleft()
        if failure is not None:
            raise failure.exception()
        return value

    def submit_rest(self) -> None:
        """Read the input to its end, whatever the window: the pool closes, and takes nothing later."""
        self._window = None
        self._top_up()

    def _top_up(self) -> None:
        with self._reading:
            while not self._is_exhausted and not self._is_window_full():
                try:
                    chunk = next(self._input)
                except StopIteration:
                    self._is_exhausted = True
                except Exception as error:  # it is raised when its turn comes
                    self._input_error = error
                    self._is_exhausted = True
                else:
                    number = self._submitted_count
                    self._submitted_count += 1
                    self._submit(chunk, functools.partial(self._arrive, number))

    def _is_window_full(self) -> bool:
        return self._window is not None and self._submitted_count - self._taken_count >= self._window

    def _arrive(self, number: int, outcomes: Outcomes) -> None:
        with self._changed:
            self._arrived[number] = outcomes
            self._changed.notify_all()

    def _next_chunk(self, timeout: float | None) -> Outcomes:
        deadline_s = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                wanted = self._taken_count if self._is_ordered else next(iter(self._arrived), None)
                if wanted in self._arrived:
                    self._taken_count += 1
                    return self._arrived.pop(wanted)
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise PoolTimeoutError(f"no result within {timeout} s")
                self._changed.wait(left_s)

    def _raise_end(self) -> None:
        error, self._input_error = self._input_error, None
        if error is not None:
            raise error
        raise StopIteration
