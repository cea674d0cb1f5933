"""Where the time of one row goes.

    python benchmarks/profile.py tasks_pipelined
    python benchmarks/profile.py actor_sync --seconds 5 --top 30 --stacks out.txt

Three views of the row, each of a run of its own: the CPU that each process spends on one unit (a task, a call), and
which functions of the driver, the daemon and the workers it is spent in, by samples (`benchmarks/sampling`); how often
the driver's thread calls what for one unit, by cProfile, which slows small functions but counts exactly; and with
`--py-spy`, where that is installed, the stacks of all processes with those of extension modules. `--stacks` writes the
samples in the format that flame graph programs read. For `start` and `idle_memory` see `benchmarks/profile_fresh.py`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

import cProfile
import pstats

from benchmarks import measure, processes, profile_fresh, rows, runtimes
from benchmarks.bars import ROW_BY_KEY
from benchmarks.sampling import sitecustomize as sampling

SAMPLING = Path(sampling.__file__).parent
FRESH = {"start": profile_fresh.print_start, "idle_memory": profile_fresh.print_idle_memory}
NUDGE_S = 0.2  # for the processes to write their last samples
PY_SPY_HZ = 500


@dataclass
class Role:
    """The processes that do the same job: their CPU time, and where it was seen."""

    cpu_s: float = 0.0
    count: int = 0
    stacks: dict[sampling.Stack, float] = field(default_factory=dict)  # seconds

    def add(self, samples: dict[sampling.Stack, float]) -> None:
        for stack, spent_s in samples.items():
            self.stacks[stack] = self.stacks.get(stack, 0.0) + spent_s


def repeat(workload: measure.Workload, seconds: float) -> tuple[float, float]:
    """Runs the workload for that long at least; (units, seconds). What prepares its operations is in all views."""
    began = time.perf_counter()
    units = 0.0
    while (elapsed_s := time.perf_counter() - began) < seconds:
        if workload.prepare is not None:
            workload.prepare()
        workload.operation()
        units += workload.units
    return units, elapsed_s


def sampled(
    workload: measure.Workload, seconds: float, folder: Path, mark: str
) -> tuple[float, float, dict[str, Role]]:
    """(units, seconds, what each role spent) of one run."""
    before = {pid: processes.cpu_s(pid) for pid in processes.family(os.getpid(), mark)}
    ended_before_s = {pid: processes.ended_children_cpu_s(pid) for pid in before}
    (folder / "recording").touch()
    units, elapsed_s = repeat(workload, seconds)
    (folder / "recording").unlink()
    family = processes.family(os.getpid(), mark)
    after = {pid: processes.cpu_s(pid) for pid in family}
    for path in folder.glob("*.json"):
        if int(path.stem) in family:  # it has the sampler's handler, or the file would not be there
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.stem), signal.SIGPROF)
    time.sleep(NUDGE_S)
    roles: dict[str, Role] = {}
    samples = {int(path.stem): read_samples(path) for path in folder.glob("*.json")}
    for pid in family:
        role = roles.setdefault(role_of(pid, samples.get(pid, {})), Role())
        role.cpu_s += after[pid] - before.get(pid, 0.0)
        role.count += 1
        role.add(samples.get(pid, {}))
    ended_s = sum(processes.ended_children_cpu_s(pid) - ended_before_s.get(pid, 0.0) for pid in family)
    if ended_s > 0:
        role = roles["processes that have ended"] = Role(cpu_s=ended_s)
        for pid in samples.keys() - family:
            role.add(samples[pid])
    return units, elapsed_s, roles


def read_samples(path: Path) -> dict[sampling.Stack, float]:
    return {tuple(stack): spent_s for stack, spent_s in json.loads(path.read_text())}


def role_of(pid: int, stacks: Iterable[sampling.Stack]) -> str:
    if pid == os.getpid():
        return "driver"
    frames = {frame for stack in stacks for frame in stack}
    for part, role in (("/_worker/", "workers"), ("/_agent/", "daemon"), ("/_control/", "daemon")):
        if any(part in frame for frame in frames):
            return role
    command = processes.command_of(pid)
    if command.startswith("ray::"):
        return "workers"
    return "daemon" if "._agent" in command else "others"


def short(frame: str) -> str:
    """`path:line:function`, with the path from the package on."""
    path, line, function = frame.rsplit(":", 2)
    for anchor in ("/site-packages/", "/src/"):
        if anchor in path:
            path = path.rpartition(anchor)[2]
    if path.startswith("/"):
        path = "/".join(path.split("/")[-2:])
    return f"{function}  {path}:{line}"


def print_role(name: str, role: Role, units: float, top: int) -> None:
    counted = f", {role.count} process{'es' * (role.count > 1)}" if role.count else ""
    print(f"\n{name}: {1e6 * role.cpu_s / units:.2f} us of CPU per unit{counted}")
    seen_s = sum(role.stacks.values())
    if not seen_s:
        if role.count and role.cpu_s > 0.01:
            print("  no samples: its interpreter runs without the site module, or it is no Python; see --py-spy")
        return
    own: dict[str, float] = {}
    total: dict[str, float] = {}
    for stack, spent_s in role.stacks.items():
        own[stack[-1]] = own.get(stack[-1], 0.0) + spent_s
        for frame in set(stack):
            total[frame] = total.get(frame, 0.0) + spent_s
    print("   own  total  function")
    for frame, spent_s in sorted(own.items(), key=lambda item: -item[1])[:top]:
        print(f"  {100 * spent_s / seen_s:4.1f}%  {100 * total[frame] / seen_s:4.1f}%  {short(frame)}")


def print_calls(workload: measure.Workload, seconds: float, top: int) -> None:
    """The driver's thread by cProfile: calls and time per unit."""
    profiler = cProfile.Profile()
    profiler.enable()
    units, _elapsed_s = repeat(workload, seconds)
    profiler.disable()
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]  # typeshed leaves it out
    calls = sum(entry[1] for entry in stats.values())
    print(f"\ndriver's thread by cProfile: {calls / units:.1f} Python and C calls per unit")
    print("  calls  own us  total us  function")
    by_own_time = sorted(stats.items(), key=lambda item: -item[1][2])
    for (path, line, function), (_primitive, calls_of_it, own_s, total_s, _callers) in by_own_time[:top]:
        name = function if path == "~" else short(f"{path}:{line}:{function}")
        print(f"  {calls_of_it / units:5.2f}  {1e6 * own_s / units:6.2f}  {1e6 * total_s / units:8.2f}  {name}")


