"""What is measured, and what Umbel has to reach: the one table that every program here reads.

A row is a number with a unit; `bar` and `goal` say how many times better than the peer Umbel must be and wants to be.
Better is more for a rate and less for a time, for memory and for CPU. Rows with `of_memcpy` compare with a plain copy
of the same bytes in the same process instead: no factor over a peer says whether memory's own speed is reached.
Rows without a bar are only shown beside the peer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    key: str
    title: str
    unit: str
    group: str  # rows of one group run in one process, so that a comparison can alternate between modules
    bar: float | None = None
    goal: float | None = None
    is_less_better: bool = False
    of_memcpy: bool = False
    nodes: int = 1  # of the cluster that it runs on
    resolution: float = 1e-9  # a smaller value counts as this one in a ratio

    def times_better(self, ours: float, peers: float) -> float:
        """How many times better `ours` is; below 1 it is worse."""
        if self.is_less_better:
            return max(peers, self.resolution) / max(ours, self.resolution)
        return ours / max(peers, self.resolution)


ROWS: tuple[Row, ...] = (
    Row("start", "import + init + first task", "s", "start", 20, 40, is_less_better=True),
    Row("tasks_sync", "tasks, one at a time", "tasks/s", "tasks", 10, 25),
    Row("tasks_pipelined", "tasks, 1,000 pipelined", "tasks/s", "tasks", 20, 50),
    Row("tasks_pipelined_10kb", "tasks, 1,000 pipelined, 10 kB arguments", "tasks/s", "tasks", 15, 40),
    Row("nested", "nested tasks, 2 parents x 500 children", "tasks/s", "graphs", 20, 50),  # see docs/design/0007
    Row("chain", "chain of 200 tasks by reference", "tasks/s", "graphs", 20, 60),
    Row("tree_reduce", "tree reduce of 512", "tasks/s", "graphs", 20, 60),
    Row("task_1mib", "task with a 1 MiB array in and out", "tasks/s", "graphs", 8, 20),
    Row("actor_sync", "actor calls, one at a time", "calls/s", "actors", 6, 12),
    Row("actor_pipelined", "actor calls, 1,000 pipelined", "calls/s", "actors", 10, 25),
    Row("actor_many_to_many", "actor calls, n:n 2x2", "calls/s", "actors", 10, 25),
    Row("async_actor_sync", "async actor calls, one at a time", "calls/s", "actors", 6, 15),
    Row("async_actor_pipelined", "async actor calls, 1,000 pipelined", "calls/s", "actors", 8, 25),
    Row("put_small", "put small", "puts/s", "objects", 20, 60),
    Row("get_small", "get small", "gets/s", "objects", 5, 20),
    Row("put_1mib", "put 1 MiB array", "puts/s", "objects", 3, 6),
    Row("put_256mib", "put 256 MiB array", "GB/s", "objects", 0.6, 0.9, of_memcpy=True),
    Row("get_1mib", "get 1 MiB array", "gets/s", "objects", 3, 10),
    Row("wait_1k", "wait for 1,000 refs one by one", "rounds/s", "refs", 10, 30),
    Row("get_10k_refs", "get of an object holding 10,000 refs", "gets/s", "refs", 3, 8),
    Row("actor_churn", "actor create + call + kill, ten at once", "actors/s", "churn", 50, 200),
    Row("group_churn", "placement group create + remove", "groups/s", "churn", 5, 20),
    Row("generator", "streaming generator", "items/s", "churn", 5, 15),
    Row("remote_tasks_sync", "tasks on another node, one at a time", "tasks/s", "nodes", nodes=2),
    Row("remote_tasks_pipelined", "tasks on another node, 1,000 pipelined", "tasks/s", "nodes", nodes=2),
    Row("remote_actor_sync", "actor calls on another node, one at a time", "calls/s", "nodes", nodes=2),
    Row("remote_actor_pipelined", "actor calls on another node, 1,000 pipelined", "calls/s", "nodes", nodes=2),
    Row("transfer_256mib", "read a 256 MiB array of another node", "GB/s", "nodes", nodes=2),
    Row("idle_memory", "idle memory of a 2-CPU runtime, sum of PSS", "MiB", "idle", 5, 10, is_less_better=True),
    Row("idle_cpu", "idle CPU of a 2-CPU runtime", "% of a core", "idle", 10, 20, is_less_better=True, resolution=0.01),
)

ROW_BY_KEY = {row.key: row for row in ROWS}
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(row.group for row in ROWS))

POOL_ROWS: tuple[str, ...] = ("tasks_sync", "tasks_pipelined", "tasks_pipelined_10kb")  # what a process pool can do too


def keys_in(group: str) -> tuple[str, ...]:
    return tuple(row.key for row in ROWS if row.group == group)
