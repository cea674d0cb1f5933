"""Texts as lists of tokens, and lists of tokens as rows of counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import columns, tensors

TokenizationFn = Callable[[str], list[str]]


def simple_split_tokenizer(value: str) -> list[str]:
    """What stands between spaces."""
    return value.split(" ")


def simple_hash(value: object, num_features: int) -> int:
    """A number below `num_features`, always the same for the same text: SHA-256 modulo that."""
    return int.from_bytes(hashlib.sha256(str(value).encode()).digest(), "big") % num_features


def tokenized(texts: pa.Array, tokenization_fn: TokenizationFn) -> pa.Array:
    """The list of tokens of each text; null for a null one, of which the function hears nothing."""
    texts = columns.plain(texts)
    if pa.types.is_null(texts.type):
        return pa.nulls(len(texts), pa.list_(pa.string()))
    if tokenization_fn is simple_split_tokenizer:
        return pc.split_pattern(texts, " ")
    found = [None if text is None else list(tokenization_fn(text)) for text in texts.to_pylist()]
    if not any(found):
        return pa.array(found, pa.list_(pa.string()))
    return pa.array(found)


def counts(texts: pa.Array, tokenization_fn: TokenizationFn, vocabulary: pa.Array) -> pa.Array:
    """How often each token of the vocabulary is in each text, a tensor of them for each row. A null text has null."""
    tokens = tokenized(texts, tokenization_fn)
    values = columns.list_parts(tokens.drop_null())[1]
    if not pa.types.is_null(values.type):
        vocabulary = vocabulary.cast(values.type)
    return _counted(tokens, pc.index_in(values, vocabulary), len(vocabulary))


def hashed_counts(texts: pa.Array, tokenization_fn: TokenizationFn, num_features: int) -> pa.Array:
    """How many tokens of each text have each hash."""
    tokens = tokenized(texts, tokenization_fn)
    encoded = columns.list_parts(tokens.drop_null())[1].dictionary_encode()
    hashes = pa.array([simple_hash(one, num_features) for one in encoded.dictionary.to_pylist()], pa.int64())
    return _counted(tokens, hashes.take(encoded.indices), num_features)


def _counted(tokens: pa.Array, places: pa.Array, width: int) -> pa.Array:
    """places: of the tokens of all texts that are not null, one after another; null for one that does not count."""
    is_valid = columns.valid(tokens)
    rows = np.arange(len(tokens)) if is_valid is None else np.flatnonzero(is_valid)
    return row_counts(rows, columns.list_parts(tokens.drop_null())[0], places, (len(tokens), width), is_valid)


def row_counts(
    rows: np.ndarray, offsets: np.ndarray, places: pa.Array, shape: tuple[int, int], is_valid: np.ndarray | None = None
) -> pa.Array:
    """A tensor of int64 for each row: how often each place below the width occurs between the row's offsets.

    rows: the number of the row that each pair of offsets is of. shape: how many rows there are, and the width.
    """
    of_row = np.repeat(rows, np.diff(offsets))
    found, known = columns.numbers(places)
    if known is not None:
        of_row, found = of_row[known], found[known]
    matrix = np.bincount(of_row * shape[1] + found, minlength=shape[0] * shape[1]).astype(np.int64, copy=False)
    return tensors.from_numbers(pa.array(matrix), shape, None if is_valid is None else ~is_valid)
