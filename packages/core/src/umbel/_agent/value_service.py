"""The daemon's part in moving values between nodes: connections, files and room for the mover.

Loaded only where there are other nodes. All of it runs on the daemon's one thread, in turns of two megabytes at most for each
connection. Its copies are the daemon's own share of the store, which the ledger counts like a process's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from umbel._agent import mover, moving, pulls, store_ledger, value_files
from umbel._agent.store_service import StoreService
from umbel._base import nodes, tokens
from umbel._transport import addresses, bulk, dialler, ways
from umbel._transport.connection import Poller, Stream
from umbel._wire import handshake

if TYPE_CHECKING:
    import ssl

    from umbel._agent import spill_ledger


class Told(Protocol):
    """Who hears what became of a wish."""

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None:
        """The copy is in `segment` of this node's store until the asker says `unwanted`."""

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None:
        """code: of `pull_commands.Code`."""

    def ask_owner(self, object_id: str) -> None:
        """As `moving.Surroundings`; so are those that follow."""

    def who_has(self, object_id: str, node: str, address: str) -> None: ...

    def left(self, owner: str, names: list[str]) -> None: ...

    def needless(self, names: list[str]) -> None: ...


class ValueService:
    """See the module. What is wanted is said to `mover`."""

    def __init__(
        self,
        poller: Poller,
        store: StoreService,
        node_id: str,
        token: tokens.Token,
        told: Told,
        *,
        address: str,
        now_s: Callable[[], float],
        tls: ssl.SSLContext | None = None,
        chunk_bytes: int = pulls.CHUNK_BYTES,
        reacher: ways.Reacher | None = None,
    ) -> None:
        """token: of the role of nodes, at least. address: at which other nodes reach this one. reacher: see `ways`."""
        self.client = nodes.new_process_id(node_id).hex()
        self.now_s = now_s
        self._poller = poller
        self._store = store
        self._told = told
        self._request = 0
        self._files = value_files.ValueFiles(store.directory, self.client, self._locate)
        self._ways = ways.Ways(poller, token, reacher, now_s=now_s, timeout_s=dialler.CONNECT_TIMEOUT_S, tls=tls)
        self.mover = mover.Mover(
            node_id, self, capacity_bytes=store.ledger.capacity_bytes, address=address, chunk_bytes=chunk_bytes
        )
        store.pulling = self

    def accept(self, stream: Stream) -> None:
        """Another node, which has proved to be one, wants values of this one."""
        self.mover.accepted(bulk.BulkConnection(stream, self._poller, self.mover))

    # ---- for the mover ----

    def dial(self, node: str, address: str) -> None:
        try:
            parsed, tag = addresses.parse(address), nodes.tag_of_node(node)
        except ValueError:  # another node said so
            self.mover.not_connected(node)
            return

        def connected(stream: Stream) -> None:
            self.mover.connected(node, bulk.BulkConnection(stream, self._poller, self.mover))

        self._ways.dial(tag, parsed, handshake.VALUES, connected, lambda _error: self.mover.not_connected(node))

    def open_original(self, segment: str, size_bytes: int) -> moving.Original | None:
        return self._files.open_original(segment, size_bytes)

    def create(self, size_bytes: int, failed: Callable[[OSError], None]) -> moving.Copy:
        return self._files.create(size_bytes, failed)

    def reserve(self, size_bytes: int) -> None:
        self._request += 1
        self._store.reserve(self.client, self._request, size_bytes)

    def release(self, size_bytes: int) -> None:
        self._store.release(self.client, size_bytes)

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None:
        self._told.delivered(asker, object_id, segment, size_bytes)

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None:
        self._told.failed(asker, object_id, code, text)

    def ask_owner(self, object_id: str) -> None:
        self._told.ask_owner(object_id)

    def who_has(self, object_id: str, node: str, address: str) -> None:
        self._told.who_has(object_id, node, address)

    def left(self, owner: str, names: list[str]) -> None:
        self._told.left(owner, names)

    def needless(self, names: list[str]) -> None:
        self._told.needless(names)

    # ---- for the store ----

    def on_store(self, command: store_ledger.StoreCommand) -> None:
        if isinstance(command, store_ledger.Grant):
            self.mover.room_granted(command.granted_bytes)
        elif isinstance(command, store_ledger.Refuse):
            self.mover.room_refused(self._store.full_text(command))
        else:
            self.mover.room_wanted()

    @property
    def idle_bytes(self) -> int:
        return self.mover.pulls.idle_bytes

    def give_back(self) -> None:
        self.mover.room_wanted()

    def _locate(self, segment: str) -> spill_ledger.Location | None:
        spilling = self._store.spilling
        return None if spilling is None else spilling.ledger.locations.get(segment)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = (self.mover.next_tick_s(), self._ways.next_tick_s())
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        self._ways.tick()
        self.mover.tick()

    def close(self) -> None:
        self._ways.close()
        self.mover.close()
