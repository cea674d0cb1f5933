"""Submodules on first use, and what is told of those, and of names, that Ray has and this version has not."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable, Collection, Sequence
from types import ModuleType
from typing import Any

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
        "types",
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
INSTALLABLE = {"data": 'pip install "umbel[data]"'}  # libraries of their own distributions
LIBRARIES = frozenset(("dashboard", "kube", "rl", "serve", "train", "tune", *INSTALLABLE))
# What is not here, and why: modules, and names in modules.
_OF_RAY = {  # that nothing here stands for
    "umbel": "ClientBuilder Language SCRIPT_MODE WORKER_MODE air client client_builder cpp_function cross_language internal "
    "java_actor_class java_function job_submission llm widgets workflow",
    "umbel.autoscaler.sdk": "bootstrap_config configure_logging create_or_update_cluster fillout_defaults "
    "get_docker_host_mount_location register_callback_handler rsync teardown_cluster",
    "umbel.dag": "CollectiveOutputNode DAGOperationFuture GPUFuture plot",
    "umbel.experimental": "CommunicatorMetadata RDTManager TensorTransportManager TensorTransportMetadata channel "
    "deregister_nixl_memory dynamic_resources get_local_object_locations get_object_locations locations rdt "
    "register_nixl_memory register_nixl_memory_pool register_tensor_transport sandbox set_nixl_cuda_stream set_resource "
    "set_target_device_for_ref set_target_for_ref shuffle tqdm_ray wait_tensor_freed",
    "umbel.util": "accelerators annotations check_open_ports client client_connect connect dask disconnect iter iter_metrics "
    "spark",
}
_DEBUGGER = "there is no debugger of workers; `umbel stack` shows where they stand"
PLANNED = {
    **{f"{module}.{name}": "README.md lists what is missing" for module in _OF_RAY for name in _OF_RAY[module].split()},
    **{
        f"umbel.{name}": "the library is not released yet, so there is nothing to install"
        for name in LIBRARIES - set(INSTALLABLE)
    },
    **{f"umbel.util.{name}": _DEBUGGER for name in ("debugpy", "pdb", "ray_debugpy", "rpdb")},
    "umbel.rllib": "it is to be umbel.rl, which is not released yet",
    "umbel.autoscaler.sdk.get_head_node_ip": "`umbel get-head-ip` prints it",
    "umbel.autoscaler.sdk.get_worker_node_ips": "`umbel get-worker-ips` prints them",
    "umbel.autoscaler.sdk.run_on_cluster": "`umbel exec` does that",
    "umbel.util.serialization.StandaloneSerializationContext": "register_serializer() needs no session, nor any context",
    "umbel.util.tpu": "there is nothing for slices of TPUs; ask for TPUs by resources={'TPU': n}",
    "umbel.util.tracing": "traces are begun by init(_tracing_startup_hook='module:function'), not by helpers",
}


class PlannedModule(ModuleNotFoundError):
    """A module of Ray's that Umbel does not have yet, or that is not installed. Has no `name`: by that, `from umbel.util
    import it` would take the error for its own and say less."""


class MissingLibraryFinder:
    """The last finder asked: a module of which we know why it is not there, and that nobody found."""

    @classmethod
    def find_spec(
        cls, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if why := _why_absent(fullname):
            raise PlannedModule(f"{fullname} {why}")
        return None


def _why_absent(full_name: str) -> str | None:
    if (name := full_name.removeprefix("umbel.")) in INSTALLABLE:
        return f"is not installed: {INSTALLABLE[name]}"
    return f"is not in this version of Umbel: {PLANNED[full_name]}" if full_name in PLANNED else None


def install_finder() -> None:
    if MissingLibraryFinder not in sys.meta_path:
        sys.meta_path.append(MissingLibraryFinder)


def attribute(name: str) -> Any:
    """What `umbel.<name>` is when the package does not hold it yet. Raises AttributeError for unknown names."""
    if name in LAZY:
        return importlib.import_module(f"umbel.{name}")
    if name in LIBRARIES:
        return _library(name)
    if name in LAZY_NAMES:
        return getattr(importlib.import_module(LAZY_NAMES[name]), name)
    if name == "__version__":
        from importlib import metadata

        return metadata.version("umbel")
    raise _missing("umbel", name)


def _library(name: str) -> ModuleType:
    """One that is not installed is no attribute: `hasattr` says so, and who walks over the package's names goes on. The statement
    `import` says the same by ModuleNotFoundError; one error cannot be both, since in CPython their fields exclude each other."""
    import importlib.util

    try:
        importlib.util.find_spec(f"umbel.{name}")
    except PlannedModule:
        raise _missing("umbel", name) from None
    return importlib.import_module(f"umbel.{name}")


def attributes_of(module: str, lazy: Collection[str] = ()) -> Callable[[str], Any]:
    """The same for a module that calls this while it is loaded: its `__getattr__`. lazy: its submodules that are loaded at their
    first use."""
    # A module that has no submodules is a package without any: so `from module import name` asks the finder as well, which
    # says why there is no such name.
    vars(sys.modules[module]).setdefault("__path__", [])

    def found(name: str) -> Any:
        if name in lazy:
            return importlib.import_module(f"{module}.{name}")
        raise _missing(module, name)

    return found


def _missing(module: str, name: str) -> AttributeError:
    why = _why_absent(f"{module}.{name}")
    if why is None:
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    from umbel._client import absent

    return absent.error(module, name, f"it {why}")
