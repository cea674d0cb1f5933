"""Holding processes still while it is looked at what they do, before they may be killed for that."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection

LOOKS_MAX = 100
LOOK_S = 0.0001  # a process that runs on another CPU stops within it; on a busy machine one has to get its turn to stop


def freeze(pids: Collection[int]) -> bool:
    """Stop the main threads of processes. Returns whether all have stopped, within some 20 ms; whatever comes of it, `thaw` or
    kill each."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(LOOKS_MAX):
            if all(map(_is_still, pids)):
                return True
            time.sleep(LOOK_S)
    except OSError:
        pass  # one is gone
    return False


def _is_still(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        return file.read(1_000).rpartition(b")")[2].split()[0] in (b"T", b"t")


def thaw(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGCONT)
