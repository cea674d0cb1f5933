"""Which pairs are kept for which transfer, and how two processes tell each other the addresses. Without Gloo."""

from __future__ import annotations

import pytest

from umbel import exceptions
from umbel._client.tensors import gloo_pairs
from umbel.testing.conformance import tensor_transports


def pair(number: int, peer: bytes = b"peer") -> gloo_pairs.Pair:
    return gloo_pairs.Pair(bytes([number]), peer, f"group {number}")


def test_kept_pair_is_given_once() -> None:
    kept = gloo_pairs.Kept()
    kept.add(pair(1))
    assert [kept.pop(b"\1"), kept.pop(b"\1")] == [pair(1), None]


def test_pair_with_a_process_is_the_one_that_was_used_last() -> None:
    kept = gloo_pairs.Kept()
    for one in (pair(1), pair(2), pair(3, b"another")):
        kept.add(one)
    assert [kept.pop_newest(b"peer") for _ in range(3)] == [pair(2), pair(1), None]
    assert kept.pop_newest(b"another") == pair(3, b"another")


def test_of_too_many_the_longest_unused_goes() -> None:
    kept = gloo_pairs.Kept(count_max=2)
    for number in (1, 2):
        kept.add(pair(number))
    kept.add(kept.pop(b"\1") or pair(0))
    kept.add(pair(3))
    assert [kept.pop_newest(b"peer") for _ in range(3)] == [pair(3), pair(1), None]


def test_taker_tells_its_address_only_when_connected() -> None:
    """The holder, which would wait in Gloo, waits for that."""
    taker_line, holder_line = tensor_transports.pair()
    taker = gloo_pairs.Addresses(taker_line, is_sent_at_once=False)
    holder = gloo_pairs.Addresses(holder_line, is_sent_at_once=True)
    holder.set("0", b"the holder's")
    taker.set("1", b"the taker's")
    assert (taker.get("0"), taker.get("1")) == (b"the holder's", b"the taker's")
    finding = tensor_transports.in_threads([lambda: holder.get("1"), taker.send_rest])
    assert finding == [b"the taker's", None]
    taker_line.close()
    holder_line.close()


def test_holder_that_waits_for_an_address_is_told_that_the_taker_has_failed() -> None:
    taker, holder = tensor_transports.pair()
    addresses = gloo_pairs.Addresses(holder, is_sent_at_once=True)

    def wait() -> None:
        try:
            addresses.get("1")
        finally:
            holder.close()

    told, found = tensor_transports.in_threads(
        [lambda: gloo_pairs.give_up(taker, RuntimeError("no port is free")), wait]
    )
    assert isinstance(found, exceptions.UmbelDirectTransportError)
    assert "no port is free" in str(found)
    assert isinstance(told, ConnectionError)  # the holder has gone without a word
    taker.close()


def test_error_for_which_gloo_raises_its_own_is_kept() -> None:
    taker, holder = tensor_transports.pair()
    holder.close()
    addresses = gloo_pairs.Addresses(taker, is_sent_at_once=False)
    with pytest.raises(ConnectionError) as caught:
        addresses.attempt(lambda: addresses.get("0"))
    assert addresses.error is caught.value
    taker.close()
