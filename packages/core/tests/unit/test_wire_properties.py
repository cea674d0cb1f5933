"""What holds of everything that can come by a wire, looked for by hypothesis among what it thinks up.

`HYPOTHESIS_PROFILE=long` looks for a minute; `nox -s fuzz` does so where it cannot fuzz.
"""

from __future__ import annotations

import json
import os
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from umbel import exceptions
from umbel._agent import messages
from umbel._base import tokens
from umbel._transport import addresses
from umbel._wire import frames, handshake

hypothesis.settings.register_profile("short", max_examples=100, deadline=None, database=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=1_000, deadline=None, database=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

SECRET = tokens.Token(tokens.Role.HEAD, bytes(range(32)))
KEYS = handshake.Keys(SECRET)
SERVER_NONCE, CLIENT_NONCE = b"s" * 32, b"c" * 32

Cuts = st.lists(st.integers(1, 100), max_size=50)
Targets = st.one_of(
    st.sampled_from([handshake.AGENT, handshake.CONTROL, handshake.DRIVERS]),
    st.binary(min_size=16, max_size=16).map(handshake.process),
)
Roles = st.sampled_from(tokens.Role)


def serve(data: bytes, cuts: list[int], keys: handshake.Keys = KEYS) -> tuple[Any, bytes, int]:
    """A server that is sent `data`, in pieces as long as the cuts say at most: its verdict, what it sent, and how much it
    read."""
    pieces = _Pieces(data, cuts)
    reader = handshake.PreambleReader()
    while reader.outcome is None and (piece := pieces.take(reader.wanted)):
        reader.feed(piece)
    if not isinstance(reader.outcome, handshake.Preamble):
        return reader.outcome, reader.reply, pieces.position
    server = handshake.ServerHandshake(reader.outcome, keys, SERVER_NONCE)
    sent = server.greeting
    while server.outcome is None and (piece := pieces.take(server.wanted)):
        sent += server.feed(piece)
    return server.outcome, sent, pieces.position


def ask(data: bytes, cuts: list[int], token: tokens.Token, target: handshake.Target) -> tuple[Any, bytes, int]:
    """The same of a client."""
    pieces = _Pieces(data, cuts)
    client = handshake.ClientHandshake(token, target, CLIENT_NONCE, is_tls=False)
    sent = handshake.encode_preamble(target, is_tls=False)
    while client.outcome is None and (piece := pieces.take(client.wanted)):
        sent += client.feed(piece)
    return client.outcome, sent, pieces.position


class _Pieces:
    def __init__(self, data: bytes, cuts: list[int]) -> None:
        self._data = data
        self._cuts = iter(cuts)
        self.position = 0

    def take(self, wanted: int) -> bytes:
        piece = self._data[self.position :][: min(wanted, next(self._cuts, wanted))]
        self.position += len(piece)
        return piece


def conversation(token: tokens.Token, target: handshake.Target) -> tuple[bytes, bytes]:
    """What the client and the server of an honest one send."""
    client = handshake.ClientHandshake(token, target, CLIENT_NONCE, is_tls=False)
    from_client = handshake.encode_preamble(target, is_tls=False)
    server = handshake.ServerHandshake(handshake.read_preamble(from_client), KEYS, SERVER_NONCE)  # type: ignore[arg-type]
    proof = client.feed(server.greeting)
    return from_client + proof, server.greeting + server.feed(proof)


@st.composite
def edited(draw: st.DrawFn, data: bytes) -> bytes:
    """Another one, made by replacing a piece of it."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    changed = data[:start] + draw(st.binary(max_size=40)) + data[end:]
    hypothesis.assume(changed[: len(data)] != data)
    return changed


# ---- the handshake ----


@hypothesis.given(role=Roles, target=Targets, extra=st.binary(max_size=20), cuts=Cuts)
def test_any_split_of_the_bytes_gives_the_same_verdict(
    role: tokens.Role, target: handshake.Target, extra: bytes, cuts: list[int]
) -> None:
    token = SECRET.lowered(role)
    from_client, from_server = conversation(token, target)
    shown = handshake.shown(token, target).role
    of_programs = (handshake.TargetKind.PROCESS, handshake.TargetKind.DRIVERS)
    if role < tokens.Role.SUBMIT and target.kind in of_programs:
        assert isinstance(serve(from_client, [])[0], handshake.Failed)
    else:
        welcome = handshake.Accepted(shown, target)
        assert serve(from_client + extra, cuts) == (welcome, from_server, len(from_client))
        assert ask(from_server + extra, cuts, token, target) == (welcome, from_client, len(from_server))


@hypothesis.given(data=st.data(), target=Targets, cuts=Cuts)
def test_no_other_bytes_than_the_right_ones_authenticate(
    data: st.DataObject, target: handshake.Target, cuts: list[int]
) -> None:
    token = SECRET.lowered(tokens.Role.SUBMIT)
    from_client, from_server = conversation(token, target)
    changed = data.draw(st.one_of(edited(from_client), st.binary(max_size=200)))
    outcome, sent, read_bytes = serve(changed, cuts)
    assert not isinstance(outcome, handshake.Accepted)
    assert read_bytes <= 92
    assert len(sent) <= 75
    assert outcome == serve(changed, [])[0]
    changed = data.draw(st.one_of(edited(from_server), st.binary(max_size=200)))
    outcome, _sent, read_bytes = ask(changed, cuts, token, target)
    assert not isinstance(outcome, handshake.Accepted)
    assert read_bytes <= 75


@hypothesis.given(secret=st.binary(min_size=32, max_size=32), role=Roles, target=Targets, own=Roles)
def test_token_of_another_cluster_never_authenticates(
    secret: bytes, role: tokens.Role, target: handshake.Target, own: tokens.Role
) -> None:
    hypothesis.assume(secret != SECRET.key)
    token = tokens.Token(tokens.Role.HEAD, secret).lowered(role)
    from_client, _from_server = conversation(token, target)
    assert not isinstance(serve(from_client, [], handshake.Keys(SECRET.lowered(own)))[0], handshake.Accepted)


# ---- text ----


@hypothesis.given(key=st.binary(min_size=32, max_size=32), role=Roles)
def test_token_comes_back_from_its_text(key: bytes, role: tokens.Role) -> None:
    token = tokens.Token(role, key)
    assert tokens.parse(token.as_text(), source="here") == token


@hypothesis.given(text=st.one_of(st.text(), st.builds("umbel1.{}.{}".format, st.text(), st.text())))
def test_any_other_text_is_refused_as_no_token(text: str) -> None:
    with pytest.raises(exceptions.AuthenticationError):
        tokens.parse(text, source="here")


@hypothesis.given(
    text=st.one_of(st.text(), st.text(alphabet="a.:[]-019%"), st.builds("{}:{}".format, st.text(), st.integers()))
)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = addresses.parse(text)
    except exceptions.InvalidOption:
        return
    assert addresses.parse(str(address)) == address


# ---- frames ----


@hypothesis.given(payloads=st.lists(st.binary(max_size=300), max_size=20), cuts=Cuts)
def test_any_split_of_a_stream_gives_the_same_frames(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frames.HEADER.pack(len(payload)) + payload for payload in payloads)
    reader = frames.FrameReader()
    pieces = _Pieces(stream, cuts)
    found = []
    while piece := pieces.take(len(stream)):
        found += reader.feed(piece)
    assert found == payloads


@hypothesis.given(chunks=st.lists(st.binary(min_size=1, max_size=60), max_size=20))
def test_any_stream_is_frames_or_refused(chunks: list[bytes]) -> None:
    reader = frames.FrameReader()
    found: list[bytes] = []
    try:
        for chunk in chunks:
            found += reader.feed(chunk)
    except ValueError:
        return
    framed = b"".join(frames.HEADER.pack(len(payload)) + payload for payload in found)
    assert b"".join(chunks).startswith(framed)


Json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=10,
)


@hypothesis.given(payload=st.binary(max_size=300), text=st.one_of(st.text(), Json.map(json.dumps)), body=st.binary())
def test_any_payload_is_a_control_message_or_refused(payload: bytes, text: str, body: bytes) -> None:
    coded = text.encode("utf-8", "surrogatepass")
    for one in (payload, frames.HEADER.pack(len(coded)) + coded + body):
        try:
            message, rest = frames.decode_control(one)
        except ValueError:
            continue
        assert isinstance(message, dict)
        assert one.endswith(rest)


@st.composite
def said(draw: st.DrawFn) -> dict[str, Any]:
    """A message of a kind that there is, with some of its fields, of any values."""
    kind = draw(st.sampled_from(messages.KINDS))
    names = st.sampled_from([*messages._FIELDS[kind], "rq", "other"])
    return {"t": kind, **draw(st.dictionaries(names, Json, max_size=12))}


@hypothesis.given(
    message=st.one_of(said(), st.dictionaries(st.text(max_size=3), Json), st.fixed_dictionaries({"t": Json}))
)
def test_any_message_is_complete_or_refused(message: dict[str, Any]) -> None:
    try:
        parsed = messages.parse(message)
    except messages.BadMessageError:
        return
    assert parsed.keys() >= messages._FIELDS[message["t"]].keys() | {"rq"}
    assert {name: parsed[name] for name in message} == message
