"""What the autoscaler does and why, as JSON and in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from umbel._autoscaling import autoscaler, demand, packing, planning
from umbel._model import resources

NODES_SHOWN_MAX = 50  # in words
TYPES_SHOWN_MAX = 5  # in a sentence
LATE_S = 15.0  # three periods: a launcher does not keep it from speaking, so it stands still

Facts = Mapping[str, Any]


def of_plan(plan: planning.Plan) -> dict[str, Any]:
    """What would be done."""
    return {
        "launches": [_launch(one) for one in plan.launches],
        "deferred": [_launch(one) for one in plan.deferred],
        "unmet": [_unmet(one) for one in plan.unmet],
    }


def of_machine(machine: autoscaler.Autoscaler, now_s: float) -> dict[str, Any]:
    """What is done, and why, as it was decided last: planning once more would cost as much again. coming: launches without an
    answer."""
    plan = machine.last_plan or machine.explain(now_s)
    return {
        **of_plan(plan._replace(launches=())),  # which are coming, or there
        "max_workers": machine.settings.max_workers,
        "coming": [_coming(one, now_s) for one in machine.outstanding],
        "nodes": [
            {
                "node": node.name,
                "type": node.type_name,
                "state": node.state.value,
                "why": node.why_it_goes or plan.kept.get(node.name, "it has come since the last decision"),
                "launched_for": node.reason if node.type_name else "",
            }
            for node in machine.nodes.values()
        ],
        "failures": [
            {"type": name, "times": one.times, "reason": one.reason, "retry_s": max(0.0, one.retry_at_s - now_s)}
            for name, one in machine.failures.items()
        ],
    }


def _launch(one: planning.PlannedLaunch | planning.Outstanding) -> dict[str, Any]:
    return {"type": one.type_name, "count": one.node_count, "reason": one.reason}


def _coming(one: planning.Outstanding, now_s: float) -> dict[str, Any]:
    return {**_launch(one), "for_s": now_s - one.since_s}


def _unmet(one: packing.Unplaced) -> dict[str, Any]:
    looked = [{"type": at.type_name, "kind": at.kind, "why": at.why} for at in one.looked]
    return {"what": one.what, "count": one.unit_count, "looked_at": looked, "able_count": one.able_count}


def plan_in_words(told: Facts) -> list[str]:
    lines = [f"launches {one['count']} of {one['type']}: {one['reason']}" for one in told["launches"]]
    lines += [
        f"then, as those have joined, {one['count']} of {one['type']}: {one['reason']}" for one in told["deferred"]
    ]
    for unmet in told["unmet"]:
        able_count = unmet["able_count"]
        waits = f", which waits for {able_count} node{'s' * (able_count != 1)} to have room" if able_count else ""
        lines.append(f"no room for {unmet['what']}{waits}:")
        lines += [f"  {looked['type']}: {looked['why']}" for looked in unmet["looked_at"]]
    return lines


def answer_in_words(answer: Facts) -> list[str]:
    """answer: the head's, see `umbel._agent.scaling`."""
    lines = [f"does not run: {answer['trouble']}"] if answer["trouble"] else []
    told = answer["report"]
    if told is None:
        return lines or ["has just started"]
    if answer["trouble"] or answer["age_s"] > LATE_S:
        lines.append(f"has said last {answer['age_s']:.0f} s ago:")
    lines += told["troubles"]
    return lines + (in_words(told["scaling"]) if told["scaling"] is not None else ["finds out what runs"])


def about(answer: Facts, lacks: Facts) -> str:
    """What is done for one kind of what waits, "" for nothing. answer: as for `answer_in_words`. lacks: {"needs": its amounts in
    units, "labels": its label selectors}, or {"group": a placement group}. Raises UmbelError, KeyError, TypeError or ValueError
    for anything else."""
    told = answer["report"]["scaling"] if answer["report"] is not None else None
    if answer["trouble"] or told is None:
        return f"does not run: {answer['trouble']}" if answer["trouble"] else "finds out what runs"
    is_meant = _meant(lacks)
    found = [
        f"is launching {one['count']} of {one['type']} for it, for {one['for_s']:.0f} s"
        for one in told["coming"]
        if is_meant(one["reason"])
    ]
    found += [
        f"has launched {one['type']} {one['node']} for it, which has not joined yet"
        for one in told["nodes"]
        if one["state"] == planning.NodeState.LAUNCHING.value and is_meant(one["launched_for"])
    ]
    found += [
        f"launches {one['count']} of {one['type']} for it when those have joined that are coming"
        for one in told["deferred"]
        if is_meant(one["reason"])
    ]
    found += [_nothing_for(unmet) for unmet in told["unmet"] if is_meant(unmet["what"])]
    return ", and ".join(found)


def _meant(lacks: Facts) -> Callable[[str], object]:
    """Whether a text of a plan's names this."""
    if "group" in lacks:
        called = f"placement group {lacks['group']} "
    else:
        selectors = tuple(tuple((str(label), str(condition)) for label, condition in one) for one in lacks["labels"])
        called = demand.in_words(demand.Shape(resources.ResourceSet(lacks["needs"]), 1, selectors))
    # What follows may be labels, of another kind of what waits that needs as much.
    return re.compile(re.escape(called) + "(?! with )").search


def _nothing_for(unmet: Facts) -> str:
    shown = [f"{looked['type']}: {looked['why']}" for looked in unmet["looked_at"][:TYPES_SHOWN_MAX]]
    hidden_count = len(unmet["looked_at"]) - len(shown)
    shown += [f"and {hidden_count} more types"] if hidden_count > 0 else []
    text = f"launches nothing for it ({'; '.join(shown) or 'it has no types of nodes'})"
    able_count = unmet["able_count"]
    return text + (
        f"; {able_count} node{'s' * (able_count != 1)} could hold it once there is room" if able_count else ""
    )


def in_words(told: Facts) -> list[str]:
    """told: as `of_machine` gives it."""
    own = [one for one in told["nodes"] if one["type"]]
    lines = [f"{len(own)} of at most {told['max_workers']} nodes are there or on their way"]
    lines += [
        f"is launching {one['count']} of {one['type']}, for {one['for_s']:.0f} s: {one['reason']}"
        for one in told["coming"]
    ]
    lines += plan_in_words(told)
    lines += [
        f"{one['type']} could not be launched, {one['times']} times in a row, and is tried again in {one['retry_s']:.0f} s: "
        f"{one['reason']}"
        for one in told["failures"]
    ]
    lines += [node_in_words(one) for one in own[:NODES_SHOWN_MAX]]
    if len(own) > NODES_SHOWN_MAX:
        lines.append(f"and {len(own) - NODES_SHOWN_MAX} more nodes; --json has all")
    return lines


def node_in_words(one: Facts) -> str:
    why = one["why"]
    if one["launched_for"] and one["launched_for"] not in why:
        why = f"{why} (launched for: {one['launched_for']})"
    return f"{one['type']} {one['node']} is {one['state']}: {why}"
