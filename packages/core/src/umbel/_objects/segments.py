"""Segments of shared memory as the operating system sees them: files, their names, pages and mappings.

Two rules make an access to mapped memory safe from SIGBUS: a page is allocated before anything maps it, and a file is
never cut within what is mapped of it. Which segment is whose, and which may be reused, is the business of `store`.
"""

from __future__ import annotations

import collections
import ctypes
import enum
import errno
import mmap
import os
from collections.abc import Callable

PAGE_BYTES = mmap.PAGESIZE
COPY_CHUNK_BYTES = 32 << 20  # takes about as long to copy as the GIL's switch interval, 5 ms
ALLOCATE_CHUNK_BYTES = 8 << 20  # a signal restarts an allocation; at 3 ms each one ends even under a profiler's timer

FULL_ERRNOS = frozenset((errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFBIG))  # no room for pages or for a mapping
_POPULATE: int = getattr(mmap, "MAP_POPULATE", 0)  # maps in one go what write faults would map page by page
_MAP_FAILED = ctypes.c_void_p(-1).value

# The mmap module keeps a descriptor open for each mapping, so that a thousand values would exhaust the usual limit.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.memmove.restype = ctypes.c_void_p
_libc.memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def page_bytes(size_bytes: int) -> int:
    """`size_bytes` in whole pages, at least one."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES or PAGE_BYTES


def class_bytes(size_bytes: int) -> int:
    """The size class of a value: whole pages, and less than a quarter above what `page_bytes` says."""
    if size_bytes <= 8 * PAGE_BYTES:
        return page_bytes(size_bytes)
    step = 1 << (size_bytes - 1).bit_length() - 3
    return -(-size_bytes // step) * step


def name_of(creator: str, owner: str, number: int | str) -> str:
    return f"{creator}.{owner}.{number}"


def parts_of(name: str) -> tuple[str, str, int]:
    """(creator, owner, number) of a segment's name. Raises ValueError: names come from other processes too."""
    parts = name.split(".")
    if len(parts) != 3 or "/" in name or not (parts[0] and parts[1] and parts[2].isdecimal()):
        raise ValueError(f"a segment is called <creator>.<owner>.<number>, got {name!r}")
    return parts[0], parts[1], int(parts[2])


def allocate(path: str, start_bytes: int, end_bytes: int) -> int:
    """Give a file pages from `start_bytes`, its length, to `end_bytes`; make the file if it starts at 0.

    Returns an open descriptor. Leaves things as they were when it raises OSError (`FULL_ERRNOS`: no room).
    """
    descriptor = os.open(path, os.O_RDWR | (0 if start_bytes else os.O_CREAT | os.O_EXCL), 0o600)
    try:
        for start in range(start_bytes, end_bytes, ALLOCATE_CHUNK_BYTES):
            _fallocate(descriptor, start, min(ALLOCATE_CHUNK_BYTES, end_bytes - start))
    except BaseException:  # an interrupt too must not leave pages that nobody counts
        if start_bytes:
            os.ftruncate(descriptor, start_bytes)
        else:
            os.unlink(path)
        os.close(descriptor)
        raise
    return descriptor


def _write_zeros(descriptor: int, start: int, size_bytes: int) -> None:
    zeros = memoryview(bytes(size_bytes))
    done = 0
    while done < size_bytes:
        done += os.pwrite(descriptor, zeros[done:], start + done)


_fallocate: Callable[[int, int, int], None] = getattr(os, "posix_fallocate", _write_zeros)  # macOS has none


def write(descriptor: int, offset: int, source: memoryview) -> None:
    """Write all of `source` without mapping the file: the kernel need not clear a page that it is about to fill."""
    done = 0
    while done < source.nbytes:
        done += os.pwrite(descriptor, source[done:], offset + done)


def copy(target: memoryview, offset: int, source: memoryview) -> None:
    """Copy all of `source`, plain bytes. Other threads get the GIL meanwhile, unless it is over before they would."""
    size_bytes = source.nbytes
    if size_bytes <= COPY_CHUNK_BYTES:
        target[offset : offset + size_bytes] = source
        return
    if not source.readonly:  # ctypes tells the address of writable memory only
        _libc.memmove(_address_of(target[offset : offset + size_bytes]), _address_of(source), size_bytes)
        return
    for start in range(0, size_bytes, COPY_CHUNK_BYTES):
        part = source[start : start + COPY_CHUNK_BYTES]
        target[offset + start : offset + start + part.nbytes] = part


