"""Packages of environments between nodes: gets those that `packages` decides on, and gives others those that are here.

A connection is for one package. Who wants it dials, and says {"t": "get", "package"}; the answer is {"t": "package"} with the
archive behind it, {"t": "absent"}, or {"t": "busy"} of one that gives many at the moment. It is written to a file as it comes,
and becomes the package once it is seen to have the digest that it is called by. Loaded where there are other nodes.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any, Protocol

from umbel import exceptions
from umbel._agent import packages as decided
from umbel._agent.value_files import OpenFile
from umbel._base import nodes, tokens
from umbel._environments import packing
from umbel._model import package_names
from umbel._transport import addresses, bulk, connection, ways
from umbel._wire import handshake

DIAL_S = 3.0  # for one attempt: two round trips around the world take under one
TOLD_EVERY_S = 1.0  # that bytes come
GIVEN_MAX = 16  # at once: each takes some milliseconds of the daemon's thread in turn, and all share one network

Message = dict[str, Any]


class Daemon(Protocol):
    """What this needs of the daemon that it runs in."""

    poller: connection.Poller

    def now_s(self) -> float: ...

    def decide(self, *events: Any) -> None: ...

    def address_of_node(self, node: str) -> str:
        """ "" for none of the cluster."""

    def reacher(self) -> Any:
        """A `ways.Reacher`, or None."""

    def log(self, line: str) -> None: ...


class PackageLinks:
    """All of one node."""

    def __init__(self, daemon: Daemon, token: tokens.Token, directory: str) -> None:
        """directory: where the packages of this node are."""
        self._daemon = daemon
        self._packages = packing.Packages(directory, bytes_max=0)
        self._directory = directory
        self._ways = ways.Ways(daemon.poller, token, daemon.reacher(), now_s=daemon.now_s, timeout_s=DIAL_S)
        self._coming: dict[int, _Coming] = {}  # by attempt
        self._given: set[_Given] = set()

    # ---- what this node wants ----

    def fetch(self, command: decided.Fetch) -> None:
        coming = self._coming[command.attempt] = _Coming(self, command)
        try:
            address = addresses.parse(self._daemon.address_of_node(command.node))
        except exceptions.InvalidOption:
            self.failed(coming, decided.Trouble.REFUSED, "it is none of the cluster (any more)")
            return
        self._ways.dial(
            nodes.tag_of_node(command.node),
            address,
            handshake.PACKAGES,
            functools.partial(self._connected, coming),
            lambda error: self.failed(coming, decided.Trouble.BROKEN, f"it cannot be connected to: {error}"),
        )

    def _connected(self, coming: _Coming, stream: connection.Stream) -> None:
        if self._coming.get(coming.attempt) is not coming:
            stream.close()  # it was abandoned meanwhile
            return
        coming.link = bulk.BulkConnection(stream, self._daemon.poller, coming)
        coming.link.send({"t": "get", "package": coming.package})

    def abandon(self, command: decided.Abandon) -> None:
        coming = self._coming.pop(command.attempt, None)
        if coming is not None:
            coming.end()

    def came_some(self, coming: _Coming) -> None:
        now_s = self._daemon.now_s()
        if now_s >= coming.told_s + TOLD_EVERY_S:
            coming.told_s = now_s
            self._daemon.decide(decided.Coming(coming.attempt, coming.size_bytes, now_s))

    def draft_of(self, coming: _Coming) -> str:
        os.makedirs(self._directory, 0o700, exist_ok=True)
        return os.path.join(self._directory, f".new-{os.getpid()}-{coming.attempt}")

    def complete(self, coming: _Coming, found: str) -> None:
        """found: the digest of what has come."""
        if found != coming.package:
            self.failed(coming, decided.Trouble.REFUSED, f"it has sent another one, with the digest {found}")
            return
        try:
            coming.close_file()
            os.rename(self.draft_of(coming), self._packages.archive_of(coming.package))
        except OSError as error:
            self.failed(coming, decided.Trouble.OWN, str(error))
            return
        if self._coming.pop(coming.attempt, None) is not None:
            coming.end()
            self._daemon.log(f"package {coming.package} has come from node {coming.node}")
            self._daemon.decide(decided.Fetched(coming.attempt, self._daemon.now_s()))

    def failed(self, coming: _Coming, trouble: decided.Trouble, reason: str) -> None:
        if self._coming.pop(coming.attempt, None) is not None:
            coming.end()
            self._daemon.log(f"package {coming.package} did not come from node {coming.node}: {reason}")
            self._daemon.decide(decided.NotFetched(coming.attempt, trouble, reason, self._daemon.now_s()))

    # ---- what others want ----

    def admit(self, stream: connection.Stream) -> None:
        """A node, which has proved to be one, wants a package."""
        given = _Given(self._packages, self._given)
        self._given.add(given)
        given.link = bulk.BulkConnection(stream, self._daemon.poller, given)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        return self._ways.next_tick_s()

    def tick(self) -> None:
        self._ways.tick()

    def close(self) -> None:
        """No connection is left, and nothing of what has come in part."""
        self._ways.close()
        for coming in self._coming.values():
            coming.end()
        self._coming.clear()
        for given in self._given:
            given.link.close()
        self._given.clear()


class _Coming:
    """A package that comes, or is to; receives for its connection, and writes what that brings."""

    def __init__(self, links: PackageLinks, command: decided.Fetch) -> None:
        self.package, self.node, self.attempt = command
        self.link: bulk.BulkConnection | None = None
        self.size_bytes = 0
        self.told_s = float("-inf")
        self._links = links
        self._summed: packing.Summed | None = None
        self._file: Any = None

    def on_message(self, _link: bulk.BulkConnection, message: Message, body_bytes: int) -> bulk.Target | None:
        if message.get("t") == "absent":
            self._links.failed(self, decided.Trouble.REFUSED, "it does not have it")
            return None
        if message.get("t") == "busy":
            self._links.failed(self, decided.Trouble.BUSY, f"it gives packages to {GIVEN_MAX} others")
            return None
        if message.get("t") != "package" or not body_bytes:
            raise ValueError(f"a package, or that it is absent, was expected, got {message.get('t')!r:.50}")
        self.size_bytes = body_bytes
        self._links.came_some(self)
        if self._is_over():
            return None  # it is too large
        try:
            self._file = open(self._links.draft_of(self), "wb")  # `end` closes it
        except OSError as error:
            self._links.failed(self, decided.Trouble.OWN, str(error))
            return None
        self._summed = packing.Summed(self._file)
        return bulk.Target(self, 0)

    def _is_over(self) -> bool:
        return self.link is None or self.link.is_closed

    def receive(self, stream: connection.Stream, _offset: int, size_max: int) -> int:
        data = stream.recv(min(size_max, connection.READ_BYTES))
        try:
            if self._summed is not None:
                self._summed.write(data)
        except OSError as error:  # this node's, and not the connection's
            self._links.failed(self, decided.Trouble.OWN, str(error))
        else:
            self._links.came_some(self)
        return len(data)

    def on_body(self, _link: bulk.BulkConnection, _message: Message) -> None:
        if self._summed is not None:
            self._links.complete(self, self._summed.hexdigest())

    def on_sent(self, _link: bulk.BulkConnection) -> None:
        """Nothing but one message was."""

    def on_closed(self, _link: bulk.BulkConnection) -> None:
        self._links.failed(self, decided.Trouble.BROKEN, "the connection to it broke")

    def close_file(self) -> None:
        """Raises OSError when it is not all written."""
        if self._file is not None:
            self._file.close()

    def end(self) -> None:
        """No connection is left, nor what has come in part."""
        if self.link is not None:
            self.link.close()
        self._summed = None
        if self._file is not None:
            with contextlib.suppress(OSError):
                self.close_file()
            with contextlib.suppress(OSError):
                os.unlink(self._links.draft_of(self))


class _Given:
    """A connection by which another node gets a package."""

    link: bulk.BulkConnection
    is_giving = False

    def __init__(self, known: packing.Packages, all_given: set[_Given]) -> None:
        self._known = known
        self._all = all_given

    def on_message(self, link: bulk.BulkConnection, message: Message, _body_bytes: int) -> None:
        name = message.get("package")
        if message.get("t") != "get" or not isinstance(name, str) or not package_names.is_name(name):
            raise ValueError(f"a package is to be asked for, got {message.get('t')!r:.50}")
        if sum(one.is_giving for one in self._all) >= GIVEN_MAX:
            link.send({"t": "busy" if self._known.has(name) else "absent"})
            return
        try:
            path = self._known.archive_of(name)
            file = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            link.send({"t": "absent"})
        else:
            self.is_giving = True
            link.send_body({"t": "package"}, file, 0, os.fstat(file.fileno()).st_size)

    def on_body(self, _link: bulk.BulkConnection, _message: Message) -> None:
        """There is none."""

    def on_sent(self, _link: bulk.BulkConnection) -> None:
        """Who has it all closes the connection."""
        self.is_giving = False

    def on_closed(self, _link: bulk.BulkConnection) -> None:
        self._all.discard(self)
