"""Control storages under attack: writers killed between any two steps, servers killed and stopped, leaders that were
paused. (docs/invariants.md, L1 to L3)"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import control_servers
import drivers
import pytest

from umbel import exceptions, spi
from umbel._control.storage import contract, etcd_gateway, in_etcd, in_redis, in_sqlite, opening

pytestmark = pytest.mark.slow  # servers and processes are started and killed

TTL_S = 30.0
SHORT_S = 1.0
PROCESS_S = 40.0  # for a child on a busy machine
OLD = {f"{index:03d}": b"old" for index in range(150)} | {"large": b"o" * 100_000, "gone": b"old"}
NEW: dict[str, bytes | None] = {
    f"{index:03d}": b"new" for index in range(150)
}  # too many for one transaction of etcd's
NEW |= {"large": b"n" * 2_000, "huge": b"n" * (1 << 20), "gone": None}
AFTER = {key: value for key, value in {**OLD, **NEW}.items() if value is not None}


@pytest.fixture(params=["redis", "etcd"])
def server(request: pytest.FixtureRequest) -> control_servers.Server:
    return cast(control_servers.Server, request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture
def server_url(request: pytest.FixtureRequest, server: control_servers.Server) -> str:
    return url_of(request.node.callspec.params["server"], server)


@pytest.fixture(params=["sqlite", "redis", "etcd"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/control.db"
    return url_of(request.param, request.getfixturevalue(f"{request.param}_server"))


def url_of(kind: str, server: control_servers.Server) -> str:
    return control_servers.redis_url(server) if kind == "redis" else control_servers.etcd_url(server)


@contextlib.contextmanager
def opened(url: str, timeout_s: float = 10.0) -> Iterator[spi.ControlStorage]:
    with contextlib.closing(opening.open_storage(url, timeout_s=timeout_s)) as storage:
        yield storage


def killed_in_child(work: Callable[[], None]) -> bool:
    """Runs it in a process of its own; whether it was killed there, by itself."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def check_next_leader(url: str, fencing: int) -> None:
    """What a killed writer of NEW over OLD has left: one of them, before and after the next leader's first commit; and the
    same commit can be repeated under the old lease until there is another one."""
    with opened(url) as storage:
        found = dict(storage.load())
        assert found in (OLD, AFTER)
        storage.commit(list(NEW.items()), fencing=fencing, number=2)
        assert dict(storage.load()) == AFTER
        storage.release(fencing)
        lease = storage.acquire("the next", TTL_S)
        with pytest.raises(exceptions.StorageFenced):
            storage.commit(list(OLD.items()), fencing=fencing, number=3)
        storage.commit([("001", None)], fencing=lease.fencing, number=1)
        expected = {key: value for key, value in AFTER.items() if key != "001"}
        assert dict(storage.load()) == expected


def check_later_leader(url: str, fencing: int) -> None:
    """Likewise, where nobody repeats it."""
    with opened(url) as storage:
        found = dict(storage.load())
        assert found in (OLD, AFTER)
        storage.release(fencing)
        lease = storage.acquire("the next", TTL_S)
        many = {f"x{index:03d}": b"x" for index in range(150)}
        storage.commit(list(many.items()), fencing=lease.fencing, number=1)
        assert dict(storage.load()) == {**found, **many}


def prepared(url: str) -> int:
    """A lease's fencing number, under which OLD is commit 1."""
    with opened(url) as storage:
        fencing = storage.acquire("the writer", TTL_S).fencing
        storage.commit(list(OLD.items()), fencing=fencing, number=1)
    return fencing


def dying_sqlite(url: str, fencing: int, step: int) -> bool:
    def work() -> None:
        storage = in_sqlite.SqliteStorage(url)
        statements = itertools.count()
        storage._db.set_trace_callback(lambda _: die() if next(statements) == step else None)
        storage.commit(list(NEW.items()), fencing=fencing, number=2)

    return killed_in_child(work)


