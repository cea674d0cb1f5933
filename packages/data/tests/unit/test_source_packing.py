"""How files are divided among tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.data._sources import packing
from umbel.data._sources.packing import Unit


def units(*sizes: int, rows: int | None = None) -> list[Unit]:
    return [Unit(f"f{index}", size, row_count=rows) for index, size in enumerate(sizes)]


def sizes(groups: list[list[Unit]]) -> list[list[int]]:
    return [[unit.size_bytes for unit in group] for group in groups]


def test_groups_have_about_the_same_bytes() -> None:
    mib = 1 << 20
    packed = packing.pack(units(10 * mib, 1 * mib, 1 * mib, 8 * mib, 10 * mib), 3)
    assert [[size >> 20 for size in group] for group in sizes(packed)] == [[10], [1, 1, 8], [10]]


def test_tiny_files_count_by_what_opening_them_costs() -> None:
    packed = packing.pack(units(*[3000] * 2000), -1)
    assert [len(group) for group in packed] == [250] * 8


def test_no_more_tasks_than_there_are_files() -> None:
    assert sizes(packing.pack(units(1, 2), 100)) == [[1], [2]]
    assert packing.pack([], 4) == []


def test_of_a_limit_only_the_files_at_the_front_are_kept() -> None:
    assert packing.first_units(units(1, 1, 1, rows=10), 11) == units(1, 1, 1, rows=10)[:2]
    assert packing.first_units(units(1, 1, rows=None), 1) == units(1, 1)
    assert packing.first_units(units(1, 1, rows=10), 0) == units(1, 1, rows=10)[:1]


@given(st.lists(st.integers(0, 1 << 30), max_size=60), st.integers(-1, 20).filter(lambda count: count != 0))
def test_each_file_is_in_one_group_and_in_order(given_sizes: list[int], parallelism: int) -> None:
    given_units = units(*given_sizes)
    packed = packing.pack(given_units, parallelism)
    assert [unit for group in packed for unit in group] == given_units
    assert all(packed)
    if parallelism > 0:
        assert len(packed) == min(parallelism, len(given_units))
