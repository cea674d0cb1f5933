"""What settings and options of a run do, as far as it takes no workers."""

from __future__ import annotations

import math
import pathlib
import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umbel import data
from umbel.data import _settings, context, datasource
from umbel.data._engine import placing, stages
from umbel.data._plan import calls, logical, physical, retrying, running
from umbel.data.expressions import col

# ---- the context ----


def test_a_dataset_keeps_the_settings_that_it_was_made_with() -> None:
    made = context.DataContext(target_max_block_size=1000)
    made.execution_options.resource_limits.cpu = 3
    made.retried_io_errors.append("busy")
    made.set_config("mine", 1)
    with context.DataContext.current(made):
        ds = data.range(3)
        again = ds.map(dict)
        made.target_max_block_size = 7
        made.execution_options.preserve_order = False
        made.execution_options.resource_limits.cpu = 1
        made.retried_io_errors.clear()
        made.remove_config("mine")
        later = data.range(3)
    for one in (ds, again):
        found = one.context
        assert (found.target_max_block_size, found.execution_options.preserve_order) == (1000, True)
        assert (found.execution_options.resource_limits.cpu, found.retried_io_errors[-1]) == (3, "busy")
        assert found.get_config("mine") == 1
    ds.context.target_max_block_size = 2000
    assert (later.context.target_max_block_size, made.target_max_block_size) == (7, 7)
    assert ds.iterator().get_context() is ds.context


def test_a_context_travels() -> None:
    made = context.DataContext(execution_options=data.ExecutionOptions(label_selector={"zone": "a"}))
    made.set_config("mine", [1])
    found = pickle.loads(pickle.dumps(made))
    assert found == made
    assert found.get_config("mine") == [1]


def test_every_setting_of_rays_has_an_answer() -> None:
    made = context.DataContext()
    for name, why in _settings.WITHOUT_EFFECT.items():
        assert getattr(made, name) is None
        with pytest.warns(UserWarning, match=rf"DataContext\.{name} has no effect: "):
            setattr(made, name, 3)
        assert (getattr(made, name), bool(why)) == (3, True)
    for name in _settings.REFUSED:
        setattr(made, name, False)
        with pytest.raises(AttributeError, match=f"has no setting {name}: "):
            setattr(made, name, True)
    with pytest.raises(AttributeError, match=r"lance_config: the library tries again by itself"):
        context.DataContext().lance_config.read_fragments_max_attempts = 3
    for name in _settings.CLASSES:
        with pytest.raises(AttributeError, match=f"has no {name!r}: "):
            getattr(context, name)
    made.target_shuffle_max_block_size = 5  # type: ignore[attr-defined]
    made.write_file_retry_on_errors = ["x"]  # type: ignore[attr-defined]
    assert (made.target_max_block_size, made.write_file_retry_on_errors) == (5, ["x"])
    assert made.retried_io_errors == ["x"]
    with pytest.raises(AttributeError, match="has no setting 'wait_for_min_actor_s'"):
        made.wait_for_min_actor_s = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no setting wait_for_min_actor_s"):
        made.wait_for_min_actor_s  # noqa: B018


def test_old_names_are_told_and_mean_what_they_did() -> None:
    for name, known in {"DatasetContext": data.DataContext, "DatasetIterator": data.DataIterator}.items():
        with pytest.warns(DeprecationWarning, match=f"{name} is an old name"):
            assert getattr(data, name) is known


def test_resources_are_changed_by_copies() -> None:
    of = data.ExecutionResources
    limits = data.ExecutionOptions().resource_limits
    assert limits == of.inf() == of.for_limits() == of(math.inf, math.inf, math.inf, math.inf)
    assert limits.by_name() == of().by_name() == {}
    some = limits.copy(cpu=10, gpu=0, object_store_memory=10e9)
    assert some.by_name() == {"CPU": 10, "GPU": 0, "object_store_memory": 10e9}
    assert limits == of.inf()
    assert data.ExecutionOptions().exclude_resources.add(of(cpu=2)).by_name()["CPU"] == 2
    assert of(cpu=5, gpu=1).subtract(of(cpu=2)) == of(3, 1, 0, 0)


def test_options_that_mean_nothing_are_told() -> None:
    for name, value in {"actor_locality_enabled": False, "locality_with_output": ["node"]}.items():
        with pytest.warns(UserWarning, match=f"ExecutionOptions.{name} has no effect"):
            data.ExecutionOptions(**{name: value})
        options = data.ExecutionOptions()
        with pytest.warns(UserWarning, match=f"ExecutionOptions.{name} has no effect"):
            setattr(options, name, value)
    options = data.ExecutionOptions(None, None, False, True, None, {"zone": "a"})  # type: ignore[arg-type]
    assert options == data.ExecutionOptions(preserve_order=False, label_selector={"zone": "a"})
    assert options.copy() == options


# ---- what a read is divided into ----


class Sized(datasource.Datasource):
    """Of 10,000 bytes. wanted: how many tasks were asked for, each time."""

    def __init__(self) -> None:
        self.wanted: list[int] = []

    def estimate_inmemory_data_size(self) -> int:
        return 10_000

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[datasource.ReadTask]:
        self.wanted.append(parallelism)
        return []


