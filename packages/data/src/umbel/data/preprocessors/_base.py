"""What a preprocessor is: fitted to a dataset, then applied to datasets and to single batches.

`Preprocessor` is what users derive from. Those of ours are `Columnwise`: they say which aggregations they learn from and
which columns they make, and everything else is here, for all kinds of batches.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import pyarrow as pa

from umbel.data import block
from umbel.data._api import options as strategies
from umbel.data._blocks import aggregating, batches
from umbel.data.preprocessors import _batches, _making, _saving, _statistics

if TYPE_CHECKING:
    from umbel.data.dataset import Dataset

_ROW_BYTES_MAX: Final = 256  # of what is made of a row; with more, a block could become many times as large at once
# Of what is made at a time then: small beside a block, and large beside what a call costs.
_PART_BYTES: Final = 16 << 20

_OWN_TRANSFORMS: Final[Mapping[block.BatchFormat, str]] = {
    "pyarrow": "_transform_arrow",
    "numpy": "_transform_numpy",
    "pandas": "_transform_pandas",
}

Self = TypeVar("Self", bound="Preprocessor")


class PreprocessorNotFittedException(RuntimeError):
    """The preprocessor has to be fitted before it transforms."""


class Preprocessor:
    """Derive from it: `_fit(ds)` sets `stats_`, unless `_is_fittable` is False; one of `_transform_arrow(table)`,
    `_transform_numpy(arrays)` and `_transform_pandas(frame)` returns the batch that comes in the place of one.
    """

    class FitStatus(str, enum.Enum):
        """Whether a preprocessor knows what it transforms by."""

        NOT_FITTABLE = "NOT_FITTABLE"  # it needs to know nothing
        NOT_FITTED = "NOT_FITTED"
        PARTIALLY_FITTED = "PARTIALLY_FITTED"  # some of a chain are
        FITTED = "FITTED"

    _is_fittable: bool = True
    _fields: ClassVar[tuple[str, ...]] = ()  # of the constructor, and of the object: what is shown and saved
    _version: ClassVar[int] = 1  # of what is saved
    stats_: dict[str, Any]

    def __init__(self) -> None:
        self.stats_ = {}
        self._fitted = False

    # ---- fitting ----

    def fit_status(self) -> FitStatus:
        """Whether it has been fitted, or needs no fit."""
        if not self._is_fittable:
            return FitStatus.NOT_FITTABLE
        is_fitted = getattr(self, "_fitted", False) or self.has_stats()
        return FitStatus.FITTED if is_fitted else FitStatus.NOT_FITTED

    def has_stats(self) -> bool:
        """Whether `stats_` has anything in it."""
        return bool(getattr(self, "stats_", None))

    def fit(self: Self, ds: Dataset) -> Self:
        """Learn from the dataset, in one pass over it. What was learned before is forgotten, unless this fails."""
        status = self.fit_status()
        if status is FitStatus.NOT_FITTABLE:
            return self
        if status is not FitStatus.NOT_FITTED:
            warnings.warn(
                f"{type(self).__name__} was fitted before, all or parts of it; what it learned is replaced",
                stacklevel=2,
            )
        before, self.stats_ = getattr(self, "stats_", {}), {}
        try:
            self._fit(ds)
        except BaseException:
            self.stats_ = before
            raise
        self._fitted = True
        return self

    def fit_transform(
        self,
        ds: Dataset,
        *,
        transform_num_cpus: float | None = None,
        transform_memory: float | None = None,
        transform_batch_size: int | None = None,
        transform_concurrency: int | None = None,
    ) -> Dataset:
        """Fit to the dataset, and then transform it."""
        return self.fit(ds).transform(
            ds,
            batch_size=transform_batch_size,
            num_cpus=transform_num_cpus,
            memory=transform_memory,
            concurrency=transform_concurrency,
        )

    def _fit(self, ds: Dataset) -> object:
        raise NotImplementedError(f"{type(self).__name__} has no _fit(ds); write it, or set _is_fittable = False")

    # ---- transforming ----

    def transform(
        self,
        ds: Dataset,
        *,
        batch_size: int | None = None,
        num_cpus: float | None = None,
        memory: float | None = None,
        concurrency: int | None = None,
    ) -> Dataset:
        """The dataset transformed; nothing runs yet. The options are those of `map_batches`; concurrency: how many tasks at once.

        Raises PreprocessorNotFittedException before `fit`, and KeyError for a column that is known not to be there.
        """
        self._require_fitted("transform")
        compute = None if concurrency is None else strategies.TaskPoolStrategy(concurrency)
        options = _given(batch_size=batch_size, num_cpus=num_cpus, memory=memory, compute=compute)
        return self._transformed(ds, schema_of(ds), options)[0]

    def transform_batch(self, data: Any) -> Any:
        """One batch transformed: a dictionary of arrays, a data frame of pandas or polars, or a table of Arrow; the result is
        of the same kind."""
        self._require_fitted("transform_batch")
        return self._transformed_batch(data)

    def _transformed(
        self, ds: Dataset, schema: pa.Schema | None, options: Mapping[str, Any]
    ) -> tuple[Dataset, pa.Schema | None]:
        """The dataset, and its schema as far as it is known."""
        batch_format, transform = self._own_transform()
        config = {**self._get_transform_config(), **options}
        return ds.map_batches(transform, batch_format=batch_format, **config), None

    def _transformed_batch(self, data: Any) -> Any:
        batch_format, transform = self._own_transform()
        given = batches.to_batch(_batches.table_of(data), batch_format, zero_copy=False)
        result = batches.from_batch(transform(given), operator=type(self).__name__)
        return batches.to_batch(result, _batches.format_of(data), zero_copy=False)

    def _own_transform(self) -> tuple[block.BatchFormat, Callable[[Any], Any]]:
        for batch_format, name in _OWN_TRANSFORMS.items():
            if hasattr(self, name):
                return batch_format, getattr(self, name)
        raise NotImplementedError(
            f"{type(self).__name__} has none of _transform_arrow(table), _transform_numpy(arrays) and _transform_pandas(frame)"
        )

    def _get_transform_config(self) -> dict[str, Any]:
        """Options of `map_batches` to transform with, for subclasses to say."""
        return {}

    def _require_fitted(self, what: str) -> None:
        if self.fit_status() in (FitStatus.NOT_FITTED, FitStatus.PARTIALLY_FITTED):
            raise PreprocessorNotFittedException(
                f"call fit() of {type(self).__name__} before {what}(), or fit_transform() for both at once"
            )

    # ---- what it is ----

    def get_input_columns(self) -> list[str]:
        """Names of the columns that it reads."""
        return [*getattr(self, "_columns", getattr(self, "columns", None) or ())]

    def get_output_columns(self) -> list[str]:
        """Names of the columns that it makes."""
        return [*getattr(self, "_output_columns", getattr(self, "output_columns", None) or ())]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={self._shown(getattr(self, name))}" for name in self._repr_fields())
        return f"{type(self).__name__}({shown})"

    def _repr_fields(self) -> Iterable[str]:
        return self._fields

    @staticmethod
    def _shown(value: Any) -> str:
        return value.__name__ if isinstance(value, types.FunctionType) else repr(value)

    # ---- keeping ----

    def serialize(self) -> str:
        """All that it is and has learned, as JSON. It holds data and no code: a function is there by its name only."""
        return _saving.dumped(self)

    @staticmethod
    def deserialize(
        serialized: str | bytes, *, functions: Mapping[str, Callable[..., Any]] | None = None
    ) -> Preprocessor:
        """What `serialize` wrote. Nothing in it is run or imported: a class of yours has to be imported before, and
        functions, such as a tokenizer, are passed by their names, "module:name".

        Raises ValueError for what is no such text, or of a newer version.
        """
        return _saving.loaded(serialized, Preprocessor, functions or {})

    def _get_serializable_fields(self) -> dict[str, Any]:
        """What is saved beside `stats_`; `_set_serializable_fields` gets it back. By default all fields of the object."""
        if self._fields:
            return {name: getattr(self, name) for name in self._fields}
        return {name: value for name, value in vars(self).items() if name not in ("stats_", "_fitted")}

    def _set_serializable_fields(self, fields: dict[str, Any], version: int) -> None:
        if self._fields:
            self.__init__(**fields)  # type: ignore[misc]  # which checks them, as those of any caller
        else:
            vars(self).update(fields)


FitStatus = Preprocessor.FitStatus


def schema_of(ds: Dataset) -> pa.Schema | None:
    """That of the dataset, if it is known without a run."""
    found = ds.schema(fetch_if_missing=False)
    return None if found is None else found.base_schema


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


class Columnwise(Preprocessor):
    """One that makes columns out of columns."""

    def _aggregates(self) -> Sequence[aggregating.AggregateFn]:
        """What `_learned` wants to know."""
        return ()

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The statistics. found: the value of each aggregation, by its name, and of others perhaps."""
        return {}

    def _outputs(self, schema: pa.Schema) -> Sequence[_making.Output]:
        """Made of a table with this schema. Raises KeyError and TypeError for one that has not what is needed."""
        raise NotImplementedError

    def _inverse_outputs(self, schema: pa.Schema) -> Sequence[_making.Output]:
        raise NotImplementedError(
            f"{type(self).__name__} has no inverse: what it makes does not say what it was made of"
        )

    def _dropped(self) -> Collection[str]:
        """Columns that are not kept."""
        return ()

    @property
    def has_inverse(self) -> bool:
        """Whether `inverse_transform` is there."""
        return type(self)._inverse_outputs is not Columnwise._inverse_outputs

    def inverse_transform(self, ds: Dataset) -> Dataset:
        """The dataset with the input columns made of the output columns again. Raises NotImplementedError where that cannot
        be."""
        self._require_fitted("inverse_transform")
        return self._inverted(ds, schema_of(ds))[0]

    def inverse_transform_batch(self, data: Any) -> Any:
        """The same of one batch."""
        self._require_fitted("inverse_transform_batch")
        return _batches.changed(data, self._inverse_outputs, self.get_output_columns(), ())

    def _fit(self, ds: Dataset) -> None:
        found = _statistics.computed(ds, schema_of(ds), self._aggregates(), title=type(self).__name__)
        self.stats_ = self._learned(found)

    def _transform_arrow(self, table: pa.Table) -> pa.Table:
        return _making.applied(table, self._outputs(table.schema), self._dropped())

    def _transformed_batch(self, data: Any) -> Any:
        return _batches.changed(data, self._outputs, self.get_input_columns(), self._dropped())

    def _transformed(
        self, ds: Dataset, schema: pa.Schema | None, options: Mapping[str, Any]
    ) -> tuple[Dataset, pa.Schema | None]:
        return _changed(ds, schema, self._outputs, self._dropped(), options, title=type(self).__name__)

    def _inverted(self, ds: Dataset, schema: pa.Schema | None) -> tuple[Dataset, pa.Schema | None]:
        return _changed(ds, schema, self._inverse_outputs, (), {}, title=f"Inverse{type(self).__name__}")


