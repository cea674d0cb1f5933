"""Preprocessors one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from umbel.data.preprocessors import _base, _statistics

if TYPE_CHECKING:
    from umbel.data.dataset import Dataset


class Chain(_base.Preprocessor):
    """Each preprocessor is fitted to what those before it made of the dataset, and they transform in turn.

    Neighbours of which none reads what another writes are fitted in one pass.
    """

    _fields: ClassVar[tuple[str, ...]] = ("preprocessors",)

    def __init__(self, *preprocessors: _base.Preprocessor) -> None:
        super().__init__()
        wrong = [one for one in preprocessors if not isinstance(one, _base.Preprocessor)]
        if wrong or not preprocessors:
            raise TypeError(
                f"a Chain is made of preprocessors, got {wrong[0]!r}"
                if wrong
                else "a Chain needs one preprocessor at least"
            )
        self.preprocessors = preprocessors

    def fit_status(self) -> _base.FitStatus:
        kinds = _base.FitStatus
        found = {one.fit_status() for one in self.preprocessors} - {kinds.NOT_FITTABLE}
        if not found:
            return kinds.NOT_FITTABLE
        return found.pop() if len(found) == 1 else kinds.PARTIALLY_FITTED

    def has_stats(self) -> bool:
        return any(one.has_stats() for one in self.preprocessors)

    def get_input_columns(self) -> list[str]:
        """Those that no member before makes."""
        made: set[str] = set()
        read: dict[str, None] = {}
        for one in self.preprocessors:
            read.update(dict.fromkeys(name for name in one.get_input_columns() if name not in made))
            made.update(one.get_output_columns())
        return [*read]

    def get_output_columns(self) -> list[str]:
        """Those that no member behind drops."""
        made: dict[str, None] = {}
        for one in self.preprocessors:
            for name in _dropped(one):
                made.pop(name, None)
            made.update(dict.fromkeys(one.get_output_columns()))
        return [*made]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.preprocessors))})"

    def inverse_transform(self, ds: Dataset) -> Dataset:
        """By the members from the last to the first, all of which must have an inverse."""
        self._require_fitted("inverse_transform")
        schema = _base.schema_of(ds)
        for one in reversed(self._inverses()):
            ds, schema = one._inverted(ds, schema)
        return ds

    def inverse_transform_batch(self, data: Any) -> Any:
        """The same of one batch."""
        self._require_fitted("inverse_transform_batch")
        for one in reversed(self._inverses()):
            data = one.inverse_transform_batch(data)
        return data

    @property
    def has_inverse(self) -> bool:
        """Whether each of its preprocessors has one."""
        return all(getattr(one, "has_inverse", False) for one in self.preprocessors)

    def _inverses(self) -> list[Any]:
        without = [one for one in self.preprocessors if not getattr(one, "has_inverse", False)]
        if without:
            raise NotImplementedError(f"the Chain has no inverse, for {without[0]!r} has none")
        return [*self.preprocessors]

    def _inverted(self, ds: Dataset, schema: pa.Schema | None) -> tuple[Dataset, pa.Schema | None]:
        for one in reversed(self._inverses()):
            ds, schema = one._inverted(ds, schema)
        return ds, schema

    def _fit(self, ds: Dataset) -> None:
        schema = _base.schema_of(ds)
        waiting: list[_base.Preprocessor] = []  # behind what `ds` has been transformed by
        for one in self._flat():
            if waiting and not _is_apart(one, waiting):
                _fit_together(waiting, ds, schema)
                for before in waiting:
                    ds, schema = before._transformed(ds, schema, {})
                waiting = []
            waiting.append(one)
        _fit_together(waiting, ds, schema)

    def _flat(self) -> list[_base.Preprocessor]:
        """The members, and those of chains among them."""
        return [inner for one in self.preprocessors for inner in (one._flat() if isinstance(one, Chain) else [one])]

    def _transformed(
        self, ds: Dataset, schema: pa.Schema | None, options: Mapping[str, Any]
    ) -> tuple[Dataset, pa.Schema | None]:
        for one in self.preprocessors:
            ds, schema = one._transformed(ds, schema, options)
        return ds, schema

    def _transformed_batch(self, data: Any) -> Any:
        for one in self.preprocessors:
            data = one._transformed_batch(data)
        return data

    def _set_serializable_fields(self, fields: dict[str, Any], version: int) -> None:
        self.__init__(*fields["preprocessors"])  # type: ignore[misc]  # which checks them, as those of any caller


def _dropped(one: _base.Preprocessor) -> list[str]:
    return [*one._dropped()] if isinstance(one, _base.Columnwise) else []


def _is_apart(one: _base.Preprocessor, others: list[_base.Preprocessor]) -> bool:
    """Whether it is fitted to the same before the others transform as after."""
    if one.fit_status() is _base.FitStatus.NOT_FITTABLE:
        return True  # it waits too, and is not asked for anything
    if not all(isinstance(each, _base.Columnwise) for each in (one, *others)):
        return False  # nobody knows what a user's reads and writes
    written = {name for each in others for name in (*each.get_output_columns(), *_dropped(each))}
    return written.isdisjoint(one.get_input_columns())


def _fit_together(some: list[_base.Preprocessor], ds: Dataset, schema: pa.Schema | None) -> None:
    fitted = [one for one in some if one.fit_status() is not _base.FitStatus.NOT_FITTABLE]
    ours = [one for one in fitted if isinstance(one, _base.Columnwise)]
    aggregates = [each for one in ours for each in one._aggregates()]
    title = " and ".join(type(one).__name__ for one in ours)
    found = _statistics.computed(ds, schema, aggregates, title=title)
    learned = [one._learned(found) for one in ours]
    for one, stats in zip(ours, learned, strict=True):
        one.stats_ = stats
        one._fitted = True
    for other in fitted:
        if not isinstance(other, _base.Columnwise):
            other.stats_ = {}
            other._fit(ds)
            other._fitted = True
