"""CSV: the first line names the columns, their types are seen.

A small file is read whole, and a column has the type that all of its values have. A large one is read in pieces, and has the
types that its first piece has; a value that is not of the type is an error that says what to do. Where a quoted
value may have line feeds in it (`parse_options`), files are not divided among tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import pyarrow as pa
from pyarrow import csv as arrow_csv

from umbel.data._sources import files, filesystems, lines, listing, packing

_WHOLE_BYTES: Final = 32 << 20  # of a file that is read as a whole
_COMPRESSED_RATIO: Final = 5  # what is compressed becomes larger about so many times
_PARSE_FIELDS: Final = (
    "delimiter",
    "quote_char",
    "double_quote",
    "escape_char",
    "newlines_in_values",
    "ignore_empty_lines",
)
_SEEN_BYTES: Final = 1 << 20  # of a large file by which types are told


class CSVDatasource(files.FileBasedDatasource):
    """arrow_csv_args: `read_options`, `parse_options`, `convert_options`, of pyarrow.csv."""

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = None
    _READS_COLUMNS = True

    def __init__(
        self, paths: filesystems.Paths, *, arrow_csv_args: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(paths, **options)
        arguments = dict(arrow_csv_args or {})
        self._read_options = arguments.get("read_options")
        self._parse_options = _parse_fields(arguments.get("parse_options"))
        self._convert_options = arguments.get("convert_options") or arrow_csv.ConvertOptions()

    def get_name(self) -> str:
        return "CSV"

    def _units(self, files: Sequence[listing.ListedFile]) -> list[packing.Unit]:
        is_plain = self._read_options is None and not self._parse_options["newlines_in_values"]
        return lines.divided(files, lambda path: is_plain and not self._is_compressed(path))

    def _read_unit(self, unit: packing.Unit) -> Iterator[pa.Table]:
        if unit.part is not None:
            yield from self._read_part(unit.path, unit.part)
            return
        is_small = unit.size_bytes * (_COMPRESSED_RATIO if self._is_compressed(unit.path) else 1) <= _WHOLE_BYTES
        with self._open_input_source(unit.path) as stream:
            if not is_small:
                options = self._reading(block_size=lines.PIECE_BYTES)
                reader = arrow_csv.open_csv(stream, options, self._parsing(), self._converting())
                yield from _advised(pa.Table.from_batches([batch]) for batch in reader)
            elif data := stream.read():  # an empty file has not even names
                yield arrow_csv.read_csv(pa.BufferReader(data), self._reading(), self._parsing(), self._converting())

    def _read_part(self, path: str, part: lines.Part) -> Iterator[pa.Table]:
        """As the whole file would be: with the names and the types of its beginning."""
        with self._filesystem.open_input_file(path) as file:
            beginning = file.read(_SEEN_BYTES)
            header_bytes = _header_bytes(beginning)
            seen = self._seen(beginning[: beginning.rfind(b"\n") + 1])
            reading = self._reading(column_names=seen.names)
            converting = self._converting(
                {field.name: field.type for field in seen if not pa.types.is_null(field.type)}
            )
            pieces = lines.part_pieces(file, lines.Part(max(part.start, header_bytes), part.stop))
            yield from _advised(
                arrow_csv.read_csv(pa.BufferReader(piece), reading, self._parsing(), converting) for piece in pieces
            )

    def _seen(self, beginning: bytes) -> pa.Schema:
        options = copy.copy(self._convert_options)
        options.include_columns = []  # names count from the left
        return arrow_csv.read_csv(pa.BufferReader(beginning), self._reading(), self._parsing(), options).schema

    def _parsing(self) -> arrow_csv.ParseOptions:
        return arrow_csv.ParseOptions(**self._parse_options)

    def _reading(self, **changes: Any) -> arrow_csv.ReadOptions:
        options = arrow_csv.ReadOptions() if self._read_options is None else copy.copy(self._read_options)
        options.use_threads = False
        if self._read_options is None:
            for name, value in changes.items():
                setattr(options, name, value)
        return options

    def _converting(self, types: Mapping[str, pa.DataType] | None = None) -> arrow_csv.ConvertOptions:
        options = copy.copy(self._convert_options)
        given = {} if self._given_schema is None else {field.name: field.type for field in self._given_schema}
        options.column_types = {**(types or {}), **given, **(options.column_types or {})}
        if self._wanted:
            options.include_columns = self._wanted
        return options


def _parse_fields(options: arrow_csv.ParseOptions | None) -> dict[str, Any]:
    """What travels instead of the options: pyarrow's come back from a pickle with a handler of invalid rows that is None and is
    called none the less."""
    given = arrow_csv.ParseOptions() if options is None else options
    fields = {name: getattr(given, name) for name in _PARSE_FIELDS}
    return fields if given.invalid_row_handler is None else {**fields, "invalid_row_handler": given.invalid_row_handler}


def _header_bytes(beginning: bytes) -> int:
    blank_bytes = len(beginning) - len(beginning.lstrip(b"\r\n"))
    end = beginning.find(b"\n", blank_bytes)
    if end < 0:
        raise ValueError(f"no line ends within the first {len(beginning)} bytes; is it CSV, with line feeds?")
    return end + 1


def _advised(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    try:
        yield from tables
    except pa.ArrowInvalid as error:
        if "conversion error" not in str(error):
            raise
        raise ValueError(
            f"{error}; of a large file the types are those of its beginning: say the right one by "
            "convert_options=pyarrow.csv.ConvertOptions(column_types={...})"
        ) from error
