"""A program on a node of the cluster that is not the head, for `chaos.py`: it works until its input ends.

    python benchmarks/chaos_visitor.py SESSION SEED

Prints its books at the end. Exit status 1 when anything was wrong or lost, 4 when its node has died. What it has must go with it.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

import umbel
from benchmarks import chaos_load
from benchmarks.ledger import Ledger
from umbel import exceptions

LOST_AFTER_S = 120.0
SCENES_PER_ROUND = 3
NODE_DIED = 4  # the exit status


def main() -> int:
    _, session, seed = sys.argv
    over = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    ends = (exceptions.LocalNodeDiedError,)
    ledger = Ledger("chaos: visitor", lost_after_s=LOST_AFTER_S, crashes=(exceptions.NodeDiedError,), ends=ends)
    ledger.note_disturbance("unknown to it", float("inf"))
    try:
        umbel.init(address=session)
        load = chaos_load.ChaosLoad(int(seed), f"visitor-{seed}", with_force=True, lasting=False)
        while not over.is_set():
            calls = load.round(SCENES_PER_ROUND)
            ledger.add(len(calls))
            for call in calls:
                ledger.settle(call)
        umbel.shutdown()
    except (exceptions.LocalNodeDiedError, exceptions.UmbelSystemError, ConnectionError) as error:
        print(f"chaos: visitor: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
        return NODE_DIED
    print(f"chaos: visitor: {ledger.summary()}", flush=True)
    return 0 if ledger.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main())
