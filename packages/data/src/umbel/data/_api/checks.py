"""Arguments that several methods of datasets take: checked, and as plans have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from umbel.data._plan import logical, schemas

ROWS_MAX: Final = (1 << 63) - 1  # that Arrow counts


def row_count(name: str, value: Any) -> int:
    """A number of rows, 0 or more, as far as Arrow counts."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a number of rows, 0 or more, got {value!r}")
    return min(value, ROWS_MAX)


def positive(name: str, value: Any, *, advice: str = "") -> int:
    """An integer of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be 1 or more, got {value!r}{advice}")
    return value


def keys(name: str, given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names of columns, of which one may stand alone; none for None."""
    if given is None:
        return ()
    several = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for one in several:
        if not isinstance(one, str):
            raise TypeError(f"{name} must be the name of a column or a list of names, got {given!r}")
    if len(set(several)) < len(several):
        raise ValueError(f"{name} must name each column once, got {list(several)}")
    return several


def descending(given: bool | Sequence[bool], names: Sequence[str]) -> tuple[bool, ...]:
    """For each of the columns."""
    each = (given,) * len(names) if isinstance(given, bool) else tuple(given)
    if len(each) != len(names) or not all(isinstance(one, bool) for one in each):
        raise ValueError(f"descending must be True, False or one of them for each of {list(names)}, got {given!r}")
    return each


def columns(node: logical.Node, names: Iterable[str]) -> None:
    """Raises KeyError for one that is known not to be there."""
    schema = schemas.of(node)
    if schema is not None:
        schemas.check_columns(names, schema)


def unused(name: str, node: logical.Node) -> str:
    """The name, or a longer one, such that no column has it as far as that is known."""
    schema = schemas.of(node)
    while schema is not None and name in schema.names:
        name += "_"
    return name
