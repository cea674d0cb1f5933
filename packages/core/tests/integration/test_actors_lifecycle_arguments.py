"""Actors whose constructor's arguments are still being computed: they are there for everybody, from `.remote()` on."""

from __future__ import annotations

import gc
import logging
import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions
from umbel._control import actors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=4, namespace="tests")
    yield
    umbel.shutdown()


@umbel.remote(num_cpus=0, max_retries=0)
def argument(gate: pathlib.Path, failure: BaseException | None = None) -> int:
    """7, or the failure, once the gate is open."""
    until_s = time.monotonic() + drivers.PATIENCE_S
    while not gate.exists():
        assert time.monotonic() < until_s, f"{gate} was never opened"
        time.sleep(0.002)
    if failure is not None:
        raise failure
    return 7


@umbel.remote(num_cpus=0)
class Keeper:
    def __init__(self, value: int, made: pathlib.Path | None = None) -> None:
        self.value = value
        if made is not None:
            made.touch()

    def get(self) -> int:
        return self.value


@umbel.remote(num_cpus=0, max_retries=0)
def call(keeper: Any, called: pathlib.Path | None = None) -> int:
    """What `get` gives to a process that did not create the actor."""
    ref = keeper.get.remote()
    if called is not None:
        called.touch()
    value: int = umbel.get(ref)
    return value


