"""A scheduling policy: the largest demand first, on the fullest node that can hold it (best fit decreasing)."""

from __future__ import annotations

from collections.abc import Sequence

from umbel import spi
from umbel.hookspecs import hookimpl


class LargestFirst:
    """Large demands are hard to fit in later; small ones find a gap at any time."""

    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        return sorted(range(len(waiting)), key=lambda index: rank(waiting[index]))

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        eligible = spi.eligible_nodes(demand, view)
        if not eligible.ready:
            return eligible.refusal
        node = min(eligible.ready, key=lambda one: (one.available.get("CPU", 0), one.node_id))
        return spi.Placement(node.node_id, "the fullest of the nodes that can hold it")


def rank(one: spi.WaitingDemand) -> tuple[int, int, int]:
    """GPUs count more than any number of CPUs: they are what there is least of."""
    needs = one.demand.resources
    return -needs.get("GPU", 0), -needs.get("CPU", 0), one.turn


@hookimpl
def umbel_schedulers() -> list[spi.SchedulerDescriptor]:
    return [
        spi.SchedulerDescriptor(
            "largest-first", "umbel_largest_first:LargestFirst", summary="the largest demand first, on the fullest node"
        )
    ]
