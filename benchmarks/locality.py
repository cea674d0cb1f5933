"""What it saves that tasks run where their large arguments are.

    python benchmarks/locality.py [--bytes N]

Two nodes of this machine: tasks of the one make values, and tasks of the program, which is on the other, read them; with the
default strategy, and with nothing drawn anywhere. Each line has medians of five: how long it takes until a value that was made
is read, and how many bytes are copied for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import umbel
from umbel import cluster_utils
from umbel._client import tool

ROUNDS = 5


@umbel.remote(resources={"there": 1})
def make(size_bytes: int) -> bytes:
    return os.urandom(1) * size_bytes


@umbel.remote
def read(data: bytes) -> int:
    return len(data)


def used_bytes(node: cluster_utils.ClusterNode) -> int:
    with tool.Tool(node.session_dir) as asker:
        store = asker.query("store")
    return int(store["capacity_bytes"] - store["free_bytes"])


def measure(size_bytes: int) -> tuple[float, int]:
    """(seconds, bytes copied) of one value."""
    room = {"object_store_memory": 3 * size_bytes + (64 << 20)}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **room})
    cluster.add_node(num_cpus=2, resources={"there": 2}, **room)
    cluster.connect()
    try:
        assert cluster.head_node is not None
        umbel.get(read.remote(make.remote(8 << 20)))  # workers are there
        taken_s, copied = [], []
        for _ in range(ROUNDS):
            made = make.remote(size_bytes)
            umbel.wait([made], fetch_local=False)
            before = used_bytes(cluster.head_node)
            began_s = time.perf_counter()
            assert umbel.get(read.remote(made)) == size_bytes
            taken_s.append(time.perf_counter() - began_s)
            copied.append(used_bytes(cluster.head_node) - before)
            del made
        return statistics.median(taken_s), int(statistics.median(copied))
    finally:
        umbel.shutdown()
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=256 << 20, help="of a value; default 256 MiB")
    size_bytes = parser.parse_args().bytes
    for what, least_bytes in (("drawn to its argument", ""), ("drawn nowhere", str(sys.maxsize))):
        os.environ.pop("UMBEL_LOCALITY_BYTES_MIN", None)
        if least_bytes:
            os.environ["UMBEL_LOCALITY_BYTES_MIN"] = least_bytes
        taken_s, copied_bytes = measure(size_bytes)
        print(f"{size_bytes >> 20} MiB, {what}: {taken_s * 1e3:.1f} ms, {copied_bytes >> 20} MiB copied", flush=True)


if __name__ == "__main__":
    main()