class _DyingGateway(etcd_gateway.Gateway):
    """Kills its process before one of its changes."""

    def __init__(self, gateway: etcd_gateway.Gateway, step: int) -> None:
        super().__init__(gateway._login, place=gateway._place, timeout_s=gateway._timeout_s)
        self._steps = itertools.count()
        self._step = step

    def call(self, path: str, body: Mapping[str, Any], *, doing: str, changes: bool = False) -> etcd_gateway.Json:
        if changes and next(self._steps) == self._step:
            die()
        return super().call(path, body, doing=doing, changes=changes)


def dying_etcd(url: str, fencing: int, step: int) -> bool:
    def work() -> None:
        storage = in_etcd.EtcdStorage(url)
        storage._gateway = _DyingGateway(storage._gateway, step)
        storage.commit(list(NEW.items()), fencing=fencing, number=2)

    return killed_in_child(work)


@pytest.mark.parametrize("step", range(0, 160, 9))
@pytest.mark.parametrize("check", [check_next_leader, check_later_leader])
def test_killed_between_statements_of_sqlite(tmp_path: Path, step: int, check: Callable[[str, int], None]) -> None:
    url = f"sqlite://{tmp_path}/control.db"
    fencing = prepared(url)
    assert dying_sqlite(url, fencing, step) == (step < 156)
    check(url, fencing)


@pytest.mark.parametrize("step", range(7))
@pytest.mark.parametrize("check", [check_next_leader, check_later_leader])
def test_killed_between_transactions_of_etcd(
    etcd_server: control_servers.Server, step: int, check: Callable[[str, int], None]
) -> None:
    url = control_servers.etcd_url(etcd_server)
    fencing = prepared(url)
    assert dying_etcd(url, fencing, step) == (step < 6)
    check(url, fencing)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_nothing_is_left_of_what_was_not_finished(etcd_server: control_servers.Server, step: int) -> None:
    url = control_servers.etcd_url(etcd_server)
    fencing = prepared(url)
    assert dying_etcd(url, fencing, step)
    with contextlib.closing(in_etcd.EtcdStorage(url)) as storage:
        assert storage._keys("pieces/", "testing")
        storage.release(fencing)
        lease = storage.acquire("the next", TTL_S)
        storage.commit([("a", b"1")], fencing=lease.fencing, number=1)
        assert storage._keys("pieces/", "testing") == []
        assert storage._read("marker", doing="testing")[0] == b""


def test_killed_while_what_was_left_is_finished(etcd_server: control_servers.Server) -> None:
    """The second leader dies as the first did, at every step of what it finishes for the first."""
    for step in range(7):
        url = control_servers.etcd_url(etcd_server)
        fencing = prepared(url)
        assert dying_etcd(url, fencing, 4)  # marked, and one group of its writes made
        with opened(url) as storage:
            storage.release(fencing)
            second = storage.acquire("second", TTL_S).fencing

        def finish(url: str = url, second: int = second, step: int = step) -> None:
            storage = in_etcd.EtcdStorage(url)
            storage._gateway = _DyingGateway(storage._gateway, step)
            storage.commit([("second", b"1")], fencing=second, number=1)

        killed_in_child(finish)
        with opened(url) as storage:
            assert {key: value for key, value in storage.load() if key != "second"} == AFTER
            storage.commit([("second", b"1")], fencing=second, number=1)
            storage.commit([("002", None)], fencing=second, number=2)
            found = dict(storage.load())
            assert "002" not in found
            assert found.pop("second") == b"1"
            assert len(found) == len(AFTER) - 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_the_script_of_redis(redis_server: control_servers.Server, when: str) -> None:
    url = control_servers.redis_url(redis_server)
    fencing = prepared(url)

    def work() -> None:
        storage = in_redis.RedisStorage(url)
        ask = storage._ask

        def asking(*command: Any, doing: str, changes: bool = False) -> Any:
            if changes and when == "before":
                die()
            answer = ask(*command, doing=doing, changes=changes)
            if changes:
                die()
            return answer

        storage._ask = asking  # type: ignore[method-assign]  # to be killed there
        storage.commit(list(NEW.items()), fencing=fencing, number=2)

    assert killed_in_child(work)
    with opened(url) as storage:
        assert dict(storage.load()) == (OLD if when == "before" else AFTER)
    check_next_leader(url, fencing)


