"""The store in the daemon: requests for quota, and what dead processes have left in the store directory.

What lies on disk is `spill_service`'s, which is made when it is needed for the first time, so that a session whose values
fit does not load it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import store_ledger
from umbel._agent.hub import Client, Hub, Message

if TYPE_CHECKING:
    from umbel._agent import spill_service

SCAN_S = 2.0  # how often it is measured what dead processes have left behind, or others have taken, while there is any
HOLDERS_TOLD_MAX = 5  # in an error: the biggest ones matter
_OF_SPILLING = ("store_told", "spilled", "spill_ended", "spill_freed", "locate", "restored")


class Pulling(Protocol):
    """The daemon's own share of the store: copies of other nodes' values. client: what the ledger calls it."""

    client: str

    def on_store(self, command: store_ledger.StoreCommand) -> None: ...

    @property
    def idle_bytes(self) -> int:
        """Of copies that nobody looks at."""

    def give_back(self) -> None:
        """Those."""


class StoreService:
    def __init__(
        self,
        hub: Hub,
        now_s: Callable[[], float],
        directory: str,
        *,
        capacity_bytes: int,
        full_wait_s: float,
        spilling: Mapping[str, Any],
    ) -> None:
        """spilling: `directory` (a path or URL), `high_water`, `batch_bytes`, `is_enabled`."""
        self.pulling: Pulling | None = None  # once values of other nodes are wanted here
        # Whether what a dead process has made for an owner that is none of this node stays: see `left_values`.
        self.keeps_for: Callable[[str], bool] = lambda _owner: False
        self.ledger = store_ledger.StoreLedger(capacity_bytes, full_wait_s=full_wait_s)
        self.spilling: spill_service.SpillService | None = None  # once values may have to go to disk
        self.hub = hub
        self.now_s = now_s
        self.directory = directory
        self._spilling_options = spilling
        # From here on spilling has to look at each change; `None` for never.
        self._high_bytes = int(capacity_bytes * spilling["high_water"]) if spilling["is_enabled"] else None
        self._scan_at_s: float | None = None
        self.on: dict[str, Callable[[Client, Message, bytes], None]] = {
            "reserve_store": self._on_reserve,
            "release_store": self._on_release,
            **dict.fromkeys(_OF_SPILLING, self._on_spilling),
        }

    def make_spilling(self) -> spill_service.SpillService:
        if self.spilling is None:
            from umbel._agent import spill_service

            self.spilling = spill_service.SpillService(self, self._spilling_options)
        return self.spilling

    # ---- what clients say ----

    def _on_reserve(self, client: Client, message: Message, _body: bytes) -> None:
        self.reserve(client.id, message["rq"], message["bytes"])

    def reserve(self, client: str, request: int, size_bytes: int) -> None:
        if self.ledger.may_want(size_bytes, self._system_free_bytes()):
            self._measure_system()
        self.account(self.ledger.reserve(client, request, size_bytes, at_s=self.now_s()))
        self._look()

    def _on_release(self, client: Client, message: Message, _body: bytes) -> None:
        self.release(client.id, min(self.ledger.held.get(client.id, 0), message["bytes"]))

    def release(self, client: str, size_bytes: int) -> None:
        self.account(self.ledger.release(client, size_bytes))
        self._look()

    def _on_spilling(self, client: Client, message: Message, _body: bytes) -> None:
        self.make_spilling().on[message["t"]](client, message)
        self._look()

    def where(self, segment: str) -> Message:
        """Of a value, for those who ask: which file it lies in, and who reads it back."""
        return {"file": "", "readers": []} if self.spilling is None else self.spilling.where(segment)

    def client_gone(self, client: str) -> None:
        if self.spilling is not None:
            self.spilling.client_gone(client)
        self.account(self.ledger.client_gone(client, left_bytes=self._left_by(client)))
        self._scan_again()
        self._look()

    # ---- time ----

    @property
    def is_making_room(self) -> bool:
        """Whether somebody is moving values to disk now."""
        return self.spilling is not None and self.spilling.orders.is_working

    def next_tick_s(self) -> float | None:
        spilling_s = None if self.spilling is None else self.spilling.orders.next_tick_s()
        due = (self.ledger.next_tick_s(), spilling_s, self._scan_at_s)
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        now_s = self.now_s()
        if self._scan_at_s is not None and self._scan_at_s <= now_s:
            self.measure()
        if self.is_making_room:
            self.ledger.has_hope(at_s=now_s)
        self.account(self.ledger.tick(at_s=now_s))
        if self.spilling is not None:
            self.spilling.tick()
        self._look()

    def measure(self) -> None:
        """What dead processes have left behind, and others have taken, again."""
        self._scan_at_s = None
        self.account(self.ledger.measured({client: self._left_by(client) for client in self.ledger.left_behind}))
        if self.ledger.wanting_bytes:
            self._measure_system()
        self._scan_again()

    def _measure_system(self) -> None:
        """The file system has not the room that was promised: other nodes and programs use it too."""
        self.account(self.ledger.system_measured(self._system_free_bytes(), self._own_bytes()))
        self._scan_again()

    def _scan_again(self) -> None:
        if self._scan_at_s is None and (self.ledger.left_behind or self.ledger.wanting_bytes):
            self._scan_at_s = self.now_s() + SCAN_S

    # ---- what the machines decide ----

    def _look(self) -> None:
        """Whether values have to be moved."""
        ledger = self.ledger
        if self._high_bytes is None:
            return
        used_bytes, waiting_bytes = ledger.used_bytes, ledger.waiting_bytes
        if self.pulling is not None and (waiting_bytes or used_bytes > self._high_bytes):
            idle_bytes = self.pulling.idle_bytes
            if idle_bytes:  # which go before anything is moved to disk
                self.pulling.give_back()
                used_bytes -= idle_bytes
                waiting_bytes = max(0, waiting_bytes - idle_bytes)
        if self.spilling is not None or waiting_bytes or used_bytes > self._high_bytes:
            self.make_spilling().look(used_bytes=used_bytes, waiting_bytes=waiting_bytes)

    def unlink(self, path: str) -> None:
        with contextlib.suppress(OSError):  # what cannot be removed now goes with the session
            os.unlink(path)

    def account(self, commands: list[store_ledger.StoreCommand]) -> None:
        for command in commands:
            if self.pulling is not None and command.client == self.pulling.client:
                self.pulling.on_store(command)
            elif isinstance(command, store_ledger.Grant):
                self.hub.reply(command.client, command.request, {"granted": command.granted_bytes})
            elif isinstance(command, store_ledger.AskTrim):
                self.hub.send(command.client, {"t": "store_trim"})
            else:
                self._refuse(command)

    def _refuse(self, command: store_ledger.Refuse) -> None:
        holders = [
            {"id": client, "bytes": size_bytes, **self.who(client)}
            for client, size_bytes in command.holders[:HOLDERS_TOLD_MAX]
        ]
        text = self.full_text(command)
        spilling: Message = {"viewers": [], "spill_error": "", "is_disk_full": False}
        if self.spilling is not None:
            spilling = self.spilling.troubles()
        self.hub.refuse(
            command.client, command.request, "full", text, holders=holders, owners=self._biggest_owners(),
            is_spilling=self._spilling_options["is_enabled"], **spilling,
        )  # fmt: skip

    def full_text(self, command: store_ledger.Refuse) -> str:
        text = (
            f"the object store of {self.ledger.capacity_bytes} bytes is full: {command.asked_bytes} bytes were "
            "asked for and none came free in time"
        )
        wanting_bytes = self.ledger.wanting_bytes
        if wanting_bytes:
            text += (
                f"; {wanting_bytes} bytes of it are not there, since other nodes or programs use the file system of "
                f"{self.directory}: start with a smaller object_store_memory, or give it more room (in a container: a "
                "larger --shm-size)"
            )
        return text

    def own(self, client: str) -> Message:
        """Of the daemon as a holder; nothing of others."""
        is_own = self.pulling is not None and client == self.pulling.client
        return {"kind": "daemon", "pid": os.getpid()} if is_own else {}

    def who(self, client: str) -> Message:
        own = self.own(client)
        if own:
            return own
        known = self.hub.clients.get(client)
        if known is None:
            return {"kind": "dead", "pid": 0}
        return {"kind": "driver" if known.is_driver else "worker", "pid": known.pid}

    def _biggest_owners(self) -> list[str]:
        """Of what is in the store directory now."""
        sizes: dict[str, int] = {}
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                owner = (*entry.name.split("."), "")[1]
                if owner in self.hub.clients:
                    with contextlib.suppress(OSError):
                        sizes[owner] = sizes.get(owner, 0) + entry.stat().st_blocks * 512
        return sorted(sizes, key=lambda one: -sizes[one])[:HOLDERS_TOLD_MAX]

    def _system_free_bytes(self) -> int:
        try:
            system = os.statvfs(self.directory)
        except OSError:  # the session ends
            return self.ledger.capacity_bytes
        return system.f_bavail * system.f_frsize

    def _own_bytes(self) -> int:
        """What is in the store directory."""
        size = 0
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    size += entry.stat().st_blocks * 512
        return size

    def _left_by(self, client: str) -> int:
        """Bytes of the files that a dead process created and that are kept; removes those that nobody owns."""
        size = 0
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                creator, owner, *_ = (*entry.name.split("."), "")
                if creator != client:
                    continue
                with contextlib.suppress(OSError):
                    if owner in self.hub.clients or self.keeps_for(owner):
                        size += entry.stat().st_blocks * 512
                    else:
                        os.unlink(entry.path)
        return size
