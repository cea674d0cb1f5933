"""The history in an SQLite file: writing batches down, turning them into rows, looking things up, removing what is old.

A batch is first written down whole, which costs a copy, and turned into rows later (`absorb`), which costs several
microseconds a task. Questions are answered from both: `recent` looks through what is only written down, so that nobody
waits for rows. Several processes may have the file open and absorb; each step is one transaction. This module imports
sqlite3, so that whoever has no history does not import this module.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import operator
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from umbel import exceptions
from umbel._history import batches, codes, conditions, recent, retention, selections

Error = sqlite3.Error
BUSY_S = 10.0  # for another process's transaction, which takes milliseconds unless that process is starved or stopped
CACHE_KIB = 8_192
MERGED_MAX = 100_000  # tasks of one answer, or before it, that are no rows yet: 0.1 s; for more, rows are made first
_SCHEMA = """
CREATE TABLE raw (id INTEGER PRIMARY KEY AUTOINCREMENT, header BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE digests (batch INTEGER PRIMARY KEY, digest BLOB NOT NULL);
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE owners (id INTEGER PRIMARY KEY, process TEXT NOT NULL UNIQUE, job TEXT NOT NULL);
CREATE TABLE workers (id INTEGER PRIMARY KEY, worker TEXT NOT NULL UNIQUE, node TEXT, pid INTEGER, ready REAL,
    ended REAL, exit_type TEXT, exit_detail TEXT);
CREATE TABLE actors (actor TEXT PRIMARY KEY, ended REAL NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX actors_by_end ON actors (ended);
CREATE TABLE kinds (id INTEGER PRIMARY KEY, name TEXT NOT NULL, function TEXT NOT NULL, type TEXT NOT NULL,
    actor TEXT NOT NULL, resources TEXT NOT NULL, env TEXT NOT NULL, call_site TEXT NOT NULL,
    UNIQUE (name, function, type, actor, resources, env, call_site));
CREATE INDEX kinds_by_actor ON kinds (actor) WHERE actor <> '';
CREATE TABLE tasks (owner INTEGER NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL, kind INTEGER NOT NULL,
    state INTEGER NOT NULL, worker INTEGER, parent_owner INTEGER, parent_seq INTEGER,
    submitted REAL, started REAL, ended REAL NOT NULL, PRIMARY KEY (owner, seq, attempt)) WITHOUT ROWID;
CREATE INDEX tasks_by_kind ON tasks (kind, state);
CREATE INDEX tasks_by_end ON tasks (ended);
CREATE INDEX tasks_by_start ON tasks (started);
CREATE INDEX tasks_by_submission ON tasks (submitted);
CREATE INDEX tasks_failed ON tasks (state) WHERE state = 2;
CREATE TABLE failures (owner INTEGER NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL, type TEXT NOT NULL,
    message TEXT NOT NULL, PRIMARY KEY (owner, seq, attempt)) WITHOUT ROWID;
"""
_VERSION = 2  # of the schema, for files that are kept
_COLUMNS = "owner, seq, attempt, kind, state, worker, parent_owner, parent_seq, submitted, started, ended"
_TASK = """
SELECT o.process, t.seq, t.attempt, k.name, k.function, k.type, k.actor, k.resources, k.env, t.state, o.job,
    p.process, t.parent_seq, w.worker, w.node, w.pid, t.submitted, t.started, t.ended, f.type, f.message, k.call_site
FROM ({inner}) t JOIN owners o ON o.id = t.owner JOIN kinds k ON k.id = t.kind
LEFT JOIN owners p ON p.id = t.parent_owner LEFT JOIN workers w ON w.id = t.worker
LEFT JOIN failures f ON (f.owner, f.seq, f.attempt) = (t.owner, t.seq, t.attempt)
"""
DROPPED, REMOVED, KEPT = "dropped", "removed", "kept"  # tasks not recorded, removed by retention, there now


_Keyed = tuple[recent.Key, "dict[str, Any] | tuple[recent.Part, int]"]  # a task, and by what it is sorted


class Store:
    """One connection to the file. Raises sqlite3.Error for what the file system or another process's lock causes."""

    def __init__(self, path: str, *, create: bool = False) -> None:
        mode = "rwc" if create else "rw"
        self._db = sqlite3.connect(f"file:{_quoted(path)}?mode={mode}", uri=True, timeout=BUSY_S, isolation_level=None)
        self.path = path
        self._written: dict[int, recent.Part | None] = {}  # as of the last question; None for a malformed one
        self._now: recent.Recent | None = None  # while reading, of that moment
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.execute("PRAGMA temp_store = MEMORY")
        self._db.execute("PRAGMA synchronous = OFF")  # a crash of the machine ends the session, and its history
        self._db.execute("PRAGMA secure_delete = OFF")  # zeros over what is removed would be written like all else
        if create:
            self._db.execute("PRAGMA journal_mode = WAL")  # who reads and who writes do not wait for each other
            with self._transaction():
                if not self._value("PRAGMA user_version"):
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {_VERSION}")
        found = self._value("PRAGMA user_version")
        if found != _VERSION:
            self._db.close()
            raise sqlite3.DatabaseError(f"{path} has history of version {found}, this program reads {_VERSION}")

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # SQLite has ended it itself when the disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        row = self._db.execute(sql, values).fetchone()
        return row[0] if row is not None else None

    def _count(self, name: str, more: int) -> None:
        self._db.execute(
            "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, more),
        )

    # ---- writing ----

    def write_down(self, batch: bytes) -> int:
        """Keep a batch, to be absorbed later; how many tasks it has. One that cannot be read is found out then."""
        header, body = batches.split(batch)
        number = self._db.execute("INSERT INTO raw (header, body) VALUES (?, ?)", (header, body)).lastrowid
        with contextlib.suppress(
            ValueError, OverflowError, Error
        ):  # of no numbers, or a full disk: who asks makes his own
            self._db.execute("INSERT INTO digests VALUES (?, ?)", (number, batches.digest_of(body).encode()))
        return batches.row_count(len(body))

    def dropped(self, count: int) -> None:
        """So many tasks ended and could not be recorded."""
        self._count(DROPPED, count)

    def note(self, notes: Iterable[Mapping[str, Any]]) -> None:
        """Of workers and actors: all of it, or nothing."""
        with self._transaction():
            for one in notes:
                if "worker" in one:
                    self.worker(one["worker"])
                else:
                    self.actor(one["actor"], one["ended"], one["facts"])

    def worker(self, facts: Mapping[str, Any]) -> None:
        """A worker became ready, or ended: what is known of it now. facts: columns of `workers`."""
        names = list(facts)
        sets = ", ".join(f"{name} = excluded.{name}" for name in names if name != "worker")
        marks = ", ".join("?" * len(names))
        self._db.execute(
            f"INSERT INTO workers ({', '.join(names)}) VALUES ({marks}) ON CONFLICT (worker) DO UPDATE SET {sets}",
            [facts[name] for name in names],
        )

    def actor(self, actor: str, ended_s: float, facts: str) -> None:
        """An actor is dead. facts: JSON."""
        self._db.execute("INSERT OR REPLACE INTO actors VALUES (?, ?, ?)", (actor, ended_s, facts))

    def raw_count(self) -> int:
        """How many batches are only written down."""
        return int(self._value("SELECT count(*) FROM raw"))

    def raw_task_count(self) -> int:
        """How many tasks those have."""
        return sum(batches.row_count(row[0]) for row in self._db.execute("SELECT length(body) FROM raw"))

    def discard(self, *, count_max: int = 0, ended_before_s: float = 0.0) -> int:
        """Remove the oldest batch that is only written down, if it has no more tasks than that, or all of them ended
        before; how many went."""
        with self._transaction():
            row = self._db.execute("SELECT id, length(body) FROM raw ORDER BY id LIMIT 1").fetchone()
            if row is None:
                return 0
            count = batches.row_count(row[1])
            if not count or (count > count_max and not self._had_ended(row[0], ended_before_s)):
                return 0
            self._delete_raw(row[0])
            self._count(REMOVED, count)
        return count

    def _had_ended(self, number: int, before_s: float) -> bool:
        """Whether all tasks of a batch had ended by then."""
        try:
            return bool(before_s) and self._digest(number).ended[1] < before_s
        except (ValueError, OverflowError):
            return False

    def _digest(self, number: int) -> batches.Digest:
        """Of a batch that is only written down. Raises ValueError or OverflowError for one that is malformed."""
        kept = self._value("SELECT digest FROM digests WHERE batch = ?", (number,))
        return batches.read_digest(kept) if kept is not None else batches.digest_of(self._body(number))

    def _body(self, number: int) -> bytes:
        return bytes(self._value("SELECT body FROM raw WHERE id = ?", (number,)))

    def _delete_raw(self, number: int) -> None:
        self._db.execute("DELETE FROM raw WHERE id = ?", (number,))
        self._db.execute("DELETE FROM digests WHERE batch = ?", (number,))

    def has_raw(self) -> bool:
        return bool(self._value("SELECT EXISTS (SELECT 1 FROM raw)"))

    def absorb(self) -> int:
        """Turn the oldest batches that are only written down, as many as make one large one, into rows; how many. Raises
        ValueError, once, for one that is malformed."""
        trouble: ValueError | None = None
        batch_count = row_count = 0
        with self._transaction():
            while row_count < codes.ROWS_MAX:
                row = self._db.execute("SELECT id, header, body FROM raw ORDER BY id LIMIT 1").fetchone()
                if row is None:
                    break
                self._delete_raw(row[0])
                batch_count += 1
                try:
                    batch = batches.joined(batches.read_header(row[1], batches.digest_of(row[2])), row[2])
                except ValueError as error:
                    trouble = error
                    break
                self._insert(batch)
                row_count += max(1, batch.row_count)
        if trouble is not None:
            raise trouble
        return batch_count

    def absorb_all(self) -> None:
        """Turn all that is written down into rows."""
        while True:
            with contextlib.suppress(ValueError):  # whoever wrote it knows
                if not self.absorb():
                    return

    def _insert(self, batch: batches.Batch) -> None:
        owner = self._owner(batch.owner, batch.job)
        kinds = [0, *map(self._kind, batch.templates)]
        workers = [None, *map(self._worker, batch.workers)]
        parents: list[tuple[int | None, int | None]] = [(None, None)]
        parents += [(self._owner(one[:32], batch.job), int(one[32:], 16)) for one in batch.parents]
        groups = [
            (group.attempt, kinds[group.template], group.state, workers[group.worker], *parents[group.parent])
            for group in batch.groups
        ]
        rows = [
            (owner, seq, *groups[group], submitted or None, ended - duration if duration >= 0 else None, ended)
            for group, seq, submitted, duration, ended in batch.rows()
        ]
        # Of what is told of an attempt the last word counts: who says that it failed knows more than who says it ran.
        self._db.executemany(f"INSERT OR REPLACE INTO tasks ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
        failures = [(*rows[one.row][:3], one.type, one.message) for one in batch.failures]
        self._db.executemany("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", failures)
        self._count(KEPT, len(rows))

    def _owner(self, process: str, job: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO owners (process, job) VALUES (?, ?)", (process, job))
        return int(self._value("SELECT id FROM owners WHERE process = ?", (process,)))

    def _worker(self, worker: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO workers (worker) VALUES (?)", (worker,))
        return int(self._value("SELECT id FROM workers WHERE worker = ?", (worker,)))

    def _kind(self, template: batches.Template) -> int:
        marks = "(?, ?, ?, ?, ?, ?, ?)"
        names = "name, function, type, actor, resources, env, call_site"
        self._db.execute(f"INSERT OR IGNORE INTO kinds ({names}) VALUES {marks}", template)
        return int(self._value(f"SELECT id FROM kinds WHERE ({names}) = {marks}", template))

    # ---- removing ----

    def trim(self, limits: retention.Retention, now_s: float) -> int:
        """Remove what is not to be kept; how many tasks went."""
        pages = self._value("PRAGMA page_count") - self._value("PRAGMA freelist_count")
        size_bytes = pages * self._value("PRAGMA page_size")
        oldest_s = self._value("SELECT min(ended) FROM tasks")
        kept = self._value("SELECT value FROM counts WHERE name = ?", (KEPT,)) or 0
        if retention.removal(limits, retention.Extent(kept, size_bytes, oldest_s), now_s).is_nothing:
            return 0
        with self._transaction():
            kept = self._value("SELECT count(*) FROM tasks")  # exactly; the other counts a repeated attempt twice
            self._db.execute("INSERT OR REPLACE INTO counts VALUES (?, ?)", (KEPT, kept))
            found = retention.removal(limits, retention.Extent(kept, size_bytes, oldest_s), now_s)
            count = self._remove(found)
            self._count(KEPT, -count)
            self._count(REMOVED, count)
            self._remove_unused(limits)
        return count

    def _remove(self, what: retention.Removal) -> int:
        count = what.oldest_count
        if what.ended_before_s is not None:
            older = self._value("SELECT count(*) FROM tasks WHERE ended < ?", (what.ended_before_s,))
            count = max(count, older)
            self._db.execute("DELETE FROM actors WHERE ended < ?", (what.ended_before_s,))
        chosen = "(SELECT owner, seq, attempt FROM tasks ORDER BY ended LIMIT ?)"
        for table in ("failures", "tasks"):
            removed = self._db.execute(f"DELETE FROM {table} WHERE (owner, seq, attempt) IN {chosen}", (count,))
        return removed.rowcount

    def _remove_unused(self, limits: retention.Retention) -> None:
        """What no task refers to any more. What is only written down may be of any worker."""
        self._db.execute("DELETE FROM kinds WHERE id NOT IN (SELECT DISTINCT kind FROM tasks)")
        if not self.has_raw():
            self._db.execute(
                "DELETE FROM workers "
                "WHERE ended IS NOT NULL AND id NOT IN (SELECT worker FROM tasks WHERE worker NOT NULL)"
            )
        excess = self._value("SELECT count(*) FROM actors") - limits.tasks_max
        if excess > 0:
            self._db.execute(
                "DELETE FROM actors WHERE actor IN (SELECT actor FROM actors ORDER BY ended LIMIT ?)", (excess,)
            )

    def remove_rows(self) -> None:
        """Remove all tasks that are rows: what is only written down is later, and as much as is to be kept."""
        with self._transaction():
            count = self._value("SELECT count(*) FROM tasks")
            if count:
                for table in ("tasks", "failures"):
                    self._db.execute(f"DELETE FROM {table}")  # without a condition it drops the pages, and is quick
                self._count(REMOVED, count)
                self._db.execute("INSERT OR REPLACE INTO counts VALUES (?, 0)", (KEPT,))

    # ---- looking up ----

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that is looked up within is of one moment, whatever others write meanwhile. What is still being read then
        goes on so. One within another is the same."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._now = None
            self._db.execute("COMMIT")

    def counts(self) -> dict[str, int]:
        """How many tasks were dropped, because nobody could write them down, and removed, because they were old."""
        found = dict(self._db.execute("SELECT name, value FROM counts"))
        return {name: found.get(name, 0) for name in (DROPPED, REMOVED)}

    def _recent(self) -> recent.Recent:
        """What is only written down. To be asked for, and used, while `reading`."""
        if self._now is None:
            found = [row[0] for row in self._db.execute("SELECT id FROM raw ORDER BY id")]  # a number is given once
            self._written = {number: self._read(number) for number in found}
            owners = dict(self._db.execute("SELECT process, id FROM owners"))
            workers = {row[0]: row[1:] for row in self._db.execute("SELECT worker, node, pid FROM workers")}
            names = recent.Names(owners, workers if found else {})
            self._now = recent.Recent([one for one in self._written.values() if one is not None], names)
        return self._now

    def _read(self, number: int) -> recent.Part | None:
        if number in self._written:
            return self._written[number]
        header = self._value("SELECT header FROM raw WHERE id = ?", (number,))
        try:
            digest = self._digest(number)
            batch = batches.read_header(header, digest)
        except (ValueError, OverflowError):  # whoever makes rows of it says so
            return None

        def load() -> batches.Batch:
            return batches.joined(batch, self._body(number))

        return recent.Part(batch, digest, load)

    def task_count(self, wanted: Sequence[conditions.Condition]) -> int:
        chosen = selections.where(wanted)
        with self.reading():
            rows = int(self._value(f"SELECT count(*) FROM tasks WHERE {chosen.sql}", chosen.values))
            return rows + self._recent().count(wanted)

    def tasks(
        self,
        wanted: Sequence[conditions.Condition] = (),
        *,
        order: tuple[str, bool] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Ended tasks as `TaskState`'s fields, and the times in seconds as "submitted_s", "started_s" and "ended_s". An
        attempt that was told of twice is there twice until it is a row. Raises as `prepare`, which this does first
        unless it is within `reading`."""
        end = None if limit is None else offset + limit
        if not self._db.in_transaction:
            self.prepare(wanted, end)
        with self.reading():
            written = self._recent()
            count = written.count(wanted)
            if end is not None:
                count = min(count, end)
            found = written.first(wanted, order, count)
            start = max(0, offset - count)  # the rows before these are before the page, whatever comes between them
            rows = self._selected(wanted, order, None if end is None else end - start, start)
        owners = written.names.owners
        stored: Iterator[_Keyed] = ((recent.key_of(row, order, owners), row) for row in map(_task_of, rows))
        waiting = ((key, (part, place)) for key, part, place in found)
        is_descending = order is not None and order[1]
        merged = heapq.merge(stored, waiting, key=operator.itemgetter(0), reverse=is_descending) if found else stored
        for _, row in itertools.islice(merged, offset - start, None if limit is None else offset - start + limit):
            yield row if isinstance(row, dict) else _task_of(row[0].selected(row[1]))

    def prepare(self, wanted: Sequence[conditions.Condition], end: int | None) -> None:
        """For a listing of so many tasks, None for all: makes rows first where that is too much to look through. Raises
        UmbelSystemError when the file cannot be written."""
        if end is not None and end <= MERGED_MAX:
            return
        with self.reading():
            count = self._recent().count(wanted)
        if count > MERGED_MAX:
            try:
                self.absorb_all()
            except Error as error:
                raise exceptions.UmbelSystemError(f"the history in {self.path} cannot be written: {error}") from error

    def _selected(
        self, wanted: Sequence[conditions.Condition], order: tuple[str, bool] | None, limit: int | None, offset: int
    ) -> sqlite3.Cursor:
        """The rows of the table, as `_task_of` reads them."""
        chosen = selections.where(wanted)
        by = selections.order(order)
        keys = f"SELECT owner, seq, attempt FROM tasks WHERE {chosen.sql} ORDER BY {by} LIMIT ? OFFSET ?"
        inner = f"SELECT {_COLUMNS} FROM tasks WHERE (owner, seq, attempt) IN ({keys})"
        values = (*chosen.values, -1 if limit is None else limit, offset)
        if limit is None and not offset:
            inner, values = f"SELECT {_COLUMNS} FROM tasks WHERE {chosen.sql}", chosen.values
        by = ", ".join("t." + name for name in by.split(", "))
        return self._db.execute(f"{_TASK.format(inner=inner)} ORDER BY {by}", values)

    def ended(
        self,
        process: str,
        attempt: int,
        ranges: Sequence[Sequence[int]],
        wanted: Sequence[conditions.Condition] = (),
    ) -> list[int]:
        """The numbers of an owner's tasks in the ranges, (first, last), whose attempt has ended and meets the conditions,
        in order."""
        chosen = selections.where(wanted)
        # The limit, which is none, keeps the inner statement to the primary key: there are many ranges, each small.
        inner = "SELECT * FROM tasks WHERE owner = ? AND seq BETWEEN ? AND ? AND attempt = ? LIMIT -1"
        sql = f"SELECT seq FROM ({inner}) AS tasks WHERE {chosen.sql}"
        with self.reading():
            found = set(self._recent().ended(process, attempt, ranges, wanted))
            owner = self._value("SELECT id FROM owners WHERE process = ?", (process,))
            if owner is not None:
                for first, last in ranges:
                    rows = self._db.execute(sql, (owner, first, last, attempt, *chosen.values))
                    found.update(row[0] for row in rows)
        return sorted(found)

    def owners(self) -> dict[str, int]:
        """The processes whose tasks these are, with the numbers by which `tasks` orders them."""
        with self.reading():
            return self._recent().names.owners

    def task_tally(self, wanted: Sequence[conditions.Condition] = ()) -> list[tuple[str, str, str, int]]:
        """(name, type, state, how many) of ended tasks."""
        chosen = selections.where(wanted)
        with self.reading():
            tally = self._recent().tally(wanted)
            found = self._db.execute(
                f"SELECT k.name, k.type, t.state, sum(t.number) FROM (SELECT kind, state, count(*) AS number FROM tasks "
                f"WHERE {chosen.sql} GROUP BY kind, state) t JOIN kinds k ON k.id = t.kind "
                f"GROUP BY k.name, k.type, t.state",
                chosen.values,
            )
            for name, kind, state, count in found:
                key = name, kind, codes.STATES[state]
                tally[key] = tally.get(key, 0) + count
        return [(*key, count) for key, count in tally.items()]

    def workers(self) -> list[dict[str, Any]]:
        """Those that were ready once, the living included; not those of other nodes that tasks ran on."""
        found = self._db.execute(
            "SELECT worker, node, pid, ready, ended, exit_type, exit_detail FROM workers WHERE ready NOT NULL ORDER BY id"
        )
        names = ("worker", "node", "pid", "ready", "ended", "exit_type", "exit_detail")
        return [dict(zip(names, row, strict=True)) for row in found]

    def actors(self) -> list[str]:
        """What is known of dead actors: JSON, the last to die last."""
        return [row[0] for row in self._db.execute("SELECT facts FROM actors ORDER BY ended")]


def _task_of(row: Sequence[Any]) -> dict[str, Any]:
    (owner, seq, attempt, name, function, kind, actor, resources, env, state, job, parent_owner, parent_seq, worker,
     node, pid, submitted, started, ended, error, message, call_site) = row  # fmt: skip
    return {
        "task_id": selections.task_id(owner, seq),
        "attempt_number": attempt,
        "name": name,
        "func_or_class_name": function,
        "type": kind,
        "actor_id": actor or None,
        "required_resources": resources,
        "runtime_env_info": env,
        "state": codes.STATES[state],
        "job_id": job,
        "parent_task_id": selections.task_id(parent_owner, parent_seq) if parent_owner else None,
        "worker_id": worker,
        "node_id": node,
        "worker_pid": pid,
        "submitted_s": submitted,
        "started_s": started,
        "ended_s": ended,
        "error_type": error,
        "error_message": message,
        "call_site": call_site or None,
    }


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path)
