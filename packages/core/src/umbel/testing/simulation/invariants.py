"""The invariants that the simulator checks by its own books; docs/invariants.md says each in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INVARIANTS: Final[Mapping[str, str]] = {
    "R1": "no internal error",
    "R2": "everything comes to rest",
    "O1": "counts are right",
    "O2": "listed while needed",
    "O7": "kept while counted",
    "O8": "known to the owner before the protector lets go",
    "O9": "freed when nobody counts",
    "O10": "the dead borrow nothing",
    "O11": "borrows add up",
    "O12": "every wait ends",
    "O13": "the right error",
    "D4": "what never started is not charged",
    "D5": "a task runs again only after a crash",
    "D6": "every task ends once, as it should",
    "D7": "nothing is left of what has ended",
    "D8": "what was cancelled is not sent",
    "A1": "whoever leaves is not used",
    "A2": "one user at a time",
    "A3": "no more given than there is",
    "A4": "a device is given once",
    "A7": "whoever can be served is served",
    "A9": "the user is told of the end",
    "A12": "time goes on",
    "A13": "everything comes back",
    "T2": "one creation, one answer's actor",
    "T3": "one host at a time",
    "T5": "no more restarts than allowed",
    "T6": "a watcher sees the actor's life",
    "T7": "what shall end ends, the rest lives",
    "T8": "the dead are forgotten",
    "T9": "everybody is answered once",
    "C1": "calls begin in order",
    "C3": "a call runs again only after a crash",
    "C5": "every call ends once, as it should",
    "C6": "a cancelled call is not sent again",
    "C7": "who has killed an actor for good reaches it no more",
    "M1": "no more calls at once than allowed",
    "M4": "what is over does not begin",
}
