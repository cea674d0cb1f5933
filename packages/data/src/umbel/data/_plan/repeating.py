"""Whether a plan gives the same rows in the same order each time."""

from __future__ import annotations

from umbel.data._plan import logical


def obstacle(last: logical.Node) -> str | None:
    """What is drawn anew in each run, in words; None if nothing is. Users' functions and files are taken to be as they were."""
    for node in logical.each(last):
        if isinstance(node, logical.Sample | logical.RandomShuffle | logical.RandomizeBlocks) and node.seed is None:
            return f"{node.name} has no seed; give it one"
        if isinstance(node, logical.Repartition) and node.shuffles:
            return "repartition(shuffle=True) has no seed; use random_shuffle(seed=..., num_blocks=...)"
        if isinstance(node, logical.Read) and not node.source.is_repeatable:
            return f"{node.name} has another order each time; give its shuffle a seed"
    return None
