"""Several programs on one node that want more than it has: shares by weight, priorities, tasks that are stopped for others."""

from __future__ import annotations

import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils
from umbel.job_config import JobConfig
from umbel.util import state

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drivers are found through /proc"),
    pytest.mark.timeout(120),
    pytest.mark.slow,
]

CPUS = 4
TIMEOUT_S = 60
SHORT_S = 0.02
# What the other program has. It does what it is told by lines, and writes one when it has.
PROGRAM = """
    import os, sys, time, umbel
    from umbel.job_config import JobConfig

    umbel.init(address={address!r}, job_config=JobConfig({config}))

    @umbel.remote
    def note(path, letter, seconds):
        with open(path, "a") as file:
            file.write(letter)
        time.sleep(seconds)

    def work_until(path):
        waiting, done = [], 0
        while not os.path.exists(path):
            waiting += [note.remote(os.devnull, "", {short_s}) for _ in range(64 - len(waiting))]
            ready, waiting = umbel.wait(waiting, num_returns=8)
            done += len(ready)
        for ref in waiting:
            umbel.cancel(ref)
        return done

    umbel.get(note.remote(os.devnull, "", 0))
    print(umbel.get_runtime_context().get_job_id(), flush=True)
    for line in sys.stdin:
        print(eval(line), flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    with homes.own_home():
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS})
        try:
            yield made
        finally:
            made.shutdown()


Start = Callable[[str], tuple[drivers.Driver, str]]


@pytest.fixture
def start(cluster: cluster_utils.Cluster) -> Iterator[Start]:
    """Start another program with this configuration of its job; returns it and the id of its job."""
    running = []

    def begin(config: str) -> tuple[drivers.Driver, str]:
        source = PROGRAM.format(address=cluster.address, config=config, short_s=SHORT_S)
        made = drivers.Driver(source, os.environ["TMPDIR"])
        running.append(made)
        return made, made.line()

    yield begin
    for one in running:
        one.end()


@pytest.fixture
def connect(cluster: cluster_utils.Cluster) -> Iterator[Callable[..., None]]:
    """Make this process a driver of the node, with this configuration of its job."""

    def connect(**config: Any) -> None:
        umbel.init(address=cluster.address, job_config=JobConfig(**config))

    yield connect
    umbel.shutdown()


@umbel.remote
def wait_for(path: str, log: str, number: int) -> int:
    """Returns once there is such a file. Every time that it begins there is a line in the log."""
    with open(log, "a") as file:
        file.write(f"{number}\n")
    drivers.wait_until(lambda: os.path.exists(path), timeout_s=TIMEOUT_S)
    return number


@umbel.remote
class Holder:
    def pid(self) -> int:
        return os.getpid()


def begun(log: pathlib.Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def test_jobs_get_cpu_time_by_their_weights(start: Start, tmp_path: pathlib.Path) -> None:
    stop = tmp_path / "stop"
    heavy, _ = start("weight=3")
    light, _ = start("weight=1")
    for one in (heavy, light):
        one.tell(f"work_until({str(stop)!r})")
    drivers.pause(2.0)
    stop.touch()
    done = [int(one.line()) for one in (heavy, light)]
    assert sum(done) * SHORT_S > CPUS * 0.3, f"most of the time nothing ran: {done}"
    assert 1.8 < done[0] / done[1] < 5, done


def test_tasks_of_a_higher_priority_go_first(
    start: Start, connect: Callable[..., None], tmp_path: pathlib.Path
) -> None:
    log = tmp_path / "log"
    connect()

    @umbel.remote
    def note(letter: str) -> None:
        with open(log, "a") as file:
            file.write(letter)
        time.sleep(SHORT_S)

    low = [note.remote("L") for _ in range(400)]
    drivers.wait_until(lambda: log.exists() and len(log.read_text()) > 20)
    high, _ = start("priority=10")
    high.tell(f"umbel.get([note.remote({str(log)!r}, 'H', {SHORT_S}) for _ in range(60)])")
    high.line()
    assert len(umbel.wait(low, num_returns=len(low), timeout=0)[1]) > 50, "the low ones had ended before"
    order = log.read_text()
    places = [place for place, letter in enumerate(order) if letter == "H"]
    between = order[places[10] : places[50]]
    assert between.count("L") <= CPUS, order


def test_who_waits_is_told_where_its_job_stands(
    start: Start, connect: Callable[..., None], tmp_path: pathlib.Path
) -> None:
    go, log = tmp_path / "go", tmp_path / "log"
    other, other_id = start("priority=0, weight=3")
    connect(weight=1, metadata={"who": "we"})
    own_id = umbel.get_runtime_context().get_job_id()
    refs = [wait_for.remote(str(go), str(log), number) for number in range(CPUS + 1)]
    drivers.wait_until(lambda: len(begun(log)) == CPUS)
    other.tell("globals().update(waiting=note.remote(os.devnull, '', 0))")
    other.line()
    (last,) = umbel.wait(refs, num_returns=CPUS, timeout=0)[1][-1:]
    drivers.wait_until(
        lambda: (
            f"job {own_id} is at its share of CPU, 4 of 4, beside 1 other (weight 1 of 4)" in str(umbel.explain(last))
        ),
        what=str(umbel.explain(last)),
    )
    other.tell("str(umbel.explain(waiting))")
    assert f"job {other_id} has 0 of 4 CPU, less than its share, and goes first" in other.line()
    listed = {job.job_id: (job.priority, job.weight) for job in state.list_jobs() if job.status == "RUNNING"}
    assert listed == {own_id: (0, 1.0), other_id: (0, 3.0)}
    (own,) = state.list_jobs(filters=[("job_id", "=", own_id)], detail=True)
    assert (own.metadata, own.preempt) == ({"who": "we"}, False)
    go.touch()
    assert umbel.get(refs, timeout=TIMEOUT_S) == list(range(CPUS + 1))


def test_tasks_are_stopped_for_a_job_that_wants_it_and_run_again_at_no_cost(
    start: Start, connect: Callable[..., None], tmp_path: pathlib.Path
) -> None:
    """One of them twice, with one retry. What must not be run again, and actors, go on."""
    go, log = tmp_path / "go", tmp_path / "log"
    connect()
    holder = Holder.options(num_cpus=1).remote()
    pid = umbel.get(holder.pid.remote(), timeout=TIMEOUT_S)
    refs = [
        wait_for.options(max_retries=retries, name=f"t{number}").remote(str(go), str(log), number)
        for number, retries in enumerate((0, 1, 1))
    ]
    drivers.wait_until(lambda: sorted(begun(log)) == [0, 1, 2])
    high, high_id = start("priority=10, preempt=True")  # it has run a task, for which the newest was stopped
    drivers.wait_until(lambda: len(begun(log)) == 4, what="it to run again")
    high.tell("umbel.get(note.options(num_cpus=2).remote(os.devnull, '', 0))")
    assert high.line() == "None"
    drivers.wait_until(lambda: len(begun(log)) == 6, what="both to run again")
    go.touch()
    assert umbel.get(refs, timeout=TIMEOUT_S) == [0, 1, 2]
    assert begun(log).count(0) == 1
    assert sorted(map(begun(log).count, (1, 2))) == [2, 3], "one began more often than one retry allows"
    assert umbel.get(holder.pid.remote(), timeout=TIMEOUT_S) == pid

    def told() -> str:
        return " ".join(one.error_message or "" for one in state.list_tasks(detail=True, filters=[("name", "=", "t1")]))

    drivers.wait_until(
        lambda: f"was stopped for job {high_id} of priority 10, which waits for CPU" in told(), what=told()
    )


@pytest.fixture
def far() -> Iterator[Start]:
    """This process is a driver of a cluster's head, whose other node alone has the resource "there". Starts other programs of the
    head, whose tasks want that."""
    running = []
    with homes.own_home() as home:
        nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=2, resources={"there": 100})

        def begin(config: str) -> tuple[drivers.Driver, str]:
            source = PROGRAM.format(address=nodes.address, config=config, short_s=SHORT_S)
            made = drivers.Driver(source.replace("@umbel.remote", "@umbel.remote(resources={'there': 1})"), home)
            running.append(made)
            return made, made.line()

        umbel.init(address=nodes.address)
        try:
            yield begin
        finally:
            for one in running:
                one.end()
            umbel.shutdown()
            nodes.shutdown()


def test_priorities_count_on_other_nodes_too(far: Start, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"

    @umbel.remote(resources={"there": 1})
    def note(letter: str) -> None:
        with open(log, "a") as file:
            file.write(letter)
        time.sleep(SHORT_S)

    low = [note.remote("L") for _ in range(1_000)]
    high, _ = far("priority=10")  # which has come before those
    high.tell(f"umbel.get([note.remote({str(log)!r}, 'H', {SHORT_S}) for _ in range(40)])")
    high.line()
    assert len(umbel.wait(low, num_returns=len(low), timeout=0)[1]) > 50, "the low ones had ended before"
    order = log.read_text()
    places = [place for place, letter in enumerate(order) if letter == "H"]
    assert order[places[10] : places[30]].count("L") <= 4, order


def test_tasks_are_stopped_on_other_nodes_too(far: Start, tmp_path: pathlib.Path) -> None:
    """Long ones, of which one must not be run again; the other is, there, at no cost."""
    go, log = tmp_path / "go", tmp_path / "log"
    refs = [
        wait_for.options(resources={"there": 1}, max_retries=retries, name=f"t{retries}").remote(
            str(go), str(log), retries
        )
        for retries in (0, 1)
    ]
    drivers.wait_until(lambda: sorted(begun(log)) == [0, 1])
    high, high_id = far("priority=10, preempt=True")  # it has run a task, for which one was stopped
    drivers.wait_until(lambda: sorted(begun(log)) == [0, 1, 1], what="it to run again")
    high.tell("umbel.get(note.remote(os.devnull, '', 0))")
    assert high.line() == "None"
    drivers.wait_until(
        lambda: sorted(begun(log)) == [0, 1, 1, 1], what="it to run again, more often than one retry allows"
    )
    go.touch()
    assert umbel.get(refs, timeout=TIMEOUT_S) == [0, 1]
    assert sorted(begun(log)) == [0, 1, 1, 1]

    def told() -> str:
        return " ".join(one.error_message or "" for one in state.list_tasks(detail=True, filters=[("name", "=", "t1")]))

    drivers.wait_until(
        lambda: f"was stopped for job {high_id} of priority 10, which waits for CPU" in told(), what=told()
    )
