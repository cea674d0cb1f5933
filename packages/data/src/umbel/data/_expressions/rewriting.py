"""What a plan asks of expressions, and does to them. The same as in `nodes`, on `Expr`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from umbel.data._expressions import nodes
from umbel.data._expressions.expr import Expr


def columns_of(expr: Expr) -> tuple[str, ...]:
    """The columns that it reads, each once, by first use. `star()` is none of them: ask `has_star`."""
    return nodes.columns_of(expr.node)


def has_star(expr: Expr) -> bool:
    return isinstance(expr.node, nodes.Star)


def substitute(expr: Expr, mapping: Mapping[str, Expr]) -> Expr:
    """The expression with each of these columns replaced; its own name stays, that of a lone column too."""
    replaced = nodes.substitute(expr.node, {name: one.node for name, one in mapping.items()})
    if isinstance(expr.node, nodes.Column) and replaced != expr.node:
        return Expr(nodes.Alias(replaced, expr.node.name))
    return Expr(replaced)


def structurally_equals(a: Expr, b: Expr) -> bool:
    return a.node == b.node


def is_deterministic(expr: Expr) -> bool:
    """It depends on the values of its row alone, and not on where the row is: it may be computed earlier, later, or twice."""
    return nodes.is_deterministic(expr.node)


def conjuncts(expr: Expr) -> tuple[Expr, ...]:
    """What must all be true for it to be, from left to right: what stands to the left guards what stands to the right."""
    return tuple(map(Expr, nodes.conjuncts(expr.node)))


def conjunction(exprs: Sequence[Expr]) -> Expr | None:
    """The reverse; None for none."""
    return Expr(nodes.conjunction(tuple(nodes.unaliased(one.node) for one in exprs))) if exprs else None
