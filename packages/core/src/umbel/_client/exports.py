"""Functions and classes as the bytes in which other processes, or other calls, get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from umbel._base import config as configuration
from umbel._client import refs, remote_function
from umbel._objects import serialization

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine


def pack(
    source: remote_function.Source, config: configuration.Config, *, stacklevel: int
) -> tuple[bytes, Sequence[bytes]]:
    """The pickle, and the ids of the references it captured. stacklevel: of a warning, as if the caller gave it.

    Raises TypeError for what cannot be pickled, ValueError for what is too large,
    OufOfBandObjectRefSerializationException for captured references where they are forbidden.
    """
    name = source.name
    try:
        serialized = serialization.serialize(source.target)
    except TypeError as error:
        raise TypeError(f"cannot send {name} to a worker: {error}") from error
    refs.check_out_of_band(*serialized.refs, is_allowed=config.allow_out_of_band_refs, by=f"the definition of {name}")
    blob = serialized.inband if not serialized.buffers else serialization.dumps(source.target)
    if len(blob) > config.function_bytes_max:
        raise ValueError(
            f"{name} takes {len(blob)} bytes when pickled, allowed are {config.function_bytes_max}: it captures large "
            "values; put them with umbel.put and pass the references, or create them inside"
        )
    if len(blob) > config.function_warn_bytes:
        import warnings

        warnings.warn(
            f"{name} takes {len(blob) / 1e6:.0f} MB when pickled because of what it captures; put large values with "
            "umbel.put and pass the references",
            stacklevel=stacklevel + 1,
        )
    return blob, serialized.refs


def exported(engine: NativeEngine, source: remote_function.Source) -> bytes:
    """A function or class as bytes, made at its first use in this session and kept. References it captured are kept
    for good: its bytes may be read at any time."""
    if source.exported is not None and source.exported[0] is engine:
        return source.exported[1]
    blob, captured = pack(source, engine.config, stacklevel=4)
    with engine.lock:
        for object_id in captured:
            record = engine.values.table.records.get(object_id)
            if record is not None:
                engine.values.table.pin(record)
    source.exported = (engine, blob)
    return blob
