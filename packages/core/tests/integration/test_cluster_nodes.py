"""Nodes that join a head over TCP: real daemons, some of which are killed, stopped, or cut off from each other."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import drivers
import homes
import many_nodes
import proxies
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel._base import sessions, token_files, tokens
from umbel._client import attach, cluster_node, tool
from umbel._transport import addresses, dialler
from umbel._wire import frames, handshake
from umbel.util import state

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
# Death after 2 s of silence, or 1.5 s without a connection.
QUICK = {
    "UMBEL_HEALTH_CHECK_PERIOD_S": "0.5",
    "UMBEL_HEALTH_CHECK_TIMEOUT_S": "1",
    "UMBEL_HEALTH_CHECK_FAILURE_THRESHOLD": "2",
    "UMBEL_NODE_RECONNECT_S": "1.5",
}


@pytest.fixture
def home() -> Iterator[str]:
    """In the end nothing may be left in shared memory either."""
    shared = {name for name in os.listdir("/dev/shm") if name.startswith("umbel-")}
    with homes.own_home() as directory:
        yield directory
    left = {name for name in os.listdir("/dev/shm") if name.startswith("umbel-")} - shared
    assert not [name for name in left if name.startswith(f"umbel-{os.getuid()}-{os.getpid()}-")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def cluster(home: str) -> Iterator[cluster_utils.Cluster]:
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        yield made
    finally:
        made.shutdown()


def command(*arguments: str, is_right: bool = True, **environment: str) -> str:
    """What it prints; on standard error if it fails, as it must unless `is_right`."""
    done = subprocess.run(
        [sys.executable, "-m", "umbel.cli", *arguments],
        check=False, capture_output=True, text=True, timeout=TIMEOUT_S, env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode == 0) == is_right, done.stdout + done.stderr
    return done.stdout if is_right else done.stderr


def seen_by(node: cluster_utils.ClusterNode) -> dict[str, dict[str, Any]]:
    """All nodes by id, as this one knows them."""
    with tool.Tool(node.session_dir) as asker:
        return {one["node_id"]: one for one in asker.query("nodes")}


def until_seen(
    node: cluster_utils.ClusterNode, of: cluster_utils.ClusterNode, condition: Callable[[dict[str, Any]], Any]
) -> dict[str, Any]:
    """What `node` knows of the other, once that meets the condition."""

    def found() -> dict[str, Any] | None:
        known = seen_by(node).get(of.node_id)
        return known if known is not None and condition(known) else None

    return drivers.wait_until(found, what=f"{node} to see {of} so") or {}


def log_of(node: cluster_utils.ClusterNode) -> str:
    with open(os.path.join(node.session_dir, "daemon.log")) as file:
        return file.read()


def until_ended(node: cluster_utils.ClusterNode) -> None:
    drivers.wait_until(lambda: not node.any_processes_alive() and not os.path.exists(node.session_dir), what=str(node))


@pytest.fixture
def proxied(cluster: cluster_utils.Cluster) -> Iterator[tuple[proxies.Proxy, cluster_utils.ClusterNode]]:
    """A node whose connection to the head goes through a proxy."""
    proxy = proxies.Proxy(str(cluster.address))
    place = cluster_node.Place(head=proxy.address, host="127.0.0.1", port=0, token_file=cluster.token_file)
    started = cluster_node.start_node(cluster_node.Wishes(num_cpus=1), place, ends_with_starter=True)
    node = cluster_utils.ClusterNode(started.launched, started.address)
    try:
        yield proxy, node
    finally:
        node._end(is_graceful=False)
        proxy.close()


def test_commands_start_join_show_and_stop(home: str) -> None:
    token_file = os.path.join(home, "secrets", "token")
    told = command("start", "--head", "--num-cpus", "2", "--port", "0", "--token-file", token_file)
    (join,) = [line.split() for line in told.splitlines() if line.startswith("  umbel start --address ")]
    arguments = ("--num-cpus", "3", "--resources", '{"licence": 2}', "--labels", "zone=a")
    told = command(*join[1:], *arguments)
    assert f"a member of the cluster at {join[3]}" in told
    (node,) = [line.split()[3] for line in told.splitlines() if line.startswith("It is node ")]
    base = os.path.join(home, f"umbel-{os.getuid()}")
    head_session, node_session = sorted(
        sessions.outliving_sessions(base), key=lambda path: sessions.outliving(path).address != join[3]
    )
    for session in (head_session, node_session):
        status = command("status", "--session", session)
        assert "Nodes: 2 alive, 0 dead" in status
        assert "0 of 2 licence in use" in status
        assert status.count(", the head)") == 1
    found = json.loads(command("status", "--json", "--session", head_session))["nodes"]
    assert [one["is_head"] for one in found] == [True, False]
    assert found[1]["labels"] == {"zone": "a"}
    assert command("get-head-ip") == command("get-head-ip", "--session", node_session) == "127.0.0.1\n"
    assert command("get-worker-ips") == "127.0.0.1\n"
    assert [one["pid"] for one in found] == [sessions.daemon_of(one) for one in (head_session, node_session)]
    command("stop", "--session", node_session)
    assert f"Node {node} (at {found[1]['address']}) is dead: umbel stop" in command("status", "--session", head_session)
    command(*join[1:], "--num-cpus", "1")
    assert len(command("stop").splitlines()) == 2, "they are of one cluster"


def test_commands_that_name_no_node_ask_the_head_of_the_one_cluster_here(cluster: cluster_utils.Cluster) -> None:
    node = cluster.add_node(labels={"zone": "a"})
    head = cluster.list_all_nodes()[0]
    of_head = [[head.node_id, "True"], [node.node_id, "False"]]

    def listed(*where: str) -> list[list[str]]:
        rows = json.loads(command("list", "nodes", "--json", *where))
        return [[one["node_id"], str(one["is_head_node"])] for one in rows]

    assert listed() == listed("--address", head.session_dir) == of_head
    assert json.loads(command("get", "nodes", node.node_id, "--json"))[0]["labels"]["zone"] == "a"
    assert "total_actors: 0" in command("summary", "actors")
    assert command("health-check") == command("health-check", "--address", node.session_dir) == ""
    assert [one.node_id for one in state.StateApiClient().list("nodes")] == [head.node_id, node.node_id]
    assert ", the head)" in command("status", "--address", head.session_dir).splitlines()[1]
    cluster.connect()
    labels = {one["NodeID"]: one["Labels"] for one in umbel.nodes()}
    assert labels == {
        head.node_id: {"umbel.io/node-id": head.node_id},
        node.node_id: {"umbel.io/node-id": node.node_id, "zone": "a"},
    }
    where = umbel.remote(label_selector=labels[node.node_id])(lambda: umbel.get_runtime_context().get_node_labels())
    assert umbel.get(where.remote(), timeout=TIMEOUT_S) == labels[node.node_id]


def test_commands_that_name_no_node_refuse_to_choose_among_clusters(cluster: cluster_utils.Cluster) -> None:
    other = cluster_utils.Cluster(initialize_head=True)
    try:
        for arguments in (("status",), ("list", "nodes"), ("stop",)):
            told = command(*arguments, is_right=False)
            assert all(f"{one.head_node.session_dir} at {one.address}" in told for one in (cluster, other))
    finally:
        other.shutdown()


def test_programs_on_any_node_see_all_nodes_and_what_is_free_of_them(cluster: cluster_utils.Cluster) -> None:
    node = cluster.add_node(num_cpus=3, resources={"licence": 2}, labels={"zone": "a"})
    source = """
        import sys, time, umbel
        from umbel.util.state import list_nodes

        umbel.init(address=ADDRESS)
        print(umbel.cluster_resources()["CPU"], umbel.cluster_resources()["licence"], len(umbel.nodes()), flush=True)
        print([one.is_head_node for one in list_nodes(detail=True)], flush=True)
        sys.stdin.readline()
        running = umbel.remote(num_cpus=2)(lambda: time.sleep(1000)).remote()
        sys.stdin.readline()
    """
    here = drivers.Driver(source.replace("ADDRESS", repr(cluster.address)), os.environ["TMPDIR"])
    there = drivers.Driver(source.replace("ADDRESS", repr(node.address)), os.environ["TMPDIR"])
    assert [here.line(), there.line()] == ["5.0 2.0 2", "5.0 2.0 2"]
    assert [here.line(), there.line()] == ["[True, False]", "[False, True]"]
    there.tell()
    until_seen(cluster.head_node, node, lambda one: one["available"]["CPU"] == 10_000)  # type: ignore[arg-type]
    here.tell()
    until_seen(node, cluster.head_node, lambda one: one["available"]["CPU"] == 0)  # type: ignore[arg-type]
    for one in (here, there):
        one.tell()
        one.finish()
    until_seen(node, cluster.head_node, lambda one: one["available"]["CPU"] == 20_000)  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["submit", "other"])
def test_who_has_no_token_of_a_node_does_not_join(cluster: cluster_utils.Cluster, home: str, role: str) -> None:
    path = os.path.join(home, "another")
    right = token_files.read(cluster.token_file)
    token_files.ensure(path, tokens.new_secret() if role == "other" else right.lowered(tokens.Role.SUBMIT))
    told = command("start", "--address", str(cluster.address), "--token-file", path, is_right=False)
    assert "this node cannot join the cluster" in told
    assert ("may not reach control" if role == "submit" else "does not accept this token") in told
    assert len(sessions.outliving_sessions(os.path.join(home, f"umbel-{os.getuid()}"))) == 1
    assert len(seen_by(cluster.list_all_nodes()[0])) == 1


def test_an_address_where_no_head_is_is_an_error(cluster: cluster_utils.Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
    token = ("--token-file", cluster.token_file)
    told = command("start", "--address", nobody, *token, is_right=False, UMBEL_NODE_JOIN_S="1")
    assert "there was no connection to the head for 1 s" in told
    assert "nothing can be reached" in told
    node = cluster.add_node()
    told = command("start", "--address", node.address, *token, is_right=False)
    assert "the address has to be that of the cluster's head" in told


def test_another_version_does_not_join(cluster: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "version", lambda: "0.0.1")
    with pytest.raises(exceptions.UmbelSystemError, match=r"the node '0\.0\.1'; install the same version on both"):
        cluster.add_node()
    assert len(cluster.list_all_nodes()) == 1


def test_a_head_is_found_by_name(cluster: cluster_utils.Cluster) -> None:
    """The name is looked up in a thread, whose answer the daemon's loop has to take."""
    port = str(cluster.address).rsplit(":", 1)[1]
    place = cluster_node.Place(head=f"localhost:{port}", host="127.0.0.1", port=0, token_file=cluster.token_file)
    started = cluster_node.start_node(cluster_node.Wishes(num_cpus=1), place, ends_with_starter=True)
    node = cluster_utils.ClusterNode(started.launched, started.address)
    try:
        assert seen_by(cluster.list_all_nodes()[0])[node.node_id]["alive"]
        assert node.node_ip_address in ("127.0.0.1", "::1")
    finally:
        node._end(is_graceful=True)


