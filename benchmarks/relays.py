"""TCP relays between the nodes of one machine, which delay, hold up, cut and refuse their connections.

All of them run in one thread. What is read while a relay delays is passed on in order and late; while it is stalled nothing
is passed on, and both sides see a peer that is there and says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK_BYTES = 64 << 10
CHUNKS_UNDER_WAY_MAX = 64  # of each direction of a connection; then its sender waits, as for any slow network
THREAD_END_S = 10.0


class Relays:
    """The thread that they run in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._thread.start()
        self._made: list[Relay] = []

    def relay(self, host: str, to_host: str) -> Relay:
        """From a free port of `host` to the same one of `to_host`."""
        made: Relay = self.run(Relay.made(host, to_host))
        self._made.append(made)
        return made

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(THREAD_END_S)

    def descriptor_count(self) -> int:
        """Of this process's descriptors, those of connections that are relayed."""
        return sum(2 * relay.connection_count() for relay in self._made)

    def close(self) -> None:
        for relay in self._made:
            self.run(relay.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(THREAD_END_S)
        self._loop.close()


class Relay:
    """One address. delay_s: by which all comes later; is_shut: new connections are refused."""

    def __init__(self, host: str, to_host: str) -> None:
        self.host = host
        self.to_host = to_host
        self.port = 0
        self.delay_s = 0.0
        self.is_shut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def made(cls, host: str, to_host: str) -> Relay:
        relay = cls(host, to_host)
        relay._server = await asyncio.start_server(relay._accepted, host, 0)
        relay.port = relay._server.sockets[0].getsockname()[1]
        return relay

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def connection_count(self) -> int:
        return len(self._connections)

    def stall(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.set)

    def cut(self) -> int:
        """Break all connections, what is under way is lost; how many there were."""
        count = len(self._connections)
        self._loop.call_soon_threadsafe(self._cut)
        return count

    def _cut(self) -> None:
        for pair in self._connections:
            for writer in pair:
                writer.transport.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self.is_shut:
                await self._connected(reader, writer)
        except OSError:
            pass  # nobody is there, or the connection has broken: the other side is to see the same
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self.to_host, self.port)
        pair = (writer, far_writer)
        for one in pair:
            one.transport.set_write_buffer_limits(0)  # `drain` waits until all is the kernel's
        self._connections.add(pair)
        ways = [
            asyncio.ensure_future(way)
            for from_, to in ((reader, far_writer), (far_reader, writer))
            for way in self._way(from_, to)
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.exception()  # that it has ended is all that counts
        finally:
            for one in ways:
                one.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._connections.discard(pair)
            far_writer.transport.abort()

    def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[Coroutine[Any, Any, None]]:
        """What takes in, and what gives out. The latter ends when all of it was given out."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY_MAX)

        async def take() -> None:
            while True:
                try:
                    data = await reader.read(CHUNK_BYTES)
                except OSError:
                    data = b""
                await under_way.put((self._loop.time() + self.delay_s, data))
                if not data:
                    await asyncio.Event().wait()  # until the other half has given out what there was

        async def give() -> None:
            while True:
                due_s, data = await under_way.get()
                await asyncio.sleep(due_s - self._loop.time())
                await self._flows.wait()
                if not data:
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    return
                writer.write(data)
                await writer.drain()

        return [take(), give()]
