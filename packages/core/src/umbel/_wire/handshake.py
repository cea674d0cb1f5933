"""How two processes prove to each other that they have a token, before any byte of a message is read.

Three passes of challenges and their answers, by HMAC-SHA256 over nonces of both sides: the three pass mutual authentication
with a cryptographic check function of ISO/IEC 9798-4, its text fields holding the role and the target. That each proof
covers the whole conversation so far is from SCRAM (RFC 5802) and TLS 1.3 (RFC 8446, `Finished`); that the sides have labels
of their own, against reflection, is from the last. No token is ever sent.

    client  preamble   magic, version, flags, what the client wants to reach            27 bytes
    server  challenge  magic, version, whether it goes on, a nonce                      42 bytes
    client  proof      role, a nonce, HMAC(token, "client" + all of the above)          65 bytes
    server  verdict    yes or no, and for yes HMAC(token, "server" + all of the above)  33 bytes

Of a stranger 92 bytes are read at most. It is refused at the first byte that is not Umbel's, and learns nothing of
tokens or roles: an unknown role and a wrong token get the same answer in the same time. The client proves itself first.
Only who has done so is told what is not there or not allowed, and that answer is proved too.

The preamble goes in clear, before TLS where that is used, so that whoever accepts the connection can give it to another
process of the machine, which goes on with the bytes that were read. TLS, if any, begins after it; a preamble that was
changed on the way fails the proofs.

Pure: bytes in, bytes and a verdict out. Nonces are given and must be fresh and unpredictable. What is read belongs to the
handshake as long as no more than `wanted` is read at once; what follows are the users' frames.
"""

from __future__ import annotations

import enum
import hmac
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from umbel._base import checks, nodes, tokens

VERSION = 1
MAGIC = b"\xd5UMBEL\r\n"  # as PNG's: neither text nor the begin of TLS or HTTP, and text conversions break it
NONCE_BYTES = 32  # two equal ones are not to be expected in the life of a cluster
PROOF_BYTES = 32
TARGET_ID_BYTES = 16  # of a process, as in its ProcessId; a node's tag, and zeros; a ticket

_PREAMBLE = struct.Struct(f">{len(MAGIC)}sBBB{TARGET_ID_BYTES}s")  # magic, version, flags, kind and id of the target
_CHALLENGE = struct.Struct(f">{len(MAGIC)}sBB{NONCE_BYTES}s")  # magic, version, standing, nonce
_PROOF = struct.Struct(f">B{NONCE_BYTES}s{PROOF_BYTES}s")  # role, nonce, proof
_VERDICT = struct.Struct(f">B{PROOF_BYTES}s")  # answer, proof
PREAMBLE_BYTES = _PREAMBLE.size
CHALLENGE_BYTES = _CHALLENGE.size
ANSWER_BYTES = _PROOF.size
VERDICT_BYTES = _VERDICT.size

_TLS_FLAG = 1
_CLIENT_LABEL = b"umbel handshake 1, client\0"
_SERVER_LABEL = b"umbel handshake 1, server\0"
_NO_KEY = bytes(tokens.KEY_BYTES)  # what an unknown role's proof is computed with; whether it matches is not looked at
_NO_PROOF = bytes(PROOF_BYTES)
_NO_ID = bytes(TARGET_ID_BYTES)


class TargetKind(enum.IntEnum):
    """What there is behind a node's address."""

    AGENT = 1
    CONTROL = 2
    PROCESS = 3
    VALUES = 4
    """The node's values, for other nodes: a connection of bulk data, apart from what is said to the agent."""
    LEASES = 5
    """The node's workers, for other nodes, whose processes want leases of them."""
    DRIVERS = 6
    """The node itself, for programs of machines without one."""
    PACKAGES = 7
    """The packages of runtime environments that are on the node, for other nodes."""
    BACK = 8
    """Whoever has made this ticket, and waits for the node that it was sent to: from here on that one is the server. It is given
    the connection as it is, and both prove themselves in it."""
    MEETING = 9
    """Who comes with the other half of this ticket. Both are connected to each other, and prove themselves to each other."""


class Target(NamedTuple):
    """What a client wants to reach behind an address. id: of a process; a ticket; of others the node that is meant, as
    `at_node` has it, or nothing for any that is there."""

    kind: TargetKind
    id: bytes = b""

    def __str__(self) -> str:
        return f"process {self.id.hex()}" if self.kind is TargetKind.PROCESS else self.kind.name.lower()

    @property
    def tag(self) -> bytes:
        """Of the node that is meant; empty for any."""
        if self.kind is TargetKind.PROCESS:
            return nodes.tag_of_process(self.id)
        return self.id[: nodes.TAG_BYTES] if self.kind not in _OF_TICKETS else b""

    def at_node(self, tag: bytes) -> Target:
        """The same, of the node with this tag: another one may have its address by now, or the same in a network of its own."""
        return self if self.kind is TargetKind.PROCESS else Target(self.kind, tag.ljust(TARGET_ID_BYTES, b"\0"))


