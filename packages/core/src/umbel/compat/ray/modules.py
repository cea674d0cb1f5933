"""The modules that `import ray` and `import ray.…` give.

Each stands for one of ours and finds names in it on demand. They are plain module objects, and in `sys.modules`, so
that a function which mentions `ray` is pickled with the module's name only.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

from umbel._client import modules
from umbel.compat.ray import naming

_OURS = naming.UMBEL + "."

# Which of our modules beside this one has the names that are not simply ours under another name.
_REPLACED_BY = {
    "ray": "session",
    "ray.util.multiprocessing": "process_pool",
    "ray.util.multiprocessing.pool": "process_pool",
    "ray.util.joblib": "joblib_backend",
}


class NotInUmbel(ModuleNotFoundError):
    """The program imports a part of Ray that Umbel does not have. `name` is what it would be called here."""


def _explain(ray_name: str, reason: str | None = None) -> str:
    if naming.is_private(ray_name):
        return f"{ray_name} is private to Ray, and Umbel has no such thing; use the public interface"
    return f"{ray_name}: Umbel has no such thing yet ({reason or f'there is no {naming.our_module(ray_name)}'})"


class Finder(importlib.abc.MetaPathFinder):
    """Finds `ray` and everything below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not naming.is_ray_module(fullname):
            return None
        ours = naming.our_module(fullname)
        if naming.is_private(fullname):
            raise NotInUmbel(_explain(fullname), name=ours)
        try:
            found = importlib.util.find_spec(ours)
        except modules.PlannedModule as error:
            raise NotInUmbel(_explain(fullname, str(error)), name=ours) from None
        except ModuleNotFoundError as error:
            if error.name is None or not f"{ours}.".startswith(f"{error.name}."):
                raise  # the module is there, but something that it needs is not
            raise NotInUmbel(_explain(fullname), name=ours) from None
        if found is None:
            raise NotInUmbel(_explain(fullname), name=ours)
        return importlib.machinery.ModuleSpec(fullname, Loader(), is_package=True)


class Loader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Make `module` stand for ours.

        Every one is a package, so that `from ray.x import y` asks the finder for a `y` that `ray.x` does not have, and
        the finder's error says what is missing.
        """
        ours = importlib.import_module(naming.our_module(module.__name__))
        replaced = _replacements(module.__name__)
        module.__doc__ = ours.__doc__
        module.__dict__["__getattr__"] = functools.partial(_find, module, ours, replaced)
        module.__dict__["__dir__"] = functools.partial(_names, ours, replaced)
        _import_shadowed(module, ours)


def _replacements(ray_module: str) -> dict[str, Any]:
    """What stands in `ray_module` in the place of our own names."""
    if ray_module not in _REPLACED_BY:
        return {}
    differing = importlib.import_module(f"{__package__}.{_REPLACED_BY[ray_module]}")
    return {name: getattr(differing, name) for name in differing.__all__}


def _find(module: types.ModuleType, ours: types.ModuleType, replaced: dict[str, Any], name: str) -> Any:
    """The module's `__getattr__`."""
    if name == "__all__":
        return _names(ours, replaced)
    if name in replaced:
        return replaced[name]
    if name.startswith("__"):
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}", name=name, obj=module)
    if naming.is_private(name):
        raise AttributeError(_explain(f"{module.__name__}.{name}"), name=name, obj=module)
    found = _lookup(ours, name)
    if found is _MISSING or _is_our_module(found):
        found = _submodule(module, name)
    elif _is_constant(found):
        module.__dict__[name] = found  # the next use does not come here
    return found


_MISSING = object()


def _lookup(ours: types.ModuleType, name: str) -> Any:
    for candidate in naming.our_candidates(name):
        try:
            return getattr(ours, candidate)
        except AttributeError:
            continue
        except ModuleNotFoundError:  # a library that is not installed
            continue
    return _MISSING


def _is_our_module(value: object) -> bool:
    return isinstance(value, types.ModuleType) and value.__name__.startswith(_OURS)


def _is_constant(value: object) -> bool:
    return isinstance(value, (type, types.FunctionType))


def _submodule(module: types.ModuleType, name: str) -> types.ModuleType:
    full = f"{module.__name__}.{name}"
    try:
        return importlib.import_module(full)
    except NotInUmbel as error:
        if error.name != naming.our_module(full):
            raise
        raise AttributeError(str(error), name=name, obj=module) from None


def _names(ours: types.ModuleType, replaced: dict[str, Any]) -> list[str]:
    """What `from ray.x import *` gives, and `dir(ray.x)` shows."""
    public = getattr(ours, "__all__", None) or [name for name in dir(ours) if not name.startswith("_")]
    return sorted({naming.ray_name(name) for name in public} | set(replaced))


def _import_shadowed(module: types.ModuleType, ours: types.ModuleType) -> None:
    """Import the submodules whose name also is a function of the package, such as `ray.util.placement_group`.

    Importing one sets the package's attribute to the submodule; were that to happen later, it would hide the function.
    """
    for name in getattr(ours, "__all__", ()):
        if f"{ours.__name__}.{name}" in sys.modules and not isinstance(getattr(ours, name), types.ModuleType):
            sys.modules.setdefault(module.__name__, module)
            importlib.import_module(f"{module.__name__}.{name}")
            setattr(module, name, getattr(ours, name))


def install() -> None:
    """Let this process import Ray's names from us. Raises ImportError when a real Ray was imported before."""
    present = sys.modules.get(naming.RAY)
    if present is not None and not isinstance(getattr(present.__spec__, "loader", None), Loader):
        raise ImportError(
            f"the real ray was imported already, from {getattr(present, '__file__', None)}; import "
            "umbel.compat.ray.install before anything that imports ray"
        )
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
