"""Feeds what reads from the network with bytes that a fuzzer thinks up, guided by the branches they reach.

    python tools/fuzz.py [--seconds 60] [--target NAME] [--input FILE]

All targets share the time; each runs in a process of its own, for atheris ends the one it is in. A target fails by an
exception that is not the error which its module declares, or by a statement of its own that does not hold. Then the input
is printed, and the exit status is 1; `--input` tries the one of a file again. Needs atheris.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel import exceptions
from umbel._agent import messages
from umbel._base import tokens
from umbel._transport import addresses
from umbel._wire import frames, handshake

START_S = 60.0  # beyond its time, for a target to load and to end, on a busy machine
INPUT_BYTES_MAX = 4096  # what goes on for longer is more of the same here
_INSTRUMENTED = [frames, messages, handshake, tokens, addresses]
_SECRET = tokens.Token(tokens.Role.HEAD, bytes(range(32)))
_KEYS = handshake.Keys(_SECRET)
_SUBMIT = _SECRET.lowered(tokens.Role.SUBMIT)
_SERVER_NONCE, _CLIENT_NONCE = b"s" * handshake.NONCE_BYTES, b"c" * handshake.NONCE_BYTES


class Broken(Exception):
    """What must hold does not."""


def must(condition: object, what: str) -> None:
    if not condition:
        raise Broken(what)


# ---- the targets ----


def read_frames(data: bytes) -> None:
    """A stream, in pieces of the size that its first byte says: the payloads are those that a plain reading finds."""
    size, stream = data[0] + 1 if data else 1, data[1:]
    reader = frames.FrameReader()
    found = []
    try:
        for start in range(0, len(stream), size):
            found += reader.feed(stream[start : start + size])
    except ValueError:
        return
    expected = []
    position = 0
    while len(stream) - position >= frames.HEADER.size:
        (length,) = frames.HEADER.unpack_from(stream, position)
        position += frames.HEADER.size
        if position + length > len(stream):
            break
        expected.append(stream[position : position + length])
        position += length
    must(found == expected, f"pieces of {size} gave {found}, not {expected}")


def read_payload(data: bytes) -> None:
    """A control frame's payload, and the message in it."""
    try:
        message, body = frames.decode_control(data)
    except ValueError:
        return
    must(data.endswith(body), "the body is not the end of the frame")
    again = frames.decode_control(frames.encode_control(message, body)[frames.HEADER.size :])
    must(
        repr(again) == repr((message, body)), "it is another message when it is written and read"
    )  # a NaN is not itself
    check_message(message)


def read_text(data: bytes) -> None:
    """The same of a frame whose length is right, so that what is looked for is in its text."""
    read_payload(frames.HEADER.pack(len(data)) + data + b"body")


def read_message(data: bytes) -> None:
    """A message of a kind and with values that the bytes choose: one byte for each of its fields, and one more."""
    if not data:
        return
    kind = messages.KINDS[data[0] % len(messages.KINDS)]
    names = [*messages._FIELDS[kind], "rq", "other"]
    chosen = {name: byte % (len(_VALUES) + 1) for name, byte in zip(names, data[1:], strict=False)}
    check_message({"t": kind, **{name: _VALUES[index] for name, index in chosen.items() if index < len(_VALUES)}})


def check_message(message: Mapping[str, Any]) -> None:
    try:
        parsed = messages.parse(message)
    except messages.BadMessageError:
        return
    must(parsed.keys() >= message.keys() | messages._FIELDS[message["t"]].keys(), "a field is missing")


_VALUES: list[Any] = [
    0, 1, -1, 2**70, 0.5, float("nan"), True, False, None, "", "a", "a.b.c", "driver", "worker", "\ud800", "0" * 12, "0" * 32,
    [], ["a.b.c", 1], [["a.b.c", 1]], [["a.b.c", -1]], [["a.b.c"]], [[1, "a.b.c"]], [["a.b.c", 1, 2, 3]], [[]], [None],
    [{}], [{"CPU": 1}], [{"CPU": -1}, 1],
    {}, {"CPU": 1}, {"CPU": 0.5}, {"CPU": -1}, {"CPU": True}, {"CPU": {}}, {"": []},
]  # fmt: skip


def serve_stranger(data: bytes) -> None:
    """The server's side of a handshake. Nobody can guess a proof, so nobody may get in."""
    reader = handshake.PreambleReader()
    data = _feed(reader, data)
    if isinstance(reader.outcome, handshake.Preamble):
        server = handshake.ServerHandshake(reader.outcome, _KEYS, _SERVER_NONCE)
        _feed(server, data)
        must(not isinstance(server.outcome, handshake.Accepted), "a stranger got in")


def ask_stranger(data: bytes) -> None:
    """The client's."""
    client = handshake.ClientHandshake(_SUBMIT, handshake.AGENT, _CLIENT_NONCE, is_tls=False)
    _feed(client, data)
    must(not isinstance(client.outcome, handshake.Accepted), "a stranger was believed")


