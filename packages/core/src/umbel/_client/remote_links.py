"""Links to processes of other nodes: TCP connections, of which both sides have proved that they may.

`umbel._client.remote_peers` decides; here its commands become questions to the daemon and dials. A link is there as soon as it
is wanted, with a `Waiting` in the place of its connection. Connections that others dialled come from the daemon by a Unix
socket, the *door*: it has read whom they want, and nothing more. So do those to nodes that cannot be dialled, for which the
daemon is asked.

A TCP connection may break while both processes live. All connections of the two end with the first of them, so that both
see an end. They count these: who connects says for which time, and so ends what the other one has not seen the end of.

Everything runs under the engine's lock, as it may in any thread. Nothing of the handshake is loaded before it is needed.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import nodes
from umbel._client import links, remote_peers
from umbel._model import reasons
from umbel._transport import connection, reactor
from umbel._wire import attempts, messages

if TYPE_CHECKING:
    from umbel._base import tokens
    from umbel._transport import acceptor, ways
    from umbel._wire import handshake

logger = logging.getLogger("umbel")
# A process that computes without giving the GIL away answers late, and is not dead: it has as long as a machine that does not
# answer at all.
DIAL_TIMEOUT_S = 60.0
PROOF_TIMEOUT_S = 30.0  # the same of one that has dialled us; it has begun, so it is not as busy as that
ASK_AGAIN_S = 1.0  # after a connection broke, until who was there is asked for anew: if it died, that is told sooner
BROKEN_COUNT_MAX = 10_000  # peers to which a connection has ended
PASSED_BYTES_MAX = 512  # a preamble and an address
LOOKS = 5  # whether a machine answers, in the time in which it has to
ANSWER_S = 3.0  # for that at least: a system without room answers twice a second at most, asked more and more seldom


class Waiting:
    """In the place of a link's connection until there is one: what is sent waits. is_given_up: there will be none."""

    __slots__ = ("frames", "is_closed", "is_given_up", "queued_bytes")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.queued_bytes = 0
        self.is_closed = False
        self.is_given_up = False

    def send(self, frame: bytes) -> None:
        if not self.is_closed:
            self.frames.append(frame)
            self.queued_bytes += len(frame)

    def drain(self) -> None:
        """Nothing has come."""

    def close(self) -> None:
        self.is_closed = True
        self.frames.clear()
        self.queued_bytes = 0


