"""Listings and the history behind them: exact at once, whoever is killed; nothing of it stays unless it is asked for."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import commands
import drivers
import psutil
import pytest

import umbel
from umbel import exceptions
from umbel._agent import history
from umbel._base import sessions
from umbel._client import current
from umbel._history import store
from umbel.util import state
from umbel.util.state import common, exception


@pytest.fixture
def session() -> Iterator[None]:
    with umbel.init(num_cpus=2):
        yield


@umbel.remote(num_cpus=0)
def one(value: Any = None) -> Any:
    return value


@umbel.remote(num_cpus=0, max_retries=0)
def fail(text: str) -> None:
    raise ValueError(text)


@umbel.remote(num_cpus=0)
def hold(path: str) -> None:
    while not pathlib.Path(path).exists():
        time.sleep(0.005)


@umbel.remote(num_cpus=0)
def parent(count: int) -> str:
    umbel.get([one.options(name="child").remote() for _ in range(count)])
    return str(umbel.get_runtime_context().get_task_id())


@umbel.remote(num_cpus=0, max_retries=0)
def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@umbel.remote(num_cpus=0)
class Counter:
    def __init__(self, first: int = 0) -> None:
        self.count = 10 // (1 - first)

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()


def recorders(directory: str = "") -> list[psutil.Process]:
    """The processes that write a session's history: they come after the daemon and its fork server in its list."""
    lines = pathlib.Path(directory or commands.session_dir(), sessions.PROCESSES_FILE).read_text().splitlines()
    pids = [int(line.split()[0]) for line in lines[2:]]
    return [psutil.Process(pid) for pid in pids if drivers.is_running(pid)]


def states(**filters: Any) -> list[tuple[str, str]]:
    found = state.list_tasks(filters=[(name, "=", value) for name, value in filters.items()], limit=10_000)
    return sorted((task.name, task.state) for task in found)


