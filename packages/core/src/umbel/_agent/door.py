"""The node's door on the network: for commands from other machines, on a head for the other nodes, and on to the processes of
this node.

The acceptor keeps strangers out of the daemon; here is decided what is behind the door. Who has come in for the agent is handed
to the hub with his role, nodes to the control service. A connection for a process is passed on to that as soon as its preamble
has been read, before anything is proved, and the process does the rest. Loaded only where a port was asked for.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from umbel._base.tokens import Role, Token
from umbel._transport import acceptor, addresses, connection
from umbel._wire import handshake


class Admit(Protocol):
    def __call__(self, stream: connection.Stream, *, may_change: bool) -> None: ...


class Door:
    """Open from the beginning to `close`.

    submit_token: as text, for the processes of this node; "" when the node's own role is a lower one.
    """

    def __init__(
        self,
        poller: connection.Poller,
        address: str,
        token: Token,
        admit: Admit,
        door_of: Callable[[bytes], str],
        *,
        tag: bytes,
        listens: bool = True,
        take_ticket: Callable[[socket.socket, handshake.Preamble], bool],
        admit_node: Callable[[connection.Stream], None] | None = None,
        admit_values: Callable[[connection.Stream], None],
        admit_packages: Callable[[connection.Stream], None],
        admit_lessee: Callable[[connection.Stream], None] | None = None,
        admit_program: Callable[[connection.Stream], None] | None = None,
        now_s: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        """admit(stream, may_change): of who has proved itself, and whether its role may change anything. door_of(id): the path
        at which a process of this node takes connections, "" if there is no such process. tag: of this node. listens: else
        connections only come that it makes itself, by `take`. take_ticket(socket, preamble): whether it has taken a connection
        that has come with a ticket. admit_node: of other nodes; None where they do not join. admit_values, admit_packages: of
        other nodes, which want values or packages. admit_lessee: of other nodes that want leases here. admit_program: of machines
        without a node. Raises OSError when the address is not to be had."""

        def on_peer(stream: connection.Stream, role: Role, target: handshake.Target) -> None:
            kind = handshake.TargetKind
            if target.kind is kind.CONTROL and admit_node is not None:
                admit_node(stream)
            elif target.kind is kind.VALUES:
                admit_values(stream)
            elif target.kind is kind.PACKAGES:
                admit_packages(stream)
            elif target.kind is kind.LEASES and admit_lessee is not None:
                admit_lessee(stream)
            elif target.kind is kind.DRIVERS and admit_program is not None:
                admit_program(stream)
            else:
                admit(stream, may_change=role >= Role.ADMIN)

        self.token = token  # its file may go once this node has started
        self._door_of = door_of
        self._take_ticket = take_ticket
        self._acceptor = acceptor.Acceptor(
            poller,
            token,
            on_peer,
            now_s=now_s,
            warn=warn,
            decide=lambda role, target: _decide(
                role,
                target,
                tag=tag,
                has_control=admit_node is not None,
                has_leases=admit_lessee is not None,
                has_drivers=admit_program is not None,
            ),
            divert=self._divert,
        )
        self.submit_token = token.lowered(Role.SUBMIT).as_text() if token.role >= Role.SUBMIT else ""
        parsed = addresses.parse(address)
        self.address = str(self._acceptor.listen(parsed) if listens else parsed._replace(port=0))

    def next_tick_s(self) -> float | None:
        return self._acceptor.next_tick_s()

    def tick(self) -> None:
        self._acceptor.tick()

    def take(self, sock: socket.socket, host: str) -> None:
        """A connection that this node has dialled, and whose other side wants something here."""
        self._acceptor.take(sock, host)

    def close(self) -> None:
        self._acceptor.close()

    def _divert(self, sock: socket.socket, preamble: handshake.Preamble) -> bool:
        if preamble.target.kind is not handshake.TargetKind.PROCESS:
            return self._take_ticket(sock, preamble)
        path = self._door_of(preamble.target.id)
        return bool(path) and pass_on(sock, preamble.data, path)


def pass_on(sock: socket.socket, preamble: bytes, path: str) -> bool:
    """Give a connection to the process that listens at `path`; False if there is none. Raises OSError when that process is too
    busy to take it, or the connection is gone."""
    try:
        data = preamble + acceptor.host_of(sock.getpeername()).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as way:
            way.setblocking(False)  # it does not wait for room in the listener's queue, nor for the process
            way.connect(path)
            socket.send_fds(way, [data], [sock.fileno()])
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError as error:
        raise ConnectionError(error.errno, "the process that it wants has as many to take as may wait") from error
    sock.close()
    return True


def _decide(
    role: Role, target: handshake.Target, *, tag: bytes, has_control: bool, has_leases: bool, has_drivers: bool
) -> handshake.Answer:
    answer = handshake.may_reach(role, target)
    if answer is not handshake.Answer.WELCOME:
        return answer
    if target.tag and target.tag != tag:
        return handshake.Answer.ELSEWHERE
    kind = handshake.TargetKind
    if target.kind in (kind.AGENT, kind.VALUES, kind.PACKAGES):
        return answer
    if target.kind is kind.CONTROL and has_control:
        return answer if role >= Role.NODE else handshake.Answer.FORBIDDEN
    if (target.kind is kind.LEASES and has_leases) or (target.kind is kind.DRIVERS and has_drivers):
        return answer
    return handshake.Answer.ABSENT  # no such process, or no head
