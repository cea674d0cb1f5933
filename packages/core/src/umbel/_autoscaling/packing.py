"""Where what waits would go: into room that is there or comes, or else onto nodes that could be launched.

Vectors of amounts into bins of several sizes, at most so many of each size: first-fit decreasing, and for what is left the bin
that, filled by first-fit decreasing, wastes least, again and again. Sources: Friesen and Langston, "Variable Sized Bin
Packing", SIAM Journal on Computing 15 (1986), for filling the bins of one size in turn; Ray's `ResourceDemandScheduler`, for
choosing the next bin by how well it is used. Unlike Ray's, waste is counted over what is asked for only, and equal bins
are one `Room` as long as they are filled alike: the cost grows with the number of different shapes and of nodes that are there,
not of tasks nor of nodes to be launched.

Groups have all their bundles placed, or none. It is an estimate: who really goes where is the scheduler's to say.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from umbel._autoscaling import demand, node_types
from umbel._model import node_labels, resources
from umbel._scheduling import bundles

# Why a type of nodes does not serve what waits.
LABELS: Final = "labels"
TOO_SMALL: Final = "too small"
TYPE_MAX: Final = "max_workers of the type"
CLUSTER_MAX: Final = "max_workers of the cluster"
FAILING: Final = "failing"
TOGETHER: Final = "together"  # it could hold each of a group's bundles, but not all of them with what there is

# Every node has these, so to leave some of it unused wastes nothing special.
_COMMON: Final = frozenset({resources.CPU, resources.MEMORY, resources.OBJECT_STORE_MEMORY})


class Looked(NamedTuple):
    """One type of nodes that was looked at in vain. kind: of those above."""

    type_name: str
    kind: str
    why: str


class Unplaced(NamedTuple):
    """What found no room. what: in words. looked: at every type. able_count: nodes that are there and could hold it, once what
    runs on them has ended."""

    what: str
    unit_count: int
    looked: tuple[Looked, ...]
    able_count: int = 0


class Room:
    """One node, or `count` in a row of which each has the same left: what is left of it. whole: what it has in all. type_name:
    "" for one that was not launched here. cause: what it is needed for first. rest: those after them in the row, which were like
    them and are filled otherwise by now."""

    __slots__ = ("cause", "count", "is_new", "labels", "left", "name", "rest", "special", "type_name", "whole")

    def __init__(
        self,
        name: str,
        type_name: str,
        whole: Mapping[str, int],
        labels: Mapping[str, str],
        left: Mapping[str, int] | None = None,
        *,
        count: int = 1,
        is_new: bool = False,
    ) -> None:
        """left: None for all of it."""
        self.name = name
        self.type_name = type_name
        self.whole = whole
        self.left = dict(whole if left is None else left)
        self.labels = labels
        self.special = _special(whole)
        self.is_new = is_new
        self.count = count
        self.cause = ""
        self.rest: Room | None = None

    def row(self) -> Iterator[Room]:
        """It, and its rest, which may be made while one is being looked at."""
        room: Room | None = self
        while room is not None:
            yield room
            room = room.rest

    def split(self, count: int, name: str) -> None:
        """It stands for so many, and a rest of that name for the others."""
        rest = Room(
            name, self.type_name, self.whole, self.labels, self.left, count=self.count - count, is_new=self.is_new
        )
        rest.cause, rest.rest = self.cause, self.rest
        self.count, self.rest = count, rest

    def unsplit(self) -> None:
        """What is left of the rest is what is left of it."""
        if self.rest is not None:
            self.count, self.rest = self.count + self.rest.count, self.rest.rest


class Offer:
    """A type of nodes of which `left` more may be launched. resources: what its nodes really have. refusal: why not now."""

    __slots__ = ("labels", "left", "max_workers", "name", "refusal", "resources", "special")

    def __init__(self, made: node_types.NodeType, found: resources.ResourceSet, left: int, refusal: str = "") -> None:
        self.name = made.name
        self.labels = made.labels
        self.max_workers = made.max_workers
        self.resources = found
        self.left = left
        self.refusal = refusal
        self.special = _special(found)


class Offers:
    """Of all types, in order. left: of all together."""

    def __init__(self, offers: Sequence[Offer], left: int, max_workers: int) -> None:
        self.all = offers
        self.left = left
        self.max_workers = max_workers
        self._ranks: dict[tuple[str, tuple[node_labels.Selector, ...]], int | None] = {}

    def rank(self, shape: demand.Shape, offer: Offer) -> int | None:
        """Which of the shape's selectors the type meets; None for none."""
        if not shape.label_selectors:
            return 0
        key = offer.name, shape.label_selectors
        if key not in self._ranks:
            self._ranks[key] = _rank(shape, offer.labels)
        return self._ranks[key]

    def can(self, offer: Offer) -> int:
        """How many more of it can be launched now."""
        return 0 if offer.refusal else max(0, min(offer.left, self.left))


