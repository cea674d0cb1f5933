"""A node that outlives its drivers: `umbel start`, programs that connect to it one after another and at once, `umbel stop`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

from umbel import exceptions
from umbel._base import sessions, token_files, tokens
from umbel._transport import addresses, dialler
from umbel._wire import frames, handshake

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")

TIMEOUT_S = 60
TASK = """
    import os, umbel

    umbel.init()

    @umbel.remote
    def double(x):
        return 2 * x

    print(umbel.get([double.remote(i) for i in range(3)]), umbel.get_runtime_context().get_job_id())
"""


class Machine:
    """A directory of sessions, with the nodes that are started in it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._running: list[drivers.Driver] = []

    def umbel(self, *arguments: str, is_right: bool = True, **environment: str) -> str:
        """What the command prints; on standard error if it fails, as it must unless `is_right`."""
        done = subprocess.run(
            [sys.executable, "-m", "umbel.cli", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "TMPDIR": self.directory, **environment},
        )
        assert (done.returncode == 0) == is_right, done.stdout + done.stderr
        return done.stdout if is_right else done.stderr

    def start(self, *arguments: str, **environment: str) -> str:
        """A node's session directory."""
        before = self.nodes()
        self.umbel("start", "--head", "--num-cpus", "2", *arguments, **environment)
        (new,) = set(self.nodes()) - set(before)
        return new

    def nodes(self) -> list[str]:
        base = os.path.join(self.directory, f"umbel-{os.getuid()}")
        return sessions.outliving_sessions(base) if os.path.isdir(base) else []

    def driver(self, source: str, **environment: str) -> drivers.Driver:
        made = drivers.Driver(source, self.directory, **environment)
        self._running.append(made)
        return made

    def run(self, source: str, **environment: str) -> str:
        return self.driver(source, **environment).finish(TIMEOUT_S)[0]

    def end(self) -> None:
        for one in self._running:
            one.process.kill()
            one.process.communicate()
        for path in self.nodes():
            drivers.kill(sessions.daemon_of(path))
        with contextlib.suppress(OSError):
            for path in sessions.sweep_stale_sessions(os.path.join(self.directory, f"umbel-{os.getuid()}")):
                assert not os.path.exists(path)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(tempfile.mkdtemp(prefix="u", dir="/tmp"))  # pytest's own are too long for socket paths
    try:
        yield made
    finally:
        made.end()


def _shared_memory_of(session: str) -> str:
    return f"/dev/shm/umbel-{os.getuid()}-{os.path.basename(session)}"


def test_programs_come_and_go_and_stop_leaves_nothing(machine: Machine) -> None:
    session = machine.start()
    daemon = sessions.daemon_of(session)
    assert machine.run(TASK) == "[0, 2, 4] 01000000\n"
    assert machine.run(TASK) == "[0, 2, 4] 02000000\n"
    assert sessions.daemon_of(session) == daemon
    children = drivers.children_of(daemon)
    machine.umbel("stop")
    assert not os.path.exists(session)
    assert not os.path.exists(_shared_memory_of(session))
    drivers.wait_until(
        lambda: not any(map(drivers.is_running, [daemon, *children])), what="the node's processes to end"
    )
    assert "no node runs here" in machine.umbel("stop", is_right=False)


def test_no_socket_stays_of_programs_that_have_ended(machine: Machine) -> None:
    session = machine.start()
    killed = machine.driver(TASK + "    import sys\n    sys.stdin.readline()\n")
    assert killed.line()
    killed.process.kill()
    machine.run(TASK)

    def left() -> list[str]:
        """Of processes; workers end with their job."""
        return [name for name in os.listdir(session) if name.endswith((".sock", ".door")) and name != "agent.sock"]

    drivers.wait_until(lambda: not left(), what="all of them to be gone")


