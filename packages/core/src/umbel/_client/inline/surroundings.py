"""The environment variables of whoever has the turn: those of its `runtime_env`, and the one that shows its GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from umbel._model import resources as resource_model

EnvVars = tuple[tuple[str, str], ...]


def showing(env_vars: EnvVars, device_ids: Sequence[str]) -> EnvVars:
    """`env_vars` with the variable by which libraries see the assigned GPUs and no others, if any are assigned."""
    if not device_ids:
        return env_vars
    from umbel._plugins import registry

    manager = registry.accelerator_for(resource_model.GPU)
    variable = manager.visible_devices_variable if manager is not None else None
    if variable is None:
        return env_vars
    return tuple(sorted({**dict(env_vars), variable: ",".join(device_ids)}.items()))


class Surroundings:
    """Changes `os.environ` when the turn goes to a lane with variables of its own, and back."""

    def __init__(self) -> None:
        self._worn: EnvVars = ()
        self._before: dict[str, str | None] = {}

    def wear(self, env_vars: EnvVars) -> None:
        if env_vars == self._worn:
            return
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {name: os.environ.get(name) for name, _ in env_vars}
        os.environ.update(env_vars)
        self._worn = env_vars
