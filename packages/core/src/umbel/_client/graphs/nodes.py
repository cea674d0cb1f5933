"""The nodes of a graph of calls, and running it as ordinary calls.

A node keeps what was bound to it and computes nothing before the graph is executed. Nodes are numbered as they are made,
so a node's number is above those of all that it depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import actor as actor_api

if TYPE_CHECKING:
    from umbel._client.graphs.compiled import CompiledDAG

_numbers = itertools.count()


class DAGNode:
    """One step of a graph. Made by `bind`, and by InputNode and MultiOutputNode."""

    _title = "node"

    def __init__(self, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None) -> None:
        self._number = next(_numbers)
        self._bound_args = tuple(args)
        self._bound_kwargs = dict(kwargs or {})
        self._dependents: list[DAGNode] = []
        self._is_compiled = False
        for node in self._dependencies():
            node._dependents.append(self)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Submit all calls of the graph that ends here, as `.remote(...)` would. Returns what that returns for this
        node: an ObjectRef, or a list of them for a MultiOutputNode. The arguments are the graph's input."""
        given = args[0] if len(args) == 1 and not kwargs else DAGInputData(*args, **kwargs)
        results: dict[DAGNode, Any] = {}
        for node in upstream(self):
            results[node] = node._run(results, given)
        return results[self]

    def experimental_compile(
        self,
        _submit_timeout: float | None = None,
        _buffer_size_bytes: int | None = None,
        enable_asyncio: bool = False,
        _max_inflight_executions: int | None = None,
        _max_buffered_results: int | None = None,
        _overlap_gpu_communication: bool | None = None,
        _default_communicator: Any = "create",
    ) -> CompiledDAG:
        """Prepare the graph for many executions: its actors loop over channels in shared memory until `teardown`.

        All its nodes must be methods of actors that exist. _submit_timeout: seconds that `execute` may wait. _buffer_size_bytes:
        shared memory of each channel, divided among the executions that it can hold at once; a value that does not fit
        into its part goes through the object store. enable_asyncio: use `execute_async` instead of `execute`.
        _max_inflight_executions: executions whose results nobody has read. _max_buffered_results: results kept for
        references that are read out of order. What is left out is as `umbel.dag.DAGContext` says.
        """
        from umbel._client.graphs import compiled

        if self._is_compiled:
            raise ValueError(
                f"{self!r} was compiled before; use the compiled graph that you have, or build the graph again"
            )
        made = compiled.compile_graph(
            self,
            submit_timeout_s=_submit_timeout,
            buffer_bytes=_buffer_size_bytes,
            is_async=enable_asyncio,
            in_flight_max=_max_inflight_executions,
            buffered_max=_max_buffered_results,
            overlap=_overlap_gpu_communication,
            communicator=_default_communicator,
        )
        self._is_compiled = True
        return made

    def with_tensor_transport(
        self,
        transport: Any = "auto",
        device: str = "default",
        _static_shape: bool = False,
        _direct_return: bool = False,
    ) -> DAGNode:
        """How tensors leave this node: by shared memory, as everything does. Other ways raise UnsupportedFeature."""
        if transport not in ("auto", "shm") or device not in ("default", "cpu"):
            raise exceptions.UnsupportedFeature(
                f"with_tensor_transport({transport!r}, {device!r}) is not in this version of Umbel, whose graphs move all "
                "values through shared memory; leave it out, or pass 'shm'"
            )
        return self

    def get_args(self) -> tuple[Any, ...]:
        return self._bound_args

    def get_kwargs(self) -> dict[str, Any]:
        return dict(self._bound_kwargs)

    def _dependencies(self) -> list[DAGNode]:
        """The nodes whose results this one needs, wherever in its arguments they are."""
        return nodes_in((self._bound_args, self._bound_kwargs))

    def _arguments(self, results: dict[DAGNode, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = _replaced((self._bound_args, self._bound_kwargs), results.__getitem__)
        return args, kwargs

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        raise NotImplementedError  # each kind of node has its own; this class is only their base

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._title})"

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name == "remote":
                raise AttributeError(
                    f"{self!r} is a node of a graph and has no .remote(); run the graph with .execute()"
                )
            if name == "bind":
                raise AttributeError(f"{self!r} is bound already; .bind() belongs to functions, classes and methods")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dependents": [], "_is_compiled": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._number = next(_numbers)  # what it depends on was read before it
        for node in self._dependencies():
            node._dependents.append(self)


