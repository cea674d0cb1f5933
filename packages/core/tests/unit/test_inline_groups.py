"""Placement groups of the inline engine: what is its own about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel.util import placement_group, remove_placement_group
from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    with umbel.init(num_cpus=2, engine="inline"):
        yield


@umbel.remote
def nothing() -> None:
    return None


@umbel.remote
class Counter:
    def count(self) -> int:
        return 1


def test_deadlock_names_the_group_that_cannot_be_placed() -> None:
    group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD")
    task = nothing.options(scheduling_strategy=InGroup(group)).remote()
    for ref in (group.ready(), task):
        with pytest.raises(
            exceptions.DeadlockError, match=rf"placement group {group.id.hex()} cannot be placed: its 2 bundles"
        ):
            umbel.get(ref)
    umbel.cancel(task)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(task)


def test_what_was_held_back_starts_in_order_when_there_is_room() -> None:
    blocker = placement_group([{"CPU": 2}])
    group = placement_group([{"CPU": 1}])
    tasks = [nothing.options(scheduling_strategy=InGroup(group)).remote() for _ in range(3)]
    actor: Any = Counter.options(scheduling_strategy=InGroup(group)).remote()
    call = actor.count.remote()
    assert umbel.wait([*tasks, call], timeout=0)[0] == []
    remove_placement_group(blocker)
    assert umbel.get([*tasks, call]) == [None, None, None, 1]


def test_an_actor_that_is_killed_while_its_group_waits_never_starts() -> None:
    blocker = placement_group([{"CPU": 2}])
    group = placement_group([{"CPU": 1}])
    actor: Any = Counter.options(scheduling_strategy=InGroup(group)).remote()
    call = actor.count.remote()
    umbel.kill(actor)
    remove_placement_group(blocker)
    assert group.wait(5)
    with pytest.raises(exceptions.ActorDiedError):
        umbel.get(call)
    remove_placement_group(group)


def test_an_older_group_is_placed_before_a_younger_one_if_there_is_room_for_it() -> None:
    blocker = placement_group([{"CPU": 2}])
    large, small = placement_group([{"CPU": 2}]), placement_group([{"CPU": 1}])
    remove_placement_group(blocker)
    assert large.wait(5)
    assert not small.wait(0)
    remove_placement_group(large)
    assert small.wait(5)
