"""Values through the shared memory of a graph, both ends in this process."""

from __future__ import annotations

import collections
import os
import signal
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from umbel import exceptions
from umbel._client.graphs import channels, executions, loop, results
from umbel._objects import store

SLOTS = 4
SLOT_BYTES = 4096


class Engine:
    """What channels need of one: a store for what does not fit into a slot."""

    def __init__(self, directory: Path) -> None:
        self.values: Any = self
        self.store = store.SharedMemoryStore(str(directory), "00" * 16, capacity_bytes=10_000_000)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "store")
    yield made
    made.store.close()


@pytest.fixture
def memory(tmp_path: Path) -> channels.Memory:
    return channels.make(str(tmp_path / "graph"), edges=2, slots=SLOTS, slot_bytes=SLOT_BYTES)


def send(sender: channels.Sender, value: Any) -> None:
    sender.send(channels.encode(value, SLOT_BYTES, None))


def nothing() -> None:
    """What a waiter does from time to time, here."""


@pytest.mark.parametrize("value", [1, None, "text", b"bytes", [1, {"a": (2.5, None)}], {1, 2}, Path("/x")])
def test_values_arrive_as_they_were(memory: channels.Memory, value: Any) -> None:
    sender, receiver = channels.Sender(memory, 1), channels.Receiver(memory, 1)
    for _ in range(SLOTS + 1):  # each slot, and the first one again
        send(sender, value)
        assert receiver.wait(None, nothing)
        assert receiver.take(None) == value


def test_edges_do_not_touch_each_other(memory: channels.Memory) -> None:
    for edge in range(2):
        sender = channels.Sender(memory, edge)
        for number in range(SLOTS):
            send(sender, bytes([edge]) * (SLOT_BYTES - 100 - number))
    for edge in range(2):
        receiver = channels.Receiver(memory, edge)
        for number in range(SLOTS):
            assert receiver.take(None) == bytes([edge]) * (SLOT_BYTES - 100 - number)
        assert not receiver.is_ready()


def test_buffers_are_laid_out_in_the_slot_and_are_a_copy_at_the_reader(memory: channels.Memory) -> None:
    numpy = pytest.importorskip("numpy")
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    assert channels.encode(numpy.arange(100), SLOT_BYTES, None).kind == channels.LAID_OUT
    send(sender, numpy.arange(100))
    read = receiver.take(None)
    for _ in range(SLOTS):
        send(sender, numpy.zeros(100, dtype=int))
    assert (read == numpy.arange(100)).all()


def test_an_error_stands_for_a_value(memory: channels.Memory) -> None:
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    send(sender, channels.Failed(b"error"))
    assert receiver.take(None) == channels.Failed(b"error")


@pytest.mark.parametrize("edges", [1, 2])
def test_what_does_not_fit_goes_through_a_segment_until_all_have_read_it(
    memory: channels.Memory, engine: Engine, edges: int
) -> None:
    senders = [channels.Sender(memory, edge) for edge in range(edges)]
    receivers = [channels.Receiver(memory, edge) for edge in range(edges)]
    for number in range(3 * SLOTS):
        value = bytes([number]) * 3 * SLOT_BYTES
        message = channels.encode(value, SLOT_BYTES, engine)
        assert message.kind == channels.BYTES | channels.IN_SEGMENT
        for sender in senders:
            sender.send(message)
        for sender, receiver in zip(senders, receivers, strict=True):
            sender.let_go()
            assert engine.store.usage().live_count == 1, "somebody has not read it"
            assert receiver.take(engine) == value
            sender.let_go()
        assert engine.store.usage().live_count == 0


def test_arrays_from_a_segment_are_a_copy(memory: channels.Memory, engine: Engine) -> None:
    numpy = pytest.importorskip("numpy")
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    read = []
    for number in range(SLOTS):
        sender.send(channels.encode(numpy.full(SLOT_BYTES, number), SLOT_BYTES, engine))
        read.append(receiver.take(engine))
    assert [array.max() for array in read] == [array.min() for array in read] == list(range(SLOTS))


