"""The engine's own threads: they run one job after the other, each job a task, a call of an actor, or an event loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from umbel import exceptions
from umbel._client.inline import baton as baton_module
from umbel._client.inline import lanes, surroundings, watch

LANES_MAX = 4_096  # threads; each may need 8 MiB of address space, and systems allow some 30,000 in all
IDLE_LANES_MAX = 32  # threads kept for the next task; starting one costs about 50 us
CLOSE_S = 1.0  # at shutdown, for code that cleans up; code that goes on regardless is left behind in its daemon thread
CLOSING_LOOK_S = 0.002  # between two looks at threads that are ending, which takes them microseconds

State = lanes.State

_log = logging.getLogger("umbel")


class Pool:
    """Methods need the mutex held unless they say otherwise."""

    def __init__(self, baton: baton_module.Baton) -> None:
        self._baton = baton
        self._mutex = baton.mutex
        self._threads = baton.watcher.threads
        self._idle: list[lanes.Lane] = []
        self._is_closed = False

    def spawn(self, job: Callable[[], None], label: str, *, env_vars: surroundings.EnvVars = ()) -> lanes.Lane:
        """A lane that queues to run `job`. Raises UmbelSystemError when there are too many."""
        lane = self._idle.pop() if self._idle else self._new(label)
        lane.env_vars = env_vars
        self.assign(lane, job, label)
        return lane

    def _new(self, label: str) -> lanes.Lane:
        count = len(self._baton.lanes)
        if count >= LANES_MAX:
            raise exceptions.UmbelSystemError(
                f"the inline engine runs at most {LANES_MAX} tasks and actors at a time, each in a thread, got one "
                "more; get results before submitting further work, or use the native engine"
            )
        lane = lanes.Lane(label, is_foreign=False)
        lane.thread = threading.Thread(target=self._run, args=(lane,), name="umbel-inline", daemon=True)
        try:
            lane.thread.start()
        except RuntimeError as error:
            raise exceptions.UmbelSystemError(
                f"no thread could be started for {label} beside {count} others ({error}); get results before "
                "submitting further work, raise the limit on threads, or use the native engine"
            ) from error
        self._threads.add(lane.thread)
        return lane

    def assign(self, lane: lanes.Lane, job: Callable[[], None], label: str) -> None:
        """A lane that is idle, or about to finish a job, queues to run `job`."""
        lane.job = job
        if lane.state is State.IDLE:
            lane.trace = lanes.debugger_trace()
            self._enqueue(lane)
        lane.label = label

    def _enqueue(self, lane: lanes.Lane) -> None:
        lane.calls = lane.exits = 0
        lane.is_restless = False
        self._baton.lanes.add(lane)
        self._baton.enqueue(lane)

    def _run(self, lane: lanes.Lane) -> None:
        """The thread; without the mutex."""
        self._baton.here.lane = lane
        while True:
            self._baton.park(lane)
            job, lane.job = lane.job, None
            if job is None:
                return
            lanes.follow_debugger(lane)
            try:
                if not isinstance(lane.interrupt, lanes.LaneExit):
                    job()
            except lanes.LaneExit:
                pass
            except BaseException:
                _log.exception("the inline engine failed in %s; please report this as a bug in Umbel", lane.label)
            del job
            with self._mutex:
                if not self._job_done(lane):
                    return

    def _job_done(self, lane: lanes.Lane) -> bool:
        """Whether the thread shall wait for another job."""
        baton = self._baton
        lane.interrupt = None
        if lane.job is not None and lane.is_kept:
            baton.release_submitters(lane)
            if baton.holder is lane:
                baton.holder = None
            self._enqueue(lane)
            return True
        lane.job = None
        lane.state = State.IDLE
        baton.lanes.discard(lane)
        goes_on = lane.is_kept or self._keep(lane)
        baton.pause(lane)
        return goes_on

    def _keep(self, lane: lanes.Lane) -> bool:
        """Whether the idle lane is kept for other jobs."""
        lane.env_vars = ()
        if self._is_closed or len(self._idle) >= IDLE_LANES_MAX:
            self._threads.discard(lane.thread)
            return False
        self._idle.append(lane)
        return True

    def let_go(self, lane: lanes.Lane) -> None:
        """An actor does not need its lane any longer."""
        lane.is_kept = False
        if lane.state is State.IDLE and not self._keep(lane):
            self._end(lane)

    @staticmethod
    def _end(lane: lanes.Lane) -> None:
        lane.job = None
        lane.state = State.RUNNING  # to nothing: the thread ends without a turn
        lane.wake_thread()

    def close(self, lane: lanes.Lane) -> None:
        """End all lanes but `lane`, the calling one, one after the other, so that their `finally` clauses run. Called
        with the turn, without the mutex."""
        baton = self._baton
        with self._mutex:
            self._is_closed = True
            others = [other for other in baton.lanes if other is not lane]
            for other in others:
                if other.is_foreign:
                    baton.interrupt(other, exceptions.UmbelSystemError("the session was shut down while this waited"))
                else:
                    baton.interrupt(other, lanes.LaneExit("the session was shut down"))
            threads = {t for t in self._threads if t is not lane.thread and t.name != watch.ABANDONED}
            idle, self._idle = self._idle, []
            for other in idle:
                self._end(other)
            baton.watcher.close()
        deadline_s = time.monotonic() + CLOSE_S
        while time.monotonic() < deadline_s:
            if baton.ready:
                baton.yield_turn(lane)
                continue
            lent = {other.thread for other in others if other.state is State.LENT}
            if not any(thread.is_alive() for thread in threads - lent):
                return
            look_s = time.monotonic() + CLOSING_LOOK_S
            with self._mutex:
                baton.give_up(lane, lambda depth: "the session to end", look_s)
            baton.park(lane, look_s)
