"""`umbel logs`: what workers have printed, in sessions that run, on all of their nodes, and in those whose logs are kept."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping

import click

from umbel import exceptions
from umbel._client import log_files, log_reader
from umbel.cli import log_places

FOLLOW_S = 0.1  # a person does not notice, and looking into a hundred files takes a millisecond
FOLLOW_OTHERS_S = 0.5  # other nodes are asked


def make() -> click.Command:
    logs = click.Group("logs", help="What workers have printed.")
    logs.add_command(_list())
    logs.add_command(_show())
    return logs


_session = click.option(
    "--session",
    metavar="NAME",
    help="The session's name, or the end of it, or host:port of a node; needed when several have logs.",
)
_node = click.option("--node-id", metavar="ID", help="Only of this node, or of that whose id begins so; default all.")


@contextlib.contextmanager
def _places(session: str | None, node_id: str | None) -> Iterator[log_places.Places]:
    places = log_places.Places(session, node_id)
    try:
        yield places
    finally:
        places.close()


def _looked(files: log_reader.Files) -> Mapping[str, log_files.Stat]:
    """What is there; nothing, with a word about it, of a node that does not answer."""
    try:
        return files.look()
    except exceptions.UmbelError as error:
        click.echo(f"umbel: {error}", err=True)
        return {}


def _list() -> click.Command:
    @click.command("list")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects, with paths.")
    @_node
    @_session
    def list_logs(as_json: bool, node_id: str | None, session: str | None) -> None:
        """The log files of a session, and of all nodes of its cluster: whose they are, how large, and how long ago they
        changed."""
        rows, titles = [], []
        with _places(session, node_id) as places:
            for files in places.files:
                seen = _looked(files)
                for stream in log_reader.streams(files, seen):
                    stream.all(lambda entry: False, seen)
                    rows.append({**stream.describe(seen), "node_id": getattr(files, "node_id", None)})
                    titles.append(stream.title)
        if as_json:
            click.echo(json.dumps(rows, indent=2))
            return
        if not rows:
            click.echo("no worker of this session has printed anything, or UMBEL_LOG_BYTES_MAX is 0", err=True)
        for title, row in zip(titles, rows, strict=True):
            ago_s = max(0.0, time.time() - row["changed_s"])
            names = ", ".join(row["names"][:5]) + (", ..." if len(row["names"]) > 5 else "")
            click.echo(f"{title}: {row['bytes']} bytes, {ago_s:.0f} s ago; {names}")

    return list_logs


def _show() -> click.Command:
    @click.command("show")
    @click.argument("about", metavar="[ID]", required=False)
    @click.option("--tail", metavar="N", type=click.IntRange(min=0), help="Only the last N lines of each file.")
    @click.option("-f", "--follow", is_flag=True, help="Go on with what is printed, until the session ends.")
    @click.option("--err", "only", flag_value="err", help="Only standard error.")
    @click.option("--out", "only", flag_value="out", help="Only standard output.")
    @_node
    @_session
    def show(
        about: str | None, tail: int | None, follow: bool, only: str | None, node_id: str | None, session: str | None
    ) -> None:
        """Print what workers have printed, on all nodes of the cluster.

        ID is of a worker or actor (or the beginning of one) or of a task, a process id, or the name of a task or actor;
        without one, everything is printed.
        """
        with _places(session, node_id) as places:
            shown = _Shown(places.files, about, only)
            count = shown.more(tail)
            if not follow:
                if not count and about is not None:
                    raise click.ClickException(f"nothing called {about!r} has printed anything; see `umbel logs list`")
                return
            are_here = all(isinstance(files, log_reader.LocalFiles) for files in places.files)
            while shown.files and places.is_running():
                time.sleep(FOLLOW_S if are_here else FOLLOW_OTHERS_S)
                shown.more()
            shown.more()

    return show


class _Shown:
    """What has been printed so far. files: of which more may come."""

    def __init__(self, files: list[log_reader.Files], about: str | None, only: str | None) -> None:
        self.files = [*files]
        self._about = about
        self._only = only
        self._streams: dict[tuple[log_reader.Files, str], log_reader.Stream] = {}
        self._last: log_reader.Stream | None = None  # the stream printed last

    def more(self, tail: int | None = None) -> int:
        """Print what has come; how many lines were wanted. tail: how many at most of a file that is new; None for all."""
        return sum(self._more_of(files, tail) for files in [*self.files])

    def _more_of(self, files: log_reader.Files, tail: int | None) -> int:
        try:
            seen = files.look()
            known = [stream for (of, _), stream in self._streams.items() if of is files]
            count = sum(self._print(stream, stream.more(self._wanted(stream), seen)) for stream in known)
            for stream in log_reader.streams(files, seen):
                if (files, stream.name) in self._streams or self._only not in (
                    None,
                    "err" if stream.is_error else "out",
                ):
                    continue
                self._streams[files, stream.name] = stream
                lines = stream.all(self._wanted(stream), seen)
                count += len(lines)
                self._print(stream, lines if tail is None else lines[max(0, len(lines) - tail) :])
        except exceptions.UmbelError as error:  # its node has gone, or does not answer
            click.echo(f"umbel: {error}", err=True)
            self.files.remove(files)
            return 0
        return count

    def _wanted(self, stream: log_reader.Stream) -> log_reader.Wanted:
        return log_reader.wanted_by(self._about, stream)

    def _print(self, stream: log_reader.Stream, lines: list[str]) -> int:
        if lines:
            if self._last is not stream:
                click.echo(f"==> {stream.title}")
                self._last = stream
            click.echo("\n".join(lines))
        return len(lines)
