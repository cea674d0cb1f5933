"""A plugin's scheduling policy, as the order in which the agent serves demands. Not needed for the built-in ones."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from umbel._agent.records import Demand


def by_policy(
    name: str, path: Sequence[str], report: Callable[[str], None]
) -> Callable[[Iterable[Demand]], list[Demand]]:
    """path: where the plugin is found. report: told once if the policy misbehaves and is switched off.

    Raises PluginError or PluginConflict when there is no such policy.
    """
    sys.path[:] = path
    importlib.reload(sys.modules["umbel"])  # until here a stand-in; plugins may import the real one
    from umbel import spi
    from umbel._plugins import registry
    from umbel._scheduling import policies

    chosen = registry.installed().scheduler(name)
    policy = policies.GuardedPolicy(name, chosen, fallback=policies.HybridPolicy(), report=report)

    def strategy(sent: Any) -> spi.Strategy:
        if isinstance(sent, Mapping) and "node_id" in sent:
            return spi.NodeAffinity(
                str(sent["node_id"]),
                is_soft=bool(sent.get("soft")),
                spills_when_busy=bool(sent.get("spills_when_busy")),
                fails_when_busy=bool(sent.get("fails_when_busy")),
            )
        return "SPREAD" if sent == "SPREAD" else "DEFAULT"

    def order(demands: Iterable[Demand]) -> list[Demand]:
        listed = list(demands)
        waiting = [
            spi.WaitingDemand(
                spi.Demand(spi.ResourceSet(one.placement), strategy(one.strategy), depth=one.depth),
                one.turn,
                client=one.client,
                lease_count=one.count,
                is_actor=bool(one.actor),
            )
            for one in listed
        ]
        return [listed[index] for index in policy.order(waiting)]

    return order
