"""Defects for the world of jobs whose leases are of several nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._scheduling import forwarding
from umbel.testing.simulation.planted.defect import Planted, deaf, instead

_FORWARDING = forwarding.Forwarding


def _never_home(_machine: Any, _wish: Any, _node: str, _at_s: float) -> list[Any]:
    """What a node without room was asked for stays there, whether it promises anything or not."""
    return []


PLANTS: Final[Mapping[str, Planted]] = {
    "full-nodes-not-asked": instead("entitled", _FORWARDING, "_on_may_ask", deaf, "A24"),
    "asked-in-vain-for-ever": instead("entitled", _FORWARDING, "_take_home", _never_home, "A24"),
}
