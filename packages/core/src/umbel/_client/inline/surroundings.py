"""The environment variables of whoever has the turn: `runtime_env={"env_vars": ...}` for threads of one process."""

from __future__ import annotations

import os

EnvVars = tuple[tuple[str, str], ...]


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
