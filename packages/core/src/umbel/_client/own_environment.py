"""The environment in which this process runs, and what is asked for beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ENVIRONMENTS_MAX = 256  # remembered by what was asked for; a program that has more packs them again


class OwnEnvironment:
    """fields: of the environment of this process, as they travel; its children inherit them."""

    def __init__(self, session_dir: str) -> None:
        self.fields: dict[str, Any] = {}
        self._session_dir = session_dir
        self._inherited: dict[tuple[Any, str], dict[str, Any]] = {}  # by what was asked for

    def inherited(self, env_vars: tuple[tuple[str, str], ...], fields: str = "") -> dict[str, Any]:
        """What the workers of a task or actor are started with that asks for these variables and, as JSON, other fields:
        ours as well. Local files are read at the first call, and the same ones used for the rest of the session."""
        if not fields:
            both = {**self.fields.get("env_vars", {}), **dict(env_vars)}
            return {**self.fields, "env_vars": both} if both else self.fields
        found = self._inherited.get((env_vars, fields))
        if found is None:
            found = self._packed(dict(env_vars), json.loads(fields))
            if len(self._inherited) >= ENVIRONMENTS_MAX:
                self._inherited.clear()
            self._inherited[env_vars, fields] = found
        return found

    def _packed(self, env_vars: Mapping[str, str], fields: Mapping[str, Any]) -> dict[str, Any]:
        from umbel._client import environments

        return environments.packed(env_vars, fields, self.fields, self._session_dir)
