"""Large values of one node of a cluster are read by processes of others."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import pytest

from umbel import cluster_utils
from umbel._client import tool

pytest.importorskip("numpy")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")

TIMEOUT_S = 60
VALUE_BYTES = 50_000_000
# A driver that puts a large array, hands the reference on by a file, and does what it is told then.
OWNER = """
    import gc, os, sys, time, numpy, umbel
    from umbel import cloudpickle
    from umbel._client import current

    umbel.init(address=os.environ["SESSION"])
    size_bytes = int(os.environ["BYTES"])
    kept = [umbel.put(numpy.full(size_bytes, number + 1, numpy.uint8)) for number in range(int(os.environ["COUNT"]))]
    with open(os.environ["REFERENCES"] + ".new", "wb") as file:
        file.write(cloudpickle.dumps(kept))
    os.rename(os.environ["REFERENCES"] + ".new", os.environ["REFERENCES"])
    print("there", flush=True)

    def wait_for_copy():  # until we know that there is one
        until_s = time.monotonic() + 30
        while not current.running_engine().values.copied and time.monotonic() < until_s:
            time.sleep(0.01)

    def drop_pins():  # what counts for references that were pickled by hand
        table = current.running_engine().values.table
        with current.running_engine().lock:
            for ref in kept:
                table.records[ref._id].pins -= 1

    for line in sys.stdin:
        exec(line)
        print("done", flush=True)
"""
READER = """
    import gc, os, sys, time, numpy, umbel
    from umbel import cloudpickle, exceptions

    umbel.init(address=os.environ["SESSION"])
    with open(os.environ["REFERENCES"], "rb") as file:
        kept = cloudpickle.loads(file.read())
"""


class Cluster:
    """A head and other nodes, with drivers of them."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._running: list[drivers.Driver] = []
        self._nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        self.head = self._nodes.list_all_nodes()[0]

    def add(self, **node_args: Any) -> cluster_utils.ClusterNode:
        return self._nodes.add_node(num_cpus=2, **node_args)

    def kill(self, node: cluster_utils.ClusterNode) -> None:
        self._nodes.remove_node(node, allow_graceful=False)

    def driver(self, node: cluster_utils.ClusterNode, source: str, **environment: str) -> drivers.Driver:
        references = os.path.join(self.directory, "references")
        made = drivers.Driver(source, self.directory, SESSION=node.session_dir, REFERENCES=references, **environment)
        self._running.append(made)
        return made

    def owner(
        self, node: cluster_utils.ClusterNode, *, count: int = 1, size_bytes: int = VALUE_BYTES
    ) -> drivers.Driver:
        made = self.driver(node, OWNER, COUNT=str(count), BYTES=str(size_bytes))
        assert made.line() == "there"
        return made

    def end(self) -> None:
        for one in self._running:
            one.process.kill()
            one.process.communicate()
        self._nodes.shutdown()


def tell(driver: drivers.Driver, line: str) -> None:
    driver.tell(line)
    assert driver.line() == "done"


def store_of(node: cluster_utils.ClusterNode) -> str:
    return f"/dev/shm/umbel-{os.getuid()}-{os.path.basename(node.session_dir)}"


def files_of(node: cluster_utils.ClusterNode) -> dict[str, int]:
    """Bytes of pages of the segments in a node's store, by name."""
    found = {}
    for entry in os.scandir(store_of(node)):
        with contextlib.suppress(FileNotFoundError):  # files go while they are counted
            if "." in entry.name:
                found[entry.name] = entry.stat().st_blocks * 512
    return found


def counted(node: cluster_utils.ClusterNode) -> dict[str, int]:
    """What the node's daemon says of its store."""
    with tool.Tool(node.session_dir) as asker:
        store: dict[str, int] = asker.query("store")
    return store


def used_bytes(node: cluster_utils.ClusterNode) -> int:
    store = counted(node)
    return store["capacity_bytes"] - store["free_bytes"]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    stores: list[str] = []
    with homes.own_home(**homes.DEAD_IN_2_S) as home:
        made = Cluster(home)
        try:
            yield made
            stores = [store_of(node) for node in made._nodes.list_all_nodes()]
        finally:
            made.end()
    assert not [path for path in stores if os.path.exists(path)]


