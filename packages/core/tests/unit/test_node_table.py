"""Which nodes a cluster has, as lists of events at its head."""

from __future__ import annotations

from typing import Any

import pytest

from umbel import exceptions
from umbel._control import node_news
from umbel._control import nodes as node_table
from umbel._control.nodes import (
    Acknowledge,
    Admit,
    AnswerDrain,
    AskToDrain,
    DeclareDead,
    DrainAnswered,
    DrainRequested,
    DropLink,
    HeadChanged,
    Health,
    Heartbeat,
    LinkLost,
    NodeJoined,
    NodeLeft,
    NodeTable,
    Publish,
    Refuse,
    Ticked,
    Welcome,
)

HEAD, A, B, C = (f"{letter}{0:055x}" for letter in "1abc")
FREE = {"available": {"CPU": 20_000}, "waiting": 0}
BUSY = {"available": {"CPU": 0}, "waiting": 3}
HEALTH = Health(period_s=3.0, threshold=5, timeout_s=10.0, reconnect_s=5.0)  # silent for 25 s: dead


def facts(node_id: str, version: str = "1.0") -> dict[str, Any]:
    return {"node_id": node_id, "version": version, "address": "10.0.0.1:1", "labels": {}, "resources": {"CPU": 20_000}}


def table() -> NodeTable:
    return NodeTable(facts(HEAD), FREE, health=HEALTH, now_s=0.0, time_s=1000.0)


def join(node_id: str, link: int, sequence: int = 1, cluster: str = "", now_s: float = 0.0, **more: Any) -> NodeJoined:
    return NodeJoined(node_id, link, sequence, facts(node_id, **more), FREE, cluster, now_s)


def apply(made: NodeTable, *events: Any) -> list[Any]:
    """The commands of the last one."""
    commands: list[Any] = []
    for event in events:
        commands = made.apply(event)
        made.check()
    return commands


def tick_until(made: NodeTable, now_s: float) -> list[Any]:
    """All commands of ticks that are due until then."""
    commands = []
    while made.next_tick_s <= now_s:
        commands += apply(made, Ticked(made.next_tick_s))
    return commands


def beats(made: NodeTable, node_id: str, link: int, first: int, *times_s: float) -> None:
    for sequence, now_s in enumerate(times_s, first):
        tick_until(made, now_s)
        assert apply(made, Heartbeat(node_id, link, sequence, FREE, now_s)) == [Acknowledge(link, sequence)]


def states(made: NodeTable) -> dict[str, bool]:
    return {one["node_id"]: one["alive"] for one in made.listed()}


def test_what_a_node_says_again_is_its_latest_word() -> None:
    """Others tell by that whether they know of anything later. (design/0031)"""
    made = table()
    again = {**FREE, "available": {**FREE["available"]}}
    apply(made, join(A, 1), Heartbeat(A, 1, 2, again, 1.0))
    assert made.listed()[1]["available"] is again["available"]


def test_who_joins_is_welcomed_and_told_of_to_the_others() -> None:
    made = table()
    assert apply(made, join(A, 1)) == [Admit(A), Publish((made.alive[A].listed(),)), Welcome(A, 1)]
    assert apply(made, join(B, 2)) == [Admit(B), Publish((made.alive[B].listed(),)), Welcome(B, 2)]
    assert states(made) == {HEAD: True, A: True, B: True}


def test_of_many_that_join_all_members_hear_together() -> None:
    """Each of 2,000 was told to all others in a frame of its own: 2 million of them, and 20 ms of the head's time for each."""
    made, count = table(), node_news.TOLD_AT_ONCE_MAX
    ids = [f"{number:012x}{0:044x}" for number in range(0x100, 0x100 + count + 4)]
    for link, node_id in enumerate(ids[: count + 1], 1):  # of so many, each is told of at once
        told = apply(made, join(node_id, link, now_s=0.001 * link))
        assert [one for one in told if type(one) is Publish] == [Publish((made.alive[node_id].listed(),))]
    began_s = 0.001 * (count + 1)
    for link, node_id in enumerate(ids[count + 1 :], count + 2):
        told = apply(made, join(node_id, link, now_s=began_s))
        assert told == [Admit(node_id), Welcome(node_id, link)]
    late = made.next_tick_s
    assert began_s < late <= began_s + (count + 3) * node_news.TELL_S
    apply(made, NodeLeft(ids[-1], count + 4, "it ends", began_s))
    told = tick_until(made, began_s + (count + 4) * node_news.TELL_S)
    end = {"node_id": ids[-1], "alive": False, "reason": "it ends", "is_expected": True, "ended_s": 1000.0 + began_s}
    assert told == [Publish((*(made.alive[one].listed() for one in ids[count + 1 : -1]), end))]
    assert tick_until(made, began_s + 1.0) == []