def test_parts_of_a_read_are_not_smaller_than_was_said() -> None:
    source = Sized()
    node = logical.Read(source=source)
    given: dict[str, Any] = {"read_op_min_num_blocks": 50, "target_min_block_size": 1_000}
    running.staged(node, context.DataContext(**given))
    running.staged(node, context.DataContext(**{**given, "target_min_block_size": 1}))
    running.staged(node, context.DataContext(**{**given, "target_min_block_size": 1 << 20}))
    running.staged(logical.Read(source=source, parallelism=70), context.DataContext(**given))
    running.staged(node, context.DataContext(**given), parallelism=50, is_divided_alike=True)
    assert source.wanted == [10, 50, 1, 70, 50]


# ---- reads that are tried again ----


class Flaky:
    """Fails before the table with this number, so often."""

    def __init__(self, error: Exception, *, at: int, count: int) -> None:
        self.error, self.at, self.count = error, at, count

    def __call__(self) -> Iterator[pa.Table]:
        for number in range(3):
            if number == self.at and self.count:
                self.count -= 1
                raise self.error
            yield pa.table({"n": [number]})


def test_a_read_goes_on_where_a_passing_error_was() -> None:
    outer = OSError("reading x")
    outer.__cause__ = OSError("AWS Error SLOW_DOWN during GetObject")
    for at in range(3):
        for error in (OSError("When reading: AWS Error SLOW_DOWN"), outer):
            read = retrying.Retried(Flaky(error, at=at, count=2), (*context.RETRIED_IO_ERRORS, "("), wait_s=0)
            assert [table["n"].to_pylist() for table in read()] == [[0], [1], [2]]
    by_expression = retrying.Retried(Flaky(OSError("code 503"), at=1, count=1), ("code 5..",), wait_s=0)
    assert len([*by_expression()]) == 3


def test_a_read_is_not_tried_for_ever_nor_after_another_error() -> None:
    lasting = Flaky(OSError("SLOW_DOWN"), at=1, count=100)
    with pytest.raises(OSError, match="SLOW_DOWN"):
        list(retrying.Retried(lasting, ("SLOW_DOWN",), wait_s=0)())
    assert lasting.count == 100 - retrying.ATTEMPTS_MAX
    other = Flaky(OSError("no such file"), at=1, count=100)
    with pytest.raises(OSError, match="no such file"):
        list(retrying.Retried(other, ("SLOW_DOWN",), wait_s=0)())
    assert other.count == 99


def test_reads_of_a_plan_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying.Retried, "wait_s", 0.0)

    class Source(datasource.Datasource):
        def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[datasource.ReadTask]:
            known = data.block.BlockMetadata(num_rows=3, size_bytes=24)
            return [datasource.ReadTask(Flaky(OSError("it passes"), at=1, count=1), known)]

    made = context.DataContext(retried_io_errors=["it passes"])
    with context.DataContext.current(made):
        assert data.read_datasource(Source()).take_all() == [{"n": 0}, {"n": 1}, {"n": 2}]
    with context.DataContext.current(context.DataContext()), pytest.raises(OSError, match="it passes"):
        data.read_datasource(Source()).take_all()


# ---- where it runs ----


def test_labels_are_met_as_core_says() -> None:
    labels = {"zone": "a", "kind": "cpu"}
    met = {
        (("zone", "a"),): True,
        (("zone", "b"),): False,
        (("zone", "a"), ("kind", "gpu")): False,
        (("zone", "!b"),): True,
        (("zone", "!a"),): False,
        (("zone", "in(b, a)"),): True,
        (("zone", "!in(b,a)"),): False,
        (("other", "a"),): False,
        (("other", "!a"),): True,
        (): True,
    }
    assert {selector: placing.meets(dict(selector), labels) for selector in met} == met


def test_all_stages_ask_for_the_labels_of_the_run() -> None:
    own = stages.Resources(options={"label_selector": {"zone": "b", "disk": "ssd"}})
    read = stages.Read(name="Read", parts=[])
    mapped = stages.Map(name="Map", input=read, transforms=(), resources=own)
    fixed = stages.Map(
        name="Fixed", input=mapped, transforms=(), resources=stages.Resources(options={"scheduling_strategy": object()})
    )
    last = placing.placed(stages.Limit(input=fixed, row_count=1), {"zone": "a", "kind": "cpu"})
    of_stage = {one.name: getattr(one, "resources", None) for one in stages.ordered(last)}
    asked = {name: one and one.options.get("label_selector") for name, one in of_stage.items()}
    assert asked == {
        "Read": {"zone": "a", "kind": "cpu"},
        "Map": {"zone": "b", "disk": "ssd", "kind": "cpu"},
        "Fixed": None,
        "Limit": None,
    }
    assert placing.placed(last, {}) is last


