"""The history of ended tasks: owners report in batches, the daemon's spool, the recorder, those who ask, and the disk.

Owners report what has ended and die. The daemon hands batches to a recorder, which writes them to a real file, in a
directory of its own. Recorders, and whoever asks and so turns batches into rows himself, die between any two statements or
find that the disk refuses one. The simulation notes what reached the disk, and compares what is found there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from umbel._agent import history, recorder, spool
from umbel._base import sessions
from umbel._client import recording
from umbel._history import batches, store
from umbel.testing.simulation.chance import Chance
from umbel.testing.simulation.fibers import Killed
from umbel.testing.simulation.processes import attribute
from umbel.testing.simulation.world import END, Stream, World

OWNERS_MAX = 3
TASKS_MAX = 6  # that end in one step
STATEMENTS_MAX = 30  # after which a process that is to die, or a statement that is to fail, has
ROUNDS_MAX = 2_000  # a session that has not ended by then never will
_WORKER, _BATCH = "INSERT INTO workers", "INSERT INTO raw"  # how the statements begin that the simulation notes
_ENDS = "SELECT o.process || '/' || t.seq || '/' || t.attempt, t.ended FROM tasks t JOIN owners o ON o.id = t.owner"

Key = tuple[str, int, int]  # owner, sequence number and attempt of a task


class _Template:
    """What a recorder of tasks looks at of one."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.name = f"f{index}"
        self.announcement: dict[str, Any] = {"resources": {}}


class _Task(NamedTuple):
    """The same of a task."""

    template: _Template
    seq: int
    attempt: int
    submitted_s: float
    parent: None = None


class Owner:
    """A process that reports its tasks. Its batches are made by the production code."""

    def __init__(self, number: int) -> None:
        self.id = number.to_bytes(16, "big")
        self.recorder = recording.TaskRecorder(self.id, "01")
        self.templates = [_Template(index) for index in range(2)]
        self.seqs = itertools.count()


class _Statements:
    """A process's connection to the file: dies, or fails, when chance has said so."""

    def __init__(self, world: HistoryWorld, connection: sqlite3.Connection) -> None:
        self._world = world
        self._db = connection

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        self._burn(sql)
        done = self._db.execute(sql, values)
        self._world.on_statement(sql, values)
        return done

    def executemany(self, sql: str, rows: Any) -> Any:
        self._burn(sql)
        return self._db.executemany(sql, rows)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def _burn(self, sql: str) -> None:
        world = self._world
        if world.is_dying:
            raise Killed
        if world.fuse is None or sql == "ROLLBACK":
            return
        world.fuse -= 1
        if world.fuse >= 0:
            return
        world.fuse = None
        if world.fuse_kills:
            world.note("    it DIES before %s", _in_words(sql))
            world.is_dying = world.has_failed = True
            raise Killed
        world.note("    the disk refuses %s", _in_words(sql))
        world.has_failed = True
        if self._db.in_transaction and (sql == "COMMIT" or world.fuse_ends_transaction):
            self._db.execute("ROLLBACK")  # SQLite does so itself when the disk is full
        raise sqlite3.OperationalError("database or disk is full")

    def close(self) -> None:
        self._db.close()


def _in_words(sql: str) -> str:
    return " ".join(sql.split()[:3])


class _Sqlite:
    """`sqlite3` for the store."""

    def __init__(self, world: HistoryWorld) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, *arguments: Any, **options: Any) -> _Statements:
        made = sqlite3.connect(*arguments, **options)
        self._world.connections.append(made)
        return _Statements(self._world, made)


