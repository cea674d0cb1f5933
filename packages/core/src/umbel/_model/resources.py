"""Amounts of resources, counted in whole units so that sums and comparisons are exact.

One unit is 1/10,000 of what the user writes: a CPU, a GPU, a byte of memory, one of a custom resource. Resources are
logical: they say what is admitted, nothing measures what is used. What a user wrote is checked where it becomes a
number of units (`from_floats`, `units_of`, `custom_units`); arithmetic only checks that nothing goes below zero.
"""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Final, TypeVar, overload

from umbel import exceptions
from umbel._base import checks

T = TypeVar("T")

RESOURCE_UNIT: Final = 10_000  # Ray's precision of 0.0001, which programs written for it rely on

CPU: Final = "CPU"
GPU: Final = "GPU"
MEMORY: Final = "memory"
OBJECT_STORE_MEMORY: Final = "object_store_memory"
NODE_PREFIX: Final = "node:"  # each node has one of `node:` and its address, by which tasks and actors can ask for it
HEAD_NODE: Final = "node:__internal_head__"  # which the first node of a cluster has
NODE_ADDRESS: Final = "127.0.0.1"  # of a private node: nothing beyond this machine reaches it

# How the resources that have an option of their own are asked for.
OPTION_OF: Final[Mapping[str, str]] = {
    CPU: "num_cpus",
    GPU: "num_gpus",
    MEMORY: "memory",
    OBJECT_STORE_MEMORY: "object_store_memory",
}

# A float is accepted as a multiple of the unit when it misses one by no more than this share of it: 0.1 + 0.2 is 0.3.
_ROUNDING_SLACK: Final = 1e-3


class ResourceSet(Mapping[str, int]):
    """Immutable amounts by resource name, in units of 1/10,000; names in sorted order, none with an amount of zero."""

    __slots__ = ("_hash", "_units")

    _units: dict[str, int]
    _hash: int | None

    def __init__(self, units: Mapping[str, int] | None = None) -> None:
        """`units`: whole units >= 0; the caller has checked names and amounts. For outside input use `from_floats`."""
        self._units = {name: units[name] for name in sorted(units) if units[name]} if units else {}
        self._hash = None
        for name, amount in self._units.items():
            if amount < 0:
                raise checks.broken("a resource went negative", resource=name, units=amount)

    @classmethod
    def from_floats(cls, amounts: Mapping[str, float]) -> ResourceSet:
        """What the user wrote. Raises InvalidOption for a bad name or a negative, too fine or not finite amount."""
        units: dict[str, int] = {}
        for name, amount in amounts.items():
            count = gpu_units_of if name == GPU else units_of
            units[_checked_name(name)] = count(amount, what=f"resource {name!r}")
        return cls(units)

    def to_floats(self) -> dict[str, float]:
        """The amounts as the user writes them."""
        return {name: amount / RESOURCE_UNIT for name, amount in self._units.items()}

    @property
    def is_empty(self) -> bool:
        return not self._units

    def fits_in(self, other: Mapping[str, int]) -> bool:
        """Whether `other` holds at least as much of everything."""
        return all(other.get(name, 0) >= amount for name, amount in self._units.items())

    def add(self, other: Mapping[str, int]) -> ResourceSet:
        if not other:
            return self
        if not self._units and type(other) is ResourceSet:
            return other
        units = dict(self._units)
        for name, amount in other.items():
            units[name] = units.get(name, 0) + amount
        return ResourceSet(units)

    def subtract(self, other: Mapping[str, int]) -> ResourceSet:
        """Raises InternalError when there is less of something than is taken."""
        if not other:
            return self
        units = dict(self._units)
        for name, amount in other.items():
            units[name] = units.get(name, 0) - amount
        return ResourceSet(units)

    __add__ = add
    __sub__ = subtract

    def __getitem__(self, name: str) -> int:
        return self._units[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._units)

    def __len__(self) -> int:
        return len(self._units)

    # What `Mapping` would do by way of the above, which takes several times as long.

    def __contains__(self, name: object) -> bool:
        return name in self._units

    @overload
    def get(self, name: str, default: None = None, /) -> int | None: ...
    @overload
    def get(self, name: str, default: int | T, /) -> int | T: ...
    def get(self, name: str, default: object = None, /) -> object:
        return self._units.get(name, default)

    def keys(self) -> KeysView[str]:
        return self._units.keys()

    def values(self) -> ValuesView[int]:
        return self._units.values()

    def items(self) -> ItemsView[str, int]:
        return self._units.items()

    def __eq__(self, other: object) -> bool:
        if type(other) is ResourceSet:
            return self._units == other._units
        return NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(tuple(self._units.items()))
        return self._hash

    def __repr__(self) -> str:
        return (
            "ResourceSet("
            + ", ".join(f"{name}: {amount / RESOURCE_UNIT:g}" for name, amount in self._units.items())
            + ")"
        )

    def __reduce__(self) -> tuple[type[ResourceSet], tuple[dict[str, int]]]:
        return ResourceSet, (self._units,)


