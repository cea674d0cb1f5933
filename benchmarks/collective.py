"""allreduce and broadcast among actors: Umbel's backends beside plain PyTorch with Gloo, in one run.

    python benchmarks/collective.py [--ranks 2] [--quick] [--address ADDRESS]

All three run in the same actors, by turns, so that a noisy machine is as noisy for each. "plain" is torch.distributed with
its own default group, as a program without Umbel would use it; it is left out when PyTorch is not installed, and on a running
cluster (`--address`), over whose nodes the ranks are spread.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import umbel
from umbel.util import collective
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SIZES = {"1 KiB": 1 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20}
ROUNDS = 5
SAMPLE_BYTES = 256 << 20  # moved in one sample, or REPEATS_MAX calls
REPEATS_MAX = 300


@umbel.remote(num_cpus=0)
class Rank:
    """One rank of all groups. Times are seconds for one call."""

    def __init__(self, rank: int, ranks: int, store: str, backends: list[str]) -> None:
        self.groups: dict[str, dict[str, Callable[[Any], object]]] = {}
        for name in backends:
            if name == "plain":
                self.groups[name] = self._plain(rank, ranks, store)
                continue
            collective.init_collective_group(ranks, rank, name, name, 120_000)
            self.groups[name] = {
                "allreduce": lambda tensor, name=name: collective.allreduce(tensor, name),
                "broadcast": lambda tensor, name=name: collective.broadcast(tensor, 0, name),
            }
        self.barrier: Callable[[], None] = lambda: collective.barrier("shm")

    def _plain(self, rank: int, ranks: int, store: str) -> dict[str, Callable[[Any], object]]:
        import torch
        from torch import distributed

        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
        return {
            "allreduce": lambda tensor: distributed.all_reduce(torch.from_numpy(tensor)),
            "broadcast": lambda tensor: distributed.broadcast(torch.from_numpy(tensor), 0),
        }

    def measure(self, backend: str, operation: str, size_bytes: int, repeats: int) -> float:
        call = self.groups[backend][operation]
        tensor = np.zeros(size_bytes // 4, "f4")
        call(tensor)
        self.barrier()
        began_s = time.perf_counter()
        for _ in range(repeats):
            call(tensor)
        self.barrier()
        return (time.perf_counter() - began_s) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--address", help="of a running cluster")
    options = parser.parse_args()
    backends = ["shm", "gloo", "plain"] if importlib.util.find_spec("torch") else ["shm"]
    if options.address:
        backends = backends[:2]
        umbel.init(options.address, log_to_driver=False)
    else:
        umbel.init(num_cpus=options.ranks, log_to_driver=False)
    nodes = [one["NodeID"] for one in umbel.nodes() if one["Alive"]]
    places = [NodeAffinitySchedulingStrategy(nodes[rank % len(nodes)], soft=False) for rank in range(options.ranks)]
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        actors = [
            Rank.options(scheduling_strategy=place).remote(rank, options.ranks, store, backends)
            for rank, place in enumerate(places)
        ]
        print(f"{options.ranks} ranks, {os.cpu_count()} cores; medians of {ROUNDS}, in microseconds")
        print(f"{'':22}" + "".join(f"{name:>12}" for name in backends) + f"{f'{backends[-1]} : shm':>14}")
        for operation in ("allreduce", "broadcast"):
            for title, size_bytes in SIZES.items():
                repeats = max(1, min(REPEATS_MAX, SAMPLE_BYTES // size_bytes) // (10 if options.quick else 1))
                samples: dict[str, list[float]] = {name: [] for name in backends}
                for _ in range(ROUNDS):
                    for name in backends:
                        took = [one.measure.remote(name, operation, size_bytes, repeats) for one in actors]
                        samples[name].append(max(umbel.get(took)))
                medians = [statistics.median(samples[name]) for name in backends]
                row = "".join(f"{median * 1e6:>12,.0f}" for median in medians)
                print(f"{operation + ' ' + title:22}{row}{medians[-1] / medians[0]:>14.1f}", flush=True)
    umbel.shutdown()


if __name__ == "__main__":
    main()
