"""What `Dataset.summary` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data import aggregate as aggregates
from umbel.data._expressions import datatypes
from umbel.data._plan import schemas

if TYPE_CHECKING:
    import pandas as pd

_OF_ALL = {"count": aggregates.Count, "missing_pct": aggregates.MissingValuePercentage}
_OF_NUMBERS = {
    "mean": aggregates.Mean,
    "std": aggregates.Std,
    "zero_pct": aggregates.ZeroPercentage,
}
_OF_ORDERED = {"min": aggregates.Min, "max": aggregates.Max}


def _figures(schema: pa.Schema, name: str) -> dict[str, Any]:
    kind = schema.field(name).type
    figures: dict[str, Any] = dict(_OF_ALL)
    if name in schemas.numbers(schema) and not pa.types.is_boolean(kind):
        figures |= _OF_NUMBERS | _OF_ORDERED
    elif pa.types.is_temporal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        figures |= _OF_ORDERED
    return figures


Overrides = Mapping[Any, Callable[[str], Sequence[Any]]]
"""By a type, what makes the aggregations of a column of it."""


def wanted(schema: pa.Schema, names: Sequence[str], overrides: Overrides) -> dict[str, dict[str, Any]]:
    """For each column its aggregations, by figure."""
    makers = {datatypes.to_arrow(one): make for one, make in overrides.items()}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        make = makers.get(schema.field(name).type)
        if make is None:
            found[name] = {one: of(name, alias_name=f"{one}({name})") for one, of in _figures(schema, name).items()}
        else:
            found[name] = {one.name.removesuffix(f"({name})"): one for one in make(name)}
    return found


class DatasetSummary:
    """Figures of columns: count, missing_pct (of nulls), and of those that have them mean, std, zero_pct, min and max; or those
    that were wanted."""

    def __init__(self, wanted: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]) -> None:
        self.columns = [*wanted]
        self._figures = {name: {one: found[of.name] for one, of in some.items()} for name, some in wanted.items()}

    def get_column_stats(self, column: str) -> dict[str, Any]:
        """The figures of a column by name."""
        if column not in self._figures:
            raise KeyError(f"the summary has no column {column!r}; it has {', '.join(map(repr, self.columns))}")
        return dict(self._figures[column])

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """For each column its figures by name."""
        return {name: dict(figures) for name, figures in self._figures.items()}

    def to_pandas(self) -> pd.DataFrame:
        """A row for each figure, a column for each column."""
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_pandas needs pandas; pip install pandas") from error
        frame: pd.DataFrame = pd.DataFrame(self._figures)
        return frame

    def __repr__(self) -> str:
        usual = [*_OF_ALL, *_OF_NUMBERS, *_OF_ORDERED]
        names = ["column", *dict.fromkeys([*usual, *(one for some in self._figures.values() for one in some)])]
        lines = [names]
        lines += [[one, *(_shown(self._figures[one].get(name)) for name in names[1:])] for one in self.columns]
        widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]
