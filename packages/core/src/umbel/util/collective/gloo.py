"""The backend that leaves tensors to Gloo, as PyTorch has it. PyTorch is imported when a group by this backend is made.

The ranks agree on each operation before Gloo is asked: by itself it does not notice that they mean different things. And
while it works, they watch each other: it notices the death of a neighbour, the others would wait for their time-out. Who
finds the group broken makes Gloo end what it is at, so that no thread of it stays, and it writes no more into a tensor. Where a
tensor is half sent Gloo goes on waiting all the same, until its time-out, and nobody waits for that.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

from umbel import exceptions, spi
from umbel._client.tensors import process_groups, torch_tensors
from umbel.util import node_address
from umbel.util.collective import tensors

LOOK_S = 0.1  # between two looks at the other ranks while Gloo works
NEWS_S = 0.5  # Gloo hears of a death by a socket of its own, perhaps before the peers do
ENDING_S = 0.3  # for Gloo to end what it is at, once its connections are closed; it takes some 10 ms
ASKER = 'the backend "gloo"'
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"  # PyTorch's own
_LOOK: Final = datetime.timedelta(seconds=LOOK_S)
_SHORT: Final = datetime.timedelta(milliseconds=1)
_PAIR_TAG, _NOBODYS_TAG = 0, 1  # of what `send` sends; of nothing


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
        self._others = [rank for rank in range(peers.world_size) if rank != peers.rank]
        self._group: Any = None
        self._is_stuck = False  # Gloo waits for what will not come
        self._connect()
        _open_groups.add(self)

    def _connect(self) -> None:
        """Gloo waits for connections where it sees neither a death nor an interrupt, so it does in a thread of its own. For
        a rank that is lost in that moment this thread goes on waiting, until Gloo gives up: for five time-outs."""
        peers = self._peers
        addresses = _Addresses(peers.timeout_s)
        due_s = time.monotonic() + peers.timeout_s
        try:
            making = _InThread(lambda: self._made(addresses))
            while not addresses.is_own_known():
                peers.check()
                making.result()  # it may have failed already
            own = dict.fromkeys(self._others, addresses.own)
            addresses.give(peers.exchange("gloo", own).values())
            while not making.is_over():
                peers.check()
                if time.monotonic() >= due_s:
                    peers.timed_out(self._others)
            self._group = making.result()
        except RuntimeError as error:
            self._fail(error, self._others, due_s)
        finally:
            addresses.close()
        peers.exchange("gloo is connected")

    def _made(self, addresses: _Addresses) -> Any:
        return process_groups.group(
            self._distributed, _store_type()(addresses), rank=self._peers.rank, size=self._peers.world_size,
            timeout_s=self._peers.timeout_s, device=self._device(),
        )  # fmt: skip

    def _device(self) -> Any:
        """On several machines the others reach this one by its node's address, unless the program knows better."""
        if self._peers.is_one_machine:
            return process_groups.device(self._distributed, node_address.LOOPBACK)
        interface = os.environ.get(INTERFACE_VARIABLE, "")
        if interface:
            return process_groups.device(self._distributed, interface=interface)
        return process_groups.device(self._distributed, node_address.get_node_ip_address())

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
        if self._is_small(found):
            self._peers.send(rank, _describe(found), bytes(_memory(found)))
            return
        self._peers.send(rank, _describe(found))
        self._wait_for_pair(rank, lambda: self._group.send([found], rank, _PAIR_TAG))

    def recv(self, tensor: Any, rank: int) -> None:
        found = _torch_tensor(tensor, is_written=True)
        if self._is_small(found):
            memory = _memory(found)
            self._peers.receive(rank, _describe(found), lambda body: memory.__setitem__(slice(None), body))
            return
        self._peers.receive(rank, _describe(found), lambda _: None)
        self._wait_for_pair(rank, lambda: self._group.recv([found], rank, _PAIR_TAG))

    def _is_small(self, tensor: Any) -> bool:
        """Whether it travels with the words of `send`, which then is all: a thread for Gloo costs more."""
        is_small: bool = tensor.nbytes <= self._peers.body_bytes_max
        return is_small

    def barrier(self) -> None:
        self._peers.exchange("barrier")

    def close(self) -> None:
        held = [self._group]
        self._group = None
        if self._is_stuck:
            process_groups.abandon(held)

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
        due_s = time.monotonic() + self._peers.timeout_s
        try:
            work = start()
            self._watch(lambda: _is_over(work))
            work.wait()
        except RuntimeError as error:
            self._fail(error, self._others, due_s)
        finally:
            work = None  # it holds Gloo's connections, and an error may hold this frame

    def _wait_for_pair(self, rank: int, start: Callable[[], Any]) -> None:
        """In a thread: Gloo does not tell whether this is over but to who waits for it, and a short wait breaks the group."""
        due_s = time.monotonic() + self._peers.timeout_s
        try:
            working = _InThread(lambda: start().wait())
            self._watch(working.is_over)
            working.result()
        except RuntimeError as error:
            self._fail(error, [rank], due_s)

    def _watch(self, is_over: Callable[[], bool]) -> None:
        """Look at the other ranks until Gloo has come to an end, good or bad, which it has when this raises too."""
        try:
            while not is_over():
                self._peers.check()
        except BaseException:
            self._end_all()
            until_s = time.monotonic() + ENDING_S
            while not is_over() and not self._is_stuck:
                self._is_stuck = time.monotonic() >= until_s
            raise

    def _end_all(self) -> None:
        """Make all that is under way fail: when a wait is cut short, Gloo closes the connections to all ranks."""
        import torch

        for rank in self._others:
            with contextlib.suppress(RuntimeError):
                self._group.recv([torch.empty(1)], rank, _NOBODYS_TAG).wait(_SHORT)

    def _fail(self, error: RuntimeError, awaited: Sequence[int], due_s: float) -> NoReturn:
        """Raise the reason that the peers know, or that time is up, or else Gloo's."""
        is_late = time.monotonic() >= due_s - _SHORT.total_seconds()  # Gloo counts whole milliseconds
        if self._group is not None:
            self._end_all()
        for _ in range(int(NEWS_S / LOOK_S)):
            self._peers.check()
            if is_late:
                self._peers.timed_out(awaited)
            time.sleep(LOOK_S)
        raise exceptions.CollectiveError(
            f"collective group {self._peers.group_name!r}: Gloo failed on rank {self._peers.rank}: {error}",
            group_name=self._peers.group_name,
            rank=self._peers.rank,
        ) from error


