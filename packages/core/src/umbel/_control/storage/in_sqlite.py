"""The control storage that is a file: SQLite, for a head that restarts on its own machine.

`sqlite:///var/lib/umbel/control.db`: the path is absolute, its directory exists. Any number of processes of one machine
may open it; on a network file system it does not work. A commit is a transaction in SQLite's write-ahead log, synced to
the disk before it returns. Leases are measured by the machine's clock since its start, which all its processes share,
and which goes on while it sleeps; a restart ends them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Sequence

from umbel import exceptions
from umbel._control.storage import contract, urls
from umbel._model.leases import Lease

APPLICATION_ID = 0x556D4331  # "UmC1", for `file` and against files of other programs
_SCHEMA = (
    "CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE cluster (id TEXT NOT NULL)",
    "CREATE TABLE leader (fencing INTEGER NOT NULL, number INTEGER NOT NULL, holder TEXT NOT NULL,"
    " ttl_s REAL NOT NULL, until_s REAL NOT NULL, boot TEXT NOT NULL)",
    "INSERT INTO leader VALUES (0, 0, '', 0, 0, '')",
)
_PUT = "INSERT INTO records VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class SqliteStorage:
    """A `spi.ControlStorage`."""

    def __init__(self, url: str, *, cluster_id: str | None = None, timeout_s: float = 5.0) -> None:
        self._path = _path_of(url)
        self._timeout_s = timeout_s
        self._boot = _boot_id()
        self._is_closed = False
        self._make_file()
        with self._told("opening it"):
            self._db = self._connect()
        try:
            self._cluster_id = self._prepare(cluster_id)
        except BaseException:
            self._db.close()
            raise

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    def load(self) -> Iterator[tuple[str, bytes]]:
        with self._told("reading the records"):
            db = self._connect()  # of its own: this one's commits would show in what it reads
        try:
            with self._told("reading the records"):
                yield from db.execute("SELECT key, value FROM records")  # one statement: it reads as of one moment
        finally:
            db.close()

    def commit(self, writes: Sequence[tuple[str, bytes | None]], *, fencing: int, number: int) -> None:
        last = contract.last_writes(writes)
        contract.check_fencing(self._path, fencing, self.leader)
        with self._transaction(f"commit {number}"):
            done = self._db.execute(
                "UPDATE leader SET number = ? WHERE fencing = ? AND number = ?", (number, fencing, number - 1)
            ).rowcount
            if not done:
                self._refuse_unless_repeated(fencing, number)
                return
            puts = [(key, value) for key, value in last.items() if value is not None]
            self._db.executemany(_PUT, puts)
            deletes = [(key,) for key, value in last.items() if value is None]
            self._db.executemany("DELETE FROM records WHERE key = ?", deletes)

    def acquire(self, holder: str, ttl_s: float) -> Lease:
        contract.check_holder(holder, ttl_s)
        with self._transaction("acquiring the lease"):
            now_s, lease = self._lease()
            if lease.holder not in ("", holder):
                return lease
            if not lease.holder:
                self._db.execute("UPDATE leader SET fencing = fencing + 1, number = 0, holder = ?", (holder,))
            fencing = lease.fencing + (not lease.holder)
            self._db.execute("UPDATE leader SET ttl_s = ?, until_s = ?, boot = ?", (ttl_s, now_s + ttl_s, self._boot))
            return Lease(holder, fencing, ttl_s)

    def renew(self, fencing: int) -> Lease:
        with self._transaction("renewing the lease"):
            now_s, lease = self._lease()
            if not lease.holder or lease.fencing != fencing:
                raise contract.fenced(self._path, fencing, lease)
            self._db.execute("UPDATE leader SET until_s = ? + ttl_s", (now_s,))
            return self._lease()[1]

    def release(self, fencing: int) -> None:
        with self._transaction("releasing the lease"):
            self._db.execute("UPDATE leader SET holder = '', until_s = 0 WHERE fencing = ?", (fencing,))

    def leader(self) -> Lease:
        with self._told("asking who leads"):
            return self._lease()[1]

    def watch_leader(self, seen: Lease, timeout_s: float) -> Lease:
        return contract.watch(self.leader, seen, timeout_s)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._db.close()

    # ---- below ----

    def _make_file(self) -> None:
        """For this user alone, as calls of users lie in it. One that is there is not opened: to close any descriptor of it would
        give up all locks that this process's connections have on it, and another process could remove the log that they write
        (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_)."""
        reason = ""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if not os.access(self._path, os.R_OK | os.W_OK):
                reason = os.strerror(errno.EACCES)
            elif os.path.isdir(self._path):
                reason = os.strerror(errno.EISDIR)
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            raise exceptions.StorageUnavailable(
                f"the control storage {self._path} cannot be opened: {reason}; its directory must exist and be writable"
            )

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL")  # what is committed is on the disk
        db.execute("PRAGMA fullfsync = ON")  # on macOS also out of the disk's own cache
        return db

    def _prepare(self, wanted: str | None) -> str:
        """Makes the tables, or looks at what is there. Returns whose it is."""
        with self._told("opening it"):
            if not self._value("SELECT count(*) FROM sqlite_master"):
                self._use_log()
        with self._transaction("opening it"):
            if not self._value("SELECT count(*) FROM sqlite_master"):
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute("INSERT INTO cluster VALUES (?)", (wanted or uuid.uuid4().hex,))
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {contract.FORMAT}")
            if self._value("PRAGMA application_id") != APPLICATION_ID:
                raise self._foreign()
            found = self._value("PRAGMA user_version")
            contract.check_owner(self._path, version=int(str(found)), cluster_id="", wanted=None)
            cluster_id = str(self._value("SELECT id FROM cluster"))
            contract.check_owner(self._path, version=int(str(found)), cluster_id=cluster_id, wanted=wanted)
        return cluster_id

    def _use_log(self) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            try:
                mode = self._value("PRAGMA journal_mode = WAL")
                break
            except (
                sqlite3.OperationalError
            ) as error:  # another process does the same: here SQLite does not wait by itself
                if not _is_busy(error) or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise exceptions.ControlStorageError(
                f"the file system of {self._path} does not allow a write-ahead log (SQLite uses {mode!r}); put the file on "
                "a local disk"
            )

    def _value(self, statement: str) -> object:
        return self._db.execute(statement).fetchone()[0]

    def _lease(self) -> tuple[float, Lease]:
        """(the time now, who leads)."""
        row = self._db.execute("SELECT fencing, holder, until_s, boot FROM leader").fetchone()
        fencing, holder, until_s, boot = row
        now_s = _now_s()  # after the lock was waited for
        left_s = until_s - now_s if boot == self._boot else 0.0
        return now_s, Lease(holder, fencing, left_s) if holder and left_s > 0 else Lease("", fencing, 0.0)

    def _refuse_unless_repeated(self, fencing: int, number: int) -> None:
        _, lease = self._lease()
        if lease.fencing != fencing:
            raise contract.fenced(self._path, fencing, lease)
        done = int(str(self._value("SELECT number FROM leader")))
        if done != number:
            raise contract.wrong_number(number, done=done)

    @contextlib.contextmanager
    def _transaction(self, doing: str) -> Iterator[None]:
        """All of it or nothing, and on the disk afterwards."""
        with self._told(doing):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._roll_back()
                raise
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if _is_busy(error):
                raise self._trouble(doing, error) from error
            # Its last page may be in the log all the same, and come to light when that is read after a crash.
            raise exceptions.StorageUncertain(
                f"writing {doing} to the control storage {self._path} failed: {error}; ask for the same again"
            ) from error

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # what led here is told; an open transaction dies with its process
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Errors of SQLite's that come before anything was committed, in words."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._trouble(doing, error) from error

    def _trouble(self, doing: str, error: sqlite3.Error) -> exceptions.ControlStorageError:
        text = str(error)
        if _is_busy(error):
            return exceptions.StorageUnavailable(
                f"{doing}: another process has been writing to the control storage {self._path} for {self._timeout_s:g} s; "
                "if it is stopped, continue or kill it"
            )
        if "not a database" in text:
            return self._foreign()
        return exceptions.ControlStorageError(f"{doing}: the control storage {self._path} does not work: {text}")

    def _foreign(self) -> exceptions.StorageMismatch:
        return exceptions.StorageMismatch(
            f"{self._path} is a file of something else than a control storage; choose another path"
        )


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error)  # Python 3.10 does not tell SQLite's code


def _path_of(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    urls.options_of(url, ())
    path = urllib.parse.unquote(parts.path)
    if parts.netloc or not path.strip("/") or path.endswith("/"):
        raise urls.invalid(
            url, "names no file; write sqlite:/// and an absolute path, as in sqlite:///var/lib/umbel/c.db"
        )
    return "/" + path.lstrip("/")


def _now_s() -> float:
    """One for all processes of the machine; goes on while that sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot_id() -> str:
    """Another one after each start of the machine, where the system tells; its clock starts anew with it."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
