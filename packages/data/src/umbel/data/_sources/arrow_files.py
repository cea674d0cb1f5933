"""Arrow's own formats: files and streams of record batches, and Feather, which is such a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import pyarrow as pa

from umbel.data._sources import files, packing, predicates

_FILE_MAGIC: Final = b"ARROW1"


class ArrowDatasource(files.FileBasedDatasource):
    """Which of them a file is, is seen by how it begins."""

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = ("arrow", "arrows", "ipc", "feather")
    _READS_COLUMNS = True

    def get_name(self) -> str:
        return "Arrow"

    def _read_unit(self, unit: packing.Unit) -> Iterator[pa.Table]:
        if not self._is_compressed(unit.path):
            with self._filesystem.open_input_file(unit.path) as file:
                if file.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
                    yield from self._batches_of_file(file)
                    return
        with self._open_input_source(unit.path) as stream, pa.ipc.open_stream(stream) as reader:
            names = self._present(reader.schema)
            yield pa.Table.from_batches([], reader.schema).select(names)
            for batch in reader:
                yield pa.Table.from_batches([batch]).select(names)

    def _present(self, schema: pa.Schema) -> list[str]:
        if self._wanted is None:
            return list(schema.names)
        predicates.check_columns(self._wanted, schema.names)
        return self._wanted

    def _batches_of_file(self, file: pa.NativeFile) -> Iterator[pa.Table]:
        options = pa.ipc.IpcReadOptions(use_threads=False)
        if self._wanted is not None:
            schema = pa.ipc.open_file(file).schema
            options.included_fields = [schema.get_field_index(name) for name in self._present(schema)]
        with pa.ipc.open_file(file, options=options) as reader:
            yield pa.Table.from_batches([], reader.schema)
            for index in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(index)])
