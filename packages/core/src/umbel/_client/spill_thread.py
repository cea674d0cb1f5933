"""Moves this process's values between shared memory and files, as the agent orders and as they are read.

`umbel._agent.spill_orders` decides who moves how much, `umbel._objects.spill_book` which values. Made when the agent
asks for the first time, so that a session whose values fit pays nothing. Files are written on a thread of its own that
ends when there is nothing to do; they are read by whoever wants the value.

What keeps a value from being lost or mixed up: it leaves memory only after the agent knows its file; while it is
written a view keeps its segment from being reused; and a segment that was evicted never has its name again.
"""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from umbel import exceptions, spi
from umbel._objects import segments, serialization, spill_book, spill_files

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

STOP_S = 5.0  # how long the end of a session waits for a write, which looks after each value whether it is wanted
VIEWED_TOLD_MAX = 10_000  # segments; beyond them some memory does not come free as soon as expected


class _SessionOver(Exception):
    """Nobody wants the file any more."""


class Spilling:
    """One process's part. The engine's lock is held in all but `restore`, `copy_of` and what the thread does."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._values = engine.values
        self._store: Any = engine.values.store  # with `evict` and `viewed` where `_can_evict`
        self._can_evict = isinstance(self._store, spi.SpillableStore)
        self.book = spill_book.SpillBook(engine.values.stored)
        self._restore_locks: dict[str, threading.Lock] = {}
        self._jobs: deque[Callable[[], None]] = deque()
        self._jobs_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    # What the agent says

    def on_notice(self, message: dict[str, Any]) -> None:
        kind = message["t"]
        if kind == "store_ask":
            self._on_ask(message)
        elif kind == "store_spill":
            self._run(lambda: self._carry_out(message))
        elif kind == "spill_check":
            self._on_check(message)
        elif kind == "spill_forget":
            self._forget_copy(message["segment"])
        else:
            self._run(lambda: _remove(message["file"]))

    def _on_ask(self, message: dict[str, Any]) -> None:
        self._values.drain_drops()
        if message["trim"]:
            self._store.trim_all()
        viewed = self._store.viewed() if self._can_evict else {}
        told = list(viewed.items())[:VIEWED_TOLD_MAX]
        self._engine.agent.notify({
            "t": "store_told", "round": message["round"], "live": self.book.live_bytes, "viewed": told,
            "spillable": self.book.spillable_bytes(viewed) if self._can_evict else 0,
        })  # fmt: skip

    def _on_check(self, message: dict[str, Any]) -> None:
        """The creator of these values has died: say which of them we do not need, for its own word may be lost."""
        link = self._engine.links.by_peer.get(bytes.fromhex(message["creator"]))
        if link is not None and link.stream is not None:
            link.stream.drain()  # a result may be under way in which it told us of one
        known = {
            record.payload[0] for record in self._values.table.records.values() if record.kind == serialization.STORED
        }
        for segment in message["segments"]:
            if segment not in known:
                self._tell_freed(segment)

    def _tell_freed(self, segment: str) -> None:
        if not self._engine.agent_is_gone:
            self._engine.agent.notify({"t": "spill_freed", "segment": segment})

    def freed(self, segment: str, *, tells: bool = False) -> bool:
        """A value has died. Returns whether nothing of it was in memory. tells: the agent, whatever we know ourselves."""
        self._forget_copy(segment)
        was_gone = segment in self.book.gone
        if self.book.freed(segment) or tells:
            self._tell_freed(segment)
        return was_gone

    def _forget_copy(self, segment: str) -> None:
        copy = self.book.forget_copy(segment)
        if copy is not None:
            self._store.free(copy)

    # Writing

    def _run(self, job: Callable[[], None]) -> None:
        with self._jobs_lock:
            self._jobs.append(job)
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="umbel-spilling", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread can be started: the interpreter ends
                    thread.start()
                    self._thread = thread

    def _work(self) -> None:
        while True:
            with self._jobs_lock:
                if not self._jobs:
                    self._thread = None
                    return
                job = self._jobs.popleft()
            job()

    def stop(self) -> None:
        """The session is over: write no more. No lock."""
        with self._jobs_lock:
            self._jobs.clear()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)

    def _carry_out(self, order: dict[str, Any]) -> None:
        freed_bytes, error, is_disk_full = 0, "", False
        try:
            freed_bytes = self._make_room(order["bytes"], kept=order["kept"])
            if freed_bytes < order["bytes"]:
                freed_bytes += self._move(order["bytes"] - freed_bytes, file=order["file"], kept=order["kept"])
            self._store.trim_all()
        except _SessionOver:
            return
        except Exception as problem:  # the user's file system raises what it likes
            if self._engine.is_closed or self._engine.agent_is_gone:
                return
            error = f"{type(problem).__name__}: {problem}"
            is_disk_full = isinstance(problem, OSError) and problem.errno in segments.FULL_ERRNOS
            if order["file"] not in error:
                error = f"{order['file']}: {error}"
        self._engine.agent.notify({
            "t": "spill_ended", "order": order["order"], "file": order["file"], "freed": freed_bytes, "error": error,
            "disk_full": is_disk_full,
        })  # fmt: skip

    def _make_room(self, size_bytes: int, *, kept: Collection[str]) -> int:
        """Give back the memory of what is on disk as well. Returns its bytes."""
        freed_bytes = 0
        with self._engine.lock:
            self._values.drain_drops()
            self.book.used(kept)
            choice = self.book.choose(size_bytes, kept={*kept, *self._store.viewed()})
            for copy, copy_bytes in choice.copies:
                self.book.copy_gone(copy)
                self._store.free(copy)
                freed_bytes += copy_bytes
            return freed_bytes + sum(self._evict(segment) for segment, _ in choice.saved)

    def _move(self, size_bytes: int, *, file: str, kept: Collection[str]) -> int:
        """Write values to a file, and give their memory back. Returns its bytes. What is not entered leaves no file."""
        engine = self._engine
        with engine.lock:
            wanted = self.book.choose(size_bytes, kept={*kept, *self._store.viewed()}).write
        entries: list[tuple[str, int, int, int]] = []
        views: list[spi.View] = []
        if not wanted:
            return 0
        spill_files.open_file(file).write(self._parts(wanted, entries, views))
        answer, _ = engine.agent.request({"t": "spilled", "file": file, "entries": entries})
        if "error" in answer:  # nobody would find them there
            _remove(file)
            entries = []
        with engine.lock:
            views.clear()  # until here no segment could be reused for another value
            freed_bytes = 0
            for segment, *_ in entries:
                if self.book.written(segment):
                    freed_bytes += self._evict(segment)
                else:
                    self._tell_freed(segment)
        return freed_bytes

    def _parts(
        self, wanted: list[tuple[str, int]], entries: list[tuple[str, int, int, int]], views: list[spi.View]
    ) -> Iterator[memoryview]:
        offset = 0
        for segment, _ in wanted:
            with self._engine.lock:
                if self._engine.is_closed:
                    raise _SessionOver
                size_bytes = self.book.stored.get(segment)  # it may be another value by now
                if size_bytes is None:
                    continue
                try:
                    view = self._store.open(segment, size_bytes)
                except exceptions.ObjectLostError:  # somebody has removed it; whoever reads it will see
                    del self.book.stored[segment]
                    continue
                views.append(view)
            yield view.buffer
            entries.append((segment, offset, size_bytes, zlib.crc32(view.buffer)))
            offset += size_bytes

    def _evict(self, segment: str) -> int:
        is_ours = segment.startswith(self._engine.process_id.hex())
        freed_bytes: int = self._store.evict(segment) if is_ours else self._store.unlink(segment)
        if freed_bytes:
            self.book.evicted(segment)
        return freed_bytes

    # Reading

    def restore(self, segment: str, size_bytes: int, on_release: Callable[[], None]) -> spi.View | None:
        """A view of a value that has left shared memory; None when it is not on disk. No lock. Waits until there is room.

        Raises ObjectLostError when its file is not what was written, ObjectStoreFullError when there is no room for it.
        """
        with self._engine.lock:
            lock = self._restore_locks.setdefault(segment, threading.Lock())
        with lock:  # two threads need one copy
            try:
                return self.copy_of(segment, size_bytes, on_release) or self._restore(segment, size_bytes, on_release)
            finally:
                with self._engine.lock:
                    self._restore_locks.pop(segment, None)

    def copy_of(self, segment: str, size_bytes: int, on_release: Callable[[], None]) -> spi.View | None:
        """A view of a value that was read back here before; None when there is no copy. No lock."""
        with self._engine.lock:  # else it could go before it is viewed
            copy = self.book.copies.get(segment)
            if copy is None:
                return None
            view: spi.View = self._store.open(copy[0], size_bytes, on_release)
            return view

    def _restore(self, segment: str, size_bytes: int, on_release: Callable[[], None]) -> spi.View | None:
        engine = self._engine
        location, _ = engine.agent.request({"t": "locate", "segment": segment})
        if "error" in location:
            return None
        try:
            made = self._store.create(size_bytes)
            try:
                spill_files.read(location["file"], location["offset"], made.buffer[:size_bytes], location["checksum"])
                self._store.seal(made)
            except BaseException:
                self._store.free(made.name)
                raise
            with engine.lock:
                before = self.book.restored(segment, made.name, size_bytes)
                if before is not None:
                    self._store.free(before)
                view: spi.View = self._store.open(made.name, size_bytes, on_release)
        except exceptions.UmbelError:
            raise
        except Exception as error:  # the user's file system raises what it likes
            raise exceptions.ObjectLostError(_damage(location["file"], error), owner=segment.split(".")[1]) from error
        finally:
            if not engine.agent_is_gone:
                engine.agent.notify({"t": "restored", "segment": segment})
        return view


def _damage(file: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        what = "is gone"
    elif isinstance(error, spill_files.Damaged):
        what = str(error)
    else:
        what = f"cannot be read ({type(error).__name__}: {error})"
    return f"it was moved to disk, and its spill file {file} {what}"


def _remove(file: str) -> None:
    with contextlib.suppress(Exception):  # what cannot be removed now goes with the session's directory
        spill_files.open_file(file).remove()
