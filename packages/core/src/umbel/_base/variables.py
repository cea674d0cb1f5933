"""Environment variables that programs ask for: set in this process, and put back.

`${NAME}` and `$NAME` in a value stand for what NAME is in the process that is to have the variable, so that one can be
appended to. As in Ray, they are set in the order of their names, each seeing those before it; `${NAME}` in capitals is empty
where NAME is not set, and whatever else names nothing stays as it is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re  # takes longer to load than most sessions have use for

_REFERENCE = r"\$([A-Za-z0-9_]+|\{[^}]*\})"
_EMPTY_IF_UNSET = r"\$\{[A-Z0-9_]+\}"

Replaced = dict[str, str | None]  # what variables were before, None for those that were not there


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """`text` with what its references stand for."""
    if "$" not in text:
        return text
    import re

    def value(reference: re.Match[str]) -> str:
        found = environment.get(reference[1].strip("{}"))
        if found is not None:
            return found
        return "" if re.fullmatch(_EMPTY_IF_UNSET, reference[0]) else reference[0]

    return re.sub(_REFERENCE, value, text)


def put(given: Iterable[tuple[str, str]]) -> Replaced:
    """Set them. Returns what `put_back` takes to undo that."""
    replaced: Replaced = {}
    for name, text in sorted(given):
        replaced[name] = os.environ.get(name)
        os.environ[name] = expanded(text, os.environ)
    return replaced


def put_back(replaced: Mapping[str, str | None]) -> None:
    for name, text in replaced.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text
