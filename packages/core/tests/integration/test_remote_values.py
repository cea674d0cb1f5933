"""What others hold of a program without a node (`umbel://`): while its connection is broken, and when it, or what its connection
leads to, has gone.

A second program has a detached actor, the keeper, which holds references to values that the first one owns.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import proxies
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel._base import token_files
from umbel._client import current
from umbel.util import state

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
SHORT_S = "1"  # of patience, where it has to end
LARGE_BYTES = 1_000_000
READER = """
    import os, sys, umbel

    umbel.init(os.environ["ADDRESS"], namespace="tests", log_to_driver=False)

    class Keeper:
        def hold(self, refs):
            self.refs = refs

        def read(self, index):
            return len(umbel.get(self.refs[index]))

    options = {"name": "keeper", "lifetime": "detached", "num_cpus": 0, "max_concurrency": 4}
    keeper = umbel.remote(Keeper).options(**options).remote()
    umbel.get(keeper.hold.remote([]))
    print("ready", flush=True)
    for line in sys.stdin:
        what, number = line.split()
        ref = keeper.read.remote(int(number))
        try:
            if what == "explain":
                told = ""
                while "is broken" not in told:  # once that is noticed
                    told = umbel.explain(ref)
                print(told.replace("\\n", " / "), flush=True)
            else:
                print(umbel.get(ref), flush=True)
        except Exception as error:
            print(type(error).__mro__[2].__name__, str(error).splitlines()[-1], flush=True)
"""
PROGRAM = """
    import os, sys, umbel

    umbel.init(os.environ["ADDRESS"], namespace="tests", log_to_driver=False)
    umbel.get(umbel.get_actor("keeper").hold.remote([umbel.put(bytes(1_000_000)), umbel.put(b"small")]))
    print("held", flush=True)
    sys.stdin.readline()
