"""Where the ranks of a group meet: an actor that is found by the group's name.

A rank's process is told there whether it is the host, and where the host's door is otherwise. The actor ends with the
host's handle to it, once the group has come together, or with the driver that has declared the group.
"""

from __future__ import annotations

import time
from typing import Any

import umbel
from umbel import exceptions
from umbel.util.collective import assembly, meeting, peers, rounds

NAME = "umbel.util.collective:"  # and the group's name, in the namespace of the calling code

PLACE_PATIENCE_S = 30.0  # for the actor to start, which is no wait for another rank


class Place(meeting.Meeting):
    """The actor. Its methods are plain ones, so that they run one at a time."""

    def declared(self) -> meeting.Declaration | None:
        return self.declaration


def meet(*, group_name: str, rank: int, world_size: int, backend: str, timeout_s: float) -> dict[int, Any]:
    """Sockets to all other ranks. Raises CollectiveError; RuntimeError when the ranks do not fit together."""
    patience_s = max(timeout_s, PLACE_PATIENCE_S)
    due_s = time.monotonic() + patience_s
    door = assembly.open_door()
    with door:
        while True:
            left_s = due_s - time.monotonic()
            if left_s <= 0:
                problem = rounds.Problem(
                    rounds.Fault.TIMEOUT, rank, f"rank {rank} found nobody within {patience_s:g} s"
                )
                raise peers.error_of(problem, group_name)
            actor = open_place(group_name)
            try:
                answer = umbel.get(actor.arrive.remote(rank, world_size, backend, door.getsockname()), timeout=left_s)
                return _follow(answer, actor, door, group_name, rank, world_size, timeout_s)
            except (exceptions.ActorDiedError, exceptions.ActorUnavailableError, exceptions.GetTimeoutError):
                continue  # the place of an earlier group of this name, which was about to end
            except ConnectionRefusedError:
                # The host has given up or died; whoever comes now begins anew.
                if isinstance(answer, meeting.Join):
                    actor.abandon.remote(answer.door)


def _follow(
    answer: meeting.Answer, actor: Any, door: Any, group_name: str, rank: int, world_size: int, timeout_s: float
) -> dict[int, Any]:
    if isinstance(answer, meeting.Refuse):
        raise RuntimeError(f"collective group {group_name!r}: {answer.text}")
    if isinstance(answer, meeting.Join):
        return assembly.join(answer.door, group_name=group_name, rank=rank, world_size=world_size, timeout_s=timeout_s)
    host = assembly.Host(door, group_name=group_name, rank=rank, world_size=world_size, timeout_s=timeout_s)
    try:
        return host.gather()
    except BaseException:
        actor.abandon.remote(door.getsockname())
        raise


def open_place(group_name: str) -> Any:
    """The actor, made if there is none."""
    return umbel.remote(num_cpus=0)(Place).options(name=NAME + group_name, get_if_exists=True).remote()


def find_place(group_name: str) -> Any:
    """The actor, or None."""
    try:
        return umbel.get_actor(NAME + group_name)
    except ValueError:
        return None


def declaration_of(group_name: str) -> meeting.Declaration | None:
    """What a driver has declared of the group; None when it has not."""
    actor = find_place(group_name)
    if actor is None:
        return None
    try:
        found: meeting.Declaration | None = umbel.get(actor.declared.remote())
    except exceptions.ActorDiedError:
        return None
    return found
