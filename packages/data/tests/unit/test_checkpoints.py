"""Writes that go on in another process: what is noted, what is compared, and what is left to do. Processes that are killed are
in integration/test_checkpoints_on_workers.py; here one ends by an error, as any other."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umbel import data, exceptions
from umbel.data import checkpoint as configs
from umbel.data import context as contexts
from umbel.data import datasink
from umbel.data._engine import events, scheduling, stages, work
from umbel.data._plan import checkpoints, fingerprints, logical, running
from umbel.data._sinks import base, sql, tables
from umbel.data._sources import listing
from umbel.data.expressions import col


def doubled(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": 2 * row["id"]}


def tripled(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": 3 * row["id"]}


class Here:
    """Runs the parts of a write in this process, in any order, and fails after so many."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.parts: list[int] = []
        self._fails_after = fails_after

    def __call__(self, plan: stages.Write, on_written: Callable[[int, Any], None]) -> None:
        source = checkpoints._source(plan)
        assert isinstance(source, stages.Read) and plan.by_part and plan.commit is not None and plan.abort is not None
        for number in reversed(range(len(source.parts))):
            if number in source.skipped:
                continue
            if len(self.parts) == self._fails_after:
                error = RuntimeError("the driver is gone")
                plan.abort(error)
                raise error
            code = work.Code("write", events.MAP, write=plan.write)
            rows = list(work.chained(source.parts[number].read(), source.transforms))
            call = work.Call(events.MAP, number, ((work.Slice(number, 0, rows[0].num_rows),),))
            items = list(work.run(code, call, rows, None))
            assert items[0][0] == work.VALUE, items[0][1]
            on_written(number, items[0][1])
            self.parts.append(number)
        plan.commit([])


def node_of(ds: data.Dataset, sink: datasink.Datasink[Any], checkpoint: Any) -> logical.Write:
    return logical.Write(input=ds._node, sink=sink, checkpoint=configs.config_of(checkpoint))


def written(ds: data.Dataset, target: Path, checkpoint: Any, run: Here, **options: Any) -> list[int]:
    """Which parts were written, as with another process's objects."""
    node = node_of(ds, tables.ParquetDatasink(str(target), **options), checkpoint)
    made = running.Run(node, contexts.DataContext())
    assert made._checkpoint is not None and isinstance(made.plan, stages.Write)
    made._checkpoint.write(made.plan, run, parallelism=made._parallelism)
    return run.parts


def ids(target: Path) -> list[int]:
    return [id for path in sorted(target.glob("*.parquet")) for id in pq.read_table(path)["id"].to_pylist()]


def fail_after(count: int, ds: data.Dataset, target: Path, checkpoint: Any, **options: Any) -> list[int]:
    run = Here(count)
    with pytest.raises(RuntimeError, match="the driver is gone"):
        written(ds, target, checkpoint, run, **options)
    return run.parts


def numbers(count: int = 20) -> data.Dataset:
    return data.range(count, override_num_blocks=5).map(doubled)


EXPECTED = [2 * id for id in range(20)]


def test_a_write_goes_on_where_another_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"
    assert fail_after(2, numbers(), out, str(noted)) == [4, 3]
    assert "2 of its 5 parts are" in caplog.text
    assert ids(out) == []
    assert written(numbers(), out, str(noted), Here()) == [2, 1, 0]
    assert ids(out) == EXPECTED
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "what was noted is removed"
    assert [path.name[:1] for path in out.iterdir() if path.name.startswith(".")] == []


def test_after_several_ends_all_is_there_once(tmp_path: Path) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"
    for part in (4, 3, 2, 1):
        assert fail_after(1, numbers(), out, str(noted)) == [part]
    assert written(numbers(), out, str(noted), Here()) == [0]
    assert ids(out) == EXPECTED


