"""Processes of different nodes of a cluster on this machine talk over TCP."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import psutil
import pytest

from umbel import cluster_utils, exceptions
from umbel._base import sessions, token_files, tokens
from umbel._client import attach, launch
from umbel._transport import addresses, connection, dialler
from umbel._wire import frames, handshake

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")

TIMEOUT_S = 60
HERE = os.path.dirname(__file__)
# A driver that puts a value, and hands the reference on by a file.
OWNER = """
    import os, sys, umbel
    from umbel import cloudpickle

    umbel.init(address=os.environ["SESSION"])
    kept = umbel.put({"answer": 42})
    inner = umbel.put("inside")
    outer = umbel.put([inner])
    pending = umbel.remote(lambda path: open(path).read()).remote(os.environ["FIFO"])
    with open(os.environ["REFERENCES"] + ".new", "wb") as file:
        file.write(cloudpickle.dumps([kept, outer, pending]))
    os.rename(os.environ["REFERENCES"] + ".new", os.environ["REFERENCES"])
    print("there", flush=True)
    sys.stdin.readline()
"""
BORROWER = """
    import os, sys, umbel
    from umbel import cloudpickle

    umbel.init(address=os.environ["SESSION"])
    with open(os.environ["REFERENCES"], "rb") as file:
        kept, outer, pending = cloudpickle.loads(file.read())
"""


class Cluster:
    """A head and another node."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._running: list[drivers.Driver] = []
        self._nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        self.token_file = self._nodes.token_file
        self.add()
        self.nodes = self._nodes.list_all_nodes()
        self.fifo = os.path.join(directory, "fifo")
        os.mkfifo(self.fifo)

    def add(self) -> cluster_utils.ClusterNode:
        return self._nodes.add_node(num_cpus=2)

    def kill(self, node: cluster_utils.ClusterNode) -> None:
        self._nodes.remove_node(node, allow_graceful=False)

    def open_fifo(self) -> int:
        """A descriptor, once the task reads that waits for what is written there."""
        try:
            return os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads there yet
            return 0

    def driver(self, node: cluster_utils.ClusterNode, source: str) -> drivers.Driver:
        made = drivers.Driver(
            source,
            self.directory,
            SESSION=node.session_dir,
            REFERENCES=os.path.join(self.directory, "references"),
            FIFO=self.fifo,
        )
        self._running.append(made)
        return made

    def end(self) -> None:
        for one in self._running:
            one.process.kill()
            one.process.communicate()
        self._nodes.shutdown()


def doors(node: cluster_utils.ClusterNode) -> list[str]:
    """Of its processes."""
    return [name for name in os.listdir(node.session_dir) if name.endswith(".door")]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with homes.own_home(**homes.DEAD_IN_2_S) as home:
        made = Cluster(home)
        try:
            yield made
        finally:
            made.end()


def test_a_reference_is_read_by_a_driver_of_another_node(cluster: Cluster) -> None:
    owner = cluster.driver(cluster.nodes[0], OWNER)
    assert owner.line() == "there"
    borrower = cluster.driver(
        cluster.nodes[1],
        BORROWER
        + """
    print(umbel.get(kept), umbel.get(umbel.get(outer)[0]), flush=True)
    with open(os.environ["FIFO"], "w") as file:
        file.write("late")
    print(umbel.get(pending), flush=True)
    """,
    )
    assert borrower.finish(TIMEOUT_S)[0] == "{'answer': 42} inside\nlate\n"
    owner.tell()
    owner.finish(TIMEOUT_S)


def test_what_a_driver_of_another_node_waits_for_is_told(cluster: Cluster) -> None:
    owner = cluster.driver(cluster.nodes[0], OWNER)
    assert owner.line() == "there"
    borrower = cluster.driver(
        cluster.nodes[1],
        BORROWER
        + """
    umbel.get(kept)
    print(umbel.explain(pending), flush=True)
    """,
    )
    told = borrower.finish(TIMEOUT_S)[0]
    assert f"that process, on the node whose id begins with {cluster.nodes[0].node_id[:12]}, is connected" in told


WAITS = (
    BORROWER
    + """
    print(umbel.get(kept), flush=True)
    try:
        umbel.get(pending, timeout=8)  # well before a watchdog looks after it
    except umbel.exceptions.OwnerDiedError as error:
        print(type(error).__name__, flush=True)
    """
)


def test_a_killed_owner_of_another_node_is_an_error_to_who_waits_for_it(cluster: Cluster) -> None:
    owner = cluster.driver(cluster.nodes[0], OWNER)
    assert owner.line() == "there"
    borrower = cluster.driver(cluster.nodes[1], WAITS)
    assert borrower.line() == "{'answer': 42}"
    owner.kill()
    assert borrower.finish(TIMEOUT_S)[0] == "OwnerDiedError\n"


