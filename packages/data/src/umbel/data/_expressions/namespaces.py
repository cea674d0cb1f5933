"""The methods under `.str`, `.dt`, `.list`, `.struct`, `.map` and `.arr`.

They look at their own arguments and make a call of a function of that name; what it does is said in `strings`,
`temporal` and `nested`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._expressions import temporal

E = TypeVar("E")

_SIDES: Final = ("left", "right", "both")


class _Namespace(Generic[E]):
    __slots__ = ("_call",)
    _prefix: str

    def __init__(self, call: Callable[..., E]) -> None:
        self._call = call

    def _of(self, function: str, **options: Any) -> E:
        return self._call(f"{self._prefix}.{function}", **options)


class StringNamespace(_Namespace[E]):
    """Of strings. Patterns are literal texts, but for `match` (SQL's LIKE) and `*_regex` and `extract` (RE2's regular
    expressions)."""

    __slots__ = ()
    _prefix = "str"

    def len(self) -> E:
        """How many characters."""
        return self._of("len")

    def byte_len(self) -> E:
        """How many bytes in UTF-8."""
        return self._of("byte_len")

    def upper(self) -> E:
        """In upper case, a character for each."""
        return self._of("upper")

    def lower(self) -> E:
        """In lower case, a character for each."""
        return self._of("lower")

    def capitalize(self) -> E:
        """The first character in upper case, the others in lower case."""
        return self._of("capitalize")

    def title(self) -> E:
        """The first letter of each word in upper case, the others in lower case."""
        return self._of("title")

    def swapcase(self) -> E:
        """Upper case for lower case, and the other way round."""
        return self._of("swapcase")

    def is_alpha(self) -> E:
        """There are letters only, and one at least."""
        return self._of("is_alpha")

    def is_alnum(self) -> E:
        """There are letters and digits only, and one at least."""
        return self._of("is_alnum")

    def is_digit(self) -> E:
        """There are digits only, and one at least; as Arrow has it, which counts fractions such as ½ too."""
        return self._of("is_digit")

    def is_decimal(self) -> E:
        """There are decimal digits only, of any script, and one at least."""
        return self._of("is_decimal")

    def is_numeric(self) -> E:
        """There are numeric characters only, such as ½ and ², and one at least."""
        return self._of("is_numeric")

    def is_space(self) -> E:
        """There is white space only, and one character at least."""
        return self._of("is_space")

    def is_lower(self) -> E:
        """No letter is in upper case, and there is one in lower case."""
        return self._of("is_lower")

    def is_upper(self) -> E:
        """No letter is in lower case, and there is one in upper case."""
        return self._of("is_upper")

    def is_title(self) -> E:
        """Each word begins in upper case and goes on in lower case, and there is one."""
        return self._of("is_title")

    def is_printable(self) -> E:
        """No character is a control character or the like; so is the empty string."""
        return self._of("is_printable")

    def is_ascii(self) -> E:
        """All characters are ASCII; so is the empty string."""
        return self._of("is_ascii")

    def starts_with(self, pattern: str, *, ignore_case: bool = False) -> E:
        """Whether it begins with this text."""
        return self._of("starts_with", pattern=_text(pattern, "pattern"), ignore_case=ignore_case)

    def ends_with(self, pattern: str, *, ignore_case: bool = False) -> E:
        """Whether it ends with this text."""
        return self._of("ends_with", pattern=_text(pattern, "pattern"), ignore_case=ignore_case)

    def contains(self, pattern: str, *, ignore_case: bool = False) -> E:
        """Whether it has this text in it."""
        return self._of("contains", pattern=_text(pattern, "pattern"), ignore_case=ignore_case)

    def match(self, pattern: str, *, ignore_case: bool = False) -> E:
        """% stands for any characters, _ for one."""
        return self._of("match", pattern=_text(pattern, "pattern"), ignore_case=ignore_case)

    def match_regex(self, pattern: str, *, ignore_case: bool = False) -> E:
        """Whether it matches somewhere in the string."""
        return self._of("match_regex", pattern=_regex(pattern), ignore_case=ignore_case)

    def find(self, pattern: str, *, ignore_case: bool = False) -> E:
        """Where it first is, -1 for nowhere."""
        return self._of("find", pattern=_text(pattern, "pattern"), ignore_case=ignore_case)

    def find_regex(self, pattern: str, *, ignore_case: bool = False) -> E:
        """Where it first matches, -1 for nowhere."""
        return self._of("find_regex", pattern=_regex(pattern), ignore_case=ignore_case)

    def count(self, pattern: str, *, ignore_case: bool = False) -> E:
        """How often it has this text in it, without overlaps."""
        return self._of("count", pattern=_text(pattern, "pattern"), ignore_case=ignore_case)

    def count_regex(self, pattern: str, *, ignore_case: bool = False) -> E:
        """How often it matches, without overlaps."""
        return self._of("count_regex", pattern=_regex(pattern), ignore_case=ignore_case)

    def reverse(self) -> E:
        """Its characters from the end."""
        return self._of("reverse")

    def slice(self, start: int | None = None, stop: int | None = None, step: int | None = None) -> E:
        """As Python's `[start:stop:step]`."""
        _check_slice(start, stop, step)
        return self._of("slice", start=start, stop=stop, step=step)

    def replace(self, pattern: str, replacement: str, *, max_replacements: int | None = None) -> E:
        """Another text in the place of this one, of the first max_replacements of them or of all."""
        pattern, replacement = _text(pattern, "pattern"), _text(replacement, "replacement")
        return self._of("replace", pattern=pattern, replacement=replacement, max_replacements=max_replacements)

    def replace_regex(self, pattern: str, replacement: str, *, max_replacements: int | None = None) -> E:
        r"""The replacement may name groups: \1."""
        pattern, replacement = _regex(pattern), _text(replacement, "replacement")
        return self._of("replace_regex", pattern=pattern, replacement=replacement, max_replacements=max_replacements)

    def replace_slice(self, start: int, stop: int, replacement: str) -> E:
        """Another text in the place of the characters from start up to, not including, stop."""
        return self._of("replace_slice", start=start, stop=stop, replacement=_text(replacement, "replacement"))

    def split(self, pattern: str, *, max_splits: int | None = None, reverse: bool = False) -> E:
        """A list. reverse: splits are counted from the end."""
        if not _text(pattern, "pattern"):
            raise ValueError("a string is split at a pattern of at least one character, got ''")
        return self._of("split", pattern=pattern, max_splits=max_splits, reverse=reverse)

    def split_regex(self, pattern: str, *, max_splits: int | None = None) -> E:
        """A list of what lies between matches, at most max_splits of them."""
        return self._of("split_regex", pattern=_regex(pattern), max_splits=max_splits)

    def split_whitespace(self, *, max_splits: int | None = None, reverse: bool = False) -> E:
        """A list of what lies between white space. reverse: splits are counted from the end."""
        return self._of("split_whitespace", max_splits=max_splits, reverse=reverse)

    def extract(self, pattern: str) -> E:
        """A struct of the pattern's named groups, null where it does not match: r"(?P<year>\\d+)-(?P<month>\\d+)"."""
        return self._of("extract", pattern=_regex(pattern))

    def repeat(self, n: int) -> E:
        """n times one after the other."""
        return self._of("repeat", n=_count(n, "n"))

    def center(self, width: int, padding: str = " ") -> E:
        """padding on both sides, up to so many characters; what is longer stays."""
        return self._of("center", width=_count(width, "width"), padding=_character(padding))

    def lpad(self, width: int, padding: str = " ") -> E:
        """padding on the left, up to so many characters; what is longer stays."""
        return self._of("lpad", width=_count(width, "width"), padding=_character(padding))

    def rpad(self, width: int, padding: str = " ") -> E:
        """padding on the right, up to so many characters; what is longer stays."""
        return self._of("rpad", width=_count(width, "width"), padding=_character(padding))

    def pad(self, width: int, fillchar: str = " ", side: Literal["left", "right", "both"] = "right") -> E:
        """side: where characters are added."""
        if side not in _SIDES:
            raise ValueError(f"side must be one of {', '.join(_SIDES)}, got {side!r}")
        pad = {"left": self.lpad, "right": self.rpad, "both": self.center}[side]
        return pad(width, fillchar)

    def strip(self, characters: str | None = None) -> E:
        """Without any of the characters at its ends, or without white space."""
        return self._of("strip", characters=characters)

    def lstrip(self, characters: str | None = None) -> E:
        """As `strip`, at the beginning only."""
        return self._of("lstrip", characters=characters)

    def rstrip(self, characters: str | None = None) -> E:
        """As `strip`, at the end only."""
        return self._of("rstrip", characters=characters)


