"""`kill -9` of any process at any moment: nothing is left behind, callers get the right error, and a new runtime
starts."""

from __future__ import annotations

import os
import signal
import sys

import drivers
import pytest

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.slow,
]

BUSY_DRIVER = """
    import os, time, umbel

    umbel.init(num_cpus=2)

    @umbel.remote
    def work(seconds, size):
        time.sleep(seconds)
        return os.urandom(size)

    @umbel.remote
    class Holder:
        def __init__(self):
            self.held = umbel.put(bytes(3_000_000))

        def hold(self, seconds):
            time.sleep(seconds)

    holder = Holder.remote()
    umbel.get(holder.hold.remote(0))
    kept = [umbel.put(bytes(2_000_000)) for _ in range(3)]
    running = [work.remote(0.01, 400_000) for _ in range(10_000)]
    long_call = holder.hold.remote(1000)
    umbel.get(running[:20])
    print("busy", flush=True)
    umbel.wait([long_call])
"""


def test_killed_driver_leaves_nothing() -> None:
    with drivers.driver(BUSY_DRIVER) as driver:
        assert driver.line() == "busy"
        assert any("/dev/shm/" in name for name in driver.left_behind())
        driver.kill()
        driver.expect_nothing_left()


@pytest.mark.parametrize("delay_ms", [0, 20, 60, 120, 200, 350])
def test_driver_killed_while_starting_leaves_nothing(delay_ms: int) -> None:
    """At some of these moments the daemon or the fork server are just being made."""
    source = """
        import sys, umbel
        print("starting", flush=True)
        umbel.init(num_cpus=2)
        @umbel.remote
        def f(): pass
        umbel.get([f.remote() for _ in range(10)])
        sys.stdin.read()
    """
    with drivers.driver(source) as driver:
        assert driver.line() == "starting"
        drivers.pause(delay_ms / 1000)
        driver.kill()
        driver.expect_nothing_left()


def test_driver_killed_with_a_forked_child_that_lives_on_leaves_nothing_else() -> None:
    """The child has inherited every socket of the driver, so the daemon must not wait for their ends."""
    source = """
        import os, sys, time, umbel
        umbel.init(num_cpus=1)
        umbel.get(umbel.remote(lambda: 1).remote())
        child = os.fork()
        if not child:
            time.sleep(1000)
        print(child, flush=True)
        time.sleep(1000)
    """
    with drivers.driver(source) as driver:
        child = int(driver.line())
        driver.kill()
        drivers.wait_until(lambda: [name for name in driver.left_behind() if f"process {child}:" not in name] == [])
        os.kill(child, signal.SIGKILL)
        driver.expect_nothing_left()