def test_changes_are_told_once_a_period_and_only_the_last_of_each_node() -> None:
    made = table()
    apply(made, join(A, 1), join(B, 2))
    assert apply(made, Heartbeat(A, 1, 2, BUSY, 0.2)) == [Acknowledge(1, 2)]
    apply(made, Heartbeat(A, 1, 3, FREE, 0.3), Heartbeat(A, 1, 4, BUSY, 0.4), Heartbeat(B, 2, 2, BUSY, 0.5))
    assert made.next_tick_s == node_news.PUBLISH_S
    assert apply(made, Ticked(1.0)) == [Publish(({"node_id": A, **BUSY}, {"node_id": B, **BUSY}))]
    apply(made, HeadChanged(BUSY, 1.1))
    assert made.next_tick_s == 2.0
    assert apply(made, Ticked(2.0)) == [Publish(({"node_id": HEAD, **BUSY},))]
    assert tick_until(made, 10.0) == []


def test_a_heartbeat_without_news_is_only_acknowledged() -> None:
    made = table()
    apply(made, join(A, 1))
    beats(made, A, 1, 2, 2.0, 5.0, 8.0)
    assert made.listed()[1]["available"] == {"CPU": 20_000}


def test_silence_is_suspected_and_then_death_which_members_hear_and_the_node_is_told() -> None:
    made = table()
    apply(made, join(A, 1), join(B, 2))
    beats(made, B, 2, 2, *map(float, range(1, 25)))
    assert tick_until(made, 24.9) == []
    assert "says nothing" in made.suspicion(A, 24.9)
    assert made.suspicion(B, 24.9) == ""
    dead = tick_until(made, 25.0)
    reason = "the head has heard nothing from it for 25 s"
    end = {"node_id": A, "alive": False, "reason": reason, "is_expected": False, "ended_s": 1025.0}
    assert dead == [DeclareDead(A, reason, is_expected=False), Refuse(1, "dead", reason), Publish((end,))]
    assert states(made) == {HEAD: True, B: True, A: False}


def test_a_suspected_node_that_speaks_is_suspected_no_longer() -> None:
    made = table()
    apply(made, join(A, 1))
    tick_until(made, 20.0)
    assert made.suspicion(A, 20.0)
    apply(made, Heartbeat(A, 1, 2, FREE, 20.0))
    assert made.suspicion(A, 20.0) == ""
    assert tick_until(made, 44.0) == []


def test_a_broken_link_may_come_back_in_time_and_nobody_hears_of_it() -> None:
    made = table()
    apply(made, join(A, 1), join(B, 2))
    apply(made, LinkLost(A, 1, 3.0))
    assert "its connection is broken" in made.suspicion(A, 4.0)
    assert tick_until(made, 7.9) == []
    assert apply(made, join(A, 3, 2, cluster=HEAD, now_s=7.9)) == [Welcome(A, 3)]
    assert made.suspicion(A, 8.0) == ""
    assert not [command for command in tick_until(made, 20.0) if isinstance(command, DeclareDead)]


def test_a_broken_link_that_does_not_come_back_is_death_after_some_seconds() -> None:
    made = table()
    apply(made, join(A, 1), LinkLost(A, 1, 3.0))
    assert tick_until(made, 7.9) == []
    dead, published = tick_until(made, 8.0)
    assert isinstance(dead, DeclareDead)
    assert "did not come back within 5 s" in dead.reason
    assert isinstance(published, Publish)


