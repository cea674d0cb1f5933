"""Turns that last, and waits that would last for ever: a thread that looks at them while somebody waits."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from umbel import exceptions
from umbel._base import frames
from umbel._client.inline import lanes

if TYPE_CHECKING:
    from umbel._client.inline.baton import Baton

LOOK_S = 0.05  # between two looks; waiting for less is not worth lending a turn
LENDING_LOOKS = 2  # in a row: once may be a moment of work that only looks like waiting
DEFERRED_LOOKS = 20  # after a second away from Umbel the user's code hardly relies on nothing else running
ABANDONED = "umbel-inline-abandoned"  # the name of threads, of any session, that will do nothing any more
SUSPICION_S = 1.0  # between two looks at what may be a deadlock, while other threads are alive

State = lanes.State


class Watcher:
    """Looks at a baton. Methods need the mutex held unless they say otherwise."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self.threads: set[threading.Thread] = set()  # the engine's own; they do nothing by themselves
        self._thread: threading.Thread | None = None
        self._is_needed = threading.Event()
        self._is_closed = threading.Event()
        self._has_suspicion = False  # everybody waits, but threads that are not ours might end that

    def start(self) -> None:
        """Somebody waits for the holder, or for a thread that is not ours."""
        if self._is_needed.is_set():
            return
        self._is_needed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="umbel-inline-watch", daemon=True)
            self._thread.start()
            self.threads.add(self._thread)

    def close(self) -> None:
        self._is_closed.set()
        self._is_needed.set()

    def _run(self) -> None:
        """The thread; without the mutex. It rests while nobody waits."""
        baton = self._baton
        last_turn, same_looks, waiting_looks = -1, 0, 0
        while True:
            self._is_needed.wait()
            self._is_closed.wait(SUSPICION_S if self._has_suspicion else LOOK_S)
            with baton.mutex:
                if self._is_closed.is_set():
                    return
                same_looks = same_looks + 1 if baton.turn_count == last_turn else 0
                last_turn = baton.turn_count
                holder = baton.holder
                if holder is not None:
                    waiting_looks = waiting_looks + 1 if same_looks and self._could_lend(holder) else 0
                    if waiting_looks == LENDING_LOOKS:
                        baton.lend(holder)
                elif baton.ready:
                    if same_looks >= DEFERRED_LOOKS:
                        baton.next()
                elif self._has_suspicion:
                    self.check_deadlock()
                else:
                    self._is_needed.clear()

    def _could_lend(self, holder: lanes.Lane) -> bool:
        """Whether the holder does nothing with its turn, and somebody else would."""
        is_wanted = bool(self._baton.ready or holder.submitters)
        return is_wanted and holder.is_here and _waits_elsewhere(holder.thread)

    def check_deadlock(self) -> None:
        """Nobody has the turn and nobody queues: if that cannot change, a lane of the user's gets a DeadlockError."""
        self._has_suspicion = False
        blocked = []
        for lane in self._baton.lanes:
            if lane.state is State.BLOCKED and lane.deadline_s is None:
                blocked.append(lane)
            elif lane.state is not State.RESTING or not lane.is_inert:
                return
        foreign = [lane for lane in blocked if lane.is_foreign]
        if not foreign:
            return
        known = self.threads.union(lane.thread for lane in foreign)
        alive = frames.of_threads().keys()  # threading lists some that have ended: see `threading._DummyThread`
        others = (thread for thread in threading.enumerate() if thread not in known and thread.ident in alive)
        if any(thread.name != ABANDONED for thread in others):
            self._has_suspicion = True
            self.start()
            return
        victim = next((lane for lane in foreign if lane.thread is threading.main_thread()), foreign[0])
        self._baton.interrupt(victim, _deadlock(blocked))


def _deadlock(blocked: list[lanes.Lane]) -> exceptions.DeadlockError:
    lines = sorted(f"  {lane.label} waits for {lane.reason(0) if lane.reason else 'something'}\n" for lane in blocked)
    return exceptions.DeadlockError(
        "nothing can go on, because everybody waits and nobody is left who could end it:\n"
        f"{''.join(lines)}break the circle, submit what they wait for first, or pass a timeout"
    )


def _waits_elsewhere(thread: threading.Thread) -> bool:
    """Whether the thread sits in a wait of the standard library that another thread or an event ends."""
    import selectors

    frame = frames.of_threads().get(thread.ident or 0)
    if frame is None or frame.f_code.co_filename not in (threading.__file__, selectors.__file__):
        return False
    bdb = sys.modules.get("bdb")
    while frame is not None:
        if bdb is not None and frame.f_code.co_filename == bdb.__file__:
            return False  # a debugger's prompt: everything else stands still meanwhile
        frame = frame.f_back
    return True
