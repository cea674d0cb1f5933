"""Mixed load with `kill -9` of workers and actors, and a count of what came of it.

    python benchmarks/soak.py --minutes 10 --seed 7

Threads submit tasks, actors, generators, puts and cancellations while another kills processes that had answered a call.
Each call must end in its right result or in an error that is right for it (`soak_load.py`); afterwards memory, file
descriptors and shared memory must be back where they were before the kills, and after `shutdown` no process, no shared
memory and no file may be left. Exit status 1 when anything was wrong, lost or leaked. Ends itself. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

import umbel
from benchmarks import processes, soak_load
from umbel import exceptions

REPOSITORY = str(Path(__file__).resolve().parent.parent)
CPUS = 4
LOAD_THREADS = 2
SCENES_PER_ROUND = 12  # some 150 calls: enough in flight that a kill finds work under way
KILL_INTERVAL_S = (0.1, 1.0)
LOST_AFTER_S = 120.0  # no call of the load takes more than seconds, however often it is retried
REPORTED_MAX = 20  # failures of each kind shown
EXCERPT = 400  # characters of either end of an error's message
PROGRESS_S = 20.0
WARM_UP_SHARE = 0.1  # of the time, without kills, before the first look at memory
WARM_UP_MIN_S, WARM_UP_MAX_S = 10.0, 45.0
SETTLE_MAX_S = 60.0  # for memory to come back: idle workers end and segments are given back after some seconds
SLACK_S = 300.0  # beyond the minutes asked for, then the soak ends itself with the stacks of its threads
MIB = 1 << 20

# What "back where it was" means. Processes differ by what they happened to run; a leak of one object or descriptor per
# hundred calls is far above all of these after a minute.
RUNTIME_MEMORY_SLACK = 64 * MIB
DRIVER_MEMORY_SLACK = 48 * MIB
SHARED_MEMORY_SLACK = 64 * MIB
DESCRIPTOR_SLACK = 10


class Ledger:
    """What became of every call, and which processes answered. Shared by the threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.submitted = 0
        self.right_results = 0
        self.right_errors: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.kills_s: list[float] = []
        self.seen: dict[int, int] = {}  # pid that answered a call -> its start tick

    def add(self, calls: int) -> None:
        with self.lock:
            self.submitted += calls

    def settle(self, call: soak_load.Call) -> None:
        """Waits for the call and books it under exactly one heading."""
        try:
            got = call.result(max(1.0, call.submitted_s + LOST_AFTER_S - time.monotonic()))
        except exceptions.GetTimeoutError:
            self._book(self.lost, call, f"nothing within {LOST_AFTER_S:g} s")
        except Exception as error:
            if self._is_right_error(call, error):
                with self.lock:
                    self.right_errors[type(error).__name__.partition("(")[0]] += 1
            else:
                self._book(self.wrong, call, f"{type(error).__name__}: {shortened(str(error))}")
        else:
            self._note_process(got)
            if call.is_right is not None and call.is_right(got):
                with self.lock:
                    self.right_results += 1
            else:
                self._book(self.wrong, call, f"the result {shortened(str(got))}")

    def _is_right_error(self, call: soak_load.Call, error: Exception) -> bool:
        if isinstance(error, call.errors):
            return call.message in str(error)
        # A crash is no excuse unless a process was killed since the call, or so shortly before that the news was late.
        was_killed = bool(self.kills_s) and self.kills_s[-1] > call.submitted_s - 5.0
        return was_killed and isinstance(error, call.crashes)

    def _note_process(self, got: Any) -> None:
        if isinstance(got, tuple) and isinstance(got[0], int) and got[0] not in self.seen:
            tick = processes.start_tick(got[0])
            if tick is not None:
                with self.lock:
                    self.seen[got[0]] = tick

    def _book(self, heading: list[str], call: soak_load.Call, what: str) -> None:
        with self.lock:
            heading.append(f"{call.kind}: {what}")
            if len(heading) <= REPORTED_MAX:
                print(f"soak: {heading[-1]}", file=sys.stderr, flush=True)


