"""Processes that fork while they use the runtime: drivers, workers and actors, with and without `init` in the child."""

from __future__ import annotations

import sys

import drivers
import pytest

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork is not safe elsewhere"),
    pytest.mark.slow,
]


def test_child_that_uses_the_parents_session_is_told_and_the_parent_goes_on() -> None:
    output, _ = drivers.run("""
        import asyncio, os, sys, umbel

        umbel.init(num_cpus=2)

        @umbel.remote
        def double(number): return number * 2

        @umbel.remote(_generator_backpressure_num_objects=10)  # so that not all can be there before the fork
        def stream():
            yield from range(1000)

        @umbel.remote
        class Actor:
            def work(self): return 1

        actor = Actor.remote()
        ref, slow, items = double.remote(1), umbel.put(5), stream.remote()
        umbel.get([ref, next(items)])
        pending = umbel.remote(lambda: __import__("time").sleep(1000)).remote()

        async def wait(): return await pending

        calls = {
            "get": lambda: umbel.get(ref), "put": lambda: umbel.put(1), "task": lambda: double.remote(1),
            "actor": lambda: actor.work.remote(), "wait": lambda: umbel.wait([ref]), "cancel": lambda:
            umbel.cancel(ref),
            "future": lambda: pending.future().result(5), "await": lambda: asyncio.run(asyncio.wait_for(wait(), 5)),
            "next": lambda: [next(items) for _ in range(999)], "create": lambda: Actor.remote(),
        }
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            told = []
            for name, call in calls.items():
                try:
                    call()
                    told.append(name + " returned")
                except (RuntimeError, umbel.exceptions.UmbelError) as error:
                    if "fork" not in str(error) and "session" not in str(error):
                        told.append(name + repr(error))
            assert not umbel.is_initialized()
            os.write(write_end, repr(told).encode() or b"x")
            del ref, items, actor
            sys.exit(0)  # runs exit handlers
        assert os.waitpid(child, 0)[1] == 0
        print(os.read(read_end, 10_000).decode())
        assert umbel.get([double.remote(number) for number in range(200)]) == [number * 2 for number in range(200)]
        assert umbel.get(ref) == 2 and umbel.get(actor.work.remote()) == 1 and umbel.get(next(items)) == 1
    """)
    assert output == "[]\n"


def test_child_with_a_session_of_its_own() -> None:
    output, _ = drivers.run("""
        import os, sys, umbel

        umbel.init(num_cpus=1)

        @umbel.remote
        def double(number): return number * 2

        ref = double.remote(1)
        umbel.get(ref)
        child = os.fork()
        if not child:
            umbel.init(num_cpus=1)
            assert umbel.get([double.remote(number) for number in range(50)]) == [number * 2 for number in range(50)]
            assert umbel.get(umbel.put(bytes(1_000_000))) == bytes(1_000_000)
            try:
                umbel.get(ref)
            except umbel.exceptions.ObjectLostError:
                print("told", flush=True)
            umbel.shutdown()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert umbel.get([double.remote(number) for number in range(50)]) == [number * 2 for number in range(50)]
        print("parent", flush=True)
    """)
    assert output == "told\nparent\n"


def test_child_forked_before_init() -> None:
    output, _ = drivers.run("""
        import os, sys, umbel

        child = os.fork()
        umbel.init(num_cpus=1)
        print(umbel.get(umbel.remote(lambda: "value").remote()), flush=True)
        umbel.shutdown()
        if not child:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """)
    assert output == "value\n" * 2


def test_forks_while_other_threads_use_the_runtime() -> None:
    """A lock that another thread holds at that moment must not hang the child."""
    output, _ = drivers.run("""
        import os, sys, threading, umbel

        umbel.init(num_cpus=1)

        @umbel.remote
        def double(number): return number * 2

        stop = threading.Event()
        def load():
            while not stop.is_set():
                umbel.get([double.remote(number) for number in range(50)])
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads: thread.start()
        ref = umbel.put(1)
        for _ in range(30):
            child = os.fork()
            if not child:
                for call in (lambda: umbel.get(ref), lambda: ref.future(), lambda: umbel.is_initialized()):
                    try:
                        call()
                    except (RuntimeError, umbel.exceptions.UmbelError):
                        pass
                del ref
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        assert umbel.get(double.remote(4)) == 8
        print("done")
    """)
    assert output == "done\n"