# Servers


def test_server_that_is_killed_and_started_again_loses_nothing(server: control_servers.Server, server_url: str) -> None:
    """Killed at moments that nobody chose, while commits are under way."""
    with opened(server_url, timeout_s=2.0) as storage:
        fencing = storage.acquire("the writer", 300.0).fencing
        number = 0
        for _ in range(4):
            killer = threading.Timer(0.3, server.kill)
            killer.start()
            while True:
                number += 1
                value = b"%06d" % number
                try:
                    storage.commit([(f"{index:03d}", value) for index in range(150)], fencing=fencing, number=number)
                except (exceptions.StorageUncertain, exceptions.StorageUnavailable):
                    break
            killer.join()
            server.start()
            values = set(dict(storage.load()).values())
            assert values in ({value}, {b"%06d" % (number - 1)})
            storage.commit([(f"{index:03d}", value) for index in range(150)], fencing=fencing, number=number)
            assert set(dict(storage.load()).values()) == {value}
        assert storage.renew(fencing).holder == "the writer"  # the lease has been kept too


def test_stopped_server_is_uncertain_and_then_asked_for_the_same(
    server: control_servers.Server, server_url: str
) -> None:
    with opened(server_url, timeout_s=1.0) as storage:
        fencing = storage.acquire("the writer", 300.0).fencing
        storage.commit([("a", b"1")], fencing=fencing, number=1)
        server.freeze()
        try:
            with pytest.raises(exceptions.StorageUncertain, match=r"commit 2: .* has not answered within 1 s"):
                storage.commit([("a", b"2")], fencing=fencing, number=2)
            with pytest.raises((exceptions.StorageUncertain, exceptions.StorageUnavailable)):
                storage.commit([("a", b"2")], fencing=fencing, number=2)
            with pytest.raises(exceptions.StorageUnavailable):
                storage.leader()
        finally:
            server.go_on()
        storage.commit([("a", b"2")], fencing=fencing, number=2)
        storage.commit([("a", b"3"), ("b", b"3")], fencing=fencing, number=3)
        assert dict(storage.load()) == {"a": b"3", "b": b"3"}


def test_server_that_is_gone_is_unavailable(server: control_servers.Server, server_url: str) -> None:
    with opened(server_url, timeout_s=2.0) as storage:
        lease = storage.acquire("the writer", 300.0)
        server.kill()
        try:
            with pytest.raises(exceptions.StorageUnavailable, match="cannot be reached"):
                opening.open_storage(server_url, timeout_s=2.0)
            for ask in (storage.leader, lambda: storage.watch_leader(lease, 1.0), lambda: list(storage.load())):
                with pytest.raises(exceptions.StorageUnavailable):
                    ask()
            with pytest.raises(exceptions.StorageUnavailable):
                storage.commit([("a", b"1")], fencing=lease.fencing, number=1)
        finally:
            server.start()
        storage.commit([("a", b"1")], fencing=lease.fencing, number=1)
        assert dict(storage.load()) == {"a": b"1"}


# Leaders

_LEADER = """
import sys
from umbel import exceptions
from umbel._control.storage import opening
storage = opening.open_storage(sys.argv[1], timeout_s=10.0)
lease = storage.acquire("paused", float(sys.argv[2]))
print(lease.fencing, flush=True)
number = 0
for line in sys.stdin:
    number += 1
    try:
        storage.commit([(f"{index:03d}", b"paused %d" % number) for index in range(150)], fencing=lease.fencing, number=number)
        print("done", flush=True)
    except exceptions.StorageFenced as error:
        print("fenced by", error.leader, flush=True)
"""


