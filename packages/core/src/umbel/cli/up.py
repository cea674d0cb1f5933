"""`umbel up` and `umbel down`: a cluster that launches its nodes, as a file describes it."""

from __future__ import annotations

import json
import os
import re

import click

from umbel import exceptions
from umbel._autoscaling import autoscaler, demand, report
from umbel._client import cluster_files, cluster_node, scaled_clusters, ssh_launcher
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
    @click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
    @click.option("--cluster-name", "-n", help="In place of the file's.")
    @click.option(
        "--host",
        help="At which of this machine's addresses the head listens; default 127.0.0.1 where all nodes are on this machine, else "
        "that by which others reach it.",
    )
    @click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Where it listens; default any free one.")
    @click.option("--node-ip-address", help="At which address nodes reach it; default the one it listens at.")
    @click.option("--storage", metavar="URL", help="As for `umbel start --head`.")
    @click.option("--yes", "-y", is_flag=True, help="As Ray has it; nothing is asked here.")
    def up(
        path: str, dry_run: bool, wanted: tuple[str, ...], as_json: bool, cluster_name: str | None, host: str | None,
        port: int, node_ip_address: str | None, storage: str | None, yes: bool,
    ) -> None:  # fmt: skip
        """Start the cluster that FILE describes (JSON, TOML or YAML), or have the one that runs follow it.

        Its head starts on this machine, with an autoscaler that launches and ends nodes as they are needed.
        """
        try:
            file = read(path, cluster_name)
            if dry_run:
                told = report.of_plan(
                    autoscaler.Autoscaler(file.settings).dry_run(0.0, [_shape(one) for one in wanted])
                )
                lines = report.plan_in_words(told) or ["nothing would be launched"]
                click.echo(json.dumps(told, indent=2) if as_json else "\n".join(lines))
                return
            if wanted or as_json:
                raise click.ClickException("--demand and --json are for --dry-run")
            elsewhere = ssh_launcher.head_of(file)
            if elsewhere:
                given = {
                    "--host": host,
                    "--port": port or None,
                    "--node-ip-address": node_ip_address,
                    "--storage": storage,
                }
                options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
                click.echo(f"{elsewhere}: {ssh_launcher.up_there(file, elsewhere, options).strip()}")
                return
            running = scaled_clusters.running(file.name)
            if running:
                scaled_clusters.change(file, running)
                click.echo(
                    f"the cluster {file.name!r} runs, as {os.path.basename(running)}, and follows {path} from now on"
                )
                return
            place = cluster_node.Place(
                host=host or ("127.0.0.1" if file.launcher == "local" else ""),
                port=port,
                node_host=node_ip_address or "",
            )
            started = scaled_clusters.start(file, place, cluster_node.Keeping(storage) if storage else None)
        except (exceptions.UmbelError, OSError, TypeError, ValueError, RuntimeError) as error:
            raise click.ClickException(str(error)) from error
        name = os.path.basename(started.launched.session_dir)
        click.echo(f"The cluster {file.name!r} is up: its head has {started.told}, as {name}, at {started.address}.")
        click.echo(f"It launches up to {file.settings.max_workers} nodes by {file.launcher!r} as they are needed.")
        click.echo(
            "Programs on this machine connect by umbel.init(); `umbel status` says what is launched and why, "
            f"`umbel down {path}` ends all of it."
        )

    return up


def make_down() -> click.Command:
    @click.command("down")
    @click.argument("path", metavar="FILE")
    @click.option("--cluster-name", "-n", help="In place of the file's.")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    def down(path: str, cluster_name: str | None, yes: bool) -> None:
        """End the cluster that FILE describes: its head, if it is on this machine, all of its nodes, and what runs on them."""
        try:
            file = read(path, cluster_name)
        except (exceptions.UmbelError, OSError) as error:
            raise click.ClickException(str(error)) from error
        if not yes and not click.confirm(f"End the cluster {file.name!r}, with all that runs on it?"):
            raise click.ClickException(f"the cluster {file.name!r} goes on; say yes, or --yes, to end it")
        try:
            elsewhere = ssh_launcher.head_of(file)
            if elsewhere:
                click.echo(f"{elsewhere}: {ssh_launcher.down_there(file, elsewhere).strip()}")
                return
            ended = scaled_clusters.end(file)
        except (exceptions.UmbelError, OSError, RuntimeError) as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"the cluster {file.name!r}: {' and '.join(ended)} ended" if ended else "nothing of it runs")

    return down


def read(path: str, name: str | None) -> cluster_files.ClusterFile:
    """Raises UmbelError, OSError."""
    file = cluster_files.read(path)
    if name is not None:
        file = cluster_files.parsed({**file.content, "cluster_name": name}, path)
    registry.installed().node_launchers.find(file.launcher)
    return file


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
