"""What all preprocessors share: chains, batches of every kind, saving, and those of users."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import prepared
import pyarrow as pa
import pytest

from umbel import data
from umbel.data import preprocessors
from umbel.data.preprocessor import Preprocessor, PreprocessorNotFittedException


def exclaimed(text: str) -> list[str]:
    return [f"{text}!"]


def made(image: Any) -> Any:
    return image


def rows() -> dict[str, Any]:
    return {
        "x": [1.0, 2.0, 4.0],
        "y": [3, 5, 7],
        "s": ["b", "a", "b"],
        "l": [["q"], ["p", "q"], []],
        "t": ["u v", "v", "v w"],
    }


EVERY = [
    preprocessors.StandardScaler(["x", "y"], ["x2", "y2"]),
    preprocessors.MinMaxScaler(["x", "y"]),
    preprocessors.MaxAbsScaler(["x"]),
    preprocessors.RobustScaler(["x"], (0.1, 0.9), quantile_precision=100),
    preprocessors.Normalizer(["x", "y"], "l1"),
    preprocessors.PowerTransformer(["x"], 0.5, "box-cox"),
    preprocessors.SimpleImputer(["s"], "most_frequent"),
    preprocessors.SimpleImputer(["s"], "constant", "?"),
    preprocessors.OrdinalEncoder(["s", "l"], encode_lists=False),
    preprocessors.OneHotEncoder(["s", "l"], max_categories={"s": 1}),
    preprocessors.MultiHotEncoder(["l"], output_columns=["h"]),
    preprocessors.LabelEncoder("s", output_column="n"),
    preprocessors.Categorizer(["s", "y"], {"y": [3, 5, 7]}),
    preprocessors.CustomKBinsDiscretizer(["x"], {"x": [0, 2.5, 5]}, dtypes={"x": ["low", "high"]}),
    preprocessors.UniformKBinsDiscretizer(["x"], 3, dtypes={"x": np.int16}),
    preprocessors.Tokenizer(["t"]),
    preprocessors.CountVectorizer(["t"], max_features=2),
    preprocessors.HashingVectorizer(["t"], 4),
    preprocessors.FeatureHasher(["x", "y"], 4, "h"),
    preprocessors.Concatenator(["y", "x"], "v", np.float32),
    preprocessors.Chain(preprocessors.StandardScaler(["x"]), preprocessors.Concatenator(["x", "y"])),
]
NAMES = [type(one).__name__ for one in EVERY]


def fitted(one: Any) -> Any:
    """A copy of it, fitted to `rows`."""
    return pickle.loads(pickle.dumps(one)).fit(prepared.dataset(**rows()))


def values(batch: Any) -> dict[str, list[Any]]:
    """Of a table, a frame or a dictionary of arrays, by column; a tensor or a list as a list."""
    columns = batch.to_pydict() if isinstance(batch, pa.Table) else {name: [*batch[name]] for name in batch}
    return {
        name: [one.tolist() if hasattr(one, "tolist") else one for one in column] for name, column in columns.items()
    }


@pytest.mark.parametrize("one", EVERY, ids=NAMES)
def test_a_batch_of_any_kind_gives_that_kind_and_what_the_dataset_gives(one: Any) -> None:
    preprocessor = fitted(one)
    ds = prepared.dataset(**rows())
    wanted = values(preprocessor.transform(ds).to_arrow())
    table = ds.to_arrow()
    assert values(preprocessor.transform_batch(table)) == wanted
    arrays = data.from_arrow(table).to_numpy()
    assert values(preprocessor.transform_batch(arrays)) == wanted
    assert values(data.from_arrow(table).to_numpy()) == values(arrays)  # which are as they were
    pandas = pytest.importorskip("pandas")
    frame = ds.to_pandas()
    frame.index = [7, 8, 9]
    result = preprocessor.transform_batch(frame)
    assert isinstance(result, pandas.DataFrame) and [*result.index] == [7, 8, 9]
    assert values(result) == wanted
    assert [*frame.columns] == table.column_names


def test_a_batch_of_polars_stays_one() -> None:
    polars = pytest.importorskip("polars")
    encoder = preprocessors.Chain(preprocessors.LabelEncoder("s"), preprocessors.Concatenator(["x", "y"], "v"))
    result = encoder.fit(prepared.dataset(**rows())).transform_batch(
        polars.DataFrame({"s": ["b"], "x": [1.0], "y": [2]})
    )
    assert isinstance(result, polars.DataFrame)
    assert result["s"].to_list() == [1] and result["v"].to_list() == [[1.0, 2.0]]


def test_what_is_no_batch_is_refused() -> None:
    scaler = fitted(EVERY[1])
    for wrong in (np.zeros(3), [1, 2], prepared.dataset(x=[1])):
        with pytest.raises(TypeError, match="a batch is a dictionary of arrays"):
            scaler.transform_batch(wrong)


def test_columns_that_are_not_read_are_left_as_they_are() -> None:
    marker = np.array([object()], object)
    batch = {"x": np.array([2.0]), "y": np.array([5]), "other": marker}
    result = fitted(EVERY[1]).transform_batch(batch)
    assert result["other"] is marker and result["x"].tolist() == [1 / 3]
    assert batch["x"].tolist() == [2.0]


@pytest.mark.parametrize("one", EVERY, ids=NAMES)
def test_what_is_saved_is_what_is_read(one: Any) -> None:
    preprocessor = fitted(one)
    text = preprocessor.serialize()
    found = Preprocessor.deserialize(text)
    assert type(found) is type(one) and repr(found) == repr(one) and found.fit_status() == preprocessor.fit_status()
    assert found.serialize() == text
    assert {name: type(value) for name, value in found.stats_.items()} == {
        name: type(value) for name, value in preprocessor.stats_.items()
    }
    ds = prepared.dataset(**rows())
    assert found.transform(ds).to_arrow().equals(preprocessor.transform(ds).to_arrow())
    assert Preprocessor.deserialize(one.serialize()).fit_status() == one.fit_status()


def test_categories_of_every_type_are_saved() -> None:
    import datetime
    import decimal

    for value in (
        datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.timezone.utc),
        datetime.date(2020, 1, 1),
        datetime.timedelta(seconds=1),
        decimal.Decimal("1.50"),
        b"\0",
        float("inf"),
        True,
    ):
        encoder = preprocessors.OrdinalEncoder(["x"]).fit(prepared.dataset(x=[value]))
        assert Preprocessor.deserialize(encoder.serialize()).stats_ == {"unique_values(x)": {value: 0}}


def test_functions_are_saved_by_name_and_passed_when_it_is_read() -> None:
    ds = prepared.dataset(t=["a"])
    vectorizer = preprocessors.CountVectorizer(["t"], exclaimed).fit(ds)
    text = vectorizer.serialize()
    name = f"{__name__}:exclaimed"
    with pytest.raises(ValueError, match=rf"calls {name}, which is not saved with it; pass it"):
        Preprocessor.deserialize(text)
    found = Preprocessor.deserialize(text, functions={name: exclaimed})
    assert prepared.column(found.transform(ds), "t") == prepared.column(vectorizer.transform(ds), "t")
    images = preprocessors.TorchVisionPreprocessor(["i"], made, ["o"], batched=True)
    again = Preprocessor.deserialize(images.serialize(), functions={f"{__name__}:made": made})
    assert again._get_serializable_fields() == images._get_serializable_fields()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: "no json", "this is not what serialize"),
        (lambda document: "[]", "this is not what serialize"),
        (lambda document: {**document, "format_version": 2}, "the format has version 2"),
        (lambda document: {**document, "version": 2}, "was saved in version 2, and here is 1"),
        (lambda document: {**document, "class": "os:system"}, "there is no preprocessor 'os:system'"),
        (lambda document: {**document, "fields": {"columns": 3}}, "damaged"),
        (lambda document: {**document, "stats": {"$": "pickle"}}, "damaged"),
    ],
)
def test_what_was_not_saved_is_refused(change: Any, message: str) -> None:
    changed = change(json.loads(fitted(EVERY[1]).serialize()))
    with pytest.raises(ValueError, match=message):
        Preprocessor.deserialize(changed if isinstance(changed, str) else json.dumps(changed))


def test_reprs_are_those_of_ray() -> None:
    assert [
        repr(preprocessors.StandardScaler(["x"])),
        repr(preprocessors.RobustScaler(["x"])),
        repr(preprocessors.OrdinalEncoder(["x"])),
        repr(preprocessors.OneHotEncoder(["x"], max_categories={"x": 2})),
        repr(preprocessors.LabelEncoder("x")),
        repr(preprocessors.Categorizer(["x"])),
        repr(preprocessors.SimpleImputer(["x"])),
        repr(preprocessors.Normalizer(["x"])),
        repr(preprocessors.PowerTransformer(["x"], 1)),
        repr(preprocessors.Tokenizer(["x"])),
        repr(preprocessors.CountVectorizer(["x"], exclaimed)),
        repr(preprocessors.FeatureHasher(["x"], 2, "h")),
        repr(preprocessors.Concatenator(["x"])),
        repr(preprocessors.Concatenator(["x"], "v", flatten=True)),
        repr(preprocessors.CustomKBinsDiscretizer(["x"], [0, 1])),
        repr(preprocessors.Chain(preprocessors.MaxAbsScaler(["x"]), preprocessors.Concatenator(["x"]))),
    ] == [
        "StandardScaler(columns=['x'], output_columns=['x'])",
        "RobustScaler(columns=['x'], quantile_range=(0.25, 0.75), output_columns=['x'])",
        "OrdinalEncoder(columns=['x'], encode_lists=True, output_columns=['x'])",
        "OneHotEncoder(columns=['x'], max_categories={'x': 2}, output_columns=['x'])",
        "LabelEncoder(label_column='x', output_column='x')",
        "Categorizer(columns=['x'], dtypes={}, output_columns=['x'])",
        "SimpleImputer(columns=['x'], strategy='mean', fill_value=None, output_columns=['x'])",
        "Normalizer(columns=['x'], norm='l2', output_columns=['x'])",
        "PowerTransformer(columns=['x'], power=1, method='yeo-johnson', output_columns=['x'])",
        "Tokenizer(columns=['x'], tokenization_fn=simple_split_tokenizer, output_columns=['x'])",
        "CountVectorizer(columns=['x'], tokenization_fn=exclaimed, max_features=None, output_columns=['x'])",
        "FeatureHasher(columns=['x'], num_features=2, output_column='h')",
        "Concatenator(columns=['x'])",
        "Concatenator(output_column_name=v, columns=['x'], flatten=True)",
        "CustomKBinsDiscretizer(columns=['x'], bins=[0, 1], right=True, include_lowest=False, duplicates='raise', dtypes=None, "
        "output_columns=['x'])",
        "Chain(MaxAbsScaler(columns=['x'], output_columns=['x']), Concatenator(columns=['x']))",
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Chains.


def test_a_chain_fits_each_to_what_those_before_it_made() -> None:
    ds = prepared.dataset(x=[0.0, None, 6.0], s=["b", "a", "b"])
    chain = preprocessors.Chain(
        preprocessors.SimpleImputer(["x"]),
        preprocessors.MinMaxScaler(["x"]),
        preprocessors.LabelEncoder("s"),
        preprocessors.Concatenator(["x", "s"], "v"),
    )
    assert chain.fit_status() == "NOT_FITTED"
    result = chain.fit_transform(ds)
    assert result.to_numpy()["v"].tolist() == [[0.0, 1.0], [0.5, 0.0], [1.0, 1.0]]
    assert chain.fit_status() == "FITTED" and chain.has_stats()
    assert chain.preprocessors[1].stats_ == {"min(x)": 0.0, "max(x)": 6.0}
    assert (chain.get_input_columns(), chain.get_output_columns()) == (["x", "s"], ["v"])
    with pytest.raises(NotImplementedError, match="the Chain has no inverse, for SimpleImputer"):
        chain.inverse_transform(result)


@pytest.mark.parametrize(
    ("members", "passes"),
    [
        ([preprocessors.StandardScaler(["x"]), preprocessors.LabelEncoder("s"), preprocessors.MaxAbsScaler(["y"])], 1),
        ([preprocessors.MinMaxScaler(["x"], ["a"]), preprocessors.UniformKBinsDiscretizer(["x"], 2)], 1),
        ([preprocessors.StandardScaler(["x"]), preprocessors.MinMaxScaler(["x"])], 2),
        (
            [
                preprocessors.StandardScaler(["x"]),
                preprocessors.Normalizer(["x", "y"]),
                preprocessors.LabelEncoder("s"),
            ],
            1,
        ),
        ([preprocessors.Normalizer(["x", "y"]), preprocessors.MaxAbsScaler(["y"])], 1),
        ([preprocessors.Chain(preprocessors.StandardScaler(["x"])), preprocessors.MinMaxScaler(["x"], ["z"])], 2),
    ],
)
def test_neighbours_that_do_not_depend_on_each_other_share_a_pass(members: list[Any], passes: int) -> None:
    members, alone = (pickle.loads(pickle.dumps(members)) for _ in range(2))
    source = {"x": [1.0, 2.0, 4.0, 5.0], "y": [3, 5, 7, 9], "s": ["b", "a", "b", "c"]}
    ds, log = prepared.counted(**source)
    chain = preprocessors.Chain(*members).fit(ds)
    assert len(log) == 2 * passes  # the source has two parts
    one_by_one = prepared.dataset(**source)
    for one in alone:
        one_by_one = one.fit_transform(one_by_one)
    assert chain.transform(prepared.dataset(**source)).to_arrow().equals(one_by_one.to_arrow())


def test_a_chain_is_undone_from_its_end() -> None:
    ds = prepared.dataset(x=[1.0, 3.0], s=["b", "a"])
    chain = preprocessors.Chain(
        preprocessors.StandardScaler(["x"]), preprocessors.MinMaxScaler(["x"]), preprocessors.LabelEncoder("s")
    )
    result = chain.fit_transform(ds)
    assert chain.inverse_transform(result).to_arrow().to_pydict() == {"x": [1.0, 3.0], "s": ["b", "a"]}
    back = chain.inverse_transform_batch({"x": np.array([1.0]), "s": np.array([0])})
    assert (back["x"].tolist(), back["s"].tolist()) == ([3.0], ["a"])


def test_a_column_that_a_member_dropped_is_gone_before_anything_runs() -> None:
    ds, log = prepared.counted(x=[1.0, 2.0], y=[1, 2])
    chain = preprocessors.Chain(preprocessors.Concatenator(["x", "y"]), preprocessors.MaxAbsScaler(["x"]))
    with pytest.raises(KeyError, match="MaxAbsScaler: there is no column 'x'"):
        chain.fit(ds)
    assert log == []


def test_a_chain_that_is_fitted_in_parts_does_not_transform() -> None:
    ds = prepared.dataset(x=[1.0])
    chain = preprocessors.Chain(
        preprocessors.MaxAbsScaler(["x"]).fit(ds), preprocessors.MinMaxScaler(["x"]), preprocessors.Normalizer(["x"])
    )
    assert chain.fit_status() == "PARTIALLY_FITTED"
    with pytest.raises(PreprocessorNotFittedException):
        chain.transform(ds)
    assert preprocessors.Chain(preprocessors.Normalizer(["x"])).fit_status() == "NOT_FITTABLE"
    for wrong in ((), ("scaler",)):
        with pytest.raises(TypeError, match="Chain"):
            preprocessors.Chain(*wrong)


# ---------------------------------------------------------------------------------------------------------------------
# Those of users.


class Centered(Preprocessor):
    def __init__(self, column: str) -> None:
        super().__init__()
        self.column = column

    def _fit(self, ds: data.Dataset) -> Centered:
        self.stats_ = {"mean": ds.mean(self.column)}
        return self

    def _transform_numpy(self, arrays: dict[str, Any]) -> dict[str, Any]:
        return {**arrays, self.column: arrays[self.column] - self.stats_["mean"]}


class Doubled(Preprocessor):
    _is_fittable = False

    def _transform_pandas(self, frame: Any) -> Any:
        frame["x"] *= 2
        return frame


def test_a_preprocessor_of_the_users_own_is_fitted_applied_chained_and_saved() -> None:
    ds = prepared.dataset(x=[1.0, 3.0])
    chain = preprocessors.Chain(preprocessors.MinMaxScaler(["x"]), Centered("x"), preprocessors.MaxAbsScaler(["y"]))
    with pytest.raises(PreprocessorNotFittedException, match="Centered"):
        Centered("x").transform_batch({"x": np.array([1.0])})
    centered = Centered("x").fit(ds)
    assert centered.transform_batch({"x": np.array([5.0])})["x"].tolist() == [3.0]
    assert centered.transform_batch(pa.table({"x": [5.0]})).to_pydict() == {"x": [3.0]}
    found = Preprocessor.deserialize(centered.serialize())
    assert isinstance(found, Centered) and vars(found) == vars(centered)
    assert chain.get_input_columns() == ["x", "y"]
    pytest.importorskip("pandas")
    assert Doubled().transform_batch({"x": np.array([2.0])})["x"].tolist() == [4.0]


def test_what_a_preprocessor_lacks_is_said() -> None:
    class Empty(Preprocessor):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty has no _fit\(ds\); write it, or set _is_fittable = False"):
        Empty().fit(prepared.dataset(x=[1]))
    unfittable = Empty()
    unfittable._is_fittable = False
    with pytest.raises(NotImplementedError, match="has none of _transform_arrow"):
        unfittable.transform(prepared.dataset(x=[1]))
