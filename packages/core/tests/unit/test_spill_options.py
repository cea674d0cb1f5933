"""What `init` understands of Ray's settings for spilling."""

from __future__ import annotations

from typing import Any

import pytest

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import spill_options

DEFAULTS = configuration.Config()


def test_rays_names_are_understood() -> None:
    given = {
        "object_spilling_threshold": 0.5,
        "min_spilling_size": 1_000,
        "automatic_object_spilling_enabled": False,
        "object_spilling_config": '{"type": "filesystem", "params": {"directory_path": ["/a"]}}',
    }
    assert spill_options.read(DEFAULTS, None, given, []) == DEFAULTS.replace(
        object_spilling_threshold=0.5,
        min_spilling_size=1_000,
        object_spilling=False,
        object_spilling_directory="/a",
    )


def test_the_argument_goes_before_the_configuration() -> None:
    given = {"object_spilling_config": '{"type": "smart_open", "params": {"uri": "s3://bucket/path"}}'}
    assert spill_options.read(DEFAULTS, None, given, []).object_spilling_directory == "s3://bucket/path"
    assert spill_options.read(DEFAULTS, "/b", given, []).object_spilling_directory == "/b"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"object_spilling_threshold": 1.5}, "must be a number from 0.0 to 1.0, got 1.5"),
        ({"min_spilling_size": "big"}, "must be a number from 1 to"),
        ({"automatic_object_spilling_enabled": 1}, "must be True or False, got 1"),
        ({"object_spilling_config": "nonsense"}, "must be JSON"),
        ({"object_spilling_config": '{"type": "filesystem", "params": {}}'}, "must be JSON"),
        ({"object_spilling_config": '{"type": "smart_open", "params": {"uri": ["a", "b"]}}'}, "with one place"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match=text):
        spill_options.read(DEFAULTS, None, given, [])


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError, match="must be a path or a URL as str, got 3"):
        spill_options.read(DEFAULTS, 3, None, [])
    with pytest.raises(TypeError, match="must be a dict, got 'x'"):
        spill_options.read(DEFAULTS, None, "x", [])


def test_what_means_nothing_here_is_said() -> None:
    ignored: list[str] = []
    assert spill_options.read(DEFAULTS, None, {"max_io_workers": 4}, ignored) == DEFAULTS
    assert ignored == ["_system_config['max_io_workers']"]
