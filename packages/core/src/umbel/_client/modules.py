"""Submodules on first use, and what to install for those that are separate distributions."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

# Submodules of core that `import umbel` does not load, because most programs never use them.
LAZY = frozenset(("actor", "cloudpickle", "dag", "experimental", "runtime_context", "runtime_env", "util"))
LAZY_UTIL = frozenset(
    (
        "collective",
        "joblib",
        "memory",
        "metrics",
        "multiprocessing",
        "queue",
        "scheduling_strategies",
        "state",
    )
)
LAZY_NAMES = {"LoggingConfig": "umbel._client.logging_config"}
PLANNED = {
    "umbel.util.tpu": "slices of TPUs come with the TPU plugin; ask for TPUs by resources={'TPU': n} meanwhile",
}
LIBRARIES = frozenset(("dashboard", "data", "kube", "rl", "serve", "train", "tune"))


class PlannedModule(ModuleNotFoundError):
    """A module of Ray's that Umbel does not have yet. Has no `name`: by that, `from umbel.util import it` would take
    the error for its own and say less."""


class MissingLibraryFinder:
    """The last finder asked: an `umbel` library nobody found is one that is not installed."""

    @classmethod
    def find_spec(
        cls, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package == "umbel" and name in LIBRARIES:
            raise ModuleNotFoundError(f'umbel.{name} is not installed; run: pip install "umbel[{name}]"', name=fullname)
        if fullname in PLANNED:
            raise PlannedModule(f"{fullname} is not in this version of Umbel: {PLANNED[fullname]}")
        return None


def install_finder() -> None:
    if MissingLibraryFinder not in sys.meta_path:
        sys.meta_path.append(MissingLibraryFinder)


def attribute(name: str) -> Any:
    """What `umbel.<name>` is when the package does not hold it yet. Raises AttributeError for unknown names."""
    if name in LAZY or name in LIBRARIES:
        return importlib.import_module(f"umbel.{name}")
    if name in LAZY_NAMES:
        return getattr(importlib.import_module(LAZY_NAMES[name]), name)
    if name == "__version__":
        from importlib import metadata

        return metadata.version("umbel")
    raise AttributeError(f"module 'umbel' has no attribute {name!r}")


def util_attribute(name: str) -> Any:
    """The same for `umbel.util.<name>`."""
    full = f"umbel.util.{name}"
    if name in LAZY_UTIL:
        return importlib.import_module(full)
    if full in PLANNED:
        from umbel._client import absent

        raise absent.error("umbel.util", name, f"it is not in this version of Umbel: {PLANNED[full]}")
    raise AttributeError(f"module 'umbel.util' has no attribute {name!r}")
