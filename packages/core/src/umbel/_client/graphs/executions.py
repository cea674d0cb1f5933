"""The driver's book of one compiled graph: which executions there are, and which of their results have come.

Executions are numbered from 0 and their results arrive in that order, each output on its own. An execution is *in
flight* until all of its outputs have arrived; a result is *buffered* from its arrival until its reference is read or
dropped. This module only decides.
"""

from __future__ import annotations

from typing import Any

from umbel._base import checks


class Executions:
    """in_flight_max, buffered_max: how many executions and results there may be. outputs: how many an execution has."""

    def __init__(self, outputs: int, *, in_flight_max: int, buffered_max: int) -> None:
        self.in_flight_max = in_flight_max
        self.buffered_max = buffered_max
        self.submitted = 0
        self.arrived = [0] * outputs  # of each output: results that have come
        self._buffered: dict[tuple[int, int], Any] = {}  # (execution, output) -> result
        self._dropped: set[tuple[int, int]] = set()  # references that went before their results came

    @property
    def in_flight(self) -> int:
        return self.submitted - min(self.arrived)

    @property
    def buffered(self) -> int:
        return len(self._buffered)

    def submit(self) -> int | None:
        """A new execution's number; None when too many are in flight."""
        number = self.submitted
        if number - min(self.arrived) >= self.in_flight_max:
            return None
        self.submitted = number + 1
        return number

    def awaits(self, execution: int, output: int) -> bool:
        """Whether this result is still to come."""
        return self.arrived[output] <= execution

    def may_receive(self, execution: int, output: int) -> bool:
        """Whether the next result of `output` may be taken in, on the way to the one of `execution`."""
        return self.arrived[output] == execution or self.is_next_dropped(output) or self.buffered < self.buffered_max

    def is_next_dropped(self, output: int) -> bool:
        """Whether nobody wants the next result of `output`."""
        return (self.arrived[output], output) in self._dropped

    def held_up_by(self) -> int | None:
        """The output to take in so that the oldest execution is no longer in flight, if its caller should not have to
        ask: nobody wants the result, or another one of that execution has come. Else None."""
        oldest, newest = min(self.arrived), max(self.arrived)
        if self.submitted - oldest < self.in_flight_max:
            return None  # nothing is held up
        for output, arrived in enumerate(self.arrived):
            if arrived == oldest and (
                self.is_next_dropped(output) or (newest > oldest and self.buffered < self.buffered_max)
            ):
                return output
        return None

    def receive(self, output: int, result: Any) -> None:
        """The next result of an output has come."""
        execution = self.arrived[output]
        if execution >= self.submitted:
            checks.invariant(False, "a result without an execution", output=output)
        self.arrived[output] = execution + 1
        if self._dropped and (execution, output) in self._dropped:
            self._dropped.remove((execution, output))
        else:
            self._buffered[execution, output] = result

    def take(self, execution: int, output: int) -> Any:
        """A result that has come, to its reference. Raises ValueError the second time."""
        try:
            return self._buffered.pop((execution, output))
        except KeyError:
            raise ValueError("another thread has read this result, which can be read once; keep the value") from None

    def drop(self, execution: int, output: int) -> None:
        """The reference to a result is gone, unread."""
        if self.awaits(execution, output):
            self._dropped.add((execution, output))
        else:
            self._buffered.pop((execution, output), None)

    def check(self) -> None:
        """Raises InternalError when something does not hold that must."""
        checks.invariant(0 <= self.in_flight <= self.in_flight_max, "executions in flight", in_flight=self.in_flight)
        for execution, output in self._buffered:
            checks.invariant(not self.awaits(execution, output), "buffered before it came", execution=execution)
        for execution, output in self._dropped:
            checks.invariant(self.awaits(execution, output), "a dropped result stayed", execution=execution)
