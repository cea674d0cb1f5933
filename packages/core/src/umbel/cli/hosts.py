"""`umbel get-head-ip`, `umbel get-worker-ips` and `umbel exec`: where a cluster is, and a command run there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import click

from umbel import exceptions
from umbel._client import cluster_files, scaled_clusters, ssh_launcher, tool
from umbel.cli import node, up

_NAME = click.option("--cluster-name", "-n", help="In place of the file's.")


def _of_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    argument = click.argument("path", metavar="[FILE]", required=False)
    return argument(_NAME(node.option(command)))


def make_head_ip() -> click.Command:
    @click.command("get-head-ip")
    @_of_cluster
    def get_head_ip(path: str | None, cluster_name: str | None, session: str | None) -> None:
        """Print the host at which others reach the head of a running cluster.

        FILE describes it, as for `umbel up`; without, it is that of the node here.
        """
        click.echo("\n".join(_hosts(path, cluster_name, session, of_head=True)))

    return get_head_ip


def make_worker_ips() -> click.Command:
    @click.command("get-worker-ips")
    @_of_cluster
    def get_worker_ips(path: str | None, cluster_name: str | None, session: str | None) -> None:
        """Print the hosts of the other nodes, a line each, in the order in which they have joined."""
        for host in _hosts(path, cluster_name, session, of_head=False):
            click.echo(host)

    return get_worker_ips


def make_exec() -> click.Command:
    @click.command("exec")
    @click.argument("path", metavar="FILE")
    @click.argument("command", metavar="COMMAND")
    @_NAME
    @click.pass_context
    def execute(context: click.Context, path: str, command: str, cluster_name: str | None) -> None:
        """Run COMMAND, which a shell reads, on the machine of the head of the cluster that FILE describes, and end as it does.

        Programs that it starts connect to the cluster by umbel.init().
        """
        try:
            file = up.read(path, cluster_name)
            elsewhere = ssh_launcher.head_of(file)
            if elsewhere:
                context.exit(ssh_launcher.execute_there(file, elsewhere, command))
            environment = {**os.environ, "UMBEL_ADDRESS": _running(file, path)}
        except (exceptions.UmbelError, OSError) as error:
            raise click.ClickException(str(error)) from error
        context.exit(subprocess.run(command, shell=True, env=environment, check=False).returncode)

    return execute


def _hosts(path: str | None, cluster_name: str | None, session: str | None, *, of_head: bool) -> list[str]:
    """Raises ClickException."""
    if path is None:
        if cluster_name is not None:
            raise click.UsageError("--cluster-name is for a FILE; name a node here by --session")
        return _listed(session, of_head=of_head)
    if session is not None:
        raise click.UsageError("say either FILE or --session")
    try:
        file = up.read(path, cluster_name)
        elsewhere = ssh_launcher.head_of(file)
        if not elsewhere:
            return _listed(_running(file, path), of_head=of_head)
        told = ssh_launcher.asked_there(file, elsewhere, "get-head-ip" if of_head else "get-worker-ips").split()
        return [elsewhere] if of_head else told  # by the file's name for it, it is reached from here
    except (exceptions.UmbelError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _running(file: cluster_files.ClusterFile, path: str) -> str:
    """The session of its head. Raises ClickException."""
    found = scaled_clusters.running(file.name)
    if not found:
        raise click.ClickException(
            f"the cluster {file.name!r} does not run on this machine; `umbel up {path}` starts it"
        )
    return found


def _listed(session: str | None, *, of_head: bool) -> list[str]:
    """Raises ClickException."""
    with node.connect(session) as asker:
        living = _living(asker)
    fitting = [one for one in living if one["is_head"] == of_head]
    if of_head and not (fitting and fitting[0]["address"]):
        raise click.ClickException(
            "the head of this cluster is not known now; try again" if not fitting else
            "this node listens nowhere, so no other is of its cluster; start it with --port for others to join"
        )  # fmt: skip
    return [one["address"].rpartition(":")[0].strip("[]") for one in fitting]


def _living(asker: tool.Tool) -> list[dict[str, Any]]:
    try:
        return [one for one in asker.query("nodes") if one["alive"]]
    except exceptions.UmbelError as error:
        raise click.ClickException(str(error)) from error
