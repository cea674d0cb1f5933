"""Orders that a seed decides."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from umbel.data._blocks import shuffling, tensors


def numbered(row_count: int, *, cut: int) -> list[pa.Table]:
    table = pa.table({"n": np.arange(row_count), "s": [str(number) for number in range(row_count)]})
    return [table.slice(start, cut) for start in range(0, row_count, cut)]


def order(tables: list[pa.Table]) -> list[int]:
    for table in tables:
        assert table["s"].to_pylist() == [str(number) for number in table["n"].to_pylist()]  # rows stay together
    return [number for table in tables for number in table["n"].to_pylist()]


def test_a_block_has_one_order_for_the_parts_of_its_seed() -> None:
    table = pa.concat_tables(numbered(1000, cut=300))
    first = order([shuffling.permute(table, (7, 0, 3))])
    assert sorted(first) == list(range(1000))
    assert first != list(range(1000))
    assert order([shuffling.permute(table.combine_chunks(), (7, 0, 3))]) == first
    seeds = [(8, 0, 3), (7, 1, 3), (7, 0, 4), (7, 3, 0), (7, 3), (7,), (7, 0)]
    others = [order([shuffling.permute(table, parts)]) for parts in seeds]
    assert len({tuple(one) for one in [first, *others]}) == 8


def test_an_order_is_the_same_on_every_machine_and_in_every_version() -> None:
    """What a saved position means would change with it."""
    assert order([shuffling.permute(numbered(8, cut=8)[0], (1, 2, 3))]) == [0, 2, 7, 6, 1, 4, 3, 5]


def test_tables_of_any_columns_and_few_rows_can_be_permuted() -> None:
    ragged = tensors.from_arrays([np.zeros(size) for size in range(5)])
    table = pa.table({"t": ragged, "d": pa.array(list("ababa")).dictionary_encode(), "n": range(5)})
    got = shuffling.permute(table, (1,))
    assert [len(row) for row in got["t"].to_pylist()] == got["n"].to_pylist()
    assert got["d"].to_pylist() == ["ab"[number % 2] for number in got["n"].to_pylist()]
    for few in (table[:0], table[:1]):
        assert shuffling.permute(few, (1,)) is few


@pytest.mark.parametrize("cut", [1, 7, 100, 5000])
@pytest.mark.parametrize("buffer_rows", [1, 10, 300, 10_000])
def test_a_stream_comes_out_whole_and_shuffled(cut: int, buffer_rows: int) -> None:
    tables = numbered(1000, cut=cut)
    got = order(list(shuffling.LocalShuffle(buffer_rows, 5)([*tables, tables[0][:0]])))
    assert sorted(got) == list(range(1000))
    if buffer_rows > 1 or cut > 1:
        assert got != list(range(1000))
    assert order(list(shuffling.LocalShuffle(buffer_rows, 5)(tables))) == got
    assert order(list(shuffling.LocalShuffle(buffer_rows, (5, 1))(tables))) != got


def test_rows_are_drawn_from_at_least_the_buffer() -> None:
    """Every row of the buffer may come first, and none that is not in it."""
    firsts = {order(list(shuffling.LocalShuffle(10, seed)(numbered(200, cut=5))))[0] for seed in range(200)}
    assert firsts == set(range(20))


def test_a_row_comes_out_once_enough_others_are_there() -> None:
    seen: list[int] = []

    def source() -> list[pa.Table]:
        for table in numbered(100, cut=1):
            seen.append(table["n"][0].as_py())
            yield table

    out = shuffling.LocalShuffle(10, 0)(source())
    next(out)
    assert len(seen) == 20


def test_orders_without_a_seed_differ() -> None:
    tables = numbered(200, cut=50)
    assert order(list(shuffling.LocalShuffle(100)(tables))) != order(list(shuffling.LocalShuffle(100)(tables)))


def test_wide_rows_are_gathered_a_part_at_a_time() -> None:
    wide = pa.table({"n": np.arange(40), "t": tensors.from_numpy(np.zeros((40, 1 << 17)))})
    got = list(shuffling.LocalShuffle(4, 0)([wide]))
    assert [table.num_rows for table in got] == [7, 7, 7, 7, 7, 1, 4]
    assert sorted(number for table in got for number in table["n"].to_pylist()) == list(range(40))


def test_unfit_seeds_and_buffers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        shuffling.LocalShuffle(0)
    with pytest.raises(ValueError, match="a seed must be an integer >= 0, got -1"):
        shuffling.LocalShuffle(5, -1)
