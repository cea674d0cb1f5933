"""Datasets of Umbel beside Ray Data, and beside pandas, Polars, DuckDB and torch's DataLoader, in one run.

    python benchmarks/data.py --peer-python PATH [--umbel-python PATH] [--rows KEYS] [--write docs/benchmarks-data.md]

Umbel's interpreter needs pyarrow, numpy and pillow, that of the peers `ray[data]`, polars, pandas, duckdb, pillow and torch;
without --peer-python Umbel is measured alone. Rows and bars are in `benchmarks/datasets/bars.py`. Each group of rows runs in a
process of its own as Umbel, Ray, Umbel; every result is checked before its time counts. --quick runs all with next to no data, to
see that it works. Exit status 1 when a row fails or misses a bar; with --quick only when one fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

from benchmarks import processes
from benchmarks.compare import PEER_QUIET, hardware, table
from benchmarks.core import significant
from benchmarks.datasets.bars import GB, ROW_BY_KEY, ROWS, TINY, Row, Sizes, large_bytes
from benchmarks.datasets.memory import EVERY_S, Peak

PROGRAM = Path(__file__).resolve().parent / "datasets" / "side.py"
OTHERS = ("pandas", "polars", "duckdb", "torch")
TITLES = {
    "umbel": "Umbel",
    "ray": "Ray",
    "pandas": "pandas",
    "polars": "Polars",
    "duckdb": "DuckDB",
    "torch": "torch DataLoader",
}
INPUTS_LIMIT_S = 900.0  # the tables of TPC-H take a minute, the images two
LOOK_EVERY_S = 0.2
END_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Plan:
    """What all sides are told alike. sizes: what differs from the full ones. is_quick: each row once."""

    folder: Path
    sizes: dict[str, Any]
    is_quick: bool

    @property
    def all_sizes(self) -> Sizes:
        return Sizes(**self.sizes)


@dataclass
class Side:
    """Everything that the processes of one library have given."""

    library: str
    python: Path
    version: str = "?"
    python_version: str = "?"
    timings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)  # of rows that had a process to themselves
    errors: dict[str, str] = field(default_factory=dict)

    def run(self, rows: Sequence[Row], plan: Plan) -> None:
        """Measure the rows, all of one group. One that ends the process, or does not end, fails; the next ones get another."""
        print(f"  {self.library}: {', '.join(row.key for row in rows)}", flush=True)
        left = [row for row in rows if row.key not in self.errors]
        while left:
            left = self._run(left, plan)

    def kept(self) -> dict[str, Any]:
        """All but where its interpreter is, as JSON has it."""
        return {name: value for name, value in vars(self).items() if name != "python"}

    def median(self, key: str, *, cold: bool = False) -> float | None:
        """Seconds; None where the row has failed or was not run. A row that runs once has its only time as both."""
        timings = self.timings.get(key)
        if key in self.errors or not timings:
            return None
        warm = [sample for timing in timings for sample in timing["warm"]]
        return float(statistics.median([timing["cold"] for timing in timings] if cold or not warm else warm))

    def _run(self, rows: Sequence[Row], plan: Plan) -> list[Row]:
        """The rows that are left, after one that has failed."""
        document, status, said, memory_bytes = process(self.python, self.library, rows, plan)
        self.version, self.python_version = document.get("version", "?"), document.get("python", "?")
        for key, timing in document.get("rows", {}).items():
            if "error" in timing:
                self._fail(key, timing["error"], said)
            else:
                self.timings.setdefault(key, []).append(timing)
        if len(rows) == 1:
            self.memory[rows[0].key] = max(memory_bytes, self.memory.get(rows[0].key, 0))
        if "current" in document and document["current"] is None:
            return []
        keys = [row.key for row in rows]
        key = document.get("current", keys[0])
        limit_s = ROW_BY_KEY[key].limit_s
        why = f"no end within {limit_s:g} s" if status is None else f"its process ended with status {status}"
        self._fail(key, why, said)
        return list(rows[keys.index(key) + 1 :])

    def _fail(self, key: str, why: str, said: str) -> None:
        print(f"    {key} failed: {why}\n{said[-3000:]}", file=sys.stderr, flush=True)
        self.errors[key] = why.partition("\n")[0][:200]


def process(python: Path, library: str, rows: Sequence[Row], plan: Plan) -> tuple[dict[str, Any], int | None, str, int]:
    """What a process of `datasets/side.py` wrote, its exit status (None when it was ended), its errors, its peak of memory."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as name:
        result, errors = Path(name) / "result.json", Path(name) / "errors"
        command = [str(python), str(PROGRAM), library, "--rows", ",".join(row.key for row in rows)]
        command += ["--folder", str(plan.folder), "--sizes", json.dumps(plan.sizes), "--json", str(result)]
        command += ["--once"] * plan.is_quick
        environment = {**os.environ, **PEER_QUIET, processes.MARK: mark}
        with errors.open("w") as to:
            child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=to, stderr=to)
        peak = Peak(child.pid, mark) if len(rows) == 1 else None
        try:
            status = _waited(child, result, limit_s=INPUTS_LIMIT_S if library == "inputs" else None)
        finally:
            for pid in processes.family(child.pid, mark) if child.returncode is None else ():
                _kill(pid)
            child.wait()
            processes.end_marked(mark, patience_s=END_PATIENCE_S)
            memory_bytes = peak.end() if peak is not None else 0
        return _read(result), status, errors.read_text(errors="replace"), memory_bytes


