"""Imputers, discretizers, concatenators and transforms of images."""

from __future__ import annotations

import decimal
import math
import sys
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

# ---------------------------------------------------------------------------------------------------------------------
# Imputers.


@kernel_tables.checked(40)
@given(drawn=prepared.numbers())
def test_means_are_those_of_numpy_whatever_the_blocks_and_types(drawn: tuple[data.Dataset, np.ndarray]) -> None:
    ds, values = drawn
    imputer = preprocessors.SimpleImputer(["x"], output_columns=["y"]).fit(ds)
    known = values[~np.isnan(values)]
    if not len(known):
        assert imputer.stats_ == {"mean(x)": None}
        with pytest.raises(ValueError, match="the column 'x' has no fill value"):
            imputer.transform(ds)
        return
    made = imputer.transform(ds).to_arrow().column("y")
    wanted = np.where(np.isnan(values), known.mean(), values)
    np.testing.assert_allclose(made.to_pylist(), wanted, rtol=1e-6 if made.type == pa.float32() else 1e-12)
    assert made.null_count == 0


@kernel_tables.checked(40)
@given(pool=st.sampled_from(["string", "int8", "float64", "dictionary", "date", "bool", "decimal"]), draw=st.data())
def test_the_most_frequent_value_fills(pool: str, draw: st.DataObject) -> None:
    values = draw.draw(kernel_tables.columns(pool, draw.draw(st.integers(1, 12))))
    ds = prepared.in_blocks(pa.table({"x": values}), draw.draw(st.lists(st.integers(0, 12), max_size=2)))
    imputer = preprocessors.SimpleImputer(["x"], "most_frequent").fit(ds)
    rows = [None if isinstance(one, float) and math.isnan(one) else one for one in values.to_pylist()]
    known = [one for one in rows if one is not None]
    if not known:
        with pytest.raises(ValueError, match="no fill value"):
            imputer.transform(ds)
        return
    most = max(dict.fromkeys(known), key=known.count)
    assert imputer.stats_ == {"most_frequent(x)": most}
    made = imputer.transform(ds).to_arrow().column("x")
    assert made.to_pylist() == [most if one is None else one for one in rows]
    assert made.type == (pa.dictionary(pa.int32(), pa.string()) if pool == "dictionary" else values.type)


def test_a_constant_needs_no_fit_and_fills_a_column_that_is_missing() -> None:
    imputer = preprocessors.SimpleImputer(["x", "y"], "constant", 7)
    assert imputer.fit_status() == "NOT_FITTABLE"
    made = imputer.transform(prepared.dataset(x=pa.array([1, None], pa.int8()))).to_arrow()
    assert made.to_pydict() == {"x": [1, 7], "y": [7, 7]} and made.schema.field("x").type == pa.int8()
    assert {name: [*value] for name, value in imputer.transform_batch({"x": np.array([1.0, np.nan])}).items()} == {
        "x": [1.0, 7.0],
        "y": [7, 7],
    }


def test_a_constant_becomes_a_category_and_widens_integers() -> None:
    column = pa.array(["b", None, "a"]).dictionary_encode()
    made = preprocessors.SimpleImputer(["x"], "constant", "?").transform(prepared.dataset(x=column)).to_arrow()
    assert made.column("x").to_pylist() == ["b", "?", "a"]
    assert made.column("x").chunk(0).dictionary.to_pylist() == ["b", "a", "?"]
    half = preprocessors.SimpleImputer(["x"], "constant", 0.5).transform(prepared.dataset(x=[1, None]))
    assert prepared.column(half, "x") == [1.0, 0.5]
    with pytest.raises(TypeError, match=r"column 'x' has type int64, which '\?' does not go with"):
        preprocessors.SimpleImputer(["x"], "constant", "?").transform(prepared.dataset(x=[1, None]))


def test_wrong_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="strategy must be one of 'mean', 'most_frequent', 'constant', got 'median'"):
        preprocessors.SimpleImputer(["x"], "median")
    with pytest.raises(ValueError, match="needs a fill_value"):
        preprocessors.SimpleImputer(["x"], "constant")


# ---------------------------------------------------------------------------------------------------------------------
# Discretizers.


