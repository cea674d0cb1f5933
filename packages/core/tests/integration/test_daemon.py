"""A real daemon, driven by control frames, with real processes: what it does, and that nothing of it is ever left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from umbel import exceptions
from umbel._base import sessions
from umbel._client import launch
from umbel._transport import connection as transport
from umbel._wire import frames

PATIENCE_S = 30.0  # for things that must happen; they take milliseconds unless the machine is overloaded
HERE = os.path.dirname(__file__)
CPU = {"CPU": 10_000}
DRIVER = "d" * 32

NODE_ID = "0a" * 28
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the daemon's processes are Linux's for now"
)


class Peer:
    """A client of a Unix socket that sends and awaits control frames."""

    def __init__(self, path: str) -> None:
        self.sock = transport.connect_unix(path)
        self.reader = frames.FrameReader()
        self.inbox: list[tuple[dict[str, Any], bytes]] = []
        self.requests = 0

    def say(self, message: dict[str, Any], body: bytes = b"") -> None:
        self.sock.sendall(frames.encode_control(message, body))

    def ask(self, message: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
        self.requests += 1
        self.say({**message, "rq": self.requests}, body)
        return self.expect("reply", rq=self.requests)[0]

    def expect(self, kind: str, **fields: Any) -> tuple[dict[str, Any], bytes]:
        """The first message of that type with those fields that has not been taken; waits for it."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            for number, (message, _) in enumerate(self.inbox):
                if message["t"] == kind and all(message.get(name) == value for name, value in fields.items()):
                    return self.inbox.pop(number)
            ready, _, _ = select.select([self.sock], [], [], max(0.0, until_s - time.monotonic()))
            if not ready:
                raise AssertionError(
                    f"no {kind} {fields} within {PATIENCE_S} s; there are {[m for m, _ in self.inbox]}"
                )
            try:
                data = self.sock.recv(65_536)
            except ConnectionResetError:  # the other side closed without reading all
                data = b""
            if not data:
                raise EOFError(
                    f"the other side closed while {kind} {fields} was awaited; there are {[m for m, _ in self.inbox]}"
                )
            self.inbox += [frames.decode_control(payload) for payload in self.reader.feed(data)]

    def close(self) -> None:
        self.sock.close()


class Worker(Peer):
    """A granted worker, given orders by the test."""

    def __init__(self, grant: dict[str, Any]) -> None:
        super().__init__(grant["address"])
        self.id: str = grant["worker"]
        self.pid: int = grant["pid"]

    def order(self, kind: str, body: bytes = b"", **fields: Any) -> dict[str, Any]:
        self.say({"t": kind, **fields}, body)
        return self.expect("done")[0]

    def tell_agent(self, message: dict[str, Any], body: bytes = b"") -> None:
        self.order("say", body, message=message)

    def heard(self, kind: str, **fields: Any) -> tuple[dict[str, Any], bytes]:
        """What the agent told the worker."""
        while True:
            message, body = self.expect("heard")
            if message["message"]["t"] == kind:
                assert {name: message["message"].get(name) for name in fields} == fields
                return message["message"], body


class Daemon:
    """A launched daemon with its driver's connection."""

    def __init__(self, **config: Any) -> None:
        self.launched = launch.launch(
            {"resources": {"CPU": 20_000}, "worker_main": "daemon_worker", "sys_path": [HERE, *sys.path], **config}
        )
        self.driver = Peer(self.launched.address)
        self.driver.say(hello("driver", DRIVER))
        self.welcome = self.driver.expect("welcome")[0]
        with open(f"{self.launched.session_dir}/processes") as file:
            self.pids = {int(line.split()[0]) for line in file}

    @property
    def fork_server_pid(self) -> int:
        (pid,) = self.pids - {self.launched.pid}
        return pid

    def lease(self, key: str = "f", **fields: Any) -> Worker:
        self.driver.say({"t": "demand", "key": key, "resources": CPU, "count": 1, **fields})
        return Worker(self.driver.expect("grant", key=key)[0])

    def actor(self, actor: str = "a", **fields: Any) -> None:
        message = {
            "t": "create_actor",
            "actor": actor,
            "placement": CPU,
            "running": {},
            "class_name": "Counter",
            "meta_size": 4,
        }
        self.driver.say({**message, **fields}, b"metaspec")

    def host_of(self, actor: str = "a") -> Worker:
        """The worker that hosts the actor, before its constructor has returned."""
        (found,) = wait_until(lambda: [w for w in self.workers() if w["actor"] == actor and w["pid"]])
        return Worker(
            {
                "worker": found["worker"],
                "pid": found["pid"],
                "address": f"{self.launched.session_dir}/{found['worker']}.sock",
            }
        )

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.driver.ask({"t": "query", "what": "workers"})["result"]
        return found

    def query(self, what: str) -> Any:
        return self.driver.ask({"t": "query", "what": what})["result"]

    def assert_gone(self, *more_pids: int) -> None:
        """No process and no file of the session is left."""
        for pid in (*self.pids, *more_pids):
            wait_until_gone(pid)
        wait_until(lambda: not os.path.exists(self.launched.session_dir))
        wait_until(lambda: not os.path.exists(self.launched.store_dir))


