"""What devices a node offers, as its accelerator managers find them and its environment allows."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from umbel import spi
from umbel._plugins import providers

_log = logging.getLogger("umbel.plugins")

_TYPE_RESOURCE = "accelerator_type:"  # a node with such devices has one, of which accelerator_type=... takes a bit


class NodeAccelerator(NamedTuple):
    """This node's devices of one resource. ids: as the visible-devices variable names them. type: None if unknown."""

    name: str
    resource_name: str
    ids: tuple[str, ...]
    type: str | None
    labels: Mapping[str, str]
    extra_resources: Mapping[str, float]
    manager: spi.AcceleratorManager

    def resources(self) -> dict[str, float]:
        """Everything that it adds to the node's resources."""
        typed = {f"{_TYPE_RESOURCE}{self.type}": 1.0} if self.type else {}
        return {**self.extra_resources, **typed, self.resource_name: float(len(self.ids))}


def take_stock(managers: Iterable[tuple[str, spi.AcceleratorManager]]) -> tuple[NodeAccelerator, ...]:
    """One entry for each resource that has devices here, sorted by resource.

    A manager that raises counts as having found nothing, with a warning in the log. Of several that find devices of one
    resource, the one with most is used.
    """
    best: dict[str, NodeAccelerator] = {}
    for name, manager in managers:
        found = _look(name, manager)
        if found is None:
            continue
        other = best.get(found.resource_name)
        if other is not None:
            kept, left = (found, other) if len(found.ids) > len(other.ids) else (other, found)
            _log.warning(
                "%s and %s both found %s devices; the %d of %s are used, not the %d of %s; block one by UMBEL_PLUGINS",
                kept.name, left.name, kept.resource_name, len(kept.ids), kept.name, len(left.ids), left.name,
            )  # fmt: skip
            found = kept
        best[found.resource_name] = found
    return tuple(best[resource] for resource in sorted(best))


def usable_ids(manager: spi.AcceleratorManager) -> tuple[str, ...]:
    """The devices that are there and that the environment allows; a duplicate counts once.

    Ids that are no indices (UUIDs, parts of a device) are taken as they are; an index that no device has ends the list,
    as it does for CUDA.
    """
    count = manager.detect_count()
    if count <= 0:
        return ()
    visible = manager.get_visible_ids()
    if visible is None:
        return tuple(str(index) for index in range(count))
    there = itertools.takewhile(lambda one: not one.isdecimal() or int(one) < count, visible)
    return tuple(dict.fromkeys(there))


def _look(name: str, manager: spi.AcceleratorManager) -> NodeAccelerator | None:
    try:
        ids = usable_ids(manager)
        if not ids:
            return None
        return NodeAccelerator(
            name=name,
            resource_name=manager.resource_name,
            ids=ids,
            type=manager.detect_type(),
            labels=manager.labels(),
            extra_resources=manager.extra_resources(),
            manager=manager,
        )
    except Exception as error:
        _log.warning("accelerator %r is left out: looking for devices raised %s", name, providers.describe(error))
        return None
