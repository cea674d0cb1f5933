"""The scheduling policy by which leases are shared among the nodes, and actors placed. Loaded where there are several."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from umbel import spi
from umbel._scheduling import policies


def policy(name: str, path: Sequence[str], report: Callable[[str], None]) -> spi.SchedulingPolicy:
    """path: where a plugin is found. report: told once if the policy misbehaves and is switched off. Raises PluginError or
    PluginConflict when there is no such policy."""
    if name == "hybrid":
        return policies.HYBRID
    if name == "spread":
        return policies.SpreadPolicy()
    sys.path[:] = path
    importlib.reload(sys.modules["umbel"])  # until here a stand-in; plugins may import the real one
    from umbel._plugins import registry

    chosen = registry.installed().scheduler(name)
    return policies.GuardedPolicy(name, chosen, fallback=policies.HYBRID, report=report)
