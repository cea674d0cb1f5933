"""What each actor of a compiled graph does in each execution, and which edges carry values between processes.

A value that leaves its process goes by one edge to each process that needs it, once for each execution. An actor runs its
calls in the order in which they were bound, which is the same for all actors, so that none waits for one that waits for
it. This module only decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from umbel import exceptions
from umbel._client import actor as actor_api
from umbel._client.graphs import nodes

DRIVER = -1  # beside the actors' indices: the process that executes the graph


@dataclass(frozen=True)
class Edge:
    """A channel. sender, receiver: indices of actors, or DRIVER."""

    index: int
    sender: int
    receiver: int


@dataclass(frozen=True)
class Constant:
    """An argument that is the same in each execution."""

    value: Any


@dataclass(frozen=True)
class Slot:
    """An argument that each execution computes; where the actor keeps it meanwhile."""

    number: int


@dataclass(frozen=True)
class Read:
    """Take a message from an edge. slots: one for the whole message, or one for each item of it."""

    edge: int
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """What becomes of a result. index: which of several; None for the whole."""

    index: int | None
    slot: int | None
    edges: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One call of one method. name: as in errors, with the class."""

    method: str
    name: str
    reads: tuple[Read, ...]
    args: tuple[Constant | Slot, ...]
    kwargs: tuple[tuple[str, Constant | Slot], ...]
    outputs: tuple[Output, ...]
    num_returns: int


@dataclass(frozen=True)
class ActorPlan:
    """An actor's part. It travels to the actor."""

    steps: tuple[Step, ...]
    slot_count: int


@dataclass(frozen=True)
class GraphPlan:
    """handles, actors: by the actor's index. input_keys: of each edge that the driver writes, which parts of the input it
    carries; None for the whole. outputs: the edge of each result, in order."""

    handles: tuple[actor_api.ActorHandle, ...]
    actors: tuple[ActorPlan, ...]
    edges: tuple[Edge, ...]
    input_keys: dict[int, tuple[int | str, ...] | None]
    outputs: tuple[int, ...]
    is_list: bool
    positional_count: int
    names: frozenset[str]

    def check_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises ValueError when the graph cannot be executed with these arguments."""
        if len(args) != self.positional_count or ((kwargs or self.names) and kwargs.keys() != self.names):
            raise ValueError(
                f"this graph is executed with {self.positional_count} positional arguments"
                f"{' and the names ' + ', '.join(sorted(self.names)) if self.names else ''}, got {len(args)}"
                f"{' and the names ' + ', '.join(sorted(kwargs)) if kwargs else ''}"
            )

    def input_of(self, edge: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the driver writes to an edge."""
        keys = self.input_keys[edge]
        if keys is None:
            return args[0]
        parts = tuple(args[key] if isinstance(key, int) else kwargs[key] for key in keys)
        return parts[0] if len(parts) == 1 else parts


def plan_of(root: nodes.DAGNode) -> GraphPlan:
    """Raises ValueError for a graph that cannot be compiled as it is, UnsupportedFeature for one that only `execute` can
    run."""
    return _Planner(root).plan()


