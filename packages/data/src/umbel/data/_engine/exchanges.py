"""An exchange as it runs: how many partitions, who divides, who puts together.

What comes in is kept until the number of partitions is known, then divided, and when all of it is, put together partition
by partition. With one partition nothing is divided.

Of a join one input may be given to several tasks that share the other. Where it is small as a whole, all tasks get all of
it, nothing is divided, and the other one is not waited for. Where a partition is much larger than it was to be, since many
rows have one key, several tasks share it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence

from umbel.data._engine import events, flow, runs, stages
from umbel.data._engine.events import Piece

# A number of partitions is decided before all is there once so many would be full, and the rest can be estimated: what
# waits is not divided meanwhile. Later, so that the estimate is good, would keep workers waiting.
PARTITIONS_SEEN = 4
PROGRESS_MIN = 0.05

# A partition so many times as large as wanted is shared by several tasks, if it can be. Chance makes none so large, and each
# of them costs to have the other side once more.
LARGE_PARTITIONS = 2

# What tasks of a broadcast get of the input that is divided: as those of a map, whose costs are like theirs. But each begins
# with an index of what all of them get, so that it is some times as much as that, up to what a partition has, and never less.
BROADCAST_BUNDLE_BYTES = stages.Map.bundle_bytes
BROADCAST_BUNDLES = 4  # an index for four times as many rows is a fifth of the work


def broadcast_bundle_bytes(whole_bytes: int, partition_bytes: int) -> int:
    return max(BROADCAST_BUNDLE_BYTES, min(BROADCAST_BUNDLES * whole_bytes, partition_bytes), whole_bytes)


class ExchangeRun(runs.Run):
    """whole: the input that every task is given all of, once one was found to be small; None if none is."""

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
        self._shares: deque[runs.Plan] = deque()  # of the partition before that, those that are left
        self._shared = 0  # the input that these divide
        self._cut_off: list[Piece] = []  # of its blocks that are themselves divided, all parts but the first
        self._shared_count = 0  # of partitions that were shared
        self._largest_bytes = 0  # of those that were not
        self._dividing = 0  # tasks that have not ended
        self._candidates = [*stage.whole] if stage.broadcast_bytes else []  # which may turn out to be small
        self.whole: int | None = None

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
        if self._candidates:
            self._choose_whole()
            if self._candidates:
                return
        if self.whole is not None:
            self._let_go_of_whole()
            return
        if self.count is None:
            self.count = self._decided()
        if self.count is None or self.count == 1 or self.stage.boundaries is None:
            return
        if self._is_gathered and not self._has_asked and not self._sample_tasks and not self._to_sample:
            if self.stage.sample is not None and not self._are_samples_given:
                self._to_sample.extend(self.edges[0].pieces)
            if not self._to_sample:
                self._ask()

    def _choose_whole(self) -> None:
        """The first of the candidates that turns out to be small, and not the first that is complete: the same in each run."""
        while self._candidates:
            edge = self.edges[self._candidates[0]]
            is_small = edge.received_bytes <= self.stage.broadcast_bytes
            if is_small and edge.received_count <= runs.BUNDLE_PIECES_MAX:
                if edge.is_complete:
                    self.whole = self._candidates[0]
                    self._candidates.clear()
                    for other in self._others():
                        other.parks = False  # it passes through, and counts
                        for piece in other.pieces:
                            self.services.ledger.unpark(piece)
                return
            self._candidates.pop(0)

    def _others(self) -> list[flow.Edge]:
        return [edge for number, edge in enumerate(self.edges) if number != self.whole]

    def _let_go_of_whole(self) -> None:
        """When there are no more tasks to give it to."""
        if self.whole is not None and self._is_spent():
            edge, ledger = self.edges[self.whole], self.services.ledger
            while edge.pieces:
                piece = edge.pop()
                ledger.unpark(piece)
                ledger.let_go([piece])

    def _is_spent(self) -> bool:
        """Of a broadcast: all of the other input has gone through tasks that have ended."""
        is_through = all(edge.is_complete and not edge.pieces for edge in self._others()) and self._next_partition > 0
        return is_through and not self.tasks and not self.again

    def _decided(self) -> int | None:
        """The number of partitions, if it can be told."""
        stage = self.stage
        size_bytes, part = sum(edge.received_bytes for edge in self.edges), 1.0
        if not self._is_gathered:
            if stage.boundaries is not None:
                return None
            size_bytes, part = self._foreseen()
            if size_bytes < PARTITIONS_SEEN * stage.partition_bytes or part < PROGRESS_MIN:
                return None
        total = int(size_bytes / part)
        for_cpus = min(stage.parallelism, total // stages.PARTITION_BYTES_MIN)
        count: int = max(1, -(-total // stage.partition_bytes), for_cpus)
        most: int = stage.partition_count_max
        return min(most, count)

    def _foreseen(self) -> tuple[int, float]:
        """So many bytes are this part of all that will come. Of a read, by its parts that are here as a whole, and of nothing
        else: what else is known of the progress depends on which task was quick, and the order of rows with it."""
        if not self.services.keeps_order:
            progress = [self.services.progress(edge) for edge in self.edges]
            return sum(edge.received_bytes for edge in self.edges), min(progress)
        edge, read = self.edges[0], self._read()
        last = edge.pieces[-1].origin if edge.pieces else -1
        if read is None or last < 0:
            return 0, 0.0
        of_last = itertools.takewhile(lambda piece: piece.origin == last, reversed(edge.pieces))
        return edge.received_bytes - runs.total_bytes(of_last), last / len(read.stage.parts)

    def _read(self) -> runs.Run | None:
        """Where all that comes in is read, if each run has the same tasks from there to here."""
        if len(self.producers) > 1:  # of which either may come first
            return None
        (run,) = self.producers
        while isinstance(run, runs.MapRun) and (run.stage.is_steady or run.stage.bundle_rows is not None):
            (run,) = run.producers
        return run if isinstance(run, runs.ReadRun) else None

    # Tasks

    def peek(self, free_count: int, slot_count: int) -> runs.Plan | None:
        if self.whole is not None:
            return self._peek_broadcast(free_count, slot_count)
        if self._candidates:
            return None
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

    def _peek_broadcast(self, free_count: int, slot_count: int) -> runs.Plan | None:
        pieces: list[tuple[Piece, ...]] = []
        for number, edge in enumerate(self.edges):
            if number == self.whole:
                pieces.append(tuple(edge.pieces))
                continue
            some = self._bundle(edge, free_count, slot_count)
            is_first_of_none = self._is_gathered and not self._next_partition  # so that something has the schema
            if not some and not is_first_of_none:
                return None
            pieces.append(some)
        return runs.Plan(events.REDUCE, self._next_partition, tuple(pieces), _bytes_of(pieces))

    def _bundle(self, edge: flow.Edge, free_count: int, slot_count: int) -> tuple[Piece, ...]:
        """What the next task of a broadcast gets of the other input; nothing if it should wait for more."""
        whole_bytes = self.edges[self.whole or 0].received_bytes
        target = broadcast_bundle_bytes(whole_bytes, self.stage.partition_bytes)
        if edge.is_complete and not self.stage.is_steady:
            each = edge.received_bytes // (runs.TASKS_PER_SLOT * max(1, slot_count))
            target = min(target, max(each, whole_bytes))
        count, is_full = runs.bundled(edge.pieces, target, None)
        is_urgent = not self.stage.is_steady and self.has_nothing_to_do(events.REDUCE, free_count)
        if not (is_full or edge.is_complete or is_urgent):
            return ()
        if count == 1:
            return _cut(edge.pieces[0], target)[:1]
        return tuple(edge.pieces[at] for at in range(count))

    def _peek_reduce(self) -> runs.Plan | None:
        if self._shares:
            return self._shares[0]
        if self.count is None or self._next_partition >= self.count or not self._is_divided():
            return None
        return self._plans(self._next_partition)[0]

    def _plans(self, partition: int) -> list[runs.Plan]:
        """The tasks that a partition is put together by: one, or several that share it."""
        pieces = tuple(self._shards_of(number, partition) for number in range(len(self.edges)))
        whole = runs.Plan(events.REDUCE, partition, pieces, _bytes_of(pieces), self.count or 0)
        self._cut_off = []
        if whole.input_bytes < LARGE_PARTITIONS * self.stage.partition_bytes:
            return [whole]
        sizes = [runs.total_bytes(some) for some in pieces]
        dividable = range(len(self.stage.apart)) or [1 - number for number in self.stage.whole]
        number = max(dividable, key=sizes.__getitem__, default=None)
        if number is None:
            return [whole]
        wanted_bytes = max(self.stage.partition_bytes, sum(sizes) - sizes[number])
        parts = [_cut(piece, wanted_bytes) for piece in pieces[number]]
        self._cut_off = [part for some in parts for part in some[1:]]
        plans, waiting = [], deque(part for some in parts for part in some)
        while waiting:
            count, _ = runs.bundled(waiting, wanted_bytes, None)
            share = (*pieces[:number], tuple(waiting.popleft() for _ in range(count)), *pieces[number + 1 :])
            plans.append(whole._replace(pieces=share, input_bytes=_bytes_of(share)))
        self._shared = number
        if self.stage.apart:
            plans = [plan._replace(kind=events.SHARES[number]) for plan in plans]
            plans.append(whole._replace(kind=events.RESTS[number]))
        return plans or [whole]

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
        if self.whole is not None:
            self._next_partition += 1
            for number, pieces in enumerate(plan.pieces):
                edge = self.edges[number]
                if number == self.whole:
                    ledger.need(pieces)
                elif len(pieces) == 1:
                    piece = edge.pop()
                    if pieces[0].row_count < piece.row_count:
                        edge.put_back(piece.part(pieces[0].row_count, piece.row_count - pieces[0].row_count))
                        ledger.need(pieces)
                else:
                    for _ in pieces:
                        edge.pop()
            return
        if not self._shares:
            self._shares.extend(self._plans(plan.number))
            self._begin_partition(plan.number)
            self._shared_count += len(self._shares) > 1
            if len(self._shares) == 1:
                self._largest_bytes = max(self._largest_bytes, plan.input_bytes or 0)
        self._shares.popleft()
        for number, pieces in enumerate(plan.pieces):
            if self._shares and number != self._shared:
                ledger.need(pieces)  # as those that are left do
                continue
            for piece in pieces:
                ledger.unpark(piece)

    def _begin_partition(self, partition: int) -> None:
        """What it is made of is kept by its tasks and by `_shares` from now on."""
        self._next_partition += 1
        for part in self._cut_off:
            self._keep(part)
        if len(self._shares) > 1 and self.stage.apart:
            for piece in self._shares[-1].pieces[self._shared]:  # the last one has all of them once more
                self._keep(piece)
        if self.count == 1:
            for edge in self.edges:
                while edge.pieces:
                    edge.pop()
            return
        needed = {piece.block for plan in self._shares for some in plan.pieces for piece in some}
        ledger = self.services.ledger
        for by_task in self._shards:
            for shards in by_task.values():
                if shards[partition].block not in needed:  # one of no rows
                    ledger.unpark(shards[partition])
                    ledger.let_go([shards[partition]])

    def _keep(self, piece: Piece) -> None:
        """For one more task."""
        self.services.ledger.need([piece])
        self.services.ledger.park(piece)

    def parked_bytes(self, plan: runs.Plan) -> int:
        if plan.kind == events.SAMPLE:
            return 0
        if self.whole is None:
            return plan.input_bytes or 0
        return 0 if self.tasks else runs.total_bytes(plan.pieces[self.whole])

    def is_paced(self, plan: runs.Plan) -> bool:
        return plan.kind in events.REDUCING

    def opens(self, task: runs.Task) -> None:
        if task.plan.kind in events.REDUCING:
            self.order.open(task.id)
        elif task.plan.kind == events.SAMPLE:
            self._sample_tasks.append(task.id)
        else:
            self._made[task.id] = []

    def made(self, task: runs.Task, piece: Piece) -> None:
        if task.plan.kind in events.REDUCING:
            self.order.add(task.id, piece)
        elif task.plan.kind == events.SAMPLE:
            self.services.ledger.let_go([piece])
        else:
            self._made[task.id].append(piece)
            self.services.ledger.park(piece)

    def ended(self, task: runs.Task) -> None:
        if task.plan.kind in events.REDUCING:
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

    def input_order(self) -> list[int]:
        return [*self._candidates, *(number for number in range(len(self.edges)) if number not in self._candidates)]

    def needed_edges(self) -> list[int]:
        return [number for number in self.input_order() if not self.edges[number].is_complete][:1]

    def ready_count(self) -> int:
        if self.whole is not None:
            is_first_of_none = self._is_gathered and not self._next_partition
            return max(is_first_of_none, *(len(edge.pieces) for edge in self._others()))
        if self.count is not None and self._is_divided():
            return self.count - self._next_partition + len(self._shares)
        return sum(len(edge.pieces) for edge in self.edges) if self._divides else len(self._to_sample)

    def is_exhausted(self) -> bool:
        if self._candidates:
            return False
        if self.whole is not None:
            return self._is_spent()
        is_idle = not self.tasks and not self.again and not self._shares
        return is_idle and self.count is not None and self._next_partition >= self.count and self._is_gathered

    def progress(self) -> float:
        if self._candidates:
            return 0.0
        if self.whole is not None:
            return min(self.services.progress(edge) for edge in self._others())
        if self.count is None or self.count < 1:
            return 0.0
        return max(0.0, (self._next_partition - len(self.tasks)) / self.count)

    def how(self) -> str:
        if self.whole is not None:
            return f"input {self.whole + 1} to every task"
        if self.count is None:
            return ""
        shared = f", {self._shared_count} of them shared by several tasks" if self._shared_count else ""
        if self._largest_bytes >= LARGE_PARTITIONS * self.stage.partition_bytes:
            shared += f", the largest of {self._largest_bytes / stages.MIB:.1f} MiB and not shared"
        return f"{self.count} partition{'s' if self.count != 1 else ''}{shared}"

    def pieces_held(self) -> list[Piece]:
        ledger = self.services.ledger
        found = []
        for by_task in self._shards:
            for shards in by_task.values():
                found += shards[self._next_partition :]
            by_task.clear()
        for shards in self._made.values():
            found += shards
        for share in self._shares:
            found += share.pieces[self._shared]
        for number, pieces in enumerate(self._shares[0].pieces if self._shares else ()):
            found += pieces if number != self._shared else ()
        self._made.clear()
        self._shares.clear()
        self._to_sample.clear()
        for piece in found:
            ledger.unpark(piece)
        return found + super().pieces_held()


def _cut(piece: Piece, wanted_bytes: int) -> tuple[Piece, ...]:
    """Parts of about as many bytes each as are wanted, or some more."""
    count = min(piece.row_count, piece.size_bytes // max(1, wanted_bytes))
    if count < 2:
        return (piece,)
    bounds = [piece.row_count * at // count for at in range(count + 1)]
    return tuple(piece.part(low, high - low) for low, high in itertools.pairwise(bounds))


def _bytes_of(pieces: Sequence[Iterable[Piece]]) -> int:
    return sum(map(runs.total_bytes, pieces))