AGENT = Target(TargetKind.AGENT)
CONTROL = Target(TargetKind.CONTROL)
VALUES = Target(TargetKind.VALUES)
LEASES = Target(TargetKind.LEASES)
DRIVERS = Target(TargetKind.DRIVERS)
PACKAGES = Target(TargetKind.PACKAGES)
_OF_NODES = (TargetKind.VALUES, TargetKind.LEASES, TargetKind.PACKAGES)
_OF_TICKETS = (TargetKind.BACK, TargetKind.MEETING)


def process(process_id: bytes) -> Target:
    """The process of this id, of 16 bytes."""
    return Target(TargetKind.PROCESS, process_id)


def back(ticket: bytes) -> Target:
    return Target(TargetKind.BACK, ticket)


def meeting(ticket: bytes) -> Target:
    return Target(TargetKind.MEETING, ticket)


class _Standing(enum.IntEnum):
    """The first byte of a server's own in its challenge: whether it goes on. In clear and unproved."""

    GOES_ON = 0
    OTHER_VERSION = 1
    WANTS_TLS = 2
    HAS_NO_TLS = 3


class Answer(enum.IntEnum):
    """What a server says to a proof."""

    REFUSED = 0
    """The proof is wrong. Says nothing else, and is not proved."""
    WELCOME = 1
    FORBIDDEN = 2
    """The role may not reach the target."""
    ABSENT = 3
    """The target is not there."""
    ELSEWHERE = 4
    """This is another node than the one that is meant."""


class Accepted(NamedTuple):
    """Both have proved themselves."""

    role: tokens.Role
    target: Target


class Failed(NamedTuple):
    """It comes to nothing: why, in words for a log or an error. What the other side chose is in it only as a number. answer: of
    a server that has proved itself."""

    reason: str
    answer: Answer | None = None


Outcome = Accepted | Failed
Decide = Callable[[tokens.Role, Target], Answer]  # any but REFUSED, of a peer that has proved its role


def may_reach(role: tokens.Role, target: Target) -> Answer:
    """What a role is allowed. Messages to a process are pickled, so sending it any is to run code in it; and whoever gets
    values or packages by name gets those of everybody. Who asks for leases speaks for the processes of a whole node."""
    if target.kind in _OF_NODES and role < tokens.Role.NODE:
        return Answer.FORBIDDEN
    if target.kind in (TargetKind.PROCESS, TargetKind.DRIVERS) and role < tokens.Role.SUBMIT:
        return Answer.FORBIDDEN
    return Answer.WELCOME


def shown(token: tokens.Token, target: Target) -> tokens.Token:
    """The token to show where `token` is what there is: no higher than the other side has to know.

    Every process has that of `submit`, every node that of `node`; the secret itself is for making tokens.
    """
    of_programs = (TargetKind.PROCESS, TargetKind.DRIVERS)
    highest = tokens.Role.SUBMIT if target.kind in of_programs else tokens.Role.NODE
    return token.lowered(min(token.role, highest))


class Keys:
    """The keys by which a server checks its peers: of the role of its own token and all roles below."""

    __slots__ = ("_by_role",)

    def __init__(self, token: tokens.Token) -> None:
        self._by_role: Mapping[int, bytes] = {
            role: token.lowered(role).key for role in tokens.Role if role <= token.role
        }

    def key(self, role: int) -> bytes | None:
        return self._by_role.get(role)


# ---- the preamble ----


class Preamble(NamedTuple):
    """How a client opens a connection. data: as it was sent."""

    target: Target
    is_tls: bool
    data: bytes


def encode_preamble(target: Target, *, is_tls: bool) -> bytes:
    must = target.kind is TargetKind.PROCESS or target.kind in _OF_TICKETS
    is_right = len(target.id) == TARGET_ID_BYTES or not (target.id or must)
    checks.invariant(is_right, f"a target of kind {target.kind.name} has an id of {TARGET_ID_BYTES} bytes")
    return _PREAMBLE.pack(MAGIC, VERSION, _TLS_FLAG if is_tls else 0, target.kind, target.id or _NO_ID)


