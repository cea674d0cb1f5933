"""The TLS by which all TCP connections of this process go, both ways, once it has been told of a directory with certificates.

Whoever dials or accepts has it without being given it, so that no connection can be forgotten. Every certificate of a cluster is
by the cluster's own authority and for one name, `SERVER_NAME`: nodes come and go, and so do their addresses; that a node is one
of the cluster is what counts. Each side asks for the other's.
"""

from __future__ import annotations

import functools
import os
import stat
from typing import TYPE_CHECKING

from umbel import exceptions

if TYPE_CHECKING:
    import ssl

DIRECTORY_VARIABLE = "UMBEL_TLS_DIRECTORY"
SERVER_NAME = "node.umbel.internal"
AUTHORITY, CERTIFICATE, KEY = "ca.crt", "node.crt", "node.key"


class _Own:
    directory = ""


def use(directory: str) -> None:
    """From now on. directory: "" for no TLS. Nothing in it is read before there is a connection, or `contexts` is called."""
    _Own.directory = directory


def server() -> ssl.SSLContext | None:
    """For connections that are accepted; None without TLS."""
    return contexts(_Own.directory)[0] if _Own.directory else None


def client() -> ssl.SSLContext | None:
    """For connections that are made; None without TLS."""
    return contexts(_Own.directory)[1] if _Own.directory else None


@functools.lru_cache(maxsize=4)
def contexts(directory: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's), by the files of the directory. Raises AuthenticationError."""
    import ssl  # which takes longer to load than all else here

    _check_key(os.path.join(directory, KEY))
    made = []
    for purpose in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(os.path.join(directory, AUTHORITY))
            context.load_cert_chain(os.path.join(directory, CERTIFICATE), os.path.join(directory, KEY))
        except OSError as error:  # ssl.SSLError is one
            reason = (getattr(error, "reason", None) or error.strerror or str(error)).replace("_", " ").lower()
            raise exceptions.AuthenticationError(
                f"the certificates in {directory} cannot be used: {reason}; it must have {AUTHORITY}, {CERTIFICATE} and {KEY} of "
                "one cluster, as `umbel tls init` and `umbel tls issue` make them"
            ) from error
        made.append(context)
    return made[0], made[1]


def _check_key(path: str) -> None:
    """The key is this user's or root's alone. Raises AuthenticationError."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise exceptions.AuthenticationError(
            f"the key {path} cannot be read: {error.strerror}; `umbel tls init` makes one, for a new cluster, and "
            "`umbel tls issue` for another node of one"
        ) from error
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077 or found.st_uid not in (os.geteuid(), 0):
        raise exceptions.AuthenticationError(
            f"the key {path} belongs to user {found.st_uid} and has the mode {mode:04o}, so that others may use it; it must be "
            f"of user {os.geteuid()} or root, with 0600: run `chmod 600 {path}`, and make another if somebody may have read it"
        )
