"""A fixed set of actors that share a stream of work.

The pool lives in the process that made it and decides there which actor runs what: an actor gets its next submission
when the result of the previous one is taken from the pool. Not thread-safe, and no process of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import umbel
from umbel import exceptions

A = TypeVar("A")
V = TypeVar("V")


@dataclass(frozen=True)
class _Running(Generic[A]):
    """One submission an actor works on. `refs` is what the caller's function returned: a reference or a list of
    them."""

    refs: Any
    actor: A

    @property
    def all_refs(self) -> list[Any]:
        return self.refs if isinstance(self.refs, list) else [self.refs]


class ActorPool(Generic[A]):
    """Spreads calls over `actors`, each of which runs one submission at a time.

    `fn(actor, value)` makes the call and returns its reference (or a list of references). An actor that is found dead
    leaves the pool; what waited for it runs on the others, or on one that is pushed later, and fails with the death
    when there is none.
    """

    def __init__(self, actors: Iterable[A]) -> None:
        if isinstance(actors, umbel.ActorHandle) or not isinstance(actors, Iterable):
            raise TypeError(f"ActorPool takes a list of actor handles, got {actors!r}; write [actor] for one")
        self._idle: deque[A] = deque(actors)
        self._waiting: deque[tuple[Callable[[A, Any], object], Any]] = deque()
        self._running: dict[int, _Running[A]] = {}  # by submission number, oldest first
        self._submitted_count = 0
        self._next_in_order = 0
        self._last_death: exceptions.ActorDiedError | None = None

    def map(self, fn: Callable[[A, V], object], values: Iterable[V]) -> Iterator[Any]:
        """Results of `fn` over `values`, in the order of `values`.

        Everything is submitted at once, before the first result is asked for. Results of earlier submissions which
        nobody took are dropped.
        """
        self._submit_all(fn, values)
        return self._drain(self.get_next)

    def map_unordered(self, fn: Callable[[A, V], object], values: Iterable[V]) -> Iterator[Any]:
        """As `map`, with the results in the order in which they are ready."""
        self._submit_all(fn, values)
        return self._drain(self.get_next_unordered)

    def submit(self, fn: Callable[[A, V], object], value: V) -> None:
        """Run `fn(actor, value)` on an idle actor, or on the first that becomes idle."""
        if self._idle:
            self._start(fn, value)
        else:
            self._waiting.append((fn, value))

    def has_next(self) -> bool:
        """Whether there is a result to wait for."""
        return bool(self._running) or self._is_stranded()

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission; raises what the call raised.

        Raises StopIteration when nothing is submitted, TimeoutError after `timeout` seconds (with
        `ignore_if_timedout` the submission is given up as well), ValueError when `get_next_unordered` has taken a
        later one.
        """
        if not self._running:
            self._raise_for_none()
        if self._next_in_order >= self._submitted_count:
            raise ValueError(
                "get_next cannot follow get_next_unordered while earlier results are outstanding; "
                "take those with get_next_unordered too"
            )
        number = self._next_in_order
        if timeout is not None:
            refs = self._running[number].all_refs
            ready, _ = umbel.wait(refs, num_returns=len(refs), timeout=timeout)
            if len(ready) < len(refs):
                self._raise_timeout(number, timeout, is_given_up=ignore_if_timedout)
        return self._take(number)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Any result that is ready, waiting for the first; otherwise as `get_next`.

        What is given up on time-out is the oldest submission.
        """
        if not self._running:
            self._raise_for_none()
        numbers = {running.all_refs[0]: number for number, running in self._running.items()}
        ready, _ = umbel.wait(list(numbers), num_returns=1, timeout=timeout)
        if not ready:
            self._raise_timeout(next(iter(self._running)), timeout, is_given_up=ignore_if_timedout)
        return self._take(numbers[ready[0]])

    def has_free(self) -> bool:
        """Whether a submission would start at once."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> A | None:
        """Take an idle actor out of the pool; None when all are busy."""
        return self._idle.popleft() if self.has_free() else None

    def push(self, actor: A) -> None:
        """Add an actor. Raises ValueError when the pool has it already."""
        if actor in self._idle or any(running.actor == actor for running in self._running.values()):
            raise ValueError(f"{actor!r} already belongs to this ActorPool; push each actor once")
        self._return(actor)

    def _start(self, fn: Callable[[A, Any], object], value: Any) -> None:
        actor = self._idle.popleft()
        try:
            refs = fn(actor, value)
        except BaseException:
            self._idle.appendleft(actor)  # nothing was submitted to it
            raise
        if not isinstance(refs, umbel.ObjectRef) and not (isinstance(refs, list) and refs):
            self._idle.appendleft(actor)
            raise TypeError(
                f"fn must return the reference that actor.method.remote(...) gave, or a list of such, got {refs!r}; "
                "write lambda actor, value: actor.method.remote(value)"
            )
        self._running[self._submitted_count] = _Running(refs, actor)
        self._submitted_count += 1

    def _submit_all(self, fn: Callable[[A, V], object], values: Iterable[V]) -> None:
        while self._running:
            self._settle(next(iter(self._running)))
        for value in values:
            self.submit(fn, value)

    def _drain(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def _raise_timeout(self, number: int, timeout: float | None, *, is_given_up: bool) -> NoReturn:
        given_up = ""
        if is_given_up:
            given_up = f"; {self._running[number].refs!r} was given up, and its actor takes the next submission"
            self._settle(number)
        raise TimeoutError(f"no result within {timeout} s{given_up}")

    def _take(self, number: int) -> Any:
        """A submission's result. Its actor is free again, whatever the result; an interrupted wait changes nothing."""
        try:
            value = umbel.get(self._running[number].refs)
        except exceptions.ActorDiedError as error:
            self._last_death = error
            self._settle(number, actor_died=True)
            raise
        except Exception:
            self._settle(number)
            raise
        self._settle(number)
        return value

    def _settle(self, number: int, *, actor_died: bool = False) -> None:
        running = self._running.pop(number)
        self._next_in_order = max(self._next_in_order, number + 1)
        if not actor_died:
            self._return(running.actor)
        elif self._waiting and self._idle:
            self._start(*self._waiting.popleft())

    def _return(self, actor: A) -> None:
        self._idle.append(actor)
        if self._waiting:
            self._start(*self._waiting.popleft())

    def _is_stranded(self) -> bool:
        """Whether submissions wait though the last actor is dead."""
        return bool(self._waiting) and not self._running and not self._idle and self._last_death is not None

    def _raise_for_none(self) -> NoReturn:
        if self._is_stranded() and self._last_death is not None:
            self._waiting.popleft()  # it fails now, in its turn; one that is pushed before its turn would have run it
            raise self._last_death
        raise StopIteration("no results are outstanding; submit something first")
