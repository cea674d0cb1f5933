"""All planted defects, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from umbel.testing.simulation.planted import (
    actors,
    agent,
    autoscaling,
    cluster,
    collective,
    control,
    dispatch,
    forwarding,
    graphs,
    groups,
    history,
    leadership,
    mailbox,
    members,
    nodes,
    ownership,
    pulls,
    remote_drivers,
    shortage,
    spilling,
)
from umbel.testing.simulation.planted.defect import Planted

_WORLDS: Final = (
    actors,
    agent,
    autoscaling,
    cluster,
    collective,
    control,
    dispatch,
    forwarding,
    graphs,
    groups,
    history,
    leadership,
    mailbox,
    members,
    nodes,
    ownership,
    pulls,
    remote_drivers,
    shortage,
    spilling,
)
PLANTS: Final[Mapping[str, Planted]] = {name: plant for world in _WORLDS for name, plant in world.PLANTS.items()}
