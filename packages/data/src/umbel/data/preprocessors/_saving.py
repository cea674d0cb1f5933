"""Preprocessors as JSON: data only, so that reading it runs nothing.

What JSON has no form for is an object with the key "$", which says what it is; values of other types travel as Arrow's. A
class is looked up among those that are imported, and its constructor checks the fields as it does for any caller.
"""

from __future__ import annotations

import base64
import collections
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from umbel.data.preprocessors import _categories

if TYPE_CHECKING:
    from umbel.data.preprocessors._base import Preprocessor

FORMAT: Final = "umbel.preprocessor"
FORMAT_VERSION: Final = 1
_PREVIEW_CHARS: Final = 50


def dumped(preprocessor: Preprocessor) -> str:
    return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **_document(preprocessor)}, allow_nan=False)


def loaded(
    serialized: str | bytes, base: type[Preprocessor], functions: Mapping[str, Callable[..., Any]]
) -> Preprocessor:
    try:
        document = json.loads(serialized)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"this is not what serialize() wrote: {serialized[:_PREVIEW_CHARS]!r}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"this is not what serialize() wrote: {serialized[:_PREVIEW_CHARS]!r}")
    if document.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"the format has version {document.get('format_version')!r}, and this version of umbel reads "
            f"{FORMAT_VERSION}; upgrade it"
        )
    try:
        return _Reader({_class_id(one): one for one in _subclasses(base)}, functions).preprocessor(document)
    except (KeyError, TypeError, AttributeError, pa.ArrowInvalid) as error:
        raise ValueError(f"the text of this preprocessor is damaged: {error}") from error


def function_name(function: Any) -> str:
    """By which a function is asked for when it is read."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _class_id(cls: type) -> str:
    is_ours = cls.__module__.startswith("umbel.data.preprocessors.")
    return cls.__name__ if is_ours else f"{cls.__module__}:{cls.__qualname__}"


def _subclasses(base: type[Preprocessor]) -> Iterator[type[Preprocessor]]:
    for one in base.__subclasses__():
        yield one
        yield from _subclasses(one)


def _document(preprocessor: Preprocessor) -> dict[str, Any]:
    return {
        "class": _class_id(type(preprocessor)),
        "version": preprocessor._version,
        "is_fitted": bool(getattr(preprocessor, "_fitted", False)),
        "fields": {name: _written(value) for name, value in preprocessor._get_serializable_fields().items()},
        "stats": _written(getattr(preprocessor, "stats_", {})),
    }


def _written(value: Any) -> Any:
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list):
        return [*map(_written, value)]
    if isinstance(value, tuple):
        return {"$": "tuple", "values": [*map(_written, value)]}
    if isinstance(value, Mapping):
        kind = "counter" if isinstance(value, collections.Counter) else "dict"
        return {"$": kind, "keys": [*map(_written, value)], "values": [*map(_written, value.values())]}
    if isinstance(value, _categories.CategoricalDtype):
        return {"$": "categories", "categories": _written([*value.categories]), "ordered": value.ordered}
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return {"$": "dtype", "name": np.dtype(value).name}
    if isinstance(value, np.ndarray):
        return {"$": "ndarray", "values": _written(pa.array(value.ravel())), "shape": [*value.shape]}
    if hasattr(value, "_get_serializable_fields"):
        return {"$": "preprocessor", **_document(value)}
    if callable(value):
        return {"$": "function", "name": function_name(value)}
    return _as_arrow(value)


def _as_arrow(value: Any) -> dict[str, Any]:
    try:
        array = value if isinstance(value, pa.Array) else pa.array([value])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TypeError(f"{value!r:.100} of type {type(value).__name__} cannot be saved as data") from error
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("", array.type)])) as stream:
        stream.write_batch(pa.record_batch([array], names=[""]))
    kind = "array" if isinstance(value, pa.Array) else "value"
    return {"$": kind, "arrow": base64.b64encode(sink.getvalue()).decode()}


class _Reader:
    def __init__(self, classes: Mapping[str, type[Preprocessor]], functions: Mapping[str, Callable[..., Any]]) -> None:
        self._classes = classes
        self._functions = functions

    def preprocessor(self, document: Mapping[str, Any]) -> Preprocessor:
        name, version = document["class"], document["version"]
        cls = self._classes.get(name)
        if cls is None:
            raise ValueError(
                f"there is no preprocessor {name!r} here; if it is yours, import its module before it is read"
            )
        if not isinstance(version, int) or version > cls._version:
            raise ValueError(
                f"this {name} was saved in version {version!r}, and here is {cls._version}; upgrade what it comes from"
            )
        found = cls.__new__(cls)
        found._set_serializable_fields(
            {field: self._read(value) for field, value in document["fields"].items()}, version
        )
        found.stats_ = self._read(document["stats"])
        found._fitted = document["is_fitted"]
        return found

    def _read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [*map(self._read, value)]
        if not isinstance(value, dict):
            return value
        return _KINDS[value["$"]](self, value)

    def _tuple(self, value: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(map(self._read, value["values"]))

    def _dict(self, value: Mapping[str, Any]) -> dict[Any, Any]:
        return dict(zip(map(self._read, value["keys"]), map(self._read, value["values"]), strict=True))

    def _counter(self, value: Mapping[str, Any]) -> collections.Counter[Any]:
        return collections.Counter(self._dict(value))

    def _dtype(self, value: Mapping[str, Any]) -> np.dtype[Any]:
        return np.dtype(str(value["name"]))

    def _ndarray(self, value: Mapping[str, Any]) -> Any:
        return self._read(value["values"]).to_numpy(zero_copy_only=False).reshape(value["shape"])

    def _of_categories(self, value: Mapping[str, Any]) -> _categories.CategoricalDtype:
        return _categories.CategoricalDtype(self._read(value["categories"]), ordered=value["ordered"])

    def _function(self, value: Mapping[str, Any]) -> Callable[..., Any]:
        name = value["name"]
        if name not in self._functions:
            raise ValueError(
                f"the preprocessor calls {name}, which is not saved with it; pass it: deserialize(..., "
                f"functions={{{name!r}: ...}})"
            )
        return self._functions[name]

    def _array(self, value: Mapping[str, Any]) -> pa.Array:
        with pa.ipc.open_stream(base64.b64decode(value["arrow"])) as stream:
            return stream.read_all().column(0).combine_chunks()

    def _value(self, value: Mapping[str, Any]) -> Any:
        return self._array(value)[0].as_py()


_KINDS: Final[dict[str, Callable[[_Reader, Mapping[str, Any]], Any]]] = {
    "tuple": _Reader._tuple,
    "dict": _Reader._dict,
    "counter": _Reader._counter,
    "dtype": _Reader._dtype,
    "ndarray": _Reader._ndarray,
    "categories": _Reader._of_categories,
    "preprocessor": _Reader.preprocessor,
    "function": _Reader._function,
    "array": _Reader._array,
    "value": _Reader._value,
}
