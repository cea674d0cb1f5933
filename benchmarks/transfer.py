"""Measures how quickly values get from one node to others, over loopback, beside a plain socket in the same run.

    python benchmarks/transfer.py
    python benchmarks/transfer.py --ray PYTHON       # with the Ray of that interpreter beside it

Each node is a process of its own that runs the daemon's part: its store, its connections, its mover. A value of 1 GB and one
of 256 MiB go from one node to another, and one of 256 MiB to four at once. The plain socket is a pair of processes, one in
`sendall`, one in `recv_into`, each with one buffer of a megabyte, as iperf has. What is printed is the median and the range.
Exit status 1 when a bar is missed: half of the plain socket's speed, twice Ray's, and no byte out of its node more than twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

GB = 1_000_000_000
BROADCAST_BYTES = 256 << 20
READERS = 4
SAMPLES = 5
BUFFER_BYTES = 1 << 20
LIMIT_S = 120.0
OF_RAW_MIN = 0.5
OF_RAY_MIN = 2.0
TIMES_OUT_MAX = 2.0
CAPACITY_BYTES = 3 * GB


# ---- a node ----


class Joins:
    """Nobody joins these nodes: see `umbel._agent.hub.Receiver`."""

    def may_join(self, _hello: Any) -> str:
        return "there is nothing here but values"

    def on_joining(self, _client: Any, _hello: Any) -> None: ...

    def on_joined(self, _client: Any) -> None: ...

    def on_message(self, _client: Any, _message: Any, _body: bytes) -> None: ...

    def on_gone(self, _client: Any) -> None: ...


class Node:
    """The daemon's part, and one process that owns values. Ordered about by lines of JSON."""

    def __init__(self, folder: str) -> None:
        from umbel._agent import hub, store_service, value_service
        from umbel._base import nodes, tokens
        from umbel._objects import store
        from umbel._transport import acceptor, addresses, connection

        self.id = nodes.new_node_id()
        self.poller = connection.Poller()
        secret = tokens.Token(tokens.Role.HEAD, bytes(range(32)))
        self.hub = hub.Hub(self.poller, f"{folder}/agent.sock", Joins(), {"namespace": ""})
        self.store = store_service.StoreService(
            self.hub, time.monotonic, f"{folder}/store", capacity_bytes=CAPACITY_BYTES, full_wait_s=5.0,
            spilling={"directory": f"{folder}/spill", "high_water": 1.0, "batch_bytes": 1 << 20, "is_enabled": False},
        )  # fmt: skip
        self.owner = store.SharedMemoryStore(f"{folder}/store", nodes.new_process_id(self.id).hex())
        self.acceptor = acceptor.Acceptor(
            self.poller, secret.lowered(tokens.Role.NODE), lambda stream, _role, _target: self.values.accept(stream),
            now_s=time.monotonic, warn=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
        address = str(self.acceptor.listen(addresses.Address("127.0.0.1", 0)))
        self.values = value_service.ValueService(
            self.poller, self.store, self.id, secret.lowered(tokens.Role.NODE), self, address=address,
            now_s=time.monotonic,
        )  # fmt: skip
        self.address = address
        self.asked_s: dict[str, float] = {}
        self.rest = b""  # of what was read, not a whole line yet
        self.is_over = False
        self.poller.register(0, connection.IN, lambda _events: self._obey())

    def run(self) -> None:
        self._say({"id": self.id, "address": self.address})
        while not self.is_over:
            due = (self.values.next_tick_s(), self.store.next_tick_s(), self.acceptor.next_tick_s())
            due_s = min((at_s for at_s in due if at_s is not None), default=None)
            self.poller.poll(None if due_s is None else max(0.0, due_s - time.monotonic()))
            self.values.tick()
            self.store.tick()
            self.acceptor.tick()
        self.values.close()
        self.owner.close(unlink_all=True)

    def _say(self, message: Any) -> None:
        os.write(1, json.dumps(message).encode() + b"\n")

    def _obey(self) -> None:
        data = os.read(0, 65_536)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for order in [json.loads(line) for line in lines] if data else [{"t": "end"}]:
            getattr(self, f"_do_{order.pop('t')}")(**order)

    def _do_make(self, size_bytes: int) -> None:
        segment = self.owner.create(size_bytes)
        block = os.urandom(1 << 20)
        for offset in range(0, size_bytes, len(block)):
            self.owner.write(segment, offset, block[: size_bytes - offset])
        self.owner.seal(segment)
        with open(f"{self.owner.directory}/{segment.name}", "rb") as file:
            self._say({"segment": segment.name, "checksum": _checksum(file, size_bytes)})

    def _do_want(self, object_id: str, size_bytes: int, sources: Any) -> None:
        from umbel._agent import pulls

        self.asked_s[object_id] = time.monotonic()
        self.values.mover.want(object_id, size_bytes, sources, asker="a", priority=pulls.Priority.GET)

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None:
        self._say({"took_s": time.monotonic() - self.asked_s.pop(object_id), "segment": segment})

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None:
        self._say({"error": f"{code}: {text}"})

    def left(self, owner: str, names: list[str]) -> None:
        raise AssertionError("no process has ended")

    def needless(self, names: list[str]) -> None:
        raise AssertionError("no process has ended")

    def _do_drop(self, object_id: str, segment: str, size_bytes: int) -> None:
        """Lets go of the copy, and says what was in it."""
        with open(f"{self.owner.directory}/{segment}", "rb") as file:
            checksum = _checksum(file, size_bytes)
        self.values.mover.unwanted(object_id, "a")
        self.values.mover.freed(object_id)
        self._say({"checksum": checksum, "left": len(os.listdir(self.owner.directory))})

    def _do_sent(self) -> None:
        self._say({"sent_bytes": self.values.mover.sent_bytes})

    def _do_trim(self) -> None:
        """No warm pages are left."""
        self.values.mover.room_wanted()
        self._say({})

    def _do_ping(self) -> None:
        self._say({"pong": True})

    def _do_end(self) -> None:
        self.is_over = True


def _checksum(file: Any, size_bytes: int) -> int:
    checksum = 0
    while size_bytes:
        block = file.read(min(size_bytes, 8 << 20))
        size_bytes -= len(block)
        checksum = zlib.crc32(block, checksum)
    return checksum


class NodeProcess:
    """A node, from outside."""

    def __init__(self) -> None:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.mkdtemp(prefix="umbel-transfer-", dir=memory)
        command = [sys.executable, __file__, "--node", self.folder]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        told = self.hear()
        self.id, self.address = told["id"], told["address"]

    def say(self, what: str, **more: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"t": what, **more}) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a node ended before it was told to")
        told = json.loads(line)
        if "error" in told:
            raise SystemExit(f"a node could not get a value: {told['error']}")
        return told

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.say("end")
        try:
            self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def nodes_of(count: int) -> Iterator[list[NodeProcess]]:
    made: list[NodeProcess] = []
    try:
        for _ in range(count):
            made.append(NodeProcess())
        yield made
    finally:
        for one in made:
            one.end()


