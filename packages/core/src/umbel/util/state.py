"""What a session is doing, for programs: why something is not there yet.

`explain` is the whole of it in this version; the listings of tasks, actors and objects come with recorded events.
"""

from __future__ import annotations

from typing import Any

from umbel._client import current
from umbel._model.reasons import Reason as Reason

__all__ = ["Reason", "explain"]


def explain(target: Any) -> Reason:
    """Why what a reference stands for is not there yet, followed from process to process.

    `str()` of the answer is the story in words; `code` and `facts` are for programs, `because` is what it waits for in
    turn, `advice` what would unblock it. Asks each process of the story once and waits at most a second for it. Raises
    TypeError for anything but a reference of this session.
    """
    reason: Reason = current.engine().explain(target)
    return reason
