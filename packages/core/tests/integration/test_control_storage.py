"""The built-in control storages pass the suite that outside ones have to pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from umbel._plugins import builtin
from umbel.testing.conformance import ControlStorageConformance

STORAGES = {descriptor.name: descriptor for descriptor in builtin.umbel_control_storages()}


class TestSqlite(ControlStorageConformance):
    descriptor = STORAGES["sqlite"]

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/control.db"
