"""The client of etcd's JSON gateway, against servers that misbehave: what has happened, and what is uncertain."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from umbel import exceptions
from umbel._control.storage import etcd_gateway

OK = (200, b'{"succeeded": true}')


def refusal(code: int, text: str) -> tuple[int, bytes]:
    return 400, json.dumps({"error": text, "code": code, "message": text}).encode()


class Misbehaving(http.server.ThreadingHTTPServer):
    """Answers with what it was given, in order; None closes the connection without an answer."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, bytes] | None, keeps: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler if keeps else _ClosingHandler)
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []
        self.connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers["Content-Length"]))
        server.asked.append((self.path, self.headers.get("Authorization")))
        answer = server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, *_: object) -> None:
        pass


class _ClosingHandler(_Handler):
    protocol_version = "HTTP/1.0"


@contextlib.contextmanager
def serving(*answers: tuple[int, bytes] | None, keeps: bool = True) -> Iterator[Misbehaving]:
    server = Misbehaving(*answers, keeps=keeps)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def gateway(*servers: Misbehaving, user: str = "", timeout_s: float = 5.0) -> Iterator[etcd_gateway.Gateway]:
    login = etcd_gateway.Login([server.server_address[:2] for server in servers], None, user, "secret")  # type: ignore[misc]
    made = etcd_gateway.Gateway(login, place="the etcd", timeout_s=timeout_s)
    try:
        yield made
    finally:
        made.close()


def test_connection_is_kept() -> None:
    with serving(OK, OK, OK) as server, gateway(server) as made:
        for _ in range(3):
            assert made.call("/v3/kv/txn", {}, doing="testing", changes=True) == {"succeeded": True}
        assert server.connections == 1


def test_server_that_closes_after_each_answer_does_no_harm() -> None:
    with serving(OK, OK, OK, keeps=False) as server, gateway(server) as made:
        for _ in range(3):
            made.call("/v3/kv/txn", {}, doing="testing", changes=True)
        assert server.connections == 3


def test_change_without_an_answer_is_uncertain_and_not_repeated() -> None:
    with serving(None, OK) as server, gateway(server) as made:
        with pytest.raises(exceptions.StorageUncertain, match=r"commit 3: the etcd has not answered within 5 s"):
            made.call("/v3/kv/txn", {}, doing="commit 3", changes=True)
        assert len(server.asked) == 1
        made.call("/v3/kv/txn", {}, doing="commit 3", changes=True)


def test_question_without_an_answer_is_put_to_the_next_endpoint() -> None:
    with serving(None) as first, serving(OK, OK) as second, gateway(first, second) as made:
        assert made.call("/v3/kv/range", {}, doing="reading") == {"succeeded": True}
        made.call("/v3/kv/range", {}, doing="reading")  # and the one that has answered is asked again
        assert (len(first.asked), len(second.asked)) == (1, 2)


def test_silent_server_is_waited_for_no_longer_than_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        login = etcd_gateway.Login([silent.getsockname()], None, "", "")
        made = etcd_gateway.Gateway(login, place="the etcd", timeout_s=0.1)
        with pytest.raises(exceptions.StorageUncertain, match=r"within 0.1 s"):
            made.call("/v3/kv/txn", {}, doing="commit 3", changes=True)
        with pytest.raises(exceptions.StorageUnavailable, match="timed out"):
            made.call("/v3/kv/range", {}, doing="reading")
        made.close()


@pytest.mark.parametrize(
    ("answer", "changing", "asking"),
    [
        (refusal(14, "etcdserver: request timed out"), exceptions.StorageUncertain, exceptions.StorageUnavailable),
        (refusal(14, "etcdserver: leader changed"), exceptions.StorageUncertain, exceptions.StorageUnavailable),
        (refusal(14, "etcdserver: no leader"), exceptions.StorageUnavailable, exceptions.StorageUnavailable),
        (refusal(8, "etcdserver: mvcc: database space exceeded"), exceptions.ControlStorageError, None),
        (refusal(3, "etcdserver: request is too large"), exceptions.ControlStorageError, None),
        (refusal(7, "etcdserver: permission denied"), exceptions.AuthenticationError, None),
        ((502, b"<html>bad gateway</html>"), exceptions.StorageUncertain, exceptions.StorageUnavailable),
        ((404, b"404 page not found"), exceptions.ControlStorageError, None),
    ],
)
def test_refusal_says_whether_it_has_happened(
    answer: tuple[int, bytes], changing: type[Exception], asking: type[Exception] | None
) -> None:
    with serving(answer, answer) as server, gateway(server) as made:
        for changes, expected in ((True, changing), (False, asking or changing)):
            with pytest.raises(expected) as caught:
                made.call("/v3/kv/txn", {}, doing="testing", changes=changes)
            assert type(caught.value) is expected


def test_token_that_has_run_out_is_fetched_anew() -> None:
    first, second = ((200, json.dumps({"token": token}).encode()) for token in ("first", "second"))
    with (
        serving(first, OK, refusal(16, "etcdserver: invalid auth token"), second, OK) as server,
        gateway(server, user="me") as made,
    ):
        made.call("/v3/kv/txn", {}, doing="testing", changes=True)
        made.call("/v3/kv/txn", {}, doing="testing", changes=True)
        assert server.asked == [
            ("/v3/auth/authenticate", None),
            ("/v3/kv/txn", "first"),
            ("/v3/kv/txn", "first"),
            ("/v3/auth/authenticate", None),
            ("/v3/kv/txn", "second"),
        ]
