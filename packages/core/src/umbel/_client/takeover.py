"""The large values that this process owns and that lie on a node which is being drained: each is had here before that node goes.

It is read as any value of another node, and written into this node's store as if this process had made it; from then on that is
the value, and where it lay is told that it has been taken over, and need not stay for it. Whoever was told where it lay finds
it gone with that node, and asks its owner. What cannot be had for want of room or of a connection is tried again, until the
node is gone; after that it is lost, and computed again if it can be.

Made when a node is drained, with a thread of its own that ends when none is.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from umbel import exceptions
from umbel._base import nodes
from umbel._objects import segments, serialization
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

LOOK_S = 0.5  # what is made there meanwhile is found so soon
LOOK_SHARE_MAX = 0.05  # of the time, for looking through all objects, during which nothing else happens here
TAKE_S = 60.0  # for one value, which may have to wait for room; then the others have their turn
STOP_S = 5.0  # how long the end of a session waits for a value that is being copied

logger = logging.getLogger("umbel")


class Found(NamedTuple):
    """A value to be taken over: a segment of `size_bytes`."""

    object_id: bytes
    name: str
    size_bytes: int


class Takeover:
    """One process's part. The engine's lock is held in `begin` and `node_gone`."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._values = engine.values
        self._nodes: set[bytes] = set()  # tags of those that are being drained
        self._thread: threading.Thread | None = None
        self._wakes = threading.Event()
        self._is_over = False

    def begin(self, node: bytes) -> None:
        """The node with this tag is being drained."""
        self._nodes.add(node)
        if self._thread is None and not self._is_over:
            thread = threading.Thread(target=self._work, name="umbel-takeover", daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread can be started: the interpreter ends
                thread.start()
                self._thread = thread

    def node_gone(self, node: bytes) -> None:
        self._nodes.discard(node)
        self._wakes.set()

    def stop(self) -> None:
        """The session is over. No lock."""
        self._is_over = True
        self._wakes.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)

    def _work(self) -> None:
        while True:
            began_s = time.monotonic()
            with self._engine.lock:
                if self._is_over or not self._nodes or self._engine.agent_is_gone:
                    self._thread = None
                    return
                found = self._look()
            looked_s = time.monotonic() - began_s
            for one in found:
                if self._is_over:
                    break
                self._try(one)
            self._wakes.wait(max(LOOK_S, looked_s / LOOK_SHARE_MAX))
            self._wakes.clear()

    def _look(self) -> list[Found]:
        """Lock held."""
        table = self._values.table
        found = []
        for record in table.records.values():
            if record.kind != serialization.STORED or not table.is_owner(record.object_id):
                continue
            name, size_bytes = record.payload
            if nodes.tag_of_process(bytes.fromhex(segments.parts_of(name)[0])) in self._nodes:
                found.append(Found(record.object_id, name, size_bytes))
        return found

    def _try(self, found: Found) -> None:
        try:
            self._take(found)
        except exceptions.ObjectLostError:
            pass  # whoever reads it finds that, and has it computed again
        except exceptions.UmbelError as error:  # no room, no connection, or the end of the session
            logger.debug("object %s could not be taken over yet: %s", found.object_id.hex(), error)

    def _take(self, found: Found) -> None:
        engine, values = self._engine, self._values
        with engine.lock:
            record = values.table.records.get(found.object_id)
            if record is None or record.kind != serialization.STORED or record.payload[0] != found.name:
                return  # it has died meanwhile, or lies somewhere else
            values.table.pin(record)
        try:
            name = self._copy(found)
        except BaseException:
            with engine.lock:
                values.table.unpin(record)
                values.carry_out()
            raise
        with engine.lock:
            if record.kind == serialization.STORED and record.payload[0] == found.name:
                record.payload = (name, found.size_bytes)
                values.stored[name] = found.size_bytes
                self._tell_taken(found.name)
            else:  # it was found lost, and is computed again
                values.store.free(name)
            values.table.unpin(record)
            values.carry_out()
            engine.carry_on()

    def _copy(self, found: Found) -> str:
        """Write the value into a segment of our own. Returns its name. No lock."""
        values = self._values
        until_s = time.monotonic() + TAKE_S
        view = values.make_fetching().open(
            found.object_id, found.name, found.size_bytes, lambda: None, is_argument=True, until_s=until_s
        )
        segment = values.store.create(found.size_bytes, values.process_id.hex())
        try:
            values.store.write(segment, 0, view.buffer)
            values.store.seal(segment)
        except BaseException:
            values.store.free(segment.name)
            raise
        return str(segment.name)

    def _tell_taken(self, name: str) -> None:
        link = self._engine.links.by_peer.get(bytes.fromhex(segments.parts_of(name)[0]))
        if link is None:
            self._values.free_left(name)
        else:
            link.post((messages.TAKEN, name))
            self._engine.mark_dirty(link)
