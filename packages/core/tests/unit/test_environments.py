"""Environments to be built: their machine, told of events and asked for what to do."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest

from umbel._agent import environments, state
from umbel._agent import events as ev
from umbel._agent.environments import Begin, Doing, End, Environments, Fail, Gone, Held, Ready
from umbel._agent.ledger import CPU, UNIT, Ledger

A, B = '{"pip":1}', '{"pip":2}'


class Machine(Environments):
    """One that checks itself."""

    def __init__(self) -> None:
        super().__init__(f"s{number}" for number in itertools.count(1))

    def settle(self, wanted: Collection[str], at_s: float) -> list[environments.Step]:  # type: ignore[override]
        steps = super().settle(wanted, at_s)
        self.check()
        return steps


@pytest.fixture
def machine() -> Machine:
    return Machine()


def _ready(machine: Machine, key: str = A, at_s: float = 0.0) -> str:
    machine.want(key, None, at_s)
    (begin,) = machine.settle([key], at_s)
    assert isinstance(begin, Begin)
    machine.apply(Ready(begin.server, at_s))
    return begin.server


def test_key_says_what_is_built_for_whom_and_nothing_else() -> None:
    one = {"built": {"pip": [1], "uv": 2}, "env_vars": {"A": "1"}, "config": {"setup_timeout_seconds": 5}}
    other = {"built": {"uv": 2, "pip": [1]}}
    assert environments.build_of(one) == ('{"built":{"pip":[1],"uv":2}}', 5.0)
    assert environments.build_of(other) == ('{"built":{"pip":[1],"uv":2}}', environments.SETUP_TIMEOUT_S)
    assert environments.build_of({**other, "job": "01"})[0] == '{"built":{"pip":[1],"uv":2},"job":"01"}'
    assert environments.build_of({"job": "01", "env_vars": {"A": "1"}})[0] == '{"built":{},"job":"01"}'
    assert environments.build_of({**other, "config": {"setup_timeout_seconds": -1}})[1] is None


def test_equal_ones_are_built_once_and_shared(machine: Machine) -> None:
    assert machine.want(A, 9.0, 0.0) is None
    assert machine.want(A, 9.0, 0.0) is None
    assert machine.settle([A], 0.0) == [Begin("s1", A)]
    assert machine.settle([A], 1.0) == []
    machine.apply(Ready("s1", 2.0))
    assert machine.want(A, 9.0, 3.0) == "s1"


def test_failed_build_fails_those_who_wait_and_a_later_wish_tries_again(machine: Machine) -> None:
    machine.want(A, None, 0.0)
    machine.settle([A], 0.0)
    assert machine.apply(Gone("s1", "no such package", 1.0)) == [Fail(A, "no such package")]
    assert machine.want(A, None, 2.0) is None
    assert machine.settle([A], 2.0) == [Begin("s2", A)]


def test_build_that_was_killed_fails_nobody_until_it_was_a_few_times(machine: Machine) -> None:
    """What a memory killer or the loss of a process does to it says nothing of the environment."""
    for number in range(1, environments.LOSSES_MAX + 1):
        machine.want(A, None, 0.0)
        assert machine.settle([A], 0.0) == [Begin(f"s{number}", A)]
        steps = machine.apply(Gone(f"s{number}", "its process was killed by signal 9", 1.0, was_killed=True))
        if number < environments.LOSSES_MAX:
            assert steps == []
    (fail,) = steps
    assert isinstance(fail, Fail)
    assert f"died {environments.LOSSES_MAX} times in a row" in fail.reason
    machine.want(A, None, 2.0)
    machine.settle([A], 2.0)
    assert machine.apply(Gone("s4", "no such package", 3.0)) == [Fail(A, "no such package")]


def test_build_that_takes_too_long_is_ended(machine: Machine) -> None:
    machine.want(A, 5.0, 0.0)
    machine.settle([A], 0.0)
    machine.apply(Doing("s1", "pip install x", 1.0))
    assert machine.next_tick_s() == 5.0
    fail, end = machine.settle([A], 5.0)
    assert isinstance(fail, Fail)
    assert "not built within 5 s" in fail.reason and "pip install x" in fail.reason and fail.log_of == "s1"
    assert end == End("s1")
    assert machine.apply(Gone("s1", "killed", 5.1)) == []


def test_build_that_nobody_wants_any_more_is_ended_after_a_moment(machine: Machine) -> None:
    machine.want(A, None, 0.0)
    machine.settle([A], 0.0)
    assert machine.settle([], 1.0) == []
    assert machine.settle([A], 2.0) == []  # wanted again
    assert machine.settle([], 3.0) == []
    assert machine.next_tick_s() == 3.0 + environments.ABANDONED_S
    assert machine.settle([], 3.0 + environments.ABANDONED_S) == [End("s1")]
    assert machine.next_tick_s() is None


def test_idle_server_is_ended_later_than_an_abandoned_build(machine: Machine) -> None:
    server = _ready(machine)
    assert machine.settle([], 1.0) == []
    assert machine.settle([], 1.0 + environments.ABANDONED_S) == []
    assert machine.settle([], 1.0 + environments.IDLE_S) == [End(server)]


def test_held_one_is_built_at_once_and_stays_while_its_holder_does(machine: Machine) -> None:
    machine.apply(Held("d", A, None, 0.0))
    assert machine.settle([], 0.0) == [Begin("s1", A)]
    machine.apply(Ready("s1", 1.0))
    assert machine.settle([], 1_000.0) == []
    machine.client_gone("d")
    assert machine.settle([], 1_001.0) == []
    assert machine.settle([], 1_001.0 + environments.IDLE_S) == [End("s1")]


def test_only_so_many_are_built_at_once(machine: Machine) -> None:
    keys = [f'{{"pip":{number}}}' for number in range(environments.BUILDS_MAX + 1)]
    for key in keys:
        machine.want(key, None, 0.0)
    assert len(machine.settle(keys, 0.0)) == environments.BUILDS_MAX
    waiting = machine.reason(keys[-1], 1.0)
    assert waiting is not None and "its turn" in waiting.text
    machine.apply(Ready("s1", 1.0))
    assert machine.settle(keys, 1.0) == [Begin(f"s{environments.BUILDS_MAX + 1}", keys[-1])]


def test_lost_server_is_started_again_but_not_for_ever(machine: Machine) -> None:
    for _ in range(environments.LOSSES_MAX - 1):
        assert machine.apply(Gone(_ready(machine), "killed", 1.0)) == []
    (fail,) = machine.apply(Gone(_ready(machine), "killed", 1.0))
    assert isinstance(fail, Fail)
    assert f"died {environments.LOSSES_MAX} times in a row" in fail.reason


def test_worker_that_is_ready_ends_the_row_of_losses(machine: Machine) -> None:
    for _ in range(2 * environments.LOSSES_MAX):
        server = _ready(machine)
        machine.worker_ready(A)
        assert machine.apply(Gone(server, "killed", 1.0)) == []


def test_reason_says_what_is_done_and_for_how_long(machine: Machine) -> None:
    machine.want(A, None, 0.0)
    machine.settle([A], 0.0)
    machine.apply(Doing("s1", "pip install six", 1.0))
    why = machine.reason(A, 12.0)
    assert str(why) == "its runtime environment is being built for 12 s: pip install six"
    assert why is not None and why.facts["for_s"] == 12.0
    machine.apply(Ready("s1", 13.0))
    assert machine.reason(A, 14.0) is None


# ---- as a part of the agent ----


def _agent() -> state.AgentState:
    ids = (f"i{number}" for number in itertools.count(1))
    agent = state.AgentState(ledger=Ledger({CPU: 2 * UNIT}, {}), worker_ids=ids, starts_max=2, idle_max=2)
    agent.apply(ev.ClientJoined("d", 0.0))
    return agent


def _demand(key: str, build_key: str, count: int = 1, at_s: float = 0.0) -> ev.DemandChanged:
    env = f'{{"built":{build_key}}}' if build_key else ""
    return ev.DemandChanged("d", key, {CPU: UNIT}, count, 0, env, "", at_s, None, build_key, 9.0)


def test_agent_starts_workers_when_the_environment_is_ready_and_others_meanwhile() -> None:
    agent = _agent()
    assert agent.apply(_demand("f", A)) == [Begin("i1", A), ev.Preparing("d", "", "f", "is being built")]
    assert agent.apply(_demand("g", "")) == [ev.StartWorker("i2", "")]
    (waiting, _) = agent.pending(3.0)
    assert "is being built for 3 s" in str(waiting.why)
    assert agent.apply(Ready("i1", 4.0)) == [
        ev.StartWorker("i3", f'{{"built":{A}}}', "i1"), ev.Preparing("d", "", "f", ""),
    ]  # fmt: skip
    agent.check()


def test_agent_fails_who_waits_for_a_failed_build_and_nobody_else() -> None:
    agent = _agent()
    agent.apply(_demand("f", A), _demand("g", B), ev.ActorWanted("a", {}, {}, 0, "E", "", 0.0, None, A, None))
    commands = agent.apply(Gone("i1", "no six", 1.0))
    assert commands == [
        ev.DemandFailed("d", "f", "no six"), ev.ActorUnplaceable("a", "no six"),
        ev.Preparing("d", "", "f", ""), ev.Preparing("", "a", "", ""),
    ]  # fmt: skip
    assert [one.key for one in agent.demands.values()] == ["g"]
    agent.check()


def test_agent_warns_of_a_jobs_environment_that_nobody_waits_for() -> None:
    agent = _agent()
    assert agent.apply(Held("d", A, None, 0.0)) == [Begin("i1", A)]
    (warning,) = agent.apply(Gone("i1", "no six", 1.0))
    assert isinstance(warning, ev.Warn)
    assert "of the job could not be built: no six" in warning.text
    assert Begin("i2", A) in agent.apply(_demand("f", A, at_s=2.0))
    assert agent.apply(Gone("i2", "no six", 3.0))[0] == ev.DemandFailed("d", "f", "no six")


def test_agent_ends_a_build_with_the_client_that_wanted_it() -> None:
    agent = _agent()
    agent.apply(_demand("f", A))
    agent.apply(ev.ClientLeft("d", 1.0))
    assert agent.next_tick_s() == 1.0 + environments.ABANDONED_S
    assert agent.apply(ev.Ticked(1.0 + environments.ABANDONED_S)) == [End("i1")]
    assert agent.next_tick_s() is None


def test_agent_builds_a_lost_environment_again_for_those_who_wait() -> None:
    agent = _agent()
    agent.apply(_demand("f", A), Ready("i1", 1.0))
    assert agent.apply(ev.WorkerExited("i2", 0, 9, 2.0), Gone("i1", "killed", 2.0)) == [
        Begin("i3", A), ev.Preparing("d", "", "f", "is being built"),
    ]  # fmt: skip


def test_what_is_told_of_a_demand_ends_with_it() -> None:
    """Whoever has withdrawn it and wants it again may hear what was said before of the first. (design/0037)"""
    agent = _agent()
    agent.apply(_demand("f", A))
    assert agent.apply(_demand("f", A, 0, 1.0)) == [ev.Preparing("d", "", "f", "")]
    assert agent.apply(Ready("i1", 2.0)) == []
    assert agent.apply(_demand("f", A, 1, 3.0)) == [ev.StartWorker("i2", f'{{"built":{A}}}', "i1")]


def test_agent_without_built_environments_has_no_machine_for_them() -> None:
    agent = _agent()
    agent.apply(_demand("g", ""))
    assert agent.environments is None


def test_worker_that_says_why_it_cannot_start_fails_those_who_wait_at_once() -> None:
    agent = _agent()
    agent.apply(_demand("g", ""))
    assert agent.apply(ev.WorkerExited("i1", 1, 0, 1.0, "the hook failed")) == [
        ev.DemandFailed("d", "g", "the hook failed")
    ]
