"""The shared-memory store: contents, reuse of pages, the life of views, quotas, a full file system, several processes.

Not here: who needs a value (ownership), and how a value becomes bytes (serialization). Speed is measured by benchmarks.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from umbel import exceptions
from umbel._base.clock import ManualClock
from umbel._objects import quota, segments
from umbel._objects.store import SharedMemoryStore, View

ME = "a" * 32
OTHER = "b" * 32
THIRD = "c" * 32
PAGE = segments.PAGE_BYTES
MIB = 1 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[str]:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else str(tmp_path)
    path = tempfile.mkdtemp(prefix="umbel-test-", dir=memory)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(directory: str, clock: ManualClock) -> Iterator[SharedMemoryStore]:
    with contextlib.closing(SharedMemoryStore(directory, ME, warm_bytes_max=8 * MIB, idle_s=5.0, clock=clock)) as made:
        yield made


@pytest.fixture
def reader(directory: str, clock: ManualClock) -> Iterator[SharedMemoryStore]:
    with contextlib.closing(SharedMemoryStore(directory, OTHER, warm_bytes_max=8 * MIB, clock=clock)) as made:
        yield made


def put(store: SharedMemoryStore, data: bytes, owner: str | None = None) -> str:
    segment = store.create(len(data), owner)
    store.write(segment, 0, data)
    store.seal(segment)
    return segment.name


def inode(store: SharedMemoryStore, name: str) -> int:
    return os.stat(os.path.join(store.directory, name)).st_ino


def run_python(code: str, *arguments: str) -> str:
    """Runs `code` in a new interpreter and returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_in_fork(act: Callable[[], None]) -> int:
    """Runs `act` in a forked child. Returns its exit code: 0, 1 if `act` raised, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Contents


@pytest.mark.parametrize("size_bytes", [0, 1, 63, PAGE, PAGE + 1, 3 * MIB + 5])
def test_opened_view_shows_exactly_what_was_written(
    store: SharedMemoryStore, reader: SharedMemoryStore, size_bytes: int
) -> None:
    data = os.urandom(size_bytes)
    name = put(store, data)
    assert bytes(store.open(name, size_bytes).buffer) == data
    assert bytes(reader.open(name, size_bytes).buffer) == data


def test_fresh_and_reused_pages_take_writes_alike(store: SharedMemoryStore) -> None:
    for _ in range(3):  # fresh pages, pages mapped for the first time, mapped pages
        segment = store.create(200_000)
        store.write(segment, 0, b"head")
        store.write(segment, 100_000, bytearray(b"x" * 100_000))
        store.seal(segment)
        buffer = store.open(segment.name, 200_000).buffer
        assert (bytes(buffer[:4]), bytes(buffer[100_000:])) == (b"head", b"x" * 100_000)
        del buffer
        store.free(segment.name)


def test_writes_through_the_buffer_and_through_write_mix(store: SharedMemoryStore) -> None:
    segment = store.create(8192)
    store.write(segment, 0, b"1234")
    segment.buffer[4:8] = b"5678"
    store.write(segment, 8, b"9")
    store.seal(segment)
    assert bytes(store.open(segment.name, 9).buffer) == b"123456789"


@pytest.mark.parametrize("is_readonly", [True, False])
def test_copy_longer_than_a_chunk_is_complete(monkeypatch: pytest.MonkeyPatch, is_readonly: bool) -> None:
    monkeypatch.setattr(segments, "COPY_CHUNK_BYTES", 1000)
    source = os.urandom(3500)
    target = memoryview(bytearray(4000))
    segments.copy(target, 64, memoryview(source if is_readonly else bytearray(source)))
    assert bytes(target) == bytes(64) + source + bytes(436)


def test_buffers_of_any_contiguous_type_can_be_written(store: SharedMemoryStore) -> None:
    numpy = pytest.importorskip("numpy", reason="the arrays here are numpy's")
    array = numpy.asfortranarray(numpy.arange(12, dtype="f8").reshape(3, 4))
    segment = store.create(array.nbytes)
    store.write(segment, 0, array)
    store.seal(segment)
    assert bytes(store.open(segment.name, array.nbytes).buffer) == array.tobytes(order="A")


def test_views_are_read_only_plain_bytes_and_aligned(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    numpy = pytest.importorskip("numpy", reason="tells the address")
    name = put(store, bytes(1000))
    for one in (store, reader):
        buffer = one.open(name, 1000).buffer
        assert (buffer.readonly, buffer.format, buffer.nbytes, buffer.contiguous) == (True, "B", 1000, True)
        array = numpy.frombuffer(buffer, dtype="u1")
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_write_outside_the_segment_or_after_sealing_is_refused(store: SharedMemoryStore) -> None:
    segment = store.create(100)
    with pytest.raises(exceptions.InternalError, match="within its segment"):
        store.write(segment, 97, b"1234")
    with pytest.raises(exceptions.InternalError, match="within its segment"):
        store.write(segment, -1, b"1")
    store.seal(segment)
    with pytest.raises(exceptions.InternalError, match="sealed or freed"):
        store.write(segment, 0, b"1")


def test_failed_write_leaves_no_view_of_a_view_in_its_traceback(
    store: SharedMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector of CPython 3.11 crashes on a cycle with one."""

    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(segments, "write", fail)
    data = memoryview(bytearray(100))
    with pytest.raises(OSError, match="full") as failed:
        store.write(store.create(100), 0, data)
    assert failed.tb is not None
    data.release()  # what the traceback keeps does not need it


