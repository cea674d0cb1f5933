"""Large results of another node outlive the process that made them, or the connection to it, until their owner frees them or
ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import proxies
import pytest

import umbel
from umbel import cluster_utils
from umbel._client import current, tool
from umbel._objects import serialization

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
THERE = {"there": 1}  # a resource that only the other node has
SIZE_BYTES = 1 << 20
OWNER = """
    import os, sys, umbel

    umbel.init(address=os.environ["SESSION"])

    @umbel.remote(resources={"there": 1}, max_retries=0)
    def make():
        return os.getpid(), bytes(1 << 20)

    made = make.remote()
    umbel.wait([made], timeout=60, fetch_local=False)
    print("made", flush=True)
    sys.stdin.readline()
"""

OWNER_OF_CALL = """
    import contextlib, os, sys, umbel

    umbel.init(address=os.environ["SESSION"])

    @umbel.remote(num_cpus=0, resources={"there": 1})
    class Maker:
        def makes(self, size):
            return bytes(size)

    maker = Maker.options(name="the maker", namespace="left", lifetime="detached").remote()
    made = maker.makes.remote(1 << 20)
    umbel.wait([made], timeout=60, fetch_local=False)
    print("made", flush=True)
    sys.stdin.readline()
    while True:
        with contextlib.suppress(umbel.exceptions.ActorUnavailableError):
            umbel.get(maker.makes.remote(1))
            break
    print("connected again", flush=True)
    sys.stdin.readline()
