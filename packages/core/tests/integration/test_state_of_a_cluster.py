"""What is seen of a whole cluster from one node: listings, reasons, stacks, output, logs; and of a node that is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import commands
import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel._client import cluster_listing, node_view, tool
from umbel.cli import explain
from umbel.util import state
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from umbel.util.state import exception

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are stopped by /proc"),
    pytest.mark.timeout(120),
]

PATIENCE_S = 5.0  # of a listing of a cluster of which a node is stopped


class Nodes:
    """A head, of which this process is a driver, and two others, each with a resource of its own. directory: for tests' files."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        assert self.cluster.head_node is not None
        self.head = self.cluster.head_node
        self.a = self.cluster.add_node(num_cpus=1, resources={"a": 2})
        self.b = self.cluster.add_node(num_cpus=1, resources={"b": 2})
        self.cluster.connect()
        self.actor = On.options(resources={"b": 1}).remote()  # type: ignore[attr-defined]
        umbel.get(self.actor.ready.remote())

    def file(self, name: str) -> str:
        return os.path.join(self.directory, name)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with homes.own_home() as directory:
        made = Nodes(directory)
        try:
            yield made
        finally:
            made.cluster.shutdown()


@umbel.remote(num_cpus=0, resources={"a": 0.1})
def on_a(path: str = "", *_: Any) -> int:
    while path and not pathlib.Path(path).exists():
        time.sleep(0.005)
    return os.getpid()


@umbel.remote(num_cpus=0)
def say(text: str) -> None:
    print(text, flush=True)


@umbel.remote(num_cpus=0)
class On:
    def ready(self) -> int:
        return os.getpid()

    def waits(self, path: str) -> None:
        while not pathlib.Path(path).exists():
            time.sleep(0.005)

    def submits(self, count: int) -> list[int]:
        return umbel.get([on_a.options(name="inner").remote() for _ in range(count)])

    def begins(self, path: str) -> Any:
        """A reference to what it owns, which waits."""
        self.kept = on_a.options(name="kept").remote(path)
        return [self.kept]

    def has_made(self, size_bytes: int) -> Any:
        self.made = umbel.put(bytes(size_bytes))
        return [self.made]

    def says(self, text: str) -> None:
        print(text, flush=True)

    def floods(self, count: int) -> None:
        print("\n".join(f"line {number} of a flood" for number in range(count)), flush=True)

    def has_said(self, text: str, node_id: str, cpus: int, resources: dict[str, float]) -> None:
        where = NodeAffinitySchedulingStrategy(node_id, soft=False)
        umbel.get(say.options(num_cpus=cpus, resources=resources, scheduling_strategy=where).remote(text))


@contextlib.contextmanager
def held(nodes: Nodes, name: str) -> Iterator[str]:
    """The path of a file, for which tasks wait while the block runs."""
    path = nodes.file(name)
    try:
        yield path
    finally:
        pathlib.Path(path).touch()


@contextlib.contextmanager
def stopped(node: cluster_utils.ClusterNode) -> Iterator[None]:
    drivers.freeze(node.pid)
    try:
        yield
    finally:
        os.kill(node.pid, signal.SIGCONT)


def listed(**arguments: Any) -> list[Any]:
    return state.list_tasks(detail=True, limit=1_000, **arguments)


# ---- listings ----


def test_tasks_of_all_nodes_are_listed_with_the_node_they_run_on(nodes: Nodes) -> None:
    pids = umbel.get([on_a.options(name="outer").remote() for _ in range(4)])
    inner = umbel.get(nodes.actor.submits.remote(3))
    with held(nodes, "held") as path:
        running = on_a.options(name="runs").remote(path)
        waiting = on_a.options(name="waits").remote("", running)
        drivers.wait_until(lambda: listed(filters=[("name", "=", "runs"), ("state", "=", "RUNNING")]), what="it to run")
        found = {
            name: listed(filters=[("name", "=", name)]) for name in ("outer", "inner", "runs", "waits", "On.submits")
        }
        assert [one.worker_pid for one in found["outer"]] == pids
        assert [one.worker_pid for one in found["inner"]] == inner
        assert {one.node_id for name in ("outer", "inner", "runs") for one in found[name]} == {nodes.a.node_id}
        assert [(one.node_id, one.state) for one in found["On.submits"]] == [(nodes.b.node_id, "FINISHED")]
        assert [(one.node_id, one.state) for one in found["waits"]] == [(None, "PENDING_ARGS_AVAIL")]
        assert {one.parent_task_id for one in found["inner"]} == {found["On.submits"][0].task_id}
        there = listed(filters=[("node_id", "=", nodes.a.node_id), ("name", "in", ["outer", "inner", "runs", "waits"])])
        assert sorted(one.name for one in there) == ["inner"] * 3 + ["outer"] * 4 + ["runs"]
    umbel.get(waiting)


