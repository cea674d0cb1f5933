"""Processes that are started without `subprocess`."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from umbel._base import children


def start(code: str, *descriptors: int) -> children.Child:
    return children.start([sys.executable, "-S", "-c", code], descriptors)


def test_exit_code_and_signal_are_told() -> None:
    assert start("raise SystemExit(3)").wait(10) == 3
    child = start("import time; time.sleep(60)")
    assert child.poll() is None
    child.kill()
    assert child.wait(10) == -signal.SIGKILL
    child.kill()  # which is nothing any more
    assert child.poll() == child.returncode == -signal.SIGKILL


def test_wait_ends_in_time() -> None:
    child = start("import time; time.sleep(60)")
    began_s = time.monotonic()
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.1 s"):
        child.wait(0.1)
    assert time.monotonic() - began_s < 5
    child.terminate()
    assert child.wait() == -signal.SIGTERM


def test_child_has_the_descriptors_that_it_is_told_of_and_no_input_or_output() -> None:
    read, write = os.pipe()
    other_read, other_write = os.pipe()
    code = (
        "import os, sys; order, answer = map(int, sys.argv[1:]); data = os.read(order, 9); "
        "os.write(answer, data + str([os.fstat(n).st_rdev == os.stat('/dev/null').st_rdev for n in (0, 1)]).encode())"
    )
    try:
        child = start(code, read, other_write)
        os.write(write, b"hello ")
        assert child.wait(10) == 0
        assert os.read(other_read, 100) == b"hello [True, True]"
    finally:
        for descriptor in (read, write, other_read, other_write):
            os.close(descriptor)


def test_signals_that_python_ignores_are_as_usual_there() -> None:
    shell = children.start(["/bin/sh", "-c", "kill -PIPE $$"], [])
    assert shell.wait(10) == -signal.SIGPIPE


def test_one_that_somebody_else_has_reaped_has_ended() -> None:
    child = start("")
    os.waitpid(child.pid, 0)
    assert child.wait(10) == 0


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(FileNotFoundError):
        children.start(["/nowhere/python"], [])


def test_signal_handler_may_ask_while_the_program_waits() -> None:
    child = start("import time; time.sleep(60)")
    before = signal.signal(signal.SIGALRM, lambda *_: child.terminate())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert child.wait(10) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGALRM, before)
