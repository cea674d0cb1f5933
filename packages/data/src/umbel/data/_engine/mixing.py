"""Several inputs mixed by weight, a few rows of each at a time.

Which input is next depends on how many rows each has given so far, and not on which of them is quicker: the order is the same in
every run. While the one whose turn it is has nothing yet, all wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from umbel.data._engine import runs, stages

TURN_ROWS = (
    1_024  # of all inputs together in one round: a batch of training sees all of them, and a block is not in crumbs
)


class Turns:
    """Whose turn it is, and for how many rows."""

    def __init__(self, weights: Sequence[float]) -> None:
        total = sum(weights)
        self._weights = weights
        self._rows = [max(1, round(TURN_ROWS * weight / total)) for weight in weights]
        self._left = [*self._rows]
        self._given = [0] * len(weights)
        self._there = set(range(len(weights)))

    def order(self) -> list[int]:
        """The inputs that may have rows, the one furthest behind its weight first; one in the middle of its turn goes on."""

        def behind(number: int) -> tuple[bool, float, int]:
            return self._left[number] == self._rows[number], self._given[number] / self._weights[number], number

        return sorted(self._there, key=behind)

    def next(self) -> int | None:
        return next(iter(self.order()), None)

    def take(self, number: int, row_count: int) -> int:
        """How many of these rows it gives now."""
        taken = min(row_count, self._left[number])
        self._given[number] += taken
        self._left[number] = self._left[number] - taken or self._rows[number]
        return taken

    def end(self, number: int, *, is_shortest: bool) -> None:
        """It was its turn, and it has no more. Looked at only then, or it would depend on when that became known."""
        self._there = set() if is_shortest else self._there - {number}


class MixRun(runs.Run):
    has_tasks = False

    def __init__(self, index: int, stage: stages.Mix, services: runs.Services) -> None:
        super().__init__(index, stage, services)
        self._turns = Turns(stage.weights)

    def advance(self) -> None:
        while (number := self._turns.next()) is not None:
            edge = self.edges[number]
            if not edge.pieces:
                if not edge.is_complete:
                    return
                self._turns.end(number, is_shortest=self.stage.is_shortest)
                continue
            row_count = self._turns.take(number, edge.pieces[0].row_count)
            if not row_count:
                self.emit(edge.pop())
                continue
            for piece in edge.take_rows(row_count, self.services.ledger):
                self.emit(piece)
        self.services.stop_inputs(self)

    def is_exhausted(self) -> bool:
        return self._turns.next() is None

    def needed_edges(self) -> list[int]:
        return self._turns.order()[:1]

    def input_order(self) -> list[int]:
        first = self._turns.order()
        return [*first, *(number for number in range(len(self.edges)) if number not in first)]

    def progress(self) -> float:
        return sum(self.services.progress(edge) for edge in self.edges) / max(1, len(self.edges))
