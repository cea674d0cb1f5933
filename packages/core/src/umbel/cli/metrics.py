"""`umbel metrics`: what a session measures, and a board that shows it."""

from __future__ import annotations

import json

import click

from umbel import exceptions
from umbel.cli import board, node


def make() -> click.Command:
    metrics = click.Group("metrics", help="What a session measures, and a board that shows it.")
    metrics.add_command(_show())
    metrics.add_command(_dashboard())
    return metrics


def _show() -> click.Command:
    @click.command("show")
    @node.option
    def show(session: str | None) -> None:
        """Print the metrics of a running session as Prometheus reads them.

        Umbel's own counts of tasks and objects are there only when metrics are served.
        """
        try:
            from umbel._agent import exporter
        except ImportError as error:
            raise click.ClickException(
                f'this needs the package prometheus-client ({error}); run: pip install "umbel[metrics]"'
            ) from error
        with node.connect(session) as asker:
            try:
                click.echo(exporter.text(asker.address), nl=False)
            except exceptions.UmbelError as error:
                raise click.ClickException(str(error)) from error

    return show


def _dashboard() -> click.Command:
    @click.command("dashboard")
    def dashboard() -> None:
        """Print a Grafana board as JSON; import it in Grafana and choose the data source."""
        click.echo(json.dumps(board.board(), indent=2))

    return dashboard
