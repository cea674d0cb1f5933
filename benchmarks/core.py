"""Measures tasks, actors and objects on any module with this API.

    python benchmarks/core.py umbel
    python benchmarks/core.py ray --rows tasks_sync,actor_sync --json out.json
    python benchmarks/core.py multiprocessing        # only the rows that a process pool can do

Needs numpy beside the module. Every row is warmed up, sampled several times and bounded in time; what is printed is the
median and the range of the samples. Exit status 1 when a row failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

from benchmarks import fresh, measure, pools, rows, runtimes
from benchmarks.bars import POOL_ROWS, ROW_BY_KEY, ROWS, Row


class RowTookTooLong(Exception):
    """A row passed `Effort.limit_s`."""


class Bench:
    """Runs rows on one module and keeps what came out, failures included."""

    def __init__(self, module: str, effort: measure.Effort) -> None:
        self.module = module
        self.effort = effort
        self.results: dict[str, dict[str, object]] = {}

    def run(self, wanted: Sequence[Row]) -> None:
        if self.module in pools.POOLS:
            with pools.POOLS[self.module]() as workloads:
                for row in wanted:
                    self._measure(row, workloads[row.key])
            return
        keys = {row.key for row in wanted}
        if "start" in keys:
            with self._recording(ROW_BY_KEY["start"]):
                self._record(ROW_BY_KEY["start"], fresh.start(self.module, self.effort))
        for nodes in (1, 2):
            self._run_inside([row for row in wanted if row.key in rows.BUILDERS and row.nodes == nodes], nodes)
        if keys & {"idle_memory", "idle_cpu"}:
            with self._recording(ROW_BY_KEY["idle_memory"]):
                memory, cpu = fresh.idle(self.module, self.effort)
                self._record(ROW_BY_KEY["idle_memory"], memory)
                self._record(ROW_BY_KEY["idle_cpu"], cpu)

    def _run_inside(self, wanted: Sequence[Row], nodes: int) -> None:
        """The rows that share one runtime; after a failure the next row gets a new one."""
        if not wanted:
            return
        runtime = runtimes.Runtime(self.module, nodes)
        try:
            for row in wanted:
                with self._recording(row):
                    runtime.start()
                    self._measure(row, rows.BUILDERS[row.key](runtime.module))
                if "error" in self.results[row.key]:
                    runtime.end()
        finally:
            runtime.end()

    def _measure(self, row: Row, workload: measure.Workload) -> None:
        try:
            self._record(row, measure.rate(workload, self.effort))
        finally:
            workload.close()

    def _record(self, row: Row, measured: measure.Measurement) -> None:
        record = measured.as_json()
        self.results[row.key] = {"unit": row.unit, **record}
        low, high = min(measured.samples), max(measured.samples)
        beside = f"   {record['of_memcpy']:.2f} of memcpy" if "of_memcpy" in record else ""
        count = len(measured.samples)
        figures = f"{significant(measured.median):>9} {row.unit:<12} {significant(low)}..{significant(high)} in {count}"
        print(f"{row.title:<46} {figures}{beside}", flush=True)

    @contextlib.contextmanager
    def _recording(self, row: Row) -> Iterator[None]:
        """A failure of the row becomes its result, so that the others still run."""
        try:
            with _limit(self.effort.limit_s):
                yield
        except Exception as error:
            self.results[row.key] = {"unit": row.unit, "error": f"{type(error).__name__}: {error}".strip()}
            print(f"{row.title:<46}    failed: {type(error).__name__}", flush=True)
            traceback.print_exc()


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raises in the main thread when the block takes longer, so that a hang becomes a failed row."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise RowTookTooLong(f"no result within {seconds:g} s; run the row alone with --rows")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 1000:
        return f"{round(value, 2 - len(str(int(value))) + 1):,.0f}"
    return f"{value:.3g}"


def version_of(module: str) -> str:
    if module in pools.POOLS:
        return platform.python_version()  # part of the standard library
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # found on the path alone


def choose(names: str | None, module: str) -> list[Row]:
    available = [row for row in ROWS if module not in pools.POOLS or row.key in POOL_ROWS]
    if not names:
        return available
    keys = [name.strip() for name in names.split(",") if name.strip()]
    known = [row.key for row in available]
    if unknown := [key for key in keys if key not in known]:
        raise SystemExit(f"--rows: {', '.join(unknown)} unknown for {module}; allowed: {', '.join(known)}")
    return [ROW_BY_KEY[key] for key in keys]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module", help="umbel, ray, or a pool to compare with: concurrent.futures, multiprocessing")
    parser.add_argument("--rows", help="comma-separated keys; all by default")
    parser.add_argument("--json", type=Path, help="write the results to this file as well")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")
    arguments = parser.parse_args()

    bench = Bench(arguments.module, measure.QUICK if arguments.quick else measure.FULL)
    wanted = choose(arguments.rows, arguments.module)
    version, python, cores = version_of(arguments.module), platform.python_version(), os.cpu_count()
    print(f"{arguments.module} {version}, Python {python}, {cores} cores", flush=True)
    bench.run(wanted)
    if arguments.json:
        document = {
            "module": arguments.module,
            "version": version,
            "python": python,
            "cores": cores,
            "rows": bench.results,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any("error" in result for result in bench.results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
