"""What `init` is told of spilling: `object_spilling_directory`, and Ray's names in `_system_config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from umbel import exceptions
from umbel._base import config as configuration

_NUMBERS = {"object_spilling_threshold": (float, 0.0, 1.0), "min_spilling_size": (int, 1, 1 << 60)}
_ALLOWED = (
    'as {"type": "filesystem", "params": {"directory_path": "/a/path"}} or {"type": "smart_open", "params": '
    '{"uri": "s3://bucket/path"}}'
)


def read(config: configuration.Config, directory: Any, system_config: Any, ignored: list[str]) -> configuration.Config:
    """`config` with these settings. Raises TypeError and InvalidOption; what means nothing here goes to `ignored`."""
    values: dict[str, Any] = {}
    if system_config is not None:
        if not isinstance(system_config, Mapping):
            raise TypeError(f"_system_config must be a dict, got {system_config!r}; omit it for the defaults")
        values = _of_system_config(system_config, ignored)
    if directory is not None:
        if not isinstance(directory, str) or not directory:
            raise TypeError(
                f"object_spilling_directory must be a path or a URL as str, got {directory!r}; omit it for the session "
                "directory"
            )
        values["object_spilling_directory"] = directory
    return config.replace(**values)


def _of_system_config(given: Mapping[str, Any], ignored: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _NUMBERS:
            kind, minimum, maximum = _NUMBERS[name]
            is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
            if not is_number or not minimum <= value <= maximum:
                raise exceptions.InvalidOption(
                    f"_system_config[{name!r}] must be a number from {minimum} to {maximum}, got {value!r}; omit it for "
                    "the default",
                    option=name,
                )
            values[name] = kind(value)
        elif name == "automatic_object_spilling_enabled":
            if not isinstance(value, bool):
                raise exceptions.InvalidOption(
                    f"_system_config[{name!r}] must be True or False, got {value!r}; omit it for True", option=name
                )
            values["object_spilling"] = value
        elif name == "object_spilling_config":
            values["object_spilling_directory"] = _place_of(value)
        else:
            ignored.append(f"_system_config[{name!r}]")
    return values


def _place_of(text: Any) -> str:
    """Where Ray's `object_spilling_config` says that values go."""
    try:
        read = json.loads(text) if isinstance(text, str) else text
        params = read["params"]
        place = params["directory_path"] if read["type"] == "filesystem" else params["uri"]
    except (ValueError, TypeError, KeyError) as error:
        raise _bad_config(text) from error
    if isinstance(place, list) and len(place) == 1:
        place = place[0]
    if not isinstance(place, str) or not place:
        raise _bad_config(text)
    return place


def _bad_config(text: Any) -> exceptions.InvalidOption:
    return exceptions.InvalidOption(
        f"object_spilling_config must be JSON {_ALLOWED} with one place, got {text!r:.200}; or use "
        "init(object_spilling_directory=...)",
        option="object_spilling_config",
    )
