"""The node's door on the network: commands from other machines, once they have proved that they have a token.

The acceptor keeps strangers out; here is decided what is behind the door, and whoever came in is handed to the hub with his
role. Loaded only where a port was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from umbel._base import token_files
from umbel._base.tokens import Role
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
        token_file: str,
        admit: Admit,
        *,
        now_s: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        """admit(stream, may_change): of who has proved itself, and whether its role may change anything. Raises OSError when
        the address is not to be had, AuthenticationError when there is no token."""
        self._acceptor = acceptor.Acceptor(
            poller,
            token_files.read(token_file),
            lambda stream, role, _target: admit(stream, may_change=role >= Role.ADMIN),
            now_s=now_s,
            warn=warn,
            decide=_decide,
        )
        self.address = str(self._acceptor.listen(addresses.parse(address)))

    def next_tick_s(self) -> float | None:
        return self._acceptor.next_tick_s()

    def tick(self) -> None:
        self._acceptor.tick()

    def close(self) -> None:
        self._acceptor.close()


def _decide(role: Role, target: handshake.Target) -> handshake.Answer:
    answer = handshake.may_reach(role, target)
    if answer is handshake.Answer.WELCOME and target != handshake.AGENT:
        return handshake.Answer.ABSENT  # processes and the control store are not reached from outside yet
    return answer