def _address_of(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def begin_generation(path: str, number: int) -> None:
    """What lies in a segment is dead, and other things may come to lie in it: whoever is reading it notices by `generation`.

    The time of its last change does for that, since writing to mapped memory leaves that as it is. number: one that the
    segment has not had. Raises FileNotFoundError.
    """
    os.utime(path, ns=(number, number))


def generation(descriptor: int) -> int:
    """Changes before anything else comes to lie in a sealed segment."""
    return os.fstat(descriptor).st_mtime_ns


def remove(path: str) -> int:
    """Remove a segment's file. Returns its bytes of pages, 0 if there is none; they go with the last mapping."""
    try:
        size_bytes = os.stat(path).st_blocks * 512  # the unit of st_blocks, whatever the file system's is
        os.unlink(path)
    except FileNotFoundError:
        return 0
    return size_bytes


class Mapping:
    """All of a file's pages in this process's address space, until the last reference to this object goes."""

    __slots__ = ("_address", "_array_type", "size_bytes")

    def __init__(self, descriptor: int, *, is_writable: bool) -> None:
        self.size_bytes = 0
        size_bytes = os.fstat(descriptor).st_size
        # Reads fault in sixteen pages at a time anyway, and may never touch most of a large value.
        flags = mmap.MAP_SHARED | (_POPULATE if is_writable else 0)
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if is_writable else 0)
        address = _libc.mmap(None, size_bytes, protection, flags, descriptor, 0)
        if address == _MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._address: int = address
        self.size_bytes = size_bytes
        # ctypes makes a type for each length: classes keep them few. No more of an array is shown than is mapped.
        self._array_type = ctypes.c_ubyte * class_bytes(size_bytes)

    def __del__(self, _munmap: Callable[[int, int], int] = _libc.munmap) -> None:
        if self.size_bytes:
            _munmap(self._address, self.size_bytes)

    def view(self, size_bytes: int, keep: object) -> memoryview:
        """The first `size_bytes`. `keep` lives as long as this view and whatever shares its memory."""
        anchor = self._array_type.from_address(self._address)
        anchor.keep = keep  # type: ignore[attr-defined]  # instances of a ctypes array take attributes
        return memoryview(anchor).cast("B")[:size_bytes]


class State(enum.Enum):
    MAKING = "being allocated"
    WRITING = "writing"
    SEALED = "sealed"
    VIEWED = "freed, and viewed in this process"
    WARM = "free"


class OwnSegment:
    """A segment that this process created."""

    __slots__ = (
        "backed_bytes",
        "class_bytes",
        "descriptor",
        "idle_since_s",
        "mapping",
        "name",
        "number",
        "state",
        "views",
    )

    def __init__(self, name: str, number: int, size_class: int) -> None:
        self.descriptor = -1  # open while fresh pages are written
        self.name = name
        self.number = number
        self.class_bytes = size_class
        self.backed_bytes = 0  # pages allocated, and the file's length
        self.mapping: Mapping | None = None
        self.state = State.MAKING
        self.views = 0
        self.idle_since_s = 0.0

    def __del__(self) -> None:
        self.close_descriptor()

    def close_descriptor(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class ForeignSegment:
    """A segment that another process created, mapped here. Its creator may rename it: the key leaves out the owner."""

    __slots__ = ("idle_since_s", "key", "mapping", "name", "views")

    def __init__(self, key: tuple[str, int], mapping: Mapping) -> None:
        self.key = key
        self.name = ""  # as it was opened last
        self.mapping = mapping
        self.views = 0
        self.idle_since_s = 0.0


SegmentQueue = collections.deque["OwnSegment | ForeignSegment"]


class Lease:
    """Dies with the last view that one `open` led to, in whatever thread and moment that happens, and reports it.

    released: gets `source`. It is read under the lock by later operations, since this thread may hold the lock now.
    """

    __slots__ = ("_mapping", "_on_release", "_process", "_released", "_source")

    def __init__(
        self,
        mapping: Mapping,
        source: OwnSegment | ForeignSegment,
        *,
        released: SegmentQueue,
        on_release: Callable[[], None] | None,
        process: int,
    ) -> None:
        self._mapping = mapping
        self._source = source
        self._released = released
        self._on_release = on_release
        self._process = process

    def __del__(self, _getpid: Callable[[], int] = os.getpid) -> None:
        if _getpid() == self._process:  # a forked child's copy of a view is no view of ours
            self._released.append(self._source)
            if self._on_release is not None:
                self._on_release()
