"""Errors of datasets.

What a user's function raises comes as a `UserCodeException` that is also an error of the class that was raised, so that
`except ZeroDivisionError` catches it too, and names the operator, the row or file, and the lines of the function.
"""

from __future__ import annotations

import warnings
from typing import Any

from umbel.data._expressions.errors import ExpressionError as ExpressionError
from umbel.data._expressions.errors import ExpressionOverflowError as ExpressionOverflowError
from umbel.data._expressions.errors import ExpressionTypeError as ExpressionTypeError
from umbel.data._expressions.errors import ExpressionZeroDivisionError as ExpressionZeroDivisionError
from umbel.data._expressions.errors import UnknownColumnError as UnknownColumnError
from umbel.data._sources.errors import FileReadError as FileReadError
from umbel.exceptions import UmbelSystemError as SystemException
from umbel.exceptions import UmbelTaskError as UserCodeException


def __getattr__(name: str) -> Any:
    if name == "RayDataUserCodeException":
        warnings.warn(f"{name} is Ray's name; use UserCodeException", DeprecationWarning, stacklevel=2)
        return UserCodeException
    advice = (
        ": no run ends because nothing moves; what it waits for is logged" if name == "ExecutionTimeoutError" else ""
    )
    raise AttributeError(f"umbel.data.exceptions has no {name!r}{advice}")


__all__ = [
    "ExpressionError",
    "ExpressionOverflowError",
    "ExpressionTypeError",
    "ExpressionZeroDivisionError",
    "FileReadError",
    "SystemException",
    "UnknownColumnError",
    "UserCodeException",
]
