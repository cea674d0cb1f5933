"""Builds virtual environments over the driver's own packages, with uv where there is one, else with pip."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from umbel import exceptions
from umbel._base import variables
from umbel._environments import building
from umbel._model import package_names, runtime_envs

_LAYOUT = 1  # changes when environments are made differently, so that older ones are not used
_LINK_MODE = "UV_LINK_MODE"
_INHERIT = "_umbel_inherited.pth"  # the driver's packages, read after the environment's own
# Where pip's settings may be beside its variables. uv reads none of them, so where there are some pip is used.
_PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")


def build(field: str, value: Mapping[str, Any], build: runtime_envs.RuntimeEnvBuild) -> None:
    """Have workers run in the environment of `value`, as `requirements` packs it; made if there is none yet."""
    settings = settings_in({**os.environ, **tool_settings(value)})
    key = json.dumps([_LAYOUT, field, value, settings, inherited_state()], sort_keys=True)
    path = build.cached(key, lambda path: _make(path, field, value, build))
    build.workers.interpreter = [python_of(path)]
    build.workers.package_paths += _package_directories(path)
    build.workers.env_vars["VIRTUAL_ENV"] = path
    build.workers.env_vars["PATH"] = os.pathsep.join([f"{path}/bin", os.environ.get("PATH", os.defpath)])


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change what the tools install."""
    return {name: text for name, text in sorted(environment.items()) if name.startswith(("PIP_", "UV_"))}


def tool_settings(value: Mapping[str, Any]) -> dict[str, str]:
    given: Mapping[str, str] = value.get("variables") or {}
    return {name: variables.expanded(text, os.environ) for name, text in given.items()}


def inherited_state() -> list[Any]:
    """Which interpreter and packages an environment builds upon. Installing or removing a package changes the time of
    the directory that it is in."""
    places = [path for path in sys.path if building.is_package_directory(path) and os.path.isdir(path)]
    return [sys.executable, sys.version, [[path, os.stat(path).st_mtime_ns] for path in places]]


def python_of(path: str) -> str:
    return os.path.join(path, "bin", "python")


def _package_directories(path: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(path), "lib", "python*", "site-packages")))


def _make(path: str, field: str, value: Mapping[str, Any], build: runtime_envs.RuntimeEnvBuild) -> None:
    # What uv has in its cache is not copied into each environment, unless that is on another file system.
    env = {**({} if _LINK_MODE in os.environ else {_LINK_MODE: "hardlink"}), **tool_settings(value)}
    build.tell("python -m venv")
    build.run([sys.executable, "-m", "venv", "--without-pip", path])
    # Not --system-site-packages: the driver may be in an environment that hides those, and what it has is what counts.
    inherited = [one for one in sys.path if building.is_package_directory(one)]
    for directory in _package_directories(path):
        with open(os.path.join(directory, _INHERIT), "w", encoding="utf-8") as file:
            file.writelines(f"import site; site.addsitedir({one!r})\n" for one in inherited)
    lines = [package_names.with_paths(line, build.path_of) for line in value["packages"]]
    requirements = os.path.join(path, "requirements.txt")
    with open(requirements, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    if not lines:
        return
    installer = _uv(field, value, path, build, env) or _pip(field, value, path, build, env)
    shown = " ".join(lines)
    build.tell(f"{'uv pip' if 'uv' in os.path.basename(installer[0]) else 'pip'} install {shown}")
    build.run([*installer, "-r", requirements], env=env)
    if value.get(f"{field}_check"):
        checker = _with_pip(path, build, env) if field == "pip" else [*installer[: installer.index("install")]]
        build.run([*checker, "check", *(["--python", python_of(path)] if field == "uv" else [])], env=env)


def _uv(
    field: str, value: Mapping[str, Any], path: str, build: runtime_envs.RuntimeEnvBuild, env: Mapping[str, str]
) -> list[str] | None:
    """The command that installs by uv, or None for pip."""
    if field == "pip" and (value.get("pip_version") or value.get("pip_install_options") or _has_pip_settings(env)):
        return None
    options = value.get("uv_pip_install_options") or []
    version = value.get("uv_version")
    if version:
        build.run([*_with_pip(path, build, env), "install", "--no-input", f"uv{version}"], env=env)
        own = os.path.join(path, "bin", "uv")
        found = own if os.path.exists(own) else _find_uv()  # the driver's, where that is of this version
    else:
        found = _find_uv()
    if found is None:
        if options:
            raise exceptions.RuntimeEnvSetupError(
                f"uv_pip_install_options={options!r} needs uv, which is not installed; run pip install uv, or give "
                "'uv_version'"
            )
        return None
    return [found, "pip", "install", "--python", python_of(path), *options]


def _pip(
    field: str, value: Mapping[str, Any], path: str, build: runtime_envs.RuntimeEnvBuild, env: Mapping[str, str]
) -> list[str]:
    pip = _with_pip(path, build, env)
    if value.get("pip_version"):
        build.run([*pip, "install", "--no-input", f"pip{value['pip_version']}"], env=env)
    options = value.get("pip_install_options") or []
    return [*pip, "install", "--disable-pip-version-check", "--no-input", *options]


def _with_pip(path: str, build: runtime_envs.RuntimeEnvBuild, env: Mapping[str, str]) -> list[str]:
    """The environment's pip: the driver's, or a new one where that has none."""
    python = python_of(path)
    if importlib.util.find_spec("pip") is None and not glob.glob(os.path.join(glob.escape(path), "bin", "pip*")):
        build.tell("python -m ensurepip")
        build.run([python, "-m", "ensurepip"], env=env)
    return [python, "-m", "pip"]


def _find_uv() -> str | None:
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    if os.access(beside, os.X_OK):
        return beside
    return shutil.which("uv")


def _has_pip_settings(env: Mapping[str, str]) -> bool:
    names: Sequence[str] = [*os.environ, *env]
    if any(name.startswith("PIP_") for name in names):
        return True
    places = [*map(os.path.expanduser, _PIP_FILES), os.path.join(sys.prefix, "pip.conf")]
    return any(os.path.exists(place) for place in places)
