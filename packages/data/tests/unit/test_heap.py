"""What a task is told to have taken, by the peaks of its process."""

from __future__ import annotations

import os

import numpy as np
import pytest

from umbel.data._engine import heap

MIB = 1 << 20


@pytest.mark.parametrize(
    ("hidden", "at_once", "expected"), [(0, 1, False), (9 * MIB, 1, True), (9 * MIB, 2, False), (8 * MIB, 1, False)]
)
def test_peak_is_set_back_where_it_would_hide_another(hidden: int, at_once: int, expected: bool) -> None:
    assert heap.must_reset(hidden, at_once) is expected


def test_peak_that_has_not_grown_is_anothers() -> None:
    assert heap.taken(500, 500, 100) == 0
    assert heap.taken(500, 800, 300) == 500  # what was there before, and blocks, are not its own
    assert heap.taken(500, 501, 600) == 0


def taken(size: int) -> int:
    one = heap.Heap()
    much = np.ones(size, np.uint8)
    del much
    return one.end()


def may_reset() -> bool:
    try:
        os.close(os.open("/proc/self/clear_refs", os.O_WRONLY))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not may_reset(), reason="the kernel does not let us set the peak back")
def test_what_was_taken_and_given_back_is_seen_each_time() -> None:
    assert taken(90 * MIB) > 80 * MIB
    assert 50 * MIB < taken(60 * MIB) < 80 * MIB  # though the one before had more
    assert taken(0) < 9 * MIB


def test_tasks_in_one_process_share_what_it_took() -> None:
    first, second = heap.Heap(), heap.Heap()
    much = np.ones(300 * MIB, np.uint8)
    shares = first.end(), second.end()
    del much
    assert all(140 * MIB < one < 170 * MIB for one in shares)
