"""Which ways lead into a node: its sockets on this machine, its one port, and the addresses of version 6."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import homes
import pytest

import umbel
from umbel import cluster_utils
from umbel._client import tool
from umbel._wire import frames

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes and sockets are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
NOBODY = 65_534  # no user of this machine's has to have this id
LISTENING = "0A"  # as /proc/net/tcp has it


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    """A head and another node, with which this process has run a task."""
    with homes.own_home():
        made = cluster_utils.Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
        made.add_node(num_cpus=1, resources={"there": 1})
        try:
            assert umbel.get(swapped.remote(b"x" * 1_000_000), timeout=TIMEOUT_S) == b"y" * 1_000_000
            yield made
        finally:
            made.shutdown()


@umbel.remote(resources={"there": 1})
def swapped(value: bytes) -> bytes:
    return value.replace(b"x", b"y")


VISITOR = """
    import os, socket, sys

    path, user, said = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(path)
    try:
        sock.sendall(said)
        print(len(sock.recv(1)))
    except ConnectionError:
        print(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_refused_where_the_files_would_let_it_in(cluster: cluster_utils.Cluster) -> None:
    assert cluster.head_node is not None
    path = cluster.head_node.raylet_socket_name
    hello = {"t": "hello", "kind": "tool", "id": "00" * 16, "pid": 1, "protocol": frames.PROTOCOL_VERSION}
    query = {"t": "query", "what": "alive", "about": "", "node": "", "rq": 1}
    said = (frames.encode_control(hello) + frames.encode_control(query)).hex()
    opened = {path: 0o666}
    while os.path.dirname(path) not in ("/", "/tmp"):
        path = os.path.dirname(path)
        opened[path] = 0o755
    modes = {one: os.stat(one).st_mode for one in opened}

    def is_answered(user: int) -> bool:
        arguments = [cluster.head_node.raylet_socket_name, str(user), said]  # type: ignore[union-attr]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(VISITOR), *arguments],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
        return done.stdout == "1\n"

    try:
        for one, mode in opened.items():
            os.chmod(one, mode)
        assert not is_answered(NOBODY)
        assert is_answered(0)
    finally:
        for one, mode in modes.items():
            os.chmod(one, mode)


def _listening(pids: list[int]) -> set[str]:
    """Where these processes listen by TCP, each as /proc/net has it: address and port in hexadecimal."""
    held = set()
    for pid in pids:
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                held.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    found = set()
    for family in ("tcp", "tcp6"):
        with open(f"/proc/net/{family}") as file:
            for line in file.read().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and f"socket:[{fields[9]}]" in held:
                    found.add(fields[1])
    return found


def test_all_processes_of_a_node_listen_at_one_port(cluster: cluster_utils.Cluster) -> None:
    for node in cluster.list_all_nodes():
        with tool.Tool(node.session_dir) as asker:
            pids = [one["pid"] for one in asker.query("processes") if one["pid"]]
        assert node.pid in pids and len(pids) >= 3, "its daemon, its fork server, and at least one worker or driver"
        assert {one.split(":")[1] for one in _listening(pids)} == {f"{int(node.address.rsplit(':', 1)[1]):04X}"}
    assert _listening([os.getpid()]) == set()


def test_tasks_and_values_go_by_addresses_of_version_6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with homes.own_home():
        made = cluster_utils.Cluster()
        try:
            made.add_node(node_ip_address="::1")
            node = made.add_node(node_ip_address="::1", resources={"there": 1})
            umbel.shutdown()  # of another cluster, if there is one
            made.connect()
            value = umbel.put(b"x" * 2_000_000)
            first = swapped.remote(value)
            assert umbel.get(swapped.remote(first), timeout=TIMEOUT_S) == b"y" * 2_000_000
            assert node.address.startswith("[::1]:")
        finally:
            made.shutdown()
