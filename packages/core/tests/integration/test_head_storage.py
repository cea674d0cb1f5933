"""A head that keeps its records: killed at any moment, and started again; two heads on one storage."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import control_servers
import drivers
import pytest

from umbel._base import sessions

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")

TIMEOUT_S = 60
LOAD = """
    import itertools, umbel
    from umbel.experimental import internal_kv as kv
    from umbel.util.placement_group import placement_group

    umbel.init(address="auto", namespace="ns", log_to_driver=False)
    print("job", umbel.get_runtime_context().get_job_id(), flush=True)

    @umbel.remote(num_cpus=0, lifetime="detached", max_restarts=-1)
    class Named:
        def __init__(self, number):
            self.number = number

        def get(self):
            return self.number

    for number in itertools.count():
        Named.options(name=f"n{number}").remote(number)
        print("actor", f"n{number}", number, flush=True)
        kv._internal_kv_put(f"k{number % 7}", str(number))
        print("key", f"k{number % 7}", number, flush=True)
        if number % 5 == 4:
            umbel.kill(umbel.get_actor(f"n{number - 2}"))
            print("killed", f"n{number - 2}", number, flush=True)
        if number % 10 == 9:
            group = placement_group([{"CPU": 0.001}], name=f"g{number}", lifetime="detached")
            print("group", f"g{number}", group.id.hex(), flush=True)
"""
LOOK = """
    import json, sys, umbel
    from umbel.experimental import internal_kv as kv
    from umbel.util.placement_group import placement_group_table

    umbel.init(address="auto", namespace="ns", log_to_driver=False)
    wanted = json.loads(sys.argv[1])
    names = {one["name"] for one in umbel.util.list_named_actors(all_namespaces=True)}
    keys = {one.decode(): kv._internal_kv_get(one).decode() for one in kv._internal_kv_list("k")}
    groups = [one["name"] for one in placement_group_table().values()]
    got = {name: umbel.get(umbel.get_actor(name).get.remote(), timeout=30) for name in wanted}
    print(json.dumps([sorted(names), keys, groups, got, umbel.get_runtime_context().get_job_id()]))
"""


class Machine:
    """Nodes in a directory of sessions of their own."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.environment = {**os.environ, "TMPDIR": directory}
        self.drivers: list[drivers.Driver] = []

    def umbel(self, *arguments: str, is_right: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "umbel.cli", *arguments], check=False, capture_output=True, text=True,
            timeout=TIMEOUT_S, env=self.environment,
        )  # fmt: skip
        assert (done.returncode == 0) == is_right, done.stdout + done.stderr
        return done.stdout if is_right else done.stderr

    def start(self, storage: str, *arguments: str) -> str:
        """A head's session directory."""
        before = set(self.nodes())
        self.umbel("start", "--head", "--num-cpus", "4", "--storage", storage, *arguments)
        (new,) = set(self.nodes()) - before
        return new

    def nodes(self) -> list[str]:
        base = os.path.join(self.directory, f"umbel-{os.getuid()}")
        return sessions.outliving_sessions(base) if os.path.isdir(base) else []

    def program(self, text: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(text), *arguments], check=False, capture_output=True, text=True,
            timeout=TIMEOUT_S, env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, text: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=self.environment,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def kill_head(self, session: str) -> None:
        os.kill(sessions.daemon_of(session), signal.SIGKILL)
        until_s = time.monotonic() + TIMEOUT_S
        while os.path.exists(session):
            assert time.monotonic() < until_s, f"{session} is still there"
            select.select([], [], [], 0.01)


@pytest.fixture
def machine() -> Iterator[Machine]:
    directory = tempfile.mkdtemp(prefix="u", dir="/tmp")  # short: paths of sockets have a limit
    made = Machine(directory)
    try:
        yield made
    finally:
        for session in made.nodes():
            made.umbel("stop", "--session", session, "--force")
        shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "redis", "etcd"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite://{tmp_path}/control.db"
        return
    pytest.importorskip("redis") if request.param == "redis" else None
    make: dict[str, tuple[Callable[..., Any], Callable[..., str]]] = {
        "redis": (control_servers.redis_server, control_servers.redis_url),
        "etcd": (control_servers.etcd_server, control_servers.etcd_url),
    }
    start, url = make[request.param]
    with control_servers.running(start(tmp_path)) as server:
        yield url(server)


def _read_until(process: subprocess.Popen[str], count: int) -> list[list[str]]:
    assert process.stdout is not None
    return [process.stdout.readline().split() for _ in range(count)]


