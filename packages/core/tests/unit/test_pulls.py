"""Which values of other nodes are pulled, from whom, and which copies are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from umbel._agent import pull_copies, pull_records, pulls
from umbel._agent.pull_commands import (
    Abandon,
    Ask,
    Cancel,
    Close,
    Code,
    Confirm,
    Connect,
    Create,
    Deliver,
    Discard,
    Drop,
    Fail,
    Inquire,
    Keep,
    Priority,
    Release,
    Reserve,
    Withdraw,
)
from umbel._agent.pulls import PullTable
from umbel._model import reasons

PAGE = 4096
GET, ARGUMENT, PREFETCH = Priority
X, Y = "0a", "0b"


@pytest.fixture
def table() -> PullTable:
    return PullTable("me", 10 * PAGE, is_lent=lambda _object_id: False, chunk_bytes=PAGE)


@pytest.fixture
def want(table: PullTable) -> Callable[..., list[Any]]:
    def want(
        object_id: str, pages: int, *nodes: str, asker: str = "a", priority: Priority = GET, at_s: float = 0.0
    ) -> list[Any]:
        sources = {node: f"segment at {node}" for node in nodes}
        return table.wanted(object_id, pages * PAGE, sources=sources, asker=asker, priority=priority, at_s=at_s)

    return want


def opened(table: PullTable, object_id: str, node: str, **facts: Any) -> list[Any]:
    """The node has all of it, and is its authority, unless other things are said."""
    told = {"generation": f"{node}:1", "is_sure": False, "chunks": None, "start": 0, "at_s": 0.0, **facts}
    return table.opened(object_id, node, **told)


def nobody_else(table: PullTable, commands: list[Any], *, at_s: float = 60.0) -> list[Any]:
    """What follows, once the owner was asked for others and knew of none."""
    assert Inquire(X) in commands
    assert not any(isinstance(one, Fail) for one in commands)
    table.check()
    return table.owner_told(X, (), at_s=at_s)


def asks(commands: list[Any]) -> list[tuple[str, int]]:
    return [(one.node, one.chunk) for one in commands if isinstance(one, Ask)]


# ---- room ----


def test_pull_begins_when_there_is_room_for_all_of_it(table: PullTable, want: Callable[..., Any]) -> None:
    assert want(X, 3, "n1") == [Reserve(3 * PAGE)]
    assert table.room_granted(PAGE, at_s=0.1) == [Reserve(2 * PAGE)]
    assert table.room_granted(2 * PAGE, at_s=0.2) == [
        Create(X, 3 * PAGE), Connect(X, "n1", "segment at n1", 3 * PAGE)
    ]  # fmt: skip
    table.check()


def test_younger_pull_that_would_fit_does_not_overtake(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 5, "n1")
    assert want(Y, 1, "n1", asker="b") == []
    assert table.room_granted(4 * PAGE, at_s=0.1) == [Reserve(PAGE)]
    commands = table.room_granted(PAGE, at_s=0.2)
    assert [type(one) for one in commands] == [Create, Connect, Reserve]
    reason = table.reason(Y)
    assert reason is not None
    assert (reason.code, reason.facts["chunks"]) == (reasons.ROOM, 1)


def test_get_goes_before_an_argument_and_that_before_a_prefetch(table: PullTable, want: Callable[..., Any]) -> None:
    want("p", 2, "n1", priority=PREFETCH)
    want("a", 2, "n1", priority=ARGUMENT)
    want("g", 2, "n1", priority=GET)
    assert isinstance(table.room_granted(2 * PAGE, at_s=0.1)[0], Create)
    assert [one for one in ("p", "a", "g") if table.pulls[one].is_admitted] == ["g"]
    reason = table.reason("p")
    assert reason is not None
    assert reason.code == reasons.TURN
    assert "behind object a" in str(reason)


def test_prefetch_that_is_wanted_by_get_is_as_urgent(table: PullTable, want: Callable[..., Any]) -> None:
    want("p", 2, "n1", priority=PREFETCH)
    want("a", 2, "n1", priority=ARGUMENT)
    want("p", 2, "n1", asker="b", priority=GET)
    table.room_granted(2 * PAGE, at_s=0.1)
    assert table.pulls["p"].is_admitted


def test_less_urgent_pull_is_given_up_when_no_room_comes_free(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 6, "n1", priority=PREFETCH)
    table.room_granted(6 * PAGE, at_s=0.0)
    opened(table, X, "n1")
    assert want(Y, 8, "n1", priority=GET, at_s=1.0) == [Reserve(8 * PAGE)]
    assert table.next_tick_s() == pytest.approx(1.0 + pulls.PREEMPT_S)
    assert table.tick(at_s=1.0 + pulls.PREEMPT_S) == [
        Withdraw(X), Cancel(X, "n1", 0), Cancel(X, "n1", 1), Close(X, "n1", has_all=False), Abandon(X),
    ]  # fmt: skip
    table.check()
    commands = table.room_granted(2 * PAGE, at_s=1.2)
    assert commands == [Create(Y, 8 * PAGE), Connect(Y, "n1", "segment at n1", 8 * PAGE), Reserve(6 * PAGE)]


def test_pull_that_was_given_up_knows_the_nodes_of_which_it_heard_later(
    table: PullTable, want: Callable[..., Any]
) -> None:
    want(X, 6, "n1", priority=PREFETCH)
    table.room_granted(6 * PAGE, at_s=0.0)
    table.source_added(X, "n2", "", at_s=0.0)
    table.source_lost("n1", is_dead=True, at_s=0.1)
    want(Y, 8, "n1", priority=GET, at_s=1.0)
    table.tick(at_s=1.0 + pulls.PREEMPT_S)
    table.room_granted(2 * PAGE, at_s=1.2)
    commands = table.unwanted(Y, "a", at_s=1.3)
    assert commands[-2:] == [Connect(X, "n2", "", 6 * PAGE), Release(2 * PAGE)]
    table.check()


def test_pull_that_was_given_up_goes_on_with_nodes_that_others_told_it_of(
    table: PullTable, want: Callable[..., Any]
) -> None:
    want(X, 6, "n1", priority=PREFETCH)
    table.room_granted(6 * PAGE, at_s=0.0)
    opened(table, X, "n1")
    table.told_holders(X, {"n2": None}, at_s=0.0)
    table.source_lost("n1", is_dead=True, at_s=0.1)
    want(Y, 8, "n1", priority=GET, at_s=1.0)
    table.tick(at_s=1.0 + pulls.PREEMPT_S)
    table.room_granted(2 * PAGE, at_s=1.2)
    commands = table.unwanted(Y, "a", at_s=1.3)
    assert Connect(X, "n2", "", 6 * PAGE) in commands
    table.check()


def test_pull_as_urgent_is_not_given_up(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 6, "n1")
    table.room_granted(6 * PAGE, at_s=0.0)
    want(Y, 8, "n1", asker="b", at_s=1.0)
    assert table.tick(at_s=5.0) == []
    assert table.room_refused("it is full", at_s=6.0) == [Fail(Y, ("b",), Code.FULL, "it is full")]
    assert table.pulls[X].is_admitted


def test_refusal_ends_the_pull_whose_turn_it_is(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 6, "n1")
    want(Y, 1, "n1", asker="b")
    assert table.room_granted(PAGE, at_s=0.0) == [Reserve(5 * PAGE)]
    commands = table.room_refused("it is full", at_s=5.0)
    assert commands[0] == Fail(X, ("a",), Code.FULL, "it is full")
    assert commands[1] == Create(Y, PAGE)
    table.check()


def test_value_larger_than_the_store_is_refused_at_once(table: PullTable, want: Callable[..., Any]) -> None:
    (refused,) = want(X, 11, "n1")
    assert refused == Fail(X, ("a",), Code.TOO_LARGE, "it has 45056 bytes, and the node's store 40960")
    assert table.pulls == {}


def test_room_of_what_is_not_wanted_any_more_is_given_back(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 3, "n1")
    table.room_granted(3 * PAGE, at_s=0.0)
    assert table.unwanted(X, "a", at_s=0.1) == [
        Withdraw(X), Close(X, "n1", has_all=False), Abandon(X), Release(3 * PAGE),
    ]  # fmt: skip
    assert table.granted_bytes == 0


def test_room_that_comes_too_late_is_given_back(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 3, "n1")
    table.unwanted(X, "a", at_s=0.1)
    assert table.room_granted(3 * PAGE, at_s=0.2) == [Release(3 * PAGE)]


# ---- chunks and sources ----


@pytest.fixture
def begun(table: PullTable, want: Callable[..., Any]) -> PullTable:
    """X, of four chunks, from n1, with two of them asked for."""
    want(X, 4, "n1")
    table.room_granted(4 * PAGE, at_s=0.0)
    assert asks(opened(table, X, "n1")) == [("n1", 0), ("n1", 1)]
    return table


def arrive(table: PullTable, node: str, *chunks: int, at_s: float = 0.1) -> list[Any]:
    return [one for chunk in chunks for one in table.chunk_arrived(X, node, chunk, at_s=at_s)]


def test_same_value_is_pulled_once_for_all_who_want_it(begun: PullTable, want: Callable[..., Any]) -> None:
    assert want(X, 4, "n1", asker="b") == []
    assert asks(arrive(begun, "n1", 0, 1)) == [("n1", 2), ("n1", 3)]
    assert arrive(begun, "n1", 2, 3) == [Confirm(X, "n1")]
    reason = begun.reason(X)
    assert reason is not None
    assert "asked whether what it sent was still right" in str(reason)
    assert begun.confirmed(X, "n1", is_right=True, at_s=0.2) == [Deliver(X, ("a", "b")), Close(X, "n1", has_all=True)]
    assert want(X, 4, "n1", asker="c") == [Deliver(X, ("c",))]
    begun.check()


def test_value_that_was_freed_while_it_was_sent_is_delivered_to_nobody(begun: PullTable) -> None:
    arrive(begun, "n1", 0, 1)
    arrive(begun, "n1", 2, 3)
    commands = nobody_else(begun, begun.confirmed(X, "n1", is_right=False, at_s=0.2))
    assert Fail(X, ("a",), Code.LOST, "none of the nodes that had it does: 1 were asked") in commands
    assert not any(isinstance(one, Deliver) for one in commands)
    assert commands[-1] == Release(4 * PAGE)


def test_sure_source_need_not_be_asked_again(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 2, "n2")
    table.room_granted(2 * PAGE, at_s=0.0)
    opened(table, X, "n2", generation="", is_sure=True)
    assert Deliver(X, ("a",)) in arrive(table, "n2", 0, 1)


def test_two_sources_share_the_chunks(begun: PullTable) -> None:
    assert begun.source_added(X, "n2", "", at_s=0.0) == [Connect(X, "n2", "", 4 * PAGE)]
    assert asks(opened(begun, X, "n2", generation="n1:1")) == [("n2", 2), ("n2", 3)]
    begun.check()


def test_what_others_have_is_not_asked_of_the_node_whose_value_it_is(begun: PullTable) -> None:
    begun.source_added(X, "n2", "", at_s=0.0)
    opened(begun, X, "n2", generation="n1:1", chunks=(3,))
    assert asks(arrive(begun, "n1", 0, 1)) == [("n1", 2)]  # n2 is asked for the last


def test_chunk_is_asked_of_whom_the_source_names(begun: PullTable) -> None:
    commands = begun.elsewhere(X, "n1", 1, {"n2": [1, 2]}, at_s=0.1)
    assert commands[0] == Connect(X, "n2", "", 4 * PAGE)
    assert asks(commands) == [("n1", 3)]
    assert asks(opened(begun, X, "n2", generation="n1:1", chunks=(1,))) == [("n2", 2), ("n2", 1)]


def test_who_does_not_have_what_was_said_is_named_to_the_source(begun: PullTable) -> None:
    begun.elsewhere(X, "n1", 1, {"n2": [1]}, at_s=0.1)
    arrive(begun, "n1", 0)
    (ask,) = [one for one in begun.gone(X, "n2", at_s=0.2) + arrive(begun, "n1", 2) if isinstance(one, Ask)]
    assert ask == Ask(X, "n1", 1, GET, ("n2",))


def test_lost_connection_is_tried_again_and_what_has_come_stays(begun: PullTable) -> None:
    arrive(begun, "n1", 0)
    assert begun.source_lost("n1", at_s=1.0) == []
    reason = begun.reason(X)
    assert reason is not None
    assert "1 of 4 chunks are here: node n1 was lost, and is tried again" in str(reason)
    assert begun.next_tick_s() == pytest.approx(1.0 + pulls.RETRY_S)
    assert begun.tick(at_s=2.0) == [Connect(X, "n1", "segment at n1", 4 * PAGE)]
    assert asks(opened(begun, X, "n1", at_s=2.0)) == [("n1", 3), ("n1", 1)]
    begun.check()


def test_source_that_comes_back_with_something_else_begins_anew(begun: PullTable) -> None:
    arrive(begun, "n1", 0)
    begun.source_lost("n1", at_s=1.0)
    begun.tick(at_s=2.0)
    commands = opened(begun, X, "n1", generation="n1:2", at_s=2.0)
    assert commands[0] == Withdraw(X)
    assert begun.pulls[X].arrived == {}


def test_node_that_stays_away_is_given_up(begun: PullTable) -> None:
    for at_s in range(1, pulls.TRIES_MAX):
        assert not any(isinstance(one, Fail) for one in begun.source_lost("n1", at_s=10.0 * at_s))
        assert begun.tick(at_s=10.0 * at_s + 5.0) == [Connect(X, "n1", "segment at n1", 4 * PAGE)]
    commands = nobody_else(begun, begun.source_lost("n1", at_s=50.0))
    assert Fail(X, ("a",), Code.UNREACHABLE, "node n1 could not be connected to") in commands


def test_node_that_has_it_no_more_is_no_hope(begun: PullTable) -> None:
    commands = nobody_else(begun, begun.gone(X, "n1", at_s=0.2))
    assert Fail(X, ("a",), Code.LOST, "none of the nodes that had it does: 1 were asked") in commands


def test_value_whose_node_dies_is_had_of_whom_its_owner_names(begun: PullTable) -> None:
    arrive(begun, "n1", 0)
    commands = begun.source_lost("n1", is_dead=True, at_s=0.2)
    assert commands[-1] == Inquire(X)
    reason = begun.reason(X)
    assert reason is not None
    assert "its owner's node is asked who has it" in str(reason)
    assert begun.owner_told(X, ["me", "n1", "n2"], at_s=0.3) == [Connect(X, "n2", "", 4 * PAGE)]
    assert begun.owner_told(X, ["n3"], at_s=0.3) == []  # it was told once
    begun.check()
    opened(begun, X, "n2", generation="", is_sure=True)
    arrive(begun, "n2", 0, 1)
    assert Deliver(X, ("a",)) in arrive(begun, "n2", 2, 3)


def test_value_of_which_no_node_is_known_is_asked_for_before_there_is_room(
    table: PullTable, want: Callable[..., Any]
) -> None:
    assert want(X, 4) == [Reserve(4 * PAGE), Inquire(X)]
    assert table.owner_told(X, ["n2"], at_s=0.1) == []
    assert table.room_granted(4 * PAGE, at_s=0.2)[-1] == Connect(X, "n2", "", 4 * PAGE)
    table.check()


def test_owners_node_that_does_not_answer_is_not_waited_for_for_ever(begun: PullTable) -> None:
    begun.gone(X, "n1", at_s=0.2)
    assert begun.next_tick_s() == pytest.approx(0.2 + pulls.INQUIRE_S)
    commands = begun.tick(at_s=0.2 + pulls.INQUIRE_S)
    assert Fail(X, ("a",), Code.LOST, "none of the nodes that had it does: 1 were asked") in commands
    begun.check()


def test_value_that_its_node_cannot_give_is_not_called_lost(begun: PullTable) -> None:
    commands = nobody_else(begun, begun.gone(X, "n1", why="it was moved far away", at_s=0.2))
    assert Fail(X, ("a",), Code.ELSEWHERE, "it was moved far away") in commands


def test_dead_node_is_given_up_at_once_for_another(begun: PullTable) -> None:
    begun.source_added(X, "n2", "", at_s=0.0)
    opened(begun, X, "n2", generation="", is_sure=True)
    arrive(begun, "n1", 0)
    commands = begun.source_lost("n1", is_dead=True, at_s=0.5)
    assert begun.pulls[X].arrived == {}  # nobody can say that it was right
    assert Cancel(X, "n1", 1) in commands
    begun.check()


def test_waiting_pull_whose_only_node_dies_fails(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 4, "n1")
    commands = nobody_else(table, table.source_lost("n1", is_dead=True, at_s=0.5))
    assert [type(one) for one in commands] == [Fail]


def test_idle_source_takes_over_what_another_is_late_with(begun: PullTable) -> None:
    begun.source_added(X, "n2", "", at_s=0.0)
    opened(begun, X, "n2", generation="", is_sure=True)
    arrive(begun, "n2", 2, 3, at_s=0.1)
    assert begun.tick(at_s=0.2) == []
    commands = begun.tick(at_s=0.2 + max(pulls.LATE_S, pulls.LOOK_S))
    assert commands == [Cancel(X, "n1", 0), Ask(X, "n2", 0, GET, ("n1",))]
    assert not begun.takes(X, "n1", 0)
    assert arrive(begun, "n1", 0) == []  # what comes all the same is not taken
    begun.check()


def test_value_whose_authority_cannot_be_asked_is_not_waited_for(table: PullTable, want: Callable[..., Any]) -> None:
    nodes = [f"n{number}" for number in range(pulls.SOURCES_MAX)]
    want(X, 1, *nodes)
    table.room_granted(PAGE, at_s=0.0)
    opened(table, X, "n0", generation="another:1")
    commands = arrive(table, "n0", 0)
    assert Close(X, "n0", has_all=False) in commands
    assert table.pulls[X].arrived == {}
    for node in nodes[1:]:
        commands = table.gone(X, node, at_s=0.2)
    commands = nobody_else(table, commands)
    assert [type(one) for one in commands][-2:] == [Fail, Release]


def test_chunk_of_another_pull_of_the_same_value_is_not_taken(begun: PullTable) -> None:
    begun.unwanted(X, "a", at_s=0.1)
    assert not begun.takes(X, "n1", 0)
    assert arrive(begun, "n1", 0) == []


# ---- copies ----


@pytest.fixture
def copied(begun: PullTable) -> PullTable:
    arrive(begun, "n1", 0, 1)
    arrive(begun, "n1", 2, 3)
    begun.confirmed(X, "n1", is_right=True, at_s=0.2)
    return begun


def test_copy_that_nobody_looks_at_goes_when_room_is_wanted(copied: PullTable) -> None:
    assert copied.room_wanted(at_s=1.0) == []
    copied.unwanted(X, "a", at_s=1.0)
    assert copied.had(X) == pull_records.Had(4 * PAGE, "", is_sure=True, chunks=None)
    assert copied.room_wanted(at_s=1.0) == [Withdraw(X), Drop(X), Release(4 * PAGE)]
    copied.check()


def test_copy_of_a_freed_value_goes_with_the_last_who_looks_at_it(copied: PullTable, want: Callable[..., Any]) -> None:
    assert copied.freed(X, at_s=1.0) == [Withdraw(X)]
    assert copied.had(X) is None
    assert want(X, 4, "n1", asker="b") == [Fail(X, ("b",), Code.FREED, "its owner has freed it")]
    (withdraw, keep) = copied.asker_gone("a", at_s=1.0)
    assert (withdraw, type(keep)) == (Withdraw(X), Keep)


def test_file_of_a_dead_copy_is_written_over_by_the_next_of_its_size(
    copied: PullTable, want: Callable[..., Any]
) -> None:
    copied.unwanted(X, "a", at_s=1.0)
    (_, keep) = copied.freed(X, at_s=1.0)
    assert isinstance(keep, Keep)
    assert want(Y, 3, "n1", at_s=1.0) == [Reserve(3 * PAGE)]
    assert want("0c", 4, "n1", at_s=1.0, asker="b") == []  # its turn has not come
    commands = copied.room_granted(3 * PAGE, at_s=1.0)
    assert commands[0] == Create(Y, 3 * PAGE)
    assert commands[2] == Create("0c", 4 * PAGE, warm=keep.warm)
    copied.check()


def test_file_that_nobody_writes_over_goes_after_a_while(copied: PullTable) -> None:
    copied.unwanted(X, "a", at_s=1.0)
    (_, keep) = copied.freed(X, at_s=1.0)
    assert copied.next_tick_s() == pytest.approx(1.0 + pull_copies.WARM_S)
    assert copied.tick(at_s=1.0 + pull_copies.WARM_S) == [Discard(keep.warm), Release(4 * PAGE)]
    copied.check()


def test_file_that_is_kept_goes_when_processes_want_the_room(copied: PullTable) -> None:
    copied.unwanted(X, "a", at_s=1.0)
    (_, keep) = copied.freed(X, at_s=1.0)
    assert copied.room_wanted(at_s=1.1) == [Discard(keep.warm), Release(4 * PAGE)]


def test_copy_without_room_in_the_system_begins_anew_with_new_room(table: PullTable, want: Callable[..., Any]) -> None:
    want(X, 3, "n1")
    for _ in range(pulls.FULL_TRIES - 1):
        table.room_granted(3 * PAGE, at_s=0.0)
        opened(table, X, "n1")
        commands = table.no_room(X, "no space left", at_s=0.1)
        assert commands[-3:] == [Abandon(X), Release(3 * PAGE), Reserve(3 * PAGE)]
        table.check()
    table.room_granted(3 * PAGE, at_s=0.2)
    commands = table.no_room(X, "no space left", at_s=0.3)
    assert commands[-2:] == [Fail(X, ("a",), Code.FULL, "no space left"), Release(3 * PAGE)]


def test_copy_that_is_being_sent_to_others_is_not_written_over(want: Callable[..., Any], copied: PullTable) -> None:
    copied._kept._is_lent = lambda object_id: object_id == X
    copied.unwanted(X, "a", at_s=1.0)
    assert copied.freed(X, at_s=1.0) == [Withdraw(X), Drop(X), Release(4 * PAGE)]


def test_room_of_an_unused_copy_serves_a_pull(copied: PullTable, want: Callable[..., Any]) -> None:
    copied.unwanted(X, "a", at_s=1.0)
    assert want(Y, 8, "n1", at_s=1.0) == [Reserve(8 * PAGE)]
    assert copied.room_wanted(at_s=1.0) == [Withdraw(X), Drop(X)]  # what came free is kept for the pull
    commands = copied.room_granted(8 * PAGE, at_s=1.0)
    assert commands[-1] == Release(4 * PAGE)
    copied.check()


def test_copy_that_nobody_wants_is_kept_for_a_while(copied: PullTable, want: Callable[..., Any]) -> None:
    assert copied.idle_bytes == 0
    copied.unwanted(X, "a", at_s=1.0)
    assert copied.idle_bytes == 4 * PAGE
    assert copied.tick(at_s=1.0 + pull_copies.KEPT_S / 2) == []
    assert want(X, 4, "n1", asker="b", at_s=1.0 + pull_copies.KEPT_S / 2) == [Deliver(X, ("b",))]
    assert copied.next_tick_s() is None  # it is looked at
    copied.unwanted(X, "b", at_s=100.0)
    assert copied.next_tick_s() == 100.0 + pull_copies.KEPT_S
    assert copied.tick(at_s=100.0 + pull_copies.KEPT_S) == [Withdraw(X), Drop(X), Release(4 * PAGE)]
    copied.check()


def test_value_of_another_size_is_refused(copied: PullTable, want: Callable[..., Any]) -> None:
    (refused,) = want(X, 5, "n1", asker="b")
    assert refused == Fail(X, ("b",), Code.LOST, "it has 16384 bytes, and 20480 are wanted")
