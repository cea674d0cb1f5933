"""Nodes and other programs use the same memory file system, which has less room than they were promised together."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import drivers
import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a mount namespace")

APART = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
SMALL = "mount -t tmpfs -o size=200m none /dev/shm"


@pytest.fixture(scope="module")
def small() -> Sequence[str]:
    """Before a command: its /dev/shm has 200 MiB."""
    probe = subprocess.run([*APART, "sh", "-c", SMALL], check=False, capture_output=True, text=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"mount namespaces are not permitted here: {probe.stderr.strip()}")
    return [*APART, "sh", "-c", f'{SMALL} && exec "$0" "$@"']


@pytest.fixture
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as path:
        yield path


def run(source: str, prefix: Sequence[str], directory: str) -> str:
    running = drivers.Driver(source, directory, prefix=prefix)
    try:
        return running.finish(60)[0]
    finally:
        running.end()


def test_values_of_two_nodes_go_to_disk_when_their_file_system_is_full(small: Sequence[str], directory: str) -> None:
    """Each was promised 150 MiB. Values are made on both, and read on the other one, until there are 300."""
    output = run(
        """
        import umbel
        from umbel import cluster_utils

        SIZE = 15 << 20
        shape = {"num_cpus": 1, "object_store_memory": 150 << 20}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=shape)
        cluster.add_node(resources={"there": 1}, **shape)
        umbel.init(address=cluster.address)

        @umbel.remote(resources={"there": 0.1})
        def make(number): return bytes([number]) * SIZE

        @umbel.remote(resources={"there": 0.1})
        def last(value): return value[-1]

        here = [umbel.put(bytes([number]) * SIZE) for number in range(10)]
        assert umbel.get([last.remote(one) for one in here]) == [*range(10)]
        there = [make.remote(number) for number in range(10)]
        for number, one in enumerate(there):
            assert umbel.get(one)[-1] == number
        assert umbel.get([last.remote(one) for one in here]) == [*range(10)]
        for number, one in enumerate(here):
            assert umbel.get(one)[-1] == number
        umbel.shutdown()
        cluster.shutdown()
        print("read")
        """,
        small,
        directory,
    )
    assert output == "read\n"


def test_room_that_is_there_for_each_part_and_not_for_a_whole_value_is_made(
    small: Sequence[str], directory: str
) -> None:
    """A process asks for a small share of the store at a time: for each there is room, so that nothing seems to be wanting."""
    output = run(
        """
        import os, umbel

        MIB = 1 << 20
        umbel.init(num_cpus=1, object_store_memory=150 * MIB)
        kept = [umbel.put(bytes([number]) * 15 * MIB) for number in range(6)]
        system = os.statvfs("/dev/shm")
        with open("/dev/shm/other", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, system.f_bavail * system.f_frsize - 5 * MIB)
        kept += [umbel.put(bytes([number]) * 15 * MIB) for number in range(6, 9)]
        assert [umbel.get(one)[-1] for one in kept] == [*range(9)]
        os.unlink("/dev/shm/other")
        print("made")
        """,
        small,
        directory,
    )
    assert output == "made\n"


def test_a_program_that_takes_the_room_is_seen_and_so_is_its_end(small: Sequence[str], directory: str) -> None:
    output = run(
        """
        import os, umbel
        from umbel import exceptions
        from umbel._client import current

        MIB = 1 << 20

        def wanting():
            return current.engine().query("store")["wanting_bytes"] // MIB

        umbel.init(
            num_cpus=1, object_store_memory=150 * MIB,
            _system_config={"automatic_object_spilling_enabled": False},
        )
        with open("/dev/shm/other", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 110 * MIB)
        kept = [umbel.put(bytes([number]) * 20 * MIB) for number in range(3)]
        try:
            umbel.put(bytes(50 * MIB))
        except exceptions.ObjectStoreFullError as error:
            assert "bytes of it are not there" in str(error) and "--shm-size" in str(error), error
        else:
            raise AssertionError("there was room")
        assert 55 <= wanting() <= 65, wanting()
        os.unlink("/dev/shm/other")
        more = umbel.put(bytes(60 * MIB))
        assert wanting() == 0
        print("seen")
        """,
        small,
        directory,
    )
    assert output == "seen\n"