class _Select:
    """`select` for the recorder: its socket is ready when something has come, or the other end is closed."""

    @staticmethod
    def select(
        read: list[Any], _write: Any, _error: Any, _wait_s: float | None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        return [one for one in read if one.stream.inbox], [], []


class _Load:
    """How busy the machine is, by chance."""

    next_look_s = 0.0

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    def look(self) -> bool:
        return self._chance.happens(70)


class _Clock:
    """`time` for the daemon and the recorder."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now_s

    time = monotonic


class Recorder:
    """A recorder's process, and its end of the socket."""

    def __init__(self, world: HistoryWorld, pid: int) -> None:
        self.world = world
        self.pid = pid
        self.is_over = False
        self.stream: Stream
        self.machine: recorder.Recorder | None = None  # until it runs for the first time
        self.connections: list[sqlite3.Connection] = []

    # What a socket can do

    def setblocking(self, _flag: bool) -> None:
        """It blocks nobody here."""

    def recv(self, _size: int) -> bytes:
        """What has come, up to the end of the stream; b"" for that."""
        parts: list[bytes] = []
        while self.stream.inbox and (self.stream.inbox[0] is not END or not parts):
            frame = self.stream.inbox.popleft()
            if frame is END:
                return b""
            parts.append(frame)
            if self.world.chance.happens(50):
                break
        return b"".join(parts)

    def sendall(self, data: bytes) -> None:
        self.world.burn("an answer")
        self.stream.send(data)

    # Its life

    def step(self) -> None:
        """Do one thing, if there is one to do."""
        world = self.world
        with world.running(self.connections) as is_dead:
            if self.machine is None:
                self.machine = recorder.Recorder(self, world.daemon.path, world.config)  # type: ignore[arg-type]  # a socket as far as it is used
            elif not self.machine._serve():
                self.stream.inbox.append(END)
                self.machine.run()
                self._end()
        if is_dead:
            self._end()

    def die(self) -> None:
        if not self.is_over:
            self.world.note("recorder %d DIES", self.pid)
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self.world.close(self.connections)
        if not self.stream.is_closed:
            self.stream.cut(kept=len(self.stream.other.inbox))


class _Pipe(Stream):
    """The daemon's end of the socket to a recorder."""

    @property
    def queued_bytes(self) -> int:  # type: ignore[override]  # elsewhere all is the system's at once
        return sum(len(frame) for frame in self.other.inbox if frame is not END)


class Daemon(history.History):
    """The daemon's part; a recorder is a process of the simulation."""

    def __init__(self, world: HistoryWorld) -> None:
        poller: Any = world
        super().__init__(world.config, poller, lambda text: world.note("the daemon warns: %s", text[:32]))
        self._world = world

    def _start(self) -> None:
        world = self._world
        made = Recorder(world, len(world.recorders) + 1)
        world.note("recorder %d is forked", made.pid)
        world.recorders.append(made)
        self._pid = made.pid
        pipe = _Pipe(world, f"agent<r{made.pid}")
        made.stream = Stream(world, f"r{made.pid}<agent")
        pipe.other, made.stream.other = made.stream, pipe
        world.streams.append(pipe)
        receive: Any = self._on_frame
        gone: Any = self._on_gone
        pipe.on_frame = lambda stream, frame: receive(stream, frame[4:])
        pipe.on_close = gone
        self._recorder = pipe  # type: ignore[assignment]  # it has a connection's interface

    def _reap(self) -> None:
        self._world.recorders[self._pid - 1].die()


class HistoryWorld(World):
    """See the module."""

    steps_min, steps_max = 20, 60

    def run_guarded(self) -> None:
        self.connections: list[sqlite3.Connection] = []  # of the process that runs
        self.recorders: list[Recorder] = []
        self.kept_bytes = self.chance.choose((0, 1_000, 4_000))
        self.noted_bytes_max = self.chance.choose((0, 300))
        self.behind_bytes_max = self.chance.choose((1 << 20, 1 << 20, 2_000))
        clock = _Clock(self)
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # each run makes and removes some files
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="umbel-simulation-", dir=memory))
            for owner, name, replacement in (
                (store, "sqlite3", _Sqlite(self)),
                # What is bound already does not become a method.
                (recorder, "select", _Select),
                (recorder, "time", clock),
                (recorder, "Load", lambda: _Load(self.chance)),
                (history, "time", clock),
                (sessions, "record_process", lambda *_: None),
                (spool, "KEPT_BYTES", self.kept_bytes),
                (spool, "NOTED_BYTES_MAX", self.noted_bytes_max),
                (spool, "BEHIND_BYTES_MAX", self.behind_bytes_max),
            ):
                stack.enter_context(attribute(owner, name, replacement))
            self.directory = directory
            try:
                self.run()
            finally:
                for one in self.recorders:
                    self.close(one.connections)

    def set_up(self) -> None:
        chance = self.chance
        self.is_kept = chance.happens(50)
        self.config: dict[str, Any] = {
            "session_dir": os.path.join(self.directory, "session"),
            "history": {
                "dir": os.path.join(self.directory, "kept") if self.is_kept else "",
                "tasks_max": chance.choose((10_000, 10_000, 20)),
                "age_max_s": chance.choose((0.0, 0.0, 20.0)),
            },
        }
        os.mkdir(self.config["session_dir"])
        self.death_percent = chance.choose((0, 5, 20))
        self.refusal_percent = chance.choose((0, 0, 20))
        self.fuse: int | None = None  # statements of the running process until it dies, or one fails
        self.fuse_kills = self.fuse_ends_transaction = self.is_dying = False
        self.is_settling = False
        self.owners = [Owner(number) for number in range(1, 2 + chance.below(OWNERS_MAX))]
        self.owner_count = len(self.owners)
        self.reported: dict[Key, tuple[str, str, float]] = {}  # -> name, state, end
        self.reported_count = 0  # tasks, those in what is no batch included
        self.odd_count = 0  # of those
        self.stored_count = 0  # of tasks of which the recorder has said so, stored or counted as lost
        self.on_disk: set[Key] = set()  # of batches that were written down
        self.living: set[str] = set()  # workers that the file knows to live
        self.noted: list[tuple[str, bool]] = []  # workers, and whether each has ended, in the transaction under way
        self.sent: set[Key] = set()  # of batches that were reported
        self.has_failed = False  # something has died, or was refused
        self.eye: sqlite3.Connection | None = None  # by which the simulation looks at the file
        self.version = -1  # of the file, when last looked at
        self.ends: dict[str, float] = {}  # of the tasks that were rows there then
        self.worker_count = 0
        self.daemon = Daemon(self)
        self._watch_spool()

    def _watch_spool(self) -> None:
        book: Any = self.daemon.spool
        confirmed = book.confirmed

        def watched() -> None:
            count = book.unconfirmed[0]
            confirmed()
            self.stored_count += count

        book.confirmed = watched

    # What processes do

    @contextlib.contextmanager
    def running(self, connections: list[sqlite3.Connection]) -> Iterator[list[bool]]:
        """Within, a process runs that uses the file. Yields a list that is not empty once it has died of that."""
        chance = self.chance
        self.connections = connections
        self.is_dying = False
        self.fuse = None
        if not self.is_settling and chance.happens(max(self.death_percent, self.refusal_percent)):
            self.fuse = chance.below(STATEMENTS_MAX)
            self.fuse_kills = chance.below(self.death_percent + self.refusal_percent) < self.death_percent
            self.fuse_ends_transaction = chance.happens(50)
        died: list[bool] = []
        try:
            yield died
        except Killed:
            died.append(True)
        except sqlite3.Error as error:
            self.note("    it ends: %s", error)
            died.append(True)
        finally:
            self.fuse = None
            self.is_dying = False

    def burn(self, what: str) -> None:
        """The running process does something else than a statement."""
        if self.fuse is not None and self.fuse_kills:
            self.fuse -= 1
            if self.fuse < 0:
                self.note("    it DIES before %s", what)
                self.is_dying = self.has_failed = True
        if self.is_dying:
            raise Killed

    def close(self, connections: list[sqlite3.Connection]) -> None:
        """A process has ended: what it had begun with the file is undone."""
        for one in connections:
            one.close()
        connections.clear()

    def on_statement(self, sql: str, values: Sequence[Any]) -> None:
        """A statement has been carried out."""
        if sql.startswith("BEGIN"):
            self.noted = []
        elif sql.startswith(_WORKER):
            self.noted.append((values[0], "ended" in sql))
        elif sql == "COMMIT":
            for worker, has_ended in self.noted:
                (self.living.discard if has_ended else self.living.add)(worker)
            self.noted = []
        elif sql.startswith(_BATCH):
            header, body = values
            with contextlib.suppress(ValueError):
                self.on_disk |= self._keys(batches.joined(batches.read_header(header, batches.digest_of(body)), body))

    @staticmethod
    def _keys(batch: batches.Batch) -> set[Key]:
        return {(batch.owner, seq, batch.groups[group].attempt) for group, seq, *_ in batch.rows()}

    def act(self) -> None:
        chance = self.chance
        what = chance.weighted((4, 4, 6, 12, 2, 3, 1, 1))
        if what == 0:
            self._end_tasks()
        elif what == 1:
            self._report()
        elif what == 2:
            self.deliver_one()
        elif what == 3:
            self._let_record()
        elif what == 4:
            self._ask()
        elif what == 5:
            self.now_s += chance.choose((0.1, 1.0, 4.0, 10.0))
        elif what == 6:
            self._change_workers()
        elif chance.happens(self.death_percent):
            self._lose_one()

    def _end_tasks(self) -> None:
        """Some tasks of an owner end, some of them after another attempt."""
        chance = self.chance
        owner = chance.choose(self.owners)
        for _ in range(1 + chance.below(TASKS_MAX)):
            seq, template = next(owner.seqs), chance.choose(owner.templates)
            for attempt in range(1 + chance.happens(20)):
                self.now_s += 0.001
                task: Any = _Task(template, seq, attempt, self.now_s)
                is_failure = chance.happens(20)
                worker = bytes([1 + chance.below(2)]) * 16
                if is_failure:
                    owner.recorder.failed(task, worker, b"no error can be read of this", 0.5, self.now_s)
                else:
                    owner.recorder.ended(task, worker, recording.FINISHED, 0.5, self.now_s)
                key = (owner.id.hex(), seq, attempt)
                self.reported[key] = (template.name, "FAILED" if is_failure else "FINISHED", self.now_s)

    def _report(self) -> None:
        """An owner reports; what comes may be no batch."""
        chance = self.chance
        owner = chance.choose(self.owners)
        self._report_of(owner)
        if chance.happens(3):
            self.note("what is no batch is reported")
            self.reported_count += 1
            self.odd_count += 1
            self.daemon.add_tasks(b"no batch", 1)

    def _report_of(self, owner: Owner) -> None:
        for count, batch in owner.recorder.take():
            self.note("%d tasks of owner %d are reported", count, owner.id[-1])
            self.reported_count += count
            self.sent |= self._keys(batches.decode(batch))
            self.daemon.add_tasks(batch, count)

    def _let_record(self) -> bool:
        living = [one for one in self.recorders if not one.is_over]
        for one in living:
            one.step()
        return bool(living)

    def _ask(self) -> None:
        """Somebody wants to know what is in the history."""
        before = set(self.sent)
        self.note("somebody asks")
        self.daemon.sync(lambda trouble: self._read(before, trouble))

    def _read(self, before: set[Key], trouble: str) -> None:
        """What `umbel list` does: turn into rows what is only written down, and look."""
        if trouble:
            self.note("    no answer: %s", trouble[:32])
            return
        connections: list[sqlite3.Connection] = []
        with self.running(connections) as is_dead:
            made = store.Store(self.daemon.path)
            made.absorb_all()
            found = {self._key_of(row): row for row in made.tasks()}
            counts = made.counts()
            workers = {row["worker"] for row in made.workers() if row["ended"] is None}
            made.close()
        self.close(connections)
        if is_dead:
            return
        self.note("    %d tasks are found, %d were removed", len(found), counts[store.REMOVED])
        missing, told = len(before - self.on_disk), counts[store.DROPPED] + self.daemon.spool.lost_count
        self.must(missing <= told, "H1", "an answer lacks %d tasks, and %d were told of as lost", missing, told)
        self._check_rows(found, counts[store.REMOVED])
        self.must(self.living <= workers, "H3", "workers that live were removed: %s", self.living - workers)

    @staticmethod
    def _key_of(row: dict[str, Any]) -> Key:
        return row["task_id"][:32], int(row["task_id"][32:], 16), row["attempt_number"]

    def _check_rows(self, found: dict[Key, dict[str, Any]], removed: int) -> None:
        """H2, with all that was written down turned into rows."""
        for key, row in found.items():
            told = (row["name"], row["state"], row["ended_s"])
            self.must(told == self.reported[key], "H2", "%s is stored as %s, and was %s", key, told, self.reported[key])
        self.must(found.keys() <= self.on_disk, "H2", "%s were never written down", found.keys() - self.on_disk)
        missing = len(self.on_disk) - len(found)
        self.must(missing == removed, "H2", "%d tasks are missing, and %d were removed", missing, removed)

    def _change_workers(self) -> None:
        chance = self.chance
        if self.worker_count and chance.happens(50):
            name = (1 + chance.below(self.worker_count)).to_bytes(16, "big").hex()
            self.note("worker %d has ended", int(name, 16))
            self.daemon.add_worker({"worker": name, "ended": self.now_s, "exit_type": "", "exit_detail": ""})
        else:
            self.worker_count += 1
            name = self.worker_count.to_bytes(16, "big").hex()
            self.note("worker %d is ready", self.worker_count)
            self.daemon.add_worker({"worker": name, "node": "n", "pid": self.worker_count, "ready": self.now_s})

    def _lose_one(self) -> None:
        """A recorder is killed, or an owner, whose unreported tasks nobody will ever hear of."""
        living = [one for one in self.recorders if not one.is_over]
        if living and self.chance.happens(50):
            self.has_failed = True
            self.chance.choose(living).die()
            return
        index = self.chance.below(len(self.owners))
        self.note("owner %d DIES", self.owners[index].id[-1])
        self.owner_count += 1
        self.owners[index] = Owner(self.owner_count)

    # The daemon's poller, while it waits for the recorder to finish

    def poll(self, wait_s: float) -> None:
        did = self._let_record()
        if not self.deliver_one() and not did:
            self.now_s += wait_s

    # What must hold

    def check(self) -> None:
        book = self.daemon.spool
        there = sum(entry.task_count for entry in book.waiting) + sum(book.unconfirmed)
        self.must(
            self.stored_count + there + book.lost_count == self.reported_count,
            "H1", "%d tasks were reported; stored %d, with us or the recorder %d, lost and not told %d",
            self.reported_count, self.stored_count, there, book.lost_count,
        )  # fmt: skip
        self._look_at_file()

    def _look_at_file(self) -> None:
        """H3: what went had ended before what was there as well and stays."""
        if self.eye is None and os.path.exists(self.daemon.path):
            self.eye = sqlite3.connect(self.daemon.path)
        if self.eye is None:
            return
        (version,) = self.eye.execute("PRAGMA data_version").fetchone()
        if version == self.version:
            return
        try:
            rows = self.eye.execute(_ENDS).fetchall()
        except sqlite3.OperationalError:
            return  # the recorder has died before it had made the tables
        self.version = version
        ends = dict(rows)
        stay = [ended_s for key, ended_s in self.ends.items() if key in ends]
        gone = [ended_s for key, ended_s in self.ends.items() if key not in ends]
        is_oldest = not gone or not stay or max(gone) <= min(stay)
        self.must(is_oldest, "H3", "what ended at %s went, and at %s stays", gone, stay)
        self.ends = ends

    # Coming to rest

    def settle(self) -> None:
        """Everybody reports, and somebody asks."""
        self.is_settling = True
        for owner in self.owners:
            self._report_of(owner)
        self._calm()
        self._ask()
        self._calm()

    def _end_session(self) -> None:
        """By order, or because the daemon was killed. Who removes the session's directory removes a history in it; if
        nobody does, its recorder."""
        if self.eye is not None:
            self.eye.close()
        is_orphan = self.chance.happens(30) and any(not one.is_over for one in self.recorders)
        if is_orphan:
            self.note("the daemon is killed")
            for one in self.recorders:
                one.stream.other.cut(kept=0)
        else:
            self.daemon.end()
        for _ in range(ROUNDS_MAX):
            if not self._let_record():
                break
        else:
            self.must(False, "R2", "the recorder does not end with the daemon")
        if is_orphan and not self.is_kept:
            self.must(not os.path.exists(self.config["session_dir"]), "R2", "files are left")

    def _calm(self) -> None:
        for _ in range(ROUNDS_MAX):
            if any(one.stream.inbox for one in self.recorders if not one.is_over):
                self._let_record()
            elif not self.deliver_one():
                return
        self.must(False, "R2", "the recorder never comes to rest")

    def _check_told(self) -> None:
        """H1: what is not on disk is told of as lost, unless there is nobody any more to write that."""
        if self.daemon._failures >= history.FAILURES_MAX or not self.recorders:
            return
        missing = len(self.sent - self.on_disk)
        made = store.Store(self.daemon.path)
        told = made.counts()[store.DROPPED]
        made.close()
        self.must(missing <= told, "H1", "%d tasks are not on disk, and %d were told of as lost", missing, told)
        if not self.has_failed:
            most = missing + self.odd_count
            self.must(told <= most, "H1", "%d tasks were told of as lost, and %d are not on disk", told, most)

    def check_rest(self) -> None:
        self._check_told()
        self._end_session()
        if self.is_kept and self.on_disk:
            made = store.Store(self.daemon.path)
            made.absorb_all()
            found = {self._key_of(row): row for row in made.tasks()}
            self._check_rows(found, made.counts()[store.REMOVED])
            made.close()
