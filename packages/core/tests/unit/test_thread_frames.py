"""The frames of all threads, whenever a garbage collection comes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest

from umbel._base import frames

# With each number of objects that were made before, so that with one of them a collection is due in the middle.
AT_ANY_MOMENT = """
import gc, threading
from umbel._base import frames

class Knot: ...

def leave_garbage():
    knot = Knot()
    knot.itself, knot.local = knot, threading.local()
    knot.local.value = 1

def frames_of(depth):
    return frames_of(depth - 1) if depth else frames.of_threads()

gc.set_threshold(150)
for count in range(160):
    held = None
    gc.collect()
    leave_garbage()
    held = [Knot() for _ in range(count)]
    assert threading.get_ident() in frames_of(3)
assert gc.isenabled()
"""


@pytest.mark.timeout(30)
def test_a_collection_that_is_due_does_not_make_the_process_stand_still() -> None:
    """Before CPython 3.11.9 this never ended."""
    subprocess.run([sys.executable, "-c", AT_ANY_MOMENT], check=True, timeout=20)


def test_collections_stay_off_where_they_were() -> None:
    gc.disable()
    try:
        assert threading.get_ident() in frames.of_threads()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_child_that_was_forked_meanwhile_can_ask_too() -> None:
    with frames._lock:
        pid = os.fork()
        if not pid:
            os._exit(0 if frames.of_threads() else 1)
    assert os.waitpid(pid, 0)[1] == 0
