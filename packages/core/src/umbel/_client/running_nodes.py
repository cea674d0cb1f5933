"""Which node of this machine a program or command means: those that `umbel start` has started and that run."""

from __future__ import annotations

import os

from umbel._base import sessions


def find(address: str) -> str | None:
    """The directory of its session. None for a private node: "local", or none named and none running.

    address: "" for none named; "auto" for the one that runs here; or the directory of a session, or the end of its name.
    Raises ConnectionError when what is named does not run, and when several run and none is named.
    """
    if address == "local":
        return None
    running = sessions.outliving_sessions(sessions.base_dir())
    if address not in ("", "auto"):
        return named(address, running)
    if len(running) > 1:
        raise ConnectionError(
            f"several nodes run here; say which by address= or UMBEL_ADDRESS, or pass address='local' for a private one:"
            f"{_listed(running)}"
        )
    if not running and address == "auto":
        raise ConnectionError(
            "address='auto' found no running node; start one with `umbel start --head`, or call init() without an address "
            "for a private one"
        )
    return running[0] if running else None


def named(address: str, running: list[str]) -> str:
    """The one of these that is meant. Raises ConnectionError."""
    fitting = [path for path in running if path.endswith(address.rstrip(os.sep))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ConnectionError(f"several nodes are called {address!r}; give more of the name:{_listed(fitting)}")
    raise ConnectionError(f"no node {address!r} runs on this machine; there are:{_listed(running)}")


def _listed(paths: list[str]) -> str:
    return "".join(f"\n  {path}" for path in paths) or " none"
