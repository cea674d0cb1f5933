"""An exchange as it runs: how many partitions, who divides, who puts together.

What comes in is kept until the number of partitions is known, then divided, and when all of it is, put together partition
by partition. With one partition nothing is divided.
"""

from __future__ import annotations

from collections import deque

from umbel.data._engine import events, flow, runs, stages
from umbel.data._engine.events import Piece

# A number of partitions is decided before all is there once so many would be full, and the rest can be estimated: what
# waits is not divided meanwhile. Later, so that the estimate is good, would keep workers waiting.
PARTITIONS_SEEN = 4
PROGRESS_MIN = 0.05


class ExchangeRun(runs.Run):
    """shards: for each input the pieces of each partition, as partition tasks made them."""

    parks = True

    def __init__(self, index: int, stage: stages.Exchange, services: runs.Services) -> None:
        super().__init__(index, stage, services)
        self.count: int | None = stage.partition_count
        self._to_sample: deque[Piece] = deque()
        self._sample_tasks: list[int] = []
        self._has_asked = self._has_boundaries = False
        self._shards: list[dict[int, list[Piece]]] = [{} for _ in stage.inputs]  # by task
        self._made: dict[int, list[Piece]] = {}  # of a partition task that has not ended
        self._next_partition = 0
        self._dividing = 0  # tasks that have not ended

    def ask_for_samples(self) -> None:
        """Of whoever makes the blocks, unless these are made by no task, or it gives samples to another exchange: then there
        are tasks for it, for which all has to be there once more."""
        (producer, *_) = self.producers
        if self.stage.sample is not None and producer.has_tasks and producer.sampling is None:
            producer.sampling = self.stage

    @property
    def _are_samples_given(self) -> bool:
        return self.producers[0].sampling is self.stage

    # What is known

    @property
    def _is_gathered(self) -> bool:
        return all(edge.is_complete for edge in self.edges)

    @property
    def _divides(self) -> bool:
        """Whether partition tasks may be started."""
        if self.count is None or self.count == 1:
            return False
        return self._has_boundaries or self.stage.boundaries is None

    def advance(self) -> None:
        if self.count is None:
            self.count = self._decided()
        if self.count is None or self.count == 1 or self.stage.boundaries is None:
            return
        if self._is_gathered and not self._has_asked and not self._sample_tasks and not self._to_sample:
            if self.stage.sample is not None and not self._are_samples_given:
                self._to_sample.extend(self.edges[0].pieces)
            if not self._to_sample:
                self._ask()

    def _decided(self) -> int | None:
        """The number of partitions, if it can be told."""
        stage = self.stage
        received = [edge.received_bytes for edge in self.edges]
        if not self._is_gathered:
            if stage.boundaries is not None or sum(received) < PARTITIONS_SEEN * stage.partition_bytes:
                return None
            progress = [self.services.progress(edge) for edge in self.edges]
            if min(progress) < PROGRESS_MIN:
                return None
            received = [int(size / part) for size, part in zip(received, progress, strict=True)]
        count: int = -(-sum(received) // stage.partition_bytes)
        most: int = stage.partition_count_max
        return min(most, max(1, count))

    # Tasks

    def peek(self, free_count: int, slot_count: int) -> runs.Plan | None:
        if self._to_sample:
            count, _ = runs.bundled(self._to_sample, self.stage.bundle_bytes, None)
            pieces = tuple(self._to_sample[at] for at in range(count))
            return runs.Plan(events.SAMPLE, len(self._sample_tasks), (pieces,), runs.total_bytes(pieces))
        if self._divides:
            for number, edge in enumerate(self.edges):
                count, is_full = runs.bundled(edge.pieces, self.stage.bundle_bytes, None)
                if count and (is_full or edge.is_complete):
                    pieces = tuple(edge.pieces[at] for at in range(count))
                    return runs.Plan(events.PARTITION, number, (pieces,), runs.total_bytes(pieces), self.count or 0)
        return self._peek_reduce()

    def _peek_reduce(self) -> runs.Plan | None:
        if self.count is None or self._next_partition >= self.count or not self._is_divided():
            return None
        at = self._next_partition
        pieces = tuple(self._shards_of(number, at) for number in range(len(self.edges)))
        return runs.Plan(events.REDUCE, at, pieces, sum(map(runs.total_bytes, pieces)), self.count)

    def _is_divided(self) -> bool:
        if not self._is_gathered or self._dividing:
            return False
        return self.count == 1 or (self._divides and not any(edge.pieces for edge in self.edges))

    def _shards_of(self, number: int, partition: int) -> tuple[Piece, ...]:
        if self.count == 1:
            return tuple(self.edges[number].pieces)
        by_task = self._shards[number]
        found = tuple(by_task[task][partition] for task in sorted(by_task))
        return tuple(piece for piece in found if piece.row_count) or found[:1]  # one for its schema

    def take(self, plan: runs.Plan) -> None:
        ledger = self.services.ledger
        if plan.kind == events.SAMPLE:
            for piece in plan.pieces[0]:
                self._to_sample.popleft()
                ledger.need([piece])
        elif plan.kind == events.PARTITION:
            self._dividing += 1
            for piece in plan.pieces[0]:
                self.edges[plan.number].pop()
                ledger.unpark(piece)
        else:
            self._take_partition(plan)

    def _take_partition(self, plan: runs.Plan) -> None:
        ledger = self.services.ledger
        self._next_partition += 1
        for number, pieces in enumerate(plan.pieces):
            for piece in pieces:
                ledger.unpark(piece)
            if self.count == 1:
                for _ in pieces:
                    self.edges[number].pop()
                continue
            for shards in self._shards[number].values():
                if shards[plan.number] not in pieces:  # one of no rows
                    ledger.unpark(shards[plan.number])
                    ledger.let_go([shards[plan.number]])

    def is_paced(self, plan: runs.Plan) -> bool:
        return plan.kind == events.REDUCE

    def opens(self, task: runs.Task) -> None:
        if task.plan.kind == events.REDUCE:
            self.order.open(task.id)
        elif task.plan.kind == events.SAMPLE:
            self._sample_tasks.append(task.id)
        else:
            self._made[task.id] = []

    def made(self, task: runs.Task, piece: Piece) -> None:
        if task.plan.kind == events.REDUCE:
            self.order.add(task.id, piece)
        elif task.plan.kind == events.SAMPLE:
            self.services.ledger.let_go([piece])
        else:
            self._made[task.id].append(piece)
            self.services.ledger.park(piece)

    def ended(self, task: runs.Task) -> None:
        if task.plan.kind == events.REDUCE:
            self.order.end(task.id)
        elif task.plan.kind == events.SAMPLE:
            is_last = not self._to_sample and all(one.plan.kind != events.SAMPLE for one in self._unfinished(task))
            if is_last:
                self._ask()
        else:
            self._dividing -= 1
            self._shards[task.plan.number][task.id] = self._made.pop(task.id)

    def _unfinished(self, but: runs.Task) -> list[runs.Task]:
        return [one for one in [*self.tasks.values(), *self.again] if one is not but]

    def _ask(self) -> None:
        self._has_asked = True
        tasks = self.producers[0].sampled if self._are_samples_given else self._sample_tasks
        counts = [piece.row_count for piece in self.edges[0].pieces] if self.stage.sample is None else []
        self.services.make_boundaries(self, tuple(sorted(tasks)), self.count or 1, tuple(counts))

    def boundaries_made(self) -> None:
        self._has_boundaries = True

    def ready_count(self) -> int:
        if self.count is not None and self._is_divided():
            return self.count - self._next_partition
        return sum(len(edge.pieces) for edge in self.edges) if self._divides else len(self._to_sample)

    def is_exhausted(self) -> bool:
        is_idle = not self.tasks and not self.again
        return is_idle and self.count is not None and self._next_partition >= self.count and self._is_gathered

    def progress(self) -> float:
        if self.count is None or self.count < 1:
            return 0.0
        return max(0.0, (self._next_partition - len(self.tasks)) / self.count)

    def pieces_held(self) -> list[Piece]:
        ledger = self.services.ledger
        found = []
        for by_task in self._shards:
            for shards in by_task.values():
                found += shards[self._next_partition :]
            by_task.clear()
        for shards in self._made.values():
            found += shards
        self._made.clear()
        self._to_sample.clear()
        for piece in found:
            ledger.unpark(piece)
        return found + super().pieces_held()


class SplitRun(runs.Run):
    """The last stage of a plan with several consumers. Keeps back what will be needed to make them equal."""

    has_tasks = False

    def __init__(self, index: int, stage: stages.Split, services: runs.Services) -> None:
        super().__init__(index, stage, services)
        self.rows = [0] * stage.count  # that each has got
        self.waiting = [0] * stage.count  # deliveries that each has not taken
        self.is_done = [False] * stage.count
        self._kept: flow.Edge = flow.Edge()

    def advance(self) -> None:
        if self.stage.is_equal:
            self._spread()
        else:
            self._serve()

    def taken(self, consumer: int) -> None:
        self.waiting[consumer] -= 1
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
                if not self.is_done[one] and self.waiting[one] < DELIVERIES_AHEAD
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


DELIVERIES_AHEAD = 2  # to a consumer that has not taken them: one to work on, one that comes meanwhile
