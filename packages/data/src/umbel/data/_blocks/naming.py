"""Names that are not there, and those that may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

NAMES_MAX: Final = 20  # in a message: a table may have thousands of columns


def hint(name: Any, known: Iterable[str]) -> str:
    """For the message about a name that is not among those that are known: the nearest of these, or all if none is near."""
    names = [*known]
    near = difflib.get_close_matches(str(name), names, n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    shown = ", ".join(map(repr, names[:NAMES_MAX])) or "none"
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return f"there are {shown}{more}"
