"""A cluster of five daemons that work while processes are killed and stopped, and connections cut, held up and delayed.

    python benchmarks/chaos.py --minutes 10 --seed 7

All that nodes say to each other passes through relays. Threads submit what `chaos_load.py` has: the soak's mixed load,
shuffles of large values, a bank, named actors, generators, trees of tasks. Each call must end in its right result or in an
error that is right for it, within a bounded time; a node must not end without a reason. Afterwards all nodes are there,
nothing waits or is leased, and memory, shared memory and descriptors are back where they were; after the end nothing is left.
Exit status 1 when anything was wrong, lost or leaked. The attacks are drawn from the seed; they are printed when something
was, and with --log. Linux only.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import sys
import tempfile
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

import umbel
from benchmarks import chaos_attacks, chaos_load, processes, soak_load
from benchmarks.chaos_cluster import ChaosCluster
from benchmarks.chaos_visitors import Visitors
from benchmarks.ledger import REPORTED_MAX, Ledger
from benchmarks.log_scan import MARKS, LogScan
from benchmarks.watch import DESCRIPTOR_SLACK, Usage, Watch
from umbel import exceptions
from umbel._client import actor, current
from umbel.util import state

REPOSITORY = str(Path(__file__).resolve().parent.parent)
NODES, CPUS = 5, 2
LOAD_THREADS = 2
VISITORS = 2  # programs on other nodes
SCENES_PER_ROUND = 6
ATTACK_INTERVAL_S = 1.5  # on average: several at once, as most last for seconds
LOST_AFTER_S = (
    120.0  # a node is dead after 8 s of silence and replaced 3 s later; whatever is tried again ends soon after
)
STUCK_S = 60.0  # more than that a thread waits for something that should have ended by LOST_AFTER_S
EXCUSE_S = 30.0  # the news of a node's death is late by what it takes to declare it dead
PROGRESS_S = 20.0
WARM_UP_SHARE = 0.1
WARM_UP_MIN_S, WARM_UP_MAX_S = 5.0, 45.0
QUIET_MAX_S = 60.0  # for the cluster to be whole and idle again
SLACK_S = 600.0
STORAGE = "control.db"  # the head's, where that is killed
CRASHES = (exceptions.NodeDiedError,)

# Deaths are found sooner than by default, so that more of them fit into the time.
SETTINGS = {
    "UMBEL_HEALTH_CHECK_PERIOD_S": "1",
    "UMBEL_HEALTH_CHECK_TIMEOUT_S": "4",
    "UMBEL_HEALTH_CHECK_FAILURE_THRESHOLD": "4",
    "UMBEL_NODE_RECONNECT_S": "3",
    "UMBEL_LOG_TO_DRIVER": "0",
    "UMBEL_WATCHDOG_S": "60",
}
# The node of the program that judges outlives the head, so it must not be given up while that is away, or its relay is shut.
KILL_HEAD_SETTINGS = {"UMBEL_NODE_RECONNECT_S": "10"}


class _Errors(logging.Handler):
    """What this process's runtime logs about itself."""

    def __init__(self, run: Chaos) -> None:
        super().__init__(logging.ERROR)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        if not any(mark in record.getMessage() for mark in MARKS):
            return  # it tells of the program, for example that nobody has read an error
        told = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self._run.ledger.book_beside(f"logged: {record.getMessage()}\n{told}")


