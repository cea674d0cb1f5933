"""The background thread of a reactor: that it looks when it is told to, whoever reads the sockets at the moment."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from umbel._transport import reactor as module
from umbel._transport.reactor import Reactor, Waiter


@pytest.fixture
def make() -> Iterator[Callable[..., Reactor]]:
    made: list[Reactor] = []

    def make(housekeeping: Callable[[], float | None]) -> Reactor:
        made.append(Reactor(housekeeping, name="test"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _wait_until(condition: Callable[[], object]) -> None:
    until_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.001)


class _Looks:
    """Housekeeping after which something is due in a minute."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> float:
        self.count += 1
        return 60.0

    def expect_one_more(self, after: Callable[[], None]) -> None:
        time.sleep(0.05)  # those that are under way
        before = self.count
        after()
        _wait_until(lambda: self.count > before)


class _Lead:
    """The lock of who reads. `turn` runs before the background thread's try number `at`, once armed."""

    def __init__(self, lock: Any, of: Reactor, at: int, turn: Callable[[], None]) -> None:
        self._lock, self._of, self._at, self._turn = lock, of, at, turn
        self._count = 0
        self.is_armed = False
        self.release, self.locked = lock.release, lock.locked

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self.is_armed and not blocking and threading.get_ident() == self._of._thread:
            self._count += 1
            if self._count == self._at:
                self._turn()
        return bool(self._lock.acquire(blocking, timeout))

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_thread_that_polls_in_passing_is_not_taken_for_one_that_stays(
    make: Callable[..., Reactor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader left as the background thread tried to lead, and another one polled: it parked, and nobody read."""
    reactor = make(lambda: None)
    _wait_until(lambda: reactor._is_asleep)
    waiter, has_left, polls = Waiter(), threading.Event(), threading.Event()

    def turn() -> None:
        waiter.finish()
        reactor.poller.wake()
        assert has_left.wait(10)
        passing.start()
        assert polls.wait(10)

    lead = reactor._lead = _Lead(reactor._lead, reactor, module.PARK_AFTER_TICKS + 1, turn)  # type: ignore[assignment]
    real = module.poll_ready

    def poll_ready(poller: Any, timeout_s: float) -> None:
        if threading.current_thread() is passing:
            polls.set()
            _wait_until(lambda: reactor._is_parked)
            time.sleep(0.01)
        real(poller, timeout_s)

    monkeypatch.setattr(module, "poll_ready", poll_ready)
    passing = threading.Thread(target=reactor.poll_now)

    def wait() -> None:
        reactor.wait(waiter, None)
        has_left.set()

    leader = threading.Thread(target=wait)
    lead.is_armed = True
    leader.start()
    leader.join(10)
    _wait_until(lambda: polls.is_set() and not passing.is_alive())
    read, write = os.pipe()
    got = threading.Event()
    reactor.poller.register(read, select.EPOLLIN, lambda _events: (os.read(read, 1), got.set()))
    os.write(write, b"x")
    assert got.wait(10)
    reactor.poller.unregister(read)
    os.close(read)
    os.close(write)


def test_nudge_is_noticed_though_something_is_due_later(make: Callable[..., Reactor]) -> None:
    looks = _Looks()
    reactor = make(looks)
    _wait_until(lambda: reactor._is_asleep and looks.count)
    looks.expect_one_more(reactor.nudge)


def test_poke_is_noticed_by_a_parked_thread_though_something_is_due_later(make: Callable[..., Reactor]) -> None:
    looks = _Looks()
    reactor = make(looks)
    waiter = Waiter()
    leader = threading.Thread(target=reactor.wait, args=(waiter, None))
    leader.start()
    _wait_until(lambda: reactor._is_parked)
    looks.expect_one_more(reactor.poke)
    waiter.finish()
    reactor.poller.wake()
    leader.join(10)
