"""Ended tasks as they are reported: by their owner to the node's daemon, which passes them on unread to the store.

A batch is a JSON header and five numbers for each task. What many tasks share (a *group*: template, worker, parent, attempt
and state) stands in the header once; tasks refer to it by number, counted from 0. Within a group, templates, workers and
parents are numbers too, counted from 1; 0 is for none. A batch can be read without any other.

The store keeps header and numbers apart. Who asks makes a digest of the numbers, by which later questions mostly do without.
"""

from __future__ import annotations

import itertools
import json
import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umbel._history import codes

PROCESS_DIGITS, TASK_DIGITS = 32, 48  # of ids, which are hexadecimal
_ROW_BYTES = codes.WIDTH * codes.new_values().itemsize
_SIZE = struct.Struct("<I")
_FEW_GROUPS = 6  # are counted one by one in less time than all together


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

    def column(self, number: int) -> array[float]:
        """Of all tasks, that number of each."""
        return self.values[number :: codes.WIDTH]

    def rows(self) -> Iterator[tuple[int, int, float, float, float]]:
        """(group, seq, submitted, duration, ended) of each task."""
        groups, seqs, submitted, durations, ended = map(self.column, range(codes.WIDTH))
        return zip(map(int, groups), map(int, seqs), submitted, durations, ended, strict=True)


def encode(batch: Batch) -> bytes:
    facts = {name: value for name, value in batch._asdict().items() if name != "values"}
    header = json.dumps(facts, separators=(",", ":")).encode()
    return b"".join((_SIZE.pack(len(header)), header, batch.values.tobytes()))


def decode(data: bytes) -> Batch:
    """Inverse of `encode`. Raises ValueError for anything else, whoever has sent it."""
    header, body = split(data)
    return joined(read_header(header, digest_of(body)), body)


def split(data: bytes) -> tuple[bytes, bytes]:
    """(header, numbers) of an encoded batch; (all, b"") of what is none, which `read_header` refuses."""
    start = _SIZE.size
    if len(data) >= start:
        start += int(_SIZE.unpack_from(data)[0])
    if not _SIZE.size < start <= len(data) or (len(data) - start) % _ROW_BYTES:
        return data, b""
    return data[_SIZE.size : start], data[start:]


def row_count(size_bytes: int) -> int:
    """How many tasks' numbers take so many bytes."""
    return size_bytes // _ROW_BYTES


class Digest(NamedTuple):
    """Of a batch's numbers. counts: how many tasks each group has; seqs, ended: the least and the most of them."""

    counts: dict[int, int]
    seqs: tuple[float, float]
    ended: tuple[float, float]

    @property
    def row_count(self) -> int:
        return sum(self.counts.values())

    def encode(self) -> bytes:
        pairs = itertools.chain.from_iterable(self.counts.items())
        return codes.new_values([*self.seqs, *self.ended, *pairs]).tobytes()


def digest_of(body: bytes) -> Digest:
    """Costs a sixth of a microsecond for each task. Raises ValueError or OverflowError for groups that are no numbers."""
    groups, seqs, ended = (
        _values(body)[number :: codes.WIDTH].tolist() for number in (codes.GROUP, codes.SEQ, codes.ENDED)
    )
    if not groups:
        return Digest({}, (0.0, 0.0), (0.0, 0.0))
    seqs.sort()  # quicker than to look for the least and the most, as they are in order but for a few
    ended.sort()
    kinds = set(groups)
    counted = (
        ((group, groups.count(group)) for group in kinds) if len(kinds) <= _FEW_GROUPS else Counter(groups).items()
    )
    counts = {int(group): count for group, count in counted}
    return Digest(counts, (seqs[0], seqs[-1]), (ended[0], ended[-1]))


def read_digest(data: bytes) -> Digest:
    """Inverse of `Digest.encode`."""
    first_seq, last_seq, first_s, last_s, *pairs = _values(data)
    counts = dict(zip(map(int, pairs[::2]), map(int, pairs[1::2]), strict=True))
    return Digest(counts, (first_seq, last_seq), (first_s, last_s))


def read_header(header: bytes, digest: Digest) -> Batch:
    """The batch but for its numbers. Raises ValueError when it is none, or the numbers do not go with it."""
    try:
        facts: Mapping[str, Any] = json.loads(header)
        batch = Batch(
            owner=_hexadecimal([facts["owner"]], PROCESS_DIGITS)[0],
            job=str(facts["job"]),
            templates=[Template(*map(str, one)) for one in facts["templates"]],
            workers=_hexadecimal(facts["workers"], PROCESS_DIGITS),
            parents=_hexadecimal(facts["parents"], TASK_DIGITS),
            groups=list(map(Group._make, facts["groups"])),
            failures=[Failure(int(one[0]), str(one[1]), str(one[2])) for one in facts["failures"]],
            values=codes.new_values(),
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"this is no batch of task events: {error!r}") from error
    _check(batch, digest)
    return batch


def joined(batch: Batch, body: bytes) -> Batch:
    """A batch that was read without its numbers, with them."""
    return batch._replace(values=_values(body))


def _values(data: bytes) -> array[float]:
    values = codes.new_values()
    values.frombytes(data)
    return values


def _check(batch: Batch, digest: Digest) -> None:
    """Numbers that refer to nothing. Column by column: tasks that others have submitted make as many groups as parents."""
    limits = (len(batch.templates), len(batch.workers), len(batch.parents), 1 << 62, max(codes.STATES))
    for name, numbers, limit in zip(Group._fields, zip(*batch.groups, strict=True), limits, strict=False):
        least = 1 if name in ("template", "state") else 0
        if set(map(type, numbers)) != {int} or not (least <= min(numbers) and max(numbers) <= limit):
            raise ValueError(f"a batch has groups with a {name} that is not a number from {least} to {limit}")
    used = digest.counts
    if used and not (min(used) >= 0 and max(used) < len(batch.groups)):
        raise ValueError(f"a batch has {len(batch.groups)} groups, and tasks of groups from {min(used)} to {max(used)}")
    if any(not 0 <= failure.row < digest.row_count for failure in batch.failures):
        raise ValueError(f"a batch of {digest.row_count} tasks tells of failures of others")


def _hexadecimal(texts: list[str], digits: int) -> list[str]:
    """The ids as they are compared: in small letters, and of that length."""
    if not set(map(len, texts)) <= {digits}:
        raise ValueError(f"a batch has ids that are not of {digits} digits")
    together = "".join(texts)
    if len(bytes.fromhex(together)) * 2 != len(together):
        raise ValueError("a batch has ids with spaces")
    return [text.lower() for text in texts]
