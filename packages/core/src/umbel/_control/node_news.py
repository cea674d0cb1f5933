"""What the members of a cluster are yet to hear of its nodes, and when; and what a newcomer has to hear that they have heard.

Who has come or gone is told at once, to many members of several together. What else changes of nodes is told once in `PUBLISH_S`,
less often where that would be very much; each node once, as it is then. A newcomer is told by the same frames: by a listing,
made now and then, and what all were told since that. So who comes costs the head no look at every node. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from umbel._wire import frames

PUBLISH_S: Final = 1.0  # of changes to all members: their number is squared in this, and placing bears with a second
PUBLISH_S_MAX: Final = 5.0  # what is asked of a node by what is as old as that is tried elsewhere in the end
CHANGE_S: Final = 5e-7  # for one change to one member, of which a second has so many at most: some 100 MB
TOLD_AT_ONCE_MAX: Final = 50  # of so many members, all hear at once of each that comes or goes
TELL_S: Final = 0.0005  # above that, for each member, between two times that they hear of it: 2 % of the head's time
SINCE_MAX: Final = (
    32  # frames since a listing was made: few to send to a newcomer, and a listing takes as long as some of these
)

Facts = Mapping[str, Any]
Frame = TypeVar("Frame")


class Known(Protocol):
    """A node, as far as it is told of."""

    id: str
    state: Facts

    def listed(self) -> dict[str, Any]: ...


class News:
    """What is to be told of which node."""

    def __init__(self, now_s: float) -> None:
        self._come: dict[str, Known] = {}
        self._ended: dict[str, Facts] = {}
        self._changed: dict[str, Known] = {}
        self._told_s = self._published_s = now_s
        self._pause_s = PUBLISH_S

    def comes(self, node: Known) -> None:
        """A node is new to the members."""
        self._come[node.id] = node

    def changes(self, node: Known) -> None:
        """The state of a node is another. Though it may be what they have heard last: some have heard otherwise since, from the
        node itself."""
        self._changed[node.id] = node

    def ends(self, node: Known, end: Facts) -> None:
        """A node has died. Said also of one that they have not heard of: a newcomer may have it in his listing."""
        self._come.pop(node.id, None)
        self._changed.pop(node.id, None)
        self._ended[node.id] = end

    def due_s(self, member_count: int) -> float | None:
        """When something is to be told; None for nothing."""
        due = [self._told_s + _gap_s(member_count)] if self._come or self._ended else []
        if self._changed:
            due.append(self._published_s + self._pause_s)
        return min(due, default=None)

    def take(self, now_s: float, member_count: int) -> tuple[Facts, ...]:
        """What is due, which is told now: each names its "node_id", and has all facts of a node that is new."""
        told: dict[str, Facts] = {}
        if self._changed and now_s >= self._published_s + self._pause_s:
            told = {node.id: {"node_id": node.id, **node.state} for node in self._changed.values()}
            self._changed.clear()
            self._published_s = now_s
            self._pause_s = min(PUBLISH_S_MAX, max(PUBLISH_S, len(told) * member_count * CHANGE_S))
        if told or ((self._come or self._ended) and now_s >= self._told_s + _gap_s(member_count)):
            for node in self._come.values():
                told[node.id] = node.listed()
                self._changed.pop(node.id, None)
            told |= self._ended
            self._come, self._ended, self._told_s = {}, {}, now_s
        return tuple(told.values())

    def concerned(self) -> set[str]:
        """Nodes that live, of which something is to be told; for checks."""
        return self._come.keys() | self._changed.keys()


def _gap_s(member_count: int) -> float:
    return member_count * TELL_S if member_count > TOLD_AT_ONCE_MAX else 0.0


class Told(Generic[Frame]):
    """The frames of what all members have been told since some listing, with that. encode: of a message with a list of nodes,
    given in JSON."""

    def __init__(self, encode: Callable[[str, str], Frame], size: Callable[[Frame], int]) -> None:
        self._encode = encode
        self._size = size
        self._texts: dict[str, str] = {}  # of each node, as it was listed last; the dead come last
        self._listing: list[Frame] = []  # one, or none
        self._since: list[Frame] = []

    def tell(self, changes: Iterable[Facts]) -> Frame:
        """The frame for all members."""
        frame = self._encode("nodes", frames.to_json(list(changes)))
        if self._listing:
            self._since.append(frame)
            bytes_since = sum(map(self._size, self._since))
            if len(self._since) > SINCE_MAX or bytes_since > self._size(self._listing[0]):
                self._listing, self._since = [], []
        return frame

    def all(self, relisted: Callable[[], Mapping[str, Facts | None]]) -> list[Frame]:
        """For a newcomer, in order: from these he knows what members know, or will be told. relisted: of the nodes that have
        changed since this was asked last, how they are listed now; None for one that is no more."""
        if not self._listing:
            for node_id, listed in relisted().items():
                self._texts.pop(node_id, None)
                if listed is not None:
                    self._texts[node_id] = frames.to_json(listed)
            self._listing = [self._encode("listing", f"[{','.join(self._texts.values())}]")]
        return [*self._listing, *self._since]
