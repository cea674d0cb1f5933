"""A connection to a running node for commands that only look: it asks, and takes no part in the session."""

from __future__ import annotations

import os
import socket
from types import TracebackType
from typing import Any

from umbel import exceptions
from umbel._base import sessions
from umbel._transport import connection
from umbel._wire import frames

ANSWER_S = 5.0  # of the agent or, through it, of a process; more is a hang, which is worth knowing


class Tool:
    """Closed by `close`, or as a context manager. `address` names the node, in messages."""

    def __init__(self, session_dir: str, *, answer_s: float = ANSWER_S) -> None:
        """Raises UmbelSystemError when nothing answers there."""
        self.address = session_dir
        self._reader = frames.FrameReader()
        self._requests = 0
        try:
            self._sock: socket.socket = connection.connect_unix(f"{session_dir}/{sessions.AGENT_SOCKET}")
        except OSError as error:
            raise exceptions.UmbelSystemError(f"no session answers in {session_dir}: {error}") from error
        self._sock.settimeout(answer_s)
        self._answer_s = answer_s
        self._say(
            {
                "t": "hello",
                "kind": "tool",
                "id": os.urandom(16).hex(),
                "pid": os.getpid(),
                "protocol": frames.PROTOCOL_VERSION,
            }
        )

    def __enter__(self) -> Tool:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def ask(self, process: str, what: str, about: str) -> dict[str, Any]:
        """The answer of a process of the node. Raises UmbelSystemError when it is gone or does not answer."""
        answer = self._request({"t": "ask", "whom": process, "what": what, "about": about})
        if "error" in answer:
            raise exceptions.UmbelSystemError(answer["error"])
        return dict(answer)

    def query(self, what: str, about: str = "") -> Any:
        return self._request({"t": "query", "what": what, "about": about})

    def stop(self) -> int:
        """Have the node end; its daemon's process id. Raises UmbelSystemError where a program owns it."""
        return int(self._request({"t": "stop"})["pid"])

    def _request(self, message: dict[str, Any]) -> Any:
        self._requests += 1
        self._say({**message, "rq": self._requests})
        while True:
            for answer in self._receive():
                if answer.get("t") == "refused":
                    raise exceptions.UmbelSystemError(f"the node in {self.address} refused: {answer['text']}")
                if answer.get("rq") != self._requests:
                    continue  # a warning, or the answer to a question that was given up
                if "error" in answer:
                    raise exceptions.UmbelSystemError(answer["error"]["text"])
                return answer["result"]

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._sock.sendall(frames.encode_control(message))
        except OSError as error:
            raise exceptions.UmbelSystemError(f"the node in {self.address} is gone: {error}") from error

    def _receive(self) -> list[dict[str, Any]]:
        try:
            data = self._sock.recv(65_536)
        except TimeoutError:
            raise exceptions.UmbelSystemError(
                f"no answer within {self._answer_s:g} s; the process may be stopped"
            ) from None
        except OSError as error:
            raise exceptions.UmbelSystemError(f"the node in {self.address} is gone: {error}") from error
        if not data:
            raise exceptions.UmbelSystemError(f"the node in {self.address} has ended")
        return [frames.decode_control(payload)[0] for payload in self._reader.feed(data)]