class PreambleReader:
    """Reads a client's preamble, and refuses as soon as it cannot become one.

    outcome: once it is known. reply: what to send to the client, for a failure of which one of Umbel's should hear.
    """

    __slots__ = ("_data", "outcome", "reply")

    def __init__(self) -> None:
        self._data = b""
        self.outcome: Preamble | Failed | None = None
        self.reply = b""

    @property
    def wanted(self) -> int:
        """How many bytes it takes yet."""
        return 0 if self.outcome else PREAMBLE_BYTES - len(self._data)

    def feed(self, data: bytes) -> None:
        """At most `wanted` bytes."""
        checks.invariant(len(data) <= self.wanted, "more was read than belongs to the preamble", bytes=len(data))
        self._data = data = self._data + data
        magic = data[: len(MAGIC)]
        if magic != MAGIC[: len(magic)]:
            self.outcome = Failed(_what_is(data))
        elif len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
            self.outcome = Failed(_other_version(data[len(MAGIC)]))
            self.reply = _CHALLENGE.pack(MAGIC, VERSION, _Standing.OTHER_VERSION, bytes(NONCE_BYTES))
        elif len(data) == PREAMBLE_BYTES:
            self._finish(data)

    def _finish(self, data: bytes) -> None:
        _magic, _version, flags, kind, identity = _PREAMBLE.unpack(data)
        is_whole = kind == TargetKind.PROCESS or kind in _OF_TICKETS  # its id means something, and not only a tag in it
        is_odd = not is_whole and any(identity[nodes.TAG_BYTES :])
        if flags & ~_TLS_FLAG or kind not in set(TargetKind) or is_odd:
            self.outcome = Failed("it asks for something that does not exist in this version")
        else:
            target = Target(TargetKind(kind), identity if is_whole or identity != _NO_ID else b"")
            self.outcome = Preamble(target, bool(flags & _TLS_FLAG), data)


def read_preamble(data: bytes) -> Preamble | Failed:
    """A preamble that another process has read."""
    reader = PreambleReader()
    reader.feed(data[:PREAMBLE_BYTES])
    if len(data) > PREAMBLE_BYTES or reader.outcome is None:
        return Failed(f"a preamble has {PREAMBLE_BYTES} bytes, there were {len(data)}")
    return reader.outcome


def reply_about_tls(*, has_tls: bool) -> bytes:
    """What to send to a client that wants the other: in clear, before anything else."""
    standing = _Standing.WANTS_TLS if has_tls else _Standing.HAS_NO_TLS
    return _CHALLENGE.pack(MAGIC, VERSION, standing, bytes(NONCE_BYTES))


def _what_is(data: bytes) -> str:
    if data[:1] == b"\x16":
        return "it speaks TLS from the first byte, which Umbel does not"
    if data[:1].isalpha() and data[:1].isupper():
        return "it is not Umbel that speaks there, but HTTP or some other text"
    return "it is not Umbel that speaks there"


def _other_version(version: int) -> str:
    age = "older" if version < VERSION else "newer"
    return (
        f"it speaks version {version} of the handshake, which is {age}; this side speaks {VERSION}: install one version of "
        f"Umbel at both ends"
    )


# ---- the two sides ----


class ServerHandshake:
    """The side that was connected to, from after the preamble on.

    greeting: what to send first. outcome: once it is known.
    """

    __slots__ = ("_data", "_decide", "_keys", "_preamble", "greeting", "outcome")

    def __init__(self, preamble: Preamble, keys: Keys, nonce: bytes, decide: Decide = may_reach) -> None:
        checks.invariant(len(nonce) == NONCE_BYTES, "a nonce has a wrong size", bytes=len(nonce))
        self._preamble = preamble
        self._keys = keys
        self._decide = decide
        self._data = b""
        self.greeting = _CHALLENGE.pack(MAGIC, VERSION, _Standing.GOES_ON, nonce)
        self.outcome: Outcome | None = None

    @property
    def wanted(self) -> int:
        """How many bytes it takes yet."""
        return 0 if self.outcome else ANSWER_BYTES - len(self._data)

    def feed(self, data: bytes) -> bytes:
        """At most `wanted` bytes. Returns what to send."""
        checks.invariant(len(data) <= self.wanted, "more was read than belongs to the handshake", bytes=len(data))
        self._data += data
        return self._conclude() if len(self._data) == ANSWER_BYTES else b""

    def _conclude(self) -> bytes:
        role_number, _nonce, proof = _PROOF.unpack(self._data)
        key = self._keys.key(role_number)
        transcript = self._preamble.data + self.greeting + self._data[:-PROOF_BYTES]
        is_right = hmac.compare_digest(proof, _prove(_NO_KEY if key is None else key, _CLIENT_LABEL, transcript))
        if key is None or not is_right:
            self.outcome = Failed("its token is not one of this cluster, or not of the role that it claims")
            return _VERDICT.pack(Answer.REFUSED, _NO_PROOF)
        role, target = tokens.Role(role_number), self._preamble.target
        answer = self._decide(role, target)
        if answer is Answer.WELCOME:
            self.outcome = Accepted(role, target)
        elif answer is Answer.FORBIDDEN:
            self.outcome = Failed(f"its role {role.text!r} may not reach {target.kind.name.lower()}")
        elif answer is Answer.ELSEWHERE:
            self.outcome = Failed(f"it wants the node whose id begins with {target.tag.hex()}, which this is not")
        else:
            self.outcome = Failed(f"it wants a {target.kind.name.lower()} that is not here")
        return _verdict(answer, key, transcript + proof)