class _Event:
    """As `threading.Event`, for one thread that waits. That one's lock stays taken when an interrupt comes in a certain
    moment of a wait, and then whoever asks it again, or sets it, waits for ever."""

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            self._lock.release()

    def wait(self, timeout_s: float) -> bool:
        if not self._is_set:
            self._lock.acquire(timeout=timeout_s)
        return self._is_set


class _InThread:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._over = _Event()
        self._result: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=[call], name="umbel-gloo", daemon=True).start()

    def is_over(self) -> bool:
        """Waits a moment for it."""
        return self._over.wait(LOOK_S)

    def result(self) -> Any:
        """None before it is over. Raises what it has raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except BaseException as error:
            self._error = error.with_traceback(None)  # its frames hold what Gloo has
        finally:
            self._over.set()


class _Addresses:
    """Where Gloo finds the ranks: it says where this one is, and asks for the others. `own`: this rank's, once known."""

    def __init__(self, timeout_s: float) -> None:
        self.own = b""
        self._timeout_s = timeout_s
        self._known: dict[bytes, bytes] = {}
        self._is_own_known = _Event()
        self._are_others_known = threading.Event()

    def is_own_known(self) -> bool:
        """Waits a moment for it."""
        return self._is_own_known.wait(LOOK_S)

    def give(self, others: Iterable[bytes]) -> None:
        self._known.update(_entry(other) for other in others)
        self._are_others_known.set()

    def close(self) -> None:
        """Gloo goes on waiting for nobody's."""
        self._are_others_known.set()

    # What Gloo calls

    def set(self, key: str, value: bytes) -> None:
        self.own = key.encode() + _SEPARATOR + value
        self._known.update([_entry(self.own)])
        self._is_own_known.set()

    def get(self, key: str) -> bytes:
        if key.encode() not in self._known:
            self._are_others_known.wait(2 * self._timeout_s)  # after one, the group has failed
        return self._known[key.encode()]


_SEPARATOR = b"\0"


def _entry(address: bytes) -> tuple[bytes, bytes]:
    key, _, value = address.partition(_SEPARATOR)
    return key, value


@functools.cache
def _store_type() -> Callable[[_Addresses], Any]:
    """PyTorch's idea of `_Addresses`."""
    import torch.distributed

    class AddressStore(torch.distributed.Store):  # type: ignore[misc]  # its types are not looked at
        def __init__(self, addresses: _Addresses) -> None:
            super().__init__()
            self._addresses = addresses

        def set(self, key: str, value: bytes) -> None:
            self._addresses.set(key, bytes(value))

        def get(self, key: str) -> bytes:
            return self._addresses.get(key)

        def wait(self, keys: list[str], timeout: object = None) -> None:
            for key in keys:
                self._addresses.get(key)

    return AddressStore


def _is_over(work: Any) -> bool:
    """Waits a moment for it."""
    with contextlib.suppress(RuntimeError):  # not over yet, or over and failed
        work.wait(_LOOK)
    is_over: bool = work.is_completed()
    return is_over


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


_open_groups: weakref.WeakSet[GlooGroup] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Gloo's threads may be about to let go of a tensor, which ends the process with an error once Python has ended."""
    for group in list(_open_groups):
        group.close()


def _memory(tensor: Any) -> memoryview:
    return torch_tensors.memory(tensor) if tensor.nbytes else memoryview(bytearray())


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
