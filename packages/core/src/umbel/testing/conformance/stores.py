"""What an object store must do: one process alone, several processes, and at the limits of its room."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from umbel import exceptions, spi
from umbel.testing.conformance import suite

ALIGNMENT_BYTES = 64  # a cache line, and what numpy and Arrow want of the buffers that are read in place
CAPACITY_BYTES = 8 << 20
PROCESS_TIMEOUT_S = 60.0  # starting Python and importing the plugin on a busy machine

ME, OTHER, OWNER = "a" * 32, "b" * 32, "c" * 32  # process ids
SIZES = [1, 63, 64, 4096, 100_001, (1 << 20) + 3]

Store = spi.ObjectStore[Any]  # Any: its segments are its own affair


def pattern(size_bytes: int, salt: int = 0) -> bytes:
    """Bytes that differ from place to place, and from salt to salt."""
    return bytes((index * 31 + salt * 7 + index // 256) % 256 for index in range(min(size_bytes, 4096))).ljust(
        size_bytes, bytes([salt % 256])
    )


def put(store: Store, content: bytes, owner: str | None = None) -> str:
    segment = store.create(len(content), owner)
    store.write(segment, 0, content)
    store.seal(segment)
    return str(segment.name)


def read(store: Store, name: str, size_bytes: int) -> bytes:
    return bytes(store.open(name, size_bytes).buffer)


def address_of(buffer: memoryview) -> int:
    """Any view's, read-only ones too, which ctypes does not take as they are."""

    class Buffer(ctypes.Structure):  # CPython's Py_buffer: what it points to comes first
        _fields_ = (("address", ctypes.c_void_p), ("owner", ctypes.py_object), ("rest", ctypes.c_byte * 128))

    found = Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(found), 0)
    address = found.address
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))
    return int(address)


def read_in_child() -> None:
    """Runs in a process of its own: the question comes on standard input, the bytes go to standard output."""
    descriptor, directory, name, size_bytes = pickle.load(sys.stdin.buffer)
    store: Any = suite.make("store", descriptor, spi.ObjectStore, directory, OTHER, capacity_bytes=CAPACITY_BYTES)
    sys.stdout.buffer.write(store.open(name, size_bytes).buffer)
    store.close()


