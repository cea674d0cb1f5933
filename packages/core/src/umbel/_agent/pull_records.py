"""What is known of a value that is being pulled, and of each node that it is pulled from. For `pulls`."""

from __future__ import annotations

import enum
from typing import NamedTuple

from umbel._agent.pull_commands import Code, Priority
from umbel._objects import segments


class State(enum.Enum):
    CONNECTING = "is being connected to"
    OPEN = "sends"
    LOST = "was lost, and is tried again"


class Source:
    """A node that has the value, or a part of it. chunks: None for all."""

    __slots__ = (
        "asked", "chunk_s", "chunks", "declined", "generation", "is_slow", "is_sure", "node", "retry_at_s", "segment",
        "state", "tries",
    )  # fmt: skip

    def __init__(self, node: str, segment: str, chunks: set[int] | None) -> None:
        self.node = node
        self.segment = segment
        self.state = State.CONNECTING
        self.generation = ""
        self.is_sure = False
        self.is_slow = False
        self.chunks = chunks
        self.declined: set[int] = set()  # it has sent us to others for these
        self.asked: dict[int, float] = {}  # chunk -> since when
        self.chunk_s = 0.0  # what one took lately
        self.tries = 0
        self.retry_at_s = 0.0

    @property
    def is_open(self) -> bool:
        return self.state is State.OPEN

    @property
    def is_of_use(self) -> bool:
        """Whether what it has is to be had from it, now or in a moment."""
        return self.state is not State.LOST and not self.is_slow

    def has(self, chunk: int) -> bool:
        return self.chunks is None or chunk in self.chunks


class Pull:
    """One value that is wanted here and not here. A chunk is missing, asked for or arrived."""

    __slots__ = (
        "arrived", "asked", "askers", "chunk_count", "confirming", "failed", "full_count", "generation",
        "inquires_until_s", "is_admitted", "missing", "number", "object_id", "places", "room_bytes",
        "size_bytes", "sources", "troubles", "was_inquired",
    )  # fmt: skip

    def __init__(self, object_id: str, size_bytes: int, chunk_count: int, number: int) -> None:
        self.object_id = object_id
        self.size_bytes = size_bytes
        self.chunk_count = chunk_count
        self.number = number  # its age
        self.askers: dict[str, Priority] = {}
        self.places: dict[str, str] = {}  # node -> segment: as whoever wants it knows, or its owner
        self.was_inquired = False
        self.full_count = 0  # how often the system had not the room for it that the store had granted
        self.inquires_until_s: float | None = None  # while the owner's node is asked
        self.reset()

    def reset(self) -> None:
        """Nothing of it has come."""
        self.is_admitted = False
        self.room_bytes = segments.page_bytes(self.size_bytes)  # of its file, once that is there
        self.generation = ""
        self.sources: dict[str, Source] = {}
        self.failed: dict[str, None] = {}  # nodes that did not do
        self.troubles: dict[Code, str] = {}  # why, where it is not that they have it no more
        self.missing: dict[int, None] = dict.fromkeys(range(self.chunk_count))
        self.asked: dict[int, str] = {}  # chunk -> node
        self.arrived: dict[int, bool] = {}  # chunk -> whether it is sure to be right
        self.confirming = ""  # the node that was asked

    @property
    def priority(self) -> Priority:
        return min(self.askers.values())

    @property
    def order(self) -> tuple[Priority, int]:
        return self.priority, self.number

    @property
    def authority(self) -> str:
        return authority_of(self.generation)


class Had(NamedTuple):
    """What this node has of a value, for others. chunks: None for all."""

    size_bytes: int
    generation: str
    is_sure: bool
    chunks: frozenset[int] | None


def authority_of(generation: str) -> str:
    """The node that can say whether a generation holds."""
    return generation.partition(":")[0]
