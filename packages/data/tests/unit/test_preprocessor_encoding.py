from __future__ import annotations

import collections
import copy
import datetime
from typing import Any

import kernel_tables
import numpy as np
import prepared
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import data
from umbel.data import preprocessors

KINDS = ["int8", "string", "large_string", "bool", "decimal", "date", "timestamp", "dictionary", "binary"]


@st.composite
def categories(draw: st.DrawFn) -> tuple[data.Dataset, list[Any]]:
    """A dataset with the column "x" in blocks, none of its values null, and these values."""
    found = draw(kernel_tables.columns(draw(st.sampled_from(KINDS)), draw(st.integers(1, 12))))
    table = pa.table({"x": found}).drop_null()
    return prepared.in_blocks(table, draw(st.lists(st.integers(0, 12), max_size=2))), table.column("x").to_pylist()


@kernel_tables.checked(60)
@given(drawn=categories())
def test_encoders_number_values_in_their_order_whatever_the_blocks_and_types(
    drawn: tuple[data.Dataset, list[Any]],
) -> None:
    ds, values = drawn
    ordered = sorted(set(values))
    places = [ordered.index(value) for value in values]
    ordinal = preprocessors.OrdinalEncoder(["x"], output_columns=["n"]).fit(ds)
    assert ordinal.stats_ == {"unique_values(x)": {value: place for place, value in enumerate(ordered)}}
    encoded = ordinal.transform(ds)
    assert encoded.to_arrow().column("n").to_pylist() == places
    assert encoded.schema(fetch_if_missing=False).types[-1] == pa.int64()
    if values:
        assert prepared.column(ordinal.inverse_transform(encoded.drop_columns("x")), "x") == values
    label = preprocessors.LabelEncoder("x", output_column="n").fit_transform(ds)
    assert prepared.column(label, "n") == places
    hot = preprocessors.OneHotEncoder(["x"], output_columns=["h"]).fit_transform(ds)
    assert [list(row) for row in prepared.column(hot, "h")] == np.eye(len(ordered), dtype=int)[places].tolist()
    categorical = preprocessors.Categorizer(["x"], output_columns=["c"]).fit_transform(ds).to_arrow().column("c")
    assert categorical.to_pylist() == values
    assert all(chunk.dictionary.to_pylist() == ordered for chunk in categorical.chunks if len(chunk))


@kernel_tables.checked(40)
@given(
    rows=st.lists(st.lists(st.sampled_from("abcd"), max_size=4), max_size=8),
    cuts=st.lists(st.integers(0, 8), max_size=2),
)
def test_lists_are_encoded_by_their_values_or_whole(rows: list[list[str]], cuts: list[int]) -> None:
    table = pa.table({"x": pa.array(rows, pa.list_(pa.string()))})
    ds = prepared.in_blocks(table, cuts)
    tokens = sorted({token for row in rows for token in row})
    inner = preprocessors.OrdinalEncoder(["x"]).fit(ds)
    assert prepared.column(inner.transform(ds), "x") == [[tokens.index(token) for token in row] for row in rows]
    if tokens:
        assert prepared.column(inner.inverse_transform(inner.transform(ds)), "x") == rows
    multi = preprocessors.MultiHotEncoder(["x"]).fit_transform(ds)
    wanted = [[collections.Counter(row)[token] for token in tokens] for row in rows]
    assert [list(row) for row in prepared.column(multi, "x")] == wanted
    whole = sorted({tuple(row) for row in rows})
    outer = preprocessors.OrdinalEncoder(["x"], encode_lists=False).fit(ds)
    assert outer.stats_ == {"unique_values(x)": {value: place for place, value in enumerate(whole)}}
    places = [whole.index(tuple(row)) for row in rows]
    assert prepared.column(outer.transform(ds), "x") == places
    hot = preprocessors.OneHotEncoder(["x"]).fit_transform(ds)
    assert [list(row) for row in prepared.column(hot, "x")] == np.eye(len(whole), dtype=int)[places].tolist()


def test_the_most_frequent_categories_count_over_all_blocks() -> None:
    blocks = [["a"] * 5 + ["b"] * 3 + ["z"], ["b"] * 3 + ["c"] * 4, ["c"]]
    ds = data.from_blocks([pa.table({"x": one}) for one in blocks])
    encoder = preprocessors.OneHotEncoder(["x"], max_categories={"x": 2}).fit(ds)
    assert encoder.stats_ == {"unique_values(x)": {"a": 0, "b": 1}}  # a and c are equally frequent, and a is the first
    made = encoder.transform_batch({"x": np.array(["b", "c", "a", "new"])})["x"]
    assert made.dtype == np.uint8 and made.tolist() == [[0, 1], [0, 0], [1, 0], [0, 0]]
    multi = preprocessors.MultiHotEncoder(["x"], max_categories={"x": 1})
    lists = prepared.dataset(x=[["a", "b"], ["b", "b"], []])
    assert [list(row) for row in prepared.column(multi.fit_transform(lists), "x")] == [[1], [2], [0]]


