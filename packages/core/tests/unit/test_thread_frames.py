"""The frames of all threads, whenever a garbage collection comes, and without keeping what these have in their variables."""

from __future__ import annotations

import _thread
import gc
import os
import subprocess
import sys
import threading
import weakref

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


class Thing:
    pass


def _looks() -> str:
    found = frames.of_threads()
    for frame in found.values():  # the last one's frame stays in a variable
        assert frame.f_code.co_name != "_looks"
    return found[threading.get_ident()].f_code.co_name


def _has_a_thing() -> tuple[str, weakref.ref[Thing]]:
    thing = Thing()
    return _looks(), weakref.ref(thing)


def test_who_looks_keeps_nothing_of_his_callers() -> None:
    gc.disable()
    try:
        name, thing = _has_a_thing()
        assert name == "_has_a_thing"
        assert thing() is None
    finally:
        gc.enable()


def test_other_threads_are_told_of_from_where_they_are() -> None:
    is_there, may_go = threading.Event(), threading.Event()

    def wait_there() -> None:
        is_there.set()
        may_go.wait(60)

    thread = threading.Thread(target=wait_there)
    thread.start()
    is_there.wait(60)
    try:
        found = frames.of_threads()[thread.ident or 0]
        names = []
        while found is not None:
            names.append(found.f_code.co_name)
            found = found.f_back  # type: ignore[assignment]
        assert "wait_there" in names
    finally:
        may_go.set()
        thread.join()


def test_a_thread_whose_outermost_function_looks_is_not_told_of() -> None:
    told: list[bool] = []
    is_done = threading.Event()

    def looks() -> None:
        told.append(threading.get_ident() in frames.of_threads())
        is_done.set()

    _thread.start_new_thread(looks, ())
    assert is_done.wait(60)
    assert told == [False]
