"""The store in the daemon: requests for quota, what dead processes have left in the store directory, and what lies on
disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from umbel._agent import spill_ledger, spill_orders, store_ledger
from umbel._agent.hub import Client, Hub, Message

SCAN_S = 2.0  # how often files left behind by dead processes are measured, while there are any
HOLDERS_TOLD_MAX = 5  # in an error: the biggest ones matter


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
        self.ledger = store_ledger.StoreLedger(capacity_bytes, full_wait_s=full_wait_s)
        self.spilled = spill_ledger.SpillLedger(spilling["directory"])
        self.orders = spill_orders.SpillOrders(
            capacity_bytes,
            high_water=spilling["high_water"],
            batch_bytes=spilling["batch_bytes"],
            is_enabled=spilling["is_enabled"],
        )
        self._hub = hub
        self._now_s = now_s
        self._directory = directory
        self._scan_at_s: float | None = None
        self._restoring: dict[str, dict[str, None]] = {}  # segment -> who reads it back
        self.on: dict[str, Callable[[Client, Message, bytes], None]] = {
            "reserve_store": self._on_reserve,
            "release_store": self._on_release,
            "store_told": self._on_told,
            "spilled": self._on_spilled,
            "spill_ended": self._on_spill_ended,
            "spill_freed": self._on_spill_freed,
            "locate": self._on_locate,
            "restored": self._on_restored,
        }

    # ---- what clients say ----

    def _on_reserve(self, client: Client, message: Message, _body: bytes) -> None:
        self._account(self.ledger.reserve(client.id, message["rq"], message["bytes"], at_s=self._now_s()))
        self._look()

    def _on_release(self, client: Client, message: Message, _body: bytes) -> None:
        held = self.ledger.held.get(client.id, 0)
        self._account(self.ledger.release(client.id, min(held, message["bytes"])))
        self._look()

    def _on_told(self, client: Client, message: Message, _body: bytes) -> None:
        report = spill_orders.Report(message["live"], message["spillable"], dict(message["viewed"]))
        now_s = self._now_s()
        self._give(self.orders.told(client.id, message["round"], report, at_s=now_s))
        if self.orders.is_stuck(self.ledger.waiting_clients, at_s=now_s):
            self._account(self.ledger.refuse_last())
        self._look()

    def _on_spilled(self, client: Client, message: Message, _body: bytes) -> None:
        commands = self.spilled.written(client.id, message["file"], message["entries"], self._hub.clients)
        if commands is None:
            text = f"{message['file']} was not ordered from this process, or is not wanted any more"
            self._hub.refuse(client.id, message["rq"], "unknown", text)
            return
        self._tidy(commands)
        self._hub.reply(client.id, message["rq"], {})

    def _on_spill_ended(self, client: Client, message: Message, _body: bytes) -> None:
        now_s = self._now_s()
        self.spilled.given_up(client.id, message["file"])
        self.orders.ended(
            client.id,
            message["order"],
            freed_bytes=message["freed"],
            error=message["error"],
            is_disk_full=message["disk_full"],
            at_s=now_s,
        )
        if message["freed"]:
            self.ledger.has_hope(at_s=now_s)
            if self.ledger.left_behind:
                self._measure()
        self._look()

    def _on_spill_freed(self, _client: Client, message: Message, _body: bytes) -> None:
        self._tidy(self.spilled.freed(message["segment"]))

    def _on_locate(self, client: Client, message: Message, _body: bytes) -> None:
        segment = message["segment"]
        location = self.spilled.located(client.id, segment)
        if location is None:
            self._hub.refuse(client.id, message["rq"], "unknown", "it is neither in shared memory nor on disk")
            return
        self._restoring.setdefault(segment, {})[client.id] = None
        self._hub.reply(client.id, message["rq"], location._asdict())

    def _on_restored(self, client: Client, message: Message, _body: bytes) -> None:
        self._restored(message["segment"], client.id)

    def _restored(self, segment: str, client: str) -> None:
        readers = self._restoring.get(segment, {})
        readers.pop(client, None)
        if not readers:
            self._restoring.pop(segment, None)

    def where(self, segment: str) -> Message:
        """Of a value, for those who ask: which file it lies in, and who reads it back."""
        location = self.spilled.locations.get(segment)
        readers = list(self._restoring.get(segment, ()))
        in_memory = os.path.exists(os.path.join(self._directory, segment))
        return {"file": location.file if location and not in_memory else "", "readers": readers}

    def client_gone(self, client: str) -> None:
        now_s = self._now_s()
        for segment in [segment for segment, readers in self._restoring.items() if client in readers]:
            self._restored(segment, client)
        self._tidy(self.spilled.client_gone(client))
        self._account(self.ledger.client_gone(client, left_bytes=self._left_by(client)))
        if self.ledger.left_behind and self._scan_at_s is None:
            self._scan_at_s = now_s + SCAN_S
        self._give(self.orders.client_gone(client, at_s=now_s))
        self._look()

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = (self.ledger.next_tick_s(), self.orders.next_tick_s(), self._scan_at_s)
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        now_s = self._now_s()
        if self._scan_at_s is not None and self._scan_at_s <= now_s:
            self._measure()
        if self.orders.is_working:
            self.ledger.has_hope(at_s=now_s)
        self._account(self.ledger.tick(at_s=now_s))
        self._give(self.orders.tick(at_s=now_s))
        self._look()

    def _measure(self) -> None:
        self._account(self.ledger.measured({client: self._left_by(client) for client in self.ledger.left_behind}))
        self._scan_at_s = self._now_s() + SCAN_S if self.ledger.left_behind else None

    # ---- what the machines decide ----

    def _look(self) -> None:
        """Whether values have to be moved."""
        ledger = self.ledger
        self._give(
            self.orders.needed(
                waiting_bytes=ledger.waiting_bytes,
                used_bytes=ledger.capacity_bytes - ledger.free_bytes,
                clients=self._processes,
                at_s=self._now_s(),
            )
        )

    def _processes(self) -> list[str]:
        return [client.id for client in self._hub.clients.values() if not client.is_tool]

    def _give(self, commands: list[spill_orders.OrderCommand]) -> None:
        for command in commands:
            if isinstance(command, spill_orders.Ask):
                message = {"t": "store_ask", "round": command.round, "trim": self.ledger.waiting_bytes > 0}
            else:
                message = {
                    "t": "store_spill", "order": command.order, "bytes": command.size_bytes,
                    "file": self.spilled.begin(command.client), "kept": list(command.kept),
                }  # fmt: skip
                self.ledger.has_hope(at_s=self._now_s())
            self._hub.send(command.client, message)

    def _tidy(self, commands: list[spill_ledger.SpillCommand]) -> None:
        for command in commands:
            if isinstance(command, spill_ledger.AskOwner):
                message = {"t": "spill_check", "creator": command.creator, "segments": list(command.segments)}
                self._hub.send(command.owner, message)
            elif isinstance(command, spill_ledger.Forget):
                self._hub.send(command.client, {"t": "spill_forget", "segment": command.segment})
            elif "://" in command.file:  # a process with the user's libraries has to do it
                drivers = self._hub.drivers()
                if drivers:
                    self._hub.send(drivers[0].id, {"t": "spill_remove", "file": command.file})
            else:
                self._unlink(command.file)

    @staticmethod
    def _unlink(path: str) -> None:
        with contextlib.suppress(OSError):  # what cannot be removed now goes with the session
            os.unlink(path)

    def _account(self, commands: list[store_ledger.StoreCommand]) -> None:
        for command in commands:
            if isinstance(command, store_ledger.Grant):
                self._hub.reply(command.client, command.request, {"granted": command.granted_bytes})
            elif isinstance(command, store_ledger.AskTrim):
                self._hub.send(command.client, {"t": "store_trim"})
            else:
                self._refuse(command)

    def _refuse(self, command: store_ledger.Refuse) -> None:
        clients = self._hub.clients
        holders = [
            {"id": client, "bytes": size_bytes, **self._who(client)}
            for client, size_bytes in command.holders[:HOLDERS_TOLD_MAX]
        ]
        viewers = [
            {"id": client, "bytes": sum(report.viewed.values()), "count": len(report.viewed), **self._who(client)}
            for client, report in self.orders.reports.items()
            if report.viewed and client in clients
        ]
        text = (
            f"the object store of {self.ledger.capacity_bytes} bytes is full: {command.asked_bytes} bytes were "
            "asked for and none came free in time"
        )
        self._hub.refuse(
            command.client, command.request, "full", text, holders=holders, viewers=viewers, spill_error=self.orders.error,
            is_disk_full=self.orders.is_disk_full, is_spilling=self.orders.is_enabled, owners=self._biggest_owners(),
        )  # fmt: skip

    def _who(self, client: str) -> Message:
        known = self._hub.clients.get(client)
        if known is None:
            return {"kind": "dead", "pid": 0}
        return {"kind": "driver" if known.is_driver else "worker", "pid": known.pid}

    def _biggest_owners(self) -> list[str]:
        """Of what is in the store directory now."""
        sizes: dict[str, int] = {}
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                owner = spill_ledger.owner_of(entry.name)
                if owner in self._hub.clients:
                    with contextlib.suppress(OSError):
                        sizes[owner] = sizes.get(owner, 0) + entry.stat().st_blocks * 512
        return sorted(sizes, key=lambda one: -sizes[one])[:HOLDERS_TOLD_MAX]

    def _left_by(self, client: str) -> int:
        """Bytes of the files that a dead process created and a live one owns; removes those that nobody owns."""
        size = 0
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                creator, owner, *_ = (*entry.name.split("."), "")
                if creator != client:
                    continue
                with contextlib.suppress(OSError):
                    if owner in self._hub.clients:
                        size += entry.stat().st_blocks * 512
                    else:
                        os.unlink(entry.path)
        return size
