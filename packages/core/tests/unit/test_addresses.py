"""Addresses of nodes as text."""

from __future__ import annotations

import socket

import pytest

from umbel import exceptions
from umbel._transport import addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.7:6380", "10.0.0.7", 6380),
        ("localhost:0", "localhost", 0),
        ("head-1.cluster_a.example.:65535", "head-1.cluster_a.example.", 65535),
        ("[::1]:6380", "::1", 6380),
        ("[fe80::1%eth0]:6380", "fe80::1%eth0", 6380),
        ("[::]:80", "::", 80),
    ],
)
def test_address_is_what_its_text_says(text: str, host: str, port: int) -> None:
    address = addresses.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text
    assert address.is_numeric == (host[0] in "1:f")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "there is no port"),
        ("head", "there is no port"),
        ("::1", "an IPv6 address has to be in brackets"),
        ("fd00::7:6380", "an IPv6 address has to be in brackets"),
        ("[::1]", "an IPv6 address in brackets is followed by `:` and a port"),
        ("[::1]6380", "an IPv6 address in brackets is followed by `:` and a port"),
        ("[::1", "an IPv6 address in brackets is followed by `:` and a port"),
        ("[10.0.0.7]:1", "'10.0.0.7' is not an IPv6 address"),
        ("[head]:1", "'head' is not an IPv6 address"),
        (":6380", "'' is neither a name nor an IPv4 address"),
        ("10.0.0.300:1", "'10.0.0.300' is neither a name nor an IPv4 address"),
        ("10.0:1", "'10.0' is neither a name nor an IPv4 address"),
        ("-head:1", "'-head' is neither a name nor an IPv4 address"),
        ("a..b:1", "'a..b' is neither a name nor an IPv4 address"),
        ("he ad:1", "'he ad' is neither a name nor an IPv4 address"),
        ("umbel://head:1", "an IPv6 address has to be in brackets"),
        ("head:", "the port is ''; one is a number from 0 to 65535"),
        ("head:x", "the port is 'x'; one is a number from 0 to 65535"),
        ("head:-1", "the port is '-1'; one is a number from 0 to 65535"),
        ("head:65536", "the port is '65536'; one is a number from 0 to 65535"),
        ("head:000001", "the port is '000001'; one is a number from 0 to 65535"),
        ("head:1²", "the port is '1²'; one is a number from 0 to 65535"),
        ("a." * 130 + "b:1", "is neither a name nor an IPv4 address"),
    ],
)
def test_what_is_no_address_is_refused_with_what_is_wrong(text: str, what: str) -> None:
    with pytest.raises(exceptions.InvalidOption) as caught:
        addresses.parse(text)
    assert str(caught.value).startswith("an address must be host:port, for example head.example:6380")
    assert str(caught.value).endswith(what)
    assert caught.value.option == "address"


@pytest.mark.parametrize("text", ["127.0.0.1:6380", "127.0.0.1:0", "localhost:6380"])
def test_source_towards_this_machine_is_this_machine(text: str) -> None:
    assert addresses.source_towards(addresses.parse(text)) in ("127.0.0.1", "::1")


def test_source_towards_a_name_of_several_addresses_is_by_the_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is an address at which nobody listens; connecting a datagram socket to it would succeed."""
    (listener,) = addresses.listen(addresses.Address("127.0.0.1", 0))
    with listener:
        port = listener.getsockname()[1]
        two: list[addresses.Endpoint] = [
            (socket.AF_INET, ("127.0.0.2", port)),
            (socket.AF_INET, ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(addresses, "resolve", lambda _address: two)
        assert addresses.source_towards(addresses.Address("head.example", port)) == "127.0.0.1"


def test_source_towards_nowhere_is_an_error() -> None:
    with pytest.raises(OSError):
        addresses.source_towards(addresses.Address("nowhere.invalid", 1))
