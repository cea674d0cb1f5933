"""Why something waits: a code for programs, words for people, and what it waits for in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# The codes. Of what an owner sees:
READY = "ready"
KEPT = "kept"  # why an object is alive, rather than why it is not there
ON_DISK = "on-disk"  # ready, and not in memory
RESTORING = "restoring"  # ready, and being read back from disk
ARGUMENT = "argument"  # an argument is not there
CONSTRUCTOR_ARGUMENT = "constructor-argument"  # of the actor that is to run it
WORKER = "worker"  # it has no worker
QUEUED = "queued"  # at a worker or actor, behind others
RUNNING = "running"
ACTOR = "actor"  # its actor is not there, or was not told of it yet
ELSEWHERE = "elsewhere"  # another process computes it
NODE = "node"  # and that is on another node
MEMORY = "memory"  # it was killed when memory was short, and is held back for a moment
UNKNOWN = "unknown"  # who should know did not answer, or has forgotten it
DEADLOCK = "deadlock"  # it waits for itself
COLLECTIVE = "collective"  # other ranks of its collective group have not come so far
GRAPH = "graph"  # a value of a compiled graph has not come
GROUP = "placement-group"  # it is to run in a group that has no place yet
READER = "reader"  # as many items of a generator are unread as may be
ROOM = "room"  # the object store is full
TRANSFER = "transfer"  # a copy of it is being fetched from another node
# Of what the agent sees:
INFEASIBLE = "infeasible"  # no node can ever have what it asks for
RESOURCES = "resources"  # others have it now
LIMIT = "limit"  # as many of its kind run as may
TURN = "turn"  # an older demand goes first
ENVIRONMENT = "environment"  # its runtime environment is being built
STARTING = "starting"  # its worker process is being started


class Reason(NamedTuple):
    """Why `subject` waits. `str()` is the whole story.

    subject: in words, such as "object 01ab…, the result of f,", or "" where the text is all. text: what it waits for, as
    the rest of a sentence. advice: what would unblock it, if somebody can do something. facts: ids, amounts and times
    (seconds) for programs; JSON. because: what it waits for waits for this; None where the story ends.
    """

    code: str
    subject: str
    text: str
    advice: str = ""
    facts: Mapping[str, Any] = {}
    because: Reason | None = None

    def __str__(self) -> str:
        return ": ".join(one._in_words() for one in self.chain())

    def _in_words(self) -> str:
        return f"{self.subject} {self.text}".lstrip() + (f"; {self.advice}" if self.advice else "")

    def chain(self) -> list[Reason]:
        """This reason and those behind it, first to last."""
        links = [self]
        while links[-1].because is not None:
            links.append(links[-1].because)
        return links

    def last(self) -> Reason:
        return self.chain()[-1]

    def followed_by(self, more: Reason) -> Reason:
        """The same story with `more` at its end."""
        told = more
        for one in reversed(self.chain()):
            told = one._replace(because=told)
        return told

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] | None = None
        for one in reversed(self.chain()):
            told = {**one._asdict(), "facts": dict(one.facts), "because": told}
        return told or {}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Reason:
        links: list[Mapping[str, Any]] = [read]
        while links[-1]["because"] is not None:
            links.append(links[-1]["because"])
        last = told = cls(**links.pop())
        for one in reversed(links):
            told = cls(**{**one, "because": told})
        return told if links else last