def test_a_large_array_is_read_by_a_driver_of_another_node(cluster: Cluster) -> None:
    node = cluster.add()
    cluster.owner(cluster.head)
    reader = cluster.driver(
        node,
        READER
        + """
    array = umbel.get(kept[0])
    print(array.nbytes, bool((array == 1).all()), array.flags.writeable, array.flags.owndata, flush=True)
    """,
    )
    assert reader.finish(TIMEOUT_S)[0] == f"{VALUE_BYTES} True False False\n"


def test_readers_of_a_node_share_one_copy_which_goes_when_the_value_is_freed(cluster: Cluster) -> None:
    node = cluster.add()
    before = used_bytes(node)
    owner = cluster.owner(cluster.head)
    readers = [
        cluster.driver(
            node,
            READER
            + """
    array = umbel.get(kept[0])
    print(int(array[-1]), flush=True)
    sys.stdin.readline()
    del array, kept
    gc.collect()
    print("let go", flush=True)
    sys.stdin.readline()
    """,
        )
        for _ in range(3)
    ]
    for reader in readers:
        assert reader.line() == "1"
    assert VALUE_BYTES <= used_bytes(node) - before < VALUE_BYTES + 10_000
    assert len([size for size in files_of(node).values() if size >= VALUE_BYTES]) == 1
    for reader in readers:
        reader.tell()
        assert reader.line() == "let go"
    assert used_bytes(node) - before >= VALUE_BYTES  # for whoever wants it next
    tell(owner, "wait_for_copy(); drop_pins(); del kept; gc.collect()")
    drivers.wait_until(lambda: used_bytes(node) == before and not files_of(node), what="the copy to go")
    for reader in readers:
        reader.tell()
        reader.finish(TIMEOUT_S)


def test_a_copy_that_is_looked_at_outlives_the_owner_and_no_other(cluster: Cluster) -> None:
    node = cluster.add()
    before = used_bytes(node)
    owner = cluster.owner(cluster.head)
    reader = cluster.driver(
        node,
        READER
        + """
    array = umbel.get(kept[0])
    print("has", flush=True)
    sys.stdin.readline()
    print(bool((array == 1).all()), flush=True)
    del array
    gc.collect()
    sys.stdin.readline()
    try:
        umbel.get(kept[0], timeout=20)
    except exceptions.OwnerDiedError as error:
        print(type(error).__name__, flush=True)
    """,
    )
    assert reader.line() == "has"
    tell(owner, "wait_for_copy()")
    owner.kill()
    drivers.wait_until(lambda: not files_of(cluster.head), what="the value to go")
    reader.tell()
    assert reader.line() == "True"
    drivers.wait_until(lambda: used_bytes(node) == before and not files_of(node), what="the copy to go")
    reader.tell()
    assert reader.finish(TIMEOUT_S)[0] == "OwnerDiedError\n"


def test_a_node_that_is_killed_in_the_middle_of_a_transfer_is_an_error(cluster: Cluster) -> None:
    node, holder = cluster.add(), cluster.add(object_store_memory=500 << 20)
    before = used_bytes(node)
    cluster.owner(holder, size_bytes=140_000_000)
    reader = cluster.driver(
        node,
        READER
        + """
    print("begins", flush=True)
    try:
        print(umbel.get(kept[0], timeout=30), flush=True)
    except (exceptions.ObjectLostError, exceptions.OwnerDiedError) as error:
        print(type(error).__name__, flush=True)
    sys.stdin.readline()
    """,
    )
    drivers.wait_until(lambda: files_of(node), what="the transfer to begin")
    drivers.freeze(holder.pid)
    assert reader.line() == "begins"
    assert not reader.has_line()  # it waits
    cluster.kill(holder)
    assert reader.line() in ("ObjectLostError", "OwnerDiedError")
    drivers.wait_until(lambda: used_bytes(node) == before and not files_of(node), what="what had come to go")
    reader.tell()
    reader.finish(TIMEOUT_S)


def test_a_value_larger_than_the_store_is_an_error_that_says_what_to_do(cluster: Cluster) -> None:
    node = cluster.add(object_store_memory=80 << 20)
    cluster.owner(cluster.head, size_bytes=100_000_000)
    reader = cluster.driver(
        node,
        READER
        + """
    try:
        umbel.get(kept[0], timeout=30)
    except exceptions.ObjectStoreFullError as error:
        print(error, flush=True)
    """,
    )
    told = reader.finish(TIMEOUT_S)[0]
    assert "100000" in told
    assert f"and the node's store {80 << 20}; drop references to large values here" in told
    assert "larger object_store_memory" in told


