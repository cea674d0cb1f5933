"""Scheduling strategies as the agent is told of them."""

from __future__ import annotations

from typing import Any

from umbel._model import options as option_model


def wire_strategy(strategy: Any) -> str | dict[str, Any] | None:
    """None for the default one."""
    if strategy is None or isinstance(strategy, str):
        return None if strategy == "DEFAULT" else strategy
    if isinstance(strategy, option_model.InGroup):
        if strategy.group:
            return {
                "placement_group": strategy.group,
                "bundle_index": strategy.bundle_index,
                "captures": bool(strategy.captures),
            }
        if strategy.bundle_index >= 0:
            raise option_model.no_group(strategy.bundle_index)
        return None
    return {
        "node_id": strategy.node_id,
        "soft": bool(strategy.soft),
        "spills_when_busy": bool(getattr(strategy, "_spill_on_unavailable", False)),
        "fails_when_busy": bool(getattr(strategy, "_fail_on_unavailable", False)),
    }
