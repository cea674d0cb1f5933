"""What can be wrong with an expression, before it runs and while it runs.

Functions of `functions` do not know the expression they are part of: they raise `Problem`, and `evaluate` makes of it the
error that names the expression.
"""

from __future__ import annotations

from collections.abc import Iterable

from umbel import exceptions
from umbel.data._blocks import naming


class ExpressionTypeError(exceptions.UmbelError, TypeError):
    """The expression asks for something that values of these types do not have. Raised before anything runs."""


class UnknownColumnError(exceptions.UmbelError, KeyError):
    """There is no such column. Raised before anything runs."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError's own would quote the whole message


class ExpressionError(exceptions.UmbelError, ValueError):
    """The expression has no value for this data, or cannot be read."""


class ExpressionOverflowError(ExpressionError, OverflowError):
    """The value does not fit into its type."""


class ExpressionZeroDivisionError(ExpressionError, ZeroDivisionError):
    """An integer was divided by zero."""


class Problem(Exception):
    """What is wrong, without the expression's text. kind: the error that it becomes. row: of those given, the first
    where it is so."""

    def __init__(
        self, message: str, kind: type[exceptions.UmbelError] = ExpressionTypeError, *, row: int | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.row = row


def unknown(name: str, names: Iterable[str], *, what: str = "column") -> str:
    """The message about a name that is not among `names`, with those nearest to it."""
    return f"there is no {what} {name!r}; {naming.hint(name, names)}"
