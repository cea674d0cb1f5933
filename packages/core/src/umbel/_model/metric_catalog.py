"""Umbel's own metrics: what each is called, counts and is told apart by.

Every exported name begins with `umbel_`, the program's own as well. Names follow Prometheus: the unit last, `_total` for
what only grows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PREFIX = "umbel_"
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
NODE_LABEL = "node_id"  # of every metric: it also tells one session from the next
WORKER_LABEL = "worker_id"  # of the program's gauges, which several processes may set
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")


class Metric(NamedTuple):
    """One of Umbel's own. labels: beside the node's."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


_ALL = (
    Metric("umbel_tasks", GAUGE, "Tasks and actor calls that have not ended; what runs, as sent.", ("state",)),
    Metric("umbel_tasks_running", GAUGE, "Tasks and actor calls that run."),
    Metric("umbel_tasks_ended_total", COUNTER, "Runs of tasks and actor calls that ended.", ("name", "outcome")),
    Metric("umbel_task_run_seconds_total", COUNTER, "Time for which tasks and actor calls have run.", ("name",)),
    Metric("umbel_tasks_recomputed_total", COUNTER, "Tasks run again since their results were lost."),
    Metric("umbel_actors", GAUGE, "Actors, by state; of the dead only those that are remembered.", ("state",)),
    Metric("umbel_workers", GAUGE, "Worker processes, by state.", ("state",)),
    Metric("umbel_leases_pending", GAUGE, "Workers that owners and actors wait for."),
    Metric("umbel_objects", GAUGE, "Objects that processes refer to, their own and borrowed ones."),
    Metric("umbel_object_store_capacity_bytes", GAUGE, "Size of the object store."),
    Metric("umbel_object_store_reserved_bytes", GAUGE, "What processes have reserved of the object store."),
    Metric("umbel_object_store_used_bytes", GAUGE, "Memory of the object store's segments, warm ones included."),
    Metric("umbel_object_store_segments", GAUGE, "Segments in the object store, those kept for reuse included."),
    Metric("umbel_object_store_spilled_bytes", GAUGE, "Values that lie on disk since the object store was full."),
    Metric("umbel_object_store_spill_written_bytes_total", COUNTER, "Written to disk since the object store was full."),
    Metric("umbel_object_store_spill_read_bytes_total", COUNTER, "Values that processes went to read back from disk."),
    Metric("umbel_memory_kills_total", COUNTER, "Workers killed for memory, by whomever."),
    Metric("umbel_processes", GAUGE, "Processes of the session.", ("component", "name")),
    Metric("umbel_process_cpu_seconds_total", COUNTER, "Processor time of processes.", ("component", "name")),
    Metric("umbel_process_memory_bytes", GAUGE, "Memory of processes, shared pages divided.", ("component", "name")),
    Metric("umbel_node_cpu_seconds_total", COUNTER, "Processor time of the machine, of all cores.", ("mode",)),
    Metric("umbel_node_memory_capacity_bytes", GAUGE, "Memory of the machine."),
    Metric("umbel_node_memory_available_bytes", GAUGE, "Memory of the machine that is free or can be freed."),
    Metric("umbel_node_disk_capacity_bytes", GAUGE, "Size of the disk that holds the session directory."),
    Metric("umbel_node_disk_free_bytes", GAUGE, "What is free on the disk that holds the session directory."),
    Metric("umbel_node_disk_read_bytes_total", COUNTER, "Read from the machine's disks."),
    Metric("umbel_node_disk_written_bytes_total", COUNTER, "Written to the machine's disks."),
    Metric("umbel_metric_series_dropped_total", COUNTER, "Values of the program's metrics that found no room."),
)
BY_NAME = {metric.name: metric for metric in _ALL}


def exported_name(name: str, kind: str) -> str:
    """What a metric of the program is called outside."""
    full = PREFIX + name
    return full if kind != COUNTER or full.endswith("_total") else f"{full}_total"


def label(key: str) -> str:
    """A tag's key as Prometheus takes it."""
    clean = _NOT_IN_LABELS.sub("_", key) or "_"
    return f"_{clean}" if clean[0].isdigit() else clean
