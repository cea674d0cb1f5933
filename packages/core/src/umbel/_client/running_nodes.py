"""Which node of this machine a program or command means."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from umbel._base import nodes, sessions


def find(address: str) -> str | None:
    """The directory of the session of a node that does not end with a driver. None for a private one: "local", or none named and
    none running.

    address: "" for none named; "auto" for the one that runs here, of several in one cluster its head if that is here; the
    directory of a session, or the end of its name; or host:port of a node that runs here, or of the head of one that does.
    Raises ConnectionError when what is named does not run, and when several run and none is named.
    """
    if address == "local":
        return None
    running = sessions.outliving_sessions(sessions.base_dir())
    if address not in ("", "auto"):
        from umbel._client import tool  # rarely needed

        return _at(address, running) if tool.is_remote(address) else named(address, running)
    if len(running) > 1:
        of_cluster = of_one_cluster(running)
        if of_cluster:
            return of_cluster[0]
        raise ConnectionError(
            f"several nodes run here; say which by address= or UMBEL_ADDRESS, or pass address='local' for a private one:"
            f"{listed(running)}"
        )
    if not running and address == "auto":
        raise ConnectionError(
            "address='auto' found no running node; start one with `umbel start --head`, or call init() without an address "
            "for a private one"
        )
    return running[0] if running else None


def looked_at(name: str = "") -> str:
    """The directory of the session that whoever only looks means, which may be a program's own.

    name: "" or "auto" for the only one that runs here or, where all that run are nodes of one cluster, that of its head if it is
    here; else the directory or the end of its name. Raises ConnectionError.
    """
    running = sessions.running_sessions(sessions.base_dir())
    if name not in ("", "auto"):
        return named(name, running)
    if len(running) == 1:
        return running[0]
    if not running:
        raise ConnectionError(
            "no session of this user runs here; start a node with `umbel start --head`, or call umbel.init() in a program"
        )
    of_cluster = of_one_cluster(running)
    if of_cluster:
        return of_cluster[0]
    raise ConnectionError(f"several sessions run here; say which by --session, or address=:{listed(running)}")


def of_one_cluster(running: list[str]) -> list[str]:
    """These sessions, the head's first, if all are of nodes of one cluster; else []."""
    members = _members(running)
    clusters = {node.cluster for node in members.values()}
    is_one = len(clusters) == 1 and clusters != {""} and len(members) == len(running)
    return _head_first(members) if is_one else []


def _members(running: list[str]) -> dict[str, sessions.Outliving]:
    found = {}
    for path in running:
        with contextlib.suppress(OSError):  # it has just ended, or is a program's own
            found[path] = sessions.outliving(path)
    return found


def _head_first(members: Mapping[str, sessions.Outliving]) -> list[str]:
    return sorted(members, key=lambda path: members[path].head != members[path].address)


def _at(address: str, running: list[str]) -> str:
    """The node here that is reached at this address, or whose head is. Raises ConnectionError."""
    from umbel._transport import addresses

    wanted = addresses.parse(address)
    names = {address}
    with contextlib.suppress(OSError):  # a name that is not found
        names |= {str(wanted._replace(host=str(found[0]))) for _family, found in addresses.resolve(wanted)}
    members = _members(running)
    here = [path for path, node in members.items() if node.address in names]
    here += _head_first({path: node for path, node in members.items() if node.head in names})
    if here:
        return here[0]
    raise ConnectionError(
        f"no node of the cluster at {address} runs on this machine, and programs connect to one that does: run "
        f"`umbel start --address {address}` here first"
    )


def named(address: str, running: list[str]) -> str:
    """The one of these that is meant. Raises ConnectionError."""
    fitting = [path for path in running if path.endswith(address.rstrip(os.sep))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ConnectionError(f"several nodes are called {address!r}; give more of the name:{listed(fitting)}")
    advice = f"name one of these:{listed(running)}" if running else "none does: start one with `umbel start --head`"
    raise ConnectionError(f"no node {address!r} runs on this machine; {advice}")


def listed(paths: list[str]) -> str:
    """A line each, with the address of a node that listens."""
    found = {path: nodes.address_in_words(node.address) for path, node in _members(paths).items() if node.address}
    return "".join(f"\n  {path}" + (f" at {found[path]}" if path in found else "") for path in paths)
