"""Functions of strings. Characters are Unicode code points, counts and places are int64 and count characters; regular
expressions are RE2's. Upper and lower case are Unicode's simple mappings: one character for one ("ß" stays "ß" in
lower case)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import arrays, errors, promotion
from umbel.data._expressions.promotion import Operand, Value

_PLAIN: Final[dict[str, Callable[..., Value]]] = {  # what is one function of Arrow's, whose options have its names
    "len": pc.utf8_length,
    "byte_len": pc.binary_length,
    "upper": pc.utf8_upper,
    "lower": pc.utf8_lower,
    "capitalize": pc.utf8_capitalize,
    "title": pc.utf8_title,
    "swapcase": pc.utf8_swapcase,
    "is_alpha": pc.utf8_is_alpha,
    "is_alnum": pc.utf8_is_alnum,
    "is_digit": pc.utf8_is_digit,
    "is_decimal": pc.utf8_is_decimal,
    "is_numeric": pc.utf8_is_numeric,
    "is_space": pc.utf8_is_space,
    "is_lower": pc.utf8_is_lower,
    "is_upper": pc.utf8_is_upper,
    "is_title": pc.utf8_is_title,
    "is_printable": pc.utf8_is_printable,
    "is_ascii": pc.string_is_ascii,
    "starts_with": pc.starts_with,
    "ends_with": pc.ends_with,
    "contains": pc.match_substring,
    "match": pc.match_like,
    "count": pc.count_substring,
    "count_regex": pc.count_substring_regex,
    "match_regex": pc.match_substring_regex,
    "reverse": pc.utf8_reverse,
    "replace": pc.replace_substring,
    "replace_regex": pc.replace_substring_regex,
    "replace_slice": pc.utf8_replace_slice,
    "split": pc.split_pattern,
    "split_regex": pc.split_pattern_regex,
    "split_whitespace": pc.utf8_split_whitespace,
    "extract": pc.extract_regex,
    "center": pc.utf8_center,
    "lpad": pc.utf8_lpad,
    "rpad": pc.utf8_rpad,
}
_TRIMS: Final[dict[str, tuple[Callable[..., Value], Callable[..., Value]]]] = {  # of white space, of given characters
    "strip": (pc.utf8_trim_whitespace, pc.utf8_trim),
    "lstrip": (pc.utf8_ltrim_whitespace, pc.utf8_ltrim),
    "rstrip": (pc.utf8_rtrim_whitespace, pc.utf8_rtrim),
}


def functions() -> dict[str, Callable[..., Value]]:
    """By the name of the method under `.str`."""
    plain = {name: _of_text(name, function) for name, function in _PLAIN.items()}
    trims = {name: _of_text(name, _trim(*pair)) for name, pair in _TRIMS.items()}
    return {
        **plain,
        **trims,
        "find": _of_text("find", _place(pc.find_substring)),
        "find_regex": _of_text("find_regex", _place(pc.find_substring_regex)),
        "slice": _of_text("slice", _slice),
        "repeat": _of_text("repeat", lambda value, *, n: pc.binary_repeat(value, n)),
    }


def _of_text(name: str, function: Callable[..., Value]) -> Callable[..., Value]:
    def run(args: Sequence[Operand], **options: Any) -> Value:
        (a,) = args
        if not promotion.is_text(a.type) and not at.is_null(a.type):
            raise errors.Problem(f".str.{name}() takes strings, got {a.type}; cast it to string")
        found = function(pc.cast(a.value, pa.string()) if at.is_null(a.type) else a.value, **options)
        return pc.cast(found, pa.int64()) if at.is_integer(found.type) else found

    return run


def _trim(of_space: Callable[..., Value], of_characters: Callable[..., Value]) -> Callable[..., Value]:
    def run(value: Value, *, characters: str | None = None) -> Value:
        return of_space(value) if characters is None else of_characters(value, characters=characters)

    return run


def _place(function: Callable[..., Value]) -> Callable[..., Value]:
    """Arrow counts bytes; so do we where each is a character."""

    def run(value: Value, *, pattern: str, ignore_case: bool = False) -> Value:
        found = pc.cast(function(value, pattern, ignore_case=ignore_case), pa.int64())
        is_wide = pc.invert(pc.string_is_ascii(value))
        if not arrays.any_true(is_wide):
            return found
        places, is_null = arrays.to_numpy(found, fill=-1)
        places = places.copy()
        texts = arrays.single(value)
        for row in np.flatnonzero(arrays.to_numpy(is_wide, fill=False)[0] & (places > 0)):
            places[row] = len(texts[row].as_py().encode()[: places[row]].decode())
        return arrays.from_numpy(places, pa.int64(), is_null)

    return run


def _slice(value: Value, *, start: int | None = None, stop: int | None = None, step: int | None = None) -> Value:
    """As Python's."""
    step = 1 if step is None else step
    if step > 0 and (start is None or start >= 0 or stop is None or stop < 0 or step == 1):
        return pc.utf8_slice_codeunits(value, 0 if start is None else start, stop, step)
    return arrays.mapped(value, lambda text: text[start:stop:step], value.type)
