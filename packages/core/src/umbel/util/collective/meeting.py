"""How the ranks of a group find each other: who came first, whom the others go to, and what does not fit together.

Pure. The first rank to arrive is the host of its round: it opens a door, and the others go there at once, so host and
guests notice each other's deaths from then on. A meeting that a rank has called is for one round, of which that rank is
the host, and closed when all have arrived or the host has given up. One that a driver has called for a group that it
declares has rounds one after another, and in each the first to arrive is the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Lead(NamedTuple):
    """You came first: open your door."""


class Join(NamedTuple):
    """Go to this door, or, from another machine, to the process whose it is."""

    door: bytes
    process: bytes


class Refuse(NamedTuple):
    """You cannot take part; why."""

    text: str


class Closed(NamedTuple):
    """This meeting is over and about to go: call another one."""


Answer: TypeAlias = "Lead | Join | Refuse | Closed"


class Arrival(NamedTuple):
    """A rank, what it wants to take part in, and its door, which is used if it is the host, with its process's id."""

    rank: int
    world_size: int
    backend: str
    door: bytes
    process: bytes = b""


@dataclass(frozen=True)
class Declaration:
    """A group as a driver has declared it. ranks: by the ids of the actors, in hex."""

    world_size: int
    backend: str
    timeout_s: float
    ranks: Mapping[str, int]


@dataclass
class _Round:
    host: Arrival
    ranks: set[int]


class Meeting:
    """The place where one group, by its name, comes together."""

    def __init__(self, host: Arrival | None = None) -> None:
        """host: the rank that calls it; None for a driver."""
        self._round = None if host is None else _Round(host, {host.rank})
        self._is_for_one_round = host is not None
        self.declaration: Declaration | None = None

    def declare(self, declaration: Declaration) -> str | Closed:
        """Why that is not possible; empty when it is done."""
        if self._is_for_one_round and self._round is None:
            return Closed()
        if self.declaration is not None or self._is_for_one_round:
            return "there is a group of that name already; destroy it first, or choose another name"
        self.declaration = declaration
        return ""

    def arrive(self, one: Arrival) -> Answer:
        found = self._round
        if found is None:
            if self._is_for_one_round:
                return Closed()
            if one.world_size > 1:
                self._round = _Round(one, {one.rank})
            return Lead()
        host = found.host
        if one == host:
            return Lead()
        if (one.world_size, one.backend) != (host.world_size, host.backend):
            return Refuse(
                f"rank {one.rank} came for {one.world_size} ranks by {one.backend!r}, and rank {host.rank} for "
                f"{host.world_size} by {host.backend!r}; all ranks must give the same world_size and backend"
            )
        if one.rank in found.ranks:
            return Refuse(
                f"two processes came as rank {one.rank}; give each its own rank from 0 to {one.world_size - 1}"
            )
        found.ranks.add(one.rank)
        if len(found.ranks) == host.world_size:
            self._round = None
        return Join(host.door, host.process)

    def abandon(self, door: bytes) -> None:
        """The round of this door has come to nothing."""
        if self._round is not None and self._round.host.door == door:
            self._round = None
