"""Calls a second of a compiled graph: a chain of three actors, on any module with this API.

    python benchmarks/dag.py umbel
    python benchmarks/dag.py umbel --compare /path/to/an/environment/with/ray/bin/python

With --compare, both run in turn, each round in processes of its own, and the last column is how many times as many calls
ours makes. What is printed is the median of the rounds, and their range. Exit status 1 when it makes less than five times as
many of a number, whose calls are what the graph costs; those of 900 kB, most of which is copied bytes, have no bar.
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
BAR = 5.0  # times as many calls as Ray
LARGE_BYTES = 900_000  # fits into what both set aside for a value or a channel by default
WARM_UP = 200  # calls
TOO_LONG_S = 300.0  # for one round of one module

ONE, SEVERAL = "a number, one at a time", f"a number, {IN_FLIGHT} in flight"
LARGE = "900 kB of bytes, one at a time"
WITH_BAR = (ONE, SEVERAL)

Columns = dict[str, list[dict[str, float]]]  # by module, for each round, calls a second by row


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
        ONE: one_at_a_time(rt, graph, 1),
        SEVERAL: overlapping(rt, graph, 1),
        LARGE: one_at_a_time(rt, graph, bytes(LARGE_BYTES)),
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


def times_as_many(columns: Columns, row: str) -> float | None:
    """None where there is nothing to compare with."""
    ours, *others = (statistics.median(rates[row] for rates in rounds) for rounds in columns.values())
    return ours / others[0] if others else None


def is_below_bar(columns: Columns, row: str) -> bool:
    times = times_as_many(columns, row)
    return row in WITH_BAR and times is not None and times < BAR


def table(columns: Columns) -> str:
    lines = []
    for row in (ONE, SEVERAL, LARGE):
        samples = {module: [rates[row] for rates in rounds] for module, rounds in columns.items()}
        told = [
            f"{module} {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})"
            for module, found in samples.items()
        ]
        times = times_as_many(columns, row)
        ratio = "" if times is None else f", {times:.1f} times"
        mark = "  below the bar" if is_below_bar(columns, row) else ""
        lines.append(f"{row}: {', '.join(told)} a second{ratio}{mark}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="?", default="umbel")
    parser.add_argument("--compare", metavar="PYTHON", help="an interpreter that has Ray")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="measure here, once, and print the rates as JSON")
    options = parser.parse_args()
    if options.json:
        print(json.dumps(measure(options.module, options.seconds)))
        return 0
    sides = {options.module: sys.executable, **({"ray": options.compare} if options.compare else {})}
    columns: Columns = {module: [] for module in sides}
    for _ in range(options.rounds):
        for module, python in sides.items():
            columns[module].append(measured_apart(python, module, options.seconds))
    print(table(columns))
    return 1 if any(is_below_bar(columns, row) for row in WITH_BAR) else 0


if __name__ == "__main__":
    sys.exit(main())
