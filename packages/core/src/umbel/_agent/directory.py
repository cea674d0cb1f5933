"""Where the nodes of the cluster are, as this one knows it: for its processes, which connect to those of others.

Whoever knows of the nodes fills it. A node is known by its tag, which the ids of its processes have in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umbel._base import nodes
from umbel._transport import addresses


class Directory:
    """Of all nodes; this one may be in it, but cannot die."""

    def __init__(
        self,
        own_tag: bytes,
        send: Callable[[str, dict[str, Any]], None],
        tell_processes: Callable[[dict[str, Any]], None],
    ) -> None:
        """send: to a client; tell_processes: to all drivers and workers of this node."""
        self.own_tag = own_tag
        self._send = send
        self._tell_processes = tell_processes
        self._addresses: dict[bytes, str] = {}
        self._draining: dict[bytes, None] = {}  # other nodes that are being drained

    def set(self, tag: bytes, address: str) -> None:
        """A node is there, to be reached at this address. Raises InvalidOption for what is none."""
        self._addresses[tag] = str(addresses.parse(address))

    def forget(self, tag: bytes) -> None:
        """A node has died, for good: to the processes here, all of its own are dead from now on. Of this one they know better,
        whatever others think."""
        if tag == self.own_tag:
            return
        self._draining.pop(tag, None)
        if self._addresses.pop(tag, None) is not None:
            self._tell_processes({"t": "node_gone", "node": tag.hex()})

    def drains(self, tag: bytes) -> None:
        """A node is being drained: owners of values that lie there take them over."""
        if tag != self.own_tag and tag in self._addresses and tag not in self._draining:
            self._draining[tag] = None
            self._tell_processes(_draining(tag))

    def on_joined(self, client: str) -> None:
        """A process of this node has come."""
        for tag in self._draining:
            self._send(client, _draining(tag))

    def address_of(self, tag: bytes) -> str:
        """ "" for a node that is not known."""
        return self._addresses.get(tag, "")

    def is_elsewhere(self, process: str) -> bool:
        """Whether a process, by its id in hexadecimal, is of another node that is there."""
        tag = nodes.tag_of_process(_bytes(process))
        return tag != self.own_tag and tag in self._addresses

    def on_find(self, client: str, node: str, *, is_dialled: bool) -> None:
        """A process asks for a node, by its tag in hexadecimal. is_dialled: as far as this node knows."""
        address = self.address_of(_bytes(node))
        self._send(client, {"t": "node_at", "node": node, "address": address, "is_dialled": is_dialled})


def _draining(tag: bytes) -> dict[str, Any]:
    return {"t": "node_draining", "node": tag.hex()}


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
