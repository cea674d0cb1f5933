"""Umbel beside its peer in one run: values, ratios, and which bars are met.

    python benchmarks/compare.py --umbel-python PATH --peer-python PATH [--write docs/benchmarks.md]

The two interpreters may differ: each needs its own module and numpy. Groups of rows run in turn as Umbel, peer, Umbel,
so that a machine which slows down or speeds up meanwhile does so for both; what counts is the ratio of the medians.
Exit status 1 when a row fails or misses its first bar; a row without bars can only fail.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

from benchmarks.bars import GROUPS, POOL_ROWS, ROW_BY_KEY, Row, keys_in
from benchmarks.core import significant

PROGRAM = Path(__file__).resolve().parent / "core.py"
GROUP_LIMIT_S = 900.0  # a group is seven rows at most, and a row ends itself after two minutes
POOL_TITLES = {"concurrent.futures": "ProcessPoolExecutor", "multiprocessing": "multiprocessing.Pool"}
PEER_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # neither reports home nor warns


@dataclass
class Side:
    """Everything that one module's runs have given."""

    module: str
    python: Path
    version: str = "?"
    python_version: str = "?"
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def run(self, keys: Sequence[str], *, is_quick: bool) -> None:
        """Measure the rows in a process of their own and keep the results."""
        print(f"  {self.module}: {', '.join(keys)}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            command = [str(self.python), str(PROGRAM), self.module, "--rows", ",".join(keys), "--json", str(result)]
            command += ["--quick"] * is_quick
            try:
                done = subprocess.run(
                    command,
                    env={**os.environ, **PEER_QUIET},
                    capture_output=True,
                    text=True,
                    timeout=GROUP_LIMIT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                self.errors.update(dict.fromkeys(keys, f"no end within {GROUP_LIMIT_S:g} s"))
                return
            if not result.exists():
                print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
                self.errors.update(dict.fromkeys(keys, f"the run ended with status {done.returncode}"))
                return
            document = json.loads(result.read_text())
        self.version, self.python_version = document["version"], document["python"]
        for key, record in document["rows"].items():
            if "error" in record:
                print(f"    {key} failed: {record['error']}\n{done.stderr[-4000:]}", file=sys.stderr)
                self.errors[key] = record["error"]
            else:
                self.rows.setdefault(key, []).append(record)

    def median(self, key: str) -> float | None:
        """The median over the samples of all runs; None when the row has failed or was not run."""
        records = self.rows.get(key)
        if key in self.errors or not records:
            return None
        return float(statistics.median(sample for record in records for sample in record["samples"]))

    def of_memcpy(self, key: str) -> float | None:
        records = self.rows.get(key)
        return None if not records else statistics.median(record["of_memcpy"] for record in records)


@dataclass(frozen=True)
class Verdict:
    """One row of the report."""

    row: Row
    ours: float | None
    peers: float | None
    ratio: float | None  # times better than the peer, or the share of memcpy

    @property
    def meets(self) -> str:
        if self.ratio is None:
            return "**failed**"
        if self.row.bar is None or self.row.goal is None:
            return ""
        return "goal" if self.ratio >= self.row.goal else "bar" if self.ratio >= self.row.bar else "**no**"

    @property
    def is_met(self) -> bool:
        return self.ratio is not None and (self.row.bar is None or self.ratio >= self.row.bar)

    def cells(self) -> list[str]:
        unit = self.row.unit
        values = ["failed" if value is None else f"{significant(value)} {unit}" for value in (self.ours, self.peers)]
        ratios = [shown(self.row, ratio) for ratio in (self.ratio, self.row.bar, self.row.goal)]
        return [self.row.title, *values, *ratios, self.meets]


def shown(row: Row, ratio: float | None) -> str:
    """A ratio as the table writes it: `25x` the rate, `1/25` of the time, `0.9 of memcpy`, nothing for None."""
    if ratio is None:
        return ""
    if row.of_memcpy:
        return f"{ratio:.2f} of memcpy"
    return f"1/{significant(ratio)}" if row.is_less_better else f"{significant(ratio)}x"


def judge(row: Row, ours: Side, peer: Side) -> Verdict:
    mine, theirs = ours.median(row.key), peer.median(row.key)
    if row.of_memcpy:
        return Verdict(row, mine, theirs, None if mine is None else ours.of_memcpy(row.key))
    return Verdict(row, mine, theirs, None if mine is None or theirs is None else row.times_better(mine, theirs))


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown, padded so that it also reads well in a terminal."""
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in [header, rule, *lines]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def report(verdicts: Sequence[Verdict], pools: Sequence[Side], ours: Side, peer: Side) -> str:
    peer_title = peer.module.capitalize()
    judged = [verdict for verdict in verdicts if verdict.row.bar is not None]
    met = sum(verdict.is_met for verdict in judged)
    goals = sum(verdict.meets == "goal" for verdict in verdicts)
    main = table(
        ["row", "Umbel", peer_title, "ratio", "first bar", "goal", "met"], [verdict.cells() for verdict in verdicts]
    )
    text = f"""{main}

First bars met: {met} of {len(judged)}; goals: {goals}.
"""
    if pools:
        lines = [pool_cells(key, ours, pools) for key in POOL_ROWS if ours.rows.get(key)]
        header = ["row", "Umbel", *(POOL_TITLES[side.module] for side in pools), "ahead of both"]
        text += f"\n{table(header, lines)}\n"
    return text


def pool_cells(key: str, ours: Side, pools: Sequence[Side]) -> list[str]:
    values = [side.median(key) for side in (ours, *pools)]
    is_ahead = None not in values and values[0] == max(value for value in values if value is not None)
    shown_values = ["failed" if value is None else f"{significant(value)} tasks/s" for value in values]
    return [ROW_BY_KEY[key].title, *shown_values, "yes" if is_ahead else "**no**"]


def hardware() -> str:
    """When, and on what."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.date.today():%B %Y}; {os.cpu_count()} cores ({platform.machine()}), {memory_gib:.0f} GiB, "
        f"{platform.system()}"
    )


def machine(ours: Side, peer: Side) -> str:
    return (
        f"{hardware()}; Umbel {ours.version} on Python {ours.python_version}, "
        f"{peer.module.capitalize()} {peer.version} on Python {peer.python_version}."
    )


def page(body: str, facts: str, peer_title: str) -> str:
    return f"""# Benchmarks

Umbel beside {peer_title}, both in one run on one machine. Reproduce with

```
nox -s bench
```

which installs {peer_title} into an environment of its own, runs `benchmarks/compare.py`, and writes this page.
`benchmarks/dag.py umbel --compare PYTHON` does the same for compiled graphs, with the Ray of that interpreter.
`benchmarks/core.py umbel` alone takes under two minutes; `benchmarks/profile.py ROW` shows where a row's time goes.

{facts}

{body}
- Values are medians; the ratio is that of the medians. Figures change with the machine and with its neighbours, ratios
  less so: a number is quoted with its peer's, from one run. Groups of rows run in turn as Umbel, {peer_title}, Umbel.
- `1/25` means a twenty-fifth of {peer_title}'s time, memory or CPU. "of memcpy" compares with a copy of the same bytes
  to memory that is already mapped, made in turn with the row in the same process.
- "1,000 pipelined" submits a thousand calls and then gets them; "one at a time" gets each before the next. "n:n 2x2" is
  two actors that each have a thousand calls in flight to the same two others. Every row is defined in
  `benchmarks/rows.py` once, for every module, and checks its results.
- Placement groups have one small bundle and follow one another: each is made, waited for, removed, and asked for until it
  is gone.
- Nested tasks were to have a bar of 100 and a goal of 400, beside a figure for Ray that does not come back; they have those of
  pipelined tasks instead ([decision 0007](design/0007-the-bar-of-nested-tasks.md)).
- Rows on another node run on two nodes of this machine with two CPUs each, started by `cluster_utils.Cluster`, which talk over
  loopback. The driver's node puts the 256 MiB array, which is not timed; what is, is a task of the other node that has it
  as its argument. They have no bars.
- Idle: a fresh driver and all that it started, six seconds after its last task, seen from outside: the sum of their
  proportional set sizes, and the CPU time that they use in ten seconds.
- The pools of the standard library run the same tasks with two processes, by `submit` and `apply_async`.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--umbel-python", type=Path, required=True, help="an interpreter that has umbel and numpy")
    parser.add_argument("--peer-python", type=Path, required=True, help="an interpreter that has the peer and numpy")
    parser.add_argument("--umbel", default="umbel", help="the module to judge")
    parser.add_argument("--peer", default="ray", help="the module to compare it with")
    parser.add_argument("--groups", default=",".join(GROUPS), help="comma-separated; all by default")
    parser.add_argument("--write", type=Path, help="write the report to this Markdown file")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")
    arguments = parser.parse_args()

    groups = arguments.groups.split(",")
    if unknown := [group for group in groups if group not in GROUPS]:
        parser.error(f"--groups: {', '.join(unknown)} unknown; allowed: {', '.join(GROUPS)}")
    ours, peer = Side(arguments.umbel, arguments.umbel_python), Side(arguments.peer, arguments.peer_python)
    pools = [Side(module, arguments.umbel_python) for module in POOL_TITLES] if "tasks" in groups else []
    for group in groups:
        print(f"{group}", flush=True)
        for side in (ours, peer, ours):
            side.run(keys_in(group), is_quick=arguments.quick)
        for side in pools if group == "tasks" else ():
            side.run(POOL_ROWS, is_quick=arguments.quick)

    verdicts = [judge(ROW_BY_KEY[key], ours, peer) for group in groups for key in keys_in(group)]
    body = report(verdicts, pools, ours, peer)
    facts = machine(ours, peer)
    print(f"\n{facts}\n\n{body}")
    if arguments.write:
        arguments.write.write_text(page(body, facts, arguments.peer.capitalize()))
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
