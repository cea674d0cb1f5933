"""The agent's clients: who is connected, what they say, and sending to them.

A client introduces itself by `hello` before anything else, once. Messages are checked here; behind this module they
are well-formed. A client that breaks the protocol gets an error and, where the stream itself is broken, is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from umbel._agent import messages
from umbel._transport import connection as transport
from umbel._wire import frames

LOG_QUEUE_BYTES_MAX = 8 << 20  # output that a driver has not taken yet; beyond it lines are dropped, and counted

Message = dict[str, Any]
Connection = transport.Connection


class Client:
    """One connected process."""

    __slots__ = (
        "connection", "dropped_lines", "id", "is_driver", "is_tool", "job", "job_id", "may_change", "namespace", "pid",
        "token", "wants_output",
    )  # fmt: skip

    def __init__(self, hello: Message, connection: Connection, namespace: str) -> None:
        self.id: str = hello["id"]
        self.pid: int = hello["pid"]
        self.is_driver: bool = hello["kind"] == "driver"
        self.is_tool: bool = hello["kind"] == "tool"  # it looks, and takes no part
        self.namespace = namespace
        self.job_id = ""
        self.job: Any = None  # what its workers need to be like the driver; None where they are the node's own
        self.token = ""  # with which it proves to other nodes what it may; given to it when it is welcomed
        self.wants_output = False  # of its job's workers
        self.may_change = True  # what there is; else it may only look
        self.connection = connection
        self.dropped_lines = 0


class Receiver(Protocol):
    """Whom the hub tells."""

    def may_join(self, hello: Message) -> str:
        """Why this process may not join, or "" if it may."""

    def on_joining(self, client: Client, hello: Message) -> None:
        """It is to be given its job; then it is welcomed."""

    def welcome(self, client: Client, message: Message) -> None:
        """Send it this, at once or when what it says is so for good."""

    def on_joined(self, client: Client) -> None: ...

    def on_message(self, client: Client, message: Message, body: bytes) -> None: ...

    def on_gone(self, client: Client) -> None: ...


class Hub:
    """All connections to the agent's socket."""

    def __init__(self, poller: transport.Poller, path: str, receiver: Receiver, welcome: Message) -> None:
        """welcome: what every client is told when it joins; "namespace" is filled in."""
        self.clients: dict[str, Client] = {}
        self._strangers: set[Connection] = set()
        self._visitors: dict[
            Connection, bool
        ] = {}  # from other machines, proved to be who they are: whether they may change
        self._poller = poller
        self._receiver = receiver
        self._welcome = welcome
        self._listener = transport.Listener(transport.listen_unix(path), poller, self._on_accept)

    # ---- sending ----

    def send(self, client_id: str, message: Message, body: bytes = b"") -> None:
        """To a client that may have gone meanwhile: then it is dropped."""
        client = self.clients.get(client_id)
        if client is not None:
            client.connection.send(frames.encode_control(message, body))

    def reply(self, client_id: str, request: int | None, message: Message, body: bytes = b"") -> None:
        if request is not None:
            self.send(client_id, {"t": "reply", "rq": request, **message}, body)

    def refuse(self, client_id: str, request: int | None, kind: str, text: str, **more: object) -> None:
        """Answer a request with an error; an unanswerable mistake becomes a warning."""
        if request is None:
            self.send(client_id, {"t": "warn", "text": text})
        else:
            self.send(client_id, {"t": "reply", "rq": request, "error": {"kind": kind, "text": text, **more}})

    def drivers(self) -> list[Client]:
        return [client for client in self.clients.values() if client.is_driver]

    def tell_processes(self, message: Message) -> None:
        """All drivers and workers."""
        for client in list(self.clients.values()):
            if not client.is_tool:
                self.send(client.id, message)

    def tell_drivers(self, message: Message) -> None:
        for client in self.drivers():
            self.send(client.id, message)

    def forward_lines(self, message: Message, job_id: str) -> None:
        """A `log` message to the job's driver, if that wants it and keeps up."""
        frame = b""
        for client in self.drivers():
            if client.job_id != job_id or not client.wants_output:
                continue
            if client.connection.queued_bytes > LOG_QUEUE_BYTES_MAX:
                client.dropped_lines += len(message["lines"])
                continue
            if client.dropped_lines:
                text = (
                    f"{client.dropped_lines} lines of workers' output were dropped because the driver did not read them"
                )
                client.dropped_lines = 0
                self.send(client.id, {"t": "warn", "text": text})
            frame = frame or frames.encode_control(message)
            client.connection.send(frame)

    # ---- receiving ----

    def _on_accept(self, sock: Any) -> None:
        self._strangers.add(transport.Connection(sock, self._poller, self._on_frame, self._on_close))

    def admit(self, stream: transport.Stream, *, may_change: bool) -> None:
        """A connection from another machine, whose other side has proved itself. It may be a tool's, and no other's."""
        connection = transport.Connection(stream, self._poller, self._on_frame, self._on_close)
        self._visitors[connection] = may_change

    def _on_frame(self, connection: Connection, payload: bytes) -> None:
        client = connection.peer
        request = None
        try:
            message, body = frames.decode_control(payload)
            request = message.get("rq")
            parsed = messages.parse(message)
        except ValueError as error:
            if isinstance(client, Client):
                self.refuse(client.id, request if isinstance(request, int) else None, "invalid", str(error))
            else:
                self._turn_away(connection, str(error))
            return
        if isinstance(client, Client):
            if client.is_tool and parsed["t"] not in messages.TOOLS_MAY_SAY:
                self.refuse(client.id, request, "invalid", f"a tool may only ask, got {parsed['t']!r}")
            elif parsed["t"] != "hello":
                self._receiver.on_message(client, parsed, body)
        elif parsed["t"] == "hello":
            self._on_hello(connection, parsed)
        else:
            self._turn_away(connection, f"the first message must be hello, got {parsed['t']}")

    def _on_hello(self, connection: Connection, hello: Message) -> None:
        if hello["protocol"] != frames.PROTOCOL_VERSION:
            self._turn_away(
                connection,
                f"this agent speaks protocol {frames.PROTOCOL_VERSION}, the client {hello['protocol']}; "
                "run the same version of Umbel on both sides",
            )
            return
        if hello["id"] in self.clients:
            self._turn_away(connection, f"a client with the id {hello['id']} is connected already")
            return
        reason = self._receiver.may_join(hello)
        if connection in self._visitors and hello["kind"] != "tool":
            reason = "from other machines, commands may connect, but no programs yet; run them on the node's machine"
        if reason:
            self._turn_away(connection, reason)
            return
        self._strangers.discard(connection)
        client = Client(hello, connection, hello["namespace"] or self._welcome["namespace"])
        client.may_change = self._visitors.pop(connection, True)
        connection.peer = client
        self.clients[client.id] = client
        self._receiver.on_joining(client, hello)
        secrets: Message = {}
        if client.token:
            from umbel._transport import addresses

            secrets = {"token": client.token, "silence_s": addresses.borne_s()}
        job_id = client.job_id.partition("@")[0]  # of another node's, which is nothing to users
        told = {**self._welcome, "namespace": client.namespace, "job_id": job_id, **secrets}
        self._receiver.welcome(client, told)
        self._receiver.on_joined(client)

    def _turn_away(self, connection: Connection, text: str) -> None:
        connection.send(frames.encode_control({"t": "refused", "text": text}))
        connection.close()

    def _on_close(self, connection: Connection) -> None:
        client = connection.peer
        if isinstance(client, Client):
            del self.clients[client.id]
            self._receiver.on_gone(client)
        else:
            self._strangers.discard(connection)
            self._visitors.pop(connection, None)

    def flush(self, until_s: float, now_s: Callable[[], float]) -> None:
        """Wait until the drivers have taken all that was sent to them, or until then."""
        while now_s() < until_s and any(client.connection.queued_bytes for client in self.drivers()):
            self._poller.poll(max(0.0, until_s - now_s()))

    def close(self) -> None:
        self._listener.close()
