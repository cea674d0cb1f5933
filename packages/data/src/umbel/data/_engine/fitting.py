"""Blocks, bundles and partitions of sizes that the store has room for.

A task needs what it takes and the two blocks that it is ahead of its reader in the store at once, and a consumer has three:
what it works on, what comes next, and what is being made. Where the budget has no room for that of all tasks that run at
once, at the sizes that were asked for, everything is made in smaller pieces. Only where the cluster has more CPUs for each
of its bytes than usual: 128 MiB fit where a CPU has about 0.8 GB of store.
"""

from __future__ import annotations

from typing import Any

from umbel.data._engine import stages

PIECES_AT_ONCE = 3  # of a task, and as many of the consumer
PIECE_BYTES_MIN = stages.MIB  # smaller ones cost more time than they save room
# What is smaller, core keeps in memory of the driver's, and there is no end to how many there are.
SHARD_BYTES_MIN = 128 << 10

_SIZES = ("block_bytes", "bundle_bytes", "partition_bytes")


def piece_bytes(budget_bytes: int, cpu_count: float) -> int:
    """How large a block, and what a task gets, may be."""
    return max(PIECE_BYTES_MIN, int(budget_bytes / (PIECES_AT_ONCE * (max(1.0, cpu_count) + 1))))


def fitted(last: stages.Stage, size_bytes: int) -> stages.Stage:
    """The same stages, of which none asks for pieces of more than so many bytes."""

    def change(stage: stages.Stage) -> dict[str, Any]:
        given: dict[str, Any] = {name: size_bytes for name in _SIZES if getattr(stage, name, 0) > size_bytes}
        if isinstance(stage, stages.Exchange):
            bundle_bytes = given.get("bundle_bytes", stage.bundle_bytes)
            count_max = max(1, bundle_bytes // SHARD_BYTES_MIN)
            if stage.bundle_bytes > bundle_bytes and count_max < stage.partition_count_max:
                given["partition_count_max"] = count_max
        return given

    return stages.changed(last, change)
