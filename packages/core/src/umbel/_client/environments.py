"""The option `runtime_env`: checked where it is written, packed where it is first used, merged with what is inherited.

Imported only where an environment has more than variables.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._environments import building, packing
from umbel._model import runtime_envs


def validated(env: Mapping[str, Any]) -> dict[str, Any]:
    """All fields in the form that is kept, which is JSON. Raises InvalidOption, UnsupportedFeature."""
    known = building.fields()
    for field in env:
        if field not in known:
            building.plugin(field)  # raises
    given = {field: value for field, value in env.items() if value is not None}
    for field in given.keys() - set(runtime_envs.OWN_FIELDS):
        clashes = sorted(given.keys() & set(conflicts(field)))
        if clashes:
            raise exceptions.InvalidOption(
                f"runtime_env cannot have both {field!r} and {clashes[0]!r}, got {sorted(given)}; leave one out",
                option="runtime_env",
            )
    return {field: _validated(field, value) for field, value in given.items()}


def _validated(field: str, value: Any) -> Any:
    if field == runtime_envs.ENV_VARS:
        return value  # checked with the other options
    if field in runtime_envs.OWN_FIELDS:
        return runtime_envs.check_own(field, value)
    try:
        checked = building.plugin(field).validate(value)
        json.dumps(checked)
    except exceptions.UmbelError:
        raise
    except (TypeError, ValueError) as error:
        raise exceptions.InvalidOption(
            f"runtime_env[{field!r}] is not allowed: {error}, got {value!r:.300}; see the documentation of the plugin",
            option="runtime_env",
        ) from error
    return checked


def conflicts(field: str) -> Collection[str]:
    found: Collection[str] = building.plugin(field).conflicts
    return found


class _Packing:
    """A `RuntimeEnvPacking`, for one field."""

    def __init__(
        self, field: str, env_vars: Mapping[str, str], excludes: Sequence[str], packages: packing.Packages
    ) -> None:
        self.env_vars = env_vars
        self.excludes = excludes
        self._what = f"runtime_env[{field!r}]"
        self._packages = packages

    def add_directory(self, path: str, *, into: str = "") -> str:
        return self._packages.add_directory(f"{self._what}={path!r}", path, self.excludes, into=into)

    def add_file(self, path: str) -> str:
        return self._packages.add_file(f"{self._what}={path!r}", path)

    def add_archive(self, path: str) -> str:
        return self._packages.add_archive(f"{self._what}={path!r}", path)


def packed(
    env_vars: Mapping[str, str], fields: Mapping[str, Any], inherited: Mapping[str, Any], session_dir: str
) -> dict[str, Any]:
    """What travels for an environment with these variables and fields, asked for where `inherited` holds.

    fields: validated. Local files are read now. Raises InvalidOption, OSError.
    """
    settings = configuration.Config.from_environment()
    packages = packing.Packages(packing.directory_of(session_dir), bytes_max=settings.runtime_env_package_bytes_max)
    all_vars = {**inherited.get("env_vars", {}), **env_vars}
    excludes = fields.get(runtime_envs.EXCLUDES) or ()
    built = {
        field: building.plugin(field).pack(value, _Packing(field, all_vars, excludes, packages))
        for field, value in fields.items()
        if field not in runtime_envs.OWN_FIELDS
    }
    child = {
        "env_vars": dict(env_vars),
        "built": built,
        "hook": fields.get(runtime_envs.HOOK),
        "config": fields.get(runtime_envs.CONFIG),
    }
    return runtime_envs.merged(inherited, {name: value for name, value in child.items() if value}, conflicts)


def refuse_inline(fields: str) -> None:
    """Raises UnsupportedFeature for fields that need processes of their own. fields: as JSON."""
    needed = sorted(set(json.loads(fields or "{}")) - {runtime_envs.EXCLUDES, runtime_envs.CONFIG})
    if needed:
        raise exceptions.UnsupportedFeature(
            f"runtime_env[{needed[0]!r}] is not supported by the inline engine, which runs everything in this process; "
            "leave it out, or use the native engine"
        )
