"""What `Dataset.summary` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data import aggregate as aggregates
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


def wanted(schema: pa.Schema, names: Sequence[str]) -> list[Any]:
    """Aggregations, each named so that `DatasetSummary` knows it again."""
    return [
        make(name, alias_name=f"{figure}({name})") for name in names for figure, make in _figures(schema, name).items()
    ]


class DatasetSummary:
    """Figures of columns: count, missing_pct (of nulls), and of those that have them mean, std, zero_pct, min and max."""

    def __init__(self, schema: pa.Schema, names: Sequence[str], found: Mapping[str, Any]) -> None:
        self.columns = [*names]
        self._figures = {
            name: {figure: found[f"{figure}({name})"] for figure in _figures(schema, name)} for name in names
        }

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
        names = ["column", *_OF_ALL, *_OF_NUMBERS, *_OF_ORDERED]
        lines = [names]
        lines += [[one, *(_shown(self._figures[one].get(name)) for name in names[1:])] for one in self.columns]
        widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]
