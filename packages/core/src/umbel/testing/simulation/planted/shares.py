"""Defects for the world of jobs on several nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import cluster_use, serving, shares
from umbel._agent import records as agent_records
from umbel.testing.simulation.planted.defect import Planted, deaf, instead


def _alone(_use: cluster_use.ClusterUse, _name: str, _change: int) -> int:
    """Each node mends what it sees as if no other saw it."""
    return 0


def _never(_standing: Any, _demand: Any) -> bool:
    """Who waits where his job has nothing waits on."""
    return False


def _give_the_last_difference(
    standing: shares.Standing, lease: agent_records.Lease, demand: agent_records.Demand
) -> bool:
    """A job gives whatever makes another one have no more than it had itself."""
    mine, other = lease.job, demand.job
    return standing.share(other, demand.resources) <= standing.share(mine)


PLANTS: Final[Mapping[str, Planted]] = {
    "mended-by-each": instead("shares", cluster_use.ClusterUse, "_of_others", _alone, "A22", "A21"),
    "last-difference-mended": instead("shares", shares.Standing, "must_give", _give_the_last_difference, "A2"),
    "starved-for-ever": instead("shares", shares.Standing, "is_starved", _never, "A23"),
    "news-unheard": instead("shares", serving.Serving, "on_cluster_use_told", deaf, "A21", "A22"),
}
