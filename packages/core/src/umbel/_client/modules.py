"""Submodules on first use, and what is told of those, and of names, that Ray has and this version has not."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

# Submodules of core that `import umbel` does not load, because most programs never use them.
LAZY = frozenset(
    (
        "actor",
        "autoscaler",
        "cloudpickle",
        "dag",
        "experimental",
        "job_config",
        "runtime_context",
        "runtime_env",
        "util",
    )
)
LAZY_UTIL = frozenset(
    (
        "collective",
        "joblib",
        "memory",
        "metrics",
        "multiprocessing",
        "queue",
        "scheduling_strategies",
        "state",
    )
)
LAZY_NAMES = {"LoggingConfig": "umbel._client.logging_config"}
LIBRARIES = frozenset(("dashboard", "data", "kube", "rl", "serve", "train", "tune"))
# What is not here, and why: modules, and names in modules.
_OF_RAY = {  # that nothing here stands for
    "umbel": "ClientBuilder Language client cpp_function java_actor_class java_function job_submission widgets "
    "workflow",
    "umbel.autoscaler.sdk": "bootstrap_config configure_logging create_or_update_cluster fillout_defaults "
    "get_docker_host_mount_location get_head_node_ip get_worker_node_ips register_callback_handler rsync run_on_cluster "
    "teardown_cluster",
    "umbel.util": "accelerators connect disconnect iter pdb",
    "umbel.experimental": "channel dynamic_resources get_local_object_locations get_object_locations locations rdt "
    "register_nixl_memory register_tensor_transport set_resource set_target_device_for_ref set_target_for_ref tqdm_ray "
    "wait_tensor_freed",
}
PLANNED = {
    **{f"{module}.{name}": "README.md lists what is missing" for module in _OF_RAY for name in _OF_RAY[module].split()},
    **{f"umbel.{name}": "the library is not released yet, so there is nothing to install" for name in LIBRARIES},
    "umbel.util.tpu": "slices of TPUs come with the TPU plugin; ask for TPUs by resources={'TPU': n} meanwhile",
}


class PlannedModule(ModuleNotFoundError):
    """A module of Ray's that Umbel does not have yet. Has no `name`: by that, `from umbel.util import it` would take
    the error for its own and say less."""


class MissingLibraryFinder:
    """The last finder asked: a module of PLANNED that nobody found is not there."""

    @classmethod
    def find_spec(
        cls, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in PLANNED:
            raise PlannedModule(f"{fullname} is not in this version of Umbel: {PLANNED[fullname]}")
        return None


def install_finder() -> None:
    if MissingLibraryFinder not in sys.meta_path:
        sys.meta_path.append(MissingLibraryFinder)


def attribute(name: str) -> Any:
    """What `umbel.<name>` is when the package does not hold it yet. Raises AttributeError for unknown names."""
    if name in LAZY or name in LIBRARIES:
        return importlib.import_module(f"umbel.{name}")
    if name in LAZY_NAMES:
        return getattr(importlib.import_module(LAZY_NAMES[name]), name)
    if name == "__version__":
        from importlib import metadata

        return metadata.version("umbel")
    raise _missing("umbel", name)


def util_attribute(name: str) -> Any:
    """The same for `umbel.util.<name>`."""
    if name in LAZY_UTIL:
        return importlib.import_module(f"umbel.util.{name}")
    raise _missing("umbel.util", name)


def autoscaler_attribute(name: str) -> Any:
    """The same for `umbel.autoscaler.<name>`."""
    if name == "sdk":
        return importlib.import_module("umbel.autoscaler.sdk")
    raise _missing("umbel.autoscaler", name)


def autoscaler_sdk_attribute(name: str) -> NoReturn:
    """The same for `umbel.autoscaler.sdk.<name>`."""
    raise _missing("umbel.autoscaler.sdk", name)


def experimental_attribute(name: str) -> NoReturn:
    """The same for `umbel.experimental.<name>`."""
    raise _missing("umbel.experimental", name)


def _missing(module: str, name: str) -> AttributeError:
    why = PLANNED.get(f"{module}.{name}")
    if why is None:
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    from umbel._client import absent

    return absent.error(module, name, f"it is not in this version of Umbel: {why}")
