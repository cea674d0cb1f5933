"""The runtime used at the wrong time or from the wrong place: before, after, twice, from exit handlers, from
threads."""

from __future__ import annotations

import sys

import drivers
import pytest

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.slow,
]


def test_several_sessions_in_one_process_leave_nothing_of_each_other() -> None:
    output, errors = drivers.run("""
        import gc, os, threading
        import umbel

        @umbel.remote
        def double(number): return number * 2

        @umbel.remote
        class Actor:
            def add(self, a, b): return a + b

        def descriptors(): return len(os.listdir("/proc/self/fd"))

        counts = []
        for number in range(6):
            umbel.init(num_cpus=1)
            assert umbel.get(double.remote(number)) == number * 2
            assert umbel.get(Actor.remote().add.remote(number, 1)) == number + 1
            assert umbel.get(umbel.put(bytes(1_000_000))) == bytes(1_000_000)
            umbel.shutdown()
            gc.collect()
            counts.append((descriptors(), threading.active_count()))
        assert counts[1:] == counts[:1] * 5, counts
        print("done")
    """)
    assert output == "done\n"
    assert all(line.startswith("umbel: started") for line in errors.splitlines()), errors


def test_init_prints_one_line_at_most() -> None:
    output, errors = drivers.run("""
        import umbel
        umbel.init(num_cpus=1)
        umbel.get(umbel.remote(lambda: 1).remote())
    """)
    assert len((output + errors).splitlines()) <= 1


def test_program_that_never_shuts_down_leaves_nothing() -> None:
    drivers.run("""
        import time, umbel
        umbel.init(num_cpus=2)
        @umbel.remote
        def forever(): time.sleep(1000)
        @umbel.remote
        class Actor:
            def forever(self): time.sleep(1000)
        actor = Actor.remote()
        refs = [forever.remote(), actor.forever.remote(), umbel.put(bytes(1_000_000))]
        umbel.wait(refs, num_returns=2, timeout=0.3)
    """)


def test_program_that_ends_by_an_error_leaves_nothing() -> None:
    with drivers.driver("""
        import umbel
        umbel.init(num_cpus=1)
        umbel.get(umbel.remote(lambda: 1).remote())
        raise SystemExit(3)
    """) as driver:
        assert driver.process.wait(drivers.PATIENCE_S) == 3
        driver.expect_nothing_left()


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_references_and_handles_of_an_ended_session_are_refused(engine: str) -> None:
    output, _ = drivers.run("""
        import umbel
        from umbel import exceptions

        @umbel.remote
        def double(number): return number * 2
        @umbel.remote
        def take(things): return 1
        @umbel.remote
        class Actor:
            def work(self, thing=None): return 1

        umbel.init(num_cpus=1)
        refs = [double.remote(1), umbel.put(2), umbel.put(bytes(1_000_000))]
        umbel.get(refs)
        actor = Actor.remote()
        umbel.get(actor.work.remote())
        items = umbel.remote(lambda: (yield 1)).remote()
        umbel.get(next(items))
        umbel.shutdown()
        umbel.init(num_cpus=1)
        new = Actor.remote()
        for ref in refs:
            for call in (
                lambda: umbel.get(ref),
                lambda: umbel.wait([ref]),
                lambda: umbel.get(double.remote(ref)),
                lambda: umbel.get(take.remote([ref])),
                lambda: umbel.get(new.work.remote(ref)),
                lambda: umbel.get(new.work.remote({"deep": [ref]})),
                lambda: ref.future().result(10),
            ):
                try:
                    call()
                except exceptions.ObjectLostError as error:
                    assert "session" in str(error), error
                else:
                    print("no error")
        for call in (
            lambda: actor.work.remote(),
            lambda: umbel.kill(actor),
            lambda: umbel.kill(actor, no_restart=False),
        ):
            try:
                call()
            except exceptions.ActorHandleNotFoundError as error:
                assert "session" in str(error), error
            else:
                print("no error")
        large = [refs[0], bytes(1_000_000)]
        for call in (
            lambda: umbel.cancel(refs[0]),
            lambda: umbel.cancel(items),
            lambda: umbel.wait([items]),
            lambda: umbel.put([refs[0]]),
            lambda: umbel.put(large),
        ):
            try:
                call()
            except exceptions.ObjectLostError as error:
                assert "session" in str(error), error
            else:
                print("no error")
        assert umbel.get([double.remote(number) for number in range(100)]) == [number * 2 for number in range(100)]
        assert umbel.get(new.work.remote()) == 1
        print("done")
    """, UMBEL_ENGINE=engine)  # fmt: skip
    assert output == "done\n"


