"""`umbel kill-actor`: end a named actor, such as a detached one that no program wants any more."""

from __future__ import annotations

import click

from umbel import exceptions
from umbel._client import api, running_nodes, session, tool
from umbel.cli import node


def make() -> click.Command:
    @click.command("kill-actor")
    @click.argument("name", required=False)
    @click.option("--name", "name_option", metavar="NAME", help="The same, as Ray has it.")
    @click.option("--namespace", help="The actor's; needed where several have an actor of this name.")
    @click.option("--force", is_flag=True, help="Kill it at once, whatever it does.")
    @click.option("--no-restart", is_flag=True, help="With --force: also if it has restarts left.")
    @node.option
    def kill_actor(
        name: str | None, name_option: str | None, namespace: str | None, force: bool, no_restart: bool,
        session: str | None,
    ) -> None:  # fmt: skip
        """End the actor of this name.

        Without --force it ends when it has done what it was asked for before, which the command waits for, and is not restarted.
        """
        if (name is None) == (name_option is None):
            raise click.UsageError("say which actor, once: its name, as `umbel list actors` shows it")
        if no_restart and not force:
            click.echo("umbel: --no-restart is for --force; an actor that is asked to end is not restarted", err=True)
        _end(name or name_option or "", namespace, session, is_forced=force, restarts=not no_restart)

    return kill_actor


def _end(name: str, namespace: str | None, where: str | None, *, is_forced: bool, restarts: bool) -> None:
    """As a program of the cluster, since only programs may end actors. Raises ClickException."""
    try:
        space = _namespace_of(name, namespace, where)
        with session.init(address=_address(where), namespace=space, log_to_driver=False):
            handle = api.get_actor(name)
            if is_forced:
                api.kill(handle, no_restart=not restarts)
                click.echo(f"Actor {name!r} has been killed.")
                return
            click.echo(f"Actor {name!r} is asked to end, and does when it has done what it was asked for before.")
            api.wait([handle.__umbel_terminate__.remote()])
            click.echo("It has ended.")
    except (exceptions.UmbelError, ConnectionError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _address(where: str | None) -> str:
    if where is not None and tool.is_remote(where):
        return f"{session.REMOTE_SCHEME}{where}"
    return running_nodes.looked_at(where or "")


def _namespace_of(name: str, wanted: str | None, where: str | None) -> str:
    """Raises ClickException, UmbelError."""
    with node.connect(where) as asker:
        listed = asker.query("actors")
    spaces = [one["namespace"] for one in listed if one["name"] == name and one["state"] != "DEAD"]
    if wanted is not None:
        spaces = [one for one in spaces if one == wanted]
    if not spaces:
        here = "" if wanted is None else f" in the namespace {wanted!r}"
        raise click.ClickException(
            f"no living actor is called {name!r}{here}; `umbel list actors` shows those there are"
        )
    if len(spaces) > 1:
        raise click.ClickException(
            f"actors of several namespaces are called {name!r}; say which by --namespace: {', '.join(sorted(spaces))}"
        )
    found: str = spaces[0]
    return found
