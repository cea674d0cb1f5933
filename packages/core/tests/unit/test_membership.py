"""A node's membership in a cluster, as lists of events."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from umbel import exceptions
from umbel._agent import membership
from umbel._agent.membership import (
    Acknowledged,
    Appeared,
    Beat,
    Closed,
    Connected,
    Dial,
    DialFailed,
    Died,
    End,
    HangUp,
    HeadEnds,
    Join,
    Joined,
    Listed,
    Looked,
    Membership,
    Refused,
    Told,
    Welcomed,
)

HEAD, A, B, C = (f"{letter}{0:055x}" for letter in "1abc")
FREE = {"available": {"CPU": 20_000}, "waiting": 0}
BUSY = {"available": {"CPU": 0}, "waiting": 3}


def facts(node_id: str, **more: Any) -> dict[str, Any]:
    return {"node_id": node_id, "version": "1.0", "address": "h:1", "alive": True, "reason": "", **FREE, **more}


def welcomed(link: int, now_s: float) -> Welcomed:
    return Welcomed(link, HEAD, 3.0, 10.0, (facts(HEAD), facts(A)), now_s)


def machine() -> Membership:
    return Membership(now_s=0.0, join_s=30.0, head_lost_s=60.0)


def member() -> Membership:
    """Since 0.2, over link 1."""
    made = machine()
    assert made.apply(Looked(FREE, 0.0)) == [Dial()]
    assert made.apply(Connected(1, 0.1)) == [Join(1, 1, "")]
    assert made.apply(welcomed(1, 0.2)) == [Joined(), Appeared(HEAD, "h:1"), Appeared(A, "h:1")]
    return made


def look_until(made: Membership, now_s: float, state: Any = FREE) -> list[Any]:
    """All commands of looks that are due until then."""
    commands = []
    due_s = made.next_tick_s(1.0)
    while due_s is not None and due_s <= now_s:
        commands += made.apply(Looked(state, due_s))
        due_s = made.next_tick_s(1.0)
    return commands


def test_it_dials_joins_and_says_that_it_lives_once_a_period() -> None:
    made = member()
    assert made.nodes == {HEAD: facts(HEAD), A: facts(A)}
    assert made.apply(Looked(FREE, 1.0)) == [Beat(1, 2, FREE)]  # the head has its state of when it dialled
    for now_s in (2.0, 3.0):
        assert made.apply(Looked(FREE, now_s)) == []
    assert made.apply(Looked(FREE, 4.0)) == [Beat(1, 3, FREE)]
    assert made.apply(Looked(BUSY, 5.0)) == [Beat(1, 4, BUSY)]
    assert made.waits_for(5.0) == ""


def test_it_dials_again_with_pauses_that_double_and_gives_up() -> None:
    made = machine()
    dials, pauses = [], []
    now_s = 0.0
    while not made.is_over:
        now_s = made.next_tick_s(1.0) or 0.0
        for command in made.apply(Looked(FREE, now_s)):
            if command == Dial():
                dials.append(now_s)
                assert made.apply(DialFailed("nobody is there", False, now_s)) == []
            else:
                assert command == End("there was no connection to the head for 30 s: nobody is there")
    pauses = [round(after - before, 3) for before, after in itertools.pairwise(dials)]
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert now_s == 30.0
    assert made.apply(Looked(FREE, 31.0)) == []


def test_a_wrong_token_ends_it_at_once() -> None:
    made = machine()
    made.apply(Looked(FREE, 0.0))
    assert made.apply(DialFailed("the token is wrong", True, 0.1)) == [End("the token is wrong")]


@pytest.mark.parametrize("kind", ["version", "tag", "cluster", "dead"])
def test_whoever_is_refused_ends(kind: str) -> None:
    made = member()
    (end,) = made.apply(Refused(1, kind, "because", 1.0))
    assert end.reason.endswith(": because")
    assert ("declared this node dead" in end.reason) == (kind == "dead")
    assert made.next_tick_s(1.0) is None


def test_a_broken_link_is_dialled_again_with_the_same_cluster_and_later_numbers() -> None:
    made = member()
    made.apply(Looked(FREE, 1.0))
    assert made.apply(Closed(1, 1.5)) == []
    assert "the connection broke" in made.waits_for(1.6)
    assert made.apply(Looked(BUSY, 1.6)) == [Dial()]
    assert made.apply(Connected(2, 1.7)) == [Join(2, 3, HEAD)]
    assert made.apply(welcomed(2, 1.8)) == []
    assert made.waits_for(1.8) == ""
    assert look_until(made, 3.0, BUSY) == [Beat(2, 4, BUSY)]


def test_what_comes_late_over_an_old_link_changes_nothing() -> None:
    made = member()
    made.apply(Closed(1, 1.0))
    look_until(made, 1.1)
    made.apply(Connected(2, 1.2))
    before = dict(made.nodes)
    for event in (Told(1, ({"node_id": A, **BUSY},), 1.3), Refused(1, "dead", "late", 1.3), Closed(1, 1.3)):
        assert made.apply(event) == []
    assert (made.nodes, made.link, made.is_over) == (before, 2, False)


def test_a_head_that_does_not_answer_is_hung_up_and_dialled_again() -> None:
    made = member()
    made.apply(Acknowledged(1, 2.0))
    commands = look_until(made, 12.5)
    assert [command for command in commands if not isinstance(command, Beat)] == [HangUp(1), Dial()]
    assert made.link == 0


def test_it_ends_when_the_head_is_away_for_too_long() -> None:
    made = member()
    made.apply(Closed(1, 10.0))
    assert [command for command in look_until(made, 69.9) if command != Dial()] == []
    assert made.apply(DialFailed("nobody is there", False, 69.9)) == []
    (*_, end) = look_until(made, 70.0)
    assert end == End("there was no connection to the head for 60 s: nobody is there")


def test_a_head_that_says_goodbye_ends_it() -> None:
    (end,) = member().apply(HeadEnds(1, "umbel stop", 1.0))
    assert end == End("the head of the cluster has ended: umbel stop")


def test_time_at_which_the_node_stood_still_is_not_counted() -> None:
    """It was stopped for two minutes; what the head has said meanwhile lies unread, its refusal perhaps."""
    made = member()
    look_until(made, 2.0)
    assert made.apply(Looked(FREE, 122.0)) == [Beat(1, 3, FREE)]
    made.apply(Closed(1, 122.1))
    look_until(made, 123.0)
    assert not made.is_over


def test_what_it_is_told_of_others() -> None:
    made = member()
    assert made.apply(Told(1, (facts(B), {"node_id": A, **BUSY}), 1.0)) == [Appeared(B, "h:1")]
    assert made.nodes[A]["waiting"] == 3
    assert made.nodes[B] == facts(B)
    assert made.apply(Told(1, ({"node_id": A, "alive": False, "reason": "gone"},), 2.0)) == [Died(A, "gone")]
    assert made.apply(Told(1, ({"node_id": A, **FREE}, {"node_id": HEAD[:-1] + "7", **FREE}), 3.0)) == []
    assert made.nodes[A] == facts(A, alive=False, reason="gone", **BUSY)
    assert len(made.nodes) == 3


def test_what_happened_to_others_while_it_had_no_connection() -> None:
    """B came, A died, and C, whom the head does not remember any more; of the head it has known."""
    c = HEAD[:-1] + "7"
    made = member()
    made.apply(Told(1, (facts(c),), 0.5))
    made.apply(Closed(1, 1.0))
    look_until(made, 1.1)
    made.apply(Connected(2, 1.2))
    nodes = (facts(HEAD), facts(A, alive=False, reason="gone"), facts(B))
    assert made.apply(Welcomed(2, HEAD, 3.0, 10.0, nodes, 1.3)) == [
        Died(A, "gone"),
        Appeared(B, "h:1"),
        Died(c, "the head does not remember it"),
    ]


def test_what_was_told_since_the_listing_comes_before_the_welcome_and_is_no_news_by_itself() -> None:
    """A node that died since is not taken for alive for a moment: it may have been known to be dead here. (design/0024)"""
    made = member()
    made.apply(Told(1, (facts(B), {"node_id": A, "alive": False, "reason": "gone"}), 0.5))
    made.apply(Closed(1, 1.0))
    look_until(made, 1.1)
    made.apply(Connected(2, 1.2))
    assert made.apply(Listed(2, (facts(HEAD), facts(A), facts(B)), 1.3)) == []
    since = ({"node_id": A, "alive": False, "reason": "gone"}, facts(C), {"node_id": B, **BUSY})
    assert made.apply(Told(2, since, 1.3)) == []
    assert made.apply(Welcomed(2, HEAD, 3.0, 10.0, (facts(C, **BUSY),), 1.3)) == [Appeared(C, "h:1")]
    assert made.nodes == {
        HEAD: facts(HEAD), A: facts(A, alive=False, reason="gone"), B: facts(B, **BUSY), C: facts(C, **BUSY)
    }  # fmt: skip
    assert made.apply(Told(2, ({"node_id": C, "alive": False, "reason": "gone"},), 2.0)) == [Died(C, "gone")]


def test_a_listing_of_a_link_that_broke_before_the_welcome_is_forgotten() -> None:
    made = machine()
    made.apply(Looked(FREE, 0.0))
    made.apply(Connected(1, 0.1))
    made.apply(Listed(1, (facts(HEAD), facts(A)), 0.2))
    made.apply(Closed(1, 0.3))
    look_until(made, 0.5)
    made.apply(Connected(2, 0.6))
    assert made.apply(Welcomed(2, HEAD, 3.0, 10.0, (facts(B),), 0.7)) == [Joined(), Appeared(B, "h:1")]


def test_who_leaves_says_so_once_and_does_nothing_after_that() -> None:
    made = member()
    assert made.leave() == 1
    assert made.leave() == 0
    assert made.apply(Closed(1, 1.0)) == []
    assert made.next_tick_s(1.0) is None


def test_the_oldest_dead_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "DEAD_KEPT_MAX", 1)
    made = member()
    dead = {"alive": False, "reason": "gone"}
    made.apply(Told(1, (facts(B), {"node_id": A, **dead}, {"node_id": B, **dead}), 1.0))
    assert set(made.nodes) == {HEAD, B}


def test_what_a_head_that_has_started_again_awaits_is_as_this_node_knew_it() -> None:
    """Before: it was taken for full."""
    made = member()
    made.apply(Told(1, (facts(B, **BUSY),), 1.0))
    made.apply(Closed(1, 2.0))
    made.apply(Looked(FREE, 3.0))
    made.apply(Connected(2, 3.0))
    unknown = {"available": {}, "waiting": 0, "is_awaited": True}
    others = (facts(HEAD), facts(A), facts(B, **unknown), facts(C, **unknown))
    assert made.apply(Welcomed(2, HEAD, 3.0, 10.0, others, 4.0)) == [Appeared(C, "h:1")]
    assert made.nodes[B] == facts(B, **BUSY, is_awaited=True)
    assert made.nodes[C] == facts(C, **unknown)
    made.apply(Told(2, ({"node_id": B, **FREE}, {"node_id": C, **FREE}), 5.0))
    assert (made.nodes[B], made.nodes[C]) == (facts(B), facts(C))


def test_check_finds_a_member_without_a_link() -> None:
    made = member()
    made.link = 0
    with pytest.raises(exceptions.InternalError, match="without a link"):
        made.check()
