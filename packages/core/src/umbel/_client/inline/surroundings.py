"""The environment variables of whoever has the turn: those of its `runtime_env`, and the one that shows its GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from umbel._base import variables
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
        self._before: variables.Replaced = {}

    def wear(self, env_vars: EnvVars) -> None:
        if env_vars == self._worn:
            return
        variables.put_back(self._before)
        self._before = variables.put(env_vars)
        self._worn = env_vars
