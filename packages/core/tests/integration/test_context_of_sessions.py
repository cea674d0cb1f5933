"""What `umbel.init` returns, and what is known of a session from outside of it."""

from __future__ import annotations

import drivers
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_context_of_a_session_tells_where_it_is_and_ends_it(engine: str) -> None:
    output, _ = drivers.run("""
        import umbel
        from collections.abc import Mapping

        session = umbel.init(num_cpus=1, namespace="here")
        told = umbel.get_runtime_context()
        assert isinstance(session, Mapping) and dict(session) == session.address_info
        assert session["node_id"] == session.address_info["node_id"] == told.get_node_id()
        assert session["namespace"] == "here"
        assert session["session_dir"] == f"{told.get_temp_dir()}/{told.get_session_name()}"
        assert set(session) - {"metrics_export_port"} == {"node_id", "session_dir", "address", "node_ip_address", "namespace"}
        assert umbel.init(ignore_reinit_error=True).address_info == session.address_info
        session.disconnect()
        assert not umbel.is_initialized()
        session.disconnect()
        with umbel.init(num_cpus=1):
            assert umbel.is_initialized()
        assert not umbel.is_initialized()
        print("done")
    """, UMBEL_ENGINE=engine)  # fmt: skip
    assert output == "done\n"


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_node_has_the_name_and_the_memory_that_were_asked_for(engine: str) -> None:
    """They were ignored."""
    output, _ = drivers.run("""
        import umbel

        umbel.init(num_cpus=1, _node_name="mine", _memory=1 << 30, infeasible_timeout_s=0.1)
        (node,) = umbel.nodes()
        assert (node["NodeName"], node["Resources"]["memory"]) == ("mine", float(1 << 30)), node
        assert umbel.get(umbel.remote(memory=1 << 30)(lambda: 1).remote()) == 1
        try:
            umbel.get(umbel.remote(memory=(1 << 30) + 1)(lambda: 1).remote())
        except umbel.exceptions.TaskUnschedulableError as error:
            print("done")
    """, UMBEL_ENGINE=engine)  # fmt: skip
    assert output == "done\n"


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_runtime_env_of_a_session_is_told_in_all_of_it(engine: str) -> None:
    output, _ = drivers.run("""
        import umbel

        def told(): return umbel.get_runtime_context().runtime_env["env_vars"]
        umbel.init(num_cpus=1, runtime_env={"env_vars": {"A": "1", "B": "1"}})
        assert told() == {"A": "1", "B": "1"}
        ask = umbel.remote(told)
        assert umbel.get(ask.remote()) == {"A": "1", "B": "1"}
        assert umbel.get(ask.options(runtime_env={"env_vars": {"B": "2"}}).remote()) == {"A": "1", "B": "2"}
        print("done")
    """, UMBEL_ENGINE=engine)  # fmt: skip
    assert output == "done\n"


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_variables_are_merged_before_they_are_expanded(engine: str) -> None:
    """What a task appends to is the node's variable, not that of its job: so it is in Ray."""
    output, _ = drivers.run("""
        import os, umbel

        def told(): return os.environ["PLACE"], os.environ["WHOSE"]
        told_by_task = umbel.remote(told)

        @umbel.remote
        class Actor:
            def told(self): return told()

        umbel.init(num_cpus=1, runtime_env={"env_vars": {"WHOSE": "$PLACE:job", "PLACE": "${PLACE}:j"}})
        env = {"env_vars": {"PLACE": "${PLACE}:t"}}
        print(told() if "WHOSE" in os.environ else os.environ["PLACE"])
        print(*umbel.get(told_by_task.remote()))
        print(*umbel.get(told_by_task.options(runtime_env=env).remote()))
        print(*umbel.get(Actor.options(runtime_env=env).remote().told.remote()))
        print(*umbel.get(told_by_task.remote()))
    """, UMBEL_ENGINE=engine, PLACE="base")  # fmt: skip
    jobs, tasks = "base:j base:j:job", "base:t base:t:job"
    assert output.splitlines() == ["base", jobs, tasks, tasks, jobs]


def test_children_replace_what_their_parents_append() -> None:
    output, _ = drivers.run("""
        import os, umbel

        @umbel.remote
        def told(): return os.environ["PLACE"], os.environ.get("OTHER")

        @umbel.remote
        def parent(env): return umbel.get(told.options(runtime_env=env).remote())

        env = {"env_vars": {"PLACE": "${PLACE}:parent"}}
        print(*umbel.get(parent.options(runtime_env=env).remote({"env_vars": {"OTHER": "${PLACE}:other"}})))
        print(*umbel.get(parent.options(runtime_env=env).remote({"env_vars": {"PLACE": "${PLACE}:child"}})))
    """, PLACE="base")  # fmt: skip
    assert output.splitlines() == ["base:parent base:other", "base:child None"]


def test_accelerators_are_told_to_those_they_were_given_to() -> None:
    output, _ = drivers.run("""
        import umbel
        umbel.init(num_cpus=2, num_gpus=2)
        def told(): return umbel.get_runtime_context().get_accelerator_ids()
        assert told() == {"GPU": []}
        assert umbel.get(umbel.remote(told).remote()) == {"GPU": []}
        assert sorted(umbel.get(umbel.remote(num_gpus=2)(told).remote())["GPU"]) == ["0", "1"]
        (one,) = umbel.get(umbel.remote(num_gpus=1)(told).remote())["GPU"]
        assert one in ("0", "1")
        print("done")
    """)
    assert output == "done\n"


@pytest.mark.parametrize("idle_worker_s", [0.2, 1000.0])
def test_workers_that_nobody_needs_end_when_the_session_says(idle_worker_s: float) -> None:
    """Six tasks that block let six workers start on one CPU; one for each CPU stays."""
    with drivers.driver("""
        import sys, umbel
        umbel.init(num_cpus=1)

        @umbel.remote(num_cpus=0)
        class Gate:
            def __init__(self):
                import asyncio
                self.event = asyncio.Event()
            async def wait(self): await self.event.wait()
            async def open(self): self.event.set()

        @umbel.remote
        def passes(gate): umbel.get(gate.wait.remote())

        gate = Gate.remote()
        refs = [passes.remote(gate) for _ in range(6)]
        print("waiting", flush=True)
        sys.stdin.readline()
        umbel.get(gate.open.remote())
        umbel.get(refs)
        print("done", flush=True)
        sys.stdin.read()
    """, UMBEL_IDLE_WORKER_S=str(idle_worker_s), UMBEL_IDLE_LEASE_S="0.1") as driver:  # fmt: skip
        assert driver.line() == "waiting"
        drivers.wait_until(lambda: len(driver.worker_pids()) >= 7, what="that a worker runs for each task")
        driver.tell()
        assert driver.line() == "done"
        if idle_worker_s < 1:
            drivers.wait_until(lambda: len(driver.worker_pids()) == 2, what="that the actor and one worker are left")
        else:
            drivers.pause(3.0)  # by then they would be gone by default
            assert len(driver.worker_pids()) >= 7
