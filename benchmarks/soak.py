"""Mixed load with `kill -9` of workers and actors, and a count of what came of it.

    python benchmarks/soak.py --minutes 10 --seed 7

Threads submit tasks, actors, generators, puts and cancellations while another kills processes that had answered a call.
Each call must end in its right result or in an error that is right for it (`soak_load.py`); afterwards memory, file
descriptors and shared memory must be back where they were before the kills, and after `shutdown` no process, no shared
memory and no file may be left. Exit status 1 when anything was wrong, lost or leaked. Ends itself. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

import umbel
from benchmarks import processes, soak_load
from benchmarks.ledger import REPORTED_MAX, Ledger
from benchmarks.watch import Watch

REPOSITORY = str(Path(__file__).resolve().parent.parent)
CPUS = 4
LOAD_THREADS = 2
SCENES_PER_ROUND = 12  # some 150 calls: enough in flight that a kill finds work under way
KILL_INTERVAL_S = (0.1, 1.0)
LOST_AFTER_S = 120.0  # no call of the load takes more than seconds, however often it is retried
PROGRESS_S = 20.0
WARM_UP_SHARE = 0.1  # of the time, without kills, before the first look at memory
WARM_UP_MIN_S, WARM_UP_MAX_S = 10.0, 45.0
SLACK_S = 300.0  # beyond the minutes asked for, then the soak ends itself with the stacks of its threads


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
            ledger.note_disturbance("kills")
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
            print(f"soak: {ledger.summary()}; {watch.usage()}", flush=True)
    stop.set()
    if with_kills:
        killer.join()


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
        ledger = Ledger("soak", lost_after_s=LOST_AFTER_S)
        print(f"soak: {arguments.minutes:g} minutes with seed {seed}, process {os.getpid()}", flush=True)
        umbel.init(num_cpus=CPUS)
        warm_up_s = min(WARM_UP_MAX_S, max(WARM_UP_MIN_S, WARM_UP_SHARE * seconds))
        run_load(ledger, watch, seed, warm_up_s, with_kills=False)
        before = watch.settled(None)
        print(f"soak: before the kills: {before}", flush=True)
        run_load(ledger, watch, seed + 100, max(0.0, seconds - warm_up_s), with_kills=True)
        after = watch.settled(before)
        print(f"soak: after the kills:  {after}", flush=True)
        leaks = after.beyond(before)
        umbel.shutdown()
        leaks += watch.leftovers(Path(name))
    for leak in leaks[:REPORTED_MAX]:
        print(f"soak: leaked: {leak}", file=sys.stderr)
    unaccounted = ledger.unaccounted()
    print("soak: right errors: " + ", ".join(f"{count} {name}" for name, count in ledger.right_errors.most_common()))
    print(
        f"soak: {ledger.summary()}, {len(leaks)} leaked" + (f", {unaccounted} unaccounted for" if unaccounted else "")
    )
    return 0 if ledger.is_clean() and not leaks else 1


if __name__ == "__main__":
    sys.exit(main())