def test_the_dead_stay_dead() -> None:
    made = table()
    apply(made, join(A, 1), LinkLost(A, 1, 3.0))
    tick_until(made, 8.0)
    reason = made.dead[A].reason
    assert apply(made, join(A, 2, 2, cluster=HEAD, now_s=8.1)) == [Refuse(2, "dead", reason)]
    assert apply(made, join(A, 3, 3, now_s=8.2)) == [Refuse(3, "dead", reason)]
    assert apply(made, Heartbeat(A, 1, 4, FREE, 8.3)) == [Refuse(1, "dead", reason)]
    assert states(made) == {HEAD: True, A: False}


def test_a_member_that_is_not_remembered_is_dead() -> None:
    """More nodes may die than are kept; the first of them must not come back as a new one."""
    made = table()
    (refusal,) = apply(made, join(A, 1, 7, cluster=HEAD))
    assert (refusal.link, refusal.kind) == (1, "dead")
    assert states(made) == {HEAD: True}


def test_the_oldest_dead_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_table, "DEAD_KEPT_MAX", 2)
    made = table()
    for link, node_id in enumerate((A, B, C), 1):
        apply(made, join(node_id, link), NodeLeft(node_id, link, "done", 1.0))
    assert states(made) == {HEAD: True, B: False, C: False}


def test_a_goodbye_is_an_expected_death() -> None:
    made = table()
    apply(made, join(A, 1), join(B, 2))
    end = {"node_id": A, "alive": False, "reason": "umbel stop", "is_expected": True, "ended_s": 1001.0}
    assert apply(made, NodeLeft(A, 1, "umbel stop", 1.0)) == [
        DeclareDead(A, "umbel stop", is_expected=True),
        Publish((end,)),
        DropLink(1),
    ]
    assert apply(made, LinkLost(A, 1, 1.1)) == []
    assert apply(made, NodeLeft(A, 1, "umbel stop", 1.2)) == [DropLink(1)]


def test_a_new_link_takes_the_place_of_one_that_the_head_still_holds() -> None:
    made = table()
    apply(made, join(A, 1))
    assert apply(made, join(A, 2, 5, cluster=HEAD, now_s=1.0)) == [DropLink(1), Welcome(A, 2)]
    assert apply(made, LinkLost(A, 1, 1.1)) == []
    assert made.suspicion(A, 1.2) == ""
    assert apply(made, Heartbeat(A, 1, 4, BUSY, 1.3)) == []  # late, by the old one
    assert made.alive[A].state == FREE


def test_a_join_that_comes_late_or_twice_changes_nothing() -> None:
    made = table()
    apply(made, join(A, 1))
    assert apply(made, join(A, 1)) == []
    apply(made, join(A, 3, 6, cluster=HEAD, now_s=1.0))
    assert apply(made, join(A, 2, 4, cluster=HEAD, now_s=1.1)) == [DropLink(2)]
    assert made.alive[A].link == 3


def test_an_id_that_begins_as_anothers_is_refused() -> None:
    twin = A[:12] + "f" * 44
    made = table()
    apply(made, join(A, 1))
    (refusal,) = apply(made, join(twin, 2))
    assert (refusal.link, refusal.kind) == (2, "tag")
    assert A in refusal.reason
    (refusal,) = apply(made, join(HEAD[:12] + "f" * 44, 3))
    assert refusal.kind == "tag"
    (refusal,) = apply(made, join(HEAD, 4))
    assert refusal.kind == "tag"


def test_another_version_and_another_cluster_are_refused() -> None:
    made = table()
    (refusal,) = apply(made, join(A, 1, version="0.9"))
    assert (refusal.kind, "'0.9'" in refusal.reason) == ("version", True)
    (refusal,) = apply(made, join(A, 2, cluster=C))
    assert (refusal.kind, "has ended" in refusal.reason) == ("cluster", True)
    assert states(made) == {HEAD: True}