def test_references_are_kept_out_of_other_bytes_when_that_is_asked_for() -> None:
    for engine in ("native", "inline"):
        output, _ = drivers.run("""
        import pickle, umbel
        from umbel import cloudpickle, exceptions

        @umbel.remote
        class Actor:
            def keep(self, refs): self.refs = refs
            def work(self): return umbel.get(self.refs)

        umbel.init(num_cpus=1)
        ref, actor = umbel.put(1), Actor.remote()
        umbel.get(actor.keep.remote([ref]))
        assert umbel.get(umbel.remote(lambda: umbel.get(actor.work.remote())).remote()) == [1]
        assert umbel.get(umbel.get(umbel.put([ref]))) == [1]
        for call in (
            lambda: pickle.dumps(ref),
            lambda: cloudpickle.dumps([ref]),
            umbel.remote(lambda: umbel.get(ref)).remote,
        ):
            try:
                call()
            except exceptions.OufOfBandObjectRefSerializationException as error:
                assert "UMBEL_ALLOW_OUT_OF_BAND_OBJECT_REF_SERIALIZATION" in str(error)
                print("told")
        """, UMBEL_ENGINE=engine, UMBEL_ALLOW_OUT_OF_BAND_OBJECT_REF_SERIALIZATION="0")  # fmt: skip
        assert output == "told\n" * 3


def test_values_outlive_the_session() -> None:
    pytest.importorskip("numpy")
    drivers.run("""
        import numpy, umbel
        umbel.init(num_cpus=1)
        views = [umbel.get(umbel.put(numpy.full(300_000, float(number)))) for number in range(5)]
        views.append(umbel.get(umbel.remote(lambda: numpy.full(300_000, 5.0)).remote()))
        umbel.shutdown()
        umbel.init(num_cpus=1)
        umbel.get([umbel.put(numpy.full(300_000, -1.0)) for _ in range(10)])
        umbel.shutdown()
        assert [view[-1] for view in views] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert [view.sum() for view in views] == [300_000 * float(number) for number in range(6)]
    """)


def test_threads_that_wait_are_woken_by_shutdown() -> None:
    output, _ = drivers.run("""
        import asyncio, threading, time, umbel

        umbel.init(num_cpus=1)

        @umbel.remote
        def forever(): time.sleep(1000)

        @umbel.remote
        def stream():
            yield 1
            time.sleep(1000)

        items = stream.remote()
        umbel.get(next(items))
        ref = forever.remote()
        outcomes = {}

        def record(name, call):
            try:
                outcomes[name] = repr(call())
            except umbel.exceptions.UmbelError:
                outcomes[name] = "told"
            except BaseException as error:
                outcomes[name] = repr(error)

        async def wait(): return await ref

        waits = {
            "get": lambda: umbel.get(ref),
            "wait": lambda: umbel.wait([ref])[0] == [ref] and umbel.get(ref),
            "next": lambda: umbel.get(next(items)),
            "future": lambda: ref.future().result(),
            "await": lambda: asyncio.run(wait()),
            "completed": lambda: umbel.get(items.completed()),
        }
        threads = [threading.Thread(target=record, args=pair) for pair in waits.items()]
        for thread in threads: thread.start()
        time.sleep(0.3)
        umbel.shutdown()
        for thread in threads: thread.join(10)
        assert not any(thread.is_alive() for thread in threads), [t for t in threads if t.is_alive()]
        assert set(outcomes.values()) == {"told"}, outcomes
        print("done")
    """)
    assert output == "done\n"


def test_exit_handlers_registered_after_import_may_use_the_runtime() -> None:
    output, _ = drivers.run("""
        import atexit, umbel

        @umbel.remote
        def double(number): return number * 2

        atexit.register(lambda: print("late", umbel.get(double.remote(21)), flush=True))
        umbel.init(num_cpus=1)
        print("early", umbel.get(double.remote(1)), flush=True)
    """)
    assert output == "early 2\nlate 42\n"


def test_exit_handlers_registered_before_import_are_told_or_start_anew() -> None:
    """They run after ours, when the session has ended; a new one must not outlive the program."""
    with drivers.driver("""
        import atexit
        def late():
            try:
                print("late", umbel.get(double.remote(21)), flush=True)
            except RuntimeError as error:
                print("told", flush=True)
        atexit.register(late)
        import umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def double(number): return number * 2
        umbel.get(double.remote(1))
    """) as driver:
        assert driver.line() in ("told", "late 42")
        driver.process.wait(drivers.PATIENCE_S)
        driver.expect_nothing_left()


def test_auto_init_happens_once_with_many_threads() -> None:
    output, _ = drivers.run("""
        import threading, umbel

        @umbel.remote
        def double(number): return number * 2

        results = []
        barrier = threading.Barrier(8)
        def work(number):
            barrier.wait()
            results.append(umbel.get(double.remote(number)))
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sorted(results))
    """)
    assert output == "[0, 2, 4, 6, 8, 10, 12, 14]\n"


def test_auto_init_can_be_turned_off() -> None:
    output, _ = drivers.run(
        """
        import umbel
        for call in (umbel.remote(lambda: 1).remote, lambda: umbel.put(1), umbel.explain):
            try:
                call()
            except RuntimeError as error:
                assert "umbel.init()" in str(error), error
                print("told")
        assert not umbel.is_initialized()
    """,
        UMBEL_ENABLE_AUTO_CONNECT="0",
    )
    assert output == "told\n" * 3


