"""What a field of `runtime_env` must do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from umbel import exceptions, spi
from umbel._environments import building, packing
from umbel.testing.conformance import suite

_BYTES_MAX = 64 << 20


class _Packing:
    """As in the process that asks for an environment."""

    env_vars: ClassVar[dict[str, str]] = {}
    excludes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, directory: str) -> None:
        self._packages = packing.Packages(directory, bytes_max=_BYTES_MAX)

    def add_directory(self, path: str, *, into: str = "") -> str:
        return self._packages.add_directory(path, path, into=into)

    def add_file(self, path: str) -> str:
        return self._packages.add_file(path, path)

    def add_archive(self, path: str) -> str:
        return self._packages.add_archive(path, path)


class RuntimeEnvConformance(suite.Suite[spi.RuntimeEnvPlugin]):
    """Subclass it, set `descriptor`, and `values` and `bad_values` to what users may write and what they may not."""

    kind = "runtime_env field"
    descriptor_type = spi.RuntimeEnvDescriptor
    protocol = spi.RuntimeEnvPlugin
    values: ClassVar[Sequence[Any]] = ()
    bad_values: ClassVar[Sequence[Any]] = ()

    @pytest.fixture
    def plugin(self) -> spi.RuntimeEnvPlugin:
        return self.make()

    @pytest.fixture
    def good_values(self) -> Sequence[Any]:
        """`values`; override it where they depend on fixtures."""
        return self.values

    @pytest.fixture
    def packing(self, tmp_path: Path) -> spi.RuntimeEnvPacking:
        return _Packing(str(tmp_path / "packages"))

    @pytest.fixture
    def build(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[building.Build]:
        """As in the process that builds."""
        monkeypatch.setenv("UMBEL_RUNTIME_ENV_CACHE_DIR", str(tmp_path / "cache"))
        log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        never, writing = os.pipe()
        build = building.Build(
            packages_dir=str(tmp_path / "packages"),
            temporary_dir=str(tmp_path / "building"),
            session_directories=(str(tmp_path),),
            log=log,
            tell=lambda _text: None,
            ended=never,
            before_exec=None,
        )
        yield build
        for fd in (log, never, writing, *build.locks):
            os.close(fd)

    def test_there_are_values_to_test_with(self, good_values: Sequence[Any]) -> None:
        assert good_values, "set `values` to some that are allowed"
        assert self.bad_values, "set `bad_values` to some that are not"

    def test_priority_is_a_number_and_conflicts_are_other_fields(self, plugin: spi.RuntimeEnvPlugin) -> None:
        assert type(plugin.priority) is int
        assert not isinstance(plugin.conflicts, str)
        assert all(isinstance(field, str) for field in plugin.conflicts)
        assert self.descriptor.name not in plugin.conflicts

    def test_what_is_valid_is_json_and_valid_again(
        self, plugin: spi.RuntimeEnvPlugin, good_values: Sequence[Any]
    ) -> None:
        for value in good_values:
            once = plugin.validate(value)
            assert json.loads(json.dumps(once)) == once
            assert plugin.validate(once) == once

    def test_bad_values_are_refused_in_words(self, plugin: spi.RuntimeEnvPlugin) -> None:
        for value in self.bad_values:
            with pytest.raises((ValueError, TypeError, exceptions.UnsupportedFeature)) as caught:
                plugin.validate(value)
            assert len(str(caught.value)) > 10

    def test_packing_is_json_the_same_every_time_and_unchanged_by_packing_again(
        self, plugin: spi.RuntimeEnvPlugin, packing: spi.RuntimeEnvPacking, good_values: Sequence[Any]
    ) -> None:
        for value in good_values:
            once = plugin.pack(plugin.validate(value), packing)
            assert json.loads(json.dumps(once)) == once
            assert self.make().pack(plugin.validate(value), packing) == once
            assert plugin.pack(plugin.validate(once), packing) == once

    def test_build_says_how_workers_start_or_what_is_missing(
        self,
        plugin: spi.RuntimeEnvPlugin,
        packing: spi.RuntimeEnvPacking,
        build: building.Build,
        good_values: Sequence[Any],
    ) -> None:
        try:
            plugin.build(plugin.pack(plugin.validate(good_values[0]), packing), build)
        except exceptions.RuntimeEnvSetupError as error:
            pytest.skip(f"it cannot be built here: {error}")
        setup = build.workers
        assert all(isinstance(text, str) for pair in setup.env_vars.items() for text in pair)
        for found in (setup.import_paths, setup.package_paths, setup.interpreter, setup.around):
            assert isinstance(found, list)
            assert all(isinstance(text, str) for text in found)
        assert setup.cwd is None or os.path.isabs(setup.cwd)
        assert all(os.path.isabs(path) for path in (*setup.import_paths, *setup.package_paths))
