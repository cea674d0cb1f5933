"""`umbel logs`: what workers have printed, in sessions that run and in those whose logs are kept."""

from __future__ import annotations

import json
import os
import time

import click

from umbel._base import config, sessions
from umbel.cli import log_reader

FOLLOW_S = 0.1  # a person does not notice, and looking into a hundred files takes a millisecond


def make() -> click.Command:
    logs = click.Group("logs", help="What workers have printed.")
    logs.add_command(_list())
    logs.add_command(_show())
    return logs


_session = click.option(
    "--session", metavar="NAME", help="The session's name, or the end of it; needed when several have logs."
)


def _list() -> click.Command:
    @click.command("list")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects, with paths.")
    @_session
    def list_logs(as_json: bool, session: str | None) -> None:
        """The log files of a session: whose they are, how large, and how long ago they changed."""
        found = log_reader.streams(directory_of(session))
        for stream in found:
            stream.all(lambda entry: False)
        rows = [stream.describe() for stream in found]
        if as_json:
            click.echo(json.dumps(rows, indent=2))
            return
        if not rows:
            click.echo("no worker of this session has printed anything, or UMBEL_LOG_BYTES_MAX is 0", err=True)
        for stream, row in zip(found, rows, strict=True):
            ago_s = max(0.0, time.time() - row["changed_s"])
            names = ", ".join(row["names"][:5]) + (", ..." if len(row["names"]) > 5 else "")
            click.echo(f"{stream.title}: {row['bytes']} bytes, {ago_s:.0f} s ago; {names}")

    return list_logs


def _show() -> click.Command:
    @click.command("show")
    @click.argument("about", metavar="[ID]", required=False)
    @click.option("--tail", metavar="N", type=click.IntRange(min=0), help="Only the last N lines of each file.")
    @click.option("-f", "--follow", is_flag=True, help="Go on with what is printed, until the session ends.")
    @click.option("--err", "only", flag_value="err", help="Only standard error.")
    @click.option("--out", "only", flag_value="out", help="Only standard output.")
    @_session
    def show(about: str | None, tail: int | None, follow: bool, only: str | None, session: str | None) -> None:
        """Print what workers have printed.

        ID is of a worker or actor (or the beginning of one) or of a task, a process id, or the name of a task or actor;
        without one, everything is printed.
        """
        directory = directory_of(session)
        shown = _Shown(directory, about, only)
        count = shown.all(tail)
        if not follow:
            if not count and about is not None:
                raise click.ClickException(f"nothing called {about!r} has printed anything; see `umbel logs list`")
            return
        while os.path.isdir(directory) and _is_running(directory):
            time.sleep(FOLLOW_S)
            shown.more()
        shown.more()

    return show


class _Shown:
    """What has been printed so far."""

    def __init__(self, directory: str, about: str | None, only: str | None) -> None:
        self._directory = directory
        self._about = about
        self._only = only
        self._streams: dict[str, log_reader.Stream] = {}
        self._last = ""  # the stream printed last

    def _new(self) -> list[log_reader.Stream]:
        found = [one for one in log_reader.streams(self._directory) if one.path not in self._streams]
        self._streams |= {one.path: one for one in found}
        return [one for one in found if self._only is None or one.is_error == (self._only == "err")]

    def all(self, tail: int | None) -> int:
        """Print what is there; how many lines were wanted."""
        count = 0
        for stream in self._new():
            lines = stream.all(log_reader.wanted_by(self._about, stream))
            count += len(lines)
            self._print(stream, lines if tail is None else lines[max(0, len(lines) - tail) :])
        return count

    def more(self) -> None:
        for stream in list(self._streams.values()):
            if self._only is None or stream.is_error == (self._only == "err"):
                self._print(stream, stream.more(log_reader.wanted_by(self._about, stream)))
        self.all(None)

    def _print(self, stream: log_reader.Stream, lines: list[str]) -> None:
        if not lines:
            return
        if self._last != stream.path:
            click.echo(f"==> {stream.title}")
            self._last = stream.path
        click.echo("\n".join(lines))


def directory_of(session: str | None) -> str:
    """Where the session's logs are. Raises ClickException when there is none, or several and none was named."""
    running = [os.path.join(path, "logs") for path in sessions.running_sessions(sessions.base_dir())]
    root = config.Config.from_environment().log_dir or sessions.kept_logs_dir()
    names = {os.path.basename(os.path.dirname(path)) for path in running}
    try:
        kept = sorted((entry for entry in os.scandir(root) if entry.is_dir()), key=lambda entry: entry.stat().st_mtime)
    except OSError:
        kept = []
    found = [entry.path for entry in kept if entry.name not in names] + running
    if session is None and len(running) == 1:
        return running[0]
    fitting = [path for path in found if session is not None and _name_of(path).endswith(session.rstrip(os.sep))]
    if session is None and len(found) == 1:
        fitting = found
    if len(fitting) == 1:
        return fitting[0]
    shown = "".join(f"\n  {_name_of(path)}{' (runs)' if path in running else ''}" for path in found) or " none"
    if not found or (session is not None and not fitting):
        raise click.ClickException(f"there are no logs of {session or 'any session'}; there are those of:{shown}")
    raise click.ClickException(f"several sessions have logs; say which with --session:{shown}")


def _name_of(directory: str) -> str:
    """The session's, of a directory of logs."""
    return os.path.basename(os.path.dirname(directory) if os.path.basename(directory) == "logs" else directory)


def _is_running(directory: str) -> bool:
    name = _name_of(directory)
    return any(os.path.basename(path) == name for path in sessions.running_sessions(sessions.base_dir()))
