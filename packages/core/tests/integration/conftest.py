"""Servers that several modules use, each started once for a module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import control_servers
import pytest


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control_servers.Server]:
    pytest.importorskip("redis")
    with control_servers.running(control_servers.redis_server(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture(scope="module")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control_servers.Server]:
    with control_servers.running(control_servers.etcd_server(tmp_path_factory.mktemp("etcd"))) as server:
        yield server
