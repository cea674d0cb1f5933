"""Values as bytes: pickle protocol 5 with out-of-band buffers, and where the bytes live.

An *encoded value* is `(kind, payload)`:

    RAW      an immutable value of a basic type, which needs no bytes of its own
    PICKLE   bytes
    BUFFERS  (bytes, [buffer, ...]): a pickle and its out-of-band buffers, read-only for whoever loads them
    STORED   (segment name, size): the same, laid out in a shared-memory segment
    ERROR    bytes of `umbel.exceptions.dump_error`

The pickle of what consists of arrays and basic values begins with `_ARRAYS`, which no pickle does, and holds their types and
shapes: NumPy's own way to pickle and unpickle an array takes five times as long.

Segment layout: a count of buffers, the pickle's length, (offset, length) of each buffer, the pickle, then the buffers,
each aligned to 64 bytes so that vector instructions and Arrow may use them in place.
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

RAW, PICKLE, BUFFERS, STORED, ERROR = range(5)

RAW_BYTES_MAX = 16_384  # a str or bytes up to this is as cheap in a frame as a pickle of its own
ALIGNMENT = 64  # bytes; a cache line, and what Arrow asks for
_HEADER = struct.Struct("<IQ")
_SPAN = struct.Struct("<QQ")
_JOINED_BYTES_MAX = 65_536  # up to here joining header and pickle costs less than a second write
_CONTAINER_LENGTH_MAX = 16  # longer containers are not scanned for basic contents: cloudpickle costs little there

_NO_FILE = "<dynamic-code>"

_BASIC = frozenset((int, float, bool, type(None), complex))
_SIZED = frozenset((str, bytes))
_SIMPLE = _BASIC | _SIZED
_NUMBER_KINDS = frozenset("biufcmM")  # of NumPy's types of data: booleans, numbers and times
_BUFFER_KINDS = frozenset("biufc")  # those that the buffer protocol knows
_ARRAYS = b"A"

Serializer = Callable[[Any], Any]
Deserializer = Callable[[Any], Any]
Replaced = Callable[
    [Any], Any
]  # of a part that is of no built-in type: what `__reduce__` would return; None to leave it


class _Custom:
    """Serializers a user registered for a class, in this process."""

    def __init__(self) -> None:
        self.by_class: dict[type, tuple[Serializer, Deserializer]] = {}


_custom = _Custom()
_collecting = threading.local()


def register(cls: type, serializer: Serializer, deserializer: Deserializer) -> None:
    """Pickle instances of exactly `cls` as `deserializer(serializer(instance))`. Both functions travel with the
    value."""
    _custom.by_class[cls] = (serializer, deserializer)


def unregister(cls: type) -> None:
    _custom.by_class.pop(cls, None)


def is_raw(value: Any) -> bool:
    """Whether `value` is immutable and small, so that it may travel in a frame as it is."""
    kind = type(value)
    return kind in _BASIC or (kind in _SIZED and len(value) <= RAW_BYTES_MAX)


def _is_plain(value: Any, depth: int = 3) -> bool:
    """Whether the standard pickler may be trusted with `value`: basic contents and arrays of numbers only, so nothing is
    sent by reference. depth: of the containers that are looked into; two are the arguments of a call."""
    kind = type(value)
    if kind in _SIMPLE:
        return True
    if kind is list or kind is tuple:
        if not depth or len(value) > _CONTAINER_LENGTH_MAX:
            return False
        return all(type(x) in _SIMPLE or _is_plain(x, depth - 1) for x in value)
    if kind is dict:
        if not depth or len(value) > _CONTAINER_LENGTH_MAX:
            return False
        return all(type(k) in _SIMPLE and (type(v) in _SIMPLE or _is_plain(v, depth - 1)) for k, v in value.items())
    return _is_array(value, _NUMBER_KINDS)


def _is_array(value: Any, kinds: frozenset[str]) -> bool:
    kind = type(value)
    if kind.__module__ != "numpy" or kind.__name__ != "ndarray":
        return False
    return value.dtype.kind in kinds and value.dtype.metadata is None and kind not in _custom.by_class


def _is_lone_array(value: Any) -> bool:
    # Types of other libraries may call themselves floats, and be unknown to the buffer protocol.
    return _is_array(value, _BUFFER_KINDS) and value.dtype.isbuiltin != 2 and value.flags.c_contiguous


def _of_arrays(value: Any) -> Serialized | None:
    """`value` if it is an array, or the arguments of a call, by position only, that are arrays and basic values."""
    if _is_lone_array(value):
        return _with_arrays((value.dtype.str, value.shape), None, [value])
    if type(value) is not tuple or len(value) != 2 or type(value[0]) is not tuple or type(value[1]) is not dict:
        return None
    args, kwargs = value
    if kwargs or len(args) > _CONTAINER_LENGTH_MAX:
        return None
    places = [place for place, one in enumerate(args) if type(one) not in _SIMPLE]
    arrays = [args[place] for place in places]
    if not places or not all(map(_is_lone_array, arrays)) or len(set(map(id, arrays))) < len(arrays):
        return None  # the same array twice has to arrive as one
    content = list(args)
    for place, array in zip(places, arrays, strict=True):
        content[place] = (array.dtype.str, array.shape)
    return _with_arrays(content, places, arrays)


def _with_arrays(content: Any, places: list[int] | None, arrays: list[Any]) -> Serialized:
    buffers = [pickle.PickleBuffer(array).raw() for array in arrays]
    return Serialized(_ARRAYS + pickle.dumps((content, places), 5), buffers, ())


def load(inband: bytes | memoryview, buffers: Sequence[Any]) -> Any:
    """Inverse of `serialize`, for what has buffers."""
    if inband[0] != _ARRAYS[0]:
        return pickle.loads(inband, buffers=buffers)
    import numpy

    content, places = pickle.loads(inband[1:])
    if places is None:
        dtype, shape = content
        return numpy.ndarray(shape, dtype, buffers[0])
    for place, buffer in zip(places, buffers, strict=True):
        dtype, shape = content[place]
        content[place] = numpy.ndarray(shape, dtype, buffer)
    return tuple(content), {}


def note_reference(object_id: bytes) -> bool:
    """Record that a reference is being pickled. False when no value of ours is: then it leaves our sight."""
    found: list[bytes] | None = getattr(_collecting, "refs", None)
    if found is None:
        return False
    found.append(object_id)
    return True


@functools.cache
def _pickler_class() -> Any:
    """Made at first use: cloudpickle is imported only by processes that need it."""
    import cloudpickle

    reduce_code = cloudpickle.Pickler.dispatch_table[types.CodeType]

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, obj: Any) -> Any:
            custom = _custom.by_class.get(type(obj)) if _custom.by_class else None
            if custom is not None:
                serializer, deserializer = custom
                return deserializer, (serializer(obj),)
            if type(obj) is types.CodeType:
                return _with_file(obj, reduce_code(obj))
            if type(obj).__module__ == "torch.storage":
                from umbel._objects import torch_storages

                found = torch_storages.reduced(obj)
                if found is not None:
                    return found
            return super().reducer_override(obj)

    return Pickler


@functools.cache
def _replacing_pickler_class() -> Any:
    """One for all: a class refers to itself, so what it closes over would live until the next garbage collection."""

    class Pickler(_pickler_class()):  # type: ignore[misc]  # cloudpickle has no types
        replaced: Replaced

        def reducer_override(self, obj: Any) -> Any:
            found = self.replaced(obj)
            return super().reducer_override(obj) if found is None else found

    return Pickler


def _with_file(code: types.CodeType, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """`reduced`, what cloudpickle makes of `code`, with the name of its file, which cloudpickle leaves out from 3.1.3 on:
    without it tracebacks show no source and breakpoints do not hold."""
    make, facts = reduced
    return make, tuple(code.co_filename if type(one) is str and one == _NO_FILE else one for one in facts)


def preload() -> None:
    """Import the pickler now, as a process does whose children are to find it imported."""
    _pickler_class()


class Serialized:
    """A value's pickle, its out-of-band buffers and the ids of the references inside it."""

    __slots__ = ("buffers", "inband", "refs")

    def __init__(self, inband: bytes, buffers: Sequence[memoryview], refs: Sequence[bytes]) -> None:
        self.inband = inband
        self.buffers = buffers
        self.refs = refs

    @property
    def size_bytes(self) -> int:
        size = len(self.inband)
        for buffer in self.buffers:
            size += buffer.nbytes
        return size

    def stored_bytes(self) -> int:
        """What `write_to` needs."""
        size = _HEADER.size + _SPAN.size * len(self.buffers) + len(self.inband)
        for buffer in self.buffers:
            size = _aligned(size) + buffer.nbytes
        return size

    def write_to(self, write: Callable[[int, Any], None]) -> None:
        """Lay the value out in `stored_bytes()` bytes; `write(offset, data)` puts each part there."""
        header = [_HEADER.pack(len(self.buffers), len(self.inband))]
        end = _HEADER.size + _SPAN.size * len(self.buffers) + len(self.inband)
        for buffer in self.buffers:
            start = _aligned(end)
            header.append(_SPAN.pack(start, buffer.nbytes))
            end = start + buffer.nbytes
            write(start, buffer)
        if len(self.inband) <= _JOINED_BYTES_MAX:
            write(0, b"".join((*header, self.inband)))
        else:
            head = b"".join(header)
            write(0, head)
            write(len(head), self.inband)

    def inline(self) -> tuple[int, Any]:
        """The encoded value that carries its own bytes. The buffers are copied: a snapshot."""
        if not self.buffers:
            return PICKLE, self.inband
        return BUFFERS, (self.inband, [bytes(b) for b in self.buffers])


