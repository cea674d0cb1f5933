"""What a driver may say of its job, and what becomes of it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel.job_config import JobConfig


def test_what_is_not_said_is_as_ever() -> None:
    config = JobConfig()
    assert config.facts() == {"priority": 0, "weight": 1.0, "preempt": False, "metadata": {}}
    assert (config.runtime_env, config.ray_namespace, config.default_actor_lifetime) == ({}, None, "non_detached")


def test_what_is_said_is_told() -> None:
    config = JobConfig(priority=-3, weight=2, preempt=True, metadata={"who": "we"})
    config.set_metadata("why", "urgent")
    assert config.facts() == {
        "priority": -3, "weight": 2.0, "preempt": True, "metadata": {"who": "we", "why": "urgent"},
    }  # fmt: skip
    assert repr(config) == "JobConfig(priority=-3, weight=2, preempt=True)"


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ({"priority": 1.5}, TypeError, "priority must be an integer, got 1.5 of type float; omit it for 0"),
        ({"priority": True}, TypeError, "priority must be an integer, got True"),
        ({"weight": "3"}, TypeError, "weight must be a number, got '3' of type str; omit it for 1"),
        ({"weight": 0}, ValueError, "weight must be a finite number > 0, got 0; omit it for 1"),
        ({"weight": -1.0}, ValueError, "weight must be a finite number > 0, got -1.0"),
        ({"weight": float("inf")}, ValueError, "weight must be a finite number > 0, got inf"),
        ({"weight": float("nan")}, ValueError, "weight must be a finite number > 0, got nan"),
        ({"preempt": 1}, TypeError, "preempt must be True or False, got 1 of type int; omit it for False"),
        ({"metadata": {"n": 1}}, TypeError, "metadata must be a dict of strings by strings, got 'n': 1"),
        ({"ray_namespace": ""}, TypeError, "ray_namespace must be a non-empty string, got ''"),
        ({"default_actor_lifetime": "long"}, ValueError, "default_actor_lifetime must be 'non_detached', got 'long'"),
        ({"default_actor_lifetime": "detached"}, exceptions.UnsupportedFeature, "give actors lifetime='detached'"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error) as raised:
        JobConfig(**wrong)
    assert told in str(raised.value)


def test_it_is_made_of_what_json_says() -> None:
    made = JobConfig.from_json({"metadata": {"team": "x"}, "priority": 2, "runtime_env": {"env_vars": {"A": "1"}}})
    assert (made.metadata, made.priority, made.runtime_env) == ({"team": "x"}, 2, {"env_vars": {"A": "1"}})
    with pytest.raises(
        ValueError, match=r"a JobConfig may have .*priority, weight, preempt, got client_job, what; remove"
    ):
        JobConfig.from_json({"what": 1, "client_job": True})
    with pytest.raises(exceptions.UnsupportedAttribute, match=r"pass logging_config to init\(\)"):
        made.set_py_logging_config({})


def test_what_is_of_other_languages_is_ignored_with_a_warning() -> None:
    with pytest.warns(
        UserWarning, match=r"JobConfig\(\) ignores jvm_options, code_search_path: Umbel runs Python only"
    ):
        JobConfig(["-Xmx1g"], ["/jars"])


@pytest.mark.parametrize("wrong", [{"priority": 1}, 5, "high"])
def test_init_takes_nothing_else(wrong: Any) -> None:
    with pytest.raises(
        TypeError, match=r"job_config must be an umbel.job_config.JobConfig, got .* of type .*; for example"
    ):
        umbel.init(engine="inline", job_config=wrong)
    assert not umbel.is_initialized()


def test_its_namespace_and_environment_are_those_of_the_session_unless_init_says_others() -> None:
    config = JobConfig(runtime_env={"env_vars": {"WHO": "config"}}, ray_namespace="ours", priority=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with umbel.init(num_cpus=1, engine="inline", job_config=config):
            assert umbel.get_runtime_context().namespace == "ours"
            assert umbel.get_runtime_context().runtime_env == {"env_vars": {"WHO": "config"}}
        with umbel.init(num_cpus=1, engine="inline", job_config=config, namespace="mine"):
            assert umbel.get_runtime_context().namespace == "mine"
