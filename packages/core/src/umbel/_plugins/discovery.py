"""The plugins that are installed: entry points of the group `umbel.plugins`.

`importlib.metadata` takes 25 ms to import and to read everything installed, a large part of what `umbel.init()` may
take. So the directories that it would read are first searched for the group's name, which takes about 1 ms; only when
an outside distribution has it are they read properly. Nothing is imported from a plugin here.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "umbel.plugins"
BUILTIN_DISTRIBUTION = "umbel"  # its entry point is what other tools see; the registry registers it by itself
NAMELESS = "a distribution without a name"  # its METADATA file is lost or empty; its plugins may work all the same

_METADATA_SUFFIXES = (".dist-info", ".egg-info")
_ENTRY_POINTS_FILE = "entry_points.txt"


class FoundPlugin(NamedTuple):
    """An entry point: `name = target`, target being "module" or "module:attribute"."""

    name: str
    target: str
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """For messages: where it comes from and what to uninstall."""
        if self.distribution == BUILTIN_DISTRIBUTION:
            return "Umbel itself"
        return f"{self.distribution} {self.version} (entry point {self.name} = {self.target})"

    def load(self) -> object:
        """Import it. Raises whatever its code raises."""
        return resolve(self.target)


def find_plugins(path: Sequence[str] | None = None) -> list[FoundPlugin]:
    """Those of outside distributions, sorted by distribution and name. path: in place of sys.path."""
    searched = sys.path if path is None else path
    if not _may_have_plugins(searched):
        return []
    from importlib import metadata

    found = {}
    seen = set()
    for distribution in metadata.distributions(path=list(searched)):
        project = _field(distribution.metadata, "Name") or NAMELESS
        version = _field(distribution.metadata, "Version") or "of no version"
        if _normal(project) in seen and project != NAMELESS:
            continue  # shadowed by one that comes before it on the path
        seen.add(_normal(project))
        if _normal(project) == BUILTIN_DISTRIBUTION:
            continue
        for point in distribution.entry_points:
            if point.group == GROUP:
                plugin = FoundPlugin(point.name, point.value, project, version)
                found[project, point.name] = plugin
    return [found[key] for key in sorted(found)]


def resolve(target: str) -> object:
    """What "module" or "module:attribute" names. Raises what the import raises, AttributeError, or ValueError."""
    module_name, colon, attributes = target.partition(":")
    if not module_name.strip() or (colon and not attributes.strip()):
        raise ValueError(f"a target must be 'module' or 'module:attribute', got {target!r}")
    found: object = importlib.import_module(module_name.strip())
    for name in attributes.split(".") if colon else ():
        found = getattr(found, name.strip())
    return found


def _field(about: metadata.PackageMetadata, name: str) -> str:
    """Empty when it is not there, for which indexing will raise in later versions of Python."""
    return next((value for value in about.get_all(name, [])), "")


def _normal(project: str) -> str:
    """A distribution's name as the packaging rules compare it."""
    return project.lower().replace("_", "-").replace(".", "-")


def _may_have_plugins(path: Sequence[str]) -> bool:
    """False when surely none of what is installed is a plugin of ours."""
    if any(hasattr(finder, "find_distributions") for finder in sys.meta_path if not _is_path_finder(finder)):
        return True  # somebody installs by other means than directories
    return any(_directory_may(directory or os.getcwd()) for directory in dict.fromkeys(path))


def _is_path_finder(finder: object) -> bool:
    return isinstance(finder, type) and finder.__name__ == "PathFinder"


def _directory_may(directory: str) -> bool:
    try:
        names = os.listdir(directory)
    except NotADirectoryError:
        return True  # a zip file, whose inside importlib.metadata can read
    except OSError:
        return False  # not there
    return any(
        _mentions_group(os.path.join(directory, name, _ENTRY_POINTS_FILE))
        for name in names
        if (name.endswith(_METADATA_SUFFIXES) and not _is_builtin(name)) or name == "EGG-INFO"
    )


def _is_builtin(directory_name: str) -> bool:
    return directory_name.partition("-")[0] == BUILTIN_DISTRIBUTION


def _mentions_group(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return GROUP.encode() in file.read()
    except OSError:
        return False  # most distributions have no entry points
