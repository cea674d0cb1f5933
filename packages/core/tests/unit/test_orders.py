"""Commands are carried out in order, and a failure is never gone on with."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from umbel import exceptions
from umbel._agent import events as ev
from umbel._agent.ledger import CPU, UNIT
from umbel._base import orders
from umbel.testing.simulation.chance import Chance
from umbel.testing.simulation.daemon import Daemon
from umbel.testing.simulation.world import Violation, World

NEEDS = {CPU: UNIT}


class Say(NamedTuple):
    text: str


class SayBoth(NamedTuple):
    texts: tuple[str, ...]


class Fail(NamedTuple):
    error: Exception


class Shell:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.orders = orders.Orders(
            {Say: lambda one: self.said.append(one.text), SayBoth: self._both, Fail: self._fail}
        )

    def _both(self, command: SayBoth) -> None:
        assert not self.orders.carry_out([Say(text) for text in command.texts])

    def _fail(self, command: Fail) -> None:
        raise command.error


def test_what_follows_from_one_comes_after_the_rest() -> None:
    shell = Shell()
    assert shell.orders.carry_out([SayBoth(("3", "4")), Say("1"), Say("2")])
    assert shell.said == ["1", "2", "3", "4"]
    assert shell.orders.carry_out([Say("5")])
    assert shell.said[-1] == "5"


def test_a_failure_is_no_mistake_of_who_has_said_something_and_names_what_failed() -> None:
    """Readers of messages close the connection on a ValueError, and went on with a machine that believed that all was done."""
    shell, error = Shell(), ValueError("not a number")
    with pytest.raises(
        exceptions.InternalError, match=r"Fail\(error=.*could not be carried out: .*not a number"
    ) as raised:
        shell.orders.carry_out([Say("1"), Fail(error), Say("2")])
    assert raised.value.__cause__ is error
    assert not isinstance(raised.value, ValueError)
    assert shell.said == ["1"]


@pytest.mark.parametrize("error", [exceptions.InternalError("slots went negative"), Violation("A3", "3 of 2 given")])
def test_a_broken_invariant_stays_what_it_is(error: Exception) -> None:
    """Also one of the simulator's."""
    with pytest.raises(type(error)) as raised:
        Shell().orders.carry_out([Fail(error)])
    assert raised.value is error


def test_a_command_that_fails_in_a_daemon_ends_it() -> None:
    def cannot(_worker: str, _env: str) -> None:
        raise ValueError("there is no such environment")

    daemon = Daemon(World(Chance(0)), NEEDS, on_start=cannot, on_kill=lambda _worker: None)
    with pytest.raises(exceptions.InternalError, match=r"StartWorker.*could not be carried out"):
        daemon.decide(ev.ClientJoined("c", 0.0), ev.DemandChanged("c", "k", NEEDS, 1, 0, "", "", 0.0))