class _Planner:
    def __init__(self, root: nodes.DAGNode) -> None:
        self._is_list = isinstance(root, nodes.MultiOutputNode)
        found = nodes.upstream(root)
        self._outputs: list[Any] = list(root._bound_args) if self._is_list else [root]
        self._calls = [node for node in found if isinstance(node, nodes.ClassMethodNode)]
        for node in found:
            _check_node(node, is_root=node is root)
        _check_outputs(self._outputs)
        _check_leaves(found)
        handles = dict.fromkeys(_method_of(call)._handle for call in self._calls)
        self._handles = tuple(handles)
        self._indices = {handle: index for index, handle in enumerate(handles)}
        self._parts: dict[int, list[nodes.DAGNode]] = {}  # what each actor needs of the input
        self._consumers: dict[nodes.DAGNode, list[int]] = {}
        self._edges: list[Edge] = []
        self._edge_of: dict[tuple[nodes.DAGNode | None, int], int] = {}  # (value, None for the input; receiver)

    def plan(self) -> GraphPlan:
        for call in self._calls:
            receiver = self._actor_of(call)
            for value in _needs(call):
                if isinstance(value, (nodes.InputNode, nodes.InputAttributeNode)):
                    _add(self._parts.setdefault(receiver, []), value)
                else:
                    _add(self._consumers.setdefault(value, []), receiver)
        driver_ends = []
        for value in self._outputs:  # one edge for each result, also when two are the same
            receivers = self._consumers.setdefault(value, [])
            driver_ends.append((value, DRIVER - sum(receiver <= DRIVER for receiver in receivers)))
            receivers.append(driver_ends[-1][1])
        is_whole = _check_parts([part for parts in self._parts.values() for part in parts])
        for receiver in self._parts:
            self._add_edge(None, DRIVER, receiver)
        for value, receivers in self._consumers.items():
            sender = self._actor_of(_call_of(value))
            for receiver in receivers:
                if receiver != sender:
                    self._add_edge(value, sender, receiver)
        keys = {self._edge_of[None, receiver]: _keys(parts) for receiver, parts in self._parts.items()}
        named = [key for found in keys.values() for key in found or ()]
        positions = [key for key in named if isinstance(key, int)]
        return GraphPlan(
            handles=self._handles,
            actors=tuple(self._actor_plan(index) for index in range(len(self._handles))),
            edges=tuple(self._edges),
            input_keys=keys,
            outputs=tuple(self._edge_of[end] for end in driver_ends),
            is_list=self._is_list,
            positional_count=1 if is_whole else max(positions, default=-1) + 1,
            names=frozenset(key for key in named if isinstance(key, str)),
        )

    def _actor_of(self, call: nodes.ClassMethodNode) -> int:
        return self._indices[_method_of(call)._handle]

    def _add_edge(self, value: nodes.DAGNode | None, sender: int, receiver: int) -> None:
        self._edge_of[value, receiver] = len(self._edges)
        self._edges.append(Edge(len(self._edges), sender, max(receiver, DRIVER)))

    def _actor_plan(self, actor: int) -> ActorPlan:
        slots: dict[nodes.DAGNode, int] = {}
        steps = []
        for call in self._calls:
            if self._actor_of(call) == actor:
                reads = self._reads(actor, [value for value in _needs(call) if value not in slots], slots)
                args = tuple(_argument(value, slots) for value in call._bound_args)
                kwargs = tuple((name, _argument(value, slots)) for name, value in call._bound_kwargs.items())
                outputs = tuple(self._outputs_of(call, actor, slots))
                count = _method_of(call)._template.options.num_returns
                number = 1 if count is None else int(count)
                steps.append(Step(call._method, call._title, reads, args, kwargs, outputs, number))
        return ActorPlan(tuple(steps), len(slots))

    def _reads(self, actor: int, missing: list[nodes.DAGNode], slots: dict[nodes.DAGNode, int]) -> tuple[Read, ...]:
        """What a call takes from edges: all parts of the input at once, at the first call that needs any."""
        reads = []
        for value in missing:
            if value in slots:
                continue
            is_input = isinstance(value, (nodes.InputNode, nodes.InputAttributeNode))
            values = self._parts[actor] if is_input else [value]
            for one in values:
                slots[one] = len(slots)
            edge = self._edge_of[None if is_input else value, actor]
            reads.append(Read(edge, tuple(slots[one] for one in values)))
        return tuple(reads)

    def _outputs_of(self, call: nodes.ClassMethodNode, actor: int, slots: dict[nodes.DAGNode, int]) -> Iterable[Output]:
        for value, receivers in self._consumers.items():
            if _call_of(value) is call:
                if actor in receivers:
                    slots[value] = len(slots)
                edges = tuple(self._edge_of[value, receiver] for receiver in receivers if receiver != actor)
                index = value.output_idx if isinstance(value, nodes.ClassMethodOutputNode) else None
                yield Output(index, slots.get(value), edges)


def _method_of(call: nodes.ClassMethodNode) -> actor_api.ActorMethod:
    method = call._actor
    if isinstance(method, nodes.ClassNode):
        raise ValueError(
            f"{call._title} is bound to an actor that each execution would create; compile graphs of actors that exist, "
            "made with .remote(), or run this one with execute()"
        )
    return method


