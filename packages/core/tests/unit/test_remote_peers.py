"""Which processes of other nodes are being connected to: lists of events, and the commands that follow."""

from __future__ import annotations

import random

import pytest

from umbel import exceptions
from umbel._client import remote_peers
from umbel._client.remote_peers import Ask, Dial, GiveUp

NODE, OTHER = b"node-a", b"node-b"
A, B = b"A" * 4 + NODE + b"A" * 6, b"B" * 4 + NODE + b"B" * 6
C = b"C" * 4 + OTHER + b"C" * 6
AT = "10.0.0.7:6380"


@pytest.fixture
def peers() -> remote_peers.RemotePeers:
    return remote_peers.RemotePeers()


def taken(peers: remote_peers.RemotePeers) -> list[Ask | Dial | GiveUp]:
    peers.check()
    commands, peers.commands = peers.commands, []
    return commands


def test_node_is_asked_for_once_and_all_its_processes_are_dialled(peers: remote_peers.RemotePeers) -> None:
    peers.wanted(A)
    peers.wanted(B)
    peers.wanted(C)
    assert taken(peers) == [Ask(NODE), Ask(OTHER)]
    peers.located(NODE, AT)
    assert taken(peers) == [Dial(A, 1, AT), Dial(B, 2, AT)]
    assert peers.connected(A, 1)
    assert not peers.is_waiting(A)
    assert peers.is_waiting(B)


def test_known_node_is_not_asked_for_again(peers: remote_peers.RemotePeers) -> None:
    peers.wanted(A)
    peers.located(NODE, AT)
    peers.wanted(B)
    assert taken(peers) == [Ask(NODE), Dial(A, 1, AT), Dial(B, 2, AT)]


def test_process_of_an_unknown_node_is_given_up_and_the_node_asked_for_again_later(
    peers: remote_peers.RemotePeers,
) -> None:
    peers.wanted(A)
    peers.located(NODE, "")
    assert taken(peers) == [Ask(NODE), GiveUp(A)]
    assert not peers.is_gone(A)
    peers.wanted(A)
    assert taken(peers) == [Ask(NODE)]


def test_broken_dial_is_begun_again_ever_later_and_given_up_in_the_end(peers: remote_peers.RemotePeers) -> None:
    peers.wanted(A)
    peers.located(NODE, AT)
    assert taken(peers) == [Ask(NODE), Dial(A, 1, AT)]
    began_s = []
    for number in range(1, remote_peers.DIAL_TRIES_MAX):
        peers.failed(A, number, is_final=False, at_s=0.0)
        due_s = peers.next_tick_s()
        assert due_s is not None
        peers.tick(due_s - 0.001)
        assert taken(peers) == []
        peers.tick(due_s)
        assert taken(peers) == [Dial(A, number + 1, AT)]
        began_s.append(due_s)
    assert began_s == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])
    peers.failed(A, remote_peers.DIAL_TRIES_MAX, is_final=False, at_s=0.0)
    assert taken(peers) == [GiveUp(A)]
    assert peers.next_tick_s() is None


def test_refused_dial_is_not_begun_again(peers: remote_peers.RemotePeers) -> None:
    peers.wanted(A)
    peers.located(NODE, AT)
    peers.failed(A, 1, is_final=True, at_s=0.0)
    assert taken(peers) == [Ask(NODE), Dial(A, 1, AT), GiveUp(A)]


def test_death_of_a_node_gives_up_whatever_its_processes_wait_for(peers: remote_peers.RemotePeers) -> None:
    """One is dialled, one waits for another try, one for the address: the node is gone for all, and for good."""
    peers.wanted(A)
    peers.wanted(C)
    peers.located(NODE, AT)
    peers.wanted(B)
    peers.failed(A, 1, is_final=False, at_s=0.0)
    taken(peers)
    peers.node_gone(NODE)
    assert taken(peers) == [GiveUp(A), GiveUp(B)]
    assert (peers.is_gone(A), peers.is_gone(B), peers.is_gone(C)) == (True, True, False)
    assert peers.next_tick_s() is None
    peers.node_gone(OTHER)
    assert taken(peers) == [GiveUp(C)]
    peers.located(OTHER, AT)  # the daemon had answered before it heard of the death
    peers.connected(B, 2)
    peers.failed(B, 2, is_final=False, at_s=0.0)
    assert taken(peers) == []


