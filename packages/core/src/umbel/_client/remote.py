"""The decorator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from umbel._client import actor, remote_function

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from umbel._client import call_types
    from umbel._client.call_types import P, R, T


@overload  # a class is callable too, and the first that fits is taken
def remote(cls: call_types.Class[P, T], /) -> call_types.RemoteClass[T, P]: ...  # type: ignore[overload-overlap]
@overload
def remote(cls: type[call_types.Initialized[P, T]], /) -> call_types.RemoteClass[T, P]: ...  # type: ignore[overload-overlap]
@overload
def remote(function: Callable[P, R], /) -> remote_function.RemoteFunction[P, R]: ...
@overload
def remote(**options: Unpack[call_types.CommonOptions]) -> call_types.Decorator: ...
@overload
def remote(**options: Unpack[call_types.TaskDecoratorOptions]) -> call_types.FunctionDecorator: ...
@overload
def remote(**options: Unpack[call_types.ActorDecoratorOptions]) -> call_types.ClassDecorator: ...
@overload
def remote(
    *, num_returns: int | Literal["streaming", "dynamic"] | None, **options: Unpack[call_types.TaskDecoratorOptions]
) -> call_types.SeveralDecorator: ...
def remote(*args: Any, **options: Any) -> Any:
    """Make a function a remote function, or a class an actor class.

    `@umbel.remote`, `@umbel.remote(num_cpus=2, ...)` or `umbel.remote(function_or_class)`. Options are those of
    `umbel._model.options`; a wrong name or value raises ValueError here, not at the call.
    """
    if args:
        if len(args) != 1 or options:
            raise TypeError(
                f"umbel.remote takes one function or class, or keyword options, got {args!r} and {sorted(options)}; "
                "write @umbel.remote or @umbel.remote(num_cpus=2)"
            )
        return _wrap(args[0], {})
    if not options:
        raise TypeError("@umbel.remote() has empty parentheses; write @umbel.remote, or name an option in them")
    return lambda target: _wrap(target, options)


def _wrap(target: Any, options: dict[str, Any]) -> Any:
    if isinstance(target, (remote_function.RemoteFunction, actor.ActorClass)):
        raise TypeError(f"{target!r} is remote already; decorate the plain function or class once")
    if isinstance(target, type):
        return actor.ActorClass(target, options)
    if callable(target):
        return remote_function.RemoteFunction(target, options)
    raise TypeError(f"umbel.remote takes a function or a class, got {target!r} of type {type(target).__name__}")
