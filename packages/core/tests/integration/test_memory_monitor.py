"""When memory is short the worker that caused it goes, its task comes again with less company, and nothing else suffers.

The limit is one that the configuration sets on the processes of a session, so that the machine has enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import pytest

from umbel import cluster_utils
from umbel._base import control_groups

LIMIT = str(400 << 20)
PRELUDE = """
import json, os, pathlib, subprocess, sys, tempfile, time, umbel
from umbel.util import state

MIB = 1 << 20
GATE = pathlib.Path(tempfile.mkdtemp(dir=os.environ["TMPDIR"])) / "gate"
umbel.init(num_cpus=4, object_store_memory=80 * MIB)

def held(mib):
    return bytearray(b"x") * (mib * MIB)

def wait(path):
    while not path.exists():
        time.sleep(0.005)

def grow(until_mib, pause_s=0.01):
    blocks = []
    for _ in range(0, until_mib, 5):
        blocks.append(held(5))
        time.sleep(pause_s)
    return blocks

def tell(**facts):
    print(json.dumps(facts), flush=True)

def error_of(ref):
    try:
        return umbel.get(ref, timeout=40)
    except Exception as error:
        return error
"""


def told(source: str, **environment: str) -> Any:
    """What a program told with `tell`, after it has left nothing behind. "errors": its standard error."""
    output, errors = drivers.run(PRELUDE + source, timeout_s=55, **{"UMBEL_MEMORY_LIMIT_BYTES": LIMIT, **environment})
    return {**json.loads(output.splitlines()[-1]), "errors": errors}


def test_all_finish_though_each_takes_more_than_its_share() -> None:
    """Four at a time take more than there is. An actor and a task of another program of the same node, which do not grow, stay in
    their processes meanwhile, though they could be run again."""
    bystander = """
@umbel.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Counter:
    def __init__(self): self.count = 0
    def add(self): self.count += 1; return os.getpid(), self.count

@umbel.remote(num_cpus=0)
def waits(path, log):
    with open(log, "a") as file:
        file.write("began\\n")
    wait(path)

log = GATE.with_name("log")
counter, waiting = Counter.remote(), waits.remote(GATE, log)
pid, _ = umbel.get(counter.add.remote())
wait(log)
tell(ready=True)
sys.stdin.readline()
GATE.touch()
umbel.get(waiting)
tell(ended=umbel.get(counter.add.remote()) == (pid, 2), began=log.read_text().split())
"""
    many = """
@umbel.remote
def big(index, path):
    block = held(50)
    wait(path)
    time.sleep(0.05)
    return index

refs = [big.remote(index, GATE) for index in range(200)]
from umbel._client import current
while current.engine().deaths.memory_kills is None:  # the first four are there together, however slowly they start
    umbel.wait(refs, timeout=0.01)
GATE.touch()
tell(right=umbel.get(refs, timeout=50) == list(range(200)))
"""
    of_node = "num_cpus=4, object_store_memory=80 * MIB"
    assert of_node in PRELUDE
    with homes.own_home(UMBEL_MEMORY_LIMIT_BYTES=str(250 << 20)) as home, contextlib.ExitStack() as running:
        node = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 80 << 20}
        )
        running.callback(node.shutdown)
        begin = PRELUDE.replace(of_node, f"address={node.address!r}")
        other = drivers.Driver(begin + bystander, home)
        running.callback(other.end)
        assert json.loads(other.line()) == {"ready": True}
        own = drivers.Driver(begin + many, home)
        running.callback(own.end)
        output, errors = own.finish(55)
        assert json.loads(output.splitlines()[-1]) == {"right": True}
        assert "memory ran short" in errors
        other.tell()
        assert json.loads(other.line()) == {"ended": True, "began": ["began"]}
        other.finish()


def test_hog_among_modest_tasks_is_the_one_that_dies() -> None:
    """The modest ones were there before, and hold more than the hog at first."""
    result = told("""
@umbel.remote(num_cpus=0, max_retries=0)
def modest(path, begun):
    block = held(40)
    begun.with_name(f"begun{os.getpid()}").touch()
    wait(path)
    return os.getpid()

@umbel.remote(num_cpus=0, max_retries=0)
def hog():
    grow(600, 0.03)

