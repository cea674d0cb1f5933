"""Where the logs are that a command is about: in sessions of this machine, ended ones too, and on the nodes of a cluster."""

from __future__ import annotations

import os

import click

from umbel import exceptions
from umbel._base import config, sessions
from umbel._client import cluster_logs, cluster_view, log_reader, running_nodes, tool
from umbel.cli import node


class Places:
    """All of them, to be closed. directory: of the session here, "" for none."""

    def __init__(self, session: str | None, node_id: str | None) -> None:
        """session: its name or the end of it, or host:port of a node; node_id: or the beginning of it. Raises ClickException when
        there is none, or several and none was named."""
        self.directory = ""
        self._asker: tool.Tool | None = None
        if session is None or not tool.is_remote(session):
            self.directory = directory_of(session)
        if self.directory and not self.is_running():
            if node_id is not None:
                raise click.ClickException(
                    f"--node-id is for a session that runs, and that of {self.directory} has ended"
                )
            self.files: list[log_reader.Files] = [log_reader.LocalFiles(self.directory)]
            return
        self._asker = node.connect(session if not self.directory else os.path.dirname(self.directory))
        self.files = self._of_nodes(self._asker, node_id)

    def _of_nodes(self, asker: tool.Tool, wanted: str | None) -> list[log_reader.Files]:
        try:
            cluster = cluster_view.Cluster(asker, cluster_logs.LOOK_S)
            living = [one["node_id"] for one in cluster.facts if one["alive"]]
            chosen = [one for one in living if wanted is None or one.startswith(wanted.lower())]
            if not chosen:
                raise click.ClickException(
                    f"no living node has an id that begins with {wanted!r}; see `umbel list nodes`"
                )
            found = cluster_logs.of_nodes(asker, cluster, chosen, self.directory)
        except exceptions.UmbelError as error:
            raise click.ClickException(str(error)) from error
        for text in cluster.node.missing:
            click.echo(f"umbel: {text}", err=True)
        return found

    def is_running(self) -> bool:
        if not self.directory:
            return True
        name = _name_of(self.directory)
        return any(os.path.basename(path) == name for path in sessions.running_sessions(sessions.base_dir()))

    def close(self) -> None:
        if self._asker is not None:
            self._asker.close()


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
    if session is not None:
        session = os.path.basename(session.rstrip(os.sep))  # its directory says it too
    if session is None and len(running) == 1:
        return running[0]
    fitting = [path for path in found if session is not None and _name_of(path).endswith(session)]
    if session is None and len(found) == 1:
        fitting = found
    if len(fitting) == 1:
        return fitting[0]
    if session is None and (of_cluster := _of_one_cluster(running)):
        return of_cluster
    shown = "".join(f"\n  {_name_of(path)}{' (runs)' if path in running else ''}" for path in found) or " none"
    if not found or (session is not None and not fitting):
        raise click.ClickException(f"there are no logs of {session or 'any session'}; there are those of:{shown}")
    raise click.ClickException(f"several sessions have logs; say which with --session:{shown}")


def _of_one_cluster(running: list[str]) -> str:
    """Of nodes that run here and are of one cluster, that which knows most; "" if they are not."""
    if {os.path.dirname(path) for path in running} != {*sessions.outliving_sessions(sessions.base_dir())}:
        return ""
    try:
        return os.path.join(str(running_nodes.find("auto")), "logs")
    except ConnectionError:
        return ""


def _name_of(directory: str) -> str:
    """The session's, of a directory of logs."""
    return os.path.basename(os.path.dirname(directory) if os.path.basename(directory) == "logs" else directory)
