"""The tree of an expression: frozen nodes, compared and hashed by what they say.

Nodes know nothing of data. `Expr` (in `expr`) is a node with Python's operators; everything here takes and gives nodes.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Final, Protocol
from typing import Literal as Choice

import numpy as np
import pyarrow as pa

Option = tuple[str, Hashable]

_WEAK_TYPES: Final = (
    bool,
    int,
    float,
    str,
    bytes,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    list,
    tuple,
)


class Node:
    """Base of all nodes."""

    __slots__ = ()

    def children(self) -> tuple[Node, ...]:
        return ()

    def with_children(self, children: tuple[Node, ...]) -> Node:
        """The same node of other children, as many as `children()` gives."""
        del children
        return self


class Expression(Protocol):
    """What has a node: `expr.Expr`, which is made of nodes and of which they know no more."""

    @property
    def node(self) -> Node: ...


Tree = Node | Expression


def tree(of: Tree) -> Node:
    return of if isinstance(of, Node) else of.node


@dataclasses.dataclass(frozen=True, slots=True)
class Column(Node):
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Star(Node):
    """Every column. Stands only at the top of a projection."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Literal(Node):
    """One value. is_weak: it was written as a Python value, and takes the type of what it is combined with, where
    that holds it."""

    scalar: pa.Scalar
    is_weak: bool

    def _key(self) -> tuple[Hashable, ...]:
        # By their text, floats are what they are: nan is itself, and 0.0 is not -0.0.
        value = self.scalar.as_py() if pa.types.is_floating(self.scalar.type) else None
        return self.scalar.type, self.is_weak, self.scalar if value is None else repr(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclasses.dataclass(frozen=True, slots=True)
class Alias(Node):
    node: Node
    name: str

    def children(self) -> tuple[Node, ...]:
        return (self.node,)

    def with_children(self, children: tuple[Node, ...]) -> Node:
        return Alias(children[0], self.name)


@dataclasses.dataclass(frozen=True, slots=True)
class Call(Node):
    """A function of `functions.FUNCTIONS`. options: what is fixed, by parameter name, in the order of its parameters."""

    function: str
    args: tuple[Node, ...]
    options: tuple[Option, ...] = ()

    def children(self) -> tuple[Node, ...]:
        return self.args

    def with_children(self, children: tuple[Node, ...]) -> Node:
        return Call(self.function, children, self.options)


@dataclasses.dataclass(frozen=True, slots=True)
class Case(Node):
    """The value of the first condition that is true. A value is computed only where it is wanted."""

    conditions: tuple[Node, ...]
    values: tuple[Node, ...]
    otherwise: Node

    def children(self) -> tuple[Node, ...]:
        return (*self.conditions, *self.values, self.otherwise)

    def with_children(self, children: tuple[Node, ...]) -> Node:
        count = len(self.conditions)
        return Case(children[:count], children[count:-1], children[-1])


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    """An argument of a user's function that is no expression. Compared by `identity`, for it may be anything."""

    value: object = dataclasses.field(compare=False)
    identity: str


@dataclasses.dataclass(frozen=True, slots=True)
class UdfCall(Node):
    """A user's function of whole columns.

    function: called with an Arrow array for each node; a frozen object or a plain function, compared as such.
    places: for each argument, the index of its node in `args`, or what is given as it is. keywords: the names of the last ones.
    """

    function: Callable[..., object]
    return_type: pa.DataType
    args: tuple[Node, ...]
    places: tuple[int | Fixed, ...]
    keywords: tuple[str, ...] = ()

    def children(self) -> tuple[Node, ...]:
        return self.args

    def with_children(self, children: tuple[Node, ...]) -> Node:
        return dataclasses.replace(self, args=children)


@dataclasses.dataclass(frozen=True, slots=True)
class Generated(Node):
    """A value for each row that depends on where the row is: (seed, epoch, number of the block, number of the row in it).

    seed: drawn when the expression was made, if its user gave none, so that a task that runs again gives the same values.
    varies_by_epoch: each execution of the dataset gives others.
    """

    kind: Choice["row_id", "random", "uuid"]
    seed: int = 0
    varies_by_epoch: bool = False
    is_seeded: bool = False


def literal(value: object) -> Literal:
    """The node of a Python, NumPy or Arrow value. Raises TypeError where Arrow has no type for it."""
    if isinstance(value, pa.Scalar):
        return Literal(value, is_weak=False)
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.dtype == object else pa.array(value)
    if isinstance(value, np.generic):
        return Literal(pa.array(np.array([value]))[0], is_weak=False)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        array = value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value
        return Literal(pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array)[0], is_weak=False)
    if isinstance(value, range | set | frozenset):
        value = list(value)
    try:
        scalar = pa.scalar(value, _wide_type(value))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise TypeError(
            f"{value!r} cannot stand in an expression: {error}; write a number, string, bool, date, list or pyarrow.Scalar"
        ) from error
    return Literal(scalar, is_weak=value is None or isinstance(value, _WEAK_TYPES))