def test_what_the_driver_has_alone_is_read_and_written_there(tmp_path: pathlib.Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    ds = data.read_parquet(f"local://{tmp_path}", ray_remote_args={"scheduling_strategy": "SPREAD"})
    node: Any = ds._node
    assert isinstance(node.means.resources.options["scheduling_strategy"], placing.OnDriver)
    assert ds.take_all() == [{"a": 1}]
    written = physical.stage_of(logical.Write(input=node, sink=data.datasink.DummyOutputDatasink()), physical.Sizes())
    assert isinstance(written, stages.Write) and written.resources == stages.Resources()

    class Here(data.datasink.DummyOutputDatasink):
        @property
        def supports_distributed_writes(self) -> bool:
            return False

    written = physical.stage_of(logical.Write(input=node, sink=Here()), physical.Sizes())
    assert isinstance(written, stages.Write)
    assert isinstance(written.resources.options["scheduling_strategy"], placing.OnDriver)


# ---- callbacks ----


class Told(data.ExecutionCallback):
    events: ClassVar[list[Any]] = []

    def before_execution_starts(self, executor: Any) -> None:
        self.events.append(("begin", executor.name, executor.stats()["state"]))

    def after_execution_succeeds(self, executor: Any) -> None:
        self.events.append(("end", executor.stats()["state"], executor.stats()["total"]["rows_out"]))

    def after_execution_fails(self, executor: Any, error: BaseException) -> None:
        self.events.append(("failed", executor.stats()["state"], str(error)))


class Refuses(data.ExecutionCallback):
    def before_execution_starts(self, executor: Any) -> None:
        raise PermissionError(f"{executor.name} is not to run")


def test_callbacks_are_told_of_runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Told, "events", [])
    made = context.DataContext(custom_execution_callback_classes=[Told])
    with context.DataContext.current(made):
        ds = data.range(10).with_column("x", 10 / (col("id") - 4))
        ds.set_name("mine")
        with pytest.raises(ZeroDivisionError):
            ds.materialize()
        data.range(5).materialize()
        data.range(5).take(2)
    kinds = [(event[0], *event[1:-1]) for event in Told.events]
    assert kinds == [
        ("begin", "mine"),
        ("failed", "failed"),
        ("begin", None),
        ("end", "ended"),
        ("begin", None),
        ("end", "ended"),
    ]
    assert (Told.events[3][-1], Told.events[5][-1]) == (5, 2)


def test_a_callback_may_refuse_a_run() -> None:
    with context.DataContext.current(context.DataContext(custom_execution_callback_classes=[Refuses])):
        ds = data.range(3)
        ds.set_name("mine")
        with pytest.raises(PermissionError, match="mine is not to run"):
            ds.take_all()


# ---- statistics before a run ----


def test_statistics_are_empty_before_a_run() -> None:
    ds = data.range(3)
    assert (ds.stats(), str(ds.stats()), repr(ds.get_stats_summary()), str(ds.iterator().stats())) == ({}, "", "", "")
    with pytest.raises(ValueError, match="has not been run yet"):
        ds.errors()


# ---- calls of one actor ----


def test_a_function_that_is_alone_has_one_thread_in_it_at_a_time() -> None:
    inside: list[int] = []
    most = []

    def slow(value: int) -> int:
        inside.append(value)
        most.append(len(inside))
        time.sleep(0.002)
        inside.remove(value)
        return value

    def each(value: int) -> Iterator[int]:
        for _ in range(3):
            yield slow(value)

    for call, gives in ((slow, lambda found: found), (each, list)):
        alone = calls.one_at_a_time(call)
        threads = [threading.Thread(target=lambda number=number: gives(alone(number))) for number in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert (max(most), len(most)) == (1, 6 + 18)


def test_calls_are_alone_unless_it_is_said_that_they_may_be_concurrent() -> None:
    class Same:
        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return row

    def is_alone(compute: Any, method: str) -> bool:
        ds = getattr(data.range(3), method)(Same, compute=compute)
        stage: Any = physical.stage_of(ds._node, physical.Sizes())
        found: bool = stage.transforms[-1].make.__self__.is_alone
        return found

    of = data.ActorPoolStrategy
    for method in ("map", "map_batches"):
        assert is_alone(of(size=1, max_concurrent_calls_per_actor=4), method)
        assert not is_alone(of(size=1, max_concurrent_calls_per_actor=4, enable_true_multi_threading=True), method)
        assert not is_alone(of(size=1), method)


def test_how_many_calls_an_actor_is_sent_may_be_a_setting() -> None:
    class Same:
        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return row

    def sent(compute: Any) -> int:
        found: Any = data.range(3).map(Same, compute=compute)._node
        return (
            found.means.compute.tasks_per_actor
            if found.means.compute is not None
            else stages.ActorPool().tasks_per_actor
        )

    of = data.ActorPoolStrategy
    assert [sent(of(size=1)), sent(None)] == [2, 2]
    with context.DataContext.current(context.DataContext(max_tasks_in_flight_per_actor=7)):
        assert [sent(of(size=1)), sent(None), sent(of(size=1, max_tasks_in_flight_per_actor=3))] == [7, 7, 3]
