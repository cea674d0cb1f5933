"""Workers that have become too large or too old are replaced, though their owner keeps them busy, and no task notices."""

from __future__ import annotations

import json
from typing import Any

import drivers
import pytest

pytestmark = pytest.mark.slow
PRELUDE = """
import json, os, pathlib, tempfile, time, umbel

MIB = 1 << 20
GATE = pathlib.Path(tempfile.mkdtemp(dir=os.environ["TMPDIR"])) / "gate"
UNTIL = time.monotonic() + 40
umbel.init(num_cpus=2)

def keep(mib):
    kept = globals().setdefault("kept", [])
    kept.append(bytearray(b"x") * (mib * MIB))
    return os.getpid(), sum(map(len, kept)) // MIB

leak = umbel.remote(max_retries=0)(keep)
quick = umbel.remote(max_retries=0)(lambda number: (number, os.getpid()))

def in_time():
    assert time.monotonic() < UNTIL, "it took too long"
    return True

def wait_for_end(pid):
    while pathlib.Path(f"/proc/{pid}").exists() and in_time():
        time.sleep(0.01)

def use_until(done, pids):
    while not done() and in_time():
        results = umbel.get([quick.remote(number) for number in range(50)])
        assert [number for number, _ in results] == list(range(50))
        pids.update(pid for _, pid in results)

def tell(**facts):
    print(json.dumps(facts), flush=True)
"""
AGE = {"UMBEL_WORKER_RECYCLE_S": "0.5"}
SIZE = {"UMBEL_WORKER_RECYCLE_BYTES": str(64 << 20)}


def told(source: str, **environment: str) -> Any:
    """What a program told with `tell`, after it has left nothing behind. "errors": its standard error."""
    output, errors = drivers.run(PRELUDE + source, timeout_s=55, **environment)
    return {**json.loads(output.splitlines()[-1]), "errors": errors}


def test_worker_that_leaks_while_it_is_used_without_a_pause_is_replaced() -> None:
    result = told(
        """
held = {}
while len(held) < 4 and in_time():
    pid, mib = umbel.get(leak.remote(5))
    held[pid] = mib
    time.sleep(0.02)
*gone, last = held
for pid in gone:
    wait_for_end(pid)
tell(held=list(held.values())[:3])
""",
        **SIZE,
    )
    assert all(mib > 40 for mib in result["held"])  # what the process holds beside that counts too
    assert result["errors"].count("is replaced when it is") == 1
    assert "more than 64 MiB; if its tasks keep that on purpose, give them as much memory=" in result["errors"]


def test_worker_whose_tasks_need_much_and_keep_nothing_or_no_more_than_promised_stays() -> None:
    """Looked at while a task holds much it is asked back, and used again."""
    result = told(
        """
@umbel.remote
def large():
    block = bytearray(b"x") * (150 * MIB)
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        pass
    return os.getpid()

promised = leak.options(memory=400 * MIB)
until = time.monotonic() + 2.5
transient, kept = set(), set()
while time.monotonic() < until:
    transient.add(umbel.get(large.remote()))
umbel.get(promised.remote(150))
until = time.monotonic() + 2.5
while time.monotonic() < until:
    kept.add(umbel.get(promised.remote(0))[0])
    time.sleep(0.02)
tell(gone=[pid for pid in transient if not os.path.exists(f"/proc/{pid}")], kept=len(kept))
""",
        **SIZE,
    )
    assert (result["gone"], result["kept"]) == ([], 1)
    assert "is replaced" not in result["errors"]


def test_old_workers_are_replaced_under_load_and_running_tasks_end_where_they_run() -> None:
    """No task has a retry, so that one that was interrupted, or sent to a worker that goes, would fail."""
    result = told(
        """
@umbel.remote(max_retries=0)
def patient(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)
    return os.getpid()

waiting = patient.remote(str(GATE))
pids = set()
use_until(lambda: len(pids) >= 4, pids)
GATE.touch()
runner = umbel.get(waiting)
use_until(lambda: len(pids) >= 6, pids)
wait_for_end(runner)
tell(others=len(pids - {runner}))
""",
        **AGE,
    )
    assert result["others"] >= 5


def test_old_worker_stays_for_what_it_owns_and_goes_when_nobody_needs_that() -> None:
    result = told(
        """
make = umbel.remote(lambda: (os.getpid(), umbel.put(bytes(200_000))))
owner, ref = umbel.get(make.remote())
pids = set()
use_until(lambda: len(pids) >= 4, pids)
value = len(umbel.get(ref))
del ref
wait_for_end(owner)
tell(value=value)
""",
        **AGE,
    )
    assert result["value"] == 200_000


def test_actor_is_never_replaced_for_its_age_or_size() -> None:
    result = told(
        """
class Keeper:
    keep = staticmethod(keep)

    def add(self, mib):
        return keep(mib)

keeper = umbel.remote(Keeper).remote()
first, _ = umbel.get(keeper.add.remote(100))
pids = set()
use_until(lambda: len(pids) >= 3, pids)
tell(same=umbel.get(keeper.add.remote(0)) == (first, 100))
""",
        **AGE,
        **SIZE,
    )
    assert result["same"]


def test_owner_that_dies_while_its_old_worker_is_asked_back_takes_nothing_with_it() -> None:
    """The owner is itself a worker, whose tasks run in an old one."""
    result = told(
        """
@umbel.remote(max_retries=0)
def inner(gate):
    pathlib.Path(gate).touch()
    while True:
        time.sleep(0.01)

@umbel.remote(max_retries=0)
def outer(gate):
    ref = inner.remote(gate)
    while not os.path.exists(gate):
        time.sleep(0.01)
    time.sleep(1.0)  # the worker of `inner` comes of age
    os._exit(1)

try:
    umbel.get(outer.remote(str(GATE)))
except umbel.exceptions.WorkerCrashedError:
    pids = set()
    use_until(lambda: len(pids) >= 3, pids)
    tell(crashed=True)
""",
        **AGE,
    )
    assert result["crashed"]
