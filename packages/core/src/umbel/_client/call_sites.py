"""Where references were made, and tasks and actors submitted: file, line and function of the program's own code.

Only with UMBEL_RECORD_CALL_SITES=1, which makes the session's processes use the table and the recorder below; without it
nothing is looked at. Looking costs 1 to 2 µs for each object.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from umbel._client import answers, links, recording
from umbel._objects import ownership

if TYPE_CHECKING:
    from umbel._client.task import Task, Template
    from umbel._history import batches

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


class SiteRecorder(recording.TaskRecorder):
    """Reports where tasks were submitted: what was submitted elsewhere is of another template."""

    def _begin(self) -> None:
        super()._begin()
        self._site = ""
        self._of_sites: dict[str, dict[int, int]] = {}
        self._sites: list[str] = []  # of the templates that are described

    def _at(self, task: Task) -> None:
        """The templates are those of its place from now on."""
        self._site = of_task(task)
        self._templates = self._of_sites.setdefault(self._site, {})

    def _describe(self, template: Template) -> int:
        number = super()._describe(template)
        if number:
            self._sites.append(self._site)
        return number

    def _told_templates(self) -> list[batches.Template]:
        told = super()._told_templates()
        return [one._replace(call_site=site) for one, site in zip(told, self._sites, strict=True)]

    def ended(self, task: Task, peer: bytes, state: int, duration_s: float | None, ended_s: float) -> Any:
        """As the other, but that none is like the one before: who takes that way looks at no place."""
        self._at(task)
        super().ended(task, peer, state, duration_s, ended_s)
        return links.NOTHING_RECORDED

    def failed(self, task: Task, peer: bytes, blob: bytes, duration_s: float | None, ended_s: float) -> None:
        self._at(task)
        super().failed(task, peer, blob, duration_s, ended_s)


def here() -> str:
    """The line of the program that has called us."""
    return answers.users_line(sys._getframe(1))


def of_task(task: Task) -> str:
    """Where a task was submitted; "" where that was not recorded, or for one without results."""
    return call_site(task.records[0]) if task.records else ""


def call_site(record: ownership.Record | None) -> str:
    """`file:line in function`; "" where it was not recorded, or in another process."""
    return getattr(record, "call_site", "")
