"""The recorder: the process that writes a session's history to disk.

It takes what the daemon hands over and writes it down at once, which is quick. What is written down it turns into rows at
the lowest priority, and only when nothing has come for a while and the machine is idle: even so it would get in the way
of who shares a core with it. Whoever asks meanwhile looks through what is written down. Only of many small batches it
makes rows at any time, since each costs who asks as much as a thousand tasks do. It ends when the daemon's end of their
socket closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from typing import Any, NoReturn

from umbel._agent import forked
from umbel._history import retention
from umbel._wire import frames

NICE = 19
QUIET_S = 3.0  # without anything coming, until rows are made
LOOK_S = 1.0  # between looks at what else the machine does
IDLE_SHARE = 0.75  # of the processors' time, from which on it is idle
BATCHES_MAX = (
    2_000  # only written down: 0.2 s of a question. A thousand processes of a busy machine send as many in 2 s
)
TRIM_PERIOD_S = 5.0  # between looks at whether something is too old
READ_BYTES = 1 << 20
FILE_ENDINGS = ("", "-wal", "-shm", "-journal")


def run_forked(sock: socket.socket, path: str, config: dict[str, Any]) -> NoReturn:
    """Be the recorder, in a process just forked from the daemon, of which nothing else is used."""

    def serve() -> None:
        os.nice(NICE)
        Recorder(sock, path, config).run()

    forked.run(serve, sock.fileno())


class Recorder:
    """One store, and the socket by which it is filled."""

    def __init__(self, sock: socket.socket, path: str, config: dict[str, Any]) -> None:
        from umbel._history import store  # here and nowhere else in the daemon's processes is SQLite loaded

        sock.setblocking(True)
        self._sock = sock
        self._path = path
        self._config = config
        limits = config.get("history") or {}
        self._retention = retention.Retention(
            limits.get("tasks_max", 1_000_000), limits.get("age_max_s", 0.0), limits.get("bytes_max", 1 << 30)
        )
        self._is_kept = bool(limits.get("dir"))
        self._reader = frames.FrameReader()
        self._trimmed_s = 0.0
        self._raw_count = self._raw_task_count = 0  # batches that are only written down, and their tasks; at most
        self._recorded_s = 0.0  # time.monotonic(), the last time
        self._load = Load()
        self._is_finished = False
        if self._is_kept:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._store = store.Store(path, create=True)
        self._errors = store.Error
        self._count_raw()  # a recorder before this one has died
        self._may_be_raw = self._raw_count > 0

    def run(self) -> None:
        """Until the daemon is gone."""
        while self._serve():
            pass
        if self._is_kept:
            self._finish()
        else:  # the daemon was killed, or does the same presently
            for ending in FILE_ENDINGS:
                with contextlib.suppress(OSError):
                    os.unlink(self._path + ending)
            with contextlib.suppress(OSError):
                os.rmdir(self._config["session_dir"])

    def _serve(self) -> bool:
        """Take what has come, and tidy up when it is time; False when nothing will come any more."""
        due_s = self._due_s()
        wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
        ready, _, _ = select.select([self._sock], [], [], wait_s)
        if ready:
            try:
                data = self._sock.recv(READ_BYTES)
            except OSError:
                data = b""
            for payload in self._reader.feed(data):
                message, body = frames.decode_control(payload)
                self._say(self._take(message, body))
            if not data or self._is_finished:
                return False
        if due_s is not None and time.monotonic() >= due_s:
            if not self._may_be_raw or self._load.look():
                self._tidy()
            else:
                self._trim()
        return True

    def _due_s(self) -> float | None:
        """When to tidy up next; None for when something has come."""
        if self._may_be_raw:
            return max(self._recorded_s + QUIET_S, self._load.next_look_s)
        return self._trimmed_s + TRIM_PERIOD_S if self._retention.age_max_s else None

    def _say(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone: the next read tells
            self._sock.sendall(frames.encode_control(answer))

    def _take(self, message: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Do what the daemon says; the answer."""
        kind = message["t"]
        is_entry = kind in ("batch", "notes", "lost")
        try:
            if kind == "batch":
                self._raw_task_count += self._store.write_down(body)
                self._may_be_raw = True
                self._raw_count += 1
                self._recorded_s = time.monotonic()
                self._keep_up()
            elif kind == "notes":
                self._store.note(json.loads(body))
            elif kind == "lost":
                self._store.dropped(message["count"])
            elif kind == "finish":
                self._finish()
        except self._errors as error:
            text = f"{self._path}: {error}"
            return {"t": "refused" if is_entry else "synced", "text": text}
        return {"t": "stored"} if is_entry else {"t": "synced", "text": ""}

    def _finish(self) -> None:
        """Leave one file, with all in it."""
        if not self._is_finished:
            self._is_finished = True
            with contextlib.suppress(self._errors):
                self._store.absorb_all()
                self._store.trim(self._retention, time.time())
            self._store.close()

    def _tidy(self) -> None:
        """Turn the oldest batches into rows, or remove what is old."""
        try:
            self._may_be_raw = self._store.absorb() > 0
            if not self._may_be_raw:
                self._raw_count = self._raw_task_count = 0
                self._trimmed_s = 0.0
        except self._errors as error:
            self._failed(error)
        except ValueError as error:
            self._has_gaps(error)
        self._trim()

    def _has_gaps(self, error: ValueError) -> None:
        self._say({"t": "warn", "text": f"the history of tasks has gaps: {error}"})

    def _trim(self) -> None:
        """Remove what is old, now and then."""
        if self._trimmed_s and time.monotonic() - self._trimmed_s < TRIM_PERIOD_S:
            return
        self._trimmed_s = time.monotonic()
        age_max_s = self._retention.age_max_s
        try:
            self._store.trim(self._retention, time.time())
            while age_max_s and self._store.discard(ended_before_s=time.time() - age_max_s):
                pass
        except self._errors as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._may_be_raw = False  # another entry, or question, is another try
        self._say({"t": "warn", "text": f"the history of tasks is not written to {self._path}: {error}"})

    def _keep_up(self) -> None:
        """See to it that not too much is only written down: let go of the oldest where later ones are as many tasks as
        are kept, make rows of them where they are small or are to go in part. What has just come stays whatever fails."""
        limit = self._retention.tasks_max
        try:
            is_much = self._raw_count > BATCHES_MAX or self._raw_task_count > limit
            if is_much and self._store.raw_count() < self._raw_count:  # somebody who asked has made rows of them
                self._count_raw()
            if self._raw_task_count > limit:
                self._store.remove_rows()
                while (gone := self._store.discard(count_max=self._raw_task_count - limit)) > 0:
                    self._raw_count -= 1
                    self._raw_task_count -= gone
            if self._raw_count > BATCHES_MAX or self._raw_task_count > limit * (1 + retention.SLACK):
                self._trimmed_s = 0.0
                self._store.absorb()
                self._count_raw()
        except self._errors as error:
            self._failed(error)
        except ValueError as error:
            self._has_gaps(error)
        self._trim()

    def _count_raw(self) -> None:
        self._raw_count, self._raw_task_count = self._store.raw_count(), self._store.raw_task_count()


class Load:
    """How much the machine's processors have to do beside this process."""

    def __init__(self) -> None:
        self.next_look_s = 0.0  # time.monotonic()
        self._is_low = False
        self._looked_s = 0.0
        self._last = _processors()

    def look(self) -> bool:
        """Whether that was little in the time since the last look; looks once in `LOOK_S`."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            (idle_s, all_s), self._last = self._last, _processors()
            passed_s = self._last[1] - all_s
            self._is_low = passed_s <= 0 or self._last[0] - idle_s >= IDLE_SHARE * passed_s
            self.next_look_s = 0.0 if self._is_low else now_s + LOOK_S
        return self._is_low


def _processors() -> tuple[float, float]:
    """(seconds that they had nothing to do but run this process, seconds in all); (0, 0) where that is not known."""
    try:
        with open("/proc/stat", "rb") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0.0, 0.0
    second = os.sysconf("SC_CLK_TCK")
    return (ticks[3] + ticks[4]) / second + time.process_time(), sum(ticks) / second
