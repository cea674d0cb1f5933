"""On which nodes of a cluster a run may be.

What lies on the driver's machine only is read and written there; where the run asks for labels, nothing else is on a node
without them, nor counted to what the run has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import umbel
from umbel.data._engine import stages
from umbel.util import scheduling_strategies


class OnDriver:
    """A scheduling strategy: the node of this process. Where it travels to, it is that of the process that it came from."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (_of_node, (_node_id(),)) if umbel.is_initialized() else (OnDriver, ())

    def __repr__(self) -> str:
        return "OnDriver()"


def on_driver(resources: stages.Resources) -> stages.Resources:
    """The same, on the driver's node; instead of where it was to be."""
    return _on(resources, OnDriver())


def totals(selector: Mapping[str, str]) -> dict[str, float]:
    """What the nodes have that a run with this selector may be on, by core's names."""
    if not selector:
        return dict(umbel.cluster_resources())
    found: dict[str, float] = {}
    for node in umbel.nodes():
        if meets(selector, node["Labels"]):
            for name, amount in node["Resources"].items():
                found[name] = found.get(name, 0.0) + amount
    return found


def meets(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node has all the labels: `v`, `!v`, `in(a, b)` or `!in(a, b)` for each. The negative ones hold where there is
    no such label."""
    return all(_has(condition, labels.get(name)) for name, condition in selector.items())


def _has(condition: str, value: str | None) -> bool:
    text = condition.strip()
    wanted = text.removeprefix("!").strip()
    several = wanted[3:-1].split(",") if wanted.startswith("in(") and wanted.endswith(")") else [wanted]
    return (value in {one.strip() for one in several}) is not text.startswith("!")


def placed(last: stages.Stage, selector: Mapping[str, str]) -> stages.Stage:
    """The same stages, each with what core is to be told of the nodes that it may be on. An operator's own label goes before
    one of the run, and its own scheduling strategy before all of these.

    Raises ValueError where the driver's node lacks what something on it takes.
    """

    def change(stage: stages.Stage) -> dict[str, Any]:
        resources: stages.Resources | None = getattr(stage, "resources", None)
        if resources is None:
            return {}
        strategy = resources.options.get("scheduling_strategy", "DEFAULT")
        if isinstance(strategy, OnDriver):
            return _here(stage, resources)
        if not selector or not isinstance(strategy, str):
            return {}
        wanted = {**selector, **(resources.options.get("label_selector") or {})}
        return {"resources": dataclasses.replace(resources, options={**resources.options, "label_selector": wanted})}

    return stages.changed(last, change)


def _here(stage: Any, resources: stages.Resources) -> dict[str, Any]:
    """No more tasks at once than this node has room for: others would wait for it, and count as if they ran."""
    node_id = _node_id()
    (node,) = (one for one in umbel.nodes() if one["NodeID"] == node_id)
    needs, has = resources.needs(), node["Resources"]
    lacking = {name: amount for name, amount in needs.items() if has.get(name, 0.0) < amount}
    if lacking:
        raise ValueError(
            f"{stage.name} is of what only the driver's machine has, and its node has not what a task of it takes, {lacking}; "
            "give it num_cpus=0, or use a path that all nodes can reach"
        )
    given: dict[str, Any] = {"resources": _on(resources, _of_node(node_id))}
    if isinstance(getattr(stage, "compute", None), stages.TaskPool) and needs:
        count = int(min(has[name] / amount for name, amount in needs.items()))
        given["compute"] = stages.TaskPool(min(count, stage.compute.size or count))
    return given


def _on(resources: stages.Resources, strategy: Any) -> stages.Resources:
    return dataclasses.replace(resources, options={**resources.options, "scheduling_strategy": strategy})


def _node_id() -> str:
    return umbel.get_runtime_context().get_node_id()


def _of_node(node_id: str) -> Any:
    return scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
