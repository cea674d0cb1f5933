"""Objects: snapshots, references inside values, get and wait. Numbers are those of the list of semantics."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import queue
from typing import Any

import pytest

import umbel
from umbel import exceptions

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.usefixtures("engine")


@umbel.remote
def identity(value: Any) -> Any:
    return value


@umbel.remote
def fail(text: str = "on purpose") -> None:
    raise ValueError(text)


def test_put_takes_a_snapshot() -> None:
    """25"""
    data = {"a": [1, 2]}
    ref = umbel.put(data)
    data["a"].append(3)
    assert umbel.get(ref) == {"a": [1, 2]}


def test_each_get_gives_a_value_of_its_own() -> None:
    ref = umbel.put([1])
    umbel.get(ref).append(2)
    assert umbel.get(ref) == [1]


@pytest.mark.parametrize("count", [10, 1_000_000])
def test_arrays_come_back_read_only_whatever_their_size(count: int) -> None:
    """23"""
    array = umbel.get(umbel.put(np.arange(count)))
    assert array[-1] == count - 1
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_view_outlives_its_reference() -> None:
    """23"""
    ref = umbel.put(np.full(300_000, 7))
    view = umbel.get(ref)[100:]
    del ref
    gc.collect()
    others = [umbel.put(np.zeros(300_000)) for _ in range(20)]
    assert view.sum() == 7 * 299_900
    del others


@pytest.mark.parametrize(
    "value",
    [0, -1.5, True, None, "text", b"bytes", 1j, (1, "a"), [1, [2]], {"k": {1, 2}}, frozenset("ab"), range(3), "x" *
    200_000,
     b"y" * 300_000, bytearray(b"z" * 50), Exception("a value"), int, len],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_values_survive_put_task_and_get(value: Any) -> None:
    there_and_back = umbel.get(identity.remote(umbel.put(value)))
    assert there_and_back == value or repr(there_and_back) == repr(value)  # exceptions compare by identity


def test_put_of_a_reference_is_refused() -> None:
    with pytest.raises(TypeError, match="list"):
        umbel.put(umbel.put(1))


def test_references_inside_values_stay_references() -> None:
    """15"""
    inner = umbel.put("deep")
    outer = umbel.put({"inner": [inner]})
    del inner
    gc.collect()
    assert umbel.get(umbel.get(outer)["inner"][0]) == "deep"


def test_a_reference_travels_through_three_tasks() -> None:
    """19"""

    @umbel.remote
    def wrap(box: list[Any]) -> list[Any]:
        return [box]

    ref = umbel.put("carried")
    box: Any = [ref]
    del ref
    for _ in range(3):
        box = umbel.get(wrap.remote(box))
    gc.collect()
    for _ in range(3):
        box = box[0]
    assert umbel.get(box[0]) == "carried"


def test_a_task_may_return_what_it_has_put() -> None:
    """22"""

    @umbel.remote
    def make() -> Any:
        return umbel.put(np.ones(200_000))

    assert umbel.get(umbel.get(make.remote())).sum() == 200_000


def test_an_actor_keeps_what_it_was_lent() -> None:
    """19"""

    @umbel.remote
    class Keeper:
        def keep(self, box: list[Any]) -> None:
            self.box = box

        def read(self) -> Any:
            return umbel.get(self.box[0])

    keeper = Keeper.remote()
    ref = umbel.put("kept")
    umbel.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    assert umbel.get(keeper.read.remote()) == "kept"


def test_an_actor_keeps_a_view_of_an_argument() -> None:
    @umbel.remote
    class Keeper:
        def keep(self, array: Any) -> None:
            self.array = array

        def total(self) -> float:
            return float(self.array.sum())

    keeper = Keeper.remote()
    ref = umbel.put(np.ones(400_000))
    umbel.get(keeper.keep.remote(ref))
    umbel.get(keeper.keep.remote(np.ones(400_000)))
    del ref
    gc.collect()
    others = [umbel.put(np.zeros(400_000)) for _ in range(10)]
    assert umbel.get(keeper.total.remote()) == 400_000
    del others


def test_references_are_equal_by_id_and_hash() -> None:
    ref = umbel.put(1)
    twin = umbel.get(umbel.put([ref]))[0]
    assert twin == ref
    assert hash(twin) == hash(ref)
    assert copy.copy(ref) is ref
    assert ref != umbel.put(1)
    assert umbel.ObjectRef.from_hex(ref.hex()) == ref
    assert len(ref.binary()) == 28
    assert not ref.is_nil()
    assert umbel.ObjectRef.nil().is_nil()


def test_a_reference_pickled_by_hand_keeps_its_object() -> None:
    """20"""
    ref = umbel.put("pickled")
    data = pickle.dumps(ref)
    del ref
    gc.collect()
    assert umbel.get(pickle.loads(data)) == "pickled"


def test_get_of_a_list_keeps_order_and_duplicates() -> None:
    a, b = umbel.put("a"), identity.remote("b")
    assert umbel.get([b, a, b]) == ["b", "a", "b"]
    assert umbel.get([]) == []


@pytest.mark.parametrize("bad", [5, None, "x", (1,), {1: 2}], ids=repr)
def test_get_names_what_it_cannot_get(bad: Any) -> None:
    with pytest.raises(ValueError, match="ObjectRef") as caught:
        umbel.get(bad)
    assert repr(bad)[:10] in str(caught.value)


def test_get_names_the_position_of_a_bad_item() -> None:
    with pytest.raises(ValueError, match="position 1"):
        umbel.get([umbel.put(1), 2])


@pytest.mark.parametrize("bad", ["soon", float("nan"), True])
def test_a_bad_timeout_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        umbel.get(umbel.put(1), timeout=bad)


def test_get_times_out_and_says_what_it_waits_for(signal: Any) -> None:
    ref = signal.wait.remote()
    with pytest.raises(exceptions.GetTimeoutError, match="wait"):
        umbel.get(ref, timeout=0.05)
    with pytest.raises(TimeoutError):
        umbel.get(ref, timeout=0)
    signal.send.remote()
    assert umbel.get(ref) is True


def test_get_raises_the_first_error_at_once(signal: Any) -> None:
    """7"""
    slow = signal.wait.remote()
    with pytest.raises(ValueError, match="early"):
        umbel.get([slow, fail.remote("early")], timeout=20)
    signal.send.remote()
    assert umbel.get(slow) is True


def test_wait_returns_no_more_than_asked_and_keeps_order() -> None:
    refs = [umbel.put(i) for i in range(5)]
    ready, rest = umbel.wait(refs[::-1], num_returns=2)
    assert ready == refs[:-3:-1]
    assert rest == refs[2::-1]


def test_wait_counts_failures_as_ready() -> None:
    ref = fail.remote()
    assert umbel.wait([ref], timeout=20) == ([ref], [])


def test_wait_gives_what_there_is_when_time_is_up(signal: Any) -> None:
    held, done = signal.wait.remote(), umbel.put(1)
    assert umbel.wait([held, done], num_returns=2, timeout=0.05) == ([done], [held])
    assert umbel.wait([held], timeout=0) == ([], [held])
    signal.send.remote()
    assert umbel.wait([held], timeout=20) == ([held], [])


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "words"),
    [
        (lambda a, b: a, {}, TypeError, "list"),
        (lambda a, b: (a, b), {}, TypeError, "tuple"),
        (lambda a, b: [a, 3], {}, TypeError, "position 1"),
        (lambda a, b: [a, a], {}, ValueError, "once"),
        (lambda a, b: [a, b], {"num_returns": 0}, ValueError, "got 0"),
        (lambda a, b: [a, b], {"num_returns": 3}, ValueError, "got 3"),
        (lambda a, b: [a, b], {"num_returns": 1.5}, ValueError, "got 1.5"),
        (lambda a, b: [a, b], {"timeout": -1}, ValueError, "got -1"),
        (lambda a, b: [a, b], {"timeout": "x"}, TypeError, "got 'x'"),
    ],
)
def test_wait_refuses_bad_arguments(arguments: Any, options: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        umbel.wait(arguments(umbel.put(1), umbel.put(2)), **options)


def test_wait_inside_a_loop_sees_every_result_once() -> None:
    pending = [identity.remote(i) for i in range(50)]
    seen = []
    while pending:
        done, pending = umbel.wait(pending, num_returns=min(3, len(pending)), timeout=20)
        seen += umbel.get(done)
    assert sorted(seen) == list(range(50))


def test_references_can_be_awaited() -> None:
    async def main() -> list[Any]:
        refs = [identity.remote(i) for i in range(20)]
        return list(await asyncio.gather(*[_await(r) for r in refs], return_exceptions=True))

    async def _await(ref: Any) -> Any:
        return await ref

    assert asyncio.run(main()) == list(range(20))


def test_an_awaited_failure_raises() -> None:
    async def main() -> None:
        await fail.remote("awaited")

    with pytest.raises(ValueError, match="awaited"):
        asyncio.run(main())


def test_a_future_of_a_reference() -> None:
    assert identity.remote(3).future().result(timeout=20) == 3
    with pytest.raises(ValueError, match="future"):
        fail.remote("future").future().result(timeout=20)


def test_a_futures_callback_may_wait_for_results() -> None:
    answers: queue.Queue[int] = queue.Queue()
    identity.remote(3).future().add_done_callback(lambda f: answers.put(umbel.get(identity.remote(f.result() + 1))))
    assert answers.get(timeout=20) == 4


def test_unpicklable_values_name_the_part_at_fault() -> None:
    import threading

    class Service:
        def __init__(self) -> None:
            self.settings = {"lock": threading.Lock()}

    with pytest.raises(TypeError, match=r"\.settings\['lock'\] \(_thread\.lock\)"):
        umbel.put(Service())
    with pytest.raises(TypeError, match=r"lock"):
        identity.remote([Service()])


def test_cluster_facts() -> None:
    assert umbel.cluster_resources()["CPU"] == 4
    nodes = umbel.nodes()
    assert len(nodes) == 1
    assert nodes[0]["Alive"]
    assert nodes[0]["NodeID"] == umbel.get_runtime_context().get_node_id()
