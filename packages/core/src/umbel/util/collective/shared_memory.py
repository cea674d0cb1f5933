"""The backend for processes of one machine: small tensors travel in the frames, large ones through shared memory. Where ranks are
on several machines, all travel in the frames.

Each rank has a file in memory without a name, which all map and only it writes. It is gone with the last process that
maps it, however that ends. A large tensor passes in chunks through a few slots of that file, which stay in the
processor's caches and whose pages are touched once in the group's life.

Slots: all ranks count the chunks of all large operations alike, and chunk `k` lies in slot `k % SLOTS`. It is written
before step `k` of all ranks and read before step `k + 2`; chunk `k + 3`, which takes its place, is written after that.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umbel import exceptions, spi
from umbel.util.collective import framed, tensors

SLOT_BYTES = 2 << 20  # a step of all ranks for each costs little beside copying it, and it stays in a cache
SLOTS = 3
PAIR_SLOTS = 2  # for one rank's tensors to one other: written while the other is read
ALIGNMENT_BYTES = 64


def group_of(peers: spi.CollectivePeers) -> framed.FramedGroup:
    return SharedMemoryGroup(peers) if peers.is_one_machine else framed.FramedGroup(peers)


class SharedMemoryGroup(framed.FramedGroup):
    """See `spi.CollectiveGroup`."""

    def __init__(self, peers: spi.CollectivePeers) -> None:
        super().__init__(peers)
        self._written = 0  # chunks
        self._descriptors: dict[int, int] = {}
        self._areas: dict[int, Any] = {}
        own = _make_file((SLOTS + PAIR_SLOTS) * SLOT_BYTES)
        try:
            self._descriptors = {**peers.exchange_descriptors(own), self._rank: own}
        except BaseException:
            os.close(own)
            raise

    def _allreduce(self, text: str, array: Any, op: str) -> None:
        if array.nbytes <= self._inline_bytes_max:
            super()._allreduce(text, array, op)
            return
        rank, world_size = self._rank, self._peers.world_size

        def write(chunk: Any, slots: Mapping[int, Any]) -> None:
            """All but the slice that this rank reduces itself."""
            start, end = framed.slice_of(rank, world_size, chunk.size)
            slots[rank][:start] = chunk[:start]
            slots[rank][end:] = chunk[end:]

        def reduce(chunk: Any, slots: Mapping[int, Any]) -> None:
            start, end = framed.slice_of(rank, world_size, chunk.size)
            parts = {one: (chunk if one == rank else slots[one])[start:end] for one in range(world_size)}
            result = slots[rank][start:end]
            self._reduce(parts, op, result)
            chunk[start:end] = result

        def collect(chunk: Any, slots: Mapping[int, Any]) -> None:
            for one in self._others:
                start, end = framed.slice_of(one, world_size, chunk.size)
                chunk[start:end] = slots[one][start:end]

        self._pass(text, _chunks(array), write=write, before=reduce, after=collect)

    def _reduce_to(self, text: str, array: Any, root: int, op: str) -> None:
        if array.nbytes <= self._inline_bytes_max:
            super()._reduce_to(text, array, root, op)
            return
        is_root = root == self._rank

        def write(chunk: Any, slots: Mapping[int, Any]) -> None:
            if not is_root:
                slots[self._rank][:] = chunk

        def reduce(chunk: Any, slots: Mapping[int, Any]) -> None:
            if is_root:
                self._reduce({**slots, root: chunk}, op, chunk)

        self._pass(text, _chunks(array), write=write, before=reduce)

    def _broadcast(self, text: str, array: Any, root: int) -> None:
        if array.nbytes <= self._inline_bytes_max:
            super()._broadcast(text, array, root)
            return
        is_root = root == self._rank

        def write(chunk: Any, slots: Mapping[int, Any]) -> None:
            if is_root:
                slots[root][:] = chunk

        def read(chunk: Any, slots: Mapping[int, Any]) -> None:
            if not is_root:
                chunk[:] = slots[root]

        self._pass(text, _chunks(array), write=write, before=read)

    def _allgather(self, text: str, results: Sequence[Any], array: Any) -> None:
        if array.nbytes <= self._inline_bytes_max:
            super()._allgather(text, results, array)
            return

        def write(chunk: Any, slots: Mapping[int, Any]) -> None:
            slots[self._rank][:] = array[chunk]
            results[self._rank][chunk] = array[chunk]

        def read(chunk: Any, slots: Mapping[int, Any]) -> None:
            for rank in self._others:
                results[rank][chunk] = slots[rank]

        chunks = framed.slices_of(array.size, SLOT_BYTES // array.itemsize)
        self._pass(text, chunks, write=write, before=read, dtype=array.dtype)

    def _reducescatter(self, text: str, result: Any, inputs: Sequence[Any], op: str) -> None:
        if result.nbytes <= self._inline_bytes_max:
            super()._reducescatter(text, result, inputs, op)
            return
        rank, world_size = self._rank, self._peers.world_size
        piece_items = SLOT_BYTES // world_size // ALIGNMENT_BYTES * ALIGNMENT_BYTES // result.itemsize

        def pieces(slots: Mapping[int, Any], writer: int, reader: int, count: int) -> Any:
            start = reader * piece_items
            return slots[writer][start : start + count]

        def write(chunk: Any, slots: Mapping[int, Any]) -> None:
            for one in self._others:
                pieces(slots, rank, one, chunk.stop - chunk.start)[:] = inputs[one][chunk]

        def reduce(chunk: Any, slots: Mapping[int, Any]) -> None:
            count = chunk.stop - chunk.start
            parts = {one: pieces(slots, one, rank, count) for one in self._others}
            self._reduce({**parts, rank: inputs[rank][chunk]}, op, result[chunk])

        chunks = framed.slices_of(result.size, piece_items)
        self._pass(text, chunks, write=write, before=reduce, dtype=result.dtype, slot_items=piece_items * world_size)

    def _send(self, described: str, array: Any, rank: int) -> None:
        chunks = _chunks(array)

        def write(index: int) -> None:
            if index < len(chunks):
                self._pair_slot(self._rank, index, chunks[index])[:] = chunks[index]

        self._peers.send(rank, described, meanwhile=functools.partial(write, 0))
        for index in range(len(chunks)):
            self._peers.send(rank, f"chunk {index}", meanwhile=functools.partial(write, index + 1))

    def _recv(self, described: str, array: Any, rank: int) -> None:
        self._peers.receive(rank, described, lambda _: None)
        for index, chunk in enumerate(_chunks(array)):
            slot = self._pair_slot(rank, index, chunk)
            self._peers.receive(rank, f"chunk {index}", functools.partial(_copy, chunk, slot))

    def close(self) -> None:
        self._areas.clear()
        descriptors, self._descriptors = self._descriptors, {}
        for descriptor in descriptors.values():
            os.close(descriptor)

    # Large tensors

    def _pass(
        self,
        text: str,
        chunks: Sequence[Any],
        *,
        write: Callable[[Any, Mapping[int, Any]], None],
        before: Callable[[Any, Mapping[int, Any]], None],
        after: Callable[[Any, Mapping[int, Any]], None] | None = None,
        dtype: Any = None,
        slot_items: int | None = None,
    ) -> None:
        """Pass chunks through the slots, which are given to each function by rank, as long as the chunk.

        write: into this rank's slot. before: once all have written. after: once all have done `before`; what it reads must be
        read before the next step but one, as the module says.
        """
        slots_of = self._slots_from(dtype, slot_items)
        counted = self._written
        slots = slots_of(chunks[0])
        write(chunks[0], slots)
        try:
            self._peers.exchange(text)
        except exceptions.CollectiveMismatchError:
            self._written = counted  # some ranks may have meant a small operation, and counted nothing
            raise
        for index, chunk in enumerate(chunks):
            before(chunk, slots)
            is_last = index + 1 == len(chunks)
            if not is_last:
                next_slots = slots_of(chunks[index + 1])
                write(chunks[index + 1], next_slots)
            if after is not None or not is_last:
                self._peers.exchange("")
            if after is not None:
                after(chunk, slots)
            if not is_last:
                slots = next_slots

    def _slots_from(self, dtype: Any, slot_items: int | None) -> Callable[[Any], Mapping[int, Any]]:
        """The next slot of every rank, for a chunk: an array, or a slice if `dtype` says of what."""

        def slots_of(chunk: Any) -> Mapping[int, Any]:
            start = self._written % SLOTS * SLOT_BYTES
            self._written += 1
            kind = chunk.dtype if dtype is None else dtype
            count = slot_items or (chunk.size if dtype is None else chunk.stop - chunk.start)
            end = start + count * kind.itemsize
            return {rank: self._area(rank)[start:end].view(kind) for rank in range(self._peers.world_size)}

        return slots_of

    def _pair_slot(self, sender: int, index: int, chunk: Any) -> Any:
        start = (SLOTS + index % PAIR_SLOTS) * SLOT_BYTES
        return self._area(sender)[start : start + chunk.nbytes].view(chunk.dtype)

    def _area(self, rank: int) -> Any:
        """A rank's file as bytes, mapped when it is first needed: a group with small tensors touches no page."""
        area = self._areas.get(rank)
        if area is None:
            size_bytes = (SLOTS + PAIR_SLOTS) * SLOT_BYTES
            mapped = mmap.mmap(self._descriptors[rank], size_bytes)
            area = self._areas[rank] = tensors.numpy().frombuffer(mapped, dtype="u1")
        return area


def _make_file(size_bytes: int) -> int:
    """A descriptor of memory without a name. Pages are taken when they are first written."""
    if not hasattr(os, "memfd_create"):
        raise exceptions.UnsupportedFeature(
            'the backend "shm" needs Linux (memfd_create); use the backend "gloo" on this system'
        )
    descriptor = os.memfd_create("umbel-collective")
    try:
        os.ftruncate(descriptor, size_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _chunks(array: Any) -> list[Any]:
    items = SLOT_BYTES // array.itemsize
    return [array[at : at + items] for at in range(0, array.size, items)]


def _copy(target: Any, source: Any, _: bytes) -> None:
    target[:] = source
