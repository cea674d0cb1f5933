"""Plans on workers and actors of a real runtime."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leftovers
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import umbel
from umbel import exceptions
from umbel.data._engine import driving, executor, held, local, reports, stages

pytestmark = pytest.mark.timeout(120)
OPTIONS = reports.RunOptions()


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=400 << 20)
    yield
    umbel.shutdown()


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    yield
    leftovers.check()


def part(first: int, count: int) -> stages.ReadPart:
    def read() -> Iterator[pa.Table]:
        yield pa.table({"n": pa.array(range(first, first + count), pa.int64())})

    return stages.ReadPart(read, count, 8 * count, True, (f"part-{first}",))


def read(part_count: int = 4, rows: int = 10, **options: Any) -> stages.Read:
    return stages.Read(name="read", parts=[part(at * rows, rows) for at in range(part_count)], **options)


def doubled(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        yield pa.table({"n": pc.multiply(table["n"], 2)})


def mapped(stage: stages.Stage, *transforms: Any, **options: Any) -> stages.Map:
    return stages.Map(name="map", input=stage, transforms=transforms or (doubled,), **options)


def values(views: Any) -> list[int]:
    return [value for view in views for value in view.table()["n"].to_pylist()]


def collected(plan: stages.Stage, options: reports.RunOptions = OPTIONS) -> list[int]:
    return values(executor.collect(plan, options)[0])


def test_rows_come_in_order_and_metadata_without_the_blocks() -> None:
    views, stats = executor.collect(mapped(read()), OPTIONS)
    assert values(views) == [2 * n for n in range(40)]
    assert sum(view.row_count for view in views) == 40
    assert all(view.metadata.schema == pa.schema({"n": pa.int64()}) for view in views)
    assert {name for view in views for name in view.metadata.input_files} == {f"part-{n}" for n in (0, 10, 20, 30)}
    assert [one["name"] for one in stats["stages"]] == ["read", "map"]
    assert [one["rows_out"] for one in stats["stages"]] == [40, 40]
    assert stats["total"]["wall_s"] > 0
    assert "total: 40 rows" in reports.table(stats)


def test_large_blocks_go_through_the_store() -> None:
    """More of them than the budget has room for."""

    def large() -> Iterator[pa.Table]:
        for at in range(4):
            yield pa.table({"n": pa.array([at] * (1 << 19), pa.int64())})

    source = stages.Read(name="read", parts=[stages.ReadPart(large)] * 8, block_bytes=4 << 20)
    options = reports.RunOptions(budget_bytes=20 << 20)
    (stream,) = executor.stream(mapped(source), options)
    found = [view.table()["n"][0].as_py() for view in stream]
    assert sorted(set(found)) == [0, 2, 4, 6]
    assert stream.stats()["stages"][1]["rows_out"] == 32 << 19


def test_blocks_of_the_caller_and_of_an_earlier_run_are_inputs() -> None:
    tables = [pa.table({"n": pa.array([at] * count, pa.int64())}) for at, count in ((1, 2), (2, 100_000), (3, 1))]
    blocks = [stages.Block(table, stages.Metadata(table.num_rows, table.nbytes)) for table in tables]
    views, _ = executor.collect(mapped(stages.Input(blocks=blocks)), OPTIONS)
    again = stages.Input(blocks=[view.block() for view in views])
    assert collected(mapped(again)) == [4] * 2 + [8] * 100_000 + [12]


def test_a_run_that_has_ended_goes_with_its_blocks_and_waits_for_no_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        executor.collect(read(2), OPTIONS)
        assert not [one for one in gc.get_objects() if type(one) is driving.DrivenRun]
    finally:
        gc.enable()


def test_limit_ends_what_is_above_it_early() -> None:
    def slow() -> Iterator[pa.Table]:
        time.sleep(0.2)
        yield pa.table({"n": pa.array([0], pa.int64())})

    few = read(20)
    long = dataclasses.replace(few, parts=[*few.parts, *[stages.ReadPart(slow, 1, 8, True, ())] * 180])
    views, stats = executor.collect(stages.Limit(input=long, row_count=13), OPTIONS)
    assert values(views) == list(range(13))
    assert stats["stages"][0]["tasks_started"] < 100, "in eight seconds less than are there"


def by_rest(table: pa.Table, count: int, _boundaries: Any) -> list[pa.Table]:
    rest = pa.array([value % count for value in table["n"].to_pylist()], pa.int64())
    return [table.filter(pc.equal(rest, at)) for at in range(count)]


def by_range(table: pa.Table, count: int, boundaries: list[int]) -> list[pa.Table]:
    ends = [*boundaries, None]
    found, low = [], None
    for high in ends[:count]:
        keep = [(low is None or value >= low) and (high is None or value < high) for value in table["n"].to_pylist()]
        found.append(table.filter(pa.array(keep, pa.bool_())))
        low = high
    return found


def put_together(_partition: int, inputs: Any) -> Iterator[pa.Table]:
    yield pa.concat_tables([table for some in inputs for table in some]).sort_by("n")


@pytest.mark.parametrize("options", [{"partition_count": 1}, {"partition_count": 3}, {"partition_bytes": 100}, {}])
def test_exchange(options: dict[str, Any]) -> None:
    plan = stages.Exchange(
        name="exchange", inputs=(read(), read(1, 7)), partition=(by_rest, by_rest), reduce=put_together, **options
    )
    found = collected(plan)
    assert found == [value for table in local.tables(plan) for value in table["n"].to_pylist()]
    assert sorted(found) == sorted([*range(40), *range(7)])


def test_exchange_by_ranges() -> None:
    def middle(samples: list[list[int]], count: int) -> list[int]:
        everything = sorted(value for some in samples for value in some)
        return [everything[len(everything) * at // count] for at in range(1, count)]

    def backwards(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            yield pa.table({"n": pc.subtract(100, table["n"])})

    plan = stages.Exchange(
        name="sort", inputs=(mapped(read(), backwards),), partition=(by_range,), reduce=put_together, partition_count=4,
        sample=lambda table: table["n"].to_pylist(), boundaries=middle,
    )  # fmt: skip
    assert collected(plan) == list(range(61, 101))


def test_an_error_of_a_sample_is_that_of_the_stage_that_wanted_it() -> None:
    def fails(_table: pa.Table) -> Any:
        raise TypeError("no order")

    plan = stages.Exchange(
        name="sort", inputs=(read(),), partition=(by_range,), reduce=put_together, partition_count=2,
        sample=fails, boundaries=lambda samples, count: [],
    )  # fmt: skip
    with pytest.raises(TypeError, match="no order") as caught:
        executor.collect(plan, OPTIONS)
    assert "(in sort, on what read makes)" in str(caught.value)


def test_zip_union_and_shared_stage() -> None:
    source = read()

    def added(tables: Any) -> pa.Table:
        return pa.table({"n": pc.add(tables[0]["n"], tables[1]["n"])})

    assert collected(stages.Zip(inputs=(source, mapped(source)), combine=added)) == [3 * n for n in range(40)]
    assert collected(stages.Union(inputs=(source, mapped(source)))) == [*range(40), *range(0, 80, 2)]
    with pytest.raises(ValueError, match=r"equally many rows, got .* and 10"):
        collected(stages.Zip(inputs=(source, read(1)), combine=added))


@pytest.mark.parametrize("is_equal", [False, True])
def test_split(is_equal: bool) -> None:
    streams = executor.stream(stages.Split(input=read(7, 3), count=2, is_equal=is_equal), OPTIONS)
    found: list[list[int]] = [[], []]

    def consume(at: int) -> None:
        found[at] = values(streams[at])

    threads = [threading.Thread(target=consume, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(leftovers.WAIT_S)
    everything = sorted(found[0] + found[1])
    if is_equal:
        assert [len(one) for one in found] == [10, 10]
        assert set(everything) < set(range(21))
    else:
        assert everything == list(range(21))


class Counting:
    """Says which process it is in, and how many tables it has seen there."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            self.count += 1
            yield table.append_column("pid", pa.array([os.getpid()] * table.num_rows)).append_column(
                "count", pa.array([self.count] * table.num_rows)
            )


