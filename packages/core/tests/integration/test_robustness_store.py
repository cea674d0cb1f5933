"""Shared memory that runs out: an error that names the holders, and everything works again once there is room."""

from __future__ import annotations

import sys

import drivers
import pytest

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.slow,
]


def test_full_store_is_an_error_for_put_and_goes_by() -> None:
    output, _ = drivers.run(
        """
        import umbel
        from umbel import exceptions
        umbel.init(num_cpus=1, object_store_memory=80_000_000)

        @umbel.remote
        def size(value): return len(value)

        kept = [umbel.put(bytes(9_000_000)) for _ in range(8)]
        try:
            for _ in range(3): kept.append(umbel.put(bytes(9_000_000)))
        except exceptions.ObjectStoreFullError as error:
            assert "object_store_memory" in str(error) and "holds" in str(error), error
            assert "switched off" in str(error) and "made at" not in str(error), error
            print("full")
        assert umbel.get(size.remote(kept[0])) == 9_000_000
        assert all(len(umbel.get(ref)) == 9_000_000 for ref in kept[:8])
        assert umbel.get(size.remote(b"small")) == 5
        del kept
        for _ in range(20):
            assert len(umbel.get(umbel.put(bytes(30_000_000)))) == 30_000_000
        print("room")
    """,
        UMBEL_AUTOMATIC_OBJECT_SPILLING_ENABLED="0",
    )
    assert output == "full\nroom\n"


def test_object_larger_than_the_store_is_refused_at_once_or_soon() -> None:
    output, _ = drivers.run("""
        import umbel
        umbel.init(num_cpus=1, object_store_memory=80_000_000)
        try:
            umbel.put(bytes(200_000_000))
        except umbel.exceptions.ObjectStoreFullError:
            print("full")
        assert len(umbel.get(umbel.put(bytes(40_000_000)))) == 40_000_000
    """)
    assert output == "full\n"


def test_result_that_does_not_fit_is_the_tasks_error() -> None:
    output, _ = drivers.run(
        """
        import umbel
        from umbel import exceptions
        umbel.init(num_cpus=1, object_store_memory=80_000_000)

        @umbel.remote(max_retries=0)
        def make(size): return bytes(size)

        @umbel.remote
        def take(value): return len(value)

        @umbel.remote
        def stream():
            for _ in range(20): yield bytes(9_000_000)

        kept = umbel.put(bytes(60_000_000))
        waits = make.remote(50_000_000)  # in its worker, while this process waits for room for an argument
        for call in (lambda: take.remote(bytes(50_000_000)), lambda: waits):
            try:
                umbel.get(call(), timeout=25)
            except exceptions.ObjectStoreFullError as error:
                print("full")
        got = 0
        try:
            items = [next(it) for it in [stream.remote()] for _ in range(20)]
            for ref in items:
                umbel.get(ref, timeout=25)
                got += 1
        except (exceptions.ObjectStoreFullError, StopIteration):
            print("full")
        items = None
        assert umbel.get(make.remote(5_000_000)) == bytes(5_000_000)
        del kept
        assert len(umbel.get(make.remote(50_000_000), timeout=25)) == 50_000_000
        print("room")
    """,
        timeout_s=55,
        UMBEL_AUTOMATIC_OBJECT_SPILLING_ENABLED="0",
    )
    assert output == "full\n" * 3 + "room\n"


def test_writer_waits_while_others_free_what_they_hold() -> None:
    output, _ = drivers.run("""
        import threading, time, umbel
        umbel.init(num_cpus=2, object_store_memory=80_000_000)
        kept = [umbel.put(bytes(20_000_000)) for _ in range(3)]

        @umbel.remote(max_retries=0)
        def make(): return bytes(50_000_000)

        ref = make.remote()
        time.sleep(0.5)
        kept.clear()
        umbel.put(1)
        assert len(umbel.get(ref, timeout=20)) == 50_000_000
        print("done")
    """)
    assert output == "done\n"


def test_warm_memory_of_idle_processes_is_given_to_who_needs_it() -> None:
    output, _ = drivers.run("""
        import umbel
        umbel.init(num_cpus=2, object_store_memory=80_000_000)

        @umbel.remote
        class Maker:
            def make(self): return bytes(35_000_000)

        makers = [Maker.remote() for _ in range(2)]
        for maker in makers * 4:
            assert len(umbel.get(maker.make.remote(), timeout=20)) == 35_000_000
        assert len(umbel.get(umbel.put(bytes(60_000_000)))) == 60_000_000
        print("done")
    """)
    assert output == "done\n"


def test_full_file_system_is_an_error_that_says_so() -> None:
    """A limit on the size of files stands for a file system without room; both are refused when pages are allocated."""
    output, _ = drivers.run("""
        import resource, umbel
        from umbel import exceptions

        umbel.init(num_cpus=1)
        assert len(umbel.get(umbel.put(bytes(20_000_000)))) == 20_000_000

        @umbel.remote(max_retries=0)
        def make(size, limit):
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                return len(umbel.get(umbel.put(bytes(size))))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        try:
            umbel.get(make.remote(30_000_000, 8_000_000))
        except exceptions.ObjectStoreFullError as error:
            assert "/dev/shm" in str(error) and "shm-size" in str(error), error
            print("worker")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, before[1]))
        try:
            umbel.put(bytes(30_000_000))
        except exceptions.ObjectStoreFullError as error:
            print("driver")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(umbel.get(umbel.put(bytes(30_000_000)))) == 30_000_000
        assert umbel.get(make.remote(1_000_000, 8_000_000)) == 1_000_000
    """)
    assert output == "worker\ndriver\n"


def test_many_large_objects_beyond_the_limit_of_open_files() -> None:
    drivers.run("""
        import resource, umbel
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        umbel.init(num_cpus=1)
        refs = [umbel.put(bytes(200_000)) for _ in range(400)]
        views = umbel.get(refs)
        assert all(len(view) == 200_000 for view in views)

        @umbel.remote
        def count(refs): return sum(len(value) for value in umbel.get(refs))

        assert umbel.get(count.remote(refs)) == 400 * 200_000
    """)
