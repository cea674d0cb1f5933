"""Calling a function of the user's for one input after the other, whatever kind of function it is."""

from __future__ import annotations

import collections
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_END: Final = object()

Outcome = Callable[[], Any]
"""Gives what the call gave, or raises what it raised. It is to be asked, and an iterator that it gives be drawn, before the next
outcome is."""


@dataclass(frozen=True, eq=False)
class Function:
    """What a user gave, with its arguments. A class is made once where it runs, with those of its constructor."""

    call: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    constructor_args: tuple[Any, ...] = ()
    constructor_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_class(self) -> bool:
        """It is made once, and what is made is called with the rows; other types, such as `dict`, are called themselves."""
        return isinstance(self.call, type) and any("__call__" in vars(one) for one in self.call.__mro__)

    @property
    def name(self) -> str:
        """As it is written in plans and errors."""
        inner = getattr(self.call, "func", self.call)  # of functools.partial
        found: str = getattr(inner, "__name__", None) or type(inner).__name__
        return found


def outcomes(call: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Outcome]:
    """Of each call, in order. What generators give is an iterator; what is asynchronous is waited for."""
    every = iter(inputs)
    for value in every:
        try:
            result = call(value)
        except Exception as error:
            yield raises(error)
            continue
        if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
            # Not before, as asyncio is 20 ms of each process that has no other use for it.
            from umbel.data._plan import awaiting

            yield from awaiting.outcomes(call, result, every)
            return
        yield lambda result=result: result  # type: ignore[misc]


def one_at_a_time(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same for several threads, of which one is in it at a time, also in what a generator does. What is asynchronous is as
    it was: its calls are meant to be under way together."""
    lock = threading.Lock()

    def alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            result = call(*args, **kwargs)
        return _drawn_alone(result, lock) if isinstance(result, Iterator) else result

    return alone


def _drawn_alone(source: Iterator[Any], lock: threading.Lock) -> Iterator[Any]:
    while True:
        with lock:
            one = next(source, _END)
        if one is _END:
            return
        yield one


def row_count(batch: Any) -> int:
    """Of a batch of any form."""
    if type(batch) is dict or isinstance(batch, collections.abc.Mapping):  # which takes longer to say
        return len(next(iter(batch.values()), ()))
    count: int = batch.num_rows if hasattr(batch, "num_rows") else len(batch)
    return count


def raises(error: Exception) -> Outcome:
    """Of a call that raised."""

    def outcome() -> Any:
        raise error

    return outcome