modest_ones = [modest.remote(GATE, GATE) for _ in range(3)]
while len(list(GATE.parent.glob("begun*"))) < 3:
    time.sleep(0.005)
ref = hog.remote()
error = error_of(ref)
ended = state.get_task(ref)
(worker,) = state.list_workers(filters=[("worker_id", "=", ended.worker_id)], detail=True)
GATE.touch()
pids = umbel.get(modest_ones, timeout=40)
tell(kind=type(error).__name__, text=str(error), curve=error.curve, peak=error.peak_bytes, used=error.used_bytes,
     limit=error.limit_bytes, others=[one["bytes"] for one in error.others], pids=len(set(pids)),
     ended=[ended.state, ended.error_type, ended.error_message == str(error)],
     exit=[worker.is_alive, worker.exit_type, worker.exit_detail])
""")
    assert (result["kind"], result["pids"], result["limit"]) == ("OutOfMemoryError", 3, int(LIMIT))
    assert result["ended"] == ["FAILED", "OUT_OF_MEMORY", True]
    assert result["exit"][:2] == [False, "NODE_OUT_OF_MEMORY"]
    assert "memory ran short" in result["exit"][2]
    assert "task hog was killed" in result["text"]
    assert "max_retries=0" in result["text"]
    assert result["text"].count("modest") == 3
    sizes = [size for _, size in result["curve"]]
    assert sizes == sorted(sizes)
    assert len(sizes) > 1
    assert 100 << 20 < result["peak"] < 400 << 20
    assert result["used"] > 380 << 20
    assert all(size > 40 << 20 for size in result["others"])


def test_task_that_fits_nowhere_fails_and_says_that_it_was_alone() -> None:
    result = told("""
@umbel.remote
def huge():
    grow(1000, 0)

error = error_of(huge.remote())
from umbel._client import current
counted = current.engine().query("metrics")["memory_kills"]
tell(kind=type(error).__name__, kills=error.kills, counted=counted, text=str(error))
""")
    assert (result["kind"], result["kills"], result["counted"]) == ("OutOfMemoryError", 1, 1)
    assert "it ran alone" in result["text"]


def test_retries_end() -> None:
    """Company that has asked for its memory is spared: so the other is killed each time, until its retries are over."""
    result = told(
        """
@umbel.remote(num_cpus=0, memory=150 * MIB)
def promised(path):
    block = held(120)
    path.with_name("begun").touch()
    wait(path)

@umbel.remote(num_cpus=0)
def stubborn():
    grow(500, 0.002)

waiting = promised.remote(GATE)
wait(GATE.with_name("begun"))
error = error_of(stubborn.remote())
GATE.touch()
umbel.get(waiting, timeout=40)
tell(kind=type(error).__name__, kills=error.kills, text=str(error))
""",
        UMBEL_TASK_OOM_RETRIES="0",
    )
    assert (result["kind"], result["kills"]) == ("OutOfMemoryError", 1)
    assert "UMBEL_TASK_OOM_RETRIES is 0" in result["text"]


def test_explain_says_that_a_task_was_killed_and_waits_for_memory() -> None:
    result = told("""
@umbel.remote(num_cpus=0, memory=200 * MIB)
def promised(path):
    block = held(150)
    path.with_name("begun").touch()
    wait(path)

@umbel.remote(num_cpus=0)
def late(path):
    if not path.exists():
        grow(500)
    return "done"

waiting = promised.remote(GATE)
wait(GATE.with_name("begun"))
ref = late.remote(GATE)
story = umbel.util.state.explain(ref)
until = time.monotonic() + 40
while story.last().code != "resources" and time.monotonic() < until:
    time.sleep(0.01)
    story = umbel.util.state.explain(ref)
GATE.touch()
result = umbel.get(ref, timeout=40)
attempts = [[one.attempt_number, one.state, one.error_type] for one in state.get_task(ref)]
tell(first=story.facts.get("memory_kills"), text=str(story), result=result, attempts=attempts)
""")
    assert (result["first"], result["result"]) == (1, "done")
    assert result["attempts"] == [[0, "FAILED", "OUT_OF_MEMORY"], [1, "FINISHED", None]]
    assert "the result of late, which was killed once when memory was short" in result["text"]
    assert "waits for memory (" in result["text"]


def test_killed_actor_restarts_and_says_why() -> None:
    result = told("""
