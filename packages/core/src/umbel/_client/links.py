"""Connections of one process: to other owners and workers, and to its node's agent."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import nodes
from umbel._transport import connection, reactor
from umbel._wire import data_frames, frames, messages

if TYPE_CHECKING:
    from umbel._client import remote_links

FRAME_MESSAGES_MAX = 64  # messages sent in one frame: large enough to share its cost, small enough to start early


class _NothingRecorded:
    """As `recording.Last`; no task is like it."""

    template = parent = None


NOTHING_RECORDED = _NothingRecorded()


class Link:
    """A data connection to one process. Messages wait in `outbox` until `flush`, so that many share a frame.

    The caller holds the engine's lock for `post`, `flush` and the caches.
    """

    __slots__ = ("depth", "depth_told", "known", "lease", "outbox", "peer", "recent", "recorded", "stream")

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.stream: connection.Connection | remote_links.Waiting | None = None
        self.outbox: list[tuple[Any, ...]] = []
        self.known: set[Any] = set()  # templates and functions the peer has been told
        self.lease: Any = None
        self.depth = 0  # of what the peer sends, as it said last
        self.depth_told = 0
        self.recorded: Any = NOTHING_RECORDED  # of the task that ended there last, see `recording.Last`
        # At a worker: results just sent, for tasks that need them next. Several threads add to them without the lock.
        self.recent: collections.OrderedDict[int, tuple[int, Any]] = collections.OrderedDict()

    def post(self, message: tuple[Any, ...]) -> None:
        self.outbox.append(message)

    def flush(self) -> None:
        outbox = self.outbox
        if not outbox:
            return
        self.outbox = []
        if self.stream is None:
            return
        if len(outbox) <= FRAME_MESSAGES_MAX:
            self.stream.send(data_frames.encode(outbox))
            return
        for start in range(0, len(outbox), FRAME_MESSAGES_MAX):
            self.stream.send(data_frames.encode(outbox[start : start + FRAME_MESSAGES_MAX]))


def _nothing(_link: Link) -> None:
    """Nobody minds."""


class Links:
    """The data connections of this process, by peer; made when first needed, kept until the peer goes."""

    remote: remote_links.RemoteLinks | None = None  # to processes of other nodes, where there may be some
    on_again: Callable[[Link], None] = staticmethod(_nothing)  # a link has begun to a process to which one had broken

    def __init__(
        self,
        process_id: bytes,
        directory: str,
        poller: connection.Poller,
        on_messages: Callable[[Link, list[tuple[Any, ...]]], None],
        on_gone: Callable[[Link], None],
    ) -> None:
        self._process_id = process_id
        self._directory = directory
        self._poller = poller
        self._on_messages = on_messages
        self.on_gone = on_gone
        self.by_peer: dict[bytes, Link] = {}
        self.twins: dict[bytes, list[Link]] = {}  # second connections, of peers that dialled us while we dialled them
        self._unnamed: set[connection.Connection] = set()
        self._listen()

    def _listen(self) -> None:
        sock = connection.listen_unix(self._path(self._process_id))
        self._listener: connection.Listener | None = connection.Listener(sock, self._poller, self.accept)

    def _connect(self, peer: bytes) -> connection.Stream:
        """To a process of this node. Raises OSError when it is gone."""
        return connection.connect_unix(self._path(peer))

    def _path(self, process_id: bytes) -> str:
        return f"{self._directory}/{process_id.hex()}.sock"

    def to(self, peer: bytes) -> Link | None:
        """The link to a process; None when it is gone. One of another node is being connected to meanwhile: what is sent
        waits, and if nothing comes of it the process is gone."""
        link = self.by_peer.get(peer)
        if link is not None:
            return link
        if self.remote is not None and not self.is_of_this_node(peer):
            return self.remote.to(peer)
        try:
            sock = self._connect(peer)
        except OSError:
            return None
        link = Link(peer)
        self.attach(link, sock)
        self.by_peer[peer] = link
        link.post((messages.HELLO, self._process_id))
        return link

    def is_all_sent(self) -> bool:
        """Whether everything that was flushed arrives even if this process dies now: the kernel has it, of this machine
        or, for another node, that of the other."""
        if any(link.stream is not None and link.stream.queued_bytes for link in self.by_peer.values()):
            return False
        return self.remote is None or self.remote.has_all_arrived()

    def is_connected(self, link: Link) -> bool:
        """Whether the process hears what it is sent, if it lives: only to one of another node may the connection be gone."""
        return (
            self.remote is None or self.is_of_this_node(link.peer) or not (link.stream is None or link.stream.is_closed)
        )

    def may_live(self, link: Link) -> bool:
        """Whether the process whose connection has ended may live all the same."""
        return self.remote is not None and not self.is_of_this_node(link.peer) and self.remote.may_live(link)

    def is_of_this_node(self, peer: bytes) -> bool:
        return nodes.tag_of_process(peer) == nodes.tag_of_process(self._process_id)

    def attach(self, link: Link, sock: connection.Stream) -> connection.Connection:
        stream = connection.Connection(sock, self._poller, self._on_frame, self._on_close)
        stream.peer = link
        link.stream = stream
        return stream

    def accept(self, sock: connection.Stream) -> None:
        self._unnamed.add(self.attach(Link(b""), sock))

    def _on_frame(self, stream: connection.Connection, payload: bytes) -> None:
        link = stream.peer
        if isinstance(link, Link):
            self._on_messages(link, data_frames.decode(payload))

    def named(self, link: Link, peer: bytes, number: int = 1) -> bool:
        """The other end of an accepted connection has said who it is; whether it may be that. number: to a process of another
        node, for which time they are connected, as far as it knows."""
        if link.peer:
            return True  # it was said before
        if self.remote is not None and not self.remote.may_be(link, peer, number):
            return False
        link.peer = peer
        if link.stream is not None:
            self._unnamed.discard(link.stream)
        if self.by_peer.setdefault(peer, link) is not link:
            self.twins.setdefault(peer, []).append(link)
        elif self.remote is not None:
            self.remote.begun(link)
        return True

    def _on_close(self, stream: connection.Connection) -> None:
        self._unnamed.discard(stream)
        link = stream.peer
        if self.remote is not None and self.remote.on_close(stream):
            return
        if isinstance(link, Link) and link.peer:
            if self.by_peer.get(link.peer) is link:
                del self.by_peer[link.peer]
            for twin in self.twins.pop(link.peer, ()):
                if twin.stream is not None:
                    twin.stream.drain()  # what the peer said there before its end counts as well
            self.on_gone(link)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self.remote is not None:
            self.remote.close()
        twins = [twin for of_peer in self.twins.values() for twin in of_peer]
        self.twins.clear()
        for link in [*self.by_peer.values(), *twins]:
            if link.stream is not None:
                link.stream.close()
        for stream in list(self._unnamed):
            stream.close()


class AgentLink:
    """The control connection to the node's agent: requests with answers, notices both ways.

    is_vital: this process ends with its agent, in `on_gone`. Nobody who waits goes on before that: a task would answer its owner,
    perhaps on another node, with what only this process has come to.
    """

    is_vital = False

    def __init__(
        self,
        path: str | connection.Stream,
        driver: reactor.Reactor,
        on_notice: Callable[[dict[str, Any], bytes], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._reactor = driver
        self._on_notice = on_notice
        self._on_gone = on_gone
        self._answers: dict[int, tuple[reactor.Waiter, list[Any]]] = {}
        self._numbers = itertools.count(1)  # of requests; threads take them at once
        self.is_closed = False
        sock = connection.connect_unix(path) if isinstance(path, str) else path
        self._stream = connection.Connection(sock, driver.poller, self._on_frame, self._on_close)

    def died(self) -> BaseException:
        """What is raised when it is gone."""
        return exceptions.LocalNodeDiedError(_GONE)

    def notify(self, message: dict[str, Any], body: bytes = b"") -> None:
        self._stream.send(frames.encode_control(message, body))

    def request(
        self, message: dict[str, Any], body: bytes = b"", *, timeout_s: float | None = None, is_lone: bool = False
    ) -> tuple[dict[str, Any], bytes]:
        """Send and wait for the answer, error answers included. Raises LocalNodeDiedError when the agent is gone.

        is_lone: nothing else is under way, as far as this process knows.
        """
        number = next(self._numbers)
        waiter = reactor.Waiter()
        waiter.is_lone = is_lone
        answer: list[Any] = []
        self._answers[number] = (waiter, answer)
        try:
            self.notify({**message, "rq": number}, body)
            if self.is_closed:
                raise self.died()
            import time

            done = self._reactor.wait(waiter, None if timeout_s is None else time.monotonic() + timeout_s)
        finally:  # it may be interrupted
            del self._answers[number]
        if not answer:
            if done:
                raise self.died()
            raise exceptions.GetTimeoutError(
                f"the node's agent did not answer {message.get('t')!r} within {timeout_s} s"
            )
        return answer[0], answer[1]

    def _on_frame(self, _stream: connection.Connection, payload: bytes) -> None:
        message, body = frames.decode_control(payload)
        if message.get("t") == "reply":
            waiting = self._answers.get(message.get("rq", -1))
            if waiting is not None:
                waiting[1].extend((message, body))
                waiting[0].finish()
            return
        self._on_notice(message, body)

    def _on_close(self, _stream: connection.Connection) -> None:
        self.is_closed = True
        if self.is_vital:
            self._on_gone()
        for waiter, _ in list(self._answers.values()):
            waiter.finish()
        if not self.is_vital:
            self._on_gone()

    def close(self) -> None:
        self._stream.close()


def raise_refusal(answer: dict[str, Any]) -> None:
    """Raises UmbelSystemError if the agent's answer is an error."""
    error = answer.get("error")
    if error is not None:
        raise exceptions.UmbelSystemError(f"the node's daemon refused a request: {error.get('text')}")


_GONE = (
    "the node's daemon is gone: it was killed or crashed; results not fetched before are lost. Call "
    "umbel.shutdown() and "
    "umbel.init() to start again"
)
