"""The numbers and words by which ended tasks are reported, and the array that they travel in.

What a process needs before it has anything to report; `batches` has the rest, which takes a millisecond to load.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

# Of a task: group, seq, submitted, duration, ended; seconds; -1.0 for a duration, 0.0 for a time, that is unknown. All are
# floats, which count exactly to nine quadrillion, because one array of a list is made quicker than five.
WIDTH = 5
GROUP, SEQ, SUBMITTED, DURATION, ENDED = range(WIDTH)
ROWS_MAX = 8192  # of a batch, about: some 300 kB, which the store takes in one transaction of less than 0.1 s
UNKNOWN_S = -1.0
ARRAY_CODE = "d"  # in the machine's own order: nothing leaves it

FINISHED, FAILED = 1, 2
STATES = {FINISHED: "FINISHED", FAILED: "FAILED"}
NORMAL, CREATION, CALL = "NORMAL_TASK", "ACTOR_CREATION_TASK", "ACTOR_TASK"


def new_values(values: Sequence[float] = ()) -> array[float]:
    return array(ARRAY_CODE, values)
