"""A control service for a node's daemon in tests that also fills the daemon's directory of nodes, from a file that the test
writes: a JSON object of addresses by tag. A node that is in it no longer has died."""

from __future__ import annotations

import json
import os
from typing import Any

from umbel._control import service

FILE_VARIABLE = "UMBEL_TEST_NODES"
LOOK_EVERY_S = 0.01


class ActorService(service.ActorService):
    """The production service, with that beside it."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self._daemon = node
        self._known: dict[str, str] = {}
        self._path = os.environ[FILE_VARIABLE]
        self._look_at_s = 0.0

    def next_tick_s(self) -> float | None:
        due_s = super().next_tick_s()
        return self._look_at_s if due_s is None else min(due_s, self._look_at_s)

    def tick(self) -> None:
        super().tick()
        if self._daemon.now_s() >= self._look_at_s:
            self._look_at_s = self._daemon.now_s() + LOOK_EVERY_S
            self._look()

    def _look(self) -> None:
        try:
            with open(self._path) as file:
                found = json.load(file)
        except OSError:
            return
        for tag in self._known.keys() - found.keys():
            self._daemon.directory.forget(bytes.fromhex(tag))
        for tag, address in found.items():
            if self._known.get(tag) != address:
                self._daemon.directory.set(bytes.fromhex(tag), address)
        self._known = found