def _replaced(value: Any, replace: Callable[[DAGNode], Any]) -> Any:
    """`value` with each node in it replaced, in lists, tuples and dicts to any depth."""
    if isinstance(value, DAGNode):
        return replace(value)
    kind = type(value)
    if kind is list:
        return [_replaced(one, replace) for one in value]
    if kind is tuple:
        return tuple(_replaced(one, replace) for one in value)
    if kind is dict:
        return {key: _replaced(one, replace) for key, one in value.items()}
    return value


def nodes_in(value: Any) -> list[DAGNode]:
    """The nodes in a value, wherever `execute` would replace them."""
    found: list[DAGNode] = []
    _replaced(value, found.append)
    return found


def upstream(root: DAGNode) -> list[DAGNode]:
    """`root` and all that it depends on, dependencies first, in the order in which they were bound.

    Raises ValueError for a graph with more than one InputNode.
    """
    found = {root}
    waiting = [root]
    while waiting:
        for node in waiting.pop()._dependencies():
            if node not in found:
                found.add(node)
                waiting.append(node)
    if sum(isinstance(node, InputNode) for node in found) > 1:
        raise ValueError("a graph has one InputNode, got several; bind everything to the same one")
    return sorted(found, key=lambda node: node._number)


class DAGInputData:
    """What `execute` was called with, when that is not one positional argument: by position, or by name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._args = list(args)
        self._kwargs = kwargs

    def __getitem__(self, key: int | str) -> Any:
        return self._args[key] if isinstance(key, int) else self._kwargs[key]


class InputNode(DAGNode):
    """What the graph is executed with. `node[0]`, `node["key"]` and `node.key` are parts of it."""

    _title = "the graph's input"

    def __init__(self, *args: Any, input_type: Any = None, **kwargs: Any) -> None:
        if args or kwargs:
            raise ValueError(f"InputNode takes no values, got {(*args, *kwargs)}; pass them to execute()")
        super().__init__()
        self._input_type = input_type  # for programs that say it; nothing here needs it
        self._parts: dict[tuple[int | str, bool], InputAttributeNode] = {}

    def __enter__(self) -> InputNode:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing: the block only shows which input its nodes are bound to."""

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise TypeError(f"an input has parts by number or name, got {key!r} of type {type(key).__name__}")
        return self._part(key, False)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ("bind", "remote") or name.startswith("_"):
                return super().__getattr__(name)
            return self._part(name, True)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_parts": {}}  # they refer to their whole, which is read before them

    def _part(self, key: int | str, is_attribute: bool) -> InputAttributeNode:
        part = self._parts.get((key, is_attribute))
        if part is None:
            part = self._parts[key, is_attribute] = InputAttributeNode(self, key, is_attribute=is_attribute)
        return part

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        return given


class InputAttributeNode(DAGNode):
    """One part of the input."""

    def __init__(self, whole: InputNode, key: int | str, *, is_attribute: bool) -> None:
        self.key = key
        self._is_attribute = is_attribute
        self._title = f"the input's part {key!r}"
        super().__init__((whole,))

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        if self._is_attribute and not isinstance(given, DAGInputData):
            return getattr(given, str(self.key))
        return given[self.key]


class FunctionNode(DAGNode):
    """A call of a remote function."""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        template = function._template
        template.signature.check(args, kwargs)
        self._function = function
        self._title = template.name
        super().__init__(args, kwargs)

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        args, kwargs = self._arguments(results)
        return self._function.remote(*args, **kwargs)


