"""What a node has, and how much of it is free.

Amounts are integer units of 1/10,000, so that fractions add up exactly. Accelerators with ids are handed out as ids:
whole amounts as whole devices, an amount below one as a share of one device. Decides nothing about who gets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from umbel._base import checks

UNIT = 10_000  # the same as umbel._model.resources.RESOURCE_UNIT
CPU = "CPU"
_OF_BYTES = ("memory", "object_store_memory")


class Ledger:
    """Totals, free amounts, and the free share of every accelerator device."""

    __slots__ = ("_slots", "free", "total")

    def __init__(self, total: Mapping[str, int], accelerator_ids: Mapping[str, Sequence[str]]) -> None:
        self.total = dict(total)
        self.free = dict(total)
        self._slots = {
            name: dict.fromkeys(ids, UNIT)
            for name, ids in accelerator_ids.items()
            if total.get(name, 0) == len(ids) * UNIT
        }  # ids that do not match the amount (a user who claims more devices than there are) are not handed out

    @classmethod
    def part(cls, resources: Mapping[str, int], devices: Mapping[str, Sequence[str]]) -> Ledger:
        """Of what was taken out of another by `acquire`, which returned the devices."""
        made = cls(resources, {})
        made._slots = {name: dict.fromkeys(taken, min(resources[name], UNIT)) for name, taken in devices.items()}
        return made

    def copy(self) -> Ledger:
        twin = Ledger.__new__(Ledger)
        twin.total = self.total
        twin.free = dict(self.free)
        twin._slots = {name: dict(slots) for name, slots in self._slots.items()}
        return twin

    def emptied(self) -> Ledger:
        """As it would be if nobody held anything."""
        twin = self.copy()
        twin.free = dict(self.total)
        twin._slots = {name: dict.fromkeys(slots, UNIT) for name, slots in self._slots.items()}
        return twin

    def lacking(self, resources: Mapping[str, int]) -> dict[str, int]:
        """What of `resources` this node, or part of one, could not give even if it were empty."""
        return {name: need for name, need in resources.items() if need > self.total.get(name, 0)}

    def missing(self, resources: Mapping[str, int]) -> dict[str, int]:
        """What of `resources` is not free now, as the amounts that would have to come back."""
        missing = {}
        for name, need in resources.items():
            if not need:
                continue
            free = self.free.get(name, 0)
            if need > free:
                missing[name] = need - free
            elif name in self._slots and self._devices(name, need) is None:
                missing[name] = min(need, UNIT)  # enough in all, but in pieces
        return missing

    def acquire(self, resources: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
        """Take `resources`, which must be free; returns the devices taken by accelerator name."""
        taken: dict[str, tuple[str, ...]] = {}
        for name, need in resources.items():
            if not need:
                continue
            if name in self._slots:
                devices = self._devices(name, need)
                checks.invariant(devices is not None, "acquired devices that are not free", resource=name)
                assert devices is not None  # for the type checker; said above for everybody else
                for device in devices:
                    self._slots[name][device] -= min(need, UNIT)
                taken[name] = devices
            left = self.free[name] = self.free[name] - need
            if left < 0:
                raise checks.broken("acquired more than was free", resource=name)
        return taken

    def release(self, resources: Mapping[str, int], accelerators: Mapping[str, Sequence[str]]) -> None:
        for name, amount in resources.items():
            if amount:
                self.free[name] += amount
                for device in accelerators.get(name, ()):
                    self._slots[name][device] += min(amount, UNIT)

    def hold(self, resources: Mapping[str, int]) -> None:
        """Take what is free of `resources`, though it is not enough. For copies: it is not to be given back."""
        for name, need in resources.items():
            if need:
                self.free[name] = min(self.free[name], 0) + max(0, self.free[name] - need)

    def lend_cpu(self, amount: int) -> None:
        """CPUs of a worker that has begun to wait are free for others."""
        if amount:
            self.free[CPU] += amount

    def retake_cpu(self, amount: int) -> None:
        """A worker goes on; others may still run on its CPUs, so what is free may go below zero for a while."""
        if amount:
            self.free[CPU] -= amount

    def check(self) -> None:
        for name, free in self.free.items():
            if free > self.total[name]:
                raise checks.broken("more is free than there is", resource=name, free=free)
            if free < 0 and name != CPU:
                raise checks.broken("free went below zero", resource=name, free=free)
        for name, slots in self._slots.items():
            for device, share in slots.items():
                if not 0 <= share <= UNIT:
                    raise checks.broken("a device's share is out of range", resource=name, device=device)
            checks.invariant(sum(slots.values()) == self.free[name], "devices and amount disagree", resource=name)

    def _devices(self, name: str, need: int) -> tuple[str, ...] | None:
        """The devices that would serve `need`, or None: whole ones, or the fullest that still has the share free."""
        slots = self._slots[name]
        if need < UNIT:
            fitting = [(share, device) for device, share in slots.items() if share >= need]
            return (min(fitting, key=lambda pair: pair[0])[1],) if fitting else None
        whole = [device for device, share in slots.items() if share == UNIT][: need // UNIT]
        return tuple(whole) if len(whole) * UNIT == need else None


def added(amounts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several, by resource."""
    total: dict[str, int] = {}
    for one in amounts:
        for name, amount in one.items():
            total[name] = total.get(name, 0) + amount
    return total


def describe(resources: Mapping[str, int]) -> str:
    """`{CPU: 2, GPU: 0.5}`, for messages."""
    return (
        "{" + ", ".join(f"{name}: {shown(name, amount)}" for name, amount in sorted(resources.items()) if amount) + "}"
    )


def shown(name: str, amount: int) -> str:
    """An amount of a resource, for messages."""
    return f"{amount / UNIT / (1 << 20):.0f} MiB" if name in _OF_BYTES else f"{amount / UNIT:g}"
