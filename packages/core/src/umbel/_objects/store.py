"""Large values in shared memory: one process's part of a node's object store.

A value lives in a *segment*: one file in a directory of a memory file system, called `<creator>.<owner>.<number>`. The
process that created a segment is the only one that writes to it, reuses it and removes it; the others map it read-only.
Who still needs a value is decided elsewhere (`ownership`): `free` is called when nobody looks at it any more.

Fresh pages are the enemy: to allocate, clear and map one costs several times as much as to copy into it. So a freed
segment keeps its pages and its mapping in a bounded pool, from which the next `create` takes one, and the mapping of
another process's segment is kept for the next value in it. `trim` gives back what stays unused.

What always holds: a mapping lives as long as any view into it, whatever is freed, trimmed or closed meanwhile; a
segment that this process views is not reused; callbacks run without the lock, and what may run in a garbage collection
takes no lock. A forked child cannot use its parent's store: the views it inherited stay readable until the parent
reuses the segment, and their end is not reported.
"""

from __future__ import annotations

import errno
import math
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from umbel import exceptions
from umbel._base import checks
from umbel._base import clock as clocks
from umbel._objects import quota, segments, warm

WARM_BYTES_MAX = 512 << 20  # so that replacing a value of 256 MiB by the next one meets no fresh page
GROW_TRIES = 30  # to allocate what was granted, while whoever grants it finds room that others are quicker to take
GROW_PAUSE_S = 0.02  # between two of them
IDLE_S = 5.0  # longer than the pause between two steps of a loop, shorter than anyone waits to see memory go down

_FREED = (segments.State.VIEWED, segments.State.WARM)


class StoreUsage(NamedTuple):
    """What one process holds of its node's store; bytes are those of whole pages."""

    live_count: int  # own segments that hold a value or are being written
    live_bytes: int
    viewed_bytes: int  # freed, but views in this process keep them from being reused
    warm_bytes: int  # freed and ready for reuse
    reserved_bytes: int  # of quota: all of the above and what is left for more pages
    mapped_count: int  # segments of other processes mapped here
    mapped_bytes: int


class Segment:
    """A new segment, which its creator writes until it is sealed. Its contents are arbitrary until then."""

    __slots__ = ("_buffer", "_own", "_store", "name", "size_bytes")

    def __init__(self, store: SharedMemoryStore, own: segments.OwnSegment, size_bytes: int) -> None:
        self._store = store
        self._own: segments.OwnSegment | None = own
        self._buffer: memoryview | None = None
        self.name = own.name
        self.size_bytes = size_bytes

    @property
    def buffer(self) -> memoryview:
        """All of the segment, writable, aligned to a page. `SharedMemoryStore.write` is faster on fresh pages."""
        if self._buffer is None:
            mapping = self._store._mapping_of(self._writable())
            self._buffer = mapping.view(self.size_bytes, keep=mapping)
        return self._buffer

    def _writable(self) -> segments.OwnSegment:
        if self._own is None or self._own.name != self.name or self._own.state is not segments.State.WRITING:
            raise exceptions.InternalError("a segment is written after it was sealed or freed", segment=self.name)
        return self._own

    def _finish(self) -> segments.OwnSegment:
        own = self._writable()
        self._own = self._buffer = None
        return own


class View:
    """A value's bytes, for as long as this object, its buffer or anything that shares the buffer's memory lives."""

    __slots__ = ("buffer", "name")

    def __init__(self, name: str, buffer: memoryview) -> None:
        self.name = name
        self.buffer = buffer  # read-only


