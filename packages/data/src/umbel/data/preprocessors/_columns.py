"""The names of columns that a preprocessor is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def names(columns: Sequence[str], *, what: str = "columns") -> list[str]:
    """A list of them. Raises TypeError for what are no names, and ValueError for one that is there twice."""
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        raise TypeError(f"{what} must be a list of names, such as ['x'], got {columns!r}")
    found = [*columns]
    wrong = [one for one in found if not isinstance(one, str)]
    if wrong:
        raise TypeError(f"{what} must be names, got {wrong[0]!r}")
    twice = [one for one in dict.fromkeys(found) if found.count(one) > 1]
    if twice:
        raise ValueError(f"{what} has {twice[0]!r} twice; name each column once")
    return found


def output_names(columns: Sequence[str], output_columns: Sequence[str] | None) -> list[str]:
    """As many as there are inputs; by default these, in whose place the results come."""
    if not output_columns:
        return [*columns]
    found = names(output_columns, what="output_columns")
    if len(found) != len(columns):
        raise ValueError(
            f"output_columns must name a column for each of columns, got {len(found)} for {len(columns)}: "
            f"{found} for {[*columns]}"
        )
    return found