def _aligned(offset: int) -> int:
    return (offset + ALIGNMENT - 1) & -ALIGNMENT


def serialize(value: Any, replaced: Replaced | None = None) -> Serialized:
    """Pickle `value`, some parts of it as others. Raises TypeError that names the part which cannot be pickled."""
    if replaced is None:
        found = _of_arrays(value)
        if found is not None:
            return found
    buffers: list[memoryview] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            buffers.append(buffer.raw())
        except BufferError:  # not contiguous: pickle copies it into the stream
            return True
        return False

    if replaced is None and _is_plain(value):
        return Serialized(pickle.dumps(value, 5, buffer_callback=out_of_band), buffers, ())
    file = io.BytesIO()
    make = _pickler_class() if replaced is None else _replacing_pickler_class()
    pickler = make(file, protocol=5, buffer_callback=out_of_band)
    if replaced is not None:
        pickler.replaced = replaced
    outer = getattr(_collecting, "refs", None)
    refs: list[bytes] = []
    _collecting.refs = refs
    try:
        pickler.dump(value)
    except RecursionError:
        raise
    except Exception as error:
        raise TypeError(_explain(value, error)) from error
    finally:
        _collecting.refs = outer
    return Serialized(file.getvalue(), buffers, refs)


def _explain(value: Any, error: BaseException) -> str:
    from umbel import _offenders

    path = _offenders.find(value, error)
    where = f"; the part at fault is {path}" if path else ""
    advice = (
        ""  # it has said what to do
        if _offenders.is_refusal(error)
        else ". Create it inside the task or actor that uses it, leave it out with __getstate__, or register a serializer "
        "(umbel.util.register_serializer)"
    )
    return f"cannot serialize {type(value).__name__}: {error}{where}{advice}"