EMPTY: Final = ResourceSet()


def units_of(value: object, *, what: str, advice: str = "write 0 or more") -> int:
    """`value` in whole units. `what` and `advice` are for the message: the option's name, and what to do.

    Raises InvalidOptionType when `value` is no number, InvalidOption when it is negative, not finite or finer than
    0.0001.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        value = _plain_number(value, what=what, advice=advice)
    if not math.isfinite(value) or value < 0:
        raise exceptions.InvalidOption(f"{what} must be a number >= 0, got {value!r}; {advice}", option=what)
    if isinstance(value, int):
        return value * RESOURCE_UNIT  # exact, also for bytes beyond 2**53 units
    exact = value * RESOURCE_UNIT
    units = round(exact)
    if abs(exact - units) > _ROUNDING_SLACK or (value and not units):
        raise exceptions.InvalidOption(
            f"{what} must be a multiple of {1 / RESOURCE_UNIT}, got {value!r}; round it, as to "
            f"{max(units, 1) / RESOURCE_UNIT}",
            option=what,
        )
    return units


def gpu_units_of(value: object, *, what: str = "num_gpus", advice: str = "write 0 or more") -> int:
    """As `units_of`, for what is handed out in whole devices or in a share of one."""
    units = units_of(value, what=what, advice=advice)
    if units > RESOURCE_UNIT and units % RESOURCE_UNIT:
        raise exceptions.InvalidOption(
            f"{what} above 1 must be a whole number, got {value!r}; only a share of one device can be a fraction",
            option=what,
        )
    return units


def custom_units(value: object, *, what: str = "resources") -> dict[str, int]:
    """The option `resources`: units by name. A resource that has an option of its own is refused here."""
    if not isinstance(value, Mapping):
        raise exceptions.InvalidOptionType(
            f'{what} must be a dict of amounts by name, got {value!r}; write {{"name": 1}}', option=what
        )
    units: dict[str, int] = {}
    for name, amount in value.items():
        checked = _checked_name(name, what=what)
        if checked in OPTION_OF:
            raise exceptions.InvalidOption(
                f"{what} must not name {checked!r}, got {dict(value)!r}; use {OPTION_OF[checked]}={amount!r} instead",
                option=what,
            )
        units[checked] = units_of(amount, what=f"{what}[{checked!r}]")
    return units


def _checked_name(name: object, *, what: str = "resources") -> str:
    if not isinstance(name, str):
        raise exceptions.InvalidOptionType(
            f"a name in {what} must be a str, got {name!r}; write it in quotes", option=what
        )
    if not name:
        raise exceptions.InvalidOption(
            f"a name in {what} must not be empty, got {name!r}; name the resource", option=what
        )
    return name


def _plain_number(value: object, *, what: str, advice: str) -> float:
    """A number of another kind (numpy's, a Fraction) as Python's own."""
    if not isinstance(value, (bool, str, bytes)) and hasattr(value, "__float__"):
        try:
            return int(value) if hasattr(value, "__index__") else float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise exceptions.InvalidOptionType(
        f"{what} must be a number >= 0, got {value!r} of type {type(value).__name__}; {advice}", option=what
    )
