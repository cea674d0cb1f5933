"""What settings do where tasks run: on which nodes these are, what functions see, who is called."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pytest

import umbel
from umbel import cluster_utils, data
from umbel.data import block, context, datasink, datasource
from umbel.data.expressions import col

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """Ids by zone: this process is a driver of "a"."""
    cluster = cluster_utils.Cluster(
        initialize_head=True, connect=True, head_node_args={"num_cpus": 2, "labels": {"zone": "a"}}
    )
    try:
        cluster.add_node(num_cpus=2, labels={"zone": "b"})
        yield {one["Labels"]["zone"]: one["NodeID"] for one in umbel.nodes()}
    finally:
        umbel.shutdown()
        cluster.shutdown()


def node_id() -> str:
    return umbel.get_runtime_context().get_node_id()


def at(_row: Any) -> dict[str, Any]:
    return {"at": node_id()}


class At:
    def __call__(self, row: Any) -> dict[str, Any]:
        return at(row)


class Driver(datasource.Datasource):
    """Of the driver's machine only: rows say where they were read."""

    supports_distributed_reads = False  # type: ignore[assignment]

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[datasource.ReadTask]:
        def read() -> Iterator[pa.Table]:
            time.sleep(0.05)  # so that other workers would have the time to come
            yield pa.table({"at": [node_id()]})

        return [datasource.ReadTask(read, block.BlockMetadata(num_rows=1)) for _ in range(parallelism)]


class Kept(datasink.Datasink[str]):
    supports_distributed_writes = False  # type: ignore[assignment]

    def write(self, blocks: Any, ctx: datasink.WriteContext) -> str:
        assert list(blocks)
        return node_id()

    def on_write_complete(self, write_result: datasink.WriteResult[str]) -> None:
        self.found = write_result.write_returns


def found_at(ds: data.Dataset) -> set[str]:
    return {row["at"] for row in ds.take_all()}


# ---- which nodes ----


def test_what_the_driver_has_alone_is_read_and_written_on_its_node(nodes: dict[str, str]) -> None:
    ds = data.read_datasource(Driver(), override_num_blocks=12)
    assert found_at(ds) == {nodes["a"]}

    @umbel.remote(label_selector={"zone": "b"})
    def elsewhere(given: data.Dataset) -> tuple[str, set[str]]:
        return node_id(), found_at(given)

    assert umbel.get(elsewhere.remote(ds)) == (nodes["b"], {nodes["a"]})
    (split,) = ds.streaming_split(1)
    assert {row["at"] for row in split.iter_rows()} == {nodes["a"]}
    sink = Kept()
    data.range(12, override_num_blocks=12).map(at).repartition(12).write_datasink(sink)
    assert {*sink.found} == {nodes["a"]}
    with pytest.raises(ValueError, match=r"only the driver's machine has, and its node has not .*'CPU': 5"):
        data.read_datasource(Driver(), num_cpus=5).take_all()


@pytest.mark.parametrize("zone", ["a", "b"])
def test_a_run_is_on_nodes_with_its_labels(nodes: dict[str, str], zone: str) -> None:
    options = data.ExecutionOptions(label_selector={"zone": zone})
    with context.DataContext.current(context.DataContext(execution_options=options)):
        ds = data.range(12, override_num_blocks=12)
        assert found_at(ds.map(at)) == {nodes[zone]}
        assert found_at(ds.map(At)) == {nodes[zone]}
        grouped = ds.with_column("k", col("id") % 5).groupby("k").map_groups(lambda group: {"at": [node_id()]})
        assert found_at(grouped) == {nodes[zone]}
        other = {"a": "b", "b": "a"}[zone]
        assert found_at(ds.map(at, label_selector={"zone": other})) == {nodes[other]}


def test_actors_leave_room_for_tasks_on_the_nodes_that_a_run_may_be_on(nodes: dict[str, str]) -> None:
    options = data.ExecutionOptions(label_selector={"zone": "b"})
    with context.DataContext.current(context.DataContext(execution_options=options)):
        ds = data.range(40, override_num_blocks=20).map(at).map(At, compute=data.ActorPoolStrategy(min_size=3))
        assert found_at(ds) == {nodes["b"]}


# ---- what functions see ----


class Asked:
    def __init__(self) -> None:
        self.at_first = context.DataContext.get_current().get_config("mine")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"at": [self.at_first, context.DataContext.get_current().get_config("mine")]}


def test_functions_see_the_settings_of_their_dataset(nodes: dict[str, str]) -> None:
    made = context.DataContext(custom_execution_callback_classes=[Told])
    made.set_config("mine", 7)
    with context.DataContext.current(made):
        ds = data.range(2).map(lambda row: {"at": context.DataContext.get_current().get_config("mine")})
        pool = data.range(2).map(Asked)
    assert [row["at"] for row in ds.take_all()] == [7, 7]
    assert [row["at"] for row in pool.take_all()] == [[7, 7], [7, 7]]
    assert context.DataContext.get_current().get_config("mine") is None


# ---- callbacks ----


class Told(data.ExecutionCallback):
    events: ClassVar[list[tuple[str, Any]]] = []

    def before_execution_starts(self, executor: Any) -> None:
        self.events.append(("begin", executor.stats()["state"]))

    def on_execution_step(self, executor: Any) -> None:
        if self.events[-1][0] != "step":
            self.events.append(("step", executor.stats()["state"]))

    def after_execution_succeeds(self, executor: Any) -> None:
        self.events.append(("end", executor.stats()["state"]))

    def after_execution_fails(self, executor: Any, error: BaseException) -> None:
        self.events.append(("failed", isinstance(error, ZeroDivisionError)))


class Stops(data.ExecutionCallback):
    def on_execution_step(self, executor: Any) -> None:
        raise TimeoutError("enough")


def test_callbacks_are_told_of_runs_on_workers(nodes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Told, "events", [])
    went_well = [("begin", "running"), ("step", "running"), ("end", "ended")]
    with context.DataContext.current(context.DataContext(custom_execution_callback_classes=[Told])):
        ds = data.range(3).map(dict)
        ds.materialize()
        assert len(ds.take_all()) == 3
        assert len(ds.take(1)) == 1
        ds.write_datasink(datasink.DummyOutputDatasink())
        assert Told.events == went_well * 4
        Told.events.clear()
        for run in (data.Dataset.materialize, data.Dataset.take_all):
            with pytest.raises(ZeroDivisionError):
                run(data.range(3).map(lambda row: {"x": 1 // row["id"]}))
            assert (Told.events[0], Told.events[-1]) == (("begin", "running"), ("failed", True))
            Told.events.clear()


def test_a_callback_may_end_a_run(nodes: dict[str, str]) -> None:
    with context.DataContext.current(context.DataContext(custom_execution_callback_classes=[Stops])):
        for run in (data.Dataset.materialize, data.Dataset.take_all):
            with pytest.raises(TimeoutError, match="enough"):
                run(data.range(3).map(dict))


# ---- calls of one actor ----


class Busy:
    """How many calls are under way at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.count += 1
        time.sleep(0.05)
        found = self.count
        with self.lock:
            self.count -= 1
        return {"at": found}


@pytest.mark.parametrize("is_concurrent", [False, True])
def test_an_actor_calls_its_function_once_at_a_time_unless_told_otherwise(
    nodes: dict[str, str], is_concurrent: bool
) -> None:
    pool = data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=4, enable_true_multi_threading=is_concurrent)
    ds = data.range(8, override_num_blocks=8).materialize().map(Busy, compute=pool)
    most = max(row["at"] for row in ds.take_all())
    assert most > 1 if is_concurrent else most == 1