def test_two_values_at_once_with_room_for_one(cluster: Cluster) -> None:
    """The second waits until the first is let go of; then its copy, which nobody looks at, gives its room."""
    node = cluster.add(object_store_memory=80 << 20)
    cluster.owner(cluster.head, count=2)
    first = cluster.driver(
        node,
        READER
        + """
    array = umbel.get(kept[0])
    umbel.wait(kept[:1])  # which it has already
    print("has", flush=True)
    sys.stdin.readline()
    del array
    gc.collect()
    sys.stdin.readline()
    """,
    )
    assert first.line() == "has"
    second = cluster.driver(
        node,
        READER
        + """
    import threading

    threading.Timer(0.5, lambda: print(umbel.explain(kept[1]), flush=True)).start()
    print(int(umbel.get(kept[1])[-1]), flush=True)
    """,
    )
    told = second.line()
    assert "bytes of room in this node's store" in told
    assert "daemon" in told  # it holds the other copy
    first.tell()
    assert second.line() == "2"
    second.finish(TIMEOUT_S)
    first.tell()
    first.finish(TIMEOUT_S)


def test_a_transfer_that_waits_for_long_is_told_by_the_watchdog(cluster: Cluster) -> None:
    node = cluster.add(object_store_memory=80 << 20)
    cluster.owner(cluster.head, count=2)
    first = cluster.driver(node, READER + "    array = umbel.get(kept[0])\n    print('has', flush=True)\n    input()")
    assert first.line() == "has"
    second = cluster.driver(
        node,
        READER + "    try:\n        umbel.get(kept[1], timeout=4)\n    except exceptions.UmbelError:\n        pass",
        UMBEL_WATCHDOG_S="1",
    )
    told = second.finish(TIMEOUT_S)[1]
    assert "umbel: still waiting after 1 s for 1 of 1 objects" in told
    assert "bytes of room in this node's store" in told


def test_a_get_whose_time_is_up_ends_its_transfer(cluster: Cluster) -> None:
    node = cluster.add(object_store_memory=80 << 20)
    cluster.owner(cluster.head, count=2)
    first = cluster.driver(
        node, READER + "    array = umbel.get(kept[0])\n    print('has', flush=True)\n    sys.stdin.readline()"
    )
    assert first.line() == "has"
    before = used_bytes(node)
    second = cluster.driver(
        node,
        READER
        + """
    began_s = time.monotonic()
    try:
        umbel.get(kept[1], timeout=0.1)
    except exceptions.GetTimeoutError as error:
        print(time.monotonic() - began_s < 2, error, flush=True)
    sys.stdin.readline()
    """,
    )
    told = second.line()
    assert told.startswith("True object ")
    assert "was not copied to this one in time: it waits for" in told
    drivers.wait_until(lambda: used_bytes(node) == before and len(files_of(node)) == 1, what="nothing to be wanted")
    for one in (first, second):
        one.tell()
        one.finish(TIMEOUT_S)


def test_a_reader_that_is_killed_in_the_middle_leaves_nothing(cluster: Cluster) -> None:
    node = cluster.add(object_store_memory=500 << 20)
    before = used_bytes(node)
    owner = cluster.owner(cluster.head, size_bytes=140_000_000)
    reader = cluster.driver(node, READER + "    umbel.get(kept[0])\n    sys.stdin.readline()")
    drivers.wait_until(lambda: files_of(node), what="the transfer to begin")
    reader.kill()
    owner.kill()
    drivers.wait_until(lambda: used_bytes(node) == before and not files_of(node), what="what had come to go")


def test_a_value_that_was_moved_to_disk_is_sent_from_there(cluster: Cluster) -> None:
    node = cluster.add(object_store_memory=200 << 20)
    cluster.owner(cluster.head, count=5)  # more than the head's store of 150 MiB takes
    reader = cluster.driver(
        node, READER + "    print([int(umbel.get(ref)[number]) for number, ref in enumerate(kept)], flush=True)"
    )
    assert reader.finish(TIMEOUT_S)[0] == "[1, 2, 3, 4, 5]\n"


def test_tasks_read_large_arguments_of_another_node(cluster: Cluster) -> None:
    node = cluster.add()
    cluster.owner(cluster.head)
    reader = cluster.driver(
        node,
        READER
        + """
    @umbel.remote
    def look(array, held):
        return int(array[-1]), int(umbel.get(held[0])[0]), array.flags.writeable

    @umbel.remote
    class Actor:
        def look(self, array):
            return int(array[0])

    actor = Actor.remote()
    print(umbel.get([look.remote(kept[0], kept), look.remote(kept[0], kept)]), umbel.get(actor.look.remote(kept[0])), flush=True)
    """,
    )
    assert reader.finish(TIMEOUT_S)[0] == "[(1, 1, False), (1, 1, False)] 1\n"
    assert len(files_of(node)) == 1


