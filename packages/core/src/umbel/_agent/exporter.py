"""The process that serves a node's metrics to Prometheus, and what turns an agent's answer into metrics.

It asks the agent once for each scrape, and measures processes and the machine itself.
"""

from __future__ import annotations

import http.server
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, MetricsHandler, generate_latest
from prometheus_client.metrics_core import Metric

from umbel._agent import http_guard
from umbel._base import token_files, tokens
from umbel._client import tool
from umbel._model import metric_catalog as catalog

ANSWER_KEPT_S = 1.0  # scrapes that come thicker get the same answer, so that they cannot keep the agent busy
REQUEST_S = 30.0  # for one scraper to send its request and take the answer
Sample = tuple[str, dict[str, str], float]  # name, labels, value
Owner = tuple[str, str]  # component and name


def main(given: dict[str, Any]) -> None:
    """given: session_dir, and the numbers of the listening socket and of the pipe whose end is the daemon's."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(given["session_dir"]))
    listening = socket.socket(fileno=given["socket"])
    server = _Server(listening, registry, http_guard.Guard(listening.getsockname()[0], _token(given)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.read(given["lifeline"], 1)
    os._exit(0)


def _token(given: dict[str, Any]) -> tokens.Token | None:
    if not given["has_token"]:
        return None
    return token_files.read(given["token_file"]) if given["token_file"] else token_files.find(os.environ)


class _Server(http.server.ThreadingHTTPServer):
    """On a socket that listens already. A thread for each request."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, registry: CollectorRegistry, guard: http_guard.Guard) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry, "timeout": REQUEST_S, "guard": guard})
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper has gone away, or the agent does not answer: the scrape fails, the next one may not."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            sys.stderr.write(f"umbel: a scrape of the metrics failed: {type(error).__name__}: {error}\n")


class _Handler(MetricsHandler):  # type: ignore[misc]  # its types are not looked at
    guard: http_guard.Guard

    def do_GET(self) -> None:
        refusal = self.guard.refusal(self.headers)
        if refusal is None:
            super().do_GET()
        else:
            self.send_error(refusal[0], explain=refusal[1])


class NodeCollector:
    """The metrics of one node, asked for anew when they are collected."""

    def __init__(self, session_dir: str) -> None:
        self._session_dir = session_dir
        self._lock = threading.Lock()
        self._cpu = CpuBook()
        self._kept: list[Metric] = []
        self._kept_s = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Raises UmbelSystemError when the node does not answer."""
        with self._lock:
            if time.monotonic() - self._kept_s > ANSWER_KEPT_S:
                with tool.Tool(self._session_dir) as asker:
                    snapshot = asker.query("metrics")
                self._kept = list(metrics_of(snapshot, [*processes(snapshot, self._cpu), *machine(snapshot)]))
                self._kept_s = time.monotonic()
            kept = self._kept
        yield from kept


def metrics_of(snapshot: dict[str, Any], measured: Iterable[Sample]) -> Iterator[Metric]:
    """The agent's answer and what was measured beside it, as metrics."""
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {name: {} for name in catalog.BY_NAME}
    own = [family for family in snapshot["families"] if family["is_own"]]
    reported = [(family["name"], labels, value) for family in own for _, labels, value in family["series"]]
    for name, labels, value in [*of_agent(snapshot), *reported, *measured]:
        key = tuple(sorted(labels.items()))
        samples[name][key] = samples[name].get(key, 0.0) + value  # over all processes
    node = {catalog.NODE_LABEL: snapshot["node_id"]}
    for metric in catalog.BY_NAME.values():
        made = Metric(_base(metric.name, metric.kind), metric.help, metric.kind)
        for key, value in samples[metric.name].items():
            made.add_sample(metric.name, {**dict(key), **node}, value)
        if made.samples:
            yield made
    for family in snapshot["families"]:
        if not family["is_own"]:
            yield of_program(family, node)


def of_program(family: dict[str, Any], node: dict[str, str]) -> Metric:
    """A metric that the program has made."""
    kind = family["kind"]
    full = catalog.exported_name(family["name"], kind)
    base = _base(full, kind)
    made = Metric(base, family["help"] or full, kind)
    for holder, tags, value in family["series"]:
        labels = {catalog.label(key): text for key, text in tags.items()} | node
        if holder:
            labels[catalog.WORKER_LABEL] = holder
        if kind != catalog.HISTOGRAM:
            made.add_sample(full, labels, value)
            continue
        counts, total = value
        below = 0
        for bound, count in zip([*map(str, family["bounds"]), "+Inf"], counts, strict=True):
            below += count
            made.add_sample(f"{base}_bucket", {**labels, "le": bound}, below)
        made.add_sample(f"{base}_count", labels, below)
        made.add_sample(f"{base}_sum", labels, total)
    return made