class SharedMemoryStore:
    """The segments that one process writes and maps. Any thread may call anything.

    directory: where this node's segments are, in a memory file system; made if it is not there.
    process_id: a WorkerID in hex. It names the segments created here, and owns those created for nobody else.
    reserve, release: the quota, see `quota.Quota`. `reserve` may block; `trim_all` may be called meanwhile, by it too.
    Without them `capacity_bytes` is the quota, and without that the size of the file system.
    warm_bytes_max: freed bytes kept for reuse, and as many of others' segments kept mapped; for `idle_s`, see `trim`.
    """

    def __init__(
        self,
        directory: str,
        process_id: str,
        *,
        reserve: quota.Reserve | None = None,
        release: quota.Release | None = None,
        capacity_bytes: int | None = None,
        warm_bytes_max: int = WARM_BYTES_MAX,
        idle_s: float = IDLE_S,
        clock: clocks.Clock | None = None,
    ) -> None:
        if reserve is None and capacity_bytes is not None:
            capacity = quota.Capacity(capacity_bytes)
            reserve, release = capacity.reserve, capacity.release
        self.directory = directory
        self.process_id = process_id
        self._quota = quota.Quota(reserve, release)
        self._idle_s = idle_s
        self._clock = clock or clocks.MonotonicClock()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_unused = True  # as in most of the workers that do not live long
        self._created_count = 0
        self._freed_count = 0
        self._created_at_s = -math.inf
        self._own: dict[int, segments.OwnSegment] = {}  # by number: live, viewed and warm ones
        self._pool = warm.WarmPool(warm_bytes_max)
        self._mapped = warm.MappedSegments(warm_bytes_max)
        self._released = segments.SegmentQueue()  # views that ended: filled without the lock, emptied under it
        self._leaving = segments.SegmentQueue()  # to be removed or unmapped when the lock is no longer held
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)

    # Writing

    def create(self, size_bytes: int, owner: str | None = None) -> Segment:
        """A segment to write; then `seal` it, or `free` it by name.

        owner: the process that decides over the value's life; None for this one. Raises ObjectStoreFullError.
        """
        if size_bytes < 0:
            raise exceptions.InternalError("a segment cannot have a negative size", size_bytes=size_bytes)
        owner = owner or self.process_id
        wanted_bytes = segments.page_bytes(size_bytes)
        size_class = segments.class_bytes(size_bytes)
        self._check_process()
        with self._lock:
            self._check_open()
            self._is_unused = False
            self._settle()
            self._created_at_s = self._clock.now_s()
            own = self._pool.take(size_class)
            if own is None:
                self._created_count += 1
                number = self._created_count
                own = segments.OwnSegment(segments.name_of(self.process_id, owner, number), number, size_class)
                self._own[number] = own
            name = segments.name_of(self.process_id, owner, own.number)
            is_ready = own.backed_bytes >= wanted_bytes and own.name == name
            own.state = segments.State.WRITING if is_ready else segments.State.MAKING
        if not is_ready:
            self._make(own, wanted_bytes, size_class, name)
        if self._leaving:
            self._send_off()
        return Segment(self, own, size_bytes)

    def _make(self, own: segments.OwnSegment, wanted_bytes: int, size_class: int, name: str) -> None:
        """Give a segment its pages and its name."""
        try:
            if own.backed_bytes < wanted_bytes:
                # A reused segment that is too short grows to the end of its class, and so never again.
                self._grow(own, size_class if own.backed_bytes else wanted_bytes)
            self._rename(own, name)
            with self._lock:
                self._check_open()
                own.state = segments.State.WRITING
        except BaseException:
            with self._lock:
                self._recycle(own)
            self._send_off()
            raise

    def write(self, segment: Segment, offset: int, data: Any) -> None:
        """Copy `data`, a contiguous buffer of any type, to `offset`; the fastest way, be the pages fresh or warm."""
        own = segment._writable()
        source = as_bytes(data)
        size_bytes = source.nbytes
        if not 0 <= offset <= segment.size_bytes - size_bytes:
            raise exceptions.InternalError(
                "a write does not lie within its segment",
                segment=segment.name,
                segment_bytes=segment.size_bytes,
                offset=offset,
                size_bytes=size_bytes,
            )
        if own.mapping is None and own.descriptor >= 0:
            segments.write(own.descriptor, offset, source)
        else:
            segments.copy(segment._buffer or segment.buffer, offset, source)

    def seal(self, segment: Segment) -> None:
        """The value is complete: nobody writes to it any more, and it can be opened."""
        own = segment._finish()
        self._check_process()
        with self._lock:
            self._check_open()
            own.state = segments.State.SEALED
            own.close_descriptor()

    # Reading

    def open(self, name: str, size_bytes: int, on_release: Callable[[], None] | None = None) -> View:
        """The first `size_bytes` of a sealed segment, without a copy. The caller keeps it from being freed meanwhile.

        on_release: called once, when the view and all that shares its memory is gone; in any thread, possibly in a
        garbage collection in the midst of a call to this store, so that it must take no lock.
        Raises ObjectLostError when the segment is gone: its creator died or the value was freed. Retrying is useless.
        """
        creator, _, number = segments.parts_of(name)
        source: segments.OwnSegment | segments.ForeignSegment
        if creator == self.process_id:
            source, mapping = self._hold_own(name, number)
        else:
            source, mapping = self._hold_foreign(name, (creator, number), size_bytes)
        if size_bytes > mapping.size_bytes:
            self._released.append(source)
            raise exceptions.InternalError("a segment is shorter than its value", segment=name, size_bytes=size_bytes)
        lease = segments.Lease(mapping, source, released=self._released, on_release=on_release, process=self._process)
        return View(name, mapping.view(size_bytes, keep=lease).toreadonly())

    def _hold_own(self, name: str, number: int) -> tuple[segments.OwnSegment, segments.Mapping]:
        self._check_process()
        with self._lock:
            self._check_open()
            self._settle()
            own = self._own.get(number)
            if own is None or own.name != name or own.state is not segments.State.SEALED:
                raise _lost(name)
            own.views += 1
        try:
            return own, self._mapping_of(own)
        except BaseException:
            self._released.append(own)
            raise

    def _hold_foreign(
        self, name: str, key: tuple[str, int], size_bytes: int
    ) -> tuple[segments.ForeignSegment, segments.Mapping]:
        self._check_process()
        with self._lock:
            self._check_open()
            self._settle()
            held = self._mapped.hold(key, size_bytes)
        if held is None:
            mapping = self._map(name, is_writable=False)
            with self._lock:
                self._is_unused = False
                held = self._mapped.hold(key, size_bytes)  # another thread may have been faster
                if held is None:
                    held = segments.ForeignSegment(key, mapping)
                    self._mapped.add(held)
        held.name = name
        if self._leaving:
            self._send_off()
        return held, held.mapping

    # Giving back

    def free(self, name: str) -> None:
        """Nobody else needs this segment of ours. Views in this process may live on: it is reused after they end."""
        self._free(name, is_renamed=False)

    def _free(self, name: str, *, is_renamed: bool) -> None:
        creator, _, number = segments.parts_of(name)
        checks.invariant(creator == self.process_id, "a segment is freed by its creator", segment=name)
        self._check_process()
        with self._lock:
            self._settle()
            own = self._own.get(number)
            if own is None and self._is_closed:
                return  # `close` has removed it
            if own is None or own.name != name or own.state in _FREED:
                raise exceptions.InternalError("a segment was freed twice", segment=name)
            own.close_descriptor()
            try:
                # It keeps its name until another owner's value comes to lie in it: in a loop that is never, and to rename
                # a file costs more than all else here. If we die, its owner removes it like any value it does not know.
                if is_renamed:
                    self._renumber(own)
                self._freed_count += 1
                segments.begin_generation(self._path(own.name), self._freed_count)
            except FileNotFoundError:  # the node has ended and removed everything, or the segment is lost
                del self._own[own.number]
                self._quota.unclaim(own.backed_bytes)
                return
            if own.views:
                own.state = segments.State.VIEWED
            else:
                self._recycle(own)
        if self._leaving:
            self._send_off()

    def evict(self, name: str) -> int:
        """The value of this sealed segment of ours lies elsewhere now: its pages go at once, its name is never used again.

        Returns the bytes of pages removed, 0 when this process views it or it is not there. Other processes' views live
        on.
        """
        creator, _, number = segments.parts_of(name)
        checks.invariant(creator == self.process_id, "a segment is evicted by its creator", segment=name)
        self._check_process()
        with self._lock:
            self._settle()
            own = self._own.get(number)
            if own is None or own.name != name or own.state is not segments.State.SEALED or own.views:
                return 0
            self._remove_own([own])
        return self._send_off()

    def viewed(self) -> dict[str, int]:
        """The segments of which this process has views, as they were opened, and the bytes of their pages."""
        self._check_process()
        with self._lock:
            self._settle()
            own = {one.name: one.backed_bytes for one in self._own.values() if one.views}
            return own | {one.name: one.mapping.size_bytes for one in self._mapped.viewed()}

    def unlink(self, name: str) -> int:
        """Remove a segment whose creator is dead. Views of it live on. Returns the bytes removed, 0 if it was gone."""
        creator, _, number = segments.parts_of(name)
        checks.invariant(creator != self.process_id, "a segment of this process is freed, not unlinked", segment=name)
        self._check_process()
        with self._lock:
            self._settle()
            self._leaving.extend(self._mapped.forget((creator, number)))
        self._send_off()
        return segments.remove(self._path(name))

    def orphans_of(self, process_id: str) -> list[str]:
        """The segments that a dead process made for this one; those that it made us make for it are freed. It may live on another
        node, to which the connection broke."""
        with self._lock:
            if self._is_closed:
                return []
            ours = [own.name for own in self._own.values() if own.state is segments.State.SEALED]
        for name in ours:
            if segments.parts_of(name)[1] == process_id:
                self._free(name, is_renamed=True)  # who borrows it must not find there what comes to lie in it
        start = f"{process_id}.{self.process_id}."
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:  # as in `free`
            return []
        return [name for name in names if name.startswith(start)]

    def trim(self, now_s: float | None = None) -> int:
        """Give back what has been unused for `idle_s`; call it now and then. Returns the bytes of pages removed."""
        if self._is_unused:
            return 0
        return self._trim((self._clock.now_s() if now_s is None else now_s) - self._idle_s)

    def trim_due_s(self, now_s: float) -> float | None:
        """In how many seconds `trim` will have something to give back; None while nothing is kept unused."""
        if self._is_unused:
            return None
        with self._lock:
            oldest = [at_s for at_s in (self._pool.oldest_s(), self._mapped.oldest_s()) if at_s is not None]
        if self._quota.spare_bytes:
            oldest.append(self._created_at_s)
        return max(0.0, min(oldest) + self._idle_s - now_s) if oldest else None

    def trim_all(self) -> int:
        """Give back all that is not in use, as when the node's store is full. Returns the bytes of pages removed."""
        return self._trim(math.inf)

    def _trim(self, until_s: float) -> int:
        if os.getpid() != self._process:
            return 0
        with self._lock:
            self._settle()
            self._remove_own(self._pool.expire(until_s))
            self._leaving.extend(self._mapped.expire(until_s))
            is_idle = self._created_at_s <= until_s
        removed_bytes = self._send_off()
        if is_idle:
            self._quota.give_back(spare_bytes_max=0)
        return removed_bytes

    def usage(self) -> StoreUsage:
        self._check_process()
        with self._lock:
            self._settle()
            live = [own.backed_bytes for own in self._own.values() if own.state not in _FREED]
            viewed = [own.backed_bytes for own in self._own.values() if own.state is segments.State.VIEWED]
            return StoreUsage(
                live_count=len(live),
                live_bytes=sum(live),
                viewed_bytes=sum(viewed),
                warm_bytes=self._pool.size_bytes,
                reserved_bytes=self._quota.reserved_bytes,
                mapped_count=len(self._mapped),
                mapped_bytes=self._mapped.size_bytes(),
            )

    def close(self, *, unlink_all: bool = False) -> None:
        """Remove this process's segments, except the sealed ones of other owners unless `unlink_all`. Views live on.

        Afterwards only `free`, `unlink` and `trim` do anything. Does nothing in a forked child.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._settle()
            self._is_closed = True
            self._pool.expire(math.inf)
            self._leaving.extend(self._mapped.expire(math.inf))
            self._remove_own([own for own in self._own.values() if self._is_removed_at_close(own, unlink_all)])
        self._send_off()
        self._quota.give_back(spare_bytes_max=0)

    def _is_removed_at_close(self, own: segments.OwnSegment, unlink_all: bool) -> bool:
        if own.state is segments.State.MAKING:
            return False  # `create` does it when it sees that the store is closed
        if own.state is segments.State.SEALED and not unlink_all:
            return segments.parts_of(own.name)[1] == self.process_id
        return True

    @staticmethod
    def sweep(directory: str, is_alive: Callable[[str], bool]) -> int:
        """Remove the segments whose creator and owner are both dead, by their ids in hex. Returns the bytes removed."""
        removed_bytes = 0
        for name in os.listdir(directory):
            try:
                creator, owner, _ = segments.parts_of(name)
            except ValueError:
                continue  # not a segment
            if not is_alive(creator) and not is_alive(owner):
                removed_bytes += segments.remove(os.path.join(directory, name))
        return removed_bytes

    # Under the lock: decisions

    def _check_open(self) -> None:
        if self._is_closed:
            raise exceptions.UmbelSystemError(
                f"the object store in {self.directory} is closed in this process: umbel.shutdown() was called, or the "
                "process is exiting; call umbel.init() before using objects again"
            )

    def _settle(self) -> None:
        """Count the views that have ended since the last operation."""
        while self._released:
            source = self._released.popleft()
            source.views -= 1
            if source.views:
                continue
            if isinstance(source, segments.ForeignSegment):
                self._leaving.extend(self._mapped.let_go(source, self._clock.now_s()))
            elif source.state is segments.State.VIEWED:
                self._recycle(source)

    def _renumber(self, own: segments.OwnSegment) -> None:
        """No value will have the name again that lay in it: whoever owned that may live, on another node, and take it for his."""
        del self._own[own.number]
        self._created_count += 1
        own.number = self._created_count
        self._own[own.number] = own
        self._rename(own, segments.name_of(self.process_id, self.process_id, own.number))

    def _recycle(self, own: segments.OwnSegment) -> None:
        if self._is_closed or not own.backed_bytes:
            self._remove_own([own])
        else:
            self._remove_own(self._pool.add(own, self._clock.now_s()))

    def _remove_own(self, leaving: Iterable[segments.OwnSegment]) -> None:
        for own in leaving:
            if self._own.pop(own.number, None) is not None:
                self._leaving.append(own)

    # Without the lock: checks that must not wait for it, and effects on segments that nobody else can reach at the time

    def _check_process(self) -> None:
        """Comes before taking the lock: in a forked child it may be held forever."""
        if os.getpid() != self._process:
            raise exceptions.UmbelSystemError(
                f"process {os.getpid()} was forked from process {self._process} and cannot use its object store; call "
                "umbel.init() in the child, or start it by spawn instead of fork"
            )

    def _path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def _send_off(self, *, is_claiming: bool = False) -> int:
        """Remove or unmap what has left. Returns the bytes of pages removed. is_claiming: the caller takes their quota."""
        removed_bytes = 0
        while self._leaving:
            try:
                leaving = self._leaving.popleft()
            except IndexError:  # another thread was faster
                break
            if isinstance(leaving, segments.OwnSegment) and leaving.backed_bytes:
                segments.remove(self._path(leaving.name))
                removed_bytes += leaving.backed_bytes
                self._quota.unclaim(leaving.backed_bytes)
        if removed_bytes and not is_claiming:
            self._quota.give_back()
        return removed_bytes

    def _rename(self, own: segments.OwnSegment, name: str) -> None:
        if own.name != name:
            os.rename(self._path(own.name), self._path(name))
            own.name = name

    def _grow(self, own: segments.OwnSegment, end_bytes: int) -> None:
        """Allocate fresh pages up to `end_bytes`."""
        fresh_bytes = end_bytes - own.backed_bytes
        for tries_left in reversed(range(GROW_TRIES)):
            self._quota.claim(fresh_bytes, shrink=self._shrink)
            try:
                own.descriptor = self._allocate(own, end_bytes)
                break
            except OSError as error:
                self._quota.unclaim(fresh_bytes)
                if error.errno not in segments.FULL_ERRNOS:
                    raise
                if error.errno != errno.ENOSPC or not tries_left:
                    raise self._full(fresh_bytes, error) from error
            except BaseException:
                self._quota.unclaim(fresh_bytes)
                raise
            # Others have taken what was granted to us: whoever grants is to see it, and to make room.
            self._quota.give_back(spare_bytes_max=0)
            time.sleep(GROW_PAUSE_S)
        own.backed_bytes = end_bytes
        own.mapping = None  # it ends too early

    def _shrink(self, size_bytes: int) -> None:
        with self._lock:
            self._settle()
            self._remove_own(self._pool.shrink(size_bytes))
        self._send_off(is_claiming=True)

    def _allocate(self, own: segments.OwnSegment, end_bytes: int) -> int:
        """Raises OSError if the system has no room."""
        path = self._path(own.name)
        try:
            return segments.allocate(path, own.backed_bytes, end_bytes)
        except FileNotFoundError as error:
            raise exceptions.UmbelSystemError(
                f"{path} cannot be made: somebody removed the object store's directory or a file in it while this "
                "process used it; call umbel.shutdown() and umbel.init()"
            ) from error
        except OSError as error:
            if error.errno not in segments.FULL_ERRNOS:
                raise
        self.trim_all()  # our own unused pages are the last place to look
        return segments.allocate(path, own.backed_bytes, end_bytes)

    def _full(self, size_bytes: int, error: OSError) -> exceptions.ObjectStoreFullError:
        system = os.statvfs(self.directory)
        return exceptions.ObjectStoreFullError(
            f"no room for {size_bytes} bytes in {self.directory} ({error.strerror}): "
            f"{system.f_bavail * system.f_frsize} of its {system.f_blocks * system.f_frsize} bytes are free; drop "
            "references to large values, remove other files there, or give the file system more room (in a container: "
            "a larger --shm-size)"
        )

    def _mapping_of(self, own: segments.OwnSegment) -> segments.Mapping:
        mapping = own.mapping
        if mapping is None:  # two threads may both map it, and each keeps its mapping alive
            mapping = own.mapping = self._map(own.name, is_writable=True)
        return mapping

    def _map(self, name: str, *, is_writable: bool) -> segments.Mapping:
        try:
            descriptor = os.open(self._path(name), os.O_RDWR if is_writable else os.O_RDONLY)
        except FileNotFoundError:
            raise _lost(name) from None
        try:
            return segments.Mapping(descriptor, is_writable=is_writable)
        except OSError as error:
            if error.errno not in segments.FULL_ERRNOS:
                raise
            return self._map_with_effort(descriptor, name, is_writable)
        finally:
            os.close(descriptor)

    def _map_with_effort(self, descriptor: int, name: str, is_writable: bool) -> segments.Mapping:
        """The kernel bounds a process's mappings and their size: map after unmapping all that nobody views."""
        self.trim_all()
        with self._lock:
            for own in self._own.values():
                if own.state is segments.State.SEALED and not own.views:
                    own.mapping = None
        try:
            return segments.Mapping(descriptor, is_writable=is_writable)
        except OSError as error:
            raise exceptions.ObjectStoreFullError(
                f"cannot map segment {name} ({error.strerror}): this process has too many or too large mappings; drop "
                "values it holds, or raise the limits (sysctl vm.max_map_count, ulimit -v)"
            ) from error


def as_bytes(data: Any) -> memoryview:
    """The memory of a contiguous buffer.

    One that is bytes already shares what it views. To view the view itself is not safe: in a garbage cycle, as tracebacks
    make them, CPython 3.11 clears the inner one first and then crashes.
    """
    if type(data) is memoryview and data.format == "B" and data.ndim == 1 and data.contiguous:
        return data
    return pickle.PickleBuffer(data).raw()


def _lost(name: str) -> exceptions.ObjectLostError:
    return exceptions.ObjectLostError(
        f"the shared memory of this object is gone (segment {name}): the process that wrote it died, or the object was "
        "freed; make the object again",
        owner=name.split(".")[1],
    )
