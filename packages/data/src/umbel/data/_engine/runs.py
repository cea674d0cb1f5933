"""One stage as it runs: which task it could start next, and what becomes of what comes in.

`peek` says what the next task would be, `take` takes its blocks out of the queues. When it is started is decided by
`scheduling`. Limits, unions and splits have no tasks: they pass pieces on as these come (`advance`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from umbel.data._engine import events, flow, learning, pools, stages
from umbel.data._engine.events import Piece

BUNDLE_PIECES_MAX = 1_000  # arguments of a task; more cost its sender and its worker more than another task
TASKS_PER_SLOT = 2  # into so many a queue that is complete is divided, so that no worker is left alone with much
SHORT_S = 0.05  # tasks this short are sent before there is a CPU for them, so that none is idle between two
PART_BITS = 15  # of a block's number, for which block of its part it is: so many a part of 32 GiB has
QUICK_S = 0.005  # a stage whose tasks are this short gains nothing from several small ones at once


class Plan(NamedTuple):
    """A task that could be started. input_bytes: None if a read does not say how much there will be."""

    kind: str
    number: int
    pieces: tuple[tuple[Piece, ...], ...] = ()
    input_bytes: int | None = 0
    partition_count: int = 0


@dataclass
class Attempt:
    """One try at a task. is_paused: what it should be; was_paused: what it was told."""

    number: int
    began_s: float
    actor: int | None = None
    is_paused: bool = False
    was_paused: bool = False
    has_cpus: bool = True


@dataclass
class Task:
    """One that was started and has not ended. reserved_bytes: what it may give beside the blocks that came from it."""

    id: int
    run: Run
    plan: Plan
    attempts: dict[int, Attempt] = field(default_factory=dict)
    attempt_count: int = 0
    failure_count: int = 0
    block_count: int = 0
    row_count: int = 0
    output_bytes: int = 0
    heap_bytes: int = 0  # expected
    window_bytes: int = 0  # expected of its output, at one time
    expected_bytes: int = 0  # of its output, in all

    @property
    def reserved_bytes(self) -> int:
        left = self.expected_bytes - self.output_bytes
        if left < 0:  # it gives more than was expected, and nobody knows how much
            left = self.window_bytes
        return min(self.window_bytes, left) * max(1, len(self.attempts))

    @property
    def reserved_heap_bytes(self) -> int:
        return self.heap_bytes * max(1, len(self.attempts))

    @property
    def is_alone(self) -> bool:
        """It has one attempt, and had no second one beside it."""
        return len(self.attempts) == 1 and self.attempt_count == self.failure_count + 1

    @property
    def pieces(self) -> list[Piece]:
        return [piece for some in self.plan.pieces for piece in some]

    @property
    def origin(self) -> int:
        """Of what it makes; see `Piece`."""
        if self.plan.kind in (events.READ, events.REDUCE):
            return self.plan.number
        if self.plan.kind != events.MAP:
            return -1
        first, *others = self.plan.pieces[0]
        return first.origin if all(piece.origin == first.origin for piece in others) else -1


@dataclass
class Stats:
    """What a stage has done; see `reports.Stats`."""

    tasks_started: int = 0
    tasks_ended: int = 0
    tasks_repeated: int = 0
    tasks_retried: int = 0
    workers_max: int = 0
    rows_in: int = 0
    bytes_in: int = 0
    rows_out: int = 0
    bytes_out: int = 0
    blocks_out: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    task_wall_s_max: float = 0.0
    heap_bytes_max: int = 0
    actor_bytes_max: int = 0
    blocked_s: dict[str, float] = field(default_factory=dict)


class Services(NamedTuple):
    """What a run gets of the machine that it belongs to."""

    emit: Callable[[Run, Piece], None]
    stop_inputs: Callable[[Run], None]
    progress: Callable[[flow.Edge], float]
    make_boundaries: Callable[[Run, tuple[int, ...], int, tuple[int, ...]], None]
    deliver: Callable[[int, Piece], None]
    fail: Callable[[BaseException, Run], None]
    ledger: flow.Ledger
    keeps_order: bool


class Run:
    """Of one stage. `edges` are its inputs' queues; `consumers` those that its blocks go to."""

    has_tasks = True
    parks = False

    def __init__(self, index: int, stage: Any, services: Services) -> None:
        self.index = index
        self.stage = stage
        self.services = services
        self.edges = [flow.Edge(parks=self.parks, number_bits=self._number_bits()) for _ in stage.inputs]
        self.producers: list[Run] = []  # of the edges
        self.consumers: list[tuple[Run, flow.Edge]] = []
        self.tasks: dict[int, Task] = {}
        self.again: deque[Task] = deque()  # lost, to be tried again
        self.is_closed = False
        self.sampling: stages.Exchange | None = None  # that needs samples of what the tasks make
        self.sampled: list[int] = []  # tasks that have given one
        self.stats = Stats()
        self.reason = ""
        self.order = flow.Order(self.emit, keeps=services.keeps_order)
        resources: stages.Resources = getattr(stage, "resources", stages.Resources())
        self.needs = resources.needs()
        self._learnt: dict[str, learning.Learnt] = {}
        said = resources.memory_bytes or None
        compute = getattr(stage, "compute", None)
        self.pool = pools.Pool(compute, said) if isinstance(compute, stages.ActorPool) else None
        self._heap_bytes = said if self.pool is None or said is None else 0  # the actor has it, whatever its tasks do
        self.size_max = compute.size if isinstance(compute, stages.TaskPool) else None

    def _number_bits(self) -> int | None:
        """See `flow.Edge`."""
        return None

    @property
    def name(self) -> str:
        name: str = self.stage.name
        return name

    def learnt(self, kind: str) -> learning.Learnt:
        """What its tasks of this kind are like."""
        found = self._learnt.get(kind)
        if found is None:
            block_bytes = getattr(self.stage, "block_bytes", 0) or stages.Map.block_bytes
            found = self._learnt[kind] = learning.Learnt(block_bytes=block_bytes, heap_bytes=self._heap_bytes)
        return found

    @property
    def are_short(self) -> bool:
        """Its tasks, so that they should not have to wait for one another."""
        medians = [one.median_s for one in self._learnt.values() if one.median_s is not None]
        return bool(medians) and max(medians) < SHORT_S

    @property
    def can_repeat(self) -> bool:
        return bool(getattr(self.stage, "can_repeat", False)) and self.pool is None

    def has_nothing_to_do(self, kind: str, free_count: int) -> bool:
        """Workers would be idle if it waited for more."""
        median_s = self.learnt(kind).median_s
        return not self.tasks or (free_count > 0 and (median_s is None or median_s >= QUICK_S))

    def emit(self, piece: Piece) -> None:
        if self.is_closed:  # meanwhile, by what became of the block before
            self.services.ledger.let_go([piece])
            return
        self.stats.rows_out += piece.row_count
        self.stats.bytes_out += piece.size_bytes
        self.stats.blocks_out += 1
        self.services.emit(self, piece)

    # What the kinds of stages differ in

    def begin(self) -> None:
        """Before anything else."""

    def advance(self) -> None:
        """Something came in, or an input is complete."""

    def peek(self, free_count: int, slot_count: int) -> Plan | None:
        """The next task, if so many could be started at once, of so many that the cluster runs at a time."""
        return None

    def take(self, plan: Plan) -> None:
        """What `peek` said is started."""

    def made(self, task: Task, piece: Piece) -> None:
        """A task gave a block."""
        self.order.add(task.id, piece)

    def ended(self, task: Task) -> None:
        self.order.end(task.id)

    def opens(self, task: Task) -> None:
        """The task has begun."""
        self.order.open(task.id)

    def is_paced(self, plan: Plan) -> bool:
        """Whether a task's blocks are taken as there is room. Else they are parked."""
        return True

    def parked_bytes(self, plan: Plan) -> int:
        """Of what the task would be given, which does not count as long as it waits here."""
        return 0

    def ready_count(self) -> int:
        """About how many tasks could be started."""
        return 0

    def is_exhausted(self) -> bool:
        """Nothing more will come of it."""
        return not self.tasks and not self.again and all(edge.is_complete and not edge.pieces for edge in self.edges)

    def needed_edges(self) -> list[int]:
        """The inputs that it waits for, if it cannot start anything."""
        return [index for index, edge in enumerate(self.edges) if not edge.is_complete][:1]

    def input_order(self) -> list[int]:
        """Its inputs, the one that it wants most first."""
        return list(range(len(self.edges)))

    def progress(self) -> float:
        """Which part of what it will do is done, about."""
        if self.is_closed:
            return 1.0
        edge = self.edges[0]
        left = edge.size_bytes + sum(task.plan.input_bytes or 0 for task in self.tasks.values())
        here = 1.0 - left / edge.received_bytes if edge.received_bytes else 0.0
        return max(0.0, here) * self.services.progress(edge)

    def how(self) -> str:
        """What it has decided, for the statistics."""
        return ""

    def pieces_held(self) -> list[Piece]:
        """All that it needs, those of its tasks apart. Forgets them."""
        found = self.order.clear()
        for edge in self.edges:
            for piece in edge.pieces:
                if edge.parks:
                    self.services.ledger.unpark(piece)
                found.append(piece)
            edge.pieces.clear()
            edge.size_bytes = edge.row_count = 0
        return found


