"""Which worker of a pool runs which chunk.

Pure: events in, commands out. A worker gets a chunk when it has none. Sending the next one ahead would save a round
trip; but what is behind a long chunk then waits for it while others are idle, and calls that wait for one another, as
behind a barrier, would wait forever. Nobody's chunk is repeated when a worker dies: it may have had effects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Start:
    """Start a worker."""

    worker: int


@dataclass(frozen=True)
class Run:
    """Send a chunk to a worker."""

    worker: int
    chunk: int


@dataclass(frozen=True)
class Stop:
    """End a worker that has nothing to do."""

    worker: int


@dataclass(frozen=True)
class Kill:
    """End a worker, whatever it does."""

    worker: int


Command: TypeAlias = "Start | Run | Stop | Kill"


@dataclass
class _Worker:
    given_count: int = 0
    running: int | None = None  # the chunk


class Assignment:
    """State of a pool: its workers, and the chunks that wait.

    `chunks_per_worker_max` is after how many chunks a worker is replaced by a new one. Chunks and workers are
    numbers; a worker's number is never used again.
    """

    def __init__(self, worker_count: int, chunks_per_worker_max: int | None = None) -> None:
        self._worker_count = worker_count
        self._chunks_per_worker_max = chunks_per_worker_max
        self._workers: dict[int, _Worker] = {}
        self._started_count = 0
        self._waiting: deque[int] = deque()
        self._is_closing = False

    @property
    def is_over(self) -> bool:
        """Whether the pool is closed and nothing is left of it."""
        return self._is_closing and not self._workers and not self._waiting

    def opened(self) -> list[Command]:
        return [self._start() for _ in range(self._worker_count)]

    def submitted(self, chunk: int) -> list[Command]:
        self._waiting.append(chunk)
        return self._assign()

    def finished(self, worker: int, chunk: int) -> list[Command]:
        """A chunk has ended, well or badly."""
        state = self._workers.get(worker)
        if state is None or state.running != chunk:  # the worker died, or was ended, before this was heard
            return []
        state.running = None
        return self._assign()

    def died(self, worker: int) -> list[Command]:
        """A worker is gone, and what it ran with it."""
        if self._workers.pop(worker, None) is None:
            return []
        return self._assign()

    def closed(self) -> list[Command]:
        """No more chunks will come."""
        self._is_closing = True
        return self._assign()

    def terminated(self) -> list[Command]:
        """Everything ends now. Chunks that wait, or run, are given up."""
        self._is_closing = True
        commands: list[Command] = [Kill(worker) for worker in self._workers]
        self._waiting.clear()
        self._workers.clear()
        return commands

    def _start(self) -> Start:
        worker = self._started_count
        self._started_count += 1
        self._workers[worker] = _Worker()
        return Start(worker)

    def _assign(self) -> list[Command]:
        commands = self._replace_spent()
        for worker, state in self._workers.items():
            if not self._waiting:
                break
            if state.running is None:
                state.running = self._waiting.popleft()
                state.given_count += 1
                commands.append(Run(worker, state.running))
        if self._is_closing and not self._waiting:
            commands += self._stop(lambda state: state.running is None)
        return commands

    def _replace_spent(self) -> list[Command]:
        commands = self._stop(lambda state: state.running is None and self._is_spent(state))
        if not self._is_closing or self._waiting:
            commands += [self._start() for _ in range(self._worker_count - len(self._workers))]
        return commands

    def _is_spent(self, state: _Worker) -> bool:
        return self._chunks_per_worker_max is not None and state.given_count >= self._chunks_per_worker_max

    def _stop(self, is_to_stop: Callable[[_Worker], bool]) -> list[Command]:
        stopped = [worker for worker, state in self._workers.items() if is_to_stop(state)]
        for worker in stopped:
            del self._workers[worker]
        return [Stop(worker) for worker in stopped]
