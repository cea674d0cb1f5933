"""What this process reports of the tasks it has submitted, once they have ended.

The owner reports, not the worker: it knows when a task was submitted, all its attempts and those that never ran, and
what has ended is not forgotten with the worker that ran it. A task costs a few tenths of a microsecond; the rest is done
once a second. The caller holds the engine's lock.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import links
from umbel._client.task import Task, Template
from umbel._history import codes

if TYPE_CHECKING:
    from umbel._base import config as configuration
    from umbel._history import batches  # is loaded with the first report: the start of a session does without

REPORT_PERIOD_S = 1.0  # between reports; whoever asks is answered with what is not reported yet as well
FIRST_REPORT_S = 0.2  # from a process's start: an actor that is killed at once should not have spent its time on one
MESSAGE_CHARS_MAX = 4_096  # of an error, kept with its task; the end of a traceback says most
LOOSE_MAX = 500 * codes.WIDTH  # about what a tick brings at the highest rates
FINISHED, FAILED = codes.FINISHED, codes.FAILED
_ERROR_TYPES = {
    "UmbelTaskError": "TASK_EXECUTION_EXCEPTION",
    "WorkerCrashedError": "WORKER_DIED",
    "TaskCancelledError": "TASK_CANCELLED",
    "ActorDiedError": "ACTOR_DIED",
    "ActorUnavailableError": "ACTOR_UNAVAILABLE",
    "ActorUnschedulableError": "ACTOR_UNSCHEDULABLE_ERROR",
    "TaskUnschedulableError": "TASK_UNSCHEDULABLE_ERROR",
    "TaskPlacementGroupRemoved": "TASK_PLACEMENT_GROUP_REMOVED",
    "ActorPlacementGroupRemoved": "ACTOR_PLACEMENT_GROUP_REMOVED",
    "RuntimeEnvSetupError": "RUNTIME_ENV_SETUP_FAILED",
    "OwnerDiedError": "OWNER_DIED",
    "ObjectLostError": "OBJECT_LOST",
    "ObjectFreedError": "OBJECT_FREED",
    "ObjectReconstructionFailedError": "OBJECT_UNRECONSTRUCTABLE",
    "OutOfMemoryError": "OUT_OF_MEMORY",
    "OutOfDiskError": "OUT_OF_DISK_ERROR",
    "LocalNodeDiedError": "LOCAL_RAYLET_DIED",
    "NodeDiedError": "NODE_DIED",
}  # our classes, and what Ray calls them in its listings


# What `TaskRecorder.constructed` is told.
_Construction = tuple[bytes, str, bytes, int, tuple[float, float, float], bytes, str]


class Last:
    """What ended last at a worker: the next with the same template and parent is of the same group, and `add` takes it.

    template: None once this is out of date."""

    __slots__ = ("add", "group", "parent", "template")

    def __init__(self, template: Template, parent: Any, group: int, rows: list[Any]) -> None:
        self.template: Template | None = template
        self.parent = parent
        self.group = group
        self.add = rows.extend


class TaskRecorder:
    """The ended tasks of one owner that have not been reported.

    `rows` is a flat list, so that the commonest case, a task like the one before, costs one extension of a list, which
    `Tasks.on_reply` makes itself.
    """

    def __init__(self, process_id: bytes, job: str) -> None:
        self._owner = process_id.hex()
        self._job = job
        self._constructions: list[_Construction] = []
        self.rows: list[Any] = []
        self._lasts: list[Last] = []
        self._begin()

    def _begin(self) -> None:
        for last in self._lasts:
            last.template = last.parent = None  # groups get other numbers
        self._lasts.clear()
        self._values = codes.new_values()
        self._groups: dict[tuple[int, ...], int] = {}  # as `batches.Group`
        self._templates: dict[int, int] = {}
        self._described: list[Template] = []
        self._workers: dict[bytes, int] = {}
        self._parents: dict[Any, int] = {}
        self._failures: list[tuple[int, str, str]] = []  # as `batches.Failure`

    def ended(self, task: Task, peer: bytes, state: int, duration_s: float | None, ended_s: float) -> Any:
        """An attempt of a task has ended. peer: the worker that ran it, or b"" for none; duration_s: None when nobody
        knows how long it has run; ended_s: seconds since 1970. Returns a Last, for a next one that finishes there."""
        template = task.template
        number = self._templates.get(template.index)
        if number is None:
            number = self._describe(template)
        if not number:
            return links.NOTHING_RECORDED
        parent = task.parent
        group = (
            number,
            self._number(self._workers, peer) if peer else 0,
            self._number(self._parents, parent) if parent is not None else 0,
            task.attempt,
            state,
        )
        found = self._groups.setdefault(group, len(self._groups))
        duration_s = codes.UNKNOWN_S if duration_s is None else duration_s
        self.rows += (found, task.seq, task.submitted_s, duration_s, ended_s)
        if task.attempt:
            return links.NOTHING_RECORDED
        last = Last(template, parent, found, self.rows)
        self._lasts.append(last)
        return last

    def failed(self, task: Task, peer: bytes, blob: bytes, duration_s: float | None, ended_s: float) -> None:
        """The same of one that failed. blob: its error, of which only the text is read."""
        if self._templates.get(task.template.index) or self._describe(task.template):
            self.compact()
            self._failures.append((len(self._values) // codes.WIDTH, *error_of(blob)))
            self.ended(task, peer, FAILED, duration_s, ended_s)

    def constructed(
        self,
        actor: bytes,
        class_name: str,
        peer: bytes,
        attempt: int,
        times: tuple[float, float, float],
        error: bytes,
        call_site: str = "",
    ) -> None:
        """A constructor has returned or, with an error, failed, in this process. times: when it was submitted, began
        and ended; 0.0 for unknown. call_site: of its submission, if that was recorded."""
        self._constructions.append((actor, class_name, peer, attempt, times, error, call_site))  # not read yet

    def _batch_of(self, construction: _Construction) -> bytes:
        actor, class_name, peer, attempt, times, error, call_site = construction
        submitted_s, began_s, ended_s = times
        from umbel._history import batches

        function = f"{class_name}.__init__"
        seq = int.from_bytes(actor[16:], "big")
        duration_s = ended_s - began_s if began_s else codes.UNKNOWN_S
        batch = batches.Batch(
            owner=actor[:16].hex(),
            job=self._job,
            templates=[batches.Template(function, function, codes.CREATION, actor.hex(), call_site=call_site)],
            workers=[peer.hex()],
            parents=[],
            groups=[batches.Group(1, 1, 0, attempt, FAILED if error else FINISHED)],
            failures=[batches.Failure(0, "ACTOR_CREATION_FAILED", error_of(error)[1])] if error else [],
            values=codes.new_values([0, seq, submitted_s, duration_s, ended_s]),
        )
        return batches.encode(batch)

    def _told_templates(self) -> list[batches.Template]:
        return [described(template) for template in self._described]

    def _describe(self, template: Template) -> int:
        if not template.announcement.get("events", True):
            self._templates[template.index] = 0
            return 0
        self._described.append(template)
        self._templates[template.index] = len(self._described)
        return len(self._described)

    @staticmethod
    def _number(known: dict[Any, int], key: Any) -> int:
        return known.setdefault(key, len(known) + 1)

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self._values and not self._constructions

    @property
    def is_full(self) -> bool:
        """Whether there is so much that it should not wait for the next report."""
        return len(self._values) >= codes.ROWS_MAX * codes.WIDTH

    @property
    def is_loose(self) -> bool:
        """Whether `compact` is worth while."""
        return len(self.rows) >= LOOSE_MAX

    def compact(self) -> None:
        """Keep numbers instead of objects: what is kept as objects is memory that the next tasks do not use again."""
        if self.rows:
            self._values.frombytes(struct.pack(f"{len(self.rows)}{codes.ARRAY_CODE}", *self.rows))  # half of `fromlist`
            self.rows.clear()  # and not another list: each `Last` adds to this one

    def take(self) -> list[tuple[int, bytes]]:
        """All that was not reported: (how many tasks, batch) each."""
        constructions, self._constructions = self._constructions, []
        taken = [(1, self._batch_of(one)) for one in constructions]
        self.compact()
        if self._values:
            from umbel._history import batches

            batch = batches.Batch(
                owner=self._owner,
                job=self._job,
                templates=self._told_templates(),
                workers=[worker.hex() for worker in self._workers],
                parents=[parent_id(parent) for parent in self._parents],
                groups=[batches.Group(*group) for group in self._groups],
                failures=[batches.Failure(*failure) for failure in self._failures],
                values=self._values,
            )
            self._begin()
            taken.append((batch.row_count, batches.encode(batch)))
        return taken


def make(process_id: bytes, job: str, config: configuration.Config) -> TaskRecorder | None:
    """None where nothing is recorded."""
    if not config.task_events:
        return None
    if not config.record_call_sites:
        return TaskRecorder(process_id, job)
    from umbel._client import call_sites  # what few programs ask for is not imported for all

    return call_sites.SiteRecorder(process_id, job)


def described(template: Template) -> batches.Template:
    from umbel._history import batches

    facts = template.announcement
    if "method" in facts:
        function = f"{facts['class_name']}.{facts['method']}"
        return batches.Template(template.name, function, codes.CALL, facts["actor"])
    resources = {name: units / 10_000 for name, units in facts.get("resources", {}).items()}
    env = facts.get("env")
    return batches.Template(
        template.name,
        facts.get("function", template.name),
        codes.NORMAL,
        "",
        json.dumps(resources, sort_keys=True),
        json.dumps(env, sort_keys=True) if env else "",
    )


def parent_id(parent: Any) -> str:
    """The task that a parent, which is a running execution of this process, is."""
    found: bytes = parent.link.peer + parent.seq.to_bytes(8, "big")
    return found.hex()


def error_of(blob: bytes) -> tuple[str, str]:
    """(type as in listings, text) of an error as it travels. Does not build the error, which may run its own code."""
    try:
        summary = exceptions.summary_of_dump(blob)
    except Exception:  # what cannot be read is not worth more than its task
        return "TASK_EXECUTION_EXCEPTION", ""
    name, _, message = summary.partition(": ")
    if len(message) > MESSAGE_CHARS_MAX:
        message = "... " + message[-MESSAGE_CHARS_MAX:]
    return _ERROR_TYPES.get(name.rpartition(".")[2], "TASK_EXECUTION_EXCEPTION"), message
