"""Wrong arguments of `umbel.init`: refused before anything starts, with what was got, what is allowed, what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import umbel


@pytest.fixture(autouse=True)
def nothing_started() -> Iterator[None]:
    level = logging.getLogger("umbel").level
    yield
    logging.getLogger("umbel").setLevel(level)
    was_started = umbel.is_initialized()
    umbel.shutdown()
    assert not was_started


@pytest.mark.parametrize("wrong", ["no", 0, 1])
@pytest.mark.parametrize("name", ["log_to_driver", "ignore_reinit_error", "local_mode"])
def test_flags_are_true_or_false(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False, got {wrong!r} of type .*; omit it for"):
        umbel.init(engine="inline", **{name: wrong})


@pytest.mark.parametrize("wrong", [5, 0, b"auto", ["auto"]])
def test_address_is_text(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"address must be a str or None, got .*; omit it for the node that runs here"):
        umbel.init(wrong, engine="inline")


@pytest.mark.parametrize("address", ["auto", "somewhere"])
def test_the_inline_engine_connects_nowhere(address: str) -> None:
    with pytest.raises(
        ValueError, match=rf"engine='inline' runs in this process, but address='{address}' names a node"
    ):
        umbel.init(address, engine="inline")


@pytest.mark.parametrize(("wrong", "error"), [("NOPE", ValueError), (True, TypeError), (1.5, TypeError)])
def test_logging_level_is_one_that_there_is(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"logging_level must be a number, DEBUG, .* or CRITICAL, got .*; omit it for"):
        umbel.init(engine="inline", logging_level=wrong)


@pytest.mark.parametrize("level", ["debug", "DEBUG", logging.DEBUG])
def test_logging_level_is_a_name_or_a_number(level: Any) -> None:
    with umbel.init(num_cpus=1, engine="inline", logging_level=level):
        assert logging.getLogger("umbel").level == logging.DEBUG


@pytest.mark.parametrize("wrong", [{"encoding": "JSON"}, "JSON", True])
def test_logging_configuration_is_one_of_ours(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"logging_config must be an umbel.LoggingConfig, got .*; for example"):
        umbel.init(engine="inline", logging_config=wrong)
