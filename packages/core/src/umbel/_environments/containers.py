"""The fields `container` and `image_uri`: workers in a container, by the command line of podman or docker.

The image must have Umbel of this version and Python of the driver's. The container shares the host's network, process ids
and shared memory, and sees the session's directories and nothing else of the host.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from typing import Any

from umbel import exceptions
from umbel._model import runtime_envs

TOOLS = ("podman", "docker")
_ALONE = ("pip", "uv", "conda", "py_executable", "working_dir", "py_modules")


class Container:
    priority = 20
    conflicts: Collection[str] = (*_ALONE, "image_uri")

    def validate(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise runtime_envs.wrong("container", "a dict", value, "write {'image': '...', 'run_options': []}")
        unknown = sorted(set(value) - {"image", "run_options", "worker_path"}, key=str)
        if unknown:
            raise exceptions.InvalidOption(
                f"runtime_env['container'] has no key {unknown[0]!r}; allowed are image and run_options",
                option="runtime_env",
            )
        options = value.get("run_options") or []
        if not isinstance(options, (list, tuple)) or not all(isinstance(one, str) for one in options):
            raise runtime_envs.wrong("container']['run_options", "a list of str", options, "for example ['--gpus=all']")
        image = _image("container']['image", value.get("image"))
        return {"image": image, "run_options": list(options)}  # worker_path is Ray's, and has no meaning here

    def pack(self, value: Mapping[str, Any], _packing: runtime_envs.RuntimeEnvPacking) -> dict[str, Any]:
        return dict(value)

    def build(self, value: Mapping[str, Any], build: runtime_envs.RuntimeEnvBuild) -> None:
        build.workers.around = command(tool(), value["image"], value["run_options"], build.session_directories)
        build.workers.is_isolated = True


class ImageUri:
    priority = 20
    conflicts: Collection[str] = (*_ALONE, "container")

    def validate(self, value: Any) -> str:
        return _image("image_uri", value)

    def pack(self, value: str, _packing: runtime_envs.RuntimeEnvPacking) -> str:
        return value

    def build(self, value: str, build: runtime_envs.RuntimeEnvBuild) -> None:
        build.workers.around = command(tool(), value, [], build.session_directories)
        build.workers.is_isolated = True


def _image(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value or value.startswith("-"):
        raise runtime_envs.wrong(field, "the name of an image", value, "for example 'docker.io/me/image:1'")
    return value


def tool() -> str:
    """The path of podman or docker. Raises RuntimeEnvSetupError when there is neither."""
    for name in TOOLS:
        found = shutil.which(name)
        if found:
            return found
    raise exceptions.RuntimeEnvSetupError(
        f"containers need {' or '.join(TOOLS)}, and neither is on the PATH of the node; install one, or leave out "
        "'container' and 'image_uri'"
    )


def command(program: str, image: str, run_options: list[str], directories: tuple[str, ...]) -> list[str]:
    """What runs Python in the container; Python's own arguments follow."""
    is_podman = os.path.basename(program).startswith("podman")
    found = [program, "run", "--rm", "--network=host", "--pid=host", "--ipc=host"]
    if is_podman:
        found.append("--cgroup-manager=cgroupfs")
    if os.getuid():
        found += ["--userns=keep-id"] if is_podman else [f"--user={os.getuid()}:{os.getgid()}"]
    for path in directories:
        found.append(f"--volume={path}:{path}")
    found += [f"--env={name}" for name in sorted(os.environ) if name.startswith("UMBEL_")]
    return [*found, "--entrypoint=python3", *run_options, image]