class ClassNode(DAGNode):
    """An actor that each execution creates anew. `node.method.bind(...)` calls it."""

    def __init__(self, actor_class: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        template = actor_class._template
        template.init_signature.check(args, kwargs)
        self._actor_class = actor_class
        self._methods: dict[str, actor_api.MethodDescription] = template.description.methods
        self._title = template.description.class_name
        self._last_call: ClassMethodNode | None = None
        super().__init__(args, kwargs)
        if any(isinstance(node, InputNode) for node in upstream(self)):
            raise ValueError(
                f"the constructor of {self._title} is bound to the graph's input, which is there only when the graph is "
                "executed; pass it to a method instead"
            )

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        args, kwargs = self._arguments(results)
        return self._actor_class.remote(*args, **kwargs)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name.startswith("_") or name not in self._methods:
                return super().__getattr__(name)
            return UnboundMethod(self, name, {})


class UnboundMethod:
    """A method of an actor that is itself a node; `bind` makes a node of it."""

    def __init__(self, actor: ClassNode, name: str, options: dict[str, Any]) -> None:
        self._actor = actor
        self._name = name
        self._options = options

    def options(self, **options: Any) -> UnboundMethod:
        return UnboundMethod(self._actor, self._name, {**self._options, **options})

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        described = self._actor._methods[self._name]
        described.signature.check(args, kwargs)
        count = {**described.options, **self._options}.get("num_returns")
        return _with_outputs(ClassMethodNode(self._actor, self._name, self._options, args, kwargs), count)


class ClassMethodNode(DAGNode):
    """A call of an actor's method. actor: the ClassNode that makes it, or a method of the handle to one that exists."""

    def __init__(
        self,
        actor: ClassNode | actor_api.ActorMethod,
        method: str,
        options: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._actor = actor
        self._method = method
        self._options = options  # of a ClassNode's method; a handle's has its own
        self._call_before: ClassMethodNode | None = None
        if isinstance(actor, ClassNode):
            class_name = actor._title
            self._call_before, actor._last_call = actor._last_call, self
        else:
            class_name = actor._handle._description.class_name
        self._title = f"{class_name}.{method}"
        super().__init__(args, kwargs)

    def get_method_name(self) -> str:
        return self._method

    def _dependencies(self) -> list[DAGNode]:
        """Calls of one actor run in the order in which they were bound, so each needs the one before."""
        own = [node for node in (self._actor, self._call_before) if isinstance(node, DAGNode)]
        return own + super()._dependencies()

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        args, kwargs = self._arguments(results)
        actor = self._actor
        if not isinstance(actor, ClassNode):
            return actor.remote(*args, **kwargs)
        return getattr(results[actor], self._method).options(**self._options).remote(*args, **kwargs)


class ClassMethodOutputNode(DAGNode):
    """One of several results of a method."""

    def __init__(self, call: ClassMethodNode, index: int) -> None:
        self.output_idx = index
        self._call = call
        self._title = f"result {index} of {call._title}"
        super().__init__((call,))

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        return results[self._call][self.output_idx]


class MultiOutputNode(DAGNode):
    """The end of a graph with several results."""

    _title = "several outputs"

    def __init__(self, args: Any) -> None:
        if not isinstance(args, (list, tuple)):
            raise ValueError(f"MultiOutputNode takes a list of nodes, got {args!r} of type {type(args).__name__}")
        super().__init__(args)

    def _run(self, results: dict[DAGNode, Any], given: Any) -> Any:
        args, _ = self._arguments(results)
        return list(args)


def bound_method(method: actor_api.ActorMethod, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `handle.method.bind(...)` returns: the node of a call; of one with several results, a tuple of a node each."""
    template = method._template
    template.description.signature.check(args, kwargs)
    return _with_outputs(ClassMethodNode(method, template.name, {}, args, kwargs), template.options.num_returns)


def _with_outputs(node: ClassMethodNode, num_returns: Any) -> Any:
    if isinstance(num_returns, int) and num_returns > 1:
        return tuple(ClassMethodOutputNode(node, index) for index in range(num_returns))
    return node
