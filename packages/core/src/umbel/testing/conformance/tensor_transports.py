"""What a transport of tensors must do: holder and takers are threads of this process, connected as processes are."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from umbel import spi
from umbel._client.tensors import lines
from umbel.testing.conformance import suite

TIMEOUT_S = 20.0  # for what must happen; only a failing test waits so long


class TensorTransportConformance(suite.Suite[spi.TensorTransport]):
    """Subclass it and set `descriptor`; override `samples` if it takes other tensors than numpy's arrays."""

    kind = "tensor transport"
    descriptor_type = spi.TensorTransportDescriptor
    protocol = spi.TensorTransport

    def samples(self) -> list[Any]:
        """New tensors, to which `x += 1` can be done, and which `(x == y).all()` compares."""
        np = pytest.importorskip("numpy")
        return [np.arange(12, dtype=np.int64).reshape(3, 4), np.zeros((0, 2)), np.ones(100_000, dtype=np.float32)]

    def test_only_tensors_are_taken(self) -> None:
        transport = self.make()
        assert all(transport.is_tensor(sample) for sample in self.samples())
        assert [
            part for part in (None, 1, 2.5, "text", b"bytes", [1], {}, object(), int) if transport.is_tensor(part)
        ] == []

    def test_taker_gets_what_is_held_in_its_order(self) -> None:
        assert_same(taken(self.make(), self.make().hold(self.samples())), self.samples())

    def test_no_tensors_are_taken_as_none(self) -> None:
        assert taken(self.make(), self.make().hold([])) == []

    def test_takers_at_the_same_time_all_get_them(self) -> None:
        transport, held = self.make(), self.make().hold(self.samples())
        for found in in_threads([lambda: taken(transport, held)] * 4):
            assert_same(found, self.samples())

    def test_writing_to_what_was_taken_changes_nobody_elses(self) -> None:
        own = self.samples()
        transport, held = self.make(), self.make().hold(own)
        first = taken(transport, held)
        for tensor in first:
            tensor += 1
        assert_same(taken(transport, held), self.samples())
        assert_same(own, self.samples())

    def test_what_was_taken_outlives_what_was_held(self) -> None:
        held: Any = self.make().hold(self.samples())
        found = taken(self.make(), held)
        del held
        assert_same(found, self.samples())

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a list of open files")
    def test_no_open_file_is_left(self) -> None:
        taken(self.make(), self.make().hold(self.samples()))  # what is opened once and kept
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            taken(self.make(), self.make().hold(self.samples()))
        assert len(os.listdir("/proc/self/fd")) == before

    def test_taker_is_told_that_the_holder_has_gone(self) -> None:
        taker, holder = pair()
        holder.close()
        with pytest.raises(ConnectionError):
            self.make().take(taker)
        taker.close()

    def test_taker_that_has_gone_does_no_harm(self) -> None:
        held = self.make().hold(self.samples())
        taker, holder = pair()
        taker.close()
        with pytest.raises(OSError):  # a broken pipe, a reset: as the system says it
            held.give(holder)
        holder.close()
        assert_same(taken(self.make(), held), self.samples())


def pair() -> tuple[lines.Line, lines.Line]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return lines.Line(one), lines.Line(other)


def taken(transport: spi.TensorTransport, held: spi.HeldTensors) -> list[Any]:
    taker, holder = pair()
    try:
        _, found = in_threads([lambda: held.give(holder), lambda: transport.take(taker)])
    finally:
        taker.close()
        holder.close()
    if isinstance(found, BaseException):
        raise found
    return list(found)


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each returned or raised."""
    results: list[Any] = [TimeoutError(f"it did not end within {TIMEOUT_S} s")] * len(calls)

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    return results


def assert_same(found: Any, expected: list[Any]) -> None:
    assert not isinstance(found, BaseException), found
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert (one == other).all()