def test_paused_leader_is_fenced_when_it_wakes_up(url: str) -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", _LEADER, url, str(SHORT_S)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    stop = threading.Timer(PROCESS_S, leader.kill)
    stop.start()
    try:
        assert leader.stdin is not None
        assert leader.stdout is not None
        first = int(leader.stdout.readline())
        leader.stdin.write("commit\n")
        assert leader.stdout.readline() == "done\n"
        drivers.freeze(leader.pid)
        leader.stdin.write("commit\n")  # it believes to lead when it reads this
        with opened(url) as standby:
            seen = standby.leader()
            while (lease := standby.acquire("standby", TTL_S)).holder != "standby":
                seen = standby.watch_leader(seen, PROCESS_S)
            assert lease.fencing > first
            assert set(dict(standby.load()).values()) == {b"paused 1"}
            standby.commit([("000", b"standby")], fencing=lease.fencing, number=1)
            leader.send_signal(signal.SIGCONT)
            assert leader.stdout.readline() == "fenced by standby\n"
            found = dict(standby.load())
            assert found.pop("000") == b"standby"
            assert set(found.values()) == {b"paused 1"}
    finally:
        stop.cancel()
        leader.kill()
        leader.communicate()


def test_two_leaders_race_and_only_the_later_one_writes(url: str) -> None:
    """Two take the lease from each other as fast as they can; every record is of the commit that was last acknowledged."""
    acknowledged: list[tuple[int, int]] = []
    lock = threading.Lock()
    failed: list[BaseException] = []

    def lead(name: str) -> None:
        try:
            with opened(url) as storage:
                for round_ in range(6):
                    holder = f"{name} {round_}"
                    while (lease := storage.acquire(holder, TTL_S)).holder != holder:
                        with contextlib.suppress(exceptions.StorageFenced):  # as if it had run out
                            storage.release(lease.fencing)
                    for number in range(1, 4):
                        value = b"%d.%d" % (lease.fencing, number)
                        try:
                            storage.commit(
                                [(f"{index:03d}", value) for index in range(100)], fencing=lease.fencing, number=number
                            )
                        except exceptions.StorageFenced:
                            break
                        with lock:
                            acknowledged.append((lease.fencing, number))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=lead, args=(name,), daemon=True) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROCESS_S)
    assert failed == []
    assert not any(thread.is_alive() for thread in threads)
    with opened(url) as storage:
        (value,) = set(dict(storage.load()).values())
    assert value == b"%d.%d" % max(acknowledged)


# What comes late


def test_removal_of_old_pieces_that_comes_late_does_not_break_a_commit(etcd_server: control_servers.Server) -> None:
    """A leader's first commit finds pieces of a former one's and asks for their removal; that is held up on the way, and comes
    when the pieces of its own commit are written: between them and the marker."""
    url = control_servers.etcd_url(etcd_server)
    fencing = prepared(url)
    assert dying_etcd(url, fencing, 1)  # a piece, no marker
    storage = in_etcd.EtcdStorage(url)
    real = storage._gateway.call
    held: list[tuple[str, Mapping[str, Any]]] = []

    def call(path: str, body: Mapping[str, Any], *, doing: str, changes: bool = False) -> etcd_gateway.Json:
        operations = body.get("success", [])
        if changes and not held and any("request_delete_range" in one for one in operations):
            held.append((path, body))
            return {"succeeded": True}  # as it will be
        if held and any(one.get("target") == "CREATE" for one in body.get("compare", [])):  # the marker
            path_late, body_late = held[0]
            if len(held) == 1:
                held.append(held[0])
                real(path_late, body_late, doing=doing, changes=True)
        return real(path, body, doing=doing, changes=changes)

    storage._gateway.call = call  # type: ignore[method-assign]  # the network
    with contextlib.closing(storage):
        with pytest.raises(exceptions.StorageUnavailable, match="is gone; ask again"):
            storage.commit(list(NEW.items()), fencing=fencing, number=2)
        assert dict(storage.load()) == OLD
        storage.commit(list(NEW.items()), fencing=fencing, number=2)
        assert dict(storage.load()) == AFTER


