"""How many bytes of pages one process may have: leased from whoever counts for the whole node, in chunks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from umbel import exceptions
from umbel._base import checks

CHUNK_BYTES = 16 << 20  # asking takes a round trip: one for at least this much
SPARE_BYTES_MAX = 2 * CHUNK_BYTES  # beyond it, all but a chunk goes back; the gap keeps it from going back and forth

_FULL = (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError)

Reserve = Callable[[int], int]
Release = Callable[[int], None]


class Capacity:
    """The other side of a Quota for a store on its own: a fixed number of bytes."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._free_bytes = capacity_bytes
        self._lock = threading.Lock()

    def reserve(self, size_bytes: int) -> int:
        with self._lock:
            granted_bytes = min(size_bytes, self._free_bytes)
            self._free_bytes -= granted_bytes
        if not granted_bytes:
            raise exceptions.ObjectStoreFullError(
                f"the object store has no room for {size_bytes} bytes: all {self._capacity_bytes} bytes of its "
                "capacity are in use; drop references to large values, or give it a larger capacity"
            )
        return granted_bytes

    def release(self, size_bytes: int) -> None:
        with self._lock:
            self._free_bytes += size_bytes


class Quota:
    """Bytes reserved elsewhere and claimed here. Never claims more than it has reserved.

    reserve: returns how many of the bytes it is asked for are granted, at least one, or raises ObjectStoreFullError
    or OutOfDiskError. None: whatever is claimed is granted.
    """

    def __init__(self, reserve: Reserve | None, release: Release | None) -> None:
        self._reserve: Reserve = reserve or int  # int grants what it is asked for
        self._release = release
        self._lock = threading.Lock()
        self._claimed_bytes = 0
        self._reserved_bytes = 0
        self._claims = 0  # under way: they collect what they need from several grants
        self._unclaimed_bytes = 0  # since the first of them began

    @property
    def reserved_bytes(self) -> int:
        return self._reserved_bytes

    @property
    def spare_bytes(self) -> int:
        """Reserved and not claimed."""
        return self._reserved_bytes - self._claimed_bytes

    def claim(self, size_bytes: int, *, shrink: Callable[[int], object]) -> None:
        """Take `size_bytes` from what is reserved, after reserving more if need be. Raises what `reserve`
        does.

        shrink: called with the bytes that are wanting before giving up; it unclaims as many as it can spare.
        """
        with self._lock:
            self._claims += 1
        try:
            self._claim(size_bytes, shrink)
        finally:
            with self._lock:
                self._claims -= 1
                if not self._claims:
                    self._unclaimed_bytes = 0

    def _claim(self, size_bytes: int, shrink: Callable[[int], object]) -> None:
        while missing_bytes := self._claim_spare(size_bytes):
            try:
                granted_bytes = self._ask(missing_bytes)
            except _FULL:
                shrink(missing_bytes)
                if self._claim_spare(size_bytes):
                    raise
                return
            with self._lock:
                self._reserved_bytes += granted_bytes

    def unclaim(self, size_bytes: int) -> None:
        with self._lock:
            self._claimed_bytes -= size_bytes
            if self._claims:
                self._unclaimed_bytes += size_bytes
            checks.invariant(self._claimed_bytes >= 0, "more pages were given back than were taken")

    def give_back(self, *, spare_bytes_max: int = SPARE_BYTES_MAX) -> None:
        """Release what is reserved and not claimed, but for a chunk, if it is more than `spare_bytes_max`.

        While a claim waits, only what was unclaimed meanwhile: not what the claim has collected.
        """
        with self._lock:
            spare_bytes = self._reserved_bytes - self._claimed_bytes
            excess_bytes = spare_bytes - min(CHUNK_BYTES, spare_bytes_max) if spare_bytes > spare_bytes_max else 0
            if self._claims:
                excess_bytes = min(spare_bytes, self._unclaimed_bytes)
                self._unclaimed_bytes = 0
            if not excess_bytes:
                return
            self._reserved_bytes -= excess_bytes
        if self._release is not None:
            self._release(excess_bytes)

    def _claim_spare(self, size_bytes: int) -> int:
        """Returns the bytes that are wanting; none are claimed then."""
        with self._lock:
            missing_bytes = max(0, self._claimed_bytes + size_bytes - self._reserved_bytes)
            if not missing_bytes:
                self._claimed_bytes += size_bytes
            return missing_bytes

    def _ask(self, size_bytes: int) -> int:
        if size_bytes < CHUNK_BYTES:
            try:
                return self._granted(CHUNK_BYTES)
            except _FULL:
                pass  # there may be room for what is needed, if not for a chunk
        return self._granted(size_bytes)

    def _granted(self, size_bytes: int) -> int:
        granted_bytes = self._reserve(size_bytes)
        checks.invariant(granted_bytes > 0, "a reservation granted nothing and raised nothing", asked_bytes=size_bytes)
        return granted_bytes
