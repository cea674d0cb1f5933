"""The built-in node launcher `ssh`, with real daemons and a real OpenSSH server on this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import drivers
import homes
import pytest
import ssh_server

import umbel
from umbel import cluster_utils, exceptions, spi
from umbel._client import ssh_launcher
from umbel._plugins import builtin
from umbel.testing.conformance import NodeLauncherConformance

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is this machine on Linux alone"),
    pytest.mark.timeout(180),
]

SPEC = spi.NodeSpec("small", spi.ResourceSet.from_floats({"CPU": 1, "licence": 2}), {"zone": "a"}, {})
NODE = {"object_store_memory": 80 << 20}


@pytest.fixture(scope="module", autouse=True)
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Of a launcher, with a directory for sessions, in which nothing may be left."""
    with homes.own_home() as directory, ssh_server.server(tmp_path_factory.mktemp("sshd")) as server:
        path = os.path.dirname(os.path.dirname(os.path.abspath(umbel.__file__)))
        # Of the other machine all is given: a login has neither this Python nor this directory.
        command = [
            "env",
            f"TMPDIR={directory}",
            f"HOME={directory}",
            f"PYTHONPATH={path}",
            sys.executable,
            "-m",
            "umbel.cli",
        ]
        found = {"worker_ips": list(ssh_server.HOSTS), "command": shlex.join(command), **server.options}
        TestSsh.config = found
        yield found
        drivers.wait_until(
            lambda: homes.is_empty(directory), what="all sessions to be gone"
        )  # as long as there is a server


class TestSsh(NodeLauncherConformance):
    descriptor = next(one for one in builtin.umbel_node_launchers() if one.name == "ssh")
    node_config = NODE


@pytest.fixture
def cluster() -> Iterator[cluster_utils.Cluster]:
    made = cluster_utils.Cluster(initialize_head=True)
    try:
        yield made
    finally:
        made.shutdown()


def launcher(cluster: cluster_utils.Cluster | None, config: dict[str, Any], **changed: Any) -> ssh_launcher.SshLauncher:
    address, token_file = ("127.0.0.1:9", "") if cluster is None else (str(cluster.address), cluster.token_file)
    return ssh_launcher.SshLauncher("test", address=address, token_file=token_file, config={**config, **changed})


def test_each_host_has_one_node_and_more_are_refused(cluster: cluster_utils.Cluster, config: dict[str, Any]) -> None:
    made = launcher(cluster, config, worker_ips=ssh_server.HOSTS[:2])
    names: list[str] = []

    def launch(count: int) -> str:
        """How many were not launched, in words."""
        try:
            names.extend(made.launch(SPEC, count))
        except exceptions.NodeLaunchError as error:
            names.extend(error.launched)
            return str(error)
        return ""

    with futures.ThreadPoolExecutor(2) as pool:  # at the same time, as the autoscaler does
        (trouble,) = filter(None, pool.map(launch, (2, 1)))
    assert re.match("(0 of 1|1 of 2) nodes of type 'small' were launched: of 2 hosts [12] have one already", trouble)
    assert sorted(name.rpartition("-")[0] for name in names) == ["ssh-127-0-0-1", "ssh-127-0-0-2"]
    with pytest.raises(exceptions.NodeLaunchError, match="of 2 hosts 2 have one already"):
        made.launch(SPEC, 1)
    made.terminate(names)


def test_host_that_does_not_answer_counts_as_it_was_seen(
    cluster: cluster_utils.Cluster, config: dict[str, Any]
) -> None:
    """It is one whose key ssh does not know."""
    made = launcher(cluster, config, worker_ips=ssh_server.HOSTS[:2])
    (name,) = made.launch(SPEC, 1)
    known = Path(config["ssh_options"][0].partition("=")[2])
    text = known.read_text()
    try:
        known.write_text("")
        with pytest.raises(
            exceptions.NodeLaunchError, match=r"no host answers: 127.0.0.1: ssh could not reach it: .*failed"
        ):
            made.running()
        known.write_text("".join(text.splitlines(keepends=True)[1:]))
        assert dict(made.running()) == {name: "small"}
        with pytest.raises(
            exceptions.NodeLaunchError, match=r"some nodes may be left: 127.0.0.1: ssh could not reach it"
        ):
            made.terminate([name])
    finally:
        known.write_text(text)
    made.terminate([name])
    assert dict(made.running()) == {}


