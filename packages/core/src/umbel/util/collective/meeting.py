"""How the ranks of a group find each other: who came first, whom the others go to, and what does not fit together.

Pure. The first rank to arrive is the host of its round: it opens a door, and the others go there at once, so host and
guests notice each other's deaths from then on. When all have arrived, or the host has given up, the next to arrive
begins another round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Lead(NamedTuple):
    """You came first: open your door."""


class Join(NamedTuple):
    """Go to this door."""

    door: bytes


class Refuse(NamedTuple):
    """You cannot take part; why."""

    text: str


Answer: TypeAlias = "Lead | Join | Refuse"


@dataclass(frozen=True)
class Declaration:
    """A group as a driver has declared it. ranks: by the ids of the actors, in hex."""

    world_size: int
    backend: str
    timeout_s: float
    ranks: Mapping[str, int]


@dataclass
class _Round:
    door: bytes
    world_size: int
    backend: str
    ranks: set[int]


class Meeting:
    """The place where one group, by its name, comes together."""

    def __init__(self) -> None:
        self._round: _Round | None = None
        self.declaration: Declaration | None = None

    def declare(self, declaration: Declaration) -> str:
        """Why that is not possible; empty when it is done."""
        if self.declaration is not None or self._round is not None:
            return "there is a group of that name already; destroy it first, or choose another name"
        self.declaration = declaration
        return ""

    def arrive(self, rank: int, world_size: int, backend: str, door: bytes) -> Answer:
        """door: of the rank that arrives; used if it is the first."""
        found = self._round
        if found is None:
            if world_size > 1:
                self._round = _Round(door, world_size, backend, {rank})
            return Lead()
        if (world_size, backend) != (found.world_size, found.backend):
            return Refuse(
                f"rank {rank} came for {world_size} ranks by {backend!r}, and rank {min(found.ranks)} for "
                f"{found.world_size} by {found.backend!r}; all ranks must give the same world_size and backend"
            )
        if rank in found.ranks:
            return Refuse(f"two processes came as rank {rank}; give each its own rank from 0 to {world_size - 1}")
        found.ranks.add(rank)
        if len(found.ranks) == world_size:
            self._round = None
        return Join(found.door)

    def arrived(self) -> set[int]:
        """Who has come to the round that is open."""
        return set() if self._round is None else set(self._round.ranks)

    def abandon(self, door: bytes) -> None:
        """The round of this door has come to nothing."""
        if self._round is not None and self._round.door == door:
            self._round = None
