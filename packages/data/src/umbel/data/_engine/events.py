"""What the scheduler is told, and what it wants done.

Tasks, attempts, actors, blocks, deliveries and consumers are numbers: tasks, actors and deliveries are numbered by the
scheduler, blocks and attempts' results by whoever carries out. Each event says when it was observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

READ = "read"
MAP = "map"  # of `Write` too
SAMPLE = "sample"
PARTITION = "partition"
REDUCE = "reduce"
SHARES = ("share of the first", "share of the second")  # of a partition whose inputs both have to be whole
RESTS = ("rest of the first", "rest of the second")  # what these leave: see `stages.Exchange.apart`
REDUCING = (REDUCE, *SHARES, *RESTS)
ZIP = "zip"
MAKING = (READ, MAP, ZIP, *REDUCING)  # of a stage's own blocks


class Piece(NamedTuple):
    """Rows of a block. number: which of the blocks that the stage gets it is, the same in every run. origin: the number of the
    part of a read, or of the input's block, that all its rows come of; -1 where they come of several, or nobody knows."""

    block: int
    offset: int
    row_count: int
    size_bytes: int
    number: int = 0
    origin: int = -1

    def part(self, offset: int, row_count: int) -> Piece:
        """So many of these rows, from `offset` on."""
        if not offset and row_count == self.row_count:
            return self
        size_bytes = self.size_bytes * row_count // max(1, self.row_count)
        return Piece(self.block, self.offset + offset, row_count, size_bytes, self.number, self.origin)


class Cost(NamedTuple):
    """What a task took. heap_bytes: the most that it had at once beyond what its process had before. held_bytes: what its actor
    has now beyond what it began with."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    heap_bytes: int = 0
    held_bytes: int = 0


# Events


class Began(NamedTuple):
    """The run begins. resources: all that the cluster has, by core's names."""

    resources: Mapping[str, float]
    at_s: float


class BlockMade(NamedTuple):
    """The next block of a task has come. Those of a partition task are its shards, in order."""

    task: int
    attempt: int
    block: int
    row_count: int
    size_bytes: int
    at_s: float


class TaskEnded(NamedTuple):
    """After all of its blocks."""

    task: int
    attempt: int
    cost: Cost
    at_s: float


class TaskFailed(NamedTuple):
    """is_lost: the system's failure, not the user's; another attempt may do better."""

    task: int
    attempt: int
    error: BaseException
    is_lost: bool
    at_s: float


class ActorReady(NamedTuple):
    """held_bytes: what it has beyond what its process began with."""

    actor: int
    at_s: float
    held_bytes: int = 0


class ActorDied(NamedTuple):
    """It could not be made, or is gone. What it had in hand has failed, or will."""

    actor: int
    error: BaseException
    is_lost: bool
    at_s: float


class Took(NamedTuple):
    """The consumer has no more use for what was delivered."""

    delivery: int
    at_s: float


class ConsumerDone(NamedTuple):
    """It wants no more."""

    consumer: int
    at_s: float


class ResourcesChanged(NamedTuple):
    resources: Mapping[str, float]
    at_s: float


class BoundariesMade(NamedTuple):
    """What `MakeBoundaries` asked for is there."""

    stage: int
    at_s: float


class TimePassed(NamedTuple):
    at_s: float


Event = (
    Began
    | BlockMade
    | TaskEnded
    | TaskFailed
    | ActorReady
    | ActorDied
    | Took
    | ConsumerDone
    | ResourcesChanged
    | BoundariesMade
    | TimePassed
)


# Commands


class StartTask(NamedTuple):
    """number: of a read, the part; of a reduction, the partition; of a partition, the input. pieces: for each input.
    skipped_blocks: so many of its first blocks are here from an attempt before. actor: None for a worker. has_cpus: False
    if its CPUs are with tasks that are held back, so that it would wait for ever."""

    task: int
    attempt: int
    stage: int
    kind: str
    number: int
    pieces: tuple[tuple[Piece, ...], ...]
    skipped_blocks: int = 0
    actor: int | None = None
    partition_count: int = 0
    has_cpus: bool = True


class CancelTask(NamedTuple):
    """Nobody waits for its end."""

    task: int
    attempt: int


class PauseTask(NamedTuple):
    """Take no more of its blocks, until it is resumed."""

    task: int
    attempt: int


class ResumeTask(NamedTuple):
    task: int
    attempt: int


class StartActor(NamedTuple):
    actor: int
    stage: int
    has_cpus: bool = True


class StopActor(NamedTuple):
    actor: int


class MakeBoundaries(NamedTuple):
    """From the samples of these tasks, in order; or else from the numbers of rows."""

    stage: int
    tasks: tuple[int, ...]
    partition_count: int
    row_counts: tuple[int, ...] = ()


class Deliver(NamedTuple):
    delivery: int
    consumer: int
    piece: Piece


class Release(NamedTuple):
    """Nobody needs the block any more."""

    block: int


class CloseConsumer(NamedTuple):
    """It gets no more."""

    consumer: int


class Warn(NamedTuple):
    """Nothing has happened for `since_s`. reasons: for each stage that has not ended, what it waits for."""

    since_s: float
    reasons: Mapping[str, str]


class Finish(NamedTuple):
    """All is done; whatever still runs was cancelled."""


class Fail(NamedTuple):
    """stage: the name of whose task failed, None if nobody's did. pieces: what the task had to do."""

    error: BaseException
    stage: str | None = None
    task: int | None = None


Command = (
    StartTask
    | CancelTask
    | PauseTask
    | ResumeTask
    | StartActor
    | StopActor
    | MakeBoundaries
    | Deliver
    | Release
    | CloseConsumer
    | Warn
    | Finish
    | Fail
)
