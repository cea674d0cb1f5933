"""Remote functions: what `@umbel.remote` makes of a function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from umbel._client import absent, current, signatures
from umbel._model import options as option_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from umbel._client.call_types import BoundSeveral, TaskOptions, submits
    from umbel._client.graphs.nodes import FunctionNode
else:

    def submits(function):
        """For type checkers, `call_types.submits`."""
        return function


P = ParamSpec("P")
R = TypeVar("R")


TEMPLATES_MAX = 128  # sets of options remembered for one function; a program that needs more makes them anew


class Source:
    """A function or class to be sent to workers, and what an engine has made of it for its session."""

    __slots__ = ("exported", "name", "target")

    def __init__(self, target: Any, name: str) -> None:
        self.target = target
        self.name = name
        self.exported: tuple[Any, bytes] | None = None  # (engine, pickle), made at the first call in a session

    def __reduce__(self) -> tuple[Any, ...]:
        return copied(self, exported=None)


class TaskTemplate:
    """What all calls of one function with one set of options share. `engine_state` is the running engine's own."""

    __slots__ = ("engine_state", "function", "is_generator", "name", "options", "signature", "source")

    def __init__(self, source: Source, signature: signatures.Signature, options: option_model.TaskOptions) -> None:
        function: Callable[..., Any] = source.target
        self.source = source
        self.function = function
        self.signature = signature
        self.options = options
        self.name = options.name or _display_name(function)
        self.is_generator = signatures.is_generator(function)
        self.engine_state: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return copied(self, engine_state=None)


def _display_name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def unread(kind: type) -> Any:
    """An instance to be filled by unpickling.

    A function that calls itself holds its RemoteFunction, which is then unpickled in the midst of the function. So what
    has to look at the function, or at an actor's class, is made at the first use: see `__getattr__`.
    """
    made: Any = object.__new__(kind)
    return made


def copied(instance: Any, **cleared: Any) -> tuple[Any, ...]:
    """What `__reduce__` returns for an instance with slots, of which only what is `cleared` stays behind."""
    return unread, (type(instance),), (None, {name: getattr(instance, name) for name in instance.__slots__} | cleared)


def is_unread(instance: Any, target: str) -> bool:
    """Whether an instance has been unpickled, and not used since."""
    return target in instance.__dict__ and "_template" not in instance.__dict__


def with_environment(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the fields of `runtime_env` checked that belong to plugins."""
    env = options.get("runtime_env")
    if not isinstance(env, Mapping) or env.keys() <= {"env_vars"}:
        return options
    from umbel._client import environments

    return {**options, "runtime_env": environments.validated(env)}


class RemoteFunction(Generic[P, R]):
    """A function whose `.remote(...)` runs it as a task and returns a reference to its result at once."""

    __name__: str
    __qualname__: str
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        if signatures.is_async(function):
            raise ValueError(
                f"a remote function must be a plain or generator function, got 'async def {_display_name(function)}'; "
                "wrap it: run asyncio.run(...) inside a plain function, or make it a method of an actor"
            )
        options = with_environment(options)
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # not callable, so that mypy finds calls
        self._function = function
        self._options = options
        self._signature = signatures.Signature(function, _display_name(function))
        self._source = Source(function, _display_name(function))
        self._template = TaskTemplate(self._source, self._signature, option_model.task_options(options, {}))
        self._templates: dict[option_model.TaskOptions, TaskTemplate] = {}
        _check_streaming(self._template)

    if not TYPE_CHECKING:  # a type checker shall find the mistake

        def __call__(self, *args, **kwargs):
            name = self._template.name
            raise TypeError(
                f"remote function {name} cannot be called directly; use {name}.remote(...), or {name}._function(...) "
                "to run it here"
            )

    @submits
    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit one call. Returns an ObjectRef; a list of them for num_returns > 1; None for 0; a generator of them
        for a generator function. Raises TypeError when the arguments do not fit the function."""
        template = self._template
        template.signature.check(args, kwargs)
        return current.engine().submit_task(template, args, kwargs)

    def bind(self, /, *args: Any, **kwargs: Any) -> FunctionNode:
        """A node of a graph that calls the function: see `umbel.dag`."""
        from umbel._client.graphs import nodes

        return nodes.FunctionNode(self, args, kwargs)

    @overload
    def options(self, **overrides: Unpack[TaskOptions]) -> BoundOptions[P, R]: ...
    @overload
    def options(
        self, *, num_returns: int | Literal["streaming", "dynamic"] | None, **overrides: Unpack[TaskOptions]
    ) -> BoundSeveral[P]: ...
    def options(self, **overrides: Any) -> BoundOptions[P, Any]:
        """The same function with some options changed; the original stays as it is."""
        options = option_model.task_options(self._options, with_environment(overrides))
        template = self._templates.get(options)
        if template is None:
            template = TaskTemplate(self._source, self._signature, options)
            _check_streaming(template)
            if len(self._templates) >= TEMPLATES_MAX:
                self._templates.clear()
            self._templates[options] = template
        return BoundOptions(template)

    def __reduce__(self) -> tuple[Any, ...]:
        return unread, (RemoteFunction,), {"_function": self._function, "_options": self._options}

    if not TYPE_CHECKING:  # likewise

        def __getattr__(self, name):
            if name in self.__dict__ or not is_unread(self, "_function"):
                raise absent.attribute_error(self, name)
            RemoteFunction.__init__(self, self._function, self._options)
            return getattr(self, name)


class BoundOptions(Generic[P, R]):
    """A remote function with its options fixed by `.options(...)`."""

    def __init__(self, template: TaskTemplate) -> None:
        self._template = template

    @submits
    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """As `RemoteFunction.remote`."""
        template = self._template
        template.signature.check(args, kwargs)
        return current.engine().submit_task(template, args, kwargs)

    def bind(self, /, *args: Any, **kwargs: Any) -> FunctionNode:
        """As `RemoteFunction.bind`."""
        from umbel._client.graphs import nodes

        return nodes.FunctionNode(self, args, kwargs)


def _check_streaming(template: TaskTemplate) -> None:
    wanted = template.options.num_returns
    if wanted in ("streaming", "dynamic") and not template.is_generator:
        raise ValueError(
            f"num_returns={wanted!r} needs a generator function, got {template.name}, which has no 'yield'; "
            "use a number, or yield the values"
        )
