"""The poller's wake-ups: none may be lost, whatever it crosses."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from umbel._transport import connection


@pytest.fixture
def poller() -> Iterator[connection.Poller]:
    made = connection.Poller()
    yield made
    made.close()


def test_wake_makes_the_next_poll_return(poller: connection.Poller) -> None:
    poller.wake()
    assert poller.poll(0) == 1
    assert poller.poll(0) == 0


def test_wake_that_crosses_the_handling_of_another_does_not_silence_later_ones(
    poller: connection.Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown hung: the background thread was reading one wake-up while the next was made, and slept on."""
    read = os.read

    def read_while_another_wakes(descriptor: int, size: int) -> bytes:
        poller.wake()
        return read(descriptor, size)

    monkeypatch.setattr(connection.os, "read", read_while_another_wakes)
    poller.wake()
    poller.poll(0)
    monkeypatch.undo()
    while poller.poll(0):
        pass
    poller.wake()
    assert poller.poll(0) == 1
