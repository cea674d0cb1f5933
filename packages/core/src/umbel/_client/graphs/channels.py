"""Values in shared memory, from one process to another: the memory of one compiled graph, and the ends of its edges.

The memory is one file that its maker removes as soon as everybody has mapped it: from then on nothing can be left behind,
and until then it belongs to the session's directory, which is removed with the session. A page of control words comes
first, then a header and the slots of each edge. Each word has one writer and a cache line of its own.

A value that does not fit into a slot goes through a segment of the writer's object store, which the reader copies before it
says that it has read the message; then the writer uses the segment again. Once the channels are closed nobody waits for that
any more, so a reader looks after it has copied. A value with references inside becomes an object of the writer, which keeps
it until the reader has it: so references are counted as everywhere.
"""

from __future__ import annotations

import collections
import ctypes
import mmap
import os
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from umbel import exceptions
from umbel._base import checks, machine
from umbel._client import refs
from umbel._client.graphs import ring
from umbel._objects import segments, serialization
from umbel._transport import futex

PICKLE, LAID_OUT, BYTES, ERROR, OBJECT = range(1, 6)  # what a slot holds; for the last, an object's id
IN_SEGMENT = 8  # or where it is, if this is added
LINE_BYTES = 64  # of a cache line
CONTROL_BYTES = mmap.PAGESIZE
HEADER_BYTES = 4 * LINE_BYTES  # of an edge: see the words below
SLOT_BYTES_MIN = 1024
ACTORS_MAX = CONTROL_BYTES // LINE_BYTES - 1
_WRITTEN, _READ, _SIGNAL, _IS_WAITING = (line * LINE_BYTES for line in range(4))  # offsets of an edge's words
_SIZE_SHIFT = 8  # a slot's first word is its size and its kind
_WORD_BYTES = 8

SLICE_S = 0.1  # after which who waits for a result looks whether the actors are alive
IDLE_SLICE_S = 0.5  # after which an actor looks whether the graph's compiler is; nobody waits for that
# How long a reader whose last wait was shorter looks again and again before it sleeps. Between two looks it gives its CPU
# to whoever wants it: most of a chain waits while one actor computes. See decision 0011.
SPIN_S = 0.001 if machine.cpu_count() > 1 else 0.0
_MOMENT = futex.Timespec(SLICE_S)
_fence = threading.Lock()  # taking it orders memory: what was written before is seen before what is written after


def _after_fork() -> None:
    global _fence  # noqa: PLW0603  # where its users look for it
    _fence = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class ChannelClosed(Exception):
    """Somebody has closed the graph's channels."""


class Failed(NamedTuple):
    """Stands for a value that could not be computed. error: bytes of `exceptions.dump_error`."""

    error: bytes