def test_time_at_which_the_head_stood_still_is_not_counted() -> None:
    """The head was stopped for a minute: its nodes have dialled again meanwhile, and it has not looked."""
    made = table()
    apply(made, join(A, 1), join(B, 2), LinkLost(B, 2, 1.0))
    tick_until(made, 3.0)
    assert apply(made, Ticked(63.0)) == []
    assert states(made) == {HEAD: True, A: True, B: True}
    assert apply(made, Heartbeat(A, 1, 2, FREE, 63.0)) == [Acknowledge(1, 2)]
    assert apply(made, join(B, 3, 2, cluster=HEAD, now_s=63.1)) == [Welcome(B, 3)]


def test_what_was_heard_when_the_head_went_on_is_not_dated_ahead() -> None:
    """A heartbeat is read after a minute's standstill and before the tick; silence from then on counts from then on."""
    made = table()
    apply(made, join(A, 1))
    apply(made, Heartbeat(A, 1, 2, FREE, 60.0), Ticked(60.0))
    assert tick_until(made, 84.9) == []
    assert tick_until(made, 85.0)


def test_check_finds_a_node_that_is_half_dead() -> None:
    made = table()
    apply(made, join(A, 1))
    made.alive[A].ended_s = 5.0
    with pytest.raises(exceptions.InternalError, match="half dead"):
        made.check()


# ---- draining ----

DRAINING = {**FREE, "draining": {"reason": "preemption", "message": "spot", "deadline_s": 1060.0, "waits_for": ""}}


def request(node_id: str, *, left_s: float | None = 60.0, now_s: float = 1.0, number: int = 7) -> DrainRequested:
    return DrainRequested(number, node_id, "preemption", "spot", left_s, now_s)


def test_a_node_is_asked_and_its_answer_told_and_published_with_its_state() -> None:
    made = table()
    apply(made, join(A, 1), join(B, 2))
    assert apply(made, request(A)) == [AskToDrain(1, 7, "preemption", "spot", 60.0)]
    assert apply(made, DrainAnswered(A, 1, 7, True, "", DRAINING, 1.5)) == [AnswerDrain(7, True, "")]
    assert Publish(({"node_id": A, **DRAINING},)) in tick_until(made, 3.0)
    assert made.alive[A].listed()["draining"]["message"] == "spot"


def test_a_refusal_is_passed_on_and_changes_nothing() -> None:
    made = table()
    apply(made, join(A, 1), request(A))
    assert apply(made, DrainAnswered(A, 1, 7, False, "it is not idle", FREE, 1.5)) == [
        AnswerDrain(7, False, "it is not idle")
    ]
    assert "draining" not in made.alive[A].listed()


def test_the_head_the_dead_and_the_unknown_are_not_drained_and_the_answer_says_why() -> None:
    made = table()
    apply(made, join(A, 1), join(B, 2), NodeLeft(B, 2, "umbel stop", 0.5))
    (head,) = apply(made, request(HEAD))
    assert not head.is_accepted
    assert "is the head, with which the cluster ends" in head.text
    (dead,) = apply(made, request(B))
    assert dead == AnswerDrain(7, False, f"node {B} is dead already: umbel stop")
    (unknown,) = apply(made, request(C))
    assert unknown.text == f"this cluster has no node {C!r}; those that can be drained are: {A}"


def test_a_node_that_comes_back_is_asked_again_with_the_time_that_is_left() -> None:
    made = table()
    apply(made, join(A, 1), request(A, now_s=1.0), LinkLost(A, 1, 2.0))
    commands = apply(made, join(A, 2, sequence=2, cluster=HEAD, now_s=4.0))
    assert commands == [Welcome(A, 2), AskToDrain(2, 7, "preemption", "spot", 57.0)]
    assert apply(made, DrainAnswered(A, 1, 7, True, "", DRAINING, 4.0)) == []  # by the link that was given up
    assert apply(made, DrainAnswered(A, 2, 7, True, "", DRAINING, 4.5)) == [AnswerDrain(7, True, "")]


def test_a_request_waits_for_a_node_without_a_link_and_has_no_deadline_if_none_was_given() -> None:
    made = table()
    apply(made, join(A, 1), LinkLost(A, 1, 1.0))
    assert apply(made, request(A, left_s=None)) == []
    assert apply(made, join(A, 2, sequence=2, cluster=HEAD, now_s=3.0))[1] == AskToDrain(
        2, 7, "preemption", "spot", None
    )


