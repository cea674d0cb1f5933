"""Where the threads of this process are."""

from __future__ import annotations

import gc
import os
import sys
import threading
from types import FrameType

_lock = threading.Lock()  # or who comes second would find collections off, and leave them so


def of_threads() -> dict[int, FrameType]:
    """The innermost frame of each thread, by its ident; of this thread, that of the caller's caller, if there is one: who kept
    his own frame in a variable would keep what his callers' variables refer to until the next garbage collection.

    `sys._current_frames()` makes the process stand still for ever if a garbage collection begins within it that finds a
    `threading.local`, before CPython 3.11.9 (gh-106883).
    """
    with _lock:
        was_on = gc.isenabled()
        gc.disable()
        try:
            found = sys._current_frames()
            above = sys._getframe(1).f_back
            if above is None:
                del found[threading.get_ident()]
            else:
                found[threading.get_ident()] = above
            return found
        finally:
            if was_on:
                gc.enable()


os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))  # who held it is not there