@pytest.mark.parametrize("victim", ["daemon", "fork server"])
def test_killed_daemon_fails_what_waits_and_leaves_nothing(victim: str) -> None:
    source = """
        import sys, threading, time, umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def wait(): time.sleep(1000)

        @umbel.remote
        def stream():
            yield 1
            time.sleep(1000)

        @umbel.remote
        class Actor:
            def wait(self): time.sleep(1000)

        def error_of(call):
            try:
                call()
            except umbel.exceptions.LocalNodeDiedError as error:
                outcomes.append("right")
            except BaseException as error:
                outcomes.append(repr(error))
            else:
                outcomes.append("nothing raised")

        outcomes = []
        actor = Actor.remote()
        small, large = umbel.put(1), umbel.put(bytes(1_000_000))
        unread = umbel.remote(lambda: bytes(1_000_000)).remote()  # with its memory in the daemon's keeping
        umbel.wait([unread])
        items = stream.remote()
        umbel.get(next(items))
        waiting = [
            threading.Thread(target=error_of, args=(call,))
            for call in (
                lambda: umbel.get(wait.remote()),
                lambda: umbel.get(actor.wait.remote()),
                lambda: umbel.get(next(items)),
                lambda: umbel.get(umbel.wait([wait.remote()])[0]),
                lambda: wait.remote().future().result(),
            )
        ]
        for thread in waiting:
            thread.start()
        print("waiting", flush=True)
        for thread in waiting:
            thread.join()
        error_of(lambda: umbel.get(wait.remote()))
        error_of(lambda: umbel.get(actor.wait.remote()))
        error_of(lambda: umbel.cluster_resources())
        error_of(lambda: umbel.get_actor("x"))
        error_of(lambda: Actor.remote())
        print(outcomes, flush=True)
        try:  # the memory stays until the processes that the daemon leaves have tidied up
            assert umbel.get(unread) == bytes(1_000_000)
        except umbel.exceptions.LocalNodeDiedError:
            pass
        assert umbel.get(small) == 1
        umbel.shutdown()
        umbel.init(num_cpus=1)
        assert umbel.get(umbel.remote(lambda: "again").remote()) == "again"
        umbel.shutdown()
    """
    with drivers.driver(source) as driver:
        assert driver.line() == "waiting"
        daemon, fork_server = driver.daemon_pids()
        os.kill(daemon if victim == "daemon" else fork_server, signal.SIGKILL)
        assert driver.line() == str(["right"] * 10)
        driver.finish()
        driver.expect_nothing_left()


@pytest.mark.parametrize("seed", range(4))
def test_workers_killed_at_random_lose_no_task(seed: int) -> None:
    """Each worker that has run something is killed a few milliseconds later, a dozen times over; retries carry all
    through."""
    source = """
        import os, sys, umbel
        umbel.init(num_cpus=2)

        @umbel.remote(max_retries=-1)
        def double(number, padding):
            open(f"{os.environ['TMPDIR']}/ran-{os.getpid()}", "w").close()
            return number * 2, bytes(padding)

        print("ready", flush=True)
        results = []
        for _ in range(5):
            refs = [double.remote(number, 200_000 if number % 50 == 0 else 0) for number in range(300)]
            results.append([number for number, _ in umbel.get(refs)])
        assert all(result == [number * 2 for number in range(300)] for result in results)
        print("done", flush=True)
        sys.stdin.readline()
    """
    with drivers.driver(source) as driver:
        assert driver.line() == "ready"
        killed: set[int] = set()
        while not driver.has_line():
            for name in os.listdir(driver.directory):
                pid = int(name.removeprefix("ran-")) if name.startswith("ran-") else 0
                if pid and pid not in killed and len(killed) < 12:
                    drivers.pause((seed * 7 + len(killed) * 3) % 11 / 1000)
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
        assert driver.line() == "done"
        driver.tell()
        driver.finish()
        driver.expect_nothing_left()


def test_worker_killed_while_writing_a_result_leaves_no_memory() -> None:
    """Its file belongs to the driver, which never hears of it; it must not stay until the session ends."""
    source = """
        import os, sys, umbel
        umbel.init(num_cpus=1)

        @umbel.remote(max_retries=0)
        def die_while_returning():
            from umbel._objects import segments
            original = segments.write
            def write(*args):
                original(*args)
                os._exit(1)
            segments.write = write
            return bytes(5_000_000)

        @umbel.remote
        def large(): return bytes(1_000_000)

        kept = large.remote()
        umbel.wait([kept])
        try:
            umbel.get(die_while_returning.remote())
        except umbel.exceptions.WorkerCrashedError:
            print("crashed", flush=True)
        sys.stdin.readline()
        assert len(umbel.get(kept)) == 1_000_000
        print("kept", flush=True)
        sys.stdin.readline()
    """
    with drivers.driver(source) as driver:
        assert driver.line() == "crashed"
        drivers.wait_until(lambda: driver.shared_bytes() < 2_000_000, what="the killed worker's file to go")
        driver.tell()
        assert driver.line() == "kept"
        driver.tell()
        driver.finish()
        driver.expect_nothing_left()
