"""Starts the native engine: the daemon's process, which `init` has begun, gets its configuration, and while it comes up,
the modules that will talk to it are imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._base import sessions
from umbel._client import launch
from umbel._model import resources as resource_model

if TYPE_CHECKING:
    from umbel._client import driver

WORKER_MAIN = "umbel._worker.main"
LATER_IMPORTS = (
    "umbel._history.batches",
    "concurrent.futures.thread",
)  # else each worker loads them with its first report
RECYCLE_BYTES_MIN = 1 << 30  # twice what importing the largest libraries takes


def start(
    launching: launch.Launching,
    *,
    resources: Mapping[str, float],
    labels: Mapping[str, str],
    namespace: str,
    object_store_memory: int,
    env_vars: Mapping[str, str],
    log_to_driver: bool,
    logging_config: Mapping[str, object] | None = None,
    tracing_startup_hook: str | None = None,
    scheduler: str,
    accelerator_ids: Mapping[str, list[str]],
    config: configuration.Config,
    environment: str = "",
    node_name: str = "",
) -> driver.DriverEngine:
    """A private node and its driver. environment: the job's runtime_env but `env_vars`, checked, as JSON. node_name: what lists
    call it, "" for its address.

    Raises UmbelSystemError when the daemon does not start, and what is wrong with the files of the environment.
    """
    launching.configure(
        {
            **node_configuration(resources, accelerator_ids, labels, object_store_memory, scheduler, config),
            "node_name": node_name,
            "namespace": namespace,
            "log_to_driver": log_to_driver,
            "worker_imports": worker_imports(config, tracing_startup_hook),
            "worker_env": dict(env_vars),
            "logging_config": logging_config,
            "tracing_startup_hook": tracing_startup_hook,
        }
    )
    from umbel._client import driver

    return driver.DriverEngine(
        launching.finish(),
        namespace=namespace,
        labels=labels,
        env_vars=env_vars,
        environment=environment,
        config=config,
    )


def node_configuration(
    resources: Mapping[str, float],
    accelerator_ids: Mapping[str, list[str]],
    labels: Mapping[str, str],
    object_store_memory: int,
    scheduler: str,
    config: configuration.Config,
) -> dict[str, Any]:
    """What a daemon is told that does not depend on any driver."""
    return {
        "resources": dict(resource_model.ResourceSet.from_floats(resources).items()),
        "accelerator_ids": {name: list(ids) for name, ids in accelerator_ids.items()},
        "labels": dict(labels),
        "store_capacity_bytes": object_store_memory,
        "spilling": {
            "directory": config.object_spilling_directory,
            "high_water": config.object_spilling_threshold,
            "batch_bytes": config.min_spilling_size,
            "is_enabled": config.object_spilling,
        },
        "scheduler": scheduler,
        "worker_main": WORKER_MAIN,
        "later_imports": LATER_IMPORTS,
        "idle_worker_s": config.idle_worker_s,
        "infeasible_timeout_s": config.infeasible_timeout_s or None,
        "log_files": _log_files(config),
        **_metrics_wishes(config),
        "memory_isolation": config.memory_isolation if config.memory_isolation != "0" else "",
        "worker_recycle_s": config.worker_recycle_s or None,
        "memory": {
            "limit_bytes": config.memory_limit_bytes,
            "threshold": config.memory_usage_threshold,
            "recycle_bytes": _recycle_bytes(config.worker_recycle_bytes, resources),
        }
        if config.memory_monitor
        else None,
        "history": _history(config) if config.task_events else None,
    }


def worker_imports(config: configuration.Config, tracing_hook: str | None) -> list[str]:
    """What is loaded before there are workers: what the user says, and what takes each of them longer than its start."""
    tracing = ("umbel._client.tracing", tracing_hook.partition(":")[0]) if tracing_hook else ()
    return [*filter(None, config.worker_imports.split(",")), *tracing]


def _log_files(config: configuration.Config) -> dict[str, object] | None:
    """Where what workers print is written, and how much of it; None for nowhere."""
    if not config.log_bytes_max:
        return None
    return {
        "root": os.path.abspath(config.log_dir or sessions.kept_logs_dir()) if config.log_keep_s else "",
        "keep_s": config.log_keep_s,
        "bytes_max": config.log_bytes_max,
        "file_bytes_max": config.log_file_bytes_max,
    }


def _metrics_wishes(config: configuration.Config) -> dict[str, object]:
    """Where to serve metrics; nothing unless that was asked for."""
    if config.metrics_export_port < 0:
        return {}
    return {"metrics_export_host": config.metrics_export_host, "metrics_export_port": config.metrics_export_port}


def _recycle_bytes(wanted: int, resources: Mapping[str, float]) -> int:
    """What an idle worker may hold; 0 for any amount."""
    if wanted:
        return max(0, wanted)
    share = resources.get(resource_model.MEMORY, 0.0) / max(1.0, resources.get(resource_model.CPU, 1.0))
    return max(RECYCLE_BYTES_MIN, int(share))


def _history(config: configuration.Config) -> dict[str, object]:
    """What the daemon must know of it. Raises InvalidOption for a directory that cannot be had."""
    if config.history_dir:
        try:
            os.makedirs(config.history_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            raise exceptions.InvalidOption(
                f"the environment variable UMBEL_HISTORY_DIR must be a directory that can be written to, got "
                f"{config.history_dir!r} ({error.strerror}); unset it to keep no history after the session",
                option="UMBEL_HISTORY_DIR",
            ) from error
    return {
        "tasks_max": config.history_tasks_max,
        "age_max_s": config.history_age_max_s,
        "bytes_max": config.history_bytes_max,
        "dir": config.history_dir and os.path.abspath(config.history_dir),
    }
