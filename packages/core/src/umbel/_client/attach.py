"""Makes this process a driver of a node that runs already, and that others may use too."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._base import sessions
from umbel._client import driver, launch, start


class RunningNode:
    """A node that outlives its drivers."""

    is_private = False

    def __init__(self, session_dir: str) -> None:
        self.session_dir = session_dir
        try:
            self.node_id = sessions.outliving(session_dir).node_id
        except OSError as error:  # it has ended since it was looked for
            raise exceptions.UmbelSystemError(f"the node {session_dir} has ended: {error}") from error

    @property
    def address(self) -> str:
        return os.path.join(self.session_dir, sessions.AGENT_SOCKET)

    def close(self, _timeout_s: float) -> None:
        """It goes on."""


def attach(
    session_dir: str,
    *,
    namespace: str,
    env_vars: Mapping[str, str],
    log_to_driver: bool,
    logging_config: Mapping[str, object] | None = None,
    tracing_startup_hook: str | None = None,
    config: configuration.Config,
    environment: str = "",
    job_facts: Mapping[str, Any],
) -> driver.DriverEngine:
    """environment: as for `start.start`. job_facts: see `JobConfig.facts`. Raises UmbelSystemError when the node does
    not answer or accept this driver."""
    job: dict[str, Any] = {
        **launch.surroundings(),
        "python": launch.python(),
        "python_version": list(sys.version_info[:2]),
        "prefix": sys.prefix,
        "version": version(),
        "entrypoint": " ".join(sys.orig_argv),
        "namespace": namespace,
        "worker_env": dict(env_vars),
        "worker_imports": start.worker_imports(config, tracing_startup_hook),
        "logging_config": logging_config,
        "tracing_startup_hook": tracing_startup_hook,
        "log_to_driver": log_to_driver,
        **job_facts,
    }
    return driver.DriverEngine(
        RunningNode(session_dir),
        namespace=namespace,
        labels={},
        env_vars=env_vars,
        environment=environment,
        config=config,
        job=job,
    )


def version() -> str:
    """Of Umbel; "" where it is not installed but read from its sources."""
    from importlib import metadata

    try:
        return metadata.version("umbel")
    except metadata.PackageNotFoundError:
        return ""