def _base(full: str, kind: str) -> str:
    """The family's name, to which the library adds the ending of counters itself."""
    return full.removesuffix("_total") if kind == catalog.COUNTER else full


def of_agent(snapshot: dict[str, Any]) -> Iterator[Sample]:
    for state, count in snapshot["actors"].items():
        yield "umbel_actors", {"state": state}, count
    for state, count in snapshot["workers"].items():
        yield "umbel_workers", {"state": state}, count
    yield "umbel_leases_pending", {}, snapshot["leases_pending"]
    yield "umbel_object_store_capacity_bytes", {}, snapshot["store_capacity_bytes"]
    yield "umbel_object_store_reserved_bytes", {}, snapshot["store_reserved_bytes"]
    yield "umbel_object_store_spilled_bytes", {}, snapshot["spilled_bytes"]
    yield "umbel_object_store_spill_written_bytes_total", {}, snapshot["spill_written_bytes"]
    yield "umbel_object_store_spill_read_bytes_total", {}, snapshot["spill_read_bytes"]
    yield "umbel_memory_kills_total", {}, snapshot["memory_kills"]
    yield "umbel_metric_series_dropped_total", {}, snapshot["dropped"]


class CpuBook:
    """Processor time by owner, that of processes which have ended included: up to when they were seen last."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, float], float] = {}  # by pid and start
        self._totals: dict[Owner, float] = {}

    def seen(self, found: Iterable[tuple[Owner, tuple[int, float], float]]) -> dict[Owner, float]:
        """found: (owner, process, its seconds so far) of all that live. Returns the totals, which never go down."""
        last, self._last = self._last, {}
        for owner, process, seconds in found:
            self._totals[owner] = self._totals.get(owner, 0.0) + max(0.0, seconds - last.get(process, 0.0))
            self._last[process] = seconds
        return dict(self._totals)


def processes(snapshot: dict[str, Any], book: CpuBook) -> Iterator[Sample]:
    """What the session's processes use."""
    cpu = []
    for component, name, pid in snapshot["processes"]:
        owner = {"component": component, "name": name}
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu.append(((component, name), (pid, process.create_time()), times.user + times.system))
            memory_bytes = _memory_bytes(process)
        except psutil.Error:
            continue  # it has ended meanwhile
        yield "umbel_processes", owner, 1
        yield "umbel_process_memory_bytes", owner, memory_bytes
    for (component, name), seconds in book.seen(cpu).items():
        yield "umbel_process_cpu_seconds_total", {"component": component, "name": name}, seconds


def _memory_bytes(process: psutil.Process) -> int:
    """Its proportional set size: forked workers share most of their pages. Where it is not told, the resident one."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.AccessDenied, AttributeError):
        return int(process.memory_info().rss)


def machine(snapshot: dict[str, Any]) -> Iterator[Sample]:
    """What the machine uses and has; within a container, still the machine."""
    count = used_bytes = 0
    try:
        with os.scandir(snapshot["store_dir"]) as entries:
            for entry in entries:
                if entry.name.count(".") == 2:
                    count += 1
                    used_bytes += entry.stat().st_blocks * 512
    except OSError:
        pass  # removed while we look
    yield "umbel_object_store_segments", {}, count
    yield "umbel_object_store_used_bytes", {}, used_bytes
    for mode, seconds in psutil.cpu_times()._asdict().items():
        if not mode.startswith("guest"):  # which is in "user" as well
            yield "umbel_node_cpu_seconds_total", {"mode": mode}, seconds
    memory = psutil.virtual_memory()
    yield "umbel_node_memory_capacity_bytes", {}, memory.total
    yield "umbel_node_memory_available_bytes", {}, memory.available
    try:
        disk = psutil.disk_usage(snapshot["session_dir"])
        yield "umbel_node_disk_capacity_bytes", {}, disk.total
        yield "umbel_node_disk_free_bytes", {}, disk.free
        traffic = psutil.disk_io_counters()
    except (OSError, RuntimeError):
        return  # the session ends, or this system does not count
    if traffic is not None:
        yield "umbel_node_disk_read_bytes_total", {}, traffic.read_bytes
        yield "umbel_node_disk_written_bytes_total", {}, traffic.write_bytes


def text(session_dir: str) -> str:
    """The metrics of a running session, as Prometheus reads them. Raises UmbelSystemError when it does not answer."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(session_dir))
    shown: str = generate_latest(registry).decode()
    return shown
