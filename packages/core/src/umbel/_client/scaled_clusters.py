"""Clusters that launch their nodes, as files describe them: starting one here, changing it, and ending all of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Mapping
from typing import Final

from umbel import exceptions, spi
from umbel._base import sessions, token_files
from umbel._client import cluster_files, cluster_node, tool
from umbel._plugins import registry

END_S: Final = 30.0  # for the head to end with all that runs on its node; then it is killed
ROUNDS_MAX: Final = 5  # of ending nodes: one that came while others were ended is seen by the next
LOOK_S: Final = 0.02
NAMED_MAX: Final = 50  # of the nodes that were ended
NOWHERE: Final = "127.0.0.1:1"  # for a launcher that is to launch nothing


def running(name: str) -> str:
    """The session directory of the head here of the cluster of this name; "" for none."""
    for path in sessions.outliving_sessions(sessions.base_dir()):
        with contextlib.suppress(OSError, ValueError), open(os.path.join(path, sessions.CLUSTER_FILE)) as file:
            if json.load(file).get("cluster_name", "default") == name:
                return path
    return ""


def token_path(name: str) -> str:
    """Of the cluster's token, as long as it is up."""
    return token_files.default_path(f"up-{name}")


def launcher(file: cluster_files.ClusterFile) -> spi.NodeLauncher:
    """To check, list and end nodes. Raises UmbelError."""
    made = registry.installed().node_launchers.create(
        file.launcher, file.name, address=NOWHERE, token_file="", config=file.launcher_config
    )
    assert isinstance(made, spi.NodeLauncher)  # or an error would have been raised
    return made


def check(file: cluster_files.ClusterFile) -> None:
    """Whether its launcher can do what it says. Raises UmbelError."""
    made = launcher(file)
    for one in file.settings.node_types:
        made.check(file.specs[one.name])
    made.close()


def start(
    file: cluster_files.ClusterFile,
    place: cluster_node.Place,
    keeping: cluster_node.Keeping | None = None,
    *,
    env_vars: Mapping[str, str] | None = None,
) -> cluster_node.Started:
    """Its head, on this machine, whose autoscaler does the rest. place: without a token's file. env_vars: of its processes.
    Raises as `start_node`."""
    check(file)
    wishes = cluster_node.Wishes() if file.head is None else cluster_node.wishes_of(file.head, {})
    wishes = wishes._replace(env_vars=env_vars or {})
    path = token_path(file.name)
    try:
        return cluster_node.start_node(
            wishes, place._replace(token_file=path), keeping, autoscaling={**file.content, "cluster_name": file.name}
        )
    except BaseException:
        _forget_token(file.name)
        raise


def change(file: cluster_files.ClusterFile, session_dir: str) -> None:
    """Have the autoscaler of a head that runs follow this from its next look on. Raises UmbelError."""
    check(file)
    path = os.path.join(session_dir, sessions.CLUSTER_FILE)
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as written:
        json.dump({**file.content, "cluster_name": file.name}, written)
    os.replace(draft, path)


def end(file: cluster_files.ClusterFile) -> list[str]:
    """The head, if it is here, and all nodes that the cluster's launcher knows. Returns what has ended, in words. Raises
    UmbelError, NodeLaunchError when some may be left."""
    ended = []
    made = launcher(file)
    names: set[str] = set()
    with contextlib.suppress(exceptions.UmbelError):  # which is told below
        names.update(made.running())
    head = running(file.name)
    if head:
        _end_head(head)  # which most nodes end with
        ended.append(f"the head in {os.path.basename(head)}")
    for _ in range(ROUNDS_MAX):
        left = list(made.running())
        if not left:
            break
        names.update(left)
        made.terminate(left)
    else:
        raise exceptions.NodeLaunchError(f"nodes appear as fast as they are ended: {left}; is another head running?")
    made.close()
    _forget_token(file.name)
    if not names:
        return ended
    more_count = len(names) - NAMED_MAX
    told = ", ".join(sorted(names)[:NAMED_MAX]) + (f" and {more_count} more" if more_count > 0 else "")
    return [*ended, f"{len(names)} node{'s' * (len(names) != 1)} ({told})"]


def _end_head(path: str) -> None:
    pid = sessions.daemon_of(path)
    try:
        with tool.Tool(path) as asker:
            asker.stop()
    except exceptions.UmbelError:  # it stands still, or is ending
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    until_s = time.monotonic() + END_S
    while os.path.exists(path) and sessions.daemon_of(path):
        if time.monotonic() > until_s:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until_s += END_S
        select.select([], [], [], LOOK_S)
    sessions.sweep_stale_sessions(sessions.base_dir())


def _forget_token(name: str) -> None:
    path = token_path(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    for directory in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        with contextlib.suppress(OSError):  # it is not there, or has others
            os.rmdir(directory)
