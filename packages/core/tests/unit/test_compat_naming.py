"""umbel.compat.ray.naming: Ray's names and ours."""

from __future__ import annotations

import pytest

from umbel.compat.ray import naming


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("get", "get"),
        ("RayTaskError", "UmbelTaskError"),
        ("register_ray", "register_umbel"),
        ("RAY_EXCEPTION_TYPES", "UMBEL_EXCEPTION_TYPES"),
        ("LocalRayletDiedError", "LocalNodeDiedError"),
    ],
)
def test_names_are_found_and_shown_both_ways(theirs: str, ours: str) -> None:
    assert ours in naming.our_candidates(theirs)
    assert naming.ray_name(ours) == theirs


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("ray", "umbel"), ("ray.util.queue", "umbel.util.queue"), ("ray.rllib.algorithms", "umbel.rl.algorithms")],
)
def test_modules_have_one_home_here(theirs: str, ours: str) -> None:
    assert naming.our_module(theirs) == ours
    assert naming.ray_module(ours) == theirs


def test_only_ray_s_own_modules_are_meant() -> None:
    assert naming.is_ray_module("ray")
    assert naming.is_ray_module("ray.util")
    assert not naming.is_ray_module("rays")
    assert not naming.is_ray_module("my.ray")


def test_private_is_what_has_a_leading_underscore() -> None:
    assert naming.is_private("ray._private.worker")
    assert naming.is_private("_raylet")
    assert not naming.is_private("ray.util")
    assert not naming.is_private("__version__")


def test_the_environment_is_translated_unless_the_user_has_spoken() -> None:
    environment = {"RAY_ADDRESS": "a", "RAY_MINE": "ray", "UMBEL_MINE": "umbel", "PATH": "p"}
    assert naming.translated_environment(environment, {}) == {"UMBEL_ADDRESS": "a"}


def test_variables_in_lower_case_are_translated_too() -> None:
    environment = {"RAY_allow_out_of_band_object_ref_serialization": "0"}
    assert naming.translated_environment(environment, {}) == {"UMBEL_ALLOW_OUT_OF_BAND_OBJECT_REF_SERIALIZATION": "0"}


def test_a_later_value_replaces_one_that_was_translated() -> None:
    environment = {"RAY_ADDRESS": "new", "UMBEL_ADDRESS": "old"}
    assert naming.translated_environment(environment, {"UMBEL_ADDRESS": "old"}) == {"UMBEL_ADDRESS": "new"}
    assert naming.translated_environment(environment, {"UMBEL_ADDRESS": "other"}) == {}
