"""The one place that knows which session this process is in.

Public functions such as `umbel.get` have no session argument, so one has to be found; everything below takes its engine
explicitly. Auto-initialisation happens here and nowhere else.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from umbel import exceptions


class NotRunning(exceptions.UmbelSystemError, RuntimeError):
    """There is no session. In Ray it depends on the call which of the two classes programs are told by."""


class _Process:
    """What holds for this process: the running engine, and how to start one."""

    def __init__(self) -> None:
        self.engine: Any = None  # or what stands in for it
        self.session: Any = None  # the engine itself
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.auto_init: Callable[[], None] | None = None
        self.on_engine: Callable[[], None] = lambda: None  # a session begins
        self.on_fork: Callable[[], Callable[[], None] | None] = lambda: None  # a weak reference, called


_process = _Process()


def _after_fork() -> None:
    """In a forked child: locks that another thread held would never be released, and the session is the parent's."""
    _process.lock = threading.RLock()
    forked = _process.on_fork()
    if forked is not None:
        forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def is_initialized() -> bool:
    return _process.engine is not None and _process.pid == os.getpid()


def engine() -> Any:
    """The running engine; starts one when none runs and auto-initialisation is on."""
    found = _process.engine
    if found is not None and _process.pid == os.getpid():
        return found
    return _start()


def running() -> Any:
    """The running engine, for what says how it is. Raises NotRunning rather than start one."""
    found = running_engine()
    if found is None:
        _check_not_forked()
        raise NotRunning(
            "Umbel is not running in this process, and this call starts no session; call umbel.init() first"
        )
    return found


def running_engine() -> Any:
    """The running engine, or None."""
    return _process.engine if is_initialized() else None


def session() -> Any:
    """The running engine itself, whatever stands in for it, to keep or to compare; or None."""
    return _process.session if is_initialized() else None


def _check_not_forked() -> None:
    if _process.engine is not None:
        raise NotRunning(
            f"this process (pid {os.getpid()}) was forked from pid {_process.pid}, which runs Umbel; a session does not "
            "survive a fork: use umbel tasks instead, or the 'spawn' start method, or call umbel.init() in the child for a "
            "session of its own"
        )


def _start() -> Any:
    _check_not_forked()
    if os.environ.get("UMBEL_ENABLE_AUTO_CONNECT", "1") == "0" or _process.auto_init is None:
        raise NotRunning(
            "Umbel is not running in this process and UMBEL_ENABLE_AUTO_CONNECT=0; call umbel.init() first"
        )
    with _process.lock:
        if _process.engine is None:
            _process.auto_init()
    return _process.engine


def set_engine(new: Any) -> None:
    """Make `new` (or None) the engine of this process."""
    _process.engine = _process.session = new
    _process.pid = os.getpid()
    if new is not None:
        _process.on_engine()


def stand_in(other: Any) -> None:
    """Have `other` found where the running engine is looked for; the engine itself ends that."""
    _process.engine = other


def set_on_engine(call: Callable[[], None]) -> None:
    """Have this called whenever a session has begun in this process."""
    _process.on_engine = call


def set_on_fork(forked: Callable[[], None]) -> None:
    """Call this bound method in children that this process forks, while its object lives."""
    _process.on_fork = weakref.WeakMethod(forked)


def set_auto_init(start: Callable[[], None]) -> None:
    _process.auto_init = start


def lock() -> threading.RLock:
    return _process.lock
