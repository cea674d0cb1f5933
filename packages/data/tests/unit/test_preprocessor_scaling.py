from __future__ import annotations

import math
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
from umbel.data.preprocessor import PreprocessorNotFittedException

SCALERS = [
    preprocessors.StandardScaler,
    preprocessors.MinMaxScaler,
    preprocessors.MaxAbsScaler,
    preprocessors.RobustScaler,
]


def expected(scaler: Any, values: np.ndarray) -> np.ndarray:
    """In plain NumPy."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.full(len(values), np.nan)
    if isinstance(scaler, preprocessors.StandardScaler):
        shift, scale = known.mean(), known.std()
    elif isinstance(scaler, preprocessors.MinMaxScaler):
        shift, scale = known.min(), known.max() - known.min()
    elif isinstance(scaler, preprocessors.MaxAbsScaler):
        shift, scale = 0.0, np.abs(known).max()
    else:
        low, shift, high = np.quantile(known, [0.25, 0.5, 0.75])
        scale = high - low
    return (values - shift) / (scale if scale > 1e-12 else 1.0)


@pytest.mark.parametrize("kind", SCALERS)
@kernel_tables.checked(40)
@given(drawn=prepared.numbers())
def test_scalers_are_those_of_numpy_whatever_the_blocks_and_types(
    kind: Any, drawn: tuple[data.Dataset, np.ndarray]
) -> None:
    ds, values = drawn
    scaler = kind(["x"], output_columns=["y"]).fit(ds)
    scaled = scaler.transform(ds)
    np.testing.assert_allclose(prepared.floats(scaled, "y"), expected(scaler, values), rtol=1e-9, atol=1e-12)
    if not np.isnan(values).all():
        back = scaler.inverse_transform(scaled.drop_columns(["x"]))
        np.testing.assert_allclose(prepared.floats(back, "x"), values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"])
@pytest.mark.parametrize("seed", [0, 1])
def test_scalers_are_those_of_scikit_learn(name: str, seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.preprocessing")
    values = np.random.default_rng(seed).normal(7.0, 3.0, 501)
    values[::50] = np.nan
    values[1::50] *= 40
    mine = getattr(preprocessors, name)(["x"]).fit_transform(prepared.dataset(x=values))
    theirs = getattr(sklearn, name)().fit_transform(values[:, None])[:, 0]
    np.testing.assert_allclose(prepared.floats(mine, "x"), theirs, rtol=1e-9, atol=1e-12)


def test_stats_have_the_keys_of_ray() -> None:
    ds = prepared.dataset(a=[-2, 0, 2], b=[1.0, 1.0, 4.0])
    found = {type(one).__name__: one.fit(ds).stats_ for one in (kind(["a", "b"]) for kind in SCALERS)}
    assert found == {
        "StandardScaler": {
            "mean(a)": 0.0,
            "mean(b)": 2.0,
            "std(a)": pytest.approx(math.sqrt(8 / 3)),
            "std(b)": pytest.approx(math.sqrt(2)),
        },
        "MinMaxScaler": {"min(a)": -2, "min(b)": 1.0, "max(a)": 2, "max(b)": 4.0},
        "MaxAbsScaler": {"abs_max(a)": 2, "abs_max(b)": 4.0},
        "RobustScaler": {
            "low_quantile(a)": -1.0,
            "median(a)": 0.0,
            "high_quantile(a)": 1.0,
            "low_quantile(b)": 1.0,
            "median(b)": 1.0,
            "high_quantile(b)": 2.5,
        },
    }


@pytest.mark.parametrize("kind", SCALERS)
def test_all_columns_are_learned_in_one_pass_over_what_is_needed(kind: Any) -> None:
    ds, log = prepared.counted(a=[1, 2, 3, 4], b=[1.5, 2.5, 3.5, 4.5], c=["x", "y", "z", "x"])
    kind(["a", "b"]).fit(ds)
    assert [sorted(names) for names in log] == [["a", "b"], ["a", "b"]]  # of both parts once


def test_a_tiny_deviation_is_no_constant_and_what_rounding_leaves_is_one() -> None:
    tiny = np.array([1e-9, 2e-9, 3e-9])
    constant = np.full(7, 0.1)
    ds = prepared.dataset(x=tiny)
    scaled = prepared.floats(preprocessors.StandardScaler(["x"]).fit_transform(ds), "x")
    np.testing.assert_allclose(scaled, [-math.sqrt(1.5), 0, math.sqrt(1.5)])
    flat = prepared.floats(preprocessors.StandardScaler(["x"]).fit_transform(prepared.dataset(x=constant)), "x")
    np.testing.assert_allclose(flat, np.zeros(7), atol=1e-15)


def test_an_outlier_stays_one_where_the_quantiles_are_equal() -> None:
    ds = prepared.dataset(x=[5, 5, 5, 5, 5, 5, 5, 9])
    assert prepared.column(preprocessors.RobustScaler(["x"]).fit_transform(ds), "x") == [0.0] * 7 + [4.0]


@pytest.mark.parametrize("kind", SCALERS[:3])
def test_infinite_values_are_an_error_when_it_is_fitted(kind: Any) -> None:
    message = prepared.error_of(lambda: kind(["x"]).fit(prepared.dataset(x=[1.0, math.inf])))
    assert message.startswith(f"ValueError: {kind.__name__}: ")
    assert "infinite" in message and "before fit()" in message


def test_few_infinite_values_are_outliers_for_the_robust_scaler() -> None:
    values = [*map(float, range(100)), math.inf]
    scaled = prepared.column(preprocessors.RobustScaler(["x"]).fit_transform(prepared.dataset(x=values)), "x")
    assert scaled[50] == 0.0 and scaled[75] == 0.5 and scaled[-1] == math.inf


def test_a_column_without_values_becomes_null() -> None:
    ds = prepared.dataset(x=pa.nulls(2, pa.int64()))
    assert [prepared.column(kind(["x"]).fit_transform(ds), "x") for kind in SCALERS] == [[None, None]] * 4


def test_an_empty_dataset_can_be_fitted_and_transformed() -> None:
    ds = prepared.dataset(x=pa.array([], pa.int64()))
    for kind in SCALERS:
        made = kind(["x"]).fit_transform(ds).to_arrow()
        assert made.schema == pa.schema([("x", pa.float64())]) and made.num_rows == 0


def test_outputs_may_take_the_names_of_other_inputs() -> None:
    ds = prepared.dataset(a=[0, 2], b=[10, 20])
    made = preprocessors.MinMaxScaler(["a", "b"], output_columns=["b", "a"]).fit_transform(ds).to_arrow()
    assert made.to_pydict() == {"a": [0.0, 1.0], "b": [0.0, 1.0]}


def test_columns_of_no_numbers_are_refused_before_anything_runs() -> None:
    ds, log = prepared.counted(x=["1", "2"], t=pa.array([1, 2], pa.timestamp("s")))
    for kind in SCALERS:
        for name in ("x", "t"):
            with pytest.raises(TypeError, match=rf"column '{name}' has type"):
                kind([name]).fit(ds)
    scaler = preprocessors.MaxAbsScaler(["x"]).fit(prepared.dataset(x=[1.0]))
    with pytest.raises(TypeError, match="MaxAbsScaler: the column 'x' has type string; it must be of numbers"):
        scaler.transform(ds)
    assert log == []


def test_columns_that_are_not_there_are_refused_before_anything_runs() -> None:
    ds, log = prepared.counted(price=[1, 2])
    with pytest.raises(KeyError, match="StandardScaler: there is no column 'prise'; did you mean 'price'"):
        preprocessors.StandardScaler(["prise"]).fit(ds)
    scaler = preprocessors.StandardScaler(["prise"]).fit(prepared.dataset(prise=[1, 2]))
    with pytest.raises(KeyError, match="did you mean 'price'"):
        scaler.transform(ds)
    with pytest.raises(KeyError, match="did you mean 'price'"):
        scaler.transform_batch({"price": np.array([1]), "other": np.array(["a"])})
    assert log == []


def test_what_is_not_fitted_says_so() -> None:
    scaler = preprocessors.StandardScaler(["x"])
    ds = prepared.dataset(x=[1])
    assert scaler.fit_status() == scaler.FitStatus.NOT_FITTED and not scaler.has_stats()
    for call in (scaler.transform, scaler.transform_batch, scaler.inverse_transform):
        with pytest.raises(PreprocessorNotFittedException, match=r"call fit\(\) of StandardScaler before"):
            call(ds)
    assert scaler.fit(ds) is scaler
    assert scaler.fit_status() == "FITTED" and scaler.has_stats()
    assert scaler.get_input_columns() == scaler.get_output_columns() == ["x"]


def test_fitting_again_warns_and_replaces_unless_it_fails() -> None:
    scaler = preprocessors.MinMaxScaler(["x"]).fit(prepared.dataset(x=[1, 3]))
    with pytest.warns(UserWarning, match="was fitted before"):
        scaler.fit(prepared.dataset(x=[5, 7]))
    assert scaler.stats_ == {"min(x)": 5, "max(x)": 7}
    with pytest.warns(UserWarning, match="was fitted before"), pytest.raises(KeyError):
        scaler.fit(prepared.dataset(y=[0]))
    assert scaler.stats_ == {"min(x)": 5, "max(x)": 7}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": "x"}, "columns must be a list of names"),
        ({"columns": ["x", "x"]}, "columns has 'x' twice"),
        ({"columns": [1]}, "columns must be names, got 1"),
        ({"columns": ["x"], "output_columns": ["a", "b"]}, "a column for each of columns, got 2 for 1"),
        ({"columns": ["x"], "quantile_range": (0.9, 0.1)}, "quantile_range must be two quantiles"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        preprocessors.RobustScaler(**arguments)


@kernel_tables.checked(30)
@given(
    values=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=12),
    norm=st.sampled_from(["l1", "l2", "max"]),
)
def test_normalizers_are_those_of_numpy(values: list[float | None], norm: str) -> None:
    columns = {"x": pa.array(values, pa.float64()), "y": pa.array(values[::-1], pa.float64())}
    made = preprocessors.Normalizer(["x", "y"], norm, output_columns=["a", "b"]).transform(prepared.dataset(**columns))
    matrix = np.array([values, values[::-1]], np.float64)
    known = np.nan_to_num(np.abs(matrix))
    norms = {"l1": known.sum(0), "l2": np.hypot(*known), "max": known.max(0)}[norm]
    wanted = matrix / np.where(norms == 0, 1.0, norms)
    np.testing.assert_allclose([prepared.floats(made, "a"), prepared.floats(made, "b")], wanted, rtol=1e-12)
    assert made.columns() == ["x", "y", "a", "b"]


def test_a_row_of_zeros_has_no_norm_and_large_numbers_have_one() -> None:
    ds = prepared.dataset(x=[0, 3, 0], y=[0.0, 4.0, 1e200])
    made = preprocessors.Normalizer(["x", "y"]).transform(ds).to_arrow().to_pydict()
    assert made == {"x": [0.0, 0.6, 0.0], "y": [0.0, 0.8, 1.0]}
    with pytest.raises(ValueError, match="norm must be one of 'l1', 'l2', 'max', got 'l3'"):
        preprocessors.Normalizer(["x"], "l3")


@pytest.mark.parametrize("power", [-1.5, 0, 0.5, 1, 2, 3.0])
@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
def test_power_transforms_are_those_of_the_papers_and_have_inverses(power: float, method: str) -> None:
    values = np.array([0.1, 1.0, 2.5, 7.0] if method == "box-cox" else [-3.0, -0.5, 0.0, 0.1, 1.0, 7.0])
    transformer = preprocessors.PowerTransformer(["x"], power, method, output_columns=["y"])
    ds = prepared.dataset(x=pa.array([*values, None], pa.float64()))
    made = transformer.transform(ds)
    high = lambda x, p: np.log(x) if p == 0 else (x**p - 1) / p  # noqa: E731
    if method == "box-cox":
        wanted = high(values, power)
    else:
        wanted = np.where(values >= 0, high(np.abs(values) + 1, power), -high(np.abs(values) + 1, 2 - power))
    np.testing.assert_allclose(prepared.floats(made, "y"), [*wanted, np.nan], rtol=1e-9, atol=1e-12)
    back = transformer.inverse_transform(made.drop_columns("x"))
    np.testing.assert_allclose(prepared.floats(back, "x"), [*values, np.nan], rtol=1e-9, atol=1e-12)


def test_box_cox_refuses_what_it_has_no_value_for() -> None:
    transformer = preprocessors.PowerTransformer(["x"], 0.5, "box-cox")
    message = prepared.error_of(lambda: transformer.transform(prepared.dataset(x=[1.0, -2.0])).to_arrow())
    assert "needs values above 0, and the column 'x' has -2.0; use 'yeo-johnson'" in message
    with pytest.raises(ValueError, match="method must be one of"):
        preprocessors.PowerTransformer(["x"], 1, "log")
    with pytest.raises(ValueError, match="power must be a number"):
        preprocessors.PowerTransformer(["x"], math.nan)


@pytest.mark.parametrize("power", [-0.7, 1.3])
def test_power_transforms_are_those_of_scikit_learn(power: float) -> None:
    sklearn = pytest.importorskip("sklearn.preprocessing")
    values = np.random.default_rng(3).normal(0, 2, 100)
    theirs = sklearn.PowerTransformer(standardize=False).fit(values[:, None])
    theirs.lambdas_[:] = power
    made = preprocessors.PowerTransformer(["x"], power).transform(prepared.dataset(x=values))
    np.testing.assert_allclose(prepared.floats(made, "x"), theirs.transform(values[:, None])[:, 0], rtol=1e-9)
