"""`import umbel` is light: a program that only mentions it pays next to nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 9  # odd, so that the median is one of them
YARDSTICK = "json, asyncio, socket, pickle"
HEAVY = (
    "click",
    "google.protobuf",
    "grpc",
    "numpy",
    "opentelemetry",
    "pandas",
    "prometheus_client",
    "pyarrow",
    "redis",
    "rich",
    "sqlite3",
    "torch",
)


def _in_fresh_interpreter(program: str) -> str:
    # -I: neither the environment nor the current directory decides what is imported.
    return subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout


def _import_s(modules: str) -> float:
    """Processor seconds, not elapsed ones: other programs on the machine do not count."""
    program = f"import time; start = time.process_time(); import {modules}; print(time.process_time() - start)"
    return float(_in_fresh_interpreter(program))


def test_import_brings_in_nothing_heavy() -> None:
    program = f"import sys, umbel; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _in_fresh_interpreter(program).strip() == "[]"


def test_no_process_starts_with_what_only_a_node_needs_that_starts() -> None:
    modules = "umbel, umbel._client.native, umbel._worker.main, umbel._agent.service, umbel._agent.forkserver"
    program = f"import sys, {modules}; print('umbel._base.control_groups' in sys.modules)"
    assert _in_fresh_interpreter(program).strip() == "False"


def test_nothing_is_loaded_for_values_of_other_nodes_before_there_are_some() -> None:
    modules = "umbel._agent.daemon, umbel._agent.service, umbel._agent.door, umbel._client.native, umbel._worker.main"
    names = (
        "'umbel._agent.value', 'umbel._agent.mov', 'umbel._agent.pull', 'umbel._agent.giving', 'umbel._client.fetching'"
    )
    program = f"import sys, {modules}; print([name for name in sys.modules if name.startswith(({names}))])"
    assert _in_fresh_interpreter(program).strip() == "[]"


def test_daemon_loads_no_control_storage_that_it_does_not_use() -> None:
    modules = "umbel._agent.daemon, umbel._agent.service, umbel._control.service, umbel._plugins.registry"
    program = (
        f"import sys, {modules}; umbel._plugins.registry.load(outside=[]); "
        "print([name for name in sys.modules if name.startswith(('umbel._control.storage', 'umbel._control.leadership'))])"
    )
    assert _in_fresh_interpreter(program).strip() == "[]"


def test_driver_loads_nothing_of_the_history_but_its_codes() -> None:
    program = (
        "import sys, umbel._client.driver, umbel._client.session; "
        "print(sorted(name for name in sys.modules if name.startswith('umbel._history.')))"
    )
    assert _in_fresh_interpreter(program).strip() == "['umbel._history.codes']"


def test_no_process_loads_what_talks_to_other_nodes_before_there_are_some() -> None:
    modules = "umbel, umbel._client.driver, umbel._client.attach, umbel._worker.main, umbel._agent.service"
    names = (
        "umbel._client.remote_links", "umbel._client.remote_peers", "umbel._transport.acceptor",
        "umbel._transport.dialler", "umbel._transport.ways", "umbel._wire.handshake", "umbel._base.tokens", "umbel._agent.door",
        "umbel._agent.directory", "umbel._agent.lease_sharing", "umbel._agent.lease_links", "umbel._agent.sharing",
        "umbel._scheduling.forwarding",
    )  # fmt: skip
    program = f"import sys, {modules}; print([name for name in sys.modules if name.startswith({names!r})])"
    assert _in_fresh_interpreter(program).strip() == "[]"


def test_import_starts_no_thread_and_no_process() -> None:
    program = "import umbel, threading, psutil; print(threading.active_count(), psutil.Process().children())"
    assert _in_fresh_interpreter(program).strip() == "1 []"


def test_daemon_loads_nothing_of_what_lies_on_disk_until_something_has_to() -> None:
    program = (
        "import sys; from umbel._agent import service; "
        "print([name for name in sys.modules if name.startswith('umbel._agent.spill')])"
    )
    assert _in_fresh_interpreter(program).strip() == "[]"


def test_import_takes_at_most_twice_a_few_standard_modules() -> None:
    _import_s("umbel")  # compiles and warms the page cache for both
    _import_s(YARDSTICK)
    pairs = [(_import_s("umbel"), _import_s(YARDSTICK)) for _ in range(ROUNDS)]  # interleaved: load hits both alike
    ours_s, theirs_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert ours_s <= 2 * theirs_s, (
        f"import umbel took {ours_s * 1e3:.1f} ms, import {YARDSTICK} {theirs_s * 1e3:.1f} ms"
    )
