"""Texts as tokens, and as counts of tokens."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from umbel.data._blocks import aggregating, columns, tensors
from umbel.data.preprocessors import _base, _categories, _columns, _making, _statistics, _tokens


class _OfTexts(_base.Columnwise):
    """tokenization_fn: of a text its tokens; by default what stands between spaces. A null text has no tokens and becomes
    null."""

    def __init__(
        self,
        columns: Sequence[str],
        tokenization_fn: _tokens.TokenizationFn | None,
        output_columns: Sequence[str] | None,
    ) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        if tokenization_fn is not None and not callable(tokenization_fn):
            raise TypeError(
                f"tokenization_fn must be a function of a text that returns a list of tokens, got {tokenization_fn!r}"
            )
        self.tokenization_fn = tokenization_fn or _tokens.simple_split_tokenizer
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _get_serializable_fields(self) -> dict[str, Any]:
        fields = super()._get_serializable_fields()
        is_default = self.tokenization_fn is _tokens.simple_split_tokenizer
        return {**fields, "tokenization_fn": None if is_default else self.tokenization_fn}

    def _require_texts(self, schema: pa.Schema) -> None:
        title = type(self).__name__
        _making.require(schema, self.columns, title=title)
        for name in self.columns:
            if not _making.is_text(_making.plain_type(schema, name)):
                raise TypeError(
                    f"{title}: the column {name!r} has type {schema.field(name).type}; it must be of text, so cast it"
                )


class Tokenizer(_OfTexts):
    """A list of tokens in the place of each text."""

    _is_fittable = False
    _fields: ClassVar[tuple[str, ...]] = ("columns", "tokenization_fn", "output_columns")

    def __init__(
        self,
        columns: Sequence[str],
        tokenization_fn: _tokens.TokenizationFn | None = None,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__(columns, tokenization_fn, output_columns)

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        self._require_texts(schema)
        is_default = self.tokenization_fn is _tokens.simple_split_tokenizer
        function = functools.partial(_tokens.tokenized, tokenization_fn=self.tokenization_fn)
        made = []
        for column, name in zip(self.columns, self.output_columns, strict=True):
            is_large = pa.types.is_large_string(_making.plain_type(schema, column))
            kind = pa.list_(pa.large_string() if is_large else pa.string()) if is_default else None
            made.append(_making.Output(name, (column,), function, kind))
        return made


class HashingVectorizer(_OfTexts):
    """A tensor of int64 in each row: how many tokens of the text have each hash below num_features (SHA-256 modulo that)."""

    _is_fittable = False
    _fields: ClassVar[tuple[str, ...]] = ("columns", "num_features", "tokenization_fn", "output_columns")

    def __init__(
        self,
        columns: Sequence[str],
        num_features: int,
        tokenization_fn: _tokens.TokenizationFn | None = None,
        *,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__(columns, tokenization_fn, output_columns)
        self.num_features = _feature_count("num_features", num_features)

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        self._require_texts(schema)
        function = functools.partial(
            _tokens.hashed_counts, tokenization_fn=self.tokenization_fn, num_features=self.num_features
        )
        kind = tensors.fixed_type(pa.int64(), (self.num_features,))
        pairs = zip(self.columns, self.output_columns, strict=True)
        return [_making.Output(name, (column,), function, kind) for column, name in pairs]


class CountVectorizer(_OfTexts):
    """A tensor of int64 in each row: how often the text has each token that there was when this was fitted, the most frequent
    first. `stats_` "token_counts(x)", a Counter.

    max_features: how many tokens at most, the most frequent ones; of equally frequent ones those that came first.
    """

    _fields: ClassVar[tuple[str, ...]] = ("columns", "tokenization_fn", "max_features", "output_columns")

    def __init__(
        self,
        columns: Sequence[str],
        tokenization_fn: _tokens.TokenizationFn | None = None,
        max_features: int | None = None,
        *,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__(columns, tokenization_fn, output_columns)
        self.max_features = None if max_features is None else _feature_count("max_features", max_features)

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        return [_statistics.Tokens(one, self.tokenization_fn) for one in self.columns]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        stats = {}
        for one in self.columns:
            counted = found[_statistics.Tokens(one, self.tokenization_fn).name]
            counts = dict(zip(counted["values"], counted["counts"], strict=True))
            kept = _categories.most_frequent(counted, self.max_features)
            stats[f"token_counts({one})"] = collections.Counter({token: counts[token] for token in kept})
        return stats

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        self._require_texts(schema)
        made = []
        for column, name in zip(self.columns, self.output_columns, strict=True):
            tokens = [*self.stats_[f"token_counts({column})"]]
            vocabulary = pa.array(tokens) if tokens else pa.array([], pa.string())
            function = functools.partial(_tokens.counts, tokenization_fn=self.tokenization_fn, vocabulary=vocabulary)
            made.append(_making.Output(name, (column,), function, tensors.fixed_type(pa.int64(), (len(tokens),))))
        return made


class FeatureHasher(_base.Columnwise):
    """A tensor in each row, of columns that are counts of tokens: the sums of those whose names have each hash below
    num_features (SHA-256 modulo that). Of integers int64, else float64, in which null is NaN; among integers a null is an
    error."""

    _is_fittable = False
    _fields: ClassVar[tuple[str, ...]] = ("columns", "num_features", "output_column")

    def __init__(self, columns: Sequence[str], num_features: int, output_column: str) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        self.num_features = _feature_count("num_features", num_features)
        (self.output_column,) = _columns.names([output_column], what="output_column")

    def get_output_columns(self) -> list[str]:
        return [self.output_column]

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        _making.require_numbers(schema, self.columns, title="FeatureHasher")
        kinds = [_making.plain_type(schema, one) for one in self.columns]
        is_whole = all(pa.types.is_integer(kind) or pa.types.is_boolean(kind) for kind in kinds)
        function = functools.partial(_hashed, names=tuple(self.columns), width=self.num_features, is_whole=is_whole)
        kind = tensors.fixed_type(pa.int64() if is_whole else pa.float64(), (self.num_features,))
        return [_making.Output(self.output_column, tuple(self.columns), function, kind)]


def _hashed(*arrays: pa.Array, names: Sequence[str], width: int, is_whole: bool) -> pa.Array:
    matrix = np.zeros((len(arrays[0]), width), np.int64 if is_whole else np.float64)
    for array, name in zip(arrays, names, strict=True):
        if not is_whole:
            values = _making.floats(array).to_numpy(zero_copy_only=False)
        elif array.null_count:
            raise ValueError(
                f"FeatureHasher: the column {name!r} has {array.null_count} null values; fill them before, for example by "
                "SimpleImputer(strategy='constant', fill_value=0)"
            )
        else:
            values = columns.numbers(columns.plain(array))[0]
        matrix[:, _tokens.simple_hash(name, width)] += values.astype(matrix.dtype, copy=False)
    return tensors.from_numpy(matrix)


def _feature_count(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be 1 or more, got {value!r}")
    return value
