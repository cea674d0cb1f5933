"""Whose turn it is: threads of which only one runs at a time.

A *lane* is a thread as this engine sees it: one that runs tasks, calls of an actor or an actor's event loop, or one
of the user's own (*foreign*) while it is inside a call of Umbel. One lane has the turn; the others wait for it. These
rules decide who is next, and with the same program they decide the same every time:

- Who submits something that can run at once waits until it has finished or blocks; then both go on in their turn.
- Who has become able to go on queues; the queue is first come, first served.
- Every call of Umbel is a chance for the queue: the caller goes to its end and gets the turn back when it comes round.
- A foreign lane returns to its own code when nobody is left in the queue. Until its next call nothing else runs, unless
  a timer, a timeout or another thread makes it.

Three escapes keep programs alive that would otherwise wait for themselves. A lane that calls Umbel many times without
ever blocking is taken to be polling for something that others do, and does not hold up its submitter any longer. A lane
that waits inside of `threading` or `selectors` lends its turn: what it waits for may need it. And when everybody is
blocked for good, a lane of the user's gets a DeadlockError. `watch` sees to the last two.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from umbel._client.inline import lanes, surroundings, watch
from umbel._client.inline import mutex as mutex_module

State = lanes.State

EAGER_CALLS_MAX = 1_000  # calls without blocking, after which a lane polls rather than works
DRAIN_ROUNDS_MAX = 1_000  # rounds of the queue that a returning foreign lane waits for; ping-pong may be endless
EXITS_MAX = 100  # times that code may catch its own end, in loops that catch everything, before it is left standing


class Turn:
    """A call of Umbel by the current thread: `with baton.turn() as lane:`."""

    __slots__ = ("_baton", "_lane")

    def __init__(self, baton: Baton) -> None:
        self._baton = baton

    def __enter__(self) -> lanes.Lane:
        self._lane = lane = self._baton.enter()
        return lane

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._baton.leave(self._lane, drain=kind is None or issubclass(kind, Exception))


class Baton:
    """Hands the turn from lane to lane. Methods that say so are called with `mutex` held; none of them waits."""

    def __init__(self, mutex: mutex_module.Mutex) -> None:
        self.mutex = mutex
        self.holder: lanes.Lane | None = None
        self.ready: deque[lanes.Lane] = deque()
        self.lanes: set[lanes.Lane] = set()  # those that run something, and foreign ones inside a call
        self.turn_count = 0
        self.here = threading.local()  # `lane`: that of the thread
        self.watcher = watch.Watcher(self)
        # A destructor made lanes ready: they start with the next call of Umbel, not beside the user's own code, unless
        # that stays away for long.
        self.is_deferring = False
        self._surroundings = surroundings.Surroundings()

    # Calls of Umbel

    def turn(self) -> Turn:
        return Turn(self)

    def current(self) -> lanes.Lane:
        """The lane of this thread."""
        lane: lanes.Lane | None = getattr(self.here, "lane", None)
        if lane is None:
            name = threading.current_thread().name
            lane = self.here.lane = lanes.Lane(f"the driver's thread {name}", is_foreign=True)
        return lane

    def enter(self) -> lanes.Lane:
        """A call begins: the caller gets the turn, or keeps it after everybody in the queue had theirs."""
        lane = self.current()
        if lane.is_foreign:
            lane.depth += 1
            if lane.depth == 1:
                try:
                    self._arrive(lane)
                except BaseException:
                    self._depart(lane)
                    raise
            return lane
        if lane.state is State.LENT:
            self._arrive(lane)
        elif lane.state is not State.RUNNING:
            return lane  # a callback or a destructor, run while this lane gives up its turn
        self.check_interrupt(lane)
        self.yield_turn(lane)
        return lane

    def leave(self, lane: lanes.Lane, *, drain: bool) -> None:
        """The call ends. drain: let everybody else go on first, so that nothing runs beside the user's own code."""
        if not lane.is_foreign:
            if lane.state is State.RUNNING:
                self.check_interrupt(lane)
            return
        if lane.depth > 1:
            lane.depth -= 1
            return
        try:
            for _ in range(DRAIN_ROUNDS_MAX if drain else 0):
                with self.mutex:
                    if lane.state is not State.RUNNING or all(o.is_restless or o.is_foreign for o in self.ready):
                        break
                    lane.state = State.READY
                    self.ready.append(lane)
                    self.next()
                self.park(lane)
        finally:
            self._depart(lane)

    def _arrive(self, lane: lanes.Lane) -> None:
        with self.mutex:
            self.lanes.add(lane)
            lane.state = State.READY
            self.ready.append(lane)
            if self.holder is None:
                self.next()
            else:
                self.watcher.start()
        self.park(lane)

    def _depart(self, lane: lanes.Lane) -> None:
        with self.mutex:
            self._withdraw(lane)  # Ctrl-C may have come at any point
            lane.depth = 0
            lane.state = State.OUTSIDE
            lane.interrupt = None
            self.lanes.discard(lane)
            if self.holder is lane:
                self.next()

    def _withdraw(self, lane: lanes.Lane) -> None:
        """`lane` neither queues nor waits for what it submitted, nor has been woken. Mutex held."""
        lane.signal.acquire(blocking=False)
        lane.is_signalled = False
        if lane in self.ready:
            self.ready.remove(lane)
        if lane.child is not None:
            lane.child.submitters.remove(lane)
            lane.child = None

    def yield_turn(self, lane: lanes.Lane) -> None:
        """Let those in the queue go first."""
        lane.calls += 1
        if not self.ready and lane.calls <= EAGER_CALLS_MAX:
            return
        with self.mutex:
            if lane.calls > EAGER_CALLS_MAX:
                lane.is_restless = True
                self.release_submitters(lane)
            if not self.ready or lane.state is not State.RUNNING:
                return
            lane.state = State.READY
            self.ready.append(lane)
            self.next()
        self.park(lane)
        self.check_interrupt(lane)

    def check_interrupt(self, lane: lanes.Lane) -> None:
        """Raises what the lane was interrupted with."""
        error = lane.interrupt
        if error is None:
            return
        if not isinstance(error, lanes.LaneExit):
            lane.interrupt = None
            raise error
        lane.exits += 1
        if lane.exits > EXITS_MAX:
            self._abandon(lane)
        raise lanes.LaneExit(*error.args)  # again and again, for code that catches it and goes on

    def _abandon(self, lane: lanes.Lane) -> None:
        """The code in this lane, the calling one, does not end; so it stands here, a daemon thread, as long as the
        process lives."""
        lane.thread.name = watch.ABANDONED
        with self.mutex:
            self.lanes.discard(lane)
            lane.state = State.LENT
            self.pause(lane)
        threading.Event().wait()

    # Handing the turn on; mutex held

    def next(self) -> None:
        """The holder has given up its turn: the first in the queue gets it."""
        self.holder = None
        if self.ready:
            self._give(self.ready.popleft())
        else:
            self._surroundings.wear(())

    def _give(self, lane: lanes.Lane) -> None:
        self.holder = lane
        lane.state = State.RUNNING
        lane.is_here = False
        lane.deadline_s = None
        self.turn_count += 1
        self._surroundings.wear(lane.env_vars)
        if self.ready or lane.submitters:
            self.watcher.start()
        lane.wake_thread()

    def release_submitters(self, lane: lanes.Lane) -> None:
        """Those that wait for `lane` need not any longer."""
        for submitter in lane.submitters:
            submitter.child = None
            submitter.state = State.READY
            self.ready.append(submitter)
        lane.submitters.clear()

    def run_first(self, lane: lanes.Lane, child: lanes.Lane | None) -> bool:
        """`lane`, which has the turn, gives it to `child`, which queues, and waits until that has finished or blocks.
        The caller parks when this returns True. False when there is nothing to wait for."""
        if child is None or child is lane or child.state is not State.READY or lane.state is not State.RUNNING:
            return False
        self.ready.remove(child)
        child.trace = lanes.debugger_trace()
        child.submitters.append(lane)
        lane.child = child
        lane.state = State.WAITING
        self._give(child)
        return True

    def give_up(self, lane: lanes.Lane, reason: lanes.Reason, deadline_s: float | None = None) -> None:
        """`lane` blocks. The caller has arranged for `wake`, and parks next."""
        if lane.state not in (State.RUNNING, State.LENT):
            raise RuntimeError("a callback must not wait for a result: it runs while the turn is handed on")
        lane.state = State.BLOCKED
        lane.reason = reason
        lane.deadline_s = deadline_s
        self.pause(lane)

    def pause(self, lane: lanes.Lane) -> None:
        """`lane` cannot go on, as its state says: the turn is for others."""
        lane.calls = 0
        lane.is_restless = False
        self.release_submitters(lane)
        if self.holder is lane:
            self.next()
        if self.holder is None and not self.ready:
            self.watcher.check_deadlock()

    def lend(self, lane: lanes.Lane) -> None:
        """The turn is taken from the holder `lane`; it goes on without, until its next call of Umbel."""
        lane.state = State.LENT
        self.release_submitters(lane)
        self.next()

    def wake(self, lane: lanes.Lane) -> None:
        """What `lane` waits for may be there: it queues."""
        if lane.state in (State.BLOCKED, State.RESTING):
            self.enqueue(lane)

    def enqueue(self, lane: lanes.Lane) -> None:
        lane.state = State.READY
        lane.reason = None
        self.ready.append(lane)
        if self.holder is not None:
            return
        if self.is_deferring:
            self.watcher.start()
        else:
            self.next()

    def interrupt(self, lane: lanes.Lane, error: BaseException) -> None:
        """Raise `error` in `lane` where it waits or calls Umbel next."""
        lane.interrupt = error
        if lane.state is State.BLOCKED:
            self.wake(lane)

    # Waiting; without the mutex

    def park(self, lane: lanes.Lane, deadline_s: float | None = None) -> bool:
        """Wait until `lane`, the calling one, has the turn. False when the deadline of a blocked lane has passed."""
        is_in_time = True
        while True:
            left_s = -1.0 if deadline_s is None else min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX)
            try:
                is_woken = lane.signal.acquire(timeout=left_s)
            except BaseException:  # Ctrl-C
                self._break_out(lane)
                raise
            with self.mutex:
                if is_woken:
                    lane.is_signalled = False
                if lane.state is State.RUNNING:
                    lane.is_here = True
                    return is_in_time
                if not is_woken:
                    deadline_s = None
                    if lane.state is State.BLOCKED:
                        is_in_time = False
                        self.enqueue(lane)

    def _break_out(self, lane: lanes.Lane) -> None:
        """The user interrupts a foreign lane while it waits: what it waited for goes on without the turn."""
        with self.mutex:
            self._withdraw(lane)
            if self.holder is not None and not self.holder.is_foreign:
                self.lend(self.holder)

    def rest(self, lane: lanes.Lane, *, is_inert: bool) -> None:
        """An event loop is about to wait for events. is_inert: only a call from another thread can bring one."""
        with self.mutex:
            lane.state = State.RESTING
            lane.is_inert = is_inert
            self.pause(lane)

    def resume(self, lane: lanes.Lane) -> None:
        """Events came: the loop queues, unless `wake` has put it there already, and waits for its turn."""
        with self.mutex:
            self.wake(lane)
        self.park(lane)