@umbel.remote(max_restarts=1)
class Leaky:
    def leak(self):
        self.blocks = grow(600)
    def pid(self):
        return os.getpid()

actor = Leaky.remote()
first = umbel.get(actor.pid.remote())
during = error_of(actor.leak.remote())
second = umbel.get(actor.pid.remote(), timeout=40)
last = error_of(actor.leak.remote())
after = error_of(actor.pid.remote())
from umbel.util.state import list_cluster_events
events = [one.message for one in list_cluster_events(filters=[("source_type", "=", "MEMORY")])]
tell(restarted=first != second, events=events, during=[type(during).__name__, str(during)], last=[type(last).__name__, str(last)],
     after=[type(after).__name__, str(after)])
""")
    assert result["restarted"]
    assert [result[name][0] for name in ("during", "last", "after")] == ["OutOfMemoryError"] * 2 + ["ActorDiedError"]
    assert "actor Leaky" in result["during"][1]
    assert "It restarts" in result["during"][1]
    assert "It is dead" in result["last"][1]
    assert "memory ran short" in result["after"][1]
    assert "restarts are used up" in result["after"][1]
    assert "was killed: memory ran short" in result["errors"]  # the driver is told, since something was lost
    assert [": memory ran short" in one for one in result["events"]] == [True, True]


def test_what_a_worker_has_started_counts_and_goes_with_it() -> None:
    result = told("""
PROGRAM = "import time; block = bytearray(b'x') * (600 << 20); time.sleep(100)"

@umbel.remote(max_retries=0)
def parent():
    subprocess.run([sys.executable, "-c", PROGRAM])

error = error_of(parent.remote())
tell(kind=type(error).__name__)
""")
    assert result["kind"] == "OutOfMemoryError"


def test_what_makes_an_environment_counts_as_the_sessions(tmp_path: pathlib.Path) -> None:
    """A task of 100 MiB that nobody retries goes when the making of an environment takes 500 MiB of 400."""
    python = tmp_path / "python"
    python.write_text(f"""#!{sys.executable}
import subprocess, sys
program = "import time; block = bytearray(b'x') * (500 << 20); time.sleep(100)"
subprocess.run([sys.executable, "-c", program])  # as builds run pip
""")
    python.chmod(0o700)
    result = told(f"""
@umbel.remote(max_retries=0)
def modest(path):
    block = held(100)
    path.with_name("begun").touch()
    wait(path)

waiting = modest.remote(GATE)
wait(GATE.with_name("begun"))
other = umbel.remote(lambda: 1).options(runtime_env={{"py_executable": {str(python)!r}}}).remote()
error = error_of(waiting)
umbel.cancel(other)
tell(kind=type(error).__name__, used=getattr(error, "used_bytes", 0))
""")
    assert result["kind"] == "OutOfMemoryError"
    assert result["used"] > 380 << 20  # of which the task has 100


def test_worker_that_holds_too_much_is_replaced_when_idle() -> None:
    result = told(
        """
kept = []

@umbel.remote
def leak():
    globals().setdefault("kept_here", []).append(held(90))
    return os.getpid()

first = umbel.get(leak.remote())
until = time.monotonic() + 40
while pathlib.Path(f"/proc/{first}").exists() and time.monotonic() < until:
    time.sleep(0.01)
tell(gone=not pathlib.Path(f"/proc/{first}").exists(), other=umbel.get(leak.remote()) != first)
""",
        UMBEL_WORKER_RECYCLE_BYTES=str(64 << 20),
    )
    assert (result["gone"], result["other"]) == (True, True)


def test_monitor_can_be_switched_off() -> None:
    result = told(
        """
@umbel.remote(max_retries=0)
def hog():
    return len(grow(600, 0))

