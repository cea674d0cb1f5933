"""Results of a compiled graph, from its outputs to the references that `execute` returned.

Whoever waits for a result reads the output it comes by, and notes on the way the results of earlier executions for their
own references. One thread reads at a time; the others wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from umbel import exceptions
from umbel._client import values
from umbel._client.graphs import channels, executions
from umbel._transport import reactor


class Outlet(Protocol):
    """Where the results of one output come from, in the order of the executions."""

    def wait(self, deadline_s: float | None, on_slice: Callable[[], None]) -> bool:
        """As `channels.Receiver.wait`."""

    def take(self, engine: Any) -> Any:
        """As `channels.Receiver.take`."""


class Unreadable(NamedTuple):
    """Stands for a result that came, and whose reading raised."""

    error: BaseException


class Results:
    """check: raises when no more results can come; called now and then by those who wait. late: the text of a time-out
    for (execution, output)."""

    def __init__(
        self,
        engine: Any,
        book: executions.Executions,
        outlets: Sequence[Outlet],
        *,
        check: Callable[[], None],
        late: Callable[[int, int], str],
    ) -> None:
        self._engine = engine
        self._book = book
        self._outlets = outlets
        self._check = check
        self._late = late
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self.dropped: deque[tuple[int, int]] = deque()  # (execution, output) of references that are gone, unread

    def open(self, timeout_s: float | None) -> int:
        """The number of a new execution. Waits for results that nobody need ask for if they are all that is in its
        way: unwanted ones, and the others of an execution of which one has come.

        Raises UmbelCgraphCapacityExceeded when too many are in flight, UmbelChannelTimeoutError when the time is up.
        """
        with self._lock:
            if self.dropped:
                self._note_drops()
            number = self._book.submit()
            is_held_up = number is None and self._book.held_up_by() is not None
        if number is not None:
            return number
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        is_in_time = not is_held_up or self._read(self._book.held_up_by, deadline_s)
        with self._lock:
            number = self._book.submit()
        if number is not None:
            return number
        self._check()
        if not is_in_time:
            raise exceptions.UmbelChannelTimeoutError(
                f"{self._late(min(self._book.arrived), 0)} within {timeout_s} s, and no more executions may be in flight"
            )
        raise exceptions.UmbelCgraphCapacityExceeded(
            f"the compiled graph has {self._book.in_flight} executions in flight, whose results nobody has read, and may "
            f"have {self._book.in_flight_max}; get some first, or compile it with a larger _max_inflight_executions"
        )

    def has_come(self, execution: int, output: int) -> bool:
        """Whether a result was taken in, for its reference."""
        return not self._book.awaits(execution, output)

    def fetch(self, execution: int, output: int, timeout_s: float | None) -> Any:
        """A result. Raises the error that it is; UmbelChannelTimeoutError, after which it may be asked for again."""
        book = self._book

        def next_output() -> int | None:
            if not book.awaits(execution, output):
                return None
            if not book.may_receive(execution, output):
                raise exceptions.UmbelCgraphCapacityExceeded(
                    f"{book.buffered} results of the compiled graph have come and were not read, and it may keep "
                    f"{book.buffered_max}; get those first, or compile it with a larger _max_buffered_results"
                )
            return output

        if book.awaits(execution, output):
            deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
            if not self._read(next_output, deadline_s):
                raise exceptions.UmbelChannelTimeoutError(f"{self._late(execution, output)} within {timeout_s} s")
        result = book.take(execution, output)  # one operation on a dict, which needs no lock
        if type(result) is channels.Failed:
            values.raise_error(result.error)
        if type(result) is Unreadable:
            raise result.error
        return result

    def _read(self, next_output: Callable[[], int | None], deadline_s: float | None) -> bool:
        """Take in results until `next_output`, which says of which output, says None. False when the time is up; if that
        was for another thread to read, nobody has looked whether more can come."""
        while not self._reading.acquire(blocking=False):
            left_s = channels.SLICE_S if deadline_s is None else deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            if reactor.sleep_in(self._reading.acquire, True, min(left_s, channels.SLICE_S)):
                break
        try:
            with self._lock:
                self._note_drops()
                output = next_output()
            while output is not None:
                if not self._outlets[output].wait(deadline_s, self._check):
                    self._check()
                    return False
                result = self._take(output)
                with self._lock:
                    self._book.receive(output, result)
                    if type(result) is Unreadable and not isinstance(result.error, Exception):
                        raise result.error  # an interrupt; the message is gone all the same
                    if self.dropped:
                        self._note_drops()
                    output = next_output()
            return True
        except channels.ChannelClosed:
            self._check()  # knows why
            raise
        finally:
            self._reading.release()

    def _take(self, output: int) -> Any:
        try:
            return self._outlets[output].take(self._engine)
        except (channels.ChannelClosed, exceptions.ObjectLostError) as lost:
            try:
                self._check()  # if it was lost with an actor, says with which
            except Exception as error:
                return Unreadable(error)
            return Unreadable(lost.__cause__ or lost)
        except BaseException as error:  # the value's own code
            return Unreadable(error)

    def _note_drops(self) -> None:
        """Lock held. References go at any moment, so they only leave a note."""
        while self.dropped:
            self._book.drop(*self.dropped.popleft())