def hello(kind: str, id: str, **fields: Any) -> dict[str, Any]:
    return {"t": "hello", "kind": kind, "id": id, "pid": os.getpid(), "protocol": frames.PROTOCOL_VERSION, **fields}


def wait_until(condition: Callable[[], Any]) -> Any:
    until_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until_s, "it did not happen in time"
        select.select([], [], [], 0.002)
    return found


def wait_until_gone(pid: int) -> None:
    """Until the process has ended, whether or not somebody has waited for it."""
    wait_until(lambda: not sessions.start_time(pid))


@pytest.fixture
def start() -> Iterator[Callable[..., Daemon]]:
    """Starts daemons; afterwards they are shut down, and nothing may be left of them."""
    started: list[Daemon] = []

    def start_one(**config: Any) -> Daemon:
        started.append(Daemon(**config))
        return started[-1]

    yield start_one
    for daemon in started:
        with contextlib.suppress(OSError):
            daemon.driver.say({"t": "shutdown"})
        daemon.launched.close()
        daemon.driver.close()
        daemon.assert_gone()


@pytest.fixture
def daemon(start: Callable[..., Daemon]) -> Daemon:
    return start()


# ---- joining ----


def test_driver_is_welcomed_with_what_it_needs(start: Callable[..., Daemon]) -> None:
    daemon = start(namespace="ns", labels={"a": "b"}, node_id=NODE_ID)
    assert daemon.welcome == {
        "t": "welcome",
        "node_id": NODE_ID,
        "session_dir": daemon.launched.session_dir,
        "store_dir": daemon.launched.store_dir,
        "resources": {"CPU": 20_000},
        "labels": {"a": "b"},
        "namespace": "ns",
        "store_capacity_bytes": 1 << 30,
        "scheduler": "hybrid",
        "metrics_port": 0,
        "accelerator_ids": {},
        "log_to_driver": True,
        "job_id": "01000000",
    }


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (hello("driver", "x", protocol=99), "this agent speaks protocol 1, the client 99"),
        (hello("driver", "x"), "connected already"),
        (hello("worker", "x"), "no worker with the id x was started here"),
        (hello("driver", DRIVER), "a client with the id"),
        (hello("someone", "x"), "hello.kind must be"),
        ({"t": "blocked"}, "the first message must be hello, got blocked"),
        ({"t": "nonsense"}, "unknown message type 'nonsense'"),
    ],
)
def test_stranger_is_turned_away_with_a_reason(daemon: Daemon, message: dict[str, Any], reason: str) -> None:
    stranger = Peer(daemon.launched.address)
    stranger.say(message)
    assert reason in stranger.expect("refused")[0]["text"]
    with pytest.raises(EOFError):
        stranger.expect("anything")


def test_malformed_message_is_answered_and_the_daemon_goes_on(daemon: Daemon) -> None:
    daemon.driver.say({"t": "demand", "key": "f", "resources": {"CPU": -1}, "count": 1})
    assert "demand.resources must be an object of integers >= 0" in daemon.driver.expect("warn")[0]["text"]
    assert daemon.driver.ask({"t": "query", "what": "weather"})["error"]["kind"] == "invalid"
    assert daemon.driver.ask({"t": "get_actor"})["error"]["text"] == "get_actor.name is missing; it must be a string"
    daemon.driver.sock.sendall(frames.HEADER.pack(4) + frames.HEADER.pack(99))
    assert "announces 99 bytes" in daemon.driver.expect("warn")[0]["text"]
    assert daemon.query("cluster_resources") == CPU | {"CPU": 20_000}


# ---- leases ----


def test_demand_is_granted_a_worker_that_knows_its_place(daemon: Daemon) -> None:
    worker = daemon.lease()
    about = worker.order("about")
    assert about["config"]["id"] == worker.id
    assert about["config"]["session_dir"] == daemon.launched.session_dir
    assert about["parent"] == daemon.fork_server_pid
    assert about["prefix"] == sys.prefix
    assert not about["ignores_interrupt"]
    assert worker.heard("leased")[0]["client"] == DRIVER


def test_returned_worker_is_granted_again(daemon: Daemon) -> None:
    worker = daemon.lease()
    daemon.driver.say({"t": "return", "worker": worker.id, "retire": False})
    assert daemon.lease("g").pid == worker.pid


def test_workers_do_not_share_random_numbers(daemon: Daemon) -> None:
    assert daemon.lease().order("about")["random"] != daemon.lease().order("about")["random"]


def test_environment_variables_of_all_workers_and_of_one_kind(start: Callable[..., Daemon]) -> None:
    daemon = start(worker_env={"FOR_ALL": "1"})
    plain = daemon.lease().order("about")
    special = daemon.lease("g", env={"env_vars": {"FOR_ONE": "2"}, "more": [1]}).order("about")
    assert (plain["environment"].get("FOR_ALL"), plain["environment"].get("FOR_ONE")) == ("1", None)
    assert (special["environment"].get("FOR_ALL"), special["environment"].get("FOR_ONE")) == ("1", "2")
    assert special["config"]["env"] == {"env_vars": {"FOR_ONE": "2"}, "more": [1]}


