"""Operations whose tensors travel in the frames of the ranks: in one where they fit, else piece by piece.

For small tensors anywhere, and for all where ranks are on several machines. With the first piece goes what is done, in words, and
nothing is written before all have agreed on that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umbel import spi
from umbel.util.collective import tensors


class FramedGroup:
    """See `spi.CollectiveGroup`. Each operation looks at its tensors and leaves the rest to a method that a subclass may do
    otherwise."""

    def __init__(self, peers: spi.CollectivePeers) -> None:
        np = tensors.numpy()
        self._ufuncs = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum}
        self._peers = peers
        self._rank = peers.rank
        self._others = [rank for rank in range(peers.world_size) if rank != peers.rank]
        self._inline_bytes_max = peers.body_bytes_max

    def allreduce(self, tensor: Any, op: str) -> None:
        array = tensors.flat(tensor, is_written=True)
        tensors.check_reducible(array)
        self._allreduce(f"allreduce({op}) of {tensors.describe(tensor)}", array, op)

    def reduce(self, tensor: Any, root: int, op: str) -> None:
        array = tensors.flat(tensor, is_written=root == self._rank)
        tensors.check_reducible(array)
        self._reduce_to(f"reduce({op}) to rank {root} of {tensors.describe(tensor)}", array, root, op)

    def broadcast(self, tensor: Any, root: int) -> None:
        array = tensors.flat(tensor, is_written=root != self._rank)
        self._broadcast(f"broadcast from rank {root} of {tensors.describe(tensor)}", array, root)

    def allgather(self, outputs: Sequence[Any], tensor: Any) -> None:
        array = tensors.flat(tensor)
        described = tensors.describe(tensor)
        self._allgather(f"allgather of {described}", _all_like(outputs, described, is_written=True), array)

    def reducescatter(self, output: Any, tensors_: Sequence[Any], op: str) -> None:
        result = tensors.flat(output, is_written=True)
        tensors.check_reducible(result)
        described = tensors.describe(output)
        self._reducescatter(f"reducescatter({op}) of {described}", result, _all_like(tensors_, described), op)

    def send(self, tensor: Any, rank: int) -> None:
        array = tensors.flat(tensor)
        described = tensors.describe(tensor)
        if array.nbytes <= self._inline_bytes_max:
            self._peers.send(rank, described, bytes_of(array))
        else:
            self._send(described, array, rank)

    def recv(self, tensor: Any, rank: int) -> None:
        array = tensors.flat(tensor, is_written=True)
        described = tensors.describe(tensor)
        if array.nbytes <= self._inline_bytes_max:
            self._peers.receive(rank, described, _into(array))
        else:
            self._recv(described, array, rank)

    def barrier(self) -> None:
        self._peers.exchange("barrier")

    def close(self) -> None:
        """There is nothing to give back."""

    # How tensors travel: flat arrays, of which nothing is wrong

    def _allreduce(self, text: str, array: Any, op: str) -> None:
        """Of a large one each rank reduces a slice of each piece for all."""
        if array.nbytes <= self._inline_bytes_max:
            self._reduce(self._exchange_whole(text, array, self._others), op, array)
            return
        rank, world_size = self._rank, self._peers.world_size
        for chunk in self._pieces(array.size, array.itemsize, world_size):
            part = array[chunk]
            slices = [slice(*slice_of(one, world_size, part.size)) for one in range(world_size)]
            received = self._peers.exchange(text, {one: bytes_of(part[slices[one]]) for one in self._others})
            parts = {one: array_from(body, array.dtype) for one, body in received.items()}
            own = part[slices[rank]]
            self._reduce({**parts, rank: own}, op, own)
            received = self._peers.exchange("", dict.fromkeys(self._others, bytes_of(own)))
            for one, body in received.items():
                part[slices[one]] = array_from(body, array.dtype)
            text = ""

    def _reduce_to(self, text: str, array: Any, root: int, op: str) -> None:
        receivers = () if root == self._rank else (root,)
        for chunk in self._pieces(array.size, array.itemsize):
            parts = self._exchange_whole(text, array[chunk], receivers)
            if root == self._rank:
                self._reduce(parts, op, array[chunk])
            text = ""

    def _broadcast(self, text: str, array: Any, root: int) -> None:
        receivers = self._others if root == self._rank else ()
        for chunk in self._pieces(array.size, array.itemsize):
            array[chunk] = self._exchange_whole(text, array[chunk], receivers)[root]
            text = ""

    def _allgather(self, text: str, results: Sequence[Any], array: Any) -> None:
        for chunk in self._pieces(array.size, array.itemsize):
            for one, part in self._exchange_whole(text, array[chunk], self._others).items():
                results[one][chunk] = part
            text = ""

    def _reducescatter(self, text: str, result: Any, inputs: Sequence[Any], op: str) -> None:
        for chunk in self._pieces(result.size, result.itemsize):
            received = self._peers.exchange(text, {one: bytes_of(inputs[one][chunk]) for one in self._others})
            parts = {one: array_from(body, result.dtype) for one, body in received.items()}
            self._reduce({**parts, self._rank: inputs[self._rank][chunk]}, op, result[chunk])
            text = ""

    def _send(self, described: str, array: Any, rank: int) -> None:
        self._peers.send(rank, described)
        for index, chunk in enumerate(self._pieces(array.size, array.itemsize)):
            self._peers.send(rank, f"chunk {index}", bytes_of(array[chunk]))

    def _recv(self, described: str, array: Any, rank: int) -> None:
        self._peers.receive(rank, described, lambda _: None)
        for index, chunk in enumerate(self._pieces(array.size, array.itemsize)):
            self._peers.receive(rank, f"chunk {index}", _into(array[chunk]))

    def _pieces(self, count: int, item_bytes: int, slices: int = 1) -> list[slice]:
        """Of so many elements; each piece, or each of its slices, fits into a frame. One at least, for what has none."""
        return slices_of(count, self._inline_bytes_max // item_bytes * slices) or [slice(0, 0)]

    def _exchange_whole(self, text: str, array: Any, receivers: Sequence[int]) -> dict[int, Any]:
        """The whole array to some ranks. Returns what came, and its own, by rank."""
        body = bytes_of(array) if receivers else b""
        received = self._peers.exchange(text, dict.fromkeys(receivers, body))
        parts = {one: array_from(part, array.dtype) for one, part in received.items() if len(part) == array.nbytes}
        parts[self._rank] = array
        return parts

    def _reduce(self, parts: Mapping[int, Any], op: str, result: Any) -> None:
        """In the order of the ranks, so that the same bits come out everywhere. `result` may be one of them."""
        ufunc = self._ufuncs[op]
        if len(parts) == 1:
            (result[:],) = parts.values()
            return
        if len(parts) > 2:  # a later part must not be written over before it is read
            overlaps = tensors.numpy().may_share_memory
            parts = {rank: part.copy() if rank > 1 and overlaps(part, result) else part for rank, part in parts.items()}
        ufunc(parts[0], parts[1], out=result)
        for rank in range(2, len(parts)):
            ufunc(result, parts[rank], out=result)


def slice_of(rank: int, world_size: int, count: int) -> tuple[int, int]:
    """Which of `count` elements this rank reduces."""
    return rank * count // world_size, (rank + 1) * count // world_size


def slices_of(count: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def bytes_of(array: Any) -> bytes:
    data: bytes = array.tobytes()
    return data


def array_from(body: bytes, dtype: Any) -> Any:
    return tensors.numpy().frombuffer(body, dtype=dtype)


def _into(array: Any) -> Callable[[bytes], object]:
    def take(body: bytes) -> None:
        array[:] = array_from(body, array.dtype)

    return take


def _all_like(found: Sequence[Any], described: str, *, is_written: bool = False) -> list[Any]:
    """The tensors of a list, flat. Raises ValueError when one is of another shape or type."""
    for index, one in enumerate(found):
        if tensors.describe(one) != described:
            raise ValueError(
                f"all tensors must be alike: the one of index {index} in the list is {tensors.describe(one)}, "
                f"the other is {described}"
            )
    return [tensors.flat(one, is_written=is_written) for one in found]
