"""How many rows a node has, where that is known before anything runs."""

from __future__ import annotations

from umbel.data._plan import logical

# One row for each that comes, whatever it is.
_KEEPS: tuple[type[logical.Node], ...] = (
    logical.Project,
    logical.Rename,
    logical.Repartition,
    logical.RandomShuffle,
    logical.RandomizeBlocks,
    logical.Window,
)


def of(node: logical.Node) -> int | None:
    if isinstance(node, logical.FromBlocks):
        return sum(block.metadata.row_count for block in node.blocks)
    if isinstance(node, logical.Read):
        return node.source.row_count() if node.limit is None else None
    inputs = [of(one) for one in node.inputs]
    if any(one is None for one in inputs):
        return None
    known = [one for one in inputs if one is not None]
    if isinstance(node, _KEEPS) or (isinstance(node, logical.MapRows) and node.kind == "map"):
        return known[0]
    if isinstance(node, logical.MapBatches) and not node.changes_row_count:
        return known[0]
    if isinstance(node, logical.Sort | logical.Limit):
        limit = node.limit if isinstance(node, logical.Sort) else node.row_count
        return known[0] if limit is None else min(known[0], limit)
    if isinstance(node, logical.Union):
        return sum(known)
    if isinstance(node, logical.Zip) and len(set(known)) == 1:
        return known[0]
    return None
