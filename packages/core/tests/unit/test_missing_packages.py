"""Packages that a node lacks: their machine, as a part of that of environments, told of events and asked for what to do."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest

from umbel._agent import environments
from umbel._agent.environments import ABANDONED_S, Begin, End, Environments, Fail, Ready, State
from umbel._agent.packages import (
    FETCHES_MAX,
    RETRY_S,
    SHOWN_MAX,
    SILENCE_S,
    Abandon,
    Coming,
    Fetch,
    Fetched,
    NodeDied,
    NotFetched,
    Packages,
    Trouble,
)
from umbel._model.package_names import SCHEME

P, Q = "0" * 31 + "1", "0" * 31 + "2"
HAS_P, HAS_Q = f'{{"working_dir":"{SCHEME}{P}"}}', f'{{"working_dir":"{SCHEME}{Q}"}}'
HAS_BOTH = f'{{"py_modules":["{SCHEME}{Q}"],"working_dir":"{SCHEME}{P}"}}'
BYTES_MAX = 10 << 20


class Machine(Environments):
    """One that checks itself. here: packages that are; others: nodes."""

    def __init__(self, *others: str) -> None:
        self.here: set[str] = set()
        self.others = list(others)
        table = Packages(lambda name: name in self.here, lambda: self.others, lambda: BYTES_MAX)
        super().__init__((f"s{number}" for number in itertools.count(1)), table)

    def settle(self, wanted: Collection[str], at_s: float) -> list[environments.Step]:  # type: ignore[override]
        steps = super().settle(wanted, at_s)
        self.check()
        return steps

    def fetch(self, key: str = HAS_P, source: str = "a", at_s: float = 0.0) -> Fetch:
        """What is done for a wish that lacks one package."""
        assert self.want(key, None, at_s, source) is None
        (step,) = self.settle([key], at_s)
        assert isinstance(step, Fetch)
        return step


@pytest.fixture
def machine() -> Machine:
    return Machine("a", "b", "c")


def test_what_is_here_is_built_at_once(machine: Machine) -> None:
    machine.here = {P}
    machine.want(HAS_P, None, 0.0, "a")
    assert machine.settle([HAS_P], 0.0) == [Begin("s1", HAS_P)]


def test_what_is_not_here_is_fetched_from_who_wants_it_and_then_built(machine: Machine) -> None:
    assert machine.fetch(source="b") == Fetch(P, "b", 1)
    assert machine.settle([HAS_P], 1.0) == []
    machine.apply(Coming(1, 3 << 20, 1.0))
    why = machine.reason(HAS_P, 2.0)
    assert str(why) == f"its runtime environment lacks files for 2 s: fetching package {P} (3.0 MiB) from node b"
    assert machine.unready()[HAS_P] == f"lacks files: fetching package {P} (3.0 MiB) from node b"
    machine.apply(Fetched(1, 3.0))
    assert machine.settle([HAS_P], 3.0) == [Begin("s1", HAS_P)]
    machine.apply(Ready("s1", 4.0))
    assert machine.unready() == {}


def test_a_package_is_fetched_once_for_all_who_need_it(machine: Machine) -> None:
    machine.fetch()
    machine.want(HAS_P, None, 0.0, "b")
    machine.want(HAS_BOTH, None, 0.0, "b")
    assert machine.settle([HAS_P, HAS_BOTH], 0.0) == [Fetch(Q, "b", 2)]
    machine.apply(Fetched(2, 1.0))
    assert machine.settle([HAS_P, HAS_BOTH], 1.0) == []
    machine.apply(Fetched(1, 2.0))
    assert machine.settle([HAS_P, HAS_BOTH], 2.0) == [Begin("s1", HAS_P), Begin("s2", HAS_BOTH)]


def test_a_node_that_lacks_it_is_not_asked_again_and_all_others_are(machine: Machine) -> None:
    machine.fetch()
    machine.apply(NotFetched(1, Trouble.REFUSED, "it does not have it", 1.0))
    assert machine.settle([HAS_P], 1.0) == [Fetch(P, "b", 2)]
    machine.want(HAS_P, None, 1.0, "a")  # who wants it says again that it has it
    machine.apply(NotFetched(2, Trouble.REFUSED, "it does not have it", 2.0))
    assert machine.settle([HAS_P], 2.0) == [Fetch(P, "c", 3)]
    machine.apply(NotFetched(3, Trouble.REFUSED, "it has sent another one", 3.0))
    (fail,) = machine.settle([HAS_P], 3.0)
    assert isinstance(fail, Fail) and fail.key == HAS_P
    assert f"{SCHEME}{P} of the environment is not there (node a: it does not have it; node b: it does" in fail.reason
    assert "node c: it has sent another one" in fail.reason and "give the local path" in fail.reason
    assert machine.next_tick_s() is None
    assert machine.fetch(at_s=4.0) == Fetch(P, "a", 4)  # who asks later starts anew


def test_only_some_of_many_nodes_are_named() -> None:
    machine = Machine(*(f"n{number:02}" for number in range(20)))
    machine.want(HAS_P, None, 0.0)
    for number in range(1, 21):
        assert machine.settle([HAS_P], 0.0) == [Fetch(P, f"n{number - 1:02}", number)]
        machine.apply(NotFetched(number, Trouble.REFUSED, "no", 0.0))
    (fail,) = machine.settle([HAS_P], 0.0)
    assert isinstance(fail, Fail) and f"node n04: no; and {20 - SHOWN_MAX} others" in fail.reason


def test_without_other_nodes_it_fails_at_once() -> None:
    machine = Machine()
    machine.want(HAS_P, None, 0.0)
    (fail,) = machine.settle([HAS_P], 0.0)
    assert isinstance(fail, Fail) and "is not there: packages live as long as" in fail.reason


def test_a_node_that_breaks_off_is_tried_again_after_the_others(machine: Machine) -> None:
    machine.others = ["a", "b"]
    machine.fetch()
    machine.apply(NotFetched(1, Trouble.BROKEN, "the connection broke", 1.0))
    assert machine.settle([HAS_P], 1.0) == []
    assert (
        f"package {P} could not be fetched from node a: the connection broke; it is tried again"
        in machine.unready()[HAS_P]
    )
    assert machine.next_tick_s() == 1.0 + RETRY_S
    assert machine.settle([HAS_P], 1.0 + RETRY_S) == [Fetch(P, "b", 2)]
    machine.apply(NotFetched(2, Trouble.REFUSED, "it does not have it", 2.0))
    assert machine.settle([HAS_P], 2.0) == [Fetch(P, "a", 3)]
    machine.apply(NotFetched(3, Trouble.BROKEN, "the connection broke", 3.0))
    assert machine.next_tick_s() == 3.0 + 2 * RETRY_S


def test_a_node_that_is_busy_is_asked_again_and_nobody_who_may_not_have_it(machine: Machine) -> None:
    machine.fetch()
    machine.apply(NotFetched(1, Trouble.BUSY, "it gives packages to 16 others", 1.0))
    assert machine.settle([HAS_P], 1.0) == []
    assert "from node a: it gives packages to 16 others; it is tried again" in machine.unready()[HAS_P]
    assert machine.settle([HAS_P], 1.0 + RETRY_S) == [Fetch(P, "a", 2)]
    machine.want(HAS_P, None, 2.0, "b")  # which has it too
    machine.apply(NotFetched(2, Trouble.BUSY, "it gives packages to 16 others", 2.0))
    assert machine.settle([HAS_P], 2.0 + 2 * RETRY_S) == [Fetch(P, "b", 3)]


def test_a_node_that_falls_silent_is_given_up(machine: Machine) -> None:
    machine.fetch()
    machine.apply(Coming(1, 1, 5.0))
    assert machine.next_tick_s() == 5.0 + SILENCE_S
    assert machine.settle([HAS_P], 4.0 + SILENCE_S) == []
    assert machine.settle([HAS_P], 5.0 + SILENCE_S) == [Abandon(1)]
    assert machine.settle([HAS_P], 5.0 + SILENCE_S + RETRY_S) == [Fetch(P, "b", 2)]
    machine.apply(Fetched(1, 30.0))  # late, of an attempt that is over
    assert machine.servers[HAS_P].state is State.LACKING


def test_a_node_that_dies_is_left_at_once(machine: Machine) -> None:
    machine.fetch()
    machine.others.remove("a")
    machine.apply(NodeDied("a", 1.0))
    assert machine.settle([HAS_P], 1.0) == [Abandon(1), Fetch(P, "b", 2)]
    machine.apply(NotFetched(1, Trouble.BROKEN, "the connection broke", 1.1))
    assert machine.settle([HAS_P], 1.1) == []


def test_what_nobody_wants_any_more_is_abandoned_after_a_moment(machine: Machine) -> None:
    machine.fetch()
    assert machine.settle([], 1.0) == []
    assert machine.settle([], 1.0 + ABANDONED_S) == [Abandon(1)]
    assert machine.next_tick_s() is None


def test_a_package_is_not_waited_for_when_another_one_of_its_environment_cannot_be_had(machine: Machine) -> None:
    """Else it would be due for ever, and nobody would look. (found by the simulator)"""
    machine.others = []
    machine.want(HAS_BOTH, None, 0.0, "a")
    assert machine.settle([HAS_BOTH], 0.0) == [Fetch(P, "a", 1), Fetch(Q, "a", 2)]
    machine.apply(NotFetched(2, Trouble.BROKEN, "the connection broke", 1.0))
    machine.settle([HAS_BOTH], 1.0)
    machine.apply(NotFetched(1, Trouble.REFUSED, "it does not have it", 1.0))
    (fail,) = machine.settle([HAS_BOTH], 1.0)
    assert isinstance(fail, Fail)
    assert machine.next_tick_s() is None


def test_only_so_many_come_at_once(machine: Machine) -> None:
    keys = [f'{{"working_dir":"{SCHEME}{number:032x}"}}' for number in range(FETCHES_MAX + 1)]
    for key in keys:
        machine.want(key, None, 0.0, "a")
    steps = machine.settle(keys, 0.0)
    assert [type(step) for step in steps] == [Fetch] * FETCHES_MAX
    assert "waits for its turn to be fetched" in machine.unready()[keys[-1]]
    machine.apply(Fetched(1, 1.0))
    begin, fetch = sorted(machine.settle(keys, 1.0), key=lambda step: type(step).__name__)
    assert isinstance(begin, Begin) and isinstance(fetch, Fetch)


def test_what_is_too_large_for_this_node_or_cannot_be_kept_fails_without_asking_others(machine: Machine) -> None:
    machine.fetch()
    machine.want(HAS_Q, None, 0.0, "a")
    machine.settle([HAS_P, HAS_Q], 0.0)
    machine.apply(Coming(1, BYTES_MAX + (1 << 20), 1.0))
    abandon, fail = sorted(machine.settle([HAS_P, HAS_Q], 1.0), key=lambda step: type(step).__name__)
    assert abandon == Abandon(1) and isinstance(fail, Fail) and fail.key == HAS_P
    assert "has 11.0 MiB, allowed on this node are 10.0 MiB" in fail.reason
    machine.apply(NotFetched(2, Trouble.OWN, "No space left on device", 2.0))
    (fail,) = machine.settle([HAS_Q], 2.0)
    assert isinstance(fail, Fail) and "cannot be kept on this node: No space left on device" in fail.reason


def test_the_time_for_setting_up_counts_for_what_has_to_come_as_well(machine: Machine) -> None:
    machine.want(HAS_P, 5.0, 0.0, "a")
    machine.settle([HAS_P], 0.0)
    assert machine.next_tick_s() == 5.0
    fail, abandon = machine.settle([HAS_P], 5.0)
    assert isinstance(fail, Fail) and abandon == Abandon(1)
    assert "it was not here within 5 s, which is setup_timeout_seconds" in fail.reason and "from node a" in fail.reason
    machine.want(HAS_P, 5.0, 6.0, "a")
    machine.settle([HAS_P], 6.0)
    machine.apply(Fetched(2, 10.0))
    assert machine.settle([HAS_P], 10.0) == [Begin("s2", HAS_P)]
    assert machine.next_tick_s() == 15.0
    fail, end = machine.settle([HAS_P], 15.0)
    assert isinstance(fail, Fail) and "not built within 5 s" in fail.reason and end == End("s2")
