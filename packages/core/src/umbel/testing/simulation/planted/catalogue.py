"""All planted defects, by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

from umbel.testing.simulation import runner
from umbel.testing.simulation.planted.defect import Planted


def _of(machine: str) -> Mapping[str, Planted]:
    """Those that its world finds: in the module with its name."""
    found: Mapping[str, Planted] = importlib.import_module(f"umbel.testing.simulation.planted.{machine}").PLANTS
    return found


PLANTS: Final[Mapping[str, Planted]] = {
    name: plant for machine in sorted(runner.machines()) for name, plant in _of(machine).items()
}
