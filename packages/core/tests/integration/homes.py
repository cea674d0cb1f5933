"""A directory for the sessions of a test's nodes and drivers."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

import drivers
import pytest

from umbel._base import sessions

DEAD_IN_2_S = {  # of silence
    "UMBEL_HEALTH_CHECK_PERIOD_S": "0.5",
    "UMBEL_HEALTH_CHECK_TIMEOUT_S": "1",
    "UMBEL_HEALTH_CHECK_FAILURE_THRESHOLD": "2",
}


def base_of(home: str) -> str:
    """Where its sessions are."""
    return os.path.join(home, f"umbel-{os.getuid()}")


def is_empty(home: str) -> bool:
    """Whether no session is there."""
    base = base_of(home)
    return not os.path.isdir(base) or not os.listdir(base)


@contextlib.contextmanager
def own_home(**environment: str) -> Iterator[str]:
    """Sessions that begin in the block are below this directory, with `environment` set; at its end none may be left.

    It is short: pytest's own directories are too long for the paths of sockets.
    """
    directory = tempfile.mkdtemp(prefix="u", dir="/tmp")
    base = base_of(directory)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TMPDIR": directory, **environment}.items():
            patch.setenv(name, value)
        patch.setattr(tempfile, "tempdir", None)
        try:
            yield directory
            drivers.wait_until(lambda: is_empty(directory), what="all sessions to be gone")
        finally:
            for path in sessions.outliving_sessions(base) if os.path.isdir(base) else []:
                drivers.kill(sessions.daemon_of(path))
            shutil.rmtree(directory, ignore_errors=True)