@dataclass
class Usage:
    """What the runtime and its driver hold at one moment."""

    runtime_bytes: int
    driver_bytes: int
    shared_bytes: int
    descriptors: int
    processes: int

    def beyond(self, before: Usage) -> list[str]:
        """What is more than it was, by more than the slack."""
        found = []
        for name, slack in (
            ("runtime_bytes", RUNTIME_MEMORY_SLACK),
            ("driver_bytes", DRIVER_MEMORY_SLACK),
            ("shared_bytes", SHARED_MEMORY_SLACK),
            ("descriptors", DESCRIPTOR_SLACK),
        ):
            was, now = getattr(before, name), getattr(self, name)
            if now > was + slack:
                found.append(f"{name} {now:,}, was {was:,} before the kills; {slack:,} more would be within bounds")
        return found

    def __str__(self) -> str:
        return (
            f"{self.processes} processes with {self.runtime_bytes / MIB:.0f} MiB, "
            f"driver with {self.driver_bytes / MIB:.0f} MiB and {self.descriptors} descriptors, "
            f"{self.shared_bytes / MIB:.0f} MiB in shared memory"
        )


@dataclass
class Watch:
    """Sees the runtime from outside: its processes, and the shared-memory files that they have open."""

    mark: str
    shared: set[Path] = field(default_factory=set)

    def family(self) -> set[int]:
        return processes.family(os.getpid(), self.mark)

    def usage(self) -> Usage:
        self.find_shared()
        family = self.family() - {os.getpid()}
        return Usage(
            runtime_bytes=sum(processes.pss_bytes(pid) for pid in family),
            driver_bytes=processes.pss_bytes(os.getpid()),
            shared_bytes=sum(size_of(path) for path in self.shared),
            descriptors=len(os.listdir("/proc/self/fd")),
            processes=len(family),
        )

    def find_shared(self) -> None:
        """Remember every file in /dev/shm that one of the processes maps or has open."""
        for pid in self.family():
            self.shared |= processes.shared_files(pid)

    def left_shared(self) -> list[Path]:
        return sorted(path for path in self.shared if path.exists())


def shortened(text: str) -> str:
    """The ends of a long message: what, and the last lines of the remote traceback."""
    return text if len(text) <= 2 * EXCERPT else f"{text[:EXCERPT]} [...] {text[-EXCERPT:]}"