class Chaos:
    """One run. say: a line of the log of attacks."""

    def __init__(self, arguments: argparse.Namespace, seed: int, folder: str) -> None:
        self.seed = seed
        self.interval_s: float = arguments.interval
        self.kills_head: bool = arguments.kill_head
        self._scenes: int = arguments.scenes
        self.log: list[str] = []
        self._logs = LogScan(Path(folder))
        self._prints_log: bool = arguments.log
        self._began_s = time.monotonic()
        self.watch = Watch(mark=uuid.uuid4().hex)
        os.environ[processes.MARK] = self.watch.mark
        logging.getLogger("umbel").addHandler(_Errors(self))
        ends = (exceptions.LocalNodeDiedError,)
        self.ledger = Ledger("chaos", lost_after_s=LOST_AFTER_S, excuse_s=EXCUSE_S, crashes=CRASHES, ends=ends)
        storage = f"sqlite://{folder}/{STORAGE}" if self.kills_head else ""
        self.cluster = ChaosCluster(NODES, cpus=CPUS, folder=folder, storage=storage)
        self.watch.others = self.cluster.relayed_descriptors
        self._attacker = chaos_attacks.Attacker(self.cluster, self.ledger, self.say, self.last_words)
        umbel.init(address=self.cluster.home_session)
        first = self.cluster.home.number + 1
        self.visitors = Visitors(self.cluster, self.cluster.places[first : first + VISITORS], self.ledger, seed)
        self.loads = [
            chaos_load.ChaosLoad(seed + number, f"chaos-{number}", with_force=False)
            for number in range(1, LOAD_THREADS + 1)
        ]

    def say(self, line: str) -> None:
        self.log.append(line)
        if self._prints_log:
            print(f"chaos: [{time.monotonic() - self._began_s:.2f}] {line}", flush=True)

    def run_load(self, seconds: float, *, is_attacked: bool = False) -> bool:
        """False if a thread of it waits for ever."""
        until_s = time.monotonic() + seconds
        threads = [threading.Thread(target=self._load, args=(load, until_s), daemon=True) for load in self.loads]
        for thread in threads:
            thread.start()
        next_report_s = time.monotonic() + PROGRESS_S
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.5)
            self.watch.find_shared()
            self.scan_logs()
            if is_attacked:
                self.visitors.look()
            else:  # on a busy machine a node may be declared dead though nobody has touched it
                self._attacker.replace_who_has_ended()
            if self._stuck():
                return False
            if time.monotonic() > next_report_s:
                next_report_s += PROGRESS_S
                print(f"chaos: {self.ledger.summary()}; {self.watch.usage()}", flush=True)
        return True

    def scan_logs(self) -> None:
        for found in self._logs.scan():
            self.ledger.book_beside(f"log: {found}")

    def last_words(self, session: str) -> str:
        """Of a daemon."""
        return self._logs.tails.get(session, "")

    def _load(self, load: chaos_load.ChaosLoad, until_s: float) -> None:
        try:
            self._work(load, until_s)
        except exceptions.LocalNodeDiedError as error:
            self.ledger.book_beside(f"the node of this program has ended: {error}")

    def _work(self, load: chaos_load.ChaosLoad, until_s: float) -> None:
        """One round is always in flight while the one before is settled."""
        earlier: list[soak_load.Call] = []
        while time.monotonic() < until_s:
            thread = threading.get_ident()
            self.ledger.doing[thread] = (time.monotonic(), "the submission of a round")
            fresh = load.round(self._scenes)
            del self.ledger.doing[thread]
            self.ledger.add(len(fresh))
            self._settle(earlier)
            earlier = fresh
        self._settle(earlier)

    def _settle(self, calls: list[soak_load.Call]) -> None:
        for call in calls:
            self.ledger.settle(call)
        calls.clear()

    def _stuck(self) -> bool:
        for since_s, what in list(self.ledger.doing.values()):
            if time.monotonic() - since_s > LOST_AFTER_S + STUCK_S:
                self.ledger.book_beside(f"a thread has waited for {time.monotonic() - since_s:.0f} s: {what}")
                faulthandler.dump_traceback(all_threads=True)
                return True
        return False

    def attack(self, seconds: float) -> bool:
        attacks = chaos_attacks.schedule(
            self.seed, seconds, places=NODES, interval_s=self.interval_s, kills_head=self.kills_head
        )
        for load in self.loads:
            load.with_force = True  # a worker that is ended by that takes with it what it owns, like one that is killed
        self._attacker.start(attacks)
        went_on = self.run_load(seconds, is_attacked=True)
        self._attacker.finish()
        self.visitors.close()
        return went_on

    def usage(self, before: Usage | None, head_before: int = sys.maxsize) -> tuple[Usage, int]:
        """When it has settled; and the descriptors of the head's daemon, which closes what led to the dead within seconds."""
        settled, until_s = self.watch.settled(before), time.monotonic() + QUIET_MAX_S
        while True:
            of_head = processes.descriptor_count(self.cluster.head.pids()[0])
            if of_head <= head_before + DESCRIPTOR_SLACK or time.monotonic() > until_s:
                return settled, of_head
            time.sleep(0.2)

    def come_to_rest(self) -> list[str]:
        """Waits until all nodes are there and idle; returns what is not so at last."""
        until_s = time.monotonic() + QUIET_MAX_S
        while (found := self._unrest()) and time.monotonic() < until_s:
            time.sleep(0.2)
            self._attacker.replace_who_has_ended()  # one that was cut off hears late that it was declared dead
        self._attacker.finish()
        return [*found, *self._why_alive(), *self._doing()] if found else []

    def _why_alive(self) -> list[str]:
        """Of actors that are there: what the head knows of them, and what this program does of those that it has created. To be
        called before anything else is asked, which may let go of what nobody needs."""
        engine: Any = current.engine()
        records = engine.values.table.records
        found = []
        for one in self.cluster.asked(self.cluster.head, "actors"):
            if one["state"] != "DEAD":
                record = records.get(bytes.fromhex(str(one["actor"])) + actor.LIFETIME_SUFFIX)
                unread = len(engine.values._drops)
                found.append(f"actor: {one}; here it is {record}, {unread} references were let go of and not looked at")
        return found

    def _doing(self) -> list[str]:
        """What runs, as this program and the workers in use see it."""
        states = ("NIL", "RUNNING", "SUBMITTED_TO_WORKER", "PENDING_NODE_ASSIGNMENT", "PENDING_ARGS_AVAIL")
        found = [
            f"task: {one}" for one in state.list_tasks(filters=[("state", "in", states)], raise_on_missing_output=False)
        ]
        for place in self.cluster.places:
            for worker in self.cluster.asked(place, "workers"):
                if worker["client"] or worker["actor"]:
                    found.append(f"worker {worker['worker']}: {self.cluster.stack(place, worker['worker'])}")
        return found

    def _unrest(self) -> list[str]:
        try:
            living = self.cluster.living()
            if living != NODES:
                return [f"{living} nodes are alive, {NODES} should be"]
            found = []
            for place in self.cluster.places:
                found += [f"node {place.number}: waits: {one}" for one in self.cluster.asked(place, "pending")]
                leased = [one for one in self.cluster.asked(place, "workers") if one["client"] or one["actor"]]
                found += [f"node {place.number}: leased: {one}" for one in leased]
            return found
        except exceptions.UmbelSystemError as error:
            return [str(error)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="for calls and attacks; printed if not given")
    parser.add_argument("--interval", type=float, default=ATTACK_INTERVAL_S, help="seconds between attacks, on average")
    parser.add_argument("--scenes", type=int, default=SCENES_PER_ROUND, help="in a round, of which two are in flight")
    parser.add_argument("--kill-head", action="store_true", help="kill the head as well, and start it again")
    parser.add_argument("--log", action="store_true", help="print each attack as it is made")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if arguments.seed is None else arguments.seed
    seconds = 60 * arguments.minutes
    faulthandler.dump_traceback_later(seconds + SLACK_S, exit=True)
    os.environ.update({**SETTINGS, **(KILL_HEAD_SETTINGS if arguments.kill_head else {})})
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [REPOSITORY, os.environ.get("PYTHONPATH")]))

    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as name:  # short, for the paths of sockets
        os.environ["TMPDIR"] = tempfile.tempdir = name  # so that whatever the runtime leaves behind is found
        print(f"chaos: {arguments.minutes:g} minutes with seed {seed}, process {os.getpid()}", flush=True)
        run = Chaos(arguments, seed, name)
        warm_up_s = min(WARM_UP_MAX_S, max(WARM_UP_MIN_S, WARM_UP_SHARE * seconds))
        leaks = work(run, warm_up_s, max(0.0, seconds - warm_up_s))
        umbel.shutdown()
        run.cluster.close()
        for own in ("token", *([STORAGE] if run.kills_head else [])):
            Path(name, own).unlink()
        leaks += run.watch.leftovers(Path(name))
    return told(run, leaks)


