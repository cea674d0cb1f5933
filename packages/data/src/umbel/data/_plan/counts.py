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


def keeps(node: logical.Node) -> bool:
    """It gives a row for each that comes. A row on which a user's function fails is none, if it may be left out."""
    if isinstance(node, logical.MapRows):
        return node.kind == "map" and node.on_error == "raise"
    if isinstance(node, logical.MapBatches):
        return not node.changes_row_count and node.on_error == "raise"
    return isinstance(node, _KEEPS)


def of(last: logical.Node, *, at_once: bool = False) -> int | None:
    """at_once: as far as no file is opened for it."""
    known: dict[logical.Node, int | None] = {}
    for node in logical.each(last):
        is_asked = not (at_once and isinstance(node, logical.Read)) or node.source.is_told_at_once
        known[node] = None if not is_asked else _of_one(node, [known[one] for one in node.inputs])
    return known[last]


def _of_one(node: logical.Node, inputs: list[int | None]) -> int | None:
    if isinstance(node, logical.FromBlocks):
        return sum(block.metadata.row_count for block in node.blocks)
    if isinstance(node, logical.Read):
        return node.source.row_count() if node.limit is None else None
    if isinstance(node, logical.AsofJoin):
        return inputs[0]
    there = [one for one in inputs if one is not None]
    if len(there) < len(inputs):
        return None
    if keeps(node):
        return there[0]
    if isinstance(node, logical.Sort | logical.Limit):
        limit = node.limit if isinstance(node, logical.Sort) else node.row_count
        return there[0] if limit is None else min(there[0], limit)
    if isinstance(node, logical.Union) or (isinstance(node, logical.Mix) and not node.is_shortest):
        return sum(there)
    if isinstance(node, logical.Zip) and len(set(there)) == 1:
        return there[0]
    return None
