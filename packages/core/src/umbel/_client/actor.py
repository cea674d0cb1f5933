"""Actor classes, handles and methods: what `@umbel.remote` makes of a class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, overload

from umbel import exceptions
from umbel._client import absent, current, refs, remote_function, signatures
from umbel._model import ids
from umbel._model import options as option_model

if TYPE_CHECKING:
    from typing_extensions import TypeVar, Unpack

    from umbel._client.call_types import ActorOptions, MethodDecoratorOptions, MethodOptions
    from umbel._client.graphs.nodes import ClassNode

    T = TypeVar("T", default=Any)  # an ActorHandle may be annotated without saying of what
else:
    from typing import TypeVar

    T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LIFETIME_SUFFIX = refs.LIFETIME_SUFFIX
METHOD_OPTIONS_ATTRIBUTE = "__umbel_method_options__"
# Methods every actor has, under our name and under the one Ray's programs use.
SYSTEM_METHODS = {
    f"__{prefix}_{what}__": f"__umbel_{what}__"
    for prefix in ("umbel", "ray")
    for what in ("ready", "terminate", "call")
}


class MethodDescription(NamedTuple):
    """What a caller must know of one method. Travels with every handle."""

    name: str
    signature: signatures.Signature
    options: dict[str, Any]
    is_generator: bool = False
    is_async: bool = False


class ActorDescription(NamedTuple):
    """What a handle knows of its actor, whoever holds it. Picklable without the class."""

    class_name: str
    methods: dict[str, MethodDescription]
    max_task_retries: int
    max_pending_calls: int
    allow_out_of_order: bool
    is_async: bool
    is_detached: bool
    has_events: bool = True  # its calls go into the history
    has_tensor_transport: bool = False  # its methods may have one
    concurrency_groups: tuple[str, ...] = ()


class MethodTemplate:
    """What all calls of one method with one set of options share; engines hang their own cache on it."""

    __slots__ = ("description", "engine_state", "is_generator", "name", "options")

    def __init__(self, description: MethodDescription, options: option_model.MethodOptions) -> None:
        self.description = description
        self.options = options
        self.name = description.name
        self.is_generator = description.is_generator
        self.engine_state: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_function.copied(self, engine_state=None)


class ActorMethod:
    """One method of one actor; `.remote(...)` calls it."""

    __slots__ = ("_handle", "_template")

    def __init__(self, handle: ActorHandle, template: MethodTemplate) -> None:
        self._handle = handle
        self._template = template

    if not TYPE_CHECKING:  # a type checker shall find the mistake

        def __call__(self, *_args, **_kwargs):
            name = self._template.name
            raise TypeError(f"actor method {name} cannot be called directly; use handle.{name}.remote(...)")

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit one call; returns what `RemoteFunction.remote` would."""
        template = self._template
        template.description.signature.check(args, kwargs)
        return current.engine().submit_actor_task(self._handle, template, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a graph that calls the method, or a tuple of one for each of its results: see `umbel.dag`."""
        from umbel._client.graphs import nodes

        return nodes.bound_method(self, args, kwargs)

    def options(self, **overrides: Unpack[MethodOptions]) -> ActorMethod:
        description = self._template.description
        template = MethodTemplate(description, option_model.method_options(description.options, overrides))
        _check_streaming(template.options, template.name, is_generator=template.is_generator)
        _check_group(template.options.concurrency_group, template.name, self._handle._description.concurrency_groups)
        if template.options.tensor_transport is not None:
            _check_transport(template, self._handle._description)
        return ActorMethod(self._handle, template)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorMethod, (self._handle, self._template)


class ActorHandle(Generic[T]):
    """A reference to an actor. Handles to the same actor are equal.

    A strong handle keeps the actor alive; one from `get_actor` or `current_actor` is weak, and so is any handle to a
    detached actor, which lives until killed.
    """

    def __init__(self, actor_id: bytes, description: ActorDescription, lifetime: refs.ObjectRef[Any] | None) -> None:
        self._actor_id = actor_id
        self._description = description
        self._lifetime = lifetime
        self._session = current.session()  # a handle is of no use in another; None if made outside of any
        self._templates: dict[str, MethodTemplate] = {}

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("_") and name in ("_actor_id", "_description", "_lifetime", "_session", "_templates"):
            raise AttributeError(name)  # half-built, as during unpickling
        template = self._templates.get(name)
        if template is None:
            described = self._description.methods.get(SYSTEM_METHODS.get(name, name))
            if described is None:
                raise AttributeError(
                    f"actor {self._description.class_name} has no method {name!r}; it has "
                    f"{', '.join(sorted(n for n in self._description.methods if not n.startswith('_'))) or 'none'}"
                )
            template = MethodTemplate(described, option_model.method_options(described.options, {}))
            if template.options.tensor_transport is not None:
                _check_transport(template, self._description)
            self._templates[name] = template
        return ActorMethod(self, template)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._description.methods]

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._actor_id == self._actor_id

    def __repr__(self) -> str:
        return f"Actor({self._description.class_name}, {self._actor_id.hex()})"

    @property
    def _umbel_actor_id(self) -> ids.ActorID:
        return ids.ActorID(self._actor_id)

    @property
    def _actor_id_hex(self) -> str:
        return self._actor_id.hex()

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._actor_id, self._description, self._lifetime)


def describe(cls: type, options: option_model.ActorOptions) -> ActorDescription:
    """Read a class as its callers will see it."""
    methods: dict[str, MethodDescription] = {}
    for name, raw in _members(cls):
        if name in ("__init__", "__new__", "__class__", "__init_subclass__", "__subclasshook__"):
            continue
        function = raw.__func__ if isinstance(raw, (staticmethod, classmethod)) else raw
        if not isinstance(function, FunctionType):
            continue
        methods[name] = MethodDescription(
            name=name,
            signature=signatures.Signature(function, name, skip_first=not isinstance(raw, staticmethod)),
            options=getattr(function, METHOD_OPTIONS_ATTRIBUTE, {}),
            is_generator=signatures.is_generator(function),
            is_async=signatures.is_async(function),
        )
        _check_group(methods[name].options.get("concurrency_group"), name, options.concurrency_groups or ())
    is_async = any(m.is_async for m in methods.values())
    has_tensor_transport = any(m.options.get("tensor_transport") for m in methods.values())
    if has_tensor_transport and options.enable_tensor_transport is False:
        raise exceptions.InvalidOption(
            f"enable_tensor_transport must be True or left out for {cls.__name__}, which has methods with a "
            "tensor_transport, got False",
            option="enable_tensor_transport",
        )
    for name, function in (("ready", lambda: None), ("terminate", lambda: None), ("call", lambda fn, *a, **k: None)):
        full = f"__umbel_{name}__"
        methods[full] = MethodDescription(name=full, signature=signatures.Signature(function, full), options={})
    out_of_order = options.allow_out_of_order_execution
    is_concurrent = is_async or (options.max_concurrency or 1) > 1 or bool(options.concurrency_groups)
    if out_of_order is False and is_concurrent:
        raise ValueError(
            f"allow_out_of_order_execution must be True or left out for {cls.__name__}, which is async or threaded, "
            "got False; calls of such an actor overlap"
        )
    return ActorDescription(
        class_name=cls.__name__,
        methods=methods,
        max_task_retries=options.max_task_retries,
        max_pending_calls=options.max_pending_calls,
        allow_out_of_order=is_concurrent if out_of_order is None else out_of_order,
        is_async=is_async,
        is_detached=options.lifetime == "detached",
        has_events=options.enable_task_events,
        has_tensor_transport=has_tensor_transport or bool(options.enable_tensor_transport),
        concurrency_groups=tuple(sorted(options.concurrency_groups or ())),
    )


def _members(cls: type) -> list[tuple[str, Any]]:
    """What the class and its bases define, by name, as it stands there: nothing is bound."""
    return sorted({name: raw for base in reversed(cls.__mro__) for name, raw in vars(base).items()}.items())


def _check_group(group: str | None, method: str, declared: Collection[str]) -> None:
    if group is not None and group not in declared:
        raise ValueError(
            f"method {method} asks for concurrency_group {group!r}, which the actor does not declare; it has "
            f"{sorted(declared) or 'none'}; declare it with @umbel.remote(concurrency_groups={{{group!r}: 1}})"
        )


def _check_streaming(options: option_model.MethodOptions, method: str, *, is_generator: bool) -> None:
    wanted = options.num_returns
    if wanted in ("streaming", "dynamic") and not is_generator:
        raise ValueError(
            f"num_returns={wanted!r} needs a generator method, got {method}, which has no 'yield'; "
            "use a number, or yield the values"
        )


def _check_transport(template: MethodTemplate, actor: ActorDescription) -> None:
    name = template.options.tensor_transport
    if template.is_generator or template.options.num_returns not in (None, 1):
        raise exceptions.InvalidOption(
            f"{template.name} with tensor_transport={name!r} must have one result, got "
            f"num_returns={template.options.num_returns or 'streaming'!r}; return one value, such as a tuple",
            option="num_returns",
        )
    if not actor.has_tensor_transport:
        raise exceptions.InvalidOption(
            f"{template.name}.options(tensor_transport={name!r}) needs an actor of a class with "
            f"@umbel.remote(enable_tensor_transport=True), got one of {actor.class_name} without; add it",
            option="tensor_transport",
        )
    from umbel._client.tensors import transports

    transports.check(str(name), "tensor_transport")


class ActorTemplate:
    """What all actors of one class with one set of options share; engines hang their own cache on it."""

    __slots__ = ("cls", "description", "description_bytes", "engine_state", "init_signature", "options", "source")

    def __init__(
        self, source: remote_function.Source, init_signature: signatures.Signature, options: option_model.ActorOptions
    ) -> None:
        cls: type = source.target
        self.source = source
        self.cls = cls
        self.options = options
        self.init_signature = init_signature
        self.description = describe(cls, options)
        self.description_bytes = b""  # once pickled
        self.engine_state: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_function.copied(self, engine_state=None, description_bytes=b"")


class ActorClass(Generic[T]):
    """A class whose `.remote(...)` creates an instance in a process of its own and returns a handle at once."""

    def __init__(self, cls: type[T], options: dict[str, Any]) -> None:
        options = remote_function.with_environment(options)
        self._cls = cls
        self._options = options
        self._init_signature = _init_signature(cls)
        self._source = remote_function.Source(cls, cls.__name__)
        self._template = ActorTemplate(self._source, self._init_signature, option_model.actor_options(options, {}))
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    if not TYPE_CHECKING:  # likewise

        def __call__(self, *_args, **_kwargs):
            name = self._cls.__name__
            raise TypeError(f"actor class {name} cannot be instantiated directly; use {name}.remote(...)")

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> tuple[type, ...]:
        name = self._cls.__name__
        raise TypeError(
            f"actor class {name} cannot be subclassed; subclass the plain class and decorate the subclass instead"
        )

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Create an actor; waits for no argument. An error of its constructor, or of a task whose result it was to
        get, shows as ActorDiedError at the calls. Raises TypeError when the arguments do not fit,
        ActorAlreadyExistsError when the name is taken."""
        return _create(self._template, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """A node of a graph, of which each execution makes an actor: see `umbel.dag`."""
        from umbel._client.graphs import nodes

        return nodes.ClassNode(self, args, kwargs)

    def options(self, **overrides: Unpack[ActorOptions]) -> BoundActorOptions[T]:
        """The same class with some options changed; the original stays as it is."""
        overrides_ = remote_function.with_environment(dict(overrides))
        options = option_model.actor_options(self._options, overrides_)
        return BoundActorOptions(ActorTemplate(self._source, self._init_signature, options))

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_function.unread, (ActorClass,), {"_cls": self._cls, "_options": self._options}

    if not TYPE_CHECKING:  # likewise

        def __getattr__(self, name):
            if name in self.__dict__ or not remote_function.is_unread(self, "_cls"):
                raise absent.attribute_error(self, name)
            ActorClass.__init__(self, self._cls, self._options)
            return getattr(self, name)


class BoundActorOptions(Generic[T]):
    """An actor class with its options fixed by `.options(...)`."""

    def __init__(self, template: ActorTemplate) -> None:
        self._template = template

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """As `ActorClass.remote`."""
        return _create(self._template, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """As `ActorClass.bind`."""
        from umbel._client.graphs import nodes

        return nodes.ClassNode(self, args, kwargs)


def _create(template: ActorTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle:
    template.init_signature.check(args, kwargs)
    handle: ActorHandle = current.engine().create_actor(template, args, kwargs)
    there, wanted = handle._description.class_name, template.description.class_name
    if there != wanted:  # by get_if_exists
        warnings.warn(
            f"the actor called {template.options.name!r} exists already and is a {there}, not a {wanted}: the handle has "
            f"{there}'s methods; choose another name for the {wanted}, or kill the {there} first",
            stacklevel=3,
        )
    return handle


def _defined(cls: type) -> set[str]:
    """Names that the class or a base of it other than object defines."""
    return {name for base in cls.__mro__[:-1] for name in vars(base)}


def _init_signature(cls: type) -> signatures.Signature:
    if "__init__" not in _defined(cls) and "__new__" not in _defined(cls):
        return signatures.Signature(lambda: None, cls.__name__)
    return signatures.Signature(cls.__init__, cls.__name__, skip_first=True)  # type: ignore[misc]  # likewise


@overload
def method(function: F, /) -> F: ...
@overload
def method(**options: Unpack[MethodDecoratorOptions]) -> Callable[[F], F]: ...
def method(*args: Any, **options: Any) -> Any:
    """Set options of an actor method: `@umbel.method(num_returns=2)`; also bare, `@umbel.method`."""
    if args:
        if len(args) != 1 or options or not callable(args[0]):
            raise ValueError(
                f"umbel.method takes keyword options only, got {args!r}; write @umbel.method(num_returns=2)"
            )
        return args[0]
    if not options:
        raise ValueError("@umbel.method() without options does nothing; name an option, such as num_returns=2")
    checked = option_model.method_options(options, {})
    if checked.tensor_transport is not None:
        from umbel._client.tensors import transports

        transports.check(checked.tensor_transport, "tensor_transport")

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        name = getattr(function, "__name__", repr(function))
        _check_streaming(checked, name, is_generator=signatures.is_generator(function))
        setattr(function, METHOD_OPTIONS_ATTRIBUTE, dict(options))
        return function

    return mark


def exit_actor() -> None:
    """End the actor whose method runs this; calls that run beside it finish, queued ones fail, nothing restarts it.

    Does not return. Raises TypeError outside an actor.
    """
    current.engine().exit_actor()
