"""The type of an expression, found before anything runs.

The type is that of its value for no rows, so the two cannot disagree; whether it may be null is found from the
functions that it is made of, and errs on the side of null.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyarrow import types as at

from umbel.data._expressions import errors, evaluate, functions, nodes, printing


def field_of(expr: nodes.Tree, schema: pa.Schema) -> pa.Field:
    """Named by its alias or column, "" if it has neither. A column keeps its metadata.

    Raises ExpressionTypeError for operations that its types do not have, UnknownColumnError, or ExpressionError for
    literals that have no value together.
    """
    node = nodes.tree(expr)
    return field(nodes.name_of(node) or "", node, type_of(node, schema), schema)


def schema_of(exprs: Sequence[nodes.Tree], schema: pa.Schema) -> pa.Schema:
    """The schema of a projection. Raises what `field_of` raises, and ValueError for a column without a name or two of one."""
    fields = [field(name, node, type_of(node, schema), schema) for name, node in outputs(exprs, schema)]
    return pa.schema(fields, schema.metadata)


def check_filter(expr: nodes.Tree, schema: pa.Schema) -> None:
    """Raises what `field_of` raises, and ExpressionTypeError for what is not boolean."""
    node = nodes.tree(expr)
    demand_filter(node, type_of(node, schema))


def demand_filter(node: nodes.Node, type_: pa.DataType) -> None:
    if not at.is_boolean(type_) and not at.is_null(type_):
        raise errors.ExpressionTypeError(
            f"a filter has to be boolean, {printing.brief(node)} is {type_}; compare it with something"
        )


def type_of(node: nodes.Node, schema: pa.Schema) -> pa.DataType:
    return evaluate.value_of(node, evaluate.Frame(None, schema, 0)).type


def field(name: str, node: nodes.Node, type_: pa.DataType, schema: pa.Schema) -> pa.Field:
    inner = nodes.unaliased(node)
    if isinstance(inner, nodes.Column):
        return schema.field(inner.name).with_name(name)
    return pa.field(name, type_, is_nullable(inner, schema))


def is_nullable(node: nodes.Node, schema: pa.Schema) -> bool:
    """False: it is never null, if columns that the schema calls so are not."""
    if isinstance(node, nodes.Column):
        return bool(schema.field(node.name).nullable)
    if isinstance(node, nodes.Literal):
        return not node.scalar.is_valid
    if isinstance(node, nodes.Case):
        return any(is_nullable(one, schema) for one in (*node.values, node.otherwise))
    if isinstance(node, nodes.Call):
        nullability = functions.FUNCTIONS[node.function].nullability
        if nullability != "any":
            return nullability == "always"
        nullable = [is_nullable(arg, schema) for arg in node.args]
        return all(nullable) if node.function == "coalesce" else any(nullable)
    if isinstance(node, nodes.Alias):
        return is_nullable(node.node, schema)
    return not isinstance(node, nodes.Generated)


def outputs(exprs: Sequence[nodes.Tree], schema: pa.Schema) -> list[tuple[str, nodes.Node]]:
    """The columns of a projection. One that is named as a column of `star()` takes its place.

    Raises ValueError for an expression without a name, and for two of one name.
    """
    found: dict[str, nodes.Node] = {}
    of_star: set[str] = set()
    for expr in exprs:
        node = nodes.tree(expr)
        if isinstance(node, nodes.Star):
            of_star.update(schema.names)
            for name in schema.names:
                found.setdefault(name, nodes.Column(name))
            continue
        named = nodes.name_of(node)
        if named is None:
            raise ValueError(f"the column {printing.brief(node)} has no name; end it with .alias('name')")
        if named in found and named not in of_star:
            raise ValueError(f"two columns are called {named!r}; give one another name with .alias()")
        of_star.discard(named)
        found[named] = node
    return list(found.items())
