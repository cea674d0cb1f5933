"""Defects that the world `nodes` finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from umbel._agent import membership
from umbel._control import node_news
from umbel._control import nodes as node_table
from umbel.testing.simulation.planted.defect import Planted, instead

_NODES: Any = node_table.NodeTable


_on_link_lost: Callable[..., list[node_table.NodeCommand]] = _NODES._on_link_lost


_on_heartbeat: Callable[..., list[node_table.NodeCommand]] = _NODES._on_heartbeat


_node_trouble: Callable[..., node_table.Refuse | None] = _NODES._trouble


def _let_the_dead_in(table: node_table.NodeTable, event: node_table.NodeJoined) -> node_table.Refuse | None:
    """A node that was declared dead, and lives, is a member again."""
    found = _node_trouble(table, event)
    if found is None or found.kind != "dead":
        return found
    table.dead.pop(event.node_id, None)
    return None


def _let_twins_in(table: node_table.NodeTable, event: node_table.NodeJoined) -> node_table.Refuse | None:
    """Nobody looks at tags."""
    found = _node_trouble(table, event)
    return None if found is not None and found.kind == "tag" else found


def _lose_any_link(table: node_table.NodeTable, event: node_table.LinkLost) -> list[node_table.NodeCommand]:
    """The end of a connection that a node has given up long ago counts as that of its present one."""
    node = table.alive.get(event.node_id)
    return _on_link_lost(table, event if node is None else event._replace(link=node.link))


def _hear_any_beat(table: node_table.NodeTable, event: node_table.Heartbeat) -> list[node_table.NodeCommand]:
    """What comes late, or twice, counts as news."""
    node = table.alive.get(event.node_id)
    if node is not None:
        node.sequence = event.sequence - 1
    return _on_heartbeat(table, event)


_news_ends: Callable[..., None] = node_news.News.ends


def _end_untold(news: node_news.News, node: node_news.Known, _end: node_news.Facts) -> None:
    """Members do not hear of deaths."""
    _news_ends(news, node, {})
    del news._ended[node.id]


def _list_only(told: node_news.Told[Any], relisted: Callable[[], Mapping[str, Any]]) -> list[Any]:
    """What was told since the last listing is kept from newcomers."""
    return _told_all(told, relisted)[:1]


_told_all: Callable[..., list[Any]] = node_news.Told.all


def _answer_no_drain(table: node_table.NodeTable, now_s: float) -> list[node_table.NodeCommand]:
    """A request that a node does not answer is waited for without end."""
    table._drains = {
        number: one if one.answer_by_s > now_s else one._replace(answer_by_s=now_s + 1e6)
        for number, one in table._drains.items()
    }
    return []


_node_record: Callable[..., dict[str, Any] | None] = _NODES.record


def _keep_no_drain(table: node_table.NodeTable, node_id: str) -> dict[str, Any] | None:
    """That a node is being drained is forgotten with the head."""
    found = _node_record(table, node_id)
    return None if found is None else {**found, "draining": None}


_member_applies = membership.Membership._apply


def _ignore_refusal(machine: membership.Membership, event: membership.Event) -> list[membership.Command]:
    """A node that was told that it is dead goes on."""
    return [] if isinstance(event, membership.Refused) else _member_applies(machine, event)


PLANTS: Final[Mapping[str, Planted]] = {
    "dead-come-back": instead("nodes", _NODES, "_trouble", _let_the_dead_in, "Y1", "R1"),
    "twins-come-in": instead("nodes", _NODES, "_trouble", _let_twins_in, "Y4", "two nodes have one tag"),
    "old-links-count": instead("nodes", _NODES, "_on_link_lost", _lose_any_link, "Y2", "a link neither"),
    "old-beats-count": instead("nodes", _NODES, "_on_heartbeat", _hear_any_beat, "Y6"),
    "standstill-counted": instead("nodes", node_table, "LATE_S", 1e9, "Y2"),
    "deaths-untold": instead("nodes", node_news.News, "ends", _end_untold, "Y6"),
    "news-kept-from-newcomers": instead("nodes", node_news.Told, "all", _list_only, "Y6", "Y1"),
    "drains-unanswered": instead("nodes", _NODES, "_give_up_drains", _answer_no_drain, "Y8"),
    "drains-unkept": instead("nodes", _NODES, "record", _keep_no_drain, "Y9"),
    "awaited-for-no-time": instead("nodes", node_table.Health, "return_s", 0.0, "Y2"),
    "told-at-once": instead("nodes", node_news, "PUBLISH_S", 0.0, "Y5"),
    "refusals-ignored": instead("nodes", membership.Membership, "_apply", _ignore_refusal, "Y3", "R2"),
}
