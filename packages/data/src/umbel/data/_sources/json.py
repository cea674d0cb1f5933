"""JSON: a row for each object, one in a line or all of them in one document.

A document is an array of objects, or objects one after the other. Without `lines`, which of these a file is is seen by how
it begins; lines are read in pieces, documents as a whole. The types are those of the first piece; what a later piece has
besides is unified.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import json as arrow_json

from umbel.data._blocks import rows as block_rows
from umbel.data._sources import files, filesystems, lines, listing, packing


class JSONDatasource(files.FileBasedDatasource):
    """lines: a line is an object in every file, so that large ones can be divided; seen by the names `.jsonl` and `.ndjson` too.
    arrow_json_args: `parse_options`, of pyarrow.json, whose explicit_schema says types instead of what is seen."""

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = tuple(
        ending + compression
        for ending in ("json", "jsonl", "ndjson")
        for compression in ("", ".gz", ".bz2", ".zst", ".lz4", ".br")
    )
    _INMEMORY_RATIO = 1.0

    def __init__(
        self,
        paths: filesystems.Paths,
        *,
        lines: bool = False,
        arrow_json_args: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(paths, **options)
        self._lines = lines
        self._parse_options = dict(arrow_json_args or {}).get("parse_options")

    def get_name(self) -> str:
        return "JSON"

    def _units(self, files: Sequence[listing.ListedFile]) -> list[packing.Unit]:
        return lines.divided(files, lambda path: self._has_lines(path) and not self._is_compressed(path))

    def _has_lines(self, path: str) -> bool:
        return self._lines or path.endswith((".jsonl", ".ndjson"))

    def _read_unit(self, unit: packing.Unit) -> Iterator[pa.Table]:
        parser = _Parser(self._parse_options, self._given_schema)
        if unit.part is not None:
            with self._filesystem.open_input_file(unit.path) as file:
                yield from parser.tables(lines.part_pieces(file, unit.part))
            return
        with self._open_input_source(unit.path) as stream:
            if self._has_lines(unit.path):
                yield from parser.tables(lines.pieces(stream))
                return
            head = stream.read(lines.PIECE_BYTES)
            if _begins_with_a_line(head):
                yield from parser.tables(lines.pieces(stream, head=head))
            else:
                yield from parser.document(head + stream.read())


class _Parser:
    """Of the pieces of one file, which it gives one schema as long as that is possible."""

    def __init__(self, options: arrow_json.ParseOptions | None, schema: pa.Schema | None) -> None:
        self._known: dict[str, pa.Field] = {}
        self._is_given = schema is not None or (options is not None and options.explicit_schema is not None)
        if schema is not None:
            options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        self._options = options

    def tables(self, pieces: Iterator[bytes]) -> Iterator[pa.Table]:
        for piece in pieces:
            if piece.strip():
                yield self._parsed(piece)

    def document(self, text: bytes) -> Iterator[pa.Table]:
        stripped = text.lstrip(b"\xef\xbb\xbf \t\r\n")
        if not stripped:
            return
        if stripped.startswith(b"["):
            yield self._of_rows(json.loads(stripped))
        else:
            yield self._parsed(stripped)

    def _parsed(self, piece: bytes) -> pa.Table:
        try:
            return self._by_arrow(piece, self._options or self._expected())
        except pa.ArrowInvalid as error:
            if self._is_given:
                raise
            try:
                return self._by_arrow(piece, None)
            except (
                pa.ArrowInvalid
            ):  # mixed types in nested values, integers of more than 64 bits, two objects in a line
                try:
                    return self._of_rows(_objects(piece))
                except ValueError:
                    raise error from None  # which says in which row

    def _expected(self) -> arrow_json.ParseOptions | None:
        if not self._known:
            return None
        schema = pa.schema(list(self._known.values()))
        return arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer")

    def _by_arrow(self, piece: bytes, options: arrow_json.ParseOptions | None) -> pa.Table:
        """The objects need not be in a line each: all of the piece is one block."""
        if options is None:
            options = arrow_json.ParseOptions(newlines_in_values=True)
        elif not options.newlines_in_values:
            options = arrow_json.ParseOptions(options.explicit_schema, True, options.unexpected_field_behavior)
        reading = arrow_json.ReadOptions(use_threads=False, block_size=len(piece) + 1)
        table = arrow_json.read_json(pa.BufferReader(piece), read_options=reading, parse_options=options)
        for field in table.schema:
            if not _has_null(field.type):
                self._known.setdefault(field.name, field)
        return table

    def _of_rows(self, rows: Any) -> pa.Table:
        listed = rows if isinstance(rows, list) else [rows]
        for row in listed:
            if not isinstance(row, dict):
                raise ValueError(f"each row must be an object, got {json.dumps(row)[:100]}")
        return block_rows.from_rows(listed)


def _begins_with_a_line(head: bytes) -> bool:
    """Whether the first line is an object by itself, and there are others behind it."""
    first, feed, _ = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")
    if not feed or not first.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _objects(text: bytes) -> list[Any]:
    """Objects one after the other, with white space between them or none."""
    decoder, decoded = json.JSONDecoder(), text.decode()
    found = []
    position = 0
    while decoded[position:].strip():
        while decoded[position].isspace():
            position += 1
        value, position = decoder.raw_decode(decoded, position)
        found.append(value)
    return found


def _has_null(data_type: pa.DataType) -> bool:
    """Whether something of the type is not known yet."""
    if pa.types.is_null(data_type):
        return True
    return any(_has_null(data_type.field(index).type) for index in range(data_type.num_fields))
