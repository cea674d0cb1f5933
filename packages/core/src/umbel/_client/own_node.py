"""What a node on this machine has to offer: found out, or as its user says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from umbel._base import config as configuration
from umbel._base import machine
from umbel._model import resources as resource_model

STORE_SHARE = 0.3  # of the memory available, for objects; as in Ray
STORE_BYTES_MIN = 75 << 20  # below this, one array of a small model does not fit


def totals(
    num_cpus: Any,
    num_gpus: Any,
    custom: Any,
    store_bytes: int,
    config: configuration.Config,
    *,
    host: str = resource_model.NODE_ADDRESS,
    is_head: bool = True,
) -> tuple[dict[str, float], dict[str, list[str]], dict[str, str]]:
    """What the node has, by resource; the ids of its devices; the labels they give it. num_cpus, num_gpus, custom: as in
    `umbel.init`. host: at which others reach it. Raises TypeError and ValueError."""
    unit = resource_model.RESOURCE_UNIT
    totals: dict[str, float] = {}
    ids: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    cpus = machine.cpu_count() if num_cpus is None else num_cpus
    totals[resource_model.CPU] = (
        resource_model.units_of(cpus, what="num_cpus", advice="omit it for the CPUs of this machine") / unit
    )
    from umbel._plugins import registry

    for found in registry.accelerators_here():
        totals.update(found.resources())
        ids[found.resource_name] = list(found.ids)
        labels.update(found.labels)
    if num_gpus is not None:
        count = resource_model.gpu_units_of(num_gpus) / unit
        totals[resource_model.GPU] = count
        # Devices beyond those found are taken at their word: programs are tried out without the hardware.
        named = ids.get(resource_model.GPU, []) + [str(index) for index in range(int(count))]
        ids[resource_model.GPU] = list(dict.fromkeys(named))[: int(count)]
    if custom is not None:
        if not isinstance(custom, Mapping):
            raise TypeError(f"resources must be a dict of name to amount, got {custom!r}; for example {{'licence': 2}}")
        totals.update({name: units / unit for name, units in resource_model.custom_units(custom).items()})
    from umbel._base import control_groups  # only where a node starts

    memory_bytes = control_groups.available_bytes()
    if config.memory_limit_bytes:
        memory_bytes = min(memory_bytes, int(config.memory_limit_bytes * config.memory_usage_threshold))
    totals[resource_model.MEMORY] = float(memory_bytes)
    totals[resource_model.OBJECT_STORE_MEMORY] = float(store_bytes)
    totals[resource_model.NODE_PREFIX + host] = 1.0
    if is_head:
        totals[resource_model.HEAD_NODE] = 1.0
    return {name: amount for name, amount in totals.items() if amount or name == resource_model.CPU}, ids, labels


def store_bytes(wanted: Any) -> int:
    if wanted is None:
        from umbel._base import control_groups

        size = int(control_groups.available_bytes() * STORE_SHARE)
        if os.path.isdir("/dev/shm"):
            stat = os.statvfs("/dev/shm")
            size = min(size, stat.f_bavail * stat.f_frsize)
        return max(size, STORE_BYTES_MIN)
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)) or int(wanted) != wanted:
        raise TypeError(
            f"object_store_memory must be a whole number of bytes, got {wanted!r}; omit it for 30 % of memory"
        )
    if wanted < STORE_BYTES_MIN:
        raise ValueError(
            f"object_store_memory must be at least {STORE_BYTES_MIN} bytes, got {wanted}; omit it for 30 % of memory"
        )
    return int(wanted)


def labels_of(labels: Any) -> dict[str, str]:
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in labels.items()):
        raise TypeError(f"labels must be a dict of strings, got {labels!r}; for example {{'zone': 'a'}}")
    return dict(labels)


def in_words(totals: Mapping[str, float]) -> str:
    """What is worth telling of it."""
    return ", ".join(f"{amount:g} {name}" for name, amount in totals.items() if not _is_implied(name))


def _is_implied(resource: str) -> bool:
    """Whether every node has it."""
    return resource in (resource_model.MEMORY, resource_model.OBJECT_STORE_MEMORY) or resource.startswith(
        resource_model.NODE_PREFIX
    )
