"""The built-in plugins pass the suites that outside ones have to pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from umbel._plugins import builtin
from umbel.testing.conformance import (
    AcceleratorConformance,
    RuntimeEnvConformance,
    SchedulerConformance,
    StoreConformance,
)

FIELDS = {descriptor.name: descriptor for descriptor in builtin.umbel_runtime_envs()}
SCHEDULERS = {descriptor.name: descriptor for descriptor in builtin.umbel_schedulers()}


class TestHybridScheduler(SchedulerConformance):
    descriptor = SCHEDULERS["hybrid"]


class TestSpreadScheduler(SchedulerConformance):
    descriptor = SCHEDULERS["spread"]


class TestSharedMemoryStore(StoreConformance):
    (descriptor,) = builtin.umbel_stores()


class TestNvidia(AcceleratorConformance):
    (descriptor,) = builtin.umbel_accelerators()


class TestWorkingDir(RuntimeEnvConformance):
    descriptor = FIELDS["working_dir"]
    bad_values = (5, "", "s3://bucket/x.zip", ["."])

    @pytest.fixture
    def good_values(self, tmp_path: Path) -> Sequence[Any]:
        (tmp_path / "w").mkdir()
        return (tmp_path / "w", str(tmp_path / "w"))


class TestPyModules(RuntimeEnvConformance):
    descriptor = FIELDS["py_modules"]
    bad_values = (5, ".", [5], ["s3://bucket/x.zip"])

    @pytest.fixture
    def good_values(self, tmp_path: Path) -> Sequence[Any]:
        (tmp_path / "m.py").write_text("")
        return ([tmp_path / "m.py"], [pytest], [])


@pytest.mark.slow  # it makes a virtual environment
class TestPip(RuntimeEnvConformance):
    descriptor = FIELDS["pip"]
    values = ([], ["six==1.0"], {"packages": ["six"], "pip_check": True})
    bad_values = (5, "/nowhere.txt", {"packages": [5]}, {"nonsense": 1})


@pytest.mark.slow  # likewise
class TestUv(RuntimeEnvConformance):
    descriptor = FIELDS["uv"]
    values = ([], ["six==1.0"], {"packages": ["six"], "uv_check": True})
    bad_values = (5, "/nowhere.txt", {"packages": [5]}, {"nonsense": 1})


class TestPyExecutable(RuntimeEnvConformance):
    descriptor = FIELDS["py_executable"]
    values = ("/usr/bin/python3 -u",)
    bad_values = (5, "", "'")


class TestContainer(RuntimeEnvConformance):
    descriptor = FIELDS["container"]
    values = ({"image": "a:1"}, {"image": "a:1", "run_options": ["--gpus=all"]})
    bad_values = (5, {}, {"image": "a", "nonsense": 1}, {"image": "a", "run_options": "x"})


class TestImageUri(RuntimeEnvConformance):
    descriptor = FIELDS["image_uri"]
    values = ("docker.io/me/a:1",)
    bad_values = (5, "", "--privileged")
