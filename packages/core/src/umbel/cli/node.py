"""Which running session a command is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from umbel import exceptions
from umbel._client import running_nodes, tool

HISTORY_ANSWER_S = 30.0  # for all to be written down, which takes milliseconds on a machine that is idle


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--session`, or `--address` as Ray has it, of which `connect` makes a connection."""
    text = (
        "The session's directory, the end of its name, or host:port of a node that listens; needed when several run that are not "
        "of one cluster."
    )
    return click.option("--session", "--address", "session", metavar="NAME", help=text)(command)


def connect(session: str | None, *, answer_s: float = tool.ANSWER_S) -> tool.Tool:
    """Raises ClickException when there is none, or several and none was named."""
    if session is not None and tool.is_remote(session):
        return _tool(session, answer_s)
    try:
        return _tool(running_nodes.looked_at(session or ""), answer_s)
    except ConnectionError as error:
        raise click.ClickException(str(error)) from error


def _tool(address: str, answer_s: float) -> tool.Tool:
    try:
        return tool.Tool(address, answer_s=answer_s)
    except exceptions.UmbelError as error:
        raise click.ClickException(str(error)) from error
