"""Who keeps which object for how long: borrowed references, references inside objects, dead owners, views, memory."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.slow
LARGE = 300_000  # float64s: above what travels in a message


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


def store_files() -> dict[str, int]:
    """Segments in shared memory and their bytes, warm ones included."""
    directory = umbel._client.current.engine().values.store.directory
    found = {}
    for entry in os.scandir(directory):
        if entry.name.count(".") != 2:
            continue  # not a segment
        try:
            found[entry.name] = entry.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return found


def live_records() -> int:
    engine = umbel._client.current.engine()
    with engine.lock:
        engine.values.drain_drops()
        return len(engine.values.table.records)


def is_kept(binary: bytes) -> bool:
    """Whether this process, the owner, still keeps the object of this id."""
    engine = umbel._client.current.engine()
    with engine.lock:
        engine.values.drain_drops()
        return binary in engine.values.table.records


@umbel.remote
class Keeper:
    """Keeps what it is given, unread."""

    def __init__(self) -> None:
        self.kept: Any = None

    def keep(self, things: Any) -> None:
        self.kept = things

    def read(self) -> Any:
        return [umbel.get(ref) for ref in self.kept]

    def drop(self) -> None:
        self.kept = None

    def give(self) -> Any:
        return self.kept

    def put(self, value: Any) -> list[Any]:
        self.kept = umbel.put(value)
        return [self.kept]

    def pid(self) -> int:
        return os.getpid()


@umbel.remote
def echo(thing: Any) -> Any:
    return thing


@umbel.remote
def read_all(refs: list[Any]) -> list[Any]:
    return list(umbel.get(refs))


@umbel.remote
def make(count: int) -> Any:
    return np.arange(count, dtype=np.float64)


@umbel.remote
def put_inside(value: Any) -> list[Any]:
    return [umbel.put(value)]


@pytest.mark.parametrize("size", [1, LARGE])
def test_borrowed_reference_in_an_actor_outlives_the_drivers(size: int) -> None:
    keeper = Keeper.remote()
    ref = umbel.put(np.full(size, 7.0))
    umbel.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    drivers.pause(0.05)
    (value,) = umbel.get(keeper.read.remote(), timeout=30)
    assert value.shape == (size,)
    assert (value == 7.0).all()


@pytest.mark.parametrize("size", [1, LARGE])
def test_dropped_borrow_frees_the_object(size: int) -> None:
    keeper = Keeper.remote()
    ref = umbel.put(np.full(size, 7.0))
    binary = ref.binary()
    umbel.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    assert is_kept(binary)
    umbel.get(keeper.drop.remote())
    drivers.wait_until(lambda: not is_kept(binary))


def test_reference_lent_on_by_a_borrower_lives_with_the_last_one() -> None:
    first, second, third = (Keeper.remote() for _ in range(3))
    ref = umbel.put(np.full(LARGE, 3.0))
    umbel.get(first.keep.remote([ref]))
    del ref
    umbel.get(second.keep.remote(umbel.get(first.give.remote())))
    umbel.get(first.drop.remote())
    umbel.get(third.keep.remote(umbel.get(second.give.remote())))
    umbel.kill(second)
    gc.collect()
    drivers.pause(0.1)
    (value,) = umbel.get(third.read.remote(), timeout=30)
    assert value.sum() == 3.0 * LARGE


def test_references_deep_inside_objects_inside_objects() -> None:
    inner = umbel.put(np.full(LARGE, 1.0))
    for _ in range(10):
        inner = umbel.put({"inner": [inner]})
    ref = echo.remote([inner])
    del inner
    gc.collect()
    (value,) = umbel.get(ref, timeout=30)
    del ref
    for _ in range(10):
        gc.collect()
        value = umbel.get(value, timeout=30)["inner"][0]
    assert umbel.get(value, timeout=30).sum() == LARGE


def test_reference_owned_by_a_third_process_passes_through_tasks() -> None:
    keeper = Keeper.remote()
    (ref,) = umbel.get(keeper.put.remote(np.full(LARGE, 5.0)), timeout=30)
    for _ in range(5):
        (ref,) = umbel.get(echo.remote([ref]), timeout=30)
        gc.collect()
    umbel.get(keeper.drop.remote())
    gc.collect()
    assert umbel.get(ref, timeout=30).sum() == 5.0 * LARGE
    assert umbel.get(read_all.remote([ref]), timeout=30)[0].sum() == 5.0 * LARGE


def test_third_owners_reference_returned_unread_is_kept() -> None:
    """The task never reads the value; the reply must not arrive before the owner knows of the new borrower."""
    keeper = Keeper.remote()
    for number in range(50):
        refs = umbel.get(keeper.put.remote(number), timeout=30)
        wrapped = echo.remote({"refs": refs})
        del refs
        umbel.get(keeper.drop.remote())
        assert umbel.get(umbel.get(wrapped, timeout=30)["refs"], timeout=30) == [number]


def test_put_inside_a_task_is_owned_by_its_worker_and_kept_for_the_caller() -> None:
    refs = [umbel.get(put_inside.remote(np.full(LARGE, float(number))), timeout=30)[0] for number in range(5)]
    drivers.pause(1.0)  # the workers' leases end meanwhile
    for number, ref in enumerate(refs):
        assert umbel.get(ref, timeout=30)[0] == float(number)


@pytest.mark.parametrize("size", [1, LARGE])
def test_death_of_the_owner_is_reported(size: int) -> None:
    keeper = Keeper.remote()
    (ref,) = umbel.get(keeper.put.remote(np.zeros(size)), timeout=30)
    pid = umbel.get(keeper.pid.remote())
    umbel.kill(keeper)
    drivers.wait_until(lambda: not drivers.is_running(pid))
    with pytest.raises(exceptions.OwnerDiedError, match=ref.hex()):
        umbel.get(ref, timeout=30)
    with pytest.raises(exceptions.OwnerDiedError):
        umbel.get(echo.remote(ref), timeout=30)
    assert umbel.wait([ref], timeout=10) == ([ref], [])


def test_get_that_waits_when_the_owner_dies_is_told() -> None:
    @umbel.remote
    def never() -> None:
        time.sleep(1000)

    @umbel.remote
    class Submitter:
        def submit(self) -> list[Any]:
            return [never.remote()]

        def die(self) -> None:
            os._exit(1)

    submitter = Submitter.remote()
    (ref,) = umbel.get(submitter.submit.remote(), timeout=30)
    dependent = echo.remote(ref)
    submitter.die.remote()
    with pytest.raises(exceptions.OwnerDiedError):
        umbel.get(ref, timeout=30)
    with pytest.raises(exceptions.OwnerDiedError):
        umbel.get(dependent, timeout=30)
    drivers.wait_until(lambda: umbel.available_resources().get("CPU") == 2.0, what="the orphaned task to end")


def test_view_outlives_its_reference_and_its_maker() -> None:
    ref = make.remote(LARGE)
    view = umbel.get(ref, timeout=30)
    copy = view.copy()
    part = view[1000:2000:3]
    del ref, view
    gc.collect()
    for number in range(30):
        umbel.get(make.remote(LARGE + number), timeout=30)
        umbel.put(np.full(LARGE, -1.0))
    assert (part == copy[1000:2000:3]).all()


def test_views_stay_intact_while_others_allocate() -> None:
    rng = np.random.default_rng(0)
    views: list[tuple[Any, float]] = []
    for _ in range(150):
        kind = rng.integers(4)
        count = int(rng.integers(LARGE // 4, LARGE))
        if kind == 0:
            ref = umbel.put(rng.random(count))
        elif kind == 1:
            ref = make.remote(count)
        elif kind == 2 and views:
            ref = echo.remote(views[int(rng.integers(len(views)))][0])
        else:
            ref = umbel.put(np.full(count, float(count)))
        value = umbel.get(ref, timeout=30)
        views.append((value, float(value.sum())))
        if len(views) > 12:
            del views[int(rng.integers(len(views)))]
    assert [float(value.sum()) for value, _ in views] == [total for _, total in views]


def test_values_are_read_only_views() -> None:
    value = umbel.get(umbel.put(np.zeros(LARGE)))
    with pytest.raises(ValueError, match="read-only"):
        value[0] = 1.0
    assert umbel.get(echo.remote(np.zeros(LARGE)), timeout=30).flags.writeable is False


def test_snapshot_is_taken_at_the_call() -> None:
    value = np.zeros(LARGE)
    ref, task = umbel.put(value), echo.remote(value)
    value[:] = 1.0
    assert umbel.get(ref).sum() == 0.0
    assert umbel.get(task, timeout=30).sum() == 0.0


def test_memory_comes_back_after_many_objects() -> None:
    def churn() -> None:
        for _ in range(30):
            refs = [umbel.put(np.zeros(LARGE)), make.remote(LARGE), echo.remote(np.zeros(LARGE))]
            refs.append(echo.remote(refs[0]))
            umbel.get(put_inside.remote(np.zeros(LARGE)), timeout=30)
            umbel.get(refs, timeout=30)

    churn()
    gc.collect()
    records = live_records()
    churn()
    gc.collect()
    drivers.wait_until(lambda: live_records() <= records, what="records to go")
    drivers.wait_until(lambda: sum(store_files().values()) == 0, timeout_s=40, what="shared memory to be given back")


def test_arguments_and_results_of_failed_tasks_are_freed() -> None:
    @umbel.remote(max_retries=0)
    def fail(value: Any, nested: list[Any], how: str) -> Any:
        kept = umbel.get(nested[0])
        if how == "crash":
            os._exit(1)
        raise ValueError(len(kept) + len(value))

    gc.collect()
    before = live_records()
    for how in ("raise", "crash"):
        for _ in range(3):
            with pytest.raises((ValueError, exceptions.WorkerCrashedError)):
                umbel.get(fail.remote(np.zeros(LARGE), [umbel.put(np.zeros(LARGE))], how), timeout=30)
    gc.collect()
    drivers.wait_until(lambda: live_records() <= before, what="records to go")


def test_borrows_of_a_killed_worker_are_given_back() -> None:
    keeper = Keeper.remote()
    ref = umbel.put(np.zeros(LARGE))
    binary = ref.binary()
    umbel.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    assert is_kept(binary)
    umbel.kill(keeper)
    drivers.wait_until(lambda: not is_kept(binary), what="the dead borrower's object to be freed")


def test_results_written_for_a_dead_owner_are_freed() -> None:
    @umbel.remote
    class Owner:
        def work(self) -> None:
            self.refs = [make.remote(LARGE) for _ in range(5)]
            umbel.wait(self.refs, num_returns=5)

        def die(self) -> None:
            os._exit(1)

    drivers.wait_until(lambda: sum(store_files().values()) == 0, timeout_s=40)
    owner = Owner.remote()
    umbel.get(owner.work.remote(), timeout=30)
    assert sum(store_files().values()) >= 5 * LARGE * 8
    owner.die.remote()
    del owner
    drivers.wait_until(lambda: sum(store_files().values()) == 0, timeout_s=40, what="a dead owner's memory to be freed")


def test_actor_that_only_drops_references_later_releases_them() -> None:
    """Nothing else happens in the process that could remind it to tell the owner."""

    @umbel.remote
    class Later:
        def keep(self, refs: list[Any]) -> None:
            import threading

            self.refs = refs
            threading.Timer(0.3, self.drop).start()

        def drop(self) -> None:
            self.refs = []

    @umbel.remote
    class LaterAsync:
        async def keep(self, refs: list[Any]) -> None:
            import asyncio

            self.refs = refs
            self.task = asyncio.ensure_future(self.drop())

        async def drop(self) -> None:
            import asyncio

            await asyncio.sleep(0.3)
            self.refs = []

    for kind in (Later, LaterAsync):
        actor = kind.remote()
        ref = umbel.put(np.zeros(LARGE))
        binary = ref.binary()
        umbel.get(actor.keep.remote([ref]), timeout=30)
        del ref
        drivers.wait_until(lambda binary=binary: not is_kept(binary), what=f"{kind.__name__} to release")


def test_worker_that_reached_max_calls_keeps_what_it_owns() -> None:
    @umbel.remote(max_calls=1)
    def own() -> list[Any]:
        return [umbel.put(np.full(LARGE, 2.0)), umbel.put(3)]

    large, small = umbel.get(own.remote(), timeout=30)
    drivers.pause(0.3)
    assert umbel.get(small, timeout=30) == 3
    assert umbel.get(large, timeout=30)[0] == 2.0


def test_out_of_band_pickle_keeps_the_object() -> None:
    import pickle

    data = pickle.dumps(umbel.put(np.full(LARGE, 4.0)))
    gc.collect()
    assert umbel.get(pickle.loads(data))[0] == 4.0


def test_reference_made_by_hand_of_a_freed_object_says_so() -> None:
    ref = umbel.put(1)
    binary = ref.binary()
    del ref
    gc.collect()
    umbel.put(2)
    with pytest.raises((exceptions.ObjectFreedError, exceptions.ObjectLostError)):
        umbel.get(umbel.ObjectRef(binary), timeout=10)
