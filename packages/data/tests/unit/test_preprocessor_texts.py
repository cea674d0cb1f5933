from __future__ import annotations

import collections
import hashlib
from typing import Any

import kernel_tables
import numpy as np
import prepared
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.data import preprocessors

TEXTS = st.lists(st.one_of(st.none(), st.text("ab é", max_size=8)), max_size=8)


def letters(text: str) -> list[str]:
    return list(text)


def split(text: str) -> list[str]:
    return text.split(" ")


@kernel_tables.checked(60)
@given(texts=TEXTS, cuts=st.lists(st.integers(0, 8), max_size=2), is_large=st.booleans(), is_own=st.booleans())
def test_texts_become_counts_of_tokens(texts: list[str | None], cuts: list[int], is_large: bool, is_own: bool) -> None:
    kind = pa.large_string() if is_large else pa.string()
    ds = prepared.in_blocks(pa.table({"x": pa.array(texts, kind)}), cuts)
    function, own = (letters, letters) if is_own else (None, split)
    every = collections.Counter(token for text in texts if text is not None for token in own(text))
    for limit in (None, 2):
        vectorizer = preprocessors.CountVectorizer(["x"], function, limit).fit(ds)
        kept = dict(every.most_common(limit))
        assert vectorizer.stats_ == {"token_counts(x)": kept}
        assert [*vectorizer.stats_["token_counts(x)"]] == [*kept]
        made = prepared.column(vectorizer.transform(ds), "x")
        wanted = [None if text is None else [own(text).count(token) for token in kept] for text in texts]
        assert [None if row is None else list(row) for row in made] == wanted
    hashed = prepared.column(preprocessors.HashingVectorizer(["x"], 3, function).transform(ds), "x")
    for text, row in zip(texts, hashed, strict=True):
        if text is None:
            assert row is None
            continue
        places = collections.Counter(int(hashlib.sha256(one.encode()).hexdigest(), 16) % 3 for one in own(text))
        assert list(row) == [places[place] for place in range(3)]
    tokens = preprocessors.Tokenizer(["x"], function, output_columns=["y"])
    made = tokens.transform_batch(ds.to_arrow()).column("y").to_pylist()
    assert made == [None if text is None else own(text) for text in texts]


def test_counts_of_tokens_are_added_where_the_hashes_of_their_names_meet() -> None:
    counts = {"I": [1, 1], "like": [1, 0], "dislike": [0, 1], "Python": [1, 1]}
    made = preprocessors.FeatureHasher([*counts], 4, "hashed").transform(prepared.dataset(**counts))
    assert made.columns() == [*counts, "hashed"]
    wanted = np.zeros((2, 4), int)
    for name, column in counts.items():
        wanted[:, int(hashlib.sha256(name.encode()).hexdigest(), 16) % 4] += column
    assert made.to_numpy()["hashed"].tolist() == wanted.tolist()
    assert wanted.max() > 1  # some of them do meet


def test_the_default_tokens_are_learned_and_made_before_any_worker_starts() -> None:
    ds, log = prepared.counted(x=["a b", "b", None, ""], y=[1, 2, 3, 4])
    vectorizer = preprocessors.CountVectorizer(["x"]).fit(ds)
    assert log == [["x"], ["x"]]
    tokens = preprocessors.Tokenizer(["x"]).transform(ds)
    schema = tokens.schema(fetch_if_missing=False)
    assert schema is not None and schema.types == [pa.list_(pa.string()), pa.int64()]
    assert vectorizer.transform(ds).schema(fetch_if_missing=False) is not None


def test_two_tokenizers_of_one_column_are_not_taken_for_one() -> None:
    ds = prepared.dataset(x=["a b"])
    chain = preprocessors.Chain(
        preprocessors.CountVectorizer(["x"], output_columns=["words"]),
        preprocessors.CountVectorizer(["x"], lambda text: ["z"], output_columns=["one"]),
    ).fit(ds)
    assert [one.stats_ for one in chain.preprocessors] == [
        {"token_counts(x)": {"a": 1, "b": 1}},
        {"token_counts(x)": {"z": 1}},
    ]


def test_floats_are_hashed_with_nan_for_null_and_integers_refuse_it() -> None:
    hasher = preprocessors.FeatureHasher(["a", "b"], 1, "h")
    floats = hasher.transform(prepared.dataset(a=[0.5, None], b=[1, 2])).to_numpy()["h"]
    np.testing.assert_array_equal(floats, [[1.5], [np.nan]])
    message = prepared.error_of(lambda: hasher.transform(prepared.dataset(a=[1, None], b=[1, 2])).to_arrow())
    assert "the column 'a' has 1 null values; fill them before" in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: preprocessors.HashingVectorizer(["x"], 0), "num_features must be 1 or more, got 0"),
        (lambda: preprocessors.FeatureHasher(["x"], 1.5, "h"), "num_features must be 1 or more, got 1.5"),
        (lambda: preprocessors.CountVectorizer(["x"], max_features=-1), "max_features must be 1 or more"),
        (lambda: preprocessors.Tokenizer(["x"], "split"), "tokenization_fn must be a function"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_only_texts_have_tokens() -> None:
    ds = prepared.dataset(x=[1])
    for one in (preprocessors.Tokenizer(["x"]), preprocessors.HashingVectorizer(["x"], 2)):
        with pytest.raises(TypeError, match="the column 'x' has type int64; it must be of text"):
            one.transform(ds)
    with pytest.raises(TypeError, match="column 'x' has type int64; it must be text"):
        preprocessors.CountVectorizer(["x"]).fit(ds)