def _changed(
    ds: Dataset,
    schema: pa.Schema | None,
    outputs_of: Callable[[pa.Schema], Sequence[_making.Output]],
    dropped: Collection[str],
    options: Mapping[str, Any],
    *,
    title: str,
) -> tuple[Dataset, pa.Schema | None]:
    """By expressions, if that goes: the schema of what comes out is known then, and little data needs no worker."""
    after = None
    if schema is not None:
        outputs = outputs_of(schema)
        after = _making.schema_after(schema, outputs, dropped)
        if after is not None and not options and _making.row_bytes(outputs) <= _ROW_BYTES_MAX:
            return _making.planned(ds, outputs, dropped, title=title), after
    call = _OfTables(title, outputs_of, dropped)
    return ds.map_batches(call, batch_format="pyarrow", **options), after


@dataclasses.dataclass(frozen=True, eq=False)
class _OfTables:
    title: str
    outputs_of: Callable[[pa.Schema], Sequence[_making.Output]]
    dropped: Collection[str]

    @property
    def __name__(self) -> str:
        return self.title

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """In parts, so that wide rows are not made of a whole block at once."""
        outputs = self.outputs_of(table.schema)
        step = max(1, _PART_BYTES // max(1, _making.row_bytes(outputs)))
        for start in range(0, max(1, table.num_rows), step):
            yield _making.applied(table.slice(start, step), outputs, self.dropped)
