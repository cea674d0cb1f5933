"""Who reads the sockets: leader and followers.

Handing data from one thread to another costs more than reading it, so the thread that waits for a result reads the
sockets itself (it *leads*), and everyone else who waits follows: a follower is woken when its own result is there, or
to
lead when the leader leaves. A background thread leads only while nobody waits, so that replies, releases and callbacks
go on; it steps back as soon as somebody wants to lead.

While threads come and go quickly the background thread does not stand in line, which would cost a thread switch each
time: it looks in every `TICK_S`, does the housekeeping, and takes over once nobody has led for a whole tick.
"""

from __future__ import annotations

import _thread
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from umbel import exceptions
from umbel._base import machine
from umbel._transport.connection import Poller

logger = logging.getLogger("umbel")
# Going to sleep and being woken takes tens of microseconds, as long as a small task. So a thread whose last wait was
# brisk polls for a moment before it sleeps; one that waits for long does so once. Between two processes that take turns,
# it goes on for as long as a short task takes, if there is a CPU that nobody else wants.
BRISK_S = 0.0003
SPIN_S = 0.0001 if machine.cpu_count() > 1 else 0.0  # with one CPU, whoever is to answer needs it
LONE_BRISK_S = 0.001 if machine.cpu_count() > 1 else 0.0
TICK_S = 0.005  # how late housekeeping may be while threads come and go; 200 looks a second cost under 1 % of a core
LOOP_TICK_S = 0.01  # how long an event loop may be busy with something else before the background thread reads for it
PARK_AFTER_TICKS = 3  # with the same leader: it waits for something long, so stop looking until something happens
AFTER_ERROR_S = 1.0  # until housekeeping is tried again; short of filling a log
LEAD_SLICE_S = 3600.0  # a leader without a deadline; epoll has no use for an infinite one