def test_wait_fetches_and_await_reads_what_another_node_has(cluster: Cluster) -> None:
    node = cluster.add(object_store_memory=400 << 20)
    cluster.owner(cluster.head, count=2)
    reader = cluster.driver(
        node,
        READER
        + """
    import asyncio

    print(umbel.wait(kept[:1], timeout=10, fetch_local=False)[0] == kept[:1], flush=True)
    sys.stdin.readline()
    print(umbel.wait(kept[:1], timeout=30)[0] == kept[:1], flush=True)
    sys.stdin.readline()
    for _ in range(1000):  # whoever polls gets it as well
        ready, _ = umbel.wait(kept, num_returns=2, timeout=0)
        if len(ready) == 2:
            break
        time.sleep(0.02)
    print(len(ready), flush=True)

    async def read():
        return [int((await ref)[0]) for ref in kept]

    print(asyncio.run(read()), [int(array[0]) for array in umbel.get(kept)], flush=True)
    """,
    )
    assert reader.line() == "True"
    assert not files_of(node)
    reader.tell()
    assert reader.line() == "True"
    assert len(files_of(node)) == 1
    reader.tell()
    assert reader.line() == "2"
    assert reader.finish(TIMEOUT_S)[0] == "[1, 2] [1, 2]\n"
    before = used_bytes(cluster.head)
    assert before >= 2 * VALUE_BYTES  # the values stay where they were made


def test_copies_that_nobody_wants_go_before_values_go_to_disk(cluster: Cluster) -> None:
    node = cluster.add(object_store_memory=185_000_000)
    cluster.owner(cluster.head)
    reader = cluster.driver(
        node,
        READER
        + """
    umbel.get(kept[0])
    gc.collect()
    print("read", flush=True)
    sys.stdin.readline()
    own = [umbel.put(numpy.zeros(50_000_000, numpy.uint8)) for _ in range(2)]
    print("put", flush=True)
    sys.stdin.readline()
    """,
    )
    assert reader.line() == "read"
    (copy,) = files_of(node)
    reader.tell()
    assert reader.line() == "put"
    drivers.wait_until(lambda: copy not in files_of(node), timeout_s=15, what="the copy to go")
    assert counted(node)["spilled_in_all_bytes"] == 0
    reader.tell()
    reader.finish(TIMEOUT_S)
    assert counted(node)["spilled_in_all_bytes"] == 0


def test_what_a_process_lets_go_of_is_freed_while_it_waits_for_room(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_AUTOMATIC_OBJECT_SPILLING_ENABLED", "0")
    node = cluster.add(object_store_memory=80 << 20)
    cluster.owner(cluster.head)
    reader = cluster.driver(
        node,
        READER
        + """
    import threading

    own = [umbel.put(numpy.zeros(60_000_000, numpy.uint8))]
    threading.Timer(0.5, own.clear).start()
    print(int(umbel.get(kept[0], timeout=30)[0]), flush=True)
    """,
    )
    assert reader.finish(TIMEOUT_S)[0] == "1\n"


def test_what_went_to_disk_for_an_owner_on_another_node_is_read_from_there_and_goes_when_the_owner_dies(
    cluster: Cluster,
) -> None:
    node = cluster.add(object_store_memory=80_000_000, resources={"there": 1})
    owner = cluster.driver(
        cluster.head,
        """
        import os, sys, numpy, umbel

        umbel.init(address=os.environ["SESSION"])

        @umbel.remote(resources={"there": 0.1}, max_retries=0)  # so that nothing is computed again
        def make(number):
            return numpy.full(20_000_000, number, numpy.uint8)

        kept = [make.remote(number) for number in range(6)]
        umbel.wait(kept, num_returns=6, timeout=60, fetch_local=False)
        print("there", flush=True)
        sys.stdin.readline()
        print([int(umbel.get(one)[-1]) for one in kept], flush=True)
        sys.stdin.readline()
        """,
    )
    assert owner.line() == "there"
    assert counted(node)["spilled_bytes"] >= 40_000_000
    owner.tell()
    assert owner.line() == "[0, 1, 2, 3, 4, 5]"
    owner.process.kill()
    drivers.wait_until(lambda: not counted(node)["spilled_files"], what="the files to go")
