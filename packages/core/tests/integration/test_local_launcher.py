"""The built-in node launcher, with real daemons."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import drivers
import homes
import pytest

from umbel import cluster_utils, exceptions, spi
from umbel._autoscaling import autoscaler, demand, events, node_types, packing
from umbel._base import sessions
from umbel._client import local_launcher, tool
from umbel._model import node_labels
from umbel._model.resources import ResourceSet
from umbel._plugins import builtin
from umbel.testing.conformance import NodeLauncherConformance

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

SPEC = spi.NodeSpec("small", spi.ResourceSet.from_floats({"CPU": 1, "licence": 2}), {"zone": "a"}, {})
NODE = {"object_store_memory": 80 << 20}


@pytest.fixture(scope="module", autouse=True)
def home() -> Iterator[str]:
    """Where the sessions are."""
    with homes.own_home() as directory:
        yield homes.base_of(directory)


class TestLocal(NodeLauncherConformance):
    descriptor = next(one for one in builtin.umbel_node_launchers() if one.name == "local")
    node_config = NODE


@pytest.fixture
def cluster() -> Iterator[cluster_utils.Cluster]:
    made = cluster_utils.Cluster(initialize_head=True)
    try:
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def launcher(cluster: cluster_utils.Cluster) -> Iterator[local_launcher.LocalLauncher]:
    made = local_launcher.LocalLauncher("test", address=str(cluster.address), token_file=cluster.token_file, config={})
    try:
        yield made
    finally:
        made.terminate(list(made.running()))


def pid_of(launcher: local_launcher.LocalLauncher, name: str) -> int:
    return sessions.daemon_of(launcher._sessions()[name][0])


def test_killed_daemon_runs_no_more_and_leaves_nothing(launcher: local_launcher.LocalLauncher, home: str) -> None:
    (name,) = launcher.launch(SPEC, 1)
    path = launcher._sessions()[name][0]
    os.kill(pid_of(launcher, name), signal.SIGKILL)
    drivers.wait_until(lambda: not launcher.running(), what="it to be missed")
    assert not os.path.exists(path)


def test_stopped_daemon_still_runs_and_can_be_ended(
    launcher: local_launcher.LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_launcher, "END_S", 0.5)
    (name,) = launcher.launch(SPEC, 1)
    path, pid = launcher._sessions()[name][0], pid_of(launcher, name)
    os.kill(pid, signal.SIGSTOP)
    assert dict(launcher.running()) == {name: "small"}
    launcher.terminate([name])
    assert not os.path.exists(path)
    assert not drivers.is_running(pid)


def test_nodes_outlive_who_launched_them(cluster: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """And can be ended by another process, even when they are stopped."""
    source = f"""
from umbel import spi
from umbel._client.local_launcher import LocalLauncher
launcher = LocalLauncher("orphans", address={cluster.address!r}, token_file={cluster.token_file!r}, config={{}})
print(*launcher.launch(spi.NodeSpec("small", spi.ResourceSet.from_floats({{"CPU": 1}}), {{}}, {dict(NODE)!r}), 2))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    names = done.stdout.split()
    launcher = local_launcher.LocalLauncher(
        "orphans", address=str(cluster.address), token_file=cluster.token_file, config={}
    )
    assert dict(launcher.running()) == dict.fromkeys(names, "small")
    paths = [path for path, _ in launcher._sessions().values()]
    os.kill(pid_of(launcher, names[0]), signal.SIGSTOP)
    monkeypatch.setattr(local_launcher, "END_S", 2.0)
    launcher.terminate(names)
    assert dict(launcher.running()) == {}
    assert not any(os.path.exists(path) for path in paths)