class Waiter:
    """One thread's wait. `done` is set by whoever leads; `remaining` is for the setter's use.

    is_lone: what it waits for is the only thing under way, as far as this process knows.
    """

    __slots__ = ("done", "is_lone", "lock", "remaining")

    def __init__(self, remaining: int = 1) -> None:
        self.done = False
        self.is_lone = False
        self.remaining = remaining
        self.lock: threading.Lock | None = None  # held while a follower sleeps on it

    def finish(self) -> None:
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Have its thread look again."""
        lock = self.lock
        if lock is not None:
            try:
                lock.release()
            except RuntimeError:  # woken already
                pass

    def count_down(self) -> None:
        self.remaining -= 1
        if self.remaining <= 0:
            self.finish()


class Reactor:
    """Drives one poller from whichever thread has use for it.

    `housekeeping()` runs at least every tick while there is traffic, in the leading or background thread, and returns
    in how many seconds it wants to run again, or None when nothing is due.
    """

    def __init__(self, housekeeping: Callable[[], float | None], *, name: str) -> None:
        self.poller = Poller()
        self._idle_cpus = machine.IdleCpus()
        self._do_housekeeping = housekeeping
        self._lead = threading.Lock()
        self._generation = 0
        self._wanting = 0  # threads that want the lead from the background thread
        self._is_background_leading = False
        self._is_asleep = False  # the background thread leads, and polls without end
        self._is_parked = False
        self._park = threading.Lock()
        self._park.acquire()
        self._followers: list[Waiter] = []
        self._followers_lock = threading.Lock()
        self._is_closed = False
        self._last_wait_s = math.inf
        self._is_loop_busy: Callable[[], bool] | None = None  # set while an event loop drives this reactor
        self._on_lead_free: Callable[[], None] | None = None
        self._name = name
        self._thread = 0  # the background thread's ident while it runs
        self._ended = threading.Lock()  # held as long
        self._ended.acquire()
        # Not threading.Thread, whose `start` waits until the thread runs: a twentieth of what starting a worker takes.
        _thread.start_new_thread(self._run_background, ())

    def wait(self, waiter: Waiter, deadline_s: float | None, began_s: float | None = None) -> bool:
        """Until `waiter.done` or the deadline (time.monotonic); whether it is done. Interruptible by signals.

        began_s: when the caller began, if that was before or is known.
        """
        if began_s is None:
            began_s = time.monotonic()
        try:
            return self._wait(waiter, math.inf if deadline_s is None else deadline_s)
        finally:
            self._last_wait_s = time.monotonic() - began_s

    def _wait(self, waiter: Waiter, deadline_s: float) -> bool:
        while not waiter.done:
            self._check_open()
            if self._lead.acquire(blocking=False):
                led = True
            elif self._is_background_leading:
                with self._followers_lock:
                    self._wanting += 1
                try:
                    self.poller.wake()
                    led = self._lead.acquire(timeout=1.0)
                finally:  # an interrupt must not leave the background thread waiting for us
                    with self._followers_lock:
                        self._wanting -= 1
                if not led:
                    continue
            else:
                led = False
            if led:
                try:
                    self._generation += 1
                    if self._last_wait_s < (LONE_BRISK_S if waiter.is_lone else BRISK_S):
                        poll_briskly(self.poller, waiter, self._last_wait_s, deadline_s, self._idle_cpus)
                        if self._is_parked:
                            self._unpark()
                    while not waiter.done:
                        timeout_s = deadline_s - time.monotonic()
                        if timeout_s <= 0:
                            break
                        self._check_open()
                        poll_ready(self.poller, min(timeout_s, LEAD_SLICE_S))
                        if self._is_parked:  # what has just happened may leave something to do later
                            self._unpark()
                finally:
                    self._generation += 1
                    self._lead.release()
                    if self._followers:
                        self._promote()
                    if self._is_parked:
                        self._unpark()
                    if self._on_lead_free is not None:
                        self._on_lead_free()
            else:
                self._follow(waiter, min(deadline_s - time.monotonic(), LEAD_SLICE_S))
            if waiter.done:
                return True
            if time.monotonic() >= deadline_s:
                return False
        return True

    def _check_open(self) -> None:
        if self._is_closed:
            raise exceptions.UmbelSystemError("the session was shut down while this thread waited for something in it")

    def _follow(self, waiter: Waiter, timeout_s: float) -> None:
        lock = threading.Lock()
        lock.acquire()
        waiter.lock = lock
        with self._followers_lock:
            self._followers.append(waiter)
        try:
            # The leader may have left between the failed attempt to lead and joining the followers.
            if not waiter.done and self._lead.locked():
                sleep_on(lock, max(0.0, min(timeout_s, threading.TIMEOUT_MAX)))
        finally:
            with self._followers_lock:
                if waiter in self._followers:
                    self._followers.remove(waiter)
            waiter.lock = None

    def _promote(self) -> None:
        with self._followers_lock:
            for waiter in self._followers:
                lock = waiter.lock
                if not waiter.done and lock is not None:
                    try:
                        lock.release()
                    except RuntimeError:  # promoted twice
                        pass
                    return

    def poke(self) -> None:
        """There is housekeeping to do. Cheap, from any thread, `__del__` included; a tick notices by itself."""
        if self._is_background_leading:
            self.poller.wake()
        elif self._is_parked:
            self._unpark()

    def nudge(self) -> None:
        """As `poke`, unless the background thread will look by itself within a tick."""
        if self._is_asleep:
            self.poller.wake()
        elif self._is_parked:
            self._unpark()

    def poll_now(self) -> bool:
        """Handle what has arrived, unless another thread is about to; whether this thread did."""
        if not self._lead.acquire(blocking=False):
            return False
        try:
            self._generation += 1
            poll_ready(self.poller, 0)
        finally:
            self._lead.release()
            if self._followers:
                self._promote()
            if self._is_parked:  # it took us for a leader that stays
                self._unpark()
        return True

    def driven_by_loop(self, is_busy: Callable[[], bool], on_lead_free: Callable[[], None]) -> None:
        """From now on an event loop calls `poll_now` when the poller is readable. The background thread reads only when
        the loop `is_busy` and has not done so for `LOOP_TICK_S`. `on_lead_free` is called when a waiting thread that
        read the sockets has stopped doing so."""
        self._is_loop_busy = is_busy
        self._on_lead_free = on_lead_free
        self.poller.wake()
        self.poke()

    def _unpark(self) -> None:
        self._is_parked = False
        try:
            self._park.release()
        except RuntimeError:  # another thread was quicker
            pass

    def _run_background(self) -> None:
        ended = self._ended  # in a child that a callback forks here it will be another
        self._thread = threading.get_ident()
        try:
            self._background()
        finally:
            self._thread = 0
            ended.release()

    def _background(self) -> None:
        seen = -1
        quiet_ticks = 0
        while not self._is_closed:
            if self._is_loop_busy is not None:
                self._watch_loop(self._is_loop_busy)
                continue
            if self._generation != seen:
                seen = self._generation
                quiet_ticks = 0
                time.sleep(TICK_S)
                self._housekeeping()
                continue
            if not self._lead.acquire(blocking=False):
                quiet_ticks += 1
                if quiet_ticks <= PARK_AFTER_TICKS:
                    self._housekeeping()
                    time.sleep(TICK_S)
                    continue
                self._is_parked = True  # before housekeeping: a poke from here on must count
                due = self._housekeeping()
                # Unlocked, the leader left before it could see us parked.
                if not self._lead.locked() or self._park.acquire(timeout=_park_s(due)):
                    seen = -1
                self._is_parked = False
                continue
            self._is_background_leading = True
            try:
                while not self._wanting and not self._is_closed and self._is_loop_busy is None:
                    self._is_asleep = True  # before housekeeping: what is left to us from here on must wake us
                    due = self._housekeeping()
                    if due is not None and due <= TICK_S:
                        self._is_asleep = False
                    poll_ready(self.poller, LEAD_SLICE_S if due is None else due)
            finally:
                self._is_asleep = False
                self._is_background_leading = False
                self._lead.release()
                if self._followers:
                    self._promote()
                if self._on_lead_free is not None:
                    self._on_lead_free()
            seen = -1

    def _housekeeping(self) -> float | None:
        try:
            return self._do_housekeeping()
        except Exception:  # a defect of ours must not end this thread
            logger.exception("internal error in housekeeping of %s", self._name)
            return AFTER_ERROR_S

    def _watch_loop(self, is_busy: Callable[[], bool]) -> None:
        seen = self._generation
        if not is_busy():
            self._is_parked = True  # before housekeeping: a poke from here on must count
            due = self._housekeeping()
            if not is_busy() and not self._is_closed:  # else it became busy before it could see us parked
                self._park.acquire(timeout=-1 if due is None else due)
            self._is_parked = False
            return
        time.sleep(LOOP_TICK_S)
        if self._generation == seen and self.poll_now() and self._on_lead_free is not None:
            self._on_lead_free()
        self._housekeeping()

    def on_thread(self) -> bool:
        """Whether the caller is the background thread, which must never wait for a result."""
        return threading.get_ident() == self._thread

    def forked(self) -> None:
        """In a forked child: there is no background thread, and what wakes the poller would wake the parent's."""
        self._is_closed = True
        self.poller.forked()
        self._is_background_leading = self._is_asleep = self._is_parked = False
        self._thread = 0
        self._ended = threading.Lock()

    def close(self) -> None:
        """Stop the background thread and close the poller; connections are the caller's to close."""
        self._is_closed = True
        self.poller.wake()
        self._unpark()
        if not self.on_thread() and self._ended.acquire(timeout=5.0):
            self._ended.release()
        with self._lead:  # whoever leads has been woken, and leaves now
            with self._followers_lock:
                waiters = list(self._followers)
            for waiter in waiters:
                waiter.wake()
            self.poller.close()
            self._idle_cpus.close()


