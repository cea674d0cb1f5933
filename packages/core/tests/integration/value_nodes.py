"""Several nodes' parts in moving values, in one process and on one poller, each with a store of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tcp_nodes import LIMIT_S, SECRET

from umbel._agent import hub, pull_commands, store_service, value_service
from umbel._base import nodes, tokens
from umbel._objects import store
from umbel._transport import acceptor, addresses, connection
from umbel._wire import handshake

CHUNK_BYTES = 64 << 10
CAPACITY_BYTES = 8 << 20


class _Nobody:
    """No process joins: see `hub.Receiver`."""

    def may_join(self, _hello: Any) -> str:
        return "there is nothing here but values"

    def on_joining(self, _client: Any, _hello: Any) -> None: ...

    def on_joined(self, _client: Any) -> None: ...

    def on_message(self, _client: Any, _message: Any, _body: bytes) -> None: ...

    def on_gone(self, _client: Any) -> None: ...


class ValueNode:
    """What a daemon has of it, and a process that owns values."""

    def __init__(
        self,
        poller: connection.Poller,
        folder: Path,
        *,
        tls: Any = None,
        tls_of_client: Any = None,
        spill: str = "",
    ) -> None:
        self.id = nodes.new_node_id()
        self.folder = folder
        folder.mkdir()
        self.hub = hub.Hub(poller, f"{folder}/agent.sock", _Nobody(), {"namespace": ""})
        self.store = store_service.StoreService(
            self.hub, time.monotonic, f"{folder}/store", capacity_bytes=CAPACITY_BYTES, full_wait_s=0.5,
            spilling={"directory": spill or f"{folder}/spill", "high_water": 1.0, "batch_bytes": 1 << 20, "is_enabled": True},
        )  # fmt: skip
        self.owner = store.SharedMemoryStore(f"{folder}/store", nodes.new_process_id(self.id).hex())
        self.warned: list[str] = []
        token = SECRET.lowered(tokens.Role.NODE)
        self.acceptor = acceptor.Acceptor(
            poller, token, lambda stream, role, target: self._on_peer(stream, role, target), now_s=time.monotonic,
            warn=self.warned.append, tls=tls,
        )  # fmt: skip
        self.address = str(self.acceptor.listen(addresses.Address("127.0.0.1", 0)))
        self.values = value_service.ValueService(
            poller, self.store, self.id, token, self, address=self.address, now_s=time.monotonic, tls=tls_of_client,
            chunk_bytes=CHUNK_BYTES,
        )  # fmt: skip
        self.mover = self.values.mover
        self.got: dict[str, str] = {}  # asker -> segment
        self.errors: dict[str, tuple[str, str]] = {}  # asker -> code and text
        self.is_open = True

    def _on_peer(self, stream: connection.Stream, role: tokens.Role, target: handshake.Target) -> None:
        assert (role, target.kind) == (tokens.Role.NODE, handshake.TargetKind.VALUES)
        self.values.accept(stream)

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None:
        self.got[asker] = segment

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None:
        self.errors[asker] = code, text

    def ask_owner(self, object_id: str) -> None:
        self.values.mover.owner_told(object_id, {})

    def who_has(self, object_id: str, node: str, address: str) -> None:
        raise AssertionError("nobody is asked")

    def left(self, owner: str, names: list[str]) -> None:
        raise AssertionError("no process has ended")

    def needless(self, names: list[str]) -> None:
        raise AssertionError("no process has ended")

    def put(self, data: bytes) -> str:
        segment = self.owner.create(len(data))
        self.owner.write(segment, 0, data)
        self.owner.seal(segment)
        return segment.name

    def want(
        self,
        object_id: str,
        size_bytes: int,
        *places: tuple[ValueNode, str],
        asker: str = "a",
        priority: pull_commands.Priority = pull_commands.Priority.GET,
    ) -> None:
        sources = {node.id: (node.address, segment) for node, segment in places}
        self.mover.want(object_id, size_bytes, sources, asker=asker, priority=priority)

    def read(self, asker: str = "a") -> bytes:
        return (self.folder / "store" / self.got[asker]).read_bytes()

    def tick(self) -> None:
        if self.is_open:
            self.values.tick()
            self.store.tick()
            self.acceptor.tick()
            self.mover.check()

    def close(self) -> None:
        """As if it were killed."""
        if self.is_open:
            self.is_open = False
            self.values.close()
            self.acceptor.close()
            self.hub.close()
            self.owner.close(unlink_all=True)


class ValueNodes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.poller = connection.Poller()
        self.nodes: list[ValueNode] = []

    def add(self, **options: Any) -> ValueNode:
        self.nodes.append(ValueNode(self.poller, self.folder / str(len(self.nodes)), **options))
        return self.nodes[-1]

    def poll(self) -> None:
        self.poller.poll(0.01)
        for node in self.nodes:
            node.tick()

    def until(self, condition: Callable[[], object]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end_s, [(node.got, node.errors, node.warned) for node in self.nodes]
            self.poll()

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.poller.close()
