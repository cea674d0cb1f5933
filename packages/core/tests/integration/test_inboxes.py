"""Packets from process to process, over the connections that these have for calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel._client import current

PATIENCE_S = 20.0


@umbel.remote(num_cpus=0)
class Process:
    """With one inbox."""

    def open(self, name: bytes = b"box") -> bytes:
        engine: Any = current.engine()
        self.box = engine.inboxes.open(name)
        return bytes(engine.process_id)

    def send(self, peer: bytes, packets: list[bytes]) -> None:
        for packet in packets:
            self.box.send(peer, packet)

    def receive(self, count: int) -> list[tuple[bytes, bytes | None]]:
        """So many, or what has come in time."""
        found: list[tuple[bytes, bytes | None]] = []
        until_s = time.monotonic() + PATIENCE_S
        while len(found) < count and time.monotonic() < until_s:
            found += self.box.receive(until_s - time.monotonic())
        return found

    def receive_from(self, peer: bytes, timeout_s: float = PATIENCE_S) -> bytes | None:
        found: bytes | None = self.box.receive_from(peer, time.monotonic() + timeout_s)
        return found

    def watch(self, peer: bytes) -> None:
        self.box.watch(peer)

    def close(self, last: bytes) -> None:
        self.box.close(last)


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=1, log_to_driver=False)
    yield
    umbel.shutdown()


@pytest.fixture
def two() -> tuple[tuple[Any, bytes], tuple[Any, bytes]]:
    """Processes with their ids."""
    one, other = Process.remote(), Process.remote()
    return (one, umbel.get(one.open.remote())), (other, umbel.get(other.open.remote()))


Two = tuple[tuple[Any, bytes], tuple[Any, bytes]]


def test_packets_come_in_order_and_an_end_after_them(two: Two) -> None:
    (one, one_id), (other, other_id) = two
    packets = [b"%d" % number for number in range(500)] + [bytes(3 << 20)]
    one.send.remote(other_id, packets)
    one.close.remote(b"last")
    assert umbel.get(other.receive.remote(503)) == [(one_id, packet) for packet in [*packets, b"last", None]]


def test_who_writes_to_no_inbox_is_told_so(two: Two) -> None:
    one, other = two[0][0], Process.remote()
    other_id = umbel.get(other.open.remote(b"another"))
    umbel.get(one.send.remote(other_id, [b"a", b"b"]))
    assert umbel.get(one.receive.remote(1)) == [(other_id, None)]
    umbel.get(one.send.remote(other_id, [b"c"]))
    assert umbel.get(one.receive_from.remote(other_id, 0.0)) is None  # an end comes once


def test_death_of_a_process_is_its_end(two: Two) -> None:
    """For who writes, and for who has it watched."""
    (one, _), (other, other_id) = two
    watcher = Process.remote()
    umbel.get([watcher.open.remote(), watcher.watch.remote(other_id), one.send.remote(other_id, [b"a"])])
    umbel.kill(other)
    assert umbel.get([one.receive.remote(1), watcher.receive.remote(1)]) == [[(other_id, None)]] * 2
    umbel.get(watcher.open.remote())
    umbel.get(watcher.watch.remote(other_id))
    assert umbel.get(watcher.receive.remote(1)) == [(other_id, None)]


def test_what_others_have_written_stays_while_one_is_waited_for(two: Two) -> None:
    (one, one_id), (other, other_id) = two
    third = Process.remote()
    third_id = umbel.get(third.open.remote())
    umbel.get(one.send.remote(other_id, [b"a", b"b"]))
    waiting = other.receive_from.remote(third_id)
    third.send.remote(other_id, [b"c", b"d"])
    assert umbel.get(waiting) == b"c"
    assert umbel.get(other.receive.remote(3)) == [(one_id, b"a"), (one_id, b"b"), (third_id, b"d")]


def test_inbox_that_is_opened_anew_ends_the_one_before(two: Two) -> None:
    (one, _), (other, other_id) = two
    one.send.remote(other_id, [b"a"])
    umbel.get(other.receive.remote(1))
    umbel.get(other.open.remote())
    assert umbel.get(one.receive.remote(1)) == [(other_id, None)]
