"""Answers that take long, of this node to others: given by processes that are forked for that, as the daemon waits for nothing.

What a node has of tasks and logs lies in files, and what its processes know is asked of one after the other. A surveyor does
both as any command of this machine would, by the code that commands use (`umbel._client.surveys`), and ends when it has had
nothing to do for a while. Loaded with the first such question.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from umbel._agent import forked
from umbel._base import sessions
from umbel._transport import connection as transport
from umbel._wire import frames

COUNT_MAX = 2  # at once: one may wait for a process that is stopped, while others are asked
IDLE_S = 30.0  # whoever looks again and again asks more often; a start takes some 0.1 s
OPEN_MAX = 200  # questions that wait, in all; a listing of the cluster has two

Message = dict[str, Any]
Done = Callable[[Message], None]  # told {"result": text} or {"error": {"kind", "text"}}


class _Surveyor:
    __slots__ = ("connection", "idle_s", "pid", "questions")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.connection: transport.Connection
        self.questions: dict[int, Done] = {}
        self.idle_s = 0.0


class Surveyors:
    """Those of one node."""

    def __init__(self, poller: transport.Poller, session_dir: str, now_s: Callable[[], float]) -> None:
        self._poller = poller
        self._session_dir = session_dir
        self._now_s = now_s
        self._numbers = itertools.count(1)
        self._surveyors: list[_Surveyor] = []

    def ask(self, about: str, done: Done) -> None:
        """about: as `umbel._client.surveys` reads it. done: is called once, unless this node ends before."""
        if sum(len(one.questions) for one in self._surveyors) >= OPEN_MAX:
            done(_error("busy", f"{OPEN_MAX} such questions wait for answers there already"))
            return
        least = min(self._surveyors, key=lambda one: len(one.questions), default=None)
        if least is None or (least.questions and len(self._surveyors) < COUNT_MAX):
            least = self._start()
        number = next(self._numbers)
        least.questions[number] = done
        least.connection.send(frames.encode_control({"t": "survey", "number": number, "about": about}))

    def _start(self) -> _Surveyor:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            forked.run(functools.partial(_serve, theirs, self._session_dir), theirs.fileno())
        theirs.close()
        with contextlib.suppress(OSError):  # the directory is gone, and with it the session presently
            sessions.record_process(pid, self._session_dir)
        made = _Surveyor(pid)
        made.connection = transport.Connection(ours, self._poller, self._on_frame, self._on_gone)
        made.connection.peer = made
        self._surveyors.append(made)
        return made

    def _on_frame(self, connection: transport.Connection, payload: bytes) -> None:
        surveyor = connection.peer
        assert isinstance(surveyor, _Surveyor)
        message, _ = frames.decode_control(payload)
        done = surveyor.questions.pop(message["number"])
        if not surveyor.questions:
            surveyor.idle_s = self._now_s()
        done({"result": message["text"]} if message["is_right"] else _error("failed", message["text"]))

    def _on_gone(self, connection: transport.Connection) -> None:
        surveyor = connection.peer
        assert isinstance(surveyor, _Surveyor)
        self._surveyors.remove(surveyor)
        with contextlib.suppress(ProcessLookupError):
            os.kill(surveyor.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(surveyor.pid, 0)
        for done in surveyor.questions.values():
            done(_error("gone", "the process that was to answer has died"))

    def pids(self) -> list[int]:
        return [one.pid for one in self._surveyors]

    def next_tick_s(self) -> float | None:
        return min((one.idle_s + IDLE_S for one in self._surveyors if not one.questions), default=None)

    def tick(self) -> None:
        now_s = self._now_s()
        for one in [one for one in self._surveyors if not one.questions and one.idle_s + IDLE_S <= now_s]:
            one.connection.close()

    def close(self) -> None:
        """There is none when this returns. Who waits is told nothing."""
        for one in list(self._surveyors):
            one.questions.clear()
            one.connection.close()


def _error(kind: str, text: str) -> Message:
    return {"error": {"kind": kind, "text": text}}


# ---- the surveyor's process ----


def _serve(daemon: socket.socket, session_dir: str) -> None:
    """Until the daemon closes the connection."""
    from umbel._client import surveys, tool

    reader = frames.FrameReader()
    with tool.Tool(session_dir) as asker:
        while data := daemon.recv(65_536):
            for payload in reader.feed(data):
                message, _ = frames.decode_control(payload)
                answer = {"number": message["number"], "is_right": True}
                try:
                    answer["text"] = surveys.answer(asker, message["about"])
                except Exception as error:
                    answer |= {"is_right": False, "text": f"{type(error).__name__}: {error}"}
                daemon.sendall(frames.encode_control(answer))