"""


class Reader:
    """The second program."""

    def __init__(self, address: object, directory: str) -> None:
        self.program = drivers.Driver(READER, directory, ADDRESS=f"umbel://{address}")
        assert self.program.line() == "ready"

    def begin(self, number: int, what: str = "read") -> None:
        self.program.tell(f"{what} {number}")

    def read(self, number: int, what: str = "read") -> str:
        self.begin(number, what)
        return self.program.line()


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    umbel.shutdown()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("UMBEL_NODE_RECONNECT_S", SHORT_S)
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"head": 1}})
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def reader(cluster: cluster_utils.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(token_files.FILE_VARIABLE, cluster.token_file)
        made = Reader(cluster.address, str(tmp_path_factory.mktemp("reader")))
        yield made
        made.program.finish(TIMEOUT_S)


@pytest.fixture
def proxy(cluster: cluster_utils.Cluster, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[proxies.Proxy]:
    monkeypatch.setenv(token_files.FILE_VARIABLE, cluster.token_file)
    made = proxies.Proxy(str(cluster.address), records=True)
    yield made
    umbel.shutdown()
    made.close()


def connect(address: object) -> None:
    umbel.init(f"umbel://{address}", namespace="tests", log_to_driver=False)


def hold() -> list[Any]:
    """A large value, a small one, and a result that lies where it was made, held by the keeper."""
    made = umbel.remote(lambda: bytes(3 * LARGE_BYTES)).remote()
    refs = [umbel.put(bytes(LARGE_BYTES)), umbel.put(b"small"), made]
    assert umbel.wait([made], timeout=TIMEOUT_S, fetch_local=False)[0]
    umbel.get(umbel.get_actor("keeper").hold.remote(refs), timeout=TIMEOUT_S)
    return refs


def owned_files(node: Any, owner: str) -> list[str]:
    """Shared memory of a node that belongs to this process."""
    names = os.listdir(f"/dev/shm/umbel-{os.getuid()}-{os.path.basename(node.session_dir)}")
    return [name for name in names if name.count(".") == 2 and name.split(".")[1] == owner]


def own_id() -> str:
    engine: Any = current.session()
    found: str = engine.process_id.hex()
    return found


def expect_ended(cluster: cluster_utils.Cluster, reader: Reader, owner: str, job_id: str, why: str) -> None:
    """What the program owned is gone, and everybody can tell why."""
    for number in range(2):
        told = reader.read(number)
        assert told.startswith("OwnerDiedError"), told
        assert f"process {owner}, has died" in told
        assert "umbel list jobs" in told
    for node in cluster.list_all_nodes():
        drivers.wait_until(lambda node=node: not owned_files(node, owner), what="its memory to be freed")
    connect(cluster.address)
    (job,) = [one for one in state.list_jobs() if one.job_id == job_id]
    assert job.status == "FAILED"
    assert why in str(job.message)
    umbel.shutdown()


def test_what_a_program_owns_is_waited_for_while_its_connection_is_broken(reader: Reader, proxy: proxies.Proxy) -> None:
    connect(proxy.address)
    hold()
    proxy.is_shut = True
    assert proxy.cut() == 1
    assert "a program of another machine, whose connection to its node is broken" in reader.read(2, "explain")
    for number in range(3):
        reader.begin(number)
    assert not reader.program.has_line()
    proxy.is_shut = False
    assert [reader.program.line() for _ in range(3)] == [str(LARGE_BYTES), "5", str(3 * LARGE_BYTES)]


def test_large_values_of_a_program_are_read_on_the_node_and_not_from_the_program(
    reader: Reader, proxy: proxies.Proxy
) -> None:
    connect(proxy.address)
    refs = hold()
    assert len(proxy.seen) > LARGE_BYTES  # it was written there once
    seen = len(proxy.seen)
    assert umbel.get([umbel.remote(len).remote(ref) for ref in refs], timeout=TIMEOUT_S) == [
        LARGE_BYTES,
        5,
        3 * LARGE_BYTES,
    ]
    assert [reader.read(number) for number in range(3)] == [str(LARGE_BYTES), "5", str(3 * LARGE_BYTES)]
    assert len(proxy.seen) - seen < LARGE_BYTES / 10


def test_a_connection_that_stays_broken_ends_what_its_program_owned(
    cluster: cluster_utils.Cluster, reader: Reader, proxy: proxies.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_REMOTE_RECONNECT_S", SHORT_S)
    connect(proxy.address)
    refs = hold()
    owner, job_id = own_id(), umbel.get_runtime_context().get_job_id()
    assert owned_files(cluster.head_node, owner)
    proxy.is_shut = True
    proxy.cut()
    reader.begin(2)
    with pytest.raises(exceptions.ConnectionLostError, match="broken for longer than 1 s; the last attempt"):
        umbel.get(refs[2], timeout=TIMEOUT_S)
    assert reader.program.line().startswith("OwnerDiedError")
    umbel.shutdown()
    expect_ended(cluster, reader, owner, job_id, "the connection was broken for longer than 1 s")


def test_a_program_that_is_killed_is_missed(
    cluster: cluster_utils.Cluster, reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UMBEL_REMOTE_RECONNECT_S", SHORT_S)
    monkeypatch.setenv(token_files.FILE_VARIABLE, cluster.token_file)
    program = drivers.Driver(PROGRAM, str(tmp_path), ADDRESS=f"umbel://{cluster.address}")
    assert program.line() == "held"
    connect(cluster.address)
    (job,) = [one for one in state.list_jobs() if one.status == "RUNNING" and one.entrypoint.count("held")]
    umbel.shutdown()
    program.process.kill()
    program.process.communicate()
    assert reader.read(1).startswith("OwnerDiedError")
    expect_ended(cluster, reader, owner_of(reader), str(job.job_id), "the connection was broken for longer than 1 s")


def owner_of(reader: Reader) -> str:
    return reader.read(1).split("process ")[1].split(",")[0]


def test_what_stands_for_a_program_is_killed(
    cluster: cluster_utils.Cluster, reader: Reader, proxy: proxies.Proxy
) -> None:
    connect(proxy.address)
    refs = hold()
    owner, job_id = own_id(), umbel.get_runtime_context().get_job_id()
    engine: Any = current.session()
    os.kill(engine._tunnel.pid, signal.SIGKILL)
    reader.begin(2)
    assert reader.program.line().startswith("OwnerDiedError")
    with pytest.raises(exceptions.ConnectionLostError, match="has ended meanwhile"):
        umbel.get(refs[2], timeout=TIMEOUT_S)
    umbel.shutdown()
    expect_ended(
        cluster, reader, owner, job_id, f"process {engine._tunnel.pid}, which stood for it on this node, was killed"
    )


def test_the_node_that_a_program_is_connected_to_dies(
    cluster: cluster_utils.Cluster, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it at once, as if somebody had pulled its plug. What was made for the program on the other node goes as well."""
    monkeypatch.setenv("UMBEL_REMOTE_RECONNECT_S", SHORT_S)
    monkeypatch.setenv(token_files.FILE_VARIABLE, cluster.token_file)
    node = cluster.add_node(num_cpus=1)
    connect(node.address)
    owner, job_id = own_id(), umbel.get_runtime_context().get_job_id()
    made = umbel.remote(resources={"head": 1})(lambda: bytes(3 * LARGE_BYTES)).remote()
    assert umbel.wait([made], timeout=TIMEOUT_S, fetch_local=False)[0]
    refs = [umbel.put(bytes(LARGE_BYTES)), umbel.put(b"small"), made]
    umbel.get(umbel.get_actor("keeper").hold.remote(refs), timeout=TIMEOUT_S)
    assert owned_files(cluster.head_node, owner)
    engine: Any = current.session()
    relay = engine._tunnel.pid
    os.kill(relay, signal.SIGSTOP)  # it says nothing any more
    os.kill(node.pid, signal.SIGKILL)
    os.kill(relay, signal.SIGKILL)
    reader.begin(2)
    with pytest.raises(exceptions.ConnectionLostError, match="broken for longer than 1 s; the last attempt"):
        umbel.get(refs[0], timeout=TIMEOUT_S)
    assert reader.program.line().startswith("OwnerDiedError")
    umbel.shutdown()
    cluster.remove_node(node)
    expect_ended(cluster, reader, owner, job_id, "its node is gone: ")