def test_what_was_not_there_when_it_was_fitted_has_no_number() -> None:
    ds = prepared.dataset(x=["b", "a"])
    new = prepared.dataset(x=["c", "a"])
    assert prepared.column(preprocessors.OrdinalEncoder(["x"]).fit(ds).transform(new), "x") == [None, 0]
    assert prepared.column(preprocessors.LabelEncoder("x").fit(ds).transform(new), "x") == [None, 0]
    assert prepared.column(preprocessors.Categorizer(["x"]).fit(ds).transform(new), "x") == [None, "a"]
    lists = preprocessors.OrdinalEncoder(["x"]).fit(prepared.dataset(x=[["b", "a"]]))
    assert prepared.column(lists.transform(prepared.dataset(x=[["c", "a"]])), "x") == [[None, 0]]


REFUSING = [
    preprocessors.OrdinalEncoder(["x"]),
    preprocessors.OneHotEncoder(["x"]),
    preprocessors.MultiHotEncoder(["x"]),
    preprocessors.LabelEncoder("x"),
]


@pytest.mark.parametrize("encoder", REFUSING, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("values", [["a", None], [1.0, None], [1.0, float("nan")], [None, None]], ids=str)
def test_missing_values_are_an_error_when_it_is_fitted_and_when_it_transforms(encoder: Any, values: list[Any]) -> None:
    column = pa.array(values)
    message = prepared.error_of(lambda: copy.deepcopy(encoder).fit(prepared.dataset(x=column)))
    assert message.startswith(f"ValueError: {type(encoder).__name__}: the column 'x' has null values; fill them before")
    fitted = copy.deepcopy(encoder).fit(prepared.dataset(x=["a"] if values[0] in ("a", None) else [1.0]))
    message = prepared.error_of(lambda: fitted.transform(prepared.dataset(x=column)).to_arrow())
    assert f"the column 'x' has {2 if values[0] is None else 1} null values among 2; fill them before" in message


def test_a_missing_value_within_a_list_is_an_error_where_lists_are_encoded_by_their_values() -> None:
    ds = prepared.dataset(x=[["a", None]])
    for encoder in (preprocessors.OrdinalEncoder(["x"]), preprocessors.MultiHotEncoder(["x"])):
        with pytest.raises(ValueError, match="the column 'x' has null values"):
            encoder.fit(ds)
    assert preprocessors.OneHotEncoder(["x"]).fit(ds).stats_ == {"unique_values(x)": {("a", None): 0}}


def test_a_null_list_counts_for_nothing_when_it_is_fitted() -> None:
    ds = prepared.dataset(x=pa.array([["b"], None, ["a"]], pa.list_(pa.string())))
    assert preprocessors.MultiHotEncoder(["x"]).fit(ds).stats_ == {"unique_values(x)": {"a": 0, "b": 1}}


def test_a_categorizer_leaves_nulls_and_takes_categories_that_are_known() -> None:
    ds = prepared.dataset(x=["b", None, "a"], y=["L4", "L3", "L9"], z=[3, 1, 3])
    categorizer = preprocessors.Categorizer(
        ["x", "y", "z"], {"y": preprocessors.CategoricalDtype(["L3", "L4"], ordered=True), "z": [1, 2, 3]}
    )
    made = categorizer.fit_transform(ds).to_arrow()
    assert made.to_pydict() == {"x": ["b", None, "a"], "y": ["L4", "L3", None], "z": [3, 1, 3]}
    assert made.schema.field("y").type == pa.dictionary(pa.int32(), pa.string(), ordered=True)
    assert made.column("z").chunk(0).dictionary.to_pylist() == [1, 2, 3]
    assert categorizer.stats_["x"] == preprocessors.CategoricalDtype(["a", "b"])


def test_a_categorizer_speaks_pandas() -> None:
    pd = pytest.importorskip("pandas")
    dtype = pd.CategoricalDtype(["L3", "L4"], ordered=True)
    categorizer = preprocessors.Categorizer(["x"], {"x": dtype}).fit(prepared.dataset(x=["L3"]))
    assert categorizer.stats_ == {"x": dtype}
    made = categorizer.transform_batch(pd.DataFrame({"x": ["L4", "L5"]}))
    assert made["x"].dtype == dtype and made["x"].isna().tolist() == [False, True]


def test_columns_of_another_type_than_when_it_was_fitted() -> None:
    encoder = preprocessors.OrdinalEncoder(["x"]).fit(prepared.dataset(x=pa.array([3, 1], pa.int64())))
    for kind in (pa.int8(), pa.uint64(), pa.float64(), pa.decimal128(21, 2)):
        assert prepared.column(encoder.transform(prepared.dataset(x=pa.array([1, 2, 3]).cast(kind))), "x") == [
            0,
            None,
            1,
        ]
    with pytest.raises(
        TypeError, match="OrdinalEncoder: the column 'x' was int64 when it was fitted, and is string; cast"
    ):
        encoder.transform(prepared.dataset(x=["1"]))
    text = preprocessors.OrdinalEncoder(["x"]).fit(prepared.dataset(x=["b", "a"]))
    for kind in (pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        assert prepared.column(text.transform(prepared.dataset(x=pa.array(["a", "b"]).cast(kind))), "x") == [0, 1]
    halves = preprocessors.OrdinalEncoder(["x"]).fit(prepared.dataset(x=[0.5, 1.0]))
    assert prepared.column(halves.transform(prepared.dataset(x=[0, 1])), "x") == [None, 1]
    days = preprocessors.LabelEncoder("x").fit(prepared.dataset(x=[datetime.date(2020, 1, 1)]))
    with pytest.raises(TypeError, match="was date32"):
        days.transform(prepared.dataset(x=[1]))


def test_both_zeros_are_one_category() -> None:
    ds = prepared.dataset(x=[0.0, -0.0, 1.0])
    assert prepared.column(preprocessors.OrdinalEncoder(["x"]).fit_transform(ds), "x") == [0, 0, 1]


def test_an_empty_dataset_has_no_categories() -> None:
    ds = prepared.dataset(x=pa.array([], pa.string()))
    new = prepared.dataset(x=["a"])
    assert prepared.column(preprocessors.OrdinalEncoder(["x"]).fit(ds).transform(new), "x") == [None]
    hot = preprocessors.OneHotEncoder(["x"]).fit(ds)
    assert [len(row) for row in prepared.column(hot.transform(new), "x")] == [0]
    assert hot.transform(ds).to_arrow().num_rows == 0


def test_the_inverse_refuses_what_is_no_number_of_a_category() -> None:
    encoder = preprocessors.LabelEncoder("x").fit(prepared.dataset(x=["b", "a"]))
    assert encoder.inverse_transform_batch({"x": np.array([1.0, np.nan, 0.0])})["x"].tolist() == ["b", None, "a"]
    assert "has values from 0 to 2, and the categories have numbers from 0 to 1" in prepared.error_of(
        lambda: encoder.inverse_transform_batch({"x": np.array([0, 2])})
    )
    assert "no number of a category" in prepared.error_of(
        lambda: encoder.inverse_transform_batch({"x": np.array([0.5])})
    )
    with pytest.raises(TypeError, match="the inverse needs the numbers of categories"):
        encoder.inverse_transform_batch({"x": np.array(["a"])})


def test_what_has_no_inverse_says_so() -> None:
    encoder = preprocessors.OneHotEncoder(["x"]).fit(prepared.dataset(x=["a"]))
    with pytest.raises(NotImplementedError, match="OneHotEncoder has no inverse"):
        encoder.inverse_transform(prepared.dataset(x=["a"]))


def test_values_without_an_order_are_refused() -> None:
    ds = prepared.dataset(x=pa.array([{"a": 1}, {"a": 2}]))
    with pytest.raises(TypeError):
        preprocessors.OrdinalEncoder(["x"]).fit(ds)


@pytest.mark.parametrize("maximums", [{"y": 1}, {"x": 0}])
def test_wrong_maximums_are_refused(maximums: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_categories"):
        preprocessors.OneHotEncoder(["x"], max_categories=maximums)


def test_encoders_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.preprocessing")
    values = np.random.default_rng(0).choice(["red", "green", "blue", "grey"], 200)
    ds = prepared.dataset(x=values)
    theirs = sklearn.OrdinalEncoder().fit_transform(values[:, None])[:, 0]
    assert prepared.column(preprocessors.OrdinalEncoder(["x"]).fit_transform(ds), "x") == theirs.tolist()
    hot = sklearn.OneHotEncoder(sparse_output=False).fit_transform(values[:, None])
    made = preprocessors.OneHotEncoder(["x"]).fit_transform(ds).to_numpy()["x"]
    np.testing.assert_array_equal(made, hot)
