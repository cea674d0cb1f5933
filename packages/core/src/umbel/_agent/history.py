"""The daemon's side of the history: hands entries to the recorder, a process of its own that writes them to disk.

`spool` decides when there is a recorder. It is forked from the daemon, which has one thread, and ends with it: by an
order, by the end of their socket, or killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from umbel._agent import spool
from umbel._base import sessions
from umbel._transport import connection as transport
from umbel._wire import frames

FILE = "history.db"  # in the session directory
END_GRACE_S = 30.0  # to write the rest of a history that is kept; of one that is not, nothing is waited for
FAILURES_MAX = 3  # recorders that end by themselves, after which there is none any more

Message = dict[str, Any]
Done = Callable[[str], None]  # called with why it failed, or ""


class History:
    """warn: says something to the drivers."""

    def __init__(self, config: Message, poller: transport.Poller, warn: Callable[[str], None]) -> None:
        settings = config.get("history")
        self.is_on = settings is not None
        kept_in = (settings or {}).get("dir")
        name = os.path.basename(config["session_dir"])
        self.path = os.path.join(kept_in, f"{name}.db") if kept_in else os.path.join(config["session_dir"], FILE)
        self.spool = spool.Spool()
        self.is_kept = bool(kept_in)  # when the session has ended
        self._config = config
        self._poller = poller
        self._warn = warn
        self._has_warned = False
        self._recorder: transport.Connection | None = None
        self._pid = 0
        self._failures = 0
        self._asked: list[Done] = []  # in the order of their `sync`
        self._is_ending = False

    @property
    def pid(self) -> int:
        """Of the recorder; 0 while there is none."""
        return self._pid if self._recorder is not None else 0

    def add_tasks(self, batch: bytes, count: int) -> None:
        """A batch of an owner, which is not looked into."""
        if self.is_on and self.spool.add_batch(batch, count, self._behind_bytes):
            self._hand_over()

    def add_worker(self, facts: Message) -> None:
        """facts: what is known of a worker now, as columns of its table."""
        self._note({"worker": facts})

    def add_actor(self, actor: str, facts: Message) -> None:
        """An actor is dead."""
        self._note({"actor": actor, "ended": time.time(), "facts": json.dumps(facts)})

    def _note(self, note: Message) -> None:
        if self.is_on and self.spool.add_note(json.dumps(note).encode(), self._behind_bytes):
            self._hand_over()

    @property
    def _behind_bytes(self) -> int:
        return self._recorder.queued_bytes if self._recorder is not None else 0

    def sync(self, done: Done) -> None:
        """Call `done` when all that was added before can be read in the file."""
        if not self.is_on:
            done("nothing is recorded in this session, because UMBEL_TASK_EVENTS is 0")
        elif not self._hand_over() or self._recorder is None:
            done("the process that writes the history ends whenever it is started; standard error says why")
        else:
            self._asked.append(done)
            self._recorder.send(frames.encode_control({"t": "sync"}))

    def _hand_over(self) -> bool:
        """Whether there is a recorder, which has been given everything."""
        if self._recorder is None:
            if self._failures >= FAILURES_MAX:
                self.spool.give_up()
                return False
            self._start()
        assert self._recorder is not None
        lost, entries = self.spool.hand_over()
        if lost:
            self._recorder.send(frames.encode_control({"t": "lost", "count": lost}))
        for entry in entries:
            body = b"[" + b",".join(entry.parts) + b"]" if entry.is_notes else entry.parts[0]
            self._recorder.send(frames.encode_control({"t": "notes" if entry.is_notes else "batch"}, body))
        return True

    # ---- the recorder's process ----

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            from umbel._agent import recorder

            recorder.run_forked(theirs, self.path, self._config)
        theirs.close()
        with contextlib.suppress(OSError):  # the directory is gone, and with it the session presently
            sessions.record_process(self._pid, self._config["session_dir"])
        self._recorder = transport.Connection(ours, self._poller, self._on_frame, self._on_gone)

    def _on_frame(self, _connection: transport.Connection, payload: bytes) -> None:
        message, _ = frames.decode_control(payload)
        kind = message["t"]
        if kind == "stored":
            self.spool.confirmed()
            self._failures = 0
        elif kind == "refused":
            self.spool.refused()
            self._warn_once(f"the history of tasks has gaps: {message['text']}")
        elif kind == "synced":
            self._asked.pop(0)(message["text"])
        elif kind == "warn":
            self._warn_once(message["text"])

    def _warn_once(self, text: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._warn(text)

    def _on_gone(self, _connection: transport.Connection) -> None:
        """It has ended. If nobody has told it to, the next entry, or question, starts another."""
        self._recorder = None
        if self._is_ending:
            return
        self._failures += 1
        self._reap()
        self.spool.recorder_gone()
        asked, self._asked = self._asked, []
        for done in asked:
            done("the process that writes the history has died; ask again")

    def _reap(self) -> None:
        """Its socket is closed: it ends now, or is killed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def end(self) -> None:
        """There is no recorder any more when this returns, nor a file unless it is to be kept. Blocks."""
        if self.is_kept and (self.spool.waiting or self._recorder is not None) and self._hand_over():
            self._finish()
        if self._recorder is not None:
            self._is_ending = True
            self._recorder.close()
            self._reap()

    def _finish(self) -> None:
        """Have the recorder write all it has, and wait for that."""
        is_done: list[str] = []
        self._asked.append(is_done.append)
        assert self._recorder is not None
        self._recorder.send(frames.encode_control({"t": "finish"}))
        until_s = time.monotonic() + END_GRACE_S
        while not is_done and time.monotonic() < until_s:
            self._poller.poll(max(0.0, until_s - time.monotonic()))
