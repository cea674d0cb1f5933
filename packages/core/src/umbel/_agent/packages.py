"""Which packages of environments this node lacks, and of which other nodes it gets them.

A package is wanted while an environment needs it that is not here yet, and comes once for all of them. It is asked of the nodes
that are said to have it, first of all whoever wants workers of that environment, and then of every other node of the cluster,
since any of them may have it. A node that does not have it, or has died, is not asked again; one that cannot be reached, breaks
off or falls silent is asked again after the others, and one that gives packages to too many already in a moment. When nobody is
left the package cannot be had. This module only decides; `package_links` does it. No clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import Enum
from typing import Final, NamedTuple

from umbel._base import checks
from umbel._model import package_names

FETCHES_MAX: Final = 4  # at once: one fills most networks, and values come by the same
SILENCE_S: Final = 10.0  # without a byte until a node is given up: by then the head has found out whether it is dead
RETRY_S: Final = 0.1  # after a node has failed, and twice as long each time
RETRY_MAX_S: Final = 5.0
SHOWN_MAX: Final = 5  # of the nodes that did not have it, in an error


class Trouble(Enum):
    """Why a package did not come."""

    BROKEN = "broken"
    """The node could not be reached, or broke off."""
    BUSY = "busy"
    """The node has it, and gives packages to as many others as it can."""
    REFUSED = "refused"
    """The node does not have it, or what came was not it."""
    OWN = "own"
    """It cannot be kept here."""


# ---- events ----


class Coming(NamedTuple):
    """Bytes have come. Said of the first, and then at most once in a second."""

    attempt: int
    size_bytes: int
    at_s: float


class Fetched(NamedTuple):
    """It is here, and is what its name says."""

    attempt: int
    at_s: float


class NotFetched(NamedTuple):
    attempt: int
    trouble: Trouble
    reason: str
    at_s: float


class NodeDied(NamedTuple):
    node: str
    at_s: float


Event = Coming | Fetched | NotFetched | NodeDied

# ---- what to do ----


class Fetch(NamedTuple):
    """Ask the node for the package."""

    package: str
    node: str
    attempt: int


class Abandon(NamedTuple):
    """What comes of this attempt is not wanted any more, and is not told."""

    attempt: int


Step = Fetch | Abandon


class Wanted:
    """A package that is not here. attempt, node: of the present attempt, 0 and "" between two."""

    __slots__ = ("are_all_asked", "attempt", "deadline_s", "name", "node", "pause_s", "refused", "retry_s", "size_bytes",
                 "sources", "trouble")  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.sources: dict[str, None] = {}  # the next one first
        self.refused: dict[str, str] = {}  # nodes that are not asked again, and why
        self.are_all_asked = False  # every other node is among the sources, or refused
        self.attempt = 0
        self.node = ""
        self.deadline_s: float | None = None  # of the present attempt, unless more comes
        self.retry_s = 0.0  # not before
        self.pause_s = RETRY_S
        self.size_bytes = 0  # 0 while it is not known
        self.trouble = ""  # what went wrong last


class Packages:
    """Those that environments here wait for."""

    def __init__(
        self, is_here: Callable[[str], bool], other_nodes: Callable[[], Iterable[str]], bytes_max: Callable[[], int]
    ) -> None:
        """other_nodes: those of the cluster that live. bytes_max: of a package, on this node."""
        self.is_here = is_here
        self._other_nodes = other_nodes
        self._bytes_max = bytes_max
        self.wanted: dict[str, Wanted] = {}
        self._failed: dict[str, str] = {}  # and why, until that is taken up
        self._attempts = 0
        self._abandoned: list[int] = []

    def want(self, name: str, source: str) -> None:
        """source: a node that has it, as far as is known; "" if none is known to."""
        wanted = self.wanted.get(name)
        if wanted is None:
            wanted = self.wanted[name] = Wanted(name)
        if source and source not in wanted.refused:
            wanted.sources.setdefault(source)

    def apply(self, event: Event) -> str:
        """The name of the package that is here now, "" for none."""
        if isinstance(event, NodeDied):
            for wanted in self.wanted.values():
                self._refuse(wanted, event.node, "it has died")
            return ""
        found = next((one for one in self.wanted.values() if one.attempt == event.attempt), None)
        if found is None:
            return ""  # it was abandoned
        if isinstance(event, Coming):
            found.size_bytes = event.size_bytes
            found.deadline_s = event.at_s + SILENCE_S
            if event.size_bytes > self._bytes_max():
                self._failed[found.name] = (
                    f"{_named(found)} has {package_names.mebibytes(event.size_bytes)}, allowed on this node are "
                    f"{package_names.mebibytes(self._bytes_max())}; leave files out by runtime_env['excludes'], or raise "
                    "UMBEL_RUNTIME_ENV_PACKAGE_BYTES_MAX of this node"
                )
        elif isinstance(event, Fetched):
            del self.wanted[found.name]
            return found.name
        elif event.trouble is Trouble.OWN:
            self._end_attempt(found)
            self._failed[found.name] = f"{_named(found)} cannot be kept on this node: {event.reason}"
        elif event.trouble is Trouble.REFUSED:
            node = found.node
            self._end_attempt(found)
            self._refuse(found, node, event.reason)
        else:
            if event.trouble is Trouble.BROKEN:
                self._look_around(found)  # of one that is busy it is known that it has it
            self._try_later(found, event.reason, event.at_s)
        return ""

    def _end_attempt(self, wanted: Wanted) -> None:
        wanted.attempt, wanted.node, wanted.deadline_s = 0, "", None

    def _refuse(self, wanted: Wanted, node: str, reason: str) -> None:
        """It is not to be had there."""
        if wanted.node == node:
            self._abandoned.append(wanted.attempt)
            self._end_attempt(wanted)
        if node in wanted.sources:
            del wanted.sources[node]
            wanted.refused[node] = reason

    def _try_later(self, wanted: Wanted, reason: str, at_s: float) -> None:
        """It may be had there still, but others that are known to have it are asked before."""
        wanted.trouble = f"node {wanted.node}: {reason}"
        del wanted.sources[wanted.node]
        wanted.sources[wanted.node] = None  # the last one now
        self._end_attempt(wanted)
        wanted.retry_s = at_s + wanted.pause_s
        wanted.pause_s = min(RETRY_MAX_S, 2 * wanted.pause_s)

    def _look_around(self, wanted: Wanted) -> None:
        if not wanted.are_all_asked:
            wanted.are_all_asked = True
            for node in self._other_nodes():
                if node not in wanted.refused:
                    wanted.sources.setdefault(node)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = [one.deadline_s if one.attempt else one.retry_s for one in self.wanted.values() if self._is_due_once(one)]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def _is_due_once(self, wanted: Wanted) -> bool:
        return bool(wanted.attempt) or (wanted.retry_s > 0 and bool(wanted.sources) and self._running() < FETCHES_MAX)

    def _running(self) -> int:
        return sum(bool(one.attempt) for one in self.wanted.values())

    def settle(self, needed: Collection[str], at_s: float) -> tuple[list[Step], dict[str, str]]:
        """What is to be done for those that are needed, and which of them cannot be had, and why."""
        for name in [name for name in self.wanted if name not in needed]:
            self._forget(name)
        for wanted in self.wanted.values():
            if wanted.deadline_s is not None and wanted.deadline_s <= at_s:
                self._abandoned.append(wanted.attempt)
                self._look_around(wanted)
                self._try_later(wanted, f"nothing has come for {SILENCE_S:g} s", at_s)
        steps: list[Step] = []
        left = FETCHES_MAX - self._running()
        for wanted in self.wanted.values():
            if wanted.attempt or wanted.name in self._failed:
                continue
            if not wanted.sources:
                self._look_around(wanted)
            if not wanted.sources:
                self._failed[wanted.name] = _not_to_be_had(wanted)
            elif left > 0 and wanted.retry_s <= at_s:
                left -= 1
                self._attempts += 1
                wanted.attempt, wanted.node = self._attempts, next(iter(wanted.sources))
                wanted.deadline_s = at_s + SILENCE_S
                steps.append(Fetch(wanted.name, wanted.node, wanted.attempt))
        failed, self._failed = self._failed, {}
        for name in failed:
            self._forget(name)
        abandoned, self._abandoned = self._abandoned, []
        return [*(Abandon(attempt) for attempt in abandoned), *steps], failed

    def _forget(self, name: str) -> None:
        wanted = self.wanted.pop(name, None)
        if wanted is not None and wanted.attempt:
            self._abandoned.append(wanted.attempt)

    # ---- answers ----

    def doing(self, names: Iterable[str]) -> str:
        """What is done to get these, or why nothing is, in words."""
        told = [self._doing(one) for name in names if (one := self.wanted.get(name)) is not None]
        return "; ".join(told)

    def _doing(self, wanted: Wanted) -> str:
        size = f" ({package_names.mebibytes(wanted.size_bytes)})" if wanted.size_bytes else ""
        if wanted.attempt:
            return f"fetching package {wanted.name}{size} from node {wanted.node}"
        if wanted.trouble:
            return f"package {wanted.name}{size} could not be fetched from {wanted.trouble}; it is tried again"
        return f"package {wanted.name}{size} waits for its turn to be fetched, behind {FETCHES_MAX} others"

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        checks.invariant(self._running() <= FETCHES_MAX, "too many packages come at once", running=self._running())
        for name, wanted in self.wanted.items():
            checks.invariant(name == wanted.name, "a package in another's place", package=name)
            is_running = bool(wanted.attempt)
            checks.invariant(
                is_running == bool(wanted.node), "an attempt without a node, or the other way", package=name
            )
            checks.invariant(
                is_running == (wanted.deadline_s is not None), "an attempt without a deadline", package=name
            )
            checks.invariant(
                not is_running or wanted.node in wanted.sources, "asked of a node that has refused", package=name
            )
            checks.invariant(
                not wanted.refused.keys() & wanted.sources.keys(), "refused, and to be asked", package=name
            )


def _named(wanted: Wanted) -> str:
    return f"the package {package_names.SCHEME}{wanted.name} of the environment"


def _not_to_be_had(wanted: Wanted) -> str:
    shown = [f"node {node}: {why}" for node, why in [*wanted.refused.items()][:SHOWN_MAX]]
    if len(wanted.refused) > SHOWN_MAX:
        shown.append(f"and {len(wanted.refused) - SHOWN_MAX} others")
    asked = f" ({'; '.join(shown)})" if shown else ""
    return f"{_named(wanted)} is not there{asked}: {package_names.LIVE}"
