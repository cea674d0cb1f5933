"""A plan in words: what was asked for, what the rules made of it, and how the stages run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from umbel.data._engine import local, reports, stages
from umbel.data._expressions.expr import Expr
from umbel.data._plan import logical, physical, rules, running

if TYPE_CHECKING:
    from umbel.data import context as contexts

NAMES_MAX: Final = 12  # of columns, or of what else there are many
_INPUTS: Final = ("input", "left", "right", "several", "blocks", "what", "source")
_TOLD_APART: Final = frozenset(
    (*_INPUTS, "sink", "means", "resources", "checkpoint", "function", "kind", "limit", "parallelism")
)
_NAMED_WHOLE: Final = (logical.Filter, logical.Limit)  # whose names have their arguments


def explained(last: logical.Node, context: contexts.DataContext) -> str:
    """What `Dataset.explain` prints."""
    written = tree(last)
    changed, plan, before = [], last, written
    for what, plan in rules.steps(last):
        after = tree(plan)
        if after != before:
            changed.append(what)
        before = after
    parts = {"Logical plan": written}
    if changed:
        parts["Optimized plan"] = f"{before}\n({'; '.join(changed)})"
    else:
        parts["Optimized plan"] = "The same: no rule changed anything."
    parts["Stages"] = _stages(plan, context)
    return "\n\n".join(f"{title}\n{'-' * len(title)}\n{what}" for title, what in parts.items())


def tree(last: logical.Node) -> str:
    """The operators with their arguments, the last first."""
    lines: list[str] = []
    numbers: dict[logical.Node, int] = {}
    shared = _shared(last)

    def draw(node: logical.Node, depth: int) -> None:
        front = f"{'   ' * (depth - 1)}{'+- ' if depth else ''}"
        if node in numbers:
            lines.append(f"{front}({numbers[node]}) again")
            return
        mark = ""
        if node in shared:
            numbers[node] = len(numbers) + 1
            mark = f"({numbers[node]}) "
        lines.append(f"{front}{mark}{described(node)}")
        for one in node.inputs:
            draw(one, depth + 1)

    draw(last, 0)
    return "\n".join(lines)


def _shared(last: logical.Node) -> set[logical.Node]:
    seen: set[logical.Node] = set()
    twice: set[logical.Node] = set()
    for node in logical.each(last):
        for one in node.inputs:
            (twice if one in seen else seen).add(one)
    return twice


def described(node: logical.Node) -> str:
    """Its name, and what of its arguments is not in it and not as usual."""
    told: dict[str, Any] = {}
    if isinstance(node, logical.Read):
        told |= node.source.pushed_down()
        if node.parallelism is not None:
            told["parts"] = node.parallelism
    if isinstance(node, logical.Sort) and node.limit is not None:
        told["only the first"] = node.limit
    for field in () if isinstance(node, _NAMED_WHOLE) else dataclasses.fields(node):
        value = getattr(node, field.name)
        is_usual = not value if isinstance(value, tuple | frozenset) else value == field.default
        if field.name not in _TOLD_APART and not is_usual:
            told[field.name] = value
    return f"{node.name}{'  ' if told else ''}{', '.join(f'{name}: {_shown(value)}' for name, value in told.items())}"


def _shown(value: Any) -> str:
    if isinstance(value, Expr):
        return repr(value)
    if isinstance(value, tuple | list | frozenset):
        every = [str(one) if isinstance(one, str) else _shown(one) for one in value]
        more = f", and {len(every) - NAMES_MAX} more" if len(every) > NAMES_MAX else ""
        return f"[{', '.join(every[:NAMES_MAX])}{more}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + "}"
    name = getattr(value, "name", None)  # of an aggregation
    return name if isinstance(name, str) else str(value)


def _stages(last: logical.Node, context: contexts.DataContext) -> str:
    """Of a plan that was rewritten, its stages in words, the first first: what each takes its blocks from and how it runs."""
    plan = running.staged(last, context)
    ordered = stages.ordered(plan)
    numbers = {id(stage): number for number, stage in enumerate(ordered, 1)}
    lines = []
    for stage in ordered:
        inputs = ", ".join(str(numbers[id(one)]) for one in stage.inputs)
        lines.append(
            f"{numbers[id(stage)]}. {stage.name}{f'  of {inputs}' if inputs else ''}{_broadcast(stage, numbers)}"
        )
        lines.append(f"   {_means(stage)}")
    if local.is_suitable(plan, context.local_bytes_max):
        lines.append("All of it is built-in and little: it runs in this process, without workers.")
    return "\n".join(lines)


def _broadcast(stage: stages.Stage, numbers: Mapping[int, int]) -> str:
    """Of a join, which side goes to every task, or may."""
    if not isinstance(stage, stages.Exchange) or not stage.whole or not stage.broadcast_bytes:
        return ""
    limit = stage.broadcast_bytes
    named = [str(numbers[id(stage.inputs[side])]) for side in stage.whole]
    known = physical.estimated_bytes(stage.inputs[stage.whole[0]])
    if limit == sys.maxsize or (known is not None and known <= limit):
        return f"; {named[0]} goes whole to every task"
    return f"; {' or else '.join(named)} goes whole to every task if it has at most {reports.sized(limit)}"


def _means(stage: stages.Stage) -> str:
    """How it runs."""
    if isinstance(stage, stages.Input):
        size_bytes = sum(block.metadata.size_bytes for block in stage.blocks)
        return f"{len(stage.blocks)} blocks that are there, {reports.sized(size_bytes)}"
    if isinstance(stage, stages.Read):
        known = [part.size_bytes for part in stage.parts]
        size = "" if None in known else f", about {reports.sized(sum(one or 0 for one in known))}"
        return f"{len(stage.parts)} parts{size}, {_compute(stage)}"
    if isinstance(stage, stages.Map | stages.Write):
        rows = f", {stage.bundle_rows:,} rows at least in each" if stage.bundle_rows is not None else ""
        return f"{_compute(stage)}{rows}"
    if isinstance(stage, stages.Exchange):
        count = stage.partition_count
        wanted = f"one for each {reports.sized(stage.partition_bytes)}" if count is None else str(count)
        how = "by range, of samples" if stage.sample is not None else "by key or place"
        divided = "all put together by one task" if count == 1 else f"divided {how}; partitions: {wanted}"
        return f"needs all of its input: {divided}{_resources(stage.resources)}"
    return "passes blocks on"


def _compute(stage: stages.Read | stages.Map | stages.Write) -> str:
    compute = stage.compute
    if isinstance(compute, stages.ActorPool):
        least, most = compute.min_size, compute.max_size
        count = (
            str(least) if least == most else f"{least} to {'as many as there is room for' if most is None else most}"
        )
        return f"on actors: {count}{_resources(stage.resources)}"
    size = f", at most {compute.size} at once" if compute.size is not None else ""
    return f"in tasks{size}{_resources(stage.resources)}"


def _resources(resources: stages.Resources) -> str:
    """Where it is more or less than the usual CPU."""
    told = {"CPUs": resources.num_cpus} if resources.num_cpus != 1.0 else {}
    if resources.num_gpus:
        told["GPUs"] = resources.num_gpus
    told |= resources.custom()
    named = [f"{amount:g} {name}" for name, amount in told.items()]
    if resources.memory_bytes:
        named.append(f"{reports.sized(resources.memory_bytes)} of memory")
    return f", each with {', '.join(named)}" if named else ""
