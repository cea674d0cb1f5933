"""Lost values are computed again: by their owner, for whoever reads them, with all that they need."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions
from umbel._client import actor, current, rebuild, streams
from umbel._client.values import ValueLost
from umbel._objects import lineage
from umbel.util import state

pytestmark = pytest.mark.slow
LARGE = 200_000  # bytes: above what travels in messages


@pytest.fixture(autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


@pytest.fixture
def runs(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file to which each run of a task adds a line."""
    return tmp_path / "runs"


def lose(ref: umbel.ObjectRef[Any]) -> None:
    """Remove the memory of an object that nobody here has read yet, as a full or cleaned file system would."""
    umbel.wait([ref], fetch_local=False)
    values = current.engine().values
    with values._lock:
        values.drain_drops()  # what it was made of is freed, if nothing else needs it
        payload = values.table.records[ref._id].payload
    os.unlink(os.path.join(values.store.directory, payload[0]))
    values.store.trim_all()  # of earlier values in the same segment the mapping may be kept


def count(runs: pathlib.Path) -> int:
    return len(runs.read_text().splitlines()) if runs.exists() else 0


def is_nothing_left() -> bool:
    """Whether this process knows of no object any more, nor how to compute one."""
    engine = current.engine()
    with engine.lock:
        engine.values.drain_drops()
        return not engine.values.table.records and not len(engine.rebuilder.lineage)


def note(runs: str, text: str = "run") -> None:
    with open(runs, "a") as file:
        file.write(text + "\n")


@umbel.remote
def make(runs: str, fill: int = 1) -> bytes:
    note(runs)
    return bytes([fill]) * LARGE


@umbel.remote
def more(runs: str, before: bytes) -> bytes:
    note(runs)
    return bytes([before[0] + 1]) * LARGE


@umbel.remote
def first(value: bytes) -> int:
    return value[0]


def test_lost_result_is_computed_again(runs: pathlib.Path) -> None:
    ref = make.remote(str(runs))
    lose(ref)
    assert umbel.get(ref) == bytes([1]) * LARGE
    assert count(runs) == 2


