"""Connections between processes of different nodes break while both live: what one owns and the other borrows."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import drivers
import homes
import pytest

from umbel import cluster_utils

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="freezes processes as Linux does")

TIMEOUT_S = 60
BEGIN = """
    import gc, os, signal, socket, sys, threading, time, umbel
    from umbel._client import current, inquiry, memory_report
    from umbel.util import memory

    umbel.init(address=os.environ["SESSION"], log_to_driver=False)
    engine = current.running_engine()
    records = engine.values.table.records

    def say(*what):
        print(*what, flush=True)

    def comes_true(condition):
        until_s = time.monotonic() + 30
        while not condition() and time.monotonic() < until_s:
            engine._housekeeping()
            time.sleep(0.01)
        return bool(condition())

    def cut():
        "Break what connects this process to those of other nodes; how many, once it has seen that."
        def far():
            return [link for link in list(engine.links.by_peer.values()) if not engine.links.is_of_this_node(link.peer)]

        assert comes_true(lambda: all(hasattr(link.stream, "fileno") for link in far()))
        links = far()
        for link in links:
            with socket.socket(fileno=os.dup(link.stream.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)
        assert comes_true(lambda: not any(engine.links.by_peer.get(link.peer) is link for link in links))
        return len(links)

    def again(method):
        while True:
            try:
                return umbel.get(method.remote(), timeout=60)
            except umbel.exceptions.ActorUnavailableError:
                pass

    class Actor:
        def keep(self, boxed):
            self.ref = boxed[0]

        def read(self):
            return umbel.get(self.ref)

        def begin_to_read(self):
            self.read_by_thread = []
            threading.Thread(target=lambda: self.read_by_thread.append(umbel.get(self.ref))).start()
            record = current.running_engine().values.table.records[self.ref._id]
            while not record.is_fetching:
                time.sleep(0.005)

        def what_came(self):
            while not self.read_by_thread:
                time.sleep(0.005)
            return self.read_by_thread[0]

        def lend(self):
            return [self.ref]

        def take(self, lender):
            self.ref = umbel.get(lender.lend.remote())[0]

        def read_file(self, path):
            with open(path) as file:
                return file.read()

        def drop(self):
            del self.ref

        def pid(self):
            return os.getpid()

    Here = umbel.remote(num_cpus=0, resources={"here": 1})(Actor)
    There = umbel.remote(num_cpus=0, resources={"there": 1})(Actor)
"""


class Place:
    def __init__(self, directory: str) -> None:
        self._nodes = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"here": 10}}
        )
        self._nodes.add_node(num_cpus=1, resources={"there": 10})
        self._programs = drivers.Programs(directory, BEGIN)

    def says(self, source: str) -> list[str]:
        """What a program on the head writes."""
        assert self._nodes.head_node is not None
        return self._programs.start(self._nodes.head_node, source).finish(TIMEOUT_S)[0].splitlines()

    def end(self) -> None:
        self._programs.end()
        self._nodes.shutdown()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with homes.own_home() as home:
        made = Place(home)
        try:
            yield made
        finally:
            made.end()


def test_what_another_node_borrows_is_kept_though_connections_break(place: Place) -> None:
    assert place.says("""
    keeper = There.remote()
    ref = umbel.put({"answer": 42})
    object_id = ref._id
    umbel.get(keeper.keep.remote([ref]))
    say(cut())
    del ref
    gc.collect()
    engine._housekeeping()
    say(object_id in records)
    for _ in range(2):
        say(again(keeper.read))
        cut()
    again(keeper.drop)
    say(comes_true(lambda: object_id not in records))
    """) == ["1", "True", "{'answer': 42}", "{'answer': 42}", "True"]


def test_a_value_that_is_waited_for_comes_though_the_connection_broke(place: Place) -> None:
    assert place.says("""
    gate, keeper = Here.remote(), There.remote()
    path = os.environ["TMPDIR"] + "/gate"
    os.mkfifo(path)
    umbel.get(keeper.keep.remote([gate.read_file.remote(path)]))
    umbel.get(keeper.begin_to_read.remote())
    say(cut())
    with open(path, "w") as file:
        file.write("late")
    say(again(keeper.what_came))
    """) == ["1", "late"]


def test_what_one_lends_to_another_is_kept_though_the_owner_is_cut_off_from_both(place: Place) -> None:
    assert place.says("""
    one, other = There.remote(), There.remote()
    ref = umbel.put([1, 2])
    object_id = ref._id
    umbel.get(one.keep.remote([ref]))
    del ref
    gc.collect()
    umbel.get(other.take.remote(one))
    assert cut()
    again(one.drop)
    say(again(other.read))
    again(other.drop)
    say(comes_true(lambda: object_id not in records))
    """) == ["[1, 2]", "True"]


def test_why_a_value_is_kept_for_whom_the_connection_is_broken_to(place: Place) -> None:
    told = place.says("""
    keeper = There.remote()
    ref = umbel.put("kept")
    umbel.get(keeper.keep.remote([ref]))
    pid = umbel.get(keeper.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    cut()
    for reason in memory.why_alive(ref):
        say(reason)
    say(memory_report.of_node(inquiry.EngineAsker(engine)).silent)
    os.kill(pid, signal.SIGCONT)
    say(again(keeper.read))
    say(comes_true(lambda: not any("has broken" in str(reason) for reason in memory.why_alive(ref))))
    """)
    assert any("borrows it, and the connection to it has broken: it is being connected to" in line for line in told), (
        told
    )
    assert "keeps 1 object for a process of another node, to which its connection has broken" in told[-3], told
    assert told[-2:] == ["kept", "True"]


def test_what_a_killed_process_of_another_node_borrowed_is_freed(place: Place) -> None:
    assert place.says("""
    keeper = There.remote()
    ref = umbel.put("kept")
    object_id = ref._id
    umbel.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    say(object_id in records)
    os.kill(umbel.get(keeper.pid.remote()), signal.SIGKILL)
    say(comes_true(lambda: object_id not in records))
    """) == ["True", "True"]
