"""Where references were made: file, line and function of the program's own code.

Only with UMBEL_RECORD_CALL_SITES=1, which makes the session's processes use the table below; without it nothing is
looked at. Looking costs 1 to 2 µs for each object.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from umbel._client import answers
from umbel._objects import ownership

if TYPE_CHECKING:
    from umbel._client.task import Task

_FIRST = b"\0\0\0\0"  # the index of a task's first result


class RecordingTable(ownership.ReferenceTable):
    """Notes for each object that this process makes the line that made it: of `put`, or of `.remote()`."""

    def own(self, object_id: bytes) -> ownership.Record:
        record = super().own(object_id)
        # Items of a stream arrive while the program is anywhere; the line that counts is that of the call.
        first = self.records.get(object_id[:-4] + _FIRST)
        of_call = call_site(first) if first is not record else ""
        record.call_site = of_call or answers.users_line(sys._getframe(1))
        return record


def of_task(task: Task) -> str:
    """Where a task was submitted; "" where that was not recorded, or for one without results."""
    return call_site(task.records[0]) if task.records else ""


def call_site(record: ownership.Record | None) -> str:
    """`file:line in function`; "" where it was not recorded, or in another process."""
    return getattr(record, "call_site", "")
