"""Options of formats: those that go on to pyarrow, and what is said of one that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class OfFormat:
    """Options that may be given by themselves, or together in a mapping.

    name: of the mapping. passed: those that are in it. ignored: those that say how pyarrow goes about it, which is decided here.
    refused: those that are not there, with what to do instead.
    """

    name: str
    passed: frozenset[str]
    ignored: frozenset[str] = frozenset()
    refused: Mapping[str, str] | None = None

    @property
    def known(self) -> frozenset[str]:
        return self.passed

    def taken(self, options: MutableMapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The mapping, out of what is given of it and of the options, which lose what is in it."""
        for one, advice in (self.refused or {}).items():
            if options.pop(one, None):
                raise TypeError(f"there is no option {one}: {advice}")
        found = {**(given.get(self.name) or {})}
        for one in [one for one in options if one in self.passed]:
            found[one] = options.pop(one)
        for one in self.ignored:
            options.pop(one, None)
            found.pop(one, None)
        return {self.name: found} if found else {}


def unknown(function: str, name: str, known: Iterable[str]) -> str:
    """That there is no such option, and which is meant perhaps."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    meant = f"; did you mean {near[0]}?" if near else ";"
    return f"{function}() has no option {name!r}{meant} there are {', '.join(names)}"


def without(options: Mapping[str, Any], function: str, name: str, advice: str) -> dict[str, Any]:
    """The options. Raises TypeError if one is given that there is not."""
    found = {**options}
    if found.pop(name, None) is not None:
        raise TypeError(f"{function}() has no option {name}; {advice}")
    return found


CSV_READ: Final = OfFormat("arrow_csv_args", frozenset(("read_options", "parse_options", "convert_options")))
JSON_READ: Final = OfFormat(
    "arrow_json_args", frozenset(("parse_options",)), frozenset(("read_options", "memory_pool"))
)
PARQUET_READ: Final = OfFormat(
    "arrow_parquet_args",
    frozenset(  # of pyarrow.parquet.ParquetFile
        (
            "memory_map",
            "buffer_size",
            "pre_buffer",
            "coerce_int96_timestamp_unit",
            "decryption_properties",
            "thrift_string_size_limit",
            "thrift_container_size_limit",
            "page_checksum_verification",
        )
    ),
    frozenset(  # of pyarrow's scanner of datasets
        (
            "use_threads",
            "batch_size",
            "batch_readahead",
            "fragment_readahead",
            "cache_metadata",
            "memory_pool",
        )
    ),
    {
        "tensor_column_schema": "read the bytes, and make tensors of them in map_batches by numpy.frombuffer(...).reshape(...)",
        "include_row_hash": "use include_paths=True, or with_column('id', monotonically_increasing_id())",
        "read_dictionary": "cast the column, .cast(pa.dictionary(pa.int32(), pa.string()))",
        "dataset_kwargs": "give what is in it by itself, such as pre_buffer=False",
        "fragment_scan_options": "give what is in it by itself, such as pre_buffer=False",
        "meta_provider": "footers are fetched once, by threads",
    },
)
CSV_WRITE: Final = OfFormat("arrow_csv_args", frozenset(("write_options",)), frozenset(("memory_pool",)))
JSON_WRITE: Final = OfFormat(
    "pandas_json_args",
    frozenset(("lines", "orient", "ensure_ascii", "indent")),
    frozenset(("index",)),
    {
        "double_precision": "round the columns before",
        "default_handler": "map the rows before",
        "compression": "give arrow_open_stream_args={'compression': ...}",
        "storage_options": "give filesystem=",
    },
)