def test_accelerators_are_granted_by_id(start: Callable[..., Daemon]) -> None:
    daemon = start(resources={"CPU": 20_000, "GPU": 20_000}, accelerator_ids={"GPU": ["3", "5"]})
    daemon.driver.say({"t": "demand", "key": "f", "resources": {"GPU": 10_000}, "count": 2})
    grants = [daemon.driver.expect("grant")[0] for _ in range(2)]
    assert [grant["accelerators"] for grant in grants] == [{"GPU": ["3"]}, {"GPU": ["5"]}]
    assert daemon.query("available_resources") == {"CPU": 20_000}


def test_blocked_worker_lends_its_cpu_to_its_child(start: Callable[..., Daemon]) -> None:
    daemon = start(resources=CPU)
    parent = daemon.lease()
    parent.tell_agent({"t": "demand", "key": "child", "resources": CPU, "count": 1, "depth": 1})
    assert [one["reason"] for one in daemon.query("pending")] == [
        "it needs {CPU: 1} and waits for CPU (0 of 1 free), held by 1 task or actor"
    ]
    parent.tell_agent({"t": "blocked"})
    assert parent.heard("grant", key="child")
    parent.tell_agent({"t": "unblocked"})
    wait_until(lambda: daemon.query("nodes")[0]["available"] == {"CPU": -10_000})


def test_lease_is_asked_back_when_others_wait(start: Callable[..., Daemon]) -> None:
    daemon = start(resources=CPU)
    worker = daemon.lease()
    daemon.driver.say({"t": "demand", "key": "g", "resources": CPU, "count": 1})
    assert daemon.driver.expect("reclaim")[0]["worker"] == worker.id


def test_retired_worker_exits(daemon: Daemon) -> None:
    worker = daemon.lease()
    daemon.driver.say({"t": "return", "worker": worker.id, "retire": True})
    wait_until_gone(worker.pid)
    wait_until(lambda: daemon.workers() == [])
    assert not os.path.exists(f"{daemon.launched.session_dir}/{worker.id}.sock")


def test_worker_that_owns_objects_may_stay(daemon: Daemon) -> None:
    worker = daemon.lease()
    worker.order("stay", on=True)
    daemon.driver.say({"t": "return", "worker": worker.id, "retire": True})
    worker.heard("exit", idle=True)
    worker.order("stay", on=False)
    wait_until_gone(worker.pid)


def test_surplus_idle_workers_exit_by_themselves(daemon: Daemon) -> None:
    daemon.driver.say({"t": "demand", "key": "f", "resources": {}, "count": 4})
    workers = [daemon.driver.expect("grant")[0]["worker"] for _ in range(4)]
    for worker in workers:
        daemon.driver.say({"t": "return", "worker": worker, "retire": False})
    wait_until(lambda: len(daemon.workers()) == 2)


def test_infeasible_demand_is_warned_about(daemon: Daemon) -> None:
    daemon.driver.say({"t": "demand", "key": "f", "resources": {"GPU": 10_000}, "count": 1})
    assert "needs {GPU: 1}, but this node has {GPU: 0}" in daemon.driver.expect("warn")[0]["text"]


def test_hard_affinity_to_another_node_fails_at_once(daemon: Daemon) -> None:
    daemon.driver.say(
        {"t": "demand", "key": "f", "resources": CPU, "count": 1, "strategy": {"node_id": "other", "soft": False}}
    )
    failed = daemon.driver.expect("demand_failed")[0]
    assert failed["unschedulable"]
    assert failed["reason"].startswith("it must run on node other, which is not alive")
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    daemon.actor(strategy={"node_id": "other", "soft": False})
    assert daemon.driver.expect("actor_state", state="DEAD")[0]["unschedulable"]


def test_environment_that_is_too_large_fails_at_once(daemon: Daemon) -> None:
    env = {"env_vars": {"A": "x" * 100_000}}
    daemon.driver.say({"t": "demand", "key": "f", "resources": CPU, "count": 1, "env": env})
    assert "allowed are 100000" in daemon.driver.expect("demand_failed")[0]["reason"]
    assert daemon.lease("g", env={"env_vars": {"A": "x" * 90_000}})


def test_soft_affinity_and_spreading_run_here(daemon: Daemon) -> None:
    assert daemon.lease(strategy={"node_id": "other", "soft": True})
    assert daemon.lease("g", strategy="SPREAD")


def test_demand_for_other_labels_waits_and_is_warned_about(start: Callable[..., Daemon]) -> None:
    daemon = start(labels={"zone": "a"})
    assert daemon.lease(label_selectors=[[["zone", "b"]], [["zone", "in(a, b)"], ["gpu", "!yes"]]])
    other = [[["zone", "b"]], [["zone", "c"]]]
    daemon.driver.say({"t": "demand", "key": "g", "resources": CPU, "count": 1, "label_selectors": other})
    assert "it needs a node with the labels zone=b, or else zone=c" in daemon.driver.expect("warn")[0]["text"]


def test_policy_of_a_plugin_decides_the_order(start: Callable[..., Daemon]) -> None:
    daemon = start(resources=CPU, scheduler="spread")
    assert daemon.lease()
    with pytest.raises(exceptions.UmbelSystemError, match="scheduler must be one of"):
        start(scheduler="no-such-policy")


# ---- crashes of workers ----