tell(result=umbel.get(hog.remote(), timeout=40))
""",
        UMBEL_MEMORY_MONITOR="0",
    )
    assert result["result"] == 120


@contextlib.contextmanager
def control_group(limit_bytes: int) -> Iterator[str]:
    """A control group with a limit, below this process's own. Skips the test where none can be made."""
    for version, own in control_groups._memberships("/proc/self/cgroup"):
        path = pathlib.Path(control_groups.CGROUP_ROOT, version.path, own.lstrip("/"), f"umbel-test-{os.getpid()}")
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            try:
                (path / version.limit).write_text(str(limit_bytes))
            except OSError:
                continue
            yield str(path)
            return
        finally:
            drivers.wait_until(lambda: not (path / "cgroup.procs").read_text())
            path.rmdir()
    pytest.skip("this process may not make control groups that limit memory")


def test_limit_of_a_control_group_is_kept_before_the_system_kills() -> None:
    with control_group(400 << 20) as group:
        result = told(
            """
pathlib.Path(os.environ["GROUP"], "cgroup.procs").write_text(str(os.getpid()))
umbel.shutdown()
umbel.init(num_cpus=2, object_store_memory=80 * MIB)

@umbel.remote(max_retries=0)
def hog():
    grow(1000)

error = error_of(hog.remote())
tell(kind=type(error).__name__, text=str(error), limit=error.limit_bytes)
""",
            UMBEL_MEMORY_LIMIT_BYTES="0",
            GROUP=group,
        )
    assert (result["kind"], result["limit"]) == ("OutOfMemoryError", 400 << 20)
    assert f"the processes of the control group {group} use" in result["text"]


@pytest.fixture
def isolation_group() -> Iterator[str]:
    """A group that an Umbel session may make its own below."""
    with control_group(2 << 30) as group:
        yield group


def test_isolation_holds_a_worker_to_its_memory_and_a_retry_gets_more(isolation_group: str) -> None:
    result = told(
        """
GROUP = pathlib.Path(os.environ["UMBEL_MEMORY_ISOLATION"])

@umbel.remote(memory=100 * MIB)
def needs_more():
    grow(150, 0.001)
    return [path.name for path in GROUP.glob("umbel-*/*") if path.is_dir()]

error = error_of(needs_more.options(max_retries=0).remote())
groups = umbel.get(needs_more.remote(), timeout=40)
free = umbel.get(umbel.remote(lambda: len(grow(300, 0))).remote(), timeout=40)  # it asks for nothing: no limit
umbel.shutdown()
tell(kind=type(error).__name__, text=str(error), demand=error.demand_bytes, groups=len(groups), free=free,
     left=[str(path) for path in GROUP.glob("umbel-*")])
""",
        UMBEL_MEMORY_LIMIT_BYTES="0",
        UMBEL_MEMORY_ISOLATION=isolation_group,
    )
    assert (result["kind"], result["demand"], result["free"]) == ("OutOfMemoryError", 100 << 20, 60)
    assert "it exceeded the memory= that it had asked for" in result["text"]
    assert "it exceeded the memory= that it had asked for" in result["errors"]  # the retried one's is logged
    assert result["groups"] == 1
    assert result["left"] == []


@pytest.mark.parametrize("victims", ["daemon", "daemon and fork server"])
def test_groups_of_killed_sessions_go(isolation_group: str, victims: str) -> None:
    source = """
@umbel.remote(memory=50 * MIB)
class Actor:
    def ready(self): return True

actor = Actor.remote()
umbel.get(actor.ready.remote())
tell(ready=True)
sys.stdin.readline()
umbel.shutdown()
"""
    with drivers.driver(PRELUDE + source, UMBEL_MEMORY_ISOLATION=isolation_group) as running:
        running.line()
        group = pathlib.Path(isolation_group)
        assert len([path for path in group.glob("umbel-*/*") if path.is_dir()]) == 1
        for pid in running.daemon_pids()[: victims.count("and") + 1]:
            drivers.kill(pid)
        running.tell()
        running.finish()
        drivers.wait_until(lambda: not [path for path in group.glob("umbel-*") if path.is_dir()])


def test_isolation_that_cannot_be_had_is_said_and_nothing_else_changes() -> None:
    result = told(
        """
@umbel.remote(memory=50 * MIB)
def works():
    return 1

tell(result=umbel.get([works.remote() for _ in range(3)], timeout=40))
""",
        UMBEL_MEMORY_ISOLATION="/nonexistent",
    )
    assert result["result"] == [1, 1, 1]
    assert result["errors"].count("UMBEL_MEMORY_ISOLATION is set, but") == 1
