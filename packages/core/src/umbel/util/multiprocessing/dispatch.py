"""The thread that runs a pool: it carries out what `assignment` decides, and hands on what comes back."""

from __future__ import annotations

import contextlib
import functools
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import umbel
from umbel import exceptions
from umbel._client import current
from umbel.util.multiprocessing import assignment
from umbel.util.multiprocessing.child import Mode, Outcomes

if TYPE_CHECKING:
    import concurrent.futures

    from umbel.util.multiprocessing.results import Deliver

ENDING_S = 5.0  # for the processes' own exit handlers, once they have nothing to do


@dataclass(frozen=True)
class Chunk:
    """Calls of one function that one process makes in a row. `func` may be a reference to the function."""

    func: Any
    mode: Mode
    items: Sequence[Any]
    deliver: Deliver

    def fail(self, error: BaseException) -> None:
        self.deliver(Outcomes.all_failed(len(self.items), error))


class Dispatcher:
    """Starts the actors at once; everything after that happens on its own thread.

    Holds no reference to the pool, so that a forgotten pool is collected, which terminates this.
    """

    def __init__(self, start_actor: Callable[[], Any], process_count: int, chunks_per_process_max: int | None) -> None:
        self._start_actor = start_actor
        self._assignment = assignment.Assignment(process_count, chunks_per_process_max)
        self._actors: dict[int, Any] = {}
        self._chunks: dict[int, Chunk] = {}
        self._numbers = itertools.count()
        self._inbox: queue.SimpleQueue[Callable[[], list[assignment.Command]]] = queue.SimpleQueue()
        self._ending: deque[Any] = deque(maxlen=process_count)  # ready when an actor that was told to end has ended
        self._failure: Exception | None = None
        self._lock = threading.Lock()  # around `_is_over`: what is put into the inbox before it is set is still read
        self._is_over = False
        self._carry_out(self._assignment.opened())
        self._thread = threading.Thread(target=self._work, name="umbel-pool", daemon=True)

    def start(self) -> None:
        """Wait until every process has run its initializer; raises what one of them raised."""
        try:
            umbel.get([actor.ping.remote() for actor in self._actors.values()])
        except BaseException:
            self._carry_out(self._assignment.terminated())
            raise
        self._thread.start()

    def submit(self, chunk: Chunk) -> None:
        with self._lock:
            if not self._is_over:
                self._inbox.put(functools.partial(self._submitted, chunk))
                return
        chunk.fail(self._failure or _terminated())

    def close(self) -> None:
        self._inbox.put(self._assignment.closed)

    def terminate(self) -> None:
        """May be called from a destructor: does not wait."""
        self._inbox.put(self._assignment.terminated)

    def join(self) -> None:
        """Wait until the processes have been ended; not in a callback, which runs on the very thread."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        while not self._assignment.is_over:
            event = self._inbox.get()
            try:
                self._carry_out(event())
            except Exception as error:  # nobody would see it here: those who wait for results get it
                self._failure = error  # the pool cannot go on, as when the session has ended
                self._assignment.terminated()
                self._actors.clear()
        with self._lock:
            self._is_over = True
        while not self._inbox.empty():
            self._inbox.get()()  # what was submitted meanwhile becomes a chunk, and fails with the others
        for chunk in self._chunks.values():
            chunk.fail(self._failure or _terminated())
        self._chunks.clear()
        if self._ending and self._failure is None:
            self._wait_for_the_ending()

    def _wait_for_the_ending(self) -> None:
        with contextlib.suppress(exceptions.UmbelError):  # the session has ended meanwhile, and all its processes
            _check_session()
            umbel.wait(list(self._ending), num_returns=len(self._ending), timeout=ENDING_S)

    def _submitted(self, chunk: Chunk) -> list[assignment.Command]:
        number = next(self._numbers)
        self._chunks[number] = chunk
        return self._assignment.submitted(number)

    def _carry_out(self, commands: list[assignment.Command]) -> None:
        with current.lock():  # or a shutdown in between would make the next call start a new session
            _check_session()
            for command in commands:
                if isinstance(command, assignment.Start):
                    self._actors[command.worker] = self._start_actor()
                elif isinstance(command, assignment.Run):
                    self._run(command)
                elif isinstance(command, assignment.Stop):
                    self._ending.append(self._actors.pop(command.worker).__umbel_terminate__.remote())
                else:
                    umbel.kill(self._actors.pop(command.worker))

    def _run(self, command: assignment.Run) -> None:
        chunk = self._chunks[command.chunk]
        try:
            ref = self._actors[command.worker].run.remote(chunk.func, chunk.mode, chunk.items)
        except Exception as error:  # as when an argument cannot be pickled: it is the caller's
            self._inbox.put(functools.partial(self._refused, command, error))
            return
        ref.future().add_done_callback(
            lambda future: self._inbox.put(functools.partial(self._returned, command, future))
        )

    def _refused(self, command: assignment.Run, error: Exception) -> list[assignment.Command]:
        self._chunks.pop(command.chunk).fail(error)
        return self._assignment.finished(command.worker, command.chunk)

    def _returned(self, command: assignment.Run, future: concurrent.futures.Future[Any]) -> list[assignment.Command]:
        chunk = self._chunks.pop(command.chunk, None)
        error = future.exception()
        if isinstance(error, exceptions.ActorDiedError):
            self._actors.pop(command.worker, None)
            commands = self._assignment.died(command.worker)
        else:
            commands = self._assignment.finished(command.worker, command.chunk)
        if chunk is not None and error is not None:
            chunk.fail(error)
        elif chunk is not None:
            chunk.deliver(future.result())
        return commands


def _check_session() -> None:
    """A thread in the background must not start a new session, as the first call of a program would."""
    if not umbel.is_initialized():
        raise exceptions.UmbelError("the session has ended, and the pool with it; make a new Pool after umbel.init()")


def _terminated() -> Exception:
    return exceptions.UmbelError("the pool was terminated before this call had ended")
