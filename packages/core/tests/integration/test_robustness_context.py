"""What tasks and actors are told of themselves, and what they are given: resources, devices, environment, processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=4, num_gpus=2, resources={"licence": 2}, namespace="here", labels={"zone": "a"})
    yield
    umbel.shutdown()


def everything() -> dict[str, Any]:
    context = umbel.get_runtime_context()
    return {
        "task": context.get_task_id(),
        "name": context.get_task_name(),
        "function": context.get_task_function_name(),
        "actor": context.get_actor_id(),
        "actor_name": context.get_actor_name(),
        "job": context.get_job_id(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "namespace": context.namespace,
        "resources": context.get_assigned_resources(),
        "attempt": context.get_attempt_number(),
        "labels": context.get_node_labels(),
        "mode": context.worker_mode,
    }


@umbel.remote
def report() -> dict[str, Any]:
    return everything()


@umbel.remote
class Reporter:
    def report(self) -> dict[str, Any]:
        return everything()

    async def report_async(self) -> dict[str, Any]:
        return everything()

    def pid(self) -> int:
        return os.getpid()

    def child(self) -> dict[str, Any]:
        result: dict[str, Any] = umbel.get(report.remote())
        return result


@umbel.remote
def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def free(name: str) -> float:
    return umbel.available_resources().get(name, 0.0)


def test_driver_knows_what_applies_to_it() -> None:
    context = umbel.get_runtime_context()
    assert context.worker_mode == "driver"
    assert context.namespace == "here"
    assert context.get_task_id() is None
    assert context.get_actor_id() is None
    assert context.get_node_id() == umbel.nodes()[0]["NodeID"]
    for call in (context.get_assigned_resources, context.is_canceled, lambda: context.current_actor):
        with pytest.raises(RuntimeError):
            call()


def test_task_knows_itself() -> None:
    ref = report.remote()
    told = umbel.get(ref)
    driver = umbel.get_runtime_context()
    assert told["task"] == ref.task_id().hex()
    assert told["actor"] is None
    assert told["job"] == driver.get_job_id()
    assert told["node"] == driver.get_node_id()
    assert told["worker"] != driver.get_worker_id()
    assert told["namespace"] == "here"
    assert told["resources"] == {"CPU": 1.0}
    assert told["attempt"] == 0
    assert told["mode"] == "worker"
    assert told["labels"].get("zone") == "a"
    assert told["name"] == told["function"] == "report"


def test_task_options_show_in_the_context() -> None:
    told = umbel.get(report.options(name="renamed", num_cpus=0.5, resources={"licence": 1}).remote())
    assert told["name"] == "renamed"
    assert told["function"] == "report"
    assert told["resources"] == {"CPU": 0.5, "licence": 1.0}


def test_actor_knows_itself() -> None:
    actor = Reporter.options(name="me", num_cpus=2).remote()
    for method in (actor.report, actor.report_async):
        ref = method.remote()
        told = umbel.get(ref)
        assert told["actor"] == actor._actor_id.hex()
        assert told["actor_name"] == "me"
        assert told["resources"] == {"CPU": 2.0}
        assert told["task"] == ref.task_id().hex()
        assert told["namespace"] == "here"
    told = umbel.get(actor.child.remote())
    assert told["actor"] is None
    assert told["namespace"] == "here"


def test_each_call_has_an_id_of_its_own() -> None:
    actor = Reporter.remote()
    refs = [method.remote() for _ in range(10) for method in (report, actor.report, actor.report_async)]
    assert [told["task"] for told in umbel.get(refs)] == [ref.task_id().hex() for ref in refs]


# Resources


def test_resources_are_held_and_given_back(tmp_path: Any) -> None:
    @umbel.remote
    def hold() -> None:
        drivers.wait_until((tmp_path / "open").exists)

    running = hold.options(num_cpus=1.5, num_gpus=0.5, resources={"licence": 1}, memory=1_000_000).remote()
    total = umbel.cluster_resources()
    drivers.wait_until(lambda: free("CPU") == total["CPU"] - 1.5)
    assert free("GPU") == 1.5
    assert free("licence") == 1.0
    assert free("memory") == total["memory"] - 1_000_000
    (tmp_path / "open").touch()
    umbel.get(running, timeout=30)
    drivers.wait_until(lambda: umbel.available_resources() == total)


def test_fractions_add_up_exactly() -> None:
    total = umbel.cluster_resources()
    refs = [sleep.options(num_cpus=0.1, resources={"licence": 0.0003}).remote(0.01) for _ in range(100)]
    umbel.get(refs, timeout=30)
    drivers.wait_until(lambda: umbel.available_resources() == total)


def test_custom_resources_bound_what_runs_at_once(tmp_path: Any) -> None:
    @umbel.remote(num_cpus=0, resources={"licence": 1})
    def hold(number: int) -> int:
        (tmp_path / str(number)).touch()
        most = len(list(tmp_path.iterdir()))
        time.sleep(0.05)
        (tmp_path / str(number)).unlink()
        return most

    assert max(umbel.get([hold.remote(number) for number in range(8)], timeout=30)) <= 2


def test_gpus_are_assigned_apart_and_shared_by_fractions() -> None:
    @umbel.remote
    class Holder:
        def gpus(self) -> Any:
            return umbel.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    holders = [Holder.options(num_gpus=1).remote() for _ in range(2)]
    found = umbel.get([holder.gpus.remote() for holder in holders], timeout=30)
    assert sorted(ids[0] for ids, _ in found) == [0, 1]
    assert all(visible == str(ids[0]) for ids, visible in found)
    assert "GPU" not in umbel.available_resources()
    for holder in holders:
        umbel.kill(holder)
    drivers.wait_until(lambda: free("GPU") == 2.0)
    halves = [Holder.options(num_gpus=0.5).remote() for _ in range(2)]
    found = umbel.get([half.gpus.remote() for half in halves], timeout=30)
    assert found[0] == found[1]


def test_task_with_a_gpu_has_a_process_of_its_own() -> None:
    """So that what it leaves in the device's memory goes; in the decorator and by options alike."""

    @umbel.remote(num_gpus=1)
    def decorated() -> int:
        return os.getpid()

    assert len(set(umbel.get([decorated.remote() for _ in range(3)], timeout=30))) == 3
    optional = sleep.options(num_gpus=1)
    assert len(set(umbel.get([optional.remote(0) for _ in range(3)], timeout=30))) == 3
    drivers.wait_until(lambda: free("GPU") == 2.0)


