"""Submodules on first use, and what to install for those that are separate distributions."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

# Submodules of core that `import umbel` does not load, because most programs never use them.
LAZY = frozenset(("actor", "cloudpickle", "runtime_context", "util"))
LIBRARIES = frozenset(("dashboard", "data", "kube", "rl", "serve", "train", "tune"))


class MissingLibraryFinder:
    """The last finder asked: an `umbel` library nobody found is one that is not installed."""

    @classmethod
    def find_spec(
        cls, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package == "umbel" and name in LIBRARIES:
            raise ModuleNotFoundError(f'umbel.{name} is not installed; run: pip install "umbel[{name}]"', name=fullname)
        return None


def install_finder() -> None:
    if MissingLibraryFinder not in sys.meta_path:
        sys.meta_path.append(MissingLibraryFinder)


def attribute(name: str) -> Any:
    """What `umbel.<name>` is when the package does not hold it yet. Raises AttributeError for unknown names."""
    if name in LAZY or name in LIBRARIES:
        return importlib.import_module(f"umbel.{name}")
    if name == "__version__":
        from importlib import metadata

        return metadata.version("umbel")
    raise AttributeError(f"module 'umbel' has no attribute {name!r}")
