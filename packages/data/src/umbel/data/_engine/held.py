"""Blocks as the executor has them: what is in the store, what came with the reply, what the caller had in memory."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

import umbel
from umbel import exceptions
from umbel.data._engine import blocks_out, events, stages

FILES_MAX = 100  # names of input files that a block has with it


class Held:
    """One block. ref: None for a table in memory that was not needed elsewhere so far. item: what came with the reply."""

    __slots__ = ("_packed", "item", "metadata", "ref", "table")

    def __init__(self, ref: Any, item: tuple[Any, ...] | None, metadata: stages.Metadata) -> None:
        self.ref = ref
        self.item = item
        self.metadata = metadata
        self.table: pa.Table | None = None
        self._packed: bytes | None = None

    @classmethod
    def of_block(cls, block: stages.Block) -> Held:
        is_ref = isinstance(block.value, umbel.ObjectRef)
        made = cls(block.value if is_ref else None, None, block.metadata)
        made.table = None if is_ref else block.value
        return made

    @classmethod
    def of_bytes(cls, packed: bytes, metadata: stages.Metadata) -> Held:
        """Of a small one that came with others."""
        made = cls(None, None, metadata)
        made._packed = packed
        return made

    def argument(self) -> Any:
        """What a task is given for it: bytes of a small table, else a reference."""
        if self.ref is not None:
            return self.ref
        if self._packed is None:
            packed = blocks_out.pack(self.table)
            if not isinstance(packed, bytes):
                self.ref = umbel.put(packed)
                return self.ref
            self._packed = packed
        return self._packed

    def whole(self) -> pa.Table:
        if self.table is not None:
            return self.table
        if self.item is not None:
            return blocks_out.unpack(self.item)
        if self._packed is not None:
            return blocks_out.unpack(self._packed)
        try:
            return blocks_out.unpack(umbel.get(self.ref))
        except GONE as error:
            raise lost(error) from error


GONE = (exceptions.ActorDiedError, exceptions.ObjectReconstructionFailedError)  # of a block: nobody can make it again


def lost(cause: exceptions.UmbelError) -> exceptions.ObjectLostError:
    """What is said of a block for which one of `GONE` was raised."""
    error = exceptions.ObjectLostError(
        "a block of the dataset is lost with the node that it lay on, and cannot be made again, for what made it has ended (an "
        "actor of map_batches() does with its run); run the dataset once more, or write it to files where that takes long"
    )
    error.__cause__ = cause
    return error


class View:
    """Rows of a block."""

    __slots__ = ("_held", "offset", "row_count", "size_bytes")

    def __init__(self, block: Held, piece: events.Piece) -> None:
        self._held = block
        self.offset = piece.offset
        self.row_count = piece.row_count
        self.size_bytes = piece.size_bytes

    @property
    def metadata(self) -> stages.Metadata:
        """Of these rows."""
        whole = self._held.metadata
        if self.row_count == whole.row_count:
            return whole
        return stages.Metadata(self.row_count, self.size_bytes, whole.schema, whole.input_files)

    def table(self) -> pa.Table:
        """Fetched, if it is not here. Copies nothing."""
        table = self._held.whole()
        if self.row_count == table.num_rows:
            return table
        return table.slice(self.offset, self.row_count)

    def value(self) -> Any:
        """Of a write: what it returned."""
        item = self._held.item
        return item[1] if item is not None else None

    def block(self) -> stages.Block:
        """For the `Input` of another plan: a reference where the block is in the store as a whole, else the table."""
        if self._held.ref is not None and self.row_count == self._held.metadata.row_count:
            return stages.Block(self._held.ref, self.metadata)
        return stages.Block(self.table(), self.metadata)
