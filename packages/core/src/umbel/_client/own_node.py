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
    memory: Any = None,
) -> tuple[dict[str, float], dict[str, list[str]], dict[str, str]]:
    """What the node has, by resource; the ids of its devices; the labels they give it. num_cpus, num_gpus, custom: as in
    `umbel.init`. host: at which others reach it. memory: bytes for what asks for memory=, None for what is available. Raises
    TypeError and ValueError."""
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
    totals[resource_model.MEMORY] = float(memory_bytes if memory is None else _checked_memory(memory))
    totals[resource_model.OBJECT_STORE_MEMORY] = float(store_bytes)
    totals[resource_model.NODE_PREFIX + host] = 1.0
    if is_head:
        totals[resource_model.HEAD_NODE] = 1.0
    return {name: amount for name, amount in totals.items() if amount or name == resource_model.CPU}, ids, labels


def _checked_memory(wanted: Any) -> int:
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)) or int(wanted) != wanted:
        raise TypeError(f"memory must be a whole number of bytes, got {wanted!r}; omit it for what is available")
    if wanted <= 0:
        raise ValueError(f"memory must be a number of bytes > 0, got {wanted}; omit it for what is available")
    return int(wanted)


def with_metrics_port(config: configuration.Config, port: Any, *, option: str) -> configuration.Config:
    """Metrics are served there. option: what the port was given as. Raises TypeError, ValueError."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{option} must be a port number, got {port!r}; omit it to serve no metrics")
    if not 0 <= port <= 65_535:
        raise ValueError(f"{option} must be from 0 to 65535, got {port!r}; omit it to serve no metrics")
    return config.replace(metrics_export_port=port)


def check_can_serve_metrics() -> None:
    """Raises ImportError."""
    from importlib import util

    if util.find_spec("prometheus_client") is None:
        raise ImportError(
            "serving metrics needs the package prometheus-client, which is not installed; run: pip install "
            '"umbel[metrics]", or leave _metrics_export_port and UMBEL_METRICS_EXPORT_PORT out',
            name="prometheus_client",
        )


def with_spilling(
    config: configuration.Config, directory: Any, system_config: Any, ignored: list[str]
) -> configuration.Config:
    """The settings with what was told of spilling; a directory that was named can be written to. What means nothing here goes
    to `ignored`."""
    if system_config is not None or directory is not None:
        from umbel._client import spill_options

        config = spill_options.read(config, directory, system_config, ignored)
    if config.object_spilling and config.object_spilling_directory:
        from umbel._objects import spill_files

        config = config.replace(object_spilling_directory=spill_files.local_path(config.object_spilling_directory))
        spill_files.check(config.object_spilling_directory)
    return config


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
