"""What of the history waits in the daemon, and what has become of the rest.

Entries are kept here until there are enough of them, or somebody asks, to be worth a process that stores them; so a
short session never has one. Once there is one, batches of tasks are handed over at once, and with them what is noted of
workers and actors, or when there is much of that: to store each note by itself costs as much as a tenth of starting a worker.
What was handed over counts as stored once the recorder has said so. When it dies, or does not keep up, what is lost is
counted, and the count is stored with the next entry. This module only decides.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from umbel._base import checks

KEPT_BYTES = 1 << 20  # without a recorder: some 20,000 tasks, in less memory than a recorder would take
NOTED_BYTES_MAX = 1 << 16  # kept with a recorder, of notes without a batch: some 200
BEHIND_BYTES_MAX = 64 << 20  # handed over and not taken: over a million tasks; a recorder takes far more in a second


class Entry(NamedTuple):
    """Something to store together, encoded: a batch and how many ended tasks it tells of, or notes."""

    parts: list[bytes]
    task_count: int
    is_notes: bool = False


class Spool:
    """The machine. Times do not matter to it."""

    def __init__(self) -> None:
        self.waiting: deque[Entry] = deque()
        self.waiting_bytes = 0
        self.is_recording = False  # there is a recorder
        self.unconfirmed: deque[int] = deque()  # task counts of what was handed over, and of what it was told is lost
        self.lost_count = 0  # tasks that no recorder was told of yet

    def add_batch(self, batch: bytes, task_count: int, behind_bytes: int) -> bool:
        """Whether there is something to hand over. behind_bytes: of what was handed over and not taken yet."""
        if behind_bytes > BEHIND_BYTES_MAX:
            self.lost_count += task_count
            return False
        self.waiting.append(Entry([batch], task_count))
        self.waiting_bytes += len(batch)
        return self.is_recording or self.waiting_bytes > KEPT_BYTES

    def add_note(self, note: bytes, behind_bytes: int) -> bool:
        """As `add_batch`."""
        if behind_bytes > BEHIND_BYTES_MAX:
            return False
        if not self.waiting or not self.waiting[-1].is_notes:
            self.waiting.append(Entry([], 0, is_notes=True))
        self.waiting[-1].parts.append(note)
        self.waiting_bytes += len(note)
        return self.waiting_bytes > (NOTED_BYTES_MAX if self.is_recording else KEPT_BYTES)

    def hand_over(self) -> tuple[int, list[Entry]]:
        """(how many tasks were lost before, entries): for the recorder that is there now, which confirms that number, if
        it is not 0, and each entry."""
        self.is_recording = True
        entries = [*self.waiting]
        self.waiting.clear()
        self.waiting_bytes = 0
        lost, self.lost_count = self.lost_count, 0
        if lost:
            self.unconfirmed.append(lost)
        self.unconfirmed.extend(entry.task_count for entry in entries)
        return lost, entries

    def give_up(self) -> None:
        """There will be no recorder: what waits is lost."""
        self.lost_count += sum(entry.task_count for entry in self.waiting)
        self.waiting.clear()
        self.waiting_bytes = 0

    def confirmed(self) -> None:
        """The recorder has stored the entry that it got first of those it had."""
        checks.invariant(self.unconfirmed, "an entry was confirmed that was not handed over")
        self.unconfirmed.popleft()

    def refused(self) -> None:
        """The recorder could not store that entry."""
        checks.invariant(self.unconfirmed, "an entry was refused that was not handed over")
        self.lost_count += self.unconfirmed.popleft()

    def recorder_gone(self) -> None:
        """What it had not confirmed is lost."""
        self.lost_count += sum(self.unconfirmed)
        self.unconfirmed.clear()
        self.is_recording = False
