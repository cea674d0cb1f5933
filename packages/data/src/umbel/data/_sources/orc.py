"""ORC. What is read apart is a stripe, or a whole file where files are small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import pyarrow as pa

from umbel.data._sources import files, listing, packing, predicates

_DIVIDED_BYTES: Final = 64 << 20  # a larger file is divided into stripes


class ORCDatasource(files.FileBasedDatasource):
    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = ("orc",)
    _READS_COLUMNS = True
    _INMEMORY_RATIO = 4.0

    def get_name(self) -> str:
        return "ORC"

    def _units(self, files: Sequence[listing.ListedFile]) -> list[packing.Unit]:
        large = [file for file in files if file.size_bytes > _DIVIDED_BYTES]
        stripes = dict(zip([file.path for file in large], listing.in_threads(self._stripe_count, large), strict=True))
        units = []
        for file in files:
            count = stripes.get(file.path, 0)
            if count < 2:
                units.append(packing.Unit(file.path, max(file.size_bytes, 0)))
            else:
                units += [packing.Unit(file.path, file.size_bytes // count, index) for index in range(count)]
        return units

    def _stripe_count(self, file: listing.ListedFile) -> int:
        with self._filesystem.open_input_file(file.path) as stream:
            return int(_opened(stream).nstripes)

    def _read_unit(self, unit: packing.Unit) -> Iterator[pa.Table]:
        with self._filesystem.open_input_file(unit.path) as stream:
            file = _opened(stream)
            names = file.schema.names
            if self._wanted is not None:
                predicates.check_columns(self._wanted, names)
                names = self._wanted
            yield pa.Table.from_batches([], pa.schema([file.schema.field(name) for name in names]))
            for index in range(file.nstripes) if unit.part is None else (unit.part,):
                stripe = file.read_stripe(index, columns=names)
                yield pa.Table.from_batches([stripe]).select(names)


def _opened(stream: pa.NativeFile) -> Any:
    from pyarrow import orc

    return orc.ORCFile(stream)