class ClientHandshake:
    """The side that connected, from after the preamble on.

    It has to have sent `encode_preamble(target, is_tls=is_tls)`. outcome: once it is known; the server has then proved that
    it has the token, too.
    """

    __slots__ = ("_challenge", "_data", "_nonce", "_preamble", "_target", "_token", "_transcript", "outcome")

    def __init__(self, token: tokens.Token, target: Target, nonce: bytes, *, is_tls: bool) -> None:
        checks.invariant(len(nonce) == NONCE_BYTES, "a nonce has a wrong size", bytes=len(nonce))
        self._token = shown(token, target)
        self._target = target
        self._nonce = nonce
        self._preamble = encode_preamble(target, is_tls=is_tls)
        self._challenge = b""
        self._transcript = b""
        self._data = b""
        self.outcome: Outcome | None = None

    @property
    def wanted(self) -> int:
        """How many bytes it takes yet, before it has something to send or is done."""
        if self.outcome:
            return 0
        return (VERDICT_BYTES if self._challenge else CHALLENGE_BYTES) - len(self._data)

    def feed(self, data: bytes) -> bytes:
        """At most `wanted` bytes. Returns what to send."""
        checks.invariant(len(data) <= self.wanted, "more was read than belongs to the handshake", bytes=len(data))
        self._data += data
        if self._challenge:
            if len(self._data) == VERDICT_BYTES:
                self._conclude()
            return b""
        return self._answer()

    def _answer(self) -> bytes:
        """The proof, once there is a challenge."""
        data = self._data
        magic = data[: len(MAGIC)]
        if magic != MAGIC[: len(magic)]:
            self.outcome = Failed(_what_is(data))
            return b""
        if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
            self.outcome = Failed(_other_version(data[len(MAGIC)]))
            return b""
        if len(data) < CHALLENGE_BYTES:
            return b""
        standing = _CHALLENGE.unpack(data)[2]
        if standing != _Standing.GOES_ON:
            self.outcome = Failed(_STANDINGS.get(standing, f"it does not go on, for the unknown reason {standing}"))
            return b""
        self._challenge, self._data = data, b""
        unproved = bytes([self._token.role]) + self._nonce
        proof = _prove(self._token.key, _CLIENT_LABEL, self._preamble + self._challenge + unproved)
        self._transcript = self._preamble + self._challenge + unproved + proof
        return unproved + proof

    def _conclude(self) -> None:
        number, _proof = _VERDICT.unpack(self._data)
        role = self._token.role.text
        if number == Answer.REFUSED:
            self.outcome = Failed(f"it does not accept this token of the role {role!r}; take the token of its cluster")
        elif number not in set(Answer) or not hmac.compare_digest(
            self._data, _verdict(Answer(number), self._token.key, self._transcript)
        ):
            self.outcome = Failed("it cannot prove that it has the token itself; it is not of this cluster")
        elif number == Answer.WELCOME:
            self.outcome = Accepted(self._token.role, self._target)
        elif number == Answer.FORBIDDEN:
            text = f"the role {role!r} may not reach {self._target}; use the token of a higher one"
            self.outcome = Failed(text, Answer.FORBIDDEN)
        elif number == Answer.ELSEWHERE:
            self.outcome = Failed("another node of the cluster is at that address", Answer.ELSEWHERE)
        else:
            self.outcome = Failed(f"there is no {self._target} at that address", Answer.ABSENT)


_STANDINGS = {
    _Standing.OTHER_VERSION: "it does not speak this version of the handshake; install one version of Umbel at both ends",
    _Standing.WANTS_TLS: "it wants TLS, and this side was given none; name its certificates by --tls or UMBEL_TLS_DIRECTORY",
    _Standing.HAS_NO_TLS: "it has no TLS, and this side insists on it; start the other one with --tls",
}


def _prove(key: bytes, label: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key, label + transcript, "sha256")


def _verdict(answer: Answer, key: bytes, transcript: bytes) -> bytes:
    """transcript: all that was said before."""
    return _VERDICT.pack(answer, _prove(key, _SERVER_LABEL, transcript + bytes([answer])))