# Sizes and names


def test_size_classes_waste_less_than_a_quarter() -> None:
    for size_bytes in [*range(0, 70_000, 111), *(2**k + d for k in range(12, 40) for d in (-1, 0, 1))]:
        pages, size_class = segments.page_bytes(size_bytes), segments.class_bytes(size_bytes)
        assert size_class % PAGE == 0
        assert pages <= size_class < pages * 1.25


def test_fresh_segment_takes_only_the_pages_it_needs(store: SharedMemoryStore) -> None:
    name = put(store, bytes(MIB + 1))
    assert os.stat(os.path.join(store.directory, name)).st_size == MIB + PAGE


@pytest.mark.parametrize("name", ["", "x", "a.b", "a.b.c", "a.b.1.2", "../a.b.1", ".b.1", "a.b.-1"])
def test_bad_segment_name_is_refused(store: SharedMemoryStore, name: str) -> None:
    with pytest.raises(ValueError, match="is called"):
        store.open(name, 1)


def test_name_tells_creator_and_owner_and_file_is_private(store: SharedMemoryStore) -> None:
    name = put(store, b"1", OTHER)
    assert name.split(".")[:2] == [ME, OTHER]
    assert os.stat(os.path.join(store.directory, name)).st_mode & 0o777 == 0o600


# Reuse


def test_freed_segment_is_reused_for_a_value_of_its_class(store: SharedMemoryStore) -> None:
    first = put(store, bytes(MIB))
    node = inode(store, first)
    store.free(first)
    second = put(store, bytes(MIB - 10))
    assert (second, inode(store, second)) == (first, node)
    assert os.listdir(store.directory) == [first]


def test_last_freed_is_reused_first(store: SharedMemoryStore) -> None:
    names = [put(store, bytes(MIB)) for _ in range(3)]
    for name in names:
        store.free(name)
    assert [put(store, bytes(MIB)) for _ in range(3)] == names[::-1]


@pytest.mark.parametrize("is_mapped", [False, True])
def test_generation_changes_when_a_value_is_freed_and_not_before(store: SharedMemoryStore, is_mapped: bool) -> None:
    segment = store.create(PAGE)
    if is_mapped:
        segment.buffer[:4] = b"some"
    else:
        store.write(segment, 0, b"some")
    store.seal(segment)
    descriptor = os.open(f"{store.directory}/{segment.name}", os.O_RDONLY)
    try:
        seen = [segments.generation(descriptor)]
        assert bytes(store.open(segment.name, 4).buffer) == b"some"
        seen.append(segments.generation(descriptor))
        for _ in range(2):
            store.free(segment.name)
            seen.append(segments.generation(descriptor))
            assert put(store, b"other") == segment.name
    finally:
        os.close(descriptor)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_segment_reused_for_another_owner_is_renamed(store: SharedMemoryStore) -> None:
    first = put(store, bytes(MIB), OTHER)
    node = inode(store, first)
    store.free(first)
    assert os.listdir(store.directory) == [first]  # were we to die now, OTHER would find that it is no value it knows
    assert (put(store, bytes(MIB), OTHER), inode(store, first)) == (first, node)
    store.free(first)
    second = put(store, bytes(MIB), THIRD)
    assert (second, inode(store, second)) == (f"{ME}.{THIRD}.1", node)


