"""`umbel list`, `umbel get` and `umbel summary`: what `umbel.util.state` tells, for people and for scripts."""

from __future__ import annotations

import datetime
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from umbel import exceptions
from umbel.util.state import api, common

KINDS = [name.replace("_", "-") for name in common.SCHEMAS]
WITH_ID = [name.replace("_", "-") for name, schema in common.SCHEMAS.items() if schema.ID]
_FILTER = re.compile(r"^\s*(\w+)\s*(!=|=|<|>|\sin\s)(.*)$")


def _address(command: Callable[..., Any]) -> Callable[..., Any]:
    text = (
        "The session's directory, the end of its name, host:port of a node that listens, or a history that was kept; needed when "
        "several run."
    )
    command = click.option("--address", "--session", "address", metavar="NAME", help=text)(command)
    timeout = click.option(
        "--timeout", type=float, default=common.DEFAULT_RPC_TIMEOUT, show_default=True, help="Seconds."
    )
    command = timeout(command)
    return click.option("--json", "as_json", is_flag=True, help="The same as --format json.")(command)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "COLUMN=VALUE, with = != < > or ' in ' and values separated by commas; all that are given must be met."
    return click.option("--filter", "-f", "filters", multiple=True, metavar="CONDITION", help=text)(command)


def make_list() -> click.Command:
    @click.command("list")
    @click.argument("kind", type=click.Choice(KINDS))
    @_filters
    @click.option("--limit", type=int, default=common.DEFAULT_LIMIT, show_default=True, help="How many at most.")
    @click.option("--offset", type=int, default=0, help="How many to leave out before.")
    @click.option("--order-by", metavar="COLUMN", help="Sort by it; -COLUMN for descending.")
    @click.option("--detail", is_flag=True, help="All columns.")
    @click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
    @_address
    def list_them(
        kind: str, filters: tuple[str, ...], limit: int, offset: int, order_by: str | None, detail: bool, form: str,
        timeout: float, address: str | None, as_json: bool,
    ) -> None:  # fmt: skip
        """Tasks, actors and all else of a running session, with what has ended."""
        name = kind.replace("-", "_")
        schema = common.SCHEMAS[name]
        request = _asked(
            lambda: api.request_of(name, [read_filter(text) for text in filters], order_by, limit, offset, timeout)
        )
        found = _asked(lambda: api.StateApiClient(address).listed(name, request))
        rows = [api.state_of(row, schema, detail=detail).asdict() for row in found.rows]
        columns = schema.list_columns(detail=detail)
        rows = [{column: row[column] for column in columns} for row in rows]
        _warn([*found.missing, *found.notes])
        if as_json or form == "json":
            click.echo(json.dumps(rows))
            return
        if detail:
            _print_blocks(rows)
        else:
            _print_table(columns, [[_in_words(column, row[column]) for column in columns] for row in rows])
        click.echo(f"{len(rows)} of {found.total} {kind}")

    return list_them


def make_get() -> click.Command:
    @click.command("get")
    @click.argument("kind", type=click.Choice(WITH_ID))
    @click.argument("id")
    @_address
    def get(kind: str, id: str, timeout: float, address: str | None, as_json: bool) -> None:
        """All that is known of one task, actor or other thing. ID is what `umbel list` shows."""
        found = _asked(lambda: api.StateApiClient(address).get(kind.replace("-", "_"), id, timeout=timeout))
        if not found:
            raise click.ClickException(f"none of the {kind} has the id {id!r}")
        states = [one.asdict() for one in (found if isinstance(found, list) else [found])]
        if as_json:
            click.echo(json.dumps(states))
        else:
            _print_blocks(states)

    return get


def make_summary() -> click.Command:
    @click.command("summary")
    @click.argument("kind", type=click.Choice(["tasks", "actors", "objects"]))
    @_filters
    @_address
    def summary(kind: str, filters: tuple[str, ...], timeout: float, address: str | None, as_json: bool) -> None:
        """How many tasks, actors or objects are in which state."""
        found = _asked(
            lambda: api.StateApiClient(address).summary(
                kind,
                filters=[read_filter(text) for text in filters],
                timeout=timeout,
                raise_on_missing_output=False,
                _explain=True,
            )
        )
        if as_json:
            click.echo(json.dumps(found))
            return
        cluster = found["cluster"]
        entries = cluster.pop("summary")
        columns = [*dict.fromkeys(column for entry in entries.values() for column in entry)]
        lines = [
            [group, *(_in_words(column, entry.get(column)) for column in columns)] for group, entry in entries.items()
        ]
        _print_table([cluster.pop("summary_by"), *columns], lines)
        for name, value in cluster.items():
            click.echo(f"{name}: {value}")

    return summary


def read_filter(text: str) -> tuple[str, str, str]:
    """(column, operator, value) of what was written. Raises InvalidOption."""
    found = _FILTER.match(text)
    if found is None:
        raise exceptions.InvalidOption(
            f"a filter is COLUMN, one of = != < > in, and VALUE, such as 'state=RUNNING', got {text!r}", option="filter"
        )
    column, operator, value = found.groups()
    return column, operator.strip(), value.strip()


def _asked(ask: Callable[[], Any]) -> Any:
    """What `ask` returns; warnings go to standard error, errors end the command."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = ask()
        except (exceptions.UmbelError, ValueError) as error:
            raise click.ClickException(str(error)) from error
    _warn([str(one.message) for one in caught])
    return answer


def _warn(texts: Sequence[str]) -> None:
    for text in texts:
        click.echo(f"umbel: {text}", err=True)


def _in_words(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column.endswith("_ms") and isinstance(value, int) and value > 0 and "time" in column:
        return datetime.datetime.fromtimestamp(value / 1e3).isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    return str(value)


def _print_blocks(states: Sequence[Mapping[str, Any]]) -> None:
    """A column a line, and an empty line after each state."""
    for state in states:
        width = max(map(len, state))
        for column, value in state.items():
            click.echo(f"{column:<{width}}  {_in_words(column, value)}".rstrip())
        click.echo()


def _print_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Plain columns, whatever the width of the terminal, so that lines can be searched."""
    cells = [[column.upper() for column in columns], *lines]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for line in cells:
        click.echo(
            "  ".join(cell.replace("\n", " ").ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
