"""Process groups by Gloo, as PyTorch has it. PyTorch is imported when one is to be made.

They are not PyTorch's default group, which stays the program's own.
"""

from __future__ import annotations

import ctypes
import datetime
import importlib.util
import os
import threading
import weakref
from typing import Any

from umbel import exceptions

THREADS = 2  # of a group, for collective operations; PyTorch's own default. `send` and `recv` need none


def check_installed(asker: str) -> None:
    """Imports nothing. Raises PluginError without PyTorch. asker: who needs it, for the message."""
    if importlib.util.find_spec("torch") is None:
        raise _not_installed(asker)


def library(asker: str) -> Any:
    """The module torch.distributed. Raises PluginError without it, or without Gloo in it."""
    try:
        import torch.distributed as found
    except ImportError as error:
        raise _not_installed(asker) from error
    if not found.is_available() or not found.is_gloo_available():
        raise exceptions.PluginError(
            f"{asker} needs a PyTorch that was built with Gloo; install another build", plugin="gloo"
        )
    return found


def _not_installed(asker: str) -> exceptions.PluginError:
    return exceptions.PluginError(
        f'{asker} needs PyTorch, which is not installed; run: pip install "umbel[torch]"', plugin="gloo"
    )


def device(distributed: Any, host: str = "", *, interface: str = "") -> Any:
    """Where other ranks reach this process: a thread, and a port of `host`, an address of this machine's, or of a network
    interface. Raises RuntimeError."""
    create = distributed.ProcessGroupGloo.create_device
    made = create(interface=interface) if interface else create(hostname=host)
    _made.add(made)
    return made


def group(
    distributed: Any, store: Any, *, rank: int, size: int, timeout_s: float, device: Any, threads: int = THREADS
) -> Any:
    """Waits until all ranks have come, for five times `timeout_s` at most. Raises RuntimeError."""
    options = distributed.ProcessGroupGloo._Options()
    options._timeout = datetime.timedelta(seconds=timeout_s)
    options._devices = [device]
    options._threads = threads
    made = distributed.ProcessGroupGloo(store, rank, size, options)
    _made.add(made)
    return made


def abandon(held: list[Any]) -> None:
    """Let go of a group, the only thing in the list, in which Gloo waits for what will not come: in a thread, for it takes
    until Gloo's time-out."""
    try:
        threading.Thread(target=held.clear, name="umbel-gloo-ending", daemon=True).start()
    except RuntimeError:  # Python is ending, and the group ends with the process
        _keep(held)


_made: weakref.WeakSet[Any] = weakref.WeakSet()  # groups and devices


def _after_fork() -> None:
    """A forked child has copies without Gloo's threads. To end one would wait for those for ever, at the latest when the
    child exits: it never does."""
    for thing in list(_made):
        _keep(thing)


def _keep(thing: Any) -> None:
    """For as long as the process lives."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