def test_actors_keep_what_they_made_and_there_are_no_more_than_wanted() -> None:
    pool = stages.ActorPool(max_size=1)
    plan = mapped(read(6), stages.Made(Counting), compute=pool, bundle_rows=10)
    views, _ = executor.collect(plan, OPTIONS)
    assert values(views) == list(range(60))
    assert len({view.table()["pid"][0].as_py() for view in views}) == 1
    assert [view.table()["count"][0].as_py() for view in views] == [1, 2, 3, 4, 5, 6]


def test_error_has_the_operator_the_files_and_the_users_frames_only() -> None:
    def fails(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            if table["n"][0].as_py() == 20:
                raise KeyError("m")
            yield table

    plan = stages.Map(name="Map(fails)", input=read(), transforms=(fails,), bundle_rows=10)
    with pytest.raises(KeyError) as caught:
        executor.collect(plan, OPTIONS)
    assert isinstance(caught.value, exceptions.UmbelTaskError)
    assert caught.value.function_name == "Map(fails)"
    text = str(caught.value)
    assert "(in Map(fails), on block 2 (10 rows), from part-20)" in text
    assert "/_engine/" not in text
    assert text.count('File "') == 1


def test_error_of_what_an_actor_begins_with() -> None:
    def unmade() -> Any:
        raise OSError("no such model")

    plan = mapped(read(), stages.Made(unmade), compute=stages.ActorPool(max_size=1))
    with pytest.raises(OSError, match="no such model"):
        executor.collect(plan, OPTIONS)


def test_error_reaches_whoever_reads_the_stream() -> None:
    def fails(_tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        raise ZeroDivisionError("by zero")

    (stream,) = executor.stream(mapped(read(), fails), OPTIONS)
    with pytest.raises(ZeroDivisionError):
        list(stream)


def test_task_that_cannot_be_started_ends_the_run() -> None:
    """It is started when another task has ended, whose fault it is not."""
    resources = stages.Resources(options={"no_such_option": 1})
    plan = mapped(read(3, rows=1), resources=resources)
    with pytest.raises(exceptions.InvalidOption, match="no_such_option"):
        collected(plan)
    (stream,) = executor.stream(plan, OPTIONS)
    with pytest.raises(exceptions.InvalidOption, match="no_such_option"):
        list(stream)


def slow_plan(directory: Path) -> stages.Map:
    """Leaves a file for each task that has begun, and takes for ever."""
    folder = str(directory)

    def slow(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            first = table["n"][0].as_py()
            Path(folder, f"begun-{first}").touch()
            if first:
                try:
                    time.sleep(60)
                finally:
                    Path(folder, f"ended-{first}").touch()
            yield table

    return mapped(read(), slow, bundle_rows=10)


@pytest.mark.parametrize("how", ["closed", "dropped", "error", "context"])
def test_run_that_is_given_up_ends_its_tasks(tmp_path: Path, how: str) -> None:
    (stream,) = executor.stream(slow_plan(tmp_path), OPTIONS)
    assert values([next(stream)]) == list(range(10))
    leftovers.eventually(lambda: (tmp_path / "begun-10").exists())
    gone = weakref.ref(stream)
    if how == "closed":
        stream.close()
    elif how == "context":
        with stream:
            pass
    elif how == "error":
        with pytest.raises(RuntimeError), stream:
            raise RuntimeError
    del stream
    assert gone() is None
    leftovers.eventually(lambda: (tmp_path / "ended-10").exists())


def test_time_out_of_a_stream_leaves_it_as_it_was(tmp_path: Path) -> None:
    (stream,) = executor.stream(slow_plan(tmp_path), OPTIONS)
    next(stream)
    with pytest.raises(TimeoutError, match="no block came within"):
        stream.next_view(0.05)
    stream.close()
    assert stream.next_view(leftovers.WAIT_S) is None


def test_consumer_that_does_not_read_holds_the_run_back() -> None:
    """It goes on once there is room."""

    def large(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            yield pa.table({"n": pa.array([table["n"][0].as_py()] * (1 << 17), pa.int64())})

    plan = mapped(read(40, 1), large, bundle_rows=1)
    (stream,) = executor.stream(plan, reports.RunOptions(budget_bytes=8 << 20))
    next(stream)
    counts = []
    for _ in range(2):  # it has come to rest when nothing is added in a while
        time.sleep(0.5)
        counts.append(stream.stats()["stages"][1]["tasks_started"])
    assert counts[1] < 30
    assert len(list(stream)) == 39


def test_worker_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    mark = str(tmp_path / "died")

    def dies_once(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            if table["n"][0].as_py() == 20 and not os.path.exists(mark):
                Path(mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield table

    assert collected(mapped(read(), dies_once, bundle_rows=10)) == list(range(40))
    assert os.path.exists(mark)


def test_actor_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    mark = str(tmp_path / "died")

    def made() -> Any:
        def dies_once(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
            for table in tables:
                if table["n"][0].as_py() == 20 and not os.path.exists(mark):
                    Path(mark).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield table

        return dies_once

    plan = mapped(read(), stages.Made(made), compute=stages.ActorPool(max_size=1), bundle_rows=10)
    assert collected(plan) == list(range(40))
    assert os.path.exists(mark)


def test_late_read_is_tried_a_second_time_and_not_waited_for(tmp_path: Path) -> None:
    """Beside it, as long as nobody has heard of it; a function of the user's is not (test_rules)."""
    mark = str(tmp_path / "late")

    def part(number: int) -> Iterator[pa.Table]:
        if number == 9 and not os.path.exists(mark):
            Path(mark).touch()
            time.sleep(60)
        yield pa.table({"n": [number]})

    parts = [stages.ReadPart(functools.partial(part, number), row_count=1) for number in range(12)]
    began_s = time.monotonic()
    views, stats = executor.collect(stages.Read(name="read", parts=parts), OPTIONS)
    assert values(views) == list(range(12))
    assert stats["total"]["tasks_repeated"] == 1
    assert time.monotonic() - began_s < 30


def test_worker_that_dies_in_an_exchange_costs_nothing_but_time(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def dies_once(name: str) -> None:
        mark = Path(folder, name)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def partition(table: pa.Table, count: int, boundaries: Any) -> list[pa.Table]:
        dies_once("partition")
        return by_rest(table, count, boundaries)

    def reduce(number: int, inputs: Any) -> Iterator[pa.Table]:
        dies_once("reduce")
        yield from put_together(number, inputs)

    plan = stages.Exchange(
        name="exchange", inputs=(read(),), partition=(partition,), reduce=reduce, partition_count=3, bundle_bytes=80
    )
    assert collected(plan) == [n for at in range(3) for n in range(40) if n % 3 == at]
    assert sorted(os.listdir(folder)) == ["partition", "reduce"]


def test_write_commits_once_or_aborts() -> None:
    told: list[Any] = []

    def count(tables: Iterator[pa.Table]) -> int:
        return sum(table.num_rows for table in tables)

    plan = stages.Write(
        name="write", input=read(), write=count, bundle_rows=20, begin=lambda: told.append("begin"),
        commit=lambda results: ("committed", results), abort=lambda error: told.append("abort"),
    )  # fmt: skip
    result, stats = executor.write(plan, OPTIONS)
    assert result == ("committed", [20, 20])
    assert told == ["begin"]
    assert stats["stages"][1]["tasks"] == 2

    def fails(_tables: Iterator[pa.Table]) -> int:
        raise OSError("disk full")

    bad = stages.Write(name="write", input=read(), write=fails, abort=lambda error: told.append(type(error).__name__))
    with pytest.raises(OSError, match="disk full"):
        executor.write(bad, OPTIONS)
    assert told == ["begin", "UmbelTaskError"]


def test_what_takes_too_long_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (stream,) = executor.stream(slow_plan(tmp_path), reports.RunOptions(stall_s=0.3))
    next(stream)
    next_of = threading.Thread(target=lambda: stream.next_view(None), daemon=True)
    next_of.start()
    leftovers.eventually(lambda: "map: its tasks run, and have given nothing" in caplog.text)
    stream.close()
    next_of.join(leftovers.WAIT_S)


def test_view_of_some_rows_of_a_block() -> None:
    views, _ = executor.collect(stages.Limit(input=read(1), row_count=4), OPTIONS)
    (view,) = views
    assert isinstance(view, held.View)
    assert view.metadata.row_count == view.row_count == 4
    block = view.block()
    assert isinstance(block.value, pa.Table)
    assert block.value["n"].to_pylist() == [0, 1, 2, 3]
