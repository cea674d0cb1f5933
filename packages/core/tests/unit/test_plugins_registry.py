"""Loading plugins: what they provide, and that a bad one takes nothing else with it."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest

from umbel import exceptions, spi
from umbel._plugins import discovery, providers, registry
from umbel._scheduling import policies

HEADER = "from umbel import spi\nfrom umbel.hookspecs import hookimpl\n"
GOOD = f"""{HEADER}
@hookimpl
def umbel_schedulers():
    yield spi.SchedulerDescriptor("tidy", "umbel._scheduling.policies:SpreadPolicy", summary="for tests")
"""


class Plugins:
    """Writes plugin modules, and loads them as if they were installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[discovery.FoundPlugin] = []

    def add(self, name: str, source: str, *, target: str = "") -> discovery.FoundPlugin:
        module = f"test_plugin_{self.folder.name}_{name}"  # new in each test: sys.modules keeps them
        (self.folder / f"{module}.py").write_text(source)
        plugin = discovery.FoundPlugin(name, f"{module}{target}", f"umbel-{name}", "1.0")
        self.found.append(plugin)
        return plugin

    def load(self, selected: str = "") -> registry.Catalog:
        return registry.load(selected, outside=self.found)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Plugins(tmp_path)


# What is provided


def test_built_ins_register_through_the_hooks() -> None:
    catalog = registry.load(outside=[])
    (builtin,) = catalog.plugins
    assert (builtin.state, builtin.found.distribution) == (registry.State.ACTIVE, "umbel")
    assert builtin.provides == {
        "umbel_accelerators": ("nvidia",),
        "umbel_collectives": ("shm", "gloo"),
        "umbel_commands": (
            "down",
            "drain-node",
            "exec",
            "explain",
            "get",
            "get-head-ip",
            "get-worker-ips",
            "health-check",
            "kill-actor",
            "list",
            "logs",
            "memory",
            "metrics",
            "plugins",
            "sessions",
            "stack",
            "start",
            "status",
            "stop",
            "summary",
            "timeline",
            "tls",
            "token",
            "up",
        ),
        "umbel_control_storages": ("sqlite", "redis", "rediss", "etcd", "etcds"),
        "umbel_engines": ("native", "inline"),
        "umbel_node_launchers": ("local", "ssh"),
        "umbel_tensor_transports": ("shm", "gloo"),
        "umbel_runtime_envs": (
            "working_dir",
            "py_modules",
            "pip",
            "uv",
            "py_executable",
            "container",
            "image_uri",
        ),
        "umbel_schedulers": ("hybrid", "spread"),
        "umbel_stores": ("shm",),
    }
    assert catalog.complaints() == []


def test_every_built_in_can_be_imported() -> None:
    for filled in registry.load(outside=[]).registries().values():
        for provider in filled:
            assert callable(filled.factory(provider.descriptor.name))
            assert provider.descriptor.summary


def test_plugin_adds_to_the_built_ins(plugins: Plugins) -> None:
    plugins.add("good", GOOD)
    catalog = plugins.load()
    assert catalog.schedulers.names() == ["hybrid", "spread", "tidy"]
    assert isinstance(catalog.scheduler("tidy"), policies.SpreadPolicy)
    assert catalog.plugins[1].provides == {"umbel_schedulers": ("tidy",)}


def test_plugin_may_be_an_object(plugins: Plugins) -> None:
    source = f"""{HEADER}
class Plugin:
    @hookimpl
    def umbel_schedulers(self):
        return (spi.SchedulerDescriptor("of-object", "umbel._scheduling.policies:HybridPolicy"),)
plugin = Plugin()
"""
    plugins.add("object", source, target=":plugin")
    assert "of-object" in plugins.load().schedulers.names()


def test_blocked_plugin_is_not_even_imported(plugins: Plugins) -> None:
    plugins.add("blocked", "raise SystemError('imported')")
    (_, blocked) = plugins.load("-blocked").plugins
    assert (blocked.state, blocked.provides) == (registry.State.BLOCKED, {})
    assert plugins.load("-blocked").complaints() == []


def test_unknown_name_in_the_selection_is_a_complaint(plugins: Plugins) -> None:
    plugins.add("good", GOOD)
    assert plugins.load("-goood").complaints() == [
        "UMBEL_PLUGINS names 'goood', but no such plugin is installed; correct or remove it"
    ]