@pytest.fixture
def gate(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Arguments wait until this file exists; it does in the end."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def made(tmp_path: pathlib.Path) -> pathlib.Path:
    """The file that a constructor makes."""
    return tmp_path / "made"


def listed(actor_id: str) -> dict[str, Any]:
    """What the daemon says of the actor, after all that this process told it."""
    (found,) = [one for one in umbel._client.current.engine().query("actors") if one["actor"] == actor_id]
    return dict(found)


def wanted(actor_id: str) -> list[Any]:
    """Whether the daemon looks for a worker for the actor."""
    return [one for one in umbel._client.current.engine().query("pending") if one["actor"] == actor_id]


def test_handle_works_elsewhere_before_the_arguments_are_there(gate: pathlib.Path, tmp_path: pathlib.Path) -> None:
    keeper = Keeper.remote(argument.remote(gate))
    assert listed(keeper._actor_id_hex)["state"] == "PENDING"
    theirs = call.remote(keeper, tmp_path / "called")
    drivers.wait_until((tmp_path / "called").exists)
    # Longer than a handle may be ahead of its actor.
    assert umbel.wait([theirs], timeout=actors.UNKNOWN_GRACE_S + 0.5)[0] == []
    gate.touch()
    assert umbel.get([theirs, keeper.get.remote()], timeout=30) == [7, 7]


@pytest.mark.parametrize("options", [{}, {"name": "failing"}, {"name": "failing", "lifetime": "detached"}])
def test_argument_that_fails_is_what_every_holder_is_told(
    gate: pathlib.Path, tmp_path: pathlib.Path, options: dict[str, Any]
) -> None:
    keeper = Keeper.options(**options).remote(argument.remote(gate, KeyError("upstream")))
    ours, theirs = keeper.get.remote(), call.remote(keeper, tmp_path / "called")
    drivers.wait_until((tmp_path / "called").exists)
    gate.touch()
    for ref in (ours, theirs, keeper.get.remote(), call.remote(keeper)):
        with pytest.raises(exceptions.ActorDiedError, match=r"(?s)argument of its constructor.*KeyError.*upstream"):
            umbel.get(ref, timeout=30)
    with pytest.raises(exceptions.ActorDiedError) as caught:
        umbel.get(keeper.get.remote(), timeout=30)
    assert caught.value.actor_init_failed
    assert "failing" not in umbel.util.list_named_actors()


@pytest.mark.parametrize("options", [{}, {"name": "stillborn"}])
def test_argument_that_had_failed_before_is_told_in_the_same_way(options: dict[str, Any], gate: pathlib.Path) -> None:
    gate.touch()
    failed = argument.remote(gate, KeyError("upstream"))
    umbel.wait([failed], timeout=30)
    keeper = Keeper.options(**options).remote(failed)
    for ref in (keeper.get.remote(), call.remote(keeper)):
        with pytest.raises(exceptions.ActorDiedError, match="upstream"):
            umbel.get(ref, timeout=30)


def test_of_several_arguments_the_first_that_fails_decides(gate: pathlib.Path, tmp_path: pathlib.Path) -> None:
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    fast.touch()
    keeper = Keeper.remote(argument.remote(slow), argument.remote(fast, KeyError("quick")))
    with pytest.raises(exceptions.ActorDiedError, match="quick"):
        umbel.get(keeper.get.remote(), timeout=30)
    slow.touch()


def test_all_arguments_are_awaited(tmp_path: pathlib.Path) -> None:
    @umbel.remote(num_cpus=0)
    class Sum:
        def __init__(self, *values: int, more: int) -> None:
            self.value = sum(values) + more

        def get(self) -> int:
            return self.value

    gates = [tmp_path / str(number) for number in range(3)]
    first, second, third = (argument.remote(gate) for gate in gates)
    made = Sum.remote(first, 1, second, first, more=third)
    ref = made.get.remote()
    for gate, result in zip(gates, (first, second, third), strict=True):
        assert listed(made._actor_id_hex)["state"] == "PENDING"
        gate.touch()
        umbel.get(result, timeout=30)
    assert umbel.get(ref, timeout=30) == 29


def test_kill_before_the_arguments_are_there_is_final(gate: pathlib.Path, made: pathlib.Path) -> None:
    value = argument.remote(gate)
    keeper = Keeper.remote(value, made)
    early = keeper.get.remote()
    umbel.kill(keeper)
    for ref in (early, keeper.get.remote(), call.remote(keeper)):
        with pytest.raises(exceptions.ActorDiedError, match="kill"):
            umbel.get(ref, timeout=20)
    gate.touch()
    assert umbel.get(value, timeout=30) == 7
    assert (listed(keeper._actor_id_hex)["state"], wanted(keeper._actor_id_hex)) == ("DEAD", [])
    assert not made.exists()


def test_kill_that_allows_restarts_does_nothing_before_the_arguments_are_there(gate: pathlib.Path) -> None:
    keeper = Keeper.remote(argument.remote(gate))
    umbel.kill(keeper, no_restart=False)
    gate.touch()
    assert umbel.get(keeper.get.remote(), timeout=30) == 7


@pytest.mark.parametrize("options", [{}, {"name": "fleeting"}])
def test_last_handle_dropped_before_the_arguments_are_there_is_the_end(
    gate: pathlib.Path, made: pathlib.Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    value = argument.remote(gate)
    keeper = Keeper.options(**options).remote(value, made)
    actor_id = keeper._actor_id_hex
    del keeper
    gc.collect()
    drivers.wait_until(lambda: listed(actor_id)["state"] == "DEAD")
    assert "fleeting" not in umbel.util.list_named_actors()
    with caplog.at_level(logging.ERROR, "umbel"):
        gate.touch()
        assert umbel.get(value, timeout=30) == 7
        assert (listed(actor_id)["state"], wanted(actor_id)) == ("DEAD", [])
    assert not made.exists()
    assert caplog.messages == []


def test_calls_keep_an_actor_whose_handle_went_before_the_arguments_were_there(gate: pathlib.Path) -> None:
    keeper = Keeper.remote(argument.remote(gate))
    actor_id, ref = keeper._actor_id_hex, keeper.get.remote()
    del keeper
    gc.collect()
    assert listed(actor_id)["state"] == "PENDING"
    gate.touch()
    assert umbel.get(ref, timeout=30) == 7
    drivers.wait_until(lambda: listed(actor_id)["state"] == "DEAD")


@pytest.mark.parametrize("options", [{}, {"lifetime": "detached"}])
def test_named_creation_waits_for_no_argument(gate: pathlib.Path, options: dict[str, Any]) -> None:
    keeper = Keeper.options(name="early", **options).remote(argument.remote(gate))
    found = umbel.get_actor("early")
    assert found == keeper
    assert Keeper.options(name="early", get_if_exists=True).remote(argument.remote(gate)) == keeper
    with pytest.raises(exceptions.ActorAlreadyExistsError, match="early"):
        Keeper.options(name="early").remote(argument.remote(gate))
    ref = found.get.remote()
    assert umbel.wait([ref], timeout=0)[0] == []
    gate.touch()
    assert umbel.get([ref, keeper.get.remote()], timeout=30) == [7, 7]
    umbel.kill(keeper)


def test_actor_dies_with_a_creator_that_is_killed_before_the_arguments_are_there(
    gate: pathlib.Path, made: pathlib.Path
) -> None:
    @umbel.remote(num_cpus=0)
    class Parent:
        def make(self) -> Any:
            value = argument.remote(gate)
            self.detached = Keeper.options(name="never", lifetime="detached").remote(value, made)
            self.owned = Keeper.remote(value, made)
            return os.getpid(), self.owned

    parent = Parent.remote()
    pid, owned = umbel.get(parent.make.remote(), timeout=30)
    detached = umbel.get_actor("never")
    waiting = {"pass lifetime='detached'": call.remote(owned), "had not sent all arguments": call.remote(detached)}
    os.kill(pid, signal.SIGKILL)
    for words, ref in waiting.items():
        with pytest.raises(exceptions.ActorDiedError, match=f"(?s)its owner.*is gone.*{words}"):
            umbel.get(ref, timeout=30)
    for handle in (owned, detached):
        with pytest.raises(exceptions.ActorDiedError, match="its owner"):
            umbel.get(handle.get.remote(), timeout=30)
    assert "never" not in umbel.util.list_named_actors()
    assert not made.exists()


def test_explain_names_the_argument_that_the_constructor_waits_for(gate: pathlib.Path) -> None:
    keeper = Keeper.options(name="explained").remote(argument.remote(gate))
    ours = umbel.explain(keeper.get.remote())
    assert "waits for 1 of its constructor's arguments" in ours
    assert "the result of argument" in ours

    @umbel.remote(num_cpus=0)
    def explain_elsewhere() -> str:
        return umbel.explain(umbel.get_actor("explained").get.remote())

    theirs = umbel.get(explain_elsewhere.remote(), timeout=30)
    assert "arguments of its constructor are still being computed" in theirs