def test_crash_of_a_worker_is_told_with_the_task_it_had_started(daemon: Daemon) -> None:
    worker = daemon.lease()
    with open(f"{daemon.launched.session_dir}/{worker.id}.progress", "wb") as file:
        file.write((41).to_bytes(8, "little"))
    os.kill(worker.pid, signal.SIGKILL)
    died = daemon.driver.expect("worker_died")[0]
    assert died == {
        "t": "worker_died",
        "worker": worker.id,
        "pid": worker.pid,
        "exit_code": 0,
        "signal": 9,
        "reason": "was killed by signal 9 (SIGKILL); the system may have run out of memory",
        "started": 41,
        "intended": False,
        "memory": None,
        "group": "",
        "preempted": False,
    }
    assert daemon.lease("again").pid != worker.pid


def test_exit_of_a_leased_worker_is_told_with_its_code(daemon: Daemon) -> None:
    worker = daemon.lease()
    worker.say({"t": "exit", "code": 3})
    died = daemon.driver.expect("worker_died")[0]
    assert (died["exit_code"], died["signal"], died["reason"], died["started"]) == (3, 0, "exited with code 3", -1)


def test_killing_a_leased_worker_is_intended(daemon: Daemon) -> None:
    worker = daemon.lease()
    daemon.driver.say({"t": "kill_worker", "worker": worker.id, "reason": "its task was cancelled"})
    died = daemon.driver.expect("worker_died")[0]
    assert (died["signal"], died["reason"], died["intended"]) == (9, "was killed: its task was cancelled", True)


def test_who_counts_on_a_worker_that_it_has_not_leased_is_told(daemon: Daemon) -> None:
    """Only then: what comes next after a question about a leased one is the answer to the next question."""
    worker = daemon.lease()
    daemon.driver.say({"t": "check_lease", "worker": worker.id})
    daemon.driver.say({"t": "return", "worker": worker.id})
    daemon.driver.say({"t": "check_lease", "worker": worker.id})
    daemon.driver.say({"t": "check_lease", "worker": "ab" * 16})
    told = [daemon.driver.expect("worker_died")[0] for _ in range(2)]
    assert [one["worker"] for one in told] == [worker.id, "ab" * 16]
    assert {(one["reason"], one["started"]) for one in told} == {
        ("its lease had ended, which this process was not told", None)
    }


def test_tasks_of_a_dead_worker_are_killed_too(daemon: Daemon) -> None:
    parent = daemon.lease()
    parent.tell_agent({"t": "demand", "key": "child", "resources": CPU, "count": 1, "depth": 1})
    child = parent.heard("grant")[0]
    os.kill(parent.pid, signal.SIGKILL)
    daemon.driver.expect("worker_died", worker=parent.id)
    wait_until_gone(child["pid"])
    wait_until(lambda: daemon.query("available_resources") == {"CPU": 20_000})


def test_workers_that_cannot_start_are_reported(daemon: Daemon) -> None:
    daemon.driver.say({"t": "demand", "key": "f", "resources": CPU, "count": 1, "env": {"broken": True}})
    failed = daemon.driver.expect("demand_failed", key="f")[0]
    assert "exited with code 1 before it was ready" in failed["reason"]
    assert daemon.lease("g").order("about")


# ---- output ----


def test_output_is_forwarded_by_lines_with_the_name_in_force(daemon: Daemon) -> None:
    worker = daemon.lease()
    worker.order("print", text="one\ntw", error=False)
    log = daemon.driver.expect("log")[0]
    assert log == {"t": "log", "worker": worker.id, "pid": worker.pid, "name": "", "is_err": False, "lines": ["one"]}
    worker.order("print", text="o\n\x1fname:f()\nthree\nfour\n", error=False)
    assert [daemon.driver.expect("log")[0] | {"worker": "", "pid": 0} for _ in range(2)] == [
        {"t": "log", "worker": "", "pid": 0, "name": "", "is_err": False, "lines": ["two"]},
        {"t": "log", "worker": "", "pid": 0, "name": "f()", "is_err": False, "lines": ["three", "four"]},
    ]
    worker.order("print", text="oh \u00fcber\n", error=True)
    assert daemon.driver.expect("log", is_err=True)[0]["lines"] == ["oh über"]


def test_last_words_of_a_crashing_worker_are_forwarded_before_its_end_is(daemon: Daemon) -> None:
    worker = daemon.lease()
    worker.order("print", text="last words", error=True)
    worker.say({"t": "exit", "code": 1})
    daemon.driver.expect("worker_died")
    assert [message["lines"] for message, _ in daemon.driver.inbox if message["t"] == "log"] == [["last words"]]


def test_output_can_be_kept_from_the_driver(start: Callable[..., Daemon]) -> None:
    daemon = start(log_to_driver=False)
    worker = daemon.lease()
    worker.order("print", text="x" * 200_000 + "\n", error=False)
    worker.say({"t": "exit", "code": 0})
    daemon.driver.expect("worker_died")
    assert daemon.driver.inbox == []


# ---- actors ----


