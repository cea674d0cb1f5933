"""What ends with what: objects and actors with their owner, and what an actor does at its end."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

import psutil
import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.usefixtures("engine")

TIMEOUT_S = 20.0


@umbel.remote
class Owner:
    def __init__(self, marks: Any = None) -> None:
        if marks is not None:
            atexit.register(marks.add, "first")
            atexit.register(self.never, marks)
            atexit.register(marks.add, "second")
            atexit.unregister(self.never)

    def never(self, marks: Any) -> None:
        marks.add("never")

    def alive(self) -> bool:
        return True

    def pid(self) -> int:
        return os.getpid()

    def put(self) -> list[Any]:
        return [umbel.put("kept")]

    def task(self) -> list[Any]:
        return [alive.remote()]

    def held_task(self, box: Any) -> list[Any]:
        return [hold.remote(box)]

    def child(self, **options: Any) -> Any:
        self.made = Owner.options(**options).remote()
        umbel.get(self.made.alive.remote())
        return self.made

    def exit_actor(self) -> None:
        umbel.actor.exit_actor()

    def exit(self, code: Any) -> None:
        sys.exit(code)


@umbel.remote
def alive() -> bool:
    return True


@umbel.remote
def hold(box: Any) -> Any:
    return umbel.get(box[0].wait.remote())


def is_dead(actor: Any) -> bool:
    try:
        umbel.get(actor.alive.remote(), timeout=TIMEOUT_S)
    except exceptions.ActorDiedError:
        return True
    return False


def test_objects_end_with_their_owner(signal: Any, eventually: Any) -> None:
    owner = Owner.remote()
    refs = [ref for made in umbel.get([owner.put.remote(), owner.task.remote()]) for ref in made]
    refs += umbel.get(owner.held_task.remote([signal]))
    pid = umbel.get(owner.pid.remote())
    umbel.kill(owner)
    eventually(lambda: is_dead(owner) and (pid == os.getpid() or not psutil.pid_exists(pid)))
    for ref in refs:
        with pytest.raises(exceptions.OwnerDiedError):
            umbel.get(ref, timeout=TIMEOUT_S)
    with pytest.raises(exceptions.OwnerDiedError):  # nor can a task have it as its argument
        umbel.get(umbel.remote(lambda value: value).remote(refs[0]), timeout=TIMEOUT_S)


def test_actors_end_with_their_owner_unless_detached(eventually: Any) -> None:
    owner = Owner.remote()
    child = umbel.get(owner.child.remote())
    grandchild = umbel.get(child.child.remote())
    detached = umbel.get(owner.child.remote(name="detached-child", lifetime="detached"))
    umbel.kill(owner)
    eventually(lambda: is_dead(child))
    eventually(lambda: is_dead(grandchild))
    with pytest.raises(exceptions.ActorDiedError, match="its owner"):
        umbel.get(child.alive.remote(), timeout=TIMEOUT_S)
    assert umbel.get(detached.alive.remote(), timeout=TIMEOUT_S)
    umbel.kill(detached)


@pytest.mark.parametrize("how", ["exit_actor", "exit(0)", "exit(3)", "terminate", "no handle"])
def test_exit_handlers_of_an_actor_run_when_it_ends(how: str, marks: Any, eventually: Any) -> None:
    owner: Any = Owner.remote(marks)
    assert umbel.get(owner.alive.remote(), timeout=TIMEOUT_S)
    assert marks.all() == []
    if how == "no handle":
        owner = None
    else:
        ends = {
            "exit_actor": lambda: owner.exit_actor.remote(),
            "exit(0)": lambda: owner.exit.remote(0),
            "exit(3)": lambda: owner.exit.remote(3),
            "terminate": lambda: owner.__umbel_terminate__.remote(),
        }
        with pytest.raises(exceptions.ActorDiedError):
            umbel.get(ends[how](), timeout=TIMEOUT_S)
    eventually(lambda: len(marks.all()) == 2)
    assert marks.all() == ["second", "first"]


def test_exit_handlers_do_not_run_when_an_actor_is_killed(marks: Any, eventually: Any) -> None:
    owner = Owner.remote(marks)
    assert umbel.get(owner.alive.remote(), timeout=TIMEOUT_S)
    umbel.kill(owner)
    eventually(lambda: is_dead(owner))
    assert marks.all() == []


def test_a_failed_constructor_argument_is_not_called_the_constructors_error() -> None:
    @umbel.remote
    def fails() -> None:
        raise LookupError("argument")

    with pytest.raises(exceptions.ActorDiedError) as caught:
        umbel.get(Owner.remote(fails.remote()).alive.remote(), timeout=TIMEOUT_S)
    assert "its constructor raised" not in str(caught.value)


def test_what_runs_and_lives_is_not_available(eventually: Any) -> None:
    def cpus() -> float:
        return umbel.available_resources().get("CPU", 0.0)

    @umbel.remote(num_cpus=2)
    def in_a_task() -> float:
        return cpus()

    everything = umbel.cluster_resources()["CPU"]
    eventually(lambda: cpus() == everything)
    assert umbel.get(in_a_task.remote()) == everything - 2
    owner = Owner.options(num_cpus=1.5).remote()
    assert umbel.get(owner.alive.remote())
    eventually(lambda: cpus() == everything - 1.5)
    umbel.kill(owner)
    eventually(lambda: cpus() == everything)
