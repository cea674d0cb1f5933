"""The daemon's directory of nodes, and what it tells processes."""

from __future__ import annotations

from typing import Any

import pytest

from umbel import exceptions
from umbel._agent import directory

OWN, TAG = b"node-o", b"node-a"


class Told:
    """A directory, and what it has said."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.all: list[dict[str, Any]] = []
        self.directory = directory.Directory(
            OWN, lambda client, message: self.sent.append((client, message)), self.all.append
        )

    def found(self, node: str) -> str:
        self.directory.on_find("p1", node, is_dialled=False)
        client, message = self.sent.pop()
        assert (client, message["t"], message["node"]) == ("p1", "node_at", node)
        assert not message["is_dialled"]
        address: str = message["address"]
        return address


def test_process_is_told_where_a_node_is_as_long_as_it_lives() -> None:
    told = Told()
    assert told.found(TAG.hex()) == ""
    told.directory.set(TAG, "10.0.0.7:6380")
    assert told.found(TAG.hex()) == told.directory.address_of(TAG) == "10.0.0.7:6380"
    told.directory.set(TAG, "[fd00::7]:6380")
    assert told.found(TAG.hex()) == "[fd00::7]:6380"
    assert told.all == []
    told.directory.forget(TAG)
    assert told.all == [{"t": "node_gone", "node": TAG.hex()}]
    assert told.found(TAG.hex()) == ""


def test_what_is_no_node_is_not_known() -> None:
    assert Told().found("nonsense") == ""


def test_address_that_is_none_is_refused_before_a_process_hears_of_it() -> None:
    told = Told()
    with pytest.raises(exceptions.InvalidOption, match="no port"):
        told.directory.set(TAG, "10.0.0.7")
    assert told.found(TAG.hex()) == ""


def test_own_node_does_not_die_for_its_processes_because_others_think_so() -> None:
    told = Told()
    told.directory.set(OWN, "10.0.0.8:6380")
    told.directory.forget(OWN)
    assert told.all == []
    assert told.found(OWN.hex()) == "10.0.0.8:6380"


def test_processes_hear_once_of_a_node_that_is_drained_and_those_that_come_later_too() -> None:
    told = Told()
    told.directory.drains(TAG)  # which is no member
    told.directory.set(TAG, "10.0.0.7:6380")
    told.directory.drains(TAG)
    told.directory.drains(TAG)
    told.directory.drains(OWN)
    drained = {"t": "node_draining", "node": TAG.hex()}
    assert told.all == [drained]
    told.directory.on_joined("p1")
    assert told.sent == [("p1", drained)]
    told.directory.forget(TAG)
    told.directory.on_joined("p2")
    assert told.sent == [("p1", drained)]
