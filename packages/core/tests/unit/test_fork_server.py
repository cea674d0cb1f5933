"""What the fork server prepares before it forks."""

from __future__ import annotations

import sys

from umbel._agent import forkserver


def test_gaps_are_filled_with_little() -> None:
    filling = forkserver._fill_gaps()
    sizes = {sys.getsizeof(one) for one in filling}
    assert sizes in (set(forkserver._GAP_SIZES), set())  # none with another allocator
    assert len(filling) < forkserver._GAPS_MAX * len(forkserver._GAP_SIZES)
