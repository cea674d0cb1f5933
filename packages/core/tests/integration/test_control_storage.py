"""The built-in control storages pass the suite that outside ones have to pass, on servers that are started here."""

from __future__ import annotations

from pathlib import Path

import control_servers
import pytest

from umbel._plugins import builtin
from umbel.testing.conformance import ControlStorageConformance

STORAGES = {descriptor.name: descriptor for descriptor in builtin.umbel_control_storages()}


class TestSqlite(ControlStorageConformance):
    descriptor = STORAGES["sqlite"]

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/control.db"


@pytest.mark.slow  # leases of seconds, processes that are killed
class TestRedis(ControlStorageConformance):
    descriptor = STORAGES["redis"]

    @pytest.fixture
    def url(self, redis_server: control_servers.Server) -> str:
        return control_servers.redis_url(redis_server)


@pytest.mark.slow
class TestEtcd(ControlStorageConformance):
    descriptor = STORAGES["etcd"]

    @pytest.fixture
    def url(self, etcd_server: control_servers.Server) -> str:
        return control_servers.etcd_url(etcd_server)
