"""How much of the history goes, and when."""

from __future__ import annotations

import pytest

from umbel._history.retention import Extent, Removal, Retention, removal

LIMITS = Retention(tasks_max=1_000, age_max_s=0.0, bytes_max=1_000_000)
NOTHING = Removal(0, None)


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        (Extent(0, 0, None), NOTHING),
        (Extent(1_000, 1_000_000, 1.0), NOTHING),
        (Extent(1_001, 0, 1.0), Removal(51, None)),
        (Extent(500, 2_000_000, 1.0), Removal(263, None)),
        (Extent(2_000, 4_000_000, 1.0), Removal(1_525, None)),
        (Extent(0, 5_000_000, None), NOTHING),  # what takes the room is not tasks
    ],
)
def test_count_and_size_are_limits(extent: Extent, expected: Removal) -> None:
    assert removal(LIMITS, extent, 1e9) == expected


def test_age_is_a_limit_with_some_slack() -> None:
    limits = LIMITS._replace(age_max_s=100.0)
    assert removal(limits, Extent(10, 0, 500.0), 600.0) == NOTHING
    assert removal(limits, Extent(10, 0, 500.0), 604.0) == NOTHING
    assert removal(limits, Extent(10, 0, 500.0), 606.0) == Removal(0, 506.0)
    assert removal(limits, Extent(0, 0, None), 606.0) == NOTHING


def test_after_a_removal_nothing_more_goes() -> None:
    for count in range(1_001, 5_000, 37):
        left = count - removal(LIMITS, Extent(count, 0, 1.0), 0.0).oldest_count
        assert 0 < left <= LIMITS.tasks_max
        assert removal(LIMITS, Extent(left, 0, 1.0), 0.0).is_nothing
