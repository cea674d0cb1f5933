"""The store's ledger in the daemon: requests for quota, and what dead processes have left in the store directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from umbel._agent import store_ledger
from umbel._agent.hub import Client, Hub, Message

SCAN_S = 2.0  # how often files left behind by dead processes are measured, while there are any


class StoreService:
    def __init__(
        self, hub: Hub, now_s: Callable[[], float], directory: str, *, capacity_bytes: int, full_wait_s: float
    ) -> None:
        self.ledger = store_ledger.StoreLedger(capacity_bytes, full_wait_s=full_wait_s)
        self._hub = hub
        self._now_s = now_s
        self._directory = directory
        self._scan_at_s: float | None = None

    def on_reserve(self, client: Client, message: Message, _body: bytes) -> None:
        self._account(self.ledger.reserve(client.id, message["rq"], message["bytes"], at_s=self._now_s()))

    def on_release(self, client: Client, message: Message, _body: bytes) -> None:
        held = self.ledger.held.get(client.id, 0)
        self._account(self.ledger.release(client.id, min(held, message["bytes"])))

    def client_gone(self, client: str) -> None:
        self._account(self.ledger.client_gone(client, left_bytes=self._left_by(client)))
        if self.ledger.left_behind and self._scan_at_s is None:
            self._scan_at_s = self._now_s() + SCAN_S

    def next_tick_s(self) -> float | None:
        return min((at_s for at_s in (self.ledger.next_tick_s(), self._scan_at_s) if at_s is not None), default=None)

    def tick(self) -> None:
        now_s = self._now_s()
        if self._scan_at_s is not None and self._scan_at_s <= now_s:
            self._account(self.ledger.measured({client: self._left_by(client) for client in self.ledger.left_behind}))
            self._scan_at_s = now_s + SCAN_S if self.ledger.left_behind else None
        self._account(self.ledger.tick(at_s=now_s))

    def _account(self, commands: list[store_ledger.StoreCommand]) -> None:
        for command in commands:
            if isinstance(command, store_ledger.Grant):
                self._hub.reply(command.client, command.request, {"granted": command.granted_bytes})
            elif isinstance(command, store_ledger.AskTrim):
                self._hub.send(command.client, {"t": "store_trim"})
            else:
                holders = [{"id": client, "bytes": size} for client, size in command.holders]
                text = (
                    f"the object store of {self.ledger.capacity_bytes} bytes is full: {command.asked_bytes} bytes were "
                    "asked for and none came free in time; drop references to large values, or start Umbel with a "
                    "larger object_store_memory"
                )
                self._hub.refuse(command.client, command.request, "full", text, holders=holders)

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
