"""`umbel timeline`: what ran when, as a file for Perfetto or chrome://tracing."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

import click

from umbel import exceptions
from umbel._client import cluster_listing
from umbel._client import timeline as timelines
from umbel.cli import node


def make() -> click.Command:
    @click.command("timeline")
    @click.option("--output", "-o", metavar="FILE", default="umbel-timeline.json", help="Where to write; - for stdout.")
    @click.option(
        "--history", metavar="FILE", help="A history that was kept (UMBEL_HISTORY_DIR), instead of a session."
    )
    @node.option
    def timeline(output: str, history: str | None, session: str | None) -> None:
        """Write what ran when as trace events, for ui.perfetto.dev or chrome://tracing."""
        try:
            if history is not None:
                count = _write(cluster_listing.timeline(None, path=os.path.abspath(history)), output)
            else:
                asking = node.connect(session, answer_s=node.HISTORY_ANSWER_S)
                with asking as asker, warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    count = _write(cluster_listing.timeline(asker), output)
                for one in caught:
                    click.echo(f"umbel: {one.message}", err=True)
        except exceptions.UmbelError as error:
            raise click.ClickException(str(error)) from error
        if output != "-":
            click.echo(f"{count} tasks are in {output}; open it in https://ui.perfetto.dev or chrome://tracing")

    return timeline


def _write(events: Any, output: str) -> int:
    """Writes them one a line, as they come; how many tasks there were."""
    count = 0
    with click.open_file(output, "w") as file:
        before = "[\n"
        for event in events:
            count += event["cat"] in timelines.CATEGORIES.values()
            file.write(before + json.dumps(event))
            before = ",\n"
        file.write(before if before == "[\n" else "\n")
        file.write("]\n")
    return count
