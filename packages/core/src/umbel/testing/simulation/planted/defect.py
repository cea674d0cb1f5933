"""What a planted defect is, and what several worlds have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from umbel.testing.simulation.processes import attribute


class Planted(NamedTuple):
    """One defect. `machine`: the world that it shows in. `signs`: what the message of the failure may begin with."""

    machine: str
    apply: Callable[[], AbstractContextManager[None]]
    signs: tuple[str, ...]


def instead(machine: str, owner: Any, name: str, replacement: Any, *signs: str) -> Planted:
    return Planted(machine, lambda: attribute(owner, name, replacement), signs)


def deaf(_machine: Any, _event: Any) -> list[Any]:
    """The event changes nothing."""
    return []
