"""Loading plugins into typed registries: once for a process, each plugin apart from the others.

Each plugin gets a plugin manager of its own, so that one that cannot be imported, raises, or returns nonsense does not
take another one with it. What is wrong with it is kept for `umbel plugins list`. Hooks collect and nothing else: no
plugin wraps another one's, and none is called again.
"""

from __future__ import annotations

import enum
import functools
import logging
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, cast

import pluggy

from umbel import hookspecs, spi
from umbel._base import checks, config
from umbel._plugins import accelerators, builtin, discovery, providers, selection

_log = logging.getLogger("umbel.plugins")


class State(enum.Enum):
    ACTIVE = "active"
    BLOCKED = "blocked"
    BROKEN = "broken"


class LoadedPlugin(NamedTuple):
    """One plugin, on or off. reason: why it is off. provides: the names it offers, by each hook that it implements."""

    found: discovery.FoundPlugin
    state: State
    reason: str = ""
    provides: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class Catalog:
    """Everything that plugins provide in this process; only `load` changes it."""

    def __init__(self, unknown_names: list[str]) -> None:
        self.plugins: list[LoadedPlugin] = []  # built-ins first, then by distribution and name
        self.unknown_names = unknown_names  # in UMBEL_PLUGINS, of nothing that is installed
        self.engines = providers.Registry("engine", spi.EngineDescriptor, spi.Engine)
        self.schedulers = providers.Registry("scheduler", spi.SchedulerDescriptor, spi.SchedulingPolicy)
        self.stores = providers.Registry("store", spi.StoreDescriptor, spi.ObjectStore)
        self.control_storages = providers.Registry("control storage", spi.ControlStorageDescriptor, spi.ControlStorage)
        self.node_launchers = providers.Registry("node launcher", spi.NodeLauncherDescriptor, spi.NodeLauncher)
        self.accelerators = providers.Registry("accelerator", spi.AcceleratorDescriptor, spi.AcceleratorManager)
        self.collectives = providers.Registry("collective", spi.CollectiveDescriptor, spi.CollectiveGroup)
        self.tensor_transports = providers.Registry(
            "tensor transport", spi.TensorTransportDescriptor, spi.TensorTransport
        )
        self.runtime_envs = providers.Registry("runtime_env field", spi.RuntimeEnvDescriptor, spi.RuntimeEnvPlugin)
        self.commands = providers.Registry("command", spi.CommandDescriptor, None)

    def registries(self) -> dict[str, providers.Registry]:
        """By the hook that fills each."""
        return {
            "umbel_engines": self.engines,
            "umbel_schedulers": self.schedulers,
            "umbel_stores": self.stores,
            "umbel_control_storages": self.control_storages,
            "umbel_node_launchers": self.node_launchers,
            "umbel_accelerators": self.accelerators,
            "umbel_collectives": self.collectives,
            "umbel_tensor_transports": self.tensor_transports,
            "umbel_runtime_envs": self.runtime_envs,
            "umbel_commands": self.commands,
        }

    def conflicts_of(self, plugin: LoadedPlugin) -> list[str]:
        """What it provides and another one does too, in words."""
        return [
            f"{registry.kind} {name!r} is also provided by {other.origin}"
            for registry in self.registries().values()
            for name, found in registry.conflicts().items()
            if plugin.found.origin in [provider.origin for provider in found]
            for other in found
            if other.origin != plugin.found.origin
        ]

    def complaints(self) -> list[str]:
        """What a user should know without asking: plugins that are broken, names that mean nothing."""
        broken = [
            f"plugin {found.name!r} of {found.distribution} {found.version} is off: {reason}"
            for found, state, reason, _ in self.plugins
            if state is State.BROKEN
        ]
        ours = {builtin.FOUND.name, builtin.FOUND.distribution}
        unknown = [
            f"{selection.VARIABLE} names {name!r}, but "
            + (
                "what is built in is always on; remove it, or write '-*' to have nothing else"
                if name in ours
                else "no such plugin is installed; correct or remove it"
            )
            for name in self.unknown_names
        ]
        return broken + unknown

    def accelerator_managers(self) -> Iterator[tuple[str, spi.AcceleratorManager]]:
        """A new manager of each kind, with its name. One that cannot be made is reported in the log and left out."""
        for provider in self.accelerators:
            name = provider.descriptor.name
            try:
                made = self.accelerators.create(name)
            except Exception as error:
                _log.warning("no %s devices: %s", name, error)
                continue
            if isinstance(made, spi.AcceleratorManager):
                yield name, made

    def scheduler(self, name: str) -> spi.SchedulingPolicy:
        """Raises PluginError, PluginConflict."""
        made = self.schedulers.create(name)
        checks.invariant(isinstance(made, spi.SchedulingPolicy), "a scheduler was not checked", scheduler=name)
        return cast(spi.SchedulingPolicy, made)


