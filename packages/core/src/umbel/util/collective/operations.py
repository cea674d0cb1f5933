"""The functions of `umbel.util.collective`: their arguments, and the group that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

import umbel
from umbel import exceptions
from umbel._plugins import registry
from umbel.util.collective import gloo, groups, meeting, place, types

TIMEOUT_MS: Final = 30_000  # as in Ray; longer than the start of a worker and the imports of its program
_OPS: Final = {op: op.name.lower() for op in types.ReduceOp}


def init_collective_group(
    world_size: int,
    rank: int,
    backend: str = types.Backend.SHM,
    group_name: str = "default",
    gloo_timeout: int = TIMEOUT_MS,
) -> None:
    """Make the calling actor, task or driver one rank of a group; returns once all ranks have called it.

    rank: from 0 to `world_size` - 1. backend: "shm" (shared memory; over several machines the connections for calls),
    "gloo", or a plugin's. gloo_timeout: milliseconds for which a rank waits for another, here and in every operation, with
    any backend.
    Raises CollectiveTimeoutError when a rank does not come, CollectiveRankDiedError when one dies, RuntimeError when the
    ranks do not fit together.
    """
    _check_group_name(group_name)
    timeout_s = _seconds(gloo_timeout)
    _check_whole("world_size", world_size)
    _check_whole("rank", rank)
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, got {world_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to {world_size - 1}, one less than world_size, got {rank}")
    _enter(group_name, rank, world_size, _backend_name(backend), timeout_s)


def create_collective_group(
    actors: Sequence[Any],
    world_size: int,
    ranks: Sequence[int],
    backend: str = types.Backend.SHM,
    group_name: str = "default",
    gloo_timeout: int = TIMEOUT_MS,
) -> None:
    """Declare that these actors are a group: each joins when it first uses the group.

    ranks: one for each actor, every number from 0 to `world_size` - 1 once. The rest is as in `init_collective_group`.
    """
    _check_group_name(group_name)
    timeout_s = _seconds(gloo_timeout)
    _check_whole("world_size", world_size)
    if len(actors) != len(ranks):
        raise RuntimeError(f"each actor has one rank, got {len(actors)} actors and {len(ranks)} ranks")
    if world_size != len(ranks) or sorted(ranks) != list(range(world_size)):
        raise RuntimeError(
            f"ranks must be the numbers from 0 to world_size - 1, each once, got {list(ranks)} for world_size {world_size}"
        )
    strangers = [actor for actor in actors if not isinstance(actor, umbel.actor.ActorHandle)]
    if strangers:
        raise TypeError(f"actors must be handles to actors, got {strangers[0]!r}")
    name = _backend_name(backend)
    registry.installed().collectives.factory(name)
    by_id = {actor._umbel_actor_id.hex(): rank for actor, rank in zip(actors, ranks, strict=True)}
    if len(by_id) != len(actors):
        raise RuntimeError("an actor can have one rank only, and one is in the list twice")
    membership = groups.membership()
    found, refused = place.declare(group_name, meeting.Declaration(world_size, name, timeout_s, by_id))
    if refused:
        raise RuntimeError(f"collective group {group_name!r}: {refused}")
    with membership.lock:
        membership.declared[group_name] = found


def destroy_collective_group(group_name: str = "default") -> None:
    """Leave the group, or withdraw its declaration. The other ranks' next operation is an error, until they leave it too."""
    _check_group_name(group_name)
    membership = groups.membership()
    with membership.lock:
        group = membership.groups.pop(group_name, None)
        membership.declared.pop(group_name, None)
    if group is not None:
        group.leave()
    found = place.find_place(group_name)
    if found is not None and (group is None or place.declaration_of(group_name) is not None):
        umbel.kill(found)


def is_group_initialized(group_name: str = "default") -> bool:
    """Whether the calling actor, task or driver is a rank of it."""
    return group_name in groups.membership().groups


def get_rank(group_name: str = "default") -> int:
    """The caller's rank; -1 when it is not in the group."""
    group = groups.membership().groups.get(group_name)
    return -1 if group is None else group.rank


def get_collective_group_size(group_name: str = "default") -> int:
    """How many ranks the group has; -1 when the caller is not in it."""
    group = groups.membership().groups.get(group_name)
    return -1 if group is None else group.world_size


def get_group_handle(group_name: str = "default") -> groups.Group:
    """The caller's part of the group. Joins it when a driver has declared it. Raises RuntimeError when there is none."""
    membership = groups.membership()
    group = membership.groups.get(group_name)
    if group is not None:
        return group
    declaration = place.declaration_of(group_name)
    rank = None if declaration is None else declaration.ranks.get(groups.actor_id() or "")
    if declaration is None or rank is None:
        raise RuntimeError(
            f"the collective group {group_name!r} is not initialized in this process; call init_collective_group here, "
            "or create_collective_group with this actor among its actors"
        )
    return _enter(group_name, rank, declaration.world_size, declaration.backend, declaration.timeout_s)


def allreduce(tensor: Any, group_name: str = "default", op: types.ReduceOp = types.ReduceOp.SUM) -> None:
    """Every rank's tensor becomes the reduction of all."""
    name = _op_name(op)
    get_group_handle(group_name).run(lambda group: group.allreduce(tensor, name))