def test_tasks_are_found_by_the_pid_of_their_worker_on_another_node(nodes: Nodes) -> None:
    actor_pid = umbel.get(nodes.actor.ready.remote())
    with held(nodes, "by-pid") as path:
        running = on_a.options(name="by pid").remote(path)
        drivers.wait_until(
            lambda: [one.worker_pid for one in listed(filters=[("name", "=", "by pid"), ("state", "=", "RUNNING")])]
        )
        (told,) = listed(filters=[("name", "=", "by pid")])
        assert "by pid" in [one.name for one in listed(filters=[("worker_pid", "=", told.worker_pid)])]
        assert "by pid" not in [one.name for one in listed(filters=[("worker_pid", "!=", told.worker_pid)])]
    assert umbel.get(running) == told.worker_pid
    ended = [("worker_pid", "=", told.worker_pid), ("state", "=", "FINISHED"), ("name", "=", "by pid")]
    assert [one.name for one in listed(filters=ended)] == ["by pid"]
    calls = {one.name for one in listed(filters=[("worker_pid", "=", actor_pid), ("state", "=", "FINISHED")])}
    assert "On.ready" in calls
    kept = umbel.get(nodes.actor.has_made.remote(10))
    holders = state.list_objects(filters=[("object_id", "=", kept[0].hex()), ("pid", "=", actor_pid)])
    assert {one.pid for one in holders} == {actor_pid}


def test_pages_of_all_nodes_are_parts_of_one_list(nodes: Nodes) -> None:
    umbel.get([on_a.options(name="outer").remote() for _ in range(4)])
    umbel.get(nodes.actor.submits.remote(3))
    for order in (None, "end_time_ms", "-start_time_ms"):
        whole = [(one.task_id, one.attempt_number) for one in listed(order_by=order)]
        assert len(set(whole)) == len(whole) > 7
        pages = [listed_page(order, offset) for offset in range(0, len(whole) + 4, 4)]
        assert [one for page in pages for one in page] == whole
    ended = [one.end_time_ms for one in listed(order_by="end_time_ms", filters=[("state", "=", "FINISHED")])]
    assert ended == sorted(ended)


def listed_page(order: str | None, offset: int) -> list[tuple[str, int]]:
    return [(one.task_id, one.attempt_number) for one in state.list_tasks(order_by=order, limit=4, offset=offset)]


