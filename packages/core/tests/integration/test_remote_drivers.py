"""Programs of machines without a node: `umbel.init("umbel://host:port")`, over a connection that may break.

The public behaviour on this engine is tested in `behaviour`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import proxies
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel._base import token_files, tokens
from umbel._client import current, tool
from umbel._transport import addresses, connection, dialler, own_tls
from umbel._wire import frames, handshake, reconnecting

numpy = pytest.importorskip("numpy")

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
SHORT_S = "1"  # of patience, where it has to end
CALL_COUNT = 200
HERE = os.path.dirname(__file__)
PROGRAM = """
    import os, sys, time, umbel

    umbel.init(os.environ["ADDRESS"], namespace="tests", log_to_driver=False)

    class Holder:
        def ready(self):
            return os.getpid()

    kept = umbel.remote(num_cpus=0)(Holder).options(name="kept").remote()
    detached = umbel.remote(num_cpus=0)(Holder).options(name="detached", lifetime="detached").remote()
    large = umbel.put(bytes(5_000_000))
    print(umbel.get([kept.ready.remote(), detached.ready.remote()])[0], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    umbel.shutdown()
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield made
    made.shutdown()


@pytest.fixture
def program(cluster: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[cluster_utils.Cluster]:
    """This process may connect, and has left when the test is over, without a trace."""
    monkeypatch.setenv(token_files.FILE_VARIABLE, cluster.token_file)
    yield cluster
    umbel.shutdown()
    drivers.wait_until(lambda: left_of_programs(cluster) == [], what="all of the programs to be gone")


@pytest.fixture
def proxy(program: cluster_utils.Cluster) -> Iterator[proxies.Proxy]:
    made = proxies.Proxy(str(program.address))
    yield made
    umbel.shutdown()
    made.close()


def connect(address: object, **options: Any) -> Any:
    return umbel.init(f"umbel://{address}", log_to_driver=False, **options)


def head_of(cluster: cluster_utils.Cluster) -> cluster_utils.ClusterNode:
    assert cluster.head_node is not None
    return cluster.head_node


def relays_of(cluster: cluster_utils.Cluster) -> list[int]:
    """Processes that stand for programs: children of the daemon, that it forked and that are not its servers."""
    log = Path(head_of(cluster).session_dir, "daemon.log").read_text()
    pids = [int(line.split("process ")[1].split(" ")[0]) for line in log.splitlines() if " stands for it" in line]
    return [pid for pid in pids if drivers.is_running(pid)]


def left_of_programs(cluster: cluster_utils.Cluster) -> list[Any]:
    """What a program that has gone should not have left."""
    with tool.Tool(head_of(cluster).session_dir) as asker:
        connected = {one["id"] for one in asker.query("owners")}
    doors = [name for name in os.listdir(head_of(cluster).session_dir) if name.endswith(".door")]
    return [*relays_of(cluster), *(name for name in doors if name.partition(".")[0] not in connected)]


@umbel.remote
def double(value: Any) -> Any:
    return value * 2


@umbel.remote(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def add(self, number: int) -> int:
        self.calls.append(number)
        return number

    def all(self) -> list[int]:
        return self.calls

    def pid(self) -> int:
        return os.getpid()


# ---- links that break ----


def test_calls_are_carried_out_once_while_the_connection_breaks_again_and_again(
    proxy: proxies.Proxy, tmp_path: Path
) -> None:
    connect(proxy.address)
    counter = Counter.remote()
    marks = str(tmp_path / "marks")

    @umbel.remote(max_retries=0)
    def mark(number: int) -> int:
        with open(marks, "a") as file:
            file.write(f"{number}\n")
        return number

    calls, tasks = [], []
    for number in range(CALL_COUNT):
        calls.append(counter.add.remote(number))
        tasks.append(mark.remote(number))
        if number % 40 == 20:
            assert umbel.get(calls[number - 10], timeout=TIMEOUT_S) == number - 10
            assert proxy.cut() >= 1
    assert umbel.get(calls, timeout=TIMEOUT_S) == list(range(CALL_COUNT))
    assert umbel.get(tasks, timeout=TIMEOUT_S) == list(range(CALL_COUNT))
    assert umbel.get(counter.all.remote(), timeout=TIMEOUT_S) == list(range(CALL_COUNT))
    assert sorted(map(int, Path(marks).read_text().split())) == list(range(CALL_COUNT))


def test_what_is_submitted_without_a_connection_is_done_when_it_is_there_again(proxy: proxies.Proxy) -> None:
    connect(proxy.address)
    counter = Counter.remote()
    assert umbel.get(counter.add.remote(0), timeout=TIMEOUT_S) == 0
    proxy.is_shut = True
    assert proxy.cut() == 1
    refs = [counter.add.remote(number) for number in range(1, 50)]
    engine: Any = current.session()
    drivers.wait_until(engine._tunnel.waits_for, what="the break to be noticed")
    assert umbel.wait(refs, timeout=0) == ([], refs)
    assert "is broken, and is being made again" in umbel.explain(refs[0])
    with pytest.raises(exceptions.GetTimeoutError, match="is being made again"):
        umbel.get(refs[0], timeout=0.1)
    large = []
    putting = threading.Thread(target=lambda: large.append(umbel.put(numpy.arange(300_000))))
    putting.start()
    proxy.is_shut = False
    assert umbel.get(refs, timeout=TIMEOUT_S) == list(range(1, 50))
    putting.join(TIMEOUT_S)
    assert umbel.get(double.remote(large[0]), timeout=TIMEOUT_S)[-1] == 2 * 299_999
    assert umbel.get(counter.all.remote(), timeout=TIMEOUT_S) == list(range(50))


def test_large_values_arrive_whole_over_a_connection_that_breaks(proxy: proxies.Proxy) -> None:
    connect(proxy.address)
    is_over = threading.Event()

    def cut_now_and_then() -> None:
        while not is_over.wait(0.05):
            proxy.cut()

    cutting = threading.Thread(target=cut_now_and_then)
    cutting.start()
    try:
        array = numpy.random.default_rng(0).integers(0, 1 << 60, 1_500_000)  # 12 MB
        there = umbel.put(array)
        assert numpy.array_equal(umbel.get(double.remote(there), timeout=TIMEOUT_S), array * 2)
    finally:
        is_over.set()
        cutting.join(TIMEOUT_S)


def test_a_silent_connection_counts_as_broken(proxy: proxies.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network loses everything and breaks nothing: both sides notice that nothing has come for long."""
    connect(proxy.address)
    assert umbel.get(double.remote(1), timeout=TIMEOUT_S) == 2
    proxy.is_silent = True
    ref = double.remote(2)
    engine: Any = current.session()
    with monkeypatch.context() as patched:
        patched.setattr(reconnecting, "SILENCE_S", 0.2)
        drivers.wait_until(engine._tunnel.waits_for, what="the silence to be noticed")
    proxy.is_silent = False
    assert umbel.get(ref, timeout=TIMEOUT_S) == 4


def test_a_connection_that_stays_broken_is_an_error_and_init_begins_anew(
    proxy: proxies.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_REMOTE_RECONNECT_S", SHORT_S)
    connect(proxy.address, namespace="broken")
    counter = Counter.options(name="lost").remote()
    assert umbel.get(counter.add.remote(1), timeout=TIMEOUT_S) == 1
    endless = umbel.remote(lambda: time.sleep(1000)).remote()
    stored = umbel.put(bytes(1_000_000))
    errors: list[BaseException] = []

    def wait_for(call: Any) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    waits = [
        lambda: umbel.get(endless),
        lambda: umbel.get(double.remote(endless)),
        lambda: endless.future().result(),
        lambda: asyncio.run(awaited(endless)),
        lambda: umbel.get(counter.add.remote(2)),
        lambda: umbel.get(stored),
        lambda: umbel.cluster_resources(),
    ]
    proxy.is_shut = True
    proxy.cut()
    threads = [threading.Thread(target=wait_for, args=(call,)) for call in waits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(errors) == len(waits)
    for error in errors:
        assert isinstance(error, exceptions.ConnectionLostError), errors
        assert isinstance(error, ConnectionError)
        assert "was broken for longer than 1 s" in str(error)
    with pytest.raises(exceptions.ConnectionLostError, match=r"umbel\.init"):
        umbel.get(double.remote(1), timeout=TIMEOUT_S)
    umbel.shutdown()
    proxy.is_shut = False
    connect(proxy.address, namespace="broken")
    assert umbel.get(double.remote(1), timeout=TIMEOUT_S) == 2
    drivers.wait_until(lambda: "lost" not in umbel.util.list_named_actors(), what="the actor to end with its session")


async def awaited(ref: Any) -> Any:
    return await ref


def test_ctrl_c_interrupts_a_wait_without_a_connection(proxy: proxies.Proxy) -> None:
    connect(proxy.address)
    assert umbel.get(double.remote(1), timeout=TIMEOUT_S) == 2
    proxy.is_shut = True
    proxy.cut()
    ref = double.remote(2)
    timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        umbel.get(ref, timeout=TIMEOUT_S)
    proxy.is_shut = False
    assert umbel.get(ref, timeout=TIMEOUT_S) == 4


# ---- ends ----


def test_a_goodbye_is_heard_though_the_way_ends_at_once(proxy: proxies.Proxy, program: cluster_utils.Cluster) -> None:
    connect(proxy.address)
    assert umbel.get(double.remote(1), timeout=TIMEOUT_S) == 2
    proxy.pause_s = 0.05  # so that what is said last lies there when the program has left
    umbel.shutdown()
    proxy.close()
    drivers.wait_until(lambda: not relays_of(program), timeout_s=15, what="what stood for the program to end")


def test_nothing_is_left_of_a_program_that_was_killed(
    program: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UMBEL_REMOTE_RECONNECT_S", SHORT_S)
    other = drivers.Driver(PROGRAM, str(tmp_path), ADDRESS=f"umbel://{program.address}")
    actor_pid = int(other.line())
    assert drivers.is_running(actor_pid)
    other.process.kill()
    other.process.communicate()
    drivers.wait_until(lambda: not drivers.is_running(actor_pid), what="the program's actor to end")
    drivers.wait_until(lambda: not relays_of(program), what="what stood for the program to end")
    connect(program.address, namespace="tests")
    assert umbel.util.list_named_actors() == ["detached"]
    umbel.kill(umbel.get_actor("detached"))
    drivers.wait_until(lambda: not stored_in(program), what="the program's values to be freed")


def stored_in(cluster: cluster_utils.Cluster) -> list[str]:
    store = umbel.nodes()[0]["ObjectStoreSocketName"]
    return [name for name in os.listdir(store) if name.count(".") == 2]


def test_what_stands_for_a_program_is_killed(program: cluster_utils.Cluster) -> None:
    connect(program.address)
    assert umbel.get(double.remote(1), timeout=TIMEOUT_S) == 2
    endless = umbel.remote(lambda: time.sleep(1000)).remote()
    (relay,) = relays_of(program)
    os.kill(relay, signal.SIGKILL)
    with pytest.raises(exceptions.ConnectionLostError, match="has ended meanwhile"):
        umbel.get(endless, timeout=TIMEOUT_S)
    umbel.shutdown()
    connect(program.address)
    assert umbel.get(double.remote(2), timeout=TIMEOUT_S) == 4


def test_the_daemon_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster_of_its_own(monkeypatch) as made:
        connect(made.address)
        endless = umbel.remote(lambda: time.sleep(1000)).remote()
        assert umbel.wait([endless], timeout=0.1) == ([], [endless])
        os.kill(head_of(made).pid, signal.SIGKILL)
        with pytest.raises(exceptions.LocalNodeDiedError):
            umbel.get(endless, timeout=TIMEOUT_S)
        umbel.shutdown()


class cluster_of_its_own:
    """Of one node, unless more are added."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **node_args: Any) -> None:
        umbel.shutdown()
        self._made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **node_args})
        monkeypatch.setenv(token_files.FILE_VARIABLE, self._made.token_file)

    def __enter__(self) -> cluster_utils.Cluster:
        return self._made

    def __exit__(self, *_: object) -> None:
        umbel.shutdown()
        self._made.shutdown()


# ---- who may come in ----


def test_a_wrong_token_a_low_one_and_none_are_refused(
    program: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_files.read(program.token_file)
    for shown, reason in (
        (tokens.Token(tokens.Role.SUBMIT, bytes(32)).as_text(), "token"),
        (token.lowered(tokens.Role.READ).as_text(), "role"),
    ):
        monkeypatch.setenv(token_files.TOKEN_VARIABLE, shown)
        with pytest.raises(exceptions.AuthenticationError, match=reason):
            connect(program.address)
    monkeypatch.delenv(token_files.TOKEN_VARIABLE)
    monkeypatch.delenv(token_files.FILE_VARIABLE)
    with pytest.raises(exceptions.AuthenticationError, match="UMBEL_TOKEN"):
        connect(program.address)
    monkeypatch.setenv(token_files.TOKEN_VARIABLE, token.lowered(tokens.Role.SUBMIT).as_text())
    connect(program.address)
    assert umbel.get(double.remote(1), timeout=TIMEOUT_S) == 2
    assert not relays_of(program)[1:]


def test_nobody_takes_over_the_session_of_another(program: cluster_utils.Cluster) -> None:
    """Whoever has a token finds the door of a program's relay, and has to know what the program has said in the beginning."""
    connect(program.address)
    engine: Any = current.session()
    poller = connection.Poller()
    token = token_files.read(program.token_file).lowered(tokens.Role.SUBMIT)
    stream = dialler.connect(addresses.parse(str(program.address)), token, handshake.process(engine._tunnel._relay))
    other = connection.Connection(stream, poller, lambda *_: pytest.fail("it was answered"), lambda _link: None)
    other.send(frames.encode_control({"t": "resume", "secret": "0" * 32, "heard": 0}))
    drivers.wait_until(lambda: poller.poll(0.01) or other.is_closed, what="the stranger to be cut off")
    drivers.wait_until(lambda: other.is_closed or poller.poll(0.01) < 0)
    poller.close()
    assert umbel.get(double.remote(1), timeout=TIMEOUT_S) == 2


def test_nobody_is_there(program: cluster_utils.Cluster) -> None:
    with pytest.raises(ConnectionError, match="nothing can be reached"):
        connect("127.0.0.1:9")
    with pytest.raises(ValueError, match="num_cpus"):
        connect(program.address, num_cpus=1)
    with pytest.raises(ValueError, match="engine='inline'"):
        connect(program.address, engine="inline")


def test_a_program_of_another_version_is_told_so(
    program: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel._client.attach.version", lambda: "0.0.1")
    with pytest.raises(exceptions.UmbelSystemError, match=r"the program '0\.0\.1'; install the same version"):
        connect(program.address)


# ---- as other drivers ----


def test_two_programs_are_two_jobs(program: cluster_utils.Cluster, tmp_path: Path) -> None:
    other = drivers.Driver(PROGRAM, str(tmp_path), ADDRESS=f"umbel://{program.address}")
    try:
        other.line()
        connect(program.address, namespace="mine")
        assert umbel.util.list_named_actors() == []
        there = umbel.get_actor("kept", namespace="tests")
        assert drivers.is_running(umbel.get(there.ready.remote(), timeout=TIMEOUT_S))
        jobs = {umbel.get_runtime_context().get_job_id(), *(one["job_id"] for one in jobs_of(program))}
        assert len(jobs) >= 2
        umbel.kill(umbel.get_actor("detached", namespace="tests"))
    finally:
        other.finish(TIMEOUT_S)


def jobs_of(cluster: cluster_utils.Cluster) -> list[dict[str, Any]]:
    from umbel.util import state

    return [{"job_id": one.job_id} for one in state.list_jobs()]


def test_what_workers_print_is_shown_here(program: cluster_utils.Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    umbel.init(f"umbel://{program.address}")
    umbel.get(umbel.remote(lambda: print("from afar")).remote(), timeout=TIMEOUT_S)
    umbel.shutdown()
    assert "from afar" in capfd.readouterr()[0]


def test_the_address_may_come_from_the_environment(
    program: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_ADDRESS", f"umbel://{program.address}")
    info = umbel.init(log_to_driver=False).address_info
    assert (info["address"], info["node_ip_address"]) == (f"umbel://{program.address}", "127.0.0.1")
    context = umbel.get_runtime_context()
    assert (context.worker_mode, context.get_node_id()) == ("driver", umbel.nodes()[0]["NodeID"])


def test_a_program_written_for_ray_may_name_its_scheme(program: cluster_utils.Cluster) -> None:
    from umbel.compat.ray import session

    info = session.init(f"ray://{program.address}", log_to_driver=False).address_info
    assert info["address"] == f"umbel://{program.address}"


def test_a_working_directory_goes_to_the_node(program: cluster_utils.Cluster, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("ANSWER = 42\n")
    connect(program.address, runtime_env={"working_dir": str(tmp_path), "env_vars": {"OF_THE_JOB": "yes"}})

    @umbel.remote
    def use() -> Any:
        import only_here  # type: ignore[import-not-found]

        return only_here.ANSWER, os.environ["OF_THE_JOB"]

    assert umbel.get(use.remote(), timeout=TIMEOUT_S) == (42, "yes")


def test_values_that_left_the_nodes_memory_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster_of_its_own(monkeypatch, object_store_memory=80 << 20) as made:
        connect(made.address)

        @umbel.remote
        class Maker:
            def make(self, number: int) -> Any:
                return numpy.full(1_500_000, number)  # 12 MB

        maker = Maker.remote()
        refs = []
        for number in range(10):
            refs.append(maker.make.remote(number))
            assert umbel.wait(refs[-1:], timeout=TIMEOUT_S)[0]
        assert [int(umbel.get(ref, timeout=TIMEOUT_S)[-1]) for ref in refs] == list(range(10))


def test_tasks_and_actors_run_on_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is connected to one node, and processes of the other come to it as to any driver."""
    with cluster_of_its_own(monkeypatch, num_cpus=1) as made:
        made.add_node(num_cpus=1, resources={"other": 2})
        connect(made.address)
        counter = Counter.options(resources={"other": 1}).remote()
        assert umbel.get(counter.add.remote(1), timeout=TIMEOUT_S) == 1

        @umbel.remote(resources={"other": 1})
        def there(value: Any) -> Any:
            return umbel.get_runtime_context().get_node_id(), umbel.get(value[0]), numpy.ones(300_000)

        inner = umbel.put("mine")
        node, read, array = umbel.get(there.remote([inner]), timeout=TIMEOUT_S)
        assert node != umbel.get_runtime_context().get_node_id()
        assert (read, float(array.sum())) == ("mine", 300_000.0)
        large = umbel.put(numpy.arange(300_000))
        total = umbel.remote(resources={"other": 1})(lambda value: int(value.sum())).remote(large)
        assert umbel.get(total, timeout=TIMEOUT_S) == sum(range(300_000))


def test_all_of_it_goes_by_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    certificates = str(tmp_path / "tls")
    subprocess.run([sys.executable, "-m", "umbel.cli", "tls", "init", certificates], check=True, timeout=TIMEOUT_S)
    monkeypatch.setenv(own_tls.DIRECTORY_VARIABLE, certificates)
    try:
        with cluster_of_its_own(monkeypatch, num_cpus=1) as made:
            made.add_node(num_cpus=1, resources={"other": 1})
            proxy = proxies.Proxy(str(made.address), records=True)
            connect(proxy.address)
            counter = Counter.options(resources={"other": 1}).remote()
            secret = "a word that nobody else is to read" * 100
            assert umbel.get(double.remote(secret), timeout=TIMEOUT_S) == secret * 2
            assert proxy.cut() == 1
            array = umbel.put(numpy.arange(300_000))
            assert umbel.get(counter.add.remote(1), timeout=TIMEOUT_S) == 1
            assert umbel.get(double.remote(array), timeout=TIMEOUT_S)[-1] == 2 * 299_999
            assert secret.encode() not in proxy.seen
            umbel.shutdown()
            own_tls.use("")
            monkeypatch.delenv(own_tls.DIRECTORY_VARIABLE)
            with pytest.raises(exceptions.AuthenticationError, match="TLS"):
                connect(proxy.address)
            proxy.close()
    finally:
        own_tls.use("")


def test_what_may_not_get_to_the_programs_machine_says_so(program: cluster_utils.Cluster) -> None:
    from umbel.util import collective

    connect(program.address)
    with pytest.raises(exceptions.UnsupportedFeature, match="let actors be the ranks"):
        collective.init_collective_group(2, 0, backend="gloo")


# ---- nothing is shared but the connection ----


APART = """
    import os, umbel
    import numpy

    assert not os.path.exists(os.environ["SESSION"]), "this machine is to be another"
    umbel.init(os.environ["ADDRESS"], log_to_driver=False)

    @umbel.remote
    def double(value):
        return value * 2

    array = numpy.arange(400_000)
    ref = umbel.put(array)
    assert numpy.array_equal(umbel.get(double.remote(ref)), array * 2)
    assert numpy.array_equal(umbel.get(ref), array)

    @umbel.remote(num_returns="streaming")
    def items():
        for number in range(3):
            yield numpy.full(100_000, number)

    assert [int(umbel.get(item)[0]) for item in items.remote()] == [0, 1, 2]
    assert len(umbel.timeline()) > 0
    print("fine", flush=True)
"""


def test_a_program_sees_nothing_of_the_nodes_files(program: cluster_utils.Cluster, tmp_path: Path) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    base = os.path.dirname(head_of(program).session_dir)
    cover = f"mount -t tmpfs none {base} && mount -t tmpfs none /dev/shm"
    probe = subprocess.run([*apart, "sh", "-c", cover], check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    if probe.returncode:
        pytest.skip(f"mount namespaces are not permitted here: {probe.stderr.strip()}")
    source = tmp_path / "apart.py"
    source.write_text("\n".join(line[4:] for line in APART.splitlines()))
    token = token_files.read(program.token_file).lowered(tokens.Role.SUBMIT).as_text()
    environment = {
        **os.environ, "ADDRESS": f"umbel://{program.address}", "SESSION": head_of(program).session_dir,
        token_files.TOKEN_VARIABLE: token,
    }  # fmt: skip
    done = subprocess.run(
        [*apart, "sh", "-c", f"{cover} && exec {sys.executable} {source}"],
        check=False, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr
