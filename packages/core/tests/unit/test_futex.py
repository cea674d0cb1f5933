"""Sleeping on a word of memory."""

from __future__ import annotations

import ctypes
import threading
import time

import pytest

from umbel._transport import futex

LONG = futex.Timespec(30.0)


@pytest.fixture
def word() -> ctypes.c_uint32:
    return ctypes.c_uint32(0)


def test_nobody_sleeps_on_a_word_that_has_changed(word: ctypes.c_uint32) -> None:
    futex.wait(ctypes.addressof(word), 1, LONG)


def test_a_sleeper_is_woken(word: ctypes.c_uint32) -> None:
    address = ctypes.addressof(word)

    def sleep() -> None:
        while word.value == 0:
            futex.wait(address, 0, LONG)

    thread = threading.Thread(target=sleep)
    thread.start()
    word.value = 1
    while thread.is_alive():
        futex.wake(address)
        thread.join(0.001)


def test_a_sleep_ends_when_its_time_is_up(word: ctypes.c_uint32) -> None:
    began_s = time.monotonic()
    futex.wait(ctypes.addressof(word), 0, futex.Timespec(0.01))
    assert time.monotonic() - began_s < 30


def test_a_pause_does_where_there_is_no_futex(word: ctypes.c_uint32, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(futex, "_number", -1)
    futex.wait(ctypes.addressof(word), 0, LONG)
    futex.wake(ctypes.addressof(word))
