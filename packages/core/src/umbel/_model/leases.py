"""Who leads a cluster."""

from __future__ import annotations

from typing import NamedTuple


class Lease(NamedTuple):
    """As a control storage has told it.

    holder: who leads; "" when nobody does. fencing: the number of this lease, or of the last one that there was; 0 before
    the first. remaining_s: for how long, if it is not renewed, seen from the storage's answer; 0 when nobody leads.
    """

    holder: str
    fencing: int
    remaining_s: float
