"""Functions of lists, structs and maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import arrays, errors
from umbel.data._expressions.promotion import Operand, Value


def list_len(args: Sequence[Operand]) -> Value:
    return pc.cast(pc.list_value_length(_lists(args[0], "len")), pa.int64())


def list_get(args: Sequence[Operand], *, index: int) -> Value:
    """Null where there is no such element; from the end if negative."""
    lists = _lists(args[0], "get")
    starts, lengths = _bounds(lists)
    places = starts + (index if index >= 0 else lengths + index)
    is_there = (index < lengths) if index >= 0 else (lengths >= -index)
    return lists.values.take(pa.array(np.where(is_there, places, 0), pa.int64(), mask=~is_there))


def list_slice(args: Sequence[Operand], *, start: int | None, stop: int | None, step: int | None) -> Value:
    """As Python's `[start:stop:step]`."""
    lists = _lists(args[0], "slice")
    step = 1 if step is None else step
    starts, lengths = _bounds(lists)
    lowest, highest = (0, lengths) if step > 0 else (-1, lengths - 1)

    def clipped(place: int | None, default: Any) -> Any:
        if place is None:
            return np.broadcast_to(default, lengths.shape)
        return np.clip(place + (lengths if place < 0 else 0), lowest, highest)

    first = clipped(start, lowest if step > 0 else highest)
    last = clipped(stop, highest if step > 0 else lowest)
    counts = np.maximum(0, -((first - last) // step) if step > 0 else -((last - first) // -step))
    return _gathered(lists, starts + first, counts, step)


def list_sort(args: Sequence[Operand], *, order: str = "ascending", null_placement: str = "at_end") -> Value:
    """Each list by itself; nan comes after all numbers, either way."""
    lists = _compact(_lists(args[0], "sort"))
    if at.is_nested(lists.type.value_type):
        raise errors.Problem(f".list.sort() takes lists of values with an order, got {lists.type}")
    parents = pc.list_parent_indices(lists)
    table = pa.table({"parent": parents, "is_null": pc.is_null(lists.values), "value": lists.values})
    nulls_last = "ascending" if null_placement == "at_end" else "descending"
    places = pc.sort_indices(table, sort_keys=[("parent", "ascending"), ("is_null", nulls_last), ("value", order)])
    return _from_offsets(lists, lists.offsets.to_numpy(), lists.values.take(places), lists.type.value_field)


def list_flatten(args: Sequence[Operand]) -> Value:
    """One level: the elements of the lists that each list holds."""
    outer = _lists(args[0], "flatten")
    if not _is_list(outer.type.value_type):
        raise errors.Problem(f".list.flatten() takes lists of lists, got {outer.type}")
    outer = _compact(outer)
    inner = _compact(_to_list(outer.values))
    offsets = inner.offsets.to_numpy()[outer.offsets.to_numpy()]
    return _from_offsets(outer, offsets, inner.values, inner.type.value_field)


def to_list(args: Sequence[Operand]) -> Value:
    """Fixed-size lists, or tensors of one shape row after row, as lists."""
    (a,) = args
    value = arrays.single(a.value)
    if isinstance(value, pa.ExtensionArray):
        value = value.storage
    if not at.is_fixed_size_list(value.type):
        raise errors.Problem(f".arr.to_list() takes lists of one size, got {a.type}")
    return _to_list(value)


def struct_field(args: Sequence[Operand], *, field_name: str) -> Value:
    value, fields = _structs(args[0], "field")
    if field_name not in fields:
        raise errors.Problem(errors.unknown(field_name, fields, what="field"), errors.UnknownColumnError)
    if fields.count(field_name) > 1:
        raise errors.Problem(
            f"{args[0].type} has {fields.count(field_name)} fields {field_name!r}; use field_by_index()"
        )
    return pc.struct_field(value, [fields.index(field_name)])


def struct_field_by_index(args: Sequence[Operand], *, index: int) -> Value:
    value, fields = _structs(args[0], "field_by_index")
    if not -len(fields) <= index < len(fields):
        raise errors.Problem(f"{args[0].type} has {len(fields)} fields, and none of index {index}")
    return pc.struct_field(value, [index % len(fields)])


def map_part(part: str) -> Callable[..., Value]:
    """All keys, or all values, of each map as a list."""

    def run(args: Sequence[Operand]) -> Value:
        value = _maps(args[0], part)
        chosen = value.keys if part == "keys" else value.items
        return _from_offsets(value, value.offsets.to_numpy(), chosen, pa.field("item", chosen.type))

    return run


def map_get(args: Sequence[Operand], *, key: object) -> Value:
    """The value of the first such key, null where there is none."""
    value = _maps(args[0], "get")
    try:
        wanted = pa.scalar(key, value.type.key_type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        raise errors.Problem(f".map.get() takes a key of {value.type.key_type}, got {key!r}") from None
    return pc.map_lookup(value, wanted, "first")


def _maps(operand: Operand, name: str) -> pa.Array:
    if not at.is_map(operand.type):
        raise errors.Problem(f".map.{name}() takes maps, got {operand.type}")
    return arrays.single(operand.value)


def _structs(operand: Operand, name: str) -> tuple[Value, list[str]]:
    if not at.is_struct(operand.type):
        raise errors.Problem(f".struct.{name}() takes structs, got {operand.type}")
    names = [operand.type.field(index).name for index in range(operand.type.num_fields)]
    return arrays.single(operand.value), names


def _is_list(type_: pa.DataType) -> bool:
    return bool(at.is_list(type_) or at.is_large_list(type_) or at.is_fixed_size_list(type_) or _is_view(type_))


def _is_view(type_: pa.DataType) -> bool:
    return bool(at.is_list_view(type_) or at.is_large_list_view(type_))


def _lists(operand: Operand, name: str) -> pa.Array:
    if not _is_list(operand.type):
        raise errors.Problem(f".list.{name}() takes lists, got {operand.type}")
    return _to_list(arrays.single(operand.value))


def _to_list(array: pa.Array) -> pa.Array:
    if _is_view(array.type):  # Arrow 26's own cast makes an invalid array where the last is null
        return _gathered(array, *_bounds(array), 1)
    return array.cast(pa.list_(array.type.value_field)) if at.is_fixed_size_list(array.type) else array


def _bounds(lists: pa.Array) -> tuple[Any, Any]:
    """Where the elements of each list begin in `lists.values`, and how many there are; a null has none."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    if _is_view(lists.type):
        starts, lengths = offsets, lists.sizes.to_numpy().astype(np.int64)
    else:
        starts, lengths = offsets[:-1], np.diff(offsets)
    if lists.null_count:
        lengths = np.where(arrays.is_valid(lists), lengths, 0)
    return starts, lengths


def _gathered(lists: pa.Array, firsts: Any, counts: Any, step: int) -> pa.Array:
    """Lists of `counts` elements of `lists.values`, each from its first on in steps."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    values = lists.values.take(pa.array(np.repeat(firsts, counts) + within * step, pa.int64()))
    return _from_offsets(lists, offsets, values, lists.type.value_field)


def _compact(lists: pa.Array) -> pa.Array:
    """The same lists on values that hold nothing else, neither before them nor under a null."""
    starts, lengths = _bounds(lists)
    return _gathered(lists, starts, lengths, 1)


def _from_offsets(like: pa.Array, offsets: Any, values: pa.Array, field: pa.Field) -> pa.Array:
    """Lists with such elements, null where `like` is."""
    is_large = at.is_large_list(like.type) or at.is_large_list_view(like.type)
    kind, type_ = (pa.LargeListArray, pa.large_list(field)) if is_large else (pa.ListArray, pa.list_(field))
    places = pa.array(offsets, pa.int64() if is_large else pa.int32())
    return kind.from_arrays(places, values, type=type_, mask=pc.is_null(like) if like.null_count else None)
