"""Deliberate defects, each of which the simulator must find: a check that nothing finds anything in is no check."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple


class Planted(NamedTuple):
    """One defect. `machine`: which world it shows in. `rules`: the invariants that may break."""

    machine: str
    apply: Callable[[], contextlib.AbstractContextManager[None]]
    rules: tuple[str, ...]


@contextlib.contextmanager
def _replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


PLANTS: Final[Mapping[str, Planted]] = {}