def reduce(
    tensor: Any, dst_rank: int = 0, group_name: str = "default", op: types.ReduceOp = types.ReduceOp.SUM
) -> None:
    """The tensor of `dst_rank` becomes the reduction of all; the others stay as they are."""
    name, found = _op_name(op), get_group_handle(group_name)
    _check_rank(found, dst_rank)
    found.run(lambda group: group.reduce(tensor, dst_rank, name))


def broadcast(tensor: Any, src_rank: int = 0, group_name: str = "default") -> None:
    """Every rank's tensor becomes that of `src_rank`."""
    found = get_group_handle(group_name)
    _check_rank(found, src_rank)
    found.run(lambda group: group.broadcast(tensor, src_rank))


def allgather(tensor_list: list[Any], tensor: Any, group_name: str = "default") -> None:
    """`tensor_list[r]` becomes the tensor of rank `r`, on every rank."""
    found = get_group_handle(group_name)
    _check_list(found, tensor_list)
    found.run(lambda group: group.allgather(tensor_list, tensor))


def reducescatter(
    tensor: Any, tensor_list: list[Any], group_name: str = "default", op: types.ReduceOp = types.ReduceOp.SUM
) -> None:
    """The tensor of rank `r` becomes the reduction of `tensor_list[r]` of all ranks."""
    name, found = _op_name(op), get_group_handle(group_name)
    _check_list(found, tensor_list)
    found.run(lambda group: group.reducescatter(tensor, tensor_list, name))


def send(tensor: Any, dst_rank: int, group_name: str = "default") -> None:
    """Returns once rank `dst_rank` has received it."""
    found = get_group_handle(group_name)
    _check_other(found, dst_rank, "dst_rank")
    found.run(lambda group: group.send(tensor, dst_rank))


def recv(tensor: Any, src_rank: int, group_name: str = "default") -> None:
    """The tensor becomes what rank `src_rank` sends, which must be of the same shape and type."""
    found = get_group_handle(group_name)
    _check_other(found, src_rank, "src_rank")
    found.run(lambda group: group.recv(tensor, src_rank))


def barrier(group_name: str = "default") -> None:
    """Returns once every rank has called it."""
    get_group_handle(group_name).run(lambda group: group.barrier())


def is_backend_available(backend: str) -> bool:
    """Whether a group can be made by it. False for a name that nothing provides."""
    name = _backend_name(backend)
    if name == "gloo":
        return gloo.is_available()
    try:
        registry.installed().collectives.factory(name)
    except exceptions.PluginError:
        return False
    return True


def gloo_available() -> bool:
    return is_backend_available("gloo")


def nccl_available() -> bool:
    return is_backend_available("nccl")


def register_collective_backend(name: str, group_cls: type) -> NoReturn:
    """Not in this version of Umbel: a backend is a plugin, which every process finds by itself."""
    raise exceptions.UnsupportedFeature(
        f"register_collective_backend({name!r}, {group_cls!r}) is not in this version of Umbel: offer the backend through "
        "the hook umbel_collectives, which every process finds by itself (docs/plugins/collectives.md)"
    )


def _enter(group_name: str, rank: int, world_size: int, backend: str, timeout_s: float) -> groups.Group:
    membership = groups.membership()
    with membership.lock:
        if group_name in membership.groups:
            raise RuntimeError(
                f"the collective group {group_name!r} is initialized here already, as rank "
                f"{membership.groups[group_name].rank}; destroy it first, or choose another name"
            )
        group = membership.groups[group_name] = groups.enter(
            group_name=group_name, rank=rank, world_size=world_size, backend=backend, timeout_s=timeout_s
        )
    return group


def _backend_name(backend: str) -> str:
    return types.Backend(backend).lower()


def _op_name(op: types.ReduceOp) -> str:
    if not isinstance(op, types.ReduceOp):
        raise TypeError(f"op must be a ReduceOp, such as ReduceOp.SUM, got {op!r}")
    return _OPS[op]


def _seconds(timeout_ms: float) -> float:
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)):
        raise TypeError(f"gloo_timeout must be a number of milliseconds, got {timeout_ms!r}")
    if not timeout_ms > 0:
        raise ValueError(f"gloo_timeout must be more than 0 milliseconds, got {timeout_ms!r}")
    return timeout_ms / 1000


def _check_group_name(group_name: str) -> None:
    if not isinstance(group_name, str) or not group_name:
        raise ValueError(f"group_name must be a string that is not empty, got {group_name!r}")


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")


def _check_rank(group: groups.Group, rank: int) -> None:
    _check_whole("a rank", rank)
    if not 0 <= rank < group.world_size:
        raise ValueError(f"a rank of the group {group.name!r} is from 0 to {group.world_size - 1}, got {rank}")


def _check_other(group: groups.Group, rank: int, name: str) -> None:
    _check_rank(group, rank)
    if rank == group.rank:
        raise RuntimeError(f"{name} must be another rank, got {rank}, which is the caller's own")


def _check_list(group: groups.Group, tensors: list[Any]) -> None:
    if not isinstance(tensors, list):
        raise TypeError(f"tensor_list must be a list of tensors, got {type(tensors).__name__}")
    if len(tensors) != group.world_size:
        raise RuntimeError(
            f"tensor_list must have one tensor for each rank, {group.world_size} in all, got {len(tensors)}"
        )