@pytest.mark.timeout(150)
def test_nothing_acknowledged_is_missing_after_the_head_was_killed_under_load(machine: Machine, storage: str) -> None:
    session = machine.start(storage)
    with machine.running(LOAD) as load:
        told = _read_until(load, 80)
        machine.kill_head(session)
        assert load.stdout is not None
        told += [line.split() for line in load.stdout.read().splitlines()]
    actors = {line[1]: int(line[2]) for line in told if line[0] == "actor"}
    killed = {line[1] for line in told if line[0] == "killed"}
    # kill() waits for no answer, but what was answered after it came after it.
    last = max(number for number, line in enumerate(told) if line[0] != "killed")
    certain = {line[1] for line in told[:last] if line[0] == "killed"}
    asked = sorted(set(actors) - killed)[:3]
    machine.start(storage)
    names, keys, groups, got, job = json.loads(machine.program(LOOK, json.dumps(asked)))
    assert set(actors) - killed <= set(names)
    assert certain & set(names) == set()
    assert got == {name: actors[name] for name in asked}
    newest = {line[1]: int(line[2]) for line in told if line[0] == "key"}
    assert {name for name, number in newest.items() if int(keys.get(name, -1)) < number} == set()
    assert {line[1] for line in told if line[0] == "group"} <= set(groups)
    assert (told[0], job) == (["job", "01000000"], "02000000")
    listed = machine.umbel("list", "jobs")
    assert re.search(r"01000000 .*FAILED", listed)


def test_actor_that_may_not_restart_is_dead_and_one_that_was_dropped_stays_so(machine: Machine, tmp_path: Path) -> None:
    storage = f"sqlite://{tmp_path}/control.db"
    session = machine.start(storage)
    machine.program(
        """
        import umbel

        umbel.init(address="auto", namespace="ns", log_to_driver=False)

        @umbel.remote(num_cpus=0)
        class A:
            def ping(self):
                return 1

        once = A.options(name="once", lifetime="detached").remote()
        mine = A.options(name="mine", max_restarts=-1).remote()
        umbel.get([once.ping.remote(), mine.ping.remote()])
        """
    )
    machine.kill_head(session)
    machine.start(storage)
    told = machine.program(
        """
        import umbel

        umbel.init(address="auto", namespace="ns", log_to_driver=False)
        print(umbel.util.list_named_actors(all_namespaces=True))
        """
    )
    assert told == "[]\n"
    listed = machine.umbel("list", "actors", "--detail")
    assert "its node ended, and the control service has started again" in listed


def test_detached_actors_in_a_detached_group_come_back_in_it_after_stop_as_after_a_kill(
    machine: Machine, tmp_path: Path
) -> None:
    storage = f"sqlite://{tmp_path}/control.db"
    session = machine.start(storage)
    actor = """
        import sys, umbel
        from umbel.util.placement_group import get_current_placement_group, get_placement_group, placement_group
        from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        umbel.init(address="auto", namespace="ns", log_to_driver=False)

        @umbel.remote(num_cpus=1, lifetime="detached", max_restarts=-1, name="a")
        class A:
            def group(self):
                return get_current_placement_group().id.hex()
    """
    make = """
        group = placement_group([{"CPU": 1}, {"CPU": 1}], name="pg", lifetime="detached")
        a = A.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()
        assert umbel.get(a.group.remote()) == group.id.hex()
    """
    look = """
        group = get_placement_group("pg")
        assert umbel.get(group.ready(), timeout=30) is not None
        assert umbel.get(umbel.get_actor("a").group.remote(), timeout=30) == group.id.hex()
        assert umbel.available_resources()["CPU"] == 2
    """
    machine.program(textwrap.dedent(actor) + textwrap.dedent(make))
    machine.umbel("stop")
    session = machine.start(storage)
    machine.program(textwrap.dedent(actor) + textwrap.dedent(look))
    machine.kill_head(session)
    machine.start(storage)
    machine.program(textwrap.dedent(actor) + textwrap.dedent(look))


