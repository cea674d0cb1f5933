"""Where blocks are between stages: who needs each, the queue before a stage, and the order behind one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from umbel.data._engine.events import Piece


class Ledger:
    """Which blocks there are, and how often each is needed.

    `held_bytes` counts against the budget. What only exchanges keep does not (`parked_bytes`): it is there until all of
    it is, however large, and the store moves it to disk where memory does not do.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self.parked_bytes = 0
        self._blocks: dict[int, list[int]] = {}  # block -> [needed, of these parked, bytes]
        self.released: list[int] = []  # taken by whoever tells of them

    def __len__(self) -> int:
        return len(self._blocks)

    def enter(self, block: int, size_bytes: int) -> None:
        """A new block, needed once."""
        self._blocks[block] = [1, 0, size_bytes]
        self.held_bytes += size_bytes

    def need(self, pieces: Iterable[Piece]) -> None:
        """Once more each."""
        for piece in pieces:
            entry = self._blocks[piece.block]
            if entry[0] == entry[1]:
                self.parked_bytes -= entry[2]
                self.held_bytes += entry[2]
            entry[0] += 1

    def let_go(self, pieces: Iterable[Piece]) -> None:
        """One need each is over, not of those that are parked."""
        for piece in pieces:
            entry = self._blocks[piece.block]
            entry[0] -= 1
            if not entry[0]:
                self.held_bytes -= entry[2]
                del self._blocks[piece.block]
                self.released.append(piece.block)
            elif entry[0] == entry[1]:
                self.held_bytes -= entry[2]
                self.parked_bytes += entry[2]

    def park(self, piece: Piece) -> None:
        """One need becomes one of those that do not count."""
        entry = self._blocks[piece.block]
        entry[1] += 1
        if entry[0] == entry[1]:
            self.held_bytes -= entry[2]
            self.parked_bytes += entry[2]

    def unpark(self, piece: Piece) -> None:
        entry = self._blocks[piece.block]
        if entry[0] == entry[1]:
            self.parked_bytes -= entry[2]
            self.held_bytes += entry[2]
        entry[1] -= 1


class Edge:
    """The blocks before an input of a stage, in order.

    number_bits: None to number them as they come. Else the number is that of the part that the block comes of, with so many
    bits for which block of that part it is: it stays the same when other parts are left out.
    """

    def __init__(self, *, parks: bool = False, number_bits: int | None = None) -> None:
        self.pieces: deque[Piece] = deque()
        self.size_bytes = 0  # of these
        self.row_count = 0
        self.received_bytes = 0  # ever
        self.received_count = 0
        self.received_rows = 0
        self.is_complete = False
        self.is_wanted = True
        self.parks = parks  # what waits here does not count against the budget
        self._number_bits = number_bits
        self._last_origin = self._of_origin = -1

    def push(self, piece: Piece) -> Piece:
        """Returns it with its number."""
        piece = piece._replace(number=self._next_number(piece))
        self.pieces.append(piece)
        self.size_bytes += piece.size_bytes
        self.row_count += piece.row_count
        self.received_bytes += piece.size_bytes
        self.received_count += 1
        self.received_rows += piece.row_count
        return piece

    def _next_number(self, piece: Piece) -> int:
        if self._number_bits is None:
            return self.received_count
        self._of_origin = self._of_origin + 1 if piece.origin == self._last_origin else 0
        self._last_origin = piece.origin
        return (piece.origin << self._number_bits) + (self._of_origin if self._number_bits else 0)

    def pop(self) -> Piece:
        piece = self.pieces.popleft()
        self.size_bytes -= piece.size_bytes
        self.row_count -= piece.row_count
        return piece

    def put_back(self, piece: Piece) -> None:
        """What is left of one that was taken, in its place."""
        self.pieces.appendleft(piece)
        self.size_bytes += piece.size_bytes
        self.row_count += piece.row_count

    def take_rows(self, row_count: int, ledger: Ledger) -> list[Piece]:
        """So many rows, of which there must be enough here. A block that is divided is needed once more."""
        taken = []
        while row_count > 0:
            piece = self.pop()
            if piece.row_count > row_count:
                self.put_back(piece.part(row_count, piece.row_count - row_count))
                piece = piece.part(0, row_count)
                ledger.need([piece])
            taken.append(piece)
            row_count -= piece.row_count
        return taken


class Order:
    """Puts what tasks make into the order of the tasks. Numbers of tasks grow by one with each that is opened.

    keeps: False lets blocks pass as they come.
    """

    def __init__(self, emit: Callable[[Piece], None], *, keeps: bool = True) -> None:
        self._emit = emit
        self._keeps = keeps
        self._open: dict[int, list[Piece] | None] = {}  # task -> what waits; None once it is the head. In order.
        self._ended: set[int] = set()

    @property
    def head(self) -> int | None:
        """The task whose blocks are next."""
        return next(iter(self._open), None)

    def open(self, task: int) -> None:
        self._open[task] = None if not self._open or not self._keeps else []

    def add(self, task: int, piece: Piece) -> None:
        waiting = self._open[task]
        if waiting is None:
            self._emit(piece)
        else:
            waiting.append(piece)

    def end(self, task: int) -> None:
        """No more of this one. Those behind it whose turn it is are emitted."""
        self._ended.add(task)
        if not self._keeps:
            del self._open[task]
            self._ended.discard(task)
            return
        while (head := self.head) is not None and head in self._ended:
            self._ended.discard(head)
            del self._open[head]
            following = self.head
            if following is not None:
                waiting, self._open[following] = self._open[following], None
                for piece in waiting or ():
                    self._emit(piece)

    def clear(self) -> list[Piece]:
        """What waited."""
        found = [piece for waiting in self._open.values() for piece in waiting or ()]
        self._open.clear()
        self._ended.clear()
        return found
