"""What placement groups hold of a node.

A bundle is a part of the node with a ledger of its own: its amounts and its devices are taken from the node when it is
reserved, and what runs in it takes them from the bundle. It goes back to the node as a whole, once nobody wants it and
nothing runs in it any more. Decides nothing about who gets one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from umbel._agent import events as ev
from umbel._agent.ledger import UNIT, Ledger
from umbel._base import checks

MARK_UNITS = 1_000 * UNIT  # of what a listing shows of each bundle beside its resources, as Ray does: `bundle_group_…`


class Bundle:
    """One bundle that this node holds."""

    __slots__ = ("attempt", "devices", "group", "index", "is_committed", "job", "lease_count", "ledger", "resources")

    def __init__(
        self,
        group: str,
        index: int,
        attempt: int,
        resources: Mapping[str, int],
        devices: Mapping[str, tuple[str, ...]],
        job: ev.Job,
    ) -> None:
        self.group = group
        self.index = index
        self.attempt = attempt
        self.resources = resources
        self.devices = devices
        self.job = job
        self.ledger = Ledger.part(resources, devices)
        self.is_committed = False  # whether leases may be given in it
        self.lease_count = 0


def missing(room: Ledger, wanted: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    """What is not free there now for all of these bundles together, as `Ledger.missing`: their sum may be where they, each
    with whole devices or a share of one, are not, and the other way round."""
    if len(wanted) == 1:
        return room.missing(*wanted.values())
    left = room.copy()
    found: dict[str, int] = {}
    for resources in wanted.values():
        lacking = left.missing(resources)
        for name, amount in lacking.items():
            found[name] = found.get(name, 0) + amount
        if lacking:
            left.hold(resources)
        else:
            left.acquire(resources)
    return found


class Bundles:
    """All bundles of a node, and what they take of its ledger."""

    __slots__ = ("_node", "ending", "held")

    def __init__(self, node: Ledger) -> None:
        self._node = node
        self.held: dict[str, dict[int, Bundle]] = {}  # by group and index
        self.ending: list[Bundle] = []  # unwanted, with something in them that has not ended

    def __iter__(self) -> Iterator[Bundle]:
        for of_group in self.held.values():
            yield from of_group.values()
        yield from self.ending

    def reserve(
        self, group: str, attempt: int, wanted: Mapping[int, Mapping[str, int]], job: ev.Job = ev.NO_JOB
    ) -> None:
        """Take these bundles, which must be free, out of the node."""
        of_group = self.held.setdefault(group, {})
        for index, resources in wanted.items():
            checks.invariant(index not in of_group, "a bundle is reserved twice", group=group, index=index)
            of_group[index] = Bundle(group, index, attempt, resources, self._node.acquire(resources), job)

    def commit(self, group: str, attempt: int) -> bool:
        """Let leases into the bundles of this attempt; whether there are any."""
        found = [one for one in self.held.get(group, {}).values() if one.attempt == attempt]
        for bundle in found:
            bundle.is_committed = True
        return bool(found)

    def give_up(self, group: str, attempt: int | None = None) -> list[Bundle]:
        """Nobody wants the group's bundles, or those of one attempt: what is empty goes back to the node. Returns the
        others, which go back with the last lease in them."""
        of_group = self.held.get(group, {})
        busy: list[Bundle] = []
        for index, bundle in list(of_group.items()):
            if attempt not in (None, bundle.attempt):
                continue
            del of_group[index]
            if bundle.lease_count:
                busy.append(bundle)
            else:
                self._node.release(bundle.resources, bundle.devices)
        if not of_group:
            self.held.pop(group, None)
        self.ending += busy
        return busy

    def usable(self, group: str, index: int) -> list[Bundle]:
        """Those in which what asks for this bundle of the group, or for any by -1, can be run."""
        of_group = self.held.get(group, {})
        found: Iterable[Bundle] = of_group.values() if index < 0 else [of_group[index]] if index in of_group else ()
        return [one for one in found if one.is_committed]

    def by_attempt(self) -> list[tuple[str, int, list[int], bool]]:
        """All that is held: group, attempt, indices, and whether leases may be given in them."""
        found: dict[tuple[str, int], list[Bundle]] = {}
        for group, of_group in self.held.items():
            for bundle in of_group.values():
                found.setdefault((group, bundle.attempt), []).append(bundle)
        return [(*place, [one.index for one in held], held[0].is_committed) for place, held in found.items()]

    def lease_ended(self, bundle: Bundle) -> None:
        """Its resources have been given back to the bundle."""
        bundle.lease_count -= 1
        if not bundle.lease_count and bundle in self.ending:
            self.ending.remove(bundle)
            self._node.release(bundle.resources, bundle.devices)

    def as_resources(self, *, free: bool) -> dict[str, int]:
        """What all bundles have, or have free, in units under the names that programs know: `CPU_group_0_<id>` of one
        bundle and `CPU_group_<id>` of a group."""
        found: dict[str, int] = {}
        for of_group in self.held.values():
            for bundle in of_group.values():
                if not bundle.is_committed:
                    continue
                amounts = bundle.ledger.free if free else bundle.ledger.total
                for name, amount in {**amounts, "bundle": MARK_UNITS}.items():
                    for suffix in (f"group_{bundle.index}_{bundle.group}", f"group_{bundle.group}"):
                        shown = f"{name}_{suffix}"
                        found[shown] = found.get(shown, 0) + max(0, amount)
        return found

    def check(self) -> None:
        for group, of_group in self.held.items():
            checks.invariant(bool(of_group), "a group that holds nothing", group=group)
            for index, bundle in of_group.items():
                is_right = (bundle.group, bundle.index) == (group, index)
                checks.invariant(is_right, "a bundle in another's place", group=group, index=index)
        for bundle in self:
            bundle.ledger.check()
            checks.invariant(
                bundle.is_committed or not bundle.lease_count,
                "a lease in a bundle that was not committed",
                group=bundle.group,
            )
            if not bundle.lease_count:
                is_whole = bundle.ledger.free == bundle.ledger.total
                checks.invariant(is_whole, "an empty bundle that is not free", group=bundle.group, index=bundle.index)
        for bundle in self.ending:
            checks.invariant(bundle.lease_count > 0, "an empty bundle was kept", group=bundle.group, index=bundle.index)


class Promises:
    """What is free, of the node and of each bundle, and not meant for a worker that is starting."""

    __slots__ = ("_bundles", "_node")

    def __init__(self, node: Ledger) -> None:
        self._node = node.copy()
        self._bundles: dict[Bundle, Ledger] = {}

    def of(self, bundle: Bundle | None) -> Ledger:
        """The ledger of a bundle; of the node for None."""
        if bundle is None:
            return self._node
        found = self._bundles.get(bundle)
        if found is None:
            found = self._bundles[bundle] = bundle.ledger.copy()
        return found