def test_asking_how_the_cluster_is_starts_none() -> None:
    """As in Ray, whose programs expect RaySystemError of the first three, and RuntimeError of the last."""
    output, _ = drivers.run("""
        import pickle, umbel
        for call in (umbel.nodes, umbel.cluster_resources, umbel.available_resources, umbel.timeline):
            try:
                call()
            except RuntimeError as error:
                assert isinstance(pickle.loads(pickle.dumps(error)), umbel.exceptions.UmbelSystemError), error
                assert "starts no session; call umbel.init() first" in str(error), error
                print("told")
        assert not umbel.is_initialized()
    """)
    assert output == "told\n" * 4


def test_init_in_a_thread_and_use_in_others() -> None:
    output, _ = drivers.run("""
        import threading, umbel
        thread = threading.Thread(target=lambda: umbel.init(num_cpus=1))
        thread.start()
        thread.join()
        print(umbel.get(umbel.remote(lambda: "main").remote()))
        thread = threading.Thread(target=umbel.shutdown)
        thread.start()
        thread.join()
        assert not umbel.is_initialized()
        umbel.init(num_cpus=1)
        print(umbel.get(umbel.remote(lambda: "again").remote()))
    """)
    assert output == "main\nagain\n"


def test_context_manager_ends_the_session_also_after_an_error() -> None:
    drivers.run("""
        import umbel
        try:
            with umbel.init(num_cpus=1):
                umbel.get(umbel.remote(lambda: 1).remote())
                raise KeyError("inside")
        except KeyError:
            pass
        assert not umbel.is_initialized()
    """)


def test_shutdown_and_init_inside_a_task_are_harmless() -> None:
    output, _ = drivers.run("""
        import umbel
        umbel.init(num_cpus=1)

        @umbel.remote(max_retries=0)
        def end(): return umbel.shutdown()

        @umbel.remote(max_retries=0)
        def start():
            try:
                umbel.init()
            except RuntimeError as error:
                return "told"

        @umbel.remote
        class Actor:
            def end(self): return umbel.shutdown()
            def work(self): return umbel.get(umbel.remote(lambda: 5).remote())

        for _ in range(3):
            assert umbel.get(start.remote()) == "told"
            try:
                umbel.get(end.remote(), timeout=10)
            except RuntimeError as error:
                assert "driver" in str(error), error
        actor = Actor.remote()
        try:
            umbel.get(actor.end.remote(), timeout=10)
        except RuntimeError as error:
            assert "driver" in str(error), error
        assert umbel.get(actor.work.remote(), timeout=10) == 5
        print("done")
    """)
    assert output == "done\n"


def test_one_session_after_the_other_with_files_from_a_killed_one_in_between() -> None:
    """What a dead driver could not remove is removed by the next `init`, or by the dead one's own daemon."""
    with drivers.driver("""
        import os, umbel
        umbel.init(num_cpus=1)
        umbel.get(umbel.remote(lambda: 1).remote())
        kept = umbel.put(bytes(1_000_000))
        print("up", flush=True)
        input()
    """) as driver:
        assert driver.line() == "up"
        for pid in (*driver.daemon_pids(), driver.pid):
            drivers.kill(pid)
        driver.process.wait()
        drivers.wait_until(lambda: not drivers.marked_processes(driver.mark))
        left = driver.left_behind()
        again = drivers.Driver("import umbel; umbel.init(num_cpus=1)", driver.directory)
        again.finish()
        again.expect_nothing_left()
        assert driver.left_behind() == [], left


@pytest.mark.parametrize("closed", ["0", "1", "2", "0, 1", "0, 1, 2"])
def test_program_may_have_closed_its_standard_streams(closed: str) -> None:
    """Whatever is opened next gets their numbers, and a new process has others behind these."""
    output, _ = drivers.run(f"""
        import os
        out = os.dup(1)
        for stream in [{closed}]:
            os.close(stream)

        import umbel

        @umbel.remote
        def double(number): return number * 2

        umbel.init(num_cpus=1)
        os.write(out, b"%d" % umbel.get(double.remote(21)))
        umbel.shutdown()
        os._exit(0)  # without a word to streams that are closed
    """)
    assert output == "42"


def test_program_on_one_cpu_of_several() -> None:
    output, _ = drivers.run("""
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

        import umbel

        @umbel.remote
        def double(number): return number * 2

        @umbel.remote
        class Actor:
            def double(self, number): return number * 2

        umbel.init()
        actor = Actor.remote()
        for number in range(200):
            assert umbel.get(double.remote(number)) == umbel.get(actor.double.remote(number)) == number * 2
        print(umbel.cluster_resources()["CPU"])
    """)
    assert output == "1.0\n"
