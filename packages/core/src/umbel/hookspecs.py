"""The hooks that a plugin implements: one for each kind of thing that Umbel takes from plugins.

A plugin is a module, or an object, that an entry point of the group `umbel.plugins` names. It marks functions that are
called as below with `hookimpl`; each takes no argument and returns an iterable of descriptors from `umbel.spi`. Hooks
run once, when a process that needs plugins starts: they must be quick and import nothing heavy, which is what the
descriptors' factories are for. docs/plugins has a page for each hook.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from umbel import spi

PROJECT = "umbel"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def umbel_engines() -> Iterable[spi.EngineDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Engines: what `umbel.init(engine=...)` starts, and what runs tasks and actors."""


@hookspec
def umbel_schedulers() -> Iterable[spi.SchedulerDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Scheduling policies: who is served first, and where; chosen by `umbel.init(scheduler=...)`."""


@hookspec
def umbel_stores() -> Iterable[spi.StoreDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Object stores: where large values live on a node."""


@hookspec
def umbel_control_storages() -> Iterable[spi.ControlStorageDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Control storages: where a cluster's records are kept, by the scheme of a URL."""


@hookspec
def umbel_node_launchers() -> Iterable[spi.NodeLauncherDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Node launchers: what starts and ends the nodes of a cluster that grows and shrinks."""


@hookspec
def umbel_accelerators() -> Iterable[spi.AcceleratorDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Accelerator managers: which devices a node has, and how a process is kept to some of them. All are used."""


@hookspec
def umbel_collectives() -> Iterable[spi.CollectiveDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Backends of `umbel.util.collective`: what carries the tensors of a group of processes."""


@hookspec
def umbel_tensor_transports() -> Iterable[spi.TensorTransportDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Ways for tensors to go from one actor to another: `umbel.method(tensor_transport=...)`."""


@hookspec
def umbel_runtime_envs() -> Iterable[spi.RuntimeEnvDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Fields of `runtime_env`: what each means, and how workers come to run in it. The descriptor's name is the field."""


@hookspec
def umbel_commands() -> Iterable[spi.CommandDescriptor]:  # type: ignore[empty-body]  # only the signature counts
    """Subcommands of the `umbel` command."""
