"""The node's door on the network: commands from other machines, and on a head the other nodes, once they have proved that
they have a token.

The acceptor keeps strangers out; here is decided what is behind the door. Whoever came in for the agent is handed to the hub
with his role, nodes to the control service. Loaded only where a port was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from umbel._base.tokens import Role, Token
from umbel._transport import acceptor, addresses, connection
from umbel._wire import handshake


class Admit(Protocol):
    def __call__(self, stream: connection.Stream, *, may_change: bool) -> None: ...


class Door:
    """Open from the beginning to `close`."""

    def __init__(
        self,
        poller: connection.Poller,
        address: str,
        token: Token,
        admit: Admit,
        *,
        admit_node: Callable[[connection.Stream], None] | None = None,
        now_s: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        """admit(stream, may_change): of who has proved itself, and whether its role may change anything. admit_node: of other
        nodes; None where they do not join. Raises OSError when the address is not to be had."""

        def on_peer(stream: connection.Stream, role: Role, target: handshake.Target) -> None:
            if target == handshake.CONTROL and admit_node is not None:
                admit_node(stream)
            else:
                admit(stream, may_change=role >= Role.ADMIN)

        self._acceptor = acceptor.Acceptor(
            poller,
            token,
            on_peer,
            now_s=now_s,
            warn=warn,
            decide=lambda role, target: _decide(role, target, has_control=admit_node is not None),
        )
        self.address = str(self._acceptor.listen(addresses.parse(address)))

    def next_tick_s(self) -> float | None:
        return self._acceptor.next_tick_s()

    def tick(self) -> None:
        self._acceptor.tick()

    def close(self) -> None:
        self._acceptor.close()


def _decide(role: Role, target: handshake.Target, *, has_control: bool) -> handshake.Answer:
    answer = handshake.may_reach(role, target)
    if answer is not handshake.Answer.WELCOME or target == handshake.AGENT:
        return answer
    if target == handshake.CONTROL and has_control:
        return answer if role >= Role.NODE else handshake.Answer.FORBIDDEN
    return handshake.Answer.ABSENT  # processes are not reached from outside yet
