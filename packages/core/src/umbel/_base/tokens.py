"""What a cluster's tokens are: roles, keys, and their text.

A cluster has one secret, 32 random bytes, which its head keeps: the token of the role `head`. The token of each role below
is computed from that of the role above it (HKDF-Expand with SHA-256, RFC 5869, one block), so whoever has one has those
below it too, and learns nothing of those above. That way a node needs the token of `node` and nothing else to check
whoever comes to it, and a user may be handed a lower one.

As text a token is `umbel1.<role>.<56 letters and digits>`: base32 of the key and of three bytes of a checksum, so that a
token with a typo is told from one that is merely wrong. No message of an error holds any part of a key.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import os
from typing import NoReturn

from umbel import exceptions

KEY_BYTES = 32
CHECKSUM_BYTES = 3  # with the key 35 bytes, which base32 writes without padding; one typo in 16 million passes
TEXT_VERSION = "umbel1"
_BASE32_CHARS = (KEY_BYTES + CHECKSUM_BYTES) * 8 // 5


class Role(enum.IntEnum):
    """What a peer may do; each may what those below it may. The numbers travel."""

    READ = 1
    """Look at the cluster's state."""
    SUBMIT = 2
    """Run code in it."""
    ADMIN = 3
    """Change and stop the cluster."""
    NODE = 4
    """Be a part of it."""
    HEAD = 5
    """Keep its secret."""

    @property
    def text(self) -> str:
        return self.name.lower()


class Token:
    """A role and the key that proves it. Frozen; what shows it does not show the key."""

    __slots__ = ("key", "role")

    role: Role
    key: bytes

    def __init__(self, role: Role, key: bytes) -> None:
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "key", key)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Token.{name} cannot be set: a Token is frozen; make another one")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.role is other.role and hmac.compare_digest(self.key, other.key)

    def __hash__(self) -> int:
        return hash((self.role, self.key))

    def __repr__(self) -> str:
        return f"Token(role={self.role!r})"

    def lowered(self, role: Role) -> Token:
        """The token of a role at or below this one. Raises AuthenticationError for one above."""
        if role > self.role:
            raise exceptions.AuthenticationError(
                f"the token of the role {role.text!r} cannot be made from one of {self.role.text!r}, which is below it; "
                f"take it from the cluster's head"
            )
        key = self.key
        for lower in range(self.role - 1, role - 1, -1):
            key = hmac.digest(key, b"umbel role token 1: " + Role(lower).text.encode() + b"\x01", "sha256")
        return Token(role, key)

    def as_text(self) -> str:
        """To be written into a file or an environment variable, never into a log."""
        raw = self.key + _checksum(self.role, self.key)
        return f"{TEXT_VERSION}.{self.role.text}.{base64.b32encode(raw).decode().lower()}"


def new_secret() -> Token:
    """The token of a new cluster's head."""
    return Token(Role.HEAD, os.urandom(KEY_BYTES))


def parse(text: str, *, source: str) -> Token:
    """The token that `text` is. source: where it comes from, for the error. Raises AuthenticationError."""
    parts = text.split(".")
    if len(parts) != 3:
        raise _bad(source, f"it is {len(text)} characters in {len(parts)} parts")
    version, role_text, coded = parts
    if version != TEXT_VERSION:
        raise _bad(source, f"it does not begin with {TEXT_VERSION}; another version of Umbel may have written it")
    roles = {role.text: role for role in Role}
    role = roles.get(role_text)
    if role is None:
        raise _bad(source, f"its role is none of {', '.join(roles)}")
    if len(coded) != _BASE32_CHARS:
        raise _bad(source, f"it has {len(coded)} characters after the role instead of {_BASE32_CHARS}; copy all of it")
    try:
        raw = base64.b32decode(coded, casefold=True)
    except (binascii.Error, ValueError):  # the second: characters beyond ASCII
        raise _bad(source, "it has a character that is neither a letter nor one of the digits 2 to 7") from None
    key = raw[:KEY_BYTES]
    if not hmac.compare_digest(raw[KEY_BYTES:], _checksum(role, key)):
        raise _bad(source, "its checksum does not match; there is a typo in it")
    return Token(role, key)


def _checksum(role: Role, key: bytes) -> bytes:
    return hashlib.sha256(f"{TEXT_VERSION}.{role.text}.".encode() + key).digest()[:CHECKSUM_BYTES]


def _bad(source: str, what: str) -> exceptions.AuthenticationError:
    return exceptions.AuthenticationError(
        f"the token in {source} cannot be read: {what}. A token looks like {TEXT_VERSION}.submit.{'x' * _BASE32_CHARS}"
    )