def test_the_ids_of_all_processes_tell_their_node(machine: Machine) -> None:
    machine.start()
    told = """
import umbel
umbel.init(address="auto")
@umbel.remote
class Host:
    def ids(self): return here()
def here():
    told = umbel.get_runtime_context()
    return told.get_node_id(), told.get_worker_id()
found = [here(), umbel.get(umbel.remote(here).remote()), umbel.get(Host.remote().ids.remote())]
assert len({worker for _, worker in found}) == 3
print(len({node for node, _ in found}), {node[:12] == worker[8:20] for node, worker in found})
"""
    assert machine.run(told) == "1 {True}\n"
    assert machine.run(told.replace("auto", "local")) == "1 {True}\n"


def test_workers_of_an_ended_job_go_and_their_fork_server_too(machine: Machine) -> None:
    session = machine.start(UMBEL_IDLE_WORKER_S="0.1")
    machine.run(TASK)

    def workers() -> list[Any]:
        return [one for one in _list(machine, session, "workers") if one["is_alive"]]

    drivers.wait_until(lambda: not workers(), what="idle workers of a job that has ended to go")


def _list(machine: Machine, session: str, kind: str) -> list[Any]:
    found: list[Any] = json.loads(machine.umbel("list", kind, "--detail", "--session", session, "--format", "json"))
    return found


def test_a_detached_actor_is_found_by_later_programs_and_restarts_without_its_creator(machine: Machine) -> None:
    machine.start()
    counter = """
        import os, umbel

        umbel.init(namespace="shared")

        @umbel.remote(max_restarts=1)
        class Counter:
            def __init__(self):
                self.count = 0

            def add(self):
                self.count += 1
                return self.count

            def pid(self):
                return os.getpid()

        actor = Counter.options(name="counter", lifetime="detached", get_if_exists=True).remote()
        print(umbel.get(actor.add.remote()), umbel.get(actor.pid.remote()))
    """
    first, pid = machine.run(counter).split()
    second, same_pid = machine.run(counter).split()
    assert (first, second, same_pid) == ("1", "2", pid)
    drivers.kill(int(pid))
    again, new_pid = machine.run(counter).split()
    assert again == "1"
    assert new_pid != pid
    assert "has ended" in machine.umbel("kill-actor", "counter")
    assert "no living actor is called 'counter'; `umbel list" in machine.umbel("kill-actor", "counter", is_right=False)


def test_a_named_actor_is_killed_by_its_name_and_namespace(machine: Machine) -> None:
    session = machine.start()
    source = """
        import os, sys, umbel

        umbel.init(namespace=sys.argv[1])

        @umbel.remote(max_restarts=-1)
        class Busy:
            def pid(self):
                return os.getpid()

        actor = Busy.options(name="busy", lifetime="detached", get_if_exists=True).remote()
        print(umbel.get(actor.pid.remote()))
    """

    def pid_in(namespace: str) -> str:
        return machine.run(source.replace("sys.argv[1]", repr(namespace))).strip()

    pids = {namespace: pid_in(namespace) for namespace in ("a", "b")}
    told = machine.umbel("kill-actor", "busy", "--force", is_right=False)
    assert "actors of several namespaces are called 'busy'; say which by --namespace: a, b" in told
    told = machine.umbel("kill-actor", "--name", "busy", "--namespace", "a", "--force", "--address", session)
    assert told == "Actor 'busy' has been killed.\n"
    assert pid_in("a") != pids["a"], "it has restarts left"
    machine.umbel("kill-actor", "busy", "--namespace", "a", "--force", "--no-restart")
    assert "no living actor is called 'busy' in the namespace 'a'" in machine.umbel(
        "kill-actor", "busy", "--namespace", "a", is_right=False
    )
    assert pid_in("b") == pids["b"]
    assert "say which actor, once" in machine.umbel("kill-actor", is_right=False)


def test_a_node_that_listens_nowhere_has_no_address_to_tell(machine: Machine) -> None:
    machine.start()
    assert "start it with --port for others to join" in machine.umbel("get-head-ip", is_right=False)
    assert machine.umbel("get-worker-ips") == ""


