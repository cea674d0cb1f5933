"""Packages of environments between two nodes: connections, files and digests, on one poller, with peers that misbehave."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tcp_nodes import LIMIT_S, SECRET

from umbel._agent import package_links, packages
from umbel._base import nodes, tokens
from umbel._environments import packing
from umbel._model import package_names
from umbel._transport import acceptor, addresses, bulk, connection, dialler
from umbel._wire import handshake

NODE = SECRET.lowered(tokens.Role.NODE)
ONE, GIVER = (text * nodes.NODE_ID_BYTES for text in ("0a", "0b"))
SIZE_BYTES = 20 << 20  # more than all buffers on the way hold


class Node:
    """What the links of one node need of its daemon."""

    def __init__(self, poller: connection.Poller, directory: Path) -> None:
        self.poller = poller
        self.directory = directory
        self.addresses: dict[str, str] = {}
        self.told: list[packages.Event] = []
        self.packages = packing.Packages(str(directory), bytes_max=SIZE_BYTES)
        self.links = package_links.PackageLinks(self, NODE, str(directory))
        self.acceptor = acceptor.Acceptor(
            poller, NODE, lambda stream, _role, _target: self.links.admit(stream), now_s=self.now_s, warn=self.log
        )
        self.address = str(self.acceptor.listen(addresses.Address("127.0.0.1", 0)))

    def now_s(self) -> float:
        return time.monotonic()

    def reacher(self) -> None:
        """Nodes can only be dialled here."""

    def decide(self, *events: packages.Event) -> None:
        self.told += events

    def address_of_node(self, node: str) -> str:
        return self.addresses.get(node, "")

    def log(self, _line: str) -> None:
        """Nobody reads it."""

    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory)) if self.directory.exists() else []

    def ended(self) -> packages.Event | None:
        return next((one for one in self.told if not isinstance(one, packages.Coming)), None)


class Giver:
    """A node that gives what the test says: of SIZE_BYTES that it announces, `data`."""

    def __init__(self, node: Node, path: Path, message: dict[str, Any]) -> None:
        self._file = open(path, "rb")  # open while it is sent
        self._message = message
        self._links: list[bulk.BulkConnection] = []
        self._acceptor = acceptor.Acceptor(
            node.poller, NODE, lambda stream, _role, _target: self._begin(node.poller, stream), now_s=node.now_s,
            warn=node.log,
        )  # fmt: skip
        node.addresses[GIVER] = str(self._acceptor.listen(addresses.Address("127.0.0.1", 0)))

    def _begin(self, poller: connection.Poller, stream: connection.Stream) -> None:
        self._links.append(bulk.BulkConnection(stream, poller, self))

    def on_message(self, link: bulk.BulkConnection, _message: Any, _body_bytes: int) -> None:
        link.send_body(self._message, self._file, 0, SIZE_BYTES)  # it closes when the file has no more

    def on_body(self, _link: Any, _message: Any) -> None: ...

    def on_sent(self, _link: Any) -> None: ...

    def on_closed(self, _link: Any) -> None: ...

    def close(self) -> None:
        for link in self._links:
            link.close()
        self._acceptor.close()
        self._file.close()


class Two:
    def __init__(self, directory: Path) -> None:
        self.poller = connection.Poller()
        self.one, self.other = (Node(self.poller, directory / name) for name in ("one", "other"))
        self.other.addresses[ONE] = self.one.address

    def until_ended(self) -> packages.Event:
        end_s = time.monotonic() + LIMIT_S
        while (found := self.other.ended()) is None:
            assert time.monotonic() < end_s, self.other.told
            self.poller.poll(0.01)
            for node in (self.one, self.other):
                node.links.tick()
                node.acceptor.tick()
        return found

    def close(self) -> None:
        for node in (self.one, self.other):
            node.links.close()
            node.acceptor.close()
        self.poller.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    yield made
    made.close()


def large(two: Two, directory: Path) -> str:
    """The name of a package of the first node."""
    (directory / "w").mkdir()
    (directory / "w" / "data").write_bytes(os.urandom(SIZE_BYTES - 1000))
    (name,) = package_names.names_in(two.one.packages.add_directory("w", str(directory / "w")))
    return name


def test_a_package_arrives_as_it_is(two: Two, tmp_path: Path) -> None:
    name = large(two, tmp_path)
    two.other.links.fetch(packages.Fetch(name, ONE, 1))
    assert isinstance(two.until_ended(), packages.Fetched)
    first = two.other.told[0]
    path = two.other.packages.archive_of(name)
    assert isinstance(first, packages.Coming) and first.size_bytes == os.path.getsize(path)
    assert packing.file_digest(path) == name
    assert two.other.files() == [f"{name}.zip"]


def test_what_is_not_there_or_not_of_the_cluster_is_refused(two: Two) -> None:
    for node, reason in ((ONE, "it does not have it"), ("nobody", "it is none of the cluster (any more)")):
        two.other.told.clear()
        two.other.links.fetch(packages.Fetch("0" * 32, node, 1))
        found = two.until_ended()
        assert isinstance(found, packages.NotFetched)
        assert (found.trouble, found.reason) == (packages.Trouble.REFUSED, reason)
    assert two.other.files() == []


@pytest.mark.parametrize(
    ("size_bytes", "message", "trouble", "reason"),
    [
        (SIZE_BYTES, {"t": "package"}, packages.Trouble.REFUSED, "it has sent another one, with the digest"),
        (SIZE_BYTES // 2, {"t": "package"}, packages.Trouble.BROKEN, "the connection to it broke"),
        (SIZE_BYTES, {"t": "nonsense"}, packages.Trouble.BROKEN, "the connection to it broke"),
    ],
)
def test_what_comes_in_part_or_is_another_thing_leaves_nothing(
    two: Two, tmp_path: Path, size_bytes: int, message: dict[str, Any], trouble: packages.Trouble, reason: str
) -> None:
    (tmp_path / "file").write_bytes(bytes(size_bytes))
    giver = Giver(two.other, tmp_path / "file", message)
    try:
        two.other.links.fetch(packages.Fetch("0" * 32, GIVER, 1))
        found = two.until_ended()
    finally:
        giver.close()
    assert isinstance(found, packages.NotFetched) and found.trouble is trouble and reason in found.reason
    assert two.other.files() == []


def test_what_is_abandoned_while_it_comes_leaves_nothing_and_is_not_told(two: Two, tmp_path: Path) -> None:
    name = large(two, tmp_path)
    two.other.links.fetch(packages.Fetch(name, ONE, 1))
    end_s = time.monotonic() + LIMIT_S
    while not two.other.told:
        assert time.monotonic() < end_s
        two.poller.poll(0.01)
    assert two.other.files() == [f".new-{os.getpid()}-1"]
    two.other.links.abandon(packages.Abandon(1))
    assert two.other.files() == []
    two.other.links.fetch(packages.Fetch(name, ONE, 2))
    assert two.until_ended() == packages.Fetched(2, two.other.told[-1].at_s)


def test_what_cannot_be_written_is_this_nodes_trouble(two: Two, tmp_path: Path) -> None:
    name = large(two, tmp_path)
    two.other.directory.write_text("in the way")
    two.other.links.fetch(packages.Fetch(name, ONE, 1))
    found = two.until_ended()
    assert isinstance(found, packages.NotFetched) and found.trouble is packages.Trouble.OWN
    two.other.directory.unlink()


def test_only_so_many_packages_are_given_at_once(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_links, "GIVEN_MAX", 1)
    name = large(two, tmp_path)
    two.other.links.fetch(packages.Fetch(name, ONE, 1))
    end_s = time.monotonic() + LIMIT_S
    while not two.other.told:
        assert time.monotonic() < end_s
        two.poller.poll(0.01)
    two.other.links.fetch(packages.Fetch(name, ONE, 2))
    two.other.links.fetch(packages.Fetch("0" * 32, ONE, 3))
    while len(ends := [one for one in two.other.told if not isinstance(one, packages.Coming)]) < 3:
        assert time.monotonic() < end_s
        two.poller.poll(0.01)
    told = {one.attempt: getattr(one, "trouble", None) for one in ends if not isinstance(one, packages.NodeDied)}
    assert told == {1: None, 2: packages.Trouble.BUSY, 3: packages.Trouble.REFUSED}


def test_whoever_asks_for_a_path_is_cut_off(two: Two) -> None:
    made: list[Any] = []
    dial = dialler.Dialler(two.poller, NODE, now_s=two.one.now_s)
    dial.dial(addresses.parse(two.one.address), handshake.PACKAGES, made.append, made.append)
    end_s = time.monotonic() + LIMIT_S
    ends: list[Any] = []

    class Asker(Giver):
        def __init__(self) -> None: ...

        def on_closed(self, link: Any) -> None:
            ends.append(link)

    while not made:
        assert time.monotonic() < end_s
        two.poller.poll(0.01)
    bulk.BulkConnection(made[0], two.poller, Asker()).send({"t": "get", "package": "../../etc/passwd"})
    while not ends:
        assert time.monotonic() < end_s
        two.poller.poll(0.01)
    dial.close()
