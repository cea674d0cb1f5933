"""The transport that leaves tensors to Gloo, as PyTorch has it: the holder sends, the taker receives.

It needs no collective group, and touches none that the program has. What the tensors are goes along the line, with those
that are small; the others go by a pair, in pieces, and after each piece the holder says so along the line. So the taker
waits nowhere else: there it can be interrupted, and knows at once that the holder has died.
"""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from umbel import exceptions, spi
from umbel._client.tensors import gloo_pairs, lines, process_groups, torch_tensors

SMALL_BYTES_MAX = 16 << 10  # each costs Gloo some 50 µs, as copying so much three times
PIECE_BYTES = 256 << 20  # of them even a slow machine moves many within the time that one end waits for the other
_PIECE_SENT, _PAIR_KEPT = b"sent", b"kept"


class _Form(NamedTuple):
    """What a tensor is but for its elements."""

    dtype: Any
    shape: tuple[int, ...]
    needs_gradient: bool


class GlooTransport:
    """See `spi.TensorTransport`."""

    def __init__(self) -> None:
        process_groups.check_installed(gloo_pairs.ASKER)
        self._pairs = gloo_pairs.Pairs()

    def is_tensor(self, value: Any) -> bool:
        return torch_tensors.is_plain(value)

    def hold(self, tensors: Sequence[Any]) -> spi.HeldTensors:
        process_groups.library(gloo_pairs.ASKER)
        return _Held(tensors, self._pairs)

    def take(self, line: spi.TensorLine) -> list[Any]:
        """Raises UmbelDirectTransportError when Gloo fails though both processes live."""
        holder, forms, content = pickle.loads(line.receive()[0])
        import torch

        tensors = [torch.empty(form.shape, dtype=form.dtype) for form in forms]
        small, large = _by_size(tensors)
        left = memoryview(content)
        for tensor in small:
            memory = torch_tensors.memory(tensor)
            memory[:], left = left[: len(memory)], left[len(memory) :]
        if large:
            try:
                self._receive(line, holder, _pieces(large))
            except RuntimeError as error:
                gloo_pairs.give_up(line, error)
        for tensor, form in zip(tensors, forms, strict=True):
            tensor.requires_grad_(form.needs_gradient)
        return tensors

    def _receive(self, line: spi.TensorLine, holder: bytes, pieces: list[Any]) -> None:
        pair = self._pairs.with_holder(line, holder)
        works = [pair.group.recv([piece], gloo_pairs.HOLDER, tag) for tag, piece in enumerate(pieces)]
        for work in works:
            line.receive()
            _wait(work)
        line.receive()
        self._pairs.keep(pair)


class _Held:
    """See `spi.HeldTensors`."""

    def __init__(self, tensors: Sequence[Any], pairs: gloo_pairs.Pairs) -> None:
        self._tensors = tensors
        self._pairs = pairs

    def give(self, line: spi.TensorLine) -> None:
        """Raises UmbelDirectTransportError when Gloo fails."""
        forms = [_Form(tensor.dtype, tuple(tensor.shape), tensor.requires_grad) for tensor in self._tensors]
        small, large = _by_size([torch_tensors.contiguous(tensor) for tensor in self._tensors])
        content = b"".join(map(torch_tensors.memory, small))
        line.send(pickle.dumps((self._pairs.own_id, forms, content)))
        if not large:
            return
        try:
            self._send(line, _pieces(large))
        except RuntimeError as error:
            raise exceptions.UmbelDirectTransportError(
                f"Gloo failed in the process that holds the tensors: {error}; take them again"
            ) from error

    def _send(self, line: spi.TensorLine, pieces: list[Any]) -> None:
        pair = self._pairs.with_taker(line)
        works = [pair.group.send([piece], gloo_pairs.TAKER, tag) for tag, piece in enumerate(pieces)]
        for work in works:
            _wait(work)
            line.send(_PIECE_SENT)
        self._pairs.keep(pair)
        line.send(_PAIR_KEPT)  # before the taker names it for its next transfer


def _by_size(tensors: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Those that go along the line, without the empty ones, and those that go by Gloo."""
    small = [tensor for tensor in tensors if 0 < tensor.nbytes <= SMALL_BYTES_MAX]
    return small, [tensor for tensor in tensors if tensor.nbytes > SMALL_BYTES_MAX]


def _pieces(tensors: Sequence[Any]) -> list[Any]:
    """The bytes of contiguous tensors, in place."""
    import torch

    return [piece for tensor in tensors for piece in tensor.reshape(-1).view(torch.uint8).split(PIECE_BYTES)]


def _wait(work: Any) -> None:
    work.wait(datetime.timedelta(seconds=lines.TIMEOUT_S))
