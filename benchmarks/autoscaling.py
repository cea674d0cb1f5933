"""Measures how long the autoscaler plans, with many nodes that are in use and much that waits.

    python benchmarks/autoscaling.py [--nodes N ...]

What is printed is CPU time of one plan, in this process; nothing else runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from umbel._autoscaling import autoscaler, demand, events, node_types
from umbel._model.resources import ResourceSet

NODES = (100, 2_000)
TYPES = tuple(
    node_types.NodeType(
        f"t{size}", ResourceSet.from_floats({"CPU": 4 * size, "GPU": 1 if size % 3 == 0 else 0}), max_workers=4_000
    )
    for size in range(1, 7)
)  # fmt: skip


def cpus(count: float) -> ResourceSet:
    return ResourceSet.from_floats({"CPU": count})


def demands() -> Iterator[tuple[str, events.DemandChanged]]:
    yield "1,000,000 tasks of one shape", events.DemandChanged((demand.Shape(cpus(1), 1_000_000),), (), 0.0)
    shapes = tuple(demand.Shape(cpus(1 + number / 100), 100) for number in range(200))
    yield "20,000 tasks of 200 shapes", events.DemandChanged(shapes, (), 0.0)
    for strategy in ("PACK", "STRICT_SPREAD", "STRICT_PACK"):
        groups = tuple(demand.Group(f"g{number}", (cpus(1 + number % 7),) * 4, strategy) for number in range(1_000))
        yield f"1,000 groups of 4 bundles, {strategy}", events.DemandChanged((), groups, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, help="of the cluster; default 100, then 2,000")
    for count in parser.parse_args().nodes:
        for what, waiting in demands():
            machine = autoscaler.Autoscaler(node_types.Settings(TYPES, 20_000, upscaling_speed=10.0))
            for number in range(count):
                made = TYPES[number % len(TYPES)]
                machine.apply(events.NodeSeen(f"n{number}", made.name, made.resources, cpus(0.5), {}, None, 0.0))
            machine.apply(waiting)
            began_s = time.process_time()
            plan = machine.explain(0.0)
            passed_s = time.process_time() - began_s
            launched = sum(one.node_count for one in plan.launches)
            print(f"{count:5} nodes, {what:40} {passed_s:6.2f} s, {launched} launched, {len(plan.unmet)} kinds unmet")


if __name__ == "__main__":
    main()
