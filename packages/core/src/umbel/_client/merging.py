"""What several nodes list, as one listing: pure, and each row once.

Each node has checked the conditions, sorted and counted; it tells the rows that come first, page by page. Without an order, or by
the ids of tasks, the nodes come one after the other, in the order of their ids, each in its own order.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from umbel._client import node_view, own_state

PAGES_ROWS_MAX = 20_000  # of all nodes' first pages together, some 10 MB, which pass through the daemon that is asked
PAGE_ROWS_MIN = 100

Row = dict[str, Any]


def page_rows(request: node_view.Request, node_count: int) -> int:
    """How many rows each of so many nodes is asked for at once."""
    most = max(PAGE_ROWS_MIN, PAGES_ROWS_MAX // max(1, node_count))
    return most if request.limit is None else min(most, request.offset + request.limit)


def rows_of(first: Sequence[Row], total: int, size: int, more: Callable[[int], Sequence[Row]]) -> Iterator[Row]:
    """All rows of one node. first: its first page, of `size`; more: the page at this offset."""
    yield from first
    at = len(first)
    page = first
    while size and len(page) == size and at < total:
        page = more(at)
        at += len(page)
        yield from page


def merged(streams: Sequence[Iterable[Row]], request: node_view.Request) -> list[Row]:
    """Those asked for. streams: of each node, in the order of the nodes."""
    column, is_descending = request.order or ("", False)
    if column in ("", "task_id"):
        rows: Iterator[Row] = itertools.chain.from_iterable(reversed(streams) if is_descending else streams)
    else:
        rows = heapq.merge(*streams, key=lambda row: own_state.sort_key(row, column), reverse=is_descending)
    end = None if request.limit is None else request.offset + request.limit
    return list(itertools.islice(rows, request.offset, end))


def summed(tallies: Iterable[Iterable[Sequence[Any]]], *, key_size: int) -> list[tuple[Any, ...]]:
    """The sums of what is alike: of each entry the first `key_size` values say what it is of, the others are numbers."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for tally in tallies:
        for entry in tally:
            key, numbers = tuple(entry[:key_size]), entry[key_size:]
            known = found.setdefault(key, [0] * len(numbers))
            for index, number in enumerate(numbers):
                known[index] += number
    return [(*key, *numbers) for key, numbers in found.items()]
