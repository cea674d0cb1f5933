"""Which running session a command is about."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import click

from umbel import exceptions
from umbel._base import sessions
from umbel._client import running_nodes, tool

HISTORY_ANSWER_S = 30.0  # for all to be written down, which takes milliseconds on a machine that is idle


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--session`, of which `connect` makes a connection."""
    text = "The session's directory, the end of its name, or host:port of a node that listens; needed when several run."
    return click.option("--session", metavar="NAME", help=text)(command)


def connect(session: str | None, *, answer_s: float = tool.ANSWER_S) -> tool.Tool:
    """Raises ClickException when there is none, or several and none was named."""
    if session is not None and tool.is_remote(session):
        return _tool(session, answer_s)
    running = sessions.running_sessions(sessions.base_dir())
    fitting = [path for path in running if session is None or path.endswith(session.rstrip(os.sep))]
    if session is None and len(fitting) > 1 and set(fitting) == set(sessions.outliving_sessions(sessions.base_dir())):
        with contextlib.suppress(ConnectionError):  # they are not of one cluster: its head knows most
            return _tool(str(running_nodes.find("auto")), answer_s)
    if len(fitting) != 1:
        shown = "".join(f"\n  {path}" for path in running) or " none"
        if fitting:
            raise click.ClickException(f"several sessions run here; say which with --session:{shown}")
        wanted = f"no session {session!r} runs here" if session else "no session of this user runs here"
        raise click.ClickException(f"{wanted}; there are:{shown}")
    return _tool(fitting[0], answer_s)


def _tool(address: str, answer_s: float) -> tool.Tool:
    try:
        return tool.Tool(address, answer_s=answer_s)
    except exceptions.UmbelError as error:
        raise click.ClickException(str(error)) from error
