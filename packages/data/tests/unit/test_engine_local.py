"""Plans in the calling process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from umbel import exceptions
from umbel.data._engine import failures, local, stages, task_context


def part(values: list[int]) -> stages.ReadPart:
    return stages.ReadPart(lambda: iter([pa.table({"n": values})]), len(values), 8 * len(values), True, ("a.csv",))


def read(*parts: list[int], **options: Any) -> stages.Read:
    return stages.Read(name="read", parts=[part(values) for values in parts], **options)


def plus_one(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        yield pa.table({"n": pc.add(table["n"], 1)})


def numbers(plan: stages.Stage) -> list[int]:
    return [value for table in local.tables(plan) for value in table["n"].to_pylist()]


def mapped(stage: stages.Stage, *transforms: Any, **options: Any) -> stages.Map:
    return stages.Map(name="map", input=stage, transforms=transforms or (plus_one,), is_kernel=True, **options)


def by_rest(table: pa.Table, count: int, _boundaries: Any) -> list[pa.Table]:
    rest = [value % count for value in table["n"].to_pylist()]
    return [table.filter(pa.array([one == at for one in rest], pa.bool_())) for at in range(count)]


def put_together(_partition: int, inputs: Any) -> Iterator[pa.Table]:
    tables = [table for some in inputs for table in some]
    if tables:
        yield pa.concat_tables(tables).sort_by("n")


def test_chain_of_transforms_over_a_read() -> None:
    assert numbers(mapped(read([1, 2], [3], transforms=(plus_one,)))) == [3, 4, 5]


def test_transform_is_made_where_it_runs() -> None:
    assert numbers(mapped(read([1]), stages.Made(lambda: plus_one))) == [2]


def test_limit_draws_no_more_than_it_needs() -> None:
    drawn: list[int] = []

    def noted(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            drawn.append(table.num_rows)
            yield table

    assert numbers(stages.Limit(input=read([1, 2], [3, 4], [5], transforms=(noted,)), row_count=3)) == [1, 2, 3]
    assert drawn == [2, 2]


@pytest.mark.parametrize("count", [None, 1, 3])
def test_exchange(count: int | None) -> None:
    plan = stages.Exchange(
        name="exchange",
        inputs=(read([4, 1], [3, 2]),),
        partition=(by_rest,),
        reduce=put_together,
        partition_count=count,
    )
    assert numbers(plan) == ([3, 1, 4, 2] if count == 3 else [1, 2, 3, 4])


def test_exchange_of_two_inputs_and_of_nothing() -> None:
    plan = stages.Exchange(
        name="exchange", inputs=(read([4]), read([1, 2])), partition=(by_rest, by_rest), reduce=put_together,
        partition_bytes=8,
    )  # fmt: skip
    assert numbers(plan) == [1, 2, 4][:0] + [value for at in range(3) for value in sorted([4, 1, 2]) if value % 3 == at]
    assert numbers(stages.Exchange(name="e", inputs=(read(),), partition=(by_rest,), reduce=put_together)) == []


def test_union_zip_and_a_stage_that_is_used_twice() -> None:
    runs: list[int] = []

    def noted(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        runs.append(1)
        yield from tables

    source = read([1, 2], [3], transforms=(noted,))
    other = mapped(source)
    assert numbers(stages.Union(inputs=(source, other))) == [1, 2, 3, 2, 3, 4]
    assert runs == [1, 1]

    def added(tables: Any) -> pa.Table:
        return pa.table({"n": pc.add(tables[0]["n"], tables[1]["n"])})

    assert numbers(stages.Zip(inputs=(source, other), combine=added)) == [3, 5, 7]
    with pytest.raises(ValueError, match="got 3 and 1; use join"):
        numbers(stages.Zip(inputs=(source, read([1])), combine=added))


def test_error_says_which_operator_on_what_and_is_of_its_class() -> None:
    def fails(_tables: Any) -> Any:
        raise KeyError("m")

    with pytest.raises(KeyError) as caught:
        numbers(mapped(read([1], [2], transforms=(fails,))))
    assert isinstance(caught.value, exceptions.UmbelTaskError)
    assert "(in read, on part 0, from a.csv)" in str(caught.value)
    assert "/_engine/" not in str(caught.value)


def test_an_error_of_ours_that_is_raised_has_no_frames_and_another_has_all() -> None:
    def told(_tables: Any) -> Any:
        raise KeyError("there is no column 'y'")

    def broken(_tables: Any) -> Any:
        return iter(()).no_such_thing  # type: ignore[attr-defined]

    for function, kind, is_shown in ((told, KeyError, False), (broken, AttributeError, True)):
        function.__code__ = function.__code__.replace(co_filename=failures.__file__)  # as if it were of the engine
        with pytest.raises(kind) as caught:
            numbers(mapped(read([1], transforms=(function,))))
        assert (f", in {function.__name__}\n" in str(caught.value)) == is_shown
        assert ("Traceback" in str(caught.value)) == is_shown


def test_transform_knows_which_block_it_has_drawn() -> None:
    found: list[int] = []

    def noted(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            found.append(task_context.current().block_number)
            yield table

    numbers(mapped(read([1], [2], [3]), noted, is_steady=True, bundle_bytes=16))
    assert found == [0, 1, 2]
    with pytest.raises(RuntimeError, match="no task of a dataset"):
        task_context.current()


def test_write_commits_what_its_tasks_return_and_aborts_on_an_error() -> None:
    told: list[Any] = []
    plan = stages.Write(
        name="write", input=read([1, 2], [3]), bundle_bytes=8, begin=lambda: told.append("begin"),
        write=lambda tables: sum(table.num_rows for table in tables), commit=lambda results: ("done", results),
        abort=lambda error: told.append(type(error).__mro__[2]),
    )  # fmt: skip
    assert local.write(plan) == ("done", [2, 1])

    def fails(_tables: Any) -> Any:
        raise OSError("disk full")

    bad = stages.Write(name="write", input=read([1]), write=fails, abort=lambda error: told.append(type(error)))
    with pytest.raises(OSError, match="disk full"):
        local.write(bad)
    assert told[0] == "begin"
    assert issubclass(told[1], OSError)


def test_only_small_plans_of_kernels_are_suitable() -> None:
    assert local.is_suitable(mapped(read([1])))
    assert not local.is_suitable(mapped(read([1])), small_bytes=7)
    assert not local.is_suitable(stages.Map(name="user's", input=read([1]), transforms=()))
    assert not local.is_suitable(mapped(read([1]), compute=stages.ActorPool()))
    assert not local.is_suitable(stages.Split(input=read([1]), count=2))
    unknown = stages.Read(name="read", parts=[stages.ReadPart(lambda: iter(()))])
    assert not local.is_suitable(unknown)
