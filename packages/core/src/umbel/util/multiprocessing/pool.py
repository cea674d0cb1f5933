"""`multiprocessing.Pool` whose processes are actors.

It behaves as the standard library's pool does, with these differences: the processes are wherever the cluster has
CPUs; functions need not be importable; `imap` reads its input as its results are taken; a process that dies fails the
calls it ran and is replaced; and after `terminate` results that will never come raise rather than hang.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import umbel
from umbel.util.multiprocessing import child, dispatch
from umbel.util.multiprocessing.results import AsyncResult, Callback, Deliver, ResultIterator

CHUNKS_PER_PROCESS = 4  # of a map: enough to even out, few enough to cost little
WINDOW_PER_PROCESS = 4  # chunks of an imap that are on their way or wait for the reader


def cpu_count() -> int:
    """The CPUs of the cluster, which is how many processes a pool has by default. Starts a session if none runs."""
    if not umbel.is_initialized():
        umbel.init()
    return int(umbel.cluster_resources().get("CPU", 0))


class Pool:
    """A pool of `processes` processes (default: the CPUs of the cluster; more are a ValueError).

    Connects to `umbel_address`, or to the running session, or starts one. `umbel_remote_args` are options of the
    actors, which by default take no CPU. `maxtasksperchild` counts chunks. `context` is ignored: it chooses how the
    standard library starts processes.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: object = None,
        umbel_address: str | None = None,
        umbel_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        _check_count("processes", processes)
        _check_count("maxtasksperchild", maxtasksperchild)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, got {initializer!r}")
        _connect(processes, umbel_address)
        self._process_count = _affordable(processes)
        actor_class = umbel.remote(child.PoolActor).options(**{"num_cpus": 0, **(umbel_remote_args or {})})
        initial = tuple(initargs or ())
        self._dispatcher = dispatch.Dispatcher(
            lambda: actor_class.remote(initializer, initial), self._process_count, maxtasksperchild
        )
        self._dispatcher.start()
        self._is_closed = False
        self._iterators: weakref.WeakSet[ResultIterator] = weakref.WeakSet()
        self._terminate = weakref.finalize(self, self._dispatcher.terminate)
        self._terminate.atexit = False  # when the program ends, the session ends, and the actors with it

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        kwds: Mapping[str, Any] | None = None,
    ) -> Any:
        """`func(*args, **kwargs)` in some process. `kwds` is the standard library's name for `kwargs`."""
        return self.apply_async(func, args, kwargs, kwds=kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        *,
        kwds: Mapping[str, Any] | None = None,
    ) -> AsyncResult:
        """As `apply`, at once. A callback runs on the pool's own thread, before the result is ready."""
        self._check_running()
        result = AsyncResult(1, is_single=True, callback=callback, error_callback=error_callback, keep_alive=self)
        self._submit(func, "call", [(tuple(args or ()), dict(kwargs or kwds or {}))], result.deliverer(0))
        return result

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """`[func(x) for x in iterable]`; raises the error of a failed call after all have ended."""
        return list(self.map_async(func, iterable, chunksize).get())

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        return self._map_async(func, "item", list(iterable), chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """`[func(*x) for x in iterable]`."""
        return list(self.starmap_async(func, iterable, chunksize).get())

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        return self._map_async(func, "star", [tuple(items) for items in iterable], chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1) -> ResultIterator:
        """An iterator over `func(x)` in the order of `iterable`, which is read as results are taken."""
        return self._imap(func, iterable, chunksize, is_ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> ResultIterator:
        """As `imap`, in the order in which chunks end."""
        return self._imap(func, iterable, chunksize, is_ordered=False)

    def close(self) -> None:
        """Take no more calls; the processes end when those that were made have ended.

        The input of an `imap` that is still being read is read to its end now.
        """
        if not self._is_closed:
            self._is_closed = True
            for iterator in list(self._iterators):
                iterator.submit_rest()
            self._dispatcher.close()

    def terminate(self) -> None:
        """End the processes now. Calls that have not ended fail."""
        self._is_closed = True
        self._terminate()
        self._dispatcher.join()

    def join(self) -> None:
        """Wait until the processes have ended. Raises ValueError before `close` or `terminate`."""
        if not self._is_closed:
            raise ValueError("the pool is still running; call close() or terminate() before join()")
        self._dispatcher.join()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.terminate()

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("a pool cannot be pickled or passed to another process; make one there")

    def _map_async(
        self,
        func: Callable[..., Any],
        mode: child.Mode,
        items: list[Any],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        self._check_running()
        _check_count("chunksize", chunksize)
        size = chunksize or max(1, -(-len(items) // (self._process_count * CHUNKS_PER_PROCESS)))
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        result = AsyncResult(
            len(chunks), is_single=False, callback=callback, error_callback=error_callback, keep_alive=self
        )
        shared = umbel.put(func) if len(chunks) > 1 else func
        for index, chunk in enumerate(chunks):
            self._submit(shared, mode, chunk, result.deliverer(index))
        return result

    def _imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None, *, is_ordered: bool
    ) -> ResultIterator:
        self._check_running()
        _check_count("chunksize", chunksize)
        shared = umbel.put(func)

        def submit(items: list[Any], deliver: Deliver) -> None:
            self._submit(shared, "item", items, deliver)  # holds the pool, which must outlive the reading of results

        iterator = ResultIterator(
            _in_chunks(iterable, chunksize or 1),
            submit,
            window=self._process_count * WINDOW_PER_PROCESS,
            is_ordered=is_ordered,
        )
        self._iterators.add(iterator)
        return iterator

    def _submit(self, func: Any, mode: child.Mode, items: Sequence[Any], deliver: Deliver) -> None:
        self._dispatcher.submit(dispatch.Chunk(func, mode, items, deliver))

    def _check_running(self) -> None:
        if self._is_closed:
            raise ValueError("the pool is not running: it was closed or terminated; make a new Pool")


def _in_chunks(iterable: Iterable[Any], size: int) -> Iterator[list[Any]]:
    items = iter(iterable)
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _check_count(name: str, value: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def _connect(processes: int | None, address: str | None) -> None:
    if umbel.is_initialized():
        return
    if address is not None:
        umbel.init(address=address)
    elif os.environ.get("UMBEL_ADDRESS") or processes is None:
        umbel.init()
    else:
        umbel.init(num_cpus=processes)


def _affordable(processes: int | None) -> int:
    available = cpu_count()
    if processes is not None and processes > available:
        raise ValueError(
            f"processes must be at most the cluster's {available} CPUs, got {processes}; start it with more "
            "(umbel.init(num_cpus=...)), which may exceed the machine's"
        )
    if processes is None and available < 1:
        raise ValueError("the cluster has no CPUs; say how many processes the pool shall have")
    return processes or available
