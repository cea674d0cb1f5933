"""The rows that need a process of their own: how long a start takes, and what an idle runtime uses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import processes
from benchmarks.measure import Effort, Measurement

START_PROGRAM = """
import time
began = time.perf_counter()
import {module} as rt

@rt.remote
def noop():
    return b"ok"

rt.init(num_cpus=2)
assert rt.get(noop.remote()) == b"ok"
print("seconds", time.perf_counter() - began, flush=True)
rt.shutdown()
"""

IDLE_PROGRAM = """
import sys
import time
import {module} as rt

@rt.remote
def nap(seconds):
    time.sleep(seconds)
    return seconds

rt.init(num_cpus=2)
assert rt.get([nap.remote(0.1) for _ in range(8)]) == [0.1] * 8
print("ready", flush=True)
sys.stdin.readline()
rt.shutdown()
"""

SETTLE_S = 6.0  # longer than the 5 s after which a runtime is called idle
ANSWER_LIMIT_S = 120.0


def start(module: str, effort: Effort) -> Measurement:
    """Seconds from before the import to after the first result; the interpreter's own start is not in it."""
    measured = Measurement()
    began = time.perf_counter()
    for attempt in range(effort.samples + 1):
        if len(measured.samples) >= 2 and time.perf_counter() - began > 2 * effort.budget_s:
            break
        with program(START_PROGRAM, module) as (process, _mark):
            seconds = float(answer(process, "seconds"))
        if attempt > 0:  # the first one reads the package from the disk
            measured.samples.append(seconds)
    return measured


def idle(module: str, effort: Effort) -> tuple[Measurement, Measurement]:
    """(MiB of PSS, percent of a core) of the driver and all that it started, some seconds after its last task."""
    memory, cpu = Measurement(), Measurement()
    window_s = 10.0 if effort.samples > 3 else 5.0
    with idle_program(module) as pids:
        used_s = {pid: processes.cpu_s(pid) for pid in pids}
        began = time.perf_counter()
        time.sleep(window_s)
        elapsed_s = time.perf_counter() - began
        spent_s = sum(processes.cpu_s(pid) - used_s[pid] for pid in pids)
        memory.samples.append(sum(processes.pss_bytes(pid) for pid in pids) / 2**20)
        cpu.samples.append(100 * spent_s / elapsed_s)
    return memory, cpu


@contextmanager
def idle_program(module: str) -> Iterator[set[int]]:
    """The processes of a runtime that has been idle for some seconds."""
    with program(IDLE_PROGRAM, module) as (process, mark):
        answer(process, "ready")
        time.sleep(SETTLE_S)
        yield processes.family(process.pid, mark)


@contextmanager
def program(text: str, module: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A fresh interpreter running `text`; asked to end, then made to, together with whatever it left."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, processes.MARK: mark}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or every start would compile what a user's Python has kept
    process = subprocess.Popen(
        [sys.executable, "-c", text.format(module=module)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process, mark
        process.communicate(input="\n", timeout=ANSWER_LIMIT_S)
    finally:
        process.kill()
        process.wait()
        processes.end_marked(mark, patience_s=5.0)


def answer(process: subprocess.Popen[str], word: str) -> str:
    """What follows `word` on the first line of the program's output that begins with it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line[len(word) :].strip()
    raise RuntimeError(f"the program ended without saying {word!r}, exit status {process.wait()}; its errors are above")
