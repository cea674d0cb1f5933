"""Groups of actors that somebody else makes and ends, as `ray.experimental.collective` has them.

They are groups of `umbel.util.collective`: the actors use them by name with the operations there. Tensors that travel from actor
to actor (`tensor_transport`) need none.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import umbel
from umbel import exceptions
from umbel.util import collective
from umbel.util.collective import groups


class CommunicatorHandle:
    """A group, for whoever has made it. The rank of an actor is its place in `actors`."""

    def __init__(self, actors: Sequence[Any], name: str, backend: str) -> None:
        self._actors = list(actors)
        self._name = name
        self._backend = collective.Backend(backend)

    @property
    def actors(self) -> list[Any]:
        return list(self._actors)

    @property
    def name(self) -> str:
        return self._name

    @property
    def backend(self) -> str:
        return self._backend

    def get_rank(self, actor: Any) -> int:
        """-1 for an actor that is not in it."""
        return next((rank for rank, one in enumerate(_ids(self._actors)) if one == actor._umbel_actor_id), -1)


def create_collective_group(actors: Sequence[Any], backend: str, name: str | None = None) -> CommunicatorHandle:
    """Make each of the actors a rank, in this order; returns once all are.

    backend: "shm", "gloo", or a plugin's. name: of the group; a random one by default. Unlike in Ray an actor may be in any
    number of groups. Raises what `umbel.util.collective.init_collective_group` does in an actor.
    """
    name = uuid.uuid4().hex if name is None else name
    group = CommunicatorHandle(actors, name, backend)
    strangers = [actor for actor in actors if not isinstance(actor, umbel.ActorHandle)]
    if strangers or not actors:
        raise TypeError(f"actors must be a list of handles to actors, got {strangers[0] if strangers else actors!r}")
    if len(set(_ids(actors))) != len(actors):
        raise ValueError(f"each actor may be in the list once, got {list(actors)}")
    made = groups.membership().made
    if name in made:
        raise ValueError(f"there is a group {name!r} already; destroy it first, or choose another name")
    umbel.get(
        [actor.__umbel_call__.remote(_join, len(actors), rank, backend, name) for rank, actor in enumerate(actors)]
    )
    made[name] = group
    return group


def get_collective_groups(actors: Sequence[Any], backend: str | None = None) -> list[CommunicatorHandle]:
    """The groups that the calling driver, actor or task has made and in which all these actors are."""
    wanted = set(_ids(actors))
    return [
        group
        for group in groups.membership().made.values()
        if wanted <= set(_ids(group.actors)) and (backend is None or group.backend == collective.Backend(backend))
    ]


def destroy_collective_group(group_or_name: CommunicatorHandle | str) -> None:
    """Have its actors leave a group that the caller has made; returns once those that live have done so."""
    name = group_or_name.name if isinstance(group_or_name, CommunicatorHandle) else group_or_name
    if not isinstance(name, str):
        raise TypeError(f"a group is given by its handle or its name, got {group_or_name!r}")
    group = groups.membership().made.pop(name, None)
    if group is None:
        raise ValueError(f"no group {name!r} was made here; those that were are {sorted(groups.membership().made)}")
    for left in [actor.__umbel_call__.remote(_leave, name) for actor in group.actors]:
        try:
            umbel.get(left)
        except exceptions.ActorDiedError:
            pass  # it has left with its process


def destroy_all_collective_groups() -> None:
    """All that the calling driver, actor or task has made."""
    for name in list(groups.membership().made):
        destroy_collective_group(name)


def _join(_actor: Any, world_size: int, rank: int, backend: str, name: str) -> None:
    collective.init_collective_group(world_size, rank, backend, name)


def _leave(_actor: Any, name: str) -> None:
    collective.destroy_collective_group(name)


def _ids(actors: Sequence[Any]) -> list[Any]:
    return [actor._umbel_actor_id for actor in actors]


__all__ = [
    "CommunicatorHandle",
    "create_collective_group",
    "destroy_all_collective_groups",
    "destroy_collective_group",
    "get_collective_groups",
]
