"""What members hear of nodes, when, and what a newcomer hears of that."""

from __future__ import annotations

import json
from typing import Any

from umbel._control import node_news
from umbel._control.node_news import CHANGE_S, PUBLISH_S, PUBLISH_S_MAX, SINCE_MAX, TELL_S, News, Told

FREE: dict[str, Any] = {"available": {"CPU": 2}}
BUSY: dict[str, Any] = {"available": {"CPU": 0}}


class Node:
    def __init__(self, node_id: str) -> None:
        self.id = node_id
        self.state = FREE

    def listed(self) -> dict[str, Any]:
        return {"node_id": self.id, "version": "1", **self.state}


def changed(news: News, node: Node, state: dict[str, Any]) -> None:
    node.state = state
    news.changes(node)


def test_much_news_is_told_less_often_but_never_rarely() -> None:
    """Before: once a second, in which 2,000 nodes, of which all had changed, were told 4 million changes, in 400 MB."""
    news, nodes = News(0.0), [Node(str(number)) for number in range(2_000)]
    for node in nodes:
        changed(news, node, BUSY)
    assert len(news.take(1.0, 2_000)) == 2_000
    changed(news, nodes[0], FREE)
    assert news.due_s(2_000) == 1.0 + 2_000 * 2_000 * CHANGE_S > 1.0 + PUBLISH_S
    assert len(news.take(4.0, 2_000)) == 1
    changed(news, nodes[0], BUSY)
    assert news.due_s(2_000) == 4.0 + PUBLISH_S
    for node in nodes:
        changed(news, node, {"available": {"CPU": 1}})
    news.take(5.0, 100_000)
    changed(news, nodes[0], BUSY)
    assert news.due_s(100_000) == 5.0 + PUBLISH_S_MAX


def test_of_many_that_end_all_members_hear_together() -> None:
    """Before: each of 500 nodes that said goodbye at once was told of to all others in a frame of its own."""
    news, nodes = News(0.0), [Node(str(number)) for number in range(5)]
    news.ends(nodes[0], {"node_id": "0", "alive": False})
    assert len(news.take(2.0, 1_000)) == 1
    for node in nodes[1:]:
        news.ends(node, {"node_id": node.id, "alive": False})
        assert news.take(2.0, 1_000) == ()
    assert news.due_s(1_000) == 2.0 + 1_000 * TELL_S
    assert [one["node_id"] for one in news.take(2.5, 1_000)] == ["1", "2", "3", "4"]


def test_a_node_is_told_of_once_in_a_frame_whatever_has_become_of_it() -> None:
    news, new, old = News(0.0), Node("new"), Node("old")
    news.comes(new)
    changed(news, new, BUSY)
    changed(news, old, BUSY)
    news.ends(old, {"node_id": "old", "alive": False})
    assert news.take(1.0, 2) == ({"node_id": "new", "version": "1", **BUSY}, {"node_id": "old", "alive": False})
    assert news.due_s(2) is None


def told(sizes: list[int] | None = None) -> Told[tuple[str, Any]]:
    """sizes: each frame that is made adds its own."""

    def encode(kind: str, text: str) -> tuple[str, Any]:
        if sizes is not None:
            sizes.append(len(text))
        return kind, json.loads(text)

    return Told(encode, lambda frame: len(frame[1]))


def test_newcomers_are_told_by_the_frames_that_others_were() -> None:
    """Before: what each of them heard was put together for it, 0.5 MB at 2,000 nodes."""
    sizes: list[int] = []
    made = told(sizes)
    listed: dict[str, Any] = {"a": {"node_id": "a", "n": 1}, "b": {"node_id": "b", "n": 1}}
    first = made.all(lambda: listed)
    frame = made.tell([{"node_id": "a", "n": 2}])
    second = made.all(lambda: {})
    assert second == [("listing", [listed["a"], listed["b"]]), ("nodes", [{"node_id": "a", "n": 2}])]
    assert second[0] is first[0] and second[1] is frame
    assert len(sizes) == 2


def test_a_listing_is_made_anew_when_what_came_since_is_as_long() -> None:
    made = told()
    listed = {"a": {"node_id": "a", "n": 1}, "b": {"node_id": "b", "n": 1}}
    made.all(lambda: listed)
    for number in range(2, 5):
        made.tell([{"node_id": "a", "n": number}])
    assert made.all(lambda: {"a": {"node_id": "a", "n": 4}}) == [
        ("listing", [{"node_id": "b", "n": 1}, {"node_id": "a", "n": 4}])
    ]
    assert made.all(lambda: {"b": None}) == made.all(lambda: {})  # it is asked of what has changed when it is made anew


def test_what_is_told_is_not_kept_for_nobody() -> None:
    made = told()
    for number in range(10 * SINCE_MAX):
        made.tell([{"node_id": "a", "n": number}])
        assert made._since == []
    made.all(lambda: {str(number): {"node_id": str(number)} for number in range(1_000)})
    for number in range(10 * SINCE_MAX):
        made.tell([{"node_id": "1", "n": number}])
        assert len(made._since) <= node_news.SINCE_MAX
