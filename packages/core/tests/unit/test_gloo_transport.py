"""The transport of tensors by Gloo passes the suite; which tensors it takes, and how they arrive."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from umbel import exceptions
from umbel._client.tensors import gloo, lines
from umbel._plugins import builtin
from umbel.testing.conformance import TensorTransportConformance, tensor_transports

DESCRIPTORS = {descriptor.name: descriptor for descriptor in builtin.umbel_tensor_transports()}
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux"),
]


@pytest.mark.slow
class TestGloo(TensorTransportConformance):
    descriptor = DESCRIPTORS["gloo"]

    def samples(self) -> list[Any]:
        import torch

        return [torch.arange(12).reshape(3, 4), torch.zeros(0, 2), torch.ones(100_000)]


@pytest.fixture
def transport() -> Any:
    return gloo.GlooTransport()


def moved(transport: Any, *tensors: Any) -> list[Any]:
    return tensor_transports.taken(transport, transport.hold(list(tensors)))


def assert_alike(found: Any, expected: Any) -> None:
    import torch

    assert (found.dtype, found.shape, found.requires_grad) == (expected.dtype, expected.shape, expected.requires_grad)
    assert torch.equal(found, expected.detach().resolve_conj())


@pytest.mark.parametrize("is_small", [True, False], ids=["along the line", "by Gloo"])
def test_tensors_of_every_sort_arrive_as_they_were(
    transport: Any, monkeypatch: pytest.MonkeyPatch, *, is_small: bool
) -> None:
    import torch

    if not is_small:
        monkeypatch.setattr(gloo, "SMALL_BYTES_MAX", 0)
        monkeypatch.setattr(gloo, "PIECE_BYTES", 5)  # so that an element may be in two
    tensors = [
        torch.tensor(2.5),
        torch.zeros(0, 3),
        torch.arange(6).reshape(2, 3).t(),
        torch.arange(10)[::3],
        torch.arange(4).expand(3, 4),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(3, dtype=torch.float16),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]).conj(),
        torch.ones(2, dtype=torch.complex128),
        torch.tensor([1, 255], dtype=torch.uint8),
        torch.ones(3, 2, requires_grad=True),
        torch.ones(2, requires_grad=True) * 2,  # has a history, which stays
    ]
    for found, expected in zip(moved(transport, *tensors), tensors, strict=True):
        assert_alike(found, expected)


def test_large_and_small_ones_keep_their_order(transport: Any) -> None:
    import torch

    tensors = [torch.full((count,), count, dtype=torch.int32) for count in (100_000, 3, 50_000, 0, 4_096, 4_097)]
    for found, expected in zip(moved(transport, *tensors), tensors, strict=True):
        assert_alike(found, expected)


def test_taken_tensors_are_nobodys_views(transport: Any) -> None:
    """Else one that is kept would keep the memory of all."""
    import torch

    for found in moved(transport, torch.ones(3), torch.ones(100_000)):
        assert (found._base, found.untyped_storage().nbytes()) == (None, found.nbytes)


def test_pair_is_used_again(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    other = gloo.GlooTransport()
    held = other.hold([torch.ones(100_000)])
    assert_alike(tensor_transports.taken(transport, held)[0], torch.ones(100_000))
    monkeypatch.setattr(transport._pairs, "_connected", None)
    monkeypatch.setattr(other._pairs, "_connected", None)
    for _ in range(5):
        assert_alike(tensor_transports.taken(transport, held)[0], torch.ones(100_000))


def test_pair_that_the_holder_has_dropped_is_made_again(transport: Any) -> None:
    import torch

    other = gloo.GlooTransport()
    held = other.hold([torch.ones(100_000)])
    tensor_transports.taken(transport, held)
    other._pairs.forked()  # drops all
    assert_alike(tensor_transports.taken(transport, held)[0], torch.ones(100_000))


@pytest.mark.parametrize("place", ["hold", "take"])
def test_error_of_gloo_is_told_to_the_taker(transport: Any, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    import torch

    def broken(*_: Any) -> Any:
        raise RuntimeError("too many open files")

    other = gloo.GlooTransport()
    monkeypatch.setattr((other if place == "hold" else transport)._pairs, "_device", broken)
    held = other.hold([torch.ones(100_000)])
    door = lines.Door(lambda _: held)
    line = lines.connect(door.address)
    line.send(b"an object")
    with pytest.raises(exceptions.UmbelDirectTransportError, match=rf"process that {place}s.*too many open files"):
        transport.take(line)
    line.close()
    door.close()


def test_holder_does_not_wait_for_a_taker_that_says_nothing(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(lines, "TIMEOUT_S", 0.01)
    taker, holder = tensor_transports.pair()
    with pytest.raises(TimeoutError, match="nothing has come"):
        transport.hold([torch.ones(100_000)]).give(holder)
    taker.close()
    holder.close()


def test_only_dense_tensors_in_main_memory_are_taken(transport: Any) -> None:
    import torch

    others = [torch.ones(2).to_sparse(), torch.ones(2, device="meta"), torch.nn.Parameter(torch.ones(2)), [1], None]
    assert [other for other in others if transport.is_tensor(other)] == []
    assert transport.is_tensor(torch.ones(2))
