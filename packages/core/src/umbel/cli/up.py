"""`umbel up`: what a cluster's file would launch."""

from __future__ import annotations

import json
import re

import click

from umbel import exceptions
from umbel._autoscaling import autoscaler, demand, packing, planning
from umbel._client import cluster_files
from umbel._model import resources
from umbel._plugins import registry

_DEMAND = re.compile(r"(?:(\d+)\s*x\s*)?(\{.*\})", re.DOTALL)


def make() -> click.Command:
    @click.command("up")
    @click.argument("path", metavar="FILE")
    @click.option("--dry-run", is_flag=True, help="Only say what would be launched, and why.")
    @click.option(
        "--demand", "wanted", metavar="JSON", multiple=True,
        help="With --dry-run: what would wait, as '{\"CPU\": 4}' or '100 x {\"CPU\": 1}'; again for more.",
    )  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def up(path: str, dry_run: bool, wanted: tuple[str, ...], as_json: bool) -> None:
        """What the cluster that FILE describes (JSON, TOML or YAML) would launch."""
        try:
            file = cluster_files.read(path)
            registry.installed().node_launchers.find(file.launcher)
            shapes = [_shape(text) for text in wanted]
        except (exceptions.UmbelError, OSError) as error:
            raise click.ClickException(str(error)) from error
        if not dry_run:
            raise click.ClickException(
                f"{path} is right, but no cluster launches nodes by itself yet: start them by `umbel start --head` and `umbel "
                "start --address`; --dry-run says what would be launched"
            )
        plan = autoscaler.Autoscaler(file.settings).dry_run(0.0, shapes)
        click.echo(json.dumps(_listed(plan), indent=2) if as_json else "\n".join(_in_words(plan)))

    return up


def _shape(text: str) -> demand.Shape:
    """Raises InvalidOption."""
    found = _DEMAND.fullmatch(text.strip())
    try:
        amounts = json.loads(found[2]) if found is not None else None
    except ValueError:
        amounts = None
    if found is None or not isinstance(amounts, dict):
        raise exceptions.InvalidOption(
            f"--demand must be '{{\"CPU\": 4}}' or '100 x {{\"CPU\": 1}}', got {text!r}; correct it", option="demand"
        )
    return demand.Shape(resources.ResourceSet.from_floats(amounts), int(found[1] or 1))


def _in_words(plan: planning.Plan) -> list[str]:
    lines = [f"launches {one.node_count} of {one.type_name}: {one.reason}" for one in plan.launches]
    lines += [f"then, as those have joined, {one.node_count} of {one.type_name}: {one.reason}" for one in plan.deferred]
    for unmet in plan.unmet:
        lines.append(f"no room for {unmet.what}:")
        lines += [f"  {looked.type_name}: {looked.why}" for looked in unmet.looked]
    return lines or ["nothing would be launched"]


def _listed(plan: planning.Plan) -> dict[str, object]:
    def launch(one: planning.PlannedLaunch) -> dict[str, object]:
        return {"type": one.type_name, "count": one.node_count, "reason": one.reason}

    def unmet(one: packing.Unplaced) -> dict[str, object]:
        looked = [{"type": at.type_name, "kind": at.kind, "why": at.why} for at in one.looked]
        return {"what": one.what, "count": one.unit_count, "looked_at": looked}

    return {
        "launches": [launch(one) for one in plan.launches],
        "deferred": [launch(one) for one in plan.deferred],
        "unmet": [unmet(one) for one in plan.unmet],
    }
