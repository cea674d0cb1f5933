"""The fields `working_dir` and `py_modules`: local files that workers start in or import from."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Any

from umbel import exceptions
from umbel._model import package_names, runtime_envs

_REMOTE = "://"


class WorkingDir:
    """Workers start in a copy of a directory, or of a zip file's contents, and can import from it."""

    priority = 5
    conflicts: Collection[str] = ()

    def validate(self, value: Any) -> str:
        return _path("working_dir", value)

    def pack(self, value: str, packing_: runtime_envs.RuntimeEnvPacking) -> str:
        if value.startswith(package_names.SCHEME):
            return value
        if os.path.isdir(value):
            return packing_.add_directory(value)
        if os.path.isfile(value) and value.endswith(".zip"):
            return packing_.add_archive(value)
        raise runtime_envs.wrong("working_dir", "an existing directory or .zip file", value, "correct the path")

    def build(self, value: str, build: runtime_envs.RuntimeEnvBuild) -> None:
        path = build.path_of(value)
        build.workers.cwd = path
        build.workers.import_paths.insert(0, path)


class PyModules:
    """Workers can import copies of packages, modules and wheels."""

    priority = 6
    conflicts: Collection[str] = ()

    def validate(self, value: Any) -> list[str]:
        if not isinstance(value, (list, tuple)):
            raise runtime_envs.wrong("py_modules", "a list of paths and modules", value, "put it into a list")
        return [_module_path(one) for one in value]

    def pack(self, value: Sequence[str], packing_: runtime_envs.RuntimeEnvPacking) -> list[str]:
        return [_pack_module(path, packing_) for path in value]

    def build(self, value: Sequence[str], build: runtime_envs.RuntimeEnvBuild) -> None:
        for uri in value:
            path = build.path_of(uri)
            build.workers.import_paths.append(path)
            # A wheel may keep what it installs in these; what it would install elsewhere is not for importing.
            for name in ("purelib", "platlib"):
                build.workers.import_paths += sorted(glob.glob(os.path.join(glob.escape(path), "*.data", name)))


def _path(field: str, value: Any) -> str:
    """A local path made absolute, or the uri of a package."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value:
        raise runtime_envs.wrong(field, "a path as str or os.PathLike", value, "for example '.'")
    if value.startswith(package_names.SCHEME):
        return value
    if _REMOTE in value:
        raise exceptions.UnsupportedFeature(
            f"runtime_env[{field!r}]={value!r} is not supported: this version of Umbel takes local directories and "
            "files; download it first"
        )
    return os.path.abspath(os.path.expanduser(value))


def _module_path(value: Any) -> str:
    if isinstance(value, ModuleType):
        places = list(getattr(value, "__path__", None) or [getattr(value, "__file__", None)])
        if len(places) != 1 or not places[0]:
            raise runtime_envs.wrong("py_modules", "modules with one file or directory", value, f"found {places}")
        value = places[0]
    return _path("py_modules", value)


def _pack_module(path: str, packing_: runtime_envs.RuntimeEnvPacking) -> str:
    if path.startswith(package_names.SCHEME):
        return path
    if os.path.isdir(path):
        return packing_.add_directory(path, into=os.path.basename(path))
    if os.path.isfile(path) and path.endswith((".whl", ".zip")):
        return packing_.add_archive(path)
    if os.path.isfile(path) and path.endswith(".py"):
        return packing_.add_file(path)
    allowed = "existing directories, .py, .whl and .zip files"
    raise runtime_envs.wrong("py_modules", allowed, path, "correct the path, or pass the imported module")