# What SQLite alone can do


def test_disk_that_is_full_refuses_a_commit_as_a_whole(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/control.db"
    fencing = prepared(url)
    storage = in_sqlite.SqliteStorage(url)
    with contextlib.closing(storage):
        pages = storage._value("PRAGMA page_count")
        storage._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(exceptions.ControlStorageError, match="full") as caught:
            storage.commit([("new", b"n" * 1_000_000)], fencing=fencing, number=2)
        assert type(caught.value) is exceptions.ControlStorageError
        storage.commit([("000", b"new")], fencing=fencing, number=2)
        assert dict(storage.load()) == {**OLD, "000": b"new"}


class _FailingDisk:
    """A connection whose disk fails once while it commits, before or after the commit has reached it."""

    def __init__(self, db: sqlite3.Connection, *, has_happened: bool) -> None:
        self._db = db
        self._has_happened = has_happened
        self._is_whole = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and not self._is_whole:
            self._is_whole = True
            if self._has_happened:
                self._db.execute(statement)
            raise sqlite3.OperationalError("disk I/O error")
        return self._db.execute(statement, *values)


@pytest.mark.parametrize("has_happened", [False, True])
def test_disk_that_fails_in_a_commit_leaves_it_uncertain(tmp_path: Path, has_happened: bool) -> None:
    url = f"sqlite://{tmp_path}/control.db"
    fencing = prepared(url)
    storage: Any = in_sqlite.SqliteStorage(url)
    with contextlib.closing(storage):
        storage._db = _FailingDisk(storage._db, has_happened=has_happened)
        with pytest.raises(exceptions.StorageUncertain, match=r"commit 2 .* disk I/O error; ask for the same again"):
            storage.commit(list(NEW.items()), fencing=fencing, number=2)
        assert dict(storage.load()) == (AFTER if has_happened else OLD)
        storage.commit(list(NEW.items()), fencing=fencing, number=2)
        assert dict(storage.load()) == AFTER


def test_process_that_keeps_the_file_locked_is_named_after_a_time(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fencing = prepared(f"sqlite://{path}")
    with opened(f"sqlite://{path}", timeout_s=0.2) as storage:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(exceptions.StorageUnavailable, match=r"another process has been writing .* for 0.2 s"):
            storage.commit([("a", b"1")], fencing=fencing, number=2)
        assert dict(storage.load()) == OLD
        other.close()
        storage.commit([("a", b"1")], fencing=fencing, number=2)


def test_lease_ends_with_the_start_of_the_machine(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/control.db"
    fencing = prepared(url)
    with opened(url) as storage:
        cast(in_sqlite.SqliteStorage, storage)._boot = "another start"
        assert storage.leader() == spi.Lease("", fencing, 0.0)
        assert storage.acquire("the next", TTL_S).fencing == fencing + 1


def test_limits_are_those_of_the_interface() -> None:
    assert (contract.KEY_BYTES_MAX, contract.VALUE_BYTES_MAX, contract.WRITES_MAX) == (1024, 1 << 20, 100_000)
    with pytest.raises(exceptions.InvalidOption, match="1048577"):
        contract.last_writes([("a", b"x" * (contract.VALUE_BYTES_MAX + 1))])
    with pytest.raises(exceptions.InvalidOption, match="1 to 1024 bytes"):
        contract.last_writes([("k" * 1025, b"")])
    with pytest.raises(exceptions.InvalidOption, match="100000 writes"):
        contract.last_writes([(str(index), b"") for index in range(contract.WRITES_MAX + 1)])
    with pytest.raises(exceptions.InvalidOption, match="67108864 bytes"):
        contract.last_writes([(str(index), b"x" * (1 << 20)) for index in range(65)])
