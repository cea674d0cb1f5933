"""Ended tasks as they are reported: by their owner to the node's daemon, which passes them on unread to the store.

A batch is a JSON header and five numbers for each task. What many tasks share (a *group*: template, worker, parent, attempt
and state) stands in the header once; tasks refer to it by number, counted from 0. Within a group, templates, workers and
parents are numbers too, counted from 1; 0 is for none. A batch can be read without any other.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umbel._history import codes

_ROW_BYTES = codes.WIDTH * codes.new_values().itemsize
_SIZE = struct.Struct("<I")


class Template(NamedTuple):
    """What all tasks of one template share. actor: hexadecimal, or ""; resources and env: JSON, or ""; call_site: where
    they were submitted, "" unless that is recorded, which makes several of one."""

    name: str
    function: str
    type: str
    actor: str = ""
    resources: str = ""
    env: str = ""
    call_site: str = ""


class Group(NamedTuple):
    """What the tasks of a group share."""

    template: int
    worker: int
    parent: int
    attempt: int
    state: int


class Failure(NamedTuple):
    """Why the row of that number, counted from 0, failed."""

    row: int
    type: str
    message: str


class Batch(NamedTuple):
    """One batch. Ids are hexadecimal; owner is the process whose tasks these are; values: `codes.WIDTH` for each task."""

    owner: str
    job: str
    templates: Sequence[Template]
    workers: Sequence[str]
    parents: Sequence[str]
    groups: Sequence[Group]
    failures: Sequence[Failure]
    values: array[float]

    @property
    def row_count(self) -> int:
        return len(self.values) // codes.WIDTH

    def rows(self) -> Iterator[tuple[int, int, float, float, float]]:
        """(group, seq, submitted, duration, ended) of each task."""
        groups, seqs, submitted, durations, ended = (self.values[start :: codes.WIDTH] for start in range(codes.WIDTH))
        return zip(map(int, groups), map(int, seqs), submitted, durations, ended, strict=True)


def encode(batch: Batch) -> bytes:
    facts = {name: value for name, value in batch._asdict().items() if name != "values"}
    header = json.dumps(facts, separators=(",", ":")).encode()
    return b"".join((_SIZE.pack(len(header)), header, batch.values.tobytes()))


def decode(data: bytes) -> Batch:
    """Inverse of `encode`. Raises ValueError for anything else, whoever has sent it."""
    try:
        (size,) = _SIZE.unpack_from(data)
        header: Mapping[str, Any] = json.loads(data[_SIZE.size : _SIZE.size + size])
        batch = Batch(
            owner=_hexadecimal(header["owner"]),
            job=str(header["job"]),
            templates=[Template(*map(str, one)) for one in header["templates"]],
            workers=[_hexadecimal(one) for one in header["workers"]],
            parents=[_hexadecimal(one) for one in header["parents"]],
            groups=[Group(*map(int, one)) for one in header["groups"]],
            failures=[Failure(int(one[0]), str(one[1]), str(one[2])) for one in header["failures"]],
            values=_values(data[_SIZE.size + size :]),
        )
    except (struct.error, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"this is no batch of task events: {error!r}") from error
    _check(batch)
    return batch


def _values(data: bytes) -> array[float]:
    if len(data) % _ROW_BYTES:
        raise ValueError(f"a batch's tasks take {_ROW_BYTES} bytes each, got {len(data)} bytes")
    values = codes.new_values()
    values.frombytes(data)
    return values


def _check(batch: Batch) -> None:
    """Numbers that refer to nothing."""
    for group in batch.groups:
        lengths = len(batch.templates), len(batch.workers), len(batch.parents)
        is_known = all(0 <= number <= length for number, length in zip(group[:3], lengths, strict=True))
        if not (is_known and group.template and group.state in codes.STATES and group.attempt >= 0):
            raise ValueError(f"a batch has the group {group}, which makes no sense in it")
    used = batch.values[:: codes.WIDTH]
    if used and not (min(used) >= 0 and max(used) < len(batch.groups)):
        raise ValueError(f"a batch has {len(batch.groups)} groups, and tasks of groups from {min(used)} to {max(used)}")
    if any(not 0 <= failure.row < batch.row_count for failure in batch.failures):
        raise ValueError(f"a batch of {batch.row_count} tasks tells of failures of others")


def _hexadecimal(text: Any) -> str:
    return bytes.fromhex(text).hex()
