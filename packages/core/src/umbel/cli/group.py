"""The command group: subcommands are those that plugins provide, imported when they are run.

A plugin that is broken costs its own subcommands and a line on standard error, never the whole command.
"""

from __future__ import annotations

import importlib.metadata

import click

from umbel import exceptions
from umbel._base import config
from umbel._plugins import registry
from umbel.cli import planned


def umbel_version() -> str:
    try:
        return importlib.metadata.version("umbel")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (not installed)"


def load_catalog() -> registry.Catalog:
    """Raises ClickException when UMBEL_PLUGINS, or another setting in the environment, makes no sense."""
    try:
        return registry.load(config.Config.from_environment().plugins)
    except exceptions.UmbelError as error:
        raise click.ClickException(str(error)) from error


class PluginGroup(click.Group):
    """Finds its subcommands in a catalog, which `--version` and a syntax error need not load."""

    def catalog(self, context: click.Context) -> registry.Catalog:
        """That of this run of the command."""
        if not isinstance(context.obj, registry.Catalog):
            context.obj = load_catalog()
        return context.obj

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self.catalog(ctx).commands.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        commands = self.catalog(ctx).commands
        if cmd_name not in commands.names():
            # Else click says what there is instead.
            return planned.make(cmd_name) if cmd_name in planned.PLANNED else None
        try:
            made = commands.create(cmd_name)
        except exceptions.PluginError as error:
            raise click.ClickException(str(error)) from error
        if not isinstance(made, click.Command):
            origin = commands.find(cmd_name).origin
            raise click.ClickException(
                f"command {cmd_name!r} of {origin} cannot be used: its factory must return a click.Command, "
                f"got {made!r}; repair or uninstall it"
            )
        return made

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the descriptors, so that help imports nothing of any plugin's commands."""
        catalog = self.catalog(ctx)
        conflicts = catalog.commands.conflicts()
        rows = [
            (name, "(two plugins provide it)" if name in conflicts else catalog.commands.find(name).descriptor.summary)
            for name in catalog.commands.names()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        for complaint in self.catalog(ctx).complaints():
            click.echo(f"umbel: {complaint}", err=True)
        return super().invoke(ctx)


def make() -> click.Command:
    group = PluginGroup("umbel", help="Umbel: tasks, actors and objects, from a laptop to a cluster.")
    return click.version_option(umbel_version(), prog_name="umbel", message="%(prog)s %(version)s")(group)


def main() -> None:
    make()(prog_name="umbel")