def test_borrower_of_what_a_dead_process_owned_never_sees_another_value(
    store: SharedMemoryStore, reader: SharedMemoryStore
) -> None:
    name = put(store, b"1" * MIB, OTHER)
    node = inode(store, name)
    store.orphans_of(OTHER)
    with pytest.raises(exceptions.ObjectLostError):  # and not what is written over it
        reader.open(name, MIB)
    assert inode(store, put(store, b"2" * MIB, THIRD)) == node


def test_owner_to_whom_only_the_connection_broke_never_sees_another_value(
    store: SharedMemoryStore, reader: SharedMemoryStore
) -> None:
    name = put(store, b"1" * MIB, OTHER)
    node = inode(store, name)
    store.orphans_of(OTHER)
    again = put(store, b"2" * MIB, OTHER)
    assert inode(store, again) == node
    with pytest.raises(exceptions.ObjectLostError):
        reader.open(name, MIB)
    assert bytes(reader.open(again, MIB).buffer) == b"2" * MIB
    store.free(again)


def test_segment_whose_file_is_gone_when_it_is_freed_is_not_reused(store: SharedMemoryStore) -> None:
    first = put(store, bytes(MIB), OTHER)
    os.unlink(os.path.join(store.directory, first))
    store.free(first)
    assert (store.usage().live_count, store.usage().warm_bytes) == (0, 0)
    assert put(store, bytes(MIB), OTHER) != first