@kernel_tables.checked(60)
@given(
    values=st.lists(st.sampled_from([-5, -1, 0, 0.5, 1, 2, 3.5, 4, math.inf, None, math.nan]), min_size=1, max_size=8),
    right=st.booleans(),
    include_lowest=st.booleans(),
)
def test_bins_are_those_of_pandas_cut(values: list[Any], right: bool, include_lowest: bool) -> None:
    pd = pytest.importorskip("pandas")
    edges = [-1, 0, 1, 4]
    discretizer = preprocessors.CustomKBinsDiscretizer(["x"], edges, right=right, include_lowest=include_lowest)
    made = discretizer.transform(prepared.dataset(x=pa.array(values, pa.float64())))
    series = pd.Series(np.array(values, np.float64))
    theirs = pd.cut(series, edges, right=right, include_lowest=include_lowest, labels=False)
    assert prepared.column(made, "x") == [None if math.isnan(one) else int(one) for one in theirs]


@kernel_tables.checked(40)
@given(drawn=prepared.numbers(), count=st.integers(1, 5), right=st.booleans())
def test_uniform_bins_are_those_of_pandas_cut(drawn: tuple[data.Dataset, np.ndarray], count: int, right: bool) -> None:
    pd = pytest.importorskip("pandas")
    ds, values = drawn
    discretizer = preprocessors.UniformKBinsDiscretizer(["x"], count, right=right, output_columns=["n"])
    if np.isnan(values).all():
        with pytest.raises(ValueError, match="the column 'x' has no values to bin"):
            discretizer.fit(ds)
        return
    made = prepared.column(discretizer.fit_transform(ds), "n")
    theirs, edges = pd.cut(pd.Series(values), count, right=right, labels=False, retbins=True)
    assert made == [None if math.isnan(one) else int(one) for one in theirs]
    np.testing.assert_allclose(discretizer.stats_["x"], edges, rtol=1e-12)


def test_bins_may_have_names_and_another_dtype() -> None:
    ds = prepared.dataset(x=[0.5, 3.0, 9.0], y=[0, 1, 2])
    discretizer = preprocessors.CustomKBinsDiscretizer(
        ["x", "y"],
        {"x": [0, 1, 5], "y": [-1, 0, 1, 2]},
        dtypes={"x": preprocessors.CategoricalDtype(["low", "high"], ordered=True), "y": np.int8},
        output_columns=["a", "b"],
    )
    made = discretizer.transform(ds).to_arrow().select(["a", "b"])
    assert made.to_pydict() == {"a": ["low", "high", None], "b": [0, 1, 2]}
    assert made.schema.types == [pa.dictionary(pa.int32(), pa.string(), ordered=True), pa.int8()]


def test_wrong_bins_are_refused() -> None:
    custom, uniform = preprocessors.CustomKBinsDiscretizer, preprocessors.UniformKBinsDiscretizer
    cases: list[tuple[Any, Any, str]] = [
        (custom, 3, "see UniformKBinsDiscretizer"),
        (custom, [0, 2, 1], "must rise"),
        (custom, [0, 1, 1], "duplicates, got"),
        (custom, [0], "two edges at least"),
        (custom, {"y": [0, 1]}, "bins has none for the column 'x'"),
        (uniform, [0, 1], "see CustomKBinsDiscretizer"),
        (uniform, 0, "1 or more"),
    ]
    for kind, bins, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            kind(["x"], bins)
    assert custom(["x"], [0, 1, 1], duplicates="drop").bins == [0, 1]
    with pytest.raises(ValueError, match="has 1 categories for the column 'x', which has 2 bins"):
        custom(["x"], [0, 1, 2], dtypes={"x": ["a"]}).transform(prepared.dataset(x=[1]))
    with pytest.raises(ValueError, match="which no bins divide"):
        uniform(["x"], 2).fit(prepared.dataset(x=[1.0, math.inf]))


def test_bins_may_be_intervals_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    kind = preprocessors.CustomKBinsDiscretizer
    assert kind(["x"], pd.interval_range(0, 4, periods=2)).bins == [0, 2, 4]
    with pytest.raises(ValueError, match="without gaps"):
        kind(["x"], pd.IntervalIndex.from_tuples([(0, 1), (2, 3)]))
    with pytest.raises(ValueError, match="pass right=False"):
        kind(["x"], pd.interval_range(0, 4, periods=2, closed="left"))


# ---------------------------------------------------------------------------------------------------------------------
# Concatenators.


def test_columns_become_one_of_vectors() -> None:
    ds = prepared.dataset(a=[1, 2], b=[0.5, None], c=["x", "y"], d=[True, False])
    made = preprocessors.Concatenator(["d", "a", "b"]).transform(ds)
    assert made.columns() == ["c", "concat_out"]
    batch = made.to_numpy()
    np.testing.assert_array_equal(batch["concat_out"], [[1.0, 1.0, 0.5], [0.0, 2.0, np.nan]])
    narrow = preprocessors.Concatenator(["a", "d"], "a", np.float32).transform(ds).to_numpy()["a"]
    assert narrow.dtype == np.float32 and narrow.tolist() == [[1.0, 1.0], [2.0, 0.0]]
    whole = preprocessors.Concatenator(["a"]).transform(ds).to_numpy()["concat_out"]
    assert whole.dtype == np.int64 and whole.tolist() == [[1], [2]]


