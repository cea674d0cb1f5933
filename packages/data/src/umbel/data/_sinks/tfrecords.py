"""TFRecord files of tf.train.Example: a record for each row, a feature for each column.

Integers and booleans become int64, floating point float32 (an Example has no other), text and bytes bytes, lists and tensors of
these several values, null a feature without a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import rows as block_rows
from umbel.data._blocks import tensors
from umbel.data._sinks import files
from umbel.data._sources import examples, tfrecords

_GREATEST: Final = 2**63 - 1


class TFRecordDatasink(files.BlockBasedFileDatasink):
    _MAY_BE_EMPTY = True
    _collected_bytes = None

    def __init__(self, path: str, *, file_format: str = "tfrecords", **options: Any) -> None:
        super().__init__(path, file_format=file_format, **options)

    def get_name(self) -> str:
        return "TFRecord"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        return _Writer(file, schema)


class _Writer:
    def __init__(self, file: pa.NativeFile, schema: pa.Schema) -> None:
        self._file = file
        self._kinds = {field.name: _kind(field) for field in schema}
        self._are_lists = {field.name: _is_list(field.type) for field in schema}

    def write(self, table: pa.Table) -> None:
        self._file.write(tfrecords.framed(list(self._records(table))))

    def _records(self, table: pa.Table) -> Iterator[bytes]:
        for row in block_rows.iter_rows(table):
            yield examples.encode({name: self._feature(name, value) for name, value in row.items()})

    def _feature(self, name: str, value: Any) -> examples.Feature:
        if value is None:
            return examples.Feature(0, ())
        values: Sequence[Any] = [value]
        if self._are_lists[name]:
            values = value.ravel().tolist() if isinstance(value, np.ndarray) else value
            if any(one is None for one in values):
                raise ValueError(
                    f"column {name!r} has a null within a list, which an Example cannot hold; fill or drop it"
                )
        if self._kinds[name] == examples.INTS and max(values, default=0) > _GREATEST:
            raise ValueError(
                f"column {name!r} has {max(values)}, and an Example has no integers above {_GREATEST}; cast it"
            )
        if self._kinds[name] == examples.BYTES:
            values = [one.encode() if isinstance(one, str) else one for one in values]
        return examples.Feature(self._kinds[name], values)

    def close(self) -> None:
        pass


def _is_list(data_type: pa.DataType) -> bool:
    is_list = pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type)
    return bool(is_list or tensors.is_tensor(data_type))


def _kind(field: pa.Field) -> int:
    data_type = field.type.value_type if _is_list(field.type) else field.type
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    if pa.types.is_integer(data_type) or pa.types.is_boolean(data_type):
        return examples.INTS
    if pa.types.is_floating(data_type):
        return examples.FLOATS
    if pa.types.is_null(data_type):
        return 0
    for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary):
        if is_text(data_type):
            return examples.BYTES
    raise TypeError(
        f"column {field.name!r} is {field.type}, which an Example cannot hold; cast it to numbers, text, bytes or lists of them"
    )