def test_max_calls_recycles_the_worker() -> None:
    @umbel.remote(max_calls=3)
    def work() -> int:
        return os.getpid()

    pids = umbel.get([work.remote() for _ in range(30)], timeout=30)
    assert all(pids.count(pid) <= 3 for pid in pids)
    other = umbel.get([sleep.remote(0) for _ in range(10)], timeout=30)
    assert len(other) == 10


@umbel.remote
def threads() -> tuple[str | None, int]:
    return os.environ.get("OMP_NUM_THREADS"), os.getpid()


@umbel.remote
class Threads:
    def threads(self) -> str | None:
        return os.environ.get("OMP_NUM_THREADS")


@pytest.fixture
def no_threads_set() -> None:
    if "OMP_NUM_THREADS" in os.environ:
        pytest.skip("the user has set OMP_NUM_THREADS, which holds everywhere")


@pytest.mark.usefixtures("no_threads_set")
def test_threads_follow_the_cpus() -> None:
    """In one worker too: tasks that need all CPUs get the worker that the smaller ones had."""
    found = [umbel.get(threads.options(num_cpus=cpus).remote(), timeout=30) for cpus in (1, 4, 0.5, 4, 0, 1)]
    assert [value for value, _ in found] == ["1", "4", "1", "4", "1", "1"]
    assert len({pid for _, pid in found}) < len(set(found))


@pytest.mark.usefixtures("no_threads_set")
def test_threads_of_actors_follow_their_cpus() -> None:
    for options, expected in (({}, "1"), ({"num_cpus": 2}, "2")):
        actor = Threads.options(**options).remote()
        assert umbel.get(actor.threads.remote(), timeout=30) == expected
        umbel.kill(actor)


def test_threads_that_the_user_sets_are_left_alone() -> None:
    env = {"env_vars": {"OMP_NUM_THREADS": "7"}}
    for cpus in (1, 2):
        assert umbel.get(threads.options(runtime_env=env, num_cpus=cpus).remote(), timeout=30)[0] == "7"
    assert umbel.get(Threads.options(runtime_env=env).remote().threads.remote(), timeout=30) == "7"


# Environment


