"""The connections from one rank to the others where some are on other machines: frames go as packets to their inboxes.

The same as `links` in all else. The packets of two ranks go over the connection that their processes have for calls and values,
so they get to whatever node these do, by whatever way, and both sides have proved themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

from umbel import exceptions
from umbel._base import nodes
from umbel._client import inboxes
from umbel.util.collective import links, rounds, waiting

# Of them `rounds.INBOX_FRAMES_MAX` wait here for each rank, at most; each costs a way there and back.
BODY_BYTES_MAX = 1 << 20


class FarLinks:
    """As `links.Links`. Owns the inbox."""

    is_one_machine = False
    body_bytes_max = BODY_BYTES_MAX

    def __init__(self, box: inboxes.Inbox, processes: Mapping[int, bytes], own_rank: int) -> None:
        """processes: of all ranks."""
        box.is_owned = True
        self._box = box
        self._processes = processes
        self._ranks = {process: rank for rank, process in processes.items() if rank != own_rank}
        for process in self._ranks:
            box.watch(process)

    def send(self, rank: int, frame: rounds.Frame, _timeout_s: float, descriptor: int = -1) -> None:
        """Waits for nothing: what a rank has not read is bounded by what it may be told before it answers."""
        if descriptor >= 0:
            raise exceptions.UnsupportedFeature(
                f"this backend hands open files from rank to rank, which it can on one machine only, and {self._places()}; place "
                'the ranks on one node, or use the backend "shm" or "gloo", which work on several'
            )
        if frame.kind is not rounds.Kind.BYE:  # `close` says it
            self._box.send(self._processes[rank], packet_of(frame))

    def receive(
        self, timeout_s: float, _descriptors: dict[int, int] | None = None
    ) -> list[tuple[int, rounds.Frame | None]]:
        return [
            (self._ranks[process], None if packet is None else links.frame_of(packet))
            for process, packet in self._box.receive(timeout_s)
            if process in self._ranks
        ]

    def close(self) -> None:
        """Idempotent."""
        self._box.close(packet_of(rounds.Frame(rounds.Kind.BYE)))

    def _places(self) -> str:
        """Which ranks are where, in words."""
        by_node: dict[bytes, list[int]] = {}
        for rank, process in sorted(self._processes.items()):
            by_node.setdefault(nodes.tag_of_process(process), []).append(rank)
        return ", ".join(
            f"{waiting.ranks_in_words(ranks)} {'are' if len(ranks) > 1 else 'is'} on {node_in_words(tag)}"
            for tag, ranks in by_node.items()
        )


def packet_of(frame: rounds.Frame) -> bytes:
    return b"".join(links.packet_of(frame))


def node_in_words(tag: bytes) -> str:
    return f"the node whose id begins with {tag.hex()}"
