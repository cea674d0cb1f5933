"""What a plan is rewritten to before it is run: the same rows in the same order, with less read, carried and kept.

Rules go from the last node to the sources. A filter goes as far towards its source as it keeps the same rows, the limit as far as
each row before it gives one behind it; columns that nobody asks for are left out where they are made. What may differ from row to
row by anything but its values (random numbers, ids) stays where it is.

What two operators take their rows from, and costs more than reading, is run once for both: it stays as it is, since neither may
have it do less than the other needs (`_Pass.fixed`).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from umbel.data._blocks import grouping
from umbel.data._engine import stages
from umbel.data._expressions import evaluate, nodes
from umbel.data._expressions.expr import Expr
from umbel.data._plan import logical, schemas

# So many first rows of a sort are found without sorting all: one task puts together those of each task, of which there may be a
# thousand. Where more are wanted all is sorted, but the partitions behind them.
TOP_ROWS_MAX = 10_000

Columns = frozenset[str] | None  # those that are wanted; None for all


def optimized(last: logical.Node) -> logical.Node:
    """The plan to be run. Raises where types or names show that it cannot be."""
    *_, (_, plan) = steps(last)
    return plan


def steps(last: logical.Node) -> Iterator[tuple[str, logical.Node]]:
    """What each rule does, in words, and the plan as it leaves it."""
    schemas.of(last)
    plan = _filtered(last, (), _Pass(last))
    yield "filters go towards the sources", plan
    plan = _limited(plan, None, _Pass(plan))
    yield "limits go towards the sources", plan
    yield "columns that nobody asks for are not made", _pruned(plan, None, _Pass(plan))


class _Pass:
    """One rule over a whole plan. made: what became of a node, by what was asked of it, so that it becomes one node for both."""

    def __init__(self, last: logical.Node) -> None:
        every = logical.each(last)
        uses = collections.Counter(one for node in every for one in node.inputs)
        costly: set[logical.Node] = set()
        for node in every:
            if not isinstance(node, _CHEAP) or any(one in costly for one in node.inputs):
                costly.add(node)
        self.fixed = {node for node in costly if uses[node] > 1}
        self.made: dict[tuple[logical.Node, Any], tuple[Any, logical.Node]] = {}


_CHEAP = (
    logical.Read,
    logical.FromBlocks,
    logical.Project,
    logical.Rename,
    logical.Filter,
    logical.Limit,
    logical.Union,
)


def _memoized(
    rule: Callable[[logical.Node, Any, _Pass], logical.Node],
) -> Callable[[logical.Node, Any, _Pass], logical.Node]:
    @functools.wraps(rule)
    def applied(node: logical.Node, asked: Any, seen: _Pass) -> logical.Node:
        key = (node, tuple(map(id, asked)) if isinstance(asked, tuple) else asked)
        if key not in seen.made:
            # with what was asked, whose ids are nobody else's as long as it is there
            seen.made[key] = asked, rule(node, asked, seen)
        return seen.made[key][1]

    return applied


# ---------------------------------------------------------------------------------------------------------------------
# Filters go towards the sources.


@_memoized
def _filtered(node: logical.Node, parts: tuple[nodes.Node, ...], seen: _Pass) -> logical.Node:
    """The node with only those rows for which all parts are true."""
    if parts and node in seen.fixed:
        return logical.Filter(input=_filtered(node, (), seen), expression=Expr(nodes.conjunction(parts)))
    if isinstance(node, logical.Filter) and node.means == logical.Means():
        return _filtered(node.input, (*nodes.conjuncts(nodes.tree(node.expression)), *parts), seen)
    below: tuple[tuple[nodes.Node, ...], ...] = tuple(() for _ in node.inputs)
    above = parts
    first_left = _first_fixed(parts)  # what is behind a part that stays may not overtake it: it might fail without
    movable, fixed = parts[:first_left], parts[first_left:]
    if isinstance(node, logical.Read) and parts and node.limit is None:
        return _into_read(node, parts)
    if isinstance(node, logical.Project) and node.means == logical.Means() and not is_placed(node):
        below, above = _through_project(node, movable, fixed)
    elif isinstance(node, logical.Rename):
        old = {new: nodes.Column(name) for name, new in node.names.items()}
        below, above = (tuple(nodes.substitute(one, old) for one in movable),), fixed
    elif isinstance(node, logical.Sort) and node.limit is None:
        below, above = (movable,), fixed
    elif isinstance(node, logical.Union):
        if _have_alike(node, movable):
            below, above = (movable,) * len(node.inputs), fixed
    elif isinstance(node, logical.Join):
        below, above = _through_join(node, movable, fixed)
    elif isinstance(node, logical.Aggregate | logical.Distinct):
        down, stay = _through_groups({*(node.keys or ())}, movable)
        below, above = (down,), (*stay, *fixed)
    inputs = [_filtered(one, some, seen) for one, some in zip(node.inputs, below, strict=True)]
    made = node.with_inputs(inputs)
    return logical.Filter(input=made, expression=Expr(nodes.conjunction(above))) if above else made


def _first_fixed(parts: tuple[nodes.Node, ...]) -> int:
    return next((index for index, one in enumerate(parts) if not _is_movable(one)), len(parts))


def _is_movable(node: nodes.Node) -> bool:
    return nodes.is_deterministic(node) and not any(isinstance(one, nodes.UdfCall) for one in nodes.walk(node))


def is_placed(node: logical.Project) -> bool:
    """Something in it goes by which row of a block a row is."""
    trees = (nodes.tree(one) for one in node.expressions)
    return any(isinstance(part, nodes.Generated) for tree in trees for part in nodes.walk(tree))


def _have_alike(node: logical.Union, parts: tuple[nodes.Node, ...]) -> bool:
    """All inputs have the columns that the parts read, of the types that they have behind the union: `1 / x` of integers fails
    where that of floats does not."""
    whole = schemas.of(node)
    if whole is None:
        return False
    wanted = {name for one in parts for name in nodes.columns_of(one)}
    if not wanted <= {*whole.names}:
        return False
    for found in map(schemas.of, node.inputs):
        if found is None or not all(
            name in found.names and found.field(name).type.equals(whole.field(name).type) for name in wanted
        ):
            return False
    return True


def _into_read(node: logical.Read, parts: tuple[nodes.Node, ...]) -> logical.Node:
    source, residual = node.source.with_filter(Expr(nodes.conjunction(parts)))
    made = dataclasses.replace(node, source=source)
    return made if residual is None else logical.Filter(input=made, expression=residual)


def _through_project(
    node: logical.Project, movable: tuple[nodes.Node, ...], fixed: tuple[nodes.Node, ...]
) -> tuple[tuple[tuple[nodes.Node, ...], ...], tuple[nodes.Node, ...]]:
    """A part that looks at columns that are passed on or cheaply made goes below, in terms of what these are made of."""
    has_star = any(isinstance(nodes.tree(one), nodes.Star) for one in node.expressions)
    made: dict[str, nodes.Node] = {}
    for expr in node.expressions:
        tree = nodes.tree(expr)
        name = nodes.name_of(tree)
        if name is not None:
            made[name] = nodes.unaliased(tree)
    down: list[nodes.Node] = []
    stay: list[nodes.Node] = []
    for part in movable:
        names = nodes.columns_of(part)
        is_known = all(name in made or (has_star and name not in node.dropped) for name in names)
        if is_known and not stay and all(_is_movable(made[name]) for name in names if name in made):
            down.append(nodes.substitute(part, {name: made[name] for name in names if name in made}))
        else:
            stay.append(part)
    return (tuple(down),), (*stay, *fixed)


def _through_groups(
    keys: set[str], movable: tuple[nodes.Node, ...]
) -> tuple[tuple[nodes.Node, ...], tuple[nodes.Node, ...]]:
    """A part that looks at keys only goes below, unless it may fail and is behind one that stays and may keep it from that."""
    down: list[nodes.Node] = []
    stay: list[nodes.Node] = []
    for part in movable:
        is_of_keys = keys and {*nodes.columns_of(part)} <= keys
        (down if is_of_keys and not (stay and evaluate.may_fail(part)) else stay).append(part)
    return tuple(down), tuple(stay)


def _through_join(
    node: logical.Join, movable: tuple[nodes.Node, ...], fixed: tuple[nodes.Node, ...]
) -> tuple[tuple[tuple[nodes.Node, ...], ...], tuple[nodes.Node, ...]]:
    """To the side that all its columns come from unchanged, where rows of that side are not made up by the join. Not what may
    fail: below it would see rows that the join leaves out, of one without a partner, say."""
    left, right = schemas.of(node.left), schemas.of(node.right)
    if left is None or right is None:
        return ((), ()), (*movable, *fixed)
    names = _sides_of(node, left.names, right.names)
    of_left = node.how in ("inner", "left_outer", "left_semi", "left_anti")
    of_right = node.how in ("inner", "right_outer", "right_semi", "right_anti")
    down: tuple[list[nodes.Node], list[nodes.Node]] = ([], [])
    stay: list[nodes.Node] = []
    for part in movable:
        read = {one: names.get(one, ("", "")) for one in nodes.columns_of(part)}
        sides = {side for side, _ in read.values()}
        inner = nodes.substitute(part, {one: nodes.Column(name) for one, (_, name) in read.items()})
        if evaluate.may_fail(part):
            stay.append(part)
        elif sides == {"left"} and of_left:
            down[0].append(inner)
        elif sides == {"right"} and of_right:
            down[1].append(inner)
        else:
            stay.append(part)
    return (tuple(down[0]), tuple(down[1])), (*stay, *fixed)


# ---------------------------------------------------------------------------------------------------------------------
# Limits too; a sort of which only the first rows are wanted keeps no others.


@_memoized
def _limited(node: logical.Node, limit: int | None, seen: _Pass) -> logical.Node:
    """The node, of which no more rows than these are wanted."""
    limit = None if node in seen.fixed else limit
    if isinstance(node, logical.Limit):
        least = node.row_count if limit is None else min(limit, node.row_count)
        schema = schemas.of(node) if not least else None
        if schema is not None:
            return _no_rows(schema)
        return dataclasses.replace(node, row_count=least, input=_limited(node.input, least, seen))
    if isinstance(node, logical.Sort) and limit is not None and limit <= TOP_ROWS_MAX:
        least = limit if node.limit is None else min(limit, node.limit)
        return dataclasses.replace(node, limit=least, input=_limited(node.input, None, seen))
    if isinstance(node, logical.Read) and limit is not None:
        least = limit if node.limit is None else min(limit, node.limit)
        return dataclasses.replace(node, source=node.source.with_limit(least), limit=least)
    one_by_one = isinstance(node, logical.Project | logical.Rename | logical.Zip) or (
        isinstance(node, logical.MapRows) and node.kind == "map" and node.on_error == "raise"
    )
    passed = limit if one_by_one or isinstance(node, logical.Union) else None
    return node.with_inputs([_limited(one, passed, seen) for one in node.inputs])


def _no_rows(schema: pa.Schema) -> logical.Node:
    return logical.FromBlocks(blocks=[stages.Block(schema.empty_table(), stages.Metadata(0, 0, schema))], what="NoRows")


# ---------------------------------------------------------------------------------------------------------------------
# Columns that nobody asks for are not made.


@_memoized
def _pruned(node: logical.Node, wanted: Columns, seen: _Pass) -> logical.Node:
    """The node with these columns at least."""
    wanted = None if node in seen.fixed else _some(node, wanted)
    if isinstance(node, logical.Read):
        return _narrow_read(node, wanted)
    if isinstance(node, logical.Project):
        return _narrow_project(node, wanted, seen)
    if isinstance(node, logical.Rename):
        old = {new: name for name, new in node.names.items()}
        asked = None if wanted is None else frozenset(old.get(one, one) for one in wanted) | {*node.names}
        return node.with_inputs([_pruned(node.input, asked, seen)])
    if isinstance(node, logical.Filter):
        return node.with_inputs(
            [_pruned(node.input, _with(wanted, nodes.columns_of(nodes.tree(node.expression))), seen)]
        )
    if isinstance(node, logical.Limit | logical.Sample | logical.RandomizeBlocks):
        return node.with_inputs([_pruned(node.input, wanted, seen)])
    if isinstance(node, logical.Sort):
        return node.with_inputs([_only(node.input, _with(wanted, node.keys), seen)])
    if isinstance(node, logical.RandomShuffle | logical.Repartition):
        keys = node.keys if isinstance(node, logical.Repartition) else ()
        return node.with_inputs([_only(node.input, _with(wanted, keys), seen)])
    if isinstance(node, logical.Aggregate):
        columns = grouping.Grouping(node.keys, node.aggregates).input_columns()
        return node.with_inputs([_only(node.input, None if columns is None else frozenset(columns), seen)])
    if isinstance(node, logical.Distinct) and node.keys is not None:
        return node.with_inputs([_only(node.input, _with(wanted, node.keys), seen)])
    if isinstance(node, logical.Join):
        return _narrow_join(node, wanted, seen)
    return node.with_inputs([_pruned(one, None, seen) for one in node.inputs])


def _some(node: logical.Node, wanted: Columns) -> Columns:
    """One column of the node at least, since without any there would be no rows."""
    if wanted is None or wanted:
        return wanted
    schema = schemas.of(node)
    return None if schema is None else frozenset(schema.names[:1])


def _with(wanted: Columns, more: Iterable[str]) -> Columns:
    return None if wanted is None else wanted | {*more}


def _only(node: logical.Node, wanted: Columns, seen: _Pass) -> logical.Node:
    """In front of what carries rows from place to place: no others than these."""
    wanted = _some(node, wanted)
    found = _pruned(node, wanted, seen)
    schema = schemas.of(found)
    if wanted is None or schema is None or {*schema.names} <= wanted:
        return found
    kept = [name for name in schema.names if name in wanted]
    return logical.Project(input=found, expressions=tuple(Expr(nodes.Column(name)) for name in kept))


def _narrow_read(node: logical.Read, wanted: Columns) -> logical.Node:
    schema = node.source.schema()
    if wanted is None or schema is None:
        return node
    kept = [name for name in schema.names if name in wanted]
    source = node.source.with_columns(kept) if len(kept) < len(schema.names) else None
    return node if source is None else dataclasses.replace(node, source=source)


def _narrow_project(node: logical.Project, wanted: Columns, seen: _Pass) -> logical.Node:
    kept = [
        one
        for one in node.expressions
        if wanted is None or isinstance(nodes.tree(one), nodes.Star) or nodes.name_of(nodes.tree(one)) in wanted
    ]
    has_star = any(isinstance(nodes.tree(one), nodes.Star) for one in kept)
    read = {name for one in kept for name in nodes.columns_of(nodes.tree(one))}
    made = {nodes.name_of(nodes.tree(one)) for one in kept}
    asked: Columns = frozenset(read)
    if has_star:
        asked = None if wanted is None else frozenset({one for one in wanted if one not in made} | read)
    changed = dataclasses.replace(node, expressions=tuple(kept))
    return changed.with_inputs([_pruned(node.input, asked, seen)])


def _narrow_join(node: logical.Join, wanted: Columns, seen: _Pass) -> logical.Node:
    left, right = schemas.of(node.left), schemas.of(node.right)
    if wanted is None or left is None or right is None:
        return node.with_inputs([_pruned(one, None, seen) for one in node.inputs])
    names = _sides_of(node, left.names, right.names)
    of_left = {*node.left_on} | {names[one][1] for one in wanted if one in names and names[one][0] == "left"}
    of_right = {*node.right_on} | {names[one][1] for one in wanted if one in names and names[one][0] == "right"}
    # A name that both have gets its suffix only while both have it.
    both = {*left.names} & {*right.names} - {*node.right_on}
    of_left, of_right = of_left | both & of_right, of_right | both & of_left
    return node.with_inputs([_only(node.left, frozenset(of_left), seen), _only(node.right, frozenset(of_right), seen)])


def _sides_of(node: logical.Join, left: list[str], right: list[str]) -> Mapping[str, tuple[str, str]]:
    """Each column of the result: of which side it is, and what it is called there. Keys of the right are not among them."""
    if node.how.endswith(("_semi", "_anti")):
        side, own = ("left", left) if node.how.startswith("left") else ("right", right)
        return {one: (side, one) for one in own}
    others = [one for one in right if one not in node.right_on]
    both = {*left} & {*others}
    found = {f"{one}{node.left_suffix or ''}" if one in both else one: ("left", one) for one in left}
    return {**found, **{f"{one}{node.right_suffix or ''}" if one in both else one: ("right", one) for one in others}}