def work(run: Chaos, warm_up_s: float, seconds: float) -> list[str]:
    """The load without and with attacks; returns what was not as before after them."""
    if not run.run_load(warm_up_s):
        return []
    before, head_before = run.usage(None)
    print(f"chaos: before the attacks: {before}, head with {head_before} descriptors", flush=True)
    if not run.attack(seconds):
        return []
    for load in run.loads:
        load.close()
    attacked_s = time.monotonic()
    unrest = run.come_to_rest()
    print(f"chaos: at rest {time.monotonic() - attacked_s:.1f} s after the attacks", flush=True)
    run.scan_logs()
    after, head_after = run.usage(before, head_before)
    print(f"chaos: after the attacks:  {after}, head with {head_after} descriptors", flush=True)
    leaks = [*unrest, *after.beyond(before)]
    if head_after > head_before + DESCRIPTOR_SLACK:
        leaks.append(f"{head_after} descriptors of the head's daemon, were {head_before}")
    return leaks


def told(run: Chaos, leaks: list[Any]) -> int:
    """Prints what came of it; returns the exit status."""
    ledger = run.ledger
    is_clean = ledger.is_clean() and not leaks
    for leak in leaks[:REPORTED_MAX]:
        print(f"chaos: leaked: {leak}", file=sys.stderr)
    if not is_clean and not run._prints_log:
        for line in run.log:
            print(f"chaos: {line}", file=sys.stderr)
    unaccounted = ledger.unaccounted()
    print("chaos: right errors: " + ", ".join(f"{count} {name}" for name, count in ledger.right_errors.most_common()))
    print(
        f"chaos: {ledger.summary()}, {len(leaks)} leaked" + (f", {unaccounted} unaccounted for" if unaccounted else "")
    )
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