class StoreConformance(suite.Suite[Store]):
    """Subclass it and set `descriptor`, whose factory has to be importable: another process opens the store too."""

    kind = "store"
    descriptor_type = spi.StoreDescriptor
    protocol = spi.ObjectStore

    @pytest.fixture
    def directory(self) -> Iterator[str]:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        path = tempfile.mkdtemp(prefix="umbel-conformance-", dir=memory)
        yield path
        shutil.rmtree(path, ignore_errors=True)

    @pytest.fixture
    def store(self, directory: str) -> Iterator[Store]:
        with contextlib.closing(self.open_store(directory, ME)) as made:
            yield made

    @pytest.fixture
    def reader(self, directory: str) -> Iterator[Store]:
        """Another process's part of the same store, as far as it can be had in one process."""
        with contextlib.closing(self.open_store(directory, OTHER)) as made:
            yield made

    def open_store(self, directory: str, process_id: str, **options: object) -> Store:
        return self.make(directory, process_id, **(options or {"capacity_bytes": CAPACITY_BYTES}))

    # contents

    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_bytes_written_are_bytes_read(self, store: Store, reader: Store, size_bytes: int) -> None:
        content = pattern(size_bytes)
        name = put(store, content)
        assert read(store, name, size_bytes) == content
        assert read(reader, name, size_bytes) == content

    def test_a_segment_can_be_written_in_parts_and_through_its_buffer(self, store: Store) -> None:
        segment = store.create(300)
        store.write(segment, 100, pattern(100, salt=1))
        segment.buffer[0:100] = pattern(100, salt=2)
        store.write(segment, 200, memoryview(bytearray(pattern(100, salt=3))))
        store.seal(segment)
        assert read(store, segment.name, 300) == pattern(100, salt=2) + pattern(100, salt=1) + pattern(100, salt=3)

    def test_an_empty_value_can_be_stored(self, store: Store, reader: Store) -> None:
        assert read(reader, put(store, b""), 0) == b""

    def test_a_segment_has_the_size_asked_for(self, store: Store) -> None:
        segment = store.create(1000)
        assert (segment.size_bytes, len(segment.buffer), segment.buffer.readonly) == (1000, 1000, False)
        store.free(segment.name)

    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_memory_is_aligned(self, store: Store, reader: Store, size_bytes: int) -> None:
        segment = store.create(size_bytes)
        assert address_of(segment.buffer) % ALIGNMENT_BYTES == 0
        store.seal(segment)
        for part in (store, reader):
            assert address_of(part.open(segment.name, size_bytes).buffer) % ALIGNMENT_BYTES == 0

    def test_views_are_read_only(self, store: Store, reader: Store) -> None:
        name = put(store, b"contents")
        for part in (store, reader):
            buffer = part.open(name, 8).buffer
            assert buffer.readonly
            with pytest.raises(TypeError):
                buffer[0] = 0

    def test_values_do_not_share_memory(self, store: Store) -> None:
        contents = [pattern(5000, salt) for salt in range(20)]
        names = [put(store, content) for content in contents]
        assert len(set(names)) == 20
        assert [read(store, name, 5000) for name in names] == contents

    def test_another_process_reads_the_same(self, store: Store, directory: str) -> None:
        content = pattern(100_001, salt=5)
        name = put(store, content)
        child = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import read_in_child; read_in_child()"],
            input=pickle.dumps((self.descriptor, directory, name, len(content))),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=PROCESS_TIMEOUT_S,
            check=False,
        )
        assert (child.returncode, child.stderr.decode()) == (0, "")
        assert child.stdout == content
        assert read(store, name, len(content)) == content  # the other process's end has not removed it

    # the life of values and views

    def test_a_view_outlives_freeing_and_reuse(self, store: Store, reader: Store) -> None:
        content = pattern(200_000, salt=1)
        name = put(store, content)
        own, foreign = store.open(name, len(content)).buffer, reader.open(name, len(content)).buffer
        foreign_content = bytes(foreign)
        store.free(name)
        for salt in range(2, 6):  # of the same size: a store that recycled viewed memory would write over it
            put(store, pattern(200_000, salt))
        assert bytes(own) == foreign_content == content

    def test_a_view_outlives_the_store(self, directory: str) -> None:
        store, reader = self.open_store(directory, ME), self.open_store(directory, OTHER)
        name = put(store, b"contents")
        views = [store.open(name, 8).buffer, reader.open(name, 8).buffer]
        reader.close()
        store.close()
        assert [bytes(view) for view in views] == [b"contents"] * 2

    def test_release_is_reported_once_when_the_last_part_of_a_view_is_gone(self, store: Store, reader: Store) -> None:
        name = put(store, b"contents")
        for part in (store, reader):
            released: list[int] = []
            view: spi.View | None = part.open(name, 8, lambda seen=released: seen.append(1))  # type: ignore[misc]
            assert view is not None
            piece: memoryview | None = view.buffer[2:4]
            view = None
            gc.collect()
            assert released == []
            assert piece is not None
            assert bytes(piece) == b"nt"
            piece = None
            gc.collect()
            assert released == [1]

    def test_a_value_that_is_not_there_is_lost(self, store: Store) -> None:
        with pytest.raises(exceptions.ObjectLostError):
            store.open(f"{OTHER}.{OTHER}.1", 8)

    def test_a_segment_can_be_freed_before_it_is_sealed(self, store: Store) -> None:
        store.free(store.create(1000).name)
        store.trim_all()
        assert store.usage().live_bytes == 0

    def test_usage_follows_what_lives(self, store: Store) -> None:
        assert store.usage().live_bytes == 0
        names = [put(store, pattern(100_000)) for _ in range(3)]
        assert store.usage().live_bytes >= 300_000
        view: spi.View | None = store.open(names[0], 100_000)
        for name in names:
            store.free(name)
        store.trim_all()
        usage = store.usage()
        assert (usage.live_bytes, usage.warm_bytes) == (0, 0)
        assert usage.viewed_bytes >= 100_000
        assert view is not None
        view = None
        gc.collect()
        store.trim_all()
        assert store.usage().viewed_bytes == 0

    def test_threads_do_not_disturb_one_another(self, store: Store) -> None:
        wrong: list[object] = []

        def work(salt: int) -> None:
            for round_ in range(30):
                content = pattern(1000 + 977 * round_, salt)
                name = put(store, content)
                try:
                    if read(store, name, len(content)) != content:
                        wrong.append((salt, round_))
                finally:
                    store.free(name)

        threads = [threading.Thread(target=work, args=(salt,)) for salt in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        store.trim_all()
        assert store.usage().live_bytes == 0

    # room

    def test_capacity_is_kept(self, store: Store) -> None:
        held = []
        with pytest.raises(exceptions.ObjectStoreFullError):
            for _ in range(2 * CAPACITY_BYTES // (1 << 20)):
                held.append(put(store, pattern(1 << 20)))
        assert 0 < len(held) <= CAPACITY_BYTES >> 20

    def test_what_is_freed_makes_room(self, store: Store) -> None:
        for salt in range(4 * CAPACITY_BYTES // (2 << 20)):
            store.free(put(store, pattern(2 << 20, salt)))
        with pytest.raises(exceptions.ObjectStoreFullError):
            store.create(2 * CAPACITY_BYTES)
        assert read(store, put(store, b"goes on"), 7) == b"goes on"

    def test_a_quota_of_the_node_is_asked_and_given_back(self, directory: str) -> None:
        held_bytes = 0

        def reserve(size_bytes: int) -> int:
            nonlocal held_bytes
            granted = min(size_bytes, CAPACITY_BYTES - held_bytes)
            if granted <= 0:
                raise exceptions.ObjectStoreFullError("the test's node is full")
            held_bytes += granted
            return granted

        def release(size_bytes: int) -> None:
            nonlocal held_bytes
            held_bytes -= size_bytes

        store = self.open_store(directory, ME, reserve=reserve, release=release)
        put(store, pattern(1 << 20))
        assert held_bytes >= 1 << 20
        with pytest.raises(exceptions.ObjectStoreFullError):
            store.create(2 * CAPACITY_BYTES)
        store.close()
        assert held_bytes == 0

    # moving values to disk, for stores that can

    @pytest.fixture
    def spillable(self, store: Store) -> spi.SpillableStore[Any]:
        if not isinstance(store, spi.SpillableStore):
            pytest.skip("this store does not let its values be moved to disk")
        return store

    def test_evicted_value_is_gone_for_good(self, spillable: spi.SpillableStore[Any], reader: Store) -> None:
        name = put(spillable, pattern(100_000))
        assert spillable.evict(name) >= 100_000
        assert spillable.evict(name) == 0
        for part in (spillable, reader):
            with pytest.raises(exceptions.ObjectLostError):
                part.open(name, 100_000)
        assert name not in [put(spillable, pattern(100_000, salt)) for salt in range(3)]

    def test_eviction_makes_room(self, spillable: spi.SpillableStore[Any]) -> None:
        for salt in range(4 * CAPACITY_BYTES // (2 << 20)):
            spillable.evict(put(spillable, pattern(2 << 20, salt)))
        assert spillable.usage().live_bytes == 0

    def test_value_that_is_looked_at_here_is_not_evicted(self, spillable: spi.SpillableStore[Any]) -> None:
        content = pattern(100_000)
        name = put(spillable, content)
        view: spi.View | None = spillable.open(name, len(content))
        assert spillable.evict(name) == 0
        assert read(spillable, name, len(content)) == content
        view = None
        gc.collect()
        assert view is None
        assert spillable.evict(name) > 0

    def test_other_processes_views_outlive_eviction(self, spillable: spi.SpillableStore[Any], reader: Store) -> None:
        content = pattern(100_000, salt=1)
        name = put(spillable, content)
        view = reader.open(name, len(content)).buffer
        spillable.evict(name)
        for salt in range(2, 6):
            put(spillable, pattern(100_000, salt))
        assert bytes(view) == content

    def test_what_is_looked_at_is_told(self, spillable: spi.SpillableStore[Any], reader: Store) -> None:
        if not isinstance(reader, spi.SpillableStore):
            pytest.fail("one part of the store can evict, the other cannot")
        names = [put(spillable, pattern(100_000, salt)) for salt in range(2)]
        for part in (spillable, reader):
            view: spi.View | None = part.open(names[1], 100_000)
            assert view is not None
            assert list(part.viewed()) == [names[1]]
            assert part.viewed()[names[1]] >= 100_000
            view = None
            gc.collect()
            assert list(part.viewed()) == []

    # files

    def test_files_are_named_by_creator_and_owner(self, store: Store, directory: str) -> None:
        """By these names the node removes what dead processes leave behind."""
        names = {put(store, b"mine"), put(store, b"theirs", OWNER)}
        assert set(os.listdir(directory)) == names
        assert sorted(name.split(".")[:2] for name in names) == [[ME, ME], [ME, OWNER]]

    def test_nothing_is_left_after_close(self, directory: str) -> None:
        store, reader = self.open_store(directory, ME), self.open_store(directory, OTHER)
        for size_bytes in SIZES:
            read(reader, put(store, pattern(size_bytes)), size_bytes)
        store.free(put(store, b"freed"))
        store.create(100)  # never sealed
        reader.close()
        store.close()
        store.close()
        assert os.listdir(directory) == []

    def test_close_leaves_the_values_of_other_owners(self, directory: str, reader: Store) -> None:
        store = self.open_store(directory, ME)
        name = put(store, b"theirs", OWNER)
        store.close()
        assert read(reader, name, 6) == b"theirs"
        assert reader.unlink(name) > 0
        assert reader.unlink(name) == 0
        assert os.listdir(directory) == []
        with pytest.raises(exceptions.ObjectLostError):
            reader.open(name, 6)

    def test_close_can_remove_everything(self, directory: str) -> None:
        store = self.open_store(directory, ME)
        put(store, b"theirs", OWNER)
        store.close(unlink_all=True)
        assert os.listdir(directory) == []
