"""What `pulls` wants done, by `mover`: the commands of that machine, and what they are said in.

Each is answered by one of its events, if anything has to be.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Priority(enum.IntEnum):
    """Lower values go first, as Ray orders pulls."""

    GET = 0  # a program waits
    ARGUMENT = 1  # of a task that is to start here
    PREFETCH = 2


class Code(str, enum.Enum):
    """Why a pull failed."""

    LOST = "lost"  # no source has it any more
    UNREACHABLE = "unreachable"  # a source may have it, and could not be connected to; nobody says that it is dead
    ELSEWHERE = "elsewhere"  # a source knows where it is, and cannot give it
    FREED = "freed"  # its owner says that nobody needs it
    FULL = "full"  # the store has no room, and nobody makes any
    TOO_LARGE = "too-large"  # for the store, whoever makes room


class Reserve(NamedTuple):
    """Ask the store for so much room. Answered by `room_granted`, perhaps with less, or `room_refused`."""

    size_bytes: int


class Release(NamedTuple):
    size_bytes: int


class Create(NamedTuple):
    """Make the file that the value's chunks are to be written to, or take the one that was kept under this number."""

    object_id: str
    size_bytes: int
    warm: int | None = None


class Abandon(NamedTuple):
    """The file of an unfinished pull goes."""

    object_id: str


class Drop(NamedTuple):
    """The file of a copy goes. Nobody here looks at it."""

    object_id: str


class Keep(NamedTuple):
    """The file of a copy is kept for another, under this number. Nobody looks at it or is being sent it."""

    object_id: str
    warm: int


class Discard(NamedTuple):
    """A file that was kept goes."""

    warm: int


class Connect(NamedTuple):
    """Ask this node for the value. Answered by `opened`, `gone` or `source_lost`. segment: "" where it is known by its id."""

    object_id: str
    node: str
    segment: str
    size_bytes: int


class Inquire(NamedTuple):
    """Nobody that is known of has it: ask its owner's node who else does. Answered by `owner_told`."""

    object_id: str


class Ask(NamedTuple):
    """For a chunk. Answered by `chunk_arrived`, `elsewhere`, `gone` or `source_lost`. without: nodes that do not do."""

    object_id: str
    node: str
    chunk: int
    priority: Priority
    without: tuple[str, ...]


class Cancel(NamedTuple):
    """The chunk is not wanted from there any more: nothing of what still comes may be written."""

    object_id: str
    node: str
    chunk: int


class Confirm(NamedTuple):
    """Ask the authority whether the generation still holds. Answered by `confirmed` or `source_lost`."""

    object_id: str
    node: str


class Close(NamedTuple):
    """Nothing more is wanted of this source. has_all: this node has a right copy now, and may be named to others."""

    object_id: str
    node: str
    has_all: bool


class Withdraw(NamedTuple):
    """What this node has of the value must not be given to others any more."""

    object_id: str


class Deliver(NamedTuple):
    """The copy is complete and right. All these may look at it until they say `unwanted`."""

    object_id: str
    askers: tuple[str, ...]


class Fail(NamedTuple):
    object_id: str
    askers: tuple[str, ...]
    code: Code
    text: str


PullCommand = (
    Reserve
    | Release
    | Create
    | Abandon
    | Drop
    | Keep
    | Discard
    | Connect
    | Inquire
    | Ask
    | Cancel
    | Confirm
    | Close
    | Withdraw
    | Deliver
    | Fail
)
