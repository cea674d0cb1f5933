"""`umbel.runtime_env`: the option `runtime_env` as a class, for those who prefer keywords to a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from umbel._client import absent, environments
from umbel._model import options, runtime_envs


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is set up.

    setup_timeout_seconds: how long building it may take; -1 for no limit. eager_install: whether that of a job is built
    at `init()` rather than when the first task needs it.
    """

    def __init__(
        self,
        setup_timeout_seconds: float = 600,
        eager_install: bool = True,
        log_files: Any = None,
    ) -> None:
        super().__init__(
            runtime_envs.check_own(
                runtime_envs.CONFIG,
                {
                    "setup_timeout_seconds": setup_timeout_seconds,
                    "eager_install": eager_install,
                    "log_files": log_files,
                },
            )
        )

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


class RuntimeEnv(dict[str, Any]):
    """What workers run in: a dictionary with the fields that it was given, checked.

    Raises InvalidOption for a field that no plugin provides, or a bad value.
    """

    def __init__(
        self,
        *,
        py_modules: Any = None,
        py_executable: str | None = None,
        working_dir: Any = None,
        pip: Any = None,
        uv: Any = None,
        conda: Any = None,
        container: Mapping[str, Any] | None = None,
        image_uri: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        worker_process_setup_hook: Any = None,
        excludes: Any = None,
        config: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        given = {
            "py_modules": py_modules, "py_executable": py_executable, "working_dir": working_dir, "pip": pip, "uv": uv,
            "conda": conda, "container": container, "image_uri": image_uri, "env_vars": env_vars,
            "worker_process_setup_hook": worker_process_setup_hook, "excludes": excludes, "config": config,
        }  # fmt: skip
        found = environments.validated({name: value for name, value in given.items() if value is not None} | fields)
        options.task_options({"runtime_env": found}, {})  # checks the variables
        super().__init__(found)

    def to_dict(self) -> dict[str, Any]:
        return dict(self)

    def __getattr__(self, name: str) -> NoReturn:
        raise absent.error("RuntimeEnv", name, f"it is a dictionary of its fields; read them as in env.get({name!r})")