def test_actor_is_created_watched_and_killed(daemon: Daemon) -> None:
    daemon.actor()
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    host = daemon.host_of("a")
    create, body = host.heard("create")
    assert (create["actor"], create["class_name"], create["reconstructed"], create["owner"]) == (
        "a",
        "Counter",
        0,
        DRIVER,
    )
    assert body == b"spec"
    host.tell_agent({"t": "actor_ready", "actor": "a"})
    alive = daemon.driver.expect("actor_state", state="ALIVE")[0]
    assert (alive["address"], alive["worker"]) == (f"{daemon.launched.session_dir}/{host.id}.sock", host.id)
    daemon.driver.say({"t": "kill_actor", "actor": "a", "no_restart": True})
    dead = daemon.driver.expect("actor_state", state="DEAD")[0]
    assert (dead["reason"], dead["intended"]) == ("it was killed by umbel.kill()", True)
    wait_until_gone(host.pid)


def test_named_actor_is_found_refused_and_shared(daemon: Daemon) -> None:
    spec = {
        "t": "create_actor",
        "placement": CPU,
        "running": {},
        "class_name": "Counter",
        "meta_size": 4,
        "name": "n",
        "namespace": "ns",
    }
    assert daemon.driver.ask({**spec, "actor": "a"}, b"metaspec")["existing"] is False
    assert daemon.driver.ask({**spec, "actor": "b"}, b"metaspec")["error"]["kind"] == "exists"
    daemon.driver.requests += 1
    daemon.driver.say({**spec, "actor": "c", "get_if_exists": True, "rq": daemon.driver.requests}, b"metaspec")
    reply, body = daemon.driver.expect("reply")
    assert (reply["actor"], reply["existing"], body) == ("a", True, b"meta")
    daemon.driver.say({"t": "get_actor", "name": "n", "namespace": "ns", "rq": 99})
    assert daemon.driver.expect("reply", rq=99) == ({"t": "reply", "rq": 99, "actor": "a"}, b"meta")
    missing = daemon.driver.ask({"t": "get_actor", "name": "m", "namespace": "ns"})["error"]
    assert missing["kind"] == "missing"
    assert "named actors now (namespace/name): ns/n" in missing["text"]
    assert daemon.driver.ask({"t": "list_actors", "all_namespaces": True})["actors"] == [
        {"namespace": "ns", "name": "n"}
    ]


def test_actor_that_lacks_arguments_is_hosted_when_they_come(daemon: Daemon) -> None:
    daemon.actor(lacks_arguments=True)
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    assert "arguments" in daemon.driver.expect("actor_state", state="PENDING")[0]["reason"]
    assert daemon.query("pending") == []
    assert [one["actor"] for one in daemon.workers() if one["actor"]] == []
    daemon.driver.say({"t": "actor_arguments", "actor": "a"}, b"call")
    assert daemon.host_of().heard("create")[1] == b"call"


def test_error_of_an_argument_travels_to_watchers(daemon: Daemon) -> None:
    daemon.actor(lacks_arguments=True)
    daemon.driver.say({"t": "actor_arguments_failed", "actor": "a"}, b"\x80pickled error")
    daemon.driver.say({"t": "actor_arguments", "actor": "a"}, b"call")
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    state, body = daemon.driver.expect("actor_state", state="DEAD")
    assert (state["init_failed"], body) == (True, b"\x80pickled error")
    assert daemon.query("pending") == []


def test_error_of_a_constructor_travels_to_watchers(daemon: Daemon) -> None:
    daemon.actor(max_restarts=3)
    host = daemon.host_of()
    host.tell_agent({"t": "actor_failed", "actor": "a"}, b"\x80pickled error")
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    state, body = daemon.driver.expect("actor_state", state="DEAD")
    assert (state["init_failed"], body) == (True, b"\x80pickled error")
    wait_until_gone(host.pid)


def test_actor_restarts_elsewhere_when_its_worker_crashes(daemon: Daemon) -> None:
    daemon.actor(max_restarts=1)
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    first = daemon.host_of()
    first.tell_agent({"t": "actor_ready", "actor": "a"})
    os.kill(first.pid, signal.SIGKILL)
    restarting = daemon.driver.expect("actor_state", state="RESTARTING")[0]
    assert "was killed by signal 9 (SIGKILL)" in restarting["reason"]
    second = daemon.host_of()
    assert second.heard("create")[0]["reconstructed"] == 1
    second.tell_agent({"t": "actor_ready", "actor": "a"})
    assert daemon.driver.expect("actor_state", state="ALIVE", restarts=1)
    second.say({"t": "exit", "code": 1})
    dead = daemon.driver.expect("actor_state", state="DEAD")[0]
    assert (dead["intended"], dead["restarts"]) == (False, 1)


