"""Processes of other nodes that lease workers of this one.

They are *guests*: clients of this node's agent as its own processes are, but told by way of their node's daemon. A guest is gone
when its node says so, or when that node's connection breaks. Made, and loaded, once there is another node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from umbel._agent import events as ev

if TYPE_CHECKING:
    from umbel._agent import lease_links
    from umbel._agent.lease_groups import LeaseGroups
    from umbel._agent.lease_jobs import LeaseJobs
    from umbel._agent.lease_service import LeaseService
    from umbel._scheduling import forwarding

Message = dict[str, Any]


class Daemon(Protocol):
    """What is needed of the daemon that this is in."""

    leases: LeaseService

    def now_s(self) -> float: ...

    def decide(self, *events: Any) -> None: ...

    def carry_out(self, commands: Iterable[Any]) -> None: ...

    def add_commands(self, handlers: Mapping[type, Callable[[Any], None]]) -> None: ...


class GuestWant(NamedTuple):
    """A process of another node wants leases here: a "want". To be looked at when the agent's machine is told of it."""

    lessee: Any
    message: Message


class LeaseGuests:
    def __init__(
        self, daemon: Daemon, node: str, jobs: LeaseJobs, groups: LeaseGroups, given: forwarding.Given
    ) -> None:
        self._daemon = daemon
        self._node = node
        self._jobs = jobs
        self._groups = groups
        self._given = given
        self._homes: dict[str, lease_links.Lessee] = {}  # of guests
        daemon.add_commands({GuestWant: self._want})

    def home_of(self, client: str) -> lease_links.Lessee | None:
        """None for who is none of them."""
        return self._homes.get(client)

    @property
    def has_any(self) -> bool:
        return bool(self._homes)

    def lessees(self) -> set[lease_links.Lessee]:
        """That have guests."""
        return {*self._homes.values()}

    def on_lessee(self, lessee: lease_links.Lessee, message: Message) -> None:
        """One of "want", "leave", "return" and "kill"."""
        kind = message["t"]
        if kind == "want":
            self._daemon.carry_out([GuestWant(lessee, message)])
        elif kind == "check":
            trouble = self._daemon.leases.trouble(message["client"], message["worker"])
            if trouble is not None:
                lessee.send({"t": "tell", "client": message["client"], "message": trouble})
        elif message["client"] not in lessee.guests:
            return
        elif kind == "leave":
            lessee.guests.discard(message["client"])
            self._gone(message["client"])
        elif kind == "return":
            self._daemon.leases.returned(message["client"], message["worker"], is_retired=message["retire"])
        else:
            now_s = self._daemon.now_s()
            self._daemon.decide(ev.KillRequested(message["client"], message["worker"], message["reason"], now_s))

    def _want(self, command: GuestWant) -> None:
        lessee, message = command
        client, job = message["client"], self._jobs.here(message["job"])
        if lessee.connection.is_closed:
            return
        if client not in self._homes:
            if not message["count"]:
                return
            self._homes[client] = lessee
            lessee.guests.add(client)
            self._daemon.decide(ev.ClientJoined(client, self._daemon.now_s()))
        elif self._homes[client] is not lessee:
            return  # no process is of two nodes
        count = self._given.still_wanted(client, message["key"], message["count"], message["heard"])
        trouble = ""
        if count and not self._jobs.is_known(job):
            trouble = lessee.jobs.get(job) or f"its job {job} has ended"
        if trouble:
            self._daemon.leases.tell_failed(client, message["key"], f"it cannot be run: {trouble}")
            return
        if message["group"]:
            lessee.groups.add(message["group"]["placement_group"])
            self._groups.are_wanted = True
        on_this_node = {"node_id": self._node, "soft": False, "fails_when_busy": True}
        wanted = {**message, "strategy": message["group"] or (on_this_node if message["impatient"] else None)}
        env = {**(message["env"] or {}), "job": job}
        self._daemon.decide(self._daemon.leases.wish_of(client, wanted, env, count, "", lessee.node))

    def lessee_gone(self, lessee: lease_links.Lessee) -> None:
        for client in lessee.guests:
            self._gone(client)
        lessee.guests.clear()

    def _gone(self, client: str) -> None:
        self._homes.pop(client, None)
        self._given.forget(client)
        self._daemon.decide(ev.ClientLeft(client, self._daemon.now_s()))
