"""Clusters of which all connections go by TLS, with certificates as `umbel tls` makes them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import drivers
import homes
import proxies
import pytest

from umbel import cluster_utils, exceptions
from umbel._base import token_files
from umbel._client import cluster_node, tool
from umbel._transport import addresses, dialler, own_tls
from umbel._wire import handshake

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]
pytest.importorskip("cryptography")

TIMEOUT_S = 60
OWNER = """
    import os, sys, umbel
    from umbel import cloudpickle

    umbel.init(address=os.environ["SESSION"])
    kept = umbel.put({"answer": 42})
    with open(os.environ["REFERENCES"] + ".new", "wb") as file:
        file.write(cloudpickle.dumps(kept))
    os.rename(os.environ["REFERENCES"] + ".new", os.environ["REFERENCES"])
    print("there", flush=True)
    sys.stdin.readline()
"""
BORROWER = """
    import os, umbel
    from umbel import cloudpickle

    umbel.init(address=os.environ["SESSION"])
    with open(os.environ["REFERENCES"], "rb") as file:
        print(umbel.get(cloudpickle.loads(file.read()), timeout=30), flush=True)
"""


PACKED = """
    import hashlib, os, umbel

    umbel.init(address=os.environ["SESSION"])

    @umbel.remote(resources={"there": 1}, runtime_env={"working_dir": os.environ["PROJECT"]})
    def digest():
        with open("large", "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    print(umbel.get(digest.remote(), timeout=30), flush=True)
"""


def command(*arguments: str, is_right: bool = True, **environment: str) -> str:
    """What it prints; on standard error if it fails, as it must unless `is_right`."""
    done = subprocess.run(
        [sys.executable, "-m", "umbel.cli", *arguments],
        check=False, capture_output=True, text=True, timeout=TIMEOUT_S, env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode == 0) == is_right, done.stdout + done.stderr
    return done.stdout if is_right else done.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls") / "first"
    command("tls", "init", str(directory))
    return directory


@pytest.fixture
def home() -> Iterator[str]:
    try:
        with homes.own_home() as directory:
            yield directory
    finally:
        own_tls.use("")


@pytest.fixture
def cluster(home: str, authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[cluster_utils.Cluster]:
    monkeypatch.setenv(own_tls.DIRECTORY_VARIABLE, str(authority))
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield made
    finally:
        made.shutdown()


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


# ---- certificates ----


def test_keys_are_for_their_owner_alone_and_nothing_is_replaced(authority: Path, tmp_path: Path) -> None:
    assert modes(authority) == {"ca.crt": 0o644, "ca.key": 0o600, "node.crt": 0o644, "node.key": 0o600}
    before = (authority / "ca.key").read_bytes()
    assert "already" in command("tls", "init", str(authority), is_right=False)
    assert (authority / "ca.key").read_bytes() == before
    other = tmp_path / "other"
    command("tls", "issue", str(authority), str(other))
    assert modes(other) == {"ca.crt": 0o644, "node.crt": 0o644, "node.key": 0o600}
    assert (other / "node.key").read_bytes() != (authority / "node.key").read_bytes()
    assert "umbel tls init" in command("tls", "issue", str(other), str(tmp_path / "third"), is_right=False)


def test_what_is_wrong_in_a_directory_is_told(authority: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(authority, copied)
    own_tls.contexts(str(copied))
    other = tmp_path / "other"
    command("tls", "init", str(other))
    shutil.copy(other / "node.key", copied / "node.key")
    own_tls.contexts.cache_clear()
    with pytest.raises(exceptions.AuthenticationError, match="key values mismatch"):
        own_tls.contexts(str(copied))
    (copied / "node.key").chmod(0o640)
    with pytest.raises(exceptions.AuthenticationError, match="chmod 600"):
        own_tls.contexts(str(copied))
    (copied / "node.key").unlink()
    with pytest.raises(exceptions.AuthenticationError, match="umbel tls init"):
        own_tls.contexts(str(copied))


# ---- clusters ----


@pytest.mark.parametrize("way", ["dialled", "asked", "met at the head"])
def test_packages_of_environments_go_by_tls(
    cluster: cluster_utils.Cluster, home: str, tmp_path: Path, way: str
) -> None:
    """Whichever way the two nodes are connected."""
    cluster.add_node(num_cpus=1, resources={"there": 1}, listens=way == "dialled")
    here = cluster.add_node(num_cpus=1, listens=False) if way == "met at the head" else cluster.head_node
    assert here is not None
    data = os.urandom(5 << 20)
    (tmp_path / "large").write_bytes(data)
    driver = drivers.Driver(PACKED, home, SESSION=here.session_dir, PROJECT=str(tmp_path))
    try:
        assert driver.finish()[0].splitlines()[-1] == hashlib.sha256(data).hexdigest()
    finally:
        driver.end()


def test_nodes_and_their_processes_talk_by_tls(
    cluster: cluster_utils.Cluster, home: str, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second node has a certificate of its own. Without one nobody gets in, to a daemon or to a process."""
    own = tmp_path / "second"
    command("tls", "issue", str(authority), str(own))
    monkeypatch.setenv(own_tls.DIRECTORY_VARIABLE, str(own))
    second = cluster.add_node(num_cpus=1)
    head = cluster.head_node
    assert head is not None
    monkeypatch.delenv(own_tls.DIRECTORY_VARIABLE)  # programs are told by their node
    values = {"REFERENCES": os.path.join(home, "references")}
    owner = drivers.Driver(OWNER, home, SESSION=head.session_dir, **values)
    try:
        assert owner.line() == "there"
        borrower = drivers.Driver(BORROWER, home, SESSION=second.session_dir, **values)
        assert borrower.finish()[0].strip() == "{'answer': 42}"
        token = token_files.read(cluster.token_file)
        doors = [name for name in os.listdir(head.session_dir) if name.endswith(".door")]
        assert doors
        targets = [handshake.AGENT, handshake.process(bytes.fromhex(doors[0].removesuffix(".door")))]
        for target in targets:
            with pytest.raises(exceptions.AuthenticationError, match="wants TLS"):
                dialler.connect(addresses.parse(head.address), token, target)
        own_tls.use(str(own))
        for target in targets:
            dialler.connect(addresses.parse(head.address), token, target).close()
    finally:
        owner.process.kill()
        owner.process.communicate()


def test_commands_of_other_machines_need_a_certificate(cluster: cluster_utils.Cluster, authority: Path) -> None:
    address = cluster.address or ""
    environment = {token_files.FILE_VARIABLE: cluster.token_file}
    assert address in command("status", "--session", address, **environment)
    told = command("status", "--session", address, is_right=False, **environment, **{own_tls.DIRECTORY_VARIABLE: ""})
    assert "TLS" in told


def test_a_certificate_of_another_cluster_does_not_join(
    cluster: cluster_utils.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    command("tls", "init", str(other))
    for directory, told in ((str(other), "TLS failed"), ("", "wants TLS")):
        monkeypatch.setenv(own_tls.DIRECTORY_VARIABLE, directory)
        with pytest.raises(exceptions.UmbelSystemError, match=told):
            cluster.add_node(num_cpus=1)
    assert cluster.head_node is not None
    with tool.Tool(cluster.head_node.session_dir) as asker:
        assert len(asker.query("nodes")) == 1


def test_what_goes_between_nodes_cannot_be_read_on_the_way(
    cluster: cluster_utils.Cluster,
) -> None:
    """A node joins through a proxy, which sees no word of what is said."""
    proxy = proxies.Proxy(str(cluster.address), records=True)
    place = cluster_node.Place(head=proxy.address, host="127.0.0.1", port=0, token_file=cluster.token_file)
    try:
        started = cluster_node.start_node(cluster_node.Wishes(num_cpus=1), place, ends_with_starter=True)
        node = cluster_utils.ClusterNode(started.launched, started.address)
        node._end(is_graceful=True)
    finally:
        proxy.close()
    assert len(proxy.seen) > 1000
    assert not [word for word in (b'"t"', b"join", b"node_id", b"CPU") if word in proxy.seen]