def test_addresses_of_version_6(home: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    made = cluster_utils.Cluster()
    try:
        head = made.add_node(node_ip_address="::1")
        node = made.add_node(node_ip_address="::1")
        assert head.address.startswith("[::1]:")
        assert seen_by(head)[node.node_id]["address"] == node.address
        assert node.node_ip_address == "::1"
        assert "node:::1" in seen_by(head)[node.node_id]["resources"]
    finally:
        made.shutdown()


@pytest.mark.usefixtures("quick")
def test_a_node_that_is_killed_is_dead_after_a_moment(cluster: cluster_utils.Cluster) -> None:
    victim, witness = cluster.add_node(), cluster.add_node()
    cluster.remove_node(victim, allow_graceful=False)
    for one in (*cluster.list_all_nodes(), witness):
        found = until_seen(one, victim, lambda facts: not facts["alive"])
        assert (found["reason"], found["is_expected"]) == (
            "its connection to the head broke, and it did not come back within 1.5 s",
            False,
        )


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


def test_dead_nodes_are_told_as_ray_tells_them(cluster: cluster_utils.Cluster) -> None:
    node = cluster.add_node(num_cpus=3)
    head = cluster.list_all_nodes()[0]
    assert "is alive" in command("explain", node.node_id, "--session", head.session_dir)
    cluster.connect()
    counter = umbel.remote(num_cpus=0)(Counter).options(name="counter").remote()
    assert umbel.get(counter.add.remote(), timeout=TIMEOUT_S) == 1
    assert "runs nothing" in command("explain", "counter", "--session", head.session_dir)
    cluster.remove_node(node)
    assert "is dead: received SIGTERM" in command("explain", node.node_id[:8], "--session", head.session_dir)
    (dead,) = [one for one in umbel.nodes() if not one["Alive"]]
    assert (dead["NodeID"], dead["DeathReason"], dead["Resources"]) == (node.node_id, 1, {})
    assert umbel.cluster_resources()["CPU"] == 2
    (found,) = state.list_nodes(filters=[("state", "=", "DEAD")], detail=True)
    assert found.state_message == "Expected termination: received SIGTERM"
    assert found.end_time_ms >= found.start_time_ms > 0


@pytest.mark.usefixtures("quick")
def test_a_node_that_was_declared_dead_ends_when_it_goes_on(cluster: cluster_utils.Cluster) -> None:
    node = cluster.add_node()
    driver = drivers.Driver(
        f"""
        import time, umbel

        umbel.init(address={node.address!r})
        running = umbel.remote(lambda: time.sleep(1000)).remote()
        print("there", flush=True)
        try:
            umbel.get(running)
        except umbel.exceptions.UmbelError as error:
            print(type(error).__name__)
        """,
        os.environ["TMPDIR"],
    )
    assert driver.line() == "there"
    drivers.freeze(node.pid)
    head = cluster.list_all_nodes()[0]
    found = until_seen(head, node, lambda facts: facts["suspicion"] or not facts["alive"])
    assert found["alive"], "it is suspected before it is declared dead"
    assert "it says nothing" in found["suspicion"]
    found = until_seen(head, node, lambda facts: not facts["alive"])
    assert found["reason"] == "the head has heard nothing from it for 2 s"
    os.kill(node.pid, signal.SIGCONT)
    until_ended(node)
    output, errors = driver.finish()
    assert output == "LocalNodeDiedError\n"
    assert "the head has declared this node dead" in errors
    assert not seen_by(head)[node.node_id]["alive"]


@pytest.mark.usefixtures("quick")
def test_a_head_that_was_stopped_finds_its_nodes_alive(cluster: cluster_utils.Cluster) -> None:
    node = cluster.add_node()
    head = cluster.list_all_nodes()[0]
    drivers.freeze(head.pid)
    until_seen(node, node, lambda facts: "has had no connection to the head" in facts["suspicion"])
    assert "no connection to the head" in command("health-check", "--address", node.session_dir, is_right=False)
    drivers.pause(2.5)  # longer than a node may be silent
    os.kill(head.pid, signal.SIGCONT)
    until_seen(node, node, lambda facts: not facts["suspicion"])
    assert seen_by(head)[node.node_id]["alive"]
    assert "is dead" not in log_of(head)


@pytest.mark.usefixtures("quick")
def test_nodes_whose_head_was_killed_end_after_a_while(
    cluster: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_HEAD_LOST_S", "1.5")
    node = cluster.add_node()
    drivers.kill(cluster.list_all_nodes()[0].pid)
    until_ended(node)


def test_start_that_stays_says_that_the_node_has_ended_by_itself(cluster: cluster_utils.Cluster) -> None:
    arguments = ("start", "--address", str(cluster.address), "--token-file", cluster.token_file, "--block")
    process = subprocess.Popen(
        [sys.executable, "-m", "umbel.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        while "a member of the cluster" not in process.stdout.readline():
            """It says more before that."""
        cluster.remove_node(cluster.list_all_nodes()[0])
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 1
        assert "the node has ended by itself" in errors
    finally:
        process.kill()
        process.communicate()


def test_nodes_end_with_a_head_that_says_goodbye(cluster: cluster_utils.Cluster) -> None:
    node = cluster.add_node()
    cluster.remove_node(cluster.list_all_nodes()[0])
    until_ended(node)


@pytest.mark.usefixtures("quick")
def test_nodes_of_a_cluster_that_has_ended_do_not_become_another_ones(
    cluster: cluster_utils.Cluster, home: str
) -> None:
    node = cluster.add_node()
    head = cluster.list_all_nodes()[0]
    copy = os.path.join(home, "copy")
    shutil.copy(cluster.token_file, copy)
    drivers.kill(head.pid)
    head._end(is_graceful=False)
    place = cluster_node.Place(host="127.0.0.1", port=int(head.address.rsplit(":", 1)[1]), token_file=copy)
    started = cluster_node.start_node(cluster_node.Wishes(num_cpus=1), place, ends_with_starter=True)
    other = cluster_utils.ClusterNode(started.launched, started.address)
    try:
        until_ended(node)
        assert "has ended; another" in log_of(other)
        assert len(seen_by(other)) == 1
    finally:
        other._end(is_graceful=True)


@pytest.mark.usefixtures("quick")
def test_a_connection_that_breaks_comes_back_and_nobody_dies(
    cluster: cluster_utils.Cluster, proxied: tuple[proxies.Proxy, cluster_utils.ClusterNode]
) -> None:
    proxy, node = proxied
    head = cluster.list_all_nodes()[0]
    for count in range(2, 5):
        assert proxy.cut() == 1
        drivers.wait_until(
            lambda wanted=count: log_of(node).count("this node is a member of") == wanted, what="it to come back"
        )  # type: ignore[misc]
    assert seen_by(head)[node.node_id]["alive"]
    assert "is dead" not in log_of(head)


@pytest.mark.usefixtures("quick")
def test_a_node_that_is_cut_off_is_declared_dead_and_ends_when_it_hears_of_it(
    cluster: cluster_utils.Cluster, proxied: tuple[proxies.Proxy, cluster_utils.ClusterNode]
) -> None:
    proxy, node = proxied
    head = cluster.list_all_nodes()[0]
    proxy.is_silent = True
    until_seen(head, node, lambda facts: not facts["alive"])
    until_seen(node, node, lambda facts: "has not answered" in facts["suspicion"] or "handshake" in facts["suspicion"])
    assert node.any_processes_alive()
    proxy.cut()
    proxy.is_silent = False
    until_ended(node)
    assert not seen_by(head)[node.node_id]["alive"]


def test_what_no_node_can_ever_run_says_what_the_cluster_has(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_INFEASIBLE_TIMEOUT_S", "0.1")
    cluster = cluster_utils.Cluster()
    try:
        head = cluster.add_node(num_cpus=2)
        cluster.add_node(labels={"zone": "a"})
        gone = cluster.add_node()
        cluster.remove_node(gone)
        source = f"""
            import umbel
            from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

            umbel.init(address={head.address!r})
            class Actor:
                def method(self):
                    pass

            on = [On(node_id, soft=False) for node_id in ({gone.node_id!r}, "00" * 28)]
            for way in (
                dict(num_cpus=50), dict(label_selector=dict(zone="b")), *(dict(scheduling_strategy=one) for one in on),
            ):
                try:
                    umbel.get(umbel.remote(**way)(Actor).remote().method.remote())
                except umbel.exceptions.UmbelError as error:
                    print(str(error).replace(chr(10), " "))
            """
        told = drivers.Driver(source, home).finish()[0].splitlines()
    finally:
        cluster.shutdown()
    assert all("there is another node in the cluster, which does not have it" in line for line in told[:2]), told
    assert f"needs {{CPU: 50}}, but node {head.node_id[:8]} has {{CPU: 2}} in all" in told[0]
    assert "or add a node with more" in told[0]
    assert "which is dead: received SIGTERM" in told[2] and "does not have" in told[3] and len(told) == 4, told


def test_a_head_and_four_nodes_are_up_within_two_seconds(home: str) -> None:
    def start_and_end() -> None:
        cluster = cluster_utils.Cluster(initialize_head=True)
        try:
            for _ in range(4):
                cluster.add_node()
        finally:
            cluster.shutdown()

    assert many_nodes.is_within(2.0, start_and_end)


def test_a_head_with_many_nodes_takes_another_one_within_half_a_second_and_finds_out_that_all_have_gone(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_NODE_RECONNECT_S", "1")
    cluster = cluster_utils.Cluster(initialize_head=True)
    head = cluster.list_all_nodes()[0]
    others = many_nodes.ManyNodes(head.address, cluster.token_file, 50, busy=True)
    try:
        drivers.wait_until(lambda: all(node.trouble == "" for node in others.nodes), what="50 nodes to join")
        assert many_nodes.is_within(0.5, cluster.add_node)
        node, *more = cluster.worker_nodes
        for one in more:  # of a machine that was busy
            cluster.remove_node(one)
        drivers.wait_until(lambda: sum(one["alive"] for one in seen_by(node).values()) == 52, what="it to know of all")
        drivers.wait_until(lambda: {len(one.others) for one in others.nodes} == {52}, what="all to be told of it")
        busy = others.nodes[0]
        drivers.wait_until(lambda: seen_by(node)[busy.node_id]["waiting"] > 10, what="it to hear of changes")
        others.close()
        drivers.wait_until(
            lambda: sum(one["alive"] for one in seen_by(node).values()) == 2, what="it to hear of 50 deaths"
        )
        assert not [one.ended for one in others.nodes if one.ended]
    finally:
        others.close()
        cluster.shutdown()


@pytest.mark.parametrize(
    ("frames_sent", "told"),
    [
        ([{"t": "beat", "sequence": 1, "state": {"available": {}, "waiting": 0}}], "the first message must be join"),
        (
            [{"t": "join", "protocol": 1, "sequence": 1, "cluster": "", "facts": {"node_id": "x"}, "state": {}}],
            "join.facts",
        ),
        ([{"t": "shutdown"}], "unknown message type 'shutdown'"),
        ([{"t": ["join"]}], "unknown message type"),
    ],
)
def test_a_node_that_breaks_the_protocol_is_cut_off(
    cluster: cluster_utils.Cluster, frames_sent: list[dict[str, Any]], told: str
) -> None:
    token = token_files.read(cluster.token_file)
    stream = dialler.connect(addresses.parse(str(cluster.address)), token, handshake.CONTROL)
    try:
        for message in frames_sent:
            stream.send(frames.encode_control(message))
        assert select.select([stream], [], [], TIMEOUT_S)[0]
        assert stream.recv(1) == b""
    finally:
        stream.close()
    head = cluster.list_all_nodes()[0]
    assert told in log_of(head)
    assert len(seen_by(head)) == 1


def test_which_node_of_several_a_program_connects_to(cluster: cluster_utils.Cluster) -> None:
    node = cluster.add_node()
    source = """
        import umbel

        for address in (None, "auto", HEAD, HEAD.replace("127.0.0.1", "localhost"), NODE):
            with umbel.init(address=address):
                print(umbel.get_runtime_context().get_node_id())
        try:
            umbel.init(address="127.0.0.1:1")
        except ConnectionError as error:
            print(error)
    """.replace("HEAD", repr(cluster.address)).replace("NODE", repr(node.address))
    *found, refused = drivers.Driver(source, os.environ["TMPDIR"]).finish()[0].splitlines()
    assert found == [cluster.list_all_nodes()[0].node_id] * 4 + [node.node_id]
    assert "umbel start --address 127.0.0.1:1" in refused


def test_a_cluster_has_rays_shape(home: str) -> None:
    made = cluster_utils.Cluster()
    assert (made.head_node, made.address, made.list_all_nodes()) == (None, None, [])
    with pytest.raises(RuntimeError, match="no head"):
        made.connect()
    with pytest.raises(RuntimeError, match="initialize_head=True"):
        cluster_utils.Cluster(connect=True)
    try:
        head = made.add_node(num_cpus=2)
        others = [made.add_node() for _ in range(2)]
        assert made.head_node is head
        assert made.worker_nodes == set(others)
        assert made.list_all_nodes()[0] is head
        with pytest.raises(TypeError, match="number_of_cpus"):
            made.add_node(number_of_cpus=3)
        made.wait_for_nodes()
        made.connect(namespace="here")
        assert umbel.get_runtime_context().namespace == "here"
        assert len(umbel.nodes()) == 3
        made.remove_node(others[0])
        made.wait_for_nodes()
        with pytest.raises(ValueError, match="this process is connected to"):
            made.remove_node(head)
        assert not umbel.is_initialized()
        assert made.remaining_processes_alive()
    finally:
        made.shutdown()
        made.shutdown()
    assert (made.list_all_nodes(), made.token_file) == ([], "")


def test_a_cluster_ends_with_the_process_that_has_made_it(home: str) -> None:
    driver = drivers.Driver(
        """
        import sys
        from umbel.cluster_utils import Cluster

        made = Cluster(initialize_head=True)
        made.add_node()
        print(*(node.session_dir for node in made.list_all_nodes()), flush=True)
        sys.stdin.readline()
        """,
        home,
    )
    paths = driver.line().split()
    assert all(map(os.path.isdir, paths))
    driver.kill()
    drivers.wait_until(lambda: not any(map(os.path.exists, paths)), what="all nodes to end")
    assert os.listdir(home) == [f"umbel-{os.getuid()}"]