class _Line:
    """Rows that a shape may go to, whatever its amounts, of those with one selector's labels; keeps_nothing: that keep no devices
    from others. seen_count: of all rows, which were looked at. full_counts: by amounts, so many at the beginning have no room for
    that."""

    __slots__ = ("full_counts", "keeps_nothing", "rooms", "seen_count", "selector")

    def __init__(self, selector: node_labels.Selector, *, keeps_nothing: bool) -> None:
        self.selector = selector
        self.keeps_nothing = keeps_nothing
        self.rooms: list[Room] = []
        self.seen_count = 0
        self.full_counts: dict[resources.ResourceSet, int] = {}


class Packer:
    """Places one thing after another in rooms, whose list grows by what is to be launched."""

    def __init__(self, rooms: Iterable[Room], offers: Offers, *, serves_most: bool = False) -> None:
        """rooms: those to be filled first come first. serves_most: launch what serves most, whatever it wastes."""
        self._rows = list(rooms)
        self._serves_most = serves_most
        self.offers = offers
        self._undo: list[Callable[[], None]] = []  # what was taken, the last first
        self._hopeless: dict[demand.Group, Unplaced] = {}  # room only becomes less
        # By label selectors and devices.
        self._lines: dict[tuple[tuple[node_labels.Selector, ...], frozenset[str]], list[_Line]] = {}
        self._launch_count = self._split_count = 0

    @property
    def rooms(self) -> list[Room]:
        """In their order."""
        return [room for row in self._rows for room in row.row()]

    # what places

    def launch(self, offer: Offer, cause: str, count: int) -> Room:
        """So many more nodes of a type."""
        self._launch_count += 1
        name = f"new {offer.name} {self._launch_count}"
        room = Room(name, offer.name, offer.resources, offer.labels, count=count, is_new=True)
        room.cause = cause
        offer.left -= count
        self.offers.left -= count
        self._rows.append(room)
        return room

    def place(self, shapes: Iterable[demand.Shape], cause: str) -> list[Unplaced]:
        """As much of it as there is room for, the largest first. cause: `{}` stands for the shape, in words."""
        left = self._pack(sorted(demand.merged(shapes), key=self._size, reverse=True), cause)
        return [
            Unplaced(demand.in_words(shape, count), count, self.looked(shape), self._able_count(shape))
            for shape, count in left
        ]

    def place_group(self, group: demand.Group, cause: str) -> Unplaced | None:
        """All of it, or nothing. None: all of it has room."""
        kind = group._replace(group="")
        hopeless = self._hopeless.get(kind)
        if hopeless is None:
            hopeless = self._attempt(group, cause)
            if hopeless is None:
                return None
            self._hopeless[kind] = hopeless
        return hopeless._replace(what=f"placement group {group.group} ({group.strategy})")

    def _attempt(self, group: demand.Group, cause: str) -> Unplaced | None:
        self._undo = []
        before = len(self._rows)
        if group.strategy == bundles.STRICT_PACK:
            failed = self._on_one(group, cause)
        elif group.strategy == bundles.STRICT_SPREAD:
            failed = self._apart(group, cause)
        else:
            shapes = demand.merged(group.shape(index) for index in range(len(group.bundles)))
            left = self._pack(sorted(shapes, key=self._size, reverse=True), cause)
            failed = left[0][0] if left else None
        if failed is None:
            return None
        looked, able_count = self.looked(failed, in_group=True), self._able_count(failed)
        if self._undo:
            self._lines.clear()  # there is more room again
        for undo in reversed(self._undo):
            undo()
        for room in self._rows[before:]:
            next(one for one in self.offers.all if one.name == room.type_name).left += room.count
            self.offers.left += room.count
        del self._rows[before:]
        return Unplaced("", 1, looked, able_count)

    def _on_one(self, group: demand.Group, cause: str) -> demand.Shape | None:
        """Whether all of it goes on one node; the shape that does not."""
        shape = group.as_one()
        if not group.placed_on:
            return None if self._one(shape, cause, frozenset()) else shape
        home = set(group.placed_on)
        others = frozenset(room.name for room in self.rooms if {room.name} != home)
        return None if self._one(shape, cause, others, launches=False) else shape

    def _apart(self, group: demand.Group, cause: str) -> demand.Shape | None:
        """Each on a node of its own, by turns: the one with fewest types to choose from first, of those the largest."""
        used = set(group.placed_on)
        shapes = [group.shape(index) for index in range(len(group.bundles))]
        for shape in sorted(shapes, key=lambda one: (-self._type_count(one), self._size(one)), reverse=True):
            room = self._one(shape, cause, used)
            if room is None:
                return shape
            used.add(room.name)
        return None

    def _one(
        self, shape: demand.Shape, cause: str, excluded: frozenset[str] | set[str], *, launches: bool = True
    ) -> Room | None:
        for room in self._suitable(shape):
            if room.name not in excluded:
                self._take(self._first(room, 1), shape, 1, cause)
                return room
        if not launches:
            return None
        return None if self._launch_for([(shape, 1)], cause) else self._rows[-1]

    def _pack(self, shapes: Sequence[demand.Shape], cause: str) -> list[tuple[demand.Shape, int]]:
        """What is left over, and how many of each."""
        left = []
        for shape in shapes:
            count = shape.unit_count
            for room in self._suitable(shape):
                times = _times(room.left, shape.resources, count)
                filled = min(room.count, count // times)
                self._take(self._first(room, filled), shape, times, cause)
                count -= times * filled
                if not count:
                    break
            if count:
                left.append((shape, count))
        return self._launch_for(left, cause)

    def _launch_for(self, left: list[tuple[demand.Shape, int]], cause: str) -> list[tuple[demand.Shape, int]]:
        """Nodes for these, of the type that wastes least, until no type takes any more; what is left."""
        while left:
            fills = [
                (self._score(offer, fill, left), index, fill)
                for index, offer in enumerate(self.offers.all)
                if self.offers.can(offer) and (fill := self._filled(offer, left))
            ]
            if not fills:
                break
            _, index, fill = min(fills)
            offer = self.offers.all[index]
            alike = min(self.offers.can(offer), *(left[at][1] // times for at, times in fill))
            room = self.launch(offer, "", alike)
            for at, times in fill:
                self._take(room, left[at][0], times, cause)
            counts = {at: times * alike for at, times in fill}
            left = [(shape, count - counts.get(at, 0)) for at, (shape, count) in enumerate(left)]
            left = [(shape, count) for shape, count in left if count]
        return left

    def _filled(self, offer: Offer, left: Sequence[tuple[demand.Shape, int]]) -> list[tuple[int, int]]:
        """What one node of the type takes: indices, and how many of each."""
        room = dict(offer.resources)
        fill = []
        for at, (shape, count) in enumerate(left):
            times = _times(room, shape.resources, count) if self.offers.rank(shape, offer) is not None else 0
            if times:
                _give(room, shape.resources, -times)
                fill.append((at, times))
        return fill

    def _score(
        self, offer: Offer, fill: Sequence[tuple[int, int]], left: Sequence[tuple[demand.Shape, int]]
    ) -> tuple[float, ...]:
        """Less is better: labels further down the list, devices that nobody asks for, waste; then the fewest nodes."""
        asked: dict[str, int] = {}
        for at, times in fill:
            for name, amount in left[at][0].resources.items():
                asked[name] = asked.get(name, 0) + amount * times
        shares = [1 - amount / offer.resources[name] for name, amount in asked.items()]
        waste = sum(shares) / len(shares) if shares else 1.0
        rank = self.offers.rank(left[fill[0][0]][0], offer) or 0
        served = sum(times for _, times in fill)
        if self._serves_most:
            return rank, -served, waste
        return rank, len(offer.special - asked.keys()), round(waste, 6), -served

    def _suitable(self, shape: demand.Shape) -> Iterator[Room]:
        """Rooms in which it fits now, by the order of its labels, those first that keep no devices from others.

        Room only becomes less, so the full ones at the beginning are looked at once for each shape.
        """
        for line in self._lines_of(shape):
            at = full_count = line.full_counts.get(shape.resources, 0)
            while at < len(line.rooms):
                is_full = True
                for room in line.rooms[at].row():
                    if _times(room.left, shape.resources, 1):
                        is_full = False
                        yield room
                if is_full and at == full_count:
                    full_count = line.full_counts[shape.resources] = full_count + 1
                at += 1

    def _lines_of(self, shape: demand.Shape) -> list[_Line]:
        special = _special(shape.resources)
        key = shape.label_selectors, special
        lines = self._lines.get(key)
        if lines is None:
            selectors = shape.label_selectors or ((),)
            lines = self._lines[key] = [_Line(one, keeps_nothing=keeps) for one in selectors for keeps in (True, False)]
        for line in lines:
            for room in itertools.islice(self._rows, line.seen_count, None):
                if (room.special <= special) is line.keeps_nothing and node_labels.meets(line.selector, room.labels):
                    line.rooms.append(room)
            line.seen_count = len(self._rows)
        return lines

    def _first(self, room: Room, count: int) -> Room:
        """So many of its nodes, from now on the room itself."""
        if count < room.count:
            self._split_count += 1
            room.split(count, f"{room.name}, part {self._split_count}")
            self._undo.append(room.unsplit)
        return room

    def _take(self, room: Room, shape: demand.Shape, times: int, cause: str) -> None:
        """From each of its nodes."""
        before = room.cause

        def undo() -> None:
            _give(room.left, shape.resources, times)
            room.cause = before

        self._undo.append(undo)
        _give(room.left, shape.resources, -times)
        if not room.cause:
            room.cause = cause.format(demand.in_words(shape, times)) if "{}" in cause else cause

    # what explains

    def looked(self, shape: demand.Shape, *, in_group: bool = False) -> tuple[Looked, ...]:
        return tuple(self.looked_at(offer, shape, in_group=in_group) for offer in self.offers.all)

    def looked_at(self, offer: Offer, shape: demand.Shape, *, in_group: bool = False) -> Looked:
        name = offer.name
        if self.offers.rank(shape, offer) is None:
            wanted = node_labels.in_words(shape.label_selectors)
            return Looked(name, LABELS, f"its labels are {dict(offer.labels)}, not {wanted}")
        if not shape.resources.fits_in(offer.resources):
            has = "{" + ", ".join(f"{one}: {amount:g}" for one, amount in _had(offer, shape).items()) + "}"
            needs = demand.amounts_in_words(shape.resources)
            return Looked(name, TOO_SMALL, f"a node of it has {has}, less than {needs}")
        if offer.refusal:
            return Looked(name, FAILING, offer.refusal)
        if offer.left <= 0:
            return Looked(name, TYPE_MAX, f"its max_workers of {offer.max_workers} are there or are to be launched")
        if self.offers.left <= 0:
            all_in_all = self.offers.max_workers
            return Looked(
                name, CLUSTER_MAX, f"the cluster's max_workers of {all_in_all} are there or are to be launched"
            )
        return Looked(name, TOGETHER, "not with the group's other bundles" if in_group else "not with the rest")

    def _able_count(self, shape: demand.Shape) -> int:
        return sum(
            room.count
            for room in self.rooms
            if not room.is_new and shape.resources.fits_in(room.whole) and _rank(shape, room.labels) is not None
        )

    def _type_count(self, shape: demand.Shape) -> int:
        """How many types could hold it."""
        return sum(
            shape.resources.fits_in(offer.resources) and self.offers.rank(shape, offer) is not None
            for offer in self.offers.all
        )

    def _size(self, shape: demand.Shape) -> tuple[int, bool, float]:
        """Devices first, then what only some nodes may hold, then by its largest share of the largest type."""
        largest = 0.0
        for name, amount in shape.resources.items():
            most = max((offer.resources.get(name, 0) for offer in self.offers.all), default=0)
            largest = max(largest, amount / max(1, most))
        return len(_special(shape.resources)), bool(shape.label_selectors), largest


def _had(offer: Offer, shape: demand.Shape) -> dict[str, float]:
    """What a node of the type has of what the shape asks for."""
    has = offer.resources.to_floats()
    return {name: has.get(name, 0.0) for name in shape.resources.to_floats()}


def _special(amounts: Mapping[str, int]) -> frozenset[str]:
    """Kinds that not every node has: devices, above all."""
    return frozenset(
        name for name, amount in amounts.items()
        if amount and name not in _COMMON and not name.startswith(resources.NODE_PREFIX)
    )  # fmt: skip


def _rank(shape: demand.Shape, labels: Mapping[str, str]) -> int | None:
    """Which of the shape's selectors the labels meet; None for none."""
    if not shape.label_selectors:
        return 0
    for rank, selector in enumerate(shape.label_selectors):
        if node_labels.meets(selector, labels):
            return rank
    return None


def _times(room: Mapping[str, int], wanted: resources.ResourceSet, count: int) -> int:
    """How often it fits, `count` at most."""
    for name, amount in wanted.items():
        count = min(count, room.get(name, 0) // amount)
        if count <= 0:
            return 0
    return count


def _give(room: dict[str, int], amounts: resources.ResourceSet, times: int) -> None:
    for name, amount in amounts.items():
        room[name] = room.get(name, 0) + amount * times
