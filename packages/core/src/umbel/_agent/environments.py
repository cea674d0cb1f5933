"""Which environments are to be built, which of their fork servers are ready, and which are no longer needed.

A key stands for all that has to be built; equal ones share a fork server. A server lacks packages, which come from other
nodes (`packages`), or is queued, building or ready. It is wanted while a demand waits for it, a worker of it lives, or a client
holds it for its job; otherwise it goes after a while. A build that fails fails those who wait for it now; whoever asks later
starts another one. One that was killed is started again for those who wait, a few times, as is a server that was ready. This
module only decides; `servers` does it, and tells how it went. It is not imported before somebody needs it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from umbel._agent import packages
from umbel._base import checks
from umbel._model import package_names, reasons

BUILDS_MAX = 4  # at once: they load the network and the disk more than the processors
IDLE_S = 30.0  # that a server without work is kept: it costs memory, and starting it again tenths of a second
ABANDONED_S = 2.0  # that a build goes on which nobody wants any more: a program may be about to ask again
LOSSES_MAX = (
    3  # of servers that were ready, or killed, in a row before a worker of them was, until those who wait are told
)


SETUP_TIMEOUT_S = 600.0  # where the environment does not say: large packages over a slow network; Ray's


def build_of(env: Mapping[str, Any]) -> tuple[str, float | None]:
    """What has to be built for an environment as it travels, as canonical text, and how long that may take at most, in
    seconds; None for no limit. The text is of an object with "built" and, for workers of a job of its own, "job"."""
    limit_s = (env.get("config") or {}).get("setup_timeout_seconds", SETUP_TIMEOUT_S)
    wanted = {"built": env.get("built") or {}, **({"job": env["job"]} if "job" in env else {})}
    key = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return key, None if limit_s == -1 else float(limit_s)


class State(Enum):
    LACKING = "lacking"
    QUEUED = "queued"
    BUILDING = "building"
    READY = "ready"


class Server:
    """One environment's fork server, from the wish for it on."""

    __slots__ = ("deadline_s", "doing", "id", "key", "lacks", "since_s", "state", "timeout_s", "unwanted_since_s")

    def __init__(self, id: str, key: str, timeout_s: float | None, at_s: float) -> None:
        self.id = id
        self.key = key
        self.timeout_s = timeout_s
        self.state = State.QUEUED
        self.since_s = at_s  # when it came into this state
        self.deadline_s: float | None = None  # of its build, or before it of its packages
        self.lacks: set[str] = set()  # packages
        self.doing = ""  # what its build does, in words
        self.unwanted_since_s: float | None = None

    @property
    def is_process(self) -> bool:
        """Whether there is one that builds it, or serves."""
        return self.state in (State.BUILDING, State.READY)


# ---- events ----


class Held(NamedTuple):
    """A client's job will need this environment: it is built now, and kept while the client is there."""

    client: str
    key: str
    timeout_s: float | None
    at_s: float


class Doing(NamedTuple):
    """What the build of a server's environment does now, in words."""

    server: str
    text: str
    at_s: float


class Ready(NamedTuple):
    """A server can start workers."""

    server: str
    at_s: float


class Gone(NamedTuple):
    """A server's process has ended by itself; the ends of its workers are told after it. reason: why, with the output
    of its build. was_killed: it did not say why, and somebody has killed it, whatever it is the server of."""

    server: str
    reason: str
    at_s: float
    was_killed: bool = False


Event = Held | Doing | Ready | Gone | packages.Event

# ---- what to do ----


class Begin(NamedTuple):
    """Build what `key` says, and make a fork server of it with this id."""

    server: str
    key: str


class End(NamedTuple):
    """End a server, or its build. Its end is not told any more; those of its workers are."""

    server: str


class Fail(NamedTuple):
    """Whoever waits for this environment now shall wait no longer. log_of: the server whose output belongs to it.
    is_held: it was built for a job."""

    key: str
    reason: str
    log_of: str = ""
    is_held: bool = False


