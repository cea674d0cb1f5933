"""Remote functions: what `@umbel.remote` makes of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from umbel._client import current, signatures
from umbel._model import options as option_model

P = ParamSpec("P")
R = TypeVar("R")


class TaskTemplate:
    """What all calls of one function with one set of options share; engines hang their own cache on it.

    `engine_state` belongs to the engine whose `session` it carries and is dropped when another session calls.
    """

    __slots__ = ("engine_state", "function", "is_generator", "name", "options", "signature")

    def __init__(
        self, function: Callable[..., Any], signature: signatures.Signature, options: option_model.TaskOptions
    ) -> None:
        self.function = function
        self.signature = signature
        self.options = options
        self.name = options.name or _display_name(function)
        self.is_generator = inspect.isgeneratorfunction(function)
        self.engine_state: Any = None


def _display_name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


class RemoteFunction(Generic[P, R]):
    """A function whose `.remote(...)` runs it as a task and returns a reference to its result at once."""

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError(
                f"a remote function must be a plain or generator function, got 'async def {_display_name(function)}'; "
                "wrap it: run asyncio.run(...) inside a plain function, or make it a method of an actor"
            )
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        self._signature = signatures.Signature(function, _display_name(function))
        self._template = TaskTemplate(function, self._signature, option_model.task_options(options, {}))
        _check_streaming(self._template)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        name = self._template.name
        raise TypeError(
            f"remote function {name} cannot be called directly; use {name}.remote(...), or {name}._function(...) "
            "to run it here"
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit one call. Returns an ObjectRef; a list of them for num_returns > 1; None for 0; a generator of them
        for a generator function. Raises TypeError when the arguments do not fit the function."""
        template = self._template
        template.signature.check(args, kwargs)
        return current.engine().submit_task(template, args, kwargs)

    def options(self, **overrides: Any) -> BoundOptions:
        """The same function with some options changed; the original stays as it is."""
        template = TaskTemplate(
            self._function, self._signature, option_model.task_options(self._options, overrides)
        )
        _check_streaming(template)
        return BoundOptions(template)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)


class BoundOptions:
    """A remote function with its options fixed by `.options(...)`."""

    def __init__(self, template: TaskTemplate) -> None:
        self._template = template

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """As `RemoteFunction.remote`."""
        template = self._template
        template.signature.check(args, kwargs)
        return current.engine().submit_task(template, args, kwargs)


def _check_streaming(template: TaskTemplate) -> None:
    wanted = template.options.num_returns
    if wanted in ("streaming", "dynamic") and not template.is_generator:
        raise ValueError(
            f"num_returns={wanted!r} needs a generator function, got {template.name}, which has no 'yield'; "
            "use a number, or yield the values"
        )
