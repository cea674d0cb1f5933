"""Sizes that the store has room for."""

from __future__ import annotations

import dataclasses
from typing import Any

from umbel.data._engine import fitting, stages

MIB = stages.MIB


def nothing(*_arguments: Any) -> Any:
    raise AssertionError("nothing runs here")


def plan(**options: Any) -> stages.Write:
    read = stages.Read(name="read", parts=[])
    mapped = stages.Map(name="map", input=read, transforms=(), block_bytes=0)
    sort = stages.Exchange(name="sort", inputs=(read, mapped), partition=(nothing, nothing), reduce=nothing, **options)
    return stages.Write(name="write", input=stages.Limit(input=sort, row_count=5), write=nothing)


def sizes(last: stages.Stage) -> list[tuple[str, dict[str, int]]]:
    names = ("block_bytes", "bundle_bytes", "partition_bytes", "partition_count_max")
    return [
        (
            stage.name,
            {name: getattr(stage, name) // MIB or getattr(stage, name) for name in names if hasattr(stage, name)},
        )
        for stage in stages.ordered(last)
    ]


def test_a_store_as_large_as_usual_changes_nothing() -> None:
    last = plan()
    assert fitting.piece_bytes(6 << 30, 8) > 128 * MIB
    assert fitting.fitted(last, fitting.piece_bytes(6 << 30, 8)) is last


def test_all_that_is_at_once_in_the_store_fits() -> None:
    """Two tasks with what they take and two blocks each, and three blocks of the consumer."""
    size = fitting.piece_bytes(128 * MIB, 2)
    assert 9 * size <= 128 * MIB < 9 * (size + 1)
    assert fitting.piece_bytes(1, 0) == MIB


def test_every_stage_asks_for_no_more_and_stays_what_it_was() -> None:
    last = plan()
    found = fitting.fitted(last, 10 * MIB)
    assert sizes(found) == [
        ("read", {"block_bytes": 10}),
        ("map", {"block_bytes": 0, "bundle_bytes": 10}),
        ("sort", {"block_bytes": 10, "bundle_bytes": 10, "partition_bytes": 10, "partition_count_max": 80}),
        ("Limit", {}),
        ("write", {"bundle_bytes": 10}),
    ]
    read, mapped, sort, limit, write = stages.ordered(found)
    assert write.inputs == (limit,) and limit.inputs == (sort,) and sort.inputs == (read, mapped)
    assert mapped.inputs == (read,)
    assert dataclasses.replace(found, input=last.input, bundle_bytes=last.bundle_bytes).__dict__ == last.__dict__


def test_no_more_partitions_than_leave_a_shard_its_size() -> None:
    """Else each of a bundle's shards were small enough to be kept in the driver's memory, and all of them are all there is."""
    count = fitting.fitted(plan(), MIB).input.input.partition_count_max
    assert MIB // count == fitting.SHARD_BYTES_MIN
    assert fitting.fitted(plan(partition_count_max=3), MIB).input.input.partition_count_max == 3
    assert fitting.fitted(plan(partition_count=7), MIB).input.input.partition_count == 7
