"""The daemon's part in moving values to disk: asks and orders processes, keeps the list of files, removes them.

`spill_orders` and `spill_ledger` decide. Made by `store_service` when the store comes near its high-water mark, or when a
process speaks of what is on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from umbel._agent import spill_ledger, spill_orders
from umbel._agent.hub import Client, Message
from umbel._base import nodes

if TYPE_CHECKING:
    from umbel._agent import store_service


_TAG = slice(8, 8 + 2 * nodes.TAG_BYTES)  # of the node, in the id of a process, in hexadecimal


class _Living:
    """Owners that may live, as a client of this node sees it: of those on other nodes its links tell, not the daemon."""

    def __init__(self, here: Collection[str], client: str) -> None:
        self._here = here
        self._tag = client[_TAG]

    def __contains__(self, owner: object) -> bool:
        return owner in self._here or (isinstance(owner, str) and owner[_TAG] != self._tag)


class SpillService:
    def __init__(self, store: store_service.StoreService, options: Mapping[str, Any]) -> None:
        """options: `directory` (a path or URL), `high_water`, `batch_bytes`, `is_enabled`."""
        self.ledger = spill_ledger.SpillLedger(options["directory"])
        self.orders = spill_orders.SpillOrders(
            store.ledger.capacity_bytes,
            high_water=options["high_water"],
            batch_bytes=options["batch_bytes"],
            is_enabled=options["is_enabled"],
        )
        self._store = store
        self._hub = store.hub
        self._restoring: dict[str, dict[str, None]] = {}  # segment -> who reads it back
        self.on: dict[str, Callable[[Client, Message], None]] = {
            "store_told": self._on_told,
            "spilled": self._on_spilled,
            "spill_ended": self._on_spill_ended,
            "spill_freed": self._on_spill_freed,
            "locate": self._on_locate,
            "restored": self._on_restored,
        }

    # ---- what clients say; the store looks afterwards whether values have to be moved ----

    def _on_told(self, client: Client, message: Message) -> None:
        store = self._store
        report = spill_orders.Report(message["live"], message["spillable"], dict(message["viewed"]))
        now_s = store.now_s()
        self._give(self.orders.told(client.id, message["round"], report, at_s=now_s))
        if self.orders.is_stuck(store.ledger.waiting_clients, at_s=now_s):
            store.account(store.ledger.refuse_last())

    def _on_spilled(self, client: Client, message: Message) -> None:
        living = _Living(self._hub.clients, client.id)
        commands = self.ledger.written(client.id, message["file"], message["entries"], living)
        if commands is None:
            text = f"{message['file']} was not ordered from this process, or is not wanted any more"
            self._hub.refuse(client.id, message["rq"], "unknown", text)
            return
        self._tidy(commands)
        self._hub.reply(client.id, message["rq"], {})

    def _on_spill_ended(self, client: Client, message: Message) -> None:
        store = self._store
        now_s = store.now_s()
        self.ledger.given_up(client.id, message["file"])
        self.orders.ended(
            client.id,
            message["order"],
            freed_bytes=message["freed"],
            error=message["error"],
            is_disk_full=message["disk_full"],
            at_s=now_s,
        )
        if message["freed"]:
            store.ledger.has_hope(at_s=now_s)
            if store.ledger.left_behind:
                store.measure()

    def _on_spill_freed(self, _client: Client, message: Message) -> None:
        self.freed(message["segment"])

    def freed(self, segment: str) -> None:
        self._tidy(self.ledger.freed(segment))

    def _on_locate(self, client: Client, message: Message) -> None:
        segment = message["segment"]
        location = self.ledger.located(client.id, segment)
        if location is None:
            self._hub.refuse(client.id, message["rq"], "unknown", "it is neither in shared memory nor on disk")
            return
        self._restoring.setdefault(segment, {})[client.id] = None
        self._hub.reply(client.id, message["rq"], location._asdict())

    def _on_restored(self, client: Client, message: Message) -> None:
        self._restored(message["segment"], client.id)

    def _restored(self, segment: str, client: str) -> None:
        readers = self._restoring.get(segment, {})
        readers.pop(client, None)
        if not readers:
            self._restoring.pop(segment, None)

    def client_gone(self, client: str) -> None:
        for segment in [segment for segment, readers in self._restoring.items() if client in readers]:
            self._restored(segment, client)
        self._tidy(self.ledger.client_gone(client))
        self._give(self.orders.client_gone(client, at_s=self._store.now_s()))

    # ---- for those who ask ----

    def where(self, segment: str) -> Message:
        location = self.ledger.locations.get(segment)
        readers = list(self._restoring.get(segment, ()))
        in_memory = os.path.exists(os.path.join(self._store.directory, segment))
        return {"file": location.file if location and not in_memory else "", "readers": readers}

    def troubles(self) -> Message:
        """Why values could not be moved."""
        viewers = [
            {"id": client, "bytes": sum(report.viewed.values()), "count": len(report.viewed), **self._store.who(client)}
            for client, report in self.orders.reports.items()
            if report.viewed and client in self._hub.clients
        ]
        return {"viewers": viewers, "spill_error": self.orders.error, "is_disk_full": self.orders.is_disk_full}

    # ---- what the machines decide ----

    def tick(self) -> None:
        self._give(self.orders.tick(at_s=self._store.now_s()))

    def look(self, *, used_bytes: int, waiting_bytes: int) -> None:
        """Whether values have to be moved. used_bytes: what processes have reserved. waiting_bytes: wanted and not
        there."""
        now_s = self._store.now_s()
        self._give(
            self.orders.needed(waiting_bytes=waiting_bytes, used_bytes=used_bytes, clients=self._processes, at_s=now_s)
        )

    def _processes(self) -> list[str]:
        return [client.id for client in self._hub.clients.values() if not client.is_tool]

    def _give(self, commands: list[spill_orders.OrderCommand]) -> None:
        ledger = self._store.ledger
        for command in commands:
            if isinstance(command, spill_orders.Ask):
                message = {"t": "store_ask", "round": command.round, "trim": ledger.waiting_bytes > 0}
            else:
                message = {
                    "t": "store_spill", "order": command.order, "bytes": command.size_bytes,
                    "file": self.ledger.begin(command.client), "kept": list(command.kept),
                }  # fmt: skip
                ledger.has_hope(at_s=self._store.now_s())
            self._hub.send(command.client, message)

    def _tidy(self, commands: list[spill_ledger.SpillCommand]) -> None:
        for command in commands:
            if isinstance(command, spill_ledger.AskOwner) and command.owner not in self._hub.clients:
                if not self._store.keeps_for(command.owner):
                    for segment in command.segments:
                        self.freed(segment)
            elif isinstance(command, spill_ledger.AskOwner):
                message = {"t": "spill_check", "creator": command.creator, "segments": list(command.segments)}
                self._hub.send(command.owner, message)
            elif isinstance(command, spill_ledger.Forget):
                self._hub.send(command.client, {"t": "spill_forget", "segment": command.segment})
            elif "://" in command.file:  # a process with the user's libraries has to do it
                drivers = self._hub.drivers()
                if drivers:
                    self._hub.send(drivers[0].id, {"t": "spill_remove", "file": command.file})
            else:
                self._store.unlink(command.file)