def test_jobs_have_namespaces_and_workers_of_their_own_and_see_only_their_own_output(machine: Machine) -> None:
    machine.start()
    program = """
        import os, sys, time, umbel

        umbel.init()
        name = sys.stdin.readline().strip()

        @umbel.remote
        class Named:
            def pid(self):
                print("I am of", name)
                return os.getpid()

        actor = Named.options(name="same").remote()
        print("its pid is", umbel.get(actor.pid.remote()), flush=True)
        sys.stdin.readline()
        umbel.get(actor.pid.remote())
    """
    pair = [machine.driver(program) for _ in range(2)]
    for index, one in enumerate(pair):
        one.tell(f"program {index}")
    pids = [_pid_told(one) for one in pair]
    assert pids[0] != pids[1]
    for index, one in enumerate(pair):
        one.tell()
        output, _ = one.finish(TIMEOUT_S)
        assert f"I am of program {index}" in output
        assert f"I am of program {1 - index}" not in output


def _pid_told(driver: drivers.Driver) -> str:
    while not (line := driver.line()).startswith("its pid is"):
        """Of a worker."""
    return line


def test_a_placement_group_ends_with_the_job_of_whoever_made_it(machine: Machine) -> None:
    machine.start()
    program = """
        import sys, umbel
        from umbel.util import placement_group

        umbel.init()

        @umbel.remote(num_cpus=0)
        def make():
            group = placement_group([{"CPU": 1}])
            umbel.get(group.ready())
            return group.id.hex()

        print(umbel.get(make.remote()), flush=True)
        sys.stdin.readline()
    """
    first, second = machine.driver(program), machine.driver(program)
    made = [first.line(), second.line()]

    def states() -> list[str]:
        listed = json.loads(machine.umbel("list", "placement-groups", "--detail", "--format", "json"))
        found = {one["placement_group_id"]: one["state"] for one in listed}
        return [found[one] for one in made]

    assert states() == ["CREATED", "CREATED"]
    second.kill()
    drivers.wait_until(lambda: states() == ["CREATED", "REMOVED"], what="the group of the killed driver to go")
    first.tell()
    first.finish(TIMEOUT_S)
    drivers.wait_until(lambda: states() == ["REMOVED", "REMOVED"], what="the other group to go with its job")


def test_workers_import_what_their_driver_imports_and_start_where_it_does(machine: Machine) -> None:
    machine.start()
    source = textwrap.dedent(
        """
        import os, umbel, helper

        umbel.init(runtime_env={"env_vars": {"OF_THE_JOB": "yes"}})
        print(umbel.get(umbel.remote(helper.where).remote()))
        """
    )
    for name in ("one", "two"):
        directory = os.path.join(machine.directory, name)
        os.mkdir(directory)
        with open(os.path.join(directory, "helper.py"), "w") as file:
            file.write(f"import os\n\ndef where():\n    return '{name}', os.getcwd(), os.environ['OF_THE_JOB']\n")
        with open(os.path.join(directory, "program.py"), "w") as file:
            file.write(source)
        done = subprocess.run(
            [sys.executable, "program.py"],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=directory,
            env={**os.environ, "TMPDIR": machine.directory},
        )
        assert done.stdout == f"{(name, directory, 'yes')}\n"