def test_intended_exit_is_no_crash_even_if_the_exit_is_seen_first(daemon: Daemon) -> None:
    """The announcement and the process's end come by different ways; the announcement must win. Both wait for a daemon that is
    held still, which hears of ends first, as one has come before: otherwise it ends a process that has announced it."""
    daemon.actor(max_restarts=-1)
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    host = daemon.host_of()
    host.tell_agent({"t": "actor_ready", "actor": "a"})
    daemon.driver.expect("actor_state", state="ALIVE")
    other = daemon.lease()
    os.kill(daemon.launched.pid, signal.SIGSTOP)
    try:
        os.kill(other.pid, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{other.pid}"))
        host.tell_agent({"t": "actor_exiting", "actor": "a", "reason": "exit_actor() was called"})
        host.say({"t": "exit", "code": 0})
        wait_until(lambda: not os.path.exists(f"/proc/{host.pid}"))
    finally:
        os.kill(daemon.launched.pid, signal.SIGCONT)
    dead = daemon.driver.expect("actor_state", state="DEAD")[0]
    assert (dead["intended"], dead["reason"]) == (True, "exit_actor() was called")


def test_actor_without_handles_is_asked_to_finish(daemon: Daemon) -> None:
    daemon.actor()
    daemon.driver.say({"t": "actor_watch", "actor": "a"})
    host = daemon.host_of()
    host.tell_agent({"t": "actor_ready", "actor": "a"})
    daemon.driver.say({"t": "actor_unreferenced", "actor": "a"})
    assert daemon.driver.expect("actor_state", state="DEAD")[0]["reason"] == "no handle to it is left"


def test_idle_worker_that_created_an_actor_is_not_sent_away(start: Callable[..., Daemon]) -> None:
    daemon = start(resources=CPU)
    parent = daemon.lease()
    spec = {"t": "create_actor", "placement": CPU, "running": {}, "class_name": "Counter", "meta_size": 0}
    parent.tell_agent({**spec, "actor": "a"})
    host = daemon.host_of("a")
    host.tell_agent({"t": "actor_ready", "actor": "a"})
    daemon.driver.say({"t": "demand", "key": "g", "resources": {}, "count": 1})
    other = daemon.driver.expect("grant", key="g")[0]["worker"]
    daemon.driver.say({"t": "return", "worker": parent.id, "retire": False})
    daemon.driver.say({"t": "return", "worker": other, "retire": False})
    wait_until(lambda: [w["worker"] for w in daemon.workers() if w["state"] == "idle"] == [parent.id])
    daemon.driver.say({"t": "kill_actor", "actor": "a", "no_restart": True})
    wait_until_gone(host.pid)


def test_actor_dies_with_the_worker_that_created_it_unless_detached(daemon: Daemon) -> None:
    parent = daemon.lease()
    spec = {"t": "create_actor", "placement": CPU, "running": {}, "class_name": "Counter", "meta_size": 0}
    parent.tell_agent({**spec, "actor": "owned"})
    parent.tell_agent({**spec, "actor": "detached", "name": "n", "detached": True, "rq": 1})
    owned, detached = daemon.host_of("owned"), daemon.host_of("detached")
    daemon.driver.say({"t": "actor_watch", "actor": "owned"})
    os.kill(parent.pid, signal.SIGKILL)
    assert "its owner" in daemon.driver.expect("actor_state", actor="owned", state="DEAD")[0]["reason"]
    wait_until_gone(owned.pid)
    assert sessions.start_time(detached.pid)
    assert [one["state"] for one in daemon.query("actors") if one["actor"] == "detached"] == ["PENDING"]


def test_actor_too_large_for_the_node_waits_and_is_warned_about(daemon: Daemon) -> None:
    daemon.actor(placement={"CPU": 30_000})
    assert "An actor cannot be scheduled" in daemon.driver.expect("warn")[0]["text"]
    assert daemon.query("pending")[0]["actor"] == "a"


# ---- the store ----


def test_store_grants_up_to_its_capacity_then_asks_others_and_refuses(start: Callable[..., Daemon]) -> None:
    daemon = start(store_capacity_bytes=1_000, store_full_wait_s=0.2)
    worker = daemon.lease()
    worker.tell_agent({"t": "reserve_store", "bytes": 900, "rq": 1})
    assert worker.heard("reply")[0]["granted"] == 900
    assert daemon.driver.ask({"t": "reserve_store", "bytes": 500})["granted"] == 100
    error = daemon.driver.ask({"t": "reserve_store", "bytes": 500})["error"]
    assert (error["kind"], error["holders"]) == (
        "full",
        [
            {"id": worker.id, "bytes": 900, "kind": "worker", "pid": worker.pid},
            {"id": DRIVER, "bytes": 100, "kind": "driver", "pid": os.getpid()},
        ],
    )
    worker.heard("store_trim")


def test_store_request_waits_for_what_others_give_back(start: Callable[..., Daemon]) -> None:
    daemon = start(store_capacity_bytes=1_000)
    worker = daemon.lease()
    worker.tell_agent({"t": "reserve_store", "bytes": 1_000, "rq": 1})
    worker.heard("reply")
    daemon.driver.say({"t": "reserve_store", "bytes": 10, "rq": 50})
    worker.heard("store_trim")
    worker.tell_agent({"t": "release_store", "bytes": 400})
    assert daemon.driver.expect("reply", rq=50)[0]["granted"] == 10
    assert daemon.query("store")["free_bytes"] == 390


def test_store_files_of_a_dead_worker_go_unless_somebody_else_owns_them(daemon: Daemon) -> None:
    worker = daemon.lease()
    worker.tell_agent({"t": "reserve_store", "bytes": 1 << 20, "rq": 1})
    own, others = f"{worker.id}.{worker.id}.1", f"{worker.id}.{DRIVER}.2"
    worker.order("write", name=own, size=8_192)
    worker.order("write", name=others, size=8_192)
    os.kill(worker.pid, signal.SIGKILL)
    daemon.driver.expect("worker_died")
    assert sorted(os.listdir(daemon.launched.store_dir)) == sorted([others, "processes"])
    assert daemon.query("store")["holders"] == [{"id": worker.id, "bytes": 8_192}]
    os.unlink(os.path.join(daemon.launched.store_dir, others))
    wait_until(lambda: daemon.query("store")["holders"] == [])


# ---- other questions ----


def test_session_without_a_history_says_so(daemon: Daemon) -> None:
    daemon.driver.say({"t": "task_events", "count": 1}, b"not even a batch")
    assert daemon.query("history")["trouble"].startswith("nothing is recorded in this session")


def test_idle_daemon_sleeps(daemon: Daemon) -> None:
    """No timer runs while nothing depends on time: an idle runtime must not use the processor."""
    worker = daemon.lease()
    daemon.driver.say({"t": "return", "worker": worker.id, "retire": False})
    daemon.query("nodes")

    def switches() -> int:
        with open(f"/proc/{daemon.launched.pid}/status") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))

    before = switches()
    select.select([], [], [], 0.5)
    assert switches() - before <= 1


