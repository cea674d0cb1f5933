"""`umbel memory`: who holds what in a session, by the line or the task that made it."""

from __future__ import annotations

import json

import click

from umbel import exceptions
from umbel._client import memory_report
from umbel.cli import node


def make() -> click.Command:
    @click.command("memory")
    @click.option(
        "--group-by",
        type=click.Choice([*memory_report.GROUPS], case_sensitive=False),
        default="STACK_TRACE",
        show_default=True,
        help="STACK_TRACE: the line that made the object, or its task; NODE_ADDRESS: the process that owns it.",
    )
    @click.option(
        "--sort-by",
        type=click.Choice([*memory_report.SORTS], case_sensitive=False),
        default="OBJECT_SIZE",
        show_default=True,
        help="Within a group.",
    )
    @click.option(
        "--units",
        type=click.Choice([*memory_report.UNITS, "auto"], case_sensitive=False),
        default="auto",
        show_default=True,
    )
    @click.option("-n", "--num-entries", type=click.IntRange(min=0), help="Objects of each group; all by default.")
    @click.option("--stats-only", is_flag=True, help="Print the sums only.")
    @click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
    @node.option
    def memory(
        group_by: str,
        sort_by: str,
        units: str,
        num_entries: int | None,
        stats_only: bool,
        as_json: bool,
        session: str | None,
    ) -> None:
        """Who holds what in a session's memory, and which line or task made it.

        `umbel explain ID` says of one object why it is alive.
        """
        with node.connect(session) as asker:
            try:
                report = memory_report.collect(asker)
            except exceptions.UmbelError as error:
                raise click.ClickException(str(error)) from error
        if as_json:
            listed = [{**one._asdict(), "reference_type": one.reference_type} for one in report.entries]
            click.echo(json.dumps({**report._asdict(), "entries": listed}, indent=2))
        elif stats_only:
            click.echo(memory_report.stats(report, units=units))
        else:
            click.echo(
                memory_report.in_words(report, group_by=group_by, sort_by=sort_by, units=units, num_entries=num_entries)
            )

    return memory
