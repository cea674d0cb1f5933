"""How a node gets connections to nodes that cannot be dialled: lists of events, and the commands that follow."""

from __future__ import annotations

import random

import pytest

from umbel._agent import reaching
from umbel._agent.reaching import BACK_S, KNOWN_S, RELAYED_S, WAIT_S, Ask, Fail, MeetAtHead, Reaching

FAR, OTHER = "far", "other"
T, U = b"ticket-1", b"ticket-2"


def linked(*, listens: bool = True) -> Reaching:
    machine = Reaching(listens=listens, is_head=False)
    assert machine.linked(0.0) == []
    return machine


def test_a_node_is_asked_to_dial_this_one() -> None:
    machine = linked()
    assert machine.wanted(T, FAR, 1.0) == [Ask(T, FAR, is_relayed=False)]
    assert "asked through the head to dial this node" in machine.state(FAR)
    assert machine.arrived(T) == FAR
    assert machine.state(FAR) == ""
    assert machine.next_tick_s() is None
    machine.check()


def test_a_ticket_is_for_one_connection() -> None:
    machine = linked()
    machine.wanted(T, FAR, 1.0)
    assert machine.arrived(T) == FAR
    assert machine.arrived(T) == ""
    assert machine.arrived(U) == ""


def test_who_cannot_dial_this_node_either_is_met_at_the_head_and_so_next_time() -> None:
    machine = linked()
    machine.wanted(T, FAR, 0.0)
    assert machine.unreached(T, "no route", 1.0, is_final=False) == [Ask(T, FAR, is_relayed=True)]
    assert machine.meets(T) == [MeetAtHead(T, FAR)]
    assert machine.arrived(T) == FAR
    assert machine.wanted(U, FAR, 2.0) == [Ask(U, FAR, is_relayed=True)]
    assert machine.relayed == {FAR: 1.0 + KNOWN_S}
    assert machine.wanted(b"later", FAR, 2.0 + KNOWN_S) == [Ask(b"later", FAR, is_relayed=False)]


def test_who_does_not_dial_in_time_is_met_at_the_head() -> None:
    machine = linked()
    machine.wanted(T, FAR, 0.0)
    assert machine.next_tick_s() == BACK_S
    assert machine.tick(BACK_S) == [Ask(T, FAR, is_relayed=True)]
    (failed,) = machine.tick(BACK_S + RELAYED_S)
    assert isinstance(failed, Fail)
    assert failed.ticket == T
    assert "did not dial this node within 2 s, and through the head it is not reached either" in failed.reason
    assert machine.relayed == {}  # so that the next one begins anew


def test_a_node_that_listens_nowhere_meets_all_others_at_the_head() -> None:
    machine = linked(listens=False)
    assert machine.wanted(T, FAR, 0.0) == [Ask(T, FAR, is_relayed=True)]
    machine.check()


def test_the_head_meets_nobody_at_the_head() -> None:
    machine = Reaching(listens=True, is_head=True)
    assert machine.wanted(T, FAR, 0.0) == [Ask(T, FAR, is_relayed=False)]
    assert machine.unreached(T, "no route", 1.0, is_final=False) == [Fail(T, "no route")]
    machine.check()


def test_what_the_head_does_not_know_has_failed() -> None:
    machine = linked()
    machine.wanted(T, FAR, 0.0)
    assert machine.unreached(T, "no such node", 0.0, is_final=True) == [Fail(T, "no such node")]
    assert machine.unreached(T, "no such node", 0.0, is_final=True) == []


def test_without_the_head_a_wish_waits_and_is_asked_again_by_every_connection() -> None:
    machine = Reaching(listens=True, is_head=False)
    assert machine.wanted(T, FAR, 0.0) == []
    assert "once there is a connection to the head" in machine.state(FAR)
    assert machine.linked(5.0) == [Ask(T, FAR, is_relayed=False)]
    machine.unlinked(6.0)
    assert machine.tick(6.0 + BACK_S) == []
    assert machine.linked(10.0) == [Ask(T, FAR, is_relayed=False)]
    machine.unlinked(11.0)
    (failed,) = machine.tick(11.0 + WAIT_S)
    assert isinstance(failed, Fail)
    assert "no connection to the head for 60 s" in failed.reason
    machine.check()


def test_wishes_end_with_the_node() -> None:
    machine = linked()
    machine.wanted(T, FAR, 0.0)
    machine.wanted(U, OTHER, 0.0)
    assert machine.node_gone(FAR) == [Fail(T, "it has died")]
    assert machine.arrived(T) == ""
    assert machine.arrived(U) == OTHER


def test_not_too_much_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "TICKET_COUNT_MAX", 1)
    machine = linked()
    machine.wanted(T, FAR, 0.0)
    (failed,) = machine.wanted(U, FAR, 0.0)
    assert isinstance(failed, Fail)
    assert machine.arrived(U) == ""


def test_whatever_happens_every_wish_comes_to_an_end() -> None:
    """Each is told once that it failed, or has arrived; and when time has passed nothing is left."""
    for seed in range(200):
        chance = random.Random(seed)
        machine = Reaching(listens=chance.random() < 0.7, is_head=chance.random() < 0.2)
        at_s, open_, ended = 0.0, set[bytes](), list[bytes]()

        def do(commands: list[reaching.Command], ended: list[bytes] = ended) -> None:
            ended += [command.ticket for command in commands if isinstance(command, Fail)]

        for step in range(60):
            at_s += chance.choice((0.0, 0.1, 1.0, 3.0))
            ticket = chance.choice([*open_, b"none"]) if open_ else b"none"
            deed = chance.randrange(7)
            if deed == 0:
                open_.add(new := str(step).encode())
                do(machine.wanted(new, chance.choice((FAR, OTHER)), at_s))
            elif deed == 1 and machine.arrived(ticket):
                ended.append(ticket)
            elif deed == 2:
                do(machine.unreached(ticket, "no", at_s, is_final=chance.random() < 0.3))
            elif deed == 3 and not machine._is_head:
                machine.unlinked(at_s) if chance.random() < 0.5 else do(machine.linked(at_s))
            elif deed == 4:
                do(machine.tick(at_s))
            elif deed == 5:
                do(machine.meets(ticket))
            elif chance.random() < 0.2:
                do(machine.node_gone(FAR))
            machine.check()
        while (due_s := machine.next_tick_s()) is not None:
            do(machine.tick(max(at_s, due_s)))
            machine.check()
        assert sorted(ended) == sorted(open_)