def test_autoscaler_grows_and_shrinks_a_real_cluster(
    cluster: cluster_utils.Cluster, launcher: local_launcher.LocalLauncher
) -> None:
    """What it is told here, and what is done, is what a head will do; only that it agrees to drain is made up."""
    small = node_types.NodeType("small", SPEC.resources, max_workers=3)
    machine = autoscaler.Autoscaler(node_types.Settings((small,), 3, idle_timeout_s=10.0))

    def look(now_s: float) -> None:
        assert cluster.head_node is not None
        with tool.Tool(cluster.head_node.session_dir) as asker:
            members = [one for one in asker.query("nodes") if one["alive"]]
        for one in members:
            labels, total, free = one["labels"], ResourceSet(one["resources"]), ResourceSet(one["available"])
            name = labels.get(node_labels.INSTANCE_ID, one["node_id"])
            idle_s = 0.0 if total == free else None
            kind = labels.get(node_labels.NODE_GROUP, "")
            machine.apply(events.NodeSeen(name, kind, total, free, labels, idle_s, now_s))

    def period(now_s: float) -> list[str]:
        """What was done, in words."""
        look(now_s)
        done = []
        for command in machine.apply(events.Ticked(now_s)):
            if isinstance(command, events.Launch):
                made = tuple(launcher.launch(SPEC, command.node_count))
                machine.apply(events.LaunchAnswered(command.number, made, now_s))
                done.append(f"{len(made)} launched")
            else:
                (end,) = machine.apply(events.DrainAnswered(command.node, True, now_s))
                launcher.terminate([end.node])
                machine.apply(events.NodeEnded(end.node, now_s))
                done.append("one ended")
        return done

    machine.apply(events.DemandChanged((demand.Shape(ResourceSet.from_floats({"licence": 1}), 9),), (), 0.0))
    assert period(1.0) == ["3 launched"]
    assert period(2.0) == []
    drivers.wait_until(lambda: look(3.0) or len(machine.nodes) == 4, what="three nodes and the head to be seen")
    assert set(launcher.running()) < machine.nodes.keys()
    assert [(unmet.what, unmet.looked[0].kind) for unmet in machine.explain(3.0).unmet] == [
        ("3 x {licence: 1}", packing.TYPE_MAX)
    ]
    machine.apply(events.DemandChanged((), (), 4.0))
    assert period(5.0) == []
    assert period(20.0) == ["one ended"] * 3
    assert dict(launcher.running()) == {}
    assert [node.type_name for node in machine.nodes.values()] == [""]


def test_node_that_cannot_join_is_said_so_and_leaves_nothing(
    cluster: cluster_utils.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_NODE_JOIN_S", "0.5")
    wrong = local_launcher.LocalLauncher("test", address="127.0.0.1:9", token_file=cluster.token_file, config={})
    with pytest.raises(exceptions.NodeLaunchError, match="0 of 2 nodes of type 'small' were launched") as caught:
        wrong.launch(SPEC, 2)
    assert caught.value.launched == ()
    assert dict(wrong.running()) == {}


def test_node_that_is_joining_ends_with_who_has_launched_it(
    cluster: cluster_utils.Cluster, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows of it yet. Before: it went on dialling a head that did not answer for as long as it may."""
    monkeypatch.setenv("UMBEL_NODE_JOIN_S", "600")
    source = f"""
from umbel import spi
from umbel._client.local_launcher import LocalLauncher
launcher = LocalLauncher("lost", address="127.0.0.1:9", token_file={cluster.token_file!r}, config={{}})
launcher.launch(spi.NodeSpec("small", spi.ResourceSet.from_floats({{"CPU": 1}}), {{}}, {dict(NODE)!r}), 1)
"""
    before = set(os.listdir(home))
    starter = subprocess.Popen([sys.executable, "-c", source])
    try:

        def joining() -> list[int]:
            paths = [os.path.join(home, name) for name in set(os.listdir(home)) - before]
            listening = [path for path in paths if os.path.exists(os.path.join(path, sessions.AGENT_SOCKET))]
            return [pid for pid in map(sessions.daemon_of, listening) if pid]

        (daemon,) = drivers.wait_until(joining, what="the node to start")
    finally:
        starter.kill()
        starter.wait()
    drivers.wait_until(lambda: not drivers.is_running(daemon), what="the node to end")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image": "x"}, r"may have a config of object_store_memory, got \['image'\] in type 'small'"),
        ({"object_store_memory": "1GB"}, "object_store_memory of type 'small' must be a number of bytes, got '1GB'"),
    ],
)
def test_bad_configurations_are_refused(config: dict[str, object], message: str) -> None:
    launcher = local_launcher.LocalLauncher("test", address="127.0.0.1:9", token_file="", config={})
    with pytest.raises(exceptions.InvalidOption, match=message):
        launcher.check(spi.NodeSpec("small", SPEC.resources, {}, config))
    with pytest.raises(exceptions.InvalidOption, match="the launcher 'local' takes no configuration"):
        local_launcher.LocalLauncher("test", address="127.0.0.1:9", token_file="", config={"region": "x"})
