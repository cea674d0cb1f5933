"""`umbel plugins`: what is installed, what it provides, and why something is off."""

from __future__ import annotations

import json
from typing import Any

import click

from umbel._plugins import builtin, registry
from umbel.cli import group

CONFLICT = "conflict"  # in place of "active": it is on, but some of its names cannot be chosen


def make() -> click.Command:
    plugins = click.Group("plugins", help="What plugins are installed.")
    plugins.add_command(_list())
    return plugins


def _list() -> click.Command:
    @click.command("list")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects with the same fields.")
    @click.pass_context
    def list_plugins(context: click.Context, as_json: bool) -> None:
        """Every installed plugin: its distribution, version, hooks, and whether it is on."""
        catalog = context.find_object(registry.Catalog) or group.load_catalog()
        rows = [describe(catalog, plugin) for plugin in catalog.plugins]
        if as_json:
            click.echo(json.dumps(rows, indent=2))
        else:
            _print_table(rows)

    return list_plugins


def describe(catalog: registry.Catalog, plugin: registry.LoadedPlugin) -> dict[str, Any]:
    """One row. Any: a row is JSON."""
    found = plugin.found
    state, reason = plugin.state.value, plugin.reason
    conflicts = catalog.conflicts_of(plugin)
    if conflicts:
        state, reason = CONFLICT, "; ".join(conflicts)
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": group.umbel_version() if found == builtin.FOUND else found.version,
        "state": state,
        "reason": reason,
        "hooks": list(plugin.provides),
        "provides": {hook: list(names) for hook, names in plugin.provides.items()},
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("Plugin", "Distribution", "Version", "State"):
        table.add_column(column, overflow="fold")
    table.add_column("Hooks: names, or why it is off", overflow="fold", ratio=1)
    for row in rows:
        lines = [f"{hook.removeprefix('umbel_')}: {', '.join(names)}" for hook, names in row["provides"].items()]
        explanation = "\n".join(([row["reason"]] if row["reason"] else []) + lines)
        cells = (row["name"], row["distribution"], row["version"], row["state"], explanation)
        table.add_row(*(_plain(cell) for cell in cells))
    Console().print(table)


def _plain(cell: str) -> str:
    """A plugin's text is shown as it is, whatever rich would make of square brackets."""
    from rich.markup import escape

    return escape(cell)