# ---- what is measured ----


class Sample:
    """One value to all readers."""

    def __init__(self, took_s: float, times_out: float) -> None:
        self.took_s = took_s
        self.times_out = times_out  # how often each byte left the node of the value, on average


def transfer(origin: NodeProcess, readers: list[NodeProcess], size_bytes: int, made: Any) -> Sample:
    object_id = os.urandom(16).hex()
    before_bytes = _sent(origin)
    sources = {origin.id: (origin.address, made["segment"])}
    began_s = time.monotonic()
    for reader in readers:
        reader.say("want", object_id=object_id, size_bytes=size_bytes, sources=sources)
    told = [reader.hear() for reader in readers]
    took_s = time.monotonic() - began_s if len(readers) > 1 else told[0]["took_s"]
    for reader, one in zip(readers, told, strict=True):
        reader.say("drop", object_id=object_id, segment=one["segment"], size_bytes=size_bytes)
        if reader.hear()["checksum"] != made["checksum"]:
            raise SystemExit("a copy is not what was sent")
    return Sample(took_s, (_sent(origin) - before_bytes) / size_bytes)


def _sent(origin: NodeProcess) -> int:
    origin.say("sent")
    return int(origin.hear()["sent_bytes"])


def raw_socket(size_bytes: int) -> float:
    """Seconds that a plain pair of processes takes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, __file__, "--raw", str(listener.getsockname()[1]), str(size_bytes)]
        with subprocess.Popen(command) as sender:
            listener.settimeout(LIMIT_S)
            with listener.accept()[0] as sock:
                buffer = memoryview(bytearray(BUFFER_BYTES))
                sock.recv_into(buffer, 1)
                left = size_bytes
                began_s = time.monotonic()
                while left:
                    left -= sock.recv_into(buffer, min(left, BUFFER_BYTES))
                took_s = time.monotonic() - began_s
            sender.wait(LIMIT_S)
    return took_s


def _send_raw(port: int, size_bytes: int) -> None:
    buffer = memoryview(bytearray(os.urandom(BUFFER_BYTES)))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(buffer[:1])
        time.sleep(0.05)
        while size_bytes:
            part = buffer[: min(size_bytes, BUFFER_BYTES)]
            sock.sendall(part)
            size_bytes -= len(part)


_RAY = f"""
import json, sys, time
import numpy, ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, object_store_memory={CAPACITY_BYTES}))
cluster.add_node(num_cpus=1, resources=dict(there=1), object_store_memory={CAPACITY_BYTES})
ray.init(address=cluster.address, logging_level="error", log_to_driver=False)

