"""What several nodes list, as one page: as if one had listed it all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from umbel._client import merging, node_view

Row = dict[str, Any]


def rows_of_node(node: int, count: int, chance: random.Random) -> list[Row]:
    return [{"task_id": f"{node}{number:04}", "name": chance.choice([None, "a", "b", "c"])} for number in range(count)]


def pages(rows: Sequence[Row], asked: list[int]) -> Callable[[int, int], Sequence[Row]]:
    """A node's answers; asked: at which offsets it was."""

    def page(at: int, size: int) -> Sequence[Row]:
        asked.append(at)
        return rows[at : at + size]

    return page


@pytest.mark.parametrize("order", [None, ("task_id", True), ("name", False), ("name", True)])
@pytest.mark.parametrize(("offset", "limit"), [(0, 5), (3, 7), (0, None), (40, 10), (100, 5)])
def test_page_is_that_of_one_list_of_all(order: Any, offset: int, limit: int | None) -> None:
    chance = random.Random(5)
    request = node_view.Request(order=order, limit=limit, offset=offset)
    nodes = [rows_of_node(node, count, chance) for node, count in enumerate((13, 0, 30, 7))]
    of_each = [node_view.page(rows, request._replace(limit=None, offset=0)) for rows in nodes]
    if order is None:
        expected = [row for rows in of_each for row in rows]
    else:
        expected = node_view.page([row for rows in nodes for row in rows], request._replace(limit=None, offset=0))
    size = 4
    streams = [
        merging.rows_of(rows[:size], len(rows), size, lambda at, rows=rows: rows[at : at + size]) for rows in of_each
    ]
    found = merging.merged(streams, request)
    end = None if limit is None else offset + limit
    if order is not None and order[0] == "name":  # rows with one name are in the order of the nodes
        assert [row["name"] for row in found] == [row["name"] for row in expected[offset:end]]
        assert len({row["task_id"] for row in found}) == len(found)
    else:
        assert found == expected[offset:end]


def test_node_is_asked_for_no_more_than_is_wanted_of_it() -> None:
    asked: list[int] = []
    rows = rows_of_node(1, 100, random.Random(1))
    page = pages(rows, asked)
    stream = merging.rows_of(page(0, 10), 100, 10, lambda at: page(at, 10))
    assert merging.merged([stream], node_view.Request(limit=15)) == rows[:15]
    assert asked == [0, 10]


def test_last_page_ends_a_node() -> None:
    asked: list[int] = []
    rows = rows_of_node(1, 20, random.Random(1))
    page = pages(rows, asked)
    assert list(merging.rows_of(page(0, 10), 20, 10, lambda at: page(at, 10))) == rows
    assert asked == [0, 10]


def test_pages_are_small_where_there_are_many_nodes() -> None:
    assert merging.page_rows(node_view.Request(limit=100, offset=20), 2) == 120
    assert merging.page_rows(node_view.Request(limit=10_000), 2_000) == merging.PAGE_ROWS_MIN
    assert merging.page_rows(node_view.Request(), 10) * 10 == merging.PAGES_ROWS_MAX


def test_what_is_alike_on_several_nodes_is_counted_together() -> None:
    summed = merging.summed(
        [[("f", "RUNNING", 2, 10)], [("f", "RUNNING", 3, 5), ("g", "RUNNING", 1, 1)], []], key_size=2
    )
    assert summed == [("f", "RUNNING", 5, 15), ("g", "RUNNING", 1, 1)]


def test_request_travels_as_it_is() -> None:
    import json

    from umbel._history.conditions import Condition

    request = node_view.Request([Condition("state", "in", ["A"])], ("end_time_ms", True), 5, 2, 1.5)
    assert node_view.Request.read(json.loads(json.dumps(request.encoded()))) == request
