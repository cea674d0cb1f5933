"""What may be launched: types of nodes, and the limits of the cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from umbel import exceptions
from umbel._model import resources

UPSCALING_SPEED: Final = 1.0  # Ray's in its examples: as many on their way as there are
IDLE_TIMEOUT_S: Final = 300.0  # Ray's
BOOT_TIMEOUT_S: Final = 900.0  # Ray's; large images on slow clouds


class NodeType(NamedTuple):
    """One kind of machine. resources, labels: what a node of it will have. idle_timeout_s: None for the cluster's."""

    name: str
    resources: resources.ResourceSet
    max_workers: int
    min_workers: int = 0
    labels: Mapping[str, str] = MappingProxyType({})
    idle_timeout_s: float | None = None


class Settings(NamedTuple):
    """node_types: of equal ones the first is taken. max_workers: of all types together, without nodes that were not launched
    by the autoscaler. upscaling_speed: how many may be on their way, as a share of those that are there. boot_timeout_s: from
    a launch until the node has joined."""

    node_types: tuple[NodeType, ...]
    max_workers: int
    upscaling_speed: float = UPSCALING_SPEED
    idle_timeout_s: float = IDLE_TIMEOUT_S
    boot_timeout_s: float = BOOT_TIMEOUT_S

    def idle_timeout_of(self, name: str) -> float:
        for one in self.node_types:
            if one.name == name and one.idle_timeout_s is not None:
                return one.idle_timeout_s
        return self.idle_timeout_s


def checked(settings: Settings) -> Settings:
    """The same, as a user has written it. Raises InvalidOption."""
    _count("max_workers", settings.max_workers)
    _number("upscaling_speed", settings.upscaling_speed)
    _number("idle_timeout_s", settings.idle_timeout_s)
    _number("boot_timeout_s", settings.boot_timeout_s)
    names = [one.name for one in settings.node_types]
    for one in settings.node_types:
        if not one.name or names.count(one.name) > 1:
            raise exceptions.InvalidOption(
                f"node types must have names of their own, got {names}; name each once", option="node_types"
            )
        where = f"node_types[{one.name!r}]"
        if one.resources.is_empty:
            raise exceptions.InvalidOption(
                f"{where}.resources must name something, got {{}}; nothing could run on such nodes", option="node_types"
            )
        _count(f"{where}.min_workers", one.min_workers)
        _count(f"{where}.max_workers", one.max_workers)
        if one.idle_timeout_s is not None:
            _number(f"{where}.idle_timeout_s", one.idle_timeout_s)
        if one.min_workers > one.max_workers:
            raise exceptions.InvalidOption(
                f"{where}.min_workers must be at most its max_workers of {one.max_workers}, got {one.min_workers}; "
                "lower the one or raise the other",
                option="node_types",
            )
    least = sum(one.min_workers for one in settings.node_types)
    if least > settings.max_workers:
        raise exceptions.InvalidOption(
            f"max_workers must be at least the sum of all min_workers, {least}, got {settings.max_workers}; raise it or lower "
            "a min_workers",
            option="max_workers",
        )
    return settings


def _count(what: str, value: int) -> None:
    if type(value) is not int or value < 0:
        raise exceptions.InvalidOption(
            f"{what} must be a whole number >= 0, got {value!r}; correct it", option=what.rpartition(".")[2]
        )


def _number(what: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise exceptions.InvalidOption(
            f"{what} must be a number >= 0, got {value!r}; correct it", option=what.rpartition(".")[2]
        )
