"""A placement group as records, and from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel._control import group_state
from umbel._control.group_events import Cause, GroupSpec, GroupState
from umbel._model import resources


def facts_of_spec(spec: GroupSpec) -> dict[str, Any]:
    return {**spec._asdict(), "id": spec.group, "bundles": [dict(bundle) for bundle in spec.bundles]}


def facts_of_state(group: group_state.Group) -> dict[str, Any]:
    """The reason of one that is not removed is about nodes as they are now, and not kept."""
    is_removed = group.state is GroupState.REMOVED
    return {
        "state": group.state.value,
        "nodes": [[index, node] for index, node in group.nodes.items()],
        "attempts": group.attempts,
        "number": group.number,
        "reason": group.reason if is_removed else "",
        "cause": group.cause.value,
        "ready_after_s": None if group.ready_s is None else group.ready_s - group.created_s,
    }


def group(parts: Mapping[str, Mapping[str, Any]], now_s: float) -> group_state.Group:
    """parts: the facts of both records. Its times are told from now on: another machine's clock says nothing here."""
    facts, state = parts["spec"], parts["state"]
    fields = {name: value for name, value in facts.items() if name in GroupSpec._fields}
    fields["bundles"] = tuple(resources.ResourceSet(bundle) for bundle in fields["bundles"])
    fields["label_selectors"] = tuple(fields["label_selectors"])
    found = group_state.Group(GroupSpec(**fields), state["number"], now_s)
    found.state, found.cause = GroupState(state["state"]), Cause(state["cause"])
    found.nodes = dict(state["nodes"])
    found.attempts, found.reason = state["attempts"], state["reason"]
    if state["ready_after_s"] is not None:
        found.ready_s = now_s + state["ready_after_s"]
    return found