def test_a_write_that_was_done_does_nothing_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = configs.CheckpointConfig(checkpoint_path=str(tmp_path / "noted"), delete_checkpoint_on_success=False)
    assert len(written(numbers(), out, config, Here())) == 5
    assert written(numbers(), out, config, Here()) == []
    assert ids(out) == EXPECTED


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("renamed", [0, 1, 4, 5])
def test_a_driver_that_ends_while_files_get_their_names(
    tmp_path: Path, mode: str, renamed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"
    written(data.range(3).map(doubled), out, str(tmp_path / "before"), Here())
    before = ids(out)
    moves: list[str] = []

    def in_turn(do: Callable[[Any], Any], items: Any) -> list[Any]:
        done = []
        for item in items:
            if hasattr(item, "staged"):
                if len(moves) == renamed:
                    raise KeyboardInterrupt
                moves.append(item.staged)
            done.append(do(item))
        if moves:  # after the last name, before anything else
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(listing, "in_threads", in_turn)
        with pytest.raises(KeyboardInterrupt):
            written(numbers(), out, str(noted), Here(), mode=mode)
    assert written(numbers(), out, str(noted), Here(), mode=mode) == []
    assert sorted(ids(out)) == sorted(EXPECTED + (before if mode == "append" else []))
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    assert not noted.exists()


def test_a_part_whose_files_are_gone_is_written_again(tmp_path: Path) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"
    fail_after(3, numbers(), out, str(noted))
    (told,) = (json.loads(path.read_text()) for path in noted.glob("_part-000003.json"))
    Path(told["returned"][0][0][0]).unlink()
    assert written(numbers(), out, str(noted), Here()) == [3, 1, 0]
    assert ids(out) == EXPECTED


def test_what_was_noted_by_halves_does_not_count(tmp_path: Path) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"
    fail_after(2, numbers(), out, str(noted))
    (noted / "._part-000000.json.0123").write_text('{"part": 0, "ro')
    assert written(numbers(), out, str(noted), Here()) == [2, 1, 0]
    assert not noted.exists()


def test_a_checkpoint_may_lie_beside_what_is_written(tmp_path: Path) -> None:
    fail_after(2, numbers(), tmp_path, str(tmp_path), mode="overwrite")
    assert written(numbers(), tmp_path, str(tmp_path), Here(), mode="overwrite") == [2, 1, 0]
    assert ids(tmp_path) == EXPECTED
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet"}


def test_on_a_file_system_without_renames(tmp_path: Path) -> None:
    """fsspec's memory stands for any; an object store is in integration/test_s3.py."""
    fsspec = pytest.importorskip("fsspec")
    filesystem = fsspec.filesystem("memory")
    config = configs.CheckpointConfig(checkpoint_path="/noted", override_filesystem=filesystem)
    out = tmp_path / "out"
    fail_after(2, numbers(), out, config)
    assert len(filesystem.glob("/noted/_part-*")) == 2
    assert written(numbers(), out, config, Here()) == [2, 1, 0]
    assert ids(out) == EXPECTED
    assert filesystem.find("/noted") == []


# ---- another write ----


def another(ds: data.Dataset, out: Path, noted: Path, **options: Any) -> str:
    with pytest.raises(ValueError, match="is of another write") as raised:
        written(ds, out, str(noted), Here(), **options)
    assert "delete this one to begin anew" in str(raised.value)
    return str(raised.value)


def test_another_plan_is_an_error_that_says_what_differs(tmp_path: Path) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"
    fail_after(2, numbers(), out, str(noted))
    assert "operator 2 was Map(doubled)" in another(data.range(20, override_num_blocks=5).map(tripled), out, noted)
    assert "operator 1 was ReadRange (Range of 20 rows" in another(numbers(21), out, noted)
    assert "operator 3 was WriteParquet (), and is Map(tripled)" in another(numbers().map(tripled), out, noted)
    assert "elsewhere" in another(numbers(), tmp_path / "elsewhere", noted)
    parts = data.range(20, override_num_blocks=4).map(doubled)
    assert "operator 1 was ReadRange" in another(parts, out, noted)
    assert written(numbers(), out, str(noted), Here()) == [2, 1, 0]


def test_code_that_was_mended_may_go_on_if_one_says_so(tmp_path: Path) -> None:
    def made(factor: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
        if factor == 2:

            def change(row: dict[str, Any]) -> dict[str, Any]:
                return {"id": row["id"] * 2}
        else:

            def change(row: dict[str, Any]) -> dict[str, Any]:
                return {"id": row["id"] + row["id"]}

        return change

    out, noted = tmp_path / "out", tmp_path / "noted"
    first, mended = (data.range(20, override_num_blocks=5).map(made(factor)) for factor in (2, 1))
    fail_after(2, first, out, str(noted))
    assert "the code of its operator 2, Map(change), has changed" in another(mended, out, noted)
    config = configs.CheckpointConfig(checkpoint_path=str(noted), compares_functions=False)
    assert written(mended, out, config, Here()) == [2, 1, 0]
    assert ids(out) == EXPECTED


def test_changed_input_is_an_error_that_names_a_file(tmp_path: Path) -> None:
    source, out, noted = tmp_path / "in", tmp_path / "out", tmp_path / "noted"
    source.mkdir()
    for number in range(5):
        pq.write_table(pa.table({"id": range(4 * number, 4 * number + 4)}), source / f"{number}.parquet")

    def read() -> data.Dataset:
        return data.read_parquet(str(source), override_num_blocks=5).map(doubled)

    fail_after(2, read(), out, str(noted))
    pq.write_table(pa.table({"id": [-1, -2, -3, -4]}), source / "1.parquet")  # as many rows
    assert f"the first is part 1, of '{source}/1.parquet'" in another(read(), out, noted)
    pq.write_table(pa.table({"id": [1]}), source / "9.parquet")
    assert "parts" in another(read(), out, noted)


def test_a_run_that_another_has_taken_over_is_given_up(tmp_path: Path) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"

    class Overtaken(Here):
        def __call__(self, plan: stages.Write, on_written: Callable[[int, Any], None]) -> None:
            written(numbers(), out, str(noted), Here())
            super().__call__(plan, on_written)

    with pytest.raises(ValueError, match="another run"):
        written(numbers(), out, str(noted), Overtaken())
    assert ids(out) == EXPECTED


# ---- what has no checkpoint ----


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda ds: ds.sort("id"), "Sort"),
        (lambda ds: ds.limit(3), r"Limit\(3\)"),
        (lambda ds: ds.groupby("id").count(), "Aggregate"),
        (lambda ds: ds.union(data.range(2)), "Union"),
        (lambda ds: ds.join(data.range(3), on="id", join_type="inner", num_partitions=2), r"Join\(inner\)"),
        (lambda ds: ds.random_shuffle(seed=1), "RandomShuffle"),
        (lambda ds: ds.repartition(3), "Repartition"),
        (lambda ds: ds.random_sample(0.5), "Sample has no seed"),
    ],
)
def test_plans_that_need_more_than_a_part_are_refused(tmp_path: Path, change: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        change(data.range(10)).write_parquet(str(tmp_path / "out"), checkpoint=str(tmp_path / "noted"))
    assert [*tmp_path.iterdir()] == []


def test_sinks_that_are_seen_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SQL cannot go on with a write"):
        sink = sql.SQLDatasink("INSERT INTO t VALUES (?)", print)
        data.range(3).write_datasink(sink, checkpoint=str(tmp_path))
    with pytest.raises(ValueError, match="min_rows_per_file and min_bytes_per_file cannot"):
        data.range(3).write_csv(str(tmp_path), min_rows_per_file=2, checkpoint=str(tmp_path))


def test_a_path_is_asked_for() -> None:
    with pytest.raises(TypeError, match="checkpoint_path must be the path"):
        configs.CheckpointConfig(checkpoint_path="")
    assert configs.config_of("a") == configs.CheckpointConfig(checkpoint_path="a")
    assert data.DataContext().checkpoint_config is None


def test_the_config_of_the_context_is_for_writes_only(tmp_path: Path) -> None:
    context = contexts.DataContext(checkpoint_config=configs.CheckpointConfig(checkpoint_path=str(tmp_path / "noted")))
    with contexts.DataContext.current(context):
        ds = data.range(3)
    assert ds.sort("id").take_all() == [{"id": 0}, {"id": 1}, {"id": 2}]
    with pytest.raises(ValueError, match="Sort"):
        ds.sort("id").write_csv(str(tmp_path / "out"))


# ---- fingerprints ----


def test_a_plan_reads_the_same_when_it_is_made_again() -> None:
    def made(limit: int) -> data.Dataset:
        ds = data.range(7).filter(expr=col("id") > limit).map_batches(functools.partial(len, "x"), batch_size=3)
        return ds.with_column("y", col("id") * 2).select_columns(["y"])

    assert fingerprints.operators(made(3)._node) == fingerprints.operators(made(3)._node)
    assert fingerprints.operators(made(3)._node) != fingerprints.operators(made(4)._node)


def test_blocks_in_memory_are_told_apart_by_their_rows() -> None:
    def parts(*ids: int) -> list[str]:
        ds = data.from_arrow(pa.table({"id": pa.array(ids, pa.int64())}))
        stage = running.staged(ds._node, ds.context)
        return fingerprints.parts(stage, ds._node)

    assert parts(1, 2) == parts(1, 2) != parts(2, 1)


def test_code_is_told_apart_by_constants_and_methods() -> None:
    class One:
        def __call__(self, row: Any) -> Any:
            return row in {1, 2, 3}

    class Two:
        def __call__(self, row: Any) -> Any:
            return row in {1, 2, 4}

    Two.__qualname__ = One.__qualname__
    assert fingerprints._code(One) == fingerprints._code(One)
    assert fingerprints._code(One) != fingerprints._code(Two)
    assert fingerprints._code(functools.partial(doubled, 1)) != fingerprints._code(functools.partial(doubled, 2))
    assert fingerprints._code(One().__call__) == fingerprints._code(One.__call__)


# ---- the engine's part ----


def test_a_write_gets_each_part_whole_and_by_its_number() -> None:
    read = stages.Read(name="read", parts=[stages.ReadPart(tripled)] * 4, skipped=frozenset({1}))
    mapped = stages.Map(name="map", input=read, transforms=(), by_part=True)
    plan = stages.Write(name="write", input=mapped, write=print, by_part=True)
    machine = scheduling.Machine(plan, scheduling.Options(1 << 40))
    started = machine.apply(events.Began({"CPU": 9.0}, 0.0))
    assert [one.number for one in started if isinstance(one, events.StartTask)] == [0, 2, 3]
    blocks = 0
    writes: list[events.StartTask] = []
    tasks = [one for one in started if isinstance(one, events.StartTask)]
    while tasks:
        task = tasks.pop(0)
        commands: list[events.Command] = []
        for _ in range(2 if task.stage < 2 else 1):
            blocks += 1
            commands += machine.apply(events.BlockMade(task.task, 1, blocks, 1, 10, 1.0))
        commands += machine.apply(events.TaskEnded(task.task, 1, events.Cost(), 1.0))
        begun = [one for one in commands if isinstance(one, events.StartTask)]
        tasks += begun
        writes += [one for one in begun if one.stage == 2]
    assert [one.number for one in writes] == [0, 2, 3]
    assert [{piece.origin for piece in one.pieces[0]} for one in writes] == [{0}, {2}, {3}]
    assert {len(one.pieces[0]) for one in writes} <= {2, 4}


def test_a_write_whose_result_is_here_is_not_done_again() -> None:
    """Its worker was lost between the result and the end of the task."""
    calls: list[int] = []

    def write(_blocks: Any) -> int:
        calls.append(1)
        return len(calls)

    code = work.Code("write", events.MAP, write=write)
    call = work.Call(events.MAP, 0, ((work.Slice(0, 0, 1),),))
    block = pa.table({"id": [1]})
    assert [item[0] for item in work.run(code, call, [block], None)] == [work.VALUE, work.END]
    assert [item[0] for item in work.run(code, call._replace(skipped_blocks=1), [block], None)] == [work.END]
    assert calls == [1]


def test_what_sinks_return_comes_back_from_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = tables.CSVDatasink(str(tmp_path))
    assert sink.supports_checkpoints and not base.DummyOutputDatasink().supports_checkpoints
    sink.on_write_start()
    returned = sink.write([pa.table({"id": [1]})], datasink.WriteContext(3))
    packed = json.loads(json.dumps(sink.pack_returned(returned)))
    assert sink.unpack_returned(packed) == returned
    with pytest.raises(NotImplementedError):
        base.DummyOutputDatasink().pack_returned(None)
    assert issubclass(exceptions.InvalidOption, ValueError)
