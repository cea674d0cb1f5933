"""Metrics of a session with real processes: what Prometheus is served, by whom, and what is left when they die."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

pytest.importorskip("prometheus_client")

import umbel
from umbel._client import current
from umbel._model import metric_catalog as catalog
from umbel.util.metrics import Counter, Gauge, Histogram

_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
served = Counter("served", "what was served", tag_keys=("where",))
depth = Gauge("depth", "of a queue")
lengths = Histogram("length_bytes", boundaries=[10, 100])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with umbel.init(num_cpus=2, log_to_driver=False, _metrics_export_port=0) as context:
        yield context["metrics_export_port"]


def scrape(port: int) -> dict[tuple[str, str], float]:
    """(name, labels but the node's and the worker's) -> the sum of the values."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=drivers.PATIENCE_S) as answer:
        text = answer.read().decode()
    found: dict[tuple[str, str], float] = {}
    for match in _SAMPLE.finditer(text):
        pairs = [pair for pair in (match["labels"] or "").split(",") if not pair.startswith(("node_id", "worker_id"))]
        key = (match["name"], ",".join(pairs).replace('"', ""))
        found[key] = found.get(key, 0.0) + float(match["value"])
    return found


def value(port: int, name: str, labels: str = "") -> float | None:
    return scrape(port).get((name, labels))


def expect(port: int, wanted: float | None, name: str, labels: str = "") -> None:
    """Metrics come within a second or two."""
    drivers.wait_until(lambda: value(port, name, labels) == wanted, what=f"{name} to be {wanted}")


@umbel.remote(num_cpus=0)
class Server:
    def serve(self, length: int) -> int:
        served.inc(tags={"where": "actor"})
        depth.set(length)
        lengths.observe(length)
        return os.getpid()


def test_what_driver_tasks_and_actors_count_is_one_total_that_outlives_them(port: int) -> None:
    @umbel.remote
    def serve() -> None:
        served.inc(2, tags={"where": "task"})

    first, second = Server.remote(), Server.remote()
    umbel.get([serve.remote() for _ in range(10)])
    pid = umbel.get(first.serve.remote(5))
    umbel.get(second.serve.remote(70))
    served.inc(tags={"where": "driver"})
    expect(port, 20, "umbel_served_total", "where=task")
    expect(port, 2, "umbel_served_total", "where=actor")
    expect(port, 1, "umbel_served_total", "where=driver")
    expect(port, 75, "umbel_depth")
    expect(port, 1, "umbel_length_bytes_bucket", "le=10.0")
    assert value(port, "umbel_length_bytes_sum") == 75
    os.kill(pid, signal.SIGKILL)
    expect(port, 70, "umbel_depth")
    umbel.kill(second)
    expect(port, None, "umbel_depth")
    found = scrape(port)
    assert found["umbel_served_total", "where=actor"] == 2
    assert found["umbel_length_bytes_count", ""] == 2


def test_umbels_own_metrics_follow_what_the_session_does(port: int, tmp_path: Any) -> None:
    gate = tmp_path / "gate"

    @umbel.remote(name="held")
    def held(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.01)

    @umbel.remote(name="failing", max_retries=0)
    def failing() -> None:
        raise KeyError("on purpose")

    @umbel.remote(name="after")
    def after(_: Any) -> None:
        pass

    with pytest.raises(KeyError):
        umbel.get(failing.remote())
    kept = umbel.put(bytes(1 << 20))
    running = [held.remote(str(gate)) for _ in range(2)]
    waiting = [held.options(resources={"none": 1}).remote(str(gate)), after.remote(running[0])]
    expect(port, 2, "umbel_tasks_running")
    expect(port, 1, "umbel_tasks", "state=PENDING_NODE_ASSIGNMENT")
    expect(port, 1, "umbel_tasks", "state=PENDING_ARGS_AVAIL")
    expect(port, 2, "umbel_tasks", "state=SUBMITTED_TO_WORKER")
    expect(port, 1, "umbel_tasks_ended_total", "name=failing,outcome=error")
    found = scrape(port)
    assert found["umbel_leases_pending", ""] >= 1
    assert found["umbel_workers", "state=leased"] == 2
    assert found["umbel_object_store_used_bytes", ""] >= 1 << 20
    for component in ("daemon", "driver", "fork_server", "metrics"):
        assert found["umbel_processes", f"component={component},name="] == 1
        assert found["umbel_process_memory_bytes", f"component={component},name="] > 1 << 20
    may_be_missing = {
        "umbel_node_disk_read_bytes_total",
        "umbel_node_disk_written_bytes_total",
    }  # the system may not tell
    may_be_missing.add("umbel_tasks_recomputed_total")  # until there is one
    assert set(catalog.BY_NAME) - {name for name, _ in found} <= may_be_missing
    gate.touch()
    umbel.cancel(waiting[0])
    umbel.get([*running, waiting[1]], timeout=drivers.PATIENCE_S)
    expect(port, 0, "umbel_tasks_running")
    expect(port, 0, "umbel_tasks", "state=SUBMITTED_TO_WORKER")
    expect(port, 2, "umbel_tasks_ended_total", "name=held,outcome=ok")
    del kept