"""


class Nodes:
    """A head with one CPU, of which this process is a driver, and another node with two."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        assert self._cluster.head_node is not None
        self.head = self._cluster.head_node
        self.other = self._cluster.add_node(num_cpus=2, resources={"there": 4}, object_store_memory=80_000_000)
        self._cluster.connect()

    def file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def query(self, what: str) -> Any:
        """Of the other node."""
        with tool.Tool(self.other.session_dir) as asker:
            return asker.query(what)

    def kill_workers(self) -> None:
        """All of the other node, and wait until its daemon knows."""
        killed = {one["pid"] for one in self.query("workers")}
        for pid in killed:
            drivers.kill(pid)
        drivers.wait_until(lambda: not killed & {one["pid"] for one in self.query("workers")}, what="their end")

    def kept(self) -> list[str]:
        """The large values in the other node's store."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(f"/dev/shm/umbel-{os.getuid()}-{os.path.basename(self.other.session_dir)}"):
                with contextlib.suppress(FileNotFoundError):  # files go while they are looked at
                    if "." in entry.name and entry.stat().st_size >= SIZE_BYTES:
                        found.append(entry.name)
        return found

    def cut(self, pid: int) -> int:
        """The connections of a process to those of the other node; how many there were."""
        return proxies.cut_connections(pid, int(self.other.address.rpartition(":")[2]))

    def used_bytes(self) -> int:
        store = self.query("store")
        return int(store["capacity_bytes"] - store["free_bytes"])

    def end(self) -> None:
        umbel.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with homes.own_home() as home:
        made = Nodes(home)
        try:
            yield made
        finally:
            made.end()


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    drivers.wait_until(lambda: not cluster.kept(), what="values of the test before to go")
    return cluster


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


@umbel.remote(resources=THERE, max_retries=0)
def makes(path: str, letter: bytes = b"x") -> bytes:
    with open(path, "a") as file:
        file.write("ran\n")
    return letter * SIZE_BYTES


@umbel.remote(resources=THERE)
def looks(data: bytes) -> tuple[int, bytes]:
    return len(data), data[:1]


def test_a_result_outlives_the_process_that_made_it(nodes: Nodes) -> None:
    """It is read here and there, by tasks too, without being computed again, and goes when it is freed."""
    before = nodes.used_bytes()
    path = nodes.file("runs")
    made = makes.remote(path)
    umbel.wait([made], timeout=TIMEOUT_S, fetch_local=False)
    nodes.kill_workers()
    assert nodes.used_bytes() - before >= SIZE_BYTES  # it counts
    assert get(looks.remote(made)) == (SIZE_BYTES, b"x")
    assert get(made) == b"x" * SIZE_BYTES
    with open(path) as file:
        assert file.read() == "ran\n"
    del made
    drivers.wait_until(lambda: not nodes.kept(), what="the value to go")
    drivers.wait_until(lambda: nodes.used_bytes() == before, what="its room to be free")


def test_a_result_that_is_left_goes_with_its_owner(nodes: Nodes) -> None:
    owner = drivers.Driver(OWNER, nodes.directory, SESSION=nodes.head.session_dir)
    try:
        assert owner.line() == "made"
        nodes.kill_workers()
        assert len(nodes.kept()) == 1
        owner.kill()
        drivers.wait_until(lambda: not nodes.kept(), what="the value to go")
    finally:
        owner.end()


def test_a_value_of_which_its_owner_never_heard_goes(nodes: Nodes) -> None:
    """Its maker has died between writing it and saying so."""

    @umbel.remote(resources=THERE, max_retries=0)
    def writes_and_dies(owner: bytes, path: str) -> None:
        values = current.running_engine().values
        values.write(serialization.serialize(bytes(SIZE_BYTES)), owner)
        with open(path, "w"):
            os._exit(1)

    path = nodes.file("written")
    kept = makes.remote(nodes.file("runs of another"), b"k")
    umbel.wait([kept], timeout=TIMEOUT_S, fetch_local=False)
    failed = writes_and_dies.remote(current.running_engine().process_id, path)
    with pytest.raises(umbel.exceptions.WorkerCrashedError):
        get(failed)
    assert os.path.exists(path)
    nodes.kill_workers()
    drivers.wait_until(lambda: len(nodes.kept()) == 1, what="what nobody needs to go")
    assert get(kept)[:1] == b"k"


def test_results_on_disk_outlive_the_process_that_made_them(nodes: Nodes) -> None:
    @umbel.remote(resources=THERE, max_retries=0)
    def makes_large(number: int) -> bytes:
        return bytes([number]) * 20_000_000

    made = [makes_large.remote(number) for number in range(5)]  # more than the store takes
    umbel.wait(made, num_returns=5, timeout=TIMEOUT_S, fetch_local=False)
    assert nodes.query("store")["spilled_files"]
    nodes.kill_workers()
    for number in range(5):
        read = get(made[number])
        assert (len(read), read[:1], read[-1:]) == (20_000_000, bytes([number]), bytes([number]))
        del read
    del made
    drivers.wait_until(lambda: not nodes.query("store")["spilled_files"], what="the files to go")


@umbel.remote(num_cpus=0, resources=THERE)
class Maker:
    def __init__(self) -> None:
        self.seen: Any = None

    def makes(self, letter: bytes, until: str = "") -> bytes:
        while until and not os.path.exists(until):
            pass
        return letter * SIZE_BYTES

    def writes(self, owner: bytes) -> None:
        current.running_engine().values.write(serialization.serialize(bytes(SIZE_BYTES)), owner)

    def keeps(self, value: bytes) -> int:
        self.seen = value
        return len(value)


@contextlib.contextmanager
def a_maker() -> Iterator[Any]:
    maker = Maker.remote()
    try:
        yield maker
    finally:
        umbel.kill(maker)


def cut_links(nodes: Nodes) -> None:
    """All connections of this process to those of the other node break, and it has noticed."""
    engine = current.running_engine()
    links = [link for peer, link in engine.links.by_peer.items() if not engine.links.is_of_this_node(peer)]
    if not nodes.cut(os.getpid()):
        pytest.skip("sockets cannot be had here")
    drivers.wait_until(lambda: all(link.stream.is_closed for link in links), what="the ends of connections to be seen")


def answer(method: Any, *arguments: Any) -> Any:
    """Of an actor that may not have noticed yet that a connection broke."""
    while True:
        with contextlib.suppress(umbel.exceptions.ActorUnavailableError):
            return get(method.remote(*arguments))


def test_results_of_an_actor_outlive_the_connection_to_it(nodes: Nodes) -> None:
    """They are read afterwards, before and after the two are connected again, and go when they are freed, by either way."""
    with a_maker() as maker:
        made = [maker.makes.remote(letter) for letter in (b"a", b"b", b"c")]
        umbel.wait(made, num_returns=3, timeout=TIMEOUT_S, fetch_local=False)
        cut_links(nodes)
        assert get(made[0]) == b"a" * SIZE_BYTES
        before = nodes.kept()
        del made[0]  # by way of the daemons
        drivers.wait_until(lambda: len(nodes.kept()) == 2, what="the first value to go")
        assert answer(maker.makes, b"d") == b"d" * SIZE_BYTES
        assert [get(one)[:1] for one in made] == [b"b", b"c"]
        assert len({*nodes.kept()} - {*before}) == 1
        made.clear()  # by the connection
        drivers.wait_until(lambda: not {*nodes.kept()} & {*before}, what="the other values to go")


def test_a_value_of_which_its_owner_never_heard_goes_though_its_maker_lives(nodes: Nodes) -> None:
    """The connection broke between its being written and being told of."""
    with a_maker() as maker:
        kept = maker.makes.remote(b"k")
        get(maker.writes.remote(current.running_engine().process_id))
        assert len(nodes.kept()) == 2
        cut_links(nodes)
        drivers.wait_until(lambda: len(nodes.kept()) == 1, what="what nobody needs to go")
        assert get(kept) == b"k" * SIZE_BYTES


def test_a_result_that_cannot_be_sent_any_more_gives_its_memory_back(nodes: Nodes) -> None:
    with a_maker() as maker:
        path = nodes.file("go on")
        kept = maker.makes.remote(b"k")
        lost = maker.makes.remote(b"x", path)
        umbel.wait([kept], timeout=TIMEOUT_S, fetch_local=False)
        cut_links(nodes)
        with pytest.raises(umbel.exceptions.ActorUnavailableError):
            get(lost)
        with open(path, "w"):
            pass
        assert answer(maker.makes, b"z") == b"z" * SIZE_BYTES
        assert len(nodes.kept()) == 2
        assert get(kept) == b"k" * SIZE_BYTES


def test_a_value_that_its_maker_looks_at_goes_once_it_does_no_more(nodes: Nodes) -> None:
    with a_maker() as maker:
        made = maker.makes.remote(b"a")
        assert get(maker.keeps.remote(made)) == SIZE_BYTES
        cut_links(nodes)
        del made
        assert answer(maker.keeps, b"") == 0
        drivers.wait_until(lambda: not nodes.kept(), what="the value to go")


def test_results_of_an_actor_go_with_an_owner_that_ends_after_the_connection_broke(nodes: Nodes) -> None:
    owner = drivers.Driver(OWNER_OF_CALL, nodes.directory, SESSION=nodes.head.session_dir)
    try:
        assert owner.line() == "made"
        if not nodes.cut(owner.pid):
            pytest.skip("another process's sockets cannot be had here")
        owner.tell()
        assert owner.line() == "connected again"
        assert len(nodes.kept()) == 1
        owner.kill()
        drivers.wait_until(lambda: not nodes.kept(), what="the value to go")
    finally:
        owner.end()
        umbel.kill(umbel.get_actor("the maker", namespace="left"))
