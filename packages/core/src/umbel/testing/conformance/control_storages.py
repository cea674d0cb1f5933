"""What a control storage must do: one connection alone, several, and a process that is killed while it writes."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from umbel import exceptions, spi
from umbel.testing.conformance import suite

Storage = spi.ControlStorage
Write = tuple[str, "bytes | None"]

TTL_S = 30.0  # of leases that shall not run out in a test
SHORT_S = 1.0  # of those that shall; etcd knows whole seconds
LATE_S = 5.0  # within which a short one has run out: a storage may grant more than it was asked for
TIMEOUT_S = 10.0  # of one answer; only a failing test waits so long
PROCESS_TIMEOUT_S = 40.0  # starting Python and importing the plugin on a busy machine
KEYS = [
    "a",
    "a/",
    "a/b",
    "a0",
    "b",
    "ä",
    "\U0001f600",
    "with space",
    "new\nline",
    "nul\0",
    "\0",
    "%2F",
    "{x}",
    "k" * 1024,
]
VALUES = [b"", b"\0", b"plain", bytes(range(256)), b"s" * (16 << 10), b"t" * ((16 << 10) + 1), b"u" * (1 << 20)]
MANY = 5_000
KILLED_AFTER = [0, 1, 2, 5]  # acknowledged commits
WRITTEN_AT_ONCE = 400  # too many for one transaction of some storages


def commit_in_child() -> None:
    """Runs in a process of its own, until it is killed: each commit sets the same records, and is told on standard output
    once it has returned."""
    descriptor, url = pickle.load(sys.stdin.buffer)
    storage: Any = suite.make("control storage", descriptor, Storage, url, cluster_id=None, timeout_s=TIMEOUT_S)
    lease = storage.acquire(f"child {os.getpid()}", SHORT_S)
    print(lease.fencing, flush=True)
    for number in itertools.count(1):
        value = f"{lease.fencing:06d}.{number:06d}".encode() * 100
        storage.commit(
            [(f"{index:04d}", value) for index in range(WRITTEN_AT_ONCE)], fencing=lease.fencing, number=number
        )
        print(number, flush=True)


def load_in_child() -> None:
    """Runs in a process of its own: opens the storage, tells what is in it, and closes it."""
    descriptor, url = pickle.load(sys.stdin.buffer)
    storage: Any = suite.make("control storage", descriptor, Storage, url, cluster_id=None, timeout_s=TIMEOUT_S)
    with contextlib.closing(storage):
        pickle.dump(sorted(storage.load()), sys.stdout.buffer)


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """The first keys whose values differ: to look for all differences of large values takes pytest minutes."""
    keys = sorted(found.keys() | expected.keys())
    return [key for key in keys if found.get(key) != expected.get(key)][:5]


class Writer:
    """A lease, and commits under it with the numbers that come next."""

    def __init__(self, storage: Storage, holder: str = "the writer") -> None:
        self.storage = storage
        self.lease = acquired(storage, holder, TTL_S)
        self._numbers = itertools.count(1)

    def commit(self, *writes: Write) -> int:
        number = next(self._numbers)
        self.storage.commit(writes, fencing=self.lease.fencing, number=number)
        return number


def acquired(storage: Storage, holder: str, ttl_s: float) -> spi.Lease:
    lease = storage.acquire(holder, ttl_s)
    assert lease.holder == holder
    return lease


def acquired_in_time(storage: Storage, holder: str) -> spi.Lease:
    """Once the lease of the one who leads has run out."""
    deadline_s = time.monotonic() + SHORT_S + LATE_S
    while (lease := storage.acquire(holder, TTL_S)).holder != holder:
        assert time.monotonic() < deadline_s, f"{lease} does not run out"
        storage.watch_leader(lease, max(deadline_s - time.monotonic(), 0.0))
    return lease


class ControlStorageConformance(suite.Suite[Storage]):
    """Subclass it, set `descriptor`, whose factory has to be importable: another process opens the storage too; and
    override the fixture `url`."""

    kind = "control storage"
    descriptor_type = spi.ControlStorageDescriptor
    protocol = spi.ControlStorage

    @pytest.fixture
    def url(self) -> str:
        """Of one that is empty."""
        pytest.fail(f"{type(self).__name__} must have a fixture `url`: of a storage that holds nothing")

    def open(self, url: str, *, cluster_id: str | None = None, timeout_s: float = TIMEOUT_S) -> Storage:
        return self.make(url, cluster_id=cluster_id, timeout_s=timeout_s)

    @pytest.fixture
    def storage(self, url: str) -> Iterator[Storage]:
        with contextlib.closing(self.open(url)) as made:
            yield made

    @pytest.fixture
    def other(self, storage: Storage, url: str) -> Iterator[Storage]:
        """Another connection to the same, as another process has it."""
        with contextlib.closing(self.open(url)) as made:
            yield made

    # whose it is

    def test_cluster_id_is_kept(self, url: str) -> None:
        for wanted in ("mine", "mine", None):
            with contextlib.closing(self.open(url, cluster_id=wanted)) as opened:
                assert opened.cluster_id == "mine"

    def test_new_cluster_gets_an_id(self, storage: Storage, other: Storage) -> None:
        assert storage.cluster_id
        assert other.cluster_id == storage.cluster_id

    def test_records_of_another_cluster_are_left_alone(self, url: str) -> None:
        with contextlib.closing(self.open(url, cluster_id="theirs")) as opened:
            Writer(opened).commit(("a", b"1"))
            with pytest.raises(exceptions.StorageMismatch, match="theirs"):
                self.open(url, cluster_id="mine")
            assert dict(opened.load()) == {"a": b"1"}

    # records

    def test_nothing_is_there_at_first(self, storage: Storage) -> None:
        assert list(storage.load()) == []

    @pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{len(value)} bytes")
    def test_value_comes_back_as_it_was(self, storage: Storage, other: Storage, value: bytes) -> None:
        Writer(storage).commit(("key", value), ("another", b""))
        assert dict(other.load()) == {"key": value, "another": b""}

    def test_keys_are_told_apart(self, storage: Storage, other: Storage) -> None:
        Writer(storage).commit(*((key, key.encode()) for key in KEYS))
        found = list(other.load())
        assert sorted(found) == sorted((key, key.encode()) for key in KEYS)

    def test_records_are_replaced_and_deleted(self, storage: Storage, other: Storage) -> None:
        writer = Writer(storage)
        writer.commit(("a", b"1"), ("b", b"2"), ("c", b"3"))
        writer.commit(("b", b"new"), ("c", None), ("never there", None))
        assert dict(other.load()) == {"a": b"1", "b": b"new"}
        writer.commit(("c", b"again"))
        assert dict(other.load()) == {"a": b"1", "b": b"new", "c": b"again"}

    def test_last_write_of_a_key_counts(self, storage: Storage) -> None:
        Writer(storage).commit(("a", b"1"), ("b", b"1"), ("a", None), ("b", b"2"), ("c", None), ("c", b"3"))
        assert dict(storage.load()) == {"b": b"2", "c": b"3"}

    def test_record_grows_and_shrinks(self, storage: Storage, other: Storage) -> None:
        writer = Writer(storage)
        for value in (b"small", b"l" * 100_000, b"m" * 200_000, b"small again"):
            writer.commit(("a", value))
            assert list(other.load()) == [("a", value)]
        writer.commit(("a", b"l" * 100_000))
        writer.commit(("a", None))
        assert list(other.load()) == []

    def test_growing_goes_on_after_another_leader(self, storage: Storage, other: Storage) -> None:
        writer = Writer(storage, "first")
        writer.commit(("a", b"l" * 100_000), ("b", b"small"))
        storage.release(writer.lease.fencing)
        second = Writer(other, "second")
        second.commit(("a", b"small"), ("b", b"l" * 100_000))
        assert sorted(storage.load()) == [("a", b"small"), ("b", b"l" * 100_000)]
        other.release(second.lease.fencing)
        Writer(storage, "third").commit(("b", b"small"), ("c", b"c"))
        assert sorted(other.load()) == [("a", b"small"), ("b", b"small"), ("c", b"c")]

    def test_thousands_of_writes_are_one_commit(self, storage: Storage, other: Storage) -> None:
        writer = Writer(storage)
        writer.commit(*((f"{index:05d}", b"%d" % index) for index in range(MANY)))
        assert not differences(dict(other.load()), {f"{index:05d}": b"%d" % index for index in range(MANY)})
        changes: list[Write] = [(f"{index:05d}", None) for index in range(0, MANY, 2)]
        changes += [(f"{index:05d}", b"new") for index in range(1, MANY, 2)]
        writer.commit(*changes)
        assert not differences(dict(other.load()), {f"{index:05d}": b"new" for index in range(1, MANY, 2)})

    def test_large_values_fit_into_one_commit(self, storage: Storage, other: Storage) -> None:
        expected = {f"{index}": bytes([index]) * (1 << 20) for index in range(8)}
        Writer(storage).commit(*expected.items())
        assert not differences(dict(other.load()), expected)

    def test_nothing_can_be_committed(self, storage: Storage) -> None:
        writer = Writer(storage)
        writer.commit()
        writer.commit(("a", b"1"))
        assert dict(storage.load()) == {"a": b"1"}

    @pytest.mark.parametrize("key", ["", "\ud800"])
    def test_key_that_is_none_is_refused_and_nothing_changes(self, storage: Storage, key: str) -> None:
        lease = storage.acquire("the writer", TTL_S)
        with pytest.raises(exceptions.InvalidOption):
            storage.commit([("a", b"1"), (key, b"2")], fencing=lease.fencing, number=1)
        storage.commit([("b", b"1")], fencing=lease.fencing, number=1)
        assert dict(storage.load()) == {"b": b"1"}

    # one moment

    def test_load_is_of_one_moment(self, storage: Storage, other: Storage) -> None:
        writer = Writer(storage)
        before = {f"{index:05d}": b"before" for index in range(MANY)}
        writer.commit(*before.items())
        loading = other.load()
        found = dict(itertools.islice(loading, 3))
        writer.commit(*((key, None) for key in list(before)[::2]), *((key, b"after") for key in list(before)[1::2]))
        writer.commit(("late", b"after"), ("large", b"l" * 100_000))
        found.update(loading)
        assert not differences(found, before)
        assert len(dict(other.load())) == MANY // 2 + 2

    def test_loading_can_be_given_up(self, storage: Storage, other: Storage) -> None:
        writer = Writer(storage)
        writer.commit(*((f"{index:05d}", b"value") for index in range(MANY)))
        loading = other.load()
        next(loading)
        del loading
        writer.commit(("a", b"1"))
        assert len(list(other.load())) == MANY + 1

    def test_two_can_load_at_the_same_time(self, storage: Storage, other: Storage) -> None:
        Writer(storage).commit(*((f"{index:05d}", b"value") for index in range(MANY)))
        pairs = list(zip(storage.load(), other.load(), strict=True))
        assert len(dict(one for one, _ in pairs)) == len(dict(one for _, one in pairs)) == MANY

    def test_who_comes_and_goes_in_another_process_takes_nothing_along(
        self, storage: Storage, other: Storage, url: str
    ) -> None:
        """Two have it open in this process, as a head has: one for its records and one for its lease."""
        writer, found = Writer(storage), []
        for number in range(3):
            writer.commit(("a", b"%d" % number))
            done = subprocess.run(
                [sys.executable, "-c", f"from {__name__} import load_in_child; load_in_child()"],
                input=pickle.dumps((self.descriptor, url)), stdout=subprocess.PIPE, check=True, timeout=PROCESS_TIMEOUT_S,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            found.append(pickle.loads(done.stdout))
        assert found == [[("a", b"%d" % number)] for number in range(3)]
        assert dict(other.load()) == {"a": b"2"}

    def test_reader_sees_all_of_a_commit_or_nothing(self, storage: Storage, url: str) -> None:
        writer = Writer(storage)
        seen: list[dict[str, bytes]] = []
        is_over = threading.Event()

        def write(round_: int) -> None:
            writer.commit(*((f"{index:04d}", b"%d" % round_) for index in range(WRITTEN_AT_ONCE)))

        def read() -> None:
            with contextlib.closing(self.open(url)) as reader:
                while not is_over.is_set():
                    seen.append(dict(reader.load()))

        write(0)
        with in_thread(read):
            deadline_s = time.monotonic() + PROCESS_TIMEOUT_S / 2
            for round_ in itertools.count(1):
                write(round_)
                if len(seen) > 5 or time.monotonic() > deadline_s:
                    break
            is_over.set()
        assert len(seen) > 5
        assert {(len(found), len(set(found.values()))) for found in seen} == {(WRITTEN_AT_ONCE, 1)}

    # numbers

    def test_commit_that_is_repeated_is_done_once(self, storage: Storage, other: Storage) -> None:
        lease = storage.acquire("the writer", TTL_S)
        for number, writes in ((1, [("a", b"1")]), (2, [("a", b"2"), ("b", b"2")])):
            storage.commit(writes, fencing=lease.fencing, number=number)
        other.commit([("a", b"nonsense")], fencing=lease.fencing, number=2)
        assert dict(storage.load()) == {"a": b"2", "b": b"2"}
        storage.commit([("a", b"3")], fencing=lease.fencing, number=3)
        assert dict(storage.load()) == {"a": b"3", "b": b"2"}

    def test_many_writes_that_are_repeated_are_done_once(self, storage: Storage, other: Storage) -> None:
        lease = storage.acquire("the writer", TTL_S)
        writes = [(f"{index:04d}", b"1") for index in range(WRITTEN_AT_ONCE)]
        storage.commit(writes, fencing=lease.fencing, number=1)
        other.commit([(key, b"nonsense") for key, _ in writes], fencing=lease.fencing, number=1)
        assert {value for _, value in storage.load()} == {b"1"}
        other.commit([("0000", b"2")], fencing=lease.fencing, number=2)
        assert dict(storage.load())["0000"] == b"2"

    @pytest.mark.parametrize("number", [0, 1, 4, 5])
    @pytest.mark.parametrize("count", [1, WRITTEN_AT_ONCE])
    def test_number_out_of_turn_is_refused_and_nothing_changes(self, storage: Storage, number: int, count: int) -> None:
        lease = storage.acquire("the writer", TTL_S)
        for done in (1, 2):
            storage.commit([("a", b"%d" % done)], fencing=lease.fencing, number=done)
        with pytest.raises(exceptions.InvalidOption, match="number"):
            storage.commit([(f"{index:04d}", b"x") for index in range(count)], fencing=lease.fencing, number=number)
        storage.commit([("b", b"3")], fencing=lease.fencing, number=3)
        assert dict(storage.load()) == {"a": b"2", "b": b"3"}

    def test_numbers_go_on_in_another_connection(self, storage: Storage, other: Storage) -> None:
        lease = storage.acquire("the writer", TTL_S)
        storage.commit([("a", b"1")], fencing=lease.fencing, number=1)
        other.commit([("b", b"2")], fencing=lease.fencing, number=2)
        storage.commit([("c", b"3")], fencing=lease.fencing, number=3)
        assert dict(other.load()) == {"a": b"1", "b": b"2", "c": b"3"}

    # who leads

    def test_nobody_leads_at_first(self, storage: Storage) -> None:
        assert storage.leader() == spi.Lease("", 0, 0.0)

    @pytest.mark.parametrize("fencing", [0, 1, -1])
    def test_nobody_commits_without_a_lease(self, storage: Storage, fencing: int) -> None:
        with pytest.raises(exceptions.StorageFenced):
            storage.commit([("a", b"1")], fencing=fencing, number=1)
        assert list(storage.load()) == []

    def test_one_leads_and_others_are_told_who(self, storage: Storage, other: Storage) -> None:
        mine = acquired(storage, "first", TTL_S)
        assert mine.fencing >= 1
        assert TTL_S - 1 <= mine.remaining_s <= 2 * TTL_S
        for told in (other.acquire("second", TTL_S), other.leader()):
            assert told[:2] == ("first", mine.fencing)
            assert 0 < told.remaining_s <= mine.remaining_s
        other.commit([("a", b"1")], fencing=mine.fencing, number=1)

    def test_who_leads_acquires_again_and_keeps_his_number(self, storage: Storage, other: Storage) -> None:
        mine = acquired(storage, "first", TTL_S)
        storage.commit([("a", b"1")], fencing=mine.fencing, number=1)
        assert acquired(other, "first", TTL_S).fencing == mine.fencing
        storage.commit([("a", b"2")], fencing=mine.fencing, number=2)

    def test_later_lease_has_a_larger_number_and_fences_the_earlier_one(self, storage: Storage, other: Storage) -> None:
        first = acquired(storage, "first", TTL_S)
        storage.commit([("a", b"1")], fencing=first.fencing, number=1)
        storage.release(first.fencing)
        second = acquired(other, "second", TTL_S)
        assert second.fencing > first.fencing
        for count, number in itertools.product((1, WRITTEN_AT_ONCE), (1, 2, 3)):
            with pytest.raises(exceptions.StorageFenced, match="second") as caught:
                storage.commit([(f"{index:04d}", b"x") for index in range(count)], fencing=first.fencing, number=number)
            assert (caught.value.fencing, caught.value.leader) == (first.fencing, "second")
            assert caught.value.leader_fencing == second.fencing
        with pytest.raises(exceptions.StorageFenced):
            storage.renew(first.fencing)
        storage.release(first.fencing)  # does nothing
        other.commit([("b", b"1")], fencing=second.fencing, number=1)
        assert dict(storage.load()) == {"a": b"1", "b": b"1"}

    def test_who_comes_back_has_another_number(self, storage: Storage) -> None:
        first = acquired(storage, "first", TTL_S)
        storage.release(first.fencing)
        assert storage.leader() == spi.Lease("", first.fencing, 0.0)
        assert acquired(storage, "first", TTL_S).fencing > first.fencing

    def test_lease_runs_out(self, storage: Storage, other: Storage) -> None:
        first = acquired(storage, "first", SHORT_S)
        second = acquired_in_time(other, "second")
        assert second.fencing > first.fencing
        with pytest.raises(exceptions.StorageFenced):
            storage.renew(first.fencing)
        with pytest.raises(exceptions.StorageFenced):
            storage.commit([("a", b"1")], fencing=first.fencing, number=1)
        assert list(other.load()) == []

    def test_lease_that_has_run_out_cannot_be_renewed(self, storage: Storage) -> None:
        first = acquired(storage, "first", SHORT_S)
        assert storage.watch_leader(first, SHORT_S + LATE_S) == spi.Lease("", first.fencing, 0.0)
        with pytest.raises(exceptions.StorageFenced, match="nobody leads"):
            storage.renew(first.fencing)

    def test_renewing_prolongs(self, storage: Storage, other: Storage) -> None:
        first = acquired(storage, "first", SHORT_S)
        until_s = time.monotonic() + SHORT_S + LATE_S
        while time.monotonic() < until_s:
            renewed = other.renew(first.fencing)
            assert renewed[:2] == first[:2]
            assert 0 < renewed.remaining_s <= SHORT_S + LATE_S
            assert storage.watch_leader(first, SHORT_S / 4)[:2] == first[:2]

    def test_lease_is_renewed_while_a_long_commit_is_under_way(self, storage: Storage, other: Storage) -> None:
        writer = Writer(storage)

        def commit() -> None:
            for _ in range(2):
                writer.commit(*((f"{index:05d}", b"value" * 20) for index in range(2 * MANY)))

        with in_thread(commit):
            for _ in range(20):
                assert other.renew(writer.lease.fencing)[:2] == writer.lease[:2]
        assert len(list(other.load())) == 2 * MANY

    def test_released_lease_cannot_be_renewed(self, storage: Storage) -> None:
        first = acquired(storage, "first", TTL_S)
        storage.release(first.fencing)
        storage.release(first.fencing)
        with pytest.raises(exceptions.StorageFenced, match="nobody leads"):
            storage.renew(first.fencing)

    def test_of_many_who_acquire_one_leads(self, storage: Storage, url: str) -> None:
        told: list[spi.Lease] = []

        def acquire(name: str) -> Callable[[], None]:
            def run() -> None:
                with contextlib.closing(self.open(url)) as opened:
                    told.append(opened.acquire(name, TTL_S))

            return run

        with contextlib.ExitStack() as threads:
            for index in range(4):
                threads.enter_context(in_thread(acquire(f"holder {index}")))
        assert len({lease[:2] for lease in told}) == 1

    def test_watching_ends_when_time_is_up(self, storage: Storage, other: Storage) -> None:
        first = acquired(storage, "first", TTL_S)
        started_s = time.monotonic()
        assert other.watch_leader(first, 0.3)[:2] == first[:2]
        assert 0.3 <= time.monotonic() - started_s < TTL_S
        assert other.watch_leader(spi.Lease("", 0, 0.0), TTL_S)[:2] == first[:2]  # at once

    def test_watching_ends_with_the_lease(self, storage: Storage, url: str) -> None:
        first = acquired(storage, "first", TTL_S)
        told: list[spi.Lease] = []

        def watch() -> None:
            with contextlib.closing(self.open(url)) as opened:
                told.append(opened.watch_leader(first, TTL_S))

        with in_thread(watch):
            storage.release(first.fencing)
        assert told == [spi.Lease("", first.fencing, 0.0)]

    # processes

    @pytest.mark.parametrize("count", KILLED_AFTER)
    def test_killed_writer_leaves_whole_commits(self, storage: Storage, url: str, count: int) -> None:
        fencing, last = self.kill_child(url, count)
        writer = acquired_in_time(storage, "the next")
        assert writer.fencing > fencing
        self.check_whole(storage, fencing, last)
        storage.commit([("0000", b"new")], fencing=writer.fencing, number=1)
        found = dict(storage.load())
        assert found.pop("0000") == b"new"
        if found:
            self.check_whole_values(set(found.values()), fencing, last)

    def kill_child(self, url: str, count: int) -> tuple[int, int]:
        """(the child's fencing number, the number of the last commit that it was told is done)."""
        with subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import commit_in_child; commit_in_child()"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            stop = threading.Timer(PROCESS_TIMEOUT_S, child.kill)
            stop.start()
            try:
                child.stdin.write(pickle.dumps((self.descriptor, url)))
                child.stdin.close()
                told = [int(child.stdout.readline()) for _ in range(count + 1)]
                child.send_signal(signal.SIGKILL)
                rest = [int(line) for line in child.stdout.read().split()]
            finally:
                stop.cancel()
                child.kill()
        return told[0], max([0, *told[1:], *rest])

    def check_whole(self, storage: Storage, fencing: int, last: int) -> None:
        found = dict(storage.load())
        assert len(found) in ((0, WRITTEN_AT_ONCE) if last == 0 else (WRITTEN_AT_ONCE,))
        if found:
            self.check_whole_values(set(found.values()), fencing, last)

    def check_whole_values(self, values: set[bytes], fencing: int, last: int) -> None:
        """All of one commit, of the last that was acknowledged or the one after it."""
        assert len(values) == 1
        (value,) = values
        assert value[:13] in [f"{fencing:06d}.{number:06d}".encode() for number in (last, last + 1)]

    def test_records_are_there_after_closing(self, url: str) -> None:
        for round_ in range(3):
            with contextlib.closing(self.open(url)) as opened:
                assert len(list(opened.load())) == round_
                writer = Writer(opened, f"round {round_}")
                writer.commit((f"{round_}", b"value"))
                opened.release(writer.lease.fencing)
        opened.close()
        opened.close()


@contextlib.contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[None]:
    """Until it has ended; raises what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(PROCESS_TIMEOUT_S)
        assert not thread.is_alive()
    if raised:
        raise raised[0]
