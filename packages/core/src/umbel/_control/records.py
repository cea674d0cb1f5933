"""How a record of the control store is written: a line of JSON, and behind it an opaque body.

    {"v":1,"parts":2,"state":"ALIVE",...}\\n<bytes that nobody here opens>

"v" is the version of the encoding. A reader takes this version and the one before: a version only adds fields, which it has
defaults for, so that heads of two neighbouring versions can follow each other, and an upgrade can be taken back by one
version. Another version is refused as a whole. A body that does not fit into a value of the storage goes on in `key#1`,
`key#2`, ...; "parts" says how many values there are. All writes of a record go into one commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from umbel import exceptions

VERSION = 1
PART_BYTES = 1 << 19  # half of what a storage takes as a value, so that the line of JSON has room as well

Writes = dict[str, "bytes | None"]


class Record(NamedTuple):
    facts: dict[str, Any]
    body: bytes


class Book:
    """Which records there are in the storage, as far as it takes to write the next ones: their keys and parts."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._parts

    def put(self, key: str, facts: Mapping[str, Any], body: bytes = b"") -> Writes:
        """What to write so that the record is this one."""
        chunks = [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)] or [b""]
        line = json.dumps({"v": VERSION, "parts": len(chunks), **facts}, separators=(",", ":"))
        writes: Writes = {key: line.encode() + b"\n" + chunks[0]}
        writes |= {f"{key}#{number}": chunk for number, chunk in enumerate(chunks[1:], 1)}
        writes |= {f"{key}#{number}": None for number in range(len(chunks), self._parts.get(key, 0))}
        self._parts[key] = len(chunks)
        return writes

    def delete(self, key: str) -> Writes:
        """Nothing if there is none."""
        count = self._parts.pop(key, 0)
        return {f"{key}#{number}" if number else key: None for number in range(count)}

    def read(self, stored: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Record]]:
        """The records of what a storage has, sorted by key. Raises StorageMismatch for what this version cannot read."""
        values = dict(stored)
        for key in sorted(values):
            if "#" in key:
                continue
            line, separator, body = values[key].partition(b"\n")
            try:
                facts = json.loads(line)
                version, count = facts.pop("v"), facts.pop("parts")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise exceptions.StorageMismatch(
                    f"the record {key!r} of the control storage is none of Umbel's"
                ) from error
            if not separator or not VERSION - 1 <= version <= VERSION:
                raise exceptions.StorageMismatch(
                    f"the record {key!r} of the control storage has version {version}, this version of Umbel reads "
                    f"{max(1, VERSION - 1)} to {VERSION}; use one in between, or the one that wrote it"
                )
            try:
                rest = [values[f"{key}#{number}"] for number in range(1, count)]
            except KeyError as error:
                raise exceptions.StorageMismatch(
                    f"of the record {key!r} of the control storage a part is missing"
                ) from error
            self._parts[key] = count
            yield key, Record(facts, b"".join((body, *rest)) if rest else body)
