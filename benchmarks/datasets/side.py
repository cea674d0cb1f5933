"""Runs rows on one library in this process, and writes what came out after each of them.

    python benchmarks/datasets/side.py umbel --rows groupby,join --folder DIR --sizes JSON --json out.json

`inputs` in the place of a library makes the files that the rows read. `benchmarks/data.py` starts these.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # see benchmarks/__init__.py

from benchmarks import fresh
from benchmarks.datasets import bars, inputs, job

RUNTIMES = ("umbel", "ray")
START_SAMPLES = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("library", help="umbel, ray, pandas, polars, duckdb, torch; or inputs")
    parser.add_argument("--rows", required=True, help="comma-separated keys, all of one group")
    parser.add_argument("--folder", type=Path, required=True, help="where the files are that are read")
    parser.add_argument("--sizes", type=json.loads, default={}, help="what differs from the full sizes, as JSON")
    parser.add_argument("--cpus", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--once", action="store_true", help="each row once only, without a warm figure")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()

    rows = [bars.ROW_BY_KEY[key] for key in given.rows.split(",")]
    setting = job.Setting(given.folder, bars.Sizes(**given.sizes), given.cpus)
    if given.library == "inputs":
        for group in dict.fromkeys(row.group for row in rows):
            inputs.make(group, setting.folder, setting.sizes)
        _save(given.json, {})
        return 0

    results: dict[str, Any] = {}
    document = {"version": _version(given.library), "python": platform.python_version(), "rows": results}
    runtime: Any = None
    for row in rows:
        document["current"] = row.key
        _save(given.json, document)
        try:
            if row.is_fresh:
                results[row.key] = _as_json(_start(given.library, setting, samples=0 if given.once else START_SAMPLES))
            else:
                runtime = runtime or _begin(given.library, row, setting)
                results[row.key] = _as_json(
                    job.timed(_built(given.library, row, setting), is_once=given.once or row.is_long)
                )
        except Exception as error:
            traceback.print_exc()
            results[row.key] = {"error": f"{type(error).__name__}: {error}".strip()}
    document["current"] = None
    _save(given.json, document)
    if given.library in RUNTIMES and runtime is not None:
        runtime.shutdown()
    return 0


def _begin(library: str, row: bars.Row, setting: job.Setting) -> Any:
    """The library, with its runtime started where it has one."""
    found = importlib.import_module(library)
    if library in RUNTIMES:
        limit = {"object_store_memory": setting.sizes.limit_bytes} if row.is_long else {}
        found.init(num_cpus=setting.cpus, **limit)
    return found


def _built(library: str, row: bars.Row, setting: job.Setting) -> job.Job:
    if library in RUNTIMES:
        from benchmarks.datasets import jobs

        return jobs.BUILDERS[row.key](library, setting)
    from benchmarks.datasets import others

    return others.BUILDERS[library][row.key](setting)


def _start(library: str, setting: job.Setting, *, samples: int) -> job.Timing:
    """Seconds from before the interpreter is started to its answer. The first one reads the packages from the disk."""
    from benchmarks.datasets import jobs

    spent_s: list[float] = []
    text = jobs.START_PROGRAM.replace("{cpus}", str(setting.cpus))
    for _ in range(samples + 1):
        began = time.perf_counter()
        with fresh.program(text, library) as (process, _mark):
            fresh.answer(process, "done")
            spent_s.append(time.perf_counter() - began)
    return job.Timing(spent_s[0], spent_s[1:])


def _as_json(timing: job.Timing) -> dict[str, Any]:
    return dataclasses.asdict(timing)


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # found on the path alone


def _save(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all: whoever ends this process reads it then."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document))
    partial.rename(path)


if __name__ == "__main__":
    sys.exit(main())
