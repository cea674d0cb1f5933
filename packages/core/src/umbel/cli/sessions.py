"""`umbel sessions`: which nodes run on this machine. Light, since the launcher `ssh` asks machines for it again and again."""

from __future__ import annotations

import contextlib
import json
import os

import click

from umbel._base import nodes, sessions


def make() -> click.Command:
    @click.command("sessions")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def list_sessions(as_json: bool) -> None:
        """Nodes of this user that `umbel start`, or a launcher, has started on this machine; none of them is asked."""
        found = []
        for path in sessions.outliving_sessions(sessions.base_dir()):
            with contextlib.suppress(OSError):  # it has just ended
                told = sessions.outliving(path)
                found.append({**told._asdict(), "name": os.path.basename(path), "labels": json.loads(told.labels)})
        if as_json:
            click.echo(json.dumps(found))
            return
        for one in found:
            what = f"{one['name']} is node {one['node_id'][:8]}"
            if one["address"]:
                what += f" at {nodes.address_in_words(one['address'])}"
            if one["cluster"] == one["node_id"]:
                what += ", the head"
            elif one["head"]:
                what += f", of the head at {one['head']}"
            click.echo(what)
        if not found:
            click.echo("no node runs here that `umbel start` has started")

    return list_sessions