def test_second_head_is_refused_while_the_first_lives_and_takes_over_after_its_death(
    machine: Machine, tmp_path: Path
) -> None:
    storage = f"sqlite://{tmp_path}/control.db"
    first = machine.start(storage)
    refused = machine.umbel("start", "--head", "--storage", storage, is_right=False)
    assert re.search(r"no control service can begin upon this storage: '.* pid \d+ node \w+' leads", refused)
    assert "--standby" in refused
    assert machine.nodes() == [first]
    command = [
        sys.executable,
        "-m",
        "umbel.cli",
        "start",
        "--head",
        "--num-cpus",
        "1",
        "--storage",
        storage,
        "--standby",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=machine.environment
    ) as standby:
        assert standby.stdout is not None
        try:
            if select.select([standby.stdout], [], [], 5.0)[0]:  # longer than a lease
                pytest.fail(f"it did not wait: {standby.stdout.read()}")
            machine.kill_head(first)
            began_s = time.monotonic()
            assert select.select([standby.stdout], [], [], TIMEOUT_S)[0]
            took_s = time.monotonic() - began_s
            assert "Umbel runs here" in standby.stdout.readline()
        finally:
            standby.kill()
    assert took_s < 10  # a lease is for four seconds; the rest is a busy machine
    assert len(machine.nodes()) == 1


def test_standby_that_nobody_waits_for_any_more_ends(machine: Machine, tmp_path: Path) -> None:
    storage = f"sqlite://{tmp_path}/control.db"
    first = machine.start(storage)
    command = [sys.executable, "-m", "umbel.cli", "start", "--head", "--storage", storage, "--standby"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=machine.environment) as standby:
        base = os.path.join(machine.directory, f"umbel-{os.getuid()}")
        until_s = time.monotonic() + TIMEOUT_S
        while len(os.listdir(base)) < 2:
            assert time.monotonic() < until_s
            select.select([], [], [], 0.01)
        standby.kill()
    while len(_daemons(base)) > 1:
        assert time.monotonic() < until_s, "the standby's daemon goes on"
        select.select([], [], [], 0.01)
    assert machine.nodes() == [first]


def _daemons(base: str) -> list[int]:
    """Of sessions there."""
    pids = [sessions.daemon_of(os.path.join(base, name)) for name in os.listdir(base)]
    return [pid for pid in pids if pid and os.path.exists(f"/proc/{pid}")]


def test_head_that_stood_still_for_longer_than_its_lease_ends_and_another_one_leads(
    machine: Machine, tmp_path: Path
) -> None:
    storage = f"sqlite://{tmp_path}/control.db"
    first = machine.start(storage)
    pid = sessions.daemon_of(first)
    os.kill(pid, signal.SIGSTOP)
    try:
        second = machine.start(storage)
    finally:
        os.kill(pid, signal.SIGCONT)
    until_s = time.monotonic() + TIMEOUT_S
    while os.path.exists(first):
        assert time.monotonic() < until_s, "the former leader goes on"
        select.select([], [], [], 0.01)
    assert machine.nodes() == [second]


def test_head_that_stood_still_goes_on_if_nobody_has_led_meanwhile(machine: Machine, tmp_path: Path) -> None:
    session = machine.start(f"sqlite://{tmp_path}/control.db")
    with machine.running(LOAD) as load:
        _read_until(load, 4)
        os.kill(sessions.daemon_of(session), signal.SIGSTOP)
        assert not select.select([], [], [], 6.0)[0]  # longer than a lease
        os.kill(sessions.daemon_of(session), signal.SIGCONT)
        _read_until(load, 20)  # what was answered before is in the pipe, and much less
        assert load.poll() is None
    assert machine.nodes() == [session]


def test_nothing_is_answered_while_the_storage_is_away_and_the_reason_is_told(machine: Machine, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    with control_servers.running(control_servers.redis_server(tmp_path)) as server:
        machine.start(control_servers.redis_url(server))
        machine.program("import umbel; umbel.init(address='auto', log_to_driver=False)")
        with machine.running(LOAD) as load:
            _read_until(load, 4)
            server.freeze()
            try:
                until_s = time.monotonic() + 2.0
                reasons = set()
                while time.monotonic() < until_s:
                    reasons |= set(
                        re.findall(r"control service (waits for the control storage)", machine.umbel("status"))
                    )
            finally:
                server.go_on()
        assert reasons


def test_storage_that_is_not_there_is_said_so(machine: Machine, tmp_path: Path) -> None:
    wrong = machine.umbel("start", "--head", "--storage", f"sqlite://{tmp_path}/no/c.db", is_right=False)
    assert "cannot be opened: No such file or directory" in wrong
    unknown = machine.umbel("start", "--head", "--storage", "paper://x", is_right=False)
    assert "must be a URL that begins with one of" in unknown
    alone = machine.umbel("start", "--head", "--standby", is_right=False)
    assert "--standby is for a head with --storage" in alone
    assert machine.nodes() == []