@ray.remote(resources=dict(there=0.5))
def read(refs):
    began = time.monotonic()
    value = ray.get(refs[0])
    return time.monotonic() - began, int(value[-1])

ray.get(read.remote([ray.put(numpy.zeros(1000, numpy.uint8))]))
print("{{}}", flush=True)
for line in sys.stdin:
    ref = ray.put(numpy.full(int(line), 7, numpy.uint8))
    took, last = ray.get(read.remote([ref]))
    assert last == 7
    del ref
    print(json.dumps(dict(took_s=took)), flush=True)
ray.shutdown()
cluster.shutdown()
"""


class Ray:
    """Two nodes of Ray, and a value that is put on one and got by a task on the other."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, "-c", _RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._hear()

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("Ray did not start, or ended")

    def transfer(self, size_bytes: int) -> float:
        assert self.process.stdin is not None
        print(size_bytes, file=self.process.stdin, flush=True)
        took_s: float = self._hear()["took_s"]
        return took_s

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(LIMIT_S)


class Bench:
    """Measures, shows, and remembers which bars were missed."""

    def __init__(self, samples: int, peer: Ray | None) -> None:
        self.samples = samples
        self.peer = peer
        self.missed: list[str] = []

    def one_to_one(self, size_bytes: int) -> None:
        """Each sample is compared with those beside it: a noisy neighbour slows all."""
        took_s: dict[str, list[float]] = {
            "plain socket": [],
            "node to node, fresh pages": [],
            "node to node": [],
            "Ray": [],
        }
        with nodes_of(2) as (origin, reader):
            origin.say("make", size_bytes=size_bytes)
            made = origin.hear()
            for _ in range(self.samples):
                took_s["node to node, fresh pages"].append(transfer(origin, [reader], size_bytes, made).took_s)
                reader.say("trim")
                reader.hear()
            for _ in range(2):
                transfer(origin, [reader], size_bytes, made)  # the pages are warm and mapped after it
            for _ in range(self.samples):
                took_s["plain socket"].append(raw_socket(size_bytes))
                took_s["node to node"].append(transfer(origin, [reader], size_bytes, made).took_s)
                if self.peer is not None:
                    took_s["Ray"].append(self.peer.transfer(size_bytes))
        for name, samples in took_s.items():
            if samples:
                _show(f"{name}, {size_bytes} bytes", size_bytes, samples)
        self._compare(
            took_s["plain socket"], took_s["node to node"], OF_RAW_MIN, f"of the plain socket, {size_bytes} bytes"
        )
        if self.peer is not None:
            self._compare(took_s["Ray"], took_s["node to node"], OF_RAY_MIN, f"times Ray's speed, {size_bytes} bytes")

    def _compare(self, theirs_s: list[float], ours_s: list[float], bar: float, what: str) -> None:
        ratio = statistics.median(theirs / ours for theirs, ours in zip(theirs_s, ours_s, strict=True))
        self._judge(ratio, what, bar, is_met=ratio >= bar)

    def _judge(self, value: float, what: str, bar: float, *, is_met: bool) -> None:
        print(f"{'':44} {value:6.2f} {what} (bar {bar})", flush=True)
        if not is_met:
            self.missed.append(f"{value:.2f} {what}, the bar is {bar}")

    def broadcast(self) -> None:
        with nodes_of(1 + READERS) as (origin, *readers):
            origin.say("make", size_bytes=BROADCAST_BYTES)
            made = origin.hear()
            samples = [transfer(origin, readers, BROADCAST_BYTES, made) for _ in range(self.samples)]
        name = f"one node to {READERS}, {BROADCAST_BYTES} bytes to each"
        _show(name, READERS * BROADCAST_BYTES, [one.took_s for one in samples])
        worst = max(one.times_out for one in samples)
        self._judge(worst, "times each byte left its node, at most", TIMES_OUT_MAX, is_met=worst <= TIMES_OUT_MAX)


def _show(name: str, size_bytes: int, took_s: list[float]) -> None:
    speeds = sorted(size_bytes / GB / one for one in took_s)
    print(f"{name:44} {statistics.median(speeds):6.2f} GB/s  ({speeds[0]:.2f} to {speeds[-1]:.2f})", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="How quickly values get from node to node.")
    parser.add_argument("--ray", metavar="PYTHON", help="an interpreter that has Ray, to be measured beside it")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--node", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--raw", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        Node(options.node).run()
        return 0
    if options.raw:
        _send_raw(*options.raw)
        return 0
    bench = Bench(options.samples, Ray(options.ray) if options.ray else None)
    try:
        for size_bytes in (GB, BROADCAST_BYTES):
            bench.one_to_one(size_bytes)
        bench.broadcast()
    finally:
        if bench.peer is not None:
            bench.peer.end()
    for one in bench.missed:
        print(f"missed: {one}", file=sys.stderr)
    return 1 if bench.missed else 0


if __name__ == "__main__":
    sys.exit(main())
