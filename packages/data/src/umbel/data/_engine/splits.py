"""A plan with several consumers, as its last stage runs: who gets which block."""

from __future__ import annotations

from umbel.data._engine import flow, runs, stages
from umbel.data._engine.events import Piece

DELIVERIES_AHEAD = 2  # to a consumer that has not taken them: one to work on, one that comes meanwhile
DELIVERIES_AHEAD_MAX = 64  # to one that takes as many within AHEAD_S; then others hardly wait for what it has
AHEAD_S = 0.02  # some times what it takes to ask for blocks from another process


class SplitRun(runs.Run):
    """is_equal: it keeps back what will be needed to make all equal. Otherwise a block goes to whoever has least to do."""

    has_tasks = False

    def __init__(self, index: int, stage: stages.Split, services: runs.Services) -> None:
        super().__init__(index, stage, services)
        self.rows = [0] * stage.count  # that each has got
        self.waiting = [0] * stage.count  # deliveries that each has not taken
        self._ahead = [DELIVERIES_AHEAD] * stage.count  # how many these may be
        self._taken = [0] * stage.count  # since the time from which on it is looked how quick each is
        self._since_s = [0.0] * stage.count
        self.is_done = [False] * stage.count
        self._kept: flow.Edge = flow.Edge()

    def advance(self) -> None:
        if self.stage.is_equal:
            self._spread()
        else:
            self._serve()

    def taken(self, consumer: int, at_s: float) -> None:
        self.waiting[consumer] -= 1
        self._taken[consumer] += 1
        ahead = self._ahead[consumer]
        if self._taken[consumer] >= ahead:
            passed_s = max(at_s - self._since_s[consumer], AHEAD_S / DELIVERIES_AHEAD_MAX)
            most = min(DELIVERIES_AHEAD_MAX, 2 * ahead)
            self._ahead[consumer] = min(most, max(DELIVERIES_AHEAD, int(ahead * AHEAD_S / passed_s)))
            self._taken[consumer], self._since_s[consumer] = 0, at_s
        self.advance()

    def done(self, consumer: int) -> None:
        self.is_done[consumer] = True
        self.advance()

    def _serve(self) -> None:
        """To whoever has least to do, if he has not enough."""
        edge = self.edges[0]
        while edge.pieces:
            asking = [
                (self.waiting[one], self.rows[one], one)
                for one in range(self.stage.count)
                if not self.is_done[one] and self.waiting[one] < self._ahead[one]
            ]
            if not asking:
                return
            self._give(min(asking)[2], edge.pop())

    def _spread(self) -> None:
        """Each block to whoever has fewest rows, as long as what is kept back suffices to give the others as many."""
        edge, kept = self.edges[0], self._kept
        while edge.pieces:
            kept.push(edge.pop())
            while kept.pieces:
                piece = kept.pieces[0]
                consumer = min(range(self.stage.count), key=lambda one: (self.rows[one], one))
                most = max(*self.rows, self.rows[consumer] + piece.row_count)
                lacking = sum(most - rows for rows in self.rows) - piece.row_count
                if lacking > kept.row_count - piece.row_count:
                    break
                self._give(consumer, kept.pop())
        if edge.is_complete:
            self._even_out()

    def _even_out(self) -> None:
        kept, ledger = self._kept, self.services.ledger
        share = (sum(self.rows) + kept.row_count) // self.stage.count
        for consumer, rows in enumerate(self.rows):
            for piece in kept.take_rows(share - rows, ledger):
                self._give(consumer, piece)
        ledger.let_go(kept.pieces)
        while kept.pieces:
            kept.pop()

    def _give(self, consumer: int, piece: Piece) -> None:
        self.rows[consumer] += piece.row_count
        self.stats.rows_out += piece.row_count
        self.stats.bytes_out += piece.size_bytes
        self.stats.blocks_out += 1
        if self.is_done[consumer]:
            self.services.ledger.let_go([piece])
            return
        self.waiting[consumer] += 1
        self.services.deliver(consumer, piece)

    def is_exhausted(self) -> bool:
        return super().is_exhausted() and not self._kept.pieces

    def pieces_held(self) -> list[Piece]:
        found = list(self._kept.pieces)
        while self._kept.pieces:
            self._kept.pop()
        return found + super().pieces_held()