class InputRun(Run):
    has_tasks = False

    def begin(self) -> None:
        """The blocks have the numbers that they have in the stage."""
        for number, block in enumerate(self.stage.blocks):
            if number in self.stage.skipped:
                continue
            metadata = block.metadata
            block_id = -1 - number - (self.index << 32)  # below 0: the executor knows them
            self.services.ledger.enter(block_id, 0)  # it is there whatever we do
            self.emit(Piece(block_id, 0, metadata.row_count, metadata.size_bytes, origin=number))

    def is_exhausted(self) -> bool:
        return True

    def progress(self) -> float:
        return 1.0


class ReadRun(Run):
    def __init__(self, index: int, stage: stages.Read, services: Services) -> None:
        super().__init__(index, stage, services)
        self._numbers = [number for number in range(len(stage.parts)) if number not in stage.skipped]
        self._next = 0

    def peek(self, free_count: int, slot_count: int) -> Plan | None:
        if self._next >= len(self._numbers):
            return None
        number = self._numbers[self._next]
        return Plan(events.READ, number, input_bytes=self.stage.parts[number].size_bytes)

    def take(self, plan: Plan) -> None:
        self._next += 1

    def ready_count(self) -> int:
        return len(self._numbers) - self._next

    def is_exhausted(self) -> bool:
        return not self.tasks and not self.again and self._next >= len(self._numbers)

    def progress(self) -> float:
        return self.stats.tasks_ended / max(1, len(self._numbers))


