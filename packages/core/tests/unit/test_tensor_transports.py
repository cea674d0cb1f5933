"""The transport of tensors that is built in passes the suite; what stays of a line, whoever misbehaves."""

from __future__ import annotations

import array
import sys
from typing import Any

import pytest

from umbel import exceptions
from umbel._client.tensors import gloo, lines, transports
from umbel._objects import serialization
from umbel._plugins import builtin
from umbel.testing.conformance import TensorTransportConformance, tensor_transports

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


class TestSharedMemory(TensorTransportConformance):
    descriptor = builtin.umbel_tensor_transports()[0]


class Echo:
    """Held by a test: says what it was told, and what comes along."""

    def give(self, line: Any) -> None:
        data, descriptors = line.receive()
        assert descriptors == []
        line.send(data * 2)


def opened(found: Any) -> lines.Door:
    def find(object_id: bytes) -> Any:
        if isinstance(found, BaseException):
            raise found
        return found

    return lines.Door(find)


def test_taker_talks_with_what_it_asked_for() -> None:
    door = opened(Echo())
    line = lines.connect(door.address)
    line.send(b"an object")
    line.send(b"x" * 3_000_000)  # more than a socket holds
    assert line.receive() == (b"x" * 6_000_000, [])
    line.close()
    door.close()


def test_error_of_the_holder_is_raised_at_the_taker() -> None:
    door = opened(exceptions.ObjectFreedError("it was freed"))
    line = lines.connect(door.address)
    line.send(b"an object")
    with pytest.raises(exceptions.ObjectFreedError, match="it was freed"):
        line.receive()
    line.close()
    door.close()


def test_nobody_comes_through_a_closed_door() -> None:
    door = opened(Echo())
    door.close()
    door.close()
    with pytest.raises(ConnectionError):
        lines.connect(door.address)


def test_holder_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "TIMEOUT_S", 0.01)
    taker, holder = tensor_transports.pair()
    with pytest.raises(TimeoutError, match=r"nothing has come for 0\.01 s"):
        taker.receive()
    taker.close()
    holder.close()


def test_parts_of_a_value_are_pickled_as_others() -> None:
    def replaced(part: Any) -> Any:
        return (str, ("an array",)) if type(part) is array.array else None

    kind, payload = serialization.serialize([array.array("d"), lambda: 3], replaced).inline()
    text, function = serialization.decode_inline(kind, payload)
    assert (text, function()) == ("an array", 3)
    kind, payload = serialization.serialize([array.array("d")]).inline()
    assert serialization.decode_inline(kind, payload) == [array.array("d")]


def test_names_of_transports_are_checked() -> None:
    transports.check("shm", "tensor_transport")
    transports.check("gloo", "tensor_transport")
    with pytest.raises(
        exceptions.UnsupportedFeature, match=r"'nccl' is not in this version of Umbel, which has 'gloo' or 'shm'"
    ):
        transports.check("nccl", "tensor_transport")
    with pytest.raises(
        exceptions.InvalidOption, match=r"must be 'gloo' or 'shm', got 'pigeon'; plugins provide others"
    ):
        transports.check("pigeon", "tensor_transport")


def test_without_pytorch_the_command_to_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        exceptions.PluginError, match=r'"gloo" needs PyTorch.*run: pip install "umbel\[torch\]"'
    ) as caught:
        gloo.GlooTransport()
    assert caught.value.plugin == "gloo"