def test_more_rows_than_a_page_are_asked_for_again(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    umbel.get(nodes.actor.submits.remote(5))
    whole = [one.task_id for one in listed()]
    monkeypatch.setattr(cluster_listing.merging, "PAGES_ROWS_MAX", 0)
    monkeypatch.setattr(cluster_listing.merging, "PAGE_ROWS_MIN", 2)
    assert [one.task_id for one in listed()] == whole


def test_counts_are_of_all_nodes(nodes: Nodes) -> None:
    umbel.get([on_a.options(name="counted").remote() for _ in range(2)])
    before = state.summarize_tasks()["cluster"]["summary"].get("inner", {"state_counts": {"FINISHED": 0}})
    umbel.get(nodes.actor.submits.remote(3))
    summary = state.summarize_tasks()["cluster"]["summary"]
    assert summary["counted"]["state_counts"] == {"FINISHED": 2}
    assert summary["inner"]["state_counts"]["FINISHED"] == before["state_counts"]["FINISHED"] + 3


def test_workers_and_objects_of_all_nodes_are_listed(nodes: Nodes) -> None:
    kept = umbel.get(nodes.actor.begins.remote(""))
    ids = {node.node_id for node in (nodes.head, nodes.a, nodes.b)}
    workers = state.list_workers(limit=1_000)
    assert {one.node_id for one in workers} == ids
    assert [one.node_id for one in workers if one.pid == umbel.get(nodes.actor.ready.remote())] == [nodes.b.node_id]
    assert len({one.worker_id for one in workers}) == len(workers)
    holders = {one.node_id for one in state.get_objects(kept[0].hex())}
    assert holders == {nodes.head.node_id, nodes.b.node_id}


def test_memory_is_that_of_all_nodes(nodes: Nodes) -> None:
    (ref,) = umbel.get(nodes.actor.has_made.remote(300_000))
    report = json.loads(commands.run("memory", "--json").stdout)
    (entry,) = [one for one in report["entries"] if one["object_id"] == ref.hex()]
    assert (entry["node_id"], entry["kind"], entry["size_bytes"] >= 300_000) == (nodes.b.node_id, "shared", True)
    assert report["store"]["capacity_bytes"] == 3 * cluster_utils.STORE_BYTES
    words = commands.run("memory").stdout
    assert f"actor On (pid {umbel.get(nodes.actor.ready.remote())}) of node {nodes.b.node_id[:8]}" in words
    told = commands.run("explain", ref.hex())
    assert (told.returncode, "is owned by actor On" in told.stdout) == (0, True), told


@pytest.mark.parametrize("which", ["a", "b"])
def test_every_node_tells_the_same(nodes: Nodes, which: str) -> None:
    umbel.get(nodes.actor.submits.remote(1))
    request = node_view.Request(limit=1_000)
    with tool.Tool(nodes.head.session_dir) as head, tool.Tool(getattr(nodes, which).session_dir) as other:
        for kind in ("tasks", "workers", "actors", "nodes", "jobs", "cluster_events"):
            of_head, of_other = (cluster_listing.KINDS[kind](asker, request) for asker in (head, other))
            assert (of_head.missing, of_other.missing) == ([], [])
            key = {
                "tasks": "task_id",
                "workers": "worker_id",
                "actors": "actor_id",
                "nodes": "node_id",
                "jobs": "job_id",
                "cluster_events": "event_id",
            }[kind]
            assert sorted(row[key] for row in of_head.rows) == sorted(row[key] for row in of_other.rows), kind


def test_what_has_happened_is_remembered_by_the_head(nodes: Nodes) -> None:
    events = [one.message for one in reversed(state.list_cluster_events())]
    assert events[0] == f"node {nodes.head.node_id} leads the cluster"
    assert {f"node {one.node_id} joined at {one.address}" for one in (nodes.a, nodes.b)} <= set(events)
    restarting = On.options(max_restarts=1, name="restarting", resources={"b": 0.1}).remote()  # type: ignore[attr-defined]
    os.kill(umbel.get(restarting.ready.remote()), signal.SIGKILL)
    drivers.wait_until(
        lambda: [one.severity for one in state.list_cluster_events(filters=[("source_type", "=", "actors")])],
        what="its restart",
    )
    (event,) = state.list_cluster_events(filters=[("source_type", "=", "actors")], detail=True)
    assert (event.severity, event.message.partition(":")[0]) == ("WARNING", "actor restarting restarts, 1 of 1")
    assert event.custom_fields is not None and event.custom_fields["actor_id"] == restarting._actor_id.hex()
    umbel.kill(restarting)
    told = commands.run("list", "cluster-events", "--filter", "severity=WARNING")
    assert (told.returncode, event.message in told.stdout) == (0, True), told


def test_cluster_is_listed_from_another_machine(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which nothing but the address and the token of one node is known."""
    umbel.get(nodes.actor.submits.remote(1))
    here = [one.task_id for one in listed()]
    monkeypatch.setenv("UMBEL_TOKEN_FILE", nodes.cluster.token_file)
    assert [one.task_id for one in listed(address=nodes.b.address)] == here


def test_trace_has_the_processes_of_all_nodes(nodes: Nodes) -> None:
    umbel.get(on_a.options(name="traced").remote())
    umbel.get(nodes.actor.submits.remote(1))
    events: Any = umbel.timeline()
    tasks = {event["name"]: event for event in events if event["cat"] in ("task", "actor_task")}
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names[tasks["traced"]["pid"]].endswith(f"on node {nodes.a.node_id[:8]})")
    assert names[tasks["On.submits"]["pid"]].endswith(f"on node {nodes.b.node_id[:8]})")
    assert tasks["inner"]["pid"] != tasks["On.submits"]["pid"]
    assert len(set(names.values())) == len(names)


# ---- why something waits ----


def test_story_goes_on_where_the_argument_is_computed(nodes: Nodes) -> None:
    with held(nodes, "argument") as path:
        first = on_a.options(name="first").remote(path)
        second = on_a.options(name="second").remote("", first)
        drivers.wait_until(lambda: "of node" in str(state.explain(second)) and "on_a" in str(state.explain(second)))
        story = str(state.explain(second))
        assert "the result of first, is running on worker" in story
        assert f" of node {nodes.a.node_id[:8]}," in story
        assert f"{__file__}:" in story
        told = commands.run("explain", second.hex())
        assert (told.returncode, f" of node {nodes.a.node_id[:8]}," in told.stdout) == (0, True), told
    umbel.get(second)


def test_story_follows_the_owner_on_another_node(nodes: Nodes) -> None:
    with held(nodes, "owner") as path:
        (ref,) = umbel.get(nodes.actor.begins.remote(path))
        stories: list[str] = []

        def is_told() -> bool:
            stories.append(str(state.explain(ref)))
            return f"is at {__file__}" in stories[-1]

        try:
            drivers.wait_until(is_told)
        finally:
            print(stories[-1])
        codes = [one.code for one in state.explain(ref).chain()]
        assert codes == ["elsewhere", "node", "running", "running"]
        story = str(state.explain(ref))
        assert f"on the node whose id begins with {nodes.b.node_id[:12]}" in story
        assert "the result of kept, is running on worker" in story
        assert f" of node {nodes.a.node_id[:8]}, " in story
    umbel.get(ref)


def test_what_actors_of_the_head_do_and_wait_for_is_told_by_another_node(nodes: Nodes) -> None:
    on_head = NodeAffinitySchedulingStrategy(nodes.head.node_id, soft=False)
    with held(nodes, "actor-of-head") as path:
        actor = On.options(scheduling_strategy=on_head, num_cpus=1).remote()  # type: ignore[attr-defined]
        umbel.get(actor.ready.remote())
        waits = actor.waits.remote(path)
        second = On.options(scheduling_strategy=on_head, num_cpus=1).remote()  # type: ignore[attr-defined]
        with tool.Tool(nodes.b.session_dir, answer_s=PATIENCE_S) as asker:

            def told(one: Any) -> str:
                (reason,) = explain.story(asker, one._actor_id.hex())
                return str(reason)

            drivers.wait_until(lambda: "On.waits" in told(actor), what="what the actor does")
            assert f", at {__file__}:" in told(actor)
            drivers.wait_until(lambda: "waits for CPU (0 of 1 free)" in told(second), what="what the other waits for")
            assert f"node {nodes.head.node_id} looks for a worker for it" in told(second)
    umbel.get(waits)
    umbel.kill(actor)
    umbel.get(second.ready.remote())
    umbel.kill(second)


def test_what_a_worker_of_another_node_is_waited_for_is_told(nodes: Nodes) -> None:
    with held(nodes, "room") as path:
        has = on_a.options(resources={"a": 2}, name="has").remote(path)
        drivers.wait_until(lambda: listed(filters=[("name", "=", "has"), ("state", "=", "RUNNING")]))
        wants = on_a.options(resources={"a": 2}, name="wants").remote()
        drivers.wait_until(lambda: state.explain(wants).last().code == "resources", what="the node to say")
        assert f"on node {nodes.a.node_id[:8]}, " in state.explain(wants).last().subject
        everything = commands.run("explain").stdout
        assert "1 task with {a: 2}," in everything
        status = json.loads(commands.run("status", "--json").stdout)
        assert [one["needs"] for one in status["pending"]] == ["{a: 2}"]
    umbel.get([has, wants])


def test_stacks_of_all_nodes_are_shown(nodes: Nodes) -> None:
    with held(nodes, "stack") as path:
        ref = on_a.remote(path)
        drivers.wait_until(lambda: listed(filters=[("name", "=", "on_a"), ("state", "=", "RUNNING")]))
        everything = json.loads(commands.run("stack", "--json").stdout)
        assert {nodes.a.node_id, nodes.b.node_id} <= {one["node_id"] for one in everything}
        one = commands.run("stack", ref.task_id().hex())
        assert f" of node {nodes.a.node_id[:8]}, leased" in one.stdout or "runs on_a" in one.stdout
        assert "time.sleep(0.005)" in one.stdout
    umbel.get(ref)


# ---- what workers print ----


class Seen:
    """What was written to this process's standard output."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self.text = ""

    def lines(self, part: str) -> list[str]:
        """Those so far that have this in them."""
        self.text += self._captured.readouterr().out
        return [line for line in self.text.splitlines() if part in line]


def test_what_an_actor_of_another_node_prints_reaches_its_driver(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen(capsys)
    pid = umbel.get(nodes.actor.ready.remote())
    nodes.actor.says.remote("said by an actor")
    drivers.wait_until(lambda: seen.lines("said by an actor"), what="the line to come")
    assert seen.lines("said by an actor") == [f"(On pid={pid}, ip=127.0.0.1) said by an actor"]


def test_what_a_task_of_an_actor_of_another_node_prints_reaches_its_driver(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen(capsys)
    for where, host in (("a", nodes.a), ("b", nodes.b), ("home", nodes.head)):
        resources = {} if where == "home" else {where: 0.1}
        cpus = 1 if where == "home" else 0
        umbel.get(nodes.actor.has_said.remote(f"said on {where}", host.node_id, cpus, resources))
        drivers.wait_until(lambda where=where: seen.lines(f"said on {where}"), what="the line to come")
        (line,) = seen.lines(f"said on {where}")
        assert ("ip=127.0.0.1" in line) == (where != "home"), line


def test_flood_of_an_actor_of_another_node_does_not_hold_it_up(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen(capsys)
    umbel.get(nodes.actor.floods.remote(20_000))
    nodes.actor.says.remote("after the flood")
    drivers.wait_until(lambda: seen.lines("after the flood"), what="the line behind the flood to come")
    count = len(seen.lines("of a flood"))
    dropped = sum(int(line.partition("[")[2].split()[0]) for line in seen.lines("lines were dropped"))
    assert count + dropped == 20_000


# ---- what they have printed ----


def test_logs_of_all_nodes_are_listed_and_shown(nodes: Nodes) -> None:
    umbel.get(nodes.actor.says.remote("kept in a file of b"))
    umbel.get(nodes.actor.has_said.remote("kept in a file of a", nodes.a.node_id, 0, {"a": 0.1}))
    drivers.wait_until(
        lambda: "file of b" in shown().stdout and "file of a" in shown().stdout, what="the lines to be written"
    )
    rows = json.loads(commands.run("logs", "list", "--json").stdout)
    assert {nodes.a.node_id, nodes.b.node_id} <= {one["node_id"] for one in rows}
    assert f" of node {nodes.b.node_id[:8]}, standard output" in shown().stdout
    there = shown("--node-id", nodes.b.node_id[:10]).stdout
    assert ("file of b" in there, "file of a" in there) == (True, False)
    of_actor = shown(nodes.actor._actor_id.hex()).stdout
    assert ("file of b" in of_actor, "file of a" in of_actor) == (True, False)
    nobody = shown("--node-id", "ffffffff")
    assert (nobody.returncode, "no living node" in nobody.stderr) == (1, True), nobody


def shown(*arguments: str) -> Any:
    return commands.run("logs", "show", *arguments)


def test_logs_of_another_node_are_followed(nodes: Nodes) -> None:
    umbel.get(nodes.actor.says.remote("before"))
    where = ("--node-id", nodes.b.node_id, "--session", commands.session_dir())
    command = [sys.executable, "-m", "umbel.cli", "logs", "show", "--follow", "--tail", "1", *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert "worker" in following.stdout.readline()
        nodes.actor.says.remote("while it is followed")
        while "while it is followed" not in following.stdout.readline():
            assert following.poll() is None
        following.kill()


def read(**whose: Any) -> str:
    """The whole log, once there is one."""
    found: list[str] = []

    def is_there() -> bool:
        try:
            found[:] = state.get_log(**whose)
        except exception.UmbelStateApiException:
            return False
        return bool(found)

    drivers.wait_until(is_there, what=f"a log with {whose}")
    return "".join(found)


def test_programs_are_told_the_logs_of_all_nodes(nodes: Nodes) -> None:
    pid = umbel.get(nodes.actor.ready.remote())
    umbel.get(nodes.actor.says.remote("by an actor of b"))
    where = NodeAffinitySchedulingStrategy(nodes.a.node_id, soft=False)
    task = say.options(scheduling_strategy=where).remote("by a task of a")
    umbel.get(task)
    assert read(task_id=task.task_id().hex()) == "by a task of a\n"
    assert "by an actor of b\n" in read(actor_id=nodes.actor._actor_id.hex())
    assert "by an actor of b\n" in read(pid=pid, node_id=nodes.b.node_id)
    names = {node.node_id: state.list_logs(node_id=node.node_id)["worker_out"] for node in (nodes.a, nodes.b)}
    assert {*names[nodes.a.node_id], *names[nodes.b.node_id]} <= {*state.list_logs()["worker_out"]}
    (of_actor,) = state.list_logs(glob_filter=f"*-{pid}.out", node_id=nodes.b.node_id)["worker_out"]
    assert of_actor in names[nodes.b.node_id] and of_actor not in names[nodes.a.node_id]
    assert "by an actor of b\n" in read(filename=of_actor)
    following = state.get_log(filename=of_actor, follow=True, tail=1, _interval=0.05)
    assert next(following).count("\n") == 1
    nodes.actor.says.remote("while a program follows")
    while "while a program follows\n" not in next(following):
        pass
    following.close()
    with pytest.raises(exception.UmbelStateApiException, match="no living node has node_id='ffff'"):
        state.list_logs(node_id="ffff")


# ---- questions that make no sense, and nodes that are not there ----


def test_nodes_that_are_not_there_are_answered_for(nodes: Nodes) -> None:
    unknown = "ab" * 28
    with tool.Tool(nodes.head.session_dir) as asker:
        answers = asker.gather("alive", {unknown: "", "no id": "", nodes.a.node_id: "", nodes.head.node_id: ""}, 2.0)
        assert [answers[one] for one in (nodes.a.node_id, nodes.head.node_id)] == [{"result": True}] * 2
        assert answers[unknown]["error"]["text"] == "it is not alive"
        assert answers["no id"]["error"]["text"] == "there is no such node"
        with pytest.raises(exceptions.UmbelSystemError, match="what must be one of"):
            asker.query("nonsense", node=nodes.a.node_id[:12])
        with pytest.raises(exceptions.UmbelSystemError, match=r"node abababab: it is not alive"):
            asker.ask("00" * 4 + unknown[:24], "task", "")
        for about in (
            "",
            "{}",
            '{"kind": "running"}',
            '{"kind": "log_piece", "timeout_s": 1, "name": "../token", "at": 0}',
        ):
            with pytest.raises(exceptions.UmbelSystemError):
                asker.query("survey", about)
        assert asker.query("alive")


# ---- a node that does not answer ----


def test_node_that_is_stopped_is_named_within_the_time(nodes: Nodes) -> None:
    umbel.get(nodes.actor.submits.remote(1))
    umbel.get(on_a.options(name="outer").remote())
    with stopped(nodes.b):
        began_s = time.monotonic()
        with pytest.warns(UserWarning, match=f"node {nodes.b.node_id[:8]} at .* does not answer") as caught:
            tasks = state.list_tasks(limit=1_000, timeout=PATIENCE_S, raise_on_missing_output=False)
        assert time.monotonic() - began_s < PATIENCE_S
        assert len(caught) == 1
        assert "outer" in {one.name for one in tasks}
        told = commands.run("list", "workers", "--timeout", str(PATIENCE_S))
        assert (told.returncode, nodes.b.node_id[:8] in told.stderr) == (0, True), told
        assert nodes.a.node_id in told.stdout
        with tool.Tool(nodes.head.session_dir) as asker, pytest.warns(UserWarning, match=nodes.b.node_id[:8]):
            assert list(cluster_listing.timeline(asker, PATIENCE_S))
    assert "On.submits" in {one.name for one in state.list_tasks(limit=1_000)}