class MapRun(Run):
    """Of `Map` and `Write`."""

    def _number_bits(self) -> int | None:
        if not self.stage.by_part:
            return None
        return 0 if isinstance(self.stage, stages.Write) else PART_BITS  # a part is one task of a write

    def peek(self, free_count: int, slot_count: int) -> Plan | None:
        edge = self.edges[0]
        if not edge.pieces:
            return None
        count = self._bundle(edge, free_count, slot_count)
        if not count:
            return None
        pieces = tuple(edge.pieces[at] for at in range(count))
        return Plan(events.MAP, pieces[0].number, (pieces,), total_bytes(pieces))

    def _bundle(self, edge: flow.Edge, free_count: int, slot_count: int) -> int:
        """How many of the pieces are the next task; 0 if it should wait for more."""
        stage = self.stage
        if stage.by_part:
            return self._bundle_of_part(edge, free_count)
        rows: int | None = stage.bundle_rows
        target: int = stage.bundle_bytes
        if edge.is_complete:
            if not stage.is_steady and rows is None:
                target = min(target, edge.received_bytes // (TASKS_PER_SLOT * max(1, slot_count)))
            return bundled(edge.pieces, target, rows)[0]
        if not stage.is_steady and rows is None and self.has_nothing_to_do(events.MAP, free_count):
            return bundled(edge.pieces, target, rows)[0]
        there, wanted = (edge.size_bytes, target) if rows is None else (edge.row_count, rows)
        if there < wanted and len(edge.pieces) < BUNDLE_PIECES_MAX:  # without looking at each
            return 0
        count, is_full = bundled(edge.pieces, target, rows)
        return count if is_full else 0

    def _bundle_of_part(self, edge: flow.Edge, free_count: int) -> int:
        """As `_bundle`, but nothing of the next part. That the first part is here is known by the next one's coming."""
        stage = self.stage
        part = edge.pieces[0].origin
        pieces = [*itertools.takewhile(lambda piece: piece.origin == part, edge.pieces)]
        is_whole = edge.is_complete or len(pieces) < len(edge.pieces)
        if isinstance(stage, stages.Write):
            return len(pieces) if is_whole else 0
        count, is_full = bundled(pieces, stage.bundle_bytes, stage.bundle_rows)
        is_free = not stage.is_steady and stage.bundle_rows is None
        return count if is_full or is_whole or (is_free and self.has_nothing_to_do(events.MAP, free_count)) else 0

    def take(self, plan: Plan) -> None:
        for _ in plan.pieces[0]:
            self.edges[0].pop()

    def ready_count(self) -> int:
        edge = self.edges[0]
        if not edge.pieces:
            return 0
        rows: int | None = self.stage.bundle_rows
        if rows:
            return max(1, edge.row_count // rows)
        count: int = edge.size_bytes // self.stage.bundle_bytes
        return min(len(edge.pieces), count + 1)


def total_bytes(pieces: Iterable[Piece]) -> int:
    return sum(piece.size_bytes for piece in pieces)


def bundled(pieces: Sequence[Piece] | deque[Piece], target: int, row_target: int | None) -> tuple[int, bool]:
    """How many of the first pieces make one task, and whether more would be too much."""
    count = size_bytes = row_count = 0
    for piece in pieces:
        if count and row_target is None and size_bytes + piece.size_bytes > target:
            return count, True
        count += 1
        size_bytes += piece.size_bytes
        row_count += piece.row_count
        is_enough = size_bytes >= target if row_target is None else row_count >= row_target
        if is_enough or count == BUNDLE_PIECES_MAX:
            return count, True
    return count, False


class ZipRun(Run):
    """Tasks get blocks of the first input, several small ones together as those of a map do, and as many rows of the others."""

    def __init__(self, index: int, stage: stages.Zip, services: Services) -> None:
        super().__init__(index, stage, services)
        self._task_count = 0

    def advance(self) -> None:
        for edge in self.edges:
            while edge.pieces and not edge.pieces[0].row_count and (len(edge.pieces) > 1 or self._task_count):
                self.services.ledger.let_go([edge.pop()])
        wanted = max(edge.row_count for edge in self.edges)
        if any(edge.is_complete and edge.row_count < wanted for edge in self.edges):
            complete = all(edge.is_complete for edge in self.edges)
            more = "" if complete else " or more"
            counts = [f"{edge.received_rows}{'' if edge.is_complete else more}" for edge in self.edges]
            message = f"zip() takes datasets with equally many rows, got {' and '.join(counts)}; use join() for others"
            self.services.fail(ValueError(message), self)

    def peek(self, free_count: int, slot_count: int) -> Plan | None:
        edges = self.edges
        if not all(edge.pieces for edge in edges):
            return None
        is_complete = all(edge.is_complete for edge in edges)
        row_count = 0
        if any(edge.row_count for edge in edges):
            row_count = self._bundle(free_count, slot_count, is_complete=is_complete)
            if not row_count:
                return None
        elif not is_complete or self._task_count:
            return None  # nothing of nothing, once, for its schema
        pieces = tuple(tuple(_first_rows(edge.pieces, row_count)) for edge in edges)
        return Plan(events.ZIP, pieces[0][0].number, pieces, sum(map(total_bytes, pieces)))

    def _bundle(self, free_count: int, slot_count: int, *, is_complete: bool) -> int:
        """How many rows the next task gets; 0 if it should wait for more."""
        edges, is_steady = self.edges, self.stage.is_steady
        target: int = self.stage.bundle_bytes
        is_urgent = not is_steady and (is_complete or self.has_nothing_to_do(events.ZIP, free_count))
        if is_complete and not is_steady:
            each = sum(edge.received_bytes for edge in edges) // (TASKS_PER_SLOT * max(1, slot_count))
            target = min(target, each)
        is_little = sum(edge.size_bytes for edge in edges) < target and len(edges[0].pieces) < BUNDLE_PIECES_MAX
        if is_little and not is_complete and not is_urgent:  # without looking at each
            return 0
        row_count, is_full = rows_side_by_side(edges, target)
        return row_count if is_full or is_complete or is_urgent else 0

    def take(self, plan: Plan) -> None:
        self._task_count += 1
        row_count = sum(piece.row_count for piece in plan.pieces[0])
        for edge in self.edges:
            if not row_count:
                edge.pop()
                continue
            taken = edge.take_rows(row_count, self.services.ledger)
            self.services.ledger.let_go(piece for piece in taken if not piece.row_count)  # which no task is given

    def ready_count(self) -> int:
        return min(len(edge.pieces) for edge in self.edges)

    def input_order(self) -> list[int]:
        return sorted(range(len(self.edges)), key=lambda index: self.edges[index].row_count)

    def needed_edges(self) -> list[int]:
        return [index for index in self.input_order() if not self.edges[index].is_complete][:1]


def rows_side_by_side(edges: Sequence[flow.Edge], target: int) -> tuple[int, bool]:
    """How many rows the next task of a zip gets: whole blocks of the first input that have so many bytes together with what lies
    beside them, of which there must be enough here. And whether more would be too much."""
    first, *others = edges
    available = min((edge.row_count for edge in others), default=first.row_count)
    beside = [_Beside(edge.pieces) for edge in others]
    row_count = size_bytes = 0
    for count, piece in enumerate(first.pieces):
        if row_count + piece.row_count > available:
            return row_count, False
        added = piece.size_bytes + sum(one.next_bytes(piece.row_count) for one in beside)
        is_too_many = max((count + 1, *(one.piece_count for one in beside))) > BUNDLE_PIECES_MAX
        if row_count and (size_bytes + added > target or is_too_many):
            return row_count, True
        row_count += piece.row_count
        size_bytes += added
        if row_count and size_bytes >= target:
            return row_count, True
    return row_count, False


class _Beside:
    """How many bytes lie beside rows that follow one another."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = iter(pieces)
        self._left_rows = 0  # of the current one
        self._row_bytes = 0.0
        self.piece_count = 0

    def next_bytes(self, row_count: int) -> int:
        """Of so many rows more, of which there must be enough."""
        size_bytes = 0.0
        while row_count > self._left_rows:
            size_bytes += self._left_rows * self._row_bytes
            row_count -= self._left_rows
            piece = next(self._pieces)
            self._left_rows = piece.row_count
            self._row_bytes = piece.size_bytes / max(1, piece.row_count)
            self.piece_count += 1
        self._left_rows -= row_count
        return int(size_bytes + row_count * self._row_bytes)


def _first_rows(pieces: Sequence[Piece] | deque[Piece], row_count: int) -> list[Piece]:
    if not row_count:
        return [pieces[0]]
    found = []
    for piece in pieces:
        if row_count <= 0:
            break
        if piece.row_count:
            found.append(piece.part(0, min(row_count, piece.row_count)))
            row_count -= piece.row_count
    return found


class LimitRun(Run):
    has_tasks = False

    def __init__(self, index: int, stage: stages.Limit, services: Services) -> None:
        super().__init__(index, stage, services)
        self._left = stage.row_count
        self._is_over = False

    def begin(self) -> None:
        if not self._left:  # not even a schema is worth a task
            self._stop()

    def advance(self) -> None:
        edge = self.edges[0]
        while edge.pieces and not self._is_over:
            piece = edge.pop()
            piece = piece.part(0, min(self._left, piece.row_count))
            self._left -= piece.row_count
            if not self._left:
                self._is_over = True
            self.emit(piece)
        if self._is_over:
            self._stop()

    def _stop(self) -> None:
        self._is_over = True
        self.services.stop_inputs(self)

    def is_exhausted(self) -> bool:
        return self._is_over or super().is_exhausted()


class UnionRun(Run):
    has_tasks = False

    def __init__(self, index: int, stage: stages.Union, services: Services) -> None:
        super().__init__(index, stage, services)
        self._current = 0

    def advance(self) -> None:
        while self._current < len(self.edges):
            edge = self.edges[self._current]
            while edge.pieces:
                self.emit(edge.pop())
            if not edge.is_complete:
                break
            self._current += 1
        if not self.services.keeps_order:
            for edge in self.edges:
                while edge.pieces:
                    self.emit(edge.pop())

    def progress(self) -> float:
        return sum(self.services.progress(edge) for edge in self.edges) / max(1, len(self.edges))
