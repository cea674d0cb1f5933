"""Files that rows name, fetched as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from umbel.data._sources import filesystems, listing


@dataclass(frozen=True)
class Download:
    """Called with a column of URIs or paths, gives their bytes. filesystem: of pyarrow or fsspec; by the URI if None."""

    filesystem: Any = None

    def __call__(self, uris: pa.Array) -> pa.Array:
        return pa.array(listing.in_threads(self._fetched, uris.to_pylist()), pa.binary())

    def _fetched(self, uri: str | None) -> bytes | None:
        if uri is None:
            return None
        filesystem, (path,) = filesystems.resolve(uri, self.filesystem)
        with filesystem.open_input_stream(path, compression=None) as stream:
            found: bytes = stream.read()
        return found
