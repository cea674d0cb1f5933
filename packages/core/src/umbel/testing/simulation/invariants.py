"""The invariants that the simulator checks, by number; docs/invariants.md says each in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INVARIANTS: Final[Mapping[str, str]] = {
    "S1": "no internal error",
    "S2": "everything comes to rest",
    "O1": "kept while counted",
    "O2": "freed when nobody counts",
    "O3": "every wait ends",
    "O4": "the right error",
    "O5": "known to the owner before the protector lets go",
    "A1": "one user at a time",
    "A2": "no more given than there is",
    "A3": "a device is given once",
    "A4": "the user is told of the end",
    "A5": "whoever can be served is served",
    "A6": "time goes on",
    "A7": "everything comes back",
    "D1": "every task ends once, as it should",
    "D2": "a task runs again only after a crash",
    "D3": "nothing is left of what has ended",
    "D4": "what never started is not charged",
    "D5": "what was cancelled is not sent",
    "C1": "one creation, one answer's actor",
    "C2": "a watcher sees one life",
    "C3": "one host at a time",
    "C4": "everybody is answered and told",
    "C5": "no more restarts than allowed",
    "C6": "what shall end ends, the rest lives",
}