# ---- the end ----


def test_shutdown_ends_busy_workers_too(daemon: Daemon) -> None:
    worker = daemon.lease()
    daemon.driver.say({"t": "shutdown"})
    daemon.launched.close()
    assert daemon.launched.process.returncode == 0
    daemon.assert_gone(worker.pid)


def test_workers_are_told_of_the_shutdown(daemon: Daemon) -> None:
    worker = daemon.lease()
    daemon.driver.say({"t": "shutdown"})
    worker.heard("exit", idle=False, shutdown=True)


def test_closing_the_drivers_connection_ends_everything(daemon: Daemon) -> None:
    worker = daemon.lease()
    daemon.driver.close()
    daemon.assert_gone(worker.pid)


def test_closing_the_lifeline_before_connecting_ends_everything() -> None:
    launched = launch.launch({"worker_main": "daemon_worker", "sys_path": [HERE, *sys.path]})
    launched.close()
    assert launched.process.returncode == 0
    assert not os.path.exists(launched.session_dir)


def test_daemon_keeps_nothing_open_that_its_starter_lets_children_inherit() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    launched = launch.launch({"worker_main": "daemon_worker", "sys_path": [HERE, *sys.path]})
    try:
        os.close(write)
        assert select.select([read], [], [], 5.0)[0], "the daemon, or its fork server, has the pipe"
    finally:
        os.close(read)
        launched.close()


def test_abandoned_launch_leaves_nothing() -> None:
    def own_sessions() -> list[str]:
        return [name for name in os.listdir(sessions.base_dir()) if name.startswith(f"{os.getpid()}-")]

    before = own_sessions()
    launching = launch.begin()
    launching.configure({"worker_main": "daemon_worker", "sys_path": [HERE, *sys.path]})
    launching.abandon()
    assert own_sessions() == before


def test_daemon_that_is_told_nothing_ends_with_whoever_began_it() -> None:
    launching = launch.begin()
    launching.abandon()  # waits for its process


def test_node_is_configured_before_it_is_waited_for() -> None:
    launching = launch.begin()
    launching.configure({"worker_main": "daemon_worker", "sys_path": [HERE, *sys.path], "resources": {"CPU": 70_000}})
    launched = launching.finish()
    driver = Peer(launched.address)
    driver.say(hello("driver", DRIVER))
    assert driver.expect("welcome")[0]["resources"] == {"CPU": 70_000}
    driver.close()
    launched.close()


def test_sigterm_ends_everything(daemon: Daemon) -> None:
    worker = daemon.lease()
    os.kill(daemon.launched.pid, signal.SIGTERM)
    daemon.assert_gone(worker.pid)


def test_terminal_interrupt_leaves_the_daemon_alone(daemon: Daemon) -> None:
    """Ctrl-C reaches every process of the terminal; only the driver may decide what it means."""
    worker = daemon.lease()
    for pid in (*daemon.pids, worker.pid):
        os.kill(pid, signal.SIGINT)
    assert worker.order("about")
    assert daemon.lease("g").pid


@pytest.mark.parametrize("victims", ["daemon", "fork server", "daemon and fork server", "daemon and worker"])
def test_nothing_is_left_after_kill_9_of(victims: str, start: Callable[..., Daemon]) -> None:
    daemon = start()
    worker, other = daemon.lease(), daemon.lease("g")
    pids = {"daemon": daemon.launched.pid, "fork server": daemon.fork_server_pid, "worker": worker.pid}
    for victim in victims.split(" and "):
        os.kill(pids[victim], signal.SIGKILL)
    daemon.launched.process.wait()
    if victims == "daemon and fork server":
        for pid in (worker.pid, other.pid):
            wait_until_gone(pid)
        return  # nobody is left who could remove the files but this process, or the next `launch`
    daemon.assert_gone(worker.pid, other.pid)


_KILLED_DRIVER = """
import json, os, sys, time
sys.path[:0] = [{here!r}]
from test_daemon import Daemon
daemon = Daemon()
pids = [daemon.lease().pid, daemon.lease("g").pid, *daemon.pids]
child = os.fork() if {forks} else 0
if child or not {forks}:
    session = daemon.launched
    about = dict(session_dir=session.session_dir, store_dir=session.store_dir, pids=pids, child=child)
    print(json.dumps(about), flush=True)
time.sleep(100)
"""