@pytest.mark.parametrize("name", ["builtin", "umbel"])
def test_what_is_built_in_is_not_said_to_be_missing(plugins: Plugins, name: str) -> None:
    assert plugins.load(f"-{name}").complaints() == [
        f"UMBEL_PLUGINS names {name!r}, but what is built in is always on; remove it, or write '-*' to have nothing else"
    ]


# Isolation

BROKEN = {
    "missing import": ("import not_there_at_all", "importing it failed: ModuleNotFoundError: No module named"),
    "syntax error": ("def", "importing it failed: SyntaxError: "),
    "no hook": ("x = 1", "it implements no hook"),
    "unknown hook": (
        f"{HEADER}@hookimpl\ndef umbel_shedulers(): return []",
        "its hooks do not fit: PluginValidationError",
    ),
    "wrong arguments": (
        f"{HEADER}@hookimpl\ndef umbel_stores(x): return []",
        "its hooks do not fit: PluginValidationError",
    ),
    "raises": (
        f"{HEADER}@hookimpl\ndef umbel_stores(): return 1 / 0",
        "umbel_stores raised ZeroDivisionError: division",
    ),
    "raises late": (f"{HEADER}@hookimpl\ndef umbel_stores():\n  yield from 3", "umbel_stores raised TypeError: "),
    "no iterable": (f"{HEADER}@hookimpl\ndef umbel_stores(): return 3", "umbel_stores raised TypeError: 'int' object"),
    "no descriptor": (
        f"{HEADER}@hookimpl\ndef umbel_stores(): return ['shm']",
        "umbel_stores returned a descriptor (index 0) that must be of type spi.StoreDescriptor, got 'shm'",
    ),
    "other kind": (
        f"{HEADER}@hookimpl\ndef umbel_stores(): return [spi.SchedulerDescriptor('x', 'y')]",
        "umbel_stores returned a descriptor (index 0) that must be of type spi.StoreDescriptor, got Scheduler",
    ),
    "bad name": (
        f"{HEADER}@hookimpl\ndef umbel_stores(): return [spi.StoreDescriptor('My Store', 'y')]",
        "has the name 'My Store'; use lower-case letters",
    ),
    "future version": (
        f"{HEADER}@hookimpl\ndef umbel_stores(): return [spi.StoreDescriptor('x', 'y', spi_version=99)]",
        "'x' is for version 99 of umbel.spi, here it is version 1; install versions",
    ),
    "bad factory": (
        f"{HEADER}@hookimpl\ndef umbel_stores(): return [spi.StoreDescriptor('x', 3)]",
        "'x' has the factory 3; give a callable or 'module:attribute'",
    ),
    "one name twice": (
        f"{HEADER}@hookimpl\ndef umbel_stores(): return [spi.StoreDescriptor('x', 'y')] * 2",
        "umbel_stores returned two descriptors called 'x'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_off_and_the_others_are_on(plugins: Plugins, case: str) -> None:
    source, reason = BROKEN[case]
    good_hook = "\n@hookimpl\ndef umbel_schedulers(): return [spi.SchedulerDescriptor('half', 'x')]\n"
    plugins.add("broken", source + (good_hook if "hookimpl" in source else ""))
    plugins.add("good", GOOD)
    catalog = plugins.load()
    builtin, broken, good = catalog.plugins
    assert broken.state is registry.State.BROKEN
    assert reason in broken.reason
    assert builtin.state is good.state is registry.State.ACTIVE
    assert catalog.schedulers.names() == ["hybrid", "spread", "tidy"]  # nothing of the half that is good
    (complaint,) = catalog.complaints()
    assert complaint.startswith("plugin 'broken' of umbel-broken 1.0 is off: ")


def test_plugin_that_ends_the_process_is_isolated_from_nothing(plugins: Plugins) -> None:
    """SystemExit and KeyboardInterrupt are for the program."""
    plugins.add("exits", "raise SystemExit(3)")
    with pytest.raises(SystemExit):
        plugins.load()


# Conflicts


def test_two_providers_of_a_name_are_an_error_that_lists_both(plugins: Plugins) -> None:
    plugins.add("good", GOOD)
    plugins.add("twin", GOOD)
    catalog = plugins.load()
    with pytest.raises(exceptions.PluginConflict) as caught:
        catalog.scheduler("tidy")
    assert caught.value.plugin == "tidy"
    for part in (
        "a scheduler called 'tidy'",
        "umbel-good 1.0 (entry point good = ",
        "umbel-twin 1.0",
        "UMBEL_PLUGINS=-",
    ):
        assert part in str(caught.value)
    with pytest.raises(exceptions.PluginConflict):
        list(catalog.schedulers)
    assert catalog.scheduler("hybrid") is not None  # other names are not concerned
    assert catalog.conflicts_of(catalog.plugins[1]) == [
        f"scheduler 'tidy' is also provided by {plugins.found[1].origin}"
    ]


def test_name_of_a_built_in_is_a_conflict_too(plugins: Plugins) -> None:
    plugins.add("usurper", GOOD.replace('"tidy"', '"hybrid"'))
    with pytest.raises(exceptions.PluginConflict, match=r"Umbel itself and umbel-usurper 1\.0"):
        plugins.load().scheduler("hybrid")


def test_blocking_one_ends_the_conflict(plugins: Plugins) -> None:
    plugins.add("good", GOOD)
    plugins.add("twin", GOOD)
    assert plugins.load("-twin").scheduler("tidy") is not None


# Choosing


def test_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(exceptions.PluginError, match="must be one of hybrid, spread, got 'hybird'") as caught:
        registry.load(outside=[]).scheduler("hybird")
    assert caught.value.plugin == "hybird"


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("'not_there:x'", "importing 'not_there:x' failed: ModuleNotFoundError"),
        ("'json:not_there'", "importing 'json:not_there' failed: AttributeError"),
        ("'json:__doc__'", "its factory must be callable, got 'JSON"),
        ("lambda: 1 / 0", "its factory raised ZeroDivisionError: division by zero"),
        ("lambda: object()", "lacks order, place of spi.SchedulingPolicy"),
    ],
)
def test_broken_factory_shows_when_it_is_chosen(plugins: Plugins, factory: str, reason: str) -> None:
    plugins.add("lazy", f"{HEADER}@hookimpl\ndef umbel_schedulers(): return [spi.SchedulerDescriptor('x', {factory})]")
    catalog = plugins.load()
    assert catalog.complaints() == []
    with pytest.raises(exceptions.PluginError, match="scheduler 'x' of umbel-lazy") as caught:
        catalog.scheduler("x")
    assert reason in str(caught.value)