def test_what_is_not_answered_in_time_or_before_the_nodes_death_is_answered_here() -> None:
    made = table()
    apply(made, join(A, 1), request(A, now_s=0.0))
    beats(made, A, 1, 2, 3.0, 6.0, 9.0, 12.0)
    (late,) = [one for one in tick_until(made, 16.0) if isinstance(one, AnswerDrain)]
    assert not late.is_accepted
    assert "has not answered within 15 s" in late.text
    apply(made, request(A, now_s=16.0))
    commands = apply(made, NodeLeft(A, 1, "umbel stop", 16.5))
    assert commands[1] == AnswerDrain(7, False, f"node {A} has died meanwhile: umbel stop")


def test_the_end_of_a_drained_node_says_that_it_was_drained() -> None:
    """Whoever has not heard of the drain must know that what died there counts against nobody."""
    made = table()
    apply(made, join(A, 1), join(B, 2), request(A), DrainAnswered(A, 1, 7, True, "", DRAINING, 1.5))
    published = apply(made, NodeLeft(A, 1, "it was drained", 1.6))[1]
    assert published.changes[0]["draining"] == DRAINING["draining"]
    assert made.dead[A].listed()["draining"] == DRAINING["draining"]


def restored(now_s: float = 100.0) -> NodeTable:
    """A head that has started again, to which A belongs; B is dead."""
    before = table()
    before.restore("", [])
    apply(before, join(A, 1), join(B, 2), NodeLeft(B, 2, "umbel stop", 0.0))
    kept = [{"id": node_id, **(before.record(node_id) or {})} for node_id in (HEAD, A, B)]
    made = NodeTable(facts(C), FREE, health=HEALTH, now_s=now_s, time_s=1000.0 + now_s)
    assert made.restore(HEAD, kept) == [A]
    made.check()
    return made


def test_node_comes_back_to_a_head_that_has_started_again() -> None:
    made = restored()
    assert states(made) == {C: True, A: True, HEAD: False, B: False}
    assert apply(made, join(A, 7, 5, HEAD, 101.0)) == [Admit(A), Welcome(A, 7)]
    assert apply(made, join(A, 8, 6, HEAD, 102.0)) == [DropLink(7), Welcome(A, 8)]
    assert [type(one) for one in tick_until(made, 120.0)] == [Publish]  # of what it has free
    assert states(made)[A]


def test_node_that_does_not_come_back_to_the_head_is_dead_after_its_time() -> None:
    made = restored()
    assert "the head has started again" in made.suspicion(A, 101.0)
    assert tick_until(made, 114.9) == []
    reason = "it did not come back within 15 s after the cluster's head had started again"
    assert tick_until(made, 115.0)[:1] == [DeclareDead(A, reason, is_expected=False)]
    assert apply(made, join(A, 7, 5, HEAD, 116.0)) == [Refuse(7, "dead", reason)]


def test_the_dead_and_the_tags_of_former_heads_are_known_to_the_next_one() -> None:
    made = restored()
    assert apply(made, join(B, 7, 5, HEAD, 101.0)) == [Refuse(7, "dead", "umbel stop")]
    assert [type(one) for one in apply(made, join(HEAD[:20] + "f" * 36, 8))] == [Refuse]


def test_another_storage_is_another_cluster() -> None:
    made = NodeTable(facts(C), FREE, health=HEALTH, now_s=0.0, time_s=1000.0)
    assert made.restore("", []) == []
    (refusal,) = apply(made, join(A, 7, 5, HEAD))
    assert (refusal.kind, "has ended; another" in refusal.reason) == ("cluster", True)


def test_a_cluster_that_ends_has_no_members_for_the_next_head() -> None:
    before = table()
    before.restore("", [])
    apply(before, join(A, 1))
    before.end("umbel stop", 3.0)
    assert before.record(A) == {
        "facts": facts(A), "is_head": False, "ended_s": 1003.0, "reason": "umbel stop", "is_expected": True, "draining": None,
    }  # fmt: skip


# ---- a node that is being drained, and heads that come after ----

ITS_DRAIN = {"reason": "preemption", "message": "spot", "deadline_s": 1060.0}
LEAVING = {**FREE, "draining": {**ITS_DRAIN, "waits_for": "1 actor"}}


