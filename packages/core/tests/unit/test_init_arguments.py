"""Wrong arguments of `umbel.init`: refused before anything starts, with what was got, what is allowed, what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import running_nodes


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


@pytest.mark.parametrize("wrong", [5, ["native"], b"native", True])
@pytest.mark.parametrize("name", ["engine", "scheduler", "_node_name"])
def test_engines_and_schedulers_are_named_by_text(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be a str, got .* of type \w+; omit it for the default"):
        umbel.init(**{name: wrong})


def test_level_of_the_environment_is_one_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_LOG_LEVEL", "foo")
    with pytest.raises(
        exceptions.InvalidOption, match=r"variable UMBEL_LOG_LEVEL must be .* got 'foo'; unset it"
    ) as caught:
        umbel.init(engine="inline")
    assert caught.value.option == "UMBEL_LOG_LEVEL"
    monkeypatch.setenv("UMBEL_LOG_LEVEL", str(logging.ERROR))
    with umbel.init(num_cpus=1, engine="inline"):
        assert logging.getLogger("umbel").level == logging.ERROR


def test_history_is_kept_where_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_HISTORY_DIR", "/dev/null/x")
    with pytest.raises(exceptions.InvalidOption, match=r"UMBEL_HISTORY_DIR must be a directory .* got '/dev/null/x'"):
        umbel.init(num_cpus=1)


def test_what_means_nothing_here_is_told_by_one_warning() -> None:
    given: dict[str, Any] = {
        "_temp_dir": "/x", "_system_config": {"x": 1, "y": 2}, "include_dashboard": True, "enable_resource_isolation": True
    }  # fmt: skip
    with pytest.warns(UserWarning, match="ignores") as warned, umbel.init(num_cpus=1, engine="inline", **given):
        pass
    assert [str(one.message) for one in warned] == [
        "init() ignores _temp_dir, enable_resource_isolation (set UMBEL_MEMORY_ISOLATION=1 for control groups that hold "
        "workers to their memory=), include_dashboard, _system_config['x'], _system_config['y']: Umbel has no such setting"
    ]
    assert warned[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_what_is_switched_off_anyway_is_no_warning() -> None:
    with umbel.init(num_cpus=1, engine="inline", include_dashboard=False, enable_resource_isolation=False):
        pass


def test_session_ends_by_true_or_false() -> None:
    wrong: Any = "x"
    with pytest.raises(TypeError, match="wait_for_processes must be True or False, got 'x'"):
        umbel.shutdown(wait_for_processes=wrong)


def test_node_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(
        ConnectionError, match="no node 'foo' runs on this machine; none does: start one with `umbel start"
    ):
        running_nodes.named("foo", [])
    with pytest.raises(ConnectionError, match="no node 'foo' runs on this machine; name one of these:\n  /bar"):
        running_nodes.named("foo", ["/bar"])


@pytest.mark.parametrize(
    ("wrong", "error"), [(True, TypeError), ("1 GiB", TypeError), (1.5, TypeError), (0, ValueError)]
)
def test_memory_is_a_number_of_bytes(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(
        error, match=r"memory must be a (whole )?number of bytes.* got .*; omit it for what is available"
    ):
        umbel.init(engine="inline", _memory=wrong)
