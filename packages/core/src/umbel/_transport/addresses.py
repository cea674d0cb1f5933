"""Addresses of nodes: `host:port`, as text and as sockets that listen there.

A host is a name, an IPv4 or an IPv6 address. As text an IPv6 address is in brackets, `[::1]:6380`, as in URLs (RFC 3986).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import os
import re
import socket
import struct
import sys
from typing import NamedTuple

from umbel import exceptions
from umbel._transport import connection

SILENCE_S = (
    25.0  # after which a head with the default settings declares a node dead; the systems' defaults are two hours where
)
# nothing is sent, and a quarter of one where what is sent is not acknowledged
PROBE_S = 2.0  # a round trip around the world takes a sixth of it
FREE_PORT_TRIES_MAX = 20  # to find a port that is free at all addresses of a host

_PORT_MAX = 65_535
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_HOST_CHARS_MAX = 253

# One address of a socket: its family, and what the socket module calls one of that family.
Endpoint = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


class Address(NamedTuple):
    """Where a node is to be reached. host: without brackets; "" for all addresses of this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_numeric(self) -> bool:
        return _is_ip(self.host)


def parse(text: str) -> Address:
    """An address from its text. Raises InvalidOption."""
    if text.startswith("["):
        host, bracket, port_text = text[1:].partition("]")
        if not bracket or not port_text.startswith(":"):
            raise _bad(text, "an IPv6 address in brackets is followed by `:` and a port")
        port_text = port_text[1:]
        if ":" not in host or not _is_ip(host):
            raise _bad(text, f"{host!r:.60} is not an IPv6 address")
    else:
        host, colon, port_text = text.rpartition(":")
        if not colon:
            raise _bad(text, "there is no port")
        if ":" in host:
            raise _bad(text, "an IPv6 address has to be in brackets")
        looks_numeric = host.replace(".", "").isdigit()
        if len(host) > _HOST_CHARS_MAX or not (_is_ip(host) if looks_numeric else _NAME.fullmatch(host)):
            raise _bad(text, f"{host!r:.60} is neither a name nor an IPv4 address")
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text[:6]) > _PORT_MAX or len(port_text) > 5:
        raise _bad(text, f"the port is {port_text!r:.20}; one is a number from 0 to {_PORT_MAX}")
    return Address(host, int(port_text))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bad(text: str, what: str) -> exceptions.InvalidOption:
    return exceptions.InvalidOption(
        f"an address must be host:port, for example head.example:6380, 10.0.0.7:6380 or [fd00::7]:6380, got {text!r:.200}: "
        f"{what}",
        option="address",
    )


def resolve(address: Address) -> list[Endpoint]:
    """All endpoints of an address, in the order in which they are to be tried. Asks the system, which takes as long as it
    likes when the host is a name. Raises OSError."""
    # As bytes it needs no codec for international names, whose tables take a daemon a millisecond to load.
    found = socket.getaddrinfo(address.host.encode(), address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, sockaddr) for family, _type, _protocol, _name, sockaddr in found))  # type: ignore[misc]


def listen(address: Address) -> list[socket.socket]:
    """Non-blocking listeners at all endpoints of an address, of one port; port 0 is any that is free.

    All addresses of the machine (host "" or "::") are one socket for IPv6 and IPv4 where the system can. Endpoints that
    this machine does not have are left out. Raises OSError when none is left, or a port is taken.
    """
    if address.host in ("", "::") and socket.has_dualstack_ipv6():
        with contextlib.suppress(_NotHere):
            return [_listener((socket.AF_INET6, ("::", address.port, 0, 0)), is_dual=True)]
    everywhere: list[Endpoint] = [(socket.AF_INET, ("0.0.0.0", address.port))]
    endpoints = resolve(address) if address.host else everywhere
    tries = FREE_PORT_TRIES_MAX if address.port == 0 else 1
    while True:
        tries -= 1
        try:
            return _listen_at(endpoints)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not tries:  # else the port that was free at one is not at another
                raise OSError(error.errno, f"cannot listen at {address}: {error.strerror}") from error


