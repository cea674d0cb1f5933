"""Defects for the world of jobs on several nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import cluster_use, serving, shares
from umbel.testing.simulation.planted.defect import Planted, deaf, instead


def _alone(_use: cluster_use.ClusterUse, _name: str, change: int) -> int:
    """Each node mends what it sees as if no other saw it."""
    return change


def _never(_standing: Any, _demand: Any) -> bool:
    """Who waits where his job has nothing waits on."""
    return False


PLANTS: Final[Mapping[str, Planted]] = {
    "mended-by-each": instead("shares", cluster_use.ClusterUse, "_in_all", _alone, "A22", "A21"),
    "starved-for-ever": instead("shares", shares.Standing, "is_starved", _never, "A23"),
    "news-unheard": instead("shares", serving.Serving, "on_cluster_use_told", deaf, "A21", "A22"),
}
