"""The node's shared memory, and files beside it, for a program of another machine: in pieces, by a socket.

Which segments there are, who needs them and how many bytes they may take is decided by the program's own store
(`umbel._client.remote_store`); here is done what it says, in the order in which it says it. An answer that has more than a piece
would hold up all others.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from umbel._environments import packing
from umbel._model import package_names
from umbel._objects import segments
from umbel._transport import connection
from umbel._wire import frames

PIECE_BYTES_MAX = 1 << 20

Message = dict[str, Any]


class RelayedFiles:
    """Until the other end of the socket is closed."""

    def __init__(self, sock: socket.socket, poller: connection.Poller, store_dir: str, session_dir: str) -> None:
        self._store_dir = store_dir
        self._packages = packing.Packages(packing.directory_of(session_dir), bytes_max=0)
        self._open: dict[str, int] = {}  # descriptors of what is being written, by path
        self._on: dict[str, Callable[[Message, bytes], tuple[Message, bytes]]] = {
            "create": self._create, "write": self._write, "seal": self._seal, "read": self._read, "free": self._free,
            "orphans": self._orphans, "read_file": self._read_file, "has_package": self._has_package,
            "put_package": self._put_package,
        }  # fmt: skip
        self._connection = connection.Connection(sock, poller, self._on_frame, self._on_close)

    def _on_frame(self, link: connection.Connection, payload: bytes) -> None:
        message, body = frames.decode_control(payload)
        try:
            answer, data = self._on[message["t"]](message, body)
        except FileNotFoundError as error:
            answer, data = {"error": {"kind": "gone", "text": str(error)}}, b""
        except OSError as error:
            kind = "full" if error.errno in segments.FULL_ERRNOS else "failed"
            answer, data = {"error": {"kind": kind, "text": str(error)}}, b""
        except (ValueError, TypeError, KeyError) as error:
            answer, data = {"error": {"kind": "invalid", "text": f"{message.get('t')!r:.50}: {error!r}"}}, b""
        if message.get("rq") is not None:
            link.send(frames.encode_control({"t": "reply", "rq": message["rq"], **answer}, data))

    def close(self) -> None:
        """What was asked for, and has not begun, is not done."""
        self._connection.close()

    def _on_close(self, _connection: connection.Connection) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _segment(self, message: Message) -> str:
        segments.parts_of(message["name"])  # which it is
        return os.path.join(self._store_dir, message["name"])

    # ---- segments ----

    def _create(self, message: Message, _body: bytes) -> tuple[Message, bytes]:
        path = self._segment(message)
        self._open[path] = segments.allocate(path, 0, segments.page_bytes(message["bytes"]))
        return {}, b""

    def _write(self, message: Message, body: bytes) -> tuple[Message, bytes]:
        segments.write(self._open[self._segment(message)], message["offset"], memoryview(body))
        return {}, b""

    def _seal(self, message: Message, _body: bytes) -> tuple[Message, bytes]:
        os.close(self._open.pop(self._segment(message)))
        return {}, b""

    def _read(self, message: Message, _body: bytes) -> tuple[Message, bytes]:
        return {}, _piece(self._segment(message), message["offset"], message["bytes"])

    def _free(self, message: Message, _body: bytes) -> tuple[Message, bytes]:
        path = self._segment(message)
        descriptor = self._open.pop(path, -1)
        if descriptor >= 0:
            os.close(descriptor)
        return {"bytes": segments.remove(path)}, b""

    def _orphans(self, message: Message, _body: bytes) -> tuple[Message, bytes]:
        """The segments that one process has made for another."""
        made = f"{message['creator']}.{message['owner']}."
        return {"names": [name for name in os.listdir(self._store_dir) if name.startswith(made)]}, b""

    # ---- other files ----

    def _read_file(self, message: Message, _body: bytes) -> tuple[Message, bytes]:
        """Whoever may submit can read what a worker can."""
        return {}, _piece(message["path"], message["offset"], message["bytes"])

    def _package(self, message: Message) -> str:
        name = message["name"]
        if not isinstance(name, str) or not package_names.is_name(name):
            raise ValueError(f"a package is called by its digest, got {name!r:.100}")
        return name

    def _has_package(self, message: Message, _body: bytes) -> tuple[Message, bytes]:
        return {"is_here": self._packages.has(self._package(message))}, b""

    def _put_package(self, message: Message, body: bytes) -> tuple[Message, bytes]:
        """One piece after the other; with the last one it is there under its name."""
        name = self._package(message)
        path = self._packages.archive_of(name)
        draft = os.path.join(os.path.dirname(path), f".new-{os.getpid()}-{name}")
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(draft, "r+b" if message["offset"] else "wb") as file:
            file.seek(message["offset"])
            file.write(body)
        if message["is_last"]:
            found = packing.file_digest(draft)
            if found != name:
                os.unlink(draft)
                raise ValueError(f"the package is to be {name}, and what has come is {found}")
            os.rename(draft, path)
        return {}, b""


def _piece(path: str, offset: int, size_bytes: int) -> bytes:
    if size_bytes > PIECE_BYTES_MAX:
        raise ValueError(f"a piece has at most {PIECE_BYTES_MAX} bytes, got {size_bytes}")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size_bytes, offset)
    finally:
        os.close(descriptor)