class DatetimeNamespace(_Namespace[E]):
    """Of timestamps, dates and times."""

    __slots__ = ()
    _prefix = "dt"

    def year(self) -> E:
        """The year, int64."""
        return self._of("year")

    def quarter(self) -> E:
        """1 to 4."""
        return self._of("quarter")

    def month(self) -> E:
        """1 to 12."""
        return self._of("month")

    def day(self) -> E:
        """The day of the month, 1 to 31."""
        return self._of("day")

    def day_of_week(self) -> E:
        """0 is Monday."""
        return self._of("day_of_week")

    def day_of_year(self) -> E:
        """1 is the first of January."""
        return self._of("day_of_year")

    def hour(self) -> E:
        """0 to 23; of times too."""
        return self._of("hour")

    def minute(self) -> E:
        """0 to 59; of times too."""
        return self._of("minute")

    def second(self) -> E:
        """The whole ones."""
        return self._of("second")

    def date(self) -> E:
        """The date, of timestamps with a zone that of their clocks."""
        return self._of("date")

    def strftime(self, fmt: str) -> E:
        """Text, by Python's format codes. Raises ValueError for %f."""
        if "%f" in _text(fmt, "fmt").replace("%%", ""):
            raise ValueError(f"fmt cannot have %f (fractions of seconds), got {fmt!r}; cast to string for them")
        return self._of("strftime", fmt=fmt)

    def floor(self, unit: str) -> E:
        """To the beginning of its year, quarter, month, week, day, hour, minute, second, ..."""
        return self._of("floor", unit=_unit(unit))

    def ceil(self, unit: str) -> E:
        """To the next beginning of a unit that is not before; see `floor`."""
        return self._of("ceil", unit=_unit(unit))

    def round(self, unit: str) -> E:
        """To the nearest beginning of a unit; see `floor`."""
        return self._of("round", unit=_unit(unit))


