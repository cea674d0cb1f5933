"""The recorder: the process that writes a session's history to disk.

It takes what the daemon hands over and writes it down at once, which is quick. What is written down it turns into rows at
the lowest priority, and only when nothing has come for a while: even so it would get in the way of tasks that wake each
other up. Whoever asks meanwhile does that himself. It ends when the daemon's end of their socket closes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from umbel._history import retention
from umbel._wire import frames

NICE = 19
QUIET_S = 3.0  # without anything coming, until rows are made
RAW_BYTES_MAX = 40 << 20  # about a million tasks; beyond it, rows are made at once, so that a question can be answered
TRIM_PERIOD_S = 5.0  # between looks at whether something is too old
READ_BYTES = 1 << 20
FILE_ENDINGS = ("", "-wal", "-shm", "-journal")


def run_forked(sock: socket.socket, path: str, config: dict[str, Any]) -> NoReturn:
    """Be the recorder, in a process just forked from the daemon, of which nothing else is used."""
    code = 1
    try:
        fd = sock.detach()
        os.dup2(fd, 3)  # what else is open belongs to the daemon
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.nice(NICE)
        Recorder(socket.socket(fileno=3), path, config).run()
        code = 0
    except BaseException:
        import traceback

        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


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
        self._may_be_raw = False
        self._raw_bytes = 0
        self._recorded_s = 0.0  # time.monotonic(), the last time
        self._is_finished = False
        if self._is_kept:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._store = store.Store(path, create=True)
        self._errors = store.Error

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
        """Take what has come, or else tidy up; False when nothing will come any more."""
        if self._may_be_raw:
            quiet_in_s = self._recorded_s + QUIET_S - time.monotonic()
            wait_s: float | None = 0.0 if self._raw_bytes > RAW_BYTES_MAX else max(0.0, quiet_in_s)
        else:
            wait_s = TRIM_PERIOD_S if self._retention.age_max_s else None
        ready, _, _ = select.select([self._sock], [], [], wait_s)
        if not ready:
            self._tidy()
            return True
        try:
            data = self._sock.recv(READ_BYTES)
        except OSError:
            data = b""
        for payload in self._reader.feed(data):
            message, body = frames.decode_control(payload)
            self._say(self._take(message, body))
        return bool(data) and not self._is_finished

    def _say(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone: the next read tells
            self._sock.sendall(frames.encode_control(answer))

    def _take(self, message: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Do what the daemon says; the answer."""
        kind = message["t"]
        is_entry = kind in ("batch", "worker", "actor")
        try:
            if kind == "batch":
                self._store.write_down(body)
                self._may_be_raw = True
                self._raw_bytes += len(body)
                self._recorded_s = time.monotonic()
            elif kind == "worker":
                self._store.worker(message["facts"])
            elif kind == "actor":
                self._store.actor(message["actor"], message["ended"], message["facts"])
            elif kind == "lost":
                self._store.dropped(message["count"])
            elif kind == "finish":
                self._finish()
        except self._errors as error:
            text = f"{self._path}: {error}"
            return {"t": "refused" if is_entry else "synced", "text": text}
        if kind == "lost":
            return {"t": "noted"}
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
        """Turn one batch into rows, or remove what is old."""
        try:
            self._may_be_raw = self._store.absorb()
            if not self._may_be_raw:
                self._raw_bytes = 0
            if not self._may_be_raw or time.monotonic() - self._trimmed_s > TRIM_PERIOD_S:
                self._trimmed_s = time.monotonic()
                self._store.trim(self._retention, time.time())
        except self._errors as error:
            self._may_be_raw = False  # another entry, or question, is another try
            self._say({"t": "warn", "text": f"the history of tasks is not written to {self._path}: {error}"})
        except ValueError as error:
            self._say({"t": "warn", "text": f"the history of tasks has gaps: {error}"})
