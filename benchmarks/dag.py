"""Calls a second of a compiled graph: a chain of three actors, on any module with this API.

    python benchmarks/dag.py umbel
    python benchmarks/dag.py umbel --compare /path/to/an/environment/with/ray/bin/python

With --compare, both run in turn, each round in processes of its own, and the last column is how many times as many calls
ours makes. What is printed is the median of the rounds, and their range.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

ACTORS = 3
IN_FLIGHT = 10  # executions that may overlap: both modules' default limit
LARGE_BYTES = 900_000  # fits into what both set aside for a value or a channel by default
WARM_UP = 200  # calls
TOO_LONG_S = 300.0  # for one round of one module


def build(module: str) -> tuple[Any, Any]:
    """(module, compiled graph)."""
    rt = importlib.import_module(module)
    dag = importlib.import_module(f"{module}.dag")
    rt.init(num_cpus=ACTORS, log_to_driver=False)

    class Worker:
        def step(self, value: Any) -> Any:
            return value

    workers = [rt.remote(num_cpus=0)(Worker).remote() for _ in range(ACTORS)]
    with dag.InputNode() as given:
        node = given
        for worker in workers:
            node = worker.step.bind(node)
    return rt, node.experimental_compile()


def one_at_a_time(rt: Any, graph: Any, value: Any) -> Callable[[], int]:
    def run() -> int:
        rt.get(graph.execute(value))
        return 1

    return run


def overlapping(rt: Any, graph: Any, value: Any) -> Callable[[], int]:
    waiting: deque[Any] = deque()

    def run() -> int:
        for _ in range(100):
            if len(waiting) == IN_FLIGHT:
                rt.get(waiting.popleft())
            waiting.append(graph.execute(value))
        while waiting:
            rt.get(waiting.popleft())
        return 100

    return run


def measure(module: str, seconds: float) -> dict[str, float]:
    """Calls a second, by row."""
    rt, graph = build(module)
    rows = {
        "a number, one at a time": one_at_a_time(rt, graph, 1),
        f"a number, {IN_FLIGHT} in flight": overlapping(rt, graph, 1),
        "900 kB of bytes, one at a time": one_at_a_time(rt, graph, bytes(LARGE_BYTES)),
    }
    rates = {}
    for name, run in rows.items():
        count = 0
        while count < WARM_UP:
            count += run()
        count, began_s = 0, time.perf_counter()
        while (lasted_s := time.perf_counter() - began_s) < seconds:
            count += run()
        rates[name] = count / lasted_s
    graph.teardown()
    rt.shutdown()
    return rates


def measured_apart(python: str, module: str, seconds: float) -> dict[str, float]:
    command = [python, __file__, module, "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TOO_LONG_S)
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rates


def table(columns: dict[str, list[dict[str, float]]]) -> str:
    lines = []
    for row in next(iter(columns.values()))[0]:
        samples = {module: [rates[row] for rates in rounds] for module, rounds in columns.items()}
        medians = {module: statistics.median(found) for module, found in samples.items()}
        told = [
            f"{module} {medians[module]:,.0f} ({min(found):,.0f} to {max(found):,.0f})"
            for module, found in samples.items()
        ]
        ours, *others = medians.values()
        lines.append(f"{row}: {', '.join(told)} a second{''.join(f', {ours / other:.1f} times' for other in others)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="?", default="umbel")
    parser.add_argument("--compare", metavar="PYTHON", help="an interpreter that has Ray")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="measure here, once, and print the rates as JSON")
    options = parser.parse_args()
    if options.json:
        print(json.dumps(measure(options.module, options.seconds)))
        return
    sides = {options.module: sys.executable, **({"ray": options.compare} if options.compare else {})}
    columns: dict[str, list[dict[str, float]]] = {module: [] for module in sides}
    for _ in range(options.rounds):
        for module, python in sides.items():
            columns[module].append(measured_apart(python, module, options.seconds))
    print(table(columns))


if __name__ == "__main__":
    main()