def test_vectors_and_lists_are_flattened() -> None:
    images = data.from_numpy(np.arange(8).reshape(2, 2, 2)).to_arrow().column(0)
    lists = pa.array([[1.5, None], None], pa.list_(pa.float64(), 2))
    ds = prepared.dataset(i=images, x=[10, 20], l=lists)
    made = preprocessors.Concatenator(["i", "x", "l"], flatten=True).transform(ds).to_numpy()["concat_out"]
    np.testing.assert_array_equal(made, [[0, 1, 2, 3, 10, 1.5, np.nan], [4, 5, 6, 7, 20, np.nan, np.nan]])
    with pytest.raises(TypeError, match=r"column 'i' has type .*; pass flatten=True"):
        preprocessors.Concatenator(["i", "x"]).transform(ds)


def test_lists_of_several_lengths_are_flattened() -> None:
    ds = prepared.dataset(l=[[1, 2], [3]], x=[0.5, 1.5])
    concatenator = preprocessors.Concatenator(["l", "x"], flatten=True)
    made = concatenator.transform_batch(ds.to_arrow()).column("concat_out").to_pylist()
    assert [list(one) for one in made] == [[1.0, 2.0, 0.5], [3.0, 1.5]]


def test_what_cannot_be_concatenated_says_so() -> None:
    ds = prepared.dataset(a=[1, None], s=["x", "y"])
    message = prepared.error_of(lambda: preprocessors.Concatenator(["a"]).transform(ds).to_arrow())
    assert "the column 'a' has 1 null values, and int64 has none; fill them before, or pass dtype=np.float64" in message
    with pytest.raises(TypeError, match="column 's' has type string, not numbers; encode it first"):
        preprocessors.Concatenator(["a", "s"]).transform(ds)
    with pytest.raises(KeyError, match="there is no column 'b'"):
        preprocessors.Concatenator(["b"]).transform(ds)
    with pytest.raises(ValueError, match="there is no column 'b'"):
        preprocessors.Concatenator(["b"], raise_if_missing=True).transform(ds)
    with pytest.raises(TypeError, match="dtype must be one of numbers"):
        preprocessors.Concatenator(["a"], dtype=str)


def test_decimals_are_floats() -> None:
    ds = prepared.dataset(a=pa.array([decimal.Decimal("1.25")]), b=[1])
    made = preprocessors.Concatenator(["a", "b"]).transform(ds).to_numpy()["concat_out"]
    assert made.tolist() == [[1.25, 1.0]]


# ---------------------------------------------------------------------------------------------------------------------
# Images.


def test_without_torch_an_error_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    preprocessor = preprocessors.TorchVisionPreprocessor(["image"], lambda image: image)
    with pytest.raises(ImportError, match="pip install torch"):
        preprocessor.transform_batch({"image": np.zeros((2, 3, 3))})
    with pytest.raises(TypeError, match="transform must be a callable"):
        preprocessors.TorchVisionPreprocessor(["image"], "ToTensor")  # type: ignore[arg-type]


@pytest.mark.torch
@pytest.mark.torch
def test_images_are_transformed_by_any_callable() -> None:
    import torch

    images = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    to_channels = preprocessors.TorchVisionPreprocessor(
        ["image"], lambda image: image.permute(2, 0, 1).to(torch.float32) / 255, output_columns=["tensor"]
    )
    made = to_channels.transform_batch({"image": images})
    np.testing.assert_allclose(made["tensor"], images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    assert made["image"] is images
    batched = preprocessors.TorchVisionPreprocessor(["image"], lambda image: image + 1, batched=True)
    np.testing.assert_array_equal(batched.transform_batch({"image": images})["image"], images + 1)

    def of_arrays(image: Any) -> Any:
        if not isinstance(image, np.ndarray):
            raise TypeError("an ndarray is wanted")
        return image[: int(image.max()) // 8]

    ragged = preprocessors.TorchVisionPreprocessor(["image"], of_arrays).transform_batch({"image": images})["image"]
    assert [one.shape for one in ragged] == [(1, 2, 3), (2, 2, 3)]
    wrong = preprocessors.TorchVisionPreprocessor(["image"], lambda image: "x")
    with pytest.raises(ValueError, match=r"must return a torch\.Tensor or an ndarray, it returned str"):
        wrong.transform_batch({"image": images})