def test_large_errors_go_through_a_segment(memory: channels.Memory, engine: Engine) -> None:
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    sender.send(channels.encode(channels.Failed(b"x" * 3 * SLOT_BYTES), SLOT_BYTES, engine))
    assert receiver.take(engine) == channels.Failed(b"x" * 3 * SLOT_BYTES)


def test_a_segment_of_closed_channels_is_not_trusted(memory: channels.Memory, engine: Engine) -> None:
    """Its writer gives it back without waiting for readers, and may have written something else there."""
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    for _ in range(2):
        sender.send(channels.encode(b"x" * 3 * SLOT_BYTES, SLOT_BYTES, engine))
    memory.close()
    with pytest.raises(channels.ChannelClosed):
        receiver.take(engine)
    sender.let_go(of_all=True)
    assert engine.store.usage().live_count == 0
    with pytest.raises(channels.ChannelClosed):
        receiver.take(engine)


def test_a_message_that_is_not_sent_leaves_no_segment(engine: Engine) -> None:
    channels.encode(b"x" * 3 * SLOT_BYTES, SLOT_BYTES, engine).discard()
    channels.encode(b"x", SLOT_BYTES, engine).discard()
    assert engine.store.usage().live_count == 0


def test_a_message_that_the_end_keeps_from_some_readers_leaves_no_segment(
    memory: channels.Memory, engine: Engine
) -> None:
    """One has been sent it, and may read it until the writer knows of the end."""
    senders = [channels.Sender(memory, edge) for edge in range(2)]
    message = channels.encode(b"x" * 3 * SLOT_BYTES, SLOT_BYTES, engine)
    senders[0].send(message)
    memory.close()
    with pytest.raises(channels.ChannelClosed):
        senders[1].send(message)
    message.discard()
    assert engine.store.usage().live_count == 1
    senders[0].let_go(of_all=True)
    assert engine.store.usage().live_count == 0


def test_a_loop_leaves_no_segment_when_the_end_keeps_it_from_sending(memory: channels.Memory, engine: Engine) -> None:
    memory.close()
    of_loop: Any = types.SimpleNamespace(_memory=memory, _engine=engine)
    step: Any = None
    with pytest.raises(channels.ChannelClosed):
        loop._Loop._send(of_loop, step, b"x" * 3 * SLOT_BYTES, [channels.Sender(memory, 0)])
    assert engine.store.usage().live_count == 0


class Interrupted(collections.deque[Any]):
    """Another thread runs between the look at what is first and its removal."""

    def __init__(self, items: Any, other: threading.Thread) -> None:
        super().__init__(items)
        self._other = other

    def popleft(self) -> Any:
        if not self._other.ident:
            self._other.start()
            self._other.join(0.05)
        return super().popleft()


def test_two_threads_let_go_of_each_message_once(memory: channels.Memory, engine: Engine) -> None:
    """One sends the next input, one waits for a result."""
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    for _ in range(2):
        sender.send(channels.encode(b"x" * 3 * SLOT_BYTES, SLOT_BYTES, engine))
    receiver.take(engine)
    other = threading.Thread(target=sender.let_go)
    sender._kept = Interrupted(sender._kept, other)
    sender.let_go()
    other.join(5.0)
    assert engine.store.usage().live_count == 1, "the second message was not read"
    assert receiver.take(engine) == b"x" * 3 * SLOT_BYTES


def test_a_segment_that_is_lost_with_its_writer_ends_the_graph(
    memory: channels.Memory, engine: Engine, tmp_path: Path
) -> None:
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    sender.send(channels.encode(b"x" * 3 * SLOT_BYTES, SLOT_BYTES, engine))
    reader = Engine(tmp_path / "another")  # in whose directory it is not
    with pytest.raises(channels.ChannelClosed) as raised:
        receiver.take(reader)
    assert isinstance(raised.value.__cause__, exceptions.ObjectLostError)
    reader.store.close()


def test_who_cannot_look_because_another_thread_reads_is_told_of_the_time_alone() -> None:
    """What has come in a slot can still be read, whoever has died."""

    def check() -> None:
        raise exceptions.ActorDiedError("an actor of the graph is dead")

    book = executions.Executions(1, in_flight_max=2, buffered_max=2)
    made = results.Results(None, book, [], check=check, late=lambda *_: "it did not come")
    assert made.open(None) == 0
    with made._reading, pytest.raises(exceptions.UmbelChannelTimeoutError, match="did not come within"):
        made.fetch(0, 0, 0.01)


