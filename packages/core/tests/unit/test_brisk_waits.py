"""Waits that poll for a moment before they sleep: they end when they should, and long ones cost nothing."""

from __future__ import annotations

import contextlib
import os
import pathlib
import selectors
import threading
import time

import pytest

from umbel._base import machine
from umbel._transport import reactor
from umbel._worker import event_loop

LONG_S = 0.3


@pytest.fixture
def driver() -> reactor.Reactor:
    made = reactor.Reactor(lambda: None, name="test")
    done = reactor.Waiter()
    done.finish()
    assert made.wait(done, None)  # takes no time: the next wait begins without sleeping
    return made


def test_long_wait_after_a_brisk_one_sleeps(driver: reactor.Reactor) -> None:
    used_s = time.thread_time()
    assert not driver.wait(reactor.Waiter(), time.monotonic() + LONG_S)
    assert time.thread_time() - used_s < LONG_S / 10
    driver.close()


def test_brisk_wait_ends_at_its_deadline_and_by_its_waiter(driver: reactor.Reactor) -> None:
    assert not driver.wait(reactor.Waiter(), time.monotonic() + reactor.SPIN_S / 10)
    read_end, write_end = os.pipe()
    waiter = reactor.Waiter()
    driver.poller.register(read_end, selectors.EVENT_READ, lambda _events: waiter.finish())
    os.write(write_end, b"x")
    assert driver.wait(waiter, time.monotonic() + 30)
    driver.poller.unregister(read_end)
    driver.close()
    os.close(read_end)
    os.close(write_end)


@pytest.mark.skipif(machine.cpu_count() == 1, reason="with one CPU nobody polls")
def test_only_who_takes_turns_with_another_goes_on_polling_and_only_on_an_idle_cpu(tmp_path: pathlib.Path) -> None:
    brisk_s, turn_s, long_s = reactor.BRISK_S / 2, reactor.BRISK_S * 2, reactor.LONE_BRISK_S * 2
    for is_idle in (False, True):
        (tmp_path / "loadavg").write_text(f"0.20 0.18 0.12 {1 if is_idle else 1000}/2000 11206\n")
        idle_cpus = machine.IdleCpus(str(tmp_path / "loadavg"))
        for is_lone in (False, True):
            assert reactor.may_poll(is_lone, brisk_s, 0.0, idle_cpus)
            assert reactor.may_poll(is_lone, brisk_s, reactor.SPIN_S, idle_cpus) is (is_lone and is_idle)
            assert reactor.may_poll(is_lone, turn_s, 0.0, idle_cpus) is (is_lone and is_idle)
            assert not reactor.may_poll(is_lone, brisk_s, reactor.LONE_BRISK_S, idle_cpus)
            assert not reactor.may_poll(is_lone, long_s, 0.0, idle_cpus)
        idle_cpus.close()


@pytest.mark.parametrize(
    ("line", "is_idle"),
    [("1/80", True), (f"{machine.cpu_count()}/80", True), (f"{machine.cpu_count() + 1}/80", False), ("0/0", False)],
)
def test_idle_cpu_is_one_that_no_thread_wants(tmp_path: pathlib.Path, line: str, is_idle: bool) -> None:
    path = tmp_path / "loadavg"
    path.write_text(f"0.20 0.18 0.12 {line} 11206\n")
    with contextlib.closing(machine.IdleCpus(str(path))) as idle_cpus:
        assert idle_cpus.any() is is_idle
        path.write_text("\n")
        assert not idle_cpus.any()
    with contextlib.closing(machine.IdleCpus(str(tmp_path / "nothing"))) as idle_cpus:
        assert not idle_cpus.any()


def test_poke_that_crosses_housekeeping_is_not_lost() -> None:
    """The background thread looked, was poked, and went to sleep: a cancelled task that waited was never interrupted."""
    made: list[reactor.Reactor] = []
    looked: list[float] = []
    waiter = reactor.Waiter()

    def housekeeping() -> None:
        looked.append(time.monotonic())
        if made and len(looked) < 20:
            made[0].poke()  # as another thread does at this very moment
        elif made:
            waiter.finish()
            made[0].poller.wake()

    made.append(reactor.Reactor(housekeeping, name="test"))
    assert made[0].wait(waiter, time.monotonic() + 10)
    made[0].close()


def test_selector_of_async_actors_finds_what_is_ready_and_keeps_its_time() -> None:
    read_end, write_end = os.pipe()
    with event_loop.BriskSelector() as selector:
        key = selector.register(read_end, selectors.EVENT_READ)
        assert selector.select(0) == []
        os.write(write_end, b"x")
        for _ in range(3):  # the first sleeps, those that follow are brisk
            assert selector.select(30) == [(key, selectors.EVENT_READ)]
        os.read(read_end, 1)
        began_s, used_s = time.monotonic(), time.thread_time()
        assert selector.select(LONG_S) == []
        assert time.monotonic() - began_s >= LONG_S * 0.99
        assert time.thread_time() - used_s < LONG_S / 10
        writer = threading.Timer(0.05, os.write, (write_end, b"y"))
        writer.start()
        assert selector.select(30) == [(key, selectors.EVENT_READ)]
        writer.join()
    os.close(read_end)
    os.close(write_end)


def test_loop_of_another_policy_is_left_alone() -> None:
    import asyncio

    class Own(asyncio.SelectorEventLoop):
        pass

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return Own()

    before = asyncio.get_event_loop_policy()
    ours = event_loop.new_event_loop()
    asyncio.set_event_loop_policy(Policy())
    try:
        theirs = event_loop.new_event_loop()
    finally:
        asyncio.set_event_loop_policy(before)
    assert type(theirs) is Own
    assert type(ours) is asyncio.SelectorEventLoop
    ours.close()
    theirs.close()


def test_with_one_cpu_a_brisk_wait_sleeps_at_once(driver: reactor.Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor, "SPIN_S", 0.0)
    monkeypatch.setattr(reactor, "LONE_BRISK_S", 0.0)
    for _ in range(2):
        assert not driver.wait(reactor.Waiter(), time.monotonic() + reactor.BRISK_S / 2)
    driver.close()
