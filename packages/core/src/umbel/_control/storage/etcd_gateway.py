"""etcd's JSON gateway: its calls as POSTs of JSON, over connections that are kept.

One call at a time. Of several endpoints the one that answered last is asked, the next one when it does not. Numbers of
64 bits are strings in that JSON, keys and values base64.
"""

from __future__ import annotations

import base64
import http.client
import json
import select
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from umbel import exceptions

Json = dict[str, Any]  # Any: JSON

_UNAUTHENTICATED, _DENIED, _UNAVAILABLE = 16, 7, 14  # codes of gRPC
_UNKNOWN, _UNIMPLEMENTED = 2, 12
_MAY_HAVE_HAPPENED = (1, _UNKNOWN, 4, 13, _UNAVAILABLE, 15)  # cancelled, too late, internal, lost
_HAS_NOT = ("no leader", "not capable")  # of "unavailable": said before anything was proposed
COMPACTED = 11  # "out of range": of a revision that etcd has thrown away
NOT_FOUND = 5  # of a lease


class Refused(Exception):
    """etcd has answered that it will not. code: gRPC's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Login(NamedTuple):
    """Where, and as whom. tls: None for none. user: "" for none."""

    endpoints: Sequence[tuple[str, int]]
    tls: ssl.SSLContext | None
    user: str
    password: str


class Gateway:
    """Calls etcd for `place`, which stands in messages."""

    def __init__(self, login: Login, *, place: str, timeout_s: float) -> None:
        self._login = login
        self._place = place
        self._timeout_s = timeout_s
        self._turn = 0  # which endpoint is asked
        self._connection: http.client.HTTPConnection | None = None
        self._token = ""
        self._last: Exception = TimeoutError("timed out")  # why an endpoint could not be asked

    def call(self, path: str, body: Mapping[str, Any], *, doing: str, changes: bool = False) -> Json:
        """etcd's answer. changes: without one, it is uncertain whether it has happened.

        Raises StorageUnavailable, StorageUncertain, AuthenticationError, ControlStorageError; Refused for COMPACTED and
        NOT_FOUND, which have not happened.
        """
        if self._login.user and not self._token:
            self._log_in(doing)
        try:
            return self._call(path, body, doing, changes)
        except Refused as error:
            is_old = error.code == _UNAUTHENTICATED or "auth store is old" in str(error)
            if is_old and self._login.user:
                self._log_in(doing)  # tokens run out, or users were changed
                return self._told(path, body, doing, changes)
            raise self._trouble(error, doing, changes) from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _log_in(self, doing: str) -> None:
        name = {"name": self._login.user, "password": self._login.password}
        self._token = ""
        self._token = self._told("/v3/auth/authenticate", name, doing, False)["token"]

    def _told(self, path: str, body: Mapping[str, Any], doing: str, changes: bool) -> Json:
        try:
            return self._call(path, body, doing, changes)
        except Refused as error:
            raise self._trouble(error, doing, changes) from error

    def _trouble(self, error: Refused, doing: str, changes: bool) -> Exception:
        text = f"{doing}: {self._place} answers: {error}"
        if (
            error.code in (_UNAUTHENTICATED, _DENIED)
            or "authentication failed" in str(error)
            or "user name" in str(error)
        ):
            return exceptions.AuthenticationError(f"{text}; correct the user and the password in the URL, or his role")
        if error.code in (COMPACTED, NOT_FOUND):
            return error
        if error.code in _MAY_HAVE_HAPPENED:
            if changes and not any(words in str(error) for words in _HAS_NOT):
                return exceptions.StorageUncertain(f"{text}; ask for the same again")
            return exceptions.StorageUnavailable(text)
        return exceptions.ControlStorageError(text)

    def _call(self, path: str, body: Mapping[str, Any], doing: str, changes: bool) -> Json:
        """As `call`; raises Refused for whatever etcd refuses."""
        sent = json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        deadline_s = time.monotonic() + self._timeout_s
        for attempt in range(2 * len(self._login.endpoints)):  # each once more: it may just have been starting
            connection = self._connected(deadline_s, attempt, doing)
            if connection is None:
                continue
            try:
                connection.request("POST", path, sent, headers)
                response = connection.getresponse()
                status, answer = response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                self._give_up_on_endpoint()
                if changes:
                    raise exceptions.StorageUncertain(
                        f"{doing}: {self._place} has not answered within {self._timeout_s:g} s ({_words(error)}); ask for "
                        "the same again"
                    ) from error
                self._last = error
                continue
            except BaseException:
                self.close()  # an interrupt: the answer would be taken for that to the next question
                raise
            return _parsed(status, answer)
        raise self._unreachable(doing)

    def _connected(self, deadline_s: float, attempt: int, doing: str) -> http.client.HTTPConnection | None:
        """The connection that is used, or a new one; None when this endpoint does not answer."""
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 and attempt:
            raise self._unreachable(doing)
        connection = self._connection
        if connection is not None and _is_closed_by_peer(connection):
            self.close()
            connection = None
        if connection is None:
            host, port = self._login.endpoints[self._turn % len(self._login.endpoints)]
            connection = (
                http.client.HTTPConnection(host, port, timeout=left_s)
                if self._login.tls is None
                else http.client.HTTPSConnection(host, port, timeout=left_s, context=self._login.tls)
            )
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                self._last = error
                self._turn += 1
                return None
            self._connection = connection
        connection.sock.settimeout(max(left_s, 0.001))
        return connection

    def _give_up_on_endpoint(self) -> None:
        self.close()
        self._turn += 1

    def _unreachable(self, doing: str) -> exceptions.StorageUnavailable:
        return exceptions.StorageUnavailable(
            f"{doing}: {self._place} cannot be reached: {_words(self._last)}; start it, or correct the URL"
        )


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes:
    return base64.b64decode(text)


def _is_closed_by_peer(connection: http.client.HTTPConnection) -> bool:
    """An idle connection has nothing to read, unless its end. None: the last answer was said to be the last one."""
    if connection.sock is None:
        return True
    poller = select.poll()
    poller.register(connection.sock, select.POLLIN)
    return bool(poller.poll(0))


def _parsed(status: int, answer: bytes) -> Json:
    try:
        found: Json = json.loads(answer)
    except ValueError:
        # Of a proxy's troubles nobody knows what has happened.
        code = _UNIMPLEMENTED if 400 <= status < 500 else _UNKNOWN
        raise Refused(code, f"{status} {answer[:200]!r}, which is not JSON; is it etcd 3.4 or later?") from None
    error = found.get("error")
    if isinstance(error, dict):  # of a call that streams
        raise Refused(int(error.get("grpc_code", _UNKNOWN)), str(error.get("message", error)))
    if status != http.client.OK or error is not None:
        raise Refused(int(found.get("code", _UNKNOWN)), str(found.get("message", error)))
    return found


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