def test_an_owner_that_has_ended_before_it_is_asked_is_an_error(cluster: Cluster) -> None:
    owner = cluster.driver(cluster.nodes[0], OWNER)
    assert owner.line() == "there"
    owner.kill()
    borrower = cluster.driver(cluster.nodes[1], WAITS.replace("umbel.get(kept)", "'asks'"))
    assert borrower.finish(TIMEOUT_S)[0] == "asks\nOwnerDiedError\n"


def test_a_node_that_is_gone_is_an_error(cluster: Cluster) -> None:
    third = cluster.add()
    owner = cluster.driver(third, OWNER)
    assert owner.line() == "there"
    cluster.kill(third)
    borrower = cluster.driver(cluster.nodes[1], WAITS.replace("umbel.get(kept)", "'asks'"))
    assert borrower.finish(TIMEOUT_S)[0] == "asks\nOwnerDiedError\n"


def test_a_node_that_has_died_takes_its_processes_along_though_their_connections_stay(cluster: Cluster) -> None:
    """A machine that hangs closes nothing; it is enough that the head has given it up."""
    third = cluster.add()
    owner = cluster.driver(third, OWNER)
    assert owner.line() == "there"
    borrower = cluster.driver(cluster.nodes[1], WAITS)
    assert borrower.line() == "{'answer': 42}"
    for pid in (owner.pid, third.pid):
        drivers.freeze(pid)
    assert borrower.finish(TIMEOUT_S)[0] == "OwnerDiedError\n"


def test_what_a_driver_of_another_node_borrows_lives_as_long_as_it_does(cluster: Cluster) -> None:
    """The owner drops its own references. It keeps the values for who borrows them, and frees them when that has died."""
    owner = cluster.driver(
        cluster.nodes[0],
        OWNER.replace("import os, sys, umbel", "import gc, os, sys, time, umbel")
        + """
    from umbel._client import current

    records = current.running_engine().values.table.records
    kept_id, record = kept._id, records[kept._id]
    record.pins -= 1  # what counts for a reference that was pickled by hand
    del kept
    gc.collect()
    print(kept_id in records, flush=True)
    until_s = time.monotonic() + 30
    while kept_id in records and time.monotonic() < until_s:
        time.sleep(0.01)
    print(kept_id in records, flush=True)
    sys.stdin.readline()
    """,
    )
    assert owner.line() == "there"
    borrower = cluster.driver(
        cluster.nodes[1],
        BORROWER
        + """
    umbel.get(outer)
    print("has", flush=True)
    sys.stdin.readline()
    print(umbel.get(kept), flush=True)
    sys.stdin.readline()
    """,
    )
    assert borrower.line() == "has"
    owner.tell()
    assert owner.line() == "True"
    borrower.tell()
    assert borrower.line() == "{'answer': 42}"
    borrower.kill()
    assert owner.line() == "False"


def test_tasks_read_references_of_other_nodes_and_both_sides_dial_at_once(cluster: Cluster) -> None:
    """Workers of each node read what the other node's driver owns."""
    sides = [
        cluster.driver(
            node,
            f"""
    import os, sys, umbel
    from umbel import cloudpickle

    umbel.init(address=os.environ["SESSION"])
    own = [umbel.put(("{name}", number)) for number in range(20)]
    with open(os.environ["REFERENCES"] + "-{name}", "wb") as file:
        file.write(cloudpickle.dumps(own))
    print("there", flush=True)
    sys.stdin.readline()
    with open(os.environ["REFERENCES"] + "-{other}", "rb") as file:
        references = cloudpickle.loads(file.read())
    read = umbel.remote(lambda held: umbel.get(held))
    for _ in range(5):
        assert umbel.get(references + [read.remote(references)]) == [("{other}", n) for n in range(20)] + [
            [("{other}", n) for n in range(20)]
        ]
    print("done", flush=True)
    sys.stdin.readline()
    """,
        )
        for node, name, other in zip(cluster.nodes, ("a", "b"), ("b", "a"), strict=True)
    ]
    assert [side.line() for side in sides] == ["there", "there"]
    for side in sides:
        side.tell()
    assert [side.line() for side in sides] == ["done", "done"]
    for side in sides:
        side.tell()
        side.finish(TIMEOUT_S)


def test_the_token_is_told_to_processes_of_the_node_and_not_to_commands(cluster: Cluster) -> None:
    """And no higher one than they need."""

    def welcome(kind: str, **more: object) -> dict[str, Any]:
        with connection.connect_unix(os.path.join(cluster.nodes[0].session_dir, sessions.AGENT_SOCKET)) as sock:
            facts = {"id": "00" * 16, "pid": os.getpid(), "protocol": frames.PROTOCOL_VERSION}
            sock.sendall(frames.encode_control({"t": "hello", "kind": kind, **facts, **more}))
            connection.wait_readable(sock, TIMEOUT_S)
            ((payload,),) = [frames.FrameReader().feed(sock.recv(100_000))]
            return frames.decode_control(payload)[0]

    job = {**launch.surroundings(), "python": sys.executable, "python_version": list(sys.version_info[:2])}
    job |= {"prefix": sys.prefix, "version": attach.version(), "entrypoint": "", "namespace": "n", "worker_env": {}}
    job |= {"worker_imports": [], "logging_config": None, "tracing_startup_hook": None, "log_to_driver": False}
    assert "token" not in welcome("tool")
    told = tokens.parse(welcome("driver", job=job)["token"], source="the welcome")
    assert told == token_files.read(cluster.token_file).lowered(tokens.Role.SUBMIT)


