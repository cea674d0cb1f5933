"""A connection to a running node for commands that only look: it asks, and takes no part in the session."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from umbel import exceptions
from umbel._base import nodes, sessions
from umbel._transport import connection
from umbel._wire import frames

ANSWER_S = 5.0  # of the agent or, through it, of a process; more is a hang, which is worth knowing


class Tool:
    """Closed by `close`, or as a context manager. `address` names the node, in messages."""

    def __init__(self, address: str, *, answer_s: float = ANSWER_S) -> None:
        """address: the directory of a session here, or host:port of a node that listens, for which the environment has to have
        a token. Raises UmbelSystemError when nothing answers there, AuthenticationError when it does not let us in."""
        self.address = address
        self._reader = frames.FrameReader()
        self._requests = 0
        self._process = ""
        self.answer_s = answer_s
        try:
            self._sock = _dialled(address) if is_remote(address) else _connected(address)
        except OSError as error:
            raise exceptions.UmbelSystemError(f"no session answers in {address}: {error}") from error
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

    def query(self, what: str, about: str = "", *, node: str = "") -> Any:
        """node: the tag of another one that is to answer; "" for the one that this is connected to."""
        return self._request({"t": "query", "what": what, "about": about, "node": node})

    def gather(self, what: str, abouts: Mapping[str, str], limit_s: float) -> dict[str, dict[str, Any]]:
        """The answers of several nodes, by id: each {"result"}, or {"error": {"kind", "text"}} when it has not answered within
        that time. abouts: by node, what it is to be asked about."""
        message = {"t": "gather", "what": what, "abouts": dict(abouts), "limit_s": limit_s}
        return dict(self._request(message, answer_s=limit_s + self.answer_s))

    @property
    def process(self) -> str:
        """What stands for the id of a process on the node that this is connected to."""
        if not self._process:
            self._process = "0" * 8 + nodes.tag_text(self.query("nodes")[0]["node_id"])
        return self._process

    @property
    def is_here(self) -> bool:
        """Whether the node's files can be read."""
        return not is_remote(self.address)

    def stop(self) -> int:
        """Have the node end; its daemon's process id. Raises UmbelSystemError where a program owns it."""
        return int(self._request({"t": "stop"})["pid"])

    def drain_node(self, node: str, reason: str, message: str = "", deadline_s: float | None = None) -> str:
        """Have a node of the cluster drained, see `umbel drain-node`. Returns why not, "" if it agrees. Raises UmbelSystemError
        where nobody can be asked."""
        wanted = {"t": "drain_node", "node": node, "reason": reason, "message": message, "deadline_s": deadline_s}
        answer = self._request(wanted)
        return "" if answer["is_accepted"] else str(answer["reason"])

    def scale(self, *, report: dict[str, Any] | None = None, barred: str = "") -> Any:
        """The autoscaler's: what its cluster is like, unless it has something to say: what it does, or which of its nodes is
        not to be let in any more. See `umbel._agent.scaling`."""
        return self._request({"t": "scale", "report": report, "barred": barred})

    def _request(self, message: dict[str, Any], *, answer_s: float = 0.0) -> Any:
        self._requests += 1
        self._say({**message, "rq": self._requests})
        while True:
            for answer in self._receive(answer_s or self.answer_s):
                if answer.get("t") == "refused":
                    raise exceptions.UmbelSystemError(f"the node in {self.address} refused: {answer['text']}")
                if answer.get("rq") != self._requests:
                    continue  # a warning, or the answer to a question that was given up
                if "error" in answer:
                    raise exceptions.UmbelSystemError(answer["error"]["text"])
                return answer["result"]

    def _say(self, message: dict[str, Any]) -> None:
        data = memoryview(frames.encode_control(message))
        try:
            while data:
                try:
                    data = data[self._sock.send(data) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, self.answer_s)
        except OSError as error:
            raise exceptions.UmbelSystemError(f"the node in {self.address} is gone: {error}") from error

    def _receive(self, answer_s: float) -> list[dict[str, Any]]:
        while True:
            try:
                data = self._sock.recv(65_536)
            except BlockingIOError:
                self._wait(select.POLLIN, answer_s)
                continue
            except OSError as error:
                raise exceptions.UmbelSystemError(f"the node in {self.address} is gone: {error}") from error
            if not data:
                raise exceptions.UmbelSystemError(f"the node in {self.address} has ended")
            return [frames.decode_control(payload)[0] for payload in self._reader.feed(data)]

    def _wait(self, events: int, answer_s: float) -> None:
        poll = select.poll()
        poll.register(self._sock.fileno(), events)
        if not poll.poll(answer_s * 1e3):
            raise exceptions.UmbelSystemError(f"no answer within {answer_s:g} s; the process may be stopped")


def is_remote(address: str) -> bool:
    """Whether this is host:port, not a path."""
    return ":" in address and os.sep not in address


def _connected(session_dir: str) -> connection.Stream:
    sock = connection.connect_unix(f"{session_dir}/{sessions.AGENT_SOCKET}")
    sock.setblocking(False)
    return sock


def _dialled(address: str) -> connection.Stream:
    from umbel._base import token_files
    from umbel._transport import addresses, dialler, own_tls
    from umbel._wire import handshake

    own_tls.use(os.environ.get(own_tls.DIRECTORY_VARIABLE, ""))
    token = token_files.find(os.environ)
    if token is None:
        raise exceptions.AuthenticationError(
            f"{address} lets nobody in without a token; set {token_files.TOKEN_VARIABLE} to one, or "
            f"{token_files.FILE_VARIABLE} to a file with one (`umbel token` on the node's machine prints them)"
        )
    return dialler.connect(addresses.parse(address), handshake.shown(token, handshake.AGENT), handshake.AGENT)
