"""Names, defaults and options as programs for Ray Data use them, and what is said of those that are not there."""

from __future__ import annotations

import ast
import importlib
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from umbel import data, exceptions
from umbel.data import (
    aggregate,
    block,
    collate_fn,
    context,
    datasink,
    datasource,
    datatype,
    expressions,
    grouped_data,
    window,
)
from umbel.data import exceptions as data_exceptions
from umbel.data._api import absent
from umbel.data._blocks import grouping
from umbel.data._engine import stages
from umbel.data._plan import logical, physical
from umbel.data.expressions import col

ROWS = [{"id": 0, "k": "a", "x": 1.0}, {"id": 1, "k": "b", "x": 2.0}, {"id": 2, "k": "a", "x": 4.0}]


def rows_of(ds: data.Dataset) -> list[dict[str, Any]]:
    return ds.take_all()


# ---- default names of columns ----


def test_columns_are_called_as_programs_expect(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    np.save(tmp_path / "a.npy", np.arange(2))
    text = str(tmp_path / "a.txt")
    found = {
        "range": data.range(2),
        "range_tensor": data.range_tensor(2),
        "from_items": data.from_items([1]),
        "from_numpy": data.from_numpy(np.arange(2)),
        "read_numpy": data.read_numpy(str(tmp_path / "a.npy")),
        "read_text": data.read_text(text, include_paths=True),
        "read_binary_files": data.read_binary_files(text),
    }
    assert {name: ds.columns() for name, ds in found.items()} == {
        "range": ["id"],
        "range_tensor": ["data"],
        "from_items": ["item"],
        "from_numpy": ["data"],
        "read_numpy": ["data"],
        "read_text": ["text", "path"],
        "read_binary_files": ["bytes"],
    }
    grouped = data.from_items(ROWS).groupby("k")
    every = [aggregate.Count(), aggregate.Sum("x"), aggregate.Sum("x"), aggregate.Mean("x", alias_name="m")]
    assert rows_of(grouped.aggregate(*every)) == [
        {"k": "a", "count()": 2, "sum(x)": 5.0, "sum(x)_2": 5.0, "m": 2.5},
        {"k": "b", "count()": 1, "sum(x)": 2.0, "sum(x)_2": 2.0, "m": 2.0},
    ]


def test_names_have_the_homes_that_imports_expect() -> None:
    for name in ("Datasink", "FilenameProvider", "SaveMode", "BlockBasedFileDatasink", "RowBasedFileDatasink"):
        assert getattr(datasource, name) is getattr(datasink, name) is getattr(data, name)
    assert data.RandomSeedConfig is context.RandomSeedConfig
    assert data.DataType is datatype.DataType
    assert grouped_data.GroupedData is data.GroupedData
    for module in (
        data,
        aggregate,
        block,
        collate_fn,
        datasink,
        datasource,
        data_exceptions,
        datatype,
        expressions,
        window,
    ):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
        assert len(set(module.__all__)) == len(module.__all__)


def test_what_comes_with_its_first_use_is_what_type_checkers_see() -> None:
    tree = ast.parse(pathlib.Path(str(data.__file__)).read_text())
    (declared,) = (one for one in tree.body if isinstance(one, ast.If) and one.orelse == [] and len(one.body) > 5)
    seen = {alias.name: one.module for one in declared.body if isinstance(one, ast.ImportFrom) for alias in one.names}
    assert sorted(seen) == data.__all__
    for name, module in seen.items():
        assert getattr(data, name) is getattr(importlib.import_module(str(module)), name)
    program = (
        "import umbel.data as data, sys; print('pyarrow' in sys.modules, data.window.__name__, 'range' in dir(data))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False umbel.data.window True\n"


# ---- types ----


def test_types_of_three_libraries() -> None:
    of = datatype.DataType
    made = {
        "int8": of.int8(),
        "uint64": of.uint64(),
        "string": of.string(),
        "list": of.list(of.bool()),
        "fixed": of.fixed_size_list(of.float32(), 3),
        "struct": of.struct([("a", of.int64()), ("b", of.from_numpy("float32"))]),
        "map": of.map(of.string(), of(int)),
        "tensor": of.tensor((2, 3), of.uint8()),
        "time": of.temporal("timestamp", "ms", "UTC"),
        "date": of.temporal("date32"),
        "numpy": of.from_numpy("int16"),
        "python": of(str),
        "named": of.from_dtype("int32"),
        "seen": of.infer_dtype([1.5]),
    }
    assert {name: one.to_arrow_dtype() for name, one in made.items()} == {
        "int8": pa.int8(),
        "uint64": pa.uint64(),
        "string": pa.string(),
        "list": pa.list_(pa.bool_()),
        "fixed": pa.list_(pa.float32(), 3),
        "struct": pa.struct([("a", pa.int64()), ("b", pa.float32())]),
        "map": pa.map_(pa.string(), pa.int64()),
        "tensor": pa.fixed_shape_tensor(pa.uint8(), (2, 3)),
        "time": pa.timestamp("ms", "UTC"),
        "date": pa.date32(),
        "numpy": pa.int16(),
        "python": pa.string(),
        "named": pa.int32(),
        "seen": pa.list_(pa.float64()),
    }
    assert (
        repr([made["int8"], made["numpy"], made["python"]])
        == "[DataType(arrow:int8), DataType(numpy:int16), DataType(python:str)]"
    )
    assert made["int8"] == of.from_arrow(pa.int8()) != of.from_numpy("int8")
    assert len({of.int8(), of.int8(), of(int)}) == 2
    assert made["numpy"].to_numpy_dtype() == of.int16().to_numpy_dtype() == np.dtype("int16")
    assert made["python"].to_python_type() is str
    assert of(list).to_arrow_dtype([[1], [2]]) == pa.list_(pa.int64())
    with pytest.raises(ValueError, match="not a class of Python's"):
        of.int8().to_python_type()
    with pytest.raises(TypeError, match="got 'int8'"):
        of("int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temporal_type must be one of timestamp"):
        of.temporal("year")


def test_what_types_are() -> None:
    of, category = datatype.DataType, datatype.TypeCategory
    listed = of.list(of.string())
    assert (listed.is_list_type(), listed.is_nested_type(), listed.is_string_type()) == (True, True, False)
    assert [of.temporal("duration").is_of(one) for one in category] == [False] * 5 + [True]
    assert of.tensor((2,), of.int8()).is_of("tensor")
    assert of.variable_shaped_tensor(of.int8(), 2).is_tensor_type()
    assert [of(int).is_integer_type(), of(float).is_floating_type(), of(bool).is_boolean_type()] == [True] * 3
    assert not of(object).is_integer_type()
    assert of.uint64().is_uint64_type()
    assert of.infer_dtype(None).is_null_type()
    assert of.binary().is_binary_type()
    assert [of.int8().is_arrow_type(), of(int).is_python_type(), of.from_numpy("int8").is_numpy_type()] == [True] * 3


def test_types_are_taken_where_types_are_asked_for() -> None:
    @expressions.udf(return_dtype=data.DataType.float32())
    def halved(x: pa.Array) -> pa.Array:
        return pc.divide(x, 2.0)

    ds = data.from_items(ROWS).select_columns(
        [halved(col("x")).alias("h"), col("id").cast(data.DataType.int8()).alias("id")]
    )
    assert ds.to_arrow().equals(
        pa.table({"h": pa.array([0.5, 1, 2], pa.float32()), "id": pa.array([0, 1, 2], pa.int8())})
    )


# ---- expressions ----


def test_what_an_expression_makes_is_known_before_it_runs() -> None:
    schema = pa.schema([pa.field("a", pa.int8(), nullable=False), ("b", pa.float32())])
    assert (col("a") + 1).get_type(schema) == pa.int64()
    assert (col("a") * col("b")).alias("c").to_field(schema) == pa.field("c", pa.float64())
    assert (col("a").nullable(schema), col("b").nullable(schema)) == (False, True)
    table = pa.table({"a": pa.array([1, 5], pa.int8())})
    assert table.filter((col("a") > 3).to_pyarrow(table.schema)).to_pydict() == {"a": [5]}
    assert (col("a") + col("b") > 3).to_pyarrow(schema) is None
    with pytest.raises(KeyError, match="c"):
        col("c").get_type(schema)


def test_fields_of_a_struct_become_columns() -> None:
    calls = []

    @expressions.udf(return_dtype=pa.struct([("low", pa.int64()), ("high", pa.int64())]))
    def bounds(x: pa.Array) -> pa.Array:
        calls.append(len(x))
        return pa.StructArray.from_arrays([x, pc.add(x, 1)], ["low", "high"])

    ds = data.from_items([{"a": 1, "low": 0}, {"a": 2, "low": 0}])
    found = ds.with_columns({"twice": col("a") * 2}, expressions.unnest(bounds(col("a"))))
    assert rows_of(found) == [{"a": 1, "low": 1, "twice": 2, "high": 2}, {"a": 2, "low": 2, "twice": 4, "high": 3}]
    assert calls.count(2) == 1
    nested = data.from_items([{"s": {"p": 1, "q": "x"}}, {"s": None}])
    assert rows_of(nested.with_columns(expressions.unnest(col("s")))) == [
        {"s": {"p": 1, "q": "x"}, "p": 1, "q": "x"},
        {"s": None, "p": None, "q": None},
    ]
    with pytest.raises(TypeError, match="fields of a struct; col\\('a'\\) is int64"):
        ds.with_columns(expressions.unnest(col("a")))
    with pytest.raises(TypeError, match=r"unnest\(\) takes an expression"):
        expressions.unnest("a")  # type: ignore[arg-type]


def test_files_that_rows_name_are_downloaded(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b.gz"):
        (tmp_path / name).write_bytes(name.encode())
    uris = [str(tmp_path / "a"), (tmp_path / "b.gz").as_uri(), None]
    ds = data.from_items([{"uri": one} for one in uris])
    found = ds.with_column("bytes", expressions.download("uri"))
    assert [row["bytes"] for row in rows_of(found)] == [b"a", b"b.gz", None]
    assert found.schema() == data.Schema(pa.schema([("uri", pa.string()), ("bytes", pa.binary())]))
    missing = data.from_items([{"uri": str(tmp_path / "c")}]).with_column("bytes", expressions.download("uri"))
    with pytest.raises(FileNotFoundError, match="c"):
        missing.take_all()


def test_windows_are_columns_among_others() -> None:
    rows = [{"k": "a", "t": 2, "x": 3}, {"k": "b", "t": 1, "x": 5}, {"k": "a", "t": 1, "x": 1}]
    ds = data.from_items(rows)
    found = ds.with_columns(
        {
            "before": window.lag("x").over("k", order_by="t"),
            "x": col("x") * 10,
            "doubled": window.sum(col("x") * 2).over("k"),
            "all": window.count().over(),
        }
    )
    assert sorted(rows_of(found), key=lambda row: (row["k"], row["t"])) == [
        {"k": "a", "t": 1, "x": 10, "before": None, "doubled": 8, "all": 3},
        {"k": "a", "t": 2, "x": 30, "before": 1, "doubled": 8, "all": 3},
        {"k": "b", "t": 1, "x": 50, "before": None, "doubled": 10, "all": 3},
    ]
    assert found.columns() == ["k", "t", "x", "before", "doubled", "all"]
    one = ds.with_column("n", window.row_number().over(order_by="t", descending=True))
    assert sorted((row["t"], row["n"]) for row in rows_of(one)) == [(1, 2), (1, 3), (2, 1)]
    assert rows_of(ds.window({"m": window.max(col("x"))}))[0]["m"] == 5
    with pytest.raises(TypeError, match=r"takes names of columns, got .*use with_column\('m'"):
        ds.window({"m": window.max(col("x") * 2)})
    assert repr(window.lag("x").over("k")) == "lag('x').over(partition_by='k', order_by=None, descending=False)"


# ---- aggregations ----


class _Squares(aggregate.VectorizedAggregateFnV2):
    """The sum of squares, and how many accumulators were joined at once."""

    def __init__(self, on: str, *, ignore_nulls: bool = True) -> None:
        super().__init__(f"squares({on})", lambda: 0, on=on, ignore_nulls=ignore_nulls)

    def aggregate_block(self, block: pa.Table) -> Any:
        values = block[self.on or ""]
        if values.null_count == len(values) or (values.null_count and not self.ignore_nulls):
            return None
        return {"sum": pc.sum(pc.multiply(values, values)).as_py(), "joined": 1}

    def _combine_column(self, accumulator_col: pa.ChunkedArray) -> Any:
        return {"sum": sum(one["sum"] for one in accumulator_col.to_pylist()), "joined": len(accumulator_col)}

    def finalize(self, accumulator: Any) -> Any:
        return [accumulator["sum"], accumulator["joined"]]


def test_accumulators_are_joined_as_a_column() -> None:
    table = pa.table({"k": ["a", "b", "a", "c", "a"], "x": [1, 2, 3, None, 5]})

    def found(keys: list[str], made: aggregate.AggregateFnV2) -> list[dict[str, Any]]:
        how = grouping.Grouping(keys, [made])
        partials = [how.partial(table.slice(at, 1)) for at in range(table.num_rows)]
        return how.finish(how.combine(partials)).to_pylist()

    assert found(["k"], _Squares("x")) == [
        {"k": "a", "squares(x)": [35, 3]},
        {"k": "b", "squares(x)": [4, 1]},
        {"k": "c", "squares(x)": None},
    ]
    assert found([], _Squares("x")) == [{"squares(x)": [39, 4]}]
    assert found([], _Squares("x", ignore_nulls=False)) == [{"squares(x)": None}]
    with pytest.raises(NotImplementedError, match="joins accumulators by _combine_column"):
        _Squares("x").combine(1, 2)


def test_summary_takes_other_aggregations_for_a_type() -> None:
    overrides = {data.DataType.int64(): lambda name: [aggregate.Sum(name), aggregate.Quantile(name, alias_name="half")]}
    summary = data.from_items(ROWS).summary(override_dtype_agg_mapping=overrides)
    assert summary.get_column_stats("id") == {"sum": 3, "half": 1.0}
    assert summary.get_column_stats("k") == {"count": 3, "missing_pct": 0.0, "min": "a", "max": "b"}
    assert repr(summary).splitlines()[0].split() == [
        *("column", "count", "missing_pct", "mean", "std", "zero_pct", "min", "max", "sum", "half")
    ]


def test_the_sum_of_one_column_is_a_value() -> None:
    ds = data.from_items(ROWS)
    assert [ds.sum("x"), ds.sum(["x"]), data.range(4).sum(), data.range(4).mean()] == [7.0, 7.0, 6, 1.5]
    assert ds.max(["id", "x"]) == {"max(id)": 2, "max(x)": 4.0}


# ---- mixing, seeds ----


def test_mix_goes_on_to_the_longest_unless_told_otherwise() -> None:
    long, short = data.range(5000), data.range(1).with_column("id", col("id") - 1)
    assert sorted(row["id"] for row in rows_of(long.mix(short))) == list(range(-1, 5000))
    stop = data.MixStoppingCondition
    for condition in (stop.STOP_ON_SHORTEST, "shortest", "SHORTEST", "stop_on_shortest"):
        assert long.mix(short, stopping_condition=condition).count() < 2048
    with pytest.raises(ValueError, match="'shortest' or 'longest_drop', got 'soon'"):
        long.mix(short, stopping_condition="soon")


def test_a_seed_may_be_another_in_each_run() -> None:
    ds = data.range(50, override_num_blocks=5)
    for draw in (ds.random_shuffle, ds.randomize_block_order, lambda seed: ds.random_sample(0.5, seed=seed)):
        again = draw(seed=data.RandomSeedConfig(seed=7))
        runs = [[row["id"] for row in again.iter_rows()] for _ in range(2)]
        assert runs[0] != runs[1]
        assert runs == [[row["id"] for row in again.copy().iter_rows()], runs[1]]
        same = draw(seed=data.RandomSeedConfig(seed=7, reseed_after_execution=False))
        assert rows_of(same) == rows_of(same) == rows_of(draw(seed=7))
    with pytest.raises(TypeError, match="seed must be an integer, a RandomSeedConfig or None, got 'x'"):
        ds.random_shuffle(seed="x")  # type: ignore[arg-type]


# ---- options of operators ----


def test_slips_are_told_with_what_is_meant() -> None:
    with pytest.raises(TypeError, match=r"tasks have no option 'batchsize', .*; batchsize is perhaps batch_size$"):
        data.range(1).map_batches(dict, batchsize=3)
    with pytest.raises(TypeError, match="the number of rows must be an integer, got '3'"):
        data.range("3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="from_items takes a list of rows or values, got 5"):
        data.from_items(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 'asof'; that is join_asof\(\)"):
        data.range(1).join(data.range(1), "asof")


def test_columns_take_options_of_tasks() -> None:
    ds = data.from_items(ROWS)
    made = ds.with_column("y", col("id") + 1, num_cpus=0.5, compute=data.TaskPoolStrategy(2), label_selector=None)
    assert isinstance(made._node, logical.Project)
    assert made._node.means == logical.Means(stages.TaskPool(2), stages.Resources(num_cpus=0.5))
    stage = physical.stage_of(made._node, physical.Sizes())
    assert isinstance(stage, stages.Map)
    assert (stage.resources, stage.is_kernel) == (stages.Resources(num_cpus=0.5), False)
    assert ds.select_columns(["id"], concurrency=3)._node.means.compute == stages.TaskPool(3)  # type: ignore[attr-defined]
    assert ds.drop_columns(["id", "k"], num_cpus=1, concurrency=2).columns() == ["x"]
    assert ds.rename_columns({"id": "i"}, num_gpus=1).columns() == ["i", "k", "x"]
    with pytest.raises(TypeError, match="tasks have no option 'num_cpu'"):
        ds.drop_columns(["id"], num_cpu=1)
    with pytest.raises(TypeError, match="no option ray_remote_args_fn: all tasks"):
        ds.map(lambda row: row, ray_remote_args_fn=dict)
    with pytest.raises(TypeError, match="actors have no option 'max_calls'"):
        ds.map(_Same, max_calls=1)


class _Same:
    def __call__(self, row: Any) -> Any:
        return row


def test_groups_take_options_and_say_which_do_nothing() -> None:
    grouped = data.from_items(ROWS).groupby("k")
    with pytest.warns(UserWarning, match="leave out compute and concurrency"):
        found = grouped.map_groups(_Same, zero_copy_batch=False, concurrency=2, num_cpus=2)
    node = found._node
    assert isinstance(node, logical.MapGroups)
    assert (node.zero_copy, node.means.resources) == (False, stages.Resources(num_cpus=2))
    with pytest.raises(ValueError, match="batch_format must be one of"):
        grouped.map_groups(_Same, batch_format="cudf")


# ---- settings ----


def test_settings_of_rays_are_taken_where_they_mean_nothing() -> None:
    made = context.DataContext()
    with pytest.warns(UserWarning, match="use_ray_tqdm has no effect: enable_progress_bars"):
        made.use_ray_tqdm = False
    made.max_errored_blocks = 0  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no setting max_errored_blocks: give the operator on_error="):
        made.max_errored_blocks = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no setting 'target_max_blocksize'; did you mean target_max_block_size"):
        made.target_max_blocksize = 3  # type: ignore[attr-defined]
    made.set_config("mine", [1])
    other = made.copy()
    other.set_config("theirs", 2)
    assert (made.get_config("mine"), made.get_config("theirs", 0), other.get_config("theirs")) == ([1], 0, 2)
    made.remove_config("mine")
    made.remove_config("mine")
    assert made.get_config("mine") is None
    assert other.get_config("mine") == [1]


def test_options_of_a_run() -> None:
    limits = data.ExecutionResources.for_limits(cpu=2, object_store_memory=1 << 30)
    assert limits.by_name() == {"CPU": 2, "object_store_memory": 1 << 30}
    options = data.ExecutionOptions(resource_limits=None, exclude_resources=limits)  # type: ignore[arg-type]
    assert options.resource_limits == data.ExecutionResources.inf()
    assert options.preserve_order


# ---- what is handed on ----


def test_a_plan_is_taken_elsewhere_as_bytes() -> None:
    ds = data.range(4).filter(expr="id > 1").with_column("y", col("id") * 2)
    ds.set_name("mine")
    assert ds.has_serializable_lineage()
    again = data.Dataset.deserialize_lineage(ds.serialize_lineage())
    assert (again.name, rows_of(again)) == ("mine", [{"id": 2, "y": 4}, {"id": 3, "y": 6}])
    assert rows_of(data.Dataset.deserialize_lineage(data.from_items(ROWS).serialize_lineage())) == ROWS
    assert rows_of(ds.copy()) == rows_of(data.range(9).copy(ds)) == rows_of(ds)
    assert ds.get_dataset_id() == ds.get_dataset_id() != again.get_dataset_id()
    assert ds.get_dataset_id().startswith("mine_")


def test_blocks_of_frames_and_dictionaries() -> None:
    found = block.BlockAccessor.for_block({"a": np.arange(3), "b": ["x", "y", "z"]})
    assert (found.num_rows(), found.schema().names, found.size_bytes() > 0) == (3, ["a", "b"], True)
    assert found.to_arrow().equals(pa.table({"a": [0, 1, 2], "b": ["x", "y", "z"]}))
    assert found.to_numpy("a").tolist() == [0, 1, 2]
    assert {name: array.tolist() for name, array in found.to_numpy(["b"]).items()} == {"b": ["x", "y", "z"]}
    assert found.slice(1, 2).to_pydict() == found.take([1]).to_pydict() == {"a": [1], "b": ["y"]}
    assert list(found.iter_rows(public_row_format=True))[2] == {"a": 2, "b": "z"}
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1]})
    assert block.BlockAccessor.for_block(frame).to_pandas().equals(frame)


class _Frames(datasource.FileBasedDatasource):
    def _read_stream(self, f: pa.NativeFile, path: str) -> Any:
        import pandas as pd

        yield pd.DataFrame({"text": [f.read().decode()]})


def test_readers_may_give_frames(tmp_path: pathlib.Path) -> None:
    pd = pytest.importorskip("pandas")

    class Source(datasource.Datasource):
        def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[datasource.ReadTask]:
            known = block.BlockMetadata(num_rows=2, size_bytes=16)
            return [datasource.ReadTask(lambda: [pd.DataFrame({"a": [1, 2]})], known, None, per_task_row_limit)]

    assert rows_of(data.read_datasource(Source())) == [{"a": 1}, {"a": 2}]
    assert data.read_datasource(Source()).take(1) == [{"a": 1}]
    (tmp_path / "a.txt").write_text("x")
    assert rows_of(data.read_datasource(_Frames(str(tmp_path), include_paths=True))) == [
        {"text": "x", "path": str(tmp_path / "a.txt")}
    ]
    with pytest.raises(TypeError, match=r"a reader gave int; it must give pyarrow.Table"):
        list(datasource.ReadTask(lambda: [3], block.BlockMetadata())())  # type: ignore[list-item]


def test_metadata_is_made_as_for_ray() -> None:
    made = block.BlockMetadata(2, 16, None, None, ["a"])  # type: ignore[arg-type]
    assert made == block.BlockMetadata(num_rows=2, size_bytes=16, input_files=("a",))
    assert block.BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None).input_files == ()  # type: ignore[arg-type]


def test_columns_of_blocks_are_computed_with() -> None:
    table = pa.table({"x": [1, None, 4, 4], "l": [[1], [2, 3], None, []]})
    found = block.BlockAccessor.for_block(table)
    for ignore_nulls, sums in ((True, (3, 9, 1, 4, 3.0, 6.0)), (False, (4, None, None, None, None, None))):
        names = ("count", "sum", "min", "max", "mean", "sum_of_squared_diffs_from_mean")
        assert tuple(getattr(found, name)("x", ignore_nulls) for name in names) == sums
    assert found.sum_of_squared_diffs_from_mean("x", True, 0.0) == 33
    assert found.drop(["x"]).column_names == ["l"]
    assert found.rename_columns({"x": "y"}).column_names == ["y", "l"]
    assert found.slice(2, 4, copy=True).to_pydict() == {"x": [4, 4], "l": [None, []]}
    column = block.BlockColumnAccessor.for_column(table["x"])
    assert column.quantile(q=0.5, ignore_nulls=True) == 4
    assert column.sum(ignore_nulls=True, as_py=False) == pa.scalar(9)
    assert column.unique().to_pylist() == [1, None, 4]
    assert column.value_counts() == {"values": [1, None, 4], "counts": [1, 1, 2]}
    assert (column.dropna().to_pylist(), column.to_pylist()) == ([1, 4, 4], [1, None, 4, 4])
    assert block.BlockColumnAccessor.for_column(np.arange(2)).to_numpy().tolist() == [0, 1]
    lists = block.BlockColumnAccessor(table["l"])
    assert (lists.is_composed_of_lists(), column.is_composed_of_lists()) == (True, False)
    assert lists.flatten().to_pylist() == [1, 2, 3]
    empty = block.BlockColumnAccessor.for_column(pa.array([], pa.int64()))
    assert (empty.value_counts(), empty.sum_of_squared_diffs_from_mean(True)) == (None, None)


class _Mean(aggregate.AggregateFnV2[list[float], float]):  # type: ignore[type-arg]
    """As the guide of Ray Data writes one."""

    def __init__(self, on: str) -> None:
        super().__init__(f"own_mean({on})", zero_factory=lambda: [0, 0], on=on, ignore_nulls=True)

    def aggregate_block(self, block_: pa.Table) -> Any:
        accessor = block.BlockAccessor.for_block(block_)
        count = accessor.count(self._target_col_name, self._ignore_nulls)  # type: ignore[arg-type]
        return [accessor.sum(self._target_col_name, self._ignore_nulls), count] if count else None  # type: ignore[arg-type]

    def combine(self, current_accumulator: Any, new: Any) -> Any:
        return [one + other for one, other in zip(current_accumulator, new, strict=True)]

    def finalize(self, accumulator: Any) -> Any:
        return accumulator[0] / accumulator[1]


def test_an_aggregation_that_was_written_for_ray_is_taken() -> None:
    ds = data.from_items([{"k": "a", "x": 1}, {"k": "a", "x": None}, {"k": "b", "x": None}, {"k": "a", "x": 4}])
    assert ds.groupby("k").aggregate(_Mean("x")).take_all() == [
        {"k": "a", "own_mean(x)": 2.5},
        {"k": "b", "own_mean(x)": None},
    ]
    made = [_Mean("x"), aggregate.Sum("x"), aggregate.Count(), aggregate.Sum("x", alias_name="all")]
    assert [one.get_agg_name() for one in made] == ["own_mean", "sum", "count", "all"]
    assert _Mean("x").get_target_column() == "x"


def test_tensors_are_made_of_tables_by_the_usual_collate_fn() -> None:
    torch = pytest.importorskip("torch")
    ds = data.from_items([{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}])
    for dtypes in (torch.float32, {"a": torch.float32, "b": torch.float32}):
        (batch,) = ds.iter_torch_batches(collate_fn=collate_fn.DefaultCollateFn(dtypes=dtypes), device="cpu")
        assert {name: (one.dtype, one.tolist()) for name, one in batch.items()} == {
            "a": (torch.float32, [1.0, 2.0]),
            "b": (torch.float32, [0.5, 1.5]),
        }


def test_errors_of_functions_have_a_name() -> None:
    assert data_exceptions.UserCodeException is exceptions.UmbelTaskError
    assert issubclass(data_exceptions.ExpressionZeroDivisionError, ZeroDivisionError)
    with pytest.warns(DeprecationWarning, match="use UserCodeException"):
        assert data_exceptions.RayDataUserCodeException is data_exceptions.UserCodeException
    with pytest.raises(AttributeError, match=r"ExecutionTimeoutError': no run ends because nothing moves"):
        data_exceptions.ExecutionTimeoutError  # noqa: B018
    with pytest.raises(AttributeError, match=r"no 'Nothing'$"):
        data_exceptions.Nothing  # noqa: B018


# ---- sources and sinks of others ----


def _installed(folder: pathlib.Path, name: str, points: str) -> None:
    made = folder / f"{name}-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(points)


def test_installed_sources_and_sinks_have_names(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counted_plugin.py").write_text(
        "import pyarrow as pa\n"
        "from umbel.data import block, datasink, datasource\n"
        "seen = []\n"
        "class Source(datasource.Datasource):\n"
        "    def __init__(self, *, upto): self.upto = upto\n"
        "    def get_read_tasks(self, parallelism, per_task_row_limit=None):\n"
        "        table = pa.table({'n': list(range(self.upto))})\n"
        "        return [datasource.ReadTask(lambda: [table], block.BlockMetadata(num_rows=self.upto))]\n"
        "class Sink(datasink.Datasink):\n"
        "    def __init__(self, *, to): self.to = to\n"
        "    def write(self, blocks, ctx): return [(self.to, one.to_pydict()) for one in blocks]\n"
        "    def on_write_complete(self, result): seen.extend(result.write_returns)\n"
    )
    _installed(
        tmp_path,
        "counted",
        "[umbel.data.sources]\ncounted = counted_plugin:Source\nbroken = counted_plugin:None_\nwrong = counted_plugin:Sink\n"
        "[umbel.data.sinks]\ncounted = counted_plugin:Sink\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    ds = data.read_datasource("counted", upto=3, override_num_blocks=1)  # type: ignore[call-arg]
    source = ds._node.source  # type: ignore[attr-defined]
    assert [table.to_pydict() for table in source.get_read_tasks(1)[0]()] == [{"n": [0, 1, 2]}]
    from umbel.data._api import plugins

    assert plugins.sink("counted", {"to": "x"}).to == "x"  # type: ignore[attr-defined]
    with pytest.raises(exceptions.PluginError, match=r"'countd' .*did you mean 'counted'"):
        data.read_datasource("countd")
    with pytest.raises(exceptions.PluginError, match=r"broken.* cannot be loaded"):
        data.read_datasource("broken")
    with pytest.raises(exceptions.PluginError, match="is no Datasource"):
        data.read_datasource("wrong")
    with pytest.raises(exceptions.PluginError, match="no installed distribution has 'nothing'"):
        ds.write_datasink("nothing")
    _installed(tmp_path, "other", "[umbel.data.sources]\ncounted = elsewhere:Source\n")
    with pytest.raises(exceptions.PluginConflict, match="both counted_plugin:Source and elsewhere:Source"):
        data.read_datasource("counted")
    with pytest.raises(TypeError, match="a Datasource is needed"):
        data.read_datasource(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a Datasink is needed"):
        ds.write_datasink(5)  # type: ignore[arg-type]
    sys.modules.pop("counted_plugin", None)


# ---- not there ----


def test_what_is_not_there_says_what_to_use_and_is_listed() -> None:
    ds = data.range(1)
    for name, advice in absent.FUNCTIONS.items():
        with pytest.raises(AttributeError) as error:
            getattr(data, name)
        assert str(error.value) == f"umbel.data has no {name}: {advice}"
    for name, advice in absent.METHODS.items():
        with pytest.raises(AttributeError) as error:
            getattr(ds, name)
        assert str(error.value) == f"a dataset has no {name}: {advice}"
    with pytest.raises(AttributeError, match=r"^umbel\.data has no 'read_cvs'$"):
        data.read_cvs  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(ds, "__array__")
    readme = pathlib.Path(__file__).parents[2].joinpath("README.md").read_text()
    listed = readme.partition("## Not there")[2]
    names = [*absent.FUNCTIONS, *absent.METHODS]
    assert [name for name in names if f"`{name}" not in listed] == []


def test_the_default_collate_function_takes_what_ray_has() -> None:
    made = collate_fn.DefaultCollateFn(combine_chunks=True, num_workers=2)
    assert (made.combine_chunks, made.num_workers) == (True, 2)
