"""Pairs of processes that Gloo connects: a holder and a taker of tensors, in a process group of their own.

A pair is used by one transfer at a time, so none waits for another, whoever takes from whom; what nobody uses is kept for
the next transfer between the same two. It is made over the line by which the tensors were asked for. Nobody waits in Gloo,
which does not notice that a process dies before it is connected: the holder looks for the connection once the taker has
told that there is one, and each waits for the other's words at the line.
"""

from __future__ import annotations

import functools
import os
import pickle
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from umbel import exceptions, spi
from umbel._client.tensors import lines, process_groups

ASKER = 'tensor_transport="gloo"'
HOLDER, TAKER = 0, 1  # the ranks
HOSTS = {HOLDER: "127.0.0.1", TAKER: "127.0.0.2"}  # of two addresses Gloo lets the larger one connect
KEPT_MAX = 128  # each has an open file, of which a process may have 1,024 as a rule
ID_BYTES = 8
CONNECTING_FACTOR = 5  # Gloo waits so many times its time-out for a connection
_MAKE, _USE = b"make", b"use"  # what a holder says to a pair that a taker names


class Pair(NamedTuple):
    """This process's end. pair_id: the same at both. peer: the other end's process; empty where it is the taker."""

    pair_id: bytes
    peer: bytes
    group: Any


class Kept:
    """Pairs that nobody uses now; of too many, the one that was not used for longest goes. Any thread."""

    def __init__(self, count_max: int = KEPT_MAX) -> None:
        self._count_max = count_max
        self._pairs: OrderedDict[bytes, Pair] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, pair: Pair) -> None:
        dropped = None  # after the lock: Gloo takes up to 10 ms to end one
        with self._lock:
            self._pairs[pair.pair_id] = pair
            if len(self._pairs) > self._count_max:
                dropped = self._pairs.popitem(last=False)
        del dropped

    def pop(self, pair_id: bytes) -> Pair | None:
        with self._lock:
            return self._pairs.pop(pair_id, None)

    def pop_newest(self, peer: bytes) -> Pair | None:
        """The one with this process that was used last."""
        with self._lock:
            found = next((pair for pair in reversed(self._pairs.values()) if pair.peer == peer), None)
            return None if found is None else self._pairs.pop(found.pair_id)


class Pairs:
    """All pairs of this process. Any thread.

    Both ways to get one raise ConnectionError when the other process has gone, TimeoutError, RuntimeError when Gloo fails.
    """

    def __init__(self) -> None:
        self._begin()
        _all_pairs.add(self)

    def _begin(self) -> None:
        self.own_id = secrets.token_bytes(ID_BYTES)
        self._kept = Kept()
        self._devices: dict[int, Any] = {}  # by rank
        self._lock = threading.Lock()

    def with_holder(self, line: spi.TensorLine, holder: bytes) -> Pair:
        """holder: its `own_id`. It calls `with_taker`."""
        pair = self._kept.pop_newest(holder) or Pair(secrets.token_bytes(ID_BYTES), holder, None)
        line.send(pair.pair_id)
        answer, _ = line.receive()
        return pair if answer == _USE else pair._replace(group=self._connected(line, TAKER))

    def with_taker(self, line: spi.TensorLine) -> Pair:
        """It calls `with_holder`."""
        pair_id, _ = line.receive()
        pair = self._kept.pop(pair_id)
        line.send(_MAKE if pair is None else _USE)
        return pair or Pair(pair_id, b"", self._connected(line, HOLDER))

    def keep(self, pair: Pair) -> None:
        """For the next transfer: all that this end has sent or received by it is complete."""
        self._kept.add(pair)

    def forked(self) -> None:
        """This is a copy in a forked child, which is another process: it begins anew."""
        self._begin()

    def _connected(self, line: spi.TensorLine, rank: int) -> Any:
        """A process group of the two."""
        distributed = process_groups.library(ASKER)
        addresses = Addresses(line, is_sent_at_once=rank == HOLDER)
        try:
            group = process_groups.group(
                distributed, _store_type()(addresses), rank=rank, size=2, threads=0,
                timeout_s=lines.TIMEOUT_S / CONNECTING_FACTOR, device=self._device(distributed, rank),
            )  # fmt: skip
        except RuntimeError:
            if addresses.error is not None:
                raise addresses.error from None
            raise
        addresses.send_rest()
        return group

    def _device(self, distributed: Any, rank: int) -> Any:
        with self._lock:
            if rank not in self._devices:
                self._devices[rank] = process_groups.device(distributed, HOSTS[rank])
            return self._devices[rank]


class Addresses:
    """What Gloo stores at one end is found at the other: it goes along the line, at once or when connected."""

    def __init__(self, line: spi.TensorLine, *, is_sent_at_once: bool) -> None:
        self.error: BaseException | None = None
        self._line = line
        self._is_sent_at_once = is_sent_at_once
        self._known: dict[str, bytes] = {}
        self._unsent: list[tuple[str, bytes]] = []

    def set(self, key: str, value: bytes) -> None:
        self._known[key] = value
        self._unsent.append((key, value))
        if self._is_sent_at_once:
            self.send_rest()

    def get(self, key: str) -> bytes:
        """Waits for it. Raises UmbelDirectTransportError when the other end has given up."""
        while key not in self._known:
            found, value = pickle.loads(self._line.receive()[0])
            if found is None:
                raise exceptions.UmbelDirectTransportError(
                    f"Gloo failed in the process that takes the tensors: {value}; take them again"
                )
            self._known[found] = value
        return self._known[key]

    def send_rest(self) -> None:
        for entry in self._unsent:
            self._line.send(pickle.dumps(entry))
        self._unsent.clear()

    def attempt(self, call: Callable[[], Any]) -> Any:
        """What it raises is kept in `error`: Gloo raises something of its own for it."""
        try:
            return call()
        except BaseException as error:
            self.error = error
            raise


def give_up(line: spi.TensorLine, error: RuntimeError) -> None:
    """Gloo has failed here, at the taker: what the holder, which fails too, says of it is raised; it may be dead."""
    line.send(pickle.dumps((None, str(error))))
    while True:
        line.receive()


@functools.cache
def _store_type() -> Callable[[Addresses], Any]:
    """PyTorch's idea of `Addresses`."""
    import torch.distributed

    class LineStore(torch.distributed.Store):  # type: ignore[misc]  # its types are not looked at
        def __init__(self, addresses: Addresses) -> None:
            super().__init__()
            self._addresses = addresses

        def set(self, key: str, value: bytes) -> None:
            self._addresses.attempt(lambda: self._addresses.set(key, value))

        def get(self, key: str) -> bytes:
            found: bytes = self._addresses.attempt(lambda: self._addresses.get(key))
            return found

        def wait(self, keys: list[str], timeout: object = None) -> None:
            for key in keys:
                self.get(key)

    return LineStore


_all_pairs: weakref.WeakSet[Pairs] = weakref.WeakSet()


def _after_fork() -> None:
    for pairs in list(_all_pairs):
        pairs.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
