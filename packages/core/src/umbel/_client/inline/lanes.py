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
blocked for good, a lane of the user's gets a DeadlockError.
"""

from __future__ import annotations

import enum
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from umbel import exceptions
from umbel._client.inline import mutex as mutex_module
from umbel._client.inline import surroundings

EAGER_CALLS_MAX = 1_000  # calls without blocking, after which a lane polls rather than works
DRAIN_ROUNDS_MAX = 1_000  # rounds of the queue that a returning foreign lane waits for; ping-pong may be endless
LANES_MAX = 4_096  # threads; each may need 8 MiB of address space, and systems allow some 30,000 in all
IDLE_LANES_MAX = 32  # threads kept for the next task; starting one costs about 50 us
RECHECK_S = 1.0  # how often a suspected deadlock is looked at while other threads are alive
WATCH_S = 0.05  # how often a turn that lasts is looked at; a wait shorter than this is not worth lending the turn
LENDING_LOOKS = 2  # in a row: once may be a moment of work that only looks like waiting
DEFERRED_LOOKS = 20  # after a second away from Umbel the user's code hardly relies on nothing else running
_CLOSING_POLL_S = 0.002  # between two looks at threads that are ending, which takes them microseconds
JOIN_S = 1.0  # at shutdown, for code that cleans up; code that goes on regardless is left behind in its daemon thread

_log = logging.getLogger("umbel")


Reason = Callable[[int], str]  # in words, following what others wait for this many steps


class DeadlockError(exceptions.UmbelError, RuntimeError):
    """Everybody waits and nobody is left who could end it. The message lists who waits for what."""

    _umbel_summary = "everybody waits for somebody else"


class LaneExit(SystemExit):
    """Ends what runs in a lane: its actor was killed, its task was cancelled by force, or the session was shut down."""


class State(enum.Enum):
    RUNNING = "has the turn"
    READY = "queues for the turn"
    WAITING = "waits for what it submitted"
    BLOCKED = "waits for an object"
    RESTING = "is an event loop that waits for events"
    IDLE = "has nothing to run"
    LENT = "runs without the turn, which was taken from it while it waited elsewhere"
    OUTSIDE = "is the user's thread in its own code"


class Lane:
    """One thread. The Baton changes it, under the mutex."""

    __slots__ = (
        "calls", "child", "deadline_s", "depth", "env_vars", "interrupt", "is_foreign", "is_here", "is_inert", "is_kept",
        "is_restless", "is_signalled", "job", "label", "reason", "session", "signal", "state", "submitters", "thread",
        "trace",
    )  # fmt: skip

    def __init__(self, label: str, *, is_foreign: bool) -> None:
        self.label = label
        self.is_foreign = is_foreign
        self.state = State.OUTSIDE if is_foreign else State.IDLE
        self.thread = threading.current_thread()
        self.signal = threading.Lock()  # released to wake the thread
        self.signal.acquire()
        self.is_signalled = False
        self.submitters: list[Lane] = []  # lanes that wait until this one finishes or blocks
        self.child: Lane | None = None  # the other way round
        self.interrupt: BaseException | None = None  # raised at the next opportunity
        self.deadline_s: float | None = None
        self.reason: Reason | None = None  # what it is blocked for
        self.calls = 0  # of Umbel, since it blocked last
        self.is_restless = False
        self.is_here = False  # its thread has noticed that it has the turn
        self.is_inert = False  # resting without a timer or a socket that could wake it
        self.depth = 0  # foreign: calls of Umbel within each other
        self.job: Callable[[], None] | None = None
        self.is_kept = False  # belongs to an actor and does not go back to the pool
        self.env_vars: surroundings.EnvVars = ()
        self.session: Any = None  # the SessionContext that code in this lane sees
        self.trace: Any = None  # a debugger's trace function, handed on from the submitter


class Turn:
    """A call of Umbel by the current thread: `with baton.turn() as lane:`."""

    __slots__ = ("_baton", "_lane")

    def __init__(self, baton: Baton) -> None:
        self._baton = baton

    def __enter__(self) -> Lane:
        self._lane = lane = self._baton.enter()
        return lane

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._baton.leave(self._lane, drain=kind is None or issubclass(kind, Exception))


class Baton:
    """Hands the turn from lane to lane. Methods marked so are called with `mutex` held; none of them waits."""

    def __init__(self, mutex: mutex_module.Mutex) -> None:
        self.mutex = mutex
        self.holder: Lane | None = None
        self.ready: deque[Lane] = deque()
        self.lanes: set[Lane] = set()  # those that run something, and foreign ones inside a call
        self._idle: list[Lane] = []
        self._here = threading.local()
        self._surroundings = surroundings.Surroundings()
        self._turn_count = 0
        self._threads: set[threading.Thread] = set()
        self._watcher: threading.Thread | None = None
        self._is_watched = threading.Event()
        self._has_ended = threading.Event()
        self._is_suspect = False  # everybody waits, but threads that are not ours might end that
        self.is_closed = False
        # A destructor made lanes ready: they start with the next call of Umbel, not beside the user's own code, unless
        # that stays away for long.
        self.is_deferring = False

    # Calls of Umbel

    def turn(self) -> Turn:
        return Turn(self)

    def current(self) -> Lane:
        """The lane of this thread."""
        lane: Lane | None = getattr(self._here, "lane", None)
        if lane is None:
            name = threading.current_thread().name
            lane = self._here.lane = Lane(f"the driver's thread {name}", is_foreign=True)
        return lane

    def enter(self) -> Lane:
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

    def leave(self, lane: Lane, *, drain: bool) -> None:
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
                    self._next()
                self.park(lane)
        finally:
            self._depart(lane)

    def _arrive(self, lane: Lane) -> None:
        with self.mutex:
            self.lanes.add(lane)
            lane.state = State.READY
            self.ready.append(lane)
            if self.holder is None:
                self._next()
            else:
                self._watch()
        self.park(lane)

    def _depart(self, lane: Lane) -> None:
        with self.mutex:
            self._withdraw(lane)  # Ctrl-C may have come at any point
            lane.depth = 0
            lane.state = State.OUTSIDE
            lane.interrupt = None
            self.lanes.discard(lane)
            if self.holder is lane:
                self._next()

    def _withdraw(self, lane: Lane) -> None:
        """`lane` neither queues nor waits for what it submitted, nor has been woken. Mutex held."""
        lane.signal.acquire(blocking=False)
        lane.is_signalled = False
        if lane in self.ready:
            self.ready.remove(lane)
        if lane.child is not None:
            lane.child.submitters.remove(lane)
            lane.child = None

    def yield_turn(self, lane: Lane) -> None:
        """Let those in the queue go first."""
        lane.calls += 1
        if not self.ready and lane.calls <= EAGER_CALLS_MAX:
            return
        with self.mutex:
            if lane.calls > EAGER_CALLS_MAX:
                lane.is_restless = True
                self._release_submitters(lane)
            if not self.ready or lane.state is not State.RUNNING:
                return
            lane.state = State.READY
            self.ready.append(lane)
            self._next()
        self.park(lane)
        self.check_interrupt(lane)

    def check_interrupt(self, lane: Lane) -> None:
        error = lane.interrupt
        if error is None:
            return
        if isinstance(error, LaneExit):  # stays, for code that catches it and goes on
            raise LaneExit(*error.args)
        lane.interrupt = None
        raise error

    # Handing the turn on; mutex held

    def _next(self) -> None:
        """The holder has given up its turn: the first in the queue gets it."""
        self.holder = None
        if self.ready:
            self._give(self.ready.popleft())
        else:
            self._surroundings.wear(())

    def _give(self, lane: Lane) -> None:
        self.holder = lane
        lane.state = State.RUNNING
        lane.is_here = False
        lane.deadline_s = None
        self._turn_count += 1
        self._surroundings.wear(lane.env_vars)
        if self.ready or lane.submitters:
            self._watch()
        self._wake_thread(lane)

    @staticmethod
    def _wake_thread(lane: Lane) -> None:
        if not lane.is_signalled:
            lane.is_signalled = True
            lane.signal.release()

    def _release_submitters(self, lane: Lane) -> None:
        """Those that wait for `lane` need not any longer."""
        for submitter in lane.submitters:
            submitter.child = None
            submitter.state = State.READY
            self.ready.append(submitter)
        lane.submitters.clear()

    def run_first(self, lane: Lane, child: Lane | None) -> bool:
        """`lane`, which has the turn, gives it to `child`, which queues, and waits until that has finished or blocks.
        Mutex held; the caller parks when this returns True. False when there is nothing to wait for."""
        if child is None or child is lane or child.state is not State.READY or lane.state is not State.RUNNING:
            return False
        self.ready.remove(child)
        child.trace = _debugger_trace()
        child.submitters.append(lane)
        lane.child = child
        lane.state = State.WAITING
        self._give(child)
        return True

    def give_up(self, lane: Lane, reason: Reason, deadline_s: float | None = None) -> None:
        """`lane` blocks. Mutex held; the caller has arranged for `wake`, and parks next."""
        if lane.state is not State.RUNNING:
            raise RuntimeError("a callback must not wait for a result: it runs while the turn is handed on")
        lane.state = State.BLOCKED
        lane.reason = reason
        lane.deadline_s = deadline_s
        self._pause(lane)

    def _pause(self, lane: Lane) -> None:
        lane.calls = 0
        lane.is_restless = False
        self._release_submitters(lane)
        if self.holder is lane:
            self._next()
        if self.holder is None:
            self._check_deadlock()

    def wake(self, lane: Lane) -> None:
        """What `lane` is blocked for is there: it queues. Mutex held."""
        if lane.state in (State.BLOCKED, State.RESTING):
            self.enqueue(lane)

    def enqueue(self, lane: Lane) -> None:
        """Mutex held."""
        lane.state = State.READY
        lane.reason = None
        self.ready.append(lane)
        if self.holder is None:
            if self.is_deferring:
                self._watch()
            else:
                self._next()

    def interrupt(self, lane: Lane, error: BaseException) -> None:
        """Raise `error` in `lane` where it waits or calls Umbel next. Mutex held."""
        lane.interrupt = error
        if lane.state is State.BLOCKED:
            self.wake(lane)

    def park(self, lane: Lane, deadline_s: float | None = None) -> bool:
        """Wait until `lane` has the turn. Called without the mutex, after what gave it up. False when the deadline of a
        blocked lane passed."""
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

    def _break_out(self, lane: Lane) -> None:
        """The user interrupts a foreign lane while it waits: it takes the turn, from whoever has it."""
        with self.mutex:
            self._withdraw(lane)
            if self.holder is not lane:
                if self.holder is not None:
                    self.holder.state = State.LENT
                self.holder = lane
                lane.state = State.RUNNING

    # Threads

    def spawn(self, job: Callable[[], None], label: str, *, env_vars: surroundings.EnvVars = ()) -> Lane:
        """A lane that queues to run `job`. Raises UmbelSystemError when there are too many. Mutex held."""
        if self._idle:
            lane = self._idle.pop()
        else:
            if len(self.lanes) >= LANES_MAX:
                raise exceptions.UmbelSystemError(
                    f"the inline engine runs at most {LANES_MAX} tasks and actors at a time, each in a thread, got one "
                    "more; get results before submitting further work, or use the native engine"
                )
            lane = Lane(label, is_foreign=False)
            lane.thread = threading.Thread(target=self._main, args=(lane,), name="umbel-inline", daemon=True)
            try:
                lane.thread.start()
            except RuntimeError as error:
                raise exceptions.UmbelSystemError(
                    f"no thread could be started for {label} beside {len(self.lanes)} others ({error}); get results "
                    "before submitting further work, raise the limit on threads, or use the native engine"
                ) from error
            self._threads.add(lane.thread)
        lane.env_vars = env_vars
        self.assign(lane, job, label)
        return lane

    def assign(self, lane: Lane, job: Callable[[], None], label: str) -> None:
        """A lane that is idle, or about to finish a job, queues to run `job`. Mutex held."""
        lane.job = job
        if lane.state is State.IDLE:
            self._begin(lane)
            lane.trace = _debugger_trace()
        lane.label = label

    def _begin(self, lane: Lane) -> None:
        lane.calls = 0
        lane.is_restless = False
        self.lanes.add(lane)
        self.enqueue(lane)

    def _main(self, lane: Lane) -> None:
        self._here.lane = lane
        while True:
            self.park(lane)
            job, lane.job = lane.job, None
            if job is None:
                return
            follow_debugger(lane)
            try:
                if not isinstance(lane.interrupt, LaneExit):
                    job()
            except LaneExit:
                pass
            except BaseException:
                _log.exception("the inline engine failed in %s; please report this as a bug in Umbel", lane.label)
            del job
            if not self._job_done(lane):
                return

    def _job_done(self, lane: Lane) -> bool:
        """Whether the thread shall wait for another job."""
        with self.mutex:
            lane.interrupt = None
            if lane.job is not None and lane.is_kept:
                self._release_submitters(lane)
                if self.holder is lane:
                    self.holder = None
                self._begin(lane)
                return True
            self.lanes.discard(lane)
            lane.state = State.IDLE
            lane.job = None
            goes_on = lane.is_kept or (len(self._idle) < IDLE_LANES_MAX and not self.is_closed)
            if not lane.is_kept:
                lane.env_vars = ()
                if goes_on:
                    self._idle.append(lane)
            if not goes_on:
                self._threads.discard(lane.thread)
            self._pause(lane)
            return goes_on

    def let_go(self, lane: Lane) -> None:
        """An actor does not need its lane any longer. Mutex held."""
        lane.is_kept = False
        if lane.state is State.IDLE:
            lane.env_vars = ()
            if len(self._idle) < IDLE_LANES_MAX and not self.is_closed:
                self._idle.append(lane)
            else:
                self._end_thread(lane)

    def _end_thread(self, lane: Lane) -> None:
        self._threads.discard(lane.thread)
        lane.job = None
        lane.state = State.RUNNING  # to nothing: the thread ends without a turn
        self._wake_thread(lane)

    # Event loops

    def rest(self, lane: Lane, *, is_inert: bool) -> None:
        """An event loop is about to wait for events. is_inert: only a call from another thread can bring one."""
        with self.mutex:
            is_lent = lane.state is State.LENT
            lane.state = State.RESTING
            lane.is_inert = is_inert
            if not is_lent:
                self._pause(lane)

    def resume(self, lane: Lane) -> None:
        """Events came: the loop queues, unless `wake` has put it there already, and waits for its turn."""
        with self.mutex:
            self.wake(lane)
        self.park(lane)

    # A turn that lasts

    def _watch(self) -> None:
        """Somebody waits for the holder, or for a thread that is not ours. Mutex held."""
        if self.is_closed:
            return
        self._is_watched.set()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch_holder, name="umbel-inline-watch", daemon=True)
            self._watcher.start()

    def _watch_holder(self) -> None:
        last_turn, same_looks, waiting_looks = -1, 0, 0
        while True:
            self._is_watched.wait()
            self._has_ended.wait(RECHECK_S if self._is_suspect else WATCH_S)
            with self.mutex:
                if self.is_closed:
                    return
                holder = self.holder
                same_looks = same_looks + 1 if self._turn_count == last_turn else 0
                last_turn = self._turn_count
                if holder is not None:
                    waiting_looks = waiting_looks + 1 if same_looks and self._could_lend(holder) else 0
                    if waiting_looks == LENDING_LOOKS:
                        holder.state = State.LENT
                        self._release_submitters(holder)
                        self._next()
                elif self.ready:
                    if same_looks >= DEFERRED_LOOKS:
                        self._next()
                elif self._is_suspect:
                    self._check_deadlock()
                else:
                    self._is_watched.clear()

    def _could_lend(self, holder: Lane) -> bool:
        """Whether the holder does nothing with its turn, and somebody else would."""
        return holder.is_here and bool(self.ready or holder.submitters) and _waits_elsewhere(holder.thread)

    # Deadlocks

    def _check_deadlock(self) -> None:
        """Nobody has the turn and nobody queues. Mutex held."""
        self._is_suspect = False
        for lane in self.lanes:
            if lane.state is State.BLOCKED:
                if lane.deadline_s is not None:
                    return
            elif lane.state is not State.RESTING or not lane.is_inert:
                return
        blocked = [lane for lane in self.lanes if lane.state is State.BLOCKED]
        foreign = [lane for lane in blocked if lane.is_foreign]
        if not foreign:
            return
        known = {self._watcher, *self._threads, *(lane.thread for lane in foreign)}
        if not known.issuperset(threading.enumerate()):
            self._is_suspect = True
            self._watch()
            return
        victim = next((lane for lane in foreign if lane.thread is threading.main_thread()), foreign[0])
        lines = sorted(f"  {lane.label} waits for {lane.reason(0) if lane.reason else 'something'}" for lane in blocked)
        self.interrupt(
            victim,
            DeadlockError(
                "nothing can go on, because everybody waits and nobody is left who could end it:\n"
                + "\n".join(lines)
                + "\nbreak the circle, submit what they wait for first, or pass a timeout"
            ),
        )

    # The end

    def close(self, lane: Lane) -> None:
        """End all lanes but the caller's, one after the other, so that their `finally` clauses run. Called with the
        turn, without the mutex."""
        with self.mutex:
            self.is_closed = True
            others = [other for other in self.lanes if other is not lane]
            for other in others:
                if other.is_foreign:
                    self.interrupt(other, exceptions.UmbelSystemError("the session was shut down while this waited"))
                else:
                    self.interrupt(other, LaneExit("the session was shut down"))
            threads = self._threads - {lane.thread}
            idle, self._idle = self._idle, []
            for other in idle:
                self._end_thread(other)
            self._has_ended.set()
            self._is_watched.set()
            if self._watcher is not None:
                threads.add(self._watcher)
        deadline_s = time.monotonic() + JOIN_S
        while True:
            if self.ready:
                self.yield_turn(lane)
                continue
            lent = {other.thread for other in others if other.state is State.LENT}
            if time.monotonic() > deadline_s or not any(thread.is_alive() for thread in threads - lent):
                return
            with self.mutex:
                self.give_up(lane, lambda depth: "the session to end", time.monotonic() + _CLOSING_POLL_S)
            self.park(lane, time.monotonic() + _CLOSING_POLL_S)


def _debugger_trace() -> Any:
    """The trace function of a debugger that steps the calling thread: it follows into what the thread submits."""
    trace = sys.gettrace()
    bdb = sys.modules.get("bdb")
    if trace is None or bdb is None or not isinstance(getattr(trace, "__self__", None), bdb.Bdb):
        return None
    return trace


def follow_debugger(lane: Lane) -> None:
    """In the lane's own thread: be stepped by the debugger that steps whoever gave it the turn, or by none any more."""
    if lane.trace is not None or _debugger_trace() is not None:
        sys.settrace(lane.trace)


def _waits_elsewhere(thread: threading.Thread) -> bool:
    """Whether the thread sits in a wait of the standard library that another thread or an event ends."""
    import selectors

    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None or frame.f_code.co_filename not in (threading.__file__, selectors.__file__):
        return False
    bdb = sys.modules.get("bdb")
    while frame is not None:
        if bdb is not None and frame.f_code.co_filename == bdb.__file__:
            return False  # a debugger's prompt: everything else stands still meanwhile
        frame = frame.f_back
    return True
