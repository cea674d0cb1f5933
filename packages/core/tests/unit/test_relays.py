"""What a program of another machine has to say before anything stands for it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from umbel._agent import relay, relays
from umbel._base import tokens
from umbel._wire import conversations, frames

RIGHT: dict[str, Any] = {
    "t": "begin", "protocol": relays.PROTOCOL_VERSION, "version": "1.2", "python": list(sys.version_info[:2]),
    "secret": "s" * 32, "patience_s": 30,
}  # fmt: skip


def test_what_is_right_is_taken() -> None:
    assert relays.read(RIGHT, "1.2") == relays.Wish("s" * 32, 30.0)


@pytest.mark.parametrize(("wanted", "given"), [(-1, 0.0), (1e9, relays.PATIENCE_S_MAX)])
def test_patience_has_bounds(wanted: float, given: float) -> None:
    assert relays.read({**RIGHT, "patience_s": wanted}, "1.2").patience_s == given


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"t": "hello"}, "speaks version"),
        ({"protocol": 7}, "the program 7; install the same version of Umbel on both sides"),
        ({"version": "1.3"}, r"runs Umbel 1\.2, the program '1\.3'"),
        ({"version": None}, "the program None"),
        ({"python": [3, 2]}, r"the program 3\.2, and functions cannot be pickled"),
        ({"python": "three"}, "the program 'three'"),
        ({"secret": "short"}, "how it comes back"),
        ({"secret": 1}, "how it comes back"),
        ({"patience_s": True}, "for how long"),
        ({"patience_s": "long"}, "for how long"),
    ],
)
def test_what_is_wrong_is_told(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        relays.read({**RIGHT, **wrong}, "1.2")


def test_nothing_comes_to_the_nodes_memory_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon frees what there is when the relay has closed its sockets; what was asked for then was made all the same."""
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    os.makedirs("store")
    (near, far), (alive, daemon) = socket.socketpair(), socket.socketpair()
    node = {"session_dir": ".", "store_dir": "store", "node_id": "n", "address": "a"}
    token = tokens.Token(tokens.Role.SUBMIT, bytes(32))
    made = relay.Relay(far, alive, relays.Wish("s" * 32, 30.0), "ab" * 16, token, node)
    program = conversations.Conversation(dials=True, secret="s" * 32, patience_s=30.0, at_s=0.0)
    stream = program.multiplexer.open({"to": "files"})
    for number in range(2):
        question = {"t": "create", "name": f"p.p.{number}", "bytes": 10, "rq": number}
        program.multiplexer.send(stream, frames.encode_control(question))
        for message, body in program.multiplexer.frames:
            near.sendall(frames.encode_control(message, body))
        program.multiplexer.frames.clear()
        made.poller.poll(1.0)  # to the files, which have not read it
        if number:
            made.is_over("it has left")
        while made.poller.poll(0.0):
            pass
    assert os.listdir("store") == ["p.p.0"]
    for sock in (near, daemon):
        sock.close()
    made.poller.close()