def _listen_at(endpoints: list[Endpoint]) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing: list[OSError] = []
    try:
        for family, sockaddr in endpoints:
            if listeners:  # the port that the first one got
                sockaddr = (sockaddr[0], listeners[0].getsockname()[1], *sockaddr[2:])
            try:
                listeners.append(_listener((family, sockaddr)))
            except _NotHere as error:
                missing.append(error)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    if not listeners:
        raise missing[0] if missing else OSError(errno.EADDRNOTAVAIL, "the host has no address")
    return listeners


class _NotHere(OSError):
    """This machine has no such address, or no addresses of that family."""


def _listener(endpoint: Endpoint, *, is_dual: bool = False) -> socket.socket:
    family, sockaddr = endpoint
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _NotHere(error.errno, error.strerror) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restarted node gets its port back at once
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_dual else 1)
        sock.bind(sockaddr)
        sock.listen(connection.LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise _NotHere(error.errno, error.strerror) from error
        raise
    return sock


def source_towards(other: Address) -> str:
    """The address of this machine from which it reaches another. Of one that has several, by the first that answers, for which
    each gets `PROBE_S`; if none does, or there is one, nothing is sent. Raises OSError."""
    endpoints = resolve(other if other.port else other._replace(port=9))  # connecting needs a port
    trouble: OSError | None = None
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM] if len(endpoints) > 1 else [socket.SOCK_DGRAM]
    for kind, (family, sockaddr) in itertools.product(kinds, endpoints):
        try:
            with socket.socket(family, kind) as probe:
                probe.settimeout(PROBE_S)
                probe.connect(sockaddr)
                return str(probe.getsockname()[0])
        except OSError as error:
            trouble = error
    raise trouble or OSError(errno.EADDRNOTAVAIL, f"the host of {other} has no address")


class _Own:
    silence_s = SILENCE_S


def bear(silence_s: float) -> None:
    """For so long a machine may be silent until connections to it break that are made from now on by this process."""
    _Own.silence_s = silence_s


def borne_s() -> float:
    """See `bear`."""
    return _Own.silence_s


def prepare(sock: socket.socket) -> None:
    """What all our TCP connections have: small messages leave at once, and that a machine has vanished, or what is sent there is
    lost on its way, is noticed by the time that was set by `bear`."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle_s, interval_s = max(1, int(_Own.silence_s / 2)), max(1, int(_Own.silence_s / 10))
    for name, value in (
        ("TCP_KEEPIDLE", idle_s),
        ("TCP_KEEPINTVL", interval_s),
        ("TCP_KEEPCNT", max(1, round((_Own.silence_s - idle_s) / interval_s))),
        ("TCP_USER_TIMEOUT", int(_Own.silence_s * 1000)),
    ):
        if hasattr(socket, name):  # not all systems have all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def let_read_late(descriptor: int) -> None:
    """Have a TCP connection last though the other process does not read for long, if its machine answers. The system cannot tell
    that from a machine that does not: see `unanswered_s`."""
    if _TELLS:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def unanswered_s(descriptor: int) -> float:
    """For how long the other machine of a TCP connection has not been heard, if it was sent something again, or asked for room,
    and has not answered even that; else 0. One that has no room is asked for it more and more rarely."""
    if not _TELLS:
        return 0.0
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # it has been closed
        return 0.0
    if len(told) < _TCP_INFO.size:  # it is no TCP connection, or the system does not tell
        return 0.0
    retransmits, probes, sent_ms, heard_ms = _TCP_INFO.unpack(told)
    return heard_ms / 1000 if probes or (retransmits and heard_ms > sent_ms) else 0.0


# Of `struct tcp_info`: tcpi_retransmits, tcpi_probes, tcpi_last_data_sent and tcpi_last_ack_recv, the latter two ms ago.
_TCP_INFO = struct.Struct("=2xBB40xI8xI")
_TELLS = sys.platform.startswith("linux")


def unacknowledged_bytes(descriptor: int) -> int:
    """Of what a TCP socket was given, how much the other machine's kernel is not known to have. 1 where the system does not
    tell, and for a socket that has just been closed."""
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # the second: a closed socket's descriptor is -1
        return 1
