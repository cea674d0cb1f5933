"""What runs in a pool's processes.

A function from the program's `__main__` travels by value, so each arrival has a namespace of its own. A pool's
programs expect otherwise: what the initializer, or an earlier call, has put into a global variable is there for the
next call. So changes to the globals of such functions are kept here and laid over the namespaces of those that come
later.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from umbel import cloudpickle, exceptions

Mode: TypeAlias = Literal["item", "star", "call"]  # func(x), func(*x), func(*x[0], **x[1])
UNWRAPPED_MAX = 16  # partials and bound methods around one function; more is a cycle


class RemoteTraceback(Exception):
    """The cause of an error that was raised in a pool's process: where it was raised there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


@dataclass(frozen=True)
class Failure:
    """An error, with its traceback as text, which does not travel with the error itself."""

    error: BaseException
    remote_traceback: str | None = None

    def exception(self) -> BaseException:
        if self.remote_traceback is not None:
            self.error.__cause__ = RemoteTraceback(self.remote_traceback)
        return self.error


@dataclass(frozen=True)
class Outcomes:
    """What the calls of a chunk gave. Where one failed, its value is None and `failures` has it by its index."""

    values: list[Any]
    failures: dict[int, Failure]

    @classmethod
    def all_failed(cls, count: int, error: BaseException) -> Outcomes:
        return cls([None] * count, dict.fromkeys(range(count), Failure(error)))


class PoolActor:
    """One process of a pool."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: Iterable[Any]) -> None:
        self._globals = KeptGlobals()
        if initializer is not None:
            with self._globals.of(initializer):
                initializer(*initargs)

    def ping(self) -> None:
        """Returns once the initializer has run; raises what it raised."""

    def run(self, func: Callable[..., Any], mode: Mode, items: Sequence[Any]) -> Outcomes:
        call = _caller(func, mode)
        values: list[Any] = []
        failures: dict[int, Failure] = {}
        with self._globals.of(func):
            for item in items:
                try:
                    values.append(call(item))
                except Exception as error:  # it belongs to the caller
                    failures[len(values)] = _failure(error)
                    values.append(None)
        return Outcomes(values, failures)


def _caller(func: Callable[..., Any], mode: Mode) -> Callable[[Any], Any]:
    if mode == "item":
        return func
    if mode == "star":
        return lambda args: func(*args)
    return lambda call: func(*call[0], **call[1])


def _failure(error: Exception) -> Failure:
    below = error.__traceback__
    while below is not None and below.tb_frame.f_code.co_filename == __file__:
        below = below.tb_next
    return Failure(_portable(error), "".join(traceback.format_exception(type(error), error, below)))


def _portable(error: Exception) -> Exception:
    """`error`, or what can be told of it when it does not survive the journey."""
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception as reason:  # a user's class may raise anything here
        return exceptions.UnserializableException(
            f"the call raised {type(error).__qualname__}: {error}, which cannot be pickled and read back ({reason!r}); "
            "give the exception class arguments that pickle, or a __reduce__"
        )
    return error


class KeptGlobals:
    """Global variables that functions which came by value have changed in this process, by the name of their module."""

    def __init__(self) -> None:
        self._changed: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def of(self, func: Callable[..., Any]) -> Iterator[None]:
        """While `func` runs, its globals are as earlier functions of its module left them; its changes are kept."""
        found = _namespace(func)
        if found is None:
            yield
            return
        module, namespace = found
        changed = self._changed.setdefault(module, {})
        namespace.update(changed)
        before = dict(namespace)
        try:
            yield
        finally:
            for name, value in namespace.items():
                if name not in before or before[name] is not value:
                    changed[name] = value


def _namespace(func: Any) -> tuple[str, dict[str, Any]] | None:
    """The module's name and the globals of the Python function behind `func`, if it came by value."""
    for _ in range(UNWRAPPED_MAX):
        if isinstance(func, functools.partial):
            func = func.func
        elif isinstance(func, types.MethodType):
            func = func.__func__
        else:
            break
    if not isinstance(func, types.FunctionType):
        return None
    module = sys.modules.get(func.__module__)
    if module is not None and vars(module) is func.__globals__:
        return None  # it was imported: the module itself keeps its variables
    return func.__module__, func.__globals__
