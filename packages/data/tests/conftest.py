"""What every test of data shares: no process stays behind, and no session is shared with what else runs here."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator

import pytest

MARK = "UMBEL_TEST_RUN"  # in the environment of this run and so of every process that it starts, however deep
LEAVE_S = 10.0  # for processes of the last test to end: twice the time from asking a worker to killing it

# A shell that starts us in the background lets us ignore SIGINT; our workers would inherit that, and a running task
# could not be cancelled.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _left_behind(mark: str) -> list[int]:
    """The processes with the mark, ourselves apart."""
    wanted, left = f"{MARK}={mark}".encode(), []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    left.append(int(name))
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return left


@pytest.fixture(scope="session", autouse=True)
def _own_place_for_sessions() -> Iterator[None]:
    """A node that runs on this machine is not found by tests that start private ones, nor found by others what tests start."""
    directory = tempfile.mkdtemp(prefix="u", dir="/tmp")  # a short one, for paths of sockets
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", directory)
        patch.setattr(tempfile, "tempdir", None)
        yield
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _no_process_stays_behind(_own_place_for_sessions: None) -> Iterator[None]:
    """After the last test no process that this run started is alive, nor any that those started, orphans included."""
    if not os.path.isdir("/proc"):
        yield
        return
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    yield
    del os.environ[MARK]
    deadline = time.monotonic() + LEAVE_S
    while (left := _left_behind(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)  # nothing tells when a process that is not our child ends
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