def test_node_that_cannot_join_says_why_and_leaves_nothing(
    cluster: cluster_utils.Cluster, config: dict[str, Any]
) -> None:
    command = f"env UMBEL_NODE_JOIN_S=0.5 {config['command']}"
    made = ssh_launcher.SshLauncher(
        "test", address="127.0.0.1:9", token_file=cluster.token_file, config={**config, "command": command}
    )
    with pytest.raises(exceptions.NodeLaunchError, match=r"0 of 1 nodes .*this node cannot join the cluster") as caught:
        made.launch(SPEC, 1)
    assert caught.value.launched == ()
    assert dict(made.running()) == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"worker_ips": []}, r"worker_ips must be a list of hosts, by name or address, got \[\]"),
        ({"worker_ips": ["-oProxyCommand=x"]}, "worker_ips must be a list of hosts"),
        ({"worker_ips": ["a.b", "a-b"]}, "worker_ips must be different hosts, also in their first 40 characters"),
        ({"ssh_port": "22"}, "ssh_port must be a port, got '22'"),
        ({"ssh_user": "-x"}, "ssh_user must be a user's name, got '-x'"),
        ({"ssh_private_key": 1}, "ssh_private_key must be the path of a key, got 1"),
        ({"ssh_options": "x"}, "ssh_options must be a list of options"),
        ({"command": ""}, "command must be a command, as a shell reads it, got ''"),
        ({"region": "x"}, r"the launcher 'ssh' may have worker_ips, .*, got \['region'\]"),
    ],
)
def test_bad_configurations_are_refused(config: dict[str, Any], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match=message):
        launcher(None, config, **changed)


def test_types_may_have_hosts_of_their_own_and_only_those(config: dict[str, Any]) -> None:
    made = launcher(None, config)
    made.check(spi.NodeSpec("small", SPEC.resources, {}, {"worker_ips": ["127.0.0.2"]}))
    with pytest.raises(exceptions.InvalidOption, match=r"must be among those of the provider, got \['other'\]"):
        made.check(spi.NodeSpec("small", SPEC.resources, {}, {"worker_ips": ["other"]}))
    with pytest.raises(exceptions.InvalidOption, match="object_store_memory of type 'small' must be a number of bytes"):
        made.check(spi.NodeSpec("small", SPEC.resources, {}, {"object_store_memory": "1GB"}))


def cli(*arguments: str) -> str:
    command = [sys.executable, "-m", "umbel.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_cluster_of_a_file_with_its_head_and_nodes_on_other_machines(config: dict[str, Any], tmp_path: Path) -> None:
    small = {"resources": {"CPU": 1, **NODE}, "min_workers": 1, "max_workers": 1}
    auth = {"ssh_port": config["ssh_port"], "ssh_private_key": config["ssh_private_key"]}
    provider = {name: config[name] for name in ("command", "ssh_options")}
    content = {
        "cluster_name": "far",
        "provider": {"type": "ssh", "head_ip": "127.0.0.1", "worker_ips": ["127.0.0.2"], **provider},
        "auth": auth,
        "head_node_type": "head",
        "available_node_types": {"head": {"resources": {"CPU": 1, **NODE}}, "small": small},
    }
    path = tmp_path / "far.json"
    path.write_text(json.dumps(content))
    assert "127.0.0.1: The cluster 'far' is up" in cli("up", str(path), "--host", "127.0.0.1")
    drivers.wait_until(lambda: len(json.loads(cli("sessions", "--json"))) == 2, timeout_s=90, what="its node to join")
    told = [one["labels"] for one in json.loads(cli("sessions", "--json"))]
    assert [one["umbel.io/instance-id"][:13] for one in told if "umbel.io/instance-id" in one] == ["ssh-127-0-0-2"]
    assert cli("get-head-ip", str(path)) == "127.0.0.1\n"
    assert len(cli("get-worker-ips", str(path)).split()) == 1
    assert f"{config['ssh_port']}" in cli("exec", str(path), "echo of $SSH_CONNECTION")
    assert "ended" in cli("down", str(path), "--yes")
    assert "nothing of it runs there" in cli("down", str(path), "--yes")
    gone = [sys.executable, "-m", "umbel.cli", "get-head-ip", str(path)]
    done = subprocess.run(gone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "127.0.0.1: the command ended with 1: nothing of it runs there" in done.stderr
    assert json.loads(cli("sessions", "--json")) == []
    assert not (Path(os.environ["TMPDIR"]) / ".umbel" / "clusters").exists()
