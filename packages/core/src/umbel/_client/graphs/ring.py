"""Which slot of a channel is written or read next.

A channel has `slots` places of equal size, which one process writes and one other reads, in turn. Each side counts what
it has done and sees the other's count, perhaps late; the counts only grow, so that what is seen late is safe: a writer
takes a slot for full, or a reader for empty, a moment too long. Once the channel is closed nothing more is written;
what was written can still be read. This module only decides; `channels` reads and writes the counts and the slots.
"""

from __future__ import annotations

from umbel._base import checks


class WriterSide:
    """What the writer knows. `written` is its own count, in messages."""

    __slots__ = ("slots", "written")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.written = 0

    def may_write(self, read: int) -> bool:
        """Whether there is a free slot, the reader having been seen at `read`."""
        unread = self.written - read
        if 0 <= unread < self.slots:
            return True
        checks.invariant(unread == self.slots, "a channel's counts disagree", written=self.written, read=read)
        return False

    def slot(self) -> int:
        """The index of the slot to write next."""
        return self.written % self.slots

    def wrote(self) -> int:
        """The slot is filled; the count to publish."""
        self.written += 1
        return self.written


class ReaderSide:
    """What the reader knows. `read` is its own count, in messages."""

    __slots__ = ("read", "slots")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.read = 0

    def may_read(self, written: int) -> bool:
        """Whether there is a message, the writer having been seen at `written`."""
        return written > self.read

    def slot(self) -> int:
        """The index of the slot to read next."""
        return self.read % self.slots

    def took(self) -> int:
        """The slot's message was taken out; the count to publish."""
        self.read += 1
        return self.read