def test_a_value_that_cannot_be_pickled_is_refused_and_nothing_is_sent(memory: channels.Memory) -> None:
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    with pytest.raises(TypeError, match="cannot serialize"):
        send(sender, threading.Lock())
    send(sender, 1)
    assert receiver.take(None) == 1


def explode() -> None:
    raise OSError("unreadable")


class Unreadable:
    def __reduce__(self) -> Any:
        return explode, ()


def test_a_message_that_cannot_be_read_is_gone(memory: channels.Memory) -> None:
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    send(sender, Unreadable())
    send(sender, 2)
    with pytest.raises(OSError, match="unreadable"):
        receiver.take(None)
    assert receiver.take(None) == 2


def test_reader_sleeps_until_there_is_a_message(memory: channels.Memory) -> None:
    sender, receiver = channels.Sender(memory, 0), channels.Receiver(memory, 0)
    slept = threading.Event()

    def look() -> None:
        slept.set()

    def write() -> None:
        assert slept.wait(10)
        send(sender, "woken")

    thread = threading.Thread(target=write)
    thread.start()
    assert receiver.wait(time.monotonic() + 10, look)
    assert receiver.take(None) == "woken"
    thread.join()


def test_reader_waits_no_longer_than_it_is_told(memory: channels.Memory) -> None:
    receiver = channels.Receiver(memory, 0)
    assert not receiver.wait(time.monotonic() + 0.01, nothing)
    assert not receiver.wait(0.0, nothing)


def test_closing_wakes_who_waits_and_keeps_what_was_sent(memory: channels.Memory) -> None:
    sender, receiver, other = channels.Sender(memory, 0), channels.Receiver(memory, 0), channels.Receiver(memory, 1)
    send(sender, 1)
    threading.Timer(0.02, memory.close).start()
    with pytest.raises(channels.ChannelClosed):
        other.wait(time.monotonic() + 10, nothing)
    with pytest.raises(channels.ChannelClosed):
        send(sender, 2)
    assert receiver.wait(None, nothing)
    assert receiver.take(None) == 1
    with pytest.raises(channels.ChannelClosed):
        receiver.wait(None, nothing)


def test_a_thread_that_hands_values_to_another_loses_none(memory: channels.Memory) -> None:
    """Many times around the ring, asleep or not."""
    there, back = channels.Sender(memory, 0), channels.Receiver(memory, 1)

    def echo() -> None:
        receiver, sender = channels.Receiver(memory, 0), channels.Sender(memory, 1)
        for _ in range(500):
            receiver.wait(None, nothing)
            sender.send(channels.encode(receiver.take(None), SLOT_BYTES, None))

    thread = threading.Thread(target=echo)
    thread.start()
    received = []
    for number in range(500):
        send(there, number)
        assert back.wait(time.monotonic() + 10, nothing)
        received.append(back.take(None))
    thread.join()
    assert received == list(range(500))


def test_each_slot_gets_its_share_of_the_buffer() -> None:
    assert channels.slot_bytes_of(1_000_000, 10) == 99_968  # whole cache lines
    assert channels.slot_bytes_of(1, 10) == channels.SLOT_BYTES_MIN


def test_memory_that_does_not_fit_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    def no_room(*_args: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    monkeypatch.setattr(channels.segments, "_fallocate", no_room)
    with pytest.raises(exceptions.ObjectStoreFullError, match="_buffer_size_bytes"):
        channels.make(str(tmp_path / "graph"), edges=1, slots=1, slot_bytes=1024)
    assert list(tmp_path.iterdir()) == []


def test_a_child_forked_while_another_thread_writes_can_write(memory: channels.Memory) -> None:
    with channels._fence:  # as of another thread, at the fork
        child = os.fork()
        if not child:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            send(channels.Sender(memory, 1), 1)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert channels.Receiver(memory, 1).take(None) == 1
