"""Batches of ended tasks: what is encoded is read back, and what is no batch is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from umbel._history import batches, codes

OWNER, WORKER = "0a" * 16, "0b" * 16


def batch(rows: list[tuple[Any, ...]], **changes: Any) -> batches.Batch:
    made = batches.Batch(
        owner=OWNER,
        job="01000000",
        templates=[batches.Template("f", "f", codes.NORMAL, "", '{"CPU": 1.0}', "")],
        workers=[WORKER],
        parents=[OWNER + "0" * 15 + "7"],
        groups=[batches.Group(1, 1, 0, 0, codes.FINISHED), batches.Group(1, 0, 1, 2, codes.FAILED)],
        failures=[batches.Failure(1, "WORKER_DIED", "it died")],
        values=codes.new_values([value for row in rows for value in row]),
    )
    return made._replace(**changes)


ROWS = [(0, 1, 10.0, 0.5, 11.0), (1, 2, 10.5, codes.UNKNOWN_S, 12.0)]


def test_batch_is_read_as_it_was_written() -> None:
    written = batch(ROWS)
    assert batches.decode(batches.encode(written)) == written
    assert list(written.rows()) == ROWS
    assert written.row_count == 2


def test_empty_batch_is_read() -> None:
    empty = batch([], failures=[])
    assert batches.decode(batches.encode(empty)).row_count == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": "xyz"},
        {"workers": ["q"]},
        {"groups": [batches.Group(2, 1, 0, 0, codes.FINISHED), batches.Group(1, 0, 0, 0, codes.FAILED)]},
        {"groups": [batches.Group(1, 9, 0, 0, codes.FINISHED), batches.Group(1, 0, 0, 0, codes.FAILED)]},
        {"groups": [batches.Group(0, 1, 0, 0, codes.FINISHED), batches.Group(1, 0, 0, 0, codes.FAILED)]},
        {"groups": [batches.Group(1, 1, 0, 0, 77), batches.Group(1, 0, 0, 0, codes.FAILED)]},
        {"groups": [batches.Group(1, 1, 0, 0, codes.FINISHED)]},
        {"values": codes.new_values([-1, 1, 0, 0, 0])},
        {"failures": [batches.Failure(2, "WORKER_DIED", "")]},
    ],
)
def test_batch_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        batches.decode(batches.encode(batch(ROWS, **changes)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        struct.pack("<I", 1_000) + b"{}",
        struct.pack("<I", 2) + b"{}",
        struct.pack("<I", 2) + b"[]",
        struct.pack("<I", 2) + b"\xff\xff",
        batches.encode(batch(ROWS))[:-1],
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        batches.decode(data)


def test_every_prefix_of_a_batch_is_refused_or_another_batch() -> None:
    data = batches.encode(batch(ROWS))
    (size,) = struct.unpack_from("<I", data)
    assert json.loads(data[4 : 4 + size])["owner"] == OWNER
    for length in range(len(data)):
        with pytest.raises(ValueError):
            batches.decode(data[:length])