@contextlib.contextmanager
def driver_process(*, forks: bool) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A driver in a process of its own, with a daemon and two workers, and what it says of itself."""
    driver = subprocess.Popen(
        [sys.executable, "-c", _KILLED_DRIVER.format(here=HERE, forks=forks)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert driver.stdout is not None
    with driver.stdout:
        about: dict[str, Any] = json.loads(driver.stdout.readline())
    try:
        yield driver, about
    finally:
        driver.kill()
        driver.wait()
        if forks:
            os.kill(about["child"], signal.SIGKILL)


@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a forked child that holds its sockets open"])
def test_nothing_is_left_after_kill_9_of_the_driver(forks: bool) -> None:
    with driver_process(forks=forks) as (driver, about):
        driver.kill()
        for pid in about["pids"]:
            wait_until_gone(pid)
        wait_until(lambda: not os.path.exists(about["session_dir"]))
        wait_until(lambda: not os.path.exists(about["store_dir"]))


def test_next_launch_sweeps_what_a_killed_session_left(start: Callable[..., Daemon]) -> None:
    """Only when daemon, fork server and driver were all killed is anything left; the next session removes it."""
    with driver_process(forks=False) as (driver, about):
        for pid in about["pids"]:  # stopped first, so that none of them can clean up before it is killed
            os.kill(pid, signal.SIGSTOP)
        for pid in (driver.pid, *about["pids"]):
            with contextlib.suppress(ProcessLookupError):  # workers die with the fork server
                os.kill(pid, signal.SIGKILL)
        for pid in (driver.pid, *about["pids"]):
            wait_until_gone(pid)
    assert os.path.exists(about["session_dir"])
    assert os.path.exists(about["store_dir"])
    other = start()
    assert not os.path.exists(about["session_dir"])
    assert not os.path.exists(about["store_dir"])
    assert os.path.exists(other.launched.session_dir)


def test_missing_worker_module_is_fatal_and_the_driver_is_told(start: Callable[..., Daemon]) -> None:
    launched = launch.launch({"worker_main": "no_such_module", "sys_path": [HERE, *sys.path]})
    driver = Peer(launched.address)
    driver.say(hello("driver", DRIVER))
    with pytest.raises(EOFError):
        driver.expect("nothing")
    told = [message["text"] for message, _ in driver.inbox if message["t"] in ("fatal", "refused")]
    assert len(told) == 1
    assert "No module named 'no_such_module'" in told[0]
    launched.close()


def test_missing_module_of_the_users_is_only_a_warning(start: Callable[..., Daemon]) -> None:
    daemon = start(worker_imports=["no_such_module"])
    assert daemon.lease()


def test_launch_that_fails_says_why_and_leaves_nothing(tmp_path: Any) -> None:
    session_dir = tmp_path / ("x" * 120)
    with pytest.raises(
        exceptions.UmbelSystemError, match="the Umbel daemon did not start: OSError: AF_UNIX path too long"
    ):
        launch.launch({"session_dir": str(session_dir)})
    assert not session_dir.exists()


def test_directory_of_another_session_is_left_alone(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="name another directory"):
        launch.launch({"session_dir": str(tmp_path)})
    assert (tmp_path / "file").exists()


def test_socket_pair_ends_are_not_inherited(daemon: Daemon) -> None:
    """A worker must not hold the sockets of others open, or nobody would see them end."""
    worker = daemon.lease()
    worker.order("about")  # it has accepted this test's connection
    links = [os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")]
    sockets = [link for link in links if link.startswith("socket:")]
    assert len(sockets) == 3, links  # to the agent, its listener, to this test
    assert isinstance(daemon.driver.sock, socket.socket)


GROUP: dict[str, Any] = {"t": "create_group", "group": "g", "bundles": [CPU], "strategy": "PACK", "label_selectors": []}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"strategy": "SIDEWAYS"}, "strategy must be one of PACK, SPREAD, STRICT_PACK, STRICT_SPREAD, got 'SIDEWAYS'"),
        ({"bundles": []}, "create_group.bundles must be an array"),
        ({"bundles": [{"CPU": -1}]}, "create_group.bundles must be an array"),
        ({"label_selectors": [{}, {}]}, "label_selectors must be none or one for each bundle, got 2"),
        ({"label_selectors": [{"zone": "in("}]}, "a label selector's value must be"),
        ({"label_selectors": [{"zone": 1}]}, "create_group.label_selectors must be an array of objects of strings"),
    ],
)
def test_placement_group_that_makes_no_sense_is_refused(daemon: Daemon, wrong: dict[str, Any], says: str) -> None:
    error = daemon.driver.ask({**GROUP, **wrong})["error"]
    assert (error["kind"], says in error["text"]) == ("invalid", True), error
    assert daemon.driver.ask(GROUP)["state"] == "CREATED"
    daemon.driver.say({"t": "group_watch", "group": "g"})
    assert daemon.driver.expect("group_state")[0]["state"] == "CREATED"


@pytest.mark.parametrize("strategy", [{"placement_group": 1}, {"placement_group": "g", "bundle_index": "0"}])
def test_bundle_that_makes_no_sense_is_refused(daemon: Daemon, strategy: dict[str, Any]) -> None:
    daemon.driver.say({"t": "demand", "key": "f", "resources": CPU, "count": 1, "strategy": strategy})
    assert "demand.strategy must be" in daemon.driver.expect("warn")[0]["text"]
    assert daemon.lease("g")