def print_native(workload: measure.Workload, seconds: float, top: int, folder: Path) -> None:
    """All processes by py-spy, with frames of extension modules."""
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        print("\npy-spy is not installed; pip install py-spy, or leave --py-spy out")
        return
    output = folder / "native.txt"
    command = [program, "record", "--pid", str(os.getpid()), "--subprocesses", "--native", "--format", "raw"]
    command += ["--rate", str(PY_SPY_HZ), "--duration", str(max(1, round(seconds))), "--output", str(output)]
    watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while watcher.poll() is None:
        repeat(workload, NUDGE_S)
    if not output.exists():
        print(f"\npy-spy failed: {(watcher.communicate()[1] or '').strip()}")
        return
    leaves: collections.Counter[str] = collections.Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        leaves[stack.rpartition(";")[2]] += int(count)
    print(f"\nall processes by py-spy, {leaves.total()} samples")
    for leaf, count in leaves.most_common(top):
        print(f"  {100 * count / leaves.total():4.1f}%  {leaf}")


def write_stacks(path: Path, roles: dict[str, Role]) -> None:
    with path.open("w") as file:
        for name, role in roles.items():
            for stack, spent_s in role.stacks.items():
                frames = ";".join([name, *(short(frame).replace(";", ",") for frame in stack)])
                file.write(f"{frames} {round(spent_s * 1e6)}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = sorted([*rows.BUILDERS, *FRESH])
    parser.add_argument("row", choices=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--module", default="umbel")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each view")
    parser.add_argument("--top", type=int, default=20, help="functions to list")
    parser.add_argument("--stacks", type=Path, help="write the sampled stacks there")
    parser.add_argument("--py-spy", action="store_true", help="also the native view, if py-spy is installed")
    arguments = parser.parse_args()
    if arguments.row in FRESH:
        FRESH[arguments.row](arguments.module, arguments.top)
        return 0

    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # a worker may be writing there still
        folder = Path(name)
        os.environ[processes.MARK] = mark
        os.environ[sampling.FOLDER] = name
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SAMPLING), os.environ.get("PYTHONPATH")]))
        row = ROW_BY_KEY[arguments.row]
        runtime = runtimes.Runtime(arguments.module, row.nodes)
        runtime.start()
        sampler = sampling.install(name)
        workload = rows.BUILDERS[arguments.row](runtime.module)
        repeat(workload, measure.FULL.warm_up_s)

        units, elapsed_s, roles = sampled(workload, arguments.seconds, folder, mark)
        sampler.stop()
        each_us = 1e6 * elapsed_s / units
        print(f"{row.title} on {arguments.module}: {units / elapsed_s:,.1f} {row.unit}, {each_us:.2f} us each")
        for role_name in sorted(roles, key=lambda key: -roles[key].cpu_s):
            print_role(role_name, roles[role_name], units, arguments.top)
        if arguments.stacks:
            write_stacks(arguments.stacks, roles)
        print_calls(workload, arguments.seconds, arguments.top)
        if arguments.py_spy:
            print_native(workload, arguments.seconds, arguments.top, folder)
        workload.close()
        runtime.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
