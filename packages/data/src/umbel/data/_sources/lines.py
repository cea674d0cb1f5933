"""Files of lines, in pieces of whole lines; and large files divided among tasks by bytes.

A part of a file has the lines that begin in it, whichever bytes they end at: so each line is in one part. A line ends with
a line feed, whatever is before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from umbel.data._sources import listing, packing

PIECE_BYTES: Final = 8 << 20  # of text that is parsed at once: some ten thousand lines, and little memory
PART_BYTES: Final = 64 << 20  # of a file that is divided


class Part(NamedTuple):
    """The lines that begin from start on and before stop."""

    start: int
    stop: int


def divided(files: Sequence[listing.ListedFile], can_divide: Callable[[str], bool]) -> list[packing.Unit]:
    """A unit for each file, or several for a large one that can be read from its middle: one that is not compressed."""
    units = []
    for file in files:
        count = max(1, round(file.size_bytes / PART_BYTES)) if can_divide(file.path) else 1
        if count == 1:
            units.append(packing.Unit(file.path, max(file.size_bytes, 0)))
        for index in range(count) if count > 1 else ():
            part = Part(file.size_bytes * index // count, file.size_bytes * (index + 1) // count)
            units.append(packing.Unit(file.path, part.stop - part.start, part))
    return units


def pieces(stream: Any, *, head: bytes = b"") -> Iterator[bytes]:
    """What is left of the stream, in pieces of whole lines. head: what was read of it already. Only the last piece may lack its
    line feed."""
    carried = [head] if head else []
    while chunk := stream.read(PIECE_BYTES):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join([*carried, chunk[:end]])
            carried = []
        if end < len(chunk):
            carried.append(chunk[end:])
    if carried:
        yield b"".join(carried)


def part_pieces(file: Any, part: Part) -> Iterator[bytes]:
    """The lines of a part, of a file that can be read from any place."""
    position = _first_line(file, part.start)
    if position >= part.stop:
        return
    file.seek(position)
    for piece in pieces(file):
        if position + len(piece) > part.stop:
            end = piece.find(b"\n", part.stop - 1 - position) + 1
            yield piece[:end] if end else piece
            return
        yield piece
        position += len(piece)
        if position == part.stop:  # the next line begins where the next part does
            return


def _first_line(file: Any, start: int) -> int:
    """Where the first line that begins at `start` or behind it begins."""
    if start == 0:
        return 0
    position = start - 1
    file.seek(position)
    while chunk := file.read(64 << 10):
        end = chunk.find(b"\n")
        if end >= 0:
            return int(position + end + 1)
        position += len(chunk)
    return position