def test_reused_segment_that_is_too_short_grows_once(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    data = os.urandom(MIB + 3 * PAGE)
    first = put(store, bytes(MIB + 1))
    reader.open(first, MIB + 1)
    store.free(first)
    second = put(store, data)
    assert second == first
    assert os.stat(os.path.join(store.directory, second)).st_size == segments.class_bytes(MIB + 1)
    assert bytes(reader.open(second, len(data)).buffer) == data
    assert reader.usage().mapped_count == 1


def test_segment_that_grew_is_mapped_again_by_its_creator(store: SharedMemoryStore) -> None:
    first = put(store, bytes(MIB + 1))
    store.open(first, MIB + 1)
    store.free(first)
    data = os.urandom(MIB + 3 * PAGE)
    second = put(store, data)
    assert second == first
    assert bytes(store.open(second, len(data)).buffer) == data


def test_view_of_a_shorter_mapping_outlives_its_replacement(
    store: SharedMemoryStore, reader: SharedMemoryStore
) -> None:
    first = put(store, b"x" * PAGE)
    short = reader.open(first, PAGE)
    # Not what an owner does, who waits for the view to end; the reader must survive it.
    store.free(first)
    store.trim_all()
    path = os.path.join(store.directory, first)
    Path(path).write_bytes(b"y" * 2 * PAGE)
    long = reader.open(first, 2 * PAGE)
    assert (bytes(short.buffer[:1]), bytes(long.buffer[-1:])) == (b"x", b"y")
    del short
    reader.trim_all()
    assert reader.usage().mapped_count == 1


def test_reader_of_a_reused_segment_sees_the_new_value(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    first = put(store, b"1" * MIB, OTHER)
    assert bytes(reader.open(first, 1).buffer) == b"1"
    store.free(first)
    second = put(store, b"2" * MIB, THIRD)  # renamed, and yet the same mapping
    assert bytes(reader.open(second, 1).buffer) == b"2"
    assert reader.usage().mapped_count == 1


def test_pool_is_bounded_and_drops_the_oldest(store: SharedMemoryStore) -> None:
    names = [put(store, bytes(3 * MIB)) for _ in range(3)]
    for name in names:
        store.free(name)
    assert sorted(os.listdir(store.directory)) == names[1:]
    assert store.usage().warm_bytes == 6 * MIB


def test_segment_larger_than_the_pool_is_removed_at_once(store: SharedMemoryStore) -> None:
    kept = put(store, bytes(PAGE))
    store.free(put(store, bytes(9 * MIB)))
    assert os.listdir(store.directory) == [kept]


def test_trim_gives_back_only_what_has_been_idle(
    store: SharedMemoryStore, reader: SharedMemoryStore, clock: ManualClock
) -> None:
    early, late = put(store, bytes(MIB)), put(store, bytes(MIB))
    reader.open(early, MIB)
    store.free(early)
    assert reader.usage().mapped_count == 1
    clock.advance(4.0)
    store.free(late)
    assert (store.trim(), reader.trim()) == (0, 0)
    clock.advance(1.0)
    assert (store.trim(), reader.trim()) == (MIB, 0)
    assert (store.usage().warm_bytes, reader.usage().mapped_count) == (MIB, 0)
    assert (store.trim_all(), store.trim_all()) == (MIB, 0)
    assert os.listdir(store.directory) == []


def test_mapped_segments_hold_no_descriptors(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("needs /proc")
    views: list[View] = []
    for _ in range(50):
        name = put(store, bytes(PAGE))
        views += [store.open(name, PAGE), reader.open(name, PAGE)]
    assert len(os.listdir("/proc/self/fd")) <= before  # less where a collection closes what tests before this one left


# Views


def test_on_release_comes_once_when_the_last_slice_is_gone(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    name = put(store, b"0123456789" * 1000)
    for one in (store, reader):
        released: list[str] = []
        view = one.open(name, 10_000, on_release=lambda: released.append("released"))
        part = view.buffer[10:20]
        last = memoryview(part)[5:]
        del view, part
        gc.collect()
        assert (released, bytes(last)) == ([], b"56789")
        del last
        assert released == ["released"]


def test_array_over_a_slice_keeps_the_view(store: SharedMemoryStore) -> None:
    numpy = pytest.importorskip("numpy", reason="the arrays here are numpy's")
    released: list[str] = []
    name = put(store, bytes(range(200)))
    array = numpy.frombuffer(store.open(name, 200, lambda: released.append("x")).buffer[64:], dtype="u1")[::2].reshape(
        2, -1
    )
    gc.collect()
    assert (released, array[0, 0]) == ([], 64)
    del array
    assert released == ["x"]


def test_each_open_is_released_by_itself(store: SharedMemoryStore) -> None:
    name = put(store, b"x")
    released: list[int] = []
    views = [store.open(name, 1, lambda i=i: released.append(i)) for i in range(3)]  # type: ignore[misc]
    del views[1]
    assert released == [1]
    views.clear()
    assert sorted(released) == [0, 1, 2]


def test_segment_viewed_here_is_not_reused_before_the_view_ends(store: SharedMemoryStore) -> None:
    name = put(store, b"1" * MIB)
    view = store.open(name, MIB)
    store.free(name)
    assert store.usage().viewed_bytes == MIB
    other = put(store, b"2" * MIB)
    assert other != name
    assert bytes(view.buffer) == b"1" * MIB
    del view
    assert (store.usage().viewed_bytes, store.usage().warm_bytes) == (0, MIB)
    assert put(store, b"3" * MIB) == name


def test_view_that_ends_in_a_collection_during_a_call_does_not_deadlock(store: SharedMemoryStore) -> None:
    """The collector may run anywhere, also while the store holds its lock. Here it runs at every allocation."""

    class Cycle:
        def __init__(self, view: View) -> None:
            self.view = view
            self.me = self

    name = put(store, bytes(100))
    released: list[int] = []
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for i in range(200):
            Cycle(store.open(name, 100, lambda i=i: released.append(i)))  # type: ignore[misc]
            store.free(put(store, bytes(100)))
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    store.free(name)
    assert sorted(released) == list(range(200))
    assert store.usage().viewed_bytes == 0


def test_views_outlive_trim_and_close(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    data = os.urandom(MIB)
    name = put(store, data)
    released: list[str] = []
    own = store.open(name, MIB, lambda: released.append("own")).buffer
    foreign = reader.open(name, MIB, lambda: released.append("foreign")).buffer
    for one in (reader, store):
        one.trim_all()
        one.close()
        one.close()
    assert os.listdir(store.directory) == []
    assert bytes(own) == bytes(foreign) == data
    del own
    del foreign
    assert released == ["own", "foreign"]


def test_opening_what_is_gone_says_so(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    name = put(store, b"x")
    store.free(name)
    store.trim_all()
    for one in (store, reader):
        with pytest.raises(exceptions.ObjectLostError, match=f"segment {name}.*make the object again") as caught:
            one.open(name, 1)
        assert caught.value.owner == ME


def test_failed_open_counts_no_view_and_reports_no_release(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    name = put(store, b"x")
    released: list[str] = []
    for one in (store, reader):
        with pytest.raises(exceptions.InternalError, match="shorter than its value"):
            one.open(name, 2 * PAGE, lambda: released.append("x"))
    store.free(name)
    assert (store.usage().viewed_bytes, released) == (0, [])


# Ends


def test_free_twice_is_refused(store: SharedMemoryStore) -> None:
    mine, others = put(store, b"x"), put(store, b"x", OTHER)
    for name in (mine, others):
        store.free(name)
        with pytest.raises(exceptions.InternalError, match="freed twice"):
            store.free(name)


def test_segment_abandoned_before_sealing_is_freed(store: SharedMemoryStore) -> None:
    segment = store.create(100)
    store.free(segment.name)
    with pytest.raises(exceptions.InternalError, match="sealed or freed"):
        store.seal(segment)
    assert store.usage().warm_bytes == PAGE


def test_close_leaves_sealed_segments_of_other_owners(store: SharedMemoryStore) -> None:
    put(store, b"mine")
    kept = put(store, b"theirs", OTHER)
    store.create(10, OTHER)
    store.free(put(store, b"freed", OTHER))
    store.close()
    assert os.listdir(store.directory) == [kept]
    store.free(kept)
    assert os.listdir(store.directory) == []


def test_close_can_remove_everything(store: SharedMemoryStore) -> None:
    put(store, b"theirs", OTHER)
    store.close(unlink_all=True)
    assert os.listdir(store.directory) == []


def test_use_after_close_says_what_to_do(store: SharedMemoryStore) -> None:
    name = put(store, b"x")
    store.close()
    for use in (lambda: store.create(1), lambda: store.open(name, 1)):
        with pytest.raises(exceptions.UmbelSystemError, match=r"closed in this process.*umbel\.init"):
            use()
    store.free(name)
    assert store.trim_all() == 0


def test_unlink_removes_a_dead_creators_segment_once(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    name = put(store, bytes(MIB), OTHER)
    view = reader.open(name, MIB)
    assert reader.unlink(name) == MIB
    assert reader.unlink(name) == 0
    assert bytes(view.buffer[:1]) == b"\0"


def test_unlink_forgets_the_idle_mapping(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    name = put(store, bytes(MIB), OTHER)
    reader.open(name, MIB)
    reader.unlink(name)
    assert reader.usage().mapped_count == 0


def test_sweep_removes_segments_without_a_living_creator_or_owner(directory: str) -> None:
    stores = {hexadecimal: SharedMemoryStore(directory, hexadecimal) for hexadecimal in (ME, OTHER)}
    for store in stores.values():
        for owner in (ME, OTHER, THIRD):
            put(store, bytes(PAGE), owner)
    Path(directory, "something.else").touch()
    assert SharedMemoryStore.sweep(directory, lambda process: process == ME) == 2 * PAGE
    assert sorted(os.listdir(directory)) == sorted(
        [f"{ME}.{ME}.1", f"{ME}.{OTHER}.2", f"{ME}.{THIRD}.3", f"{OTHER}.{ME}.1", "something.else"]
    )
    assert SharedMemoryStore.sweep(directory, lambda _: False) == 4 * PAGE
    assert os.listdir(directory) == ["something.else"]


# Quota


class Agent:
    """Whoever counts for the node: grants up to a capacity, and remembers what it was asked."""

    def __init__(self, capacity_bytes: int) -> None:
        self.free_bytes = capacity_bytes
        self.asked: list[int] = []

    def reserve(self, size_bytes: int) -> int:
        self.asked.append(size_bytes)
        if size_bytes > self.free_bytes:
            raise exceptions.ObjectStoreFullError("full")
        self.free_bytes -= size_bytes
        return size_bytes

    def release(self, size_bytes: int) -> None:
        self.free_bytes += size_bytes


def quota_store(directory: str, agent: Agent, clock: ManualClock) -> SharedMemoryStore:
    return SharedMemoryStore(
        directory, ME, reserve=agent.reserve, release=agent.release, warm_bytes_max=64 * MIB, clock=clock
    )


def test_quota_is_asked_for_in_chunks(directory: str, clock: ManualClock) -> None:
    agent = Agent(100 * MIB)
    store = quota_store(directory, agent, clock)
    for _ in range(20):
        put(store, bytes(MIB))
    store.create(17 * MIB)
    assert agent.asked == [quota.CHUNK_BYTES, quota.CHUNK_BYTES, quota.CHUNK_BYTES]
    store.close()
    assert agent.free_bytes == 100 * MIB


def test_reuse_asks_for_no_quota(directory: str, clock: ManualClock) -> None:
    agent = Agent(100 * MIB)
    store = quota_store(directory, agent, clock)
    for _ in range(5):
        store.free(put(store, bytes(30 * MIB)))
    assert agent.asked == [30 * MIB]


def test_less_than_a_chunk_is_asked_for_when_a_chunk_is_refused(directory: str, clock: ManualClock) -> None:
    agent = Agent(MIB)
    store = quota_store(directory, agent, clock)
    put(store, bytes(MIB))
    assert agent.asked == [quota.CHUNK_BYTES, MIB]
    with pytest.raises(exceptions.ObjectStoreFullError):
        put(store, bytes(PAGE))
    assert (store.usage().live_count, len(os.listdir(directory))) == (1, 1)


def test_warm_segments_make_room_when_the_quota_is_used_up(directory: str, clock: ManualClock) -> None:
    agent = Agent(4 * MIB)
    store = quota_store(directory, agent, clock)
    names = [put(store, bytes(MIB)) for _ in range(4)]
    for name in names[:3]:
        store.free(name)
    put(store, bytes(2 * MIB))
    usage = store.usage()
    assert (usage.live_bytes, usage.warm_bytes, usage.reserved_bytes) == (3 * MIB, MIB, 4 * MIB)


def test_trim_releases_quota(directory: str, clock: ManualClock) -> None:
    agent = Agent(100 * MIB)
    store = quota_store(directory, agent, clock)
    name = put(store, bytes(MIB))
    store.free(put(store, bytes(40 * MIB)))
    clock.advance(5.0)
    store.trim()
    assert (agent.free_bytes, store.usage().reserved_bytes) == (99 * MIB, MIB)
    store.free(name)
    store.trim_all()
    assert agent.free_bytes == 100 * MIB


def test_trim_may_be_called_while_quota_is_awaited(directory: str, clock: ManualClock) -> None:
    class TrimmingAgent(Agent):
        def reserve(self, size_bytes: int) -> int:
            trimmed.trim_all()  # what an agent makes every process do before it refuses
            return super().reserve(size_bytes)

    agent = TrimmingAgent(4 * MIB)
    trimmed = quota_store(directory, agent, clock)
    trimmed.free(put(trimmed, bytes(4 * MIB)))
    put(trimmed, bytes(3 * MIB))
    assert agent.free_bytes == MIB


def test_capacity_is_the_quota_of_a_store_on_its_own(directory: str) -> None:
    store = SharedMemoryStore(directory, ME, capacity_bytes=2 * MIB)
    name = put(store, bytes(MIB))
    with pytest.raises(exceptions.ObjectStoreFullError, match=r"2097152 bytes of its capacity.*drop references"):
        store.create(2 * MIB)
    store.free(name)
    put(store, bytes(2 * MIB))


# A full file system


@contextlib.contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_refused_pages_are_an_error_and_leave_nothing(store: SharedMemoryStore) -> None:
    kept = put(store, bytes(PAGE))
    with file_size_limit(MIB), pytest.raises(exceptions.ObjectStoreFullError, match="no room for 2097152 bytes"):
        store.create(2 * MIB)
    assert os.listdir(store.directory) == [kept]
    store.trim_all()
    assert (store.usage().live_bytes, store.usage().reserved_bytes) == (PAGE, PAGE)
    put(store, bytes(2 * MIB))


def test_segment_that_cannot_grow_keeps_its_length(store: SharedMemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "ALLOCATE_CHUNK_BYTES", PAGE)  # so that it fails half-way
    name = put(store, bytes(MIB + 1))
    store.free(name)
    with file_size_limit(MIB + 2 * PAGE), pytest.raises(exceptions.ObjectStoreFullError):
        store.create(MIB + PAGE + 1)
    assert os.stat(os.path.join(store.directory, name)).st_size == MIB + PAGE
    assert (store.usage().warm_bytes, store.usage().live_count) == (MIB + PAGE, 0)


def test_exhausted_address_space_is_an_error_after_unmapping_what_nobody_views(store: SharedMemoryStore) -> None:
    size_bytes = 4 * MIB
    names = [put(store, bytes([mark]) * size_bytes) for mark in range(20)]

    def act() -> None:
        mine = SharedMemoryStore(store.directory, OTHER)
        own = [put(mine, bytes(size_bytes)) for _ in range(8)]
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + 40 * MIB, resource.RLIM_INFINITY))
        for name in own:
            mine.open(name, size_bytes)
        views: list[View] = []
        with pytest.raises(exceptions.ObjectStoreFullError, match=r"cannot map.*vm\.max_map_count"):
            views.extend(mine.open(name, size_bytes) for name in names)
        assert 7 <= len(views) <= 10
        assert [view.buffer[-1] for view in views] == list(range(len(views)))
        del views
        assert mine.open(names[-1], size_bytes).buffer[0] == 19

    if not os.path.isdir("/proc/self"):
        pytest.skip("needs /proc to tell the size of the address space")
    assert run_in_fork(act) == 0


@pytest.fixture
def small_directory(tmp_path: Path) -> Iterator[str]:
    """A memory file system of 4 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small file system; the tests of refused pages cover the rest")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    yield str(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_full_file_system_says_how_much_is_free_and_what_to_do(small_directory: str) -> None:
    store = SharedMemoryStore(small_directory, ME)
    name = put(store, b"x" * 3 * MIB)
    with pytest.raises(
        exceptions.ObjectStoreFullError,
        match=r"no room for 2097152 bytes in .*1048576 of its 4194304 bytes.*--shm-size",
    ):
        store.create(2 * MIB)
    assert bytes(store.open(name, 3 * MIB).buffer) == b"x" * 3 * MIB
    put(store, bytes(MIB))
    store.close()


def test_who_grants_room_that_is_not_there_makes_some(small_directory: str) -> None:
    other = os.path.join(small_directory, "other")
    with open(other, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 3 * MIB)
    said: list[tuple[str, int]] = []

    def reserve(size_bytes: int) -> int:
        said.append(("reserve", size_bytes))
        if len(said) > 1:
            os.unlink(other)
        return size_bytes

    store = SharedMemoryStore(
        small_directory, ME, reserve=reserve, release=lambda size_bytes: said.append(("release", size_bytes))
    )
    put(store, bytes(2 * MIB))
    chunk = quota.CHUNK_BYTES
    assert said[0] == said[-1] == ("reserve", chunk)
    assert {what for what, _ in said[1:-1]} == {"release"}
    assert sum(size_bytes for _, size_bytes in said[1:-1]) == chunk
    store.close()


def test_full_file_system_takes_what_is_warm_first(small_directory: str) -> None:
    store = SharedMemoryStore(small_directory, ME)
    store.free(put(store, bytes(3 * MIB)))
    put(store, bytes(2 * MIB))
    assert store.usage().warm_bytes == 0
    store.close()


# Threads and processes


def test_threads_never_see_each_others_bytes(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    failures: list[str] = []

    def work(mark: int) -> None:
        for i in range(150):
            size_bytes = 5_000 + (i * 977 + mark * 131) % 20_000
            data = bytes([mark]) * size_bytes
            name = put(store, data, OTHER if i % 3 else None)
            view = (reader if i % 2 else store).open(name, size_bytes)
            if i % 2:
                is_same = bytes(view.buffer) == data
                del view
                store.free(name)
            else:
                store.free(name)  # viewed here: not reused before the view ends
                is_same = bytes(view.buffer) == data
                del view
            if not is_same:
                failures.append(name)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usage = store.usage()
    assert (failures, usage.live_count, usage.viewed_bytes) == ([], 0, 0)
    assert len(os.listdir(store.directory)) < 100
    store.trim_all()
    assert os.listdir(store.directory) == []


READ_IN_ANOTHER_PROCESS = """
import sys, zlib
from umbel._objects.store import SharedMemoryStore
directory, process = sys.argv[1:3]
store = SharedMemoryStore(directory, process)
for name, size in (argument.split("=") for argument in sys.argv[3:]):
    print(zlib.crc32(store.open(name, int(size)).buffer))
made = store.create(5, "a" * 32)
store.write(made, 0, b"reply")
store.seal(made)
print(made.name)
store.close()
"""


def test_two_processes_exchange_values(store: SharedMemoryStore) -> None:
    import zlib

    values = [os.urandom(10), os.urandom(MIB)]
    names = [put(store, value) for value in values]
    *sums, reply = run_python(
        READ_IN_ANOTHER_PROCESS, store.directory, OTHER, *(f"{n}={len(v)}" for n, v in zip(names, values, strict=True))
    ).split()
    assert [int(one) for one in sums] == [zlib.crc32(value) for value in values]
    assert bytes(store.open(reply, 5).buffer) == b"reply"  # it outlives the process that wrote it: we own it
    assert store.unlink(reply) == PAGE
    assert sorted(os.listdir(store.directory)) == sorted(names)


def test_reading_past_a_killed_creator_is_safe(store: SharedMemoryStore) -> None:
    def create_and_die() -> None:
        child_store = SharedMemoryStore(store.directory, OTHER)
        put(child_store, b"y" * MIB, ME)
        os.kill(os.getpid(), 9)

    assert run_in_fork(create_and_die) == -9
    view = store.open(f"{OTHER}.{ME}.1", MIB)
    assert store.unlink(view.name) == MIB
    assert bytes(view.buffer) == b"y" * MIB


def test_forked_child_leaves_its_parents_store_alone(store: SharedMemoryStore, reader: SharedMemoryStore) -> None:
    data = os.urandom(MIB)
    name = put(store, data)
    marker = os.path.join(store.directory, "released")
    own = store.open(name, MIB, lambda: Path(marker).touch()).buffer
    foreign = reader.open(name, MIB, lambda: Path(marker).touch()).buffer
    warm_name = put(store, bytes(PAGE))
    store.free(warm_name)

    def act() -> None:
        nonlocal own, foreign
        assert bytes(own) == bytes(foreign) == data
        del own, foreign
        gc.collect()
        assert not os.path.exists(marker)
        for use in (lambda: store.create(1), lambda: store.open(name, 1), lambda: store.free(name), store.usage):
            with pytest.raises(exceptions.UmbelSystemError, match=r"forked.*umbel\.init"):
                use()
        assert store.trim_all() == reader.trim_all() == 0
        store.close(unlink_all=True)
        reader.close(unlink_all=True)

    assert run_in_fork(act) == 0
    assert sorted(os.listdir(store.directory)) == sorted([name, warm_name])
    assert bytes(own) == bytes(foreign) == data
    assert put(store, bytes(PAGE)) == warm_name


def test_fork_while_another_thread_holds_the_lock_does_not_hang_the_child(store: SharedMemoryStore) -> None:
    def act() -> None:
        with pytest.raises(exceptions.UmbelSystemError, match="forked"):
            store.create(1)
        store.close()

    with store._lock:
        assert run_in_fork(act) == 0