def size_of(path: Path) -> int:
    """Bytes that the file takes of memory, holes not counted; 0 when it is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def load(ledger: Ledger, calls: soak_load.Load, until_s: float) -> None:
    """Rounds of calls until the time is over; one round is always in flight while the one before is settled."""
    earlier: list[soak_load.Call] = []
    while time.monotonic() < until_s:
        fresh = calls.round(SCENES_PER_ROUND)
        ledger.add(len(fresh))
        settle(ledger, earlier)
        earlier = fresh
    settle(ledger, earlier)


def settle(ledger: Ledger, calls: list[soak_load.Call]) -> None:
    for call in calls:
        ledger.settle(call)
    calls.clear()  # or the last round's references would still count as memory


def kill_now_and_then(ledger: Ledger, watch: Watch, seed: int, stop: threading.Event) -> None:
    """Kills processes that answered a call and are still the ones that did."""
    chance = random.Random(seed)
    while not stop.wait(chance.uniform(*KILL_INTERVAL_S)):
        family = watch.family() - {os.getpid()}
        with ledger.lock:
            alive = sorted(pid for pid, tick in ledger.seen.items() if processes.start_tick(pid) == tick)
            ledger.seen = {pid: ledger.seen[pid] for pid in alive}
        victims = [pid for pid in alive if pid in family]
        if victims:
            victim = chance.choice(victims)
            with ledger.lock:
                ledger.kills_s.append(time.monotonic())
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)


def run_load(ledger: Ledger, watch: Watch, seed: int, seconds: float, *, with_kills: bool) -> None:
    until_s = time.monotonic() + seconds
    stop = threading.Event()
    killer = threading.Thread(target=kill_now_and_then, args=(ledger, watch, seed, stop), daemon=True)
    threads = [
        threading.Thread(
            target=load, args=(ledger, soak_load.Load(seed + number, with_force=with_kills), until_s), daemon=True
        )
        for number in range(1, LOAD_THREADS + 1)
    ]
    for thread in [*threads, *([killer] if with_kills else [])]:
        thread.start()
    next_report_s = time.monotonic() + PROGRESS_S
    while any(thread.is_alive() for thread in threads):
        time.sleep(1.0)
        watch.find_shared()
        if time.monotonic() > next_report_s:
            next_report_s += PROGRESS_S
            print(f"soak: {summary(ledger)}; {watch.usage()}", flush=True)
    stop.set()
    if with_kills:
        killer.join()


def settled(watch: Watch, before: Usage | None) -> Usage:
    """The usage once it is back where it was, or once `SETTLE_MAX_S` is over; without `before`, once it is steady."""
    deadline = time.monotonic() + SETTLE_MAX_S
    gc.collect()
    last = watch.usage()
    while time.monotonic() < deadline:
        time.sleep(3.0)
        now = watch.usage()
        if not now.beyond(before or last) and (before is not None or not last.beyond(now)):
            return now
        last = now
    return last


def summary(ledger: Ledger) -> str:
    return (
        f"{ledger.submitted:,} calls, {ledger.right_results:,} right results, "
        f"{ledger.right_errors.total():,} right errors, {len(ledger.kills_s):,} kills; "
        f"{len(ledger.wrong)} wrong, {len(ledger.lost)} lost"
    )


def leftovers(watch: Watch, folder: Path) -> list[str]:
    """What is still there after `shutdown`. Processes get some seconds, and then an end."""
    killed = []
    deadline = time.monotonic() + 10.0
    while (left := watch.family() - {os.getpid()}) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        killed.append(f"process {pid}: {processes.command_of(pid)[:200]}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [
        *killed,
        *(f"shared memory {path}" for path in watch.left_shared()),
        *(f"file {path}" for path in sorted(folder.rglob("*")) if not path.is_dir()),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="for the choice of calls and kills; printed if not given"
    )
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if arguments.seed is None else arguments.seed
    seconds = 60 * arguments.minutes
    faulthandler.dump_traceback_later(seconds + SLACK_S, exit=True)

    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        watch = Watch(mark=uuid.uuid4().hex)
        os.environ[processes.MARK] = watch.mark
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [REPOSITORY, os.environ.get("PYTHONPATH")]))
        os.environ["TMPDIR"] = tempfile.tempdir = name  # so that whatever the runtime leaves behind is found
        ledger = Ledger()
        print(f"soak: {arguments.minutes:g} minutes with seed {seed}, process {os.getpid()}", flush=True)
        umbel.init(num_cpus=CPUS)
        warm_up_s = min(WARM_UP_MAX_S, max(WARM_UP_MIN_S, WARM_UP_SHARE * seconds))
        run_load(ledger, watch, seed, warm_up_s, with_kills=False)
        before = settled(watch, None)
        print(f"soak: before the kills: {before}", flush=True)
        run_load(ledger, watch, seed + 100, max(0.0, seconds - warm_up_s), with_kills=True)
        after = settled(watch, before)
        print(f"soak: after the kills:  {after}", flush=True)
        leaks = after.beyond(before)
        umbel.shutdown()
        leaks += leftovers(watch, Path(name))
    for leak in leaks[:REPORTED_MAX]:
        print(f"soak: leaked: {leak}", file=sys.stderr)
    unaccounted = ledger.submitted - ledger.right_results - ledger.right_errors.total() - len(ledger.wrong)
    unaccounted -= len(ledger.lost)
    print("soak: right errors: " + ", ".join(f"{count} {name}" for name, count in ledger.right_errors.most_common()))
    print(f"soak: {summary(ledger)}, {len(leaks)} leaked" + (f", {unaccounted} unaccounted for" if unaccounted else ""))
    return 1 if ledger.wrong or ledger.lost or leaks or unaccounted else 0


if __name__ == "__main__":
    sys.exit(main())
