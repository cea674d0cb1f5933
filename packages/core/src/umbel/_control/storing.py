"""The threads of a head that talk to its control storage, and how it begins to lead.

One thread commits, one acquires and renews the lease, each with a connection of its own, so that a commit which takes long
does not cost the lease. What they hear the loop takes, woken by its poller.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from umbel import exceptions, spi
from umbel._control import journal, keeping, kept, leadership
from umbel._control.storage import opening

TTL_S = 4.0  # of a lease: who follows one that was killed leads in less than 5 s; a stall of 1.8 s costs nothing
TIMEOUT_S = 5.0  # for one answer
POLL_S = 0.1  # while another one leads: how soon it is seen that nobody waits for this one any more
FORK_WAIT_S = 1.0  # for an answer of a storage that is being asked; then the fork happens all the same
END_S = 2.0  # for a thread to end that is in the middle of a commit


def lease_now_s() -> float:
    """The clock of leases: it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Threads:
    """A `keeping.Storing`. wake: makes the loop look at `take`."""

    def __init__(
        self, commits: spi.ControlStorage, leases: spi.ControlStorage, holder: str, wake: Callable[[], None]
    ) -> None:
        self._holder = holder
        self._wake = wake
        self._heard: deque[Any] = deque()
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()  # one at most, the journal sees to it
        self._questions: queue.SimpleQueue[Any] = queue.SimpleQueue()  # likewise
        self._locks = {self._commit: threading.Lock(), self._ask: threading.Lock()}  # held while one asks
        self._paused: list[threading.Lock] = []
        self._threads = [
            threading.Thread(target=self._serve, args=(orders, storage, do), name=name, daemon=True)
            for name, orders, storage, do in (
                ("umbel-commits", self._orders, commits, self._commit),
                ("umbel-lease", self._questions, leases, self._ask),
            )
        ]
        for thread in self._threads:
            thread.start()
        # A child of a fork must not find a lock of SQLite, or of what a client uses, held by a thread that it does not have.
        os.register_at_fork(before=self._pause, after_in_parent=self._go_on, after_in_child=self._go_on)

    def commit(self, command: journal.Commit) -> None:
        self._orders.put(command)

    def ask(self, command: leadership.Acquire | leadership.Renew) -> None:
        self._questions.put(command)

    def take(self) -> list[Any]:
        found = []
        while self._heard:
            found.append(self._heard.popleft())
        return found

    @property
    def has_heard(self) -> bool:
        return bool(self._heard)

    def close(self, fencing: int) -> None:
        self._orders.put(None)
        if fencing:
            self._questions.put(fencing)
        self._questions.put(None)
        until_s = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _serve(self, orders: queue.SimpleQueue[Any], storage: spi.ControlStorage, do: Callable[..., Any]) -> None:
        with contextlib.closing(storage):
            while (order := orders.get()) is not None:
                with self._locks[do]:
                    heard = do(storage, order)
                if heard is not None:
                    self._heard.append(heard)
                    self._wake()

    def _pause(self) -> None:
        self._paused = [lock for lock in self._locks.values() if lock.acquire(timeout=FORK_WAIT_S)]

    def _go_on(self) -> None:
        for lock in self._paused:
            lock.release()
        self._paused = []

    def _commit(self, storage: spi.ControlStorage, order: journal.Commit) -> keeping.Heard:
        try:
            storage.commit(list(order.writes.items()), fencing=order.fencing, number=order.number)
        except exceptions.StorageFenced as error:
            return journal.Fenced(order.fencing, str(error))
        except exceptions.ControlStorageError as error:
            return journal.Failed(order.fencing, order.number, str(error), time.monotonic())
        except (
            Exception
        ) as error:  # a plugin's may be any; asking again helps against none that is not one of those above
            text = f"the control storage cannot take what is to be kept: {type(error).__name__}: {error}"
            return journal.Fenced(order.fencing, text)
        return journal.Committed(order.fencing, order.number, time.monotonic())

    def _ask(self, storage: spi.ControlStorage, question: Any) -> leadership.Event | None:
        if isinstance(question, int):
            with contextlib.suppress(exceptions.ControlStorageError):  # then it runs out
                storage.release(question)
            return None
        return asked(storage, question, self._holder)


