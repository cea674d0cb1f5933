"""The transport of tensors by Gloo, with a process that dies or stops at each step of what the two say to each other.

Holder and taker are this process and a child that it forks, with a door and no runtime around.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import drivers
import pytest

from umbel._client.tensors import gloo, lines

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets need Linux"),
]

FORK = multiprocessing.get_context("fork")
SOON_S = 10.0  # within which one knows that the other has died: milliseconds, but it would wait for a minute
PIECE_BYTES = 200_000
PIECES = 3
STEPS = 4 + PIECES  # receives of a taker: what there is, make or use a pair, address, pieces, the end


def tensors() -> list[Any]:
    return [torch.arange(50_000 * PIECES, dtype=torch.int32)]


class SteppedLine:
    """A line that does something before one of the receives at it."""

    def __init__(self, line: lines.Line, step: int, act: Callable[[], None]) -> None:
        self._line = line
        self._left = step
        self._act = act

    def send(self, data: bytes, descriptors: Any = ()) -> None:
        self._line.send(data, descriptors)

    def receive(self) -> tuple[bytes, list[int]]:
        if self._left == 0:
            self._act()
        self._left -= 1
        return self._line.receive()


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo, "PIECE_BYTES", PIECE_BYTES)


def hold(addresses: Any) -> None:
    """The child's part: holds tensors for as long as it lives."""
    torch.set_num_threads(1)  # its others are the parent's, and it would wait for them
    held = gloo.GlooTransport().hold(tensors())
    addresses.send(lines.Door(lambda _: held).address)
    signal.pause()


def take(address: bytes, step: int, action: int) -> None:
    """The child's part: takes them, but sends itself a signal on the way."""
    line = lines.connect(address)
    line.send(b"an object")
    gloo.GlooTransport().take(SteppedLine(line, step, lambda: os.kill(os.getpid(), action)))


@pytest.fixture
def holder() -> Iterator[tuple[Any, bytes]]:
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=hold, args=(theirs,), daemon=True)
    child.start()
    assert ours.poll(drivers.PATIENCE_S)
    yield child, ours.recv()
    child.kill()
    child.join()


def taken(transport: gloo.GlooTransport, address: bytes, step: int = -1, act: Any = None) -> list[Any]:
    line = lines.connect(address)
    try:
        line.send(b"an object")
        return transport.take(SteppedLine(line, step, act))
    finally:
        line.close()


def assert_right(found: list[Any]) -> None:
    assert torch.equal(found[0], tensors()[0])


@pytest.mark.parametrize("is_first", [True, False], ids=["first transfer", "a later one"])
@pytest.mark.parametrize("step", range(STEPS))
def test_death_of_the_holder_is_known_at_once(holder: tuple[Any, bytes], step: int, *, is_first: bool) -> None:
    child, address = holder
    transport = gloo.GlooTransport()
    if not is_first:
        assert_right(taken(transport, address))
    died_s = []

    def kill() -> None:
        child.kill()
        child.join()
        died_s.append(time.monotonic())

    try:
        assert_right(taken(transport, address, step, kill))
        assert step > 1  # it had sent all, before the taker looked
    except ConnectionError:
        assert time.monotonic() - died_s[0] < SOON_S


@pytest.mark.parametrize("step", range(STEPS))
def test_taker_that_dies_leaves_the_holder_as_it_was(step: int) -> None:
    """The thread that served it ends, and the next taker gets everything."""
    transport = gloo.GlooTransport()
    held = transport.hold(tensors())
    ended = threading.Event()

    class Watched:
        def give(self, line: Any) -> None:
            try:
                held.give(line)
            finally:
                ended.set()

    door = lines.Door(lambda _: Watched())
    child = FORK.Process(target=take, args=(door.address, step, signal.SIGKILL), daemon=True)
    child.start()
    child.join(drivers.PATIENCE_S)
    assert child.exitcode == -signal.SIGKILL
    assert ended.wait(SOON_S)
    assert_right(taken(gloo.GlooTransport(), door.address))
    door.close()


@pytest.mark.parametrize("step", range(STEPS))
def test_holder_that_stops_in_the_midst_is_given_up(
    holder: tuple[Any, bytes], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    child, address = holder
    with monkeypatch.context() as patch:
        patch.setattr(lines, "TIMEOUT_S", 0.5)
        began_s = time.monotonic()
        try:
            assert_right(taken(gloo.GlooTransport(), address, step, lambda: drivers.freeze(child.pid)))
        except TimeoutError as error:
            assert "nothing has come" in str(error)  # else it had sent all before it was stopped
        assert time.monotonic() - began_s < SOON_S
    os.kill(child.pid, signal.SIGCONT)
    assert_right(taken(gloo.GlooTransport(), address))


@pytest.mark.parametrize("step", range(STEPS))
def test_taker_that_is_interrupted_can_take_again(holder: tuple[Any, bytes], step: int) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    _, address = holder
    transport = gloo.GlooTransport()
    with pytest.raises(KeyboardInterrupt):
        taken(transport, address, step, interrupt)
    assert_right(taken(transport, address))