class RemoteLinks:
    """Those of one process."""

    def __init__(
        self,
        own: links.Links,
        process_id: bytes,
        token: str,
        door: socket.socket | None,
        driver: reactor.Reactor,
        lock: threading.RLock,
        notify: Callable[[dict[str, Any]], None],
    ) -> None:
        """token: of the role `submit`, as text. door: a listener; None where connections come otherwise. notify: tells the
        node's daemon."""
        self._own = own
        self._process_id = process_id
        self._token_text = token
        self._reactor = driver
        self._lock = lock
        self._notify = notify
        self._peers = remote_peers.RemotePeers()
        self._links: dict[links.Link, int] = {}  # with their numbers
        self._numbers: dict[bytes, int] = {}  # of the next link to a peer, where one has ended; the last to end last
        self._unnamed: set[connection.Connection] = set()
        self._given_up: list[bytes] = []
        self._unanswered: dict[links.Link, float] = {}  # since when a machine has been seen not to answer
        self._look_s = 0.0
        self._later: list[tuple[float, Callable[[], None]]] = []  # in order of time
        self._locked = _LockedPoller(driver.poller, lock)
        self._ways: ways.Ways | None = None
        self.dialled = attempts.Dialled()  # as far as this process and its daemon know
        self._acceptor: acceptor.Acceptor | None = None
        self._passing: set[socket.socket] = set()
        self._is_closed = False
        self._door = connection.Listener(door, driver.poller, self._on_passing) if door is not None else None

    # ---- for `Links`; lock held ----

    def to(self, peer: bytes) -> links.Link | None:
        """A link that has just begun; None when the peer's node has died."""
        if self._peers.is_gone(peer):
            return None
        link = self._own.by_peer[peer] = links.Link(peer)
        link.stream = Waiting()
        number = self._links[link] = self._numbers.get(peer, 1)
        link.post((messages.HELLO, self._process_id, number))
        self.begun(link)
        self._peers.wanted(peer, tries_max=remote_peers.DIAL_TRIES_MAX if number == 1 else remote_peers.TRIES_AGAIN_MAX)
        self._carry_out()
        return link

    def begun(self, link: links.Link) -> None:
        """It is the one by which its peer is talked to."""
        if self._links.get(link, 1) > 1:
            self._own.on_again(link)

    def may_live(self, link: links.Link) -> bool:
        """The link has ended."""
        is_given_up = isinstance(link.stream, Waiting) and link.stream.is_given_up
        return not is_given_up and not self._peers.is_gone(link.peer)

    def is_sought(self, peer: bytes) -> bool:
        """Whether a connection to it has broken, and another one is being made."""
        return peer in self._numbers and self._peers.is_waiting(peer) and not self._own.twins.get(peer)

    def may_be(self, link: links.Link, peer: object, number: int) -> bool:
        """Whether the other end may be who it says; if not, it is cut off. Whoever has a token may run code here, so this
        does not protect us; it keeps what is meant for one process from going to another. Those of this node do not come by
        TCP."""
        stream = link.stream
        if not isinstance(stream, connection.Connection) or stream not in self._unnamed:
            return True
        is_id = isinstance(peer, bytes) and len(peer) == nodes.PROCESS_ID_BYTES
        if not is_id or self._own.is_of_this_node(peer) or self._peers.is_gone(peer):  # type: ignore[arg-type]
            logger.warning("cut off a process of another node, which said that it is %.80r", peer)
            stream.close()
            return False
        self._unnamed.discard(stream)
        self._links[link] = self._supersede(peer, number)  # type: ignore[arg-type]  # is_id, see above
        return True

    def _supersede(self, peer: bytes, number: int) -> int:
        """The peer has connected for this time: what it has seen the end of is ended here too. Returns the link's number."""
        if number > self._numbers.get(peer, 1):
            self._numbers[peer] = number
            for link in [*self._own.twins.get(peer, ()), *filter(None, [self._own.by_peer.get(peer)])]:
                if isinstance(link.stream, connection.Connection) and self._links.get(link, number) < number:
                    link.stream.close()  # and all others with it
        return self._numbers.get(peer, 1)

    def ask_again(self, ask: Callable[[], None], *, after_s: float = ASK_AGAIN_S) -> None:
        """Call this in a while: a connection broke, and maybe its other side lives."""
        self._later.append((time.monotonic() + after_s, ask))
        self._later.sort(key=lambda later: later[0])
        self._reactor.poke()

    def has_all_arrived(self) -> bool:
        if not self._links:
            return True
        from umbel._transport import addresses

        streams = [link.stream for link in self._links if isinstance(link.stream, connection.Connection)]
        return not any(addresses.unacknowledged_bytes(one.fileno()) for one in streams if not one.is_closed)

    def reason(self, peer: bytes) -> reasons.Reason:
        """Why nothing has come of it, as far as is known here."""
        tag = nodes.tag_of_process(peer).hex()
        text = self._peers.state(peer, time.monotonic())
        if self._ways is not None and self._ways.is_asking(nodes.tag_of_process(peer)):
            text += "; its node was asked for a connection of its own"
        facts = {"process": peer.hex(), "node": tag}
        return reasons.Reason(reasons.NODE, f"that process, on the node whose id begins with {tag},", text, facts=facts)

    # ---- ends ----

    def on_close(self, stream: connection.Connection) -> bool:
        """Whether it was one of ours."""
        if stream in self._unnamed:
            self._unnamed.discard(stream)
            return True
        link = stream.peer
        if not isinstance(link, links.Link) or not link.peer or self._own.is_of_this_node(link.peer):
            return False
        self._end(link)
        return True

    def _end(self, link: links.Link) -> None:
        """A link is closed: so is everything else between the two processes."""
        peer = link.peer
        with self._lock:
            others = [*self._own.twins.get(peer, ())]
            if peer in self._own.by_peer:
                others.append(self._own.by_peer[peer])
        for other in others:
            if other.stream is not None:
                other.stream.drain()  # what the peer said there before its end counts as well
        with self._lock:
            numbers = [self._links.pop(one) for one in (link, *others) if one in self._links]
            if numbers:
                self._numbers[peer] = max(self._numbers.pop(peer, 1), *(number + 1 for number in numbers))
                if len(self._numbers) > BROKEN_COUNT_MAX:
                    del self._numbers[next(iter(self._numbers))]
            for other in others:  # and not one that has begun since in another thread
                if self._own.by_peer.get(peer) is other:
                    del self._own.by_peer[peer]
                    self._peers.unwanted(peer)
            self._own.twins.pop(peer, None)
            for other in others:
                if other is not link and other.stream is not None and not other.stream.is_closed:
                    is_waiting = isinstance(other.stream, Waiting)
                    other.stream.close()
                    if is_waiting:
                        self._own.on_gone(other)
            self._own.on_gone(link)

    def _end_waiting(self, peer: bytes) -> None:
        """There will be no connection of our own to it. If it has one to us, that does for both ways."""
        link = self._own.by_peer.get(peer)
        if link is None or not isinstance(link.stream, Waiting) or self._peers.is_waiting(peer):
            return
        for twin in self._own.twins.get(peer, ()):
            if isinstance(twin.stream, connection.Connection) and not twin.stream.is_closed:
                self._own.twins[peer].remove(twin)
                self._links.pop(twin, None)
                stream, twin.stream = twin.stream, None
                stream.peer = link
                waiting, link.stream = link.stream, stream
                _send_all(waiting, stream)
                return
        link.stream.is_given_up = True
        link.stream.close()
        self._end(link)

    # ---- what the machine wants ----

    def _carry_out(self) -> None:
        commands, self._peers.commands = self._peers.commands, []
        for command in commands:
            if isinstance(command, remote_peers.Ask):
                self._notify({"t": "find_node", "node": command.tag.hex()})
            elif isinstance(command, remote_peers.Dial):
                self._dial(command)
            else:
                self._given_up.append(command.peer)
        if commands:  # there is something to do, or to be looked after, later; never now, in the middle of `to`
            self._reactor.poke()

    def _dial(self, wanted: remote_peers.Dial) -> None:
        from umbel._transport import addresses, ways
        from umbel._wire import handshake

        if self._ways is None:
            self._ways = ways.Ways(self._locked, self._token(), self, now_s=time.monotonic, timeout_s=DIAL_TIMEOUT_S)
        self._ways.dial(
            nodes.tag_of_process(wanted.peer),
            addresses.parse(wanted.address),
            handshake.process(wanted.peer),
            functools.partial(self._connected, wanted),
            functools.partial(self._failed, wanted),
        )

    def reach(self, tag: bytes, ticket: bytes, _ways: ways.Ways) -> None:
        """As `ways.Reacher`: the daemon has a connection made, which comes by the door."""
        self._notify({"t": "reach", "node": tag.hex(), "ticket": ticket.hex()})

    def _connected(self, wanted: remote_peers.Dial, stream: connection.Stream) -> None:
        if not self._peers.connected(wanted.peer, wanted.number):
            stream.close()
            return
        from umbel._transport import addresses

        addresses.let_read_late(stream.fileno())  # a process that computes in C reads nothing
        link = self._own.by_peer[wanted.peer]
        waiting = link.stream
        _send_all(waiting, self._own.attach(link, stream))

    def _failed(self, wanted: remote_peers.Dial, error: Exception) -> None:
        # It was heard and refused us, or has not been heard for long: only what was broken off may go better again.
        is_final = isinstance(error, (exceptions.AuthenticationError, TimeoutError))
        logger.debug("connecting to process %s failed: %s", wanted.peer.hex(), error)
        self._peers.failed(wanted.peer, wanted.number, is_final=is_final, at_s=time.monotonic())
        self._carry_out()

    def on_notice(self, message: dict[str, Any]) -> None:
        """From the daemon. Lock held, on the thread that polls."""
        if message["t"] == "node_at":
            tag = bytes.fromhex(message["node"])
            if not message["is_dialled"]:
                self.dialled.had_to_be_asked(tag, time.monotonic())
            self._peers.located(tag, message["address"])
            self._carry_out()
        elif message["t"] == "unreached" and self._ways is not None:
            self._ways.unreached(bytes.fromhex(message["ticket"]), message["reason"])
            self._carry_out()
        elif message["t"] == "node_gone":
            self._node_gone(bytes.fromhex(message["node"]))

    def _node_gone(self, tag: bytes) -> None:
        self._peers.node_gone(tag)
        for peer, link in list(self._own.by_peer.items()):
            if nodes.tag_of_process(peer) == tag and isinstance(link.stream, connection.Connection):
                link.stream.drain()
                link.stream.close()
        for peer in [peer for peer in self._own.twins if nodes.tag_of_process(peer) == tag]:
            for twin in self._own.twins.pop(peer):
                if twin.stream is not None:
                    twin.stream.drain()
                    twin.stream.close()
        self._numbers = {peer: one for peer, one in self._numbers.items() if nodes.tag_of_process(peer) != tag}
        self._carry_out()

    # ---- the door ----

    def _on_passing(self, way: socket.socket) -> None:
        """The daemon is about to pass a connection on."""
        way.setblocking(False)
        self._passing.add(way)
        self._reactor.poller.register(way.fileno(), connection.IN, functools.partial(self._on_passed, way))

    def _on_passed(self, way: socket.socket, _events: int) -> None:
        self._reactor.poller.unregister(way.fileno())
        self._passing.discard(way)
        with way:
            try:
                data, descriptors, _, _ = socket.recv_fds(way, PASSED_BYTES_MAX, 1, _CLOSE_ON_EXEC)
            except OSError:
                return
        if not descriptors:  # the daemon died in between, or this process may open no more
            return
        os.set_inheritable(descriptors[0], False)
        sock = socket.socket(fileno=descriptors[0])
        with self._lock:
            if self._is_closed:
                sock.close()
                return
            self._adopt(sock, data)

    def _adopt(self, sock: socket.socket, data: bytes) -> None:
        from umbel._transport import acceptor
        from umbel._wire import handshake

        preamble = handshake.read_preamble(data[: handshake.PREAMBLE_BYTES])
        if isinstance(preamble, handshake.Preamble) and preamble.target.kind is handshake.TargetKind.BACK:
            if self._ways is None:
                sock.close()
                return
            self._ways.arrived(preamble.target.id, sock)
            self._reactor.poke()
            return
        if self._acceptor is None:
            self._acceptor = acceptor.Acceptor(
                self._locked,
                self._token(),
                self._on_peer,
                now_s=time.monotonic,
                warn=logger.warning,
                decide=self._decide,
                timeout_s=PROOF_TIMEOUT_S,
            )
        host = data[handshake.PREAMBLE_BYTES :].decode("ascii", "replace")
        self._acceptor.adopt(sock, data[: handshake.PREAMBLE_BYTES], host)
        self._reactor.poke()  # it has a time-out

    def _decide(self, role: tokens.Role, target: handshake.Target) -> handshake.Answer:
        from umbel._wire import handshake

        answer = handshake.may_reach(role, target)
        if answer is handshake.Answer.WELCOME and target != handshake.process(self._process_id):
            return handshake.Answer.ABSENT
        return answer

    def _on_peer(self, stream: connection.Stream, _role: tokens.Role, _target: handshake.Target) -> None:
        self.accept(stream)

    def accept(self, stream: connection.Stream) -> None:
        """Of another node's process, which has proved itself. Lock held."""
        from umbel._transport import addresses

        addresses.let_read_late(stream.fileno())
        self._unnamed.add(self._own.attach(links.Link(b""), stream))

    def _token(self) -> tokens.Token:
        from umbel._base import tokens

        return tokens.parse(self._token_text, source="the daemon's welcome")

    # ---- time ----

    def housekeep(self, now_s: float) -> float | None:
        """Returns in how many seconds to look again."""
        with self._lock:
            if self._is_closed:
                return None
            if _is_due(self._peers.next_tick_s(), now_s):
                self._peers.tick(now_s)
                self._carry_out()
            for part in (self._ways, self._acceptor):
                if part is not None and _is_due(part.next_tick_s(), now_s):
                    part.tick()
            while self._later and self._later[0][0] <= now_s:
                self._later.pop(0)[1]()
            if self._links and now_s >= self._look_s:
                self._look(now_s)
            if self._given_up:
                while self._given_up:
                    self._end_waiting(self._given_up.pop(0))
                self._reactor.poller.wake()  # somebody who polls may have waited for what is settled now
            parts = [part for part in (self._peers, self._ways, self._acceptor) if part is not None]
            due = [at_s for part in parts if (at_s := part.next_tick_s()) is not None]
            due += [at_s for at_s, _ in self._later[:1]]
            due += [self._look_s] if self._links else []
            return max(0.0, min(due) - now_s) if due else None

    def _look(self, now_s: float) -> None:
        """Break what leads to machines that have not answered for too long."""
        from umbel._transport import addresses

        seen, self._unanswered = self._unanswered, {}
        limit_s = max(ANSWER_S, addresses.borne_s())
        self._look_s = now_s + limit_s / LOOKS
        for link in [*self._links]:
            stream = link.stream
            if not isinstance(stream, connection.Connection) or stream.is_closed:
                continue
            silent_s = addresses.unanswered_s(stream.fileno())
            if not silent_s:
                continue
            since_s = self._unanswered[link] = seen.get(link, now_s)  # it may have had nothing to answer before
            if min(silent_s, now_s - since_s) >= limit_s:
                text = "the machine of process %s of another node has not answered for %.0f s: its connection is broken off"
                logger.warning(text, link.peer.hex(), silent_s)
                stream.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._door is not None:
                self._door.close()
            for way in self._passing:
                self._reactor.poller.unregister(way.fileno())
                way.close()
            self._passing.clear()
            for part in (self._ways, self._acceptor):
                if part is not None:
                    part.close()
            for stream in list(self._unnamed):
                stream.close()


class _LockedPoller:
    """A poller whose handlers run under a lock, and not after they were unregistered, be it in another thread."""

    def __init__(self, poller: connection.Poller, lock: threading.RLock) -> None:
        self._poller = poller
        self._lock = lock
        self._handlers: dict[int, Callable[[int], None]] = {}

    def register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        def locked(ready: int) -> None:
            with self._lock:
                if self._handlers.get(fd) is locked:
                    handler(ready)

        self._handlers[fd] = locked
        self._poller.register(fd, events, locked)

    def unregister(self, fd: int) -> None:
        self._handlers.pop(fd, None)
        self._poller.unregister(fd)

    def wake(self) -> None:
        self._poller.wake()


_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux; elsewhere a moment later


def _send_all(waiting: Any, stream: connection.Connection) -> None:
    """What has waited, a `Waiting`."""
    for frame in waiting.frames:
        stream.send(frame)


def _is_due(at_s: float | None, now_s: float) -> bool:
    return at_s is not None and at_s <= now_s
