"""Results in the order in which they become ready, and waiting for what comes by callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

import umbel
from umbel._client import current

if TYPE_CHECKING:
    from umbel import ObjectRef
    from umbel._client.remote_function import BoundOptions, RemoteFunction

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_SIZE = 10  # fetching a few results at once costs less than one by one, and holds few of them in memory
BACKPRESSURE_SIZE = 100  # enough to keep a machine busy, few enough to hold their arguments in memory


@overload
def as_completed(
    refs: Sequence[ObjectRef[T]],
    *,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: Literal[False] = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[T]: ...
@overload
def as_completed(
    refs: Sequence[ObjectRef[T]],
    *,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: Literal[True],
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[ObjectRef[T]]: ...
@overload
def as_completed(
    refs: Sequence[ObjectRef[Any]],
    *,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]: ...
def as_completed(
    refs: Sequence[ObjectRef[Any]],
    *,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """The values of `refs` (or the references themselves), each as soon as it is there.

    At most `chunk_size` values are fetched ahead of the reader. A failed task raises at its turn, and ends the
    iteration. `timeout` bounds one inner wait in seconds, not the iteration; `fetch_local` is `umbel.wait`'s.
    References must be unique.
    """
    _check_positive("chunk_size", chunk_size)
    _check_flag("yield_obj_refs", yield_obj_refs)
    found = _checked(refs)
    return _completed(found, chunk_size, yield_obj_refs, timeout, fetch_local)


@overload
def map_unordered(
    fn: RemoteFunction[P, T] | BoundOptions[P, T],
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: Literal[False] = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[T]: ...
@overload
def map_unordered(
    fn: RemoteFunction[P, T] | BoundOptions[P, T],
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: Literal[True],
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[ObjectRef[T]]: ...
@overload
def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]: ...
def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """Results of the remote function (or actor method) `fn` over `items`, each as soon as it is there.

    At most `backpressure_size` tasks are unfinished at a time (None: no bound), so `items` may be endless; it is read
    as results are taken. The rest is as in `as_completed`.
    """
    _check_positive("chunk_size", chunk_size)
    _check_flag("yield_obj_refs", yield_obj_refs)
    if backpressure_size is not None:
        _check_positive("backpressure_size", backpressure_size)
    if not hasattr(fn, "remote"):
        raise TypeError(
            f"fn must be a remote function or an actor's method, got {fn!r}; decorate it with @umbel.remote"
        )
    return _mapped(fn, items, backpressure_size, chunk_size, yield_obj_refs, timeout, fetch_local)


def wait_beside(wait: Callable[[float | None], bool], timeout: float | None = None) -> None:
    """Wait by means of `wait`, which is called with a number of seconds (None: for ever) and returns whether that is over: of
    a queue, say, into which callbacks of generators or futures put what has come.

    As in `umbel.get`, a task gives its CPU back meanwhile, so that what it waits for can run. Returns when `wait` says so,
    or after `timeout` seconds.
    """
    current.engine().wait_beside(None, wait, timeout)


def _mapped(
    fn: Any,
    items: Iterable[Any],
    backpressure_size: int | None,
    chunk_size: int,
    yield_obj_refs: bool,
    timeout: float | None,
    fetch_local: bool,
) -> Iterator[Any]:
    unfinished: list[ObjectRef[Any]] = []
    for item in items:
        unfinished.append(fn.remote(item))
        while backpressure_size is not None and len(unfinished) >= backpressure_size:
            ready, unfinished = _wait(unfinished, chunk_size, timeout, fetch_local)
            yield from _yielded(ready, yield_obj_refs)
    yield from _completed(unfinished, chunk_size, yield_obj_refs, timeout, fetch_local)


def _completed(
    unfinished: list[ObjectRef[Any]], chunk_size: int, yield_obj_refs: bool, timeout: float | None, fetch_local: bool
) -> Iterator[Any]:
    while unfinished:
        ready, unfinished = _wait(unfinished, chunk_size, timeout, fetch_local)
        yield from _yielded(ready, yield_obj_refs)


def _wait(
    refs: list[ObjectRef[Any]], chunk_size: int, timeout: float | None, fetch_local: bool
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    """Wait for one, then take what else is ready, up to `chunk_size`: a full chunk would delay the first."""
    ready, rest = umbel.wait(refs, num_returns=1, timeout=timeout, fetch_local=fetch_local)
    if ready and rest and chunk_size > 1:
        more, rest = umbel.wait(rest, num_returns=min(chunk_size - 1, len(rest)), timeout=0, fetch_local=fetch_local)
        ready = ready + more
    return ready, rest


def _yielded(ready: list[ObjectRef[Any]], yield_obj_refs: bool) -> list[Any]:
    return list(ready) if yield_obj_refs else list(umbel.get(ready))


def _checked(refs: Any) -> list[ObjectRef[Any]]:
    if isinstance(refs, umbel.ObjectRef) or not isinstance(refs, Iterable):
        raise TypeError(f"as_completed() takes a list of ObjectRefs, got {refs!r}; write [ref] for one")
    found = list(refs)
    for position, ref in enumerate(found):
        if not isinstance(ref, umbel.ObjectRef):
            raise TypeError(f"as_completed() takes a list of ObjectRefs, got {ref!r} at position {position}")
    if len(set(found)) < len(found):
        raise ValueError("as_completed() takes each reference once, got some repeated; remove the duplicates")
    return found


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}; omit it for the default of False")


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number >= 1, got {value!r}; omit it for the default")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