def with_drained_node(now_s: float = 100.0) -> NodeTable:
    """A head that has started again, to which A belongs, which had agreed to be drained."""
    before = table()
    before.restore("", [])
    apply(before, join(A, 1), DrainRequested(5, A, "preemption", "spot", 60.0, 0.0))
    apply(before, DrainAnswered(A, 1, 5, True, "", LEAVING, 0.0))
    kept = [{"id": node_id, **(before.record(node_id) or {})} for node_id in (HEAD, A)]
    made = NodeTable(facts(C), FREE, health=HEALTH, now_s=now_s, time_s=1000.0 + now_s)
    assert made.restore(HEAD, kept) == [A]
    made.check()
    return made


def test_that_a_node_is_being_drained_is_kept_once_and_not_with_each_change_of_what_it_has() -> None:
    made = table()
    made.restore("", [])
    assert made.changed is not None
    apply(made, join(A, 1))
    made.changed.clear()
    apply(made, Heartbeat(A, 1, 2, BUSY, 1.0))
    assert made.changed == {}
    apply(made, Heartbeat(A, 1, 3, LEAVING, 2.0))
    assert made.changed == {A: None}
    made.changed.clear()
    apply(made, Heartbeat(A, 1, 4, {**LEAVING, "draining": {**ITS_DRAIN, "waits_for": ""}}, 3.0))
    assert made.changed == {}
    apply(made, Heartbeat(A, 1, 5, {**LEAVING, "draining": {**ITS_DRAIN, "deadline_s": 1009.0, "waits_for": ""}}, 4.0))
    assert made.changed == {A: None}
    assert (made.record(A) or {})["draining"] == {**ITS_DRAIN, "deadline_s": 1009.0}


def test_the_next_head_knows_that_an_awaited_node_is_being_drained_and_says_so_of_its_death() -> None:
    """Before: what died there counted against its retries and restarts."""
    made = with_drained_node()
    (awaited,) = [one for one in made.listed() if one["node_id"] == A]
    assert awaited["is_awaited"]
    assert awaited["draining"] == {**ITS_DRAIN, "waits_for": ""}
    dead, published = tick_until(made, 115.0)[:2]
    assert dead.reason == (
        "it did not come back within 15 s after the cluster's head had started again; it was being drained (preemption: spot)"
    )
    (change,) = published.changes
    assert change["draining"] == {**ITS_DRAIN, "waits_for": ""}
    (record,) = [one for one in made.listed() if one["node_id"] == A]
    assert record["draining"]["reason"] == "preemption"


def test_a_head_after_the_next_knows_why_a_dead_node_had_been_drained() -> None:
    second = with_drained_node()
    tick_until(second, 115.0)
    kept = [{"id": node_id, **(second.record(node_id) or {})} for node_id in (C, A)]
    third = NodeTable(facts(B), FREE, health=HEALTH, now_s=0.0, time_s=2000.0)
    assert third.restore(HEAD, kept) == []
    (listed,) = [one for one in third.listed() if one["node_id"] == A]
    assert (listed["alive"], listed["draining"]["reason"]) == (False, "preemption")


def test_what_a_node_has_is_told_when_it_comes_back_and_not_made_up_before() -> None:
    made = restored()
    (awaited,) = [one for one in made.listed() if one["node_id"] == A]
    assert awaited["is_awaited"]
    apply(made, join(A, 7, 5, HEAD, 101.0))
    (back,) = [one for one in made.listed() if one["node_id"] == A]
    assert "is_awaited" not in back
    ((change,),) = [one.changes for one in tick_until(made, 102.0) if isinstance(one, Publish)]
    assert change == {"node_id": A, **FREE}


def test_a_record_of_an_earlier_version_says_nothing_of_a_drain() -> None:
    record = {"facts": facts(A), "is_head": False, "ended_s": None, "reason": "", "is_expected": False}
    made = NodeTable(facts(C), FREE, health=HEALTH, now_s=0.0, time_s=1000.0)
    assert made.restore(HEAD, [{"id": A, **record}]) == [A]
    assert "draining" not in made.listed()[1]
