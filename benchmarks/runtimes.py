"""What the rows run on: a runtime of one node, or a cluster of two nodes on this machine.

The cluster has the same shape for every module: a head with the driver, and one node more that alone has the resource
`THERE`, so that what asks for it runs on the other node. `cluster_utils.Cluster` starts both.
"""

from __future__ import annotations

import importlib
from typing import Any

CPUS = 2  # of each node
THERE = "there"
THERE_COUNT = 100  # more than the rows ask for: CPUs are what limits how many tasks run there
STORE_BYTES = 2 << 30  # of each node: some values of 256 MiB, the last of which may not have been freed yet


class Runtime:
    """A module's runtime on one node or two, started when it is wanted."""

    def __init__(self, module: str, nodes: int) -> None:
        self.name = module
        self.module = importlib.import_module(module)
        self.nodes = nodes
        self.cluster: Any = None

    def start(self) -> None:
        """Does nothing while it runs."""
        if self.module.is_initialized():
            return
        self.end()  # nodes whose driver has gone
        if self.nodes == 1:
            self.module.init(num_cpus=CPUS)
            return
        shape = {"num_cpus": CPUS, "object_store_memory": STORE_BYTES}
        cluster_utils = importlib.import_module(f"{self.name}.cluster_utils")
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=shape)
        self.cluster.add_node(resources={THERE: THERE_COUNT}, **shape)
        self.module.init(address=self.cluster.address)

    def end(self) -> None:
        self.module.shutdown()
        if self.cluster is not None:
            self.cluster.shutdown()
            self.cluster = None