def test_errors_of_umbel_pass_a_factory_as_they_are() -> None:
    def full() -> spi.SchedulingPolicy:
        raise exceptions.ObjectStoreFullError("no room")

    schedulers = providers.Registry("scheduler", spi.SchedulerDescriptor, spi.SchedulingPolicy)
    schedulers.add(providers.Provider(spi.SchedulerDescriptor("full", full), "a test"))
    with pytest.raises(exceptions.ObjectStoreFullError, match="no room"):
        schedulers.create("full")


# Descriptors


def test_descriptors_are_frozen_slotted_and_travel() -> None:
    descriptor = spi.SchedulerDescriptor("x", "a:b", summary="s")
    with pytest.raises(dataclasses.FrozenInstanceError):
        descriptor.name = "y"  # type: ignore[misc]  # that it fails is the test
    assert not hasattr(descriptor, "__dict__")
    assert pickle.loads(pickle.dumps(descriptor)) == descriptor
    assert descriptor != spi.StoreDescriptor("x", "a:b", summary="s")
    assert repr(descriptor) == "SchedulerDescriptor(name='x', factory='a:b', spi_version=1, summary='s')"


def test_this_version_and_the_one_before_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spi.SPI_VERSION in spi.SPI_VERSIONS_ACCEPTED
    monkeypatch.setattr(spi, "SPI_VERSIONS_ACCEPTED", range(4, 6))
    faults = [
        providers.descriptor_fault(spi.StoreDescriptor("x", "y", spi_version=version), spi.StoreDescriptor)
        for version in (3, 4, 5, 6)
    ]
    assert [bool(fault) for fault in faults] == [True, False, False, True]
    assert "here it is version 4 or 5" in faults[0]


def test_everything_public_of_spi_is_there() -> None:
    assert [name for name in spi.__all__ if not hasattr(spi, name)] == []
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        spi.nothing_of_ours  # noqa: B018 - the access is the test