def test_multiprocessing_by_fork_in_the_driver_and_in_a_task() -> None:
    output, _ = drivers.run("""
        import multiprocessing, umbel

        umbel.init(num_cpus=1)

        @umbel.remote(max_retries=0)
        def pool():
            with multiprocessing.get_context("fork").Pool(2) as made:
                return made.map(abs, range(-2, 3))

        @umbel.remote
        class Actor:
            def pool(self):
                with multiprocessing.get_context("fork").Pool(2) as made:
                    return made.map(abs, range(-2, 3))

        with multiprocessing.get_context("fork").Pool(2) as made:
            print(made.map(abs, range(-2, 3)))
        print(umbel.get(pool.remote(), timeout=20))
        print(umbel.get(Actor.remote().pool.remote(), timeout=20))
        print(umbel.get(pool.remote(), timeout=20))
    """)
    assert output == "[2, 1, 0, 1, 2]\n" * 4


def test_child_of_a_worker_that_lives_on_keeps_nobody_waiting() -> None:
    """It has inherited the worker's sockets and pipes; the worker's death must be seen all the same."""
    with drivers.driver("""
        import os, sys, time, umbel

        umbel.init(num_cpus=1)

        @umbel.remote(max_retries=0)
        def fork_and_die():
            child = os.fork()
            if not child:
                time.sleep(1000)
            print("child", child, flush=True)
            os._exit(1)

        try:
            umbel.get(fork_and_die.remote(), timeout=20)
        except umbel.exceptions.WorkerCrashedError:
            print("crashed", flush=True)
        print(umbel.get(umbel.remote(lambda: "next").remote(), timeout=20), flush=True)
        umbel.shutdown()
        print("ended", flush=True)
    """) as driver:
        lines = [driver.line() for _ in range(4)]
        assert {"crashed", "next", "ended"} <= set(lines), lines
        (child,) = [int(line.split()[-1]) for line in lines if "child" in line]
        drivers.kill(child)
        driver.process.wait(drivers.PATIENCE_S)
        driver.expect_nothing_left()


def test_child_that_an_owner_has_forked_does_not_hide_its_death() -> None:
    """Who borrows from it knows of its death by the end of their connection, of which the child has a copy."""
    drivers.run("""
        import os, signal, time, umbel

        umbel.init(num_cpus=2)

        @umbel.remote(num_cpus=0)
        class Owner:
            def begin(self):
                self.pending = umbel.remote(num_cpus=0)(lambda: time.sleep(1000)).remote()
                return [self.pending]

            def fork(self):
                child = os.fork()
                if not child:
                    signal.pause()
                return child

        @umbel.remote(num_cpus=0, max_concurrency=2)
        class Borrower:
            def hold(self, refs):
                self.refs = refs
                return umbel.wait(refs, timeout=0)[0]

            def get(self):
                umbel.get(self.refs)

        owner, borrower = Owner.remote(), Borrower.remote()
        begun = owner.begin.remote()
        assert umbel.get(borrower.hold.remote(begun)) == []  # so that it is connected to the owner
        child = umbel.get(owner.fork.remote())
        try:
            waiting = borrower.get.remote()
            umbel.kill(owner)
            try:
                umbel.get(waiting, timeout=20)
            except umbel.exceptions.OwnerDiedError:
                pass
        finally:
            os.kill(child, signal.SIGKILL)
    """)


def test_views_in_a_forked_child_stay_readable() -> None:
    pytest.importorskip("numpy")
    drivers.run("""
        import os, sys, numpy, umbel
        umbel.init(num_cpus=1)
        view = umbel.get(umbel.put(numpy.full(300_000, 7.0)))
        child = os.fork()
        if not child:
            ok = view.sum() == 2_100_000.0
            del view
            sys.exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert view.sum() == 2_100_000.0
    """)
