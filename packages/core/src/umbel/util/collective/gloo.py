"""The backend that leaves tensors to Gloo, as PyTorch has it. PyTorch is imported when a group by this backend is made.

The ranks agree on each operation before Gloo is asked: by itself it does not notice that they mean different things. And
while it works, they watch each other: it notices the death of a neighbour, the others would wait for their time-out.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any

from umbel import exceptions, spi
from umbel._client.tensors import process_groups
from umbel.util.collective import tensors

LOOK_S = 0.1  # between two looks at the other ranks while Gloo works
NEWS_S = 0.5  # Gloo hears of a death by a socket of its own, perhaps before the peers do
ASKER = 'the backend "gloo"'


def is_available() -> bool:
    try:
        process_groups.library(ASKER)
    except exceptions.PluginError:
        return False
    return True


class GlooGroup:
    """See `spi.CollectiveGroup`."""

    def __init__(self, peers: spi.CollectivePeers) -> None:
        self._peers = peers
        self._distributed = process_groups.library(ASKER)
        op = self._distributed.ReduceOp
        self._ops = {"sum": op.SUM, "product": op.PRODUCT, "min": op.MIN, "max": op.MAX}
        path = self._store_path()
        try:
            store = self._distributed.FileStore(path, peers.world_size)
            store.set_timeout(datetime.timedelta(seconds=peers.timeout_s))
            self._group: Any = process_groups.group(
                self._distributed, store, rank=peers.rank, size=peers.world_size, timeout_s=peers.timeout_s,
                device=process_groups.device(self._distributed, "127.0.0.1"),
            )  # fmt: skip
            peers.exchange("gloo is connected")
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)  # the addresses in it are known to all now, or nobody needs them

    def _store_path(self) -> str:
        """A file for Gloo's addresses, named by rank 0."""
        peers = self._peers
        path = os.path.join(peers.directory, f"gloo-{secrets.token_hex(8)}")
        named = dict.fromkeys(range(1, peers.world_size), path.encode()) if peers.rank == 0 else {}
        received = peers.exchange("gloo", named)
        return path if peers.rank == 0 else received[0].decode()

    def allreduce(self, tensor: Any, op: str) -> None:
        found = _torch_tensor(tensor, is_written=True)
        self._peers.exchange(f"allreduce({op}) of {_describe(found)}")
        self._allreduce(found, op)

    def reduce(self, tensor: Any, root: int, op: str) -> None:
        is_root = root == self._peers.rank
        found = _torch_tensor(tensor, is_written=is_root)
        self._peers.exchange(f"reduce({op}) to rank {root} of {_describe(found)}")
        self._reduce(found if is_root else found.clone(), root, op)

    def broadcast(self, tensor: Any, root: int) -> None:
        found = _torch_tensor(tensor, is_written=root != self._peers.rank)
        self._peers.exchange(f"broadcast from rank {root} of {_describe(found)}")
        options = self._distributed.BroadcastOptions()
        options.rootRank = root
        self._wait(lambda: self._group.broadcast([found], options))

    def allgather(self, outputs: Sequence[Any], tensor: Any) -> None:
        found = _torch_tensor(tensor)
        results = _all_like(outputs, found, is_written=True)
        self._peers.exchange(f"allgather of {_describe(found)}")
        self._wait(lambda: self._group.allgather([results], [found]))

    def reducescatter(self, output: Any, tensors_: Sequence[Any], op: str) -> None:
        result = _torch_tensor(output, is_written=True)
        inputs = _all_like(tensors_, result)
        self._peers.exchange(f"reducescatter({op}) of {_describe(result)}")
        for rank, one in enumerate(inputs):  # Gloo reduces in place, and inputs stay as they are
            reduced = one.clone()
            self._reduce(reduced, rank, op)
            if rank == self._peers.rank:
                kept = reduced
        result.copy_(kept)

    def send(self, tensor: Any, rank: int) -> None:
        found = _torch_tensor(tensor)
        self._peers.send(rank, _describe(found))
        self._wait_for_pair(lambda: self._group.send([found], rank, 0))

    def recv(self, tensor: Any, rank: int) -> None:
        found = _torch_tensor(tensor, is_written=True)
        self._peers.receive(rank, _describe(found), lambda _: None)
        self._wait_for_pair(lambda: self._group.recv([found], rank, 0))

    def barrier(self) -> None:
        self._peers.exchange("barrier")

    def close(self) -> None:
        # Where an operation hangs, Gloo's own end waits for that operation's time-out: nobody else should.
        group, self._group = self._group, None
        if group is not None:
            threading.Thread(target=_drop, args=([group],), name="umbel-gloo-close", daemon=True).start()

    def _allreduce(self, tensor: Any, op: str) -> None:
        options = self._distributed.AllreduceOptions()
        options.reduceOp = self._ops[op]
        self._wait(lambda: self._group.allreduce([tensor], options))

    def _reduce(self, tensor: Any, root: int, op: str) -> None:
        options = self._distributed.ReduceOptions()
        options.reduceOp = self._ops[op]
        options.rootRank = root
        self._wait(lambda: self._group.reduce([tensor], options))

    def _wait(self, start: Callable[[], Any]) -> None:
        """Until Gloo is done, or a rank has died."""
        try:
            work = start()
            while not work.is_completed():
                try:
                    work.wait(datetime.timedelta(seconds=LOOK_S))
                except RuntimeError:
                    if work.is_completed():
                        raise
                    self._peers.check()
            work.wait()
        except RuntimeError as error:
            self._fail(error)

    def _wait_for_pair(self, start: Callable[[], Any]) -> None:
        """Of two neighbours, each hears of the other's death at once; and a wait that is cut short would break the group."""
        try:
            start().wait()
        except RuntimeError as error:
            self._fail(error)

    def _fail(self, error: RuntimeError) -> None:
        """Raise the reason that the peers know, or else Gloo's."""
        if isinstance(error, exceptions.UmbelError):
            raise error
        until = threading.Event()
        for _ in range(int(NEWS_S / LOOK_S)):
            self._peers.check()
            until.wait(LOOK_S)
        raise exceptions.CollectiveError(
            f"collective group {self._peers.group_name!r}: Gloo failed on rank {self._peers.rank}: {error}",
            group_name=self._peers.group_name,
            rank=self._peers.rank,
        ) from error


def _drop(held: list[Any]) -> None:
    held.clear()


def _torch_tensor(tensor: Any, *, is_written: bool = False) -> Any:
    """Raises TypeError, ValueError."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        return torch.from_numpy(tensors.flat(tensor, is_written=is_written).reshape(tensors.shape_of(tensor)))
    if tensor.device.type != "cpu":
        raise ValueError(f"Gloo takes tensors in main memory, got one on {tensor.device}; pass tensor.cpu()")
    if not tensor.is_contiguous():
        raise ValueError(
            f"a tensor must be contiguous in memory, got one of shape {tuple(tensor.shape)}; pass x.contiguous()"
        )
    return tensor.detach()


def _describe(tensor: Any) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _all_like(found: Sequence[Any], like: Any, *, is_written: bool = False) -> list[Any]:
    alike = [_torch_tensor(one, is_written=is_written) for one in found]
    for index, one in enumerate(alike):
        if _describe(one) != _describe(like):
            raise ValueError(
                f"all tensors must be alike: the one of index {index} in the list is {_describe(one)}, "
                f"the other is {_describe(like)}"
            )
    return alike
