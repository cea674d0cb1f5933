"""`umbel.LoggingConfig`: what it accepts and what records look like."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import umbel
from umbel._client import logging_config


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("umbel")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


Written = Callable[[], list[str]]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    """The lines on standard error since it was asked last."""
    return lambda: capsys.readouterr().err.splitlines()


def test_defaults_are_rays() -> None:
    made = umbel.LoggingConfig()
    assert (made.encoding, made.log_level, made.additional_log_standard_attrs) == ("TEXT", "INFO", [])
    again = umbel.LoggingConfig.from_dict({**made.to_dict(), "unknown": 1})
    assert again == made


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"encoding": "XML"}, ValueError, "encoding must be one of TEXT, JSON, got 'XML'; omit it"),
        ({"encoding": None}, ValueError, "encoding must be one of TEXT, JSON, got None"),
        ({"log_level": "LOUD"}, ValueError, "log_level must be a number or one of DEBUG.*got 'LOUD'"),
        ({"log_level": True}, TypeError, "log_level must be a number or a name.*got True"),
        ({"log_level": 1.5}, TypeError, "log_level must be a number or a name.*got 1.5"),
        ({"additional_log_standard_attrs": ["colour"]}, ValueError, "got 'colour'; there are .*funcName"),
    ],
)
def test_what_is_wrong_is_told(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        umbel.LoggingConfig(**given)


def test_json_is_one_object_a_line_with_extras_and_errors(written: Written) -> None:
    logging_config.apply(umbel.LoggingConfig("JSON", "DEBUG", ["name", "funcName"]))
    logging.getLogger("some").debug("first %s", "arg", extra={"user": "u1", "when": {1, 2}})
    try:
        raise KeyError("k")
    except KeyError:
        logging.getLogger("some").exception("second\nline")
    first, second = map(json.loads, written())
    assert {name: first[name] for name in ("levelname", "message", "filename", "name", "funcName", "user", "when")} == {
        "levelname": "DEBUG",
        "message": "first arg",
        "filename": "test_logging_config.py",
        "name": "some",
        "funcName": "test_json_is_one_object_a_line_with_extras_and_errors",
        "user": "u1",
        "when": "{1, 2}",
    }
    assert first["timestamp_ns"] > 1e18 and "exc_text" not in first
    assert second["message"] == "second\nline" and second["exc_text"].endswith("KeyError: 'k'")


def test_text_has_the_same_behind_the_message(written: Written) -> None:
    logging_config.apply(umbel.LoggingConfig(additional_log_standard_attrs=["name"]))
    logging.getLogger("some").info("hello", extra={"user": "u1"})
    logging.getLogger("some").debug("not shown")
    (line,) = written()
    assert " -- hello name=some user=u1 timestamp_ns=" in line
    assert "\tINFO test_logging_config.py:" in line


def test_applying_again_takes_the_place_of_the_first(written: Written) -> None:
    logging_config.apply(umbel.LoggingConfig("TEXT", "INFO"))
    logging_config.apply(umbel.LoggingConfig("JSON", "ERROR"))
    logging.warning("not shown")
    logging.error("shown")
    (line,) = written()
    assert json.loads(line)["message"] == "shown"
    assert logging.getLogger("umbel").level == logging.ERROR


def test_ids_of_the_session_and_the_task_are_there_while_they_are(written: Written) -> None:
    with umbel.init(num_cpus=1, engine="inline", logging_config=umbel.LoggingConfig("JSON")):

        @umbel.remote
        def work() -> str:
            logging.info("in a task")
            return umbel.get_runtime_context().get_task_id() or ""

        @umbel.remote
        class Keeper:
            def act(self) -> str:
                logging.info("in an actor")
                return umbel.get_runtime_context().get_actor_id() or ""

        task = umbel.get(work.remote())
        keeper = Keeper.options(name="bob").remote()
        actor = umbel.get(keeper.act.remote())
        logging.info("in the driver")
        job = umbel.get_runtime_context().get_job_id()
    logging.info("after")
    of_task, of_actor, of_driver, after = map(json.loads, written()[-4:])
    assert (of_task["task_id"], of_task["job_id"], "actor_id" in of_task) == (task, job, False)
    assert of_task["task_name"].endswith("work")
    assert (of_actor["actor_id"], of_actor["actor_name"]) == (actor, "bob")
    assert of_driver["job_id"] == job and "task_id" not in of_driver
    assert "job_id" not in after
