"""Methods of a dataset that hand it on as a whole: as bytes of its plan, or as references to its blocks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel import cloudpickle
from umbel.data import block
from umbel.data._api import absent, references
from umbel.data._plan import logical

if TYPE_CHECKING:
    from umbel.data import context as contexts
    from umbel.data._plan import running
    from umbel.data.dataset import Dataset


@dataclass(frozen=True)
class RefBundle:
    """Some blocks: for each a reference to its table, and what is known of it."""

    blocks: tuple[tuple[Any, block.BlockMetadata], ...]

    @property
    def block_refs(self) -> list[Any]:
        """Of the tables, in order."""
        return [ref for ref, _ in self.blocks]

    @property
    def metadata(self) -> list[block.BlockMetadata]:
        """Of each block, in order."""
        return [known for _, known in self.blocks]

    def num_rows(self) -> int:
        """Of all blocks; of those of which it is not known, none."""
        return sum(known.num_rows or 0 for known in self.metadata)

    def size_bytes(self) -> int:
        """Of the rows of all blocks; of those of which it is not known, none."""
        return sum(known.size_bytes or 0 for known in self.metadata)


class Lineage:
    """See the module."""

    # What `Dataset` has is declared here, for type checkers: none of these errors can come of a dataset.
    _node: logical.Node
    _context: contexts.DataContext
    _name: str | None
    _id: str | None = None

    def _with(self, node: logical.Node) -> Dataset:
        raise NotImplementedError

    def _run(self, epoch: int | None = None) -> running.Run:
        raise NotImplementedError

    if not TYPE_CHECKING:  # which would take any name to be there
        __getattr__ = absent.of_dataset

    def copy(self, ds: Dataset | None = None) -> Dataset:
        """A dataset of the same plan. ds: of that one's."""
        return self._with((self if ds is None else ds)._node)

    def get_dataset_id(self) -> str:
        """One of its own."""
        if self._id is None:
            self._id = f"{self._name or 'dataset'}_{uuid.uuid4().hex[:12]}"
        return self._id

    def has_serializable_lineage(self) -> bool:
        """Whether the plan can be taken elsewhere: not if it begins with blocks in the store, which end with the session."""
        return all(
            isinstance(one.value, pa.Table)
            for node in logical.each(self._node)
            if isinstance(node, logical.FromBlocks)
            for one in node.blocks
        )

    def serialize_lineage(self) -> bytes:
        """The plan, with functions and with what was in memory when it was made; `deserialize_lineage` makes the dataset of it,
        in another session too. Whoever can write these bytes runs code where they are read. Raises ValueError if it cannot be."""
        if not self.has_serializable_lineage():
            raise ValueError(
                "the dataset begins with blocks in the store, which end with the session; write it, and serialize a dataset that "
                "reads it"
            )
        found: bytes = cloudpickle.dumps((self._node, self._context, self._name))
        return found

    @staticmethod
    def deserialize_lineage(serialized_ds: bytes) -> Dataset:
        """See `serialize_lineage`."""
        from umbel.data.dataset import Dataset

        node, context, name = cloudpickle.loads(serialized_ds)
        made = Dataset(node, context)
        made.set_name(name)
        return made

    def get_internal_block_refs(self) -> list[Any]:
        """Runs the plan: references to the tables of its blocks."""
        return references.of_blocks(self._run().blocks(), "pyarrow")

    def iter_internal_ref_bundles(self) -> Iterator[RefBundle]:
        """Runs the plan: its blocks one by one, as references, with what is known of them."""
        blocks = self._run().blocks()
        for one, ref in zip(blocks, references.of_blocks(blocks, "pyarrow"), strict=True):
            known = one.metadata
            files = tuple(known.input_files)
            metadata = block.BlockMetadata(num_rows=known.row_count, size_bytes=known.size_bytes, input_files=files)
            yield RefBundle(((ref, metadata),))
