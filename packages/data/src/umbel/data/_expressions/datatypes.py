"""Types as users write them."""

from __future__ import annotations

import datetime
import types
from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

_OF_PYTHON: Final[Mapping[type, pa.DataType]] = types.MappingProxyType(
    {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        bytes: pa.binary(),
        datetime.date: pa.date32(),
        datetime.datetime: pa.timestamp("us"),
        datetime.timedelta: pa.duration("us"),
    }
)


def to_arrow(type_: object) -> pa.DataType:
    """Takes Arrow's types and their names, NumPy's types, Python's plain ones, and what has `to_arrow_dtype()`.

    Raises TypeError for anything else.
    """
    if isinstance(type_, pa.DataType):
        return type_
    if isinstance(type_, type) and type_ in _OF_PYTHON:
        return _OF_PYTHON[type_]
    convert = getattr(type_, "to_arrow_dtype", None)
    if convert is not None:
        return convert()
    try:
        if isinstance(type_, str):
            return pa.type_for_alias(type_)
        if isinstance(type_, np.dtype) or (isinstance(type_, type) and issubclass(type_, np.generic)):
            return pa.from_numpy_dtype(type_)
    except (ValueError, pa.ArrowNotImplementedError) as error:
        raise TypeError(_advice(type_)) from error
    raise TypeError(_advice(type_))


def _advice(type_: object) -> str:
    allowed = "one of pyarrow's (pa.int32()), its name ('int32'), one of NumPy's, or bool, int, float, str or bytes"
    return f"a type is {allowed}; got {type_!r}"