def asked(storage: spi.ControlStorage, question: leadership.Command, holder: str) -> leadership.Event:
    """Asks about the lease."""
    asked_at_s = lease_now_s()
    try:
        if isinstance(question, leadership.Renew):
            lease = storage.renew(question.fencing)
            return leadership.Renewed(lease.fencing, asked_at_s, lease_now_s())
        lease = storage.acquire(holder, TTL_S)
    except exceptions.StorageFenced as error:
        return leadership.Fenced(error.fencing, lease_now_s())
    except Exception as error:  # of a plugin: the lease runs out, and that is told with its reason
        return leadership.Failed(f"{type(error).__name__}: {error}", lease_now_s())
    if lease.holder == holder:
        return leadership.Granted(lease.fencing, asked_at_s, lease_now_s())
    return leadership.Held(lease.holder, lease.remaining_s, lease_now_s())


def lead(
    url: str,
    *,
    holder: str,
    wake: Callable[[], None],
    on_step_down: Callable[[str], None],
    now_s: Callable[[], float] = time.monotonic,
    is_wanted: Callable[[], bool] = lambda: True,
    is_standby: bool = False,
    recovery_s: float = 0.0,
) -> keeping.Keeping:
    """Waits for the lease, loads what there is and returns who keeps it from now on.

    A leader that has died is waited for until its lease has run out. Raises StorageUnavailable when one renews it meanwhile,
    unless `is_standby`, which waits as long as `is_wanted`, or when the storage does not answer; and what opening it raises.
    """
    with contextlib.ExitStack() as stack:
        commits = stack.enter_context(contextlib.closing(opening.open_storage(url, timeout_s=TIMEOUT_S)))
        leases = stack.enter_context(contextlib.closing(opening.open_storage(url, timeout_s=TIMEOUT_S)))
        leader = leadership.Leadership(ttl_s=TTL_S, now_s=lease_now_s())
        _acquire(leases, leader, holder, is_wanted, is_standby=is_standby)
        # Loading may take longer than the lease, so another thread renews it; the machine hears of that when it is done.
        threads = Threads(commits, leases, holder, wake)
        stack.callback(threads.close, leader.fencing)
        loaded = kept.Kept(_renewing(commits, leader, threads), now_s())
        found = keeping.Keeping(
            loaded, leader, threads, now_s=now_s, lease_now_s=lease_now_s, on_step_down=on_step_down, recovery_s=recovery_s
        )  # fmt: skip
        stack.pop_all()
        return found


def _acquire(
    storage: spi.ControlStorage,
    leader: leadership.Leadership,
    holder: str,
    is_wanted: Callable[[], bool],
    *,
    is_standby: bool,
) -> None:
    give_up_at_s = lease_now_s() + 2 * TTL_S  # a lease of somebody who has died has run out by then
    lapses_at_s: float | None = None  # as it was first seen
    while not leader.fencing:
        time.sleep(
            min(POLL_S, max(0.0, leader.wake_at_s - lease_now_s()))
        )  # nothing tells of it that all storages have
        is_renewed = False
        for command in leader.apply(leadership.Tick(lease_now_s())):
            if not isinstance(command, (leadership.Acquire, leadership.Renew)):
                continue
            heard = asked(storage, command, holder)
            leader.apply(heard)
            if isinstance(heard, leadership.Held):
                until_s = heard.now_s + heard.remaining_s
                lapses_at_s = until_s if lapses_at_s is None else lapses_at_s
                is_renewed = until_s > lapses_at_s + TTL_S / 2  # some storages tell it in whole seconds
        if leader.fencing:
            return
        reason = leader.reason(lease_now_s())
        if not is_wanted():
            raise exceptions.StorageUnavailable(f"nobody waits any more for this control service to begin: {reason}")
        if not is_standby and (is_renewed or lease_now_s() > give_up_at_s):
            raise exceptions.StorageUnavailable(
                f"no control service can begin upon this storage: {reason}. Stop that node first, or start this one with "
                "--standby, to take over when it ends"
            )


def _renewing(storage: spi.ControlStorage, leader: leadership.Leadership, threads: Threads) -> Any:
    """The records; meanwhile the lease is renewed."""
    for count, record in enumerate(storage.load()):
        if count % 1_000 == 0:
            for event in threads.take():
                leader.apply(event)
            for command in leader.apply(leadership.Tick(lease_now_s())):
                if isinstance(command, leadership.Renew):
                    threads.ask(command)
            if not leader.fencing:
                raise exceptions.StorageUnavailable(
                    "the lease was lost while the records were being loaded; start again"
                )
        yield record
