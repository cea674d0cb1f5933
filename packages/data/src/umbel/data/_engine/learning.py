"""What a stage's tasks are like, from those that have ended: their output, their heap, how long they take."""

from __future__ import annotations

import bisect
from collections import deque

DURATIONS_MAX = 200  # of the latest tasks, for the median
HEAP_PER_INPUT = 2.0  # before anything is known: a copy of what comes in, and one of what goes out
OUTPUT_BYTES = 16 << 20  # of a task of which nothing is known at all
WINDOW_BLOCKS = 2  # that a worker makes ahead of who takes them
FADE = 0.5  # the weight of what was, when a task shows something else


class Learnt:
    """Of one stage. heap_bytes: said by the user for each task, None if nothing was."""

    def __init__(self, *, block_bytes: int, heap_bytes: int | None = None) -> None:
        self._block_bytes = block_bytes
        self._said_heap_bytes = heap_bytes
        self.ended_count = 0
        self.output_per_input = 1.0
        self.output_bytes = 0.0  # of a task
        self.heap_bytes = 0.0
        self._latest: deque[float] = deque(maxlen=DURATIONS_MAX)
        self._sorted: list[float] = []

    def ended(self, *, input_bytes: int, output_bytes: int, heap_bytes: int, wall_s: float) -> None:
        if self.ended_count:
            self.output_bytes = _faded(self.output_bytes, output_bytes)
            self.heap_bytes = max(_faded(self.heap_bytes, heap_bytes), heap_bytes)  # up at once, down slowly
        else:
            self.output_bytes, self.heap_bytes = output_bytes, heap_bytes
        if input_bytes:
            ratio = output_bytes / input_bytes
            self.output_per_input = _faded(self.output_per_input, ratio) if self.ended_count else ratio
        self.ended_count += 1
        if len(self._latest) == DURATIONS_MAX:
            del self._sorted[bisect.bisect_left(self._sorted, self._latest[0])]
        self._latest.append(wall_s)
        bisect.insort(self._sorted, wall_s)

    @property
    def median_s(self) -> float | None:
        return self._sorted[len(self._sorted) // 2] if self._sorted else None

    def expected_output(self, input_bytes: int | None) -> int:
        """Of a task with so much input (of a read: as said beforehand); None if that is not known."""
        if self.ended_count:
            return int(self.output_bytes if input_bytes is None else input_bytes * self.output_per_input)
        return OUTPUT_BYTES if input_bytes is None else input_bytes

    @property
    def is_heap_known(self) -> bool:
        return self._said_heap_bytes is not None or self.ended_count > 0

    def expected_heap(self, input_bytes: int | None) -> int:
        if self._said_heap_bytes is not None:
            return self._said_heap_bytes
        if self.ended_count:
            return int(self.heap_bytes)
        return int(HEAP_PER_INPUT * min(self.expected_output(input_bytes), WINDOW_BLOCKS * self._block_bytes))

    def expected_window(self, input_bytes: int | None) -> int:
        """How much of its output a task may have made that nobody has taken."""
        return min(self.expected_output(input_bytes), WINDOW_BLOCKS * self._block_bytes)


def _faded(before: float, now: float) -> float:
    return FADE * before + (1 - FADE) * now