def test_tasks_that_run_again_for_a_lost_result_are_counted(port: int) -> None:
    @umbel.remote
    def make() -> bytes:
        return b"x" * 300_000

    ref = make.remote()
    umbel.wait([ref], fetch_local=False)
    values = current.engine().values
    with values._lock:
        segment = values.table.records[ref._id].payload[0]
    os.unlink(os.path.join(values.store.directory, segment))
    values.store.trim_all()
    assert umbel.get(ref, timeout=drivers.PATIENCE_S) == b"x" * 300_000
    expect(port, 1, "umbel_tasks_recomputed_total")


def test_port_is_told_and_only_this_machine_is_let_in(port: int) -> None:
    assert umbel.nodes()[0]["MetricsExportPort"] == port
    addresses = {line.split()[1] for line in open("/proc/net/tcp").read().splitlines()[1:] if line.split()[3] == "0A"}
    assert f"0100007F:{port:04X}" in addresses


def test_scrapers_that_do_not_read_stall_neither_the_node_nor_others(port: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for one in silent[:10]:
        one.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert umbel.get(umbel.remote(lambda: 1).remote(), timeout=drivers.PATIENCE_S) == 1
    assert value(port, "umbel_actors", "state=DEAD") is not None or value(port, "umbel_leases_pending") == 0
    for one in silent:
        one.close()


def test_command_prints_the_metrics_of_a_session_that_serves_none() -> None:
    source = """
        import sys, umbel
        from umbel.util.metrics import Counter
        umbel.init(num_cpus=1)
        Counter("told").inc(3)
        print(umbel.nodes()[0]["MetricsExportPort"], flush=True)
        sys.stdin.read()
    """
    with drivers.driver(source) as driver:
        assert driver.line() == "0"
        command = [sys.executable, "-m", "umbel.cli", "metrics", "show"]
        environment = {**os.environ, "TMPDIR": driver.directory}

        def shown() -> str:
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

        drivers.wait_until(lambda: re.search(r"^umbel_told_total\{.*\} 3.0$", shown(), re.MULTILINE))
        assert not any("exporter" in one for one in driver.left_behind())


SERVING = """
    import sys, umbel
    context = umbel.init(num_cpus=1, _metrics_export_port=0)
    print(context["metrics_export_port"], flush=True)
    sys.stdin.readline()
    print(umbel.get(umbel.remote(lambda: "works").remote()), flush=True)
    sys.stdin.readline()
"""


def exporter_of(driver: drivers.Driver) -> int:
    (pid,) = [pid for pid, command in drivers.marked_processes(driver.mark).items() if "exporter" in command]
    return pid


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "daemon", "fork server"])
def test_nothing_is_left_whoever_is_killed(victim: str) -> None:
    with drivers.driver(SERVING) as driver:
        driver.line()
        exporter_of(driver)
        daemon, fork_server = driver.daemon_pids()
        os.kill({"driver": driver.pid, "daemon": daemon, "fork server": fork_server}[victim], signal.SIGKILL)
        if victim != "driver":
            drivers.wait_until(lambda: not any("exporter" in one for one in driver.left_behind()))
            driver.kill()
        driver.process.wait()
        driver.expect_nothing_left()


@pytest.mark.slow
def test_session_goes_on_without_its_endpoint_and_says_so() -> None:
    with drivers.driver(SERVING) as driver:
        driver.line()
        os.kill(exporter_of(driver), signal.SIGKILL)
        driver.tell()
        assert driver.line() == "works"
        driver.tell()
        _, errors = driver.finish()
        assert "the process that serves metrics ended" in errors
        driver.expect_nothing_left()


