"""Graphs of calls on both engines: ordinary and compiled execution, errors, limits, ends."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel.dag import InputNode, MultiOutputNode

pytestmark = pytest.mark.usefixtures("engine")


@umbel.remote
def add(x: Any, y: Any) -> Any:
    return x + y


@umbel.remote
def total(numbers: list[Any]) -> Any:
    return sum(umbel.get(numbers))


@umbel.remote(num_cpus=0)
class Worker:
    def __init__(self, step: int = 1) -> None:
        self.step = step
        self.seen: list[Any] = []

    def add(self, x: Any, y: Any = 0) -> Any:
        if x == "fail":
            raise KeyError("asked to")
        self.seen.append(x)
        return x + self.step + y

    def echo(self, x: Any) -> Any:
        return x

    def history(self) -> Any:
        return self.seen

    def unpicklable(self, _x: Any) -> Any:
        return threading.Lock()

    @umbel.method(num_returns=2)
    def pair(self, x: Any) -> Any:
        return x, -x

    def hold(self, path: str) -> str:
        while not os.path.exists(path):
            time.sleep(0.005)
        return path

    def put(self, x: Any) -> Any:
        return [umbel.put(x)]

    def name(self, _x: Any) -> Any:
        return umbel.get_runtime_context().get_actor_id()


def chain(*workers: Any) -> Any:
    with InputNode() as given:
        node = given
        for worker in workers:
            node = worker.add.bind(node)
    return node


# Ordinary execution


def test_functions_and_values() -> None:
    with InputNode() as given:
        graph = add.bind(add.options(name="first").bind(given, 1), given)
    assert umbel.get(graph.execute(10)) == 21
    assert umbel.get(graph.execute(20)) == 41


def test_parts_of_the_input() -> None:
    with InputNode() as given:
        graph = MultiOutputNode([add.bind(given[0], given.x), add.bind(given["x"], given[0])])
    assert umbel.get(graph.execute(1, x=2)) == [3, 3]
    with InputNode() as given:
        graph = add.bind(given[0], given[1])
    assert umbel.get(graph.execute([1, 2])) == 3
    with InputNode() as given:
        graph = add.bind(given.real, given.imag)
    assert umbel.get(graph.execute(3 + 4j)) == 7


def test_nodes_in_containers_become_references_there() -> None:
    with InputNode() as given:
        graph = total.bind([add.bind(given, 1), add.bind(given, 2)])
    assert umbel.get(graph.execute(10)) == 23


def test_each_execution_makes_the_actors_of_its_classes() -> None:
    with InputNode() as given:
        worker = Worker.bind(10)
        worker.add.bind(given)  # runs before the next, as it was bound before
        graph = add.bind(worker.add.bind(given), total.bind([worker.echo.bind(0)]))
    assert umbel.get(graph.execute(1)) == umbel.get(graph.execute(1)) == 11
    worker = Worker.options(num_cpus=0).bind(10)
    worker.add.bind(1)
    assert umbel.get(worker.history.bind().execute()) == [1]
    assert umbel.get(Worker.bind(5).execute().add.remote(1)) == 6


def test_methods_of_actors_that_exist() -> None:
    worker = Worker.remote()
    with InputNode() as given:
        first, second = worker.pair.bind(given)
        graph = MultiOutputNode([worker.add.bind(first), worker.add.bind(second)])
    assert umbel.get(graph.execute(5)) == [6, -4]
    with pytest.raises(KeyError):
        umbel.get(chain(worker, worker).execute("fail"))


# Compiled execution


@pytest.mark.parametrize("count", [1, 3])
def test_chain(count: int) -> None:
    graph = chain(*[Worker.remote() for _ in range(count)]).experimental_compile()
    assert [umbel.get(graph.execute(number)) for number in range(20)] == [number + count for number in range(20)]
    graph.teardown()


def test_branches_join_and_actors_repeat() -> None:
    one, two = Worker.remote(), Worker.remote(100)
    with InputNode() as given:
        left, right = one.add.bind(given), two.add.bind(given)
        graph = MultiOutputNode([one.add.bind(left, y=right), right, right, two.add.bind(left, right)])
    compiled = graph.experimental_compile()
    for number in range(5):
        assert umbel.get(compiled.execute(number)) == [
            (number + 1) + 1 + (number + 100), number + 100, number + 100, (number + 1) + 100 + (number + 100)
        ]  # fmt: skip
    compiled.teardown()


def test_parts_of_the_input_and_bound_values_when_compiled() -> None:
    worker, other = Worker.remote(), Worker.remote()
    with InputNode() as given:
        graph = MultiOutputNode([worker.add.bind(given[0], given.x), other.add.bind(given.x, umbel.put(5))])
    compiled = graph.experimental_compile()
    assert umbel.get(compiled.execute(1, x=2)) == [4, 8]
    with pytest.raises(ValueError, match="executed with 1 positional arguments and the names x, got 2"):
        compiled.execute(1, 2)
    assert umbel.get(compiled.execute(umbel.put(2), x=2)) == [5, 8]
    compiled.teardown()


def test_several_results_of_a_method_when_compiled() -> None:
    worker, other = Worker.remote(), Worker.remote()
    with InputNode() as given:
        first, second = worker.pair.bind(given)
        graph = MultiOutputNode([other.add.bind(second), first])
    compiled = graph.experimental_compile()
    assert umbel.get(compiled.execute(5)) == [-4, 5]
    compiled.teardown()


def test_an_error_is_the_value_of_its_execution_only() -> None:
    one, two = Worker.remote(), Worker.remote()
    compiled = chain(one, two).experimental_compile()
    refs = [compiled.execute(value) for value in (1, "fail", 2)]
    assert umbel.get(refs[0]) == 3
    with pytest.raises(KeyError, match="asked to") as caught:
        umbel.get(refs[1])
    assert isinstance(caught.value, exceptions.UmbelTaskError)
    assert umbel.get(refs[2]) == 4
    compiled.teardown()
    assert umbel.get(two.history.remote()) == [2, 3]


def test_an_error_reaches_every_output_that_needs_it_and_no_other() -> None:
    one, two = Worker.remote(), Worker.remote()
    with InputNode() as given:
        graph = MultiOutputNode([two.echo.bind(one.add.bind(given)), two.echo.bind(given)])
    compiled = graph.experimental_compile()
    failed, fine = compiled.execute("fail")
    assert umbel.get(fine) == "fail"
    with pytest.raises(KeyError):
        umbel.get(failed)
    compiled.teardown()


def test_a_result_that_cannot_be_pickled_is_an_error() -> None:
    worker, other = Worker.remote(), Worker.remote()
    with InputNode() as given:
        compiled = other.echo.bind(worker.unpicklable.bind(given)).experimental_compile()
    with pytest.raises(TypeError, match="cannot"):
        umbel.get(compiled.execute(1))
    with pytest.raises(TypeError, match="cannot serialize"):
        compiled.execute(threading.Lock())
    with pytest.raises(TypeError, match="cannot"):
        umbel.get(compiled.execute(2))
    compiled.teardown()


@pytest.mark.parametrize("size", [10, 90_000, 150_000, 3_000_000])
def test_values_of_any_size(size: int) -> None:
    compiled = chain_of_echoes()
    refs = [compiled.execute(bytes([number]) * size) for number in range(4)]
    assert [umbel.get(ref) == bytes([number]) * size for number, ref in enumerate(refs)] == [True] * 4
    compiled.teardown()


def chain_of_echoes(**options: Any) -> Any:
    one, two = Worker.remote(), Worker.remote()
    with InputNode() as given:
        graph = two.echo.bind(one.echo.bind(given))
    return graph.experimental_compile(**options)


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_arrays(size: int) -> None:
    numpy = pytest.importorskip("numpy")
    compiled = chain_of_echoes()
    arrays = [umbel.get(compiled.execute({"array": numpy.full(size, number)}))["array"] for number in range(12)]
    for number, array in enumerate(arrays):  # none is overwritten by a later one
        assert (array == number).all()
        assert array.shape == (size,)
    compiled.teardown()


def test_references_and_handles_inside_values() -> None:
    worker, other = Worker.remote(), Worker.remote()
    with InputNode() as given:
        compiled = other.echo.bind(worker.put.bind(given)).experimental_compile()
    for number in range(3):
        (inner,) = umbel.get(compiled.execute(number))
        gc.collect()
        assert umbel.get(inner) == number
    compiled.teardown()
    compiled = chain_of_echoes()
    (handle,) = umbel.get(compiled.execute([worker]))
    assert handle == worker
    compiled.teardown()


def test_a_result_is_read_once_and_stays_here() -> None:
    compiled = chain_of_echoes()
    ref = compiled.execute(1)
    for attempt in (lambda: copy.copy(ref), lambda: copy.deepcopy(ref), lambda: pickle.dumps(ref)):
        with pytest.raises(ValueError, match="cannot be"):
            attempt()
    with pytest.raises(TypeError):
        umbel.wait([ref])
    assert umbel.get(ref) == 1
    with pytest.raises(ValueError, match="read once"):
        umbel.get(ref)
    with pytest.raises(ValueError, match="list of ObjectRefs"):
        umbel.get([umbel.put(1), compiled.execute(2)])
    compiled.teardown()


def test_results_may_be_read_out_of_order_up_to_a_limit() -> None:
    compiled = chain_of_echoes(_max_buffered_results=2)
    refs = [compiled.execute(number) for number in range(4)]
    with pytest.raises(exceptions.UmbelCgraphCapacityExceeded, match="_max_buffered_results"):
        umbel.get(refs[3])
    assert [umbel.get(refs[number]) for number in (2, 0, 3, 1)] == [2, 0, 3, 1]
    compiled.teardown()


def test_no_more_executions_than_may_be_in_flight() -> None:
    compiled = chain_of_echoes(_max_inflight_executions=2)
    refs = [compiled.execute(number) for number in range(2)]
    with pytest.raises(exceptions.UmbelCgraphCapacityExceeded, match="_max_inflight_executions"):
        compiled.execute(2)
    assert umbel.get(refs) == [0, 1]
    assert umbel.get(compiled.execute(3)) == 3
    compiled.teardown()


def test_results_that_nobody_wants_hold_nothing_up() -> None:
    worker = Worker.remote()
    compiled = chain(worker).experimental_compile(_max_inflight_executions=2)
    for number in range(10):
        compiled.execute(number)
    assert umbel.get(compiled.execute(10)) == 11
    compiled.teardown()
    assert umbel.get(worker.history.remote()) == list(range(11))


def test_teardown_leaves_the_actors_and_ends_the_graph() -> None:
    workers = [Worker.remote(), Worker.remote()]
    compiled = chain(*workers).experimental_compile()
    ref = compiled.execute(1)
    assert umbel.get(compiled.execute(2)) == 4
    compiled.teardown()
    compiled.teardown()
    assert umbel.get(ref) == 3, "it had come"
    with pytest.raises(exceptions.UmbelChannelError, match="torn down"):
        compiled.execute(1)
    assert umbel.get([worker.add.remote(1) for worker in workers]) == [2, 2]
    again = chain(*workers).experimental_compile()
    assert umbel.get(again.execute(1)) == 3
    again.teardown(kill_actors=True)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(workers[0].add.remote(1))


def test_a_graph_is_compiled_once() -> None:
    graph = chain(Worker.remote())
    compiled = graph.experimental_compile()
    with pytest.raises(ValueError, match="compiled before"):
        graph.experimental_compile()
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(compiled)
    with pytest.raises(exceptions.UnsupportedFeature):
        compiled.visualize()
    compiled.teardown()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"_max_inflight_executions": 0}, ValueError),
        ({"_max_buffered_results": 1.5}, TypeError),
        ({"_buffer_size_bytes": -1}, ValueError),
        ({"_submit_timeout": "soon"}, TypeError),
        ({"enable_asyncio": 1}, TypeError),
        ({"_overlap_gpu_communication": True}, exceptions.UnsupportedFeature),
        ({"_default_communicator": "nccl"}, exceptions.UnsupportedFeature),
    ],
)
def test_options_that_make_no_sense_say_so(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options)) if "timeout" not in next(iter(options)) else "time-out"):
        chain(Worker.remote()).experimental_compile(**options)


def test_asyncio() -> None:
    one, two = Worker.remote(), Worker.remote()
    with InputNode() as given:
        first = one.add.bind(given)
        graph = MultiOutputNode([first, two.add.bind(first)])
    compiled = graph.experimental_compile(enable_asyncio=True)

    async def run() -> list[Any]:
        pairs = [await compiled.execute_async(number) for number in range(5)]
        results = [(await first, await second) for first, second in pairs]
        with pytest.raises(ValueError, match="awaited once"):
            await pairs[0][0]
        for failed in await compiled.execute_async("fail"):
            with pytest.raises(KeyError):
                await failed
        return results

    assert asyncio.run(run()) == [(number + 1, number + 2) for number in range(5)]
    with pytest.raises(ValueError, match="execute_async"):
        compiled.execute(1)
    compiled.teardown()
    compiled = chain(one).experimental_compile()
    with pytest.raises(ValueError, match="enable_asyncio"):
        asyncio.run(compiled.execute_async(1))
    compiled.teardown()


def test_a_refused_call_is_the_error_of_its_execution() -> None:
    limited = Worker.options(max_pending_calls=1).remote()
    compiled = chain(limited).experimental_compile()
    assert umbel.get(compiled.execute(1)) == 2
    with pytest.raises(KeyError):
        umbel.get(compiled.execute("fail"))
    assert umbel.get(compiled.execute(2)) == 3
    compiled.teardown()


def test_asyncio_with_too_many_in_flight(tmp_path: Path) -> None:
    worker = Worker.remote()
    with InputNode() as given:
        graph = worker.hold.bind(given)
    compiled = graph.experimental_compile(enable_asyncio=True, _max_inflight_executions=1)
    path = str(tmp_path / "go")

    async def run() -> Any:
        first = await compiled.execute_async(path)
        if engine_has_processes():
            with pytest.raises(exceptions.UmbelCgraphCapacityExceeded):
                await compiled.execute_async(path)
        Path(path).touch()
        return await first

    if not engine_has_processes():
        Path(path).touch()  # calls run when they are made
    assert asyncio.run(run()) == path
    compiled.teardown()


def engine_has_processes() -> bool:
    return umbel.get(umbel.remote(os.getpid).remote()) != os.getpid()


def test_threads_may_share_a_graph() -> None:
    compiled = chain(Worker.remote(), Worker.remote()).experimental_compile()
    results: dict[int, list[int]] = {}

    def run(offset: int) -> None:
        results[offset] = [umbel.get(compiled.execute(offset + number)) - offset for number in range(30)]

    threads = [threading.Thread(target=run, args=(1000 * index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(results.values()) == [list(range(2, 32))] * 3
    compiled.teardown()


def test_methods_know_their_actor() -> None:
    worker = Worker.remote()
    with InputNode() as given:
        compiled = worker.name.bind(given).experimental_compile()
    assert umbel.get(compiled.execute(1)) == worker._actor_id.hex()
    compiled.teardown()


def test_a_task_may_compile_a_graph() -> None:
    @umbel.remote
    def run(worker: Any) -> Any:
        compiled = chain(worker, worker).experimental_compile()
        return [umbel.get(compiled.execute(number)) for number in range(3)]

    worker = Worker.remote()
    assert umbel.get(run.remote(worker)) == [2, 3, 4]
    assert umbel.get(worker.history.remote()) == [0, 1, 1, 2, 2, 3]
