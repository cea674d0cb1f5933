"""The types of what `@umbel.remote` makes, for type checkers alone: nothing imports this module when a program runs.

A call is checked against the parameters of the function, or of the class's constructor, names and defaults included.
Python cannot say "these parameters, each of which may be a reference instead", so a call with a reference among its
first positional arguments (see `Call`) is taken as it is, and only its result is typed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, overload

from umbel._client import actor, refs, remote_function

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Out_co = TypeVar("Out_co", covariant=True)
Ref = refs.ObjectRef[Any]

# ---------------------------------------------------------------------------------------------------------------------
# Options: the tables of `umbel._model.options`, to which a test compares these. None is the same as leaving one out.


class CommonOptions(TypedDict, total=False):
    num_cpus: float | None
    num_gpus: float | None
    memory: float | None
    resources: Mapping[str, float] | None
    accelerator_type: str | None
    name: str | None
    runtime_env: Mapping[str, Any] | None
    scheduling_strategy: Any
    label_selector: Mapping[str, str] | None
    fallback_strategy: Sequence[Mapping[str, Any]] | None
    placement_group: Any
    placement_group_bundle_index: int | None
    placement_group_capture_child_tasks: bool | None
    enable_task_events: bool | None
    _labels: Mapping[str, str] | None


class StreamOptions(TypedDict, total=False):
    """Of tasks and methods. `num_returns` is apart, because the type of the result depends on it."""

    retry_exceptions: bool | Sequence[type[Exception]] | None
    _generator_backpressure_num_objects: int | None
    _num_objects_per_yield: int | None


class TaskOptions(CommonOptions, StreamOptions, total=False):
    max_retries: int | None


class TaskDecoratorOptions(TaskOptions, total=False):
    max_calls: int | None


class ActorOptions(CommonOptions, total=False):
    object_store_memory: float | None
    max_restarts: int | None
    max_task_retries: int | None
    max_concurrency: int | None
    lifetime: Literal["detached", "non_detached"] | None
    namespace: str | None
    get_if_exists: bool | None
    max_pending_calls: int | None
    allow_out_of_order_execution: bool | None
    enable_tensor_transport: bool | None
    _actor_generator_backpressure_num_objects: int | None


class ActorDecoratorOptions(ActorOptions, total=False):
    concurrency_groups: Mapping[str, int] | Sequence[Any] | None


class MethodDecoratorOptions(StreamOptions, total=False):
    num_returns: int | Literal["streaming", "dynamic"] | None
    max_task_retries: int | None
    concurrency_group: str | None
    enable_task_events: bool | None
    tensor_transport: str | None


class MethodOptions(MethodDecoratorOptions, total=False):
    name: str | None
    _labels: Mapping[str, str] | None


# ---------------------------------------------------------------------------------------------------------------------
# Calls.


class Call(Protocol[P, Out_co]):
    """What `.remote` is: takes P, or anything where one of the first eight positional arguments is a reference."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out_co: ...
    @overload
    def __call__(self, a: Ref, /, *args: Any, **kwargs: Any) -> Out_co: ...
    @overload
    def __call__(self, a: Any, b: Ref, /, *args: Any, **kwargs: Any) -> Out_co: ...
    @overload
    def __call__(self, a: Any, b: Any, c: Ref, /, *args: Any, **kwargs: Any) -> Out_co: ...
    @overload
    def __call__(self, a: Any, b: Any, c: Any, d: Ref, /, *args: Any, **kwargs: Any) -> Out_co: ...
    @overload
    def __call__(self, a: Any, b: Any, c: Any, d: Any, e: Ref, /, *args: Any, **kwargs: Any) -> Out_co: ...
    @overload
    def __call__(self, a: Any, b: Any, c: Any, d: Any, e: Any, f: Ref, /, *args: Any, **kwargs: Any) -> Out_co: ...
    @overload
    def __call__(
        self, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Ref, /, *args: Any, **kwargs: Any
    ) -> Out_co: ...
    @overload
    def __call__(
        self, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Ref, /, *args: Any, **kwargs: Any
    ) -> Out_co: ...


class Several:
    """Stands for the result of a function whose `num_returns` is given: it may be None, a reference or a list."""


class submits:
    """Of a function's `remote`: the type of a call, from what the function returns.

    A function that says it returns an Iterable may be a generator or not: its calls return Any.
    """

    def __init__(self, function: Callable[..., Any]) -> None: ...
    @overload
    def __get__(self, instance: _Function[P, Several], owner: Any) -> Call[P, Any]: ...
    @overload
    def __get__(
        self, instance: _Function[P, Generator[T, Any, Any]], owner: Any
    ) -> Call[P, refs.ObjectRefGenerator[T]]: ...
    @overload
    def __get__(self, instance: _Function[P, Iterator[T]], owner: Any) -> Call[P, refs.ObjectRefGenerator[T]]: ...
    @overload
    def __get__(self, instance: _Function[P, Iterable[T]], owner: Any) -> Call[P, Any]: ...
    @overload
    def __get__(self, instance: _Function[P, R], owner: Any) -> Call[P, refs.ObjectRef[R]]: ...
    def __get__(self, instance: Any, owner: Any) -> Any: ...


_Function = remote_function.RemoteFunction[P, R] | remote_function.BoundOptions[P, R]


class BoundSeveral(remote_function.BoundOptions[P, Several], Generic[P]):
    """A class apart, so that mypy takes `.options(**anything)` for Any and not for one of the two."""


class RemoteClass(actor.ActorClass[T], Generic[T, P]):
    """An ActorClass with the parameters of its constructor."""

    remote: Call[P, actor.ActorHandle[T]]

    def options(self, **overrides: Unpack[ActorOptions]) -> BoundRemoteClass[T, P]:
        raise NotImplementedError  # this class is for type checkers alone: no program ever has an instance


class BoundRemoteClass(actor.BoundActorOptions[T], Generic[T, P]):
    remote: Call[P, actor.ActorHandle[T]]


# ---------------------------------------------------------------------------------------------------------------------
# Decorators.


class Class(Protocol[P, T_co]):
    """A class with its constructor, as mypy sees one; for pyright, `Initialized` is one."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @property
    def __mro__(self) -> tuple[type, ...]: ...


class Initialized(Protocol[P, T_co]):
    """An instance of a class, with its constructor's parameters and the class itself."""

    def __init__(self, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @property  # type: ignore[misc]  # nobody writes to it
    def __class__(self) -> type[T_co]: ...  # type: ignore[override]  # likewise


class FunctionDecorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> remote_function.RemoteFunction[P, R]: ...


class SeveralDecorator(Protocol):
    def __call__(self, function: Callable[P, Any], /) -> remote_function.RemoteFunction[P, Several]: ...


class ClassDecorator(Protocol):
    @overload
    def __call__(self, cls: Class[P, T], /) -> RemoteClass[T, P]: ...
    @overload
    def __call__(self, cls: type[Initialized[P, T]], /) -> RemoteClass[T, P]: ...


class Decorator(Protocol):
    """What options that suit both make."""

    @overload  # a class is callable too, and the first that fits is taken
    def __call__(self, cls: Class[P, T], /) -> RemoteClass[T, P]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, cls: type[Initialized[P, T]], /) -> RemoteClass[T, P]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> remote_function.RemoteFunction[P, R]: ...
