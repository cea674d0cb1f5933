"""`umbel stack [ID]`: what workers run and where each of their threads stands, asked while they go on."""

from __future__ import annotations

import json
from typing import Any

import click

from umbel import exceptions
from umbel._model import reasons
from umbel.cli import explain, node


def make() -> click.Command:
    @click.command("stack")
    @click.argument("about", metavar="[ID]", required=False)
    @click.option("--all", "all_frames", is_flag=True, help="Show Umbel's own frames and idle threads too.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @node.option
    def stack(about: str | None, all_frames: bool, as_json: bool, session: str | None) -> None:
        """What the workers of a session, and of all nodes of its cluster, run, and where they stand.

        ID is of a worker or actor (or the beginning of one) or of a task, or a process id; without one, all workers.
        """
        with node.connect(session) as asker:
            try:
                workers, missing = explain.workers_about(asker, about)
                found = [_of_worker(asker, one) for one in workers]
            except exceptions.UmbelError as error:
                raise click.ClickException(str(error)) from error
        for text in missing:
            click.echo(f"umbel: {text}", err=True)
        if about and not found:
            raise click.ClickException(f"no worker, actor or running task is called {about!r}")
        is_alone = len({one["node_id"] for one in found}) < 2 and not missing
        if as_json:
            click.echo(json.dumps(found, indent=2))
            return
        for one in found:
            click.echo("\n".join(_in_words(one, all_frames=all_frames, is_alone=is_alone)))

    return stack


def _of_worker(asker: Any, worker: dict[str, Any]) -> dict[str, Any]:
    about = {name: worker[name] for name in ("worker", "pid", "state", "node_id")}
    try:
        return {**about, **asker.ask(worker["worker"], "stack", "")}
    except exceptions.UmbelError as error:  # one that is stuck in C must not hide the others
        return {**about, "unknown": str(error), "running": [], "beside": [], "threads": [], "coroutines": []}


def _in_words(worker: dict[str, Any], *, all_frames: bool, is_alone: bool) -> list[str]:
    """is_alone: all are on one node."""
    where = "" if is_alone else f" of node {worker['node_id'][:8]}"
    lines = [f"worker {worker['worker'][:8]} (pid {worker['pid']}){where}, {worker['state']}"]
    if "unknown" in worker:
        lines.append(f"  does not answer: {worker['unknown']}")
    for one in worker["running"]:
        lines.append(f"  runs {one['name']} (task {one['task']}), for {one['for_s']:.1f} s")
        if one["why"] is not None:
            lines.append(f"    {reasons.Reason.from_json(one['why'])}")
    lines += [f"  {reasons.Reason.from_json(why)}" for why in worker["beside"]]
    stacks = []
    if all_frames or worker["running"] or worker["beside"]:
        stacks = [(f"thread {thread['name']}", thread["frames"]) for thread in worker["threads"]]
    stacks += [(f"coroutine of {one['name']} (task {one['task']})", one["frames"]) for one in worker["coroutines"]]
    for title, frames in stacks:
        shown = [frame for frame in frames if all_frames or not frame[4]]
        if shown:
            lines.append(f"  {title}")
        for file, line, function, text, _ in shown:
            lines.append(f"    {file}:{line} in {function}")
            if text:
                lines.append(f"      {text}")
    return lines