def dumps(value: Any) -> bytes:
    """One pickle, buffers included; for functions, classes and whatever else travels as opaque bytes."""
    serialized = serialize(value)
    if not serialized.buffers:
        return serialized.inband
    return pickle.dumps((_load_parts, serialized.inband, [bytes(b) for b in serialized.buffers]), 5)


def loads(data: bytes) -> Any:
    """Inverse of `dumps`."""
    value = pickle.loads(data)
    if type(value) is tuple and len(value) == 3 and value[0] is _load_parts:
        return _load_parts(value[1], value[2])
    return value


def _load_parts(inband: bytes, buffers: list[bytes]) -> Any:
    return load(inband, buffers)


def read_stored(view: memoryview) -> Any:
    """The value laid out in `view`; its buffers are slices of `view`, which they keep alive."""
    count, size = _HEADER.unpack_from(view, 0)
    span = _HEADER.size
    inband_at = span + _SPAN.size * count
    buffers = []
    for _ in range(count):
        start, length = _SPAN.unpack_from(view, span)
        span += _SPAN.size
        buffers.append(view[start : start + length])
    return load(view[inband_at : inband_at + size], buffers)


def decode_inline(kind: int, payload: Any) -> Any:
    """The value of an encoded value that carries its own bytes; not for STORED or ERROR."""
    if kind == PICKLE:
        return pickle.loads(payload)
    if kind == RAW:
        return payload
    return load(payload[0], payload[1])