def _call_of(value: nodes.DAGNode) -> nodes.ClassMethodNode:
    call: nodes.ClassMethodNode = value._call if isinstance(value, nodes.ClassMethodOutputNode) else value  # type: ignore[assignment]  # checked
    return call


def _needs(call: nodes.ClassMethodNode) -> list[nodes.DAGNode]:
    """The values that a call takes, each once."""
    given = (*call._bound_args, *call._bound_kwargs.values())
    return list(dict.fromkeys(value for value in given if isinstance(value, nodes.DAGNode)))


def _argument(value: Any, slots: dict[nodes.DAGNode, int]) -> Constant | Slot:
    return Slot(slots[value]) if isinstance(value, nodes.DAGNode) else Constant(value)


def _add(values: list[Any], value: Any) -> None:
    if value not in values:
        values.append(value)


def _keys(parts: list[nodes.DAGNode]) -> tuple[int | str, ...] | None:
    keys = tuple(part.key for part in parts if isinstance(part, nodes.InputAttributeNode))
    return keys or None


def _check_node(node: nodes.DAGNode, *, is_root: bool) -> None:
    if isinstance(node, nodes.FunctionNode):
        raise exceptions.UnsupportedFeature(
            f"a graph with the remote function {node._title} cannot be compiled, only methods of actors can; make it a "
            "method, or run the graph with execute()"
        )
    if isinstance(node, nodes.MultiOutputNode) and not is_root:
        raise ValueError("a MultiOutputNode is the end of a graph; bind its nodes one by one")
    if not isinstance(node, nodes.ClassMethodNode):
        return
    method = _method_of(node)
    described, options = method._template.description, method._template.options
    if described.is_async or described.is_generator or isinstance(options.num_returns, str):
        kind = "'async def'" if described.is_async else "a generator"
        raise exceptions.UnsupportedFeature(
            f"{node._title} is {kind}, and a compiled graph runs plain methods only; bind a plain one, or run the graph "
            "with execute()"
        )
    if options.num_returns == 0:
        raise ValueError(f"{node._title} has num_returns=0, and a node of a compiled graph has results")
    needs = _needs(node)
    if not needs:
        raise ValueError(
            f"{node._title} takes nothing of the graph, so nothing would say when to run it; bind it to the InputNode or "
            "to another node"
        )
    given = (*node._bound_args, *node._bound_kwargs.values())
    nested = nodes.nodes_in([value for value in given if not isinstance(value, nodes.DAGNode)])
    if nested:
        raise ValueError(
            f"an argument of {node._title} holds {nested[0]!r} inside of a container; pass nodes as arguments of their "
            "own to compile the graph"
        )


def _check_outputs(outputs: list[Any]) -> None:
    for value in outputs:
        if not isinstance(value, (nodes.ClassMethodNode, nodes.ClassMethodOutputNode)):
            raise ValueError(f"the results of a compiled graph are those of actors' methods, got {value!r} among them")
    if not outputs:
        raise ValueError("a MultiOutputNode without nodes has nothing to compute; give it some")


def _check_leaves(found: list[nodes.DAGNode]) -> None:
    known = set(found)
    for node in found:
        for dependent in node._dependents:
            if dependent not in known and isinstance(dependent, nodes.ClassMethodNode):
                raise ValueError(
                    f"{dependent!r} is bound to this graph, but the result does not depend on it, so it would never run; "
                    "add it to a MultiOutputNode"
                )


def _check_parts(parts: list[nodes.DAGNode]) -> bool:
    """Whether the nodes take the input as a whole."""
    if not parts:
        raise ValueError("the graph takes no input; bind a node of it to an InputNode")
    wholes = [part for part in parts if isinstance(part, nodes.InputNode)]
    if wholes and len(wholes) < len(parts):
        raise ValueError("a compiled graph takes its input either as a whole or in parts, got both; use one way")
    for part in parts:
        if isinstance(part, nodes.InputAttributeNode) and isinstance(part.key, int) and part.key < 0:
            raise ValueError(f"parts of the input are numbered from 0, got {part.key}")
    return bool(wholes)