def _park_s(due_s: float | None) -> float:
    return -1 if due_s is None else min(max(due_s, TICK_S), LEAD_SLICE_S)


def poll_ready(poller: Poller, timeout_s: float) -> None:
    """One poll. A function of its own so that a signal handler can see that the thread waits.

    A defect of ours in what handles an event is reported, and neither ends the background thread nor a user's `get`.
    """
    try:
        poller.poll(timeout_s)
    except ValueError:
        if not poller.is_closed:
            logger.exception("internal error while handling what arrived")
    except Exception:
        logger.exception("internal error while handling what arrived")


def poll_briskly(
    poller: Poller, waiter: Waiter, last_wait_s: float, deadline_s: float, idle_cpus: machine.IdleCpus
) -> None:
    """Poll without sleeping, for a moment. A function of its own for the same reason."""
    began_s = now_s = time.monotonic()
    while not waiter.done and now_s < deadline_s and may_poll(waiter.is_lone, last_wait_s, now_s - began_s, idle_cpus):
        until_s = min(deadline_s, now_s + SPIN_S)
        while not waiter.done and now_s < until_s:
            poll_ready(poller, 0)
            now_s = time.monotonic()


def may_poll(is_lone: bool, last_wait_s: float, polled_s: float, idle_cpus: machine.IdleCpus) -> bool:
    """Whether one who has polled for so long in this wait does so for another moment, `SPIN_S`, before it sleeps."""
    if not polled_s and last_wait_s < BRISK_S:
        return SPIN_S > 0
    return is_lone and max(last_wait_s, polled_s) < LONE_BRISK_S and idle_cpus.any()


def sleep_on(lock: threading.Lock, timeout_s: float) -> None:
    """The sleep of a following thread; a function of its own for the same reason as `poll_ready`."""
    lock.acquire(timeout=timeout_s)


def sleep_in(call: Callable[..., Any], *args: Any) -> Any:
    """A sleep in another call that signals interrupt; a function of its own for the same reason."""
    return call(*args)
