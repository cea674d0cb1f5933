"""Ray's environment variables, under our names."""

from __future__ import annotations

import os

from umbel.compat.ray import naming

WORKER_IMPORTS = "UMBEL_WORKER_IMPORTS"
INSTALLER = "umbel.compat.ray.install"


class _Copies:
    """Which variables were copied, as opposed to set by the user."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}


_copies = _Copies()


def translate() -> None:
    """Set `UMBEL_X` for each `RAY_X` or `RAY_x`. Call it again when the program may have set more."""
    found = naming.translated_environment(os.environ, _copies.made)
    os.environ.update(found)
    _copies.made.update(found)


def install_in_workers() -> None:
    """Have the workers that this process's session starts know Ray's names too."""
    modules = [name for name in os.environ.get(WORKER_IMPORTS, "").split(",") if name]
    if INSTALLER not in modules:
        os.environ[WORKER_IMPORTS] = ",".join([*modules, INSTALLER])