def _waited(child: subprocess.Popen[bytes], result: Path, limit_s: float | None) -> int | None:
    """The exit status; None when a row, by what `result` says is the current one, takes longer than it may."""
    current, since = None, time.monotonic()
    while True:
        try:
            return child.wait(timeout=LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            now, key = time.monotonic(), _read(result).get("current")
            if key != current:
                current, since = key, now
            allowed_s = limit_s or (ROW_BY_KEY[key].limit_s if key else INPUTS_LIMIT_S)
            if now - since > allowed_s:
                return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself meanwhile


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The report.


@dataclass(frozen=True)
class Verdict:
    """One row of the report. ratio: times quicker than Ray. behind: libraries that are ahead by more than they may be."""

    row: Row
    ratio: float | None
    failure: str | None
    behind: tuple[str, ...]

    @property
    def is_met(self) -> bool:
        return self.failure is None and not self.behind and (self.ratio is None or self.ratio >= self.row.bar)

    @property
    def word(self) -> str:
        if self.failure is not None:
            return "**failed**"
        if self.behind:
            return f"**no**: {', '.join(TITLES[one] for one in self.behind)} is ahead"
        if self.ratio is None:
            return ""
        return "yes" if self.is_met else "**no**"


def judge(row: Row, sides: dict[str, Side]) -> Verdict:
    ours = sides["umbel"].median(row.key)
    theirs = sides["ray"].median(row.key) if "ray" in sides else None
    ratio = None if ours is None or theirs is None else theirs / ours
    behind = []
    for library, times in row.at_most.items():
        other = sides[library].median(row.key) if library in sides else None
        if ours is not None and other is not None and ours > times * other:
            behind.append(library)
    return Verdict(row, ratio, sides["umbel"].errors.get(row.key), tuple(behind))


def report(rows: Sequence[Row], sides: dict[str, Side]) -> str:
    verdicts = [judge(row, sides) for row in rows]
    peers = [library for library in ("ray",) if library in sides]
    lines = []
    for verdict in verdicts:
        row = verdict.row
        warm = [_cell(sides[library], row) for library in ("umbel", *peers)]
        cold = [_cell(sides[library], row, cold=True) for library in ("umbel", *peers)]
        beside = [_cell(sides[library], row) for library in OTHERS if library in sides]
        ratio = "" if verdict.ratio is None else f"{significant(verdict.ratio)}x"
        bars = [f"{row.bar:g}x", *(f"{times:g}x {TITLES[library]}'s time" for library, times in row.at_most.items())]
        lines.append([row.title, *warm, ratio, ", ".join(bars), verdict.word, *cold, *beside])
    names = [TITLES[library] for library in ("umbel", *peers)]
    header = ["row", *names, "times quicker", "bar", "met", *(f"{name}, first time" for name in names)]
    header += [TITLES[library] for library in OTHERS if library in sides]
    text = table(header, lines)
    judged = [verdict for verdict in verdicts if verdict.ratio is not None or verdict.failure is not None]
    text += f"\n\nBars met: {sum(verdict.is_met for verdict in judged)} of {len(judged)}.\n"
    failures = [
        f"- {row.title}: {TITLES[library]} failed: {side.errors[row.key]}"
        for row in rows
        for library, side in sides.items()
        if row.key in side.errors
    ]
    if failures:
        text += "\n" + "\n".join(failures) + "\n"
    weighed = [row for row in rows if row.key in sides["umbel"].memory and not row.is_fresh]
    if weighed:
        libraries = [library for library in sides if any(row.key in sides[library].memory for row in weighed)]
        memory = [[row.title, *(_gib(sides[one].memory.get(row.key)) for one in libraries)] for row in weighed]
        text += "\nMost memory at a time, of all processes of a side:\n\n"
        text += table(["row", *(TITLES[one] for one in libraries)], memory) + "\n"
    return text


def _cell(side: Side, row: Row, *, cold: bool = False) -> str:
    if row.key in side.errors:
        return "failed"
    seconds = side.median(row.key, cold=cold)
    return "" if seconds is None else f"{significant(seconds)} s"


def _gib(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 2**30:.2f} GiB"


def facts(sides: dict[str, Side], sizes: Sizes) -> str:
    versions = ", ".join(f"{TITLES[one]} {side.version}" for one, side in sides.items() if side.version != "?")
    python = " and ".join(dict.fromkeys(side.python_version for side in sides.values() if side.python_version != "?"))
    large = f"{sizes.large_bytes / GB:.3g} GB with an object store of {sizes.limit_bytes / GB:.3g} GB"
    return (
        f"{hardware()}; {versions}; Python {python}. Sort and shuffle: {large}. "
        f"TPC-H: scale factor {sizes.scale_factor:g}. Images: {sizes.images:,}."
        + ("" if sizes.group_rows == Sizes().group_rows else " All with less data than their titles say.")
    )


def page(body: str, stated: str) -> str:
    return f"""# Benchmarks of datasets

`umbel.data` beside Ray Data and others, all in one run on one machine. Reproduce with

```
nox -s bench_data
```

which installs the peers into an environment of their own, runs `benchmarks/data.py`, and writes this page.

{stated}

{body}
- Seconds, medians. The same code runs on `umbel.data` and on `ray.data` (`benchmarks/datasets/jobs.py`), in turn as Umbel, Ray,
  Umbel, each group of rows in processes of its own. Ray has Polars beside it, with which it hashes and joins. Every result is
  checked each time, outside of what is timed.
- "First time" is that of a process in which runtime and inputs are there, and nothing of its group has run but the rows above
  it. Sort and shuffle run once, as does what takes a side longer than 12 s, so theirs is the only one.
  `range(1000).map(...).take()` is measured from before the interpreter starts until it has the rows, each time in a new one; its
  first time also reads the packages from the disk.
- Other libraries have as many threads, or workers, as there are CPUs. torch's DataLoader takes a tenth of the rows one by one, in
  this process, and its time is scaled to all of them; for images it has a worker for each CPU.
- map_batches adds a column, and what comes out is kept until it is counted. The group-by sums a column by a key of one value.
- Sort and shuffle make random rows of 104 bytes, of which 96 do not compress, and the sorted rows are read by the driver in
  order. The object store has half of the data's bytes; the rest goes to disk.
- TPC-H: the columns that the queries need and some more, made by `benchmarks/datasets/tpch.py` with the distributions of the
  specification; prices, discounts and taxes are float64, keys int64, dates date32. Every answer is that of DuckDB on the same
  files: floats to nine digits, and those of Umbel to the cent, which sums of Ray's in Q1 are not. Ray has to be told into how
  many partitions it joins: two for each CPU.
- Memory is looked at from outside every {EVERY_S} s: by proportional share, shared memory once.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--umbel-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has what Umbel is compared with")
    parser.add_argument(
        "--sides", help=f"comma-separated, of ray, {', '.join(OTHERS)}; all by default, with --peer-python"
    )
    parser.add_argument("--rows", help="comma-separated keys; all by default")
    parser.add_argument("--folder", type=Path, help="where the inputs are kept; by default they are made and removed")
    parser.add_argument("--quick", action="store_true", help="next to no data, to see that all of it works")
    parser.add_argument("--large-gb", type=float, help="how much is sorted and shuffled; 4, or a fifth of the memory")
    parser.add_argument("--sizes", type=json.loads, help="sizes of other rows, as JSON: fields of `bars.Sizes`")
    parser.add_argument(
        "--json", type=Path, help="keep all timings in this file, and measure no group that is there already"
    )
    parser.add_argument("--write", type=Path, help="write the report to this Markdown file")
    given = parser.parse_args()

    rows = list(ROWS)
    if given.rows:
        keys = given.rows.split(",")
        if unknown := [key for key in keys if key not in ROW_BY_KEY]:
            parser.error(f"--rows: {', '.join(unknown)} unknown; allowed: {', '.join(ROW_BY_KEY)}")
        rows = [ROW_BY_KEY[key] for key in keys]
    wanted = given.sides.split(",") if given.sides else (["ray", *OTHERS] if given.peer_python else [])
    if unknown := [one for one in wanted if one not in ("ray", *OTHERS)]:
        parser.error(f"--sides: {', '.join(unknown)} unknown; allowed: ray, {', '.join(OTHERS)}")
    kept = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    sides = {"umbel": Side(python=given.umbel_python, **kept.get("umbel", {"library": "umbel"}))}
    peer_python = given.peer_python or given.umbel_python
    sides.update({one: Side(python=peer_python, **kept.get(one, {"library": one})) for one in wanted})
    sizes = dataclasses.asdict(TINY) if given.quick else {"large_bytes": large_bytes()}
    sizes.update(given.sizes or {})
    if given.large_gb is not None:
        sizes["large_bytes"] = int(given.large_gb * GB)

    with tempfile.TemporaryDirectory() as temporary:
        plan = Plan(given.folder or Path(temporary), sizes, given.quick)
        plan.folder.mkdir(parents=True, exist_ok=True)
        for group in dict.fromkeys(row.group for row in rows):
            of_group = [row for row in rows if row.group == group]
            if all(row.key in {**sides["umbel"].timings, **sides["umbel"].errors} for row in of_group):
                continue
            measure(group, of_group, sides, plan)
            if given.json:  # after each, so that a run that is broken off can be gone on with
                given.json.write_text(json.dumps({one: side.kept() for one, side in sides.items()}, indent=1) + "\n")

    body, stated = report(rows, sides), facts(sides, plan.all_sizes)
    print(f"\n{stated}\n\n{body}")
    if given.write:
        given.write.write_text(page(body, stated))
    if given.quick:
        return 1 if any(side.errors for side in sides.values()) else 0
    return 0 if all(judge(row, sides).is_met for row in rows) else 1


def measure(group: str, rows: Sequence[Row], sides: dict[str, Side], plan: Plan) -> None:
    """A group on all sides: the others first, since one of them has the answers that the rest is checked by; then in turn."""
    print(group, flush=True)
    ours = sides["umbel"]
    _, status, said, _ = process(ours.python, "inputs", rows, plan)
    if status != 0:
        print(said, file=sys.stderr)
        raise SystemExit(f"the inputs of {group} could not be made, status {status}; what it said is above")
    for library in OTHERS:
        own = [row for row in rows if library in row.others]
        if library in sides and own:
            sides[library].run(own, plan)
    ours.run(rows, plan)
    if "ray" in sides:
        sides["ray"].run(rows, plan)
        again = [row for row in rows if not row.is_long]
        if again and not plan.is_quick:
            ours.run(again, plan)


if __name__ == "__main__":
    sys.exit(main())
