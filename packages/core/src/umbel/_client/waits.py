"""Which threads of this process wait for results, and for which.

A wait that has lasted for a moment is noted, for those who ask, and a worker gives its CPU back meanwhile; one that has
lasted for the watchdog's time says what it waits for. What coroutines await is in `awaits`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from umbel._client import refs
from umbel._objects import ownership, serialization
from umbel._transport import reactor

if TYPE_CHECKING:
    from umbel._client import fetching
    from umbel._client.native import NativeEngine

PENDING = ownership.PENDING
ERROR = serialization.ERROR
STORED = serialization.STORED
BLOCK_AFTER_S = 0.001  # a wait longer than this gives the CPU back; shorter ones are not worth two messages


def callers(wait: Callable[[float | None], bool], timeout_s: float | None) -> bool:
    """A wait by means of the caller's own code, which may be interrupted as that may (`interrupts`)."""
    return wait(timeout_s)


class SomeOf(list[ownership.Record]):
    """What a thread waits for that does not need all of it."""


class _GetWaiter(reactor.Waiter):
    """Waits for all of some records, or the first error among them."""

    __slots__ = ()

    def __call__(self, record: ownership.Record) -> None:
        if record.kind == ERROR:
            self.finish()
        else:
            self.count_down()


class Waits:
    """The waits of one process's threads."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._reactor = engine.reactor
        self._of: dict[int, Sequence[ownership.Record]] = {}  # thread -> what it has waited for for a while
        self.for_any: list[reactor.Waiter] = []  # finished when anything is settled
        self.on_blocked: Callable[[], Callable[[], None] | None] | None = None
        self.causes_told: set[Any] = set()  # by the watchdog

    def wait_for(
        self, waiter: reactor.Waiter, timeout_s: float | None, wanted: Sequence[ownership.Record] = ()
    ) -> bool:
        """Until the waiter is done or the time is up; a worker gives its CPU back meanwhile. No lock.

        wanted: what the caller waits for, for those who ask, and for the watchdog."""
        if self._reactor.on_thread():
            raise RuntimeError("a callback must not wait for a result: it runs on the thread that would bring it")
        began_s = time.monotonic()
        if timeout_s is not None and timeout_s <= BLOCK_AFTER_S:
            return self._reactor.wait(waiter, began_s + timeout_s, began_s)
        if self._reactor.wait(waiter, began_s + BLOCK_AFTER_S, began_s):
            return True

        def wait(until_s: float | None) -> bool:
            return self._reactor.wait(waiter, until_s, began_s)

        return self._go_on(wait, wanted, began_s, timeout_s)

    def wait_for_records(self, records: list[ownership.Record], timeout_s: float | None = None) -> bool:
        """Until all are settled, one has failed, or the time is up. No lock."""
        engine = self._engine
        waiter = _GetWaiter(0)
        with engine.lock:
            for record in records:
                if record.kind == PENDING:
                    waiter.remaining += 1
                    engine.values.on_settled(record, waiter)
                elif record.kind == ERROR:
                    return True
            if not waiter.remaining:
                return True
            waiter.is_lone = len(engine.tasks.unfinished) == 1
            engine.prepare_to_wait()
            engine.carry_on()
        if self.wait_for(waiter, timeout_s, records):
            return True
        with engine.lock:
            for record in records:
                if record.waiters and waiter in record.waiters:
                    record.waiters.remove(waiter)
        return False

    def ready(
        self, waitables: list[Any], num_returns: int, timeout_s: float | None, *, fetch_local: bool = False
    ) -> list[int]:
        """The indices of so many of these references and generators, or of fewer when the time is up. fetch_local: values
        have to be on this node. No lock."""
        engine = self._engine
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        is_first = True
        fetching = engine.values.make_fetching() if fetch_local and engine.links.remote is not None else None
        while True:
            with engine.lock:
                ready = self._ready_indices(waitables, num_returns, fetch=is_first, fetching=fetching)
                if len(ready) >= num_returns or (deadline is not None and time.monotonic() >= deadline):
                    return ready
                waiter = reactor.Waiter()
                self.for_any.append(waiter)
                for item in waitables:
                    if is_first and type(item) is refs.ObjectRefGenerator:
                        engine.stream_of(item).signal(self._signal_settled)
                engine.prepare_to_wait()
                engine.carry_on()
                is_first = False
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            wanted = self._records_of(waitables, needs_all=num_returns == len(waitables))
            if not self.wait_for(waiter, left, wanted):
                with engine.lock:
                    if waiter in self.for_any:
                        self.for_any.remove(waiter)
                    return self._ready_indices(waitables, num_returns, fetch=False, fetching=fetching)

    def _records_of(self, waitables: list[Any], *, needs_all: bool) -> list[ownership.Record]:
        """A generator's is the one of its end."""
        records = self._engine.values.table.records
        ids = [item._id if type(item) is refs.ObjectRef else item._stream.completed._id for item in waitables]
        return (list if needs_all else SomeOf)(records[object_id] for object_id in ids if object_id in records)

    def _ready_indices(
        self, waitables: list[Any], num_returns: int, *, fetch: bool, fetching: fetching.Fetching | None
    ) -> list[int]:
        engine = self._engine
        records = engine.values.table.records
        ready = []
        for index, item in enumerate(waitables):
            if type(item) is refs.ObjectRefGenerator:
                if not engine.stream_of(item).is_ready():
                    continue
            else:
                record = records.get(item._id)
                if record is None:
                    raise engine.stale(item._id)
                if record.kind == PENDING:
                    if fetch and record.task is None and not record.is_fetching:
                        engine.values.on_settled(record, ignore)
                    continue
                if fetching is not None and record.kind == STORED and not fetching.is_here(record):
                    continue
            ready.append(index)
            if len(ready) == num_returns:
                break
        return ready

    def _signal_settled(self) -> None:
        engine = self._engine
        with engine.lock:
            engine.has_settled = True
            engine.carry_on()

    def wait_beside(
        self, wanted: Sequence[ownership.Record], wait: Callable[[float | None], bool], timeout_s: float | None
    ) -> None:
        """By means of `wait`, which takes a time and returns whether it is over."""
        began_s = time.monotonic()
        if callers(wait, BLOCK_AFTER_S if timeout_s is None else min(BLOCK_AFTER_S, timeout_s)):
            return

        def wait_until(until_s: float | None) -> bool:
            return callers(wait, None if until_s is None else max(0.0, until_s - time.monotonic()))

        self._go_on(wait_until, wanted, began_s, timeout_s)

    def _go_on(
        self,
        wait: Callable[[float | None], bool],
        wanted: Sequence[ownership.Record],
        began_s: float,
        timeout_s: float | None,
    ) -> bool:
        """Go on with a wait that has lasted for `BLOCK_AFTER_S`: it can be told, the CPU is given back, and the watchdog looks
        after it. wait: until when (time.monotonic()); returns whether it is over."""
        deadline = None if timeout_s is None else began_s + timeout_s
        watch_s = self._engine.config.watchdog_s
        thread = threading.get_ident()
        resume = self._block(thread, wanted)
        try:
            if not watch_s or not wanted or (timeout_s is not None and timeout_s <= watch_s):
                return wait(deadline)
            return wait(began_s + watch_s) or self._go_on_watched(wait, deadline, wanted)
        finally:
            self._unblock(thread, resume)

    def _block(self, thread: int, wanted: Sequence[ownership.Record]) -> Callable[[], None] | None:
        """A thread's wait has lasted for a while: have it told, and the CPU given back. Returns what ends the latter."""
        self._of[thread] = wanted
        return self.on_blocked() if self.on_blocked is not None else None

    def _unblock(self, thread: int, resume: Callable[[], None] | None) -> None:
        self._of.pop(thread, None)
        if resume is not None:
            resume()

    def _go_on_watched(
        self, wait: Callable[[float | None], bool], deadline: float | None, wanted: Sequence[ownership.Record]
    ) -> bool:
        """Go on with a wait that has lasted for the watchdog's time; says from time to time what is waited for, less and
        less often."""
        from umbel._client import inquiry  # what waits so long has time to import it

        look_s = time.monotonic()
        began_s = look_s - self._engine.config.watchdog_s
        while deadline is None or look_s < deadline:
            self.causes_told = inquiry.watch(self._engine, wanted, look_s - began_s, self.causes_told)
            look_s = began_s + 2 * (look_s - began_s)
            if wait(look_s if deadline is None else min(look_s, deadline)):
                return True
        return False

    # For those who ask

    def threads(self) -> list[int]:
        """Those that wait in `get` or `wait`, or did a moment ago. Lock held."""
        return list(self._of)

    def of(self, thread: int) -> list[ownership.Record]:
        """What a thread waits for in `get` or `wait`. Lock held."""
        return [record for record in self._of.get(thread, ()) if record.kind == PENDING]

    def needs_all(self, thread: int) -> bool:
        """Of what a thread waits for. Lock held."""
        return not isinstance(self._of.get(thread), SomeOf)


def ignore(_record: ownership.Record) -> None:
    """A callback for those who only want the value fetched."""