class ListNamespace(_Namespace[E]):
    """Of lists."""

    __slots__ = ()
    _prefix = "list"

    def len(self) -> E:
        """How many elements, int64; null of null."""
        return self._of("len")

    def get(self, index: int) -> E:
        """Null where the list is shorter; from the end if negative."""
        return self._of("get", index=_integer(index, "index"))

    def slice(self, start: int | None = None, stop: int | None = None, step: int | None = None) -> E:
        """As Python's `[start:stop:step]`."""
        _check_slice(start, stop, step)
        return self._of("slice", start=start, stop=stop, step=step)

    def __getitem__(self, key: int | builtins.slice) -> E:
        return self.slice(key.start, key.stop, key.step) if isinstance(key, builtins.slice) else self.get(key)

    def sort(
        self,
        order: Literal["ascending", "descending"] = "ascending",
        null_placement: Literal["at_start", "at_end"] = "at_end",
    ) -> E:
        """The elements of each list in order; nan comes after all numbers. Of values that have an order."""
        if order not in ("ascending", "descending"):
            raise ValueError(f"order must be ascending or descending, got {order!r}")
        if null_placement not in ("at_start", "at_end"):
            raise ValueError(f"null_placement must be at_start or at_end, got {null_placement!r}")
        return self._of("sort", order=order, null_placement=null_placement)

    def flatten(self) -> E:
        """One level of lists of lists."""
        return self._of("flatten")


class StructNamespace(_Namespace[E]):
    """Of structs."""

    __slots__ = ()
    _prefix = "struct"

    def field(self, field_name: str) -> E:
        """The field of that name. Raises UnknownColumnError where there is none."""
        return self._of("field", field_name=_text(field_name, "field_name"))

    def field_by_index(self, index: int) -> E:
        """The field of that place; from the end if negative."""
        return self._of("field_by_index", index=_integer(index, "index"))

    def __getitem__(self, key: str | int) -> E:
        return self.field(key) if isinstance(key, str) else self.field_by_index(key)


class MapNamespace(_Namespace[E]):
    """Of maps."""

    __slots__ = ()
    _prefix = "map"

    def keys(self) -> E:
        """A list of the keys."""
        return self._of("keys")

    def values(self) -> E:
        """A list of the values, in the order of the keys."""
        return self._of("values")

    def get(self, key: str | int | float | bool | bytes) -> E:
        """The value of that key, null where there is none."""
        return self._of("get", key=key)


class ArrayNamespace(_Namespace[E]):
    """Of lists of one size, and tensors of one shape."""

    __slots__ = ()
    _prefix = "arr"

    def to_list(self) -> E:
        """As lists; a tensor row after row."""
        return self._of("to_list")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}")
    return value


def _regex(pattern: object) -> str:
    text = _text(pattern, "pattern")
    try:
        pc.match_substring_regex(pa.array([""]), text)
    except pa.ArrowInvalid as error:
        raise ValueError(f"pattern is no regular expression of RE2's, got {text!r}: {error}") from error
    return text


def _integer(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return value


def _count(value: object, name: str) -> int:
    count = _integer(value, name)
    if count < 0:
        raise ValueError(f"{name} must be at least 0, got {count}")
    return count


def _character(value: object) -> str:
    text = _text(value, "padding")
    if len(text) != 1:
        raise ValueError(f"padding must be one character, got {text!r}")
    return text


def _check_slice(start: object, stop: object, step: object) -> None:
    for name, value in (("start", start), ("stop", stop), ("step", step)):
        if value is not None:
            _integer(value, name)
    if step == 0:
        raise ValueError("step must not be 0")


def _unit(unit: object) -> str:
    text = _text(unit, "unit")
    if text not in temporal.UNITS:
        raise ValueError(f"unit must be one of {', '.join(temporal.UNITS)}, got {text!r}")
    return text
