"""Builds what workers of one environment are to run in: each field's plugin in turn, in a process of its own.

This may block, and runs programs: the agent only hears of it. The process that builds is the head of a process group, so
that whatever it has started can be killed with it.
"""

from __future__ import annotations

import functools
import os
import select
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from umbel import exceptions
from umbel._base import config as configuration
from umbel._base import sessions
from umbel._environments import packing
from umbel._model import runtime_envs
from umbel._plugins import registry

if TYPE_CHECKING:
    import subprocess

    from umbel._environments import cache

PACKAGES_LIVE = "packages live as long as the node on which they were made; give the local path instead"
EXIT_LOOK_S = 0.05  # between looks at a program where the system cannot tell of its end
_DAY_S = 86_400.0


class Build:
    """The work for one environment; a `RuntimeEnvBuild` for plugins."""

    def __init__(
        self,
        *,
        packages_dir: str,
        temporary_dir: str,
        session_directories: tuple[str, ...],
        log: int,
        tell: Callable[[str], None],
        ended: int,
        before_exec: Callable[[], None] | None,
    ) -> None:
        """temporary_dir: of the programs, made when there are any, removed at the end; what is left of killed ones goes
        with the session. log: a file descriptor for their output. ended: one that becomes readable when nobody wants this
        build any more; then the whole process group is killed. before_exec: called in the child before a program starts.
        """
        self.workers = runtime_envs.WorkerSetup()
        self.session_directories = session_directories
        self.tell = tell
        self.locks: list[int] = []
        self._packages = packing.Packages(packages_dir, bytes_max=0)
        self._temporary_dir = temporary_dir
        self._log = log
        self._ended = ended
        self._before_exec = before_exec
        self._settings = configuration.Config.from_environment()
        self._has_made = False

    def build(self, built: Mapping[str, Any]) -> None:
        """All fields. Raises RuntimeEnvSetupError, and what a plugin raises."""
        plugins = [(plugin(field), field, value) for field, value in built.items()]
        try:
            for made, _, value in sorted(plugins, key=lambda one: (one[0].priority, one[1])):
                made.build(value, self)
        finally:
            sessions.remove_tree(self._temporary_dir)
        if self._has_made:
            self._cache.collect(
                bytes_max=self._settings.runtime_env_cache_bytes,
                age_max_s=self._settings.runtime_env_cache_days * _DAY_S,
            )

    def run(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
        import subprocess  # a directory that only has to be there shall not wait for this

        os.makedirs(self._temporary_dir, 0o700, exist_ok=True)
        shown = shlex.join(command)
        os.write(self._log, f"$ {shown}\n".encode())
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, "TMPDIR": self._temporary_dir, **(env or {})},
                cwd=cwd,
                preexec_fn=self._before_exec,  # noqa: PLW1509  # this process has one thread
            )
        except OSError as error:
            raise exceptions.RuntimeEnvSetupError(f"cannot run {shown}: {error}") from error
        code = self._end_of(process)
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            raise exceptions.RuntimeEnvSetupError(f"{shown} {how}")

    def _end_of(self, process: subprocess.Popen[bytes]) -> int:
        exited = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1
        try:
            while True:
                self._watch(exited, None if exited >= 0 else EXIT_LOOK_S)
                code = process.poll()
                if code is not None:
                    return code
        finally:
            if exited >= 0:
                os.close(exited)

    def _watch(self, other: int, timeout_s: float | None) -> None:
        """Wait for `other`, and end with everything if the agent is gone."""
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        if other >= 0:
            poll.register(other, select.POLLIN)
        for fd, _ in poll.poll(None if timeout_s is None else timeout_s * 1e3):
            if fd == self._ended:
                os.killpg(0, signal.SIGKILL)

    def cached(self, key: str, make: Callable[[str], None]) -> str:
        from hashlib import blake2b

        has_told = False

        def made(path: str) -> None:
            self._has_made = True
            make(path)

        def wait(delay_s: float) -> None:
            nonlocal has_told
            if not has_told:
                self.tell("another session builds the same environment")
                has_told = True
            self._watch(-1, delay_s)

        held = self._cache.hold(blake2b(key.encode(), digest_size=16).hexdigest(), made, wait=wait)
        self.locks.append(held.lock)
        return held.path

    @functools.cached_property
    def _cache(self) -> cache.Cache:
        from umbel._environments import cache

        return cache.Cache(self._settings.runtime_env_cache_dir or cache.default_directory())

    def path_of(self, uri: str) -> str:
        try:
            return self._packages.unpacked(uri)
        except FileNotFoundError:
            raise exceptions.RuntimeEnvSetupError(f"the package {uri} is not there: {PACKAGES_LIVE}") from None


def plugin(field: str) -> Any:
    """The plugin of a field, as spi.RuntimeEnvPlugin. Raises InvalidOption when there is none."""
    catalog = registry.installed()
    if field not in catalog.runtime_envs.names():
        raise exceptions.InvalidOption(
            f"runtime_env has no field {field!r}; allowed are {', '.join(fields())}"
            + (f": {_PLUGIN_POINTS[field]}" if field in _PLUGIN_POINTS else ""),
            option="runtime_env",
        )
    return cast(Any, _made(field))


@functools.cache
def _made(field: str) -> object:
    return registry.installed().runtime_envs.create(field)


def fields() -> list[str]:
    """All fields that a runtime environment may have."""
    return sorted([*runtime_envs.OWN_FIELDS, *registry.installed().runtime_envs.names()])


_PLUGIN_POINTS = {
    "conda": "it is left to a plugin (docs/plugins/runtime_envs.md), and none is installed that provides it; use 'pip', "
    "'uv', or 'py_executable' with the path of a conda environment's python",
}


def is_package_directory(path: str) -> bool:
    """Whether a directory of `sys.path` is one in which packages are installed."""
    return os.path.basename(path.rstrip(os.sep)) in ("site-packages", "dist-packages")


def sys_path_of(setup: runtime_envs.WorkerSetup, driver: Sequence[str]) -> list[str]:
    """Where workers look for modules that have the driver's packages too. driver: the driver's `sys.path`."""
    at = next((index for index, path in enumerate(driver) if is_package_directory(path)), len(driver))
    return list(dict.fromkeys([*setup.import_paths, *driver[:at], *setup.package_paths, *driver[at:]]))
