"""Which ways there are for tensors to go from one actor to another, by name."""

from __future__ import annotations

import functools
from typing import cast

from umbel import exceptions, spi

BUILT_IN = "shm"
_RAYS = frozenset(("cuda_ipc", "nccl", "nixl"))  # which programs written for it may ask for


def check(name: str, option: str) -> None:
    """Raises InvalidOption, a ValueError, for a name that nobody provides; UnsupportedFeature when Ray has it."""
    if name == BUILT_IN:
        return
    from umbel._plugins import registry

    known = registry.installed().tensor_transports
    if name in known.names():
        known.find(name)
        return
    allowed = " or ".join(repr(one) for one in known.names())
    if name in _RAYS:
        raise exceptions.UnsupportedFeature(
            f"{option}={name!r} is not in this version of Umbel, which has {allowed}; use that, or install a plugin that "
            "provides it"
        )
    raise exceptions.InvalidOption(
        f"Invalid tensor transport: {option} must be {allowed}, got {name!r}; plugins provide others", option=option
    )


@functools.cache
def named(name: str) -> spi.TensorTransport:
    """This process's own. Raises PluginError, PluginConflict."""
    if name == BUILT_IN:  # looking for plugins takes longer than most calls
        from umbel._client.tensors import shared_memory

        return shared_memory.SharedMemoryTransport()
    from umbel._plugins import registry

    return cast(spi.TensorTransport, registry.installed().tensor_transports.create(name))