def load(selected: str = "", *, outside: Iterable[discovery.FoundPlugin] | None = None) -> Catalog:
    """All built-ins and the selected plugins.

    selected: as UMBEL_PLUGINS. outside: what is installed; None to look. Raises PluginError when `selected` makes no
    sense, and for nothing that a plugin does.
    """
    choice = selection.Selection.parse(selected)
    found = discovery.find_plugins() if outside is None else list(outside)
    catalog = Catalog(choice.unknown(found))
    _load_one(catalog, builtin.FOUND)
    for plugin in found:
        reason = choice.reason_against(plugin)
        if reason:
            catalog.plugins.append(_off(plugin, State.BLOCKED, reason))
        else:
            _load_one(catalog, plugin)
    return catalog


@functools.cache
def installed() -> Catalog:
    """The catalog of this process, as its environment says. Takes the work once; logs nothing, see `log_complaints`."""
    return load(config.Config.from_environment().plugins)


def log_complaints() -> None:
    """Say what is wrong with this process's plugins. For the driver: its workers would only repeat it."""
    for complaint in installed().complaints():
        _log.warning("%s", complaint)


@functools.cache
def accelerators_here() -> tuple[accelerators.NodeAccelerator, ...]:
    """This machine's devices that this process may use, one entry for each resource. Asks the drivers once.

    Raises PluginConflict.
    """
    return accelerators.take_stock(installed().accelerator_managers())


def accelerator_for(resource: str) -> spi.AcceleratorManager | None:
    """The manager of a resource; None when nobody manages it.

    The one that found devices here; else, for a node that was told to have some all the same, the first by name.
    """
    found = [here.manager for here in accelerators_here() if here.resource_name == resource]
    if not found:
        found = [manager for _, manager in installed().accelerator_managers() if manager.resource_name == resource]
    return found[0] if found else None


def _load_one(catalog: Catalog, plugin: discovery.FoundPlugin) -> None:
    try:
        implementation = plugin.load()
    except Exception as error:
        catalog.plugins.append(_off(plugin, State.BROKEN, f"importing it failed: {providers.describe(error)}"))
        return
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(implementation, plugin.name)
        manager.check_pending()
    except Exception as error:
        catalog.plugins.append(_off(plugin, State.BROKEN, f"its hooks do not fit: {providers.describe(error)}"))
        return
    hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(implementation) or []))
    if not hooks:
        reason = "it implements no hook; mark functions with umbel.hookspecs.hookimpl"
        catalog.plugins.append(_off(plugin, State.BROKEN, reason))
        return
    offered: dict[str, list[providers.AnyDescriptor]] = {}
    for hook in hooks:
        fault, descriptors = _collect(manager, hook, catalog.registries()[hook].descriptor_type)
        if fault:
            catalog.plugins.append(_off(plugin, State.BROKEN, f"{hook} {fault}"))
            return
        offered[hook] = descriptors
    for hook, descriptors in offered.items():  # only now that all of it is known to be good
        for descriptor in descriptors:
            catalog.registries()[hook].add(providers.Provider(descriptor, plugin.origin))
    provides = {hook: tuple(one.name for one in descriptors) for hook, descriptors in offered.items()}
    catalog.plugins.append(LoadedPlugin(plugin, State.ACTIVE, provides=provides))


def _collect(
    manager: pluggy.PluginManager, hook: str, expected: type[providers.AnyDescriptor]
) -> tuple[str, list[providers.AnyDescriptor]]:
    """(what is wrong, descriptors) of one plugin's hook."""
    try:
        descriptors = [descriptor for returned in getattr(manager.hook, hook)() for descriptor in returned]
    except Exception as error:
        return f"raised {providers.describe(error)}", []
    for index, descriptor in enumerate(descriptors):
        fault = providers.descriptor_fault(descriptor, expected)
        if fault:
            return f"returned a descriptor (index {index}) that {fault}", []
    names = [descriptor.name for descriptor in descriptors]
    twice = sorted({name for name in names if names.count(name) > 1})
    return (f"returned two descriptors called {twice[0]!r}", []) if twice else ("", descriptors)


def _off(plugin: discovery.FoundPlugin, state: State, reason: str) -> LoadedPlugin:
    return LoadedPlugin(plugin, state, reason)
