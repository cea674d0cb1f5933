"""Of which nodes without room a wish is asked that its job is entitled to.

What a job is entitled to, others give up, on nodes that only they know. So it is asked of all that could hold it, in an order of
the process's own, so that many do not all ask the same ones: of each for as much as is its part of what there is. A node says how
much of that it will grant once leases that it asks back have come: what it *promises*. What it has not promised after `SETTLE_S`
waits where it did before, and is asked of the next ones. Pure.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Final

from umbel._model import placement, resources

SETTLE_S: Final = 4.0  # until all know of a change, and have drawn once; shorter than a wait for who has nothing there
REST_STEP_S: Final = 3.0  # longer for each time that nobody has promised anything
REST_MAX_S: Final = 12.0
FACTOR_BITS_MAX: Final = 12  # all nodes of a large cluster


class FullNodes:
    """What has become of one wish at nodes without room."""

    __slots__ = ("_fruitless_count", "_since_s", "asked_s", "promised", "rests_until_s")

    def __init__(self) -> None:
        self.promised: dict[str, int] = {}  # by node, as said last, less what was granted since
        self.rests_until_s = -math.inf  # it is asked of nobody before
        self._since_s: dict[str, float] = {}  # nodes that are asked
        self.asked_s: dict[str, float] = {}  # when each was asked last, of those that are there
        self._fruitless_count = 0

    def is_asked(self, node: str) -> bool:
        return node in self._since_s

    @property
    def factor(self) -> int:
        """So many times as much as it may have is asked for: who has it may be one of many, and the others promise nothing."""
        return int(2 ** min(self._fruitless_count, FACTOR_BITS_MAX))

    def promises(self, node: str, lease_count: int) -> None:
        self.promised[node] = lease_count
        if lease_count and node in self._since_s:
            self._fruitless_count = 0

    def granted(self, node: str) -> None:
        if self.promised.get(node):
            self.promised[node] -= 1

    def forget(self, node: str) -> None:
        """Nothing is asked of it any more."""
        self.promised.pop(node, None)
        self._since_s.pop(node, None)

    def lost(self, node: str) -> None:
        """It is gone for good."""
        self.asked_s.pop(node, None)

    def asked(self, node: str, at_s: float) -> None:
        self._since_s[node] = self.asked_s[node] = at_s

    def waits_on(self, node: str) -> None:
        """It is the wish's queue."""
        self._since_s.pop(node, None)

    def is_late(self, node: str, at_s: float) -> bool:
        """Whether it has had time to promise what it was asked for."""
        since_s = self._since_s.get(node)
        return since_s is not None and at_s >= since_s + SETTLE_S

    def under_way(self, at_s: float) -> list[str]:
        """Nodes of whose answer nobody knows yet."""
        return [node for node in self._since_s if not self.is_late(node, at_s)]

    def refused(self, node: str, at_s: float) -> None:
        """It had time, and has promised too little."""
        if not self.promised.get(node) and at_s > self.rests_until_s:  # the first one of those that were asked at once
            self._fruitless_count += 1
            self.rests_until_s = at_s + min(REST_MAX_S, REST_STEP_S * (self._fruitless_count - 1))

    def parts(
        self,
        place: tuple[str, str],
        count: int,
        needs: resources.ResourceSet,
        near: Sequence[str],
        able: Sequence[placement.NodeView],
    ) -> list[tuple[str, int]]:
        """How many leases to ask of which nodes. place: the wish's process and key. near: nodes that some had better be of. able:
        nodes that could ever hold one, and have no room now."""
        fitting = {node.node_id: min(node.total.get(name, 0) // need for name, need in needs.items()) for node in able}
        in_all, left = sum(fitting.values()), count
        found = []
        for node in sorted(fitting, key=lambda one: self._turn(place, one, near)):
            part = min(left, -(-count * fitting[node] // in_all))
            if part:
                found.append((node, part))
                left -= part
        return found

    def _turn(self, place: tuple[str, str], node: str, near: Sequence[str]) -> tuple[float, bool, int]:
        order = zlib.crc32(f"{place[0]} {place[1]} {node}".encode())
        return self.asked_s.get(node, -math.inf), node not in near, order