def slot_bytes_of(buffer_bytes: int, slots: int) -> int:
    """The size of each of `slots` slots that share `buffer_bytes`, in whole cache lines."""
    return max(SLOT_BYTES_MIN, buffer_bytes // slots // LINE_BYTES * LINE_BYTES)


class Memory:
    """The shared memory of one graph, mapped here until the last reference to this object goes."""

    def __init__(self, descriptor: int, *, edges: int, slots: int, slot_bytes: int) -> None:
        """Closes the descriptor. Raises OSError when the file cannot be mapped."""
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.edges = edges
        try:
            self._map = mmap.mmap(descriptor, size_bytes(edges=edges, slots=slots, slot_bytes=slot_bytes))
        finally:
            os.close(descriptor)
        self.bytes = memoryview(self._map)
        # A word is written and read by one instruction, which a cast memoryview does and the struct module does not.
        self.words = self.bytes.cast("Q")
        self.halves = self.bytes.cast("I")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def base_of(self, edge: int) -> int:
        """The offset of an edge's header."""
        return CONTROL_BYTES + edge * _edge_bytes(self.slots, self.slot_bytes)

    def count_written(self, edge: int) -> int:
        """How many messages were written to an edge."""
        return self.words[(self.base_of(edge) + _WRITTEN) // _WORD_BYTES]

    @property
    def is_closed(self) -> bool:
        return bool(self.halves[0])

    def close(self) -> None:
        """Have everybody who waits, or ever will, stop. Idempotent."""
        self.halves[0] = 1
        with _fence:
            pass
        for edge in range(self.edges):
            signal = (self.base_of(edge) + _SIGNAL) // 4
            self.halves[signal] = (self.halves[signal] + 1) & 0xFFFFFFFF
            futex.wake(self.address + signal * 4)

    def say_ended(self, actor: int) -> None:
        """The actor uses the memory no more."""
        word = (actor + 1) * LINE_BYTES // 4
        self.halves[word] = 1
        futex.wake(self.address + word * 4)

    def has_ended(self, actor: int) -> bool:
        return bool(self.halves[(actor + 1) * LINE_BYTES // 4])

    def wait_ended(self, actor: int) -> None:
        """For a moment."""
        futex.wait(self.address + (actor + 1) * LINE_BYTES, 0, _MOMENT)


def _edge_bytes(slots: int, slot_bytes: int) -> int:
    return HEADER_BYTES + slots * (slot_bytes + LINE_BYTES)


def size_bytes(*, edges: int, slots: int, slot_bytes: int) -> int:
    return segments.page_bytes(CONTROL_BYTES + edges * _edge_bytes(slots, slot_bytes))


class Lent:
    """A segment that holds a message's value, until all who were sent the message have read it."""

    __slots__ = ("_store", "name", "readers")

    def __init__(self, store: Any, name: str) -> None:
        self._store = store
        self.name = name
        self.readers = 0

    def give_back(self) -> None:
        """One reader has it. Takes the store's lock, so not for a garbage collection."""
        self.readers -= 1
        if self.readers <= 0:
            self._store.free(self.name)


class Message(NamedTuple):
    """A value on its way into slots. kept: what it went to, if it did not fit."""

    kind: int
    data: Any  # bytes, or a Serialized that is LAID_OUT
    kept: Lent | refs.ObjectRef[Any] | None = None

    def discard(self) -> None:
        """It will be sent to nobody any more; whom it was sent to may read it."""
        if isinstance(self.kept, Lent) and not self.kept.readers:
            self.kept.give_back()


def encode(value: Any, slot_bytes: int, engine: Any) -> Message:
    """Raises TypeError for a value that cannot be pickled, ObjectStoreFullError for a large one without room."""
    data: Any
    if type(value) is bytes:
        kind, data, size = BYTES, value, len(value)
    elif type(value) is Failed:
        kind, data, size = ERROR, value.error, len(value.error)
    elif serialization.is_raw(value):
        kind, data = PICKLE, pickle.dumps(value, 5)
        size = len(data)
    else:
        serialized = serialization.serialize(value)
        if serialized.refs:
            kept = engine.put(value)
            return Message(OBJECT, kept._id, kept)
        if serialized.buffers:
            kind, data, size = LAID_OUT, serialized, serialized.stored_bytes()
        else:
            kind, data, size = PICKLE, serialized.inband, len(serialized.inband)
    if size <= slot_bytes:
        return Message(kind, data)
    return _through_segment(kind, data, size, engine.values.store)


def _through_segment(kind: int, data: Any, size: int, store: Any) -> Message:
    segment = store.create(size)
    try:
        if kind == LAID_OUT:
            data.write_to(lambda offset, part: store.write(segment, offset, part))
        else:
            store.write(segment, 0, data)
        store.seal(segment)
    except BaseException:
        store.free(segment.name)
        raise
    return Message(kind | IN_SEGMENT, pickle.dumps((segment.name, size), 5), Lent(store, segment.name))


def _decoded(kind: int, data: memoryview) -> Any:
    """The value, which shares no memory with `data`."""
    if kind == PICKLE:
        return pickle.loads(data)
    if kind == LAID_OUT:
        return serialization.read_stored(memoryview(bytes(data)))
    return Failed(bytes(data)) if kind == ERROR else bytes(data)


class Sender:
    """The end of an edge that writes."""

    def __init__(self, memory: Memory, edge: int) -> None:
        base = memory.base_of(edge)
        self._memory = memory
        self._side = ring.WriterSide(memory.slots)
        self._written = (base + _WRITTEN) // _WORD_BYTES
        self._read = (base + _READ) // _WORD_BYTES
        self._signal = (base + _SIGNAL) // 4
        self._is_waiting = (base + _IS_WAITING) // 4
        self._slots_at = base + HEADER_BYTES
        self._kept: collections.deque[tuple[int, Any]] = collections.deque()  # (message's number, its `kept`)
        self._letting_go = threading.Lock()  # who reads results lets go as well as who sends

    def send(self, message: Message) -> None:
        """There is always room: executions in flight are no more than slots. Raises ChannelClosed."""
        memory, side = self._memory, self._side
        words, halves = memory.words, memory.halves
        if self._kept:
            self.let_go()
        if halves[0]:
            raise ChannelClosed
        if not side.may_write(words[self._read]):
            checks.invariant(False, "a channel has no room", written=side.written)
        at = self._slots_at + side.slot() * (memory.slot_bytes + LINE_BYTES)
        start = at + LINE_BYTES
        kind, data, kept = message
        if kind == LAID_OUT:
            size = data.stored_bytes()
            target = memory.bytes[start : start + size]

            def write(offset: int, part: Any) -> None:
                segments.copy(target, offset, memoryview(part).cast("B"))

            data.write_to(write)
        else:
            size = len(data)
            memory.bytes[start : start + size] = data
        words[at // _WORD_BYTES] = size << _SIZE_SHIFT | kind
        if kept is not None:
            if type(kept) is Lent:
                kept.readers += 1
            self._kept.append((side.written, kept))
        with _fence:  # the slot is seen before the count
            pass
        words[self._written] = side.wrote()
        with _fence:  # the count is seen before we look whether the reader sleeps
            pass
        if halves[self._is_waiting]:
            halves[self._signal] = (halves[self._signal] + 1) & 0xFFFFFFFF
            futex.wake(memory.address + self._signal * 4)

    def let_go(self, *, of_all: bool = False) -> None:
        """Of what holds the values of messages that were read. of_all: the channels are closed, so nobody may read."""
        with self._letting_go:
            read = self._memory.words[self._read]
            while self._kept and (of_all or self._kept[0][0] < read):
                _, kept = self._kept.popleft()
                if type(kept) is Lent:
                    kept.give_back()


class Receiver:
    """The end of an edge that reads. One thread at a time. slice_s: how long a sleep lasts before `on_slice`."""

    def __init__(self, memory: Memory, edge: int, *, slice_s: float = SLICE_S) -> None:
        base = memory.base_of(edge)
        self._memory = memory
        self._side = ring.ReaderSide(memory.slots)
        self._written = (base + _WRITTEN) // _WORD_BYTES
        self._read = (base + _READ) // _WORD_BYTES
        self._signal = (base + _SIGNAL) // 4
        self._is_waiting = (base + _IS_WAITING) // 4
        self._slots_at = base + HEADER_BYTES
        self._slice_s = slice_s
        self._slice = futex.Timespec(slice_s)
        self._is_brisk = False  # the last wait was short
        self.asleep: tuple[int, float] | None = None  # which thread sleeps here, and since when (time.monotonic())

    @property
    def read_count(self) -> int:
        """How many messages were taken."""
        return self._side.read

    def is_ready(self) -> bool:
        return self._side.may_read(self._memory.words[self._written])

    def wait(self, deadline_s: float | None, on_slice: Callable[[], None]) -> bool:
        """Until there is a message, or the deadline (time.monotonic); whether there is one. `on_slice` is called from
        time to time meanwhile, and may raise. Raises ChannelClosed when there will be none."""
        if self.is_ready():
            return True
        began_s = time.monotonic()
        if self._is_brisk and self._look(began_s + SPIN_S if deadline_s is None else min(deadline_s, began_s + SPIN_S)):
            return True
        memory = self._memory
        halves = memory.halves
        try:
            while True:
                signal = halves[self._signal]
                halves[self._is_waiting] = 1
                with _fence:  # we are seen to wait before we look once more
                    pass
                if self.is_ready():
                    return True
                if halves[0]:
                    raise ChannelClosed
                left_s = self._slice_s if deadline_s is None else deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self.asleep = (threading.get_ident(), began_s)
                timespec = self._slice if left_s >= self._slice_s else futex.Timespec(left_s)
                futex.wait(memory.address + self._signal * 4, signal, timespec)
                if self.is_ready():
                    return True
                if time.monotonic() - began_s >= self._slice_s:
                    on_slice()
        finally:
            halves[self._is_waiting] = 0
            self.asleep = None
            self._is_brisk = time.monotonic() - began_s < SPIN_S

    def _look(self, until_s: float) -> bool:
        """Look without sleeping, for a moment."""
        words, written, read = self._memory.words, self._written, self._side.read
        while time.monotonic() < until_s:
            for _ in range(8):
                if words[written] > read:
                    return True
                os.sched_yield()
        return False

    def take(self, engine: Any) -> Any:
        """The next message's value, or a Failed; there is one. Raises what reading the value raises, or ChannelClosed when
        it may have been written over meanwhile, or was lost with its writer; the message is gone then."""
        memory, side = self._memory, self._side
        at = self._slots_at + side.slot() * (memory.slot_bytes + LINE_BYTES)
        with _fence:  # the count is seen before the slot is read
            pass
        word = memory.words[at // _WORD_BYTES]
        start = at + LINE_BYTES
        data = memory.bytes[start : start + (word >> _SIZE_SHIFT)]
        try:
            kind = word & ((1 << _SIZE_SHIFT) - 1)
            if kind < OBJECT:
                return _decoded(kind, data)
            if kind == OBJECT:
                return engine.get([refs.ObjectRef(bytes(data))], None)[0]
            where = pickle.loads(data)
            try:
                opened = engine.values.store.open(*where)
            except exceptions.ObjectLostError as lost:
                raise ChannelClosed from lost  # only the death of its writer takes a segment away: the graph is over
            try:
                value = _decoded(kind - IN_SEGMENT, opened.buffer)
            except Exception:
                self._check_open()
                raise
            self._check_open()
            return value
        finally:
            with _fence:  # the slot has been read before it is seen to be free
                pass
            memory.words[self._read] = side.took()

    def _check_open(self) -> None:
        """Raises ChannelClosed if what was read out of a segment may have been written over."""
        with _fence:  # it was read before we look
            pass
        if self._memory.is_closed:
            raise ChannelClosed


def make(path: str, *, edges: int, slots: int, slot_bytes: int) -> Memory:
    """New memory in a file of this name. Raises ObjectStoreFullError when there is no room for it."""
    wanted = size_bytes(edges=edges, slots=slots, slot_bytes=slot_bytes)
    try:
        descriptor = segments.allocate(path, 0, wanted)
    except OSError as error:
        if error.errno not in segments.FULL_ERRNOS:
            raise
        _no_room(path, wanted, edges)
    return Memory(descriptor, edges=edges, slots=slots, slot_bytes=slot_bytes)


def _no_room(path: str, wanted: int, edges: int) -> NoReturn:
    raise exceptions.ObjectStoreFullError(
        f"the channels of the graph need {wanted} bytes of shared memory for {edges} edges, and {os.path.dirname(path)} has "
        "no room for them; pass a smaller _buffer_size_bytes, or give the machine more (in a container, a larger "
        "--shm-size)"
    )


def attach(path: str, *, edges: int, slots: int, slot_bytes: int) -> Memory:
    """The memory that another process made."""
    return Memory(os.open(path, os.O_RDWR | os.O_CLOEXEC), edges=edges, slots=slots, slot_bytes=slot_bytes)
