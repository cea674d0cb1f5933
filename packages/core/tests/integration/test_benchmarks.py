"""Quick runs of those rows that work on two nodes: what they take (`benchmarks/core.py`), and where (`profile.py`)."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("numpy")

ROOT = pathlib.Path(__file__).resolve().parents[4]
LIMIT_S = 300  # it takes ten seconds

ONE_FAILS = """
import sys
sys.path.insert(0, sys.argv[1])
from benchmarks import bars, core, measure, rows
rows.BUILDERS["remote_tasks_sync"] = lambda rt: rt.no_such_name
bench = core.Bench("umbel", measure.QUICK)
bench.run([bars.ROW_BY_KEY[key] for key in ("remote_tasks_sync", "remote_actor_sync")])
failed, done = bench.results["remote_tasks_sync"], bench.results["remote_actor_sync"]
assert "no_such_name" in failed["error"] and done["median"] > 0, bench.results
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")


@pytest.mark.timeout(LIMIT_S + 20)
def test_the_rows_of_two_nodes_give_figures_beside_some_of_one_node(tmp_path: pathlib.Path) -> None:
    keys = ["remote_tasks_sync", "tasks_sync", "remote_tasks_pipelined", "remote_actor_sync", "remote_actor_pipelined"]
    keys += ["transfer_256mib", "group_churn"]
    result = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "core.py"), "umbel", "--quick", "--rows", ",".join(keys)]
    command += ["--json", str(result)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    document = json.loads(result.read_text())
    assert document["rows"].keys() == set(keys)
    assert all(row["median"] > 0 for row in document["rows"].values())


@pytest.mark.timeout(LIMIT_S + 20)
def test_after_a_row_that_failed_the_next_has_a_new_cluster() -> None:
    command = [sys.executable, "-c", ONE_FAILS, str(ROOT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(LIMIT_S + 20)
def test_where_the_time_of_another_nodes_work_goes_is_shown() -> None:
    """The workers of a cluster's driver are started by an exec, which must not leave them the sampler's timer."""
    command = [sys.executable, str(ROOT / "benchmarks" / "profile.py"), "remote_actor_sync", "--seconds", "0.3"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "actor calls on another node, one at a time on umbel" in done.stdout


@pytest.mark.timeout(LIMIT_S + 20)
def test_where_the_time_of_a_start_goes_is_shown() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "profile.py"), "start", "--top", "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.findall(r" ms  (.*)", done.stdout)[:4] == ["import", "init", "first task", "driver"]


def test_shares_of_memory_add_up_to_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that does nothing meanwhile."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import processes, profile_fresh

    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"begun\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"begun\n"
        share = profile_fresh.mapped_kib(process.pid)
        whole_kib = processes.pss_bytes(process.pid) / 1024
        process.stdin.close()
    assert "cat" in share and "[stack]" in share
    assert abs(share.total() - whole_kib) < 0.1 * whole_kib  # each mapping is rounded, and others may map what it maps


def test_work_of_another_node_that_runs_on_the_drivers_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the resource is the head's: everything runs, but nothing runs on the other node."""
    monkeypatch.syspath_prepend(str(ROOT))
    import umbel
    from benchmarks import rows, runtimes
    from umbel import cluster_utils

    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "resources": {runtimes.THERE: 2}}
    )
    try:
        cluster.add_node(num_cpus=1)
        umbel.init(address=cluster.address)
        with pytest.raises(ValueError, match="ran on the driver's node"):
            rows.remote_tasks_sync(umbel)
        with pytest.raises(ValueError, match="ran on the driver's node"):
            rows.remote_actor_sync(umbel)
    finally:
        cluster.shutdown()