def test_environment_variables_reach_tasks_actors_and_their_children() -> None:
    @umbel.remote
    def read(name: str) -> str | None:
        return os.environ.get(name)

    @umbel.remote
    def read_in_child(name: str) -> Any:
        return umbel.get(read.remote(name))

    @umbel.remote
    class Reader:
        def read(self, name: str) -> str | None:
            return os.environ.get(name)

    env = {"env_vars": {"UMBEL_TEST_VALUE": "seven"}}
    assert umbel.get(read.options(runtime_env=env).remote("UMBEL_TEST_VALUE"), timeout=30) == "seven"
    assert umbel.get(read.remote("UMBEL_TEST_VALUE"), timeout=30) is None
    reader = Reader.options(runtime_env=env).remote()
    assert umbel.get(reader.read.remote("UMBEL_TEST_VALUE"), timeout=30) == "seven"
    assert umbel.get(read_in_child.options(runtime_env=env).remote("UMBEL_TEST_VALUE"), timeout=30) == "seven"
    assert "UMBEL_TEST_VALUE" not in os.environ


def test_variables_of_ours_in_an_environment_hold_in_its_workers() -> None:
    @umbel.remote
    def inline_bytes_max() -> int:
        from umbel._client import current

        return int(current.engine().config.inline_bytes_max)

    env = {"env_vars": {"UMBEL_INLINE_BYTES_MAX": "7"}}
    assert umbel.get(inline_bytes_max.options(runtime_env=env).remote(), timeout=30) == 7
    assert umbel.get(inline_bytes_max.remote(), timeout=30) > 7


def test_different_environments_have_different_processes() -> None:
    pids: dict[str, set[int]] = {}
    for _ in range(5):
        for value in ("a", "b"):
            optional = sleep.options(runtime_env={"env_vars": {"UMBEL_TEST_VALUE": value}})
            pids.setdefault(value, set()).add(umbel.get(optional.remote(0), timeout=30))
    assert not pids["a"] & pids["b"]


# Reasons


def test_explain_tells_what_a_reference_waits_for() -> None:
    @umbel.remote
    def consume(value: Any) -> Any:
        return value

    running = sleep.remote(1000)
    drivers.wait_until(lambda: "running" in umbel.explain(running))
    waiting = consume.remote(running)
    assert "argument" in umbel.explain(waiting)
    assert "sleep" in umbel.explain(waiting)
    greedy = sleep.options(num_cpus=100).remote(0)
    drivers.wait_until(lambda: "CPU" in umbel.explain(greedy))
    assert "100 CPU" in umbel.explain(greedy)
    actor = Reporter.options(resources={"licence": 100}).remote()
    call = actor.pid.remote()
    drivers.wait_until(lambda: "licence" in umbel.explain(call))
    done = umbel.put(1)
    assert "ready" in umbel.explain(done)
    for ref in (running, waiting, greedy, call):
        umbel.cancel(ref)
        umbel.wait([ref], timeout=30)
    assert "ready" in umbel.explain(running)


def test_time_outs_say_what_was_waited_for() -> None:
    running = sleep.remote(1000)
    drivers.wait_until(lambda: "running" in umbel.explain(running))
    with pytest.raises(exceptions.GetTimeoutError, match=r"sleep.*running"):
        umbel.get([running, umbel.put(1)], timeout=0.05)
    greedy = sleep.options(num_cpus=100).remote(0)
    with pytest.raises(exceptions.GetTimeoutError, match="CPU"):
        umbel.get(greedy, timeout=0.3)
    for ref in (running, greedy):
        umbel.cancel(ref)
        umbel.wait([ref], timeout=30)


def test_explain_lists_what_waits_at_the_node() -> None:
    greedy = sleep.options(num_cpus=100).remote(0)
    found = drivers.wait_until(lambda: [entry for entry in umbel.explain() if "100" in str(entry)])
    assert "CPU" in found[0]["reason"]
    umbel.cancel(greedy)
    drivers.wait_until(lambda: not umbel.explain())


def test_timeline_shows_what_ran() -> None:
    umbel.get([report.options(name="on the timeline").remote() for _ in range(3)], timeout=30)
    drivers.wait_until(lambda: sum(event["name"] == "on the timeline" for event in umbel.timeline() or []) == 3)


def test_explain_takes_references_only() -> None:
    with pytest.raises(TypeError, match="ObjectRef"):
        umbel.explain("a task")