def _wide_type(value: object) -> pa.DataType | None:
    """Of integers that are not all int64's, alone or in a list; None for all else, of which Arrow knows the type."""
    if isinstance(value, list | tuple):
        integers = [one for one in value if isinstance(one, int) and not isinstance(one, bool)]
        if not integers or len(integers) + sum(one is None for one in value) < len(value):
            return None
        type_ = _type_of_integers(min(integers), max(integers))
        return None if type_ is None else pa.list_(type_)
    return _type_of_integers(value, value) if isinstance(value, int) and not isinstance(value, bool) else None


def _type_of_integers(least: int, most: int) -> pa.DataType | None:
    if least >= -(2**63) and most < 2**63:
        return None
    return pa.uint64() if least >= 0 and most < 2**64 else pa.decimal128(38, 0)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    pending = [node]
    while pending:
        one = pending.pop()
        yield one
        pending.extend(reversed(one.children()))


def columns_of(node: Node) -> tuple[str, ...]:
    """The columns that it reads, each once, in the order of their first use. Star is none: what it stands for is not
    known here."""
    return tuple(dict.fromkeys(one.name for one in walk(node) if isinstance(one, Column)))


def replaced(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """The tree with `change(node)` in place of each node for which it is not None; what is put in is not looked into."""
    new = change(node)
    if new is not None:
        return new
    children = node.children()
    if not children:
        return node
    changed = tuple(replaced(child, change) for child in children)
    return node if all(a is b for a, b in zip(children, changed, strict=True)) else node.with_children(changed)


def substitute(node: Node, mapping: Mapping[str, Node]) -> Node:
    """The tree with columns replaced by what they stand for. Names of what is put in are dropped."""
    return replaced(
        node, lambda one: unaliased(mapping[one.name]) if isinstance(one, Column) and one.name in mapping else None
    )


def unaliased(node: Node) -> Node:
    while isinstance(node, Alias):
        node = node.node
    return node


def name_of(node: Node) -> str | None:
    """What a column of it is called, if it says so."""
    return node.name if isinstance(node, Alias | Column) else None


def is_deterministic(node: Node) -> bool:
    """It depends on nothing but the values in its row, and may be computed elsewhere, more often, or on fewer rows."""
    return not any(isinstance(one, Generated) for one in walk(node))


def conjuncts(node: Node) -> tuple[Node, ...]:
    """What must all be true for it to be, from left to right."""
    node = unaliased(node)
    if isinstance(node, Call) and node.function == "and":
        return tuple(part for arg in node.args for part in conjuncts(arg))
    return (node,)


def conjunction(parts: tuple[Node, ...]) -> Node:
    """The reverse of `conjuncts`. Raises nothing; no parts are true."""
    if not parts:
        return literal(True)
    return functools.reduce(lambda left, right: Call("and", (left, right)), parts)


def options_of(node: Call) -> dict[str, Any]:
    return dict(node.options)