def test_dial_that_nobody_wants_any_more_counts_for_no_later_one(peers: remote_peers.RemotePeers) -> None:
    """The peer's own connection to us broke while we dialled, and then the peer was wanted again: the first dial, made for a
    link that has ended, must neither become the connection of the second nor end it."""
    peers.wanted(A)
    peers.located(NODE, AT)
    peers.unwanted(A)
    peers.wanted(A)
    assert taken(peers) == [Ask(NODE), Dial(A, 1, AT), Dial(A, 2, AT)]
    peers.failed(A, 1, is_final=True, at_s=0.0)
    assert taken(peers) == []
    assert not peers.connected(A, 1)
    assert peers.is_waiting(A)
    assert peers.connected(A, 2)


def test_what_cannot_be_wanted_is_an_internal_error(peers: remote_peers.RemotePeers) -> None:
    peers.wanted(A)
    with pytest.raises(exceptions.InternalError):
        peers.wanted(A)
    peers.node_gone(NODE)
    with pytest.raises(exceptions.InternalError):
        peers.wanted(B)


def test_dead_nodes_that_are_remembered_are_bounded(
    peers: remote_peers.RemotePeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_peers, "GONE_COUNT_MAX", 1)
    peers.node_gone(NODE)
    peers.node_gone(OTHER)
    assert (peers.is_gone(A), peers.is_gone(C)) == (False, True)


def test_what_a_peer_waits_for_can_be_said(peers: remote_peers.RemotePeers) -> None:
    peers.wanted(A)
    assert "once this node's daemon has said where" in peers.state(A, 0.0)
    peers.located(NODE, AT)
    assert peers.state(A, 0.0) == f"is being connected to, at {AT}"
    peers.failed(A, 1, is_final=False, at_s=1.0)
    assert peers.state(A, 1.0) == "broke off 1 connections, the next one is tried in 0.05 s"
    peers.tick(1.05)
    peers.connected(A, 2)
    assert peers.state(A, 1.1) == "is connected"


@pytest.mark.parametrize("seed", range(50))
def test_whoever_is_wanted_is_connected_or_given_up_whatever_happens_in_between(seed: int) -> None:
    chance = random.Random(seed)
    peers = remote_peers.RemotePeers()
    waiting: set[bytes] = set()
    asked: list[bytes] = []
    dials: list[Dial] = []
    now_s = 0.0

    def carry_out() -> None:
        for command in taken(peers):
            if isinstance(command, Ask):
                asked.append(command.tag)
            elif isinstance(command, Dial):
                dials.append(command)
            else:
                waiting.remove(command.peer)

    def answer(*, is_good: bool) -> None:
        if asked and chance.random() < 0.5:
            peers.located(asked.pop(chance.randrange(len(asked))), AT if is_good else "")
        elif dials:
            dial = dials.pop(chance.randrange(len(dials)))
            if not is_good:
                peers.failed(dial.peer, dial.number, is_final=chance.random() < 0.3, at_s=now_s)
            elif peers.connected(dial.peer, dial.number):
                waiting.remove(dial.peer)

    for _ in range(200):
        now_s += chance.random() * 0.1
        peer = chance.choice((A, B, C))
        what = chance.random()
        if what < 0.4 and peer not in waiting and not peers.is_gone(peer):
            peers.wanted(peer)
            waiting.add(peer)
        elif what < 0.8:
            answer(is_good=chance.random() < 0.5)
        elif what < 0.85:
            peers.unwanted(peer)
            waiting.discard(peer)
        elif what < 0.86:
            peers.node_gone(peer[:6])
        else:
            peers.tick(now_s)
        carry_out()
        assert all(map(peers.is_waiting, waiting))
    while waiting:
        now_s += 1.0
        peers.tick(now_s)
        carry_out()
        answer(is_good=True)
        carry_out()
    assert not any(map(peers.is_waiting, (A, B, C)))


def test_one_that_had_been_connected_is_dialled_for_as_long_as_its_node_may_be_out_of_reach(
    peers: remote_peers.RemotePeers,
) -> None:
    peers.wanted(A, tries_max=remote_peers.TRIES_AGAIN_MAX)
    peers.located(NODE, AT)
    at_s = 0.0
    for number in range(1, remote_peers.TRIES_AGAIN_MAX + 1):
        assert Dial(A, number, AT) in taken(peers)
        peers.failed(A, number, is_final=False, at_s=at_s)
        due_s = peers.next_tick_s()
        if due_s is not None:
            at_s = due_s
            peers.tick(at_s)
    assert taken(peers) == [GiveUp(A)]
    assert 24.0 < at_s < 30.0
