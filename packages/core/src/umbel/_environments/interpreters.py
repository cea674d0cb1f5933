"""The field `py_executable`: a command that runs Python, in the place of the driver's own."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any

from umbel._model import runtime_envs


class PyExecutable:
    """Workers run in another Python, of the same version and with Umbel installed, such as `uv run --with six`."""

    priority = 10
    conflicts: Collection[str] = ("pip", "uv", "conda", "container", "image_uri")

    def validate(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise runtime_envs.wrong("py_executable", "a command as str", value, "for example '/opt/env/bin/python'")
        try:
            shlex.split(value)
        except ValueError as error:
            raise runtime_envs.wrong("py_executable", "a command as for a shell", value, str(error)) from error
        return value

    def pack(self, value: str, _packing: runtime_envs.RuntimeEnvPacking) -> str:
        return value

    def build(self, value: str, build: runtime_envs.RuntimeEnvBuild) -> None:
        build.workers.interpreter = shlex.split(value)
        build.workers.has_own_packages = True