Step = Begin | End | Fail | packages.Step


class Environments:
    """The machine. Its caller is the agent's, and passes on what it decides."""

    def __init__(self, ids: Iterator[str], packages: packages.Packages | None = None) -> None:
        """packages: None where all are there that anybody asks for."""
        self._ids = ids
        self._packages = packages
        self.servers: dict[str, Server] = {}  # by key
        self._held: dict[str, set[str]] = {}  # client -> keys
        self._losses: dict[str, int] = {}  # key -> ready servers lost in a row

    # ---- wishes ----

    def want(self, key: str, timeout_s: float | None, at_s: float, source: str = "") -> str | None:
        """Somebody needs workers of it. source: another node that has its packages; "" for none. Returns the id of its server
        when that is ready."""
        server = self.servers.get(key)
        if server is None:
            server = self.servers[key] = Server(next(self._ids), key, timeout_s, at_s)
            if self._packages is not None:
                server.lacks = {name for name in package_names.names_in(key) if not self._packages.is_here(name)}
            if server.lacks:
                _enter(server, State.LACKING, at_s)
        if server.lacks and self._packages is not None:
            for name in sorted(server.lacks):
                self._packages.want(name, source)
        return server.id if server.state is State.READY else None

    def _all_held(self) -> set[str]:
        return set().union(*self._held.values())

    def client_gone(self, client: str) -> None:
        self._held.pop(client, None)

    # ---- what happened ----

    def apply(self, event: Event) -> list[Step]:
        if isinstance(event, Held):
            self._held.setdefault(event.client, set()).add(event.key)
            self.want(event.key, event.timeout_s, event.at_s)
            return []
        if isinstance(event, packages.Event):
            self._on_package(event)
            return []
        server = next((one for one in self.servers.values() if one.id == event.server), None)
        if server is None:
            return []  # it was ended, and did not know yet
        if isinstance(event, Gone):
            return self._gone(server, event)
        if isinstance(event, Doing):
            server.doing = event.text
        elif server.state is State.BUILDING:
            _enter(server, State.READY, event.at_s)
        return []

    def _on_package(self, event: packages.Event) -> None:
        come = self._packages.apply(event) if self._packages is not None else ""
        for server in self.servers.values() if come else ():
            server.lacks.discard(come)
            if server.state is State.LACKING and not server.lacks:
                _enter(server, State.QUEUED, event.at_s)

    def _gone(self, server: Server, event: Gone) -> list[Step]:
        del self.servers[server.key]
        reason = event.reason
        if server.state is State.READY or event.was_killed:
            losses = self._losses[server.key] = self._losses.get(server.key, 0) + 1
            if losses < LOSSES_MAX:
                return []
            reason = f"its fork server died {losses} times in a row before a worker was ready: {reason}"
        self._losses.pop(server.key, None)
        return [Fail(server.key, reason, is_held=server.key in self._all_held())]

    def worker_ready(self, key: str) -> None:
        self._losses.pop(key, None)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = []
        for server in self.servers.values():
            if server.deadline_s is not None:
                due.append(server.deadline_s)
            if server.unwanted_since_s is not None:
                due.append(server.unwanted_since_s + _patience_s(server))
        if self._packages is not None and (at_s := self._packages.next_tick_s()) is not None:
            due.append(at_s)
        return min(due, default=None)

    def settle(self, wanted: Container[str], at_s: float) -> list[Step]:
        """Bring everything in line after an event. wanted: keys for which a demand waits or a worker lives."""
        steps: list[Step] = []
        held = self._all_held()
        for key, server in list(self.servers.items()):
            if key in wanted or key in held:
                server.unwanted_since_s = None
            elif server.unwanted_since_s is None:
                server.unwanted_since_s = at_s
            if server.deadline_s is not None and server.deadline_s <= at_s:
                del self.servers[key]
                steps.append(Fail(key, self._too_late(server), server.id if server.is_process else "", key in held))
                steps += [End(server.id)] if server.is_process else []
            elif server.unwanted_since_s is not None and server.unwanted_since_s + _patience_s(server) <= at_s:
                del self.servers[key]
                steps += [End(server.id)] if server.is_process else []
        return [*steps, *self._settle_packages(held, at_s), *self._begin(at_s)]

    def _too_late(self, server: Server) -> str:
        doing = server.doing if server.is_process else self._lacks_in_words(server)
        limit = f"{server.timeout_s:g} s, which is setup_timeout_seconds in runtime_env['config']"
        what = "built" if server.is_process else "here"
        return f"it was not {what} within {limit}{f' (it was at: {doing})' if doing else ''}"

    def _settle_packages(self, held: Container[str], at_s: float) -> list[Step]:
        if self._packages is None:
            return []
        found: list[Step] = []
        while True:  # a server that fails leaves others of its packages that nobody needs any more
            needed = set().union(*(server.lacks for server in self.servers.values()))
            steps, failed = self._packages.settle(needed, at_s)
            found += steps
            if not failed:
                return found
            for key, server in list(self.servers.items()):
                hit = sorted(server.lacks & failed.keys())
                if hit:
                    del self.servers[key]
                    found.append(Fail(key, failed[hit[0]], is_held=key in held))

    def _begin(self, at_s: float) -> list[Step]:
        steps: list[Step] = []
        left = BUILDS_MAX - sum(server.state is State.BUILDING for server in self.servers.values())
        for server in self.servers.values():
            if left > 0 and server.state is State.QUEUED:
                left -= 1
                _enter(server, State.BUILDING, at_s)
                steps.append(Begin(server.id, server.key))
        return steps

    # ---- answers ----

    def reason(self, key: str, at_s: float) -> reasons.Reason | None:
        """Why there is no server yet; None if there is one."""
        server = self.servers.get(key)
        if server is None or server.state is State.READY:
            return None
        for_s = at_s - server.since_s
        facts = {"server": server.id, "state": server.state.value, "for_s": for_s}
        text = self._in_words(server, f" for {for_s:.0f} s")
        return reasons.Reason(reasons.ENVIRONMENT, "its runtime environment", text, facts=facts)

    def unready(self) -> dict[str, str]:
        """The same of all keys whose servers are not ready, without how long that takes."""
        unready = [one for one in self.servers.values() if one.state is not State.READY]
        return {server.key: self._in_words(server, "") for server in unready}

    def _in_words(self, server: Server, for_: str) -> str:
        if server.state is State.QUEUED:
            return f"waits for its turn to be built, behind {BUILDS_MAX} others"
        if server.state is State.LACKING:
            return f"lacks files{for_}: {self._lacks_in_words(server)}"
        return f"is being built{for_}" + (f": {server.doing}" if server.doing else "")

    def _lacks_in_words(self, server: Server) -> str:
        return self._packages.doing(sorted(server.lacks)) if self._packages is not None else ""

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        building = 0
        for key, server in self.servers.items():
            building += server.state is State.BUILDING
            checks.invariant(key == server.key, "a server in another's place", server=server.id)
            checks.invariant(bool(server.lacks) == (server.state is State.LACKING), "built without its packages, or not built "
                             "with them", server=server.id)  # fmt: skip
            is_limited = server.timeout_s is not None and server.state in (State.LACKING, State.BUILDING)
            checks.invariant(is_limited == (server.deadline_s is not None), "a deadline without a build, or none for one",
                             server=server.id)  # fmt: skip
        checks.invariant(building <= BUILDS_MAX, "too many builds at once", building=building)
        if self._packages is not None:
            self._packages.check()


def _enter(server: Server, state: State, at_s: float) -> None:
    server.state = state
    server.since_s = at_s
    takes_time = state in (State.LACKING, State.BUILDING)
    server.deadline_s = at_s + server.timeout_s if takes_time and server.timeout_s is not None else None


def _patience_s(server: Server) -> float:
    return IDLE_S if server.state is State.READY else ABANDONED_S
