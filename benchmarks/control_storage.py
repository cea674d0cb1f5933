"""What the built-in control storages cost, side by side, on this machine's disk: commits, loading, renewing.

Starts Debian's redis-server and etcd itself; leaves out what is not installed. `python benchmarks/control_storage.py
[--directory DIR]` prints a table in Markdown: the least and the median of each. The disk's own sync is in the first row.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from umbel import exceptions, spi
from umbel._control.storage import opening

VALUE_BYTES = 500  # an actor's record with a small constructor call
RECORDS = 100_000
BATCHES = {1: 300, 10: 100, 1_000: 30, 10_000: 5}  # writes in a commit: how many commits
START_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=None, help="where the data lies; the default is the temporary directory")
    parser.add_argument(
        "--records", type=int, default=RECORDS, help="that are kept, a multiple of 10,000; default 100,000"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.directory) as folder:
        columns = {"disk": {"one write": sync_s(Path(folder))}}
        for name, serving in (("sqlite", sqlite), ("redis", redis), ("etcd", etcd)):
            (Path(folder) / name).mkdir()
            with serving(Path(folder) / name) as url:
                if url:
                    columns[name] = measure(url, chosen.records)
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row in rows:
        cells = [shown_s(column[row]) if row in column else "" for column in columns.values()]
        print(f"| {row} | {' | '.join(cells)} |")


def sync_s(folder: Path) -> tuple[float, float]:
    """Appending 4 KiB and syncing them."""
    with (folder / "yardstick").open("ab", buffering=0) as file:

        def append() -> None:
            file.write(bytes(4096))
            os.fsync(file.fileno())

        return taken_s(append, 300)


def measure(url: str, records: int) -> dict[str, tuple[float, float]]:
    numbers = itertools.count(1)
    found = {}
    with contextlib.closing(opening.open_storage(url, timeout_s=30.0)) as storage:
        lease = storage.acquire("benchmark", 600.0)
        keys = itertools.count()

        def commit(count: int) -> None:
            writes = [(f"actors/{next(keys) % records:08d}", os.urandom(VALUE_BYTES)) for _ in range(count)]
            storage.commit(writes, fencing=lease.fencing, number=next(numbers))

        for _ in range(records // 10_000):
            commit(10_000)
        for count, rounds in BATCHES.items():
            found["one write" if count == 1 else f"{count:,} writes"] = taken_s(
                lambda count=count: commit(count), rounds
            )  # type: ignore[misc]
        found[f"loading {records:,} records"] = taken_s(lambda: check(storage, records), 3)
        found["renewing the lease"] = taken_s(lambda: storage.renew(lease.fencing), 50)
        found["asking who leads"] = taken_s(storage.leader, 50)
    return found


def check(storage: spi.ControlStorage, records: int) -> None:
    if sum(1 for _ in storage.load()) != records:
        raise SystemExit("records are missing")


def taken_s(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """(the least, the median) of so many."""
    taken = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start_s)
    return min(taken), statistics.median(taken)


def shown_s(pair_s: tuple[float, float]) -> str:
    return " / ".join(f"{one_s * 1e3:.2f} ms" if one_s < 0.1 else f"{one_s:.2f} s" for one_s in pair_s)


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite://{folder.resolve()}/control.db"


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with served([*command, "--appendonly", "yes", "--appendfsync", "always"], f"redis://127.0.0.1:{port}/0") as url:
        yield url


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[str]:
    port, peers = free_port(), f"http://127.0.0.1:{free_port()}"
    clients = f"http://127.0.0.1:{port}"
    command = ["etcd", "--data-dir", str(folder), "--listen-client-urls", clients, "--advertise-client-urls", clients]
    command += [
        "--listen-peer-urls",
        peers,
        "--initial-advertise-peer-urls",
        peers,
        "--initial-cluster",
        f"default={peers}",
    ]
    with served(command, f"etcd://127.0.0.1:{port}") as url:
        yield url


@contextlib.contextmanager
def served(command: Sequence[str], url: str) -> Iterator[str]:
    """The URL once the server answers; "" where it is not installed."""
    if shutil.which(command[0]) is None:
        yield ""
        return
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                opening.open_storage(url).close()
                break
            except exceptions.StorageUnavailable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