def test_the_token_is_in_no_environment_and_on_no_command_line(cluster: Cluster) -> None:
    owner = cluster.driver(cluster.nodes[0], OWNER)
    assert owner.line() == "there"
    borrower = cluster.driver(
        cluster.nodes[1], BORROWER + "    umbel.get(kept)\n    print('has', flush=True)\n    sys.stdin.readline()\n"
    )
    assert borrower.line() == "has"
    found = {**drivers.marked_processes(owner.mark), **drivers.marked_processes(borrower.mark)}
    for node in cluster.nodes:
        found |= dict.fromkeys([node.pid, *drivers.children_of(node.pid)], "")
    assert len(found) >= 6
    for pid in found:
        for name in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                assert b"umbel1." not in file.read()


def test_a_flood_of_strangers_for_a_process_leaves_nothing_open_and_keeps_nobody_out(cluster: Cluster) -> None:
    """The daemon passes them on before they have proved anything; the process turns them away."""

    def open_files(pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    owner = cluster.driver(cluster.nodes[0], OWNER.replace('print("there"', "print(kept.hex()[:32]"))
    owner_id = bytes.fromhex(owner.line())
    daemon = cluster.nodes[0].pid
    fifo = drivers.wait_until(cluster.open_fifo, what="the owner's task to run")
    before = [open_files(pid) for pid in (daemon, owner.pid)]
    address = addresses.parse(cluster.nodes[0].address)
    wrong = tokens.new_secret().lowered(tokens.Role.SUBMIT)
    for number in range(100):
        target = handshake.process(owner_id if number % 4 else os.urandom(16))
        with pytest.raises(exceptions.AuthenticationError, match="does not accept this token"):
            dialler.connect(address, wrong, target, timeout_s=TIMEOUT_S)
    with contextlib.ExitStack() as stack:
        for _ in range(300):  # who say nothing
            stranger = stack.enter_context(socket.create_connection((address.host, address.port), timeout=TIMEOUT_S))
            stranger.sendall(handshake.encode_preamble(handshake.process(owner_id), is_tls=False))
        borrower = cluster.driver(cluster.nodes[1], BORROWER + "    print(umbel.get(kept))\n")
        assert borrower.finish(TIMEOUT_S)[0] == "{'answer': 42}\n"
    drivers.wait_until(
        lambda: [open_files(pid) for pid in (daemon, owner.pid)] == before, what="all that came to be closed again"
    )
    os.close(fifo)
    owner.tell()
    errors = owner.finish(TIMEOUT_S)[1]
    assert 1 <= errors.count("refused a connection from 127.0.0.1") <= 4, errors
    assert wrong.as_text() not in errors


def test_ten_thousand_strangers_cost_the_daemon_no_memory(cluster: Cluster) -> None:
    """Who say something wrong, or begin and go away, each from another address than the one before."""
    daemon = psutil.Process(cluster.nodes[0].pid)
    address = addresses.parse(cluster.nodes[0].address)
    preamble = handshake.encode_preamble(handshake.AGENT, is_tls=False)
    sayings = (preamble + bytes(200), preamble[:4], b"GET / HTTP/1.1\r\n\r\n", os.urandom(2_000), preamble, b"")

    def come(count: int) -> int:
        """So many of them; what the daemon has in memory when all have gone."""
        files = daemon.num_fds()
        for number in range(count):
            own = (f"127.0.0.{2 + number % 200}", 0)
            with (
                socket.create_connection((address.host, address.port), TIMEOUT_S, own) as stranger,
                contextlib.suppress(ConnectionError),  # it may have been refused already
            ):
                stranger.sendall(sayings[number % len(sayings)])
        drivers.wait_until(lambda: daemon.num_fds() <= files, what="all that came to be closed again")
        return int(daemon.memory_info().rss)

    before = come(500)  # with what is loaded when the first come
    assert come(10_000) - before < 3 << 20


def test_doors_of_processes_that_ended_are_removed(cluster: Cluster) -> None:
    owner = cluster.driver(cluster.nodes[0], OWNER)
    assert owner.line() == "there"
    drivers.wait_until(lambda: len(doors(cluster.nodes[0])) == 2, what="a door of the driver and one of its worker")
    owner.kill()
    drivers.wait_until(lambda: not doors(cluster.nodes[0]), what="the doors of what has ended to go")