def read_names(data: bytes) -> None:
    """Tokens and addresses."""
    text = data.decode("utf-8", "replace")
    try:
        token = tokens.parse(text, source="here")
    except exceptions.AuthenticationError:
        pass
    else:
        must(token.as_text() == text.lower(), "a token has another text")
    try:
        address = addresses.parse(text)
    except exceptions.InvalidOption:
        pass
    else:
        try:
            again = addresses.parse(str(address))
        except exceptions.InvalidOption as error:
            raise Broken("the text of an address is refused") from error
        must(again == address, "an address has another text")


def _feed(
    machine: handshake.PreambleReader | handshake.ServerHandshake | handshake.ClientHandshake, data: bytes
) -> bytes:
    """As much as it takes, a few bytes at once; returns the rest."""
    while data and machine.wanted:
        count = min(machine.wanted, 7)
        machine.feed(data[:count])
        data = data[count:]
    must(
        (machine.wanted == 0) == (machine.outcome is not None), "it wants more after it has decided, or nothing before"
    )
    return data


# ---- what they begin with ----


def _texts() -> list[bytes]:
    """A complete message of each kind, and some that are strange."""
    seeds = []
    for kind in messages.KINDS:
        fields = {
            name: next(value for value in _VALUES if is_right(value))
            for name, (is_right, _wanted, _default) in messages._FIELDS[kind].items()
        }
        seeds.append(json.dumps({"t": kind, "rq": 1, **fields}).encode())
    nested = [b"[" * depth + b"]" * depth for depth in (frames.DEPTH_MAX - 1, 900)]
    return [*seeds, *(b'{"t":"ask","rq":%b}' % value for value in (b"1.5e300", b"NaN", b'"\\ud800"', *nested))]


def _payloads() -> list[bytes]:
    return [frames.HEADER.pack(len(text)) + text + b"body" for text in _texts()]


def _conversation() -> tuple[bytes, bytes]:
    """What both sides of an honest one with other nonces send."""
    client = handshake.ClientHandshake(_SUBMIT, handshake.AGENT, bytes(handshake.NONCE_BYTES), is_tls=False)
    preamble = handshake.encode_preamble(handshake.AGENT, is_tls=False)
    parsed = handshake.read_preamble(preamble)
    if isinstance(parsed, handshake.Failed):
        raise Broken(parsed.reason)
    server = handshake.ServerHandshake(parsed, _KEYS, bytes(handshake.NONCE_BYTES))
    proof = client.feed(server.greeting)
    return preamble + proof, server.greeting + server.feed(proof)


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


TARGETS = {
    "frames": Target(read_frames, lambda: [b"\x03\x02\0\0\0hi\0\0\0\0\x01\0\0\0x", b"\xff\x02\0\0\0hi"]),
    "payload": Target(read_payload, _payloads),
    "text": Target(read_text, _texts),
    "message": Target(read_message, lambda: [bytes([number] * 8) for number in range(len(messages.KINDS))]),
    "server": Target(serve_stranger, lambda: [_conversation()[0]]),
    "client": Target(ask_stranger, lambda: [_conversation()[1]]),
    "names": Target(
        read_names, lambda: [_SUBMIT.as_text().encode(), b"10.0.0.7:6380", b"[fd00::7%eth0]:6380", b"a.b:1"]
    ),
}


# ---- running them ----


def fuzz(name: str, seconds: int, folder: str) -> None:
    """Never returns."""
    import atheris

    for module in _INSTRUMENTED:
        for value in vars(module).values():
            if getattr(value, "__module__", None) == module.__name__ and callable(value):
                _instrument(atheris, value)
    options = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=10", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/found-", f"{folder}/corpus"], TARGETS[name].run)
    atheris.Fuzz()


def _instrument(atheris: Any, value: Any) -> None:
    """A function, or those of a class."""
    if not isinstance(value, type):
        if hasattr(value, "__code__"):
            atheris.instrument_func(value)
        return
    for one in vars(value).values():
        function = one.fget if isinstance(one, property) else one
        if hasattr(function, "__code__"):
            atheris.instrument_func(function)


def run(name: str, seconds: int) -> bool:
    """Whether the target held."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(TARGETS[name].seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        command = [sys.executable, __file__, "--in-process", folder, "--target", name, "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + START_S, check=False)
        output = done.stdout + done.stderr
        count = re.search(r"Done (\d+) runs", output)
        found = [path.read_bytes() for path in Path(folder).glob("found-*")]
    if done.returncode == 0 and count is not None:
        print(f"{name}: {int(count[1]):,} inputs in {seconds} s, nothing found")
        return True
    print(f"{name}: FAILED\n{output[-4000:]}")
    for data in found:
        print(f"input: {data!r}")
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz what reads from the network.")
    parser.add_argument("--seconds", type=int, default=60, help="in all (default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--input", type=Path, help="try this one input again, without atheris")
    parser.add_argument("--in-process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        fuzz(options.target, options.seconds, options.in_process)
    names = [options.target] if options.target else list(TARGETS)
    if options.input:
        for name in names:
            TARGETS[name].run(options.input.read_bytes())
        return 0
    share = max(1, options.seconds // len(names))
    held = [run(name, share) for name in names]  # all of them: a failure does not spare the others
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
