"""Sources and sinks that other distributions bring, by name.

A distribution says of its classes what they are called, by entry points, as plugins of Umbel's core do; what is loaded is only
the class that is asked for:

[project.entry-points."umbel.data.sources"]
mongo = "my_package.reading:MongoDatasource"

[project.entry-points."umbel.data.sinks"]
mongo = "my_package.writing:MongoDatasink"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel import exceptions
from umbel.data._blocks import naming
from umbel.data._sinks import base as sinks
from umbel.data._sources import base as sources

SOURCES: Final = "umbel.data.sources"
SINKS: Final = "umbel.data.sinks"


def source(name: str, options: Mapping[str, Any]) -> sources.Datasource:
    """Made with the options."""
    made = _class(name, SOURCES, sources.Datasource)(**options)
    assert isinstance(made, sources.Datasource)
    return made


def sink(name: str, options: Mapping[str, Any]) -> sinks.Datasink[Any]:
    """Made with the options."""
    made = _class(name, SINKS, sinks.Datasink)(**options)
    assert isinstance(made, sinks.Datasink)
    return made


def _class(name: str, group: str, kind: type) -> Any:
    """Raises PluginError for a name that nothing has or that is not of that kind, PluginConflict for one that several have."""
    from importlib import metadata  # it loads slowly, and few have sources of others

    points = metadata.entry_points(group=group)
    found = {point.value: point for point in points if point.name == name}
    if not found:
        there = naming.hint(name, sorted({point.name for point in points}))
        raise exceptions.PluginError(
            f"no installed distribution has {name!r} among its entry points {group!r}; {there}; install the one that brings it"
        )
    if len(found) > 1:
        raise exceptions.PluginConflict(
            f"{name!r} of {group!r} is both {' and '.join(sorted(found))}; uninstall the distribution of one"
        )
    (point,) = found.values()
    try:
        loaded = point.load()
    except Exception as error:
        raise exceptions.PluginError(f"{name!r} of {group!r}, {point.value}, cannot be loaded: {error}") from error
    if not isinstance(loaded, type) or not issubclass(loaded, kind):
        raise exceptions.PluginError(f"{name!r} of {group!r}, {point.value}, is no {kind.__name__}; it is {loaded!r}")
    return loaded
