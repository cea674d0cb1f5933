"""Where the rows go that need a process of their own: the time of a start, and the memory of an idle runtime.

Used by `benchmarks/profile.py start` and `benchmarks/profile.py idle_memory`.
"""

from __future__ import annotations

import collections
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import fresh, processes

STARTS = 7
PHASES_PROGRAM = """
import json
import sys
import time
stamps = [time.perf_counter()]
import {module} as rt
stamps.append(time.perf_counter())

@rt.remote
def noop():
    return b"ok"

rt.init(num_cpus=2)
stamps.append(time.perf_counter())
assert rt.get(noop.remote()) == b"ok"
stamps.append(time.perf_counter())
print("stamps", json.dumps(stamps), flush=True)
sys.stdin.readline()
rt.shutdown()
"""
PROFILED_PROGRAM = """
import cProfile
import pstats
import {module} as rt

@rt.remote
def noop():
    return b"ok"

profiler = cProfile.Profile()
profiler.enable()
rt.init(num_cpus=2)
assert rt.get(noop.remote()) == b"ok"
profiler.disable()
rt.shutdown()
pstats.Stats(profiler).sort_stats("tottime").print_stats({top})
"""
PHASES = ("import", "init", "first task")


def print_start(module: str, top: int) -> None:
    """How long each phase takes, what each process does meanwhile, which imports cost what, and the driver's functions."""
    phases: dict[str, list[float]] = {name: [] for name in PHASES}
    spent: dict[str, list[float]] = {}
    for attempt in range(STARTS + 1):
        with fresh.program(PHASES_PROGRAM, module) as (process, mark):
            stamps = json.loads(fresh.answer(process, "stamps"))
            family = processes.family(process.pid, mark)
            used_s = {pid: processes.cpu_s(pid) for pid in family}
        if attempt == 0:  # it reads the package from the disk
            continue
        for name, begin, end in zip(PHASES, stamps[:-1], stamps[1:], strict=True):
            phases[name].append(1000 * (end - begin))
        for place, pid in enumerate(by_age(family)):
            spent.setdefault(role(place), []).append(1000 * used_s[pid])
    print(f"a start of {module}, medians of {STARTS}")
    for name in PHASES:
        print(f"  {statistics.median(phases[name]):7.2f} ms  {name}")
    print("CPU that was spent until the first result")
    for name, values in spent.items():
        print(f"  {statistics.median(values):7.2f} ms  {name}")
    _print_imports(module, top)
    print("\nthe driver's init and first task by cProfile", flush=True)
    subprocess.run([sys.executable, "-c", PROFILED_PROGRAM.format(module=module, top=top)], check=True)


def _print_imports(module: str, top: int) -> None:
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    rows = []
    for line in told.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if own.strip().isdigit():
            rows.append((int(own), rest.partition("|")[2].strip()))
    print(f"\nthe {top} dearest of {len(rows)} modules imported, with Python's own; us without what they import")
    for own_us, name in sorted(rows, reverse=True)[:top]:
        print(f"  {own_us:7d}  {name}")


def print_idle_memory(module: str, top: int) -> None:
    """The proportional share of memory (PSS) of each process of an idle runtime, and of what it is mapped from."""
    with fresh.idle_program(module) as pids:
        shares = [mapped_kib(pid) for pid in by_age(pids)]
    total = sum(sum(share.values()) for share in shares)
    print(f"an idle {module}: {total / 1024:.1f} MiB in {len(shares)} processes")
    for place, share in enumerate(shares):
        print(f"\n{sum(share.values()) / 1024:7.2f} MiB  {role(place)}")
        for source, kib in share.most_common(top):
            print(f"  {kib / 1024:7.2f} MiB  {source}")


def by_age(pids: set[int]) -> list[int]:
    """The driver, and then what was started after it: Umbel's daemon, its fork server, the workers."""
    return sorted(pids, key=lambda pid: (processes.start_tick(pid) or 0, pid))


def role(place: int) -> str:
    return f"the {place}. process that it started" if place else "driver"


def mapped_kib(pid: int) -> collections.Counter[str]:
    """What the process's share of memory is mapped from: names of files, `[heap]`, or memory without a name."""
    share: collections.Counter[str] = collections.Counter()
    source = ""
    for line in (processes.PROC / str(pid) / "smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            share[source] += int(rest.split()[0])
        elif "-" in line.split(maxsplit=1)[0]:  # the head of a mapping: addresses, rights, offset, device, inode, path
            fields = line.split(maxsplit=5)
            path = fields[5] if len(fields) == 6 else ""
            source = path if path.startswith("[") else Path(path).name or "memory without a name"
    return +share