@pytest.mark.slow
def test_endpoint_that_has_worked_for_a_while_is_started_again() -> None:
    """Here as soon as it has answered: what the daemon waits for before it trusts one is set to nothing."""
    source = SERVING.replace("import sys, umbel", "import sys, umbel\n    " + _IMPATIENT)
    with drivers.driver(source) as driver:
        port = int(driver.line())
        first = exporter_of(driver)
        assert value(port, "umbel_leases_pending") == 0
        os.kill(first, signal.SIGKILL)
        drivers.wait_until(lambda: not drivers.is_running(first))
        assert value(port, "umbel_leases_pending") == 0  # the socket takes the question before there is a process
        assert exporter_of(driver) != first


_IMPATIENT = (
    "from umbel._client import launch; launch._BOOT = launch._BOOT.replace('; daemon.main', "
    "'; from umbel._agent import metrics_service as ms; ms.RESTART_AFTER_S = 0; daemon.main')"
)


def test_port_that_is_taken_is_an_error_of_init() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        source = f"""
            import umbel
            try:
                umbel.init(num_cpus=1, _metrics_export_port={number})
            except umbel.exceptions.UmbelSystemError as error:
                print(error)
            umbel.init(num_cpus=1)
            print(umbel.get(umbel.remote(lambda: 1).remote()))
        """
        output, _ = drivers.run(source)
    assert f"metrics cannot be served at 127.0.0.1:{number}" in output
    assert "choose another metrics_export_port" in output
    assert output.splitlines()[-1] == "1"


def test_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    source = """
        import sys
        sys.modules["prometheus_client"] = None
        import umbel
        try:
            umbel.init(num_cpus=1, _metrics_export_port=0)
        except ImportError as error:
            print(error)
    """
    output, _ = drivers.run(source)
    assert 'pip install "umbel[metrics]"' in output


@pytest.mark.parametrize(("wrong", "error"), [("8080", TypeError), (True, TypeError), (-1, ValueError)])
def test_port_is_a_number_of_a_port(wrong: Any, error: type[Exception]) -> None:
    source = f"""
        import umbel
        try:
            umbel.init(_metrics_export_port={wrong!r})
        except {error.__name__} as error:
            print(error)
    """
    output, _ = drivers.run(source)
    assert "_metrics_export_port must be" in output and repr(wrong) in output


def test_inline_engine_counts_and_serves_nothing() -> None:
    source = """
        import umbel
        from umbel.util.metrics import Counter
        counter = Counter("c")
        try:
            umbel.init(engine="inline", _metrics_export_port=0)
        except umbel.exceptions.UnsupportedFeature as error:
            print(error)
        umbel.init(engine="inline")
        print(umbel.get(umbel.remote(lambda: counter.inc()).remote()))
    """
    output, _ = drivers.run(source)
    assert "the inline engine has no node" in output
    assert output.splitlines()[-1] == "None"


def test_session_that_does_not_ask_loads_nothing_of_it() -> None:
    source = """
        import sys, umbel
        umbel.init(num_cpus=1)
        check = umbel.remote(lambda: sorted(name for name in sys.modules if "metric" in name or "prometheus" in name))
        print(umbel.get(check.remote()), sorted(name for name in sys.modules if "metric" in name))
    """
    output, _ = drivers.run(source)
    assert output.splitlines()[-1] == "[] []"


def _status(port: int, **headers: str) -> int:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=drivers.PATIENCE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_pages_of_browsers_may_not_ask(port: int) -> None:
    """Neither those of other places, nor those at a name that points here."""
    assert _status(port) == 200
    assert _status(port, Origin="http://evil.example") == 403
    assert _status(port, Host="evil.example") == 403


def test_a_node_that_has_a_token_wants_it(tmp_path: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as directory:
        environment = {**os.environ, "TMPDIR": directory, "UMBEL_METRICS_EXPORT_PORT": "0"}

        def command(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "umbel.cli", *arguments],
                check=True, capture_output=True, text=True, timeout=60, env=environment,
            )  # fmt: skip
            return done.stdout

        path = os.path.join(directory, "token")
        command("start", "--head", "--port", "0", "--num-cpus", "1", "--token-file", path)
        try:
            port = json.loads(command("status", "--json"))["nodes"][0]["metrics_port"]
            assert _status(port) == 401
            assert _status(port, Authorization=f"Bearer {command('token', '--file', path).strip()}") == 200
        finally:
            command("stop")