def test_a_driver_with_another_interpreter_has_workers_in_it(machine: Machine) -> None:
    import umbel

    machine.start()
    other = os.path.join(machine.directory, "other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True, timeout=TIMEOUT_S)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    paths = os.pathsep.join(dict.fromkeys([*map(os.path.dirname, umbel.__path__), *packages]))
    program = "import umbel, sys; umbel.init(); print(umbel.get(umbel.remote(lambda: sys.prefix).remote()))"
    done = subprocess.run(
        [os.path.join(other, "bin", "python"), "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "TMPDIR": machine.directory, "PYTHONPATH": paths},
    )
    assert done.stdout.strip() == other, done.stderr


def test_a_killed_driver_takes_its_tasks_and_actors_along_and_nobody_elses(machine: Machine) -> None:
    session = machine.start("--num-cpus", "4")
    survivor = machine.driver(
        """
        import sys, umbel

        umbel.init()

        @umbel.remote
        class Kept:
            def get(self):
                return 7

        actor = Kept.remote()
        stored = umbel.put(bytes(2_000_000))
        umbel.get(actor.get.remote())
        print("there", flush=True)
        sys.stdin.readline()
        print(umbel.get(actor.get.remote()), len(umbel.get(stored)))
        """
    )
    assert survivor.line() == "there"
    victim = machine.driver(
        """
        import time, umbel

        umbel.init()

        @umbel.remote
        class Lost:
            def ready(self):
                return bytes(2_000_000)

        actor = Lost.remote()
        held = umbel.get(actor.ready.remote())
        running = umbel.remote(lambda: time.sleep(1000)).remote()
        print("there", flush=True)
        umbel.get(running)
        """
    )
    assert victim.line() == "there"
    drivers.wait_until(lambda: len(_living(machine, session)) == 5, what="two drivers, two actors and a task")
    victim.kill()
    drivers.wait_until(lambda: len(_living(machine, session)) == 2, what="what the driver had to go")
    jobs = {one["job_id"]: one["status"] for one in _list(machine, session, "jobs")}
    assert jobs == {"01000000": "RUNNING", "02000000": "FAILED"}
    survivor.tell()
    assert survivor.finish(TIMEOUT_S)[0] == "7 2000000\n"
    jobs = {one["job_id"]: one["status"] for one in _list(machine, session, "jobs")}
    assert jobs == {"01000000": "SUCCEEDED", "02000000": "FAILED"}


def _living(machine: Machine, session: str) -> list[Any]:
    return [one for one in _list(machine, session, "workers") if one["is_alive"]]


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_driver_whose_node_ends_gets_an_error_and_nothing_is_left(machine: Machine, way: str) -> None:
    session = machine.start()
    driver = machine.driver(
        """
        import time, umbel

        umbel.init()
        running = umbel.remote(lambda: time.sleep(1000)).remote()
        print("there", flush=True)
        try:
            umbel.get(running)
        except umbel.exceptions.UmbelError as error:
            print(type(error).__name__)
        """
    )
    assert driver.line() == "there"
    if way == "stop":
        machine.umbel("stop")
    else:
        drivers.kill(sessions.daemon_of(session))
    assert driver.finish(TIMEOUT_S)[0] == "LocalNodeDiedError\n"
    drivers.wait_until(lambda: not os.path.exists(session) and not os.path.exists(_shared_memory_of(session)))


def test_which_node_a_program_connects_to(machine: Machine) -> None:
    where = """
        import os, umbel

        try:
            print(os.path.basename(umbel.init(ADDRESS).address_info["session_dir"]))
        except (ConnectionError, ValueError) as error:
            print(type(error).__name__, error)
    """

    def asked(address: str | None, **environment: str) -> str:
        return machine.run(where.replace("ADDRESS", repr(address)), **environment).strip()

    assert asked("auto").startswith("ConnectionError address='auto' found no running node")
    first = os.path.basename(machine.start())
    assert asked(None) == asked("auto") == asked(first) == first
    assert asked("local") != first
    second = os.path.basename(machine.start())
    assert asked(None).startswith("ConnectionError several nodes run here")
    assert asked(None, UMBEL_ADDRESS=second) == second
    assert asked("auto", UMBEL_ADDRESS=second) == second
    assert asked("local", UMBEL_ADDRESS=second) not in (first, second)
    assert asked(first[-8:]) == first
    assert asked("nowhere").startswith("ConnectionError no node 'nowhere' runs on this machine")
    assert "several nodes run here" in machine.umbel("stop", is_right=False)
    machine.umbel("stop", "--session", first)
    assert asked(None) == second


def test_what_belongs_to_the_node_is_refused_from_a_driver(machine: Machine) -> None:
    machine.start()
    source = """
        import umbel

        for settings in ({"num_cpus": 1}, {"resources": {"a": 1}}, {"scheduler": "spread"}, {"infeasible_timeout_s": 1}):
            try:
                umbel.init(**settings)
            except ValueError as error:
                print(error)
        umbel.init(address="local", num_cpus=1)
        print(umbel.cluster_resources()["CPU"])
    """
    *refused, last = machine.run(source).splitlines()
    assert [line.partition(":")[0] for line in refused] == [
        "num_cpus",
        "resources",
        "scheduler",
        "infeasible_timeout_s",
    ]
    assert all("address='local'" in line for line in refused)
    assert last == "1.0"


def test_another_version_is_refused(machine: Machine) -> None:
    machine.start()
    source = """
        import umbel
        from umbel._client import attach

        attach.version = lambda: "0.0.1"
        try:
            umbel.init()
        except umbel.exceptions.UmbelSystemError as error:
            print(error)
    """
    assert "install the same version on both sides" in machine.run(source)


def test_status_says_what_is_there_and_what_waits(machine: Machine) -> None:
    session = machine.start("--resources", '{"licence": 2}', "--labels", "zone=a,rack=7")
    driver = machine.driver(
        """
        import sys, time, umbel

        umbel.init()

        @umbel.remote(resources={"licence": 2})
        class Holder:
            def ready(self):
                return True

        holder = Holder.remote()
        umbel.get(holder.ready.remote())
        waiting = Holder.remote()
        print(umbel.nodes()[0]["Labels"]["zone"], flush=True)
        sys.stdin.readline()
        """
    )
    assert driver.line() == "a"

    def told() -> str:
        text = machine.umbel("status")
        return text if "an actor for" in text else ""

    text = drivers.wait_until(told, what="the second actor to wait")
    assert os.path.basename(session) in text
    assert "2 of 2 licence in use" in text
    assert "Jobs: 1 running, 0 ended" in text
    assert "licence (0 of 2 free)" in text
    found = json.loads(machine.umbel("status", "--json"))
    assert [one["status"] for one in found["jobs"]] == ["RUNNING"]
    driver.tell()
    driver.finish(TIMEOUT_S)
    drivers.wait_until(lambda: "Jobs: 0 running, 1 ended" in machine.umbel("status"))


def _listening(machine: Machine) -> tuple[str, str, str]:
    """(its session, address and token file) of a new node that lets commands of other machines in."""
    token_file = os.path.join(machine.directory, "secrets", "token")
    session = machine.start("--port", "0", "--token-file", token_file)
    (node,) = json.loads(machine.umbel("status", "--json", "--session", session))["nodes"]
    return session, node["address"], token_file


def _token(machine: Machine, token_file: str, role: str) -> str:
    return machine.umbel("token", "--file", token_file, "--role", role).strip()


def test_commands_of_other_machines_come_in_by_token_and_may_what_their_role_says(machine: Machine) -> None:
    session, address, token_file = _listening(machine)
    assert os.stat(token_file).st_mode & 0o777 == 0o600
    reads = {"UMBEL_TOKEN": _token(machine, token_file, "read")}
    assert os.path.basename(session) in machine.umbel("status", "--session", address, **reads)
    assert machine.umbel("stack", "--session", address, **reads) == ""
    told = machine.umbel("stop", "--session", address, is_right=False, **reads)
    assert "needs a token of the role admin" in told
    machine.umbel("stop", "--session", address, UMBEL_TOKEN=_token(machine, token_file, "admin"))
    drivers.wait_until(lambda: not os.path.exists(session), what="the node to end")


def test_nobody_comes_in_without_a_right_token_and_programs_not_at_all(machine: Machine) -> None:
    session, address, token_file = _listening(machine)
    assert "UMBEL_TOKEN" in machine.umbel("status", "--session", address, is_right=False)
    other = tokens.new_secret().lowered(tokens.Role.ADMIN)
    for _ in range(3):
        assert "token" in machine.umbel("status", "--session", address, is_right=False, UMBEL_TOKEN=other.as_text())
    host, port = address.split(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\xd5UMBEL\r\n" + b"\xff" * 100):
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as stranger:
            stranger.sendall(garbage)
            with contextlib.suppress(ConnectionError):
                while stranger.recv(1000):
                    """It may answer, but ends the connection."""
    token = token_files.read(token_file).lowered(tokens.Role.SUBMIT)
    sock = dialler.connect(addresses.parse(address), token, handshake.AGENT)
    facts = {"id": "00" * 16, "pid": 1, "protocol": frames.PROTOCOL_VERSION}
    sock.send(frames.encode_control({"t": "hello", "kind": "driver", **facts}))
    select.select([sock], [], [], TIMEOUT_S)
    ((payload,),) = [frames.FrameReader().feed(sock.recv(10_000))]
    assert "no programs yet" in frames.decode_control(payload)[0]["text"]
    sock.close()
    with pytest.raises(exceptions.AuthenticationError, match="control"):
        dialler.connect(addresses.parse(address), token, handshake.CONTROL)
    with open(os.path.join(session, "daemon.log")) as file:
        log = file.read()
    assert log.count("refused") <= 5, log  # one line for each reason, not for each attempt
    assert "Traceback" not in log
    assert os.path.basename(session) in machine.umbel("status")


def test_only_processes_of_a_node_with_a_port_have_doors_and_load_what_opens_them(machine: Machine) -> None:
    program = """
        import os, sys, umbel

        session = umbel.init(ADDRESS).address_info["session_dir"]

        @umbel.remote
        def loaded():
            names = ("umbel._client.remote_links", "umbel._transport.acceptor", "umbel._wire.handshake")
            return [name for name in names if name in sys.modules]

        print(loaded._function(), umbel.get(loaded.remote()))
        print(sum(name.endswith(".door") for name in os.listdir(session)))
    """
    assert machine.run(program.replace("ADDRESS", "'local'")) == "[] []\n0\n"
    alone = machine.start()
    assert machine.run(program.replace("ADDRESS", repr(alone))) == "[] []\n0\n"
    session, *_ = _listening(machine)
    told = machine.run(program.replace("ADDRESS", repr(session)))
    assert told.startswith("['umbel._client.remote_links'] ")  # no handshake before there is somebody to make it with
    assert told.endswith("\n2\n")


def test_a_port_that_is_taken_is_an_error_and_nothing_is_left(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = machine.umbel("start", "--head", "--port", port, is_right=False, HOME=machine.directory)
    assert told.endswith("Address already in use\n"), "there is no more to read about it"
    assert machine.nodes() == []
    assert not os.path.exists(os.path.join(machine.directory, ".umbel"))


def test_a_token_that_nobody_has_named_goes_with_its_head(machine: Machine) -> None:
    told = machine.umbel("start", "--head", "--port", "0", HOME=machine.directory)
    (join,) = [line.split() for line in told.splitlines() if line.startswith("  umbel start --address ")]
    assert os.stat(join[-1]).st_mode & 0o777 == 0o600
    machine.umbel(*join[1:], "--num-cpus", "1")
    machine.umbel("stop")
    assert not os.path.exists(join[-1])
    assert not os.path.exists(os.path.join(machine.directory, ".umbel"))


def test_start_stays_if_told_to_and_ends_the_node_with_itself(machine: Machine) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "umbel.cli", "start", "--head", "--num-cpus", "1", "--block"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": machine.directory},
    )
    try:
        (session,) = drivers.wait_until(machine.nodes, what="the node to run")
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        assert not os.path.exists(session)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--head"),
        (["--address", "127.0.0.1:1"], "lets nobody in without a token"),
        (["--address", "10.0.0.1"], "there is no port"),
        (["--head", "--address", "127.0.0.1:1"], "--head"),
        (["--head", "--resources", "[1]"], "resources must be a dict"),
        (["--head", "--resources", "{"], "must be a JSON object"),
        (["--head", "--labels", "zone"], "KEY=VALUE"),
        (["--head", "--num-cpus", "-1"], "num_cpus"),
        (["--head", "--scheduler", "nobody's"], "nobody's"),
    ],
)
def test_what_start_refuses(machine: Machine, arguments: list[str], told: str) -> None:
    assert told in machine.umbel("start", *arguments, is_right=False)
    assert machine.nodes() == []


def test_a_private_session_is_not_stopped_by_others(machine: Machine) -> None:
    driver = machine.driver(
        """
        import sys, umbel

        umbel.init(address="local", num_cpus=1)
        print("there", flush=True)
        sys.stdin.readline()
        """
    )
    assert driver.line() == "there"
    assert "no node runs here" in machine.umbel("stop", is_right=False)
    driver.tell()
    driver.finish(TIMEOUT_S)
