"""Text: a row for each line, in the column `text`."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from umbel import exceptions
from umbel.data._sources import files, filesystems, lines, listing, packing

_COLUMN = "text"


class TextDatasource(files.FileBasedDatasource):
    """encoding: of Python's codecs. drop_empty_lines: those of white space alone too. What ends a line is no part of it."""

    def __init__(
        self, paths: filesystems.Paths, *, encoding: str = "utf-8", drop_empty_lines: bool = True, **options: Any
    ) -> None:
        super().__init__(paths, **options)
        try:
            self._encoding = codecs.lookup(encoding).name
        except LookupError:
            raise exceptions.InvalidOption(
                f"there is no encoding {encoding!r}; try 'utf-8'", option="encoding"
            ) from None
        self._drop_empty_lines = drop_empty_lines
        self._has_wide_units = self._encoding.startswith(("utf-16", "utf-32"))  # a line feed is several bytes there

    def get_name(self) -> str:
        return "Text"

    def _file_schema(self) -> pa.Schema:
        return pa.schema([(_COLUMN, pa.string())])

    def _units(self, files: Sequence[listing.ListedFile]) -> list[packing.Unit]:
        return lines.divided(files, lambda path: not (self._has_wide_units or self._is_compressed(path)))

    def _read_unit(self, unit: packing.Unit) -> Iterator[pa.Table]:
        if unit.part is None:
            with self._open_input_source(unit.path) as stream:
                if self._has_wide_units:
                    yield self._table(stream.read().decode(self._encoding).encode())
                else:
                    yield from map(self._decoded, lines.pieces(stream))
        else:
            with self._filesystem.open_input_file(unit.path) as file:
                yield from map(self._decoded, lines.part_pieces(file, unit.part))

    def _decoded(self, piece: bytes) -> pa.Table:
        return self._table(piece if self._encoding == "utf-8" else piece.decode(self._encoding).encode())

    def _table(self, piece: bytes) -> pa.Table:
        text = pa.array([piece], pa.binary()).cast(pa.string())  # which sees that it is UTF-8
        found = pc.split_pattern(text, "\n").flatten()
        if piece.endswith(b"\n"):
            found = found[:-1]
        if b"\r" in piece:
            found = pc.utf8_rtrim(found, "\r")
        if self._drop_empty_lines:
            found = found.filter(pc.not_equal(pc.utf8_trim_whitespace(found), ""))
        return pa.table({_COLUMN: found})