@pytest.mark.usefixtures("session")
class TestTasks:
    def test_what_has_just_ended_is_listed(self) -> None:
        umbel.get([one.options(name="quick").remote() for _ in range(300)], timeout=30)
        assert states(name="quick") == [("quick", "FINISHED")] * 300
        assert len(state.list_tasks()) == common.DEFAULT_LIMIT

    def test_task_that_runs_waits_or_cannot_run_is_listed(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        running = hold.remote(str(gate))
        behind = one.options(name="behind").remote(running)
        nowhere = one.options(name="nowhere", num_cpus=99).remote()
        drivers.wait_until(lambda: state.get_task(running).state == "RUNNING")
        assert states() == [
            ("behind", "PENDING_ARGS_AVAIL"),
            ("hold", "RUNNING"),
            ("nowhere", "PENDING_NODE_ASSIGNMENT"),
        ]
        (told,) = state.list_tasks(filters=[("state", "=", "running")], detail=True)
        assert told.task_id == running.task_id().hex()
        assert told.worker_pid in {worker.pid for worker in state.list_workers(filters=[("is_alive", "=", True)])}
        assert told.creation_time_ms <= told.start_time_ms
        gate.touch()
        umbel.get(behind, timeout=30)
        assert states() == [("behind", "FINISHED"), ("hold", "FINISHED"), ("nowhere", "PENDING_NODE_ASSIGNMENT")]
        umbel.cancel(nowhere)
        (cancelled,) = state.list_tasks(filters=[("state", "=", "FAILED")])
        assert (cancelled.name, cancelled.error_type) == ("nowhere", "TASK_CANCELLED")

    def test_task_that_waits_in_get_says_so(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"

        @umbel.remote(num_cpus=0)
        def waits(boxed: list[Any]) -> None:
            umbel.get(boxed[0])

        ref = waits.options(name="waits").remote([hold.remote(str(gate))])
        drivers.wait_until(lambda: states(name="waits") == [("waits", "RUNNING_IN_RAY_GET")])
        gate.touch()
        umbel.get(ref, timeout=30)

    def test_children_know_their_parent(self) -> None:
        ref = parent.remote(3)
        task_id = umbel.get(ref, timeout=30)
        assert states(parent_task_id=task_id) == [("child", "FINISHED")] * 3
        assert state.get_task(ref).parent_task_id is None

    def test_children_with_stored_results_know_their_parent_too(self) -> None:
        """Their arguments are kept for the case that a result is lost; the parent is not kept with them."""

        @umbel.remote(num_cpus=0)
        def large_parent() -> str:
            twice = one.options(name="pair", num_returns=2).remote([bytes(300_000), 1])
            umbel.wait([one.options(name="large").remote(bytes(300_000)), *twice], num_returns=3, fetch_local=False)
            return str(umbel.get_runtime_context().get_task_id())

        task_id = umbel.get(large_parent.remote(), timeout=30)
        assert states(parent_task_id=task_id) == [("large", "FINISHED"), ("pair", "FINISHED")]

    def test_failed_task_has_its_error(self) -> None:
        ref = fail.remote("it did not work")
        with pytest.raises(ValueError, match="it did not work"):
            umbel.get(ref, timeout=30)
        told = state.get_task(ref)
        assert (told.state, told.error_type) == ("FAILED", "TASK_EXECUTION_EXCEPTION")
        assert told.error_message.endswith("ValueError: it did not work")
        assert [event["state"] for event in told.events] == ["PENDING_ARGS_AVAIL", "RUNNING", "FAILED"]

    def test_task_whose_worker_died_has_an_end(self) -> None:
        ref = crash.remote()
        with pytest.raises(exceptions.WorkerCrashedError):
            umbel.get(ref, timeout=30)
        told = state.get_task(ref)
        assert (told.state, told.error_type) == ("FAILED", "WORKER_DIED")
        (worker,) = state.list_workers(filters=[("worker_id", "=", told.worker_id)], detail=True)
        assert (worker.is_alive, worker.exit_type) == (False, "SYSTEM_ERROR")
        assert "SIGKILL" in worker.exit_detail

    def test_attempts_are_listed_each(self, tmp_path: pathlib.Path) -> None:
        mark = tmp_path / "tried"

        @umbel.remote(num_cpus=0, max_retries=2, retry_exceptions=True)
        def second_time() -> None:
            if not mark.exists():
                mark.touch()
                raise ValueError("once")

        ref = second_time.remote()
        umbel.get(ref, timeout=30)
        assert [(one.attempt_number, one.state) for one in state.get_task(ref)] == [(0, "FAILED"), (1, "FINISHED")]

    def test_calls_that_are_sent_again_to_a_restarted_actor_are_attempts(self, tmp_path: pathlib.Path) -> None:
        @umbel.remote(num_cpus=0, max_restarts=1, max_task_retries=1)
        class Fragile:
            def call(self, mark: str) -> int | None:
                if not pathlib.Path(mark).exists():
                    pathlib.Path(mark).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return umbel.get_runtime_context().get_attempt_number()

        actor = Fragile.remote()
        ref = actor.call.remote(str(tmp_path / "tried"))
        assert umbel.get(ref, timeout=30) == 1
        first, second = state.get_task(ref)
        assert (first.attempt_number, first.state, first.error_type) == (0, "FAILED", "ACTOR_UNAVAILABLE")
        assert "It is sent again" in first.error_message
        assert (second.attempt_number, second.state) == (1, "FINISHED")
        assert first.worker_id not in (None, second.worker_id)

    def test_task_whose_answer_went_with_a_worker_killed_for_memory_has_an_attempt_more(
        self, tmp_path: pathlib.Path
    ) -> None:
        gate = tmp_path / "gate"
        ref = hold.remote(str(gate))
        drivers.wait_until(lambda: state.get_task(ref).state == "RUNNING")
        engine = current.engine()
        with engine.lock:  # as if its worker had died while it ran the one behind this
            (task,) = engine.tasks.unfinished.values()
            lease = task.lease
            del lease.inflight[task.seq]
            report = {
                "pid": 1, "source": "the session's processes hold", "used_bytes": 1, "limit_bytes": 1, "alone": False,
                "allowed_bytes": 1, "curve": [[0.0, 1]], "peak_bytes": 1, "demand_bytes": 0, "others": [],
                "outside_bytes": 0,
            }  # fmt: skip
            engine.deaths.killed_for_memory(task, {"worker": lease.worker, "memory": report}, was_running=False)
        gate.touch()
        umbel.get(ref, timeout=30)
        first, *_ = found = state.get_task(ref)
        assert (first.attempt_number, first.error_type, first.worker_id) == (0, "OUT_OF_MEMORY", lease.worker)
        assert [one.attempt_number for one in found] == [0, 1]

    def test_filters_orders_and_pages(self) -> None:
        umbel.get([one.options(name=f"n{number % 3}").remote() for number in range(30)], timeout=30)
        assert len(state.list_tasks(filters=[("name", "in", ["n0", "N1"])])) == 20
        assert len(state.list_tasks(filters=[("name", "!=", "n0"), ("state", "=", "FINISHED")])) == 20
        whole = [task.task_id for task in state.list_tasks(order_by="-creation_time_ms")]
        pages = [
            task.task_id
            for offset in (0, 12, 24)
            for task in state.list_tasks(order_by="-task_id", offset=offset, limit=12)
        ]
        assert sorted(pages) == sorted(whole)
        assert pages == sorted(pages, reverse=True)
        middle = state.list_tasks(detail=True)[15].end_time_ms
        before = state.list_tasks(filters=[("end_time_ms", "<", middle)], detail=True)
        after = state.list_tasks(filters=[("end_time_ms", ">", middle)], detail=True)
        at = state.list_tasks(filters=[("end_time_ms", "=", middle)])
        assert len(before) + len(after) + len(at) == 30
        for bad in ({"filters": [("colour", "=", "red")]}, {"order_by": "colour"}, {"limit": -1}, {"timeout": 0}):
            with pytest.raises(exceptions.InvalidOption):
                state.list_tasks(**bad)  # type: ignore[arg-type]

    def test_many_that_wait_are_counted_and_those_asked_for_told(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"
        first = hold.remote(str(gate))
        waiting = [one.options(name="waits").remote(first) for _ in range(500)]
        assert len(state.list_tasks(limit=20)) == 20
        assert len(state.list_tasks(filters=[("state", "=", "PENDING_ARGS_AVAIL")], limit=10_000)) == 500
        found = state.summarize_tasks()["cluster"]
        assert found["summary"]["waits"]["state_counts"] == {"PENDING_ARGS_AVAIL": 500}
        assert found["total_tasks"] == 501
        gate.touch()
        umbel.get(waiting, timeout=30)
        assert state.summarize_tasks()["cluster"]["summary"]["waits"]["state_counts"] == {"FINISHED": 500}

    def test_tasks_can_ask_too(self) -> None:
        @umbel.remote(num_cpus=0)
        def own_state() -> str:
            return str(state.get_task(umbel.get_runtime_context().get_task_id()).state)

        assert umbel.get(own_state.remote(), timeout=30) == "RUNNING"

    def test_what_asked_not_to_be_recorded_is_not(self) -> None:
        umbel.get(one.options(name="hidden", enable_task_events=False).remote(), timeout=30)
        umbel.get(one.options(name="shown").remote(), timeout=30)
        assert states() == [("shown", "FINISHED")]


@pytest.mark.usefixtures("session")
class TestOthers:
    def test_actor_from_its_arguments_to_its_death(self, tmp_path: pathlib.Path) -> None:
        gate = tmp_path / "gate"

        @umbel.remote(num_cpus=0)
        def zero(path: str) -> int:
            umbel.get(hold.remote(path))
            return 0

        actor = Counter.options(name="told").remote(zero.remote(str(gate)))
        (told,) = state.list_actors()
        assert (told.class_name, told.name, told.state, told.pid) == ("Counter", "told", "DEPENDENCIES_UNREADY", 0)
        assert states(type="ACTOR_CREATION_TASK") == [("Counter.__init__", "PENDING_ARGS_AVAIL")]
        gate.touch()
        pid = umbel.get(actor.pid.remote(), timeout=30)
        (told,) = state.list_actors(filters=[("state", "=", "ALIVE")])
        assert told.pid == pid
        assert states(actor_id=told.actor_id) == [("Counter.__init__", "FINISHED"), ("Counter.pid", "FINISHED")]
        assert state.summarize_actors()["cluster"]["summary"]["Counter"]["state_counts"] == {"ALIVE": 1}
        umbel.kill(actor)
        dead = drivers.wait_until(lambda: (one := state.get_actor(told.actor_id)) and one.state == "DEAD" and one)
        assert dead.death_cause == {"error_type": "ACTOR_DIED", "error_message": "it was killed by umbel.kill()"}
        (worker,) = drivers.wait_until(lambda: state.list_workers(filters=[("is_alive", "=", False)], detail=True))
        assert (worker.pid, worker.exit_type) == (pid, "INTENDED_SYSTEM_EXIT")
        assert worker.exit_detail == "it was killed: it was killed by umbel.kill()"

    def test_actor_whose_constructor_fails_is_a_failed_task(self) -> None:
        actor = Counter.remote(1)
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(actor.add.remote(), timeout=30)
        told = drivers.wait_until(lambda: state.list_tasks(filters=[("type", "=", "ACTOR_CREATION_TASK")], detail=True))
        assert (told[0].state, told[0].error_type) == ("FAILED", "ACTOR_CREATION_FAILED")
        assert "ZeroDivisionError" in told[0].error_message
        (dead,) = state.list_actors(detail=True)
        assert dead.death_cause["error_type"] == "ACTOR_CREATION_FAILED"

    def test_objects_tell_who_refers_to_them(self) -> None:
        ref = umbel.put(bytes(300_000))
        (told,) = state.get_objects(ref.hex())
        assert (told.reference_type, told.task_status, told.pid) == ("LOCAL_REFERENCE", "FINISHED", os.getpid())
        assert told.object_size >= 300_000
        assert state.summarize_objects()["cluster"]["total_objects"] == 1
        del ref
        assert state.list_objects() == []

    def test_objects_tell_where_they_were_made_if_that_is_recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        umbel.shutdown()
        monkeypatch.setenv("UMBEL_RECORD_CALL_SITES", "1")
        umbel.init(num_cpus=1)
        ref = umbel.put(1)
        (told,) = state.list_objects()
        assert told.call_site == ref.call_site()
        assert state.summarize_objects()["cluster"]["callsite_enabled"]

    def test_node_job_and_what_there_is_none_of(self) -> None:
        (node,) = state.list_nodes(detail=True)
        assert (node.state, node.resources_total["CPU"]) == ("ALIVE", 2.0)
        assert state.get_node(node.node_id) == node
        (job,) = state.list_jobs()
        assert (job.job_id, job.driver_info["pid"]) == (umbel.get_runtime_context().get_job_id(), str(os.getpid()))
        assert state.list_placement_groups() == []
        assert state.get_placement_group("00") is None

    def test_log_of_a_task_is_that_of_one_of_its_attempts(self, tmp_path: pathlib.Path) -> None:
        @umbel.remote(max_retries=1)
        def fails_once(path: str) -> None:
            print("begins", os.path.exists(path), flush=True)
            print("\x1b[31mtrouble\x1b[0m", file=sys.stderr, flush=True)
            if not os.path.exists(path):
                pathlib.Path(path).touch()
                time.sleep(0.2)  # else its worker is gone before what it has printed is read
                os._exit(1)

        task = fails_once.remote(str(tmp_path / "began"))
        umbel.get(task)
        id = task.task_id().hex()

        def log(**options: Any) -> str:
            return "".join(state.get_log(task_id=id, **options))

        drivers.wait_until(
            lambda: {one.attempt_number for one in state.list_tasks(filters=[("task_id", "=", id)])} == {0, 1}
        )
        drivers.wait_until(lambda: "begins True" in "".join(state.get_log(task_id=id, attempt_number=1)))
        assert (log(), log(attempt_number=1)) == ("begins False\n", "begins True\n")
        assert log(suffix="err", filter_ansi_code=True) == "trouble\n"
        assert b"".join(state.get_log(task_id=id, encoding=None)) == b"begins False\n"
        with pytest.raises(exception.UmbelStateApiException, match=r"no attempt 7 of task .* there are \[0, 1\]"):
            log(attempt_number=7)

    def test_logs_of_nobody_are_refused_with_what_is_wrong(self) -> None:
        with pytest.raises(exception.UmbelStateApiException, match=r"nothing with filename='worker-none\.out'"):
            next(state.get_log(filename="worker-none.out"))
        with pytest.raises(ValueError, match="one of filename, actor_id, task_id, pid must say whose log is meant"):
            state.get_log()
        with pytest.raises(ValueError, match="suffix must be one of out, err, got 'log'"):
            state.get_log(pid=1, suffix="log")
        with pytest.raises(ValueError, match="tail must be a number of lines, or -1"):
            state.get_log(pid=1, tail=-2)
        with pytest.raises(ValueError, match="no jobs are submitted here"):
            state.get_log(submission_id="x")

    def test_job_has_its_runtime_env(self, tmp_path: pathlib.Path) -> None:
        def listed_env() -> Any:
            (job,) = state.list_jobs(detail=True)
            return job.runtime_env

        @umbel.remote
        def listed_by_task() -> Any:
            return listed_env()

        assert listed_env() == {}
        umbel.shutdown()
        umbel.init(num_cpus=2, runtime_env={"env_vars": {"A_VARIABLE": "1"}})
        assert listed_env() == {"env_vars": {"A_VARIABLE": "1"}}
        umbel.shutdown()
        given = {"env_vars": {"A_VARIABLE": "1"}, "working_dir": str(tmp_path), "config": {"setup_timeout_seconds": 60}}
        umbel.init(num_cpus=2, runtime_env=given)
        told = listed_env()
        assert told == umbel.get_runtime_context().runtime_env
        assert (told["env_vars"], sorted(told)) == (given["env_vars"], sorted(given))
        assert umbel.get(listed_by_task.remote(), timeout=60) == told

    def test_environments_of_workers(self) -> None:
        assert state.list_runtime_envs() == []
        umbel.get(one.options(runtime_env={"env_vars": {"A_VARIABLE": "1"}}).remote(), timeout=30)
        (told,) = state.list_runtime_envs()
        assert (told.runtime_env, told.success) == ({"env_vars": {"A_VARIABLE": "1"}}, True)

    def test_environment_of_a_task_that_waits_is_listed(self) -> None:
        ref = one.options(num_cpus=99, runtime_env={"env_vars": {"A_VARIABLE": "2"}}).remote()
        told = drivers.wait_until(state.list_runtime_envs)
        assert [(one.runtime_env, one.success) for one in told] == [({"env_vars": {"A_VARIABLE": "2"}}, None)]
        umbel.cancel(ref)

    def test_process_that_does_not_answer_is_told_of(self) -> None:
        actor = Counter.remote()
        pid = umbel.get(actor.pid.remote(), timeout=30)
        drivers.freeze(pid)
        try:
            client = state.StateApiClient()
            with pytest.raises(exception.UmbelStateApiException, match=rf"\(pid {pid}\) does not answer"):
                client.list("objects", timeout=1)
            with pytest.warns(UserWarning, match="not all known"):
                # The daemon, which has the history, is to answer in this time; the process has a quarter of it.
                assert client.list("tasks", timeout=8, raise_on_missing_output=False)
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("session")
def test_commands_tell_the_same() -> None:
    actor = Counter.remote()
    umbel.get([one.options(name="shown").remote(), actor.add.remote()], timeout=30)
    told = json.loads(commands.run("list", "tasks", "--json", "--filter", "name=shown").stdout)
    assert [(row["name"], row["state"]) for row in told] == [("shown", "FINISHED")]
    table = commands.run("list", "tasks", "--filter", "name in shown,Counter.add").stdout.splitlines()
    assert table[0].split()[:4] == ["TASK_ID", "ATTEMPT_NUMBER", "NAME", "STATE"]
    assert table[-1] == "2 of 2 tasks"
    got = commands.run("get", "tasks", told[0]["task_id"]).stdout
    assert "FINISHED" in got
    assert "NORMAL_TASK" in got
    summary = commands.run("summary", "tasks").stdout
    assert "Counter.add" in summary
    assert "total_actor_tasks: 1" in summary
    assert "Counter" in commands.run("list", "actors").stdout
    wrong = commands.run("list", "tasks", "--filter", "colour=red")
    assert (wrong.returncode, "the columns are task_id" in wrong.stderr) == (1, True)
    assert "a filter is COLUMN" in commands.run("list", "tasks", "--filter", "colour").stderr
    assert "none of the tasks has the id" in commands.run("get", "tasks", "00").stderr


@pytest.mark.usefixtures("session")
def test_timeline_command_writes_what_the_function_returns(tmp_path: pathlib.Path) -> None:
    umbel.get(parent.remote(2), timeout=30)
    path = tmp_path / "timeline.json"
    done = commands.run("timeline", "--output", str(path))
    assert "3 tasks are in" in done.stdout, done.stderr
    events = json.loads(path.read_text())
    assert events == umbel.timeline()
    assert [event.get("cat") for event in events].count("submit") == 3
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {"driver", "worker"}


@pytest.mark.usefixtures("session")
def test_timeline_shows_an_attempt_that_its_worker_took_along(tmp_path: pathlib.Path) -> None:
    @umbel.remote(max_retries=1)
    def dies_once(mark: pathlib.Path) -> int:
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return os.getpid()

    pid = umbel.get(dies_once.options(name="dies once").remote(tmp_path / "mark"), timeout=30)
    spans = {event["args"]["attempt_number"]: event for event in umbel.timeline() or [] if event.get("cat") == "task"}
    assert [(spans[attempt]["name"], spans[attempt]["dur"] > 0) for attempt in (0, 1)] == [
        ("dies once (failed)", False),
        ("dies once", True),
    ]
    assert (spans[0]["pid"] != pid, spans[1]["pid"] == pid) == (True, True)
    assert "died while running" in spans[0]["args"]["error_message"]


# The recorder


@pytest.mark.usefixtures("session")
def test_recorder_starts_when_there_is_something_to_store() -> None:
    umbel.get([one.remote() for _ in range(100)], timeout=30)
    assert recorders() == []
    state.list_tasks()
    (recorder,) = recorders()
    assert recorder.nice() == 19
    with open(f"/proc/{recorder.ppid()}/maps") as file:
        assert "sqlite" not in file.read()  # the daemon has never loaded it


@pytest.mark.usefixtures("session")
def test_killed_recorder_costs_nothing_that_was_written() -> None:
    umbel.get([one.options(name="before").remote() for _ in range(100)], timeout=30)
    assert len(states(name="before")) == 100
    (recorder,) = recorders()
    recorder.kill()
    recorder.wait(timeout=30)
    umbel.get([one.options(name="after").remote() for _ in range(100)], timeout=30)

    def listed() -> Any:
        try:
            return states(name="after")
        except exception.UmbelStateApiException:
            return None  # the daemon has just seen that it has died

    assert len(drivers.wait_until(listed)) == 100
    assert len(states(name="before")) == 100
    assert [process.pid for process in recorders()] != [recorder.pid]


TASKS = 100_000
SHARE_MAX = 1 / 4  # of the time in which rows would be made of all; a tenth and less was measured


def run_many(count: int) -> None:
    for _ in range(0, count, 10_000):
        umbel.get([one.remote() for _ in range(10_000)], timeout=50)


def history_copied(path: pathlib.Path) -> store.Store:
    """The session's history as it is on disk now."""
    source = sqlite3.connect(os.path.join(commands.session_dir(), history.FILE))
    target = sqlite3.connect(path)
    source.backup(target)
    source.close()
    target.close()
    return store.Store(str(path))


def processor_s(act: Callable[[], Any]) -> float:
    """Of this process, which others that use the machine change little."""
    began_s = time.process_time()
    act()
    return time.process_time() - began_s


@pytest.mark.slow
@pytest.mark.usefixtures("session")
def test_questions_do_not_wait_for_rows(tmp_path: pathlib.Path) -> None:
    """Of a busy session, which makes none."""
    run_many(TASKS)
    assert len(state.list_tasks(limit=1)) == 1  # which has all that ended written down
    copy = history_copied(tmp_path / "copy.db")
    waiting_count = copy.raw_task_count()
    assert waiting_count > TASKS / 2  # the question has made no rows
    some = state.list_tasks(limit=1, offset=TASKS // 20)[0].task_id
    took_s = {
        "summarize": processor_s(state.summarize_tasks),
        "first": processor_s(state.list_tasks),
        "newest": processor_s(lambda: state.list_tasks(order_by="-end_time_ms")),
        "failed": processor_s(lambda: state.list_tasks(filters=[("state", "=", "FAILED")])),
        "by name": processor_s(lambda: state.list_tasks(filters=[("name", "=", "one")])),
        "by id": processor_s(lambda: state.get_task(some)),
    }
    rows_s = processor_s(copy.absorb_all) / waiting_count * TASKS
    copy.close()
    assert max(took_s.values()) < rows_s * SHARE_MAX, (took_s, rows_s)
    counts = state.summarize_tasks()["cluster"]["summary"]["one"]["state_counts"]
    assert counts == {"FINISHED": TASKS}


@pytest.mark.slow
@pytest.mark.usefixtures("session")
def test_killed_recorder_loses_nothing_that_waits_to_become_rows() -> None:
    run_many(30_000)
    state.list_tasks(limit=1)
    (recorder,) = recorders()
    recorder.kill()
    recorder.wait(timeout=30)
    run_many(10_000)

    def counts() -> Any:
        try:
            return state.summarize_tasks()["cluster"]["summary"]["one"]["state_counts"]
        except exception.UmbelStateApiException:
            return None  # the daemon has just seen that it has died

    assert drivers.wait_until(counts) == {"FINISHED": 40_000}


PROGRAM = """
    import os, sys, umbel
    from umbel.util import state

    @umbel.remote
    def f():
        return os.getpid()

    umbel.init(num_cpus=1, log_to_driver=False)
    umbel.get([f.remote() for _ in range(200)])
    assert len(state.list_tasks(limit=1000)) == 200
    context = umbel.get_runtime_context()
    print(os.path.join(context.get_temp_dir(), context.get_session_name()), flush=True)
    sys.stdin.read()
"""


def start(tmp_path: pathlib.Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A driver that has a recorder; its session's directory."""
    path = tmp_path / "program.py"
    path.write_text(drivers.textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def descendants(
    process: subprocess.Popen[str], directory: str
) -> tuple[psutil.Process, psutil.Process, list[psutil.Process]]:
    """(daemon, recorder, all)."""
    (recorder,) = recorders(directory)
    return psutil.Process(recorder.ppid()), recorder, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("whom", ["driver", "daemon", "recorder and daemon", "recorder is stopped"])
def test_nothing_stays_whoever_is_killed(tmp_path: pathlib.Path, whom: str) -> None:
    process, directory = start(tmp_path)
    try:
        daemon, recorder, every = descendants(process, directory)
        assert os.path.exists(os.path.join(directory, "history.db"))
        if whom == "recorder is stopped":
            recorder.suspend()
        if whom == "recorder and daemon":
            recorder.kill()
        if whom in ("driver", "recorder is stopped"):
            process.kill()
        else:
            daemon.kill()
        drivers.wait_until(lambda: not any(drivers.is_running(one.pid) for one in every))
        drivers.wait_until(lambda: not os.path.exists(directory))
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.parametrize("killed", [False, True])
def test_history_is_kept_when_that_is_asked_for(tmp_path: pathlib.Path, killed: bool) -> None:
    kept = tmp_path / "kept"
    process, directory = start(tmp_path, UMBEL_HISTORY_DIR=str(kept))
    _, _, every = descendants(process, directory)
    if killed:
        process.kill()
    process.communicate(timeout=60)
    drivers.wait_until(lambda: not any(drivers.is_running(one.pid) for one in every))
    path = kept / f"{os.path.basename(directory)}.db"
    assert os.listdir(kept) == [path.name]
    assert len(state.list_tasks(address=str(path), limit=1_000)) == 200
    assert state.summarize_tasks(address=str(path))["cluster"]["summary"]["f"]["state_counts"] == {"FINISHED": 200}
    with pytest.raises(exception.ServerUnavailable, match="has actors, tasks, workers, and no objects"):
        state.list_objects(address=str(path))
    with pytest.raises(exception.ServerUnavailable, match="and no objects"):
        state.summarize_objects(address=str(path))
    command = [sys.executable, "-m", "umbel.cli", "timeline", "--history", str(path), "-o", str(tmp_path / "t.json")]
    assert "200 tasks" in subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


ACTORS = """
    import json, os, sys, umbel
    from umbel.util import state

    @umbel.remote(num_cpus=0)
    class Actor:
        def pid(self):
            return os.getpid()

    umbel.init(num_cpus=1, log_to_driver=False)
    alive, dead = Actor.options(name="alive").remote(), Actor.options(name="dead").remote()
    waits = Actor.options(name="waits", num_cpus=99).remote()
    pid = umbel.get([alive.pid.remote(), dead.pid.remote()])[0]
    umbel.kill(dead)
    while not state.list_workers(filters=[("is_alive", "=", False)]):
        pass
    told = [one.asdict() for one in state.list_actors(detail=True)]
    state.list_tasks()  # reports what has ended
    context = umbel.get_runtime_context()
    print(json.dumps([context.get_session_name(), pid, told]), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_kept_history_has_the_actors_and_workers_that_ended_with_the_session(
    tmp_path: pathlib.Path, killed: bool
) -> None:
    path = tmp_path / "program.py"
    path.write_text(drivers.textwrap.dedent(ACTORS))
    process = subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "UMBEL_HISTORY_DIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        session, pid, before = json.loads(process.stdout.readline())
        every = psutil.Process(process.pid).children(recursive=True)
        if killed:
            process.kill()
    finally:
        process.communicate(timeout=60)
    drivers.wait_until(lambda: not any(drivers.is_running(one.pid) for one in every))
    kept = str(tmp_path / f"{session}.db")
    actors = {one.name: one for one in state.list_actors(address=kept, detail=True)}
    assert {name: one.state for name, one in actors.items()} == {"alive": "DEAD", "dead": "DEAD", "waits": "DEAD"}
    reasons = {name: one.death_cause["error_message"].partition(",")[0] for name, one in actors.items()}
    if killed:
        assert reasons == {"alive": "its owner", "dead": "it was killed by umbel.kill()", "waits": "its owner"}
    else:
        assert reasons == {
            "alive": "its session ended",
            "dead": "it was killed by umbel.kill()",
            "waits": "its session ended while it was PENDING",
        }
    (was,) = [one for one in before if one["name"] == "alive"]
    now = actors["alive"].asdict()
    pids = {"pid"} if killed else set()  # who has died before the session has no process
    assert {name for name in was if was[name] != now[name]} == {"state", "death_cause"} | pids
    assert state.get_actor(now["actor_id"], address=kept) == actors["alive"]
    assert state.summarize_actors(address=kept)["cluster"]["summary"]["Actor"]["state_counts"] == {"DEAD": 3}
    workers = {one.pid: one for one in state.list_workers(address=kept, detail=True)}
    assert not any(one.is_alive for one in workers.values())
    assert workers[pid].exit_type == "INTENDED_SYSTEM_EXIT"
    assert workers[pid].start_time_ms <= workers[pid].end_time_ms
    assert workers[pid].node_id == was["node_id"]
    assert state.summarize_tasks(address=kept)["cluster"]["total_actor_tasks"] == 2
    table = subprocess.run(
        [sys.executable, "-m", "umbel.cli", "list", "actors", "--address", kept],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert table.splitlines()[-1] == "3 of 3 actors"


def test_old_tasks_go_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_HISTORY_TASKS_MAX", "100")
    with umbel.init(num_cpus=2):
        umbel.get([one.remote() for _ in range(300)], timeout=30)
        client = state.StateApiClient()

        def removed() -> bool:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                found = client.list("tasks", limit=1, _explain=True)
            return bool(found) and any("older tasks were removed" in str(one.message) for one in warned)

        drivers.wait_until(removed)
        drivers.wait_until(lambda: len(state.list_tasks(limit=1_000)) <= 100)
        umbel.get(one.options(name="last").remote(), timeout=30)
        assert 0 < len(state.list_tasks(limit=1_000)) <= 102
        assert states(name="last") == [("last", "FINISHED")]


def test_nothing_is_recorded_when_that_is_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("UMBEL_TASK_EVENTS", "0")
    with umbel.init(num_cpus=2):
        umbel.get(one.remote(), timeout=30)
        with pytest.raises(exception.UmbelStateApiException, match="UMBEL_TASK_EVENTS is 0"):
            state.list_tasks()
        actor = Counter.remote()
        umbel.get(actor.add.remote(), timeout=30)
        assert [one.state for one in state.list_actors()] == ["ALIVE"]
        with pytest.warns(UserWarning, match="the dead are not listed"):
            assert {one.worker_type for one in state.list_workers(_explain=True)} == {"DRIVER", "WORKER"}
        running = hold.remote(str(tmp_path / "gate"))
        with pytest.warns(UserWarning, match="what has ended is not known"):
            assert state.list_tasks(raise_on_missing_output=False)[0].name == "hold"  # the living are known anyway
        assert recorders() == []
        with pytest.raises(exceptions.UmbelSystemError, match="nothing is recorded"):
            umbel.timeline()
        umbel.cancel(running)


def test_without_a_session_there_is_nothing_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short, monkeypatch.context() as here:  # where nobody else's are
        here.setenv("TMPDIR", short)
        _check_that_nothing_runs()


def _check_that_nothing_runs() -> None:
    with pytest.raises(exception.ServerUnavailable, match=r"call umbel.init\(\) in a program"):
        state.list_tasks()
    with (
        umbel.init(engine="inline"),
        pytest.raises(exceptions.UnsupportedFeature, match="inline engine lists no state"),
    ):
        state.list_tasks()


def test_importing_umbel_and_starting_loads_no_database() -> None:
    program = (
        "import umbel, sys; umbel.init(num_cpus=1)\n"
        "unwanted = 'sqlite3', 'umbel.util.state', 'umbel._history.batches', 'umbel._history.conditions'\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
