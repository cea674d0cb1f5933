"""The fields `pip` and `uv`: what they may say, and what of it decides which environment it is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from umbel import exceptions
from umbel._environments import packing, virtual
from umbel._model import runtime_envs

# Options of requirements files that name a file or directory.
_FILE_OPTIONS = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable", "-f", "--find-links")
_OF_PACKING = ("files", "variables")  # keys that `pack` adds
_DISTRIBUTIONS = (
    ".whl",
    ".tar.gz",
    ".zip",
)  # files that travel; projects stay, as what builds them may look around there


class Requirements:
    """Workers run in a virtual environment that has the driver's packages and over them those asked for."""

    priority = 10
    field: str
    conflicts: Collection[str]
    options: Mapping[str, type]

    def validate(self, value: Any) -> dict[str, Any]:
        """{"packages": [a line each], option: value}."""
        if isinstance(value, Mapping):
            return self._validated(value)
        return self._validated({"packages": value})

    def _validated(self, given: Mapping[str, Any]) -> dict[str, Any]:
        allowed = ("packages", *self.options)
        unknown = sorted(set(given) - {*allowed, *_OF_PACKING}, key=str)
        if unknown:
            raise exceptions.InvalidOption(
                f"runtime_env[{self.field!r}] has no key {unknown[0]!r}; allowed are {', '.join(allowed)}",
                option="runtime_env",
            )
        if "packages" not in given:
            raise runtime_envs.wrong(self.field, "a dict with 'packages'", given, "write {'packages': ['name==1.0']}")
        found: dict[str, Any] = {"packages": self._packages(given["packages"])}
        for name, kind in self.options.items():
            value = given.get(name)
            if value is None:
                continue
            is_good = isinstance(value, (list, tuple)) if kind is list else isinstance(value, kind)
            if not is_good or (kind is list and not all(isinstance(one, str) for one in value)):
                words = {bool: "True or False", str: "a str such as '==24.0'", list: "a list of str"}[kind]
                raise runtime_envs.wrong(f"{self.field}']['{name}", words, value, "omit it for the default")
            found[name] = list(value) if kind is list else value
        return found

    def _packages(self, value: Any) -> list[str]:
        if isinstance(value, (str, os.PathLike)):
            path = os.path.abspath(os.path.expanduser(os.fspath(value)))
            try:
                with open(path, encoding="utf-8") as file:
                    return _absolute(file.read().splitlines(), os.path.dirname(path))
            except OSError as error:
                raise exceptions.InvalidOption(
                    f"runtime_env[{self.field!r}]={value!r} must be a requirements file that can be read, or a list of "
                    f"requirements: {error}",
                    option="runtime_env",
                ) from error
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
            raise runtime_envs.wrong(
                self.field, "a list of requirements, a requirements file or a dict", value, "write ['name==1.0']"
            )
        return _absolute(value, os.getcwd())

    def pack(self, value: Mapping[str, Any], packing_: runtime_envs.RuntimeEnvPacking) -> dict[str, Any]:
        """Local wheels and the like become packages. Adds what decides the contents besides: other local files and the
        settings of the tools."""
        found = {name: item for name, item in value.items() if name not in _OF_PACKING}
        found["packages"] = [_packed(line, packing_) for line in found["packages"]]
        files = {path: _digest(path) for line in found["packages"] for path in _files_in(line)}
        return {**found, "files": files, "variables": virtual.settings_in(packing_.env_vars)}

    def build(self, value: Mapping[str, Any], build: runtime_envs.RuntimeEnvBuild) -> None:
        virtual.build(self.field, value, build)


class Pip(Requirements):
    field = "pip"
    conflicts = ("uv", "conda", "py_executable", "container", "image_uri")
    options: Mapping[str, type] = {"pip_check": bool, "pip_version": str, "pip_install_options": list}


class Uv(Requirements):
    field = "uv"
    conflicts = ("pip", "conda", "py_executable", "container", "image_uri")
    options: Mapping[str, type] = {"uv_check": bool, "uv_version": str, "uv_pip_install_options": list}


def _absolute(lines: Sequence[str], base: str) -> list[str]:
    """The lines without comments, and with paths that do not depend on where they are read."""
    found = []
    joined = "\n".join(lines).replace("\\\n", " ")
    for line in joined.splitlines():
        text = line.strip() if line.lstrip().startswith("#") else line.split(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        option, separator, rest = _split_option(text)
        path = os.path.join(base, os.path.expanduser(rest))
        is_path = bool(rest) and "://" not in rest and os.path.exists(path)
        if option and is_path:
            text = f"{option}{separator}{os.path.abspath(path)}"
        elif not option and is_path and (os.sep in rest or rest.endswith(".whl") or rest == "."):
            text = os.path.abspath(path)
        found.append(text)
    return found


def _split_option(text: str) -> tuple[str, str, str]:
    """(option, what is between, value) of a line that names a file by an option; ("", "", text) of another line."""
    for option in _FILE_OPTIONS:
        rest = text.removeprefix(option)
        if rest != text and rest[:1] in (" ", "="):
            return option, rest[0], rest[1:].strip()
    return "", "", text


def _files_in(line: str) -> list[str]:
    """The local files and projects that a line reads."""
    option, _, rest = _split_option(line)
    if option in ("-f", "--find-links"):
        return []  # like an index: what is in it may grow
    try:
        words = shlex.split(rest)
    except ValueError:
        words = [rest]
    # "name @ file:///path" is the standard's way to name a local file
    return [word.removeprefix("file://") for word in words if os.path.isabs(word.removeprefix("file://"))]


def _packed(line: str, packing_: runtime_envs.RuntimeEnvPacking) -> str:
    """The line with uris in the place of local files that are distributions."""
    if not _split_option(line)[0]:
        for path in _files_in(line):
            if path.endswith(_DISTRIBUTIONS) and os.path.isfile(path):
                line = line.replace(path, f"{packing_.add_file(path)}/{os.path.basename(path)}")
    return line


def _digest(path: str) -> str:
    try:
        if os.path.isdir(path):
            return packing.digest(packing.scan(path))
        return packing.file_digest(path)
    except OSError as error:
        raise exceptions.InvalidOption(
            f"a requirement names {path!r}, which cannot be read: {error}; correct the path", option="runtime_env"
        ) from error
