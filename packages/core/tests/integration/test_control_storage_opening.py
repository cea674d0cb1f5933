"""Opening a control storage: what is refused and in which words, credentials, TLS, several endpoints."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import control_servers
import pytest

from umbel import exceptions
from umbel._control.storage import etcd_gateway, in_etcd, in_redis, opening

SECRET = "s3cret/?#"  # as it must be written in a URL: s3cret%2F%3F%23
QUOTED = "s3cret%2F%3F%23"


def works(url: str) -> None:
    with contextlib.closing(opening.open_storage(url, timeout_s=10.0)) as storage:
        lease = storage.acquire("the writer", 30.0)
        storage.commit([("a", b"1")], fencing=lease.fencing, number=1)
        assert list(storage.load()) == [("a", b"1")]
        storage.release(lease.fencing)


@pytest.mark.parametrize("url", ["", "control.db", "postgres://me:secret@host/db", "sqlite:/x", "me:secret@host"])
def test_unknown_scheme_names_the_known_ones(url: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match="etcd, etcds, redis, rediss, sqlite") as caught:
        opening.open_storage(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://control.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///tmp/",
        "sqlite:///tmp/x?prefix=a",
        "redis://me:secret@127.0.0.1:1/0?durable=perhaps",
        "redis://me:secret@127.0.0.1:1/0?nonsense=1",
        "redis://me:secret@127.0.0.1:1/0?prefix=a&prefix=b",
        "etcd://",
        "etcd://me:secret@127.0.0.1:1,:2",
        "etcd://me:secret@127.0.0.1:port",
        "etcd://me:secret@127.0.0.1:1/path",
        "etcd://me:secret@127.0.0.1:1?nonsense=1",
        "etcd://me:secret@127.0.0.1:1?ca=/x",
        "etcds://me:secret@127.0.0.1:1?ca=/nowhere",
    ],
)
def test_url_that_makes_no_sense_is_refused_without_its_password(url: str) -> None:
    if url.startswith("redis"):
        pytest.importorskip("redis")
    with pytest.raises(exceptions.InvalidOption) as caught:
        opening.open_storage(url, timeout_s=1.0)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "etcd", "etcds"])
def test_server_that_is_not_there_is_unavailable(scheme: str) -> None:
    if scheme.startswith("redis"):
        pytest.importorskip("redis")
    port = control_servers.free_port()
    with pytest.raises(
        exceptions.StorageUnavailable, match=rf"127.0.0.1:{port}.* cannot be reached.*refused"
    ) as caught:
        opening.open_storage(f"{scheme}://me:secret@127.0.0.1:{port}", timeout_s=1.0)
    assert "secret" not in str(caught.value)


def test_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(exceptions.PluginError, match=r'pip install "umbel\[redis\]"'):
        opening.open_storage("redis://127.0.0.1")


# SQLite


def test_file_is_for_its_user_only(tmp_path: Path) -> None:
    works(f"sqlite://{tmp_path}/control%20store.db")
    assert stat.S_IMODE(os.stat(tmp_path / "control store.db").st_mode) == 0o600


def test_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(exceptions.StorageUnavailable, match="directory must exist"):
        opening.open_storage(f"sqlite://{tmp_path}/nowhere/control.db")


def _text(path: Path) -> None:
    path.write_text("not a database, and long enough to have a header of one" * 10)


def _others(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL)")


@pytest.mark.parametrize("make", [_text, _others])
def test_file_of_something_else_is_left_as_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "control.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(exceptions.StorageMismatch, match="something else"):
        opening.open_storage(f"sqlite://{path}")
    assert path.read_bytes() == before


def test_newer_file_is_refused(tmp_path: Path) -> None:
    works(f"sqlite://{tmp_path}/control.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as db:
        db.execute("PRAGMA user_version = 2")
        db.execute("DROP TABLE leader")
    with pytest.raises(exceptions.StorageMismatch, match="format 2, this version of Umbel knows 1"):
        opening.open_storage(f"sqlite://{tmp_path}/control.db")


def test_many_can_open_a_new_file_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from umbel._control.storage import opening; print(opening.open_storage(sys.argv[1]).cluster_id)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, f"sqlite://{tmp_path}/control.db"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    told = {child.communicate(timeout=40)[0] for child in children}
    assert [child.returncode for child in children] == [0] * 4
    assert len(told) == 1


# Redis


def redis_asked(url: str, *command: Any) -> Any:
    with contextlib.closing(opening.open_storage(url)) as storage:
        assert isinstance(storage, in_redis.RedisStorage)
        return storage._ask(*command, doing="testing")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--appendonly", "no"], "appendonly is 'no' and must be 'yes'"),
        (["--appendfsync", "everysec"], "appendfsync is 'everysec' and must be 'always'"),
        (["--no-appendfsync-on-rewrite", "yes"], "no-appendfsync-on-rewrite is 'yes' and must be 'no'"),
        (
            ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
            "maxmemory-policy is 'allkeys-lru' and must be 'noeviction'",
        ),
    ],
)
@pytest.mark.slow
def test_redis_that_would_lose_what_it_acknowledges_is_refused(tmp_path: Path, options: list[str], told: str) -> None:
    pytest.importorskip("redis")
    with control_servers.running(control_servers.redis_server(tmp_path, *options)) as server:
        url = control_servers.redis_url(server)
        with pytest.raises(exceptions.ControlStorageError, match="would lose what it has acknowledged") as caught:
            opening.open_storage(url)
        assert told in str(caught.value)
        assert str(caught.value).count("must be") == 1
        works(f"{url}&durable=no")


@pytest.mark.slow
def test_credentials_of_redis(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    with control_servers.running(control_servers.redis_server(tmp_path, "--requirepass", SECRET)) as server:
        works(f"redis://:{QUOTED}@127.0.0.1:{server.port}/3?prefix=a")
        for wrong in ("", ":wr0ng@"):
            with pytest.raises(exceptions.AuthenticationError) as caught:
                opening.open_storage(f"redis://{wrong}127.0.0.1:{server.port}")
            assert "wr0ng" not in str(caught.value)


@pytest.mark.slow
def test_redis_that_does_not_tell_how_it_is_configured_is_refused(redis_server: control_servers.Server) -> None:
    url = control_servers.redis_url(redis_server)
    redis_asked(url, "ACL", "SETUSER", "limited", "on", ">pass", "~*", "+@all", "-config")
    url = url.replace("redis://", "redis://limited:pass@")
    with pytest.raises(exceptions.ControlStorageError, match="does not tell whether it keeps what it acknowledges"):
        opening.open_storage(url)
    works(f"{url}&durable=no")


@pytest.mark.slow
def test_newer_records_in_redis_are_refused(redis_server: control_servers.Server) -> None:
    url = control_servers.redis_url(redis_server)
    redis_asked(url, "HSET", f"{{{url.partition('prefix=')[2]}}}:meta", "format", "2")
    with pytest.raises(exceptions.StorageMismatch, match="format 2, this version of Umbel knows 1"):
        opening.open_storage(url)


@pytest.mark.slow
def test_redis_that_has_lost_its_data_is_told(redis_server: control_servers.Server) -> None:
    url = control_servers.redis_url(redis_server)
    with contextlib.closing(opening.open_storage(url)) as storage:
        lease = storage.acquire("the writer", 30.0)
        storage.commit([("a", b"1")], fencing=lease.fencing, number=1)
        redis_asked(url, "FLUSHALL")
        for ask in (
            storage.leader,
            lambda: list(storage.load()),
            lambda: storage.renew(lease.fencing),
            lambda: storage.commit([("a", b"2")], fencing=lease.fencing, number=2),
        ):
            with pytest.raises(exceptions.StorageMismatch, match="holds no longer what it held"):
                ask()


@pytest.mark.slow
def test_redis_that_was_restarted_gets_the_scripts_anew(redis_server: control_servers.Server) -> None:
    url = control_servers.redis_url(redis_server)
    with contextlib.closing(opening.open_storage(url)) as storage:
        lease = storage.acquire("the writer", 30.0)
        redis_asked(url, "SCRIPT", "FLUSH")
        storage.commit([("a", b"1")], fencing=lease.fencing, number=1)
        assert list(storage.load()) == [("a", b"1")]


@pytest.mark.slow
def test_no_snapshot_is_left_in_redis(redis_server: control_servers.Server) -> None:
    url = control_servers.redis_url(redis_server)
    with contextlib.closing(opening.open_storage(url)) as storage:
        lease = storage.acquire("the writer", 30.0)
        writes = [(f"{index}", b"x" * (20_000 if index % 2 else 10)) for index in range(600)]
        storage.commit(writes, fencing=lease.fencing, number=1)
        assert dict(storage.load()) == dict(writes)
        given_up = storage.load()
        next(given_up)
        given_up.close()  # type: ignore[attr-defined]  # it is a generator
        prefix = url.partition("prefix=")[2]
        names = redis_asked(url, "KEYS", f"*{prefix}*")
        assert sorted(name.decode().partition("}")[2] for name in names) == [":large", ":meta", ":small"]


# etcd


@pytest.mark.slow
def test_endpoints_are_tried_in_turn(etcd_server: control_servers.Server) -> None:
    dead = control_servers.free_port()
    url = control_servers.etcd_url(etcd_server).replace("etcd://", f"etcd://127.0.0.1:{dead},")
    works(url)


@pytest.mark.slow
def test_newer_records_in_etcd_are_refused(etcd_server: control_servers.Server) -> None:
    url = control_servers.etcd_url(etcd_server)
    with contextlib.closing(in_etcd.EtcdStorage(url)) as storage:
        storage._transaction([], [storage._put("about", b'{"format": 2, "cluster": "x"}')], "testing")
    with pytest.raises(exceptions.StorageMismatch, match="format 2, this version of Umbel knows 1"):
        opening.open_storage(url)


@pytest.mark.slow
def test_load_of_what_etcd_has_thrown_away_is_told(etcd_server: control_servers.Server) -> None:
    url = control_servers.etcd_url(etcd_server)
    with contextlib.closing(in_etcd.EtcdStorage(url)) as storage:
        lease = storage.acquire("the writer", 30.0)
        storage.commit([(f"{index:04d}", b"1") for index in range(2500)], fencing=lease.fencing, number=1)
        loading = storage.load()
        next(loading)
        storage.commit([("0000", b"2")], fencing=lease.fencing, number=2)
        revision = storage._read("state", doing="testing")[1]
        storage._call("/v3/kv/compaction", {"revision": revision}, "testing")
        with pytest.raises(exceptions.ControlStorageError, match="auto-compaction-retention"):
            list(loading)
        assert len(list(storage.load())) == 2500


@pytest.mark.slow
def test_credentials_of_etcd(tmp_path: Path) -> None:
    with control_servers.running(control_servers.etcd_server(tmp_path, "--auth-token-ttl", "1")) as server:
        login = etcd_gateway.Login([("127.0.0.1", server.port)], None, "", "")
        gateway = etcd_gateway.Gateway(login, place="etcd", timeout_s=10.0)
        for path, body in (
            ("user/add", {"name": "root", "password": SECRET}),
            ("user/add", {"name": "guest", "password": "guest"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("enable", {}),
        ):
            gateway.call(f"/v3/auth/{path}", body, doing="testing", changes=True)
        gateway.close()
        url = f"etcd://root:{QUOTED}@127.0.0.1:{server.port}"
        works(url)
        with contextlib.closing(in_etcd.EtcdStorage(url)) as storage:
            storage._gateway._token = "run.out"
            assert storage.acquire("again", 30.0).holder == "again"
        for who in ("", "root:wr0ng@", "guest:guest@"):
            with pytest.raises(exceptions.AuthenticationError, match=r"correct the user and the password") as caught:
                opening.open_storage(f"etcd://{who}127.0.0.1:{server.port}")
            assert "wr0ng" not in str(caught.value)


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority's ca.pem, and server.pem with server.key for 127.0.0.1, which clients use as well."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: apt-get install openssl")
    folder = tmp_path_factory.mktemp("certificates")
    new = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run(
        [*new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    subprocess.run(
        [
            *new, "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
            "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


def tls_urls(certificates: Path, server: control_servers.Server, kind: str) -> tuple[str, str]:
    """(with a client's certificate, without any authority)."""
    names = {"rediss": ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), "etcds": ("ca", "cert", "key")}[kind]
    files = ("ca.pem", "server.pem", "server.key")
    options = "&".join(f"{name}={certificates / file}" for name, file in zip(names, files, strict=True))
    url = f"{kind}://127.0.0.1:{server.port}/?prefix=a"
    return f"{url}&{options}", url


@pytest.fixture(params=["rediss", "etcds"])
def tls_server(
    request: pytest.FixtureRequest, certificates: Path, tmp_path: Path
) -> Iterator[tuple[str, control_servers.Server]]:
    ca, certificate, key = (str(certificates / name) for name in ("ca.pem", "server.pem", "server.key"))
    if request.param == "rediss":
        pytest.importorskip("redis")
        server = control_servers.redis_server(
            tmp_path, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca, is_tls=True
        )
    else:
        server = control_servers.etcd_server(
            tmp_path,
            "--cert-file",
            certificate,
            "--key-file",
            key,
            "--trusted-ca-file",
            ca,
            "--client-cert-auth",
            is_tls=True,
        )
    with control_servers.running(server):
        yield request.param, server


@pytest.mark.slow
def test_tls_with_certificates_of_both_sides(
    certificates: Path, tls_server: tuple[str, control_servers.Server]
) -> None:
    kind, server = tls_server
    url, without = tls_urls(certificates, server, kind)
    works(url)
    with pytest.raises(exceptions.StorageUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        opening.open_storage(without, timeout_s=5.0)