def test_many_lost_results_are_computed_again_together() -> None:
    """Before: one after the other, each by a further call of `get` from within the one before."""

    @umbel.remote
    def numbered(number: int) -> bytes:
        return number.to_bytes(4, "big") * (LARGE // 4)

    refs = [numbered.remote(number) for number in range(150)]
    umbel.wait(refs, num_returns=len(refs))
    for ref in refs:
        lose(ref)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = umbel.get(refs)
    finally:
        sys.setrecursionlimit(before)
    assert [one[:4] for one in found] == [number.to_bytes(4, "big") for number in range(len(refs))]


def test_timeout_of_get_covers_what_is_computed_again() -> None:
    """`slow` takes one second of the call's time, and the lost value another."""

    @umbel.remote
    def slow() -> bytes:
        threading.Event().wait(1.0)
        return b"1" * LARGE

    ref = slow.remote()
    lose(ref)
    with pytest.raises(exceptions.GetTimeoutError, match=r"within 1\.5 s"):
        umbel.get([slow.remote(), ref], timeout=1.5)
    assert umbel.get(ref, timeout=30) == b"1" * LARGE


def test_argument_that_is_lost_is_computed_again_while_its_task_waits(runs: pathlib.Path) -> None:
    ref = make.remote(str(runs), 7)
    lose(ref)
    assert umbel.get([first.remote(ref), first.remote(ref)]) == [7, 7]
    assert count(runs) == 2
    assert umbel.get(ref)[0] == 7


def test_arguments_of_actors_too(runs: pathlib.Path) -> None:
    @umbel.remote
    class Reader:
        def first(self, value: bytes) -> int:
            return value[0]

        async def later(self, value: bytes) -> int:
            return value[0]

    ref = make.remote(str(runs), 9)
    lose(ref)
    reader = Reader.remote()
    assert umbel.get([reader.first.remote(ref), reader.later.remote(ref)], timeout=30) == [9, 9]


def test_coroutines_of_an_actor_go_on_while_an_argument_is_computed_again(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    @umbel.remote
    def make_when_open(runs: str, gate: str) -> bytes:
        note(runs)
        while not os.path.exists(gate):
            threading.Event().wait(0.01)
        return bytes([7]) * LARGE

    @umbel.remote
    class Reader:
        async def first(self, value: bytes) -> int:
            return value[0]

        async def touch(self, path: str) -> None:
            pathlib.Path(path).touch()

    gate = tmp_path / "gate"
    reader = Reader.remote()
    gate.touch()
    ref = make_when_open.remote(str(runs), str(gate))
    lose(ref)
    gate.unlink()
    seven = reader.first.remote(ref)
    drivers.wait_until(lambda: count(runs) == 2)
    umbel.get(reader.touch.remote(str(gate)), timeout=30)  # the loop that would open the gate must not wait for it
    assert umbel.get(seven, timeout=30) == 7


def test_coroutines_go_on_while_what_one_awaits_is_computed_again(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def make_when_open(runs: str, gate: str) -> bytes:
        note(runs)
        while not os.path.exists(gate):
            threading.Event().wait(0.01)
        return bytes([7]) * LARGE

    async def both(ref: Any, gate: pathlib.Path) -> int:
        first = ref.as_future()
        while count(runs) < 2:  # only an event loop that goes on gets beyond this
            await asyncio.sleep(0.01)
        gate.touch()
        return (await first)[0]  # type: ignore[no-any-return]

    gate = tmp_path / "gate"
    gate.touch()
    ref = make_when_open.remote(str(runs), str(gate))
    lose(ref)
    gate.unlink()
    assert asyncio.run(asyncio.wait_for(both(ref, gate), 30)) == 7
    put = umbel.put(b"1" * LARGE)
    lose(put)

    async def read() -> None:
        await put

    with pytest.raises(exceptions.ObjectReconstructionFailedError):
        asyncio.run(asyncio.wait_for(read(), 30))


def test_call_that_is_cancelled_while_its_argument_is_computed_again(runs: pathlib.Path) -> None:
    @umbel.remote
    def slow(runs: str) -> bytes:
        note(runs)
        threading.Event().wait(0.5)
        return bytes([7]) * LARGE

    @umbel.remote
    class Reader:
        async def first(self, value: bytes) -> int:
            return value[0]

        async def zero(self) -> int:
            return 0

    ref = slow.remote(str(runs))
    lose(ref)
    reader = Reader.remote()
    cancelled = reader.first.remote(ref)
    drivers.wait_until(lambda: count(runs) == 2)
    umbel.cancel(cancelled)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(cancelled, timeout=30)
    assert umbel.get(reader.zero.remote(), timeout=30) == 0
    assert umbel.get(ref, timeout=30)[0] == 7


def test_what_it_needs_is_computed_again_too_though_it_was_freed(runs: pathlib.Path) -> None:
    ref = make.remote(str(runs))
    for _ in range(5):
        ref = more.remote(str(runs), ref)  # lets go of the one before
    lose(ref)
    used = current.engine().values.store.usage().live_count
    assert umbel.get(ref)[0] == 6
    assert count(runs) == 12
    del ref
    assert current.engine().values.store.usage().live_count <= used
    deadline = time.monotonic() + 10
    while len(current.engine().rebuilder.lineage):
        umbel.get(umbel.put(1))
        assert time.monotonic() < deadline, "lineage is kept though nothing needs it"


def test_small_arguments_and_references_inside_of_values_are_kept(runs: pathlib.Path) -> None:
    @umbel.remote
    def small() -> int:
        return 5

    @umbel.remote
    def read(number: int, refs: list[Any], runs: str) -> bytes:
        note(runs)
        return bytes([number + umbel.get(refs[0])[0]]) * LARGE

    ref = read.remote(small.remote(), [make.remote(str(runs), 3)], str(runs))
    lose(ref)
    assert umbel.get(ref)[0] == 8
    assert count(runs) == 4  # the reference inside was freed, and is made again


def test_several_results_are_replaced_where_they_are_lost(runs: pathlib.Path) -> None:
    @umbel.remote(num_returns=2)
    def pair(runs: str) -> tuple[bytes, bytes]:
        note(runs)
        return b"a" * LARGE, b"b" * LARGE

    left, right = pair.remote(str(runs))
    lose(left)
    assert umbel.get([left, right]) == [b"a" * LARGE, b"b" * LARGE]
    assert count(runs) == 2
    del left
    lone, _ = pair.remote(str(runs))
    del _
    lose(lone)
    assert umbel.get(lone) == b"a" * LARGE


def test_borrower_asks_the_owner(runs: pathlib.Path) -> None:
    @umbel.remote
    def read(refs: list[Any]) -> int:
        return umbel.get(refs[0])[0]

    ref = make.remote(str(runs), 4)
    lose(ref)
    assert umbel.get(read.remote([ref])) == 4
    assert count(runs) == 2


def test_worker_that_owns_it_computes_it_again(runs: pathlib.Path) -> None:
    @umbel.remote
    def parent(runs: str) -> int:
        ref = make.remote(runs, 6)
        lose(ref)
        return umbel.get(ref)[0]

    assert umbel.get(parent.remote(str(runs))) == 6
    assert count(runs) == 2


def test_result_of_an_actor_is_computed_again_if_it_may(runs: pathlib.Path) -> None:
    @umbel.remote
    class Maker:
        @umbel.method(max_task_retries=1)
        def again(self, runs: str) -> bytes:
            note(runs)
            return b"x" * LARGE

        def once(self) -> bytes:
            return b"y" * LARGE

    maker = Maker.remote()
    ref = maker.again.remote(str(runs))
    lose(ref)
    assert umbel.get(ref) == b"x" * LARGE
    assert count(runs) == 2
    ref = maker.once.remote()
    lose(ref)
    assert reason_of(ref) == "retries_disabled"
    ref = maker.again.remote(str(runs))
    lose(ref)
    umbel.kill(maker)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(ref, timeout=30)
    ended = lineage.Refusal("lineage_disabled", actor.LIFETIME_SUFFIX.rjust(28, b"a"))
    assert "its actor ended when nobody had a handle" in str(rebuild._refused(b"b" * 28, ended, "gone"))


def reason_of(ref: umbel.ObjectRef[Any]) -> str | None:
    with pytest.raises(exceptions.ObjectReconstructionFailedError) as info:
        umbel.get(ref, timeout=30)
    assert "cannot be computed again" in str(info.value)
    return info.value.reason


def test_reasons_why_not(runs: pathlib.Path) -> None:
    put = umbel.put(b"p" * LARGE)
    values = current.engine().values
    lose(put)
    values.store._own[1].mapping = None  # as after a time without use
    assert reason_of(put) == "put"

    once = make.options(max_retries=0).remote(str(runs))
    lose(once)
    assert reason_of(once) == "retries_disabled"
    with pytest.raises(exceptions.ObjectReconstructionFailedError):
        umbel.get(first.remote(once), timeout=30)

    twice = make.options(max_retries=1).remote(str(runs))
    lose(twice)
    assert umbel.get(first.remote(twice)) == 1
    lose(twice)
    assert reason_of(twice) == "max_attempts_exceeded"

    by_value = more.remote(str(runs), bytes([1]) * LARGE)
    lose(by_value)
    assert reason_of(by_value) == "put"


def test_who_needs_an_argument_that_cannot_be_computed_again_is_named(runs: pathlib.Path) -> None:
    @umbel.remote
    class Holder:
        def __init__(self, value: bytes) -> None:
            self.value = value

        def first(self) -> int:
            return self.value[0]

    lost = [make.options(max_retries=0).remote(str(runs)) for _ in range(2)]
    for ref in lost:
        lose(ref)
    because = "did not run, because an argument of it could not be computed:\numbel.exceptions.ObjectReconstruction"
    with pytest.raises(exceptions.ObjectReconstructionFailedError) as info:
        umbel.get(first.remote(lost[0]), timeout=30)
    assert f"first() {because}" in str(info.value)
    assert isinstance(info.value, exceptions.UmbelTaskError)
    with pytest.raises(exceptions.ActorDiedError) as died:
        umbel.get(Holder.remote(lost[1]).first.remote(), timeout=30)
    assert f"Holder.__init__() {because}" in str(died.value)


def test_small_values_that_references_inside_lead_to_are_kept(runs: pathlib.Path) -> None:
    """As in a list of small results, of which the caller keeps none."""

    @umbel.remote
    def small(number: int) -> int:
        return number

    @umbel.remote
    def add(refs: list[Any], boxes: list[Any]) -> bytes:
        one, three, pair = umbel.get(boxes[0])
        return bytes([sum(umbel.get([*refs, *pair])) + one + three]) * LARGE

    @umbel.remote
    def add_more(inner: Any, before: bytes) -> bytes:
        four, large, box = umbel.get(inner[0])
        return bytes([before[0] + four + umbel.get(large)[0] + len(umbel.get(umbel.get(box)[1]))]) * LARGE

    shared = small.remote(1)
    pair = umbel.put([small.remote(2), shared])
    ref = add.remote([small.remote(number) for number in range(10)], [[shared, umbel.put(3), pair]])
    ref = add_more.remote([umbel.put([4, make.remote(str(runs)), umbel.put([shared, pair])])], ref)
    umbel.wait([ref])
    del shared, pair
    for _ in range(2):
        lose(ref)
        assert umbel.get(ref, timeout=30)[0] == (45 + 2 + 1 + 1 + 3) + 4 + 1 + 2
    del ref
    drivers.wait_until(is_nothing_left)


def test_value_that_is_not_there_yet_when_the_call_ends_is_not_found_once_it_is_let_go_of(
    tmp_path: pathlib.Path,
) -> None:
    @umbel.remote
    def late(gate: str) -> int:
        while not os.path.exists(gate):
            time.sleep(0.005)
        return 1

    @umbel.remote
    def ignore(refs: list[Any]) -> bytes:
        return bytes(LARGE)

    gate = tmp_path / "gate"
    number = late.remote(str(gate))
    number_id = number._id.hex()
    ref = ignore.remote([number])
    umbel.wait([ref])
    gate.touch()
    umbel.get(number)
    del number
    lose(ref)
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match=f"needs object {number_id}") as info:
        umbel.get(ref, timeout=30)
    assert info.value.reason == "ref_not_found"


def test_value_that_was_put_and_is_let_go_of_is_named(runs: pathlib.Path) -> None:
    put = umbel.put(bytes([1]) * LARGE)
    put_id = put._id.hex()
    ref = more.remote(str(runs), put)
    umbel.wait([ref])
    del put
    lose(ref)
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match=f"needs object {put_id}") as info:
        umbel.get(ref, timeout=30)
    assert info.value.reason == "put"


def test_result_of_a_task_that_was_cancelled_when_it_ran_again_is_not_computed_once_more(runs: pathlib.Path) -> None:
    @umbel.remote(num_returns=2)
    def pair(runs: str) -> tuple[bytes, bytes]:
        note(runs)
        while count(pathlib.Path(runs)) == 2:
            time.sleep(0.005)
        return b"a" * LARGE, b"b" * LARGE

    left, right = pair.remote(str(runs))
    lose(left)
    with pytest.raises(exceptions.GetTimeoutError):
        umbel.get(left, timeout=0.2)
    drivers.wait_until(lambda: count(runs) == 2)
    umbel.cancel(left)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(left, timeout=30)
    lose(right)
    assert reason_of(right) == "task_cancelled"
    assert count(runs) == 2


def test_item_of_a_generator_that_was_cancelled_is_not_computed_again() -> None:
    @umbel.remote(num_returns="streaming")
    def endless() -> Iterator[bytes]:
        while True:
            yield b"a" * LARGE
            time.sleep(0.005)

    items = endless.remote()
    ref = next(items)
    umbel.cancel(items)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(items.completed(), timeout=30)
    lose(ref)
    assert reason_of(ref) == "task_cancelled"
    del items, ref
    gc.collect()  # tracebacks of the errors refer to them
    drivers.wait_until(is_nothing_left)


# ---- somebody dies meanwhile ----


def hang_once(runs: str, at: int) -> None:
    """In the run of this number: say who runs, and never end."""
    note(runs, str(os.getpid()))
    while count(pathlib.Path(runs)) == at:
        time.sleep(0.005)


@umbel.remote
def make_in_spite(runs: str, at: int) -> bytes:
    hang_once(runs, at)
    return b"m" * LARGE


def kill_who_runs(runs: pathlib.Path, at: int) -> None:
    drivers.wait_until(lambda: count(runs) == at)
    drivers.kill(int(runs.read_text().split()[-1]))


def begin_to_read(ref: umbel.ObjectRef[Any]) -> None:
    """Find out that it is lost, and wait no longer."""
    with pytest.raises(exceptions.GetTimeoutError):
        umbel.get(ref, timeout=0.1)


def test_worker_that_dies_while_it_computes_a_value_again_is_replaced(runs: pathlib.Path) -> None:
    ref = make_in_spite.remote(str(runs), 2)
    lose(ref)
    begin_to_read(ref)
    kill_who_runs(runs, 2)
    assert umbel.get(ref, timeout=30) == b"m" * LARGE
    assert count(runs) == 3


def test_worker_that_dies_when_the_last_retry_was_spent_on_a_lost_value_gives_its_death(runs: pathlib.Path) -> None:
    ref = make_in_spite.options(max_retries=1).remote(str(runs), 2)
    lose(ref)
    begin_to_read(ref)
    kill_who_runs(runs, 2)
    with pytest.raises(exceptions.WorkerCrashedError):
        umbel.get(ref, timeout=30)
    assert count(runs) == 2


def test_worker_that_dies_while_it_computes_items_again_is_replaced(runs: pathlib.Path) -> None:
    @umbel.remote(num_returns="streaming")
    def items_in_spite(runs: str) -> Iterator[bytes]:
        yield b"a" * LARGE
        hang_once(runs, 2)
        yield b"b" * LARGE

    refs = list(items_in_spite.remote(str(runs)))
    lose(refs[1])
    begin_to_read(refs[1])
    kill_who_runs(runs, 2)
    assert [value[0] for value in umbel.get(refs, timeout=30)] == list(b"ab")
    assert count(runs) == 3


def test_worker_that_dies_while_it_computes_an_argument_again_is_replaced(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The argument was freed, and its task runs again for the one that needs it, which is queued meanwhile."""
    last = tmp_path / "last"
    ref = more.remote(str(last), make_in_spite.remote(str(runs), 2))
    lose(ref)
    begin_to_read(ref)
    kill_who_runs(runs, 2)
    assert umbel.get(ref, timeout=30)[0] == ord("m") + 1
    assert (count(runs), count(last)) == (3, 2)


def test_worker_that_dies_while_it_waits_for_an_argument_to_be_computed_again_is_replaced(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The one in which the argument is to be read, while another computes it."""

    gate = tmp_path / "gate"

    @umbel.remote
    def make_when_open(runs: str, gate: str) -> bytes:
        note(runs, str(os.getpid()))
        while count(pathlib.Path(runs)) > 1 and not os.path.exists(gate):
            time.sleep(0.005)
        return b"m" * LARGE

    ref = make_when_open.remote(str(runs), str(gate))
    lose(ref)
    reading = first.options(num_cpus=2).remote(ref)  # its worker gives its CPUs away while it waits
    drivers.wait_until(lambda: count(runs) == 2)
    maker = int(runs.read_text().split()[-1])
    readers = {one.pid for one in state.list_workers() if one.worker_type == "WORKER"} - {maker}
    assert readers
    for pid in readers:
        drivers.kill(pid)
    gate.touch()
    assert umbel.get(reading, timeout=30) == ord("m")
    assert count(runs) == 2


def test_owner_that_dies_while_it_has_a_value_computed_again_is_named(runs: pathlib.Path) -> None:
    @umbel.remote
    class Owner:
        def make(self, runs: str) -> list[Any]:
            self.ref = make_in_spite.remote(runs, 2)
            umbel.wait([self.ref])
            return [self.ref]

        def pid(self) -> int:
            return os.getpid()

    owner = Owner.remote()
    (ref,) = umbel.get(owner.make.remote(str(runs)))
    umbel.wait([ref])
    lose(ref)
    reading = first.remote(ref)
    begin_to_read(ref)
    drivers.wait_until(lambda: count(runs) == 2)
    drivers.kill(umbel.get(owner.pid.remote()))
    for one in (ref, reading):
        with pytest.raises(exceptions.OwnerDiedError):
            umbel.get(one, timeout=30)


def test_task_that_fails_the_second_time_gives_its_error(runs: pathlib.Path) -> None:
    @umbel.remote
    def fragile(runs: str) -> bytes:
        note(runs)
        if count(pathlib.Path(runs)) > 1:
            raise ValueError("not again")
        return b"f" * LARGE

    ref = fragile.remote(str(runs))
    lose(ref)
    with pytest.raises(ValueError, match="not again"):
        umbel.get(ref, timeout=30)


@umbel.remote(num_returns="streaming")
def stream(runs: str, stop: int, stop_again: int | None = None) -> Iterator[bytes]:
    note(runs)
    if stop_again is not None and count(pathlib.Path(runs)) > 1:
        stop = stop_again
    for number in range(stop):
        yield bytes([number]) * LARGE


def test_lost_items_of_a_stream_are_computed_again(runs: pathlib.Path) -> None:
    refs = list(stream.remote(str(runs), 5))
    del refs[3]  # which nobody needs when the generator runs again
    for ref in refs[1:]:
        lose(ref)
    assert [value[0] for value in umbel.get(refs, timeout=30)] == [0, 1, 2, 4]
    assert count(runs) == 2
    lose(refs[0])
    assert umbel.get(first.remote(refs[0]), timeout=30) == 0


def test_items_that_nobody_has_taken_yet_are_computed_again(runs: pathlib.Path) -> None:
    items = stream.options(_generator_backpressure_num_objects=2).remote(str(runs), 4)
    refs = [next(items) for _ in range(4)]
    umbel.get(items.completed(), timeout=30)
    lose(refs[2])
    assert [value[0] for value in umbel.get(refs, timeout=30)] == [0, 1, 2, 3]
    assert count(runs) == 2
    waiting = stream.remote(str(runs), 3)
    umbel.get(waiting.completed(), timeout=30)
    values = current.engine().values
    for name in list(os.listdir(values.store.directory)):
        if f".{current.engine().process_id.hex()}." in name:
            os.unlink(os.path.join(values.store.directory, name))
    assert [umbel.get(ref, timeout=30)[0] for ref in waiting] == [0, 1, 2]


def test_items_of_an_actor_and_of_a_dynamic_generator_are_computed_again(runs: pathlib.Path) -> None:
    @umbel.remote
    class Maker:
        @umbel.method(max_task_retries=1, num_returns="streaming")
        def items(self, runs: str) -> Iterator[bytes]:
            note(runs)
            yield b"a" * LARGE
            yield b"b" * LARGE

    maker = Maker.remote()
    dynamic = stream.options(num_returns="dynamic")
    for refs in (list(maker.items.remote(str(runs))), list(umbel.get(dynamic.remote(f"{runs}-2", 2)))):
        assert len(refs) == 2
        lose(refs[1])
        assert len(umbel.get(refs, timeout=30)) == 2
    assert count(runs) == count(pathlib.Path(f"{runs}-2")) == 2


def test_generator_that_yields_less_the_second_time_gives_an_error(runs: pathlib.Path) -> None:
    refs = list(stream.remote(str(runs), 4, 2))
    lose(refs[3])
    with pytest.raises(
        exceptions.StreamingGeneratorReplayInconsistentError, match="2 items when it ran again for item 4"
    ):
        umbel.get(refs[3], timeout=30)
    assert umbel.get(refs[2])[0] == 2


def test_item_of_a_stream_that_still_runs_is_not_computed_again(tmp_path: pathlib.Path) -> None:
    @umbel.remote(num_returns="streaming")
    def slow(gate: str) -> Iterator[bytes]:
        yield b"a" * LARGE
        while not os.path.exists(gate):
            time.sleep(0.005)

    items = slow.remote(str(tmp_path / "gate"))
    ref = next(items)
    lose(ref)
    assert reason_of(ref) == "lineage_disabled"
    (tmp_path / "gate").touch()


def test_generator_that_fails_the_second_time_gives_its_error(runs: pathlib.Path) -> None:
    @umbel.remote(num_returns="streaming")
    def fragile(runs: str) -> Iterator[bytes]:
        note(runs)
        yield b"a" * LARGE
        if count(pathlib.Path(runs)) > 1:
            raise ValueError("not again")
        yield b"b" * LARGE

    refs = list(fragile.remote(str(runs)))
    for ref in refs:
        lose(ref)
    with pytest.raises(ValueError, match="not again"):
        umbel.get(refs[1], timeout=30)
    assert umbel.get(refs[0], timeout=30)[0] == ord("a")


def test_generator_that_is_retried_when_it_runs_again_is_not_held_up(runs: pathlib.Path) -> None:
    """The reader, who would let it go on, has all that he wants."""

    @umbel.remote(num_returns="streaming", max_retries=5, retry_exceptions=True, _generator_backpressure_num_objects=1)
    def fragile(runs: str) -> Iterator[bytes]:
        note(runs)
        for number in range(4):
            if count(pathlib.Path(runs)) == 2 and number == 2:
                raise ValueError("once")
            yield bytes([number]) * LARGE

    refs = list(fragile.remote(str(runs)))
    lose(refs[3])
    assert umbel.get(refs[3], timeout=30)[0] == 3
    assert count(runs) == 3


@pytest.mark.parametrize("num_returns", [2, "streaming"])
def test_references_in_results_of_which_nobody_needs_the_new_ones_are_given_back(num_returns: Any) -> None:
    @umbel.remote
    class Maker:
        @umbel.method(max_task_retries=-1, num_returns=num_returns)
        def make(self) -> Any:
            for _ in range(2):
                yield [bytes(LARGE), umbel.put(bytes(LARGE))]

        def live_count(self) -> int:
            return current.engine().values.store.usage().live_count

    maker = Maker.remote()
    refs = list(maker.make.remote())
    for _ in range(2):
        lose(refs[1])
        umbel.get(refs[1], timeout=30)
    del refs
    deadline = time.monotonic() + 20
    while umbel.get(maker.live_count.remote()):
        assert time.monotonic() < deadline, "an object lives that nobody refers to"


@pytest.mark.parametrize("num_returns", [2, "streaming"])
def test_result_that_is_lost_while_its_task_runs_again_is_waited_for(tmp_path: pathlib.Path, num_returns: Any) -> None:
    gate = tmp_path / "gate"

    @umbel.remote(num_returns=num_returns)
    def gated(runs: str, gate: str) -> Any:
        note(runs)
        yield b"a" * LARGE
        while count(pathlib.Path(runs)) > 1 and not os.path.exists(gate):
            time.sleep(0.005)
        yield b"b" * LARGE

    refs = list(gated.remote(str(tmp_path / "runs"), str(gate)))
    box = umbel.put([refs[1]])
    lose(refs[0])
    lose(refs[1])
    for ref in refs if num_returns == 2 else refs[1:]:
        with pytest.raises(exceptions.GetTimeoutError):
            umbel.get(ref, timeout=0.3)
    (inside,) = umbel.get(box)
    gate.touch()
    assert [value[0] for value in umbel.get([*refs, inside], timeout=30)] == list(b"abb")


@pytest.mark.parametrize("num_returns", [2, "streaming"])
def test_result_that_is_let_go_of_while_its_task_runs_again_for_another_one(
    tmp_path: pathlib.Path, num_returns: Any
) -> None:
    gate = tmp_path / "gate"

    @umbel.remote(num_returns=num_returns)
    def gated(runs: str, gate: str) -> Any:
        note(runs)
        while count(pathlib.Path(runs)) > 1 and not os.path.exists(gate):
            time.sleep(0.005)
        yield b"a" * LARGE
        yield b"b" * LARGE

    refs = list(gated.remote(str(tmp_path / "runs"), str(gate)))
    lose(refs[1])
    with pytest.raises(exceptions.GetTimeoutError):
        umbel.get(refs[1], timeout=0.1)
    del refs[0]
    values = current.engine().values
    with values._lock:
        values.drain_drops()
    gate.touch()
    assert umbel.get(refs[0], timeout=20)[0] == ord("b")
    del refs
    drivers.wait_until(is_nothing_left)


def test_only_item_that_is_lost_again_before_its_generator_has_ended_is_computed_once_more(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    @umbel.remote(num_returns="streaming")
    def gated(runs: str, gate: str) -> Iterator[bytes]:
        note(runs)
        yield b"a" * LARGE
        while count(pathlib.Path(runs)) == 2 and not os.path.exists(gate):
            time.sleep(0.005)

    (ref,) = gated.remote(str(runs), str(tmp_path / "gate"))
    for _ in range(2):
        lose(ref)
        with contextlib.suppress(exceptions.GetTimeoutError):
            assert umbel.get(ref, timeout=1)[0] == ord("a")
    (tmp_path / "gate").touch()
    assert umbel.get(ref, timeout=30)[0] == ord("a")
    assert count(runs) == 3


def test_item_that_is_needed_fails_with_the_generator_that_should_make_it_again(runs: pathlib.Path) -> None:
    @umbel.remote(num_returns="streaming")
    def fragile(runs: str) -> Iterator[Any]:
        note(runs)
        if count(pathlib.Path(runs)) > 1:
            raise ValueError("not again")
        yield bytes([7]) * LARGE
        yield bytes(LARGE)

    @umbel.remote
    def use(refs: list[Any]) -> bytes:
        return bytes([umbel.get(refs[0])[0]]) * LARGE

    needed, large = fragile.remote(str(runs))
    ref = use.remote([needed])
    umbel.wait([ref])
    needed_id = needed._id
    del needed
    deadline = time.monotonic() + 20
    while needed_id in current.engine().values.table.records:
        umbel.get(umbel.put(1))
        assert time.monotonic() < deadline, "the item is kept"
    lose(ref)
    with pytest.raises(ValueError, match="not again"):
        umbel.get(ref, timeout=30)
    del large


class _FindsTheOtherLost:
    """Its reading does what another thread might do at that moment: find out that an object is lost."""

    other: umbel.ObjectRef[Any] | None = None

    def __reduce__(self) -> Any:
        return _find_the_other_lost, ()


def _find_the_other_lost() -> int:
    other, _FindsTheOtherLost.other = _FindsTheOtherLost.other, None
    if other is not None:
        values = current.engine().values
        with values._lock:
            values.lose(ValueLost(other._id, values.table.records[other._id].payload, "it was removed"))
    return 5


def test_object_that_another_thread_finds_lost_in_the_midst_of_a_get_is_waited_for(runs: pathlib.Path) -> None:
    ref = make.remote(str(runs), 3)
    lose(ref)
    first_of_two = umbel.put(_FindsTheOtherLost())
    _FindsTheOtherLost.other = ref
    assert umbel.get([first_of_two, ref], timeout=30) == [5, bytes([3]) * LARGE]
    assert count(runs) == 2


def test_stream_does_not_remember_items_that_are_gone(runs: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STORED_MAX", 5)
    items = stream.options(_generator_backpressure_num_objects=2).remote(str(runs), 60)
    for _ in range(60):
        umbel.get(next(items))
    assert len(items._stream._state.stored) < 40
